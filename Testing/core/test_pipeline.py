"""The pipeline on a volume whose segmentation is known: right in the world however the volume is stored, refused in
plain words where it must be.
"""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import mkd_core
from mkd_core import SegmentationOptions
from mkd_core.errors import BundleError, Cancelled, DeviceError, InputError, MKDError, NoHeartError
from mkd_core.inference import execution
from mkd_core.inference.geometry import OrientedVolume
from mkd_core.inference.self_test import SelfTest
from mkd_core.measure.messages import describe
from mkd_core.protocol import findings
from mkd_core.structures import BY_LABEL
from Testing.support.known_heart import (
    AIR,
    BALLS,
    BODY,
    LEVELS,
    ByIntensity,
    KnownBundle,
    Negative,
    Unchanged,
    dice,
    known_volume,
)
from Testing.support.stored_volumes import ORIENTATIONS, rotation, stored_otherwise

PLAIN = SegmentationOptions(device="cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def bundle():
    return KnownBundle()


@pytest.fixture(scope="module")
def plain(bundle):
    """A plain CT of 2.5 mm, its truth and its segmentation."""
    image, truth = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    return image, truth, mkd_core.segment(image, bundle, options=PLAIN)


def said(report) -> list[str]:
    """The warnings of a report, or of a structure's part of it, in words."""
    return [describe(one) for one in findings(report["warnings"])]


def assert_same_grid(first, second):
    assert first.GetPixelID() == sitk.sitkUInt8
    assert (first.GetSize(), first.GetSpacing(), first.GetOrigin(), first.GetDirection()) == (
        second.GetSize(),
        second.GetSpacing(),
        second.GetOrigin(),
        second.GetDirection(),
    )


def assert_in_place(labels: sitk.Image, truth: sitk.Image, tolerance_mm: float, least_dice: float = 0.93):
    """Every ball found where it is, on exactly the same grid."""
    assert_same_grid(labels, truth)
    centres = []
    for image in (labels, truth):
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        centres.append({label: np.array(shape.GetCentroid(label)) for label in shape.GetLabels()})
    found, known = centres
    assert set(found) == set(BALLS)
    for label in BALLS:
        assert np.linalg.norm(found[label] - known[label]) < tolerance_mm
        assert dice(labels, truth, label) > least_dice


def test_seven_structures_are_found_in_place(plain):
    _, truth, result = plain
    assert_in_place(result.labels, truth, 0.8)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[1::8] + [((0, 1, 2), (-1, -1, -1)), ((2, 1, 0), (1, 1, 1))])
def test_a_flipped_or_permuted_volume_gives_exactly_the_same_labels_in_the_world(plain, bundle, order, signs):
    image, _, result = plain
    other = mkd_core.segment(stored_otherwise(image, order, signs), bundle, options=PLAIN)
    assert np.array_equal(OrientedVolume(other.labels).voxels, OrientedVolume(result.labels).voxels)
    assert np.allclose(
        OrientedVolume(other.labels).to_world((0, 0, 0)), OrientedVolume(result.labels).to_world((0, 0, 0))
    )
    for key, entry in result.report["structures"].items():
        assert other.report["structures"][key] == entry
    assert other.report["heart_box_mm"] == result.report["heart_box_mm"]


def test_the_position_of_the_volume_in_the_world_changes_nothing(plain, bundle):
    image, _, result = plain
    moved = sitk.Image(image)
    moved.SetOrigin((1234.5678, -999.1, 0.333))
    other = mkd_core.segment(moved, bundle, options=PLAIN)
    assert np.array_equal(sitk.GetArrayViewFromImage(other.labels), sitk.GetArrayViewFromImage(result.labels))


def test_the_many_small_steps_back_to_the_volume_take_one_thread_and_the_labels_do_not_depend_on_it(
    plain, bundle, monkeypatch
):
    from mkd_core.inference import pipeline  # the one that segments, should a module's test have loaded it anew

    def watched(*arguments):
        threads.append(torch.get_num_threads())
        yield from write_labels(*arguments)
        threads.append(torch.get_num_threads())

    image, _truth, result = plain
    write_labels, threads, before = pipeline.write_labels, [], torch.get_num_threads()
    monkeypatch.setattr(pipeline, "write_labels", watched)
    again = mkd_core.segment(image, bundle, options=dataclasses.replace(PLAIN, threads=2))
    assert threads == [1, 1] and again.report["threads"] == 2 and torch.get_num_threads() == before
    assert np.array_equal(*(sitk.GetArrayViewFromImage(one.labels) for one in (again, result)))
    with pytest.raises(Cancelled):
        mkd_core.segment(image, bundle, options=PLAIN, progress=_cancel_in("restore"), cancelled=lambda: False)
    assert torch.get_num_threads() == before


def _cancel_in(stopped: str):
    def progress(stage, fraction, message):
        if stage == stopped:
            raise Cancelled

    return progress


def test_the_same_input_gives_the_same_labels_again(plain, bundle):
    image, _, result = plain
    again = mkd_core.segment(image, bundle, options=PLAIN)
    assert np.array_equal(sitk.GetArrayViewFromImage(again.labels), sitk.GetArrayViewFromImage(result.labels))


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.35), (0.3, 0.0, 0.0), (-0.3, 0.25, 0.4), (0.0, 0.01, 0.0)])
def test_an_oblique_volume_gives_the_same_anatomy_in_the_world(bundle, angles):
    direction = rotation(angles)
    image, truth = known_volume((92, 84, 88), (2.4, 2.5, 2.6), direction, middle=(30, -10, 5), heart_at=(33, -12, 4))
    assert_in_place(mkd_core.segment(image, bundle, options=PLAIN).labels, truth, 0.8)


@pytest.mark.parametrize("spacing", [(0.9, 0.9, 5.0), (1.1, 4.0, 1.5), (1.0, 1.0, 1.1), (3.5, 3.5, 3.5)])
def test_voxels_of_any_shape_are_segmented_in_place(bundle, spacing):
    size = [round(extent / step) for extent, step in zip((210, 170, 190), spacing)]
    image, truth = known_volume(size, spacing)
    assert_in_place(mkd_core.segment(image, bundle, options=PLAIN).labels, truth, 0.8)


def test_a_large_volume_is_cropped_to_its_heart_and_the_rest_stays_empty(bundle):
    image, truth = known_volume((110, 100, 120), (4, 4, 4), heart_at=(60, -40, 120))
    result = mkd_core.segment(image, bundle, options=PLAIN)
    assert_in_place(result.labels, truth, 0.8)
    low, high = result.report["heart_box_mm"]["low"], result.report["heart_box_mm"]["high"]
    for middle, a, b, reach in zip((60, -40, 120), low, high, (92, 72, 78)):
        assert a < middle - reach + 6 and b > middle + reach - 6
        assert b - a < 2 * (reach + 15) + 20


def test_a_volume_that_cuts_the_heart_says_which_structures_it_cuts(bundle):
    image, truth = known_volume(
        (60, 60, 56), (2.5, 2.5, 2.5), middle=(0, 0, 20)
    )  # its lower edge at z = -50, its left at x = 75
    result = mkd_core.segment(image, bundle, options=PLAIN)
    assert_in_place(result.labels, truth, 0.6)
    at_border = {key for key, entry in result.report["structures"].items() if entry["touches_border"]}
    shown = sitk.GetArrayViewFromImage(truth)
    assert at_border == {BY_LABEL[label].key for label in np.unique(shown[0]) if label} == {"Myo"}
    assert said(result.report["structures"]["Myo"]) == ["Reaches the edge of the volume: part of it may be missing."]


def test_a_box_larger_than_the_weights_allow_is_cut_with_a_warning():
    bundle = KnownBundle()
    bundle.metadata["segmentor"]["max_box_mm"] = [160, 150, 150]
    image, truth = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    result = mkd_core.segment(image, bundle, options=PLAIN)
    box = result.report["heart_box_mm"]
    assert all(high - low <= limit for low, high, limit in zip(box["low"], box["high"], (160, 150, 150)))
    assert any("its ends are missing" in warning for warning in said(result.report))
    assert dice(result.labels, truth, 1) > 0.9


def test_the_report_holds_the_figures_and_is_plain_json(plain):
    _, _, result = plain
    report = json.loads(json.dumps(result.report, allow_nan=False))
    voxels = np.bincount(sitk.GetArrayViewFromImage(result.labels).ravel(), minlength=8)
    for label, structure in BY_LABEL.items():
        entry = report["structures"][structure.key]
        assert entry["volume_ml"] == pytest.approx(voxels[label] * 2.5**3 / 1000, abs=1e-3)
        assert entry["mean_intensity"] == pytest.approx(LEVELS[label], abs=40)
        assert entry["components"] == 1 and entry["agreement"] == 1.0 and not entry["touches_border"]
        assert all(warning.startswith("Unusually small") for warning in said(entry))  # the balls are small
    assert report["structures"]["Myo"]["mass_g"] == pytest.approx(
        1.05 * report["structures"]["Myo"]["volume_ml"], abs=1e-2
    )
    assert any("do not touch" in warning for warning in said(report)), "balls are no heart"
    assert (report["device"], report["precision"], report["threads"], report["modality"]) == ("cpu", "float32", 1, "CT")
    assert report["bundle"] == {"name": "tiny", "version": "0.0.1", "sha256": "0" * 64}
    assert report["input"] == {"size": [84, 68, 76], "spacing_mm": [2.5, 2.5, 2.5]}
    assert report["version"] == mkd_core.__version__
    timings = report["timings_s"]
    assert timings["total"] == pytest.approx(sum(value for key, value in timings.items() if key != "total"), abs=0.05)
    assert (result.disagreement, result.aligned) == (None, None)


def test_progress_names_the_stages_in_order_and_never_falls(plain, bundle):
    calls = []
    mkd_core.segment(plain[0], bundle, options=PLAIN, progress=lambda *call: calls.append(call))
    assert list(dict.fromkeys(stage for stage, _, _ in calls)) == [
        "check",
        "localise",
        "align",
        "segment",
        "restore",
        "measure",
    ]
    fractions = [fraction for _, fraction, _ in calls]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0 and fractions[-1] == 1.0
    messages = list(dict.fromkeys(message for _, _, message in calls))
    assert all(messages) and messages[:2] == ["Checking the volume", "Loading the weights"]


def test_a_run_can_be_cancelled_at_every_poll(plain, bundle):
    image = known_volume((44, 36, 40), (5, 5, 5))[0]
    polls = itertools.count()
    mkd_core.segment(image, bundle, options=PLAIN, cancelled=lambda: next(polls) < 0)
    total = next(polls)
    assert total > 20
    for stop in range(total):
        seen = itertools.count()
        with pytest.raises(Cancelled):
            mkd_core.segment(image, bundle, options=PLAIN, cancelled=lambda seen=seen, stop=stop: next(seen) == stop)
        assert next(seen) == stop + 1  # nothing went on after the wish
    assert not any(
        layer._forward_pre_hooks for part in ("localiser", "segmentor_real") for layer in bundle.network(part).modules()
    )


def test_cancelling_is_noticed_between_the_layers_of_a_network():
    class Deep(ByIntensity):
        """Ten layers, then the answer."""

        def __init__(self) -> None:
            super().__init__({level: label for label, level in LEVELS.items()} | {-300.0: 0, BODY: 0})
            self.layers = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(10)])

        def forward(self, image):
            return super().forward(self.layers(image))

    polls = [0, 0]
    for which, real in enumerate((KnownBundle().network("segmentor_real"), Deep())):

        def count(which=which):
            polls[which] += 1
            return False

        mkd_core.segment(
            known_volume((44, 36, 40), (5, 5, 5))[0], KnownBundle(segmentor_real=real), options=PLAIN, cancelled=count
        )
    assert polls[1] >= polls[0] + 9


class Recording(torch.nn.Module):
    """A network that remembers what it was shown."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner, self.strides, self.seen = inner, inner.strides, []

    def __deepcopy__(self, memo):
        return self

    def forward(self, image):
        self.seen.append(image.clone())
        return self.inner(image)


class Darker(Negative):
    """A generator that leaves a trace."""

    def forward(self, image):
        return image - 0.001


@pytest.mark.parametrize(
    ("policy", "shown_to_real", "shown_to_syn"),
    [(None, [0], [2]), ("cycle", [0], [2]), ("none", [0], [0]), ("mean", [0], [0, 2])],
)
def test_each_alignment_shows_the_segmentors_what_it_says(plain, policy, shown_to_real, shown_to_syn):
    base = KnownBundle()
    real, syn = Recording(base.network("segmentor_real")), Recording(base.network("segmentor_syn"))
    bundle = KnownBundle(segmentor_real=real, segmentor_syn=syn, generator_a2t=Darker(), generator_t2a=Darker())
    options = SegmentationOptions(device="cpu", precision="float32", alignment=policy, with_aligned=True)
    result = mkd_core.segment(plain[0], bundle, options=options)
    original = real.seen[0]
    for seen, expected in ((real.seen, shown_to_real), (syn.seen, shown_to_syn)):
        assert [round(float((original - view).mean() / 0.001)) for view in seen] == expected
    assert result.report["alignment"] == policy or policy is None
    assert result.report["ensemble_weight"] == 0.5
    assert (result.aligned is None) == (policy == "none")


def test_an_assistant_volume_is_translated_for_both_segmentors():
    base = KnownBundle()
    real, syn = Recording(base.network("segmentor_real")), Recording(base.network("segmentor_syn"))
    bundle = KnownBundle(segmentor_real=real, segmentor_syn=syn, generator_a2t=Recording(Darker()))
    bundle.metadata["normalisation"]["MR"] = {"kind": "window", "low": -300.0, "high": 700.0}
    image = known_volume((84, 68, 76), (2.5, 2.5, 2.5))[0]
    mkd_core.segment(image, bundle, modality="MR", options=PLAIN)
    translated = bundle.network("generator_a2t").seen[0] - 0.001
    assert torch.equal(real.seen[0], translated) and torch.equal(syn.seen[0], translated)


def test_a_hole_in_the_heart_and_grey_values_in_coarse_steps_are_told(plain, bundle):
    image, truth, result = plain
    assert not {"hole", "one_value"} & {one["code"] for one in all_warnings(result.report)}
    voxels, labels = sitk.GetArrayFromImage(image), sitk.GetArrayViewFromImage(truth)
    middle = np.argwhere(labels == 1).mean(axis=0).astype(int)
    reach = np.round(8.0 / np.array(image.GetSpacing()[::-1])).astype(int)
    voxels[tuple(slice(at - by, at + by + 1) for at, by in zip(middle, reach))] = voxels.min()
    for spoilt, code in ((voxels, "hole"), (np.rint(sitk.GetArrayFromImage(image) / 50.0) * 50, "one_value")):
        changed = sitk.GetImageFromArray(spoilt.astype(np.int16))
        changed.CopyInformation(image)
        assert code in [one["code"] for one in all_warnings(mkd_core.segment(changed, bundle, options=PLAIN).report)]


def all_warnings(report) -> list[dict]:
    """Of the heart and of every structure."""
    return [*report["warnings"], *(one for entry in report["structures"].values() for one in entry["warnings"])]


def test_percentiles_are_taken_of_the_volume_without_its_padding():
    bundle = KnownBundle(localiser=Recording(KnownBundle().network("localiser")))
    bundle.metadata["normalisation"]["CT"] = {"kind": "percentile", "low": 0.0, "high": 100.0}
    image, _ = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    mkd_core.segment(image, bundle, options=PLAIN)
    seen = bundle.network("localiser").seen[0]
    assert (float(seen.min()), float(seen.max())) == pytest.approx((-1.0, 1.0), abs=1e-6)


def test_disagreement_and_aligned_image_lie_where_the_heart_is(plain):
    image, truth, _ = plain
    levels = {level: label for label, level in LEVELS.items()} | {-300.0: 0, BODY: 0}
    blind = ByIntensity({level: (label if label != 4 else 0) for level, label in levels.items()})
    options = SegmentationOptions(device="cpu", precision="float32", with_disagreement=True, with_aligned=True)
    result = mkd_core.segment(
        stored_otherwise(image, (1, 2, 0), (1, -1, 1)), KnownBundle(segmentor_syn=blind), options=options
    )
    back = sitk.Resample(result.disagreement, truth, sitk.Transform(), sitk.sitkLinear)
    doubt, known = sitk.GetArrayViewFromImage(back), sitk.GetArrayViewFromImage(truth)
    assert doubt[known == 4].mean() > 0.8
    assert doubt[(known > 0) & (known != 4)].mean() < 0.05
    assert (doubt.min(), doubt.max()) == (0, pytest.approx(1, abs=1e-3))
    aligned = sitk.GetArrayFromImage(sitk.Resample(result.aligned, truth, sitk.Transform(), sitk.sitkLinear))
    inner = sitk.GetArrayFromImage(sitk.BinaryErode(truth == 3, [2, 2, 2])) > 0
    assert aligned[inner] == pytest.approx(LEVELS[3], abs=3.5)  # with its grain
    entry = result.report["structures"]["RA"]
    assert entry["agreement"] < 0.1
    assert "The two segmentors agree by only" in said(entry)[-1] or said(entry) == [
        "Not found, though one of the two segmentors saw it."
    ]


def test_the_answer_of_one_segmentor_can_be_asked_for_and_agreement_is_told_all_the_same(plain):
    levels = {level: label for label, level in LEVELS.items()} | {-300.0: 0, BODY: 0}
    blind = ByIntensity({level: (label if label != 4 else 0) for level, label in levels.items()})
    found = {}
    for segmentor in ("real", "synthetic"):
        options = SegmentationOptions(device="cpu", precision="float32", threads=1, segmentor=segmentor)
        result = mkd_core.segment(plain[0], KnownBundle(segmentor_syn=blind), options=options)
        found[segmentor] = result.report["structures"]["RA"]
        assert result.report["options"]["segmentor"] == segmentor
    assert found["real"]["volume_ml"] > 20 and found["synthetic"]["volume_ml"] == 0
    assert found["real"]["agreement"] == found["synthetic"]["agreement"] == 0.0
    assert said(found["synthetic"]) == ["Not found, though one of the two segmentors saw it."]


def test_a_piece_apart_from_its_structure_is_left_out_and_told(plain):
    image = sitk.Image(plain[0])
    voxels = sitk.GetArrayFromImage(image)
    truth = sitk.GetArrayFromImage(plain[1])
    corner = np.argwhere(truth == 4).min(axis=0)
    voxels[tuple(slice(at - 7, at - 1) for at in corner)] = LEVELS[
        1
    ]  # a piece of "left ventricle" behind the right atrium
    changed = sitk.GetImageFromArray(voxels)
    changed.CopyInformation(image)
    entry = mkd_core.segment(changed, KnownBundle(), options=PLAIN).report["structures"]["LV"]
    assert entry["components"] == 1 and entry["removed_ml"] > 4
    assert [warning for warning in said(entry) if "left out" in warning] == [
        f"Further pieces were found apart from it and left out ({entry['removed_ml']:.0f} ml)."
    ]


def test_only_the_structures_asked_for_are_returned(plain, bundle):
    image, _, result = plain
    options = SegmentationOptions(device="cpu", precision="float32", structures=("LA", "PA"))
    fewer = mkd_core.segment(image, bundle, options=options)
    everything, some = (sitk.GetArrayViewFromImage(r.labels) for r in (result, fewer))
    assert np.array_equal(some, np.where(np.isin(everything, (3, 7)), everything, 0))
    assert list(fewer.report["structures"]) == ["LA", "PA"]


def test_what_lies_the_wrong_way_round_is_doubted(plain, bundle):
    image = sitk.Image(plain[0])
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    warnings = said(mkd_core.segment(image, bundle, options=PLAIN).report)
    assert "The right atrium lies left of the left ventricle: the volume's orientation may be wrong." in warnings
    upside_down = sitk.Image(plain[0])
    upside_down.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
    warnings = said(mkd_core.segment(upside_down, bundle, options=PLAIN).report)
    assert any("left atrium lies in front of" in one for one in warnings)
    assert any("ascending aorta lies below" in one for one in warnings)


def test_unenhanced_blood_is_warninged(plain):
    levels = {label: 8.0 * label for label in BALLS}
    image = sitk.Cast(
        sitk.ChangeLabel(plain[1], {label: int(level) for label, level in levels.items()}), sitk.sitkInt16
    )
    image = sitk.Mask(image, plain[1], AIR)
    networks = {level: label for label, level in levels.items()} | {AIR: 0}
    sharp = ByIntensity(dict(networks))
    bundle = KnownBundle(localiser=ByIntensity(networks | {-500.0: 5}), segmentor_real=sharp, segmentor_syn=sharp)
    bundle.metadata["localiser"]["min_heart_ml"] = 1.0
    body = sitk.GetArrayFromImage(image)
    body[(body == AIR) & (np.abs(sitk.GetArrayViewFromImage(plain[0]) - BODY) <= 3)] = -200  # with its grain
    image = sitk.GetImageFromArray(body)
    image.CopyInformation(plain[0])
    result = mkd_core.segment(image, bundle, options=PLAIN)
    assert any("not enhanced by contrast agent" in warning for warning in said(result.report))


# ---- refusals ----


def changed(image, change):
    """A copy of an image, changed."""
    copy = sitk.Image(image)
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda ct: ct[:, :, 0], "2 dimensions"),
        (lambda ct: sitk.JoinSeries([ct, ct]), "time series"),
        (lambda ct: sitk.Compose(ct, ct, ct), "colours or vectors"),
        (lambda ct: sitk.Cast(ct, sitk.sitkComplexFloat32), "complex"),
        (lambda ct: ct[:, :, :3], "84 x 68 x 3 voxels"),
        (lambda ct: changed(ct, lambda c: c.SetSpacing((0.0025, 0.0025, 0.0025))), "voxel size of 0.0025 mm"),
        (lambda ct: changed(ct, lambda c: c.SetSpacing((2.5, 2.5, 100))), "voxel size of 100 mm"),
        (lambda ct: changed(ct, lambda c: c.SetSpacing((30, 30, 30))), "2.5 m long"),
        (lambda ct: sitk.Cast(ct, sitk.sitkFloat32) / 0, "not a number|infinite"),
        (lambda ct: ct * 0 + 5, "same value"),
        (lambda ct: ct + 1024, "no voxel lies below zero"),
        (lambda ct: sitk.Cast(ct, sitk.sitkFloat32) / 1000, "as bright as soft tissue"),
    ],
)
def test_what_cannot_be_segmented_is_refused_in_plain_words(plain, bundle, make, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        mkd_core.segment(make(plain[0]), bundle, options=PLAIN)
    assert caught.value.advice


def test_a_field_of_view_of_many_metres_is_refused_before_it_fills_the_memory(plain, bundle):
    image = changed(plain[0], lambda c: c.SetSpacing((25, 28, 26)))
    with pytest.raises(InputError, match="larger than a person"):
        mkd_core.segment(image, bundle, options=PLAIN)


def test_a_ct_without_air_or_lung_is_doubted_and_a_ct_called_mr_too(plain):
    localiser = ByIntensity({level: label for label, level in LEVELS.items()} | {BODY: 5})
    without = mkd_core.segment(sitk.Clamp(plain[0], lowerBound=-150), KnownBundle(localiser=localiser), options=PLAIN)
    assert said(without.report)[0].startswith("The volume shows neither air nor lung")
    bundle = KnownBundle(generator_a2t=Unchanged(), generator_t2a=Unchanged())
    bundle.metadata["normalisation"]["MR"] = bundle.metadata["normalisation"]["CT"]
    called_mr = mkd_core.segment(plain[0], bundle, modality="MR", options=PLAIN)
    assert "looks like a CT" in said(called_mr.report)[0]


def only(*labels):
    """The known CT with only some balls."""
    image, truth = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    voxels, known = sitk.GetArrayFromImage(image), sitk.GetArrayViewFromImage(truth)
    voxels[(known > 0) & ~np.isin(known, labels)] = BODY
    result = sitk.GetImageFromArray(voxels)
    result.CopyInformation(image)
    return result


def test_no_heart_is_reported_when_the_localiser_finds_none(bundle):
    empty = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, -400, (60, 60, 60)).astype(np.int16))
    empty.SetSpacing((3, 3, 3))
    empty[0, 0, 0] = 100
    with pytest.raises(NoHeartError, match=r"^No heart was found in this volume\."):
        mkd_core.segment(empty, bundle, options=PLAIN)


@pytest.mark.parametrize("labels", [(1, 6, 7), (2, 3)])
def test_a_part_of_a_heart_is_not_taken_for_one(bundle, labels):
    with pytest.raises(NoHeartError, match="not a whole heart") as refused:
        mkd_core.segment(only(*labels), bundle, options=PLAIN)
    assert refused.value.finding.code == "no_heart_part"


def test_ventricles_and_muscle_are_enough_of_a_heart_where_the_localiser_recognises_one(plain):
    seen = {level: label if label in (1, 2, 5) else 0 for label, level in LEVELS.items()} | {-300.0: 0, BODY: 0}
    segmentors = {part: ByIntensity(seen) for part in ("segmentor_real", "segmentor_syn")}
    report = mkd_core.segment(plain[0], KnownBundle(**segmentors), options=PLAIN).report
    assert report["structures"]["LA"]["volume_ml"] == 0 and report["structures"]["LV"]["volume_ml"] > 30
    assert report["evidence"]["verdict"] == "confirmed"
    with pytest.raises(NoHeartError):  # bright balls that the localiser does not take for a heart either
        mkd_core.segment(only(1, 2, 5), KnownBundle(), options=PLAIN)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"device": "abacus"}, DeviceError, "“abacus” is not a computing device"),
        ({"device": "cuda:x"}, DeviceError, "“cuda:x” is not a computing device"),
        ({"device": "cpu:1"}, DeviceError, "“cpu:1” is not a computing device"),
        ({"precision": "float16"}, DeviceError, "“float16” is not a precision"),
        ({"alignment": "translate"}, InputError, "not an alignment for CT volumes"),
        ({"structures": ("LV", "spleen")}, InputError, "no structure “spleen”"),
        ({"segmentor": "third"}, InputError, "no segmentor “third”"),
        ({"threads": 0}, InputError, "“0” is not a number of threads"),
    ],
)
def test_options_that_mean_nothing_are_refused(plain, bundle, options, error, sentence):
    with pytest.raises(error, match=sentence):
        mkd_core.segment(plain[0], bundle, options=SegmentationOptions(**options))


@pytest.mark.parametrize(
    "values", [{"colour": "red"}, {"device": 3}, {"threads": "four"}, {"with_aligned": "yes"}, {"structures": "LV"}]
)
def test_options_of_the_wrong_kind_are_refused(values):
    with pytest.raises(InputError):
        SegmentationOptions.from_dict(values)


def test_options_come_from_plain_values():
    assert SegmentationOptions.from_dict(
        {"structures": ["LV"], "threads": None, "device": "cpu"}
    ) == SegmentationOptions(device="cpu", structures=("LV",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this computer has a CUDA device")
def test_a_device_that_is_not_there_is_refused(plain, bundle):
    with pytest.raises(DeviceError, match="no graphics card"):
        mkd_core.segment(plain[0], bundle, options=SegmentationOptions(device="cuda"))


def test_an_unknown_modality_and_missing_weights_are_refused(plain, tmp_path):
    with pytest.raises(InputError, match="“PET” is not a modality"):
        mkd_core.segment(plain[0], modality="PET")
    with pytest.raises(BundleError, match="no such file"):
        mkd_core.segment(plain[0], tmp_path / "none.safetensors")


def test_a_bundle_file_runs_from_end_to_end(plain, tiny_bundle_path):
    """Random weights find no heart, or some nonsense: either way with a sentence or a result on the right grid."""
    try:
        result = mkd_core.segment(plain[0], tiny_bundle_path, options=PLAIN)
    except NoHeartError as error:
        assert isinstance(error, MKDError)
    else:
        assert_same_grid(result.labels, plain[0])


def test_running_out_of_memory_is_told_or_goes_on_with_the_processor(bundle):
    class Full(Negative):
        """A generator for which there is no memory on its device."""

        def forward(self, image):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    image = torch.zeros(1, 1, 4, 4, 4)
    full = KnownBundle(generator_a2t=Full())
    with pytest.raises(DeviceError, match="ran out of memory"):
        execution.Executor(full, torch.device("cpu"), torch.float32, may_fall_back=True).run("generator_a2t", image)

    class FullElsewhere(Negative):
        """There is memory on the CPU only."""

        def forward(self, image):
            if image.device.type != "cpu":
                raise torch.cuda.OutOfMemoryError("out of memory")
            return super().forward(image)

    executor = execution.Executor(
        KnownBundle(generator_a2t=FullElsewhere()), torch.device("meta"), torch.float32, may_fall_back=True
    )
    assert torch.equal(executor.run("generator_a2t", image + 1), -(image + 1))
    assert executor.fell_back and executor.device.type == "cpu"


def test_a_second_heart_in_the_volume_is_told(plain, bundle):
    voxels = sitk.GetArrayFromImage(plain[0])
    twice = sitk.GetImageFromArray(np.concatenate([voxels, voxels]))
    twice.SetSpacing(plain[0].GetSpacing())
    warnings = said(mkd_core.segment(twice, bundle, options=PLAIN).report)
    assert any("a second heart" in warning for warning in warnings)
    assert not any("a second heart" in warning for warning in said(plain[2].report))


def test_weights_that_know_no_phantom_are_named_in_the_report(plain, bundle):
    unproven = KnownBundle()
    object.__setattr__(unproven, "self_test", SelfTest(found=2, cycle_error=0.2))
    warnings = said(mkd_core.segment(plain[0], unproven, options=PLAIN).report)
    assert any("recognised 2 of 7 structures" in warning for warning in warnings)
