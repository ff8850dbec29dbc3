"""Implicit solids: shapes given by a distance, negative inside, zero on the surface, positive outside, in mm.

Blending distances gives smooth joints, comparing them gives walls and contacts of a known thickness, and their values
can be interpolated between sample points, so that a shape is computed on a coarse grid and drawn at any spacing.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

#: Distance given to points that are far from a solid, mm.  Wider than any blend or wall made with it.
FAR = np.float32(30.0)
_REACH = 18.0  # mm around a solid within which its distance is computed


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Union of two solids with a fillet: the smaller distance, rounded off where they differ by less than ``width``
    mm.
    """
    rest = np.maximum(width - np.abs(a - b), 0.0)
    return np.minimum(a, b) - rest * rest * np.float32(0.25 / width)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Intersection of two solids with a rounded edge; see `smooth_min`."""
    return -smooth_min(-a, -b, width)


def spline(points: np.ndarray, values: np.ndarray, step: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Catmull-Rom curve through points, the values along it interpolated linearly.

    Args:
        points: ``(k, 3)`` in mm, at least two.
        values: ``(k,)``, for example radii.
        step: distance of the samples in mm.

    Returns:
        ``(n, 3)`` samples, ``(n,)`` values, ``(n,)`` arc length in mm from the first point.
    """
    ends = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    pieces, weights = [], []
    for i in range(len(points) - 1):
        count = max(2, int(np.ceil(np.linalg.norm(points[i + 1] - points[i]) / step)))
        t = np.linspace(0.0, 1.0, count, endpoint=i == len(points) - 2)[:, None]
        p0, p1, p2, p3 = ends[i : i + 4]
        pieces.append(
            0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
        )
        weights.append(i + t[:, 0])
    curve = np.concatenate(pieces)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return curve, np.interp(np.concatenate(weights), np.arange(len(points)), values), arc


class Space:
    """Sample points at which solids are evaluated.

    Args:
        points: ``(3, n)`` float32 coordinates in mm.

    Every method returns ``(n,)`` float32 distances in mm.
    """

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    def _near(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Indices of the points in a box grown by the reach of a solid."""
        keep = np.ones(self.points.shape[1], dtype=bool)
        for coordinate, a, b in zip(self.points, low, high):
            keep &= (coordinate > a - _REACH) & (coordinate < b + _REACH)
        return np.flatnonzero(keep)

    def plane(self, point, normal) -> np.ndarray:
        """Half space behind a plane: positive on the side to which the normal points."""
        normal = np.asarray(normal, dtype=np.float32)
        normal = normal / np.linalg.norm(normal)
        return normal @ self.points - np.float32(normal @ np.asarray(point, dtype=np.float32))

    def distance(self, point) -> np.ndarray:
        """Distance to a point."""
        return np.sqrt(((self.points - np.asarray(point, dtype=np.float32)[:, None]) ** 2).sum(axis=0))

    def ellipsoid(self, centre, radii, axes=None) -> np.ndarray:
        """Ellipsoid; ``axes`` are the unit vectors of ``radii`` as rows, the coordinate axes if left out.

        The distance is the usual first-order one (value over gradient of the implicit function): exact on the surface.
        """
        centre, radii = np.asarray(centre, dtype=np.float32), np.asarray(radii, dtype=np.float32)
        axes = np.eye(3, dtype=np.float32) if axes is None else np.asarray(axes, dtype=np.float32)
        half = np.sqrt(((axes * radii[:, None]) ** 2).sum(axis=0))
        keep = self._near(centre - half, centre + half)
        scaled = (axes / radii[:, None]) @ (self.points[:, keep] - centre[:, None])
        value = np.sqrt((scaled * scaled).sum(axis=0))
        slope = np.sqrt(((scaled / radii[:, None]) ** 2).sum(axis=0))
        result = np.full(self.points.shape[1], FAR, dtype=np.float32)
        result[keep] = np.minimum(value * (value - 1.0) / np.maximum(slope, 1e-6), FAR)
        return result

    def tube(self, points) -> np.ndarray:
        """Tube with round ends along a smooth curve through points ``(x, y, z, radius)``."""
        return self.tube_with_arc(points)[0]

    def tube_with_arc(self, points) -> tuple[np.ndarray, np.ndarray]:
        """A tube, and the arc length in mm at the nearest point of its centre line (infinite far away)."""
        points = np.asarray(points, dtype=np.float64)
        curve, radius, arc = spline(points[:, :3], points[:, 3])
        widest = radius.max()
        keep = self._near(curve.min(axis=0) - widest, curve.max(axis=0) + widest)
        # Curves are short: a tree that takes no pains is quicker, and finds the same.
        tree = cKDTree(curve, leafsize=32, balanced_tree=False)
        found, nearest = tree.query(self.points[:, keep].T, distance_upper_bound=widest + _REACH)
        reached = nearest < len(curve)
        keep, found, nearest = keep[reached], found[reached], nearest[reached]
        result = np.full(self.points.shape[1], FAR, dtype=np.float32)
        along = np.full(self.points.shape[1], np.inf, dtype=np.float32)
        result[keep] = np.minimum(found - radius[nearest], FAR)
        along[keep] = arc[nearest]
        return result, along
