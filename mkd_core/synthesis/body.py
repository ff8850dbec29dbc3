"""A body around a heart: lungs, mediastinum, chest wall, spine, airways and upper abdomen.

A heart's tissue map ends a few millimetres outside the heart.  A network that has seen nothing but hearts finds hearts
everywhere, so this module continues the cut vessels and builds varied surroundings from simple solids placed by the
heart's own landmarks: the descending aorta gives the spine, the front of the heart gives the sternum, its lower surface
the diaphragm.

All lengths are in mm in LPS directions: x to the patient's left, y to the back, z to the head.  Arrays are (z, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.synthesis.tissues import Tissue as T

_HEART = np.array([T.LV, T.RV, T.LA, T.RA, T.MYOCARDIUM, T.RV_WALL, T.LA_WALL, T.RA_WALL, T.LA_APPENDAGE])
_VESSELS = np.array(
    [
        T.ASCENDING_AORTA,
        T.PULMONARY_ARTERY,
        T.SVC,
        T.IVC,
        T.AORTA_ARCH_DESCENDING,
        T.DISTAL_PULMONARY_ARTERY,
        T.AORTIC_WALL,
        T.PULMONARY_ARTERY_WALL,
    ]
)


@dataclass(frozen=True)
class Extent:
    """Physical box of a canvas: first voxel centre and one past the last, (x, y, z) in mm."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass(frozen=True)
class _Landmarks:
    """Where things are, in mm, read off the heart's tissue map."""

    low: np.ndarray  # lower corner of chambers and walls (x, y, z)
    high: np.ndarray  # upper corner
    aorta_line: np.ndarray  # descending aorta: x = a0 + a1 z, y = b0 + b1 z; rows (a0, a1), (b0, b1)
    aorta_radius: float
    left_atrium: np.ndarray  # centroid
    left_atrium_top: float
    arch_top: float


@dataclass(frozen=True)
class _Trunk:
    """Measures of the trunk that later parts need, mm: axis of the spine, middle of the chest, its inner faces before
    and behind, apex of the lungs.
    """

    spine_x: float
    spine_y: float
    inner_y: float
    front: float
    back: float
    top: float
    diaphragm: np.ndarray  # height above every point, (1, y, x) or the canvas' shape


def _landmarks(labels: np.ndarray, origin: np.ndarray, spacing: float) -> _Landmarks:
    step = max(1, round(2.0 / spacing))
    coarse, size = labels[::step, ::step, ::step], spacing * step

    def points(*tissues: int) -> np.ndarray:
        return np.argwhere(np.isin(coarse, tissues))[:, ::-1] * size + origin

    heart = points(*_HEART)
    low, high = np.percentile(heart, 0.2, axis=0), np.percentile(heart, 99.8, axis=0)
    atrium = points(T.LA)
    aorta = points(T.AORTA_ARCH_DESCENDING)
    behind = aorta[(aorta[:, 1] > atrium[:, 1].mean()) & (aorta[:, 2] < atrium[:, 2].max() + 10)]
    if len(behind) > 40:
        levels = np.unique(behind[:, 2])
        centres = np.array([behind[behind[:, 2] == z][:, :2].mean(axis=0) for z in levels])
        areas = np.array([np.count_nonzero(behind[:, 2] == z) for z in levels]) * size**2
        radius = float(np.clip(np.sqrt(np.percentile(areas, 90) / np.pi), 8, 18))
        line = []
        for axis in range(2):
            slope = np.polyfit(levels, centres[:, axis], 1)[0] if len(levels) > 8 else 0.0
            slope = float(np.clip(slope, -0.35, 0.35))
            line.append((centres[:, axis].mean() - slope * levels.mean(), slope))
    else:
        radius = 12.0
        line = [(atrium[:, 0].mean() + 18.0, 0.0), (atrium[:, 1].max() + 22.0, 0.0)]
    arch_top = aorta[:, 2].max() if len(aorta) else high[2] + 30
    return _Landmarks(
        low, high, np.array(line), radius, atrium.mean(axis=0), float(np.percentile(atrium[:, 2], 99)), float(arch_top)
    )


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: float, length: float) -> np.ndarray:
    """Smooth random field of about unit standard deviation and correlation length in mm, linearly interpolated from a
    coarse grid.
    """
    coarse = [max(2, int(np.ceil(n * spacing / length)) + 2) for n in shape]
    field = rng.standard_normal(coarse).astype(np.float32)
    for axis, n in enumerate(shape):
        at = np.linspace(0, coarse[axis] - 1.001, n)
        first = at.astype(int)
        weight = (at - first).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        field = np.take(field, first, axis) * (1 - weight) + np.take(field, first + 1, axis) * weight
    return field * 1.6


def _tube(
    canvas_points: tuple[np.ndarray, np.ndarray, np.ndarray], start: np.ndarray, end: np.ndarray, r0: float, r1: float
) -> np.ndarray:
    """Distance to a tapering tube's surface, negative inside; ``canvas_points`` are broadcastable x, y, z."""
    x, y, z = canvas_points
    direction = end - start
    length2 = float(direction @ direction) + 1e-6
    t = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1] + (z - start[2]) * direction[2]) / length2
    t = np.clip(t, 0, 1)
    d2 = (
        (x - start[0] - t * direction[0]) ** 2
        + (y - start[1] - t * direction[1]) ** 2
        + (z - start[2] - t * direction[2]) ** 2
    )
    return np.sqrt(d2) - (r0 + (r1 - r0) * t)


class _Painter:
    """Paints solids into a label canvas; later ones cover earlier ones only where told."""

    def __init__(self, extent: Extent, spacing: float) -> None:
        shape = [max(1, round((h - lo) / spacing)) for lo, h in zip(extent.low, extent.high)][::-1]
        self.labels = np.full(shape, T.AIR, np.uint8)
        self.spacing = spacing
        self.low = np.array(extent.low)
        self.x = (self.low[0] + spacing * np.arange(shape[2], dtype=np.float32)).reshape(1, 1, -1)
        self.y = (self.low[1] + spacing * np.arange(shape[1], dtype=np.float32)).reshape(1, -1, 1)
        self.z = (self.low[2] + spacing * np.arange(shape[0], dtype=np.float32)).reshape(-1, 1, 1)

    def noise(self, rng: np.random.Generator, length: float) -> np.ndarray:
        return _smooth_noise(rng, self.labels.shape, self.spacing, length)

    def paint(self, where: np.ndarray, tissue: int) -> None:
        self.labels[where] = tissue

    def tube(
        self,
        start,
        end,
        r0: float,
        r1: float,
        tissue: int,
        over: tuple[int, ...] | None = None,
        wall: tuple[float, int] | None = None,
    ) -> None:
        """Paint a tapering tube, computed in its own bounding box only."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        reach = max(r0, r1) + (wall[0] if wall else 0) + self.spacing
        corner = np.floor((np.minimum(start, end) - reach - self.low) / self.spacing).astype(int)
        opposite = np.ceil((np.maximum(start, end) + reach - self.low) / self.spacing).astype(int) + 1
        corner, opposite = np.maximum(corner, 0), np.maximum(opposite, 0)
        box = tuple(slice(a, b) for a, b in zip(corner[::-1], opposite[::-1]))
        view = self.labels[box]
        if view.size == 0:
            return
        points = (self.x[:, :, box[2]], self.y[:, box[1], :], self.z[box[0]])
        distance = _tube(points, start, end, r0, r1)
        allowed = np.ones(view.shape, bool) if over is None else np.isin(view, over)
        if wall:
            view[(distance < wall[0]) & allowed] = wall[1]
        view[(distance < 0) & allowed] = tissue


def _trunk(p: _Painter, mark: _Landmarks, rng: np.random.Generator) -> _Trunk:
    """Skin, fat, muscle, ribs, lungs, diaphragm and abdomen; returns the measures that later parts need."""
    x, y, z = p.x, p.y, p.z
    u = rng.uniform
    aorta_x, aorta_y = mark.aorta_line[:, 0] + mark.aorta_line[:, 1] * mark.left_atrium[2]
    spine_x = aorta_x - mark.aorta_radius - u(8, 18)
    spine_y = aorta_y + u(6, 18)
    front = mark.low[1] - u(4, 22)  # inner face of the sternum
    back = spine_y + u(14, 24)  # inner face of the chest behind, beside the vertebra
    wall = u(12, 24)  # rib, intercostal and chest muscle
    fat = float(np.clip(rng.gamma(2.0, 6.0), 2, 45))
    inner_w = max(u(112, 150), (mark.high[0] - spine_x) + u(8, 30))
    inner_d, inner_y = (back - front) / 2, (back + front) / 2
    power = u(2.1, 3.0)

    middle = mark.low[2] + u(10, 40)
    top = mark.arch_top + u(45, 90)  # apex of the lungs
    narrowing = np.sqrt(np.clip(1 - (np.clip(z - middle, 0, None) / (top - middle)) ** 2.5, 0.0, 1))
    narrowing = np.where(z > middle, 0.12 + 0.88 * narrowing, 1.0).astype(np.float32)
    lean = u(-0.12, 0.12)
    cx, cy = spine_x, inner_y + lean * (z - mark.left_atrium[2]) * 0.5
    rx, ry = np.abs(x - cx), np.abs(y - cy)

    def ring(half_x, half_y) -> np.ndarray:
        """Super-elliptic radius: 1 on the ellipse."""
        return ((rx / half_x) ** power + (ry / half_y) ** power) ** (1 / power)

    wobble = p.noise(rng, 45) * u(0.005, 0.025)
    inner = ring(inner_w * np.maximum(narrowing, 0.25), inner_d * np.maximum(narrowing, 0.6)) + wobble
    trunk = ring(inner_w + wall + u(0, 15), inner_d + wall + u(0, 12)) + wobble
    skin = ring(inner_w + wall + fat + 8, inner_d + wall + fat * u(0.6, 1.2) + 6) + wobble
    p.paint(skin < 1, T.SUBCUTANEOUS_FAT)
    p.paint(trunk < 1, T.MUSCLE)

    # Ribs: a slanted wave round the cage.  The slab beneath the muscle is a few mm thick.
    pitch, slant, thickness = u(23, 32), u(0.15, 0.6), u(6, 9) / inner_w
    phase = (z + slant * (y - cy) + u(0, 30)) * (2 * np.pi / pitch) + 0.6 * p.noise(rng, 60)
    wave = np.sin(phase)
    cage = (inner > 1.01) & (inner < 1.01 + thickness) & (z < top + 10)
    p.paint(cage & (wave > u(-0.1, 0.35)), T.CORTICAL_BONE)
    p.paint(
        (inner > 1.01 + thickness * 0.25) & (inner < 1.01 + thickness * 0.75) & (wave > 0.6) & (z < top + 10),
        T.SPONGY_BONE,
    )
    p.paint((inner < 1.01) & (trunk < 1), T.ABDOMINAL_FAT)

    # Diaphragm: two domes, lower towards the chest wall.
    base = mark.low[2] + u(-8, 6)
    right_x, left_x = spine_x - u(60, 85), spine_x + u(60, 90)
    dome_y = inner_y - u(0, 15)
    steep = u(0.0025, 0.006)
    right = base + u(5, 48) - steep * ((x - right_x) ** 2 + 0.8 * (y - dome_y) ** 2)
    left = base + u(-5, 32) - steep * ((x - left_x) ** 2 + 0.8 * (y - dome_y) ** 2)
    middle_floor = base - 0.004 * ((x - (spine_x + 25)) ** 2 * 0.3 + np.clip(y - inner_y, 0, None) ** 2)
    diaphragm = np.maximum(np.maximum(right, left), middle_floor) + 3 * p.noise(rng, 50)
    above = z > diaphragm
    lung = (inner < 0.985) & above
    p.paint(lung, T.LUNG)
    p.paint((inner < 1.0) & (z > diaphragm - 4) & ~above, T.MUSCLE)

    _abdomen(p, rng, inner, diaphragm, spine_x, inner_y, inner_d)
    # Breast or chest fat in front, sometimes; arms beside, sometimes; a table behind.
    skin_front = front - wall - fat * 0.6
    if rng.random() < 0.5:
        size, height = u(35, 75), mark.low[2] + u(-10, 50)
        for side in (-1, 1):
            breast = (
                ((x - spine_x - side * u(70, 95)) / size) ** 2
                + ((y - skin_front - 5) / (size * u(0.5, 0.9))) ** 2
                + ((z - height) / size) ** 2
            )
            p.paint((breast < 1) & (p.labels == T.AIR), T.SUBCUTANEOUS_FAT)
            p.paint((breast < 0.25) & (p.noise(rng, 12) > 0.3) & (p.labels == T.SUBCUTANEOUS_FAT), T.MUSCLE)
    if rng.random() < 0.2:
        for side in (-1, 1):
            at = spine_x + side * (inner_w + wall + fat + u(45, 60))
            arm = np.sqrt((x - at) ** 2 + (y - inner_y - u(-20, 40)) ** 2) + 0 * z
            p.paint((arm < 45) & (p.labels == T.AIR), T.SUBCUTANEOUS_FAT)
            p.paint((arm < 36) & (p.labels == T.SUBCUTANEOUS_FAT), T.MUSCLE)
            p.paint((arm < 11), T.CORTICAL_BONE)
            p.paint((arm < 6), T.SPONGY_BONE)
    if rng.random() < 0.8:
        table = back + wall + fat + u(12, 30)
        p.paint((np.abs(y - table) < 3) & (p.labels == T.AIR) & (np.abs(x - spine_x) < 230), T.TABLE)
    return _Trunk(spine_x, spine_y, inner_y, front, back, top, diaphragm)


def _abdomen(
    p: _Painter, rng: np.random.Generator, inner, diaphragm, spine_x: float, inner_y: float, inner_d: float
) -> None:
    """Liver, stomach, spleen, kidneys and bowel below the diaphragm."""
    x, y, z = p.x, p.y, p.z
    u = rng.uniform
    below = (z < diaphragm - 3) & (inner < 0.99)
    if not below.any():
        return
    floor = float(np.median(diaphragm)) - u(110, 170)
    bumps = p.noise(rng, 30)
    bowel = below & (bumps > 0.1) & (z < floor + 60)
    p.paint(bowel, T.STOMACH)
    p.paint(bowel & (bumps > 1.2), T.GAS)
    spleen = (
        ((x - spine_x - u(95, 115)) / u(28, 40)) ** 2
        + ((y - inner_y - u(15, 35)) / u(35, 50)) ** 2
        + ((z - floor - u(80, 120)) / u(40, 60)) ** 2
    )
    p.paint((spleen < 1) & below, T.SPLEEN)
    stomach = (
        ((x - spine_x - u(50, 75)) / u(35, 55)) ** 2
        + ((y - inner_y + u(0, 30)) / u(40, 60)) ** 2
        + ((z - floor - u(90, 130)) / u(35, 60)) ** 2
    )
    p.paint((stomach < 1) & below, T.STOMACH)
    p.paint((stomach < 0.8) & below & (y < inner_y - u(-10, 25)), T.GAS)
    for side in (-1, 1):
        kidney = (
            ((x - spine_x - side * u(50, 65)) / 28) ** 2
            + ((y - inner_y - u(25, 40)) / 28) ** 2
            + ((z - floor - u(-30, 10)) / 55) ** 2
        )
        p.paint((kidney < 1) & below, T.KIDNEY)
    reach = spine_x + u(10, 60)  # how far the left lobe goes
    liver = (
        below
        & (x < reach - 0.5 * np.clip(y - inner_y + inner_d * 0.3, 0, None))
        & (z > floor + 0.5 * (x - spine_x + 60))
        & (inner < 0.97)
    )
    p.paint(liver, T.LIVER)
    p.paint(liver & (np.abs(p.noise(rng, 22)) < 0.10) & (np.abs(p.noise(rng, 22)) < 0.35), T.HEPATIC_VEIN)


def _spine_and_sternum(p: _Painter, trunk: _Trunk, rng: np.random.Generator) -> None:
    x, y, z = p.x, p.y, p.z
    u = rng.uniform
    sx, sy = trunk.spine_x, trunk.spine_y
    radius, period = u(14, 19), u(22, 29)
    bend = u(-6, 6) * np.sin(z / u(60, 120))
    body = np.sqrt(((x - sx - bend * 0.3) / 1.15) ** 2 + (y - sy - bend) ** 2)
    disc = np.mod(z + u(0, 30), period) < u(4, 7)
    p.paint((body < radius + 6) & (y > sy - 4), T.MUSCLE)
    p.paint(body < radius, T.CORTICAL_BONE)
    p.paint((body < radius - 2.5) & ~disc, T.SPONGY_BONE)
    p.paint((body < radius) & disc, T.DISC)
    canal_y = sy + radius + 6
    canal = np.sqrt((x - sx) ** 2 + (y - canal_y) ** 2) + 0 * z
    arch = (canal < 14) & (np.mod(z, period) < period * 0.7)
    p.paint(arch, T.CORTICAL_BONE)
    p.paint(canal < 8, T.SPINAL_CANAL)
    process = (
        (np.abs(x - sx) < 4)
        & (y > canal_y + 6)
        & (y < canal_y + u(26, 38))
        & (np.mod(z + 0.4 * y, period) < period * 0.6)
    )
    p.paint(process, T.CORTICAL_BONE)
    transverse = (
        (np.abs(y - canal_y) < 6) & (np.abs(x - sx) < u(28, 38)) & (np.abs(x - sx) > 8) & (np.mod(z, period) < 9)
    )
    p.paint(transverse, T.SPONGY_BONE)
    thick, width = u(8, 13), u(15, 22)
    middle = trunk.front - thick / 2 - u(0, 4)
    lean = u(-0.15, 0.05) * (z - np.mean(z))
    plate = np.maximum(np.abs(y - middle - lean) / (thick / 2), np.abs(x - sx) / width)
    length = (z > trunk.diaphragm.min() + u(20, 80)) & (z < trunk.top - 20)
    p.paint((plate < 1) & length, T.CORTICAL_BONE)
    p.paint((plate < 0.72) & length, T.SPONGY_BONE)


def _mediastinum(p: _Painter, heart: np.ndarray, trunk: _Trunk, mark: _Landmarks, rng: np.random.Generator) -> None:
    """Fat between the vessels and in the midline, trachea, bronchi, oesophagus, lung vessels, fluid; ``heart``: tissue
    map on the canvas.
    """
    x, y, z = p.x, p.y, p.z
    u = rng.uniform
    lung = p.labels == T.LUNG
    solid = np.isin(heart, np.concatenate([_HEART, _VESSELS, [T.FAT]])).astype(np.float32)
    near = ndimage.gaussian_filter(solid, u(6, 10) / p.spacing)
    spine_x = trunk.spine_x
    half = np.clip(u(8, 20) + 0.12 * (z - mark.left_atrium_top), u(3, 10), 32) + 4 * p.noise(rng, 40)
    band = (np.abs(x - spine_x - u(0, 10)) < half) & (y < trunk.back)
    behind = (
        (np.abs(x - spine_x - 8) < u(24, 36))
        & (y > mark.left_atrium[1])
        & (y < trunk.spine_y + 8)
        & (z < mark.left_atrium_top + 25)
    )
    p.paint((near > u(0.16, 0.4)) & lung, T.MEDIASTINAL_FAT)
    p.paint((band | behind) & lung, T.MEDIASTINAL_FAT)
    # Soft tissue (nodes, thymus) in the fat.
    fat = p.labels == T.MEDIASTINAL_FAT
    p.paint(fat & (p.noise(rng, 14) > u(0.9, 2.2)), T.MUSCLE)

    # Lung vessels: where two smooth noises are both near zero lie filaments; thicker near the hilum.
    lung = p.labels == T.LUNG
    hilum = np.exp(-((x - spine_x) ** 2 + 0.6 * (z - mark.left_atrium_top) ** 2) / (2 * 70.0**2))
    width = u(0.05, 0.10) + 0.28 * hilum**2 * u(0.3, 1.0)
    scale = u(14, 24)
    p.paint(lung & (np.abs(p.noise(rng, scale)) < width) & (np.abs(p.noise(rng, scale)) < width), T.LUNG_VESSEL)

    # Airways: trachea in front of the spine, bronchi leaving it above the left atrium.
    over = (T.LUNG, T.LUNG_VESSEL, T.MEDIASTINAL_FAT, T.MUSCLE)
    carina = np.array(
        [
            spine_x + u(-2, 10),
            min(trunk.spine_y - u(20, 34), mark.left_atrium[1] + 35),
            mark.left_atrium_top + u(14, 30),
        ]
    )
    upper = carina + np.array([u(-6, 6), u(-26, -6), 220.0])
    wall = (1.8, T.AIRWAY_WALL)
    p.tube(carina, upper, u(7, 10), u(7, 10), T.AIRWAY, over, wall)
    for side in (-1, 1):
        hilar = carina + np.array([side * u(38, 55), u(-4, 14), -u(22, 42)])
        p.tube(carina, hilar, u(5.5, 7.5), u(4.5, 6), T.AIRWAY, over + (T.AIRWAY,), wall)
        p.tube(hilar, hilar + np.array([side * u(8, 30), u(5, 30), -u(35, 70)]), u(4, 5), 2, T.AIRWAY, over, wall)
        p.tube(hilar, hilar + np.array([side * u(25, 45), -u(5, 40), u(-10, 40)]), u(3, 5), 2, T.AIRWAY, over, wall)
    gullet = np.array([spine_x + u(4, 16), trunk.spine_y - u(18, 26), carina[2]])
    p.tube(gullet, gullet + np.array([u(-8, 0), u(-6, 4), 200.0]), 7, 7, T.OESOPHAGUS, over)
    p.tube(
        gullet,
        gullet + np.array([u(5, 20), u(-14, 4), -(carina[2] - mark.low[2]) - 10]),
        u(6, 9),
        u(7, 11),
        T.OESOPHAGUS,
        over,
    )
    p.tube(gullet + np.array([-14, 8, -150]), gullet + np.array([-14, 8, 60.0]), 3, 4, T.LUNG_VESSEL, over)  # azygos

    if rng.random() < 0.2:  # pleural effusion
        level = trunk.inner_y + u(20, 60)
        side = (x > spine_x) if rng.random() < 0.5 else (x < spine_x)
        p.paint(lung & side & (y > level + 0.25 * (z - mark.low[2])), T.FLUID)
    if rng.random() < 0.2:  # consolidated or collapsed lung
        p.paint((p.labels == T.LUNG) & (p.noise(rng, 45) > u(1.2, 2.0)) & (z < mark.left_atrium[2]), T.MUSCLE)
    if rng.random() < 0.15:  # pericardial effusion
        chambers = np.isin(heart, np.append(_HEART, T.FAT)).astype(np.float32)
        around = ndimage.gaussian_filter(chambers, u(3, 6) / p.spacing) > u(0.1, 0.35)
        p.paint(around & (heart == 0) & np.isin(p.labels, over), T.FLUID)


def _continue_vessels(
    p: _Painter,
    labels: np.ndarray,
    origin: np.ndarray,
    spacing: float,
    mark: _Landmarks,
    trunk: _Trunk,
    rng: np.random.Generator,
) -> None:
    """Continue what the heart's box cuts: aorta down and out of the back, arch branches and SVC up, IVC down, lung
    vessels outwards.
    """
    u = rng.uniform
    extent = np.array(labels.shape[::-1]) * spacing
    soft = tuple(
        int(t)
        for t in np.unique(p.labels)
        if t not in (T.CORTICAL_BONE, T.SPONGY_BONE, T.AIR, T.SUBCUTANEOUS_FAT, T.DISC)
    )
    (a0, a1), (b0, b1) = mark.aorta_line

    def aorta_at(height: float) -> np.ndarray:
        return np.array([a0 + a1 * height, b0 + b1 * height, height])

    wall = (2.0, T.AORTIC_WALL)
    p.tube(
        aorta_at(mark.left_atrium[2] + 20),
        aorta_at(mark.low[2] - 20),
        mark.aorta_radius,
        mark.aorta_radius,
        T.AORTA_ARCH_DESCENDING,
        soft,
        wall,
    )
    lowest = aorta_at(mark.low[2] - 20)
    p.tube(
        lowest,
        lowest + np.array([trunk.spine_x + 12 - lowest[0], -8, -260.0]),
        mark.aorta_radius,
        mark.aorta_radius * 0.8,
        T.AORTA_ARCH_DESCENDING,
        soft,
        wall,
    )

    def face_centres(face: np.ndarray, tissue: int, minimum: int = 12):
        """(centroid in face indices, equivalent radius in mm) of each piece of a tissue on a face."""
        pieces, count = ndimage.label(face == tissue)
        for piece in range(1, count + 1):
            at = np.argwhere(pieces == piece)
            if len(at) >= minimum:
                yield at.mean(axis=0), float(np.sqrt(len(at) / np.pi) * spacing), at

    top, bottom = labels[-1], labels[0]
    for (row, column), radius, _ in face_centres(bottom, T.IVC):
        start = origin + np.array([column, row, 0]) * spacing
        p.tube(start, start + np.array([u(-5, 5), u(0, 15), -260.0]), radius, radius, T.IVC, soft)
    for (row, column), radius, _ in face_centres(top, T.SVC):
        start = origin + np.array([column * spacing, row * spacing, extent[2]])
        p.tube(start, start + np.array([u(-10, 0), u(-5, 10), u(30, 60)]), min(radius, 9), 7, T.SVC, soft)
        p.tube(start, start + np.array([u(30, 60), u(-20, 0), u(15, 30)]), 6, 6, T.SVC, soft)
    for _, radius, at in face_centres(top, T.AORTA_ARCH_DESCENDING):
        many = 3 if radius > 12 else 1
        order = at[np.argsort(at[:, 0])]
        for part in np.array_split(order, many):
            row, column = part.mean(axis=0)
            start = origin + np.array([column * spacing, row * spacing, extent[2]])
            p.tube(
                start - [0, 0, 3],
                start + [0, 0, 4],
                min(radius, 9) / (1 if many == 1 else 1.3),
                5,
                T.AORTA_ARCH_DESCENDING,
                soft,
                wall,
            )
            p.tube(
                start,
                start + np.array([u(-18, 18), u(-12, 6), 80.0]),
                u(4, 6),
                u(3, 5),
                T.AORTA_ARCH_DESCENDING,
                soft,
                (1.0, T.AORTIC_WALL),
            )
    for face, sign, index in ((labels[:, :, 0], -1, 0.0), (labels[:, :, -1], 1, extent[0])):
        for tissue in (T.PULMONARY_VEINS, T.DISTAL_PULMONARY_ARTERY):
            for (level, row), radius, _ in face_centres(face, tissue, 8):
                start = origin + np.array([index, row * spacing, level * spacing])
                for _ in range(rng.integers(1, 4)):
                    end = start + np.array([sign * u(15, 45), u(-20, 30), u(-40, 40)])
                    p.tube(start, end, radius * u(0.6, 1), 1.5, T.LUNG_VESSEL, soft)


def surround(heart: sitk.Image, seed: int, spacing: float = 2.0, extent: Extent | None = None) -> sitk.Image:
    """Put a heart into a body.

    Args:
        heart: tissue map of a heart (see :mod:`mkd_core.synthesis.tissues`), uint8, isotropic, identity direction in
            LPS.
        seed: decides everything random about the body; same seed, same body.
        spacing: voxel size of the result in mm.
        extent: what to cover; by default a chest that holds the heart with 45 mm around it and the body in front and
            behind.

    Returns:
        Tissue map of heart and body, uint8, identity direction, ``spacing`` mm.
    """
    rng = np.random.default_rng(seed)
    labels = sitk.GetArrayFromImage(heart)
    origin = np.array(heart.GetOrigin())
    own = heart.GetSpacing()[0]
    mark = _landmarks(labels, origin, own)
    if extent is None:
        extent = chest_extent(heart)
    p = _Painter(extent, spacing)
    inside = sitk.GetArrayFromImage(
        sitk.Resample(
            heart,
            [int(n) for n in p.labels.shape[::-1]],
            sitk.Transform(),
            sitk.sitkNearestNeighbor,
            [float(v) for v in p.low],
            [spacing] * 3,
            (1, 0, 0, 0, 1, 0, 0, 0, 1),
            0,
            sitk.sitkUInt8,
        )
    )
    trunk = _trunk(p, mark, rng)
    _spine_and_sternum(p, trunk, rng)
    _mediastinum(p, inside, trunk, mark, rng)
    _continue_vessels(p, labels, origin, own, mark, trunk, rng)
    covered = inside > 0
    p.labels[covered] = inside[covered]
    # Coronary arteries: filaments in the fat of the grooves.
    p.paint((p.labels == T.FAT) & (np.abs(p.noise(rng, 16)) < 0.13) & (np.abs(p.noise(rng, 16)) < 0.13), T.CORONARY)
    result = sitk.GetImageFromArray(p.labels)
    result.SetOrigin([float(v) for v in p.low])
    result.SetSpacing([float(spacing)] * 3)
    return result


def chest_extent(heart: sitk.Image, around: float = 45.0) -> Extent:
    """The heart's box grown by ``around`` mm on every side: what a training patch can see."""
    low = np.array(heart.GetOrigin()) - around
    high = np.array(heart.GetOrigin()) + np.array(heart.GetSize()) * heart.GetSpacing()[0] + around
    return Extent(tuple(low), tuple(high))


def torso_extent(heart: sitk.Image) -> Extent:
    """From the neck to the upper abdomen, skin to skin: what the heart localiser can see."""
    centre = np.array(heart.GetOrigin()) + np.array(heart.GetSize()) * heart.GetSpacing()[0] / 2
    return Extent(tuple(centre - [230.0, 170.0, 330.0]), tuple(centre + [210.0, 190.0, 220.0]))
