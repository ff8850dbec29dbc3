"""Smooth maps of space that turn one template into many: rotation and scale, growth, twist, free-form deformation.

All maps go from the picture to the template (where does the tissue at this point come from?), so that the template's
solids can be evaluated at the mapped points.  Points are ``(3, n)`` float32 in mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rotation(degrees) -> np.ndarray:
    """Rotation matrix ``(3, 3)`` of turns about x, then y, then z, in degrees."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def shrink_back(points: np.ndarray, centre, factor: float, width: float) -> np.ndarray:
    """Undo a growth: what lies round ``centre`` is drawn ``factor`` times as large, and its neighbours move aside.

    The effect falls off as a Gaussian of ``width`` mm.  One-to-one for factors of 0.6 and more.
    """
    offset = points - np.asarray(centre, dtype=np.float32)[:, None]
    weight = np.exp((offset * offset).sum(axis=0) * np.float32(-0.5 / width**2))
    return points - offset * weight * np.float32(1.0 - 1.0 / factor)


def twist_back(points: np.ndarray, centre, axis, degrees: float, inner: float, outer: float) -> np.ndarray:
    """Undo a turn about an axis through ``centre``: full within ``inner`` mm of the centre, none beyond ``outer``
    mm.
    """
    centre, axis = np.asarray(centre, dtype=np.float32)[:, None], np.asarray(axis, dtype=np.float32)
    axis = axis / np.linalg.norm(axis)
    offset = points - centre
    fall = np.clip((outer - np.sqrt((offset * offset).sum(axis=0))) / (outer - inner), 0.0, 1.0)
    angle = np.float32(-np.radians(degrees)) * fall * fall * (3.0 - 2.0 * fall)
    along = axis @ offset
    crossed = np.cross(axis, offset, axis=0)
    return centre + offset * np.cos(angle) + crossed * np.sin(angle) + axis[:, None] * (along * (1.0 - np.cos(angle)))


def basis(positions: np.ndarray, first: float, step: float, count: int, cubic: bool) -> np.ndarray:
    """Weights ``(len(positions), count)`` of nodes at ``first + i * step``: cubic B-spline, or linear interpolation."""
    t = np.abs((positions[:, None] - first) / step - np.arange(count)[None, :])
    if cubic:
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    else:
        weights = np.clip(1 - t, 0, None)
    return weights.astype(np.float32)


def spread(nodes: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Values on a grid from values at nodes ``(z, y, x)``: one small matrix product per axis, weights in that order."""
    wz, wy, wx = weights
    along_x = nodes @ wx.T
    along_y = np.matmul(wy, along_x)
    return (wz @ along_y.reshape(len(nodes), -1)).reshape(len(wz), len(wy), len(wx))


class FreeForm:
    """Random smooth fields on a cubic lattice of ``step`` mm over a box, the same for any sampling of the box.

    Args:
        rng: source of randomness.
        low, high: corners ``(x, y, z)`` of the box in mm.
        step: distance of the lattice's nodes in mm; features are about twice as large.
        components: number of independent fields.
    """

    def __init__(self, rng: np.random.Generator, low, high, step: float, components: int) -> None:
        self._step = step
        self._first = np.asarray(low, dtype=float) - 2 * step
        count = np.ceil((np.asarray(high) - np.asarray(low)) / step).astype(int) + 5
        self._nodes = rng.standard_normal((components, *count[::-1])).astype(np.float32)

    def on_grid(self, axes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Fields ``(components, z, y, x)`` with standard deviation about 1 at the grid of the coordinates ``(x, y,
        z)``.
        """
        weights = tuple(
            basis(axis, first, self._step, count, cubic=True)
            for axis, first, count in zip(axes[::-1], self._first[::-1], self._nodes.shape[1:])
        )
        # A cubic B-spline averages its nodes; 0.33 is the standard deviation left of one, per axis 0.69.
        return np.stack([spread(nodes, weights) for nodes in self._nodes]) / np.float32(0.33)
