"""Dice, surface distances and volumes of one segmentation; means and limits of agreement of many.

A measure that is not defined is None, never a number that stands for it:

- Dice is 0 where either the segmentation or the truth has no voxel of a structure, and not defined where neither has.
- Distances are not defined where either has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from mkd_core.structures import DETAILED, STRUCTURES, Structure

#: Of a normal distribution, 95 % lie within so many standard deviations.
_TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class StructureMeasures:
    """Measures of one structure in one case; None where not defined.

    Attributes:
        dice: Dice overlap, 0 to 1.
        hd95_mm: 95th percentile of the Hausdorff distance, mm, see :func:`hd95`.
        assd_mm: average symmetric surface distance, mm, see :func:`assd`.
        volume_ml: of the segmentation; None if there is no segmentation at all.
        truth_ml: of the truth; None, as all else, where the structure is not labelled.
    """

    dice: float | None
    hd95_mm: float | None
    assd_mm: float | None
    volume_ml: float | None
    truth_ml: float | None


def measure_case(
    found: np.ndarray | None,
    truth: np.ndarray,
    spacing: Sequence[float],
    structures: Sequence[Structure] = STRUCTURES,
    labelled: Sequence[str] | None = None,
    box: tuple[slice, ...] | None = None,
) -> dict[str, StructureMeasures]:
    """Measure all structures of a case.

    A part of a structure that the truth does not tell apart from it counts as that structure: where no appendage is
    labelled, it is left atrium.

    Args:
        found: labels, ``(D, H, W)``; None if the case could not be segmented: Dice is then 0 wherever the truth
            has voxels.
        truth: labels, ``(D, H, W)``.
        spacing: voxel size along the arrays' axes, mm.
        structures: what the labels mean.
        labelled: keys of the structures that the truth knows; None for all.
        box: voxels round the heart that were segmented.  Structures in detail are compared in there only, for vessels
            go on beyond it; None compares them everywhere.

    Returns:
        Measures by key of structure; of those that are not labelled nothing is known.
    """
    voxel_ml = float(np.prod(spacing)) / 1000.0
    known = [structure.key for structure in structures] if labelled is None else labelled
    found = None if found is None else _with_parts(found, structures, known)
    boxes = _boxes(truth, found, len(structures) + 1)
    measured = {}
    for structure in structures:
        if structure.key not in known:
            measured[structure.key] = StructureMeasures(None, None, None, None, None)
            continue
        label = structure.label
        place = boxes[label]
        if box is not None and structure.key in DETAILED:
            place = tuple(slice(max(a.start, b.start), max(0, min(a.stop, b.stop))) for a, b in zip(place, box))
        true_mask = truth[place] == label
        mask = np.zeros_like(true_mask) if found is None else found[place] == label
        distances = surface_distances(mask, true_mask, spacing)
        measured[structure.key] = StructureMeasures(
            dice=dice(mask, true_mask),
            hd95_mm=None if distances is None else hd95(*distances),
            assd_mm=None if distances is None else assd(*distances),
            volume_ml=None if found is None else float(np.count_nonzero(mask) * voxel_ml),
            truth_ml=float(np.count_nonzero(true_mask) * voxel_ml),
        )
    return measured


def _with_parts(found: np.ndarray, structures: Sequence[Structure], known: Sequence[str]) -> np.ndarray:
    """Labels in which parts that the truth does not know have the label of what they are part of."""
    label_of = {structure.key: structure.label for structure in structures}
    parts = [one for one in structures if one.part_of in known and one.key not in known]
    if not parts:
        return found
    table = np.arange(256, dtype=np.uint8)
    for part in parts:
        table[part.label] = label_of[part.part_of]
    return table[found]


def _boxes(truth: np.ndarray, found: np.ndarray | None, class_count: int) -> list[tuple[slice, ...]]:
    """Per label, the smallest box that holds all its voxels in either array; empty where there are none."""
    nothing = (slice(0, 0),) * truth.ndim
    boxes = [nothing] * class_count
    for labels in (truth,) if found is None else (truth, found):
        for label, box in enumerate(ndimage.find_objects(labels, class_count - 1), start=1):
            if box is not None:
                known = boxes[label]
                boxes[label] = (
                    box
                    if known is nothing
                    else tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(known, box))
                )
    return boxes


def dice(first: np.ndarray, second: np.ndarray) -> float | None:
    """Dice overlap of two masks of the same shape; None if both are empty.

    Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945).
    """
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2.0 * np.count_nonzero(first & second) / total) if total else None


def surface_distances(
    first: np.ndarray, second: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Distances between the surfaces of two masks.

    The surface of a mask are its voxels that have one of their six neighbours outside; what lies beyond the array is
    outside.  A distance is that from the centre of such a voxel to the nearest centre of the other mask's.

    Args:
        first, second: masks of the same shape.
        spacing: voxel size along the arrays' axes, mm.

    Returns:
        From every surface voxel of the first to the second, and the reverse, mm; None if a mask is empty.
    """
    points, others = (np.argwhere(_surface(mask)) * np.asarray(spacing, float) for mask in (first, second))
    if not len(points) or not len(others):
        return None
    return _nearest(points, others), _nearest(others, points)


def _surface(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[(slice(1, -1),) * mask.ndim]
    return mask & ~inside


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    # Points of a lattice are spread evenly: an unbalanced tree is as good and built sooner.
    return KDTree(others, balanced_tree=False, compact_nodes=False).query(points)[0]


def hd95(there: np.ndarray, back: np.ndarray) -> float:
    """95th percentile of the Hausdorff distance: the larger of the two directed 95th percentiles, which interpolate
    linearly.

    Huttenlocher, Klanderman and Rucklidge, "Comparing images using the Hausdorff distance", IEEE TPAMI 15 (1993), for
    the maximum of two directed, ranked distances; the same choice as in Maier-Hein et al., "Metrics reloaded:
    recommendations for image analysis validation", Nature Methods 21 (2024).  Taking the percentile of both directions
    together gives smaller figures.

    Args:
        there, back: of :func:`surface_distances`.
    """
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def assd(there: np.ndarray, back: np.ndarray) -> float:
    """Average symmetric surface distance: the mean over the surface voxels of both masks.

    Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", IEEE TMI 28 (2009).

    Args:
        there, back: of :func:`surface_distances`.
    """
    return float((there.sum() + back.sum()) / (len(there) + len(back)))


@dataclass(frozen=True)
class Distribution:
    """A measure over cases; None where there are too few values.

    Attributes:
        mean, median, lowest, highest: of the values.
        sd: standard deviation of the sample (divided by n - 1); needs two values.
        count: values.
        missing: cases, or structures of cases, for which the measure is not defined.
    """

    mean: float | None
    sd: float | None
    median: float | None
    lowest: float | None
    highest: float | None
    count: int
    missing: int


def distribution(values: Sequence[float | None]) -> Distribution:
    """Describe values; None counts as missing."""
    known = np.array([value for value in values if value is not None], float)
    missing = len(values) - len(known)
    if not len(known):
        return Distribution(None, None, None, None, None, 0, missing)
    return Distribution(
        mean=float(known.mean()),
        sd=_sample_sd(known),
        median=float(np.median(known)),
        lowest=float(known.min()),
        highest=float(known.max()),
        count=len(known),
        missing=missing,
    )


@dataclass(frozen=True)
class Agreement:
    """Agreement of measured with true volumes: Bland and Altman, "Statistical methods for assessing agreement between
    two methods of clinical measurement", Lancet 327 (1986).  None where there are too few values.

    Attributes:
        bias: mean of measured minus true, ml.
        sd: standard deviation of the differences, ml; needs two of them.
        lower, upper: 95 % limits of agreement, bias minus and plus 1.96 standard deviations, ml.
        count: pairs.
        missing: cases without a segmentation.
    """

    bias: float | None
    sd: float | None
    lower: float | None
    upper: float | None
    count: int
    missing: int


def agreement(measured: Sequence[float | None], true: Sequence[float]) -> Agreement:
    """Compare volumes, case by case; None counts as missing."""
    differences = np.array(
        [value - truth for value, truth in zip(measured, true, strict=True) if value is not None], float
    )
    missing = len(measured) - len(differences)
    if not len(differences):
        return Agreement(None, None, None, None, 0, missing)
    bias, sd = float(differences.mean()), _sample_sd(differences)
    reach = None if sd is None else _TWO_SIDED_95 * sd
    return Agreement(
        bias,
        sd,
        None if reach is None else bias - reach,
        None if reach is None else bias + reach,
        len(differences),
        missing,
    )


def _sample_sd(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
