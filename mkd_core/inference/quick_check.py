"""A first look at a volume, before anything is computed: what would a reader of the images notice?

Quick on any size (a few hundred thousand voxels are looked at), needs numpy alone, and asks for nothing: findings are
codes with figures, to be put into words by whoever shows them.  :mod:`mkd_core.inference.image_check` judges the same
things exactly when a run begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

#: Voxel sizes outside of this range are mistakes of units, mm.
SPACING_RANGE = (0.02, 30.0)

#: A field of view longer than this shows more than a person, mm.
MAX_EXTENT = 2500.0

#: Every CT that shows a chest has voxels below this: lung, or air around the body.  HU.
AIR_OR_LUNG = -300.0

#: Slices or voxels thicker than this blur the walls of the heart, mm.
THICK = 3.5

#: A heart of an adult with its great vessels is about 130 mm long; a field of view below this cannot show all of it,
#: mm.
SHORTEST_HEART = 100.0

#: Water of a CT stored without its offset lies here, as Hounsfield numbers begin at -1024.
_STORED_WATER = (900.0, 1300.0)

#: Most different values that a label map has.
_MOST_LABELS = 64

_SAMPLES_PER_AXIS = 64


@dataclass(frozen=True)
class Finding:
    """One thing that a reader would notice.

    Attributes:
        code: one of "spacing", "extent", "constant", "labels", "looks_like_mr", "looks_like_ct", "stored_ct", "no_air",
            "thick", "heart_cut"; the last six and "labels" are doubts, the others stop the method.
        stops: the method would refuse the volume.
        figures: numbers for the sentence.
    """

    code: str
    stops: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


def quick_check(voxels: np.ndarray, spacing: Sequence[float], modality: str) -> list[Finding]:
    """Look at a volume.

    Args:
        voxels: ``(k, j, i)``, a view is enough: at most 64 planes, rows and columns of it are touched.
        spacing: mm along k, j, i.
        modality: what the volume is said to be, "CT" or "MR".

    Returns:
        Findings, the weightiest first; none for a volume that looks as it should.
    """
    findings = _grid_findings(voxels.shape, spacing)
    if any(finding.stops for finding in findings):
        return findings
    some = sample(voxels)
    if some.size == 0 or some.min() == some.max():
        return [Finding("constant", stops=True)]
    return _intensity_findings(some, modality) + findings


def sample(voxels: np.ndarray) -> np.ndarray:
    """Copy of at most 64 x 64 x 64 voxels spread over the volume, finite ones only, flat, float32.

    Of each axis the middles of equal parts are taken, so that padding at the edges does not weigh more than it should.
    """
    picks = []
    for size in voxels.shape:
        count = min(size, _SAMPLES_PER_AXIS)
        picks.append(((np.arange(count) + 0.5) * size / count).astype(int))
    # plane by plane, so that numpy gathers from one slice at a time instead of making large index arrays
    rows, columns = np.ix_(picks[1], picks[2])
    some = np.stack([voxels[plane][rows, columns] for plane in picks[0]]).ravel().astype(np.float32)
    return some[np.isfinite(some)]


def _grid_findings(shape: Sequence[int], spacing: Sequence[float]) -> list[Finding]:
    spacing = np.asarray(spacing, float)
    low, high = SPACING_RANGE
    if not (np.isfinite(spacing).all() and (spacing >= low).all() and (spacing <= high).all()):
        worst = max(spacing, key=lambda step: abs(np.log(step)) if np.isfinite(step) and step > 0 else np.inf)
        return [Finding("spacing", stops=True, figures={"mm": float(worst)})]
    extent = spacing * np.asarray(shape)
    if extent.max() > MAX_EXTENT:
        return [Finding("extent", stops=True, figures={"m": float(extent.max()) / 1000.0})]
    findings = []
    if extent.min() < SHORTEST_HEART:
        findings.append(Finding("heart_cut", figures={"mm": float(extent.min()), "needed_mm": SHORTEST_HEART}))
    if spacing.max() > THICK:
        findings.append(Finding("thick", figures={"mm": float(spacing.max())}))
    return findings


def _intensity_findings(some: np.ndarray, modality: str) -> list[Finding]:
    low, high = float(some.min()), float(some.max())
    if (
        low >= 0
        and high < 256
        and len(np.unique(some)) <= _MOST_LABELS
        and np.array_equal(some, np.rint(some))
        and _is_patchy(some)
    ):
        return [Finding("labels", figures={"values": float(len(np.unique(some)))})]
    if modality == "MR":
        return [Finding("looks_like_ct")] if _looks_like_ct(some) else []
    if low >= -50:  # a few values below zero come from interpolation
        bright = some[some > 300]
        near_water = np.mean((bright > _STORED_WATER[0]) & (bright < _STORED_WATER[1])) if bright.size else 0.0
        return [Finding("stored_ct")] if near_water > 0.6 and high > 1000 else [Finding("looks_like_mr")]
    if low > AIR_OR_LUNG:
        return [Finding("no_air")]
    return []


def _is_patchy(some: np.ndarray) -> bool:
    """Whether one value fills most of the samples, as background does in a label map but not in an image."""
    return np.unique(some, return_counts=True)[1].max() > 0.4 * some.size


def _looks_like_ct(some: np.ndarray) -> bool:
    return float(some.min()) < -900 and float(np.mean(some < -800)) > 0.02
