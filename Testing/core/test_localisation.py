"""Where the heart is: parts of it, recognition, orientations, drawn boxes, and the pipeline's use of them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

import mkd_core
from mkd_core import SegmentationOptions
from mkd_core.errors import InputError, NoHeartError
from mkd_core.inference import heart_search, localisation, pipeline
from mkd_core.inference.clock import Clock
from mkd_core.inference.geometry import Grid, OrientedVolume
from mkd_core.inference.heart_search import Run
from mkd_core.inference.localisation import (
    MIRRORED,
    ORIENTATIONS,
    SHORT_AXIS,
    STACK_DIRECTIONS,
    TURNED_SHORT_AXIS,
    Orientation,
)
from mkd_core.measure.messages import describe
from mkd_core.measure.orientation import AS_GIVEN, directions, orientation_findings
from mkd_core.protocol import findings
from Testing.support.known_heart import BALLS, BODY, LEVELS, ByIntensity, KnownBundle, dice, known_volume
from Testing.support.stored_volumes import ORIENTATIONS as STORED
from Testing.support.stored_volumes import stored_otherwise
from Testing.trust.orientations import turned

PLAIN = SegmentationOptions(device="cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def plain():
    """A plain CT of 2.5 mm and its truth."""
    return known_volume((84, 68, 76), (2.5, 2.5, 2.5))


def sentences(report) -> str:
    return " ".join(describe(finding) for finding in findings(report["warnings"]))


# ---- what belongs to the heart ----


def test_larger_parts_near_the_largest_belong_to_the_heart_and_far_or_small_ones_do_not():
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[2:10, 4:12, 4:12] = 1  # 512 voxels
    labels[12:16, 4:10, 4:10] = 4  # near: 144
    labels[30:36, 4:10, 4:10] = 2  # 100 mm away: 216
    labels[11, 15, 15] = 3  # near, but a speck
    labelled, kept = localisation.heart_parts(labels, 5.0)
    heart = np.isin(labelled, kept)
    assert set(np.unique(labels[heart])) == {1, 4}
    assert np.count_nonzero(heart) == 512 + 144 and labelled[5, 8, 8] == kept[0]


def test_nothing_labelled_is_no_heart():
    empty = np.zeros((8, 8, 8), np.uint8)
    assert localisation.heart_parts(empty, 5.0)[1] == []
    assert localisation.recognition_score(torch.ones(8, 8, 8, 8), empty, 0.125) == 0.0


def test_recognition_is_the_mean_over_all_structures_where_missing_ones_count_nothing():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:4], labels[4:6] = 1, 5
    labels[7, 0, 0] = 2  # 0.1 ml, and apart
    probabilities = torch.zeros(8, 8, 8, 8)
    probabilities[1, :4], probabilities[5, 4:6], probabilities[2, 7] = 0.9, 0.5, 1.0
    score = localisation.recognition_score(probabilities, labels, 0.125)
    assert score == pytest.approx((0.9 + 0.5) / 7)


def test_only_percentiles_are_looked_at_a_second_time():
    window = {"kind": "window", "low": -300.0, "high": 700.0}
    assert localisation.intensity_rules(window) == [window]
    first, second = localisation.intensity_rules({"kind": "percentile", "low": 1.0, "high": 99.5})
    assert (first["high"], second["low"]) == (99.5, 1.0) and second["high"] < 96


# ---- orientations ----


def test_the_orientations_are_all_48_that_a_volume_can_have():
    image = torch.arange(24.0).reshape(2, 3, 4)
    seen = {
        (tuple(turned_.shape), tuple(turned_.ravel().tolist())) for turned_ in (o.apply(image) for o in ORIENTATIONS)
    }
    assert len(ORIENTATIONS) == len(seen) == 48


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (Orientation(), "L P S"),
        (MIRRORED, "R P S"),
        (Orientation(signs=(-1, -1, 1)), "L A I"),
        (Orientation(axes=(1, 0, 2)), "L S P"),  # what is stored along z is the back, what along y the head
        (Orientation(axes=(1, 2, 0), signs=(1, -1, 1)), "A S L"),
    ],
)
def test_an_orientation_says_what_the_directions_become(orientation, expected):
    assert directions(orientation) == expected


def test_mirror_images_are_told_of_as_such_and_other_mistakes_with_directions():
    assert orientation_findings(AS_GIVEN) == []
    (mirrored,) = orientation_findings(directions(MIRRORED))
    assert (mirrored.code, mirrored.severity) == ("mirrored", "red") and "situs inversus" in describe(mirrored)
    (other,) = orientation_findings(directions(Orientation(signs=(-1, 1, 1))))
    assert other.code == "turned" and "look like L P I" in describe(other)


class Handed(nn.Module):
    """A localiser that knows the heart one way round: wherever its right atrium is not on the right and below its
    pulmonary artery, structures become uncertain.
    """

    strides = (4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.base = KnownBundle().network("localiser")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.base(image)
        labels = logits[0].argmax(dim=0)
        atrium, artery = (torch.argwhere(labels == label).float().mean(dim=0) for label in (4, 7))
        away = artery - atrium  # z, y, x: +46, -30, +58 mm in the known heart
        right = away[0] > 0 and away[1] < 0 and away[2] > 0 and away[2] > away[0] > -away[1]
        logits = logits.clamp(min=-3.0)
        return logits if right else logits * 0.5


def handed() -> KnownBundle:
    """A bundle with that localiser and with segmentors that do not mind."""
    return KnownBundle(localiser=Handed())


def test_a_heart_the_right_way_round_is_left_in_peace_however_it_is_stored(plain):
    for order, signs in STORED[1::12]:
        report = mkd_core.segment(stored_otherwise(plain[0], order, signs), handed(), options=PLAIN).report
        assert "exchanged" not in sentences(report) and "look like" not in sentences(report)


def test_a_mirrored_heart_is_told_of(plain):
    report = mkd_core.segment(turned(plain[0], (0, 1, 2), (1, 1, -1)), handed(), options=PLAIN).report
    assert "Left and right are probably exchanged" in sentences(report)


def test_other_wrong_axes_are_told_of_where_the_segmentors_agree_poorly(plain):
    blurred = ByIntensity(_other_levels())
    bundle = KnownBundle(localiser=Handed(), segmentor_syn=blurred)
    report = mkd_core.segment(turned(plain[0], (0, 1, 2), (-1, 1, 1)), bundle, options=PLAIN).report
    assert 0.6 <= report["evidence"]["joint_agreement"] < 0.9
    assert "look like L P I" in sentences(report)


def _other_levels() -> dict[float, int]:
    """A segmentor that misses the right atrium and takes the pulmonary artery for the aorta."""
    taken = {1: 1, 2: 2, 3: 3, 4: 0, 5: 5, 6: 6, 7: 6}
    return {level: taken[label] for label, level in LEVELS.items()} | {-300.0: 0, BODY: 0}


class Counting:
    """An executor whose localiser sees background everywhere, and that counts what it was shown."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, part: str, image: torch.Tensor, poll) -> torch.Tensor:
        self.shapes.append(tuple(image.shape[2:]))
        return torch.zeros((1, 8, *image.shape[2:]))


def test_each_orientation_is_looked_at_once_and_never_at_more_than_a_heart_with_its_surroundings():
    size = (96, 64, 80)  # half a metre at 5 mm: voxels said to be larger than they are
    labels = np.zeros(size, np.uint8)
    labels[8:88, 8:56, 8:72] = 1
    image = torch.zeros(size)
    seen = localisation.Localisation(
        image, {}, Grid(size, (0.0, 0.0, 0.0), 5.0), torch.zeros(8, *size), labels, 0.5, False, 0.0
    )
    executor = Counting()
    assert localisation.OrientationSearch(seen, KnownBundle(), executor).better(0.3) is None
    assert len(executor.shapes) == 48 and max(max(shape) for shape in executor.shapes) * 5.0 <= 240.0


# ---- frames of a sequence ----


class HandedCounting(Handed):
    """The localiser that knows the heart one way round, and counts how often it is asked."""

    shapes: list[tuple[int, ...]] = []  # of the class: a network is copied before it runs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return super().forward(image)


def frame(image: sitk.Image, first: tuple[str, float] | None = None) -> tuple[dict, int]:
    """Report on a frame of a sequence, and how often the localiser was asked."""
    HandedCounting.shapes.clear()
    options = dataclasses.replace(PLAIN, first_frame=first)
    report = mkd_core.segment(image, KnownBundle(localiser=HandedCounting()), options=options).report
    return report, len(HandedCounting.shapes)


def test_the_orientation_of_the_first_frame_is_carried_to_frames_that_are_recognised_alike(plain):
    mirrored = turned(plain[0], (0, 1, 2), (1, 1, -1))
    report, asked = frame(mirrored)
    first = report["evidence"]["orientation"], report["evidence"]["recognition"]
    assert first[0] == "R P S" and asked > 1
    report, asked = frame(mirrored, first)
    assert asked == 1, "the search is not repeated"
    assert report["evidence"]["orientation"] == "R P S" and "probably exchanged" in sentences(report)
    assert report["options"]["first_frame"] == list(first)


def test_a_frame_that_contradicts_the_first_one_is_looked_at_again_and_says_so(plain):
    report, _ = frame(plain[0])
    first = report["evidence"]["orientation"], report["evidence"]["recognition"]
    assert first[0] == "L P S"
    report, asked = frame(turned(plain[0], (0, 1, 2), (1, 1, -1)), first)
    assert asked > 1 and "directions R P S, that of the first frame with L P S" in sentences(report)
    assert "that of the first frame" not in sentences(frame(plain[0], first)[0])


@pytest.mark.parametrize("value", [["L P S"], ["L P S", "0.8"], [1, 0.8], ["L P S", float("nan")], "L P S"])
def test_what_is_no_first_frame_is_refused(value):
    with pytest.raises(InputError, match="first_frame"):
        SegmentationOptions.from_dict({"first_frame": value})


# ---- stacks that lost their directions ----


def short_axis_stack(
    number: int, keeps_directions: bool, ways: Sequence[str] = SHORT_AXIS
) -> tuple[sitk.Image, sitk.Image]:
    """The known heart in MR as a stack of short-axis slices of 5 mm, and its truth."""
    pair = known_volume((76, 76, 40), (2.5, 2.5, 5.0), STACK_DIRECTIONS[ways[number]])
    image, truth = pair[0] + 1000, pair[1]
    if not keeps_directions:
        for one in (image, truth):
            one.SetDirection(np.eye(3).ravel().tolist())
    return image, truth


def in_mr(bundle: KnownBundle) -> KnownBundle:
    """The same bundle for MR of the stack's intensities."""
    bundle.metadata.update(target="MR", assistant="CT")
    bundle.metadata["normalisation"]["MR"] = {"kind": "window", "low": 700.0, "high": 1700.0}
    return bundle


def handed_in_mr() -> KnownBundle:
    return in_mr(handed())


class Unsure(Handed):
    """A localiser that is sure of nothing."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.base(image).clamp(min=-3.0) * 0.4


class OneWay(Handed):
    """A localiser that sees nothing in a heart that lies otherwise than the known one."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.base(image)
        labels = logits[0].argmax(dim=0)
        ventricle, atrium, artery = (torch.argwhere(labels == label).float().mean(dim=0) for label in (1, 4, 7))
        lies = torch.stack([artery - atrium, ventricle - atrium])
        known = torch.tensor([[46.0, -30.0, 58.0], [-12.0, -14.0, 56.0]])  # z, y, x, mm
        is_known = nn.functional.cosine_similarity(lies, known).min() > 0.9  # not where one is missing, either
        return logits if is_known else Blind()(image)


@pytest.mark.parametrize("number", [0, 1], ids=["base first", "apex first"])
def test_a_stack_that_lost_its_directions_is_segmented_as_short_axis_slices_and_told_of(number):
    image, truth = short_axis_stack(number, keeps_directions=False)
    options = dataclasses.replace(PLAIN, with_disagreement=True)
    result = mkd_core.segment(image, handed_in_mr(), modality="MR", options=options)
    assert "directions of this stack seem to be lost" in sentences(result.report)
    assert result.report["evidence"]["orientation"] == SHORT_AXIS[number]
    assert result.labels.GetDirection() == image.GetDirection()
    assert all(dice(result.labels, truth, label) > 0.8 for label in BALLS)
    low, high = (np.array(result.report["heart_box_mm"][end]) for end in ("low", "high"))
    found = np.argwhere(sitk.GetArrayViewFromImage(result.labels) > 0)[:, ::-1]
    points = np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in found[::50]])
    assert (points >= low).all() and (points <= high).all(), "the box lies where the image lies"
    centre = result.disagreement.TransformContinuousIndexToPhysicalPoint(
        [(side - 1) / 2 for side in result.disagreement.GetSize()]
    )
    assert np.linalg.norm(np.array(centre) - (low + high) / 2) < 1.0


def test_the_ways_in_which_slices_can_be_turned_are_all_of_a_square_with_the_base_first_and_last():
    ways = np.array([STACK_DIRECTIONS[name] for name in (*SHORT_AXIS, *TURNED_SHORT_AXIS)])
    assert np.allclose(ways.transpose(0, 2, 1) @ ways, np.eye(3)) and len(np.unique(ways.round(6), axis=0)) == 16
    assert np.allclose(np.abs(ways[:, :, 2]), np.abs(ways[0, :, 2])), "the slices stay what they are"
    assert SHORT_AXIS == ("short axis (lateral, inferior, apical)", "short axis (lateral, inferior, basal)")
    exchanged = STACK_DIRECTIONS["short axis (anterior, lateral, apical)"]
    assert np.allclose(exchanged, ways[0][:, [1, 0, 2]] * (-1, 1, 1))


def test_a_stack_whose_slices_are_turned_is_segmented_and_doubted_more():
    image, truth = short_axis_stack(8, keeps_directions=False, ways=TURNED_SHORT_AXIS)
    result = mkd_core.segment(image, in_mr(KnownBundle(localiser=OneWay())), modality="MR", options=PLAIN)
    (doubt,) = [one for one in findings(result.report["warnings"]) if one.code.startswith("short_axis")]
    assert (doubt.code, doubt.severity) == ("short_axis_turned", "red")
    assert result.report["evidence"]["orientation"] == TURNED_SHORT_AXIS[8]
    assert all(dice(result.labels, truth, label) > 0.8 for label in BALLS)


def test_turned_slices_are_believed_only_if_they_are_no_heart_the_other_way_round():
    image, _ = short_axis_stack(0, keeps_directions=False)
    for bundle, margin, expected in (
        (in_mr(KnownBundle()), 0.3, False),
        (in_mr(KnownBundle()), None, True),
        (in_mr(KnownBundle(localiser=OneWay())), 0.3, True),
    ):
        executor, volume = pipeline._executor(bundle, PLAIN), OrientedVolume(image)
        run = Run(
            volume, bundle, "MR", bundle.alignment("MR"), PLAIN, executor, Clock(None, None), pipeline._segment_box
        )
        found = heart_search._confirmed_in(SHORT_AXIS, [bundle.normalisation("MR")], run, [], 0.6, margin)
        assert (found is not None) is expected


def test_a_stack_that_is_cropped_to_the_heart_is_looked_at_without_the_darkest_quarter(monkeypatch):
    image, _ = short_axis_stack(0, keeps_directions=False)
    bundle = in_mr(KnownBundle(segmentor_real=Blind(), segmentor_syn=Blind()))
    bundle.metadata["normalisation"]["MR"] = {"kind": "percentile", "low": 1.0, "high": 99.5}
    tried: list[tuple] = []

    def confirmed_in(names, rules, run, looks, least, more_than_mirrored=None):
        tried.append((len(names), [(rule["low"], rule["high"]) for rule in rules], least, more_than_mirrored))

    monkeypatch.setattr(heart_search, "_confirmed_in", confirmed_in)
    monkeypatch.setattr(heart_search, "localise", lambda *given: dataclasses.replace(localise(*given), recognition=0.1))
    localise = localisation.localise
    with contextlib.suppress(NoHeartError):
        mkd_core.segment(image, bundle, modality="MR", options=PLAIN)
    assert tried[-1] == (16, [(25.0, 99.0)], 0.73, 0.2)
    assert localisation.rules_without_air({"kind": "window", "low": 0.0, "high": 1.0}) == []


def test_a_stack_that_shows_no_heart_in_any_direction_is_refused_as_such():
    image, _ = short_axis_stack(0, keeps_directions=False)
    bundle = in_mr(KnownBundle(localiser=Handed(), segmentor_real=Blind(), segmentor_syn=Blind()))
    with pytest.raises(NoHeartError, match="neither with its own directions nor") as refused:
        mkd_core.segment(image, bundle, modality="MR", options=PLAIN)
    assert refused.value.finding.code == "no_heart_stack" and "load it from its DICOM files" in str(refused.value)
    assert 0.4 < refused.value.finding.figures["recognition"] <= 1.0


def test_a_short_axis_stack_with_its_directions_is_left_in_peace():
    image, truth = short_axis_stack(0, keeps_directions=True)
    result = mkd_core.segment(image, handed_in_mr(), modality="MR", options=PLAIN)
    assert result.report["evidence"]["orientation"] == "L P S" and "seem to be lost" not in sentences(result.report)
    assert all(dice(result.labels, truth, label) > 0.8 for label in BALLS)


def test_only_stacks_of_thick_mr_slices_are_tried_as_short_axis_ones():
    def volume(spacing: tuple[float, float, float]) -> OrientedVolume:
        image = sitk.Image([8, 8, 8], sitk.sitkInt16)
        image.SetSpacing(spacing)
        return OrientedVolume(image)

    assert localisation.may_be_short_axis(volume((1.4, 1.4, 8.0)), "MR")
    assert not localisation.may_be_short_axis(volume((1.4, 1.4, 8.0)), "CT")
    assert not localisation.may_be_short_axis(volume((8.0, 1.4, 1.4)), "MR")
    assert not localisation.may_be_short_axis(volume((1.2, 1.2, 3.0)), "MR")
    assert not localisation.may_be_short_axis(volume((3.0, 3.0, 4.0)), "MR")


def test_a_heart_that_is_confirmed_as_the_stack_lies_is_not_looked_for_in_turned_slices(monkeypatch):
    tried: list[int] = []
    monkeypatch.setattr(heart_search, "_confirmed_in", lambda ways, *_: tried.append(len(ways)))
    image, _ = short_axis_stack(0, keeps_directions=False)
    for bundle in (
        in_mr(KnownBundle(localiser=Unsure())),
        in_mr(KnownBundle(localiser=Unsure(), segmentor_syn=Blind())),
    ):
        with contextlib.suppress(NoHeartError):
            mkd_core.segment(image, bundle, modality="MR", options=PLAIN)
    assert tried == [2, 2, 14, 16]


def report_on_frame(image: sitk.Image, bundle: KnownBundle, first: tuple[str, float] | None, **more) -> dict:
    options = dataclasses.replace(PLAIN, first_frame=first, **more)
    return mkd_core.segment(image, bundle, modality="MR", options=options).report


def test_frames_of_one_stack_are_all_taken_for_short_axis_slices_or_none():
    image, _ = short_axis_stack(0, keeps_directions=False)
    for first, expected in (((SHORT_AXIS[0], 0.2), SHORT_AXIS[0]), (("L P S", 0.4), "L P S")):
        report = report_on_frame(image, handed_in_mr(), first)
        assert report["evidence"]["orientation"] == expected and "first frame" not in sentences(report)


@pytest.mark.parametrize("names", [SHORT_AXIS, TURNED_SHORT_AXIS[6:8]], ids=["usual", "turned"])
def test_frames_of_one_stack_have_the_directions_of_the_first_frame(names):
    both_ways = in_mr(KnownBundle())  # recognises a heart in all directions
    image, _ = short_axis_stack(0, keeps_directions=False, ways=names)
    for name in names:
        report = report_on_frame(image, both_ways, (name, 0.9))
        assert report["evidence"]["orientation"] == name and "first frame" not in sentences(report)


@pytest.mark.parametrize(("of_others", "is_told"), [(0.82, False), (0.9, True)])
def test_a_frame_whose_heart_is_recognised_better_with_other_directions_is_doubted(of_others, is_told, monkeypatch):
    localise, recognised = heart_search.localise, iter([0.3, 0.8, of_others])  # as given, as the first frame, otherwise
    monkeypatch.setattr(
        heart_search, "localise", lambda *given: dataclasses.replace(localise(*given), recognition=next(recognised))
    )
    image, _ = short_axis_stack(0, keeps_directions=False)
    report = report_on_frame(image, in_mr(KnownBundle()), (SHORT_AXIS[1], 0.8))
    assert report["evidence"]["orientation"] == SHORT_AXIS[1]
    assert ("recognised better with short axis (lateral, inferior, apical)" in sentences(report)) is is_told


def test_a_frame_without_a_heart_in_the_directions_of_the_first_one_is_looked_at_anew_and_says_so():
    image, _ = short_axis_stack(0, keeps_directions=False)
    bundle = in_mr(KnownBundle(localiser=OneWay()))
    report = report_on_frame(image, bundle, (SHORT_AXIS[1], 0.9))
    assert report["evidence"]["orientation"] == SHORT_AXIS[0]
    assert "that of the first frame with short axis (lateral, inferior, basal)" in sentences(report)


def test_frames_in_a_drawn_box_have_the_directions_of_the_first_frame(monkeypatch):
    image, truth = short_axis_stack(0, keeps_directions=False)
    box = box_round(image, truth)
    bundle = in_mr(KnownBundle())
    for name in ("L P S", *SHORT_AXIS):
        report = report_on_frame(image, bundle, (name, 0.0), box_mm=box)
        assert report["evidence"]["orientation"] == name and "first frame" not in sentences(report)
    upright = in_mr(KnownBundle(segmentor_real=Upright(), segmentor_syn=Upright()))
    report = report_on_frame(image, upright, (SHORT_AXIS[1], 0.0), box_mm=box)
    assert report["evidence"]["orientation"] == SHORT_AXIS[0], "nothing is seen as in the first frame"
    assert "that of the first frame with short axis (lateral, inferior, basal)" in sentences(report)
    monkeypatch.setattr(heart_search, "_MORE_AGREED", 0.9)
    report = report_on_frame(image, bundle, (SHORT_AXIS[1], 0.0), box_mm=box)
    assert report["evidence"]["orientation"] == SHORT_AXIS[1]
    assert "segmented with the directions of the first frame" in sentences(report)


# ---- a third opinion ----


def test_a_structure_on_which_only_the_segmentors_agree_is_doubted(plain):
    without_atrium = {LEVELS[label]: (0 if label == 3 else label) for label in LEVELS} | {-300.0: 0, BODY: 5}
    for localiser, expected in ((ByIntensity(without_atrium), {"LA"}), (KnownBundle().network("localiser"), set())):
        report = mkd_core.segment(plain[0], KnownBundle(localiser=localiser), options=PLAIN).report
        doubted = {
            key
            for key, entry in report["structures"].items()
            if "coarse_differs" in [one.code for one in findings(entry["warnings"])]
        }
        assert doubted == expected


# ---- where the segmentors do not confirm ----


class Blind(nn.Module):
    """Sees background everywhere."""

    strides = (4, 4, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros((1, 8, *image.shape[2:]))
        logits[:, 0] = 9.0
        return logits


def test_a_heart_that_only_the_localiser_sees_is_outlined_coarsely_and_doubted(plain):
    image, truth = plain
    result = mkd_core.segment(image, KnownBundle(localiser=Handed(), segmentor_syn=Blind()), options=PLAIN)
    assert result.report["evidence"]["verdict"] == "coarse"
    assert "coarse (5 mm voxels)" in sentences(result.report)
    assert all(dice(result.labels, truth, label) > 0.7 for label in (1, 2, 3, 4, 6, 7))
    assert all(entry["agreement"] == 0.0 for entry in result.report["structures"].values())


def test_parts_on_which_the_segmentors_do_not_agree_make_no_heart(plain):
    """As of a bright lump with a rim: both see a left ventricle in its muscle, and each something else beside it."""
    taken = {1: 1, 2: 0, 3: 0, 4: 0, 5: 5, 6: 0, 7: 0}
    levels = {-300.0: 0, BODY: 0}
    more = {2: 2, 3: 3}
    real = ByIntensity({LEVELS[label]: (taken | more)[label] for label in LEVELS} | levels)
    both = ByIntensity({LEVELS[label]: taken[label] for label in LEVELS} | levels)
    with pytest.raises(NoHeartError):
        mkd_core.segment(plain[0], KnownBundle(segmentor_real=real, segmentor_syn=both), options=PLAIN)


def test_what_looks_as_much_like_a_heart_in_the_mirror_is_none(plain):
    with pytest.raises(NoHeartError, match="agree on its parts by only 0%") as refused:
        mkd_core.segment(plain[0], KnownBundle(segmentor_syn=Blind()), options=PLAIN)
    assert refused.value.evidence["joint_agreement"] == 0.0 and refused.value.finding.code == "no_heart_unlike"


def test_a_heart_smaller_than_the_weights_allow_is_none_unless_the_segmentors_confirm_it(plain):
    alone = KnownBundle(localiser=Handed(), segmentor_syn=Blind())
    confirmed = KnownBundle()
    for bundle in (alone, confirmed):
        bundle.metadata["localiser"]["min_heart_ml"] = 1999.0
    with pytest.raises(NoHeartError):
        mkd_core.segment(plain[0], alone, options=PLAIN)
    assert mkd_core.segment(plain[0], confirmed, options=PLAIN).report["evidence"]["verdict"] == "confirmed"


class Watched(Blind):
    """Sees nothing and notes how bright the image is."""

    means: list[float] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.means.append(float(image.mean()))
        return super().forward(image)


def test_an_image_of_percentiles_is_looked_at_a_second_time_in_a_narrower_range(plain):
    Watched.means.clear()
    bundle = KnownBundle(localiser=Watched())
    bundle.metadata["normalisation"]["MR"] = {"kind": "percentile", "low": 1.0, "high": 99.5}
    fractions = []
    with pytest.raises(NoHeartError, match="Nothing in it looks like one") as refused:
        mkd_core.segment(
            plain[0],
            bundle,
            modality="MR",
            options=PLAIN,
            progress=lambda stage, fraction, text: fractions.append(fraction),
        )
    first, second = Watched.means
    assert second > first + 0.05
    assert fractions == sorted(fractions) and refused.value.finding.code == "no_heart"


def test_a_stage_that_comes_a_second_time_does_not_move_progress_back():
    seen = []
    clock = Clock(lambda stage, fraction, text: seen.append(fraction), None)
    for stage in ("localise", "segment", "localise", "segment", "measure"):
        clock.enter(stage, "")
        clock.advance(0.5, "")
    assert seen == sorted(seen) and clock.timings()["total"] >= 0


# ---- a box that the user drew ----


class Unasked(nn.Module):
    """A localiser that may not be asked."""

    strides = (4, 4, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the localiser was asked")


def bounds(image: sitk.Image) -> tuple[float, ...]:
    """Bounds of the known heart in the world; ``image`` has its middle at the origin."""
    corners = [(centre[axis] - radius, centre[axis] + radius) for axis in range(3) for centre, radius in BALLS.values()]
    grouped = [corners[axis * len(BALLS) : (axis + 1) * len(BALLS)] for axis in range(3)]
    return tuple(value for group in grouped for value in (min(c[0] for c in group) - 8, max(c[1] for c in group) + 8))


@pytest.mark.parametrize(("order", "signs"), STORED[::16])
def test_a_drawn_box_is_segmented_without_the_localiser_however_the_volume_is_stored(plain, order, signs):
    image, truth = (stored_otherwise(one, order, signs) for one in plain)
    options = SegmentationOptions(device="cpu", precision="float32", threads=1, box_mm=bounds(image))
    result = mkd_core.segment(image, KnownBundle(localiser=Unasked()), options=options)
    assert all(dice(result.labels, truth, label) > 0.9 for label in BALLS)
    assert result.report["evidence"]["verdict"] == "drawn" and result.report["options"]["box_mm"] == list(bounds(image))
    box, wanted = result.report["heart_box_mm"], np.reshape(bounds(image), (3, 2))
    assert (np.array(box["low"]) <= wanted[:, 0] + 0.1).all() and (np.array(box["high"]) >= wanted[:, 1] - 0.1).all()


def test_a_box_leaves_out_what_is_outside(plain):
    x0, x1, y0, y1, z0, _ = bounds(plain[0])
    options = SegmentationOptions(device="cpu", precision="float32", threads=1, box_mm=(x0, x1, y0, y1, z0, 20.0))
    report = mkd_core.segment(plain[0], KnownBundle(localiser=Unasked()), options=options).report
    assert report["structures"]["AA"]["volume_ml"] < 3.0 < 30.0 < report["structures"]["LV"]["volume_ml"]
    assert "reaches the edge of the box" in sentences(report)
    whole = dataclasses.replace(options, box_mm=bounds(plain[0]))
    report = mkd_core.segment(plain[0], KnownBundle(localiser=Unasked()), options=whole).report
    assert "edge of the box" not in sentences(report)


def test_in_a_drawn_box_an_unconfirmed_heart_is_doubted_and_only_nothing_is_refused(plain):
    options = SegmentationOptions(device="cpu", precision="float32", threads=1, box_mm=bounds(plain[0]))
    one = mkd_core.segment(
        plain[0],
        KnownBundle(segmentor_syn=Blind(), localiser=Unasked()),
        options=SegmentationOptions(
            device="cpu", precision="float32", threads=1, box_mm=bounds(plain[0]), segmentor="real"
        ),
    )
    assert "do not agree that there is a heart in the box" in sentences(one.report)
    with pytest.raises(NoHeartError, match="Nothing in the box"):
        mkd_core.segment(plain[0], KnownBundle(segmentor_syn=Blind(), segmentor_real=Blind()), options=options)


class Upright(nn.Module):
    """A segmentor that finds nothing where the pulmonary artery is not above and to the left of the right atrium."""

    strides = (4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.base = KnownBundle().network("segmentor_real")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.base(image)
        labels = logits[0].argmax(dim=0)
        atrium, artery = (torch.argwhere(labels == label).float().mean(dim=0) for label in (4, 7))
        away = artery - atrium  # as in Handed
        return logits if away[0] > 0 and away[1] < 0 and away[2] > away[0] > -away[1] else Blind()(image)


def box_round(image: sitk.Image, truth: sitk.Image) -> tuple[float, ...]:
    """Bounds of what is labelled with 8 mm around."""
    inside = np.argwhere(sitk.GetArrayViewFromImage(truth) > 0)[:, ::-1]
    corners = np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in inside[::20]])
    return tuple(float(v) for v in np.stack([corners.min(axis=0) - 8, corners.max(axis=0) + 8], axis=1).ravel())


@pytest.mark.parametrize("number", [0, 1], ids=["base first", "apex first"])
def test_a_drawn_box_in_a_stack_that_lost_its_directions_is_segmented_as_short_axis_slices(number):
    image, truth = short_axis_stack(number, keeps_directions=False)
    options = dataclasses.replace(PLAIN, box_mm=box_round(image, truth))
    bundle = handed_in_mr()
    networks = {"localiser": Unasked(), "segmentor_real": Upright(), "segmentor_syn": Upright()}
    found = KnownBundle(**networks)
    found.metadata.update(bundle.metadata)
    result = mkd_core.segment(image, found, modality="MR", options=options)
    assert "agree on more of what is in the box" in sentences(result.report)
    assert result.report["evidence"]["orientation"] == SHORT_AXIS[number]
    assert all(dice(result.labels, truth, label) > 0.8 for label in BALLS)


def test_boxes_that_cannot_hold_a_heart_are_refused(plain):
    volume = OrientedVolume(plain[0])
    with pytest.raises(InputError, match="outside the volume"):
        localisation.box_from_bounds((500, 600, -50, 50, -50, 50), volume)
    with pytest.raises(InputError, match="only 4 mm wide"):
        localisation.box_from_bounds((-2, 2, -50, 50, -50, 50), volume)
    narrow = localisation.box_from_bounds((-10, 10, -50, 50, -50, 50), volume)
    assert math.isclose((narrow[1] - narrow[0]).min(), 20), "20 mm are enough"
    low, high = localisation.box_from_bounds((50, -50, -40, 40, -1e9, 30), volume)  # corners in any order; cut
    origin = np.array(volume.to_world((0, 0, 0)))
    assert np.allclose(low[1:], (-40 - origin[1], -50 - origin[0])) and low[0] == volume.bounds()[0][0]
    assert math.isclose(high[0], 30 - origin[2])


@pytest.mark.parametrize("box", [[1, 2, 3], "123456", [1, 2, 3, 4, 5, None], [1, 2, 3, 4, 5, math.inf], [True] * 6, 7])
def test_a_box_is_six_numbers(box):
    with pytest.raises(InputError):
        SegmentationOptions.from_dict({"box_mm": box})
    assert SegmentationOptions.from_dict({"box_mm": [1, 2, 3, 4, 5, 6.5]}).box_mm == (1, 2, 3, 4, 5, 6.5)
    assert SegmentationOptions.from_dict({"box_mm": None}).box_mm is None
