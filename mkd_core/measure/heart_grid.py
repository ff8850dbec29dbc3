"""A label map on cubic voxels, whatever grid it came on: where lengths are measured.

Lengths need no finer grid than 1.5 mm: areas and distances are averages over many voxels.  So a fine CT is measured as
quickly as a coarse one, and oblique, anisotropic and sheared grids like upright ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mkd_core.structures import Structure

#: Voxel size of the measuring grid, mm.
SPACING_MM = 1.5

#: Kept round the structures, mm: room for the distances to what is outside of them.
_MARGIN_MM = 5.0

#: Step of the first look for the structures, mm.
_GLANCE_MM = 4.0

#: Largest cosine between axes of a grid that are taken for orthogonal.
_ORTHOGONAL = 1e-3


@dataclass(frozen=True)
class HeartGrid:
    """Labels on cubic voxels round the structures.

    Attributes:
        labels: ``(D, H, W)`` uint8.
        spacing: mm.
        origin: world position ``(3,)`` of the first voxel's centre, mm.
        axes: ``(3, 3)``; row a is the unit vector of array axis a in the world.
        label_of: label of each structure that is in the map, by key.
        at_edge: keys of structures that reach the edge of the volume.
    """

    labels: np.ndarray
    spacing: float
    origin: np.ndarray
    axes: np.ndarray
    label_of: dict[str, int]
    at_edge: frozenset[str]

    def mask(self, key: str) -> np.ndarray:
        """Where a structure is, ``(D, H, W)`` bool."""
        label = self.label_of.get(key)
        return np.zeros(self.labels.shape, bool) if label is None else self.labels == label

    def is_same_for(self, other: HeartGrid | None, keys: Collection[str]) -> bool:
        """Whether these structures have the same voxels at the same places in another grid, and reach the edge of the
        volume there if they do here: what is measured of them alone is then the same too.
        """
        if other is None or self.labels.shape != other.labels.shape:
            return False
        if not (np.array_equal(self.origin, other.origin) and np.array_equal(self.axes, other.axes)):
            return False
        return self.at_edge & set(keys) == other.at_edge & set(keys) and all(
            np.array_equal(self.mask(key), other.mask(key)) for key in keys
        )

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """World positions ``(n, 3)`` in mm of points ``(n, 3)`` in voxels of the array's axes."""
        return self.origin + (np.asarray(points, float) * self.spacing) @ self.axes

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        affine: np.ndarray,
        structures: Sequence[Structure],
        at_edge: Collection[str] | None = None,
    ) -> HeartGrid | None:
        """The measuring grid of a label map.

        Args:
            labels: ``(D, H, W)``, whole numbers.
            affine: ``(4, 4)``, from indices (i, j, k), along the array's last to first axis, to a right-handed world in
                mm, such as LPS or RAS.
            structures: what the labels mean.
            at_edge: keys of structures that reach the edge of the volume; None for those in the outermost voxels of
                the array.

        Returns:
            The grid, or None where none of the structures has a voxel.
        """
        label_of = {structure.key: structure.label for structure in structures}
        columns = np.asarray(affine, float)[:3, 2::-1]  # of array axes 0, 1, 2
        steps = np.linalg.norm(columns, axis=0)
        box = _box(labels, steps)
        if box is None:
            return None
        part = labels[box]
        first = np.array([side.start for side in box])
        origin = np.asarray(affine, float)[:3, 3] + columns @ first
        if at_edge is None:
            at_edge = _outermost(labels, label_of)
        units = columns / steps
        if np.abs(units.T @ units - np.eye(3)).max() < _ORTHOGONAL:
            grid = _thinned(part, steps)
            axes = units.T
        else:
            grid, origin, axes = _unsheared(part, columns, origin)
        present = set(np.unique(grid)) - {0}
        known = {key: label for key, label in label_of.items() if label in present}
        return cls(grid, SPACING_MM, origin, axes, known, frozenset(at_edge)) if known else None


def _box(labels: np.ndarray, steps: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Box of all labels with some margin; a first look at every few mm, so that large volumes are not read whole."""
    from scipy import ndimage

    strides = np.maximum(1, np.floor(_GLANCE_MM / steps)).astype(int)
    seen = labels[tuple(slice(None, None, int(stride)) for stride in strides)] > 0
    found = ndimage.find_objects(seen.astype(np.uint8))
    if not found:
        return None
    z, y, x = (
        slice(
            max(0, int(side.start * stride - stride - np.ceil(_MARGIN_MM / step))),
            min(size, int(side.stop * stride + stride + np.ceil(_MARGIN_MM / step))),
        )
        for side, stride, step, size in zip(found[0], strides, steps, labels.shape)
    )
    return z, y, x


def _outermost(labels: np.ndarray, label_of: dict[str, int]) -> set[str]:
    values: set[int] = set()
    for axis in range(3):
        for end in (0, -1):
            values |= set(np.unique(np.take(labels, end, axis=axis)).tolist())
    return {key for key, label in label_of.items() if label in values}


def _thinned(labels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Nearest labels on cubic voxels along the same axes."""
    picks = []
    for size, step in zip(labels.shape, steps):
        count = int((size - 1) * step / SPACING_MM) + 1
        picks.append(np.minimum(np.rint(np.arange(count) * SPACING_MM / step).astype(int), size - 1))
    return labels[np.ix_(*picks)].astype(np.uint8)


def _unsheared(
    labels: np.ndarray, columns: np.ndarray, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest labels on an upright grid in the world, its origin and its axes."""
    from scipy import ndimage

    corners = np.array(np.meshgrid(*[(0, size - 1) for size in labels.shape], indexing="ij")).reshape(3, -1)
    places = origin[:, None] + columns @ corners
    low = places.min(axis=1)
    axes = np.eye(3)[::-1]  # array axes 0, 1, 2 run along the world's z, y, x
    shape = tuple(int(side) for side in (np.ptp(places, axis=1)[::-1] / SPACING_MM + 1))
    matrix = np.linalg.inv(columns) @ (axes.T * SPACING_MM)
    offset = np.linalg.inv(columns) @ (low - origin)
    grid = ndimage.affine_transform(labels.astype(np.uint8), matrix, offset, shape, order=0, mode="constant")
    return grid, low, axes
