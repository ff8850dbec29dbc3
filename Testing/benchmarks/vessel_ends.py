"""The parts of the vessels that the organisers of MM-WHS score: where the ascending aorta and the pulmonary artery end
is a convention, so both the truth and the segmentation are cut there before they are compared.

The aorta counts up to the superior level of the atria, the pulmonary artery up to its bifurcation: Zhuang et al.,
"Evaluation of algorithms for multi-modality whole heart segmentation", Medical Image Analysis 58 (2019), 101537.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mkd_core.evaluation import measures
from mkd_core.structures import BY_KEY

#: What is left of a pulmonary artery has come to its bifurcation when two pieces have this share of the whole each.
_BRANCH_SHARE = 0.08


def truncated_dice(found: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> dict[str, float | None]:
    """Dice of AA and PA up to where they are scored; None where neither array has the vessel there.

    Args:
        found, truth: labels of the seven structures, ``(D, H, W)``, feet first.
        spacing: voxel size along the arrays' axes, mm.
    """
    counted = {"AA": below_atrial_roof(truth), "PA": before_bifurcation(truth, spacing)}
    return {
        key: measures.dice((found == BY_KEY[key].label) & region, (truth == BY_KEY[key].label) & region)
        for key, region in counted.items()
    }


def below_atrial_roof(truth: np.ndarray) -> np.ndarray:
    """Voxels up to the uppermost slice that has an atrium, ``(D, H, W)``."""
    atria = np.isin(truth, [BY_KEY["LA"].label, BY_KEY["RA"].label]).any(axis=(1, 2))
    region = np.zeros(truth.shape, bool)
    region[: np.flatnonzero(atria).max() + 1 if atria.any() else len(truth)] = True
    return region


def before_bifurcation(truth: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Voxels nearer to the trunk of the true pulmonary artery than to its branches, ``(D, H, W)``; all of them where
    it has no branches.

    The artery is followed from the right ventricle on, voxel by voxel; the trunk is what was passed when the rest first
    falls into two large pieces.
    """
    artery = truth == BY_KEY["PA"].label
    front = ndimage.binary_dilation(truth == BY_KEY["RV"].label) & artery
    if not front.any():
        return np.ones(truth.shape, bool)
    whole, passed = np.count_nonzero(artery), front
    while True:
        pieces, count = ndimage.label(artery & ~passed)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        if np.count_nonzero(sizes >= _BRANCH_SHARE * whole) >= 2:
            break
        further = ndimage.binary_dilation(passed, mask=artery)
        if np.array_equal(further, passed):
            return np.ones(truth.shape, bool)
        passed = further
    to_trunk, to_branches = (
        ndimage.distance_transform_edt(~part, sampling=spacing) for part in (passed, artery & ~passed)
    )
    return to_trunk <= to_branches
