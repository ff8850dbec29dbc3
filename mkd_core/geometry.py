"""Grids: a volume's voxels the anatomical way round, regular boxes in it, values to a box and class scores back.

Everything happens in the volume's *local frame*: millimetres along LPS directions, counted from the centre of the volume's first voxel once
its axes run as closely as possible to the patient's left, back and head.  So results depend neither on where a scanner put its origin nor on
the order and direction in which voxels are stored: flipped or permuted copies of a volume give the very same arrays here.

Triples are (z, y, x) throughout, like the axes of the arrays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError

if TYPE_CHECKING:
    import torch

Triple = tuple[float, float, float]

#: Direction cosines this close to 0 or 1 are taken for rounding of an upright volume: 0.03 mm in a field of 300 mm.
_UPRIGHT_TOLERANCE = 1e-4

#: Direction matrices further than this from orthogonal are refused.
_SHEAR_TOLERANCE = 1e-3

#: Slices converted to floating point at a time.
_SLICES = 16

#: Side, in box voxels, of the tiles in which class scores are brought back.
_TILE = 12


@dataclass(frozen=True)
class Grid:
    """A regular upright grid in the local frame, with cubic voxels.

    Attributes:
        size: voxels per axis.
        start: centre of the first voxel, mm.
        spacing: mm.
    """

    size: tuple[int, int, int]
    start: Triple
    spacing: float

    @property
    def low(self) -> np.ndarray:
        """Lower corner, mm."""
        return np.asarray(self.start) - 0.5 * self.spacing

    @property
    def high(self) -> np.ndarray:
        """Upper corner, mm."""
        return self.low + np.asarray(self.size) * self.spacing

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        return self.spacing**3 / 1000.0


class Field:
    """A volume the anatomical way round.

    Args:
        image: 3-D image with scalar voxels.

    Attributes:
        image: the image itself.
        voxels: its voxels as a read-only (z, y, x) view, axes running to the head, the back and the patient's left as closely as possible.
        spacing: mm.
        rotation: (3, 3); column a is the direction of array axis a in the local frame, (z, y, x).  Exactly the identity for an upright volume.

    Raises:
        InputError: the direction matrix is sheared.
    """

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        direction = np.array(image.GetDirection()).reshape(3, 3)
        if not np.isfinite(direction).all() or np.abs(direction.T @ direction - np.eye(3)).max() > _SHEAR_TOLERANCE:
            raise InputError("The volume's axes are not at right angles.",
                             "Harden its transform and resample it to a regular grid (Resample Scalar Volume) first.")
        axes = max(itertools.permutations(range(3)), key=lambda order: sum(abs(direction[world, axis]) for world, axis in enumerate(order)))
        signs = [1.0 if direction[world, axis] >= 0 else -1.0 for world, axis in enumerate(axes)]
        # (x, y, z) of ITK to (z, y, x) of arrays.
        self._axes = tuple(2 - axis for axis in reversed(axes))
        self._flips = tuple(slice(None, None, -1 if sign < 0 else None) for sign in reversed(signs))
        rotation = (direction[:, axes] * signs)[::-1, ::-1]
        self.is_upright = bool(np.abs(rotation - np.eye(3)).max() < _UPRIGHT_TOLERANCE)
        self.rotation = np.eye(3) if self.is_upright else rotation
        self.spacing = np.array([image.GetSpacing()[axis] for axis in reversed(axes)])
        self.voxels = self.oriented(sitk.GetArrayViewFromImage(image))
        first = [0 if flip.step is None else size - 1 for flip, size in zip(reversed(self._flips), reversed(self.voxels.shape))]
        index = [0, 0, 0]
        for axis, position in zip(axes, first):
            index[axis] = position
        self._world_origin = np.array(image.TransformIndexToPhysicalPoint(index))

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels per axis."""
        return self.voxels.shape

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        return float(np.prod(self.spacing)) / 1000.0

    def oriented(self, array: np.ndarray) -> np.ndarray:
        """View of an array that is stored as the image is, the anatomical way round; writing to it writes to the array."""
        return array.transpose(self._axes)[self._flips]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of the smallest upright box round all voxels, mm."""
        corners = np.array(list(itertools.product(*[(-0.5 * step, (count - 0.5) * step) for count, step in zip(self.size, self.spacing)])))
        positions = corners @ self.rotation.T
        return positions.min(axis=0), positions.max(axis=0)

    def empty_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """A label array of zeros (uint8) stored as the image is, and its view the anatomical way round."""
        stored = np.zeros(self.image.GetSize()[::-1], np.uint8)
        return stored, self.oriented(stored)

    def to_image(self, stored: np.ndarray) -> sitk.Image:
        """Image on exactly the input's grid from an array stored as the image is."""
        result = sitk.GetImageFromArray(stored)
        result.CopyInformation(self.image)
        return result

    def to_world(self, position: Sequence[float]) -> list[float]:
        """Position (z, y, x) in the local frame as LPS coordinates (x, y, z) in the world, mm."""
        return (self._world_origin + np.asarray(position)[::-1]).tolist()

    def grid_to_image(self, values: np.ndarray, grid: Grid) -> sitk.Image:
        """Image of values on a grid, upright in the world, at its place."""
        result = sitk.GetImageFromArray(values)
        result.SetSpacing([grid.spacing] * 3)
        result.SetOrigin(self.to_world(grid.start))
        return result


def covering_grid(field: Field, spacing: float, stride: int) -> Grid:
    """Smallest grid round the whole volume whose sides are multiples of ``stride`` voxels, centred on it."""
    low, high = field.bounds()
    counts = [_round_up(side / spacing, stride) for side in high - low]
    return _centred(counts, 0.5 * (low + high), spacing)


def box_grid(field: Field, low: Sequence[float], high: Sequence[float], spacing: float, stride: int, max_side: Sequence[float]) -> tuple[Grid, bool]:
    """Grid over a box, clamped to the volume where possible.

    Args:
        field: the volume.
        low, high: corners of the box, mm.
        spacing: of the grid, mm.
        stride: sides become multiples of so many voxels, by taking more of the surroundings.
        max_side: largest sides, mm; a larger box is cut evenly on both ends.

    Returns:
        The grid, and whether the box had to be cut.
    """
    bound_low, bound_high = field.bounds()
    low, high = np.maximum(low, bound_low), np.minimum(high, bound_high)
    counts = [_round_up(side / spacing, stride) for side in high - low]
    most = [max(stride, math.floor(side / spacing / stride) * stride) for side in max_side]
    cut = any(count > limit for count, limit in zip(counts, most))
    counts = [min(count, limit) for count, limit in zip(counts, most)]
    half = 0.5 * spacing * np.array(counts)
    # What rounding added should be image, not padding: stay inside the volume if the box fits, else centre it on the volume.
    inside = np.minimum(np.maximum(0.5 * (low + high), bound_low + half), bound_high - half)
    centre = np.where(2 * half <= bound_high - bound_low, inside, 0.5 * (bound_low + bound_high))
    return _centred(counts, centre, spacing), cut


def _round_up(count: float, stride: int) -> int:
    return max(stride, math.ceil((count - 1e-6) / stride) * stride)


def _centred(counts: Sequence[int], centre: np.ndarray, spacing: float) -> Grid:
    start = centre - 0.5 * spacing * (np.array(counts) - 1)
    return Grid(tuple(int(count) for count in counts), tuple(float(value) for value in start), spacing)


def weights(count: int, spacing: float, positions: np.ndarray, width: float) -> np.ndarray:
    """Matrix of linear interpolation with averaging, along one axis; the edge values continue for ever.

    Args:
        count: samples, at 0, spacing, 2 spacing...
        spacing: of the samples, mm.
        positions: where values are wanted, mm, ascending.
        width: half width of the triangular kernel, mm: ``spacing`` interpolates; more averages, as needed when values are wanted farther apart than
            samples lie.

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


def sample(field: Field, grid: Grid) -> torch.Tensor:
    """Voxel values on a grid: linear interpolation, averaging where the volume is finer than the grid, edges continued outside.

    Returns:
        ``(D, H, W)``, float32.
    """
    positions = [start + grid.spacing * np.arange(count) for start, count in zip(grid.start, grid.size)]
    if field.is_upright:
        return _contract(field.voxels, [
            weights(count, step, where, max(step, grid.spacing)) for count, step, where in zip(field.size, field.spacing, positions)])
    return _sample_oblique(field, grid, positions)


def _contract(voxels: np.ndarray, matrices: Sequence[np.ndarray]) -> torch.Tensor:
    """Apply one interpolation matrix per axis; only voxels with any weight are read, a few slices at a time."""
    import torch

    used = [np.flatnonzero(matrix.any(axis=0)) for matrix in matrices]
    region = voxels[tuple(slice(columns[0], columns[-1] + 1) for columns in used)]
    along_z, along_y, along_x = (
        torch.from_numpy(np.ascontiguousarray(matrix[:, columns[0]:columns[-1] + 1])) for matrix, columns in zip(matrices, used))
    depth, height, width = region.shape
    summed = torch.zeros(len(along_z), height * width)
    slices = torch.empty(min(_SLICES, depth), height * width)
    for first in range(0, depth, _SLICES):
        chunk = region[first:first + _SLICES]
        np.copyto(slices[:len(chunk)].numpy().reshape(chunk.shape), chunk, casting="unsafe")
        kernel = along_z[:, first:first + len(chunk)]
        rows = kernel.any(dim=1).nonzero()
        if len(rows):
            touched = slice(int(rows[0]), int(rows[-1]) + 1)
            summed[touched].addmm_(kernel[touched], slices[:len(chunk)])
    return along_y @ summed.view(-1, height, width) @ along_x.T


def _sample_oblique(field: Field, grid: Grid, positions: Sequence[np.ndarray]) -> torch.Tensor:
    """Averaging along the volume's own axes first, then interpolation on the turned grid.

    Each step smooths with a triangle; two of half width spacing/sqrt(2) have the variance of the one used for upright volumes.
    """
    import torch
    from torch.nn import functional

    steps = np.maximum(field.spacing, grid.spacing / math.sqrt(2))
    counts = [max(2, math.ceil(count * own / step)) for count, own, step in zip(field.size, field.spacing, steps)]
    starts = [0.5 * ((count - 1) * own - (many - 1) * step) for count, own, many, step in zip(field.size, field.spacing, counts, steps)]
    smooth = _contract(field.voxels, [
        weights(count, own, start + step * np.arange(many), max(own, step))
        for count, own, start, step, many in zip(field.size, field.spacing, starts, steps, counts)])
    z, y, x = (torch.from_numpy(axis.astype(np.float32)) for axis in positions)
    # Along an axis of the volume, a position is the sum of one term per axis of the grid.
    turned = torch.from_numpy(field.rotation.T.astype(np.float32))
    where = []
    for axis in (2, 1, 0):  # grid_sample wants (x, y, z)
        along = turned[axis, 0] * z[:, None, None] + turned[axis, 1] * y[:, None] + turned[axis, 2] * x
        where.append((along - starts[axis]) * (2.0 / (steps[axis] * (counts[axis] - 1))) - 1.0)
    return functional.grid_sample(smooth[None, None], torch.stack(where, dim=-1)[None], padding_mode="border", align_corners=True)[0, 0]


def write_labels(scores: torch.Tensor, grid: Grid, field: Field, labels: np.ndarray) -> Iterator[float]:
    """Bring class scores from a grid back to a volume: trilinear interpolation of every class, then the best class of every voxel.

    Slab by slab, and only where the answer is open, so that no stack of interpolated scores is ever held: a class that stays below one
    eighth cannot be the best of eight that add up to one, and a cell whose corners agree has that class throughout, because
    interpolation weights are convex.

    Args:
        scores: ``(8, D, H, W)`` on ``grid``, adding up to 1 over classes.
        grid: of the scores.
        field: the volume.
        labels: uint8 array of the volume's size the anatomical way round; voxels inside the grid are written.

    Yields:
        Done share, 0 to 1, after every slab.
    """
    if field.is_upright:
        yield from _write_upright(scores, grid, field, labels)
    else:
        yield from _write_oblique(scores, grid, field, labels)


def covered(grid: Grid, field: Field) -> tuple[slice, slice, slice]:
    """Smallest block of the volume's voxels that holds all whose centres lie inside the grid; empty slices if there are none."""
    corners = np.array(list(itertools.product(*zip(grid.low, grid.high)))) @ field.rotation  # along the volume's axes
    first = np.clip(np.ceil(corners.min(axis=0) / field.spacing - 1e-6), 0, field.size).astype(int)
    last = np.clip(np.floor(corners.max(axis=0) / field.spacing + 1e-6) + 1, first, field.size).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last))


@dataclass(frozen=True)
class _Stretch:
    """Voxels along one axis that lie in one tile: voxels ``[first, last)``, their tile of the scores, and the interpolation matrix between them."""

    first: int
    last: int
    tile: slice
    matrix: np.ndarray


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
        found.append(_Stretch(inside.start + first, inside.start + last, columns, matrix[first:last, columns].copy()))
    return found


def _write_upright(scores: torch.Tensor, grid: Grid, field: Field, labels: np.ndarray) -> Iterator[float]:
    import torch

    slabs, rows, columns = (
        _stretches(inside, spacing, start, grid.spacing, many)
        for inside, spacing, start, many in zip(covered(grid, field), field.spacing, grid.start, grid.size))
    for number, slab in enumerate(slabs):
        for row, column in itertools.product(rows, columns):
            tile = scores[:, slab.tile, row.tile, column.tile]
            open_classes = (tile.amax(dim=(1, 2, 3)) >= 0.124).nonzero().flatten().tolist()
            target = labels[slab.first:slab.last, row.first:row.last, column.first:column.last]
            if len(open_classes) == 1:
                target[...] = open_classes[0]
                continue
            values = torch.from_numpy(row.matrix) @ tile[open_classes] @ torch.from_numpy(column.matrix).T
            values = torch.matmul(torch.from_numpy(slab.matrix), values.flatten(2)).view(len(open_classes), *target.shape)
            target[...] = _best(values, open_classes).numpy()
        yield (number + 1) / len(slabs)


def _best(values: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """Class with the largest value, uint8; of equal ones the first.  ``values``: (classes, ...).  Much faster than argmax over the first axis."""
    import torch

    best = values[0].clone()
    labels = torch.full(best.shape, classes[0], dtype=torch.uint8)
    for value, label in zip(values[1:], classes[1:]):
        labels.masked_fill_(value > best, label)
        torch.maximum(best, value, out=best)
    return labels


def _write_oblique(scores: torch.Tensor, grid: Grid, field: Field, labels: np.ndarray) -> Iterator[float]:
    import torch
    from torch.nn import functional

    block = covered(grid, field)
    certain = _certain_labels(scores)
    _, height, width = certain.shape
    turned = torch.from_numpy(field.rotation.astype(np.float32))
    k, j, i = (torch.arange(inside.start, inside.stop, dtype=torch.float32) * float(step) for inside, step in zip(block, field.spacing))
    many = torch.tensor(grid.size)
    for begin in range(0, len(k), _SLICES):
        slab = k[begin:begin + _SLICES]
        coordinates, inside = [], True
        for axis in range(3):
            along = turned[axis, 0] * slab[:, None, None] + turned[axis, 1] * j[:, None] + turned[axis, 2] * i
            along = (along - grid.start[axis]) / grid.spacing
            inside = (along >= -0.5) & (along <= grid.size[axis] - 0.5) & inside
            coordinates.append(along)
        points = torch.stack([along[inside] for along in coordinates], dim=1)
        cells = torch.minimum(points.floor().clamp_(min=0).long(), many - 2)
        found = certain.flatten()[(cells[:, 0] * height + cells[:, 1]) * width + cells[:, 2]]
        unsure = (found == _UNSURE).nonzero().flatten()
        where = (points[unsure] * (2.0 / (many - 1)) - 1.0).flip(1)
        values = functional.grid_sample(scores[None], where[None, None, None], padding_mode="border", align_corners=True)[0, :, 0, 0]
        found[unsure] = _best(values, range(len(scores)))
        target = labels[block][begin:begin + len(slab)]
        target[inside.numpy()] = found.numpy()
        yield min(1.0, (begin + _SLICES) / len(k))


_UNSURE = 255


def _certain_labels(scores: torch.Tensor) -> torch.Tensor:
    """Class of every cell between eight neighbouring voxels if all eight agree, else 255.  ``(C, D, H, W)`` to ``(D-1, H-1, W-1)``, uint8."""
    labels = _best(scores, range(len(scores)))
    low, high = labels, labels
    for axis in range(3):
        count = labels.shape[axis] - 1
        low = low.narrow(axis, 0, count).minimum(low.narrow(axis, 1, count))
        high = high.narrow(axis, 0, count).maximum(high.narrow(axis, 1, count))
    return low.masked_fill(low != high, _UNSURE)
