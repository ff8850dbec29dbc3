"""Values from a volume to a box, and class scores back to the volume.

Volumes are large: voxels are converted a few slices at a time, and scores of all classes are never held at the volume's
resolution. Triples are (z, y, x), in the local frame of :mod:`mkd_core.inference.geometry`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mkd_core.arrays import as_array, as_tensor
from mkd_core.inference.geometry import Grid, OrientedVolume, overlap_slices
from mkd_core.method.ensemble import best_class

if TYPE_CHECKING:
    import torch

#: Fewest voxels on a step of the grid where a rough look is enough.
_SPARSE_SAMPLES = 4

#: Slices converted to floating point at a time.
_SLICES = 16

#: Slices of an oblique volume that are brought back at a time: few, so that they stay in the processor's cache.
_THIN = 2

#: Side, in box voxels, of the tiles in which class scores are brought back.
_TILE = 12

#: What scores of all classes add up to, less their rounding.
_NEARLY_ONE = 0.992

#: Marks a cell whose corners do not agree.
_UNSURE = 255


def weights(count: int, spacing: float, positions: np.ndarray, width: float) -> np.ndarray:
    """Matrix of linear interpolation with averaging, along one axis; the edge values continue for ever.

    Args:
        count: samples, at 0, spacing, 2 spacing...
        spacing: of the samples, mm.
        positions: where values are wanted, mm, ascending.
        width: half width of the triangular kernel, mm: ``spacing`` interpolates; more averages, as is needed when
            values are wanted farther apart than samples lie.

    Returns:
        ``(len(positions), count)``, float32, rows add up to 1.
    """
    reach = math.ceil(width / spacing) + 1
    nearest = np.floor(positions / spacing).astype(np.int64)
    samples = nearest[:, None] + np.arange(-reach + 1, reach + 1)
    kernel = np.maximum(0.0, 1.0 - np.abs(samples * spacing - positions[:, None]) / width)
    kernel /= kernel.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(positions), count))
    rows = np.broadcast_to(np.arange(len(positions))[:, None], samples.shape)
    np.add.at(matrix, (rows, np.clip(samples, 0, count - 1)), kernel)
    return matrix.astype(np.float32)


def sample(field: OrientedVolume, grid: Grid, *, sparsely: bool = False) -> torch.Tensor:
    """Voxel values on a grid: linear interpolation, averaging where the volume is finer than the grid, edges continued
    outside.

    Args:
        field: the volume.
        grid: where values are wanted.
        sparsely: read no more than every n-th voxel along an axis as long as four of them lie on every step of the
            grid: enough for a rough look, and a volume of any number of voxels then costs about the same.

    Returns:
        ``(D, H, W)``, float32.
    """
    voxels, spacing = field.voxels, field.spacing
    if sparsely:
        strides = np.maximum(1, grid.steps // (_SPARSE_SAMPLES * spacing)).astype(int)
        voxels, spacing = voxels[tuple(slice(None, None, stride) for stride in strides)], spacing * strides
    positions = [start + step * np.arange(count) for start, step, count in zip(grid.start, grid.steps, grid.size)]
    if field.is_upright:
        return _contract(
            voxels,
            [
                weights(count, step, where, max(step, wanted))
                for count, step, where, wanted in zip(voxels.shape, spacing, positions, grid.steps)
            ],
        )
    return _sample_oblique(voxels, spacing, field.rotation, grid.steps, positions)


def _contract(voxels: np.ndarray, matrices: Sequence[np.ndarray]) -> torch.Tensor:
    """Apply one interpolation matrix per axis; only voxels with any weight are read, a few slices at a time."""
    import torch

    used = [np.flatnonzero(matrix.any(axis=0)) for matrix in matrices]
    region = voxels[tuple(slice(columns[0], columns[-1] + 1) for columns in used)]
    along_z, along_y, along_x = (
        as_tensor(np.ascontiguousarray(matrix[:, columns[0] : columns[-1] + 1]))
        for matrix, columns in zip(matrices, used)
    )
    depth, height, width = region.shape
    summed = torch.zeros(len(along_z), height * width)
    slices = torch.empty(min(_SLICES, depth), height * width)
    for first in range(0, depth, _SLICES):
        chunk = region[first : first + _SLICES]
        np.copyto(as_array(slices[: len(chunk)]).reshape(chunk.shape), chunk, casting="unsafe")
        kernel = along_z[:, first : first + len(chunk)]
        rows = kernel.any(dim=1).nonzero()
        if len(rows):
            touched = slice(int(rows[0]), int(rows[-1]) + 1)
            summed[touched].addmm_(kernel[touched], slices[: len(chunk)])
    return along_y @ summed.view(-1, height, width) @ along_x.T


def _sample_oblique(
    voxels: np.ndarray,
    spacing: np.ndarray,
    rotation: np.ndarray,
    grid_steps: np.ndarray,
    positions: Sequence[np.ndarray],
) -> torch.Tensor:
    """Averaging along the volume's own axes first, then interpolation on the turned grid.

    Each step smooths with a triangle; two of half width spacing/sqrt(2) have the variance of the one used for upright
    volumes.
    """
    import torch
    from torch.nn import functional

    steps = np.maximum(spacing, grid_steps / math.sqrt(2))
    counts = [max(2, math.ceil(count * own / step)) for count, own, step in zip(voxels.shape, spacing, steps)]
    starts = [
        0.5 * ((count - 1) * own - (many - 1) * step)
        for count, own, many, step in zip(voxels.shape, spacing, counts, steps)
    ]
    smooth = _contract(
        voxels,
        [
            weights(count, own, start + step * np.arange(many), max(own, step))
            for count, own, start, step, many in zip(voxels.shape, spacing, starts, steps, counts)
        ],
    )
    z, y, x = (as_tensor(axis.astype(np.float32)) for axis in positions)
    # Along an axis of the volume, a position is the sum of one term per axis of the grid.
    turned = as_tensor(rotation.T.astype(np.float32))
    where = []
    for axis in (2, 1, 0):  # grid_sample wants (x, y, z)
        along = turned[axis, 0] * z[:, None, None] + turned[axis, 1] * y[:, None] + turned[axis, 2] * x
        where.append((along - starts[axis]) * (2.0 / (steps[axis] * (counts[axis] - 1))) - 1.0)
    return functional.grid_sample(
        smooth[None, None], torch.stack(where, dim=-1)[None], padding_mode="border", align_corners=True
    )[0, 0]


def write_labels(scores: torch.Tensor, grid: Grid, field: OrientedVolume, labels: np.ndarray) -> Iterator[float]:
    """Bring class scores from a grid back to a volume: trilinear interpolation of every class, then the best class of
    every voxel.

    Slab by slab, and only where the prediction is open, so that no stack of interpolated scores is ever held: a class
    that stays below 1 / C cannot be the best of C that add up to one, and a cell whose corners agree has that
    class throughout, because interpolation weights are convex.

    Args:
        scores: ``(C, D, H, W)`` on ``grid``, adding up to 1 over classes.
        grid: of the scores.
        field: the volume.
        labels: uint8 array of the block of voxels that the grid covers (:func:`mkd_core.inference.geometry.covered`),
            the anatomical way round; voxels inside the grid are written.

    Yields:
        Done share, 0 to 1, after every slab.
    """
    if field.is_upright:
        yield from _write_upright(scores, grid, field, labels)
    else:
        yield from _write_oblique(scores, grid, field, labels)


@dataclass(frozen=True)
class _Stretch:
    """Voxels ``[first, last)`` of a block along one axis that lie in one tile of the scores, and the interpolation
    matrix from that tile to them.
    """

    first: int
    last: int
    tile: slice
    matrix: torch.Tensor


def _stretches(inside: slice, spacing: float, start: float, step: float, many: int) -> list[_Stretch]:

    positions = spacing * np.arange(inside.start, inside.stop) - start
    cells = np.clip(np.floor(positions / step), 0, many - 2).astype(int)
    tiles = cells // _TILE
    matrix = weights(many, step, positions, step)
    found = []
    for tile in np.unique(tiles):
        members = np.flatnonzero(tiles == tile)
        columns = slice(int(tile) * _TILE, min(int(tile) * _TILE + _TILE + 1, many))
        first, last = int(members[0]), int(members[-1]) + 1
        found.append(_Stretch(first, last, columns, as_tensor(matrix[first:last, columns].copy())))
    return found


def _write_upright(scores: torch.Tensor, grid: Grid, field: OrientedVolume, labels: np.ndarray) -> Iterator[float]:
    slabs, rows, columns = (
        _stretches(inside, spacing, start, step, many)
        for inside, spacing, start, step, many in zip(
            overlap_slices(grid, field), field.spacing, grid.start, grid.steps, grid.size
        )
    )
    for number, slab in enumerate(slabs):
        for row, column in itertools.product(rows, columns):
            tile = scores[:, slab.tile, row.tile, column.tile]
            open_classes = _open_classes(tile)
            target = labels[slab.first : slab.last, row.first : row.last, column.first : column.last]
            if len(open_classes) == 1:
                target[...] = open_classes[0]
                continue
            values = row.matrix @ tile[open_classes] @ column.matrix.T
            values = (slab.matrix @ values.flatten(2)).view(len(open_classes), *target.shape)
            target[...] = as_array(best_class(values, open_classes))
        yield (number + 1) / len(slabs)


def _open_classes(tile: torch.Tensor) -> list[int]:
    """Classes that can be the best somewhere in a tile ``(C, ...)``: those that reach 1 / C, as the best of C that add
    up to 1 does, and what another class has everywhere.
    """
    values = tile.flatten(1)
    return (
        (values.amax(dim=1) >= max(_NEARLY_ONE / len(values), float(values.amin(dim=1).max())))
        .nonzero()
        .flatten()
        .tolist()
    )


def _write_oblique(scores: torch.Tensor, grid: Grid, field: OrientedVolume, labels: np.ndarray) -> Iterator[float]:
    import torch
    from torch.nn import functional

    block = overlap_slices(grid, field)
    certain = _certain_labels(scores)
    # Coordinates on the grid, in its voxels, are sums of one term per axis of the volume.
    turned = field.rotation * field.spacing / grid.steps[:, None]
    shift = np.asarray(grid.start) / grid.steps
    terms = [
        [
            as_tensor((turned[axis, along] * np.arange(inside.start, inside.stop)).astype(np.float32))
            for along, inside in enumerate(block)
        ]
        for axis in range(3)
    ]
    depth = block[0].stop - block[0].start
    for begin in range(0, depth, _THIN):
        coordinates = []
        for axis, (k, j, i) in enumerate(terms):
            coordinates.append((k[begin : begin + _THIN, None, None] - float(shift[axis]) + j[:, None]) + i)
        cell = torch.zeros(coordinates[0].shape, dtype=torch.int32)
        inside = torch.ones(cell.shape, dtype=torch.bool)
        for coordinate, count, cells in zip(coordinates, grid.size, certain.shape):
            inside &= (coordinate - (0.5 * count - 0.5)).abs_() <= 0.5 * count
            cell.mul_(cells).add_(coordinate.clamp(0, cells - 1).int())
        found = certain.flatten().index_select(0, cell.flatten())
        unsure = ((found == _UNSURE) & inside.flatten()).nonzero().flatten()
        where = torch.stack(
            [
                coordinate.flatten()[unsure] * (2.0 / (count - 1)) - 1.0
                for coordinate, count in zip(coordinates, grid.size)
            ]
        )
        values = functional.grid_sample(
            scores[None], where.flip(0).T[None, None, None], padding_mode="border", align_corners=True
        )
        found[unsure] = best_class(values[0, :, 0, 0])
        target = labels[begin : begin + _THIN]
        np.copyto(target, as_array(found.view(cell.shape)), where=as_array(inside))
        if begin % _SLICES == 0 or begin + _THIN >= depth:
            yield min(1.0, (begin + _THIN) / depth)


def _certain_labels(scores: torch.Tensor) -> torch.Tensor:
    """Class of every cell between eight voxels if all eight agree, else 255.

    ``(C, D, H, W)`` to ``(D-1, H-1, W-1)``, uint8.
    """
    labels = best_class(scores)
    low, high = labels, labels
    for axis in range(3):
        count = labels.shape[axis] - 1
        low = low.narrow(axis, 0, count).minimum(low.narrow(axis, 1, count))
        high = high.narrow(axis, 0, count).maximum(high.narrow(axis, 1, count))
    return low.masked_fill(low != high, _UNSURE)
