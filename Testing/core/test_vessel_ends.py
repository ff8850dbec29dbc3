"""The vessels are scored up to where the organisers of MM-WHS score them."""

from __future__ import annotations

import numpy as np

from mkd_core.structures import BY_KEY
from Testing.benchmarks.vessel_ends import before_bifurcation, below_atrial_roof, truncated_dice

RV, PA, AA, LA = (BY_KEY[key].label for key in ("RV", "PA", "AA", "LA"))


def forked() -> np.ndarray:
    """A right ventricle, a trunk of 16 voxels that leaves it upwards and two branches to the sides; an aorta that ends
    ten slices above the atrium.
    """
    labels = np.zeros((40, 30, 50), np.uint8)
    labels[2:8, 10:20, 15:35] = RV
    labels[8:24, 12:17, 22:28] = PA
    labels[24:29, 12:17, 4:46] = PA
    labels[6:20, 20:28, 15:35] = LA
    labels[6:30, 2:8, 20:26] = AA
    return labels


def test_the_pulmonary_artery_counts_up_to_its_bifurcation():
    truth = forked()
    trunk = (truth == PA) & before_bifurcation(truth, (1.0, 1.0, 1.0))
    assert trunk[8:23, 12:17, 22:28].all(), "the trunk"
    assert not trunk[24:29, 12:17, :16].any() and not trunk[24:29, 12:17, 34:].any(), "the branches"


def test_an_artery_without_branches_or_without_a_ventricle_counts_whole():
    truth = forked()
    truth[24:29, :, :22] = 0
    assert before_bifurcation(truth, (1.0, 1.0, 1.0)).all()
    truth = forked()
    truth[truth == RV] = 0
    assert before_bifurcation(truth, (1.0, 1.0, 1.0)).all()


def test_the_aorta_counts_up_to_the_roof_of_the_atria():
    region = below_atrial_roof(forked())
    assert region[:20].all() and not region[20:].any()


def test_what_lies_beyond_the_ends_costs_nothing_and_what_lies_before_them_does():
    truth = forked()
    found = truth.copy()
    found[20:30][found[20:30] == AA] = 0  # above the atria
    found[24:29, 12:17, :14] = 0  # far in a branch
    assert truncated_dice(found, truth, (1.0, 1.0, 1.0)) == {"AA": 1.0, "PA": 1.0}
    found = truth.copy()
    found[6:10][found[6:10] == AA] = 0
    found[10:14][found[10:14] == PA] = 0
    scores = truncated_dice(found, truth, (1.0, 1.0, 1.0))
    assert scores["AA"] == 2 * 10 / (10 + 14) and 0.8 < scores["PA"] < 0.95
