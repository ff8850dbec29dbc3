"""Grids: a volume's voxels the anatomical way round, and regular boxes in it.

Everything happens in the volume's *local frame*: millimetres along LPS directions, counted from the centre of the
volume's first voxel once its axes run as closely as possible to the patient's left, back and head.  So results depend
neither on where a scanner put its origin nor
on the order and direction in which voxels are stored: flipped or permuted copies of a volume give the very same arrays
    here.

Triples are (z, y, x) throughout, like the axes of the arrays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import SHEAR_TOLERANCE

Triple = tuple[float, float, float]

#: Voxel size, mm: one number for cubic voxels, or (z, y, x).
Spacing = float | Triple

#: Direction cosines this close to 0 or 1 are taken for rounding of an upright volume: 0.03 mm in a field of 300 mm.
_UPRIGHT_TOLERANCE = 1e-4

#: Slices of labels copied at a time.
_SLICES = 16


@dataclass(frozen=True)
class Grid:
    """A regular upright grid in the local frame.

    Attributes:
        size: voxels per axis.
        start: centre of the first voxel, mm.
        spacing: of its voxels.
    """

    size: tuple[int, int, int]
    start: Triple
    spacing: Spacing

    @property
    def steps(self) -> np.ndarray:
        """Voxel size along (z, y, x), mm."""
        return steps_of(self.spacing)

    @property
    def low(self) -> np.ndarray:
        """Lower corner, mm."""
        low: np.ndarray = np.asarray(self.start) - 0.5 * self.steps
        return low

    @property
    def high(self) -> np.ndarray:
        """Upper corner, mm."""
        high: np.ndarray = self.low + np.asarray(self.size) * self.steps
        return high

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        return float(np.prod(self.steps)) / 1000.0


class OrientedVolume:
    """A volume the anatomical way round.

    Args:
        image: 3-D image with scalar voxels.
        direction: direction matrix to take in place of the image's own, (3, 3) as ITK has it; results still lie in the
            world where the image lies.

    Attributes:
        image: the image itself.
        voxels: its voxels as a read-only (z, y, x) view, axes running to the head, the back and the patient's left as
            closely as possible.
        spacing: mm.
        rotation: (3, 3); column a is the direction of array axis a in the local frame, (z, y, x).  Exactly the identity
            for an upright volume.

    Raises:
        InputError: the direction matrix is sheared.
    """

    def __init__(self, image: sitk.Image, direction: np.ndarray | None = None) -> None:
        self.image = image
        own = np.array(image.GetDirection()).reshape(3, 3)
        self._to_world = np.eye(3) if direction is None else own @ direction.T
        direction = own if direction is None else direction
        if not np.isfinite(direction).all() or np.abs(direction.T @ direction - np.eye(3)).max() > SHEAR_TOLERANCE:
            raise refusal(finding("sheared"))
        axes = max(
            itertools.permutations(range(3)),
            key=lambda order: sum(abs(direction[world, axis]) for world, axis in enumerate(order)),
        )
        signs = [1.0 if direction[world, axis] >= 0 else -1.0 for world, axis in enumerate(axes)]
        # (x, y, z) of ITK to (z, y, x) of arrays.
        self._axes = tuple(2 - axis for axis in reversed(axes))
        self._flips = tuple(slice(None, None, -1 if sign < 0 else None) for sign in reversed(signs))
        rotation = (direction[:, axes] * signs)[::-1, ::-1]
        self.is_upright = bool(np.abs(rotation - np.eye(3)).max() < _UPRIGHT_TOLERANCE)
        self.rotation = np.eye(3) if self.is_upright else rotation
        self.spacing = np.array([image.GetSpacing()[axis] for axis in reversed(axes)])
        self.voxels = self.oriented(sitk.GetArrayViewFromImage(image))
        first = [
            0 if flip.step is None else size - 1
            for flip, size in zip(reversed(self._flips), reversed(self.voxels.shape))
        ]
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
        """View of an array that is stored as the image is, the anatomical way round; writing to it writes to the
        array.
        """
        return array.transpose(self._axes)[self._flips]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of the smallest upright box round all voxels, mm."""
        corners = np.array(
            list(
                itertools.product(
                    *[(-0.5 * step, (count - 0.5) * step) for count, step in zip(self.size, self.spacing)]
                )
            )
        )
        positions = corners @ self.rotation.T
        return positions.min(axis=0), positions.max(axis=0)

    def block_to_image(self, labels: np.ndarray, block: tuple[slice, slice, slice]) -> sitk.Image:
        """Image on exactly the input's grid from the labels (uint8) of a block of its voxels, the anatomical way round;
        zero elsewhere.
        """
        result = sitk.Image(self.image.GetSize(), sitk.sitkUInt8)
        result.CopyInformation(self.image)
        if labels.size:
            order = np.argsort(self._axes)
            stored = labels[self._flips].transpose(order)
            firsts = [
                count - side.stop if flip.step else side.start
                for count, side, flip in zip(self.size, block, self._flips)
            ]
            z, y, x = (slice(firsts[axis], firsts[axis] + count) for axis, count in zip(order, stored.shape))
            for first in range(0, len(stored), _SLICES):  # a few at a time: large volumes are not copied as a whole
                some = stored[first : first + _SLICES]
                result[x, y, z.start + first : z.start + first + len(some)] = sitk.GetImageFromArray(
                    np.ascontiguousarray(some)
                )
        return result

    def to_world(self, position: Sequence[float] | np.ndarray) -> list[float]:
        """Position (z, y, x) in the local frame as LPS coordinates (x, y, z) in the world, mm."""
        x, y, z = self._world_origin + self._to_world @ np.asarray(position)[::-1]
        return [float(x), float(y), float(z)]

    def from_world(self, positions: np.ndarray) -> np.ndarray:
        """Positions (..., z, y, x) in the local frame of LPS coordinates (..., x, y, z) in the world, mm."""
        local: np.ndarray = ((positions - self._world_origin) @ self._to_world)[..., ::-1]
        return local

    def grid_to_image(self, values: np.ndarray, grid: Grid) -> sitk.Image:
        """Image of values on a grid, at its place in the world; upright there unless the volume's direction was
        replaced.
        """
        result = sitk.GetImageFromArray(values)
        result.SetSpacing(grid.steps[::-1].tolist())
        result.SetOrigin(self.to_world(grid.start))
        result.SetDirection(self._to_world.ravel().tolist())
        return result


def steps_of(spacing: Spacing) -> np.ndarray:
    """Voxel size along (z, y, x), mm."""
    return np.array(spacing if isinstance(spacing, tuple) else (spacing,) * 3, float)


def enclosing_grid(field: OrientedVolume, spacing: Spacing, stride: int) -> Grid:
    """Smallest grid round the whole volume whose sides are multiples of ``stride`` voxels, centred on it."""
    low, high = field.bounds()
    counts = [_round_up(count, stride) for count in (high - low) / steps_of(spacing)]
    return _centred(counts, 0.5 * (low + high), spacing)


def box_grid(
    field: OrientedVolume,
    low: np.ndarray,
    high: np.ndarray,
    spacing: Spacing,
    stride: int | Sequence[int],
    max_side: Sequence[float],
) -> tuple[Grid, bool]:
    """Grid over a box, clamped to the volume where possible.

    Args:
        field: the volume.
        low, high: corners of the box, mm.
        spacing: of the grid.
        stride: sides become multiples of so many voxels, or along (z, y, x), by taking more of the surroundings.
        max_side: largest sides, mm; a larger box is cut evenly on both ends.

    Returns:
        The grid, and whether the box had to be cut.
    """
    bound_low, bound_high = field.bounds()
    low, high = np.maximum(low, bound_low), np.minimum(high, bound_high)
    steps = steps_of(spacing)
    strides = [int(one) for one in np.broadcast_to(stride, 3)]
    counts = [_round_up(count, one) for count, one in zip((high - low) / steps, strides)]
    most = [max(one, math.floor(side / step / one) * one) for side, step, one in zip(max_side, steps, strides)]
    cut = any(count > limit for count, limit in zip(counts, most))
    counts = [min(count, limit) for count, limit in zip(counts, most)]
    half = 0.5 * steps * np.array(counts)
    # What rounding added should be image, not padding: stay inside the volume if the box fits, else centre it on the
    # volume.
    inside = np.minimum(np.maximum(0.5 * (low + high), bound_low + half), bound_high - half)
    centre = np.where(2 * half <= bound_high - bound_low, inside, 0.5 * (bound_low + bound_high))
    return _centred(counts, centre, spacing), cut


def _round_up(count: float, stride: int) -> int:
    return max(stride, math.ceil((count - 1e-6) / stride) * stride)


def _centred(counts: Sequence[int], centre: np.ndarray, spacing: Spacing) -> Grid:
    start = centre - 0.5 * steps_of(spacing) * (np.array(counts) - 1)
    depth, height, width = (int(count) for count in counts)
    z, y, x = (float(value) for value in start)
    return Grid((depth, height, width), (z, y, x), spacing)


def open_faces(grid: Grid, field: OrientedVolume) -> list[tuple[int, int]]:
    """Faces of a box beyond which the volume goes on by more than a voxel of the grid, as (axis, end), end 0 or -1."""
    low, high = field.bounds()
    goes_on = (grid.low > low + grid.steps, grid.high < high - grid.steps)
    return [(axis, end) for axis in range(3) for end in (0, -1) if goes_on[end][axis]]


def block_of(image: sitk.Image, box_mm: Mapping[str, Sequence[float]]) -> tuple[slice, slice, slice]:
    """Voxels (z, y, x) of a volume whose centres lie in a box; of an oblique volume the smallest block of voxels that
    holds all of these.

    Args:
        image: the volume.
        box_mm: corners "low" and "high", LPS, as ``heart_box_mm`` of a report.
    """
    corners = itertools.product(*zip(box_mm["low"], box_mm["high"]))
    places = np.array([image.TransformPhysicalPointToContinuousIndex(corner)[::-1] for corner in corners])
    first, last = np.ceil(places.min(axis=0) - 1e-3), np.floor(places.max(axis=0) + 1e-3)
    z, y, x = (slice(max(0, int(a)), max(0, int(b) + 1)) for a, b in zip(first, last))
    return z, y, x


def overlap_slices(grid: Grid, field: OrientedVolume) -> tuple[slice, slice, slice]:
    """Smallest block of the volume's voxels that holds all whose centres lie inside the grid; empty slices if there are
    none.
    """
    corners = np.array(list(itertools.product(*zip(grid.low, grid.high)))) @ field.rotation  # along the volume's axes
    first = np.clip(np.ceil(corners.min(axis=0) / field.spacing - 1e-6), 0, field.size).astype(int)
    last = np.clip(np.floor(corners.max(axis=0) / field.spacing + 1e-6) + 1, first, field.size).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last))
    return z, y, x
