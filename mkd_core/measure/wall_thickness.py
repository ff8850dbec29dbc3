"""Thickness of the left ventricular wall, as a whole and in the 17 segments of the American Heart Association.

At every place half way through the wall the thickness is the distance to the cavity plus the distance to the outer
surface: perpendicular to both surfaces where they are parallel, whatever the orientation of the slices.  Trabeculae and
papillary muscles count as cavity, as in the label maps.

Segments: Cerqueira et al., Circulation 105 (2002), 539.  The long axis runs from the tip of the cavity to the middle of
the mitral valve; thirds of the cavity's length give the basal, mid and apical segments, the muscle beyond the tip is
segment 17.  Segment 2 begins at the anterior insertion of the right ventricle.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.messages import finding
from mkd_core.measure.steps import all_at_once
from mkd_core.protocol import Finding

#: Names of the 17 segments.
SEGMENT_NAMES: Mapping[int, str] = {
    1: "Basal anterior",
    2: "Basal anteroseptal",
    3: "Basal inferoseptal",
    4: "Basal inferior",
    5: "Basal inferolateral",
    6: "Basal anterolateral",
    7: "Mid anterior",
    8: "Mid anteroseptal",
    9: "Mid inferoseptal",
    10: "Mid inferior",
    11: "Mid inferolateral",
    12: "Mid anterolateral",
    13: "Apical anterior",
    14: "Apical septal",
    15: "Apical inferior",
    16: "Apical lateral",
    17: "Apex",
}

#: Structures that decide how thick the wall is found: what is measured, and what it borders on.
WALL_KEYS = ("LV", "Myo", "RV", "LA", "LAA", "AA")

#: The left atrium, whose appendage may have a label of its own.
_ATRIUM_KEYS = ("LA", "LAA")

#: Mean thicknesses outside are not a wall's but a mistake, mm.
PLAUSIBLE_MM = (2.5, 30.0)

#: The wall ends here, before the mitral valve, mm: nearer to it the distance is that to the cut edge.
_BASE_MM = 6.0

#: Least share of the cavity's surface, valves excepted, that muscle covers.
_LEAST_COVER = 0.5

#: What is thicker than the rest by chance: this share of all places is thicker than the largest thickness.
_THICKEST_SHARE = 0.02

#: Fewest places of a segment that give it a thickness.
_FEWEST = 8

#: Most voxels of the muscle that are looked at.
_MOST_PLACES = 12_000

#: The right ventricle lies on the septum where it is within so many mm of the muscle's outer surface.
_SEPTUM_MM = 3.0


@dataclass(frozen=True)
class WallThickness:
    """Thickness of the left ventricular wall.

    Attributes:
        mean_mm, largest_mm: of the whole wall; the largest is the 98th percentile, so that no single voxel makes it.
        segments: mean of each segment, by its number from 1 to 17; empty where the septum is not known.
        no_segments: why there are no segments, or None.
    """

    mean_mm: float
    largest_mm: float
    segments: Mapping[int, float]
    no_segments: Finding | None = None


def wall_thickness(grid: HeartGrid) -> WallThickness | Finding:
    """Measure the left ventricular wall, or say by a finding why it cannot be."""
    return all_at_once(wall_thickness_steps(grid))


def wall_thickness_steps(grid: HeartGrid) -> Generator[None, None, WallThickness | Finding]:
    """Measure as :func:`wall_thickness` does, in steps."""
    for key in ("LV", "Myo"):
        if key not in grid.label_of:
            return finding("figure_needs_structure", structure=key)
        if key in grid.at_edge:
            return finding("figure_at_edge", structure=key)
    box = _box(grid)
    labels = grid.labels[box]
    cavity, muscle = labels == grid.label_of["LV"], labels == grid.label_of["Myo"]
    cover = _cover(labels, grid)
    if cover < _LEAST_COVER:
        return finding("wall_open", fraction=cover)
    yield
    step = grid.spacing
    wall = cavity | muscle
    axis = _LongAxis.of(cavity, _open_base(labels, cavity, muscle, grid), step)
    places = np.argwhere(muscle)
    places = places[:: max(1, len(places) // _MOST_PLACES)]
    places = places[axis.along(places * step) < axis.length - _BASE_MM]
    yield
    inwards = _distances(places, _surface(cavity))
    yield
    outwards = _distances(places, _surface(wall))
    yield
    half_way = np.abs(inwards - outwards) <= 1.0
    half_way[half_way] = _distances(places[half_way], _valves(labels, cavity, grid)) * step > _BASE_MM
    places, thickness = places[half_way], step * (inwards + outwards)[half_way]
    if len(places) < _FEWEST:
        return finding("figure_needs_structure", structure="Myo")
    along, offset = axis.along(places * step), axis.across(places * step)
    mean = float(thickness.mean())
    if not PLAUSIBLE_MM[0] <= mean <= PLAUSIBLE_MM[1]:
        return finding("figure_implausible", structure="Myo", mm=mean)
    largest = float(np.quantile(thickness, 1.0 - _THICKEST_SHARE))
    yield
    septum = _septum(labels, muscle, grid, axis)
    if septum is None:
        return WallThickness(mean, largest, {}, finding("no_septum"))
    angles = _angles(offset, axis, septum.direction, grid.axes)
    numbers = _segment_of(along / axis.length, angles, septum.anterior)
    totals, sums = np.bincount(numbers, minlength=18), np.bincount(numbers, thickness, minlength=18)
    segments = {number: float(sums[number] / totals[number]) for number in range(1, 18) if totals[number] >= _FEWEST}
    return WallThickness(mean, largest, segments)


def _box(grid: HeartGrid) -> tuple[slice, ...]:
    """Box of the muscle and cavity, with room for what is outside."""
    from scipy import ndimage

    both = (grid.labels == grid.label_of["LV"]) | (grid.labels == grid.label_of["Myo"])
    found = ndimage.find_objects(both.astype(np.uint8))[0]
    room = int(np.ceil(_SEPTUM_MM / grid.spacing)) + 1
    return tuple(slice(max(0, s.start - room), min(n, s.stop + room)) for s, n in zip(found, both.shape))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Points ``(n, 3)`` of a mask's surface in voxels: where the smoothed mask crosses one half between two voxels.

    Smoothing removes the steps of the voxels, which would make walls too thin: the nearest corner sticks out.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(mask.astype(np.float32), 0.8) - 0.5
    points = []
    for axis in range(3):
        along = np.moveaxis(smooth, axis, 0)
        here, there = along[:-1], along[1:]
        where = np.nonzero(here * there < 0.0)
        found = np.array(where, float).T
        found[:, 0] += here[where] / (here[where] - there[where])
        order = [0, 1, 2]
        order.remove(axis)
        whole = np.empty_like(found)
        whole[:, axis], whole[:, order] = found[:, 0], found[:, 1:]
        points.append(whole)
    return np.concatenate(points)


def _labels_of(keys: Sequence[str], grid: HeartGrid) -> list[int]:
    return [grid.label_of[key] for key in keys if key in grid.label_of]


def _distances(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of each place to the nearest point; infinite where there are no points."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(places):
        return np.full(len(places), np.inf)
    return cKDTree(points, compact_nodes=False, balanced_tree=False).query(places)[0]


def _valves(labels: np.ndarray, cavity: np.ndarray, grid: HeartGrid) -> np.ndarray:
    """Voxels ``(n, 3)`` of atrium and aorta beside the cavity: near them the wall ends, and is not thin."""
    from scipy import ndimage

    beside = np.isin(labels, _labels_of((*_ATRIUM_KEYS, "AA"), grid))
    return np.argwhere(beside & ndimage.binary_dilation(cavity, iterations=2))


def _cover(labels: np.ndarray, grid: HeartGrid) -> float:
    """Share of the cavity's surface, left atrium and aorta excepted, that muscle covers."""
    cavity, muscle = grid.label_of["LV"], grid.label_of["Myo"]
    valves = _labels_of((*_ATRIUM_KEYS, "AA"), grid)
    covered = free = 0
    for axis in range(3):
        along = np.moveaxis(labels, axis, 0)
        for here, there in ((along[:-1], along[1:]), (along[1:], along[:-1])):
            beside = np.bincount(there[here == cavity], minlength=256)
            covered += int(beside[muscle])
            free += int(beside.sum() - beside[cavity] - beside[muscle] - beside[valves].sum())
    return covered / max(covered + free, 1)


def _open_base(labels: np.ndarray, cavity: np.ndarray, muscle: np.ndarray, grid: HeartGrid) -> np.ndarray:
    """Cavity voxels at the mitral valve; at any opening of the wall where the left atrium is not there."""
    from scipy import ndimage

    if "LA" in grid.label_of:
        atrium = np.isin(labels, _labels_of(_ATRIUM_KEYS, grid))
        valve = cavity & ndimage.binary_dilation(atrium, iterations=2)
        if np.count_nonzero(valve) >= 10:
            return valve
    inner = ndimage.binary_dilation(~(cavity | muscle), iterations=1)
    return cavity & inner


@dataclass(frozen=True)
class _LongAxis:
    """From the tip of the cavity to the middle of the mitral valve, in mm along the array's axes."""

    tip: np.ndarray
    direction: np.ndarray
    length: float

    @classmethod
    def of(cls, cavity: np.ndarray, base: np.ndarray, step: float) -> _LongAxis:
        voxels = np.argwhere(cavity) * step
        middle = np.argwhere(base).mean(axis=0) * step if base.any() else voxels[0]
        far = np.linalg.norm(voxels - middle, axis=1)
        tip = voxels[far >= np.quantile(far, 0.999)].mean(axis=0)
        way = middle - tip
        length = float(np.linalg.norm(way))
        return cls(tip, way / max(length, 1e-6), length)

    def along(self, points: np.ndarray) -> np.ndarray:
        """Way from the tip towards the base, mm."""
        return (points - self.tip) @ self.direction

    def across(self, points: np.ndarray) -> np.ndarray:
        """Offsets ``(n, 3)`` from the axis, mm."""
        offset = points - self.tip
        return offset - np.outer(offset @ self.direction, self.direction)


@dataclass(frozen=True)
class _Septum:
    """Where the septum is: unit vector from the axis to it, and the angle of the anterior insertion from there."""

    direction: np.ndarray
    anterior: float


def _septum(labels: np.ndarray, muscle: np.ndarray, grid: HeartGrid, axis: _LongAxis) -> _Septum | None:
    from scipy import ndimage

    label = grid.label_of.get("RV")
    if label is None:
        return None
    right = labels == label
    reach = max(1, round(_SEPTUM_MM / grid.spacing))
    touching = np.argwhere(muscle & ndimage.binary_dilation(right, iterations=reach)) * grid.spacing
    share = axis.along(touching) / axis.length
    touching = touching[(share > 1 / 3) & (share < 0.9)]
    if len(touching) < 30:
        return None
    offsets = axis.across(touching)
    middle = offsets.mean(axis=0)
    if np.linalg.norm(middle) < 3.0:  # all round: this is no septum
        return None
    direction = middle / np.linalg.norm(middle)
    angles = _angles(offsets, axis, direction, grid.axes)
    anterior = float(np.quantile(angles, 0.98))
    return _Septum(direction, anterior) if 0.2 < anterior < 2.2 else None


def _angles(offsets: np.ndarray, axis: _LongAxis, septum: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Angles from the middle of the septum, positive towards the anterior wall, -pi to pi.

    Anterior is across septum and axis in a right-handed world, whichever way round the array is.
    """
    to_apex, to_septum = -axis.direction @ axes, septum @ axes
    anterior = np.cross(to_septum, to_apex)
    world = offsets @ axes
    return np.arctan2(world @ anterior, world @ to_septum)


def _segment_of(share: np.ndarray, angle: np.ndarray, anterior: float) -> np.ndarray:
    """Numbers of the segments of places.

    Args:
        share: of the cavity's length, 0 at its tip and 1 at the mitral valve.
        angle: from the middle of the septum, positive towards the anterior wall.
        anterior: angle of the anterior insertion of the right ventricle.
    """
    sixth = np.pi / 3.0
    # Segment 2 lies below the anterior insertion, 3 below it, and so on round to 1 above it.
    turn = np.mod(anterior - angle, 2.0 * np.pi)
    ring = np.mod(np.floor(turn / sixth).astype(int) + 1, 6) + 1
    # The four apical segments: the anterior one has its middle where that of segment 1 is.
    quarter = np.mod(np.floor(np.mod(anterior + 0.5 * sixth + np.pi / 4.0 - angle, 2.0 * np.pi) / (np.pi / 2.0)), 4)
    number = np.where(share >= 2.0 / 3.0, ring, np.where(share >= 1.0 / 3.0, ring + 6, quarter.astype(int) + 13))
    return np.where(share < 0.0, 17, number).astype(int)
