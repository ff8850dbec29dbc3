"""What patients bring into the scanner beside their anatomy: calcium in vessel walls, the leads of a pacemaker,
fluid round lungs and heart.

Painted onto tissue maps ``(Z, Y, X)`` of hearts in bodies, in place.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

from mkd_core.synthesis.tissues import Tissue as T

_CALCIFIED = (T.AORTIC_WALL, T.CORONARY)
_DEPOSIT_MM = 2.5  # smoothing of the noise that says where calcium lies
_LEAD_RADIUS_MM = (0.8, 1.5)

#: Tissues that a lead runs through, and what they become.
_LEAD_IN = {T.SVC: T.LEAD_IN_VEIN, T.RA: T.LEAD_IN_RA, T.RV: T.LEAD_IN_RV}


def paint_calcium(tissues: np.ndarray, spacing: float, rng: np.random.Generator) -> None:
    """Deposits in the walls of aorta and coronary arteries; ``spacing`` in mm."""
    wall = np.isin(tissues, _CALCIFIED)
    found = ndimage.find_objects(wall.astype(np.uint8))
    if not found:
        return
    box = found[0]
    noise = ndimage.gaussian_filter(rng.standard_normal(wall[box].shape).astype(np.float32), _DEPOSIT_MM / spacing)
    tissues[box][wall[box] & (noise > rng.uniform(1.0, 2.5) * noise.std())] = T.CALCIUM


def paint_lead(tissues: np.ndarray, spacing: float, rng: np.random.Generator) -> None:
    """A wire from the superior vena cava through the right atrium to the apex of the right ventricle; none where one of
    them is missing.
    """
    step = max(1, round(2.0 / spacing))
    coarse = tissues[::step, ::step, ::step]
    vein, atrium, ventricle = (np.argwhere(coarse == tissue).astype(float) * step for tissue in (T.SVC, T.RA, T.RV))
    if min(len(vein), len(atrium), len(ventricle)) < 20:
        return
    top = vein[vein[:, 0] >= np.percentile(vein[:, 0], 90)].mean(axis=0)
    foot = vein[vein[:, 0] <= np.percentile(vein[:, 0], 20)].mean(axis=0)
    valve = ventricle[_nearest(ventricle, atrium.mean(axis=0), 0.03)].mean(axis=0)
    apex = ventricle[_nearest(ventricle, 2 * ventricle.mean(axis=0) - valve, 0.01)].mean(axis=0)
    # The wire sags along the outer wall of the atrium and lies on the floor of the ventricle.
    bulge = atrium.mean(axis=0) + (atrium.mean(axis=0) - valve) * rng.uniform(0.1, 0.45)
    middle = (valve + apex) / 2 + rng.normal(0, 4, 3) / spacing
    course = np.array([top, foot, bulge, valve, middle, apex])
    length = np.r_[0, np.linalg.norm(np.diff(course, axis=0), axis=1).cumsum()] * spacing
    points = CubicSpline(length, course)(np.arange(0, length[-1], 0.4))
    radius = rng.uniform(*_LEAD_RADIUS_MM) / spacing
    reach = int(np.ceil(radius))
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    voxels = np.rint(points[:, None, :]).astype(int) + offsets
    inside = (np.linalg.norm(voxels - points[:, None, :], axis=-1) <= max(radius, 0.6)) & (
        (voxels >= 0) & (voxels < tissues.shape)
    ).all(axis=-1)
    index = tuple(np.unique(voxels[inside], axis=0).T)
    met = tissues[index]
    for tissue, lead in _LEAD_IN.items():
        met[met == tissue] = lead
    tissues[index] = met


def paint_effusion(tissues: np.ndarray, spacing: float, rng: np.random.Generator) -> None:
    """Fluid behind one lung or both, as far up as it stands in somebody who lies on the back, and at times round the
    heart.
    """
    lung = np.argwhere(tissues[::4, ::4, ::4] == T.LUNG) * 4
    heart = np.isin(tissues, (T.LV, T.RV, T.RA, T.LA, T.MYOCARDIUM, T.RV_WALL, T.RA_WALL, T.LA_WALL, T.FAT))
    if len(lung) < 20 or not heart.any():
        return
    middle = np.argwhere(heart[::4, ::4, ::4]).mean(axis=0)[2] * 4
    front, back = np.percentile(lung[:, 1], (2, 98))
    rows = np.arange(tissues.shape[1]).reshape(1, -1, 1)
    columns = np.arange(tissues.shape[2])
    for side in rng.permutation((-1, 1))[: 1 + int(rng.random() < 0.4)]:
        level = back - (back - front) * rng.uniform(0.1, 0.6)
        slope = rng.uniform(0.0, 0.3) * (np.arange(tissues.shape[0]) - tissues.shape[0] / 2).reshape(-1, 1, 1)
        fluid = np.isin(tissues, (T.LUNG, T.LUNG_VESSEL)) & (rows > level + slope) & ((columns - middle) * side > 0)
        tissues[fluid] = T.FLUID
    if rng.random() < 0.4:
        step = max(1, round(2.0 / spacing))
        near = ndimage.distance_transform_edt(~heart[::step, ::step, ::step]) * step * spacing < rng.uniform(4, 18)
        near = near.repeat(step, 0).repeat(step, 1).repeat(step, 2)
        near = near[tuple(slice(n) for n in tissues.shape)]
        tissues[near & np.isin(tissues, (T.LUNG, T.LUNG_VESSEL, T.MEDIASTINAL_FAT))] = T.FLUID


def _nearest(points: np.ndarray, to: np.ndarray, share: float) -> np.ndarray:
    distance = np.linalg.norm(points - to, axis=1)
    return distance <= np.quantile(distance, share)
