"""Is there a heart?  Judged by what both stages saw: the localiser proposes, the two segmentors confirm.

Two networks that were trained on different images agree on a heart and on little else, and where they agree less well
the localiser and the mirror image decide.  Where they do not agree, the localiser alone can still be believed if it
sees a whole heart and does not see as much in the mirror image: what it takes for a heart in a head, a phantom or two
legs is as good a heart the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding
from mkd_core.structures import BY_KEY, CLASS_COUNT, STRUCTURES, Structure

# ``python -m Testing.benchmarks.heart_found`` shows what these limits do.

#: Joint agreement of the two segmentors from which on they confirm a heart.
CONFIRMED = 0.6

#: Joint agreement from which on their word is enough.  Below it, the localiser must recognise what they confirm, and so
#: much better or worse in the mirror.  It does not recognise legs, a head is the same in the mirror, and a lump that
#: is taken for short-axis slices differs by 0.07; all of them reach an agreement of 0.7.  Stacks with a heart differ by
#: 0.2 and more.
SURE = 0.75
MORE_THAN_MIRRORED_IF_UNSURE = 0.15

#: Agreement of the two segmentors on one structure from which on it counts as seen by both: a bright lump with a rim
#: is taken for a left ventricle by both, and for nothing else.
AGREED = 0.4

#: Parts of which a confirmed heart must show some, so many of them, and so much of each and of all together, ml.
PARTS = ("LV", "RV", "LA", "RA", "Myo")
_FEWEST_PARTS = 3
_LEAST_PART_ML = 1.0
_LEAST_TOTAL_ML = 60.0

#: From here on the localiser recognises a heart.
RECOGNISED = 0.6

#: What the localiser must see to be believed alone: recognition, by so much more than that of the mirror image, and
#: so many structures.
_RECOGNISED_ALONE = 0.7
_MORE_THAN_MIRRORED = 0.05
_STRUCTURES_SEEN = 6

#: From so many of the seven structures on, the left ventricle among them, the segmentors need no word of the localiser:
#: two legs are taken for all chambers but this one.  Ventricles alone, as a short-axis stack shows them, are seen in
#: many a lump as well: there the localiser must recognise the heart too, and the left ventricle needs its wall.
_MANY_STRUCTURES = 5

#: A stack of thick slices is taken for short-axis slices that lost their directions if the localiser recognises a heart
#: so well that way, and better by so much than with the directions that the volume has; the segmentors must confirm it.
LEAST_IN_SHORT_AXIS = 0.4
MORE_THAN_GIVEN = 0.08

#: A frame has the directions of the first frame of its sequence; the heart must be recognised better by so much with
#: others for these to be doubted.
MORE_THAN_FIRST_FRAME = 0.05

#: Slices whose rows and columns run another way than short-axis slices are shown must be recognised so well, and by so
#: much better than their mirror image: of fourteen ways, one looks like a heart in many a lump.
LEAST_IF_TURNED = 0.6
MORE_THAN_MIRRORED_IF_TURNED = 0.3

#: The same two where the darkest quarter of a stack is left out, with any directions.  Of stacks without a heart the
#: segmentors then confirm two, smooth noise and a lump, recognised to at most 0.71; late-enhancement stacks have 0.75
#: and more, and margins from 0.24 on.
LEAST_WITHOUT_AIR = 0.73
MORE_THAN_MIRRORED_WITHOUT_AIR = 0.2

#: The segmentors are not asked where the localiser sees less than this, ml.
WORTH_A_LOOK_ML = 15.0

#: Blood darker than this holds no contrast agent, HU.
UNENHANCED = 100.0

#: Volumes in ml by label; index 0 does not count.
Volumes = Sequence[float] | np.ndarray

#: Volumes by label where nothing was found, ml.
_NOTHING = (0.0,) * CLASS_COUNT


class Verdict(Enum):
    """What the evidence says."""

    CONFIRMED = "confirmed"  #: the segmentors agree
    COARSE = "coarse"  #: the localiser sees a heart, the segmentors do not agree on it
    NONE = "none"  #: there is no heart


@dataclass(frozen=True)
class Evidence:
    """What both stages saw.

    Attributes:
        localised_ml: volume of every structure by the localiser, ml, by label; zeros where it was not asked.
        recognition: how surely the localiser recognises them, 0 to 1.
        mirrored_recognition: the same of the mirror image; without consequence where the segmentors confirm a heart
            with an agreement of :data:`SURE` or more, unless ``is_unsure_stack``.
        touches_border: what the localiser found reaches the border of the volume.
        segmented_ml: volume of every structure that both segmentors see, ml, by label.
        joint_agreement: of the two segmentors, 0 to 1.
        blood: mean intensity of what was labelled blood, None where there is none.
        known_parts: how many of :data:`PARTS` the weights know.
        known_structures: how many of the seven structures the localiser knows.
        is_unsure_stack: the volume is a stack of thick slices in which the localiser is not sure of a heart: both
            segmentors take many a lump for ventricles there, so the mirror image decides.
    """

    localised_ml: Volumes = _NOTHING
    recognition: float = 0.0
    mirrored_recognition: float = 0.0
    touches_border: bool = False
    segmented_ml: Volumes = _NOTHING
    joint_agreement: float = 0.0
    blood: float | None = None
    known_parts: int = len(PARTS)
    known_structures: int = len(STRUCTURES)
    is_unsure_stack: bool = False

    def report(self) -> dict[str, float]:
        """Figures, ready for JSON."""
        return {
            "recognition": round(self.recognition, 4),
            "joint_agreement": round(float(self.joint_agreement), 4),
        }


def known_parts(structures: Sequence[Structure]) -> int:
    """How many of :data:`PARTS` weights with these structures know."""
    return sum(structure.key in PARTS for structure in structures)


def confirms(segmented_ml: Volumes, joint_agreement: float, recognition: float = 1.0, known: int = len(PARTS)) -> bool:
    """Do the segmentors confirm a heart?

    Args:
        segmented_ml: volumes by label.
        joint_agreement: 0 to 1.
        recognition: how surely the localiser recognises a heart there, 0 to 1; 1 where a user says that there is one.
        known: how many of :data:`PARTS` the weights know.
    """
    if joint_agreement < CONFIRMED or not is_enough(segmented_ml, known):
        return False
    seen = [volume >= _LEAST_PART_ML for volume in segmented_ml]
    has_ventricle = seen[BY_KEY["LV"].label] or known < len(PARTS)
    if sum(seen[1:]) >= min(_MANY_STRUCTURES, known) and has_ventricle:
        return True
    has_wall = seen[BY_KEY["Myo"].label] or not seen[BY_KEY["LV"].label] or known < len(PARTS)
    return recognition >= RECOGNISED and has_wall


def is_sure(joint_agreement: float, recognition: float, mirrored_recognition: float) -> bool:
    """Is a heart that the segmentors confirm one, although they may not agree on it well?

    Args:
        joint_agreement: 0 to 1.
        recognition: how surely the localiser recognises it, 0 to 1.
        mirrored_recognition: the same of the mirror image; either may be the right one, which is told elsewhere.
    """
    less, more = sorted((recognition, mirrored_recognition))
    return joint_agreement >= SURE or (more >= RECOGNISED and more - less >= MORE_THAN_MIRRORED_IF_UNSURE)


def is_enough(volumes_ml: Volumes, known: int = len(PARTS)) -> bool:
    """Are these volumes, by label, enough of a heart to be shown to anyone?"""
    present = sum(volumes_ml[BY_KEY[key].label] >= _LEAST_PART_ML for key in PARTS)
    return present >= min(_FEWEST_PARTS, known) and float(np.sum(volumes_ml[1:])) >= _LEAST_TOTAL_ML


def judge(evidence: Evidence, least_heart_ml: float) -> Verdict:
    """Judge the evidence.

    Args:
        evidence: of both stages.
        least_heart_ml: volume that the localiser must find to be believed alone, ml; the weights say it.
    """
    is_one_way_round = evidence.recognition - evidence.mirrored_recognition >= _MORE_THAN_MIRRORED
    is_confirmed = confirms(evidence.segmented_ml, evidence.joint_agreement, evidence.recognition, evidence.known_parts)
    if is_confirmed and (
        is_one_way_round
        if evidence.is_unsure_stack
        else is_sure(evidence.joint_agreement, evidence.recognition, evidence.mirrored_recognition)
    ):
        return Verdict.CONFIRMED
    volumes = np.asarray(evidence.localised_ml)[1:]
    if (
        evidence.recognition >= _RECOGNISED_ALONE
        and is_one_way_round
        and np.count_nonzero(volumes >= _LEAST_PART_ML) >= min(_STRUCTURES_SEEN, evidence.known_structures)
        and volumes.sum() >= least_heart_ml
    ):
        return Verdict.COARSE
    return Verdict.NONE


def no_heart(evidence: Evidence, modality: str) -> Finding:
    """The finding that says what was seen instead of a heart."""
    volumes = np.maximum(evidence.localised_ml, evidence.segmented_ml)[1:]
    total = float(volumes.sum())
    if total < WORTH_A_LOOK_ML:
        return finding("no_heart")
    if modality == "CT" and evidence.blood is not None and evidence.blood < UNENHANCED:
        return finding("no_heart_no_contrast", hu=evidence.blood)
    if evidence.touches_border:
        return finding("no_heart_cut", ml=total)
    if total < _LEAST_TOTAL_ML or evidence.joint_agreement >= CONFIRMED:
        return finding("no_heart_part", ml=total, first=STRUCTURES[int(volumes.argmax())].key)
    return finding("no_heart_unlike", ml=total, agreement=evidence.joint_agreement)
