"""Where the heart is: the two stages, tried with other intensities and other directions until they agree on one.

:func:`find_heart` is the outline.  What is done in a box, aligning and segmenting, is the method itself, which the
pipeline gives (:mod:`mkd_core.inference.pipeline`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mkd_core.arrays import as_array
from mkd_core.errors import MKDError, NoHeartError
from mkd_core.inference.clock import Clock
from mkd_core.inference.geometry import Grid, OrientedVolume, open_faces
from mkd_core.inference.localisation import (
    SHORT_AXIS,
    STACK_DIRECTIONS,
    TURNED_SHORT_AXIS,
    Localisation,
    OrientationSearch,
    box_from_bounds,
    intensity_rules,
    known_structures,
    localise,
    may_be_short_axis,
    rules_without_air,
)
from mkd_core.io.bundle import Bundle
from mkd_core.measure import heart_evidence, plausibility
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.orientation import (
    ALL_DIRECTIONS,
    AS_GIVEN,
    directions,
    frame_findings,
    orientation_findings,
)
from mkd_core.method import ensemble
from mkd_core.method.alignment import Views
from mkd_core.protocol import Finding, SegmentationOptions
from mkd_core.structures import CLASS_COUNT, STRUCTURES, Structure, labels_of_the_seven

if TYPE_CHECKING:
    import torch

    from mkd_core.inference.execution import Executor

#: A frame that is recognised so much better or worse than the first one of its sequence may lie otherwise.
_FRAME_DIFFERS = 0.1

#: In a drawn box, other directions than those of the first frame speak against these where the segmentors agree on so
#: many times as much of a heart.
_MORE_AGREED = 1.1

#: The segmentors are asked about so many directions of a stack.
_MOST_CONFIRMED = 2

#: Label of each of the seven structures.
_SEVEN = {structure.key: structure.label for structure in STRUCTURES}

#: Corners of a box (z, y, x), mm, in a volume's own frame.
Corners = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Run:
    """What holds from the first to the last step of a run.

    ``segment_box(corners, seen, rule, run)`` aligns and segments the box between two corners, in the volume of the run
    that it gets, normalised by the rule; ``seen`` is what the localiser saw there, None if a user drew the box.
    """

    volume: OrientedVolume
    bundle: Bundle
    modality: str
    policy: str
    options: SegmentationOptions
    executor: Executor
    clock: Clock
    segment_box: Callable[[Corners, Localisation | None, dict[str, Any], Run], Heart]

    @property
    def first_orientation(self) -> str | None:
        """What the first frame of the sequence showed, None where there is none or it is this one."""
        return None if self.options.first_frame is None else self.options.first_frame[0]


@dataclass(frozen=True)
class Prediction:
    """What the segmentors say about the box.

    (C, D, H, W) probabilities, (D, H, W) labels and disagreement; per label, the agreement of the two and the voxels of
    parts that were left out.
    """

    probabilities: torch.Tensor
    labels: np.ndarray
    disagreement: torch.Tensor
    agreements: list[float | None]
    removed: np.ndarray


@dataclass(frozen=True)
class Heart:
    """A box round a heart, segmented.

    ``volume`` is the one that the grid lies in, with the directions in which the heart was found; ``seen`` is what the
    localiser saw there, None if a user drew the box; ``agreement`` is the two segmentors' joint one; ``structures`` are
    those of the labels; ``doubts`` and ``evidence``, which is ready for JSON, say what speaks against a heart there and
    for it.
    """

    volume: OrientedVolume
    grid: Grid
    is_cut: bool
    image: torch.Tensor
    views: Views
    prediction: Prediction
    agreement: float
    seen: Localisation | None
    structures: tuple[Structure, ...]
    doubts: tuple[Finding, ...] = ()
    evidence: dict[str, float | str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def seven(self) -> np.ndarray:
        """Labels of whole-heart segmentation on the grid, ``(D, H, W)``, uint8."""
        of_seven: np.ndarray = np.array(labels_of_the_seven(self.structures), np.uint8)
        return of_seven.take(self.prediction.labels)

    @functools.cached_property
    def volumes_ml(self) -> np.ndarray:
        """Volumes of the seven structures by label, ml; index 0 is 0."""
        volumes = np.bincount(self.seven.ravel(), minlength=CLASS_COUNT) * self.grid.voxel_ml
        volumes[0] = 0.0
        return volumes

    @property
    def agreed_ml(self) -> np.ndarray:
        """The same without structures on which the segmentors do not agree at all."""
        agreements = np.zeros(CLASS_COUNT)
        for label, agreement in zip(labels_of_the_seven(self.structures), self.prediction.agreements):
            agreements[label] = max(agreements[label], agreement or 0.0)
        return np.where(agreements >= heart_evidence.AGREED, self.volumes_ml, 0.0)

    @property
    def is_confirmed(self) -> bool:
        """The segmentors confirm the heart."""
        recognition = 1.0 if self.seen is None else self.seen.recognition
        known = heart_evidence.known_parts(self.structures)
        return heart_evidence.confirms(self.agreed_ml, self.agreement, recognition, known)


def find_heart(run: Run) -> Heart:
    """Localise, align and segment; again with another range of intensities where the first look shows no heart.

    Raises:
        NoHeartError: neither stage shows a heart.
    """
    looks: list[Localisation] = []
    hearts: list[Heart] = []
    for rule in intensity_rules(run.bundle.normalisation(run.modality)):
        run.clock.enter("localise", "Looking for the heart")
        if run.options.box_mm is not None:
            corners = box_from_bounds(run.options.box_mm, run.volume)
            hearts.append(run.segment_box(corners, None, rule, run))
        else:
            seen = localise(run.volume, run.bundle, rule, run.executor, run.clock.poll)
            looks.append(seen)
            if seen.volumes_ml.sum() >= heart_evidence.WORTH_A_LOOK_ML:
                corners = seen.box(run.bundle.margin, run.bundle.min_heart_ml)
                hearts.append(run.segment_box(corners, seen, rule, run))
        if hearts and hearts[-1].is_confirmed:
            break
    best = max(hearts, key=lambda heart: (heart.is_confirmed, heart.agreement), default=None)
    if best is not None and best.seen is None:
        return _judged_in_drawn_box(_better_in_short_axis(best, run))
    heart = _in_short_axis(best, run, looks)
    if heart is None:
        if best is None or best.seen is None:
            most = max((look.volumes_ml for look in looks), key=np.sum)
            raise _no_heart(heart_evidence.Evidence(most), looks, run)
        heart = _judged(best, best.seen, looks, run)
    doubts = frame_findings(str(heart.evidence["orientation"]), run.first_orientation)
    return dataclasses.replace(heart, doubts=(*heart.doubts, *doubts))


def _in_short_axis(given: Heart | None, run: Run, looks: list[Localisation]) -> Heart | None:
    """The heart with the volume taken for a stack of short-axis slices whose directions were lost, as formats that know
    none lose them: the slices as they are usually shown, else turned.

    Args:
        given: what was found with the directions that the volume has.
        run: under way.
        looks: to which those of the localiser at the volume are added.

    Returns:
        None where the heart is not recognised better so, or the segmentors do not confirm it.
    """
    recognition = given.seen.recognition if given is not None and given.seen is not None else 0.0
    if not may_be_short_axis(run.volume, run.modality):
        return None
    is_carried = run.first_orientation in STACK_DIRECTIONS
    if is_carried:
        heart = _in_directions_of_first_frame(run, looks)
        if heart is not None:
            return heart
    is_first = run.first_orientation is None or is_carried
    enough = heart_evidence.RECOGNISED if is_first else 0.0  # a frame may be darker than the first one was
    is_confirmed = given is not None and given.is_confirmed
    if is_confirmed and recognition >= enough:
        return None
    least = max(heart_evidence.LEAST_IN_SHORT_AXIS, recognition + heart_evidence.MORE_THAN_GIVEN)
    rule = run.bundle.normalisation(run.modality)
    heart = _confirmed_in(SHORT_AXIS, intensity_rules(rule), run, looks, least)
    # Of so many ways, one is often recognised better than a coarse stack as it is.
    if heart is None and not is_confirmed:
        least = max(least, heart_evidence.LEAST_IF_TURNED)
        margin = heart_evidence.MORE_THAN_MIRRORED_IF_TURNED
        heart = _confirmed_in(TURNED_SHORT_AXIS, intensity_rules(rule), run, looks, least, margin)
        if heart is None:
            least = max(least, heart_evidence.LEAST_WITHOUT_AIR)
            margin = heart_evidence.MORE_THAN_MIRRORED_WITHOUT_AIR
            heart = _confirmed_in(tuple(STACK_DIRECTIONS), rules_without_air(rule), run, looks, least, margin)
    return heart


def _in_directions_of_first_frame(run: Run, looks: list[Localisation]) -> Heart | None:
    """The heart of a frame with the directions in which that of the first frame was found, so that all frames have the
    same; doubted where it is recognised better with others.

    Returns:
        None where the segmentors do not confirm it.
    """
    assert run.first_orientation is not None
    rule = run.bundle.normalisation(run.modality)
    rules = [*intensity_rules(rule), *rules_without_air(rule)]
    heart = _confirmed_in([run.first_orientation], rules, run, looks, heart_evidence.LEAST_IN_SHORT_AXIS)
    if heart is None or heart.seen is None:
        return None
    others = {}
    for name in SHORT_AXIS if run.first_orientation in SHORT_AXIS else TURNED_SHORT_AXIS:
        if name != run.first_orientation:
            volume = OrientedVolume(run.volume.image, STACK_DIRECTIONS[name])
            others[name] = localise(volume, run.bundle, heart.seen.rule, run.executor, run.clock.poll).recognition
    best = max(others, key=lambda name: others[name])
    if others[best] <= heart.seen.recognition + heart_evidence.MORE_THAN_FIRST_FRAME:
        return heart
    doubt = finding("frame_contradicts", directions=best, first=run.first_orientation)
    return dataclasses.replace(heart, doubts=(*heart.doubts, doubt))


def _confirmed_in(
    names: Sequence[str],
    rules: Sequence[dict[str, Any]],
    run: Run,
    looks: list[Localisation],
    least: float,
    more_than_mirrored: float | None = None,
) -> Heart | None:
    """The heart that the segmentors confirm with other directions of the volume.

    Args:
        names: of the directions, see `STACK_DIRECTIONS`.
        rules: for normalisation, one tried after the other.
        run: under way.
        looks: to which those of the localiser are added.
        least: recognition from which on the segmentors are asked, at most for the two best with each range of
            intensities.
        more_than_mirrored: by so much the heart must be recognised better than its mirror image; None asks for nothing.
    """
    turned = {
        name: dataclasses.replace(run, volume=OrientedVolume(run.volume.image, STACK_DIRECTIONS[name]))
        for name in names
    }
    for rule in rules:
        run.clock.enter("localise", "Looking for the heart")
        seen_in = {
            name: localise(one.volume, run.bundle, rule, run.executor, run.clock.poll) for name, one in turned.items()
        }
        looks += seen_in.values()
        for name in sorted(names, key=lambda one: -seen_in[one].recognition)[:_MOST_CONFIRMED]:
            seen = seen_in[name]
            if seen.recognition < least:
                break
            search = OrientationSearch(seen, run.bundle, run.executor, run.clock.poll)
            if more_than_mirrored is not None and seen.recognition - search.mirrored < more_than_mirrored:
                continue
            corners = seen.box(run.bundle.margin, run.bundle.min_heart_ml)
            heart = run.segment_box(corners, seen, rule, turned[name])
            if heart.is_confirmed and (name == run.first_orientation or _is_sure(heart, search)):
                return _in_lost_directions(heart, name)
    return None


def _is_sure(heart: Heart, search: OrientationSearch) -> bool:
    assert heart.seen is not None
    # The mirror image is looked at only where it decides.
    mirrored = 0.0 if heart.agreement >= heart_evidence.SURE else search.mirrored
    return heart_evidence.is_sure(heart.agreement, heart.seen.recognition, mirrored)


def _in_lost_directions(heart: Heart, name: str) -> Heart:
    """A heart in a stack that lost its directions, with what there is to say of it; ``name`` is that of those it was
    found in.
    """
    assert heart.seen is not None
    evidence: dict[str, float | str] = {
        "verdict": heart_evidence.Verdict.CONFIRMED.value,
        "recognition": round(heart.seen.recognition, 4),
        "joint_agreement": round(float(heart.agreement), 4),
        "orientation": name,
    }
    code = "short_axis" if name in SHORT_AXIS else "short_axis_turned"
    doubts = [finding(code), *plausibility.second_heart_findings(heart.seen.second_ml)]
    return dataclasses.replace(heart, doubts=tuple(doubts), evidence=evidence)


def _better_in_short_axis(drawn: Heart, run: Run) -> Heart:
    """What is in a drawn box, or the same with the volume taken for a stack of short-axis slices where the segmentors
    agree on more of a heart so; a frame has the directions of the first one, and is doubted where they agree on more
    with others.

    Args:
        drawn: with the directions that the volume has.
        run: under way.
    """
    assert run.options.box_mm is not None
    hearts = {AS_GIVEN: dataclasses.replace(drawn, evidence={"orientation": AS_GIVEN})}
    first = run.first_orientation
    is_settled = first == AS_GIVEN or (drawn.is_confirmed and first not in STACK_DIRECTIONS)
    for name in SHORT_AXIS if not is_settled and may_be_short_axis(run.volume, run.modality) else ():
        turned = dataclasses.replace(run, volume=OrientedVolume(run.volume.image, STACK_DIRECTIONS[name]))
        corners = box_from_bounds(run.options.box_mm, turned.volume)
        rule = run.bundle.normalisation(run.modality)
        rules = [*intensity_rules(rule), *rules_without_air(rule)]
        best = max((run.segment_box(corners, None, rule, turned) for rule in rules), key=_agreed)
        evidence: dict[str, float | str] = {"orientation": name}
        hearts[name] = dataclasses.replace(best, doubts=(finding("short_axis_in_box"),), evidence=evidence)
    better = max(hearts, key=lambda name: _agreed(hearts[name]))
    if first not in hearts:
        return hearts[better]
    heart, doubt = hearts[first], finding("frame_contradicts", directions=better, first=first)
    if _agreed(hearts[better]) <= _MORE_AGREED * _agreed(heart):
        return heart
    if heart.volumes_ml.sum() == 0:
        heart, (doubt,) = hearts[better], frame_findings(better, first)
    return dataclasses.replace(heart, doubts=(*heart.doubts, doubt))


def _agreed(heart: Heart) -> float:
    """On how much of a heart the segmentors agree, and how well."""
    return float(heart.agreement * heart.agreed_ml.sum())


def _judged(heart: Heart, seen: Localisation, looks: Sequence[Localisation], run: Run) -> Heart:
    """The heart with what there is to say of it, or an error if it is none."""
    search = OrientationSearch(seen, run.bundle, run.executor, run.clock.poll)
    is_unsure_stack = (
        run.options.first_frame is None
        and may_be_short_axis(run.volume, run.modality)
        and seen.recognition < heart_evidence.RECOGNISED
    )
    is_settled = heart.is_confirmed and heart.agreement >= heart_evidence.SURE and not is_unsure_stack
    evidence = heart_evidence.Evidence(
        localised_ml=seen.volumes_ml,
        recognition=seen.recognition,
        mirrored_recognition=0.0 if is_settled else search.mirrored,
        touches_border=seen.touches_border,
        segmented_ml=heart.agreed_ml,
        joint_agreement=heart.agreement,
        blood=seen.blood(),
        known_parts=heart_evidence.known_parts(heart.structures),
        known_structures=known_structures(run.bundle),
        is_unsure_stack=is_unsure_stack,
    )
    verdict = heart_evidence.judge(evidence, run.bundle.min_heart_ml)
    if verdict == heart_evidence.Verdict.NONE:
        raise _no_heart(evidence, looks, run)
    doubts = plausibility.second_heart_findings(seen.second_ml)
    if verdict == heart_evidence.Verdict.COARSE:
        heart = dataclasses.replace(heart, prediction=_coarse_prediction(heart, seen))
        doubts.append(finding("coarse_outlines", mm=run.bundle.localiser_spacing))
    orientation = _orientation(search, heart, seen, run.options.first_frame)
    doubts += orientation_findings(orientation)
    reported = {"verdict": verdict.value, **evidence.report(), "orientation": orientation}
    return dataclasses.replace(heart, doubts=tuple(doubts), evidence=reported)


def _orientation(
    search: OrientationSearch, heart: Heart, seen: Localisation, first_frame: tuple[str, float] | None
) -> str:
    """The directions in which the heart is recognised best: those of the first frame where this one is recognised as
    well as that was.
    """
    if first_frame is not None:
        known, recognition = first_frame
        if known in ALL_DIRECTIONS and abs(seen.recognition - recognition) <= _FRAME_DIFFERS:
            return known
    better = search.better(heart.agreement)
    return AS_GIVEN if better is None else directions(better.orientation)


def _no_heart(evidence: heart_evidence.Evidence, looks: Sequence[Localisation], run: Run) -> MKDError:
    """The error that says what was seen instead of a heart, in all looks of the localiser."""
    told = heart_evidence.no_heart(evidence, run.modality)
    if may_be_short_axis(run.volume, run.modality):
        best = max(looks, key=lambda look: look.recognition)
        if best.volumes_ml.sum() >= heart_evidence.WORTH_A_LOOK_ML:
            told = finding("no_heart_stack", ml=float(best.volumes_ml.sum()), recognition=best.recognition)
    error = refusal(told, NoHeartError)
    error.evidence = evidence.report()
    return error


def _judged_in_drawn_box(heart: Heart) -> Heart:
    """The same in a box that a user drew, where only nothing at all is refused."""
    if heart.volumes_ml.sum() == 0:
        raise refusal(finding("box_empty"), NoHeartError)
    evidence: dict[str, float | str] = {
        "verdict": "drawn",
        "joint_agreement": round(heart.agreement, 4),
        **heart.evidence,
    }
    doubts = [] if heart.is_confirmed else [finding("unconfirmed_in_box")]
    if _reaches_edge(heart):
        doubts.append(finding("box_cuts"))
    return dataclasses.replace(heart, doubts=(*heart.doubts, *doubts), evidence=evidence)


def _reaches_edge(heart: Heart) -> bool:
    """Whether structures reach an edge of the box beyond which there is more of the volume."""
    return any(heart.seven.take(end, axis).any() for axis, end in open_faces(heart.grid, heart.volume))


def _coarse_prediction(heart: Heart, seen: Localisation) -> Prediction:
    """What the localiser says in place of what the segmentors say, whose agreement stays."""
    of_seven = seen.on_grid(heart.grid)
    own = of_seven.new_zeros((len(heart.structures) + 1, *of_seven.shape[1:]))
    for structure in heart.structures:
        if structure.key in _SEVEN:
            own[structure.label] = of_seven[_SEVEN[structure.key]]
    own[0] = 1.0 - own[1:].sum(dim=0)
    probabilities = ensemble.keep_main_components(own, heart.structures)
    return dataclasses.replace(
        heart.prediction,
        probabilities=probabilities,
        labels=as_array(ensemble.best_class(probabilities)),
        removed=np.zeros(len(own), np.int64),
    )
