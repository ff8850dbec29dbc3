"""Diameters of the aorta and of the pulmonary trunk, perpendicular to their centre lines.

The centre line runs from the valve, where the vessel touches its ventricle, along centroids of shells of equal distance
from the valve, measured inside the vessel.  Sections perpendicular to it are taken through the smooth mask; the
diameter of a section is that of the circle with its area.  The lumen is measured, without the wall.

Levels: the ascending aorta is measured half way between the sinotubular junction and the arch, the pulmonary trunk half
way between valve and bifurcation, as Erbel et al., Eur Heart J 35 (2014), 2873, and Truong et al., Circ Cardiovasc
Imaging 5 (2012), 147, do.  Of five neighbouring sections the one with the median diameter counts.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.messages import finding
from mkd_core.measure.steps import all_at_once
from mkd_core.protocol import Finding

#: Arteries that are measured: the ventricle each comes from, and what shares of the way, or mm from the valve, are
#: looked at.
VENTRICLE_OF = {"AA": "LV", "PA": "RV"}

#: Diameters outside are not a vessel's but a mistake, mm.
PLAUSIBLE_MM = {"AA": (12.0, 90.0), "PA": (10.0, 70.0), "DAo": (10.0, 80.0)}

#: Structures that decide what is found there.
AORTA_KEYS = ("AA", "DAo", "PA", "LV")

#: Where the aorta beyond its ascending part is measured, see :func:`aorta_diameters_steps`.
AORTIC_LEVELS = ("arch", "descending")

#: Vessels narrower than twice this are branches of the aorta, mm.
_BRANCH_MM = 5.0

#: Way that the centre line must go on beyond the top of the arch, mm.
_BEYOND_TOP_MM = 15.0

#: A highest plane of the aorta that is wider is no arch but a cut, mm².
_FLAT_MM2 = 500.0

#: Widest gap between a ventricle and its artery that is taken for a valve, mm.
_VALVE_MM = 8.0

#: Shortest way along a vessel on which a diameter can be measured, mm.
_SHORTEST_MM = {"AA": 35.0, "PA": 22.0}

#: Sinotubular junction: so far from the valve, in mean diameters of the vessel; and length of the oblique end at the
#: arch.
_ROOT_DIAMETERS, _END_DIAMETERS = 0.75, 0.5

#: Least ratio of the shortest to the longest chord of a section that is a vessel's: of the descending aorta, which the
#: box round the heart may cut lengthwise, nearly that of a circle.
_ROUNDNESS = {"AA": 0.55, "PA": 0.55, "arch": 0.6, "descending": 0.75}

#: A shell so many times as wide as the trunk is that of the bifurcation.
_BRANCHING = 1.45

_NODE_MM = 2.5  # of the graph of ways inside the vessel
_SHELL_MM = 3.0  # thickness of a shell
_STEP_MM = 0.75  # of the points of a section
_NEIGHBOURS_MM = 2.0  # distance of neighbouring sections
_CHORDS = 36
_ROOM = 7  # voxels round a vessel, in which its ventricle is looked for


@dataclass(frozen=True)
class VesselDiameter:
    """A section of a vessel.

    Attributes:
        diameter_mm: of the circle with the section's area.
        shortest_mm, longest_mm: chords through its centre.
        line: world positions (x, y, z) of the ends of a chord through the centre that is as long as the diameter, mm.
        direction: unit vector of the centre line there.
    """

    diameter_mm: float
    shortest_mm: float
    longest_mm: float
    line: tuple[tuple[float, float, float], tuple[float, float, float]]
    direction: tuple[float, float, float]


def vessel_diameter(grid: HeartGrid, key: str) -> VesselDiameter | Finding:
    """Measure the ascending aorta or the pulmonary trunk.

    Args:
        grid: labels.
        key: "AA" or "PA".

    Returns:
        The diameter, or a finding that says why there is none.
    """
    return all_at_once(vessel_diameter_steps(grid, key))


def vessel_diameter_steps(grid: HeartGrid, key: str) -> Generator[None, None, VesselDiameter | Finding]:
    """Measure as :func:`vessel_diameter` does, in steps."""
    from scipy import ndimage

    mask, ventricle = grid.mask(key), grid.mask(VENTRICLE_OF[key])
    for one, structure in ((mask, key), (ventricle, VENTRICLE_OF[key])):
        if not one.any():
            return finding("figure_needs_structure", structure=structure)
    box = _with_margin(ndimage.find_objects(mask.astype(np.uint8))[0], mask.shape)
    first = np.array([side.start for side in box]) * grid.spacing
    part = _largest_part(mask[box])
    yield
    start = _valve(part, ventricle, box, grid.spacing)
    if start is None:
        return finding("vessel_unattached", structure=key, first=VENTRICLE_OF[key])
    yield
    smooth = ndimage.gaussian_filter(part.astype(np.float32), 0.5)
    line = _centre_line(part, start, grid.spacing)
    yield
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    level = _level(key, arc, line, part, grid.spacing)
    if level is None:
        return finding("vessel_short", structure=key, mm=float(arc[-1]), needed_mm=_SHORTEST_MM[key])
    yield
    return _measured(smooth, *_at(line, arc, level), key, key, first, grid)


def aorta_diameters(grid: HeartGrid) -> dict[str, VesselDiameter | Finding]:
    """Measure the aorta beyond its ascending part, where that is segmented, see :func:`aorta_diameters_steps`."""
    return all_at_once(aorta_diameters_steps(grid))


def aorta_diameters_steps(grid: HeartGrid) -> Generator[None, None, dict[str, VesselDiameter | Finding]]:
    """Measure the aorta at the top of its arch, and descending at the height of the pulmonary artery, in steps.

    Levels: the arch as in Erbel et al., the descending aorta as Rogers et al., Am J Cardiol 111 (2013), 1510, measured
    it.  The centre line begins at the valve; branches are left out by opening the mask, for they are narrower.

    Returns:
        Of "arch" and "descending": the diameter, or a finding that says why there is none.
    """
    from scipy import ndimage

    for key in AORTA_KEYS:
        if not grid.mask(key).any():
            return dict.fromkeys(AORTIC_LEVELS, finding("figure_needs_structure", structure=key))
    found: dict[str, VesselDiameter | Finding] = {}
    mask = grid.mask("AA") | grid.mask("DAo")
    box = _with_margin(ndimage.find_objects(mask.astype(np.uint8))[0], mask.shape)
    first = np.array([side.start for side in box]) * grid.spacing
    trunk = _without_branches(mask[box], grid.spacing)
    yield
    part = _largest_part(trunk)
    start = _valve(part, grid.mask("LV"), box, grid.spacing) if part.any() else None
    yield
    if start is None:
        found["arch"] = finding("vessel_unattached", structure="AA", first="LV")
    else:
        line = _centre_line(part, start, grid.spacing)
        arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        top = int(grid.to_world((line + first) / grid.spacing)[:, 2].argmax())
        beyond = float(arc[-1] - arc[top])
        if beyond < _BEYOND_TOP_MM:
            found["arch"] = finding("vessel_short", structure="DAo", mm=beyond, needed_mm=_BEYOND_TOP_MM)
        elif _is_cut_flat(part, grid):
            found["arch"] = finding("figure_at_edge", structure="DAo")
        else:
            yield
            smooth = ndimage.gaussian_filter(part.astype(np.float32), 0.5)
            yield
            found["arch"] = _measured(smooth, *_at(line, arc, float(arc[top])), "DAo", "arch", first, grid)
    yield
    beyond_arch = grid.mask("DAo")[box]
    place = _at_height(
        trunk & beyond_arch, first, grid, grid.to_world(np.argwhere(grid.mask("PA")).mean(axis=0)[None])[0, 2]
    )
    yield
    if place is None:
        found["descending"] = finding("figure_at_edge", structure="DAo")
    else:
        smooth = ndimage.gaussian_filter(beyond_arch.astype(np.float32), 0.5)
        found["descending"] = _measured(smooth, *place, "DAo", "descending", first, grid)
    return found


def _without_branches(mask: np.ndarray, spacing: float) -> np.ndarray:
    """A mask opened by a ball: what is narrower is left out."""
    from scipy import ndimage

    core = ndimage.distance_transform_edt(mask) * spacing > _BRANCH_MM
    if not core.any():
        return core
    opened: np.ndarray = mask & (ndimage.distance_transform_edt(~core) * spacing <= _BRANCH_MM)
    return opened


def _at_height(
    part: np.ndarray, first: np.ndarray, grid: HeartGrid, height: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Point and direction of the largest vessel of a mask that passes a height in the world, mm of the mask's array;
    None where none does from well above it to well below.
    """
    from scipy import ndimage

    voxels = np.argwhere(part)
    above = grid.to_world(voxels + first / grid.spacing)[:, 2] - height
    middles: list[np.ndarray] = []
    for offset in (0.0, 8.0, -8.0):
        slab = np.zeros(part.shape, bool)
        slab[tuple(voxels[np.abs(above - offset) <= grid.spacing].T)] = True
        parts, count = ndimage.label(slab, np.ones((3, 3, 3)))
        if not count:
            return None
        sizes = np.bincount(parts.ravel())[1:]
        centres = np.array(ndimage.center_of_mass(slab, parts, range(1, count + 1))) * grid.spacing
        if middles:
            middles.append(centres[np.linalg.norm(centres - middles[0], axis=1).argmin()])
        else:
            middles.append(centres[sizes.argmax()])
    way = middles[2] - middles[1]
    return middles[0], way / np.linalg.norm(way)


def _is_cut_flat(part: np.ndarray, grid: HeartGrid) -> bool:
    """Whether the highest plane of a vessel's mask is so wide that something cuts it there."""
    points = np.argwhere(part)
    height = grid.to_world(points)[:, 2]
    return bool(np.count_nonzero(height > height.max() - 0.75 * grid.spacing) * grid.spacing**2 > _FLAT_MM2)


def _measured(
    smooth: np.ndarray,
    centre: np.ndarray,
    direction: np.ndarray,
    key: str,
    level: str,
    first: np.ndarray,
    grid: HeartGrid,
) -> VesselDiameter | Finding:
    """The median of five neighbouring sections, or why there is none.

    Args:
        smooth: smooth mask of the vessel, whose first voxel lies ``first`` mm from that of the grid.
        centre, direction: of the middle section as far as they are known, mm in the mask's array.
        key: of the vessel.
        level: where it is measured, a key of :data:`_ROUNDNESS`.
        first: mm.
        grid: labels.
    """
    centre, direction = _refined(smooth, grid.spacing, centre, direction)
    offsets = _NEIGHBOURS_MM * np.arange(-2, 3)
    cuts = [_section(smooth, grid.spacing, centre + offset * direction, direction) for offset in offsets]
    sections = [one for one in cuts if one is not None]
    if len(sections) < 3:
        return finding("vessel_shape", structure=key)
    sections.sort(key=lambda one: one.diameter)
    middle = sections[len(sections) // 2]
    low, high = PLAUSIBLE_MM[key]
    if middle.shortest < _ROUNDNESS[level] * middle.longest or not low <= middle.diameter <= high:
        return finding("vessel_shape", structure=key)
    if key in grid.at_edge and _is_near_edge(middle, first, grid):
        return finding("figure_at_edge", structure=key)
    ends = grid.to_world((np.stack(middle.ends) + first) / grid.spacing)
    return VesselDiameter(
        middle.diameter,
        middle.shortest,
        middle.longest,
        (_triple(ends[0]), _triple(ends[1])),
        _triple(middle.normal @ grid.axes),
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _with_margin(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(0, side.start - _ROOM), min(size, side.stop + _ROOM)) for side, size in zip(box, shape))


def _largest_part(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def _valve(part: np.ndarray, ventricle: np.ndarray, box: tuple[slice, ...], spacing: float) -> np.ndarray | None:
    """Voxels ``(n, 3)`` of the vessel next to its ventricle; None where the two lie apart."""
    from scipy import ndimage

    grown = ventricle[box]
    if not grown.any():
        return None
    for _ in range(int(_VALVE_MM / spacing)):
        grown = ndimage.binary_dilation(grown)
        if (grown & part).any():
            return np.argwhere(ndimage.binary_dilation(grown) & part)
    return None


def _centre_line(part: np.ndarray, start: np.ndarray, spacing: float) -> np.ndarray:
    """Points ``(n, 3)`` in mm from the valve to the end, about a shell apart."""
    from scipy import ndimage, sparse
    from scipy.sparse.csgraph import dijkstra
    from scipy.spatial import cKDTree

    stride = max(1, round(_NODE_MM / spacing))
    coarse = part[::stride, ::stride, ::stride]
    numbers = np.full(coarse.shape, -1, np.int32)
    nodes = np.argwhere(coarse)
    numbers[coarse] = np.arange(len(nodes))
    rows, columns, lengths = [], [], []
    for step in _HALF_OF_26:
        here, there = _shifted(numbers, step)
        joined = (here >= 0) & (there >= 0)
        rows.append(here[joined])
        columns.append(there[joined])
        lengths.append(np.full(len(rows[-1]), stride * spacing * np.linalg.norm(step)))
    graph = sparse.coo_matrix(
        (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))), (len(nodes), len(nodes))
    )
    _, nearest = cKDTree(nodes * stride).query(start)
    away = dijkstra(graph.tocsr(), directed=False, indices=np.unique(nearest), min_only=True)
    reached = np.isfinite(away)
    places, away = nodes[reached] * (stride * spacing), away[reached]
    shells = (away / _SHELL_MM).astype(int)
    counts = np.bincount(shells)
    sums = np.stack([np.bincount(shells, places[:, axis]) for axis in range(3)], axis=1)
    points = sums[counts > 0] / counts[counts > 0, None]
    return ndimage.gaussian_filter1d(points, 1.5, axis=0, mode="nearest") if len(points) > 3 else points


_HALF_OF_26 = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) > (0, 0, 0)]


def _shifted(numbers: np.ndarray, step: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The array without its last, and without its first planes, along a step: pairs of neighbours."""
    here = tuple(slice(max(0, -a), size - max(0, a)) for a, size in zip(step, numbers.shape))
    there = tuple(slice(max(0, a), size - max(0, -a)) for a, size in zip(step, numbers.shape))
    return numbers[here], numbers[there]


def _level(key: str, arc: np.ndarray, line: np.ndarray, part: np.ndarray, spacing: float) -> float | None:
    """Way in mm from the valve to the level; None where the vessel is too short."""
    from scipy.spatial import cKDTree

    length = arc[-1]
    if len(line) < 6 or length < _SHORTEST_MM[key]:
        return None
    voxels = np.argwhere(part) * spacing
    _, nearest = cKDTree(line).query(voxels)
    volume = np.bincount(nearest, minlength=len(line)) * spacing**3
    if key == "AA":
        mean_diameter = 2.0 * np.sqrt(volume.sum() / length / np.pi)
        return float(0.5 * (_ROOT_DIAMETERS * mean_diameter + length - _END_DIAMETERS * mean_diameter))
    # The bifurcation is where what lies round the centre line becomes much wider than the trunk.
    offsets = np.linalg.norm(voxels - line[nearest], axis=1)
    width = np.array([np.sqrt(np.mean(offsets[nearest == n] ** 2)) if volume[n] else 0.0 for n in range(len(line))])
    trunk = (arc >= 6.0) & (arc <= 18.0)
    usual = float(np.median(width[trunk])) if trunk.any() else 0.0
    wide = np.flatnonzero((arc > 15.0) & (width > _BRANCHING * usual))
    end = float(arc[wide[0]]) if len(wide) else float(length)
    return float(np.clip(0.5 * end, 10.0, 24.0))


def _at(line: np.ndarray, arc: np.ndarray, where: float) -> tuple[np.ndarray, np.ndarray]:
    """Point and direction of the centre line at a way from the valve, mm."""

    def point(at: float) -> np.ndarray:
        return np.array([np.interp(at, arc, line[:, axis]) for axis in range(3)])

    direction = point(where + 6.0) - point(where - 6.0)
    return point(where), direction / np.linalg.norm(direction)


def _refined(
    smooth: np.ndarray, spacing: float, centre: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and direction through the middles of sections before and behind: shells lean where a vessel ends."""
    before, here, behind = (
        _section(smooth, spacing, centre + offset * direction, direction) for offset in (-6.0, 0.0, 6.0)
    )
    if before is None or here is None or behind is None:
        return centre, direction
    way = behind.centre - before.centre
    return here.centre, way / np.linalg.norm(way)


@dataclass(frozen=True)
class _Section:
    centre: np.ndarray
    diameter: float
    shortest: float
    longest: float
    ends: tuple[np.ndarray, np.ndarray]
    normal: np.ndarray


def _section(smooth: np.ndarray, spacing: float, centre: np.ndarray, normal: np.ndarray) -> _Section | None:
    """Cut a smooth mask by a plane; what is connected with the centre counts.  Positions in mm of the mask's array."""
    from scipy import ndimage

    across = np.linalg.svd(normal[None])[2][1:]
    radius = 50.0
    count = int(radius / _STEP_MM)
    steps = np.arange(-count, count + 1) * _STEP_MM
    u, v = np.meshgrid(steps, steps, indexing="ij")
    points = centre[:, None] + across.T @ np.stack([u.ravel(), v.ravel()])
    values = ndimage.map_coordinates(smooth, points / spacing, order=1, mode="constant", prefilter=False)
    inside, _ = ndimage.label(values.reshape(u.shape) >= 0.5)
    label = inside[count, count]
    if label == 0:
        near = inside[count - 6 : count + 7, count - 6 : count + 7]
        if not near.any():
            return None
        label = int(np.bincount(near[near > 0]).argmax())
    cut = inside == label
    at = across.T @ np.array([u[cut].mean(), v[cut].mean()])
    middle = centre + at
    angles = np.arange(_CHORDS) * np.pi / _CHORDS
    chords = across.T @ np.stack([np.cos(angles), np.sin(angles)])  # (3, n)
    reach = np.arange(0.0, radius, 0.25)
    lengths = np.zeros((2, _CHORDS))
    for side, sign in enumerate((1.0, -1.0)):
        along = middle[:, None, None] + sign * chords[:, :, None] * reach
        profile = ndimage.map_coordinates(smooth, along / spacing, order=1, mode="constant", prefilter=False)
        outside = profile < 0.5
        lengths[side] = reach[np.where(outside.any(axis=1), outside.argmax(axis=1), len(reach) - 1)]
    spans = lengths.sum(axis=0)
    diameter = 2.0 * float(np.sqrt(np.count_nonzero(cut) * _STEP_MM**2 / np.pi))
    best = int(np.abs(spans - diameter).argmin())
    grown = diameter / max(float(spans[best]), 1e-6)
    ends = (
        middle + chords[:, best] * lengths[0, best] * grown,
        middle - chords[:, best] * lengths[1, best] * grown,
    )
    return _Section(middle, diameter, float(spans.min()), float(spans.max()), ends, normal)


def _is_near_edge(section: _Section, first: np.ndarray, grid: HeartGrid) -> bool:
    """Whether a section lies where the volume ends, so that part of it may be missing."""
    ends = np.stack(section.ends) + first
    centre = ends.mean(axis=0)
    reach = 0.5 * section.longest + 2.0 * grid.spacing
    high = (np.array(grid.labels.shape) - 1) * grid.spacing
    sides = np.sqrt(np.maximum(0.0, 1.0 - section.normal**2)) * reach
    return bool((centre - sides < 0).any() or (centre + sides > high).any())
