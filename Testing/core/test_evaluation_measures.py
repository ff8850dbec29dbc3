"""Measures against values worked out by hand, and what must hold for any two masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mkd_core.evaluation.measures import (
    Agreement,
    agreement,
    assd,
    dice,
    distribution,
    hd95,
    measure_case,
    surface_distances,
)
from mkd_core.structures import STRUCTURES

MASKS = arrays.arrays(bool, (5, 6, 7))
SPACINGS = st.tuples(*[st.floats(0.3, 4.0)] * 3)


def cube(at: tuple[int, int, int], side: int = 4, size: int = 20) -> np.ndarray:
    mask = np.zeros((size,) * 3, bool)
    mask[tuple(slice(start, start + side) for start in at)] = True
    return mask


def test_dice_of_shifted_cubes():
    assert dice(cube((5, 5, 5)), cube((5, 5, 6))) == 0.75
    assert dice(cube((5, 5, 5)), cube((7, 7, 7))) == 2 * 8 / 128
    assert dice(cube((0, 0, 0)), cube((8, 8, 8))) == 0.0
    assert dice(cube((0, 0, 0)), cube((0, 0, 0), 0)) == 0.0
    assert dice(cube((0, 0, 0), 0), cube((0, 0, 0), 0)) is None


@pytest.mark.parametrize(("axis", "expected"), [(0, 2 * 3.0), (1, 2 * 1.5), (2, 2 * 0.5)])
def test_distances_of_a_cube_far_shifted_count_the_spacing_of_the_axis(axis, expected):
    # Apart along one axis: from the far face 4 + gap - 1 voxels, from the near face the gap; here plates, so all
    # distances are the same.
    spacing = (3.0, 1.5, 0.5)
    first, second = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    plate = [slice(4, 9)] * 3
    first[tuple(slice(6, 7) if number == axis else part for number, part in enumerate(plate))] = True
    second[tuple(slice(8, 9) if number == axis else part for number, part in enumerate(plate))] = True
    there, back = surface_distances(first, second, spacing)
    assert np.array_equal(there, np.full(25, expected)) and np.array_equal(back, there)
    assert hd95(there, back) == assd(there, back) == expected


def test_distances_of_overlapping_cubes_by_hand():
    # A cube of side 4 has 56 surface voxels. Shifted by 1 along the last axis, the near face of the first, 16 voxels,
    # is 1 voxel away, its far face lies inside the second: the inner 4 of its voxels are 1 away, its 12 edge voxels on
    # the second's side faces, at 0; and so back.
    there, back = surface_distances(cube((5, 5, 5)), cube((5, 5, 6)), (1.0, 1.0, 2.0))
    for distances in (there, back):
        assert len(distances) == 56
        assert sorted(np.unique(distances)) == [0.0, 1.0, 2.0]
        assert np.count_nonzero(distances == 2.0) == 16
        # Inner voxels of the far face: one row down lies a side face at 1 mm.
        assert np.count_nonzero(distances == 1.0) == 4
    assert hd95(there, back) == 2.0
    assert assd(there, back) == (16 * 2.0 + 4 * 1.0) / 56


def test_the_larger_of_the_two_directed_percentiles_is_taken():
    # One voxel against itself and a far plate: from the voxel all is near, from the plate most is far.
    first, second = np.zeros((3, 3, 40), bool), np.zeros((3, 3, 40), bool)
    first[1, 1, 0] = second[1, 1, 0] = True
    second[1, 1, 20:39] = True
    there, back = surface_distances(first, second, (1, 1, 1))
    assert there.tolist() == [0.0]
    expected = np.percentile([0.0, *range(20, 39)], 95)
    assert hd95(there, back) == expected == hd95(back, there)
    assert expected == pytest.approx(37.05)  # between the 19th and the 20th of 20 sorted values, at 0.95 x 19


def test_where_a_structure_is_cut_by_the_border_of_the_volume_the_cut_is_surface():
    half = np.zeros((6, 6, 6), bool)
    half[:3] = True
    there, back = surface_distances(half, ~half, (1, 1, 1))
    assert len(there) == len(back) == 6 * 6 * 3 - 4 * 4  # all but the inner voxels of the middle slice
    assert there.max() == 3.0


@settings(max_examples=60)
@given(MASKS, MASKS, SPACINGS)
def test_swapping_the_masks_changes_nothing_and_hd95_lies_below_the_hausdorff_distance(first, second, spacing):
    assert dice(first, second) == dice(second, first)
    forth, back = surface_distances(first, second, spacing), surface_distances(second, first, spacing)
    assert (forth is None) == (back is None) == (not first.any() or not second.any())
    if forth is not None:
        assert np.array_equal(forth[0], back[1]) and np.array_equal(forth[1], back[0])
        assert hd95(*forth) == hd95(*back) and assd(*forth) == pytest.approx(assd(*back))
        largest = max(forth[0].max(), forth[1].max())
        assert assd(*forth) <= largest + 1e-9 and hd95(*forth) <= largest + 1e-9


@settings(max_examples=60)
@given(MASKS, SPACINGS)
def test_equal_masks_have_dice_one_and_no_distance(mask, spacing):
    distances = surface_distances(mask, mask.copy(), spacing)
    assert dice(mask, mask.copy()) == (1.0 if mask.any() else None)
    if mask.any():
        assert hd95(*distances) == 0.0 and assd(*distances) == 0.0


@settings(max_examples=15)
@given(MASKS, MASKS, SPACINGS)
def test_distances_are_those_of_every_surface_voxel_to_every_other(first, second, spacing):
    def surface(mask):
        found = []
        for index in np.argwhere(mask):
            neighbours = [tuple(index + step * np.eye(3, dtype=int)[axis]) for axis in range(3) for step in (-1, 1)]
            if any(
                min(place) < 0 or any(a >= b for a, b in zip(place, mask.shape)) or not mask[place]
                for place in neighbours
            ):
                found.append(index * spacing)
        return found

    distances = surface_distances(first, second, spacing)
    if distances is not None:
        a, b = surface(first), surface(second)
        assert distances[0] == pytest.approx([min(math.dist(p, q) for q in b) for p in a])


def test_all_structures_of_a_case_are_measured_on_the_true_grid():
    truth, found = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    truth[cube((1, 1, 1))], found[cube((1, 1, 2))] = 1, 1
    truth[cube((10, 10, 10))], found[cube((10, 10, 10))] = 2, 2
    truth[cube((1, 12, 12))] = 3
    found[cube((12, 1, 1))] = 4
    measured = measure_case(found, truth, (2.0, 1.0, 0.5))
    assert list(measured) == [structure.key for structure in STRUCTURES]
    assert measured["LV"].dice == 0.75 and measured["LV"].hd95_mm == 0.5
    assert (measured["RV"].dice, measured["RV"].hd95_mm, measured["RV"].assd_mm) == (1.0, 0.0, 0.0)
    assert measured["RV"].volume_ml == measured["RV"].truth_ml == 0.064
    assert (measured["LA"].dice, measured["LA"].hd95_mm, measured["LA"].assd_mm, measured["LA"].volume_ml) == (
        0.0,
        None,
        None,
        0.0,
    )
    assert (measured["RA"].dice, measured["RA"].hd95_mm, measured["RA"].truth_ml, measured["RA"].volume_ml) == (
        0.0,
        None,
        0.0,
        0.064,
    )
    assert (measured["PA"].dice, measured["PA"].assd_mm, measured["PA"].volume_ml) == (None, None, 0.0)


def test_cropping_changes_nothing():
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, 8, (14, 15, 16)).astype(np.uint8) for _ in range(2))
    spacing = (1.0, 0.7, 2.0)
    for structure in STRUCTURES:
        measured = measure_case(found, truth, spacing)[structure.key]
        distances = surface_distances(found == structure.label, truth == structure.label, spacing)
        assert measured.hd95_mm == pytest.approx(hd95(*distances)) and measured.assd_mm == pytest.approx(
            assd(*distances)
        )


def test_a_case_that_was_not_segmented_has_dice_zero_and_no_volume():
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[cube((1, 1, 1))] = 1
    measured = measure_case(None, truth, (1, 1, 1))
    assert (measured["LV"].dice, measured["LV"].hd95_mm, measured["LV"].volume_ml, measured["LV"].truth_ml) == (
        0.0,
        None,
        None,
        0.064,
    )
    assert measured["RV"].dice is None


def test_means_count_what_is_missing():
    found = distribution([0.8, None, 0.9, 1.0])
    assert (found.mean, found.median, found.lowest, found.highest) == (pytest.approx(0.9), pytest.approx(0.9), 0.8, 1.0)
    assert found.sd == pytest.approx(0.1) and (found.count, found.missing) == (3, 1)
    assert distribution([0.5]).sd is None
    assert distribution([None, None]) == distribution([None] * 2) and distribution([None]).mean is None


def test_limits_of_agreement_by_hand():
    # Differences 10, -2, 4: mean 4, standard deviation 6.
    found = agreement([110.0, 98.0, 54.0, None], [100.0, 100.0, 50.0, 80.0])
    assert found == Agreement(4.0, 6.0, pytest.approx(4 - 11.76), pytest.approx(4 + 11.76), 3, 1)
    assert agreement([10.0], [8.0]) == Agreement(2.0, None, None, None, 1, 0)
    assert agreement([None], [8.0]) == Agreement(None, None, None, None, 0, 1)


def test_the_same_figures_as_monai():
    metrics, torch = (
        pytest.importorskip("monai.metrics", reason="MONAI, the second opinion on distances, is not installed"),
        pytest.importorskip("torch"),
    )
    rng = np.random.default_rng(1)
    first, second = (np.pad(rng.random((9, 10, 11)) > 0.4, 2) for _ in range(2))
    spacing = (1.5, 0.8, 2.5)
    a, b = (torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (first, second))
    distances = surface_distances(first, second, spacing)
    assert hd95(*distances) == pytest.approx(
        float(metrics.compute_hausdorff_distance(a, b, percentile=95, spacing=spacing)[0, 0]), abs=1e-4
    )
    assert assd(*distances) == pytest.approx(
        float(metrics.compute_average_surface_distance(a, b, symmetric=True, spacing=spacing)[0, 0]), abs=1e-4
    )
