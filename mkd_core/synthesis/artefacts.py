"""What goes wrong on the way from a body to an image: streaks, a heart that moved, thick slices.

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
    size = image.shape[axis]
    at = np.arange(size) * spacing
    centres = np.arange(rng.uniform(-thickness_mm, 0), at[-1] + thickness_mm, thickness_mm)
    seen = np.clip(
        1 - np.maximum(np.abs(centres[:, None] - at) - thickness_mm / 2, 0) / spacing, 0, 1
    )  # share of each voxel in each slice
    recorded = seen[seen.sum(axis=1) > 0]
    centres = centres[seen.sum(axis=1) > 0]
    recorded /= recorded.sum(axis=1, keepdims=True)
    between = np.stack([np.interp(at, centres, row) for row in np.eye(len(centres))], axis=1)
    return np.moveaxis(np.tensordot((between @ recorded).astype(np.float32), image, (1, axis)), 0, axis)
