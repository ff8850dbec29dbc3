"""Is there a heart?  What both stages saw, and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest

from mkd_core.measure.heart_evidence import Evidence, Verdict, judge, no_heart
from mkd_core.measure.messages import describe
from mkd_core.method.ensemble import joint_agreement

HEART = (0.0, 120.0, 140.0, 80.0, 90.0, 130.0, 60.0, 50.0)
SEEN = Evidence(
    localised_ml=HEART, recognition=0.8, mirrored_recognition=0.6, segmented_ml=HEART, joint_agreement=0.85, blood=320.0
)


def changed(**values) -> Evidence:
    return dataclasses.replace(SEEN, **values)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (SEEN, Verdict.CONFIRMED),
        (changed(localised_ml=(0.0,) * 8, recognition=0.0), Verdict.CONFIRMED),  # the segmentors see more
        (changed(joint_agreement=0.3), Verdict.COARSE),
        (changed(joint_agreement=0.3, recognition=0.5), Verdict.NONE),
        (changed(joint_agreement=0.3, mirrored_recognition=0.79), Verdict.NONE),  # as good a heart in the mirror
        (changed(joint_agreement=0.3, localised_ml=[0.2 * value for value in HEART]), Verdict.NONE),
        (changed(joint_agreement=0.3, localised_ml=(0, 300, 300, 0, 0, 0, 0, 0)), Verdict.NONE),
        (changed(segmented_ml=(0, 120, 0, 0, 0, 0, 60, 50), recognition=0.3), Verdict.NONE),
        (changed(segmented_ml=(0, 40, 60, 0, 0, 90, 0, 0), recognition=0.65), Verdict.CONFIRMED),  # a short-axis stack
        (changed(segmented_ml=(0, 96, 42, 0, 0, 38, 0, 0), recognition=0.39), Verdict.NONE),  # a lump with a shell
        (changed(segmented_ml=(0, 601, 119, 49, 125, 0, 0, 0), recognition=0.69), Verdict.NONE),  # no wall
        (changed(segmented_ml=(0, 41, 0, 122, 80, 49, 41, 36), recognition=0.18), Verdict.CONFIRMED),  # a whole heart
        (changed(segmented_ml=(0, 0, 267, 333, 463, 8, 77, 0), recognition=0.28), Verdict.NONE),  # two legs
        (changed(segmented_ml=(0, 9, 9, 9, 9, 9, 9, 0), recognition=0.3), Verdict.NONE),
        # a lump in a stack of thick slices, which looks the same in the mirror, and a heart, which does not
        (changed(is_unsure_stack=True, recognition=0.4, mirrored_recognition=0.4), Verdict.NONE),
        (changed(is_unsure_stack=True, recognition=0.4, mirrored_recognition=0.3), Verdict.CONFIRMED),
        # the segmentors are not sure of two legs and a head, which look the same in the mirror, nor of this heart
        (changed(joint_agreement=0.7, recognition=0.27, mirrored_recognition=0.35), Verdict.NONE),
        (changed(joint_agreement=0.7, recognition=0.73, mirrored_recognition=0.73), Verdict.NONE),
        (changed(joint_agreement=0.7, recognition=0.73, mirrored_recognition=0.5), Verdict.CONFIRMED),
        (changed(joint_agreement=0.7, recognition=0.5, mirrored_recognition=0.73), Verdict.CONFIRMED),  # a mirrored one
        (changed(joint_agreement=0.76, recognition=0.27, mirrored_recognition=0.26), Verdict.CONFIRMED),
    ],
)
def test_the_segmentors_confirm_and_else_the_localiser_must_see_a_whole_heart_one_way_round(evidence, expected):
    assert judge(evidence, 150.0) == expected


@pytest.mark.parametrize(
    ("evidence", "modality", "code", "words"),
    [
        (Evidence(localised_ml=(0, 1, 0, 0, 2, 0, 0, 0)), "CT", "no_heart", "Nothing in it looks like one"),
        (
            Evidence(localised_ml=(0, 9, 0, 0, 20, 0, 0, 0), blood=210.0),
            "CT",
            "no_heart_part",
            "mostly right atrium (29 ml), not a whole heart",
        ),
        (changed(touches_border=True), "CT", "no_heart_cut", "reaches the edge of the volume"),
        (changed(blood=41.0, touches_border=True), "CT", "no_heart_no_contrast", "no contrast agent (41 HU)"),
        (changed(blood=41.0, joint_agreement=0.21), "MR", "no_heart_unlike", "agree on its parts by only 21%"),
    ],
)
def test_a_refusal_says_what_was_seen_and_offers_a_box(evidence, modality, code, words):
    found = no_heart(evidence, modality)
    assert (found.code, found.severity) == (code, "refusal")
    text = describe(found)
    assert text.startswith("No heart was found in this volume.") and words in text and "draw a box" in text


def test_joint_agreement_counts_all_structures_together():
    np = pytest.importorskip("numpy")
    first, second = np.array([0, 1, 1, 2, 0, 3]), np.array([0, 1, 2, 2, 4, 0])
    assert joint_agreement(first, second) == pytest.approx(2 * 2 / (4 + 4))
    assert joint_agreement(first * 0, second * 0) == 0.0
