"""The template heart as solids: chambers, walls, great vessels and fat, placed by landmarks and made to respect one
another.

Landmarks are in mm, LPS directions (x to the patient's left, y to the back, z to the head), with the centroid of the
left ventricular cavity at the origin.  They are our own averages over computer-made hearts of a statistical shape model
of healthy adults (Rodero et al., PLOS Computational Biology 17(4): e1008851, 2021), rounded to a millimetre or two; no
data of the model is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mkd_core.synthesis.heart_shape import HeartShape
from mkd_core.synthesis.solids import FAR, Space, smooth_max, smooth_min
from mkd_core.synthesis.tissues import Tissue as T


class _Valve(NamedTuple):
    """A valve's centre in mm and its normal, from the ventricle to the atrium or artery."""

    centre: np.ndarray
    normal: np.ndarray

    def beyond(self, distance: float, radius: float) -> tuple[float, float, float, float]:
        """Point ``(x, y, z, radius)`` of a tube through the valve, ``distance`` mm beyond it (negative: before it)."""
        return (*(self.centre + distance * self.normal / np.linalg.norm(self.normal)), radius)


_MITRAL = _Valve(np.array([-17.5, 20.5, 18.0]), np.array([-0.57, 0.35, 0.65]))
_AORTIC = _Valve(np.array([-27.5, -2.0, 29.0]), np.array([-0.51, -0.39, 0.69]))
_TRICUSPID = _Valve(np.array([-52.5, -9.0, 2.0]), np.array([-0.62, 0.50, 0.54]))
_PULMONARY = _Valve(np.array([-15.0, -30.0, 42.0]), np.array([-0.10, 0.30, 0.90]))

#: Pools that a valve joins end this far beyond its plane, mm, so that no gap is left between them.
_OVERLAP = 0.5

#: Long axis of the left ventricle, from the base to the apex, and the direction in which it is thinnest.
_LONG_AXIS, _SHORT_AXIS = np.array([0.46, -0.55, -0.70]), np.array([0.78, 0.56, 0.08])

#: Pulmonary veins from inside the left atrium to the lung; the first two points also shape the atrium's corners.
_PULMONARY_VEINS = {
    "right upper": (
        (-48.0, 23.0, 52.0),
        (-60.0, 20.0, 60.0),
        (-74.0, 20.0, 63.0),
        (-95.0, 14.0, 66.0),
        (-125.0, 6.0, 72.0),
    ),
    "right lower": (
        (-50.0, 30.0, 36.0),
        (-63.0, 33.0, 36.0),
        (-80.0, 37.0, 35.0),
        (-100.0, 42.0, 31.0),
        (-125.0, 48.0, 26.0),
    ),
    "left upper": ((-20.0, 27.0, 56.0), (-8.0, 26.0, 66.0), (6.0, 24.0, 72.0), (26.0, 19.0, 78.0), (55.0, 12.0, 88.0)),
    "left lower": ((-20.0, 33.0, 42.0), (-9.0, 40.0, 46.0), (6.0, 47.0, 47.0), (24.0, 55.0, 44.0), (55.0, 62.0, 36.0)),
}


@dataclass
class HeartSolids:
    """Distances of everything in a heart, each ``(n,)`` in mm.

    Attributes:
        blood: blood pools; where two are negative the smaller one has the place.  Aorta and pulmonary artery are whole
            here.
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


def heart_solids(points: np.ndarray, shape: HeartShape, rough: np.ndarray, fat_thickness: np.ndarray) -> HeartSolids:
    """The heart's solids, made to respect one another.

    Args:
        points: points of the template, ``(3, n)`` float32 in mm.
        shape: sizes of the parts.
        rough: irregularity of the ventricles' inner surface at the points, ``(n,)`` in mm.
        fat_thickness: of the layer on the heart at the points, ``(n,)`` in mm.
    """
    space = Space(points)
    cavity, epicardium = _left_ventricle(space, shape, rough)
    aorta, aortic_end = _aorta(space, shape)
    pulmonary_artery, pulmonary_end = _pulmonary_artery(space, shape)
    blood = {
        T.LV: cavity,
        T.RV: _right_ventricle(space, shape, rough),
        T.LA: _left_atrium(space),
        T.RA: _right_atrium(space),
        T.LA_APPENDAGE: _left_appendage(space) + 2.0 * rough,
        T.ASCENDING_AORTA: aorta,
        T.PULMONARY_ARTERY: pulmonary_artery,
        **_veins(space),
    }
    ends = {
        T.ASCENDING_AORTA: (T.AORTA_ARCH_DESCENDING, aortic_end),
        T.PULMONARY_ARTERY: (T.DISTAL_PULMONARY_ARTERY, pulmonary_end),
    }
    _respect(space, blood, epicardium)
    walls = _walls(space, shape, blood, epicardium, rough)
    return HeartSolids(blood, ends, walls, _fat(blood, ends, walls, fat_thickness))


def _frame(first: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Right-handed unit vectors as rows: along ``first``, across both, and as near to ``third`` as can be."""
    second = np.cross(third, first)
    axes = np.stack([first, second, np.cross(first, second)])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _left_ventricle(space: Space, shape: HeartShape, rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cavity and outer surface: an ellipsoid cut at the base, with inflow and outflow; the outer surface is the inner
    one plus the wall.
    """
    mitral, aortic = space.plane(*_MITRAL), space.plane(*_AORTIC)
    frame = _frame(_LONG_AXIS, _SHORT_AXIS)
    centre = -4.5 * frame[0]
    inner = np.array([54.0, 30.0, 25.5])
    wall = shape.lv_wall / (
        shape.growth["lv"] ** 0.8 * float(np.mean(shape.scale))
    )  # growth and scale thicken it again
    body = smooth_max(space.ellipsoid(centre, inner, frame) + rough, mitral + 4.0, 9.0)
    inflow = space.tube([_MITRAL.beyond(-17.0, 17.0), _MITRAL.beyond(4.0, 14.0)])
    root = 0.95 * shape.aorta
    outflow = space.tube([(-13.0, 2.0, 14.0, 16.0), _AORTIC.beyond(-4.0, root), _AORTIC.beyond(4.0, root)])
    outflow = np.maximum(outflow, aortic - _OVERLAP)
    cavity = smooth_min(smooth_min(body, np.maximum(inflow, mitral - _OVERLAP), 4.0), outflow, 5.0)
    epicardium = smooth_max(space.ellipsoid(centre, inner + [0.85 * wall, wall, wall], frame), mitral + 0.5, 7.0)
    return cavity, smooth_min(epicardium, np.maximum(outflow - 3.0, aortic + 0.5), 4.0)


def _right_ventricle(space: Space, shape: HeartShape, rough: np.ndarray) -> np.ndarray:
    """A body in front and to the right of the left ventricle, an apex, an inflow, and an outflow that turns up and
    left.
    """
    trunk = shape.pulmonary_trunk
    body = space.ellipsoid((-33.0, -28.0, -7.0), (39.0, 29.0, 33.0))
    apex = space.tube([(-30.0, -34.0, -12.0, 20.0), (-18.0, -39.0, -22.0, 15.0), (-9.0, -41.0, -28.0, 11.0)])
    inflow = space.tube([_TRICUSPID.beyond(-19.0, 20.0), _TRICUSPID.beyond(5.0, 15.5)])
    outflow = space.tube(
        [
            (-44.0, -42.0, 8.0, 20.0),
            (-32.0, -42.0, 26.0, 18.0),
            _PULMONARY.beyond(-3.0, 1.1 * trunk),
            _PULMONARY.beyond(4.0, 1.06 * trunk),
        ]
    )
    inflow = np.maximum(inflow, space.plane(*_TRICUSPID) - _OVERLAP)
    outflow = np.maximum(outflow, space.plane(*_PULMONARY) - _OVERLAP)
    return smooth_min(smooth_min(body, apex, 12.0), smooth_min(inflow, outflow, 8.0), 8.0) + rough


def _left_atrium(space: Space) -> np.ndarray:
    """A flat ellipsoid with corners drawn out to the pulmonary veins and a funnel to the mitral valve."""
    atrium = space.ellipsoid((-34.0, 29.0, 41.5), (34.0, 20.5, 28.0))
    for inside, ostium, *_ in _PULMONARY_VEINS.values():
        atrium = smooth_min(atrium, space.tube([(*inside, 10.0), (*ostium, 7.5)]), 9.0)
    funnel = space.tube([(-30.0, 27.0, 33.0, 18.0), _MITRAL.beyond(-5.0, 14.0)])
    return np.maximum(smooth_min(atrium, funnel, 8.0), -space.plane(*_MITRAL) - _OVERLAP)


def _right_atrium(space: Space) -> np.ndarray:
    """An ellipsoid with a funnel to the tricuspid valve and the right appendage, which leans on the aortic root."""
    atrium = space.ellipsoid((-70.0, 3.0, 20.0), (18.5, 25.5, 28.0))
    funnel = space.tube([(-66.0, 0.0, 12.0, 20.0), _TRICUSPID.beyond(-5.0, 15.5)])
    appendage = space.tube(
        [(-73.0, -6.0, 32.0, 15.0), (-74.0, -18.0, 44.0, 13.0), (-68.0, -29.0, 54.0, 10.0), (-58.0, -35.0, 60.0, 6.0)]
    )
    return smooth_min(np.maximum(smooth_min(atrium, funnel, 8.0), -space.plane(*_TRICUSPID) - _OVERLAP), appendage, 8.0)


def _left_appendage(space: Space) -> np.ndarray:
    """A bent finger from the left atrium to the front, beside the pulmonary trunk."""
    return space.tube(
        [
            (-14.0, 19.0, 49.0, 8.0),
            (-3.0, 11.0, 53.0, 8.0),
            (9.0, 1.0, 55.0, 9.0),
            (18.0, -9.0, 52.0, 8.0),
            (20.0, -17.0, 45.0, 5.0),
        ]
    )


def _aorta(space: Space, shape: HeartShape) -> tuple[np.ndarray, np.ndarray]:
    """Root with its sinuses, ascending part, arch with three branches, descending part beside the spine; and where
    "ascending" ends.
    """
    a = shape.aorta
    d = 0.55 * a + 3.0  # radius of the descending aorta: it widens less than the ascending one
    tube, arc = space.tube_with_arc(
        [
            _AORTIC.beyond(-6.0, 0.95 * a),
            _AORTIC.beyond(7.5, 1.1 * a),
            (-41.0, -11.0, 53.0, a),
            (-47.0, -14.0, 72.0, a),
            (-47.0, -12.0, 88.0, a),
            (-43.0, -3.0, 102.0, 0.97 * a),
            (-35.0, 10.0, 111.0, 0.93 * a),
            (-25.0, 27.0, 113.0, 0.45 * a + 0.5 * d),
            (-15.0, 43.0, 106.0, d + 0.5),
            (-9.0, 56.0, 92.0, d),
            (-8.0, 63.0, 70.0, d),
            (-10.0, 65.0, 45.0, d),
            (-13.0, 66.0, 10.0, d - 0.3),
            (-17.0, 64.0, -30.0, d - 0.6),
            (-22.0, 60.0, -70.0, d - 1.0),
            (-27.0, 58.0, -120.0, d - 1.5),
        ]
    )
    tube = np.where(arc < 40.0, np.maximum(tube, -space.plane(*_AORTIC) - _OVERLAP), tube)
    branches = np.minimum.reduce(
        [
            space.tube(
                [(-36.0, 8.0, 112.0, 6.0), (-44.0, 2.0, 138.0, 5.5), (-50.0, -2.0, 175.0, 5.0)]
            ),  # brachiocephalic
            space.tube(
                [(-28.0, 21.0, 114.0, 4.5), (-23.0, 16.0, 140.0, 4.0), (-22.0, 12.0, 175.0, 3.5)]
            ),  # left carotid
            space.tube(
                [(-20.0, 34.0, 112.0, 5.0), (-10.0, 34.0, 140.0, 4.5), (4.0, 34.0, 175.0, 4.0)]
            ),  # left subclavian
        ]
    )
    beyond = np.where(branches < tube, FAR, np.clip(arc - np.float32(78.0 + 0.7 * a), -FAR, FAR))
    return smooth_min(tube, branches, 4.0), beyond


def _pulmonary_artery(space: Space, shape: HeartShape) -> tuple[np.ndarray, np.ndarray]:
    """Trunk and left branch, right branch behind aorta and superior vena cava, lobar branches; and where the distal
    part begins.
    """
    p = shape.pulmonary_trunk
    trunk, arc = space.tube_with_arc(
        [
            _PULMONARY.beyond(-5.5, 1.05 * p),
            _PULMONARY.beyond(7.5, 1.05 * p),
            (-9.0, -21.0, 64.0, p),
            (-5.0, -4.0, 76.0, 0.98 * p),
            (-2.0, 13.0, 82.0, 0.92 * p),
            (8.0, 27.0, 83.0, 0.84 * p),
            (19.0, 38.0, 78.0, 0.76 * p),
            (28.0, 46.0, 66.0, 0.66 * p),
            (33.0, 52.0, 48.0, 0.5 * p),
            (36.0, 55.0, 25.0, 0.35 * p),
        ]
    )
    trunk = np.where(arc < 30.0, np.maximum(trunk, -space.plane(*_PULMONARY) - _OVERLAP), trunk)
    right, right_arc = space.tube_with_arc(
        [
            (-4.0, 8.0, 80.0, 0.82 * p),
            (-18.0, 17.0, 82.0, 0.82 * p),
            (-38.0, 22.0, 81.0, 0.78 * p),
            (-58.0, 23.0, 80.0, 0.74 * p),
            (-76.0, 23.0, 78.0, 0.68 * p),
            (-92.0, 25.0, 70.0, 0.56 * p),
            (-104.0, 30.0, 52.0, 0.42 * p),
        ]
    )
    lobar = np.minimum(
        space.tube([(-80.0, 22.0, 79.0, 0.42 * p), (-92.0, 18.0, 92.0, 0.38 * p), (-102.0, 15.0, 112.0, 0.3 * p)]),
        space.tube([(18.0, 37.0, 79.0, 0.42 * p), (30.0, 38.0, 92.0, 0.38 * p), (40.0, 36.0, 110.0, 0.3 * p)]),
    )
    beyond = np.where(np.minimum(right, lobar) < trunk, right_arc - np.float32(25.0), arc - np.float32(78.0))
    return smooth_min(smooth_min(trunk, right, 4.0), lobar, 4.0), np.clip(beyond, -FAR, FAR)


def _veins(space: Space) -> dict[T, np.ndarray]:
    """Caval veins with the left brachiocephalic vein, pulmonary veins, coronary sinus."""
    superior = space.tube(
        [
            (-68.0, 8.0, 44.0, 8.5),
            (-70.0, 6.0, 60.0, 8.5),
            (-69.0, 1.0, 80.0, 9.0),
            (-67.0, -6.0, 100.0, 9.5),
            (-64.0, -10.0, 118.0, 9.0),
            (-70.0, -16.0, 150.0, 8.0),
        ]
    )
    brachiocephalic = space.tube(
        [(-64.0, -11.0, 116.0, 7.5), (-44.0, -24.0, 124.0, 6.5), (-20.0, -28.0, 131.0, 6.5), (10.0, -24.0, 142.0, 6.0)]
    )
    pulmonary = [
        space.tube([(*point, radius) for point, radius in zip(line, np.linspace(6.8, 4.5, len(line)))])
        for line in _PULMONARY_VEINS.values()
    ]
    return {
        T.SVC: np.minimum(superior, brachiocephalic),
        T.IVC: space.tube(
            [
                (-70.0, 16.0, 4.0, 10.5),
                (-75.0, 26.0, -12.0, 11.0),
                (-77.0, 31.0, -32.0, 11.5),
                (-74.0, 30.0, -65.0, 11.5),
                (-70.0, 28.0, -120.0, 12.0),
            ]
        ),
        T.PULMONARY_VEINS: np.minimum.reduce(pulmonary),
        T.CORONARY_SINUS: space.tube(
            [
                (-58.0, 20.0, 2.0, 4.6),
                (-42.0, 33.0, 5.0, 4.5),
                (-22.0, 39.0, 9.0, 4.1),
                (-2.0, 36.0, 19.0, 3.6),
                (9.0, 26.0, 31.0, 3.0),
                (12.0, 14.0, 41.0, 2.4),
            ]
        ),
    }


#: What lies beside what: two pools, the least distance between them in mm, and the place and radius of the valve that
#: joins them, if any.
_NEIGHBOURS = (
    (T.LV, T.LA, 4.5, _MITRAL.centre, 13.0),
    (T.LV, T.ASCENDING_AORTA, 3.0, _AORTIC.centre, 40.0),
    (T.RV, T.RA, 4.0, _TRICUSPID.centre, 15.0),
    (T.RV, T.PULMONARY_ARTERY, 3.0, _PULMONARY.centre, 40.0),
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
    (T.SVC, T.RA, -0.6),
    (T.IVC, T.RA, -0.6),
    (T.CORONARY_SINUS, T.RA, -0.6),
    (T.PULMONARY_VEINS, T.LA, -0.6),
    (T.LA_APPENDAGE, T.LA, -0.6),
    (T.SVC, T.ASCENDING_AORTA, 2.8),
    (T.SVC, T.PULMONARY_ARTERY, 2.2),
    (T.SVC, T.LA, 2.5),
    (T.IVC, T.RV, 4.0),
    (T.IVC, T.LA, 3.0),
    (T.PULMONARY_VEINS, T.PULMONARY_ARTERY, 2.2),
    (T.PULMONARY_VEINS, T.ASCENDING_AORTA, 2.8),
    (T.PULMONARY_VEINS, T.SVC, 1.2),
    (T.PULMONARY_VEINS, T.LA_APPENDAGE, 2.5),
    (T.PULMONARY_VEINS, T.RA, 3.0),
    (T.LA_APPENDAGE, T.LV, 7.0),
    (T.CORONARY_SINUS, T.LA, 2.4),
    (T.CORONARY_SINUS, T.IVC, 1.5),
)


def _respect(space: Space, blood: dict[T, np.ndarray], epicardium: np.ndarray) -> None:
    """Change the pools' distances so that neighbours keep a wall between them and touch where a valve joins them."""
    raw = dict(blood)
    for first, second, gap, valve, radius in _NEIGHBOURS:
        wall: float | np.ndarray = gap
        if valve is not None:
            closed = np.clip((space.distance(valve) - radius) / 3.0, 0.0, 1.0)
            wall = closed * (gap + 1.0) - 1.0
        difference = raw[first] - raw[second]
        blood[first] = np.maximum(blood[first], 0.5 * (difference + wall))
        blood[second] = np.maximum(blood[second], 0.5 * (wall - difference))
    # The septum belongs to the left ventricle; the atria and their vessels stay outside its wall.
    blood[T.RV] = np.maximum(blood[T.RV], -epicardium)
    off_the_valve = np.clip((space.distance(_MITRAL.centre) - 13.0) / 3.0, -1.0, 1.0)
    for pool, distance in (
        (T.LA, 1.5 * off_the_valve),
        (T.RA, 1.5),
        (T.LA_APPENDAGE, 1.5),
        (T.CORONARY_SINUS, 0.3),
        (T.IVC, 2.0),
    ):
        blood[pool] = np.maximum(blood[pool], distance - epicardium)
    for pool, other, gap in _YIELDS:
        blood[pool] = np.maximum(blood[pool], gap - blood[other])


def _walls(
    space: Space, shape: HeartShape, blood: dict[T, np.ndarray], epicardium: np.ndarray, rough: np.ndarray
) -> dict[T, np.ndarray]:
    """Solid tissues, later ones going before earlier ones."""
    atrial = np.float32(shape.atrial_wall)
    papillary = np.minimum(
        space.tube([(25.0, 4.0, -13.0, 5.5), (11.0, 9.0, 2.0, 3.8)]),
        space.tube([(12.0, -3.0, -36.0, 5.5), (0.0, 9.0, -19.0, 3.8)]),
    )
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
