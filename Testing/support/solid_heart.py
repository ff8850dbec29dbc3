"""A heart of solids whose measures are known exactly: left ventricle with wall, right ventricle, atrium, two tubes."""

from __future__ import annotations

import numpy as np

from mkd_core.structures import BY_KEY
from Testing.support.stored_volumes import rotation

AORTA_MM, TRUNK_MM, WALL_MM = 34.0, 26.0, 8.0
TO_APEX = np.array([0.62, -0.55, -0.56]) / np.linalg.norm([0.62, -0.55, -0.56])
TO_SEPTUM = np.cross(np.cross(TO_APEX, [-1.0, -0.6, 0.1]), TO_APEX)
TO_SEPTUM /= np.linalg.norm(TO_SEPTUM)
ANTERIOR = np.cross(TO_SEPTUM, TO_APEX)


def turned(spacing, angles=(0.3, -0.2, 0.4), size=(84, 104, 104)) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Matrix from indices (i, j, k) to LPS mm of an oblique grid about the origin, and the array's shape."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (0.5 * (np.array(size[::-1]) - 1)) + [0.0, 0.0, 25.0]
    return affine, size


def phantom(affine: np.ndarray, shape: tuple[int, int, int], thick=None) -> np.ndarray:
    """Labels ``(D, H, W)`` of a heart of solids: left ventricle with wall, right ventricle on the septum, atrium, and
    two tubes.

    ``thick`` is a pair: direction from the long axis, and mm by which the wall there is thicker.
    """
    k, j, i = np.indices(shape).reshape(3, -1)
    points = (affine[:3, :3] @ np.stack([i, j, k]) + affine[:3, 3:]).T
    labels = np.zeros(len(points), np.uint8)
    along = points @ TO_APEX  # the base is at -20, the cavity's tip at 42
    across = points - np.outer(along, TO_APEX)
    radius = np.linalg.norm(across, axis=1)
    inner = np.sqrt(np.maximum(0.0, 1.0 - (np.maximum(along, 0.0) / 42.0) ** 2)) * 22.0
    wall = np.full(len(points), WALL_MM)
    if thick is not None:
        cosine = across @ thick[0] / np.maximum(radius, 1e-6)
        wall = wall + thick[1] * (cosine > np.cos(np.radians(50.0)))
    outer = np.sqrt(np.maximum(0.0, 1.0 - (np.maximum(along, 0.0) / (42.0 + WALL_MM)) ** 2)) * (22.0 + wall)
    chamber = along > -20.0
    septal = across @ TO_SEPTUM / np.maximum(radius, 1e-6) > np.cos(np.radians(60.0))
    right = chamber & (along < 30.0) & (radius > outer) & (radius < outer + 18.0) & septal
    labels[right] = BY_KEY["RV"].label
    labels[chamber & (radius < outer)] = BY_KEY["Myo"].label
    labels[chamber & (radius < inner)] = BY_KEY["LV"].label
    atrium = np.linalg.norm(points + 38.0 * TO_APEX - 8.0 * ANTERIOR * -1.0, axis=1) < 21.0
    labels[atrium & ~chamber] = BY_KEY["LA"].label
    root = -20.0 * TO_APEX + 12.0 * ANTERIOR
    for key, start, way, diameter in (
        ("AA", root, np.array([-0.2, 0.1, 1.0]), AORTA_MM),
        ("PA", -18.0 * TO_APEX + 34.0 * TO_SEPTUM + 20.0 * ANTERIOR, np.array([0.35, -0.5, 1.0]), TRUNK_MM),
    ):
        way = way / np.linalg.norm(way)
        height = (points - start) @ way
        off = np.linalg.norm(points - start - np.outer(height, way), axis=1)
        tube = (height > -6.0) & (height < (75.0 if key == "AA" else 45.0)) & (off < 0.5 * diameter)
        labels[tube & ((labels == 0) | (labels == BY_KEY["LA"].label))] = BY_KEY[key].label
    return labels.reshape(shape)
