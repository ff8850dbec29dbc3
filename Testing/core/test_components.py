"""Specks beside a structure: found as a plain count of connected parts finds them, given to what they touch, and
nothing else changes.
"""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import ndimage

from mkd_core.inference import components as components
from mkd_core.structures import STRUCTURES


def _parts(labels):
    """Sizes of the face-connected parts of every structure, largest first, counted voxel by voxel."""
    found = {}
    for structure in STRUCTURES:
        labelled, count = ndimage.label(labels == structure.label)
        if count:
            found[structure.label] = sorted(np.bincount(labelled.ravel())[1:].tolist(), reverse=True)
    return found


def _patchwork(seed, shape):
    """Blobs of all structures with ragged borders, full of crumbs, up to every side of the array."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.standard_normal((8, *shape)), (0, 1.5, 1.5, 1.5)) + 0.1 * rng.standard_normal(
        (8, *shape)
    )
    return fields.argmax(axis=0).astype(np.uint8)


@pytest.mark.parametrize(
    ("seed", "shape"), [(0, (12, 20, 17)), (1, (1, 30, 30)), (2, (30, 1, 16)), (3, (16, 30, 1)), (4, (25, 25, 25))]
)
def test_pieces_are_those_of_a_count_voxel_by_voxel(seed, shape):
    labels = _patchwork(seed, shape)
    starts, ends, names, piece = components._pieces(labels)
    numbered = np.zeros(labels.size, np.int64)
    for start, end, name, number in zip(starts, ends, names, piece):
        assert (labels.ravel()[start:end] == name).all() and start // shape[2] == (end - 1) // shape[2], (
            "a run stays in its line"
        )
        numbered[start:end] = number + 1
    assert np.array_equal(numbered.reshape(shape) > 0, labels > 0)
    expected = np.zeros(shape, np.int64)
    for structure in STRUCTURES:
        labelled, _ = ndimage.label(labels == structure.label)
        expected[labelled > 0] = labelled[labelled > 0] + expected.max()
    pairs = np.unique(np.stack([numbered, expected.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1], "one to one"


@pytest.mark.parametrize("seed", range(5))
def test_no_speck_remains_and_only_specks_change(seed):
    labels = _patchwork(seed, (24, 26, 28))
    before = labels.copy()
    sizes = _parts(before)
    assert sum(size <= 6 for parts in sizes.values() for size in parts) > 20, "there is something to do"
    speck = np.zeros(labels.shape, bool)
    for structure in STRUCTURES:
        labelled, _ = ndimage.label(before == structure.label)
        counts = np.bincount(labelled.ravel())
        speck |= (labelled > 0) & (counts[labelled] <= 6)
    assert components.remove_small_components(labels, 6) == speck.sum()
    assert not ((labels != before) & ~speck).any() and (labels != before).any()
    left = _parts(labels)
    assert not [size for parts in left.values() for size in parts[1:] if size <= 6]
    assert all(left[label][0] >= parts[0] for label, parts in sizes.items())


def test_a_speck_goes_to_what_it_touches_most_and_a_larger_piece_stays():
    labels = np.zeros((9, 9, 20), np.uint8)
    labels[2:7, 2:7, 2:7] = 1
    labels[2:7, 2:7, 7:9] = 2
    labels[4, 4, 8] = 1  # in the second structure but for one face
    labels[4, 4, 15:19] = 1  # four voxels of background
    labels[0, 0, 0] = 3  # small, but all there is of it
    larger = labels.copy()
    assert components.remove_small_components(labels, 3) == 1
    assert labels[4, 4, 8] == 2 and (labels[4, 4, 15:19] == 1).all() and labels[0, 0, 0] == 3
    assert components.remove_small_components(larger, 4) == 5
    assert larger[4, 4, 8] == 2 and (larger[4, 4, 15:19] == 0).all() and larger[0, 0, 0] == 3


def test_voxels_at_opposite_sides_of_the_array_do_not_touch():
    labels = np.zeros((3, 3, 4), np.uint8)
    labels[0, 0, 3] = labels[0, 1, 0] = 1  # one after the other in memory
    labels[0, 2, :] = labels[1, 0, :] = 2  # last line of a plane and first of the next
    assert _parts(labels) == {1: [1, 1], 2: [4, 4]}
    piece = components._pieces(labels)[3]
    assert len(np.unique(piece)) == 4


def test_an_array_that_is_a_view_of_a_larger_one_is_changed_in_place():
    whole = np.zeros((10, 12, 14), np.uint8)
    labels = whole[::-1, 2:, ::-1]
    labels[2:6, 2:6, 2:6] = 4
    labels[8, 8, 8] = 4
    assert components.remove_small_components(labels, 1) == 1
    assert _parts(whole) == {4: [64]}


@pytest.mark.parametrize("value", [0, 3])
def test_an_even_volume_is_left_alone(value):
    labels = np.full((4, 5, 6), value, np.uint8)
    assert components.remove_small_components(labels, 10) == 0 and (labels == value).all()


@pytest.mark.parametrize("edges", [0, 1, 30, 60, 300])
def test_connected_nodes_are_those_of_a_library_and_numbered_in_their_order(edges):
    from scipy import sparse
    from scipy.sparse import csgraph

    rng = np.random.default_rng(edges)
    for _ in range(20):
        first, second = rng.integers(0, 60, (2, edges))
        graph = sparse.coo_matrix((np.ones(edges), (first, second)), shape=(60, 60))
        expected = csgraph.connected_components(graph, directed=False)[1]
        assert np.array_equal(components._connected(first, second, 60), expected)
    chain = np.roll(rng.permutation(60), 1)
    assert not components._connected(chain[1:], chain[:-1], 60).any()


def test_looking_for_pieces_loads_no_graph_library():
    script = (
        "import sys, numpy as np; from mkd_core.inference.components import remove_small_components;"
        "remove_small_components(np.ones((3, 4, 5), np.uint8), 2); assert 'scipy.sparse' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
