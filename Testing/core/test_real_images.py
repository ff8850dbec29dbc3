"""The bundle that ships, on real images: what a clinician would get.

Skipped visibly without the data folder (MKD_DATA).
"""

import subprocess
import sys

import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("torch")

import mkd_core
from mkd_core.errors import NoHeartError
from mkd_core.measure import heart_evidence
from mkd_core.structures import BY_KEY
from Testing.benchmarks import accuracy, real_scans
from Testing.trust.orientations import turned

DATA = accuracy.data_folder()
THORAX = DATA / "ct_thorax"
needs_thorax = pytest.mark.skipif(not THORAX.exists(), reason="no real CT here: set MKD_DATA to the data folder")
needs_abdomen = pytest.mark.skipif(
    not (DATA / "no_heart").exists(), reason="no volumes without a heart here: set MKD_DATA to the data folder"
)


@pytest.fixture(scope="module")
def thorax():
    return sitk.ReadImage(str(THORAX / "ct.nii.gz"))


@pytest.fixture(scope="module")
def bundle():
    return mkd_core.load_bundle(mkd_core.default_bundle_path())


@pytest.fixture(scope="module")
def result(thorax, bundle):
    return mkd_core.segment(thorax, bundle)


@needs_thorax
def test_the_real_heart_is_found_where_the_reference_masks_say(result):
    score = accuracy.score_real_ct(result.labels, THORAX)
    # The reference leaves out the appendage and the veins' stubs: the more of them is found, the more lies outside.
    assert score["inside"] >= 0.975, score
    assert score["cover"] >= 0.90, score
    assert score["pulmonary_artery"] >= 0.84, score
    assert score["ascending_aorta"] >= 0.94, score
    assert score["blood_minus_muscle"] >= 100, score


@needs_thorax
def test_what_is_not_left_atrium_lies_where_the_reference_masks_say(result):
    labels = sitk.GetArrayFromImage(result.labels)
    parts = [sitk.ReadImage(str(THORAX / f"{name}.nii.gz")) > 0 for name in ("heart", "pulmonary_artery", "aorta")]
    reference = np.any([sitk.GetArrayViewFromImage(part) for part in parts], axis=0)
    near = real_scans.within(reference, result.labels.GetSpacing()[::-1], 3.0)
    assert near[(labels > 0) & (labels != BY_KEY["LA"].label)].mean() >= 0.99


@needs_thorax
def test_all_seven_structures_are_there_on_exactly_the_inputs_grid(thorax, result):
    assert set(np.unique(sitk.GetArrayViewFromImage(result.labels))) == set(range(8))
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result.labels, of)() == getattr(thorax, of)()


@needs_thorax
def test_the_anatomy_is_the_right_way_round(result):
    order = accuracy.anatomical_order(result.labels)
    assert len(order) > 1 and all(order.values()), order


def _flipped(image):
    return sitk.Flip(image, [True, False, True])


def _permuted(image):
    return sitk.PermuteAxes(sitk.Flip(image, [False, True, False]), [2, 0, 1])


@needs_thorax
@pytest.mark.parametrize("rearranged", [_flipped, _permuted])
def test_flipped_and_permuted_axes_give_exactly_the_same_labels_in_space(thorax, bundle, result, rearranged):
    other = mkd_core.segment(rearranged(thorax), bundle).labels
    expected = sitk.GetArrayFromImage(rearranged(result.labels))
    assert np.array_equal(sitk.GetArrayFromImage(other), expected)


@needs_thorax
def test_an_oblique_grid_gives_the_same_anatomy_in_space(thorax, bundle, result):
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.2, -0.15, 0.35)
    direction = turn.GetMatrix()
    centre = np.array(thorax.TransformContinuousIndexToPhysicalPoint([n / 2 for n in thorax.GetSize()]))
    size = [int(n * 1.25) for n in thorax.GetSize()]
    origin = centre - np.array(direction).reshape(3, 3) @ (np.array(size) / 2 * np.array(thorax.GetSpacing()))
    grid = (size, sitk.Transform(), sitk.sitkLinear, origin.tolist(), thorax.GetSpacing(), direction, -1024)
    labels = mkd_core.segment(sitk.Resample(thorax, *grid), bundle).labels
    back = sitk.GetArrayFromImage(sitk.Resample(labels, thorax, sitk.Transform(), sitk.sitkNearestNeighbor))
    plain = sitk.GetArrayFromImage(result.labels)
    overlaps = [accuracy.dice(back == label, plain == label) for label in range(1, 8)]
    assert np.mean(overlaps) >= 0.95 and min(overlaps) >= 0.9, overlaps
    assert accuracy.dice(back > 0, plain > 0) >= 0.95


@needs_thorax
def test_the_same_volume_gives_the_same_labels_again(thorax, bundle, result):
    again = mkd_core.segment(thorax, bundle).labels
    assert np.array_equal(sitk.GetArrayViewFromImage(again), sitk.GetArrayViewFromImage(result.labels))


@needs_abdomen
@pytest.mark.parametrize(("name", "modality"), [("ct_abdomen", "CT"), ("mr_abdomen", "MR")])
def test_the_command_refuses_an_abdomen_and_writes_no_file(tmp_path, name, modality):
    command = [
        sys.executable,
        "-m",
        "mkd_core",
        "segment",
        str(DATA / "no_heart" / f"{name}.nii.gz"),
        str(tmp_path / "heart.nii.gz"),
    ]
    run = subprocess.run(
        [*command, "--modality", modality], cwd=accuracy.ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "No heart was found" in run.stderr
    assert not list(tmp_path.iterdir())


MR_REFUSED = DATA / "mr_refused"


@pytest.mark.slow
@pytest.mark.skipif(not MR_REFUSED.exists(), reason="no hard MR here: set MKD_DATA to the data folder")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_dark_noisy_or_cut_mr_is_segmented_where_the_experts_saw_the_left_atrium(bundle, number):
    image, truth = (
        sitk.ReadImage(str(MR_REFUSED / f"mr_{number:02}_{kind}.nii.gz")) for kind in ("image", "left_atrium")
    )
    result = mkd_core.segment(image, bundle, modality="MR")
    found, known = (sitk.GetArrayFromImage(one) for one in (result.labels, truth))
    assert accuracy.dice(found == 3, known > 0) > 0.7
    assert result.report["evidence"]["verdict"] == "confirmed"


PLAIN = DATA / "chest_ct" / "plain_4mm.nii.gz"


@pytest.mark.slow
@pytest.mark.skipif(not PLAIN.exists(), reason="no plain CT here: set MKD_DATA to the data folder")
def test_a_plain_ct_of_thick_slices_is_segmented_and_doubted(bundle):
    report = mkd_core.segment(sitk.ReadImage(str(PLAIN)), bundle).report
    assert report["evidence"]["verdict"] == "confirmed"
    assert {"no_contrast_agent", "thick"} <= {warning["code"] for warning in report["warnings"]}
    assert report["structures"]["LV"]["volume_ml"] > 60 and report["structures"]["RV"]["volume_ml"] > 60


@pytest.mark.slow
@pytest.mark.skipif(not PLAIN.exists(), reason="no plain CT here: set MKD_DATA to the data folder")
def test_a_heart_on_which_the_segmentors_do_not_agree_is_outlined_coarsely_and_doubted(bundle, monkeypatch):
    monkeypatch.setattr(heart_evidence, "CONFIRMED", 0.95)
    report = mkd_core.segment(sitk.ReadImage(str(PLAIN)), bundle).report
    assert report["evidence"]["verdict"] == "coarse"
    assert "coarse_outlines" in [warning["code"] for warning in report["warnings"]]
    assert report["structures"]["LV"]["volume_ml"] > 60 and report["structures"]["RV"]["volume_ml"] > 60


@pytest.mark.slow
@needs_thorax
@pytest.mark.parametrize(
    ("axes", "signs", "code"),
    [
        ((0, 1, 2), (1, 1, -1), "mirrored"),
        ((0, 1, 2), (-1, 1, 1), "turned"),
        ((0, 1, 2), (1, -1, -1), "turned"),
        ((1, 0, 2), (1, 1, 1), "turned"),
    ],
)
def test_a_real_ct_under_a_header_that_lies_is_doubted_or_refused(thorax, bundle, axes, signs, code):
    try:
        report = mkd_core.segment(turned(thorax, axes, signs), bundle).report
    except NoHeartError:
        assert code != "mirrored"
    else:
        assert code in [warning["code"] for warning in report["warnings"]]


@needs_thorax
def test_a_real_ct_the_right_way_round_is_not_doubted(result):
    assert {"mirrored", "turned"}.isdisjoint(warning["code"] for warning in result.report["warnings"])
    assert result.report["evidence"]["verdict"] == "confirmed"
