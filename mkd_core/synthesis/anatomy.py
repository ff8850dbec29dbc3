"""A heart built from formulas: chambers, walls, great vessels and fat as smooth implicit solids, varied by a seed.

A template heart of average adult size is described by landmarks (valves, apex, centre lines of vessels) in mm, LPS directions (x to the
patient's left, y to the back, z to the head), with the centroid of the left ventricular cavity at the origin.  A seed draws the sizes of
its parts and a smooth map of space (scale, rotation of the heart against the vessels, growth of chambers, free-form deformation); the
template's solids are evaluated at the mapped points of a 2 mm grid, made to respect one another, and drawn at the spacing asked for.

The landmarks are our own averages over computer-made hearts of a statistical shape model of healthy adults (Rodero et al., PLOS
Computational Biology 17(4): e1008851, 2021), rounded to a millimetre or two; no data of the model is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.synthesis.solids import FAR, Space, smooth_max, smooth_min
from mkd_core.synthesis.tissues import Tissue as T
from mkd_core.synthesis.warp import FreeForm, basis, rotation, shrink_back, spread, twist_back

#: Valves of the template: centre in mm, normal in the direction of the blood's entry side (ventricle to atrium, ventricle to artery).
_MITRAL = np.array([-17.5, 20.5, 18.0]), np.array([-0.57, 0.35, 0.65])
_AORTIC = np.array([-27.5, -2.0, 29.0]), np.array([-0.51, -0.39, 0.69])
_TRICUSPID = np.array([-52.5, -9.0, 2.0]), np.array([-0.62, 0.50, 0.54])
_PULMONARY = np.array([-15.0, -30.0, 42.0]), np.array([-0.10, 0.30, 0.90])

#: Long axis of the left ventricle, from the base to the apex, and the direction in which it is thinnest.
_LONG_AXIS, _SHORT_AXIS = np.array([0.46, -0.55, -0.70]), np.array([0.78, 0.56, 0.08])

#: Centres about which chambers grow, and the reach of the growth in mm.
_GROWTH = {
    "lv": (np.array([0.0, 0.0, 0.0]), 40.0),
    "rv": (np.array([-36.0, -32.0, 0.0]), 36.0),
    "la": (np.array([-34.0, 29.0, 40.0]), 28.0),
    "ra": (np.array([-70.0, 2.0, 20.0]), 28.0),
}

_GRID_MM = 2.0  # spacing at which solids are evaluated
_MARGIN_MM = 15.0  # kept around chambers, ascending aorta and pulmonary artery
_EXTENT = np.array([-135.0, -100.0, -105.0]), np.array([80.0, 105.0, 175.0])  # holds every heart that can be drawn, mm


@dataclass(frozen=True)
class HeartShape:
    """What a seed decides.  Lengths in mm before `scale` (but `lv_wall` after it), angles in degrees, growth factors are linear.

    Attributes:
        scale: size along x, y, z.
        body_turn: turns of everything about x, y, z.
        heart_turn: turns of the heart against the vessels about x, y, z.
        growth: factor of each chamber.
        lv_wall: thickness of the left ventricular wall.
        rv_wall, atrial_wall: thicknesses of the other walls.
        aorta: radius of the ascending aorta.
        pulmonary_trunk: radius of the pulmonary trunk.
        fat: mean thickness of the fat on the heart.
        bending: standard deviation of the coarse and of the fine free-form deformation.
    """

    scale: np.ndarray = field(default_factory=lambda: np.ones(3))
    body_turn: np.ndarray = field(default_factory=lambda: np.zeros(3))
    heart_turn: np.ndarray = field(default_factory=lambda: np.zeros(3))
    growth: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_GROWTH, 1.0))
    lv_wall: float = 9.0
    rv_wall: float = 3.5
    atrial_wall: float = 2.0
    aorta: float = 17.4
    pulmonary_trunk: float = 13.5
    fat: float = 2.2
    bending: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> HeartShape:
        """A random heart: mostly ordinary ones, some dilated, small, thick- or thin-walled."""

        def normal(mean: float, deviation: float, low: float, high: float) -> float:
            return float(np.clip(rng.normal(mean, deviation), low, high))

        size = normal(1.0, 0.08, 0.84, 1.18)
        body_turn = rng.uniform(-9.0, 9.0, 3)
        heart_turn = np.clip(rng.uniform(-17.0, 17.0, 3) + body_turn, -19.0, 19.0) - body_turn  # upright in the end
        return cls(
            scale=size * np.clip(rng.normal(1.0, 0.04, 3), 0.92, 1.08),
            body_turn=body_turn,
            heart_turn=heart_turn,
            growth={
                "lv": normal(1.0, 0.13, 0.75, 1.27),
                "rv": normal(1.0, 0.10, 0.8, 1.25),
                "la": normal(1.0, 0.16, 0.72, 1.4),
                "ra": normal(1.0, 0.16, 0.72, 1.4),
            },
            lv_wall=normal(9.0, 1.5, 6.0, 13.0),
            rv_wall=normal(3.5, 0.4, 2.6, 4.5),
            atrial_wall=normal(2.0, 0.25, 1.5, 2.6),
            aorta=normal(17.4, 2.0, 12.5, 22.0),
            pulmonary_trunk=normal(13.5, 1.5, 10.5, 17.5),
            fat=normal(2.2, 1.4, 0.4, 5.0),
            bending=(normal(2.5, 0.5, 1.5, 3.5), normal(0.7, 0.2, 0.3, 1.1)),
        )


def make_heart(seed: int, spacing: float = 1.0) -> sitk.Image:
    """Draw a heart.

    Args:
        seed: decides the heart; the same seed gives the same heart at any spacing.
        spacing: voxel size of the result in mm.

    Returns:
        Tissue map (`mkd_core.synthesis.tissues.Tissue`, values 0 to 21), uint8, isotropic, identity direction in LPS.  The box is the
        heart with the ascending aorta and the pulmonary artery and about 15 mm around; other vessels are cut where it ends.
    """
    rng = np.random.default_rng(seed)
    return draw_heart(HeartShape.draw(rng), rng, spacing)


def draw_heart(shape: HeartShape, rng: np.random.Generator, spacing: float = 1.0) -> sitk.Image:
    """Draw the heart of a shape; ``rng`` gives the deformation and the details.  See `make_heart`."""
    if not 0.2 <= spacing <= 5.0:
        raise ValueError(f"spacing must be 0.2 to 5 mm, got {spacing}")
    map_back = _Deformation(shape, rng)
    details = _Details(shape, rng)

    # A look at 4 mm tells where the heart is.
    axes = _axes(*_EXTENT, 4.0)
    heart = _solids(map_back(axes), shape, details.on_grid(axes)).heart()
    inside = np.argwhere(heart.reshape([len(axis) for axis in axes[::-1]]) < 0)[:, ::-1]
    low, high = (np.array([axis[i] for axis, i in zip(axes, corner)]) for corner in (inside.min(axis=0), inside.max(axis=0)))
    low, high = low - _MARGIN_MM, high + _MARGIN_MM

    axes = _axes(low - _GRID_MM, high + _GRID_MM, _GRID_MM)
    solids = _solids(map_back(axes), shape, details.on_grid(axes))
    fine = _axes(low, high, spacing)
    labels = _paint(solids, axes, fine)
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing([float(spacing)] * 3)
    image.SetOrigin([float(axis[0]) for axis in fine])
    return image


def _axes(low: np.ndarray, high: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (x, y, z) of a grid from ``low`` that covers ``high``."""
    return tuple(a + step * np.arange(int(np.ceil((b - a) / step)) + 1) for a, b in zip(low, high))


class _Deformation:
    """From points of the picture to points of the template."""

    def __init__(self, shape: HeartShape, rng: np.random.Generator) -> None:
        self._shape = shape
        self._coarse = FreeForm(rng, *_EXTENT, 32.0, 3)
        self._fine = FreeForm(rng, *_EXTENT, 14.0, 3)

    def __call__(self, axes) -> np.ndarray:
        """Template points ``(3, n)``, n running over the grid ``(z, y, x)`` of the coordinates ``(x, y, z)``."""
        shape = self._shape
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij", copy=False)
        points = np.stack([x.ravel(), y.ravel(), z.ravel()]).astype(np.float32)
        back = (rotation(shape.body_turn) @ np.diag(shape.scale)).T / (shape.scale**2)[:, None]
        points = back.astype(np.float32) @ points
        for fields, amplitude in zip((self._coarse, self._fine), shape.bending):
            points = points + fields.on_grid(axes).reshape(3, -1) * np.float32(amplitude)
        for axis, degrees in zip(np.eye(3), shape.heart_turn):
            points = twist_back(points, (-30.0, 0.0, 10.0), axis, degrees, 35.0, 115.0)
        for chamber, factor in shape.growth.items():
            points = shrink_back(points, *_GROWTH[chamber][:1], factor, _GROWTH[chamber][1])
        return points


class _Details:
    """Small irregularities of surfaces and the uneven thickness of fat."""

    def __init__(self, shape: HeartShape, rng: np.random.Generator) -> None:
        self._rough = FreeForm(rng, *_EXTENT, 7.0, 1)
        self._fat = FreeForm(rng, *_EXTENT, 22.0, 1)
        self._shape = shape

    def on_grid(self, axes) -> tuple[np.ndarray, np.ndarray]:
        """Roughness of the ventricles' inner surface and thickness of fat, both ``(n,)`` in mm."""
        rough = self._rough.on_grid(axes)[0].ravel() * np.float32(0.5)
        fat = np.maximum(self._fat.on_grid(axes)[0].ravel() * np.float32(1.6) + np.float32(self._shape.fat), 0.0)
        return rough, fat


@dataclass
class _Solids:
    """Distances of everything in a heart, each ``(n,)`` in mm.

    Attributes:
        blood: blood pools; where two are negative the smaller one has the place.  Aorta and pulmonary artery are whole here.
        ends: where an artery changes its name: (the tissue beyond, a distance that is negative before the change).
        walls: solid tissues; later ones go before earlier ones, blood before all but the papillary muscles.
        fat: fat, which goes behind everything.
    """

    blood: dict[T, np.ndarray]
    ends: dict[T, tuple[T, np.ndarray]]
    walls: dict[T, np.ndarray]
    fat: np.ndarray

    def heart(self) -> np.ndarray:
        """Chambers, ascending aorta and pulmonary artery: what the box is made for."""
        parts = [self.blood[t] for t in (T.RV, T.LA, T.RA, T.LA_APPENDAGE)] + [self.walls[T.MYOCARDIUM]]
        parts += [np.maximum(self.blood[t], self.ends[t][1]) for t in (T.ASCENDING_AORTA, T.PULMONARY_ARTERY)]
        return np.minimum.reduce(parts)


def _solids(points: np.ndarray, shape: HeartShape, details: tuple[np.ndarray, np.ndarray]) -> _Solids:
    """The heart's solids at template points ``(3, n)``, made to respect one another; ``details`` as `_Details` gives them."""
    space = Space(points)
    rough, fat_thickness = details
    blood, ends, epicardium = _raw_blood(space, shape, rough)
    _respect(space, blood, epicardium)
    walls = _walls(space, shape, blood, epicardium, rough)
    return _Solids(blood, ends, walls, _fat(blood, ends, walls, fat_thickness))


def _frame(first: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Right-handed unit vectors as rows: along ``first``, across both, and as near to ``third`` as can be."""
    second = np.cross(third, first)
    axes = np.stack([first, second, np.cross(first, second)])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _raw_blood(space: Space, shape: HeartShape, rough: np.ndarray) -> tuple[dict, dict, np.ndarray]:
    """Blood pools as if each were alone, the ends of the named arteries, and the outer surface of the left ventricle."""
    mitral, aortic, tricuspid, pulmonary = (space.plane(*valve) for valve in (_MITRAL, _AORTIC, _TRICUSPID, _PULMONARY))
    blood: dict[T, np.ndarray] = {}

    # Left ventricle: an ellipsoid cut at the base, with its inflow and outflow.  The outer surface is the inner one plus the wall.
    frame = _frame(_LONG_AXIS, _SHORT_AXIS)
    centre = -4.5 * frame[0]
    inner = np.array([54.0, 30.0, 25.5])
    wall = shape.lv_wall / (shape.growth["lv"] ** 0.8 * float(np.mean(shape.scale)))  # growth and scale thicken it again
    endocardium = smooth_max(space.ellipsoid(centre, inner, frame) + rough, mitral + 4.0, 9.0)
    inflow = np.maximum(space.tube([_MITRAL[0] - 18 * _MITRAL[1], _MITRAL[0] + 4 * _MITRAL[1]], [17.0, 14.0]), mitral - 0.5)
    outflow = np.maximum(space.tube([(-13.0, 2.0, 14.0), _AORTIC[0] - 4 * _AORTIC[1], _AORTIC[0] + 4 * _AORTIC[1]],
                                    [16.0, shape.aorta * 0.95, shape.aorta * 0.95]), aortic - 0.5)
    blood[T.LV] = smooth_min(smooth_min(endocardium, inflow, 4.0), outflow, 5.0)
    epicardium = smooth_max(space.ellipsoid(centre, inner + [0.85 * wall, wall, wall], frame), mitral + 0.5, 7.0)
    epicardium = smooth_min(epicardium, np.maximum(outflow + -3.0, aortic + 0.5), 4.0)

    # Right ventricle: a body in front and to the right of the left ventricle, an apex, an inflow and an outflow that turns up and left.
    body = space.ellipsoid((-33.0, -28.0, -7.0), (39.0, 29.0, 33.0))
    apex = space.tube([(-30.0, -34.0, -12.0), (-18.0, -39.0, -22.0), (-9.0, -41.0, -28.0)], [20.0, 15.0, 11.0])
    entry = np.maximum(space.tube([_TRICUSPID[0] - 20 * _TRICUSPID[1], _TRICUSPID[0] + 5 * _TRICUSPID[1]], [20.0, 15.5]), tricuspid - 0.5)
    exit_ = np.maximum(space.tube([(-44.0, -42.0, 8.0), (-32.0, -42.0, 26.0), _PULMONARY[0] - 3 * _PULMONARY[1], _PULMONARY[0] + 4 * _PULMONARY[1]],
                                  [20.0, 18.0, 1.1 * shape.pulmonary_trunk, 1.06 * shape.pulmonary_trunk]), pulmonary - 0.5)
    blood[T.RV] = smooth_min(smooth_min(body, apex, 12.0), smooth_min(entry, exit_, 8.0), 8.0) + rough

    # Atria: ellipsoids with funnels to their valve and to their veins.
    left = space.ellipsoid((-34.0, 29.0, 41.5), (34.0, 20.5, 28.0))
    for corner in _VEINS.values():
        left = smooth_min(left, space.tube(corner[:2], [10.0, 7.5]), 9.0)
    funnel = space.tube([(-30.0, 27.0, 33.0), _MITRAL[0] - 5 * _MITRAL[1]], [18.0, 14.0])
    blood[T.LA] = np.maximum(smooth_min(left, funnel, 8.0), -mitral - 0.5)
    right = space.ellipsoid((-70.0, 3.0, 20.0), (18.5, 25.5, 28.0))
    ear = space.tube([(-73.0, -6.0, 32.0), (-74.0, -18.0, 44.0), (-68.0, -29.0, 54.0), (-58.0, -35.0, 60.0)], [15.0, 13.0, 10.0, 6.0])
    funnel = space.tube([(-66.0, 0.0, 12.0), _TRICUSPID[0] - 5 * _TRICUSPID[1]], [20.0, 15.5])
    blood[T.RA] = smooth_min(np.maximum(smooth_min(right, funnel, 8.0), -tricuspid - 0.5), ear, 8.0)
    blood[T.LA_APPENDAGE] = space.tube([(-14.0, 19.0, 49.0), (-3.0, 11.0, 53.0), (9.0, 1.0, 55.0), (18.0, -9.0, 52.0), (20.0, -17.0, 45.0)],
                                       [8.0, 8.0, 9.0, 8.0, 5.0]) + 2.0 * rough

    # Aorta: root with its sinuses, ascending part, arch, descending part beside the spine.
    r = shape.aorta
    line = [_AORTIC[0] - 6 * _AORTIC[1], _AORTIC[0] + 8 * _AORTIC[1], (-41.0, -11.0, 53.0), (-47.0, -14.0, 72.0), (-47.0, -12.0, 88.0),
            (-43.0, -3.0, 102.0), (-35.0, 10.0, 111.0), (-25.0, 27.0, 113.0), (-15.0, 43.0, 106.0), (-9.0, 56.0, 92.0), (-8.0, 63.0, 70.0),
            (-10.0, 65.0, 45.0), (-13.0, 66.0, 10.0), (-17.0, 64.0, -30.0), (-22.0, 60.0, -70.0), (-27.0, 58.0, -120.0)]
    d = 0.55 * r + 3.0
    radii = [0.95 * r, 1.1 * r, r, r, r, 0.97 * r, 0.93 * r, 0.5 * (0.9 * r + d), d + 0.5, d, d, d, d - 0.3, d - 0.6, d - 1.0, d - 1.5]
    tube, arc = space.tube_with_arc(line, radii)
    tube = np.where(arc < 40.0, np.maximum(tube, -aortic - 0.5), tube)
    aortic_end = arc - np.float32(78.0 + 0.7 * r)
    branches = np.minimum.reduce([
        space.tube([(-36.0, 8.0, 112.0), (-44.0, 2.0, 138.0), (-50.0, -2.0, 175.0)], [6.0, 5.5, 5.0]),
        space.tube([(-28.0, 21.0, 114.0), (-23.0, 16.0, 140.0), (-22.0, 12.0, 175.0)], [4.5, 4.0, 3.5]),
        space.tube([(-20.0, 34.0, 112.0), (-10.0, 34.0, 140.0), (4.0, 34.0, 175.0)], [5.0, 4.5, 4.0]),
    ])
    aortic_end = np.where(branches < tube, FAR, aortic_end)
    blood[T.ASCENDING_AORTA] = smooth_min(tube, branches, 4.0)

    # Pulmonary artery: trunk and left branch, right branch behind aorta and superior vena cava, lobar branches in the hilum.
    p = shape.pulmonary_trunk
    trunk, arc = space.tube_with_arc(
        [_PULMONARY[0] - 6 * _PULMONARY[1], _PULMONARY[0] + 8 * _PULMONARY[1], (-9.0, -21.0, 64.0), (-5.0, -4.0, 76.0), (-2.0, 13.0, 82.0),
         (8.0, 27.0, 83.0), (19.0, 38.0, 78.0), (28.0, 46.0, 66.0), (33.0, 52.0, 48.0), (36.0, 55.0, 25.0)],
        [1.05 * p, 1.05 * p, p, 0.98 * p, 0.92 * p, 0.84 * p, 0.76 * p, 0.66 * p, 0.5 * p, 0.35 * p])
    trunk = np.where(arc < 30.0, np.maximum(trunk, -pulmonary - 0.5), trunk)
    right, right_arc = space.tube_with_arc(
        [(-4.0, 8.0, 80.0), (-18.0, 17.0, 82.0), (-38.0, 22.0, 81.0), (-58.0, 23.0, 80.0), (-76.0, 23.0, 78.0), (-92.0, 25.0, 70.0), (-104.0, 30.0, 52.0)],
        [0.82 * p, 0.82 * p, 0.78 * p, 0.74 * p, 0.68 * p, 0.56 * p, 0.42 * p])
    branches = np.minimum(
        space.tube([(-80.0, 22.0, 79.0), (-92.0, 18.0, 92.0), (-102.0, 15.0, 112.0)], [0.42 * p, 0.38 * p, 0.3 * p]),
        space.tube([(18.0, 37.0, 79.0), (30.0, 38.0, 92.0), (40.0, 36.0, 110.0)], [0.42 * p, 0.38 * p, 0.3 * p]))
    pulmonary_end = np.where(np.minimum(right, branches) < trunk, right_arc - np.float32(25.0), arc - np.float32(78.0))
    blood[T.PULMONARY_ARTERY] = smooth_min(smooth_min(trunk, right, 4.0), branches, 4.0)

    # Veins.
    blood[T.SVC] = np.minimum(
        space.tube([(-68.0, 8.0, 44.0), (-70.0, 6.0, 60.0), (-69.0, 1.0, 80.0), (-67.0, -6.0, 100.0), (-64.0, -10.0, 118.0), (-70.0, -16.0, 150.0)],
                   [8.5, 8.5, 9.0, 9.5, 9.0, 8.0]),
        space.tube([(-64.0, -11.0, 116.0), (-44.0, -24.0, 124.0), (-20.0, -28.0, 131.0), (10.0, -24.0, 142.0)], [7.5, 6.5, 6.5, 6.0]))
    blood[T.IVC] = space.tube([(-70.0, 16.0, 4.0), (-75.0, 26.0, -12.0), (-77.0, 31.0, -32.0), (-74.0, 30.0, -65.0), (-70.0, 28.0, -120.0)],
                              [10.5, 11.0, 11.5, 11.5, 12.0])
    blood[T.PULMONARY_VEINS] = np.minimum.reduce([space.tube(line, np.linspace(6.8, 4.5, len(line))) for line in _VEINS.values()])
    blood[T.CORONARY_SINUS] = space.tube([(-58.0, 20.0, 2.0), (-42.0, 33.0, 5.0), (-22.0, 39.0, 9.0), (-2.0, 36.0, 19.0), (9.0, 26.0, 31.0), (12.0, 14.0, 41.0)],
                                         [4.6, 4.5, 4.1, 3.6, 3.0, 2.4])
    ends = {T.ASCENDING_AORTA: (T.AORTA_ARCH_DESCENDING, aortic_end), T.PULMONARY_ARTERY: (T.DISTAL_PULMONARY_ARTERY, pulmonary_end)}
    return blood, {t: (beyond, np.clip(value, -FAR, FAR)) for t, (beyond, value) in ends.items()}, epicardium


#: Pulmonary veins of the template from inside the left atrium to the lung; the first two points also shape the atrium's corners.
_VEINS = {
    "right upper": [(-48.0, 23.0, 52.0), (-60.0, 20.0, 60.0), (-74.0, 20.0, 63.0), (-95.0, 14.0, 66.0), (-125.0, 6.0, 72.0)],
    "right lower": [(-50.0, 30.0, 36.0), (-63.0, 33.0, 36.0), (-80.0, 37.0, 35.0), (-100.0, 42.0, 31.0), (-125.0, 48.0, 26.0)],
    "left upper": [(-20.0, 27.0, 56.0), (-8.0, 26.0, 66.0), (6.0, 24.0, 72.0), (26.0, 19.0, 78.0), (55.0, 12.0, 88.0)],
    "left lower": [(-20.0, 33.0, 42.0), (-9.0, 40.0, 46.0), (6.0, 47.0, 47.0), (24.0, 55.0, 44.0), (55.0, 62.0, 36.0)],
}

#: What lies beside what: two pools, the least distance between them in mm, and the valve that joins them, if any.
_NEIGHBOURS = (
    (T.LV, T.LA, 4.5, _MITRAL[0], 13.0),
    (T.LV, T.ASCENDING_AORTA, 3.0, _AORTIC[0], 40.0),
    (T.RV, T.RA, 4.0, _TRICUSPID[0], 15.0),
    (T.RV, T.PULMONARY_ARTERY, 3.0, _PULMONARY[0], 40.0),
    (T.LV, T.RA, 8.0, None, 0.0),
    (T.LA, T.RA, 2.2, None, 0.0),
    (T.LA, T.ASCENDING_AORTA, 2.8, None, 0.0),
    (T.RA, T.ASCENDING_AORTA, 3.0, None, 0.0),
    (T.RV, T.ASCENDING_AORTA, 3.5, None, 0.0),
    (T.LA, T.PULMONARY_ARTERY, 3.5, None, 0.0),
    (T.LA_APPENDAGE, T.PULMONARY_ARTERY, 3.0, None, 0.0),
    (T.LA_APPENDAGE, T.ASCENDING_AORTA, 3.0, None, 0.0),
    (T.LA_APPENDAGE, T.RV, 4.0, None, 0.0),
    (T.ASCENDING_AORTA, T.PULMONARY_ARTERY, 3.5, None, 0.0),
    (T.RA, T.PULMONARY_ARTERY, 4.0, None, 0.0),
)

#: Vessels that give way: the vessel, what it gives way to, the least distance in mm (negative: it opens into it).
_YIELDS = (
    (T.SVC, T.RA, -0.6), (T.IVC, T.RA, -0.6), (T.CORONARY_SINUS, T.RA, -0.6), (T.PULMONARY_VEINS, T.LA, -0.6), (T.LA_APPENDAGE, T.LA, -0.6),
    (T.SVC, T.ASCENDING_AORTA, 2.8), (T.SVC, T.PULMONARY_ARTERY, 2.2), (T.SVC, T.LA, 2.5),
    (T.IVC, T.RV, 4.0), (T.IVC, T.LA, 3.0), (T.PULMONARY_VEINS, T.PULMONARY_ARTERY, 2.2),
    (T.PULMONARY_VEINS, T.ASCENDING_AORTA, 2.8), (T.PULMONARY_VEINS, T.SVC, 1.2), (T.PULMONARY_VEINS, T.LA_APPENDAGE, 2.5),
    (T.PULMONARY_VEINS, T.RA, 3.0), (T.LA_APPENDAGE, T.LV, 7.0), (T.CORONARY_SINUS, T.LA, 2.4), (T.CORONARY_SINUS, T.IVC, 1.5),
)


def _respect(space: Space, blood: dict[T, np.ndarray], epicardium: np.ndarray) -> None:
    """Change the pools' distances so that neighbours keep a wall between them and touch where a valve joins them."""
    raw = dict(blood)
    for first, second, gap, valve, radius in _NEIGHBOURS:
        if valve is not None:
            closed = np.clip((space.distance(valve) - radius) / 3.0, 0.0, 1.0)
            gap = closed * (gap + 1.0) - 1.0
        difference = raw[first] - raw[second]
        blood[first] = np.maximum(blood[first], 0.5 * (difference + gap))
        blood[second] = np.maximum(blood[second], 0.5 * (gap - difference))
    # The septum belongs to the left ventricle; the atria and their vessels stay outside its wall.
    blood[T.RV] = np.maximum(blood[T.RV], -epicardium)
    for pool, distance in ((T.LA, 1.5 * np.clip((space.distance(_MITRAL[0]) - 13.0) / 3.0, -1.0, 1.0)), (T.RA, 1.5), (T.LA_APPENDAGE, 1.5), (T.CORONARY_SINUS, 0.3), (T.IVC, 2.0)):
        blood[pool] = np.maximum(blood[pool], distance - epicardium)
    for pool, other, gap in _YIELDS:
        blood[pool] = np.maximum(blood[pool], gap - blood[other])


def _walls(space: Space, shape: HeartShape, blood: dict[T, np.ndarray], epicardium: np.ndarray, rough: np.ndarray) -> dict[T, np.ndarray]:
    """Solid tissues, later ones going before earlier ones."""
    atrial = np.float32(shape.atrial_wall)
    papillary = np.minimum(
        space.tube([(25.0, 4.0, -13.0), (11.0, 9.0, 2.0)], [5.5, 3.8]),
        space.tube([(12.0, -3.0, -36.0), (0.0, 9.0, -19.0)], [5.5, 3.8]))
    return {
        T.RA_WALL: blood[T.RA] - atrial,
        T.LA_WALL: np.minimum(blood[T.LA], blood[T.LA_APPENDAGE]) - atrial,
        T.RV_WALL: blood[T.RV] - np.float32(shape.rv_wall),
        T.PULMONARY_ARTERY_WALL: blood[T.PULMONARY_ARTERY] - 1.5,
        T.AORTIC_WALL: blood[T.ASCENDING_AORTA] - 2.0,
        T.MYOCARDIUM: epicardium,
        T.PAPILLARY_MUSCLE: np.maximum(papillary + rough, blood[T.LV]),
    }


def _fat(blood: dict[T, np.ndarray], ends: dict, walls: dict[T, np.ndarray], thickness: np.ndarray) -> np.ndarray:
    """Fat fills the grooves between chambers and vessel roots and lies on them in a layer of uneven thickness."""
    fat = walls[T.MYOCARDIUM]
    for tissue in (T.RV_WALL, T.LA_WALL, T.RA_WALL):
        fat = smooth_min(fat, walls[tissue], 14.0)
    for artery, wall in ((T.ASCENDING_AORTA, T.AORTIC_WALL), (T.PULMONARY_ARTERY, T.PULMONARY_ARTERY_WALL)):
        fat = smooth_min(fat, smooth_max(walls[wall], ends[artery][1], 4.0), 14.0)
    return fat - thickness


def _paint(solids: _Solids, axes, fine) -> np.ndarray:
    """Label map ``(z, y, x)`` on the fine grid from distances on the coarse one."""
    draw = _Interpolator(axes, fine)
    labels = np.zeros(tuple(len(axis) for axis in fine[::-1]), dtype=np.uint8)
    nearest = np.zeros(labels.shape, dtype=np.float32)
    papillary = solids.walls[T.PAPILLARY_MUSCLE]
    for tissue, values in ((T.FAT, solids.fat), *((t, v) for t, v in solids.walls.items() if v is not papillary)):
        within, value = draw(values)
        labels[within][value < 0] = tissue
    for tissue, values in solids.blood.items():
        within, value = draw(values)
        deeper = value < nearest[within]
        labels[within][deeper] = tissue
        nearest[within][deeper] = value[deeper]
        if tissue in solids.ends:
            beyond, end = solids.ends[tissue]
            labels[within][deeper & (draw(end, within) > 0)] = beyond
    within, value = draw(papillary)
    labels[within][(value < 0) & (labels[within] == T.LV)] = T.PAPILLARY_MUSCLE
    _dissolve_crumbs(labels, fine[0][1] - fine[0][0])
    return labels


#: Tissues that are one piece, or as many as the box makes of them.
_CONNECTED = (T.MYOCARDIUM, T.RV, T.LA, T.RA, T.LA_APPENDAGE, T.ASCENDING_AORTA, T.PULMONARY_ARTERY, T.DISTAL_PULMONARY_ARTERY,
              T.RV_WALL, T.SVC, T.IVC, T.PULMONARY_VEINS, T.CORONARY_SINUS)


def _dissolve_crumbs(labels: np.ndarray, spacing: float) -> None:
    """Give pieces of less than 0.3 ml that hang on nothing of their kind to what surrounds them."""
    places = ndimage.find_objects(labels, max_label=max(_CONNECTED))
    for tissue in _CONNECTED:
        place = places[tissue - 1]
        if place is None:
            continue
        part = labels[place]
        pieces, count = ndimage.label(part == tissue)
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        small = (sizes * spacing**3 < 300.0) & (sizes < sizes.max())
        for piece, where in enumerate(ndimage.find_objects(pieces), start=1):
            if not small[piece]:
                continue
            around = tuple(slice(max(w.start - 1, 0), w.stop + 1) for w in where)
            crumb = pieces[around] == piece
            rim = ndimage.binary_dilation(crumb) & ~crumb
            part[around][crumb] = np.bincount(part[around][rim]).argmax()


class _Interpolator:
    """Linear interpolation from the grid of the coordinates ``axes`` to that of ``fine`` (both (x, y, z), the first one regular)."""

    def __init__(self, axes, fine) -> None:
        self._shape = tuple(len(axis) for axis in axes[::-1])
        self._step = axes[0][1] - axes[0][0]
        self._weights = tuple(basis(at, axis[0], self._step, len(axis), cubic=False) for at, axis in zip(fine[::-1], axes[::-1]))

    def __call__(self, values: np.ndarray, within: tuple[slice, slice, slice] | None = None):
        """Interpolate ``(n,)`` values.

        Without ``within`` only the box is interpolated outside which all values are larger than a grid step; the result is the box, as
        slices of the fine grid, and the values in it.  With ``within`` only the values are returned.
        """
        values = values.reshape(self._shape)
        if within is not None:
            return spread(values, tuple(weight[part] for weight, part in zip(self._weights, within)))
        near = values < self._step
        boxes = []
        for axis, weight in enumerate(self._weights):
            planes = np.flatnonzero(near.any(axis=tuple(i for i in range(3) if i != axis)))
            touched = np.flatnonzero(weight[:, planes].any(axis=1)) if len(planes) else np.zeros(1, dtype=int)
            boxes.append(slice(touched[0], touched[-1] + 1))
        within = tuple(boxes)
        return within, self(values, within)
