"""What goes wrong on the way from a body to an image: streaks, a heart that moved, thick slices, short axes, voids,
bands.

All take an image ``(Z, Y, X)``, float32, whose z-axis points to the head, and its voxel size in mm.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_DIRECTIONS = 256


def add_streaks(
    image: np.ndarray,
    source: np.ndarray,
    strength: float,
    rng: np.random.Generator,
    spacing: float,
    reach_mm: float = 35.0,
    free_mm: float = 6.0,
) -> None:
    """Dark and bright rays in axial planes from something dense, in place.

    Args:
        image: HU.
        source: what is dense, boolean; the rays leave the middle of all of it.
        strength: standard deviation of the rays beside the source, roughly, HU.
        rng: source of the rays.
        spacing: mm.
        reach_mm: distance over which rays fade.
        free_mm: distance that no ray crosses.
    """
    where = np.argwhere(source)
    if len(where) < 20:
        return
    _, y, x = where.mean(axis=0)
    rows = np.arange(image.shape[1], dtype=np.float32).reshape(1, -1, 1) - y
    columns = np.arange(image.shape[2], dtype=np.float32).reshape(1, 1, -1) - x
    distance = np.hypot(rows, columns) * spacing
    angle = ((np.arctan2(rows, columns) / (2 * np.pi) + 0.5) * (_DIRECTIONS - 1)).astype(int)
    rays = ndimage.gaussian_filter1d(rng.standard_normal((image.shape[0], _DIRECTIONS)), 2.0, axis=1, mode="wrap")
    rays = ndimage.gaussian_filter1d(rays, 1.5, axis=0) * 4
    dense = np.zeros(image.shape[0], np.float32)
    dense[np.unique(where[:, 0])] = 1
    fading = strength * np.exp(-distance / reach_mm) * (distance > free_mm)
    levels = np.arange(image.shape[0]).reshape(-1, 1, 1)
    image += (fading * ndimage.gaussian_filter1d(dense, 1.0).reshape(-1, 1, 1) * rays[levels, angle]).astype(np.float32)


def double_contours(
    image: np.ndarray, rng: np.random.Generator, spacing: float, largest_mm: float = 5.0, largest_share: float = 0.4
) -> np.ndarray:
    """The image with a fainter copy of itself beside it, as of a heart that moved between heartbeats."""
    way = rng.normal(0, 1, 3)
    way *= rng.uniform(0.3, 1.0) * largest_mm / spacing / np.linalg.norm(way)
    share = rng.uniform(0.1, largest_share)
    return (1 - share) * image + share * ndimage.shift(image, way, order=1, mode="nearest")


def thick_slices(
    image: np.ndarray, thickness_mm: float, rng: np.random.Generator, spacing: float, axis: int = 0
) -> np.ndarray:
    """What is left of an image that was recorded in slices and interpolated between them.

    Args:
        image: any units.
        thickness_mm: distance of the slices, each the mean over its thickness.
        rng: decides where the first slice lies.
        spacing: mm.
        axis: across the slices.
    """
    matrix = slices_matrix(image.shape[axis], thickness_mm, rng, spacing)
    return np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)


def slices_matrix(size: int, thickness_mm: float, rng: np.random.Generator, spacing: float) -> np.ndarray:
    """What :func:`thick_slices` does along an axis of ``size`` voxels, as a matrix ``(size, size)``, float32."""
    at = np.arange(size) * spacing
    centres = np.arange(rng.uniform(-thickness_mm, 0), at[-1] + thickness_mm, thickness_mm)
    seen = np.clip(
        1 - np.maximum(np.abs(centres[:, None] - at) - thickness_mm / 2, 0) / spacing, 0, 1
    )  # share of each voxel in each slice
    recorded = seen[seen.sum(axis=1) > 0]
    centres = centres[seen.sum(axis=1) > 0]
    recorded /= recorded.sum(axis=1, keepdims=True)
    between = np.stack([np.interp(at, centres, row) for row in np.eye(len(centres))], axis=1)
    return (between @ recorded).astype(np.float32)


def long_axis_frame(rng: np.random.Generator, spread_deg: float = 12.0) -> np.ndarray:
    """Directions of a stack along the long axis of a usual heart, turned at random: columns are the slices' normal and
    two directions within them, acting on (z, y, x), ``(3, 3)``.
    """
    normal = np.array([-0.50, -0.60, 0.62]) + np.tan(np.deg2rad(spread_deg)) * rng.normal(0, 0.7, 3)
    normal /= np.linalg.norm(normal)
    within = np.cross(normal, rng.normal(0, 1, 3))
    within /= np.linalg.norm(within)
    return np.stack([normal, within, np.cross(normal, within)], axis=1)


def as_stack(
    image: np.ndarray,
    frame: np.ndarray,
    thickness_mm: float,
    centre_mm: np.ndarray,
    reach_mm: np.ndarray,
    spacing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of an image that was recorded as a stack of thick slices in any plane, with a field of view of its
    own, and brought back to the grid: linear between the slices, and beyond the field of view its edge again.

    Args:
        image: any units.
        frame: (3, 3), columns are the slices' normal and the directions within them, (z, y, x).
        thickness_mm: distance of the slices, each the mean over its thickness.
        centre_mm: of the field of view, from the middle of the image, (z, y, x).
        reach_mm: half of the field of view along the columns of ``frame``.
        spacing: mm.

    Returns:
        (image, outside): what is seen, and which voxels lie beyond the field of view.
    """
    shape = image.shape
    axes = [((np.arange(n) - (n - 1) / 2) * spacing - middle).astype(np.float32) for n, middle in zip(shape, centre_mm)]
    along = [
        frame[0, k] * axes[0][:, None, None] + frame[1, k] * axes[1][:, None] + frame[2, k] * axes[2] for k in range(3)
    ]
    count = max(2, int(2 * reach_mm[0] / thickness_mm))  # slices
    last = 0.5 * (count - 1) * thickness_mm
    outside = (np.abs(along[0]) > last + 0.5 * thickness_mm) | (np.abs(along[1]) > reach_mm[1])
    outside |= np.abs(along[2]) > reach_mm[2]
    clipped = [np.clip(a, -r, r).astype(np.float32) for a, r in zip(along, (last, reach_mm[1], reach_mm[2]))]
    position = (clipped[0] + last) / thickness_mm
    below = np.minimum(np.floor(position), count - 2)
    share = position - below

    def seen(offset: np.ndarray | float) -> np.ndarray:
        """The image at the points, moved along the normal to ``offset`` mm."""
        parts = (offset, clipped[1], clipped[2])
        where = [
            (sum(frame[axis, k] * parts[k] for k in range(3)) + centre_mm[axis]) / spacing + (shape[axis] - 1) / 2
            for axis in range(3)
        ]
        return ndimage.map_coordinates(image, np.broadcast_arrays(*where), order=1, mode="nearest")

    result = np.zeros(shape, np.float32)
    looks = max(2, round(thickness_mm / (2 * spacing)))
    for step in (np.arange(looks) + 0.5) / looks - 0.5:
        for plane, weight in ((below, 1 - share), (below + 1, share)):
            result += weight / looks * seen((plane + step) * thickness_mm - last)
    return result, outside
