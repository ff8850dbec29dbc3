"""Small components: voxels that bringing a prediction to a finer grid leaves beside the structure they belong to.

Where a structure is thin on the networks' grid, a few voxels of the volume can come out cut off from the rest.  They
are smaller than a voxel of the networks' grid or two, so nothing that the networks saw is lost when they join what
surrounds them.
"""

from __future__ import annotations

import numpy as np


def remove_small_components(labels: np.ndarray, max_voxels: int) -> int:
    """Give every small piece of a structure that touches no other voxel of it by a face to the structure, or
    background, that it touches most.

    The voxels of a line that have one label are one run; runs are joined to pieces, all structures at once.  That is
    several times as fast as naming the pieces voxel by voxel.

    Args:
        labels: ``(D, H, W)``, uint8; changed in place.
        max_voxels: size of the largest piece that is moved; the largest piece of a structure is none.

    Returns:
        Number of voxels in components.
    """
    starts, ends, names, piece = _pieces(labels)
    sizes = np.bincount(piece, ends - starts).astype(np.int64)
    class_count = int(names.max(initial=0)) + 1
    label_of = np.zeros(len(sizes), np.uint8)
    label_of[piece] = names
    largest = np.zeros(class_count, np.int64)
    np.maximum.at(largest, label_of, sizes)
    chosen = np.flatnonzero(((sizes <= max_voxels) & (sizes < largest[label_of]))[piece])
    lengths = ends[chosen] - starts[chosen]
    voxels = np.repeat(starts[chosen], lengths) + _count_up(lengths)
    _give_away(labels, np.array(np.unravel_index(voxels, labels.shape)), np.repeat(piece[chosen], lengths), class_count)
    return len(voxels)


def _pieces(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal structure along the last axis: first voxel and one past the last (flat), label, and number of the
    face-connected piece.
    """
    depth, height, width = labels.shape
    begins, found = [], []
    for number, plane in enumerate(
        labels
    ):  # a plane at a time: marks for the whole would take as much memory as the labels
        edge = np.empty(plane.shape, bool)
        edge[:, 0] = True
        np.not_equal(plane[:, 1:], plane[:, :-1], out=edge[:, 1:])
        at = np.flatnonzero(edge)
        begins.append(at + number * plane.size)
        found.append(plane.ravel()[at])
    starts, names = np.concatenate(begins), np.concatenate(found)
    ends = np.append(starts[1:], labels.size)
    inside = names > 0
    starts, ends, names = starts[inside], ends[inside], names[inside]
    row = starts // width
    pairs = [
        _touching(starts, ends, names, width, row % height < height - 1),
        _touching(starts, ends, names, width * height, row < (depth - 1) * height),
    ]
    first, second = (np.concatenate(side) for side in zip(*pairs))
    return starts, ends, names, _connected(first, second, len(starts))


def _connected(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Number of the connected component of each of ``count`` nodes, from 0 in the order of their first nodes.

    Every node points to one with a smaller number, at last to the smallest of its component (Shiloach and Vishkin 1982:
    hooking and pointer jumping).  scipy.sparse.csgraph does the same, but importing it takes longer than all of this.

    Args:
        first, second: nodes ``(n,)`` that edges connect.
    """
    parent = np.arange(count)
    while True:
        one, other = parent[first], parent[second]
        apart = one != other
        if not apart.any():
            break
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
        while True:
            grandparent = parent[parent]
            if np.array_equal(grandparent, parent):
                break
            parent = grandparent
    is_first = parent == np.arange(count)
    numbers: np.ndarray = (np.cumsum(is_first) - 1)[parent]
    return numbers


def _touching(
    starts: np.ndarray, ends: np.ndarray, names: np.ndarray, offset: int, has_next: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of one label that share a face in the direction in which a voxel's neighbour is ``offset``
    further.
    """
    own = np.flatnonzero(has_next)
    first = np.searchsorted(ends, starts[own] + offset, side="right")
    count = np.searchsorted(starts, ends[own] + offset, side="left") - first
    ours = np.repeat(own, count)
    theirs = np.repeat(first, count) + _count_up(count)
    same = names[ours] == names[theirs]
    return ours[same], theirs[same]


def _count_up(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each length, one after the other."""
    starts: np.ndarray = np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers: np.ndarray = np.arange(len(starts)) - starts
    return numbers


def _give_away(labels: np.ndarray, where: np.ndarray, piece: np.ndarray, undecided: int) -> None:
    """Give pieces, voxels ``(3, n)`` with the number of their piece, to what they touch most; those that touch nothing
    but each other come later, and are labelled ``undecided`` till then.
    """
    labels[tuple(where)] = undecided
    while piece.size:
        members, place = np.unique(piece, return_inverse=True)
        touched = np.zeros((len(members), undecided + 1), np.int64)
        for axis in range(3):
            for step in (-1, 1):
                beside = where.copy()
                beside[axis] += step
                inside = (beside[axis] >= 0) & (beside[axis] < labels.shape[axis])
                np.add.at(touched, (place[inside], labels[tuple(beside[:, inside])]), 1)
        touched = touched[:, :undecided]
        decided = np.asarray(touched.any(axis=1))[place]
        labels[tuple(where[:, decided])] = touched.argmax(axis=1)[place][decided]
        where, piece = where[:, ~decided], piece[~decided]
