"""What is noticed at the first look at a volume: no word about good images, the right word about wrong ones, and no
waiting.
"""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.inference.image_check import quick_check, sample, validate_image
from mkd_core.measure.messages import MESSAGES
from mkd_core.synthesis import synthesize
from Testing.benchmarks import accuracy

DATA = accuracy.data_folder()


def codes(voxels, spacing=(2.0, 2.0, 2.0), modality="CT") -> list[str]:
    """Codes of what is found."""
    return [finding.code for finding in quick_check(voxels, spacing, modality)]


@pytest.fixture(scope="module")
def rendered():
    """A rendered CT and MR, (k, j, i), 3 mm."""
    return {
        modality: sitk.GetArrayFromImage(synthesize(None, modality, 3, spacing=3.0)[0]) for modality in ("CT", "MR")
    }


def test_nothing_is_said_of_images_that_are_what_they_are_said_to_be(rendered):
    assert codes(rendered["CT"], (3, 3, 3), "CT") == codes(rendered["MR"], (3, 3, 3), "MR") == []


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("background", [0.0, 0.3])
def test_an_equalised_histogram_is_told(rendered, modality, background):
    voxels = rendered[modality].astype(np.float32)
    ranks = np.searchsorted(np.sort(voxels.ravel()), voxels) / voxels.size
    even = voxels.min() + np.maximum(ranks, background) * np.ptp(voxels)
    assert "equalised" in codes(even, (3, 3, 3), modality)


def test_ct_and_mr_are_told_apart(rendered):
    assert codes(rendered["MR"], (3, 3, 3), "CT") == ["looks_like_mr"]
    assert codes(rendered["CT"], (3, 3, 3), "MR") == ["looks_like_ct"]


def test_a_ct_stored_without_its_offset_is_not_taken_for_an_mr(rendered):
    assert codes(rendered["CT"] + 1024, (3, 3, 3)) == ["stored_ct"]


@pytest.mark.parametrize(
    ("name", "modality", "expected"),
    [
        ("ct_thorax/ct.nii.gz", "CT", []),
        ("ct_thorax/ct.nii.gz", "MR", ["looks_like_ct"]),
        ("no_heart/ct_abdomen.nii.gz", "CT", []),
        ("no_heart/mr_abdomen.nii.gz", "CT", ["looks_like_mr", "heart_cut"]),
        ("mr_left_atrium/mr_000_image.nii.gz", "MR", ["heart_cut"]),
        ("mr_left_atrium/mr_000_image.nii.gz", "CT", ["no_air", "heart_cut"]),
        ("ct_thorax/heart.nii.gz", "CT", ["labels"]),
    ],
)
def test_real_volumes_get_the_words_they_deserve(name, modality, expected):
    if not (DATA / name).exists():
        pytest.skip(f"no real data: {DATA / name} is missing (set MKD_DATA)")
    image = sitk.ReadImage(str(DATA / name))
    assert codes(sitk.GetArrayViewFromImage(image), image.GetSpacing()[::-1], modality) == expected


def test_a_spacing_or_length_that_cannot_be_stops_and_says_how_much_it_is():
    voxels = np.random.default_rng(0).normal(0, 500, (70, 70, 70))
    (finding,) = quick_check(voxels, (2.0, 2.0, 0.001), "CT")
    assert finding.severity == "refusal" and finding.code == "spacing" and finding.figures["mm"] == 0.001
    (finding,) = quick_check(voxels, (2.0, 2000.0, 2.0), "CT")
    assert finding.severity == "refusal" and finding.figures["mm"] == 2000.0
    assert codes(voxels, (2.0, np.nan, 2.0)) == ["spacing"]
    (finding,) = quick_check(np.zeros((200, 10, 10)), (20.0, 10.0, 10.0), "CT")
    assert finding.severity == "refusal" and finding.code == "extent" and finding.figures["m"] == 4.0
    assert "extent" not in codes(np.tile(voxels[:10], (10, 1, 1)), (25.0, 2.0, 2.0)), "2.5 m are the most"


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_position_that_is_no_number_is_refused(number):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16))
    image.SetOrigin((0.0, number, 0.0))
    with pytest.raises(InputError) as caught:
        validate_image(image, "CT")
    assert caught.value.finding.code == "position"


def test_a_field_of_view_shorter_than_a_heart_and_thick_slices_are_noticed(rendered):
    (finding,) = quick_check(rendered["CT"][20:40], (3, 3, 3), "CT")
    assert finding.code == "heart_cut" and finding.figures["mm"] == 60 and finding.severity == "amber"
    (finding,) = quick_check(rendered["CT"][::2], (6, 3, 3), "CT")
    assert finding.code == "thick" and finding.figures["mm"] == 6


def test_an_empty_volume_stops():
    assert codes(np.zeros((60, 60, 60), np.int16)) == ["constant"]
    assert codes(np.full((60, 60, 60), np.nan)) == ["constant"]


def test_the_sample_reaches_every_part_of_the_volume_and_leaves_out_what_is_no_number():
    voxels = np.arange(200, dtype=float)[:, None, None] * np.ones((1, 5, 300))
    voxels[0:100, 0] = np.inf
    some = sample(voxels)
    assert some.min() <= 2 and some.max() >= 197 and np.isfinite(some).all()
    assert some.size == 64 * 5 * 64 - 32 * 64


def test_at_most_64_planes_rows_and_columns_of_a_large_volume_are_touched():
    class Counted:
        """Voxels that count how many planes are read."""

        shape = (600, 512, 512)
        planes: list[int] = []

        def __getitem__(self, plane):
            self.planes.append(int(plane))
            return np.full(self.shape[1:], -1000 if plane % 2 else 0, np.int16)

    codes(Counted(), (0.5, 0.4, 0.4))
    assert len(Counted.planes) == len(set(Counted.planes)) == 64 and max(Counted.planes) > 590


def image_of(voxels, spacing) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([float(step) for step in spacing[::-1]])
    return image


def test_the_look_at_the_panel_and_the_look_at_the_run_give_the_same_codes(rendered):
    ct, mr = rendered["CT"], rendered["MR"]
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10:20, 10:20, 10:20] = 3
    cases = [
        (ct, (3, 3, 3), "CT"),
        (ct, (3, 3, 3), "MR"),
        (mr, (3, 3, 3), "CT"),
        (mr, (3, 3, 3), "MR"),
        (ct + 1024, (3, 3, 3), "CT"),
        (np.clip(ct, -150, None), (3, 3, 3), "CT"),
        (ct / 1000, (3, 3, 3), "CT"),
        (ct[20:40], (3, 3, 3), "CT"),
        (ct[::2], (6, 3, 3), "CT"),
        (ct[:3], (3, 3, 3), "CT"),
        (ct, (0.001, 3, 3), "CT"),
        (ct, (30, 30, 30), "CT"),
        (ct * 0, (3, 3, 3), "CT"),
        (labels, (3, 3, 3), "MR"),
    ]
    seen = set()
    for voxels, spacing, modality in cases:
        quick = quick_check(voxels, spacing, modality)
        try:
            exact = validate_image(image_of(voxels, spacing), modality)
        except InputError as error:
            assert error.finding.severity == "refusal"
            exact = [error.finding]
            quick = quick[:1]  # the rest is not said where there is no run
        assert [(one.code, one.figures) for one in quick] == [(one.code, one.figures) for one in exact]
        seen |= {one.code for one in exact}
    assert seen == {
        "looks_like_ct", "looks_like_mr", "stored_ct", "no_air", "dark_ct", "heart_cut", "thick", "too_few_voxels",
        "spacing", "extent", "constant", "labels",
    } <= set(MESSAGES)  # fmt: skip


def test_an_image_interpolated_to_a_few_values_below_zero_is_doubted_but_not_refused(rendered):
    voxels = rendered["MR"].astype(np.float32)
    voxels[0, 0, 0] = -20
    assert [one.code for one in validate_image(image_of(voxels, (3, 3, 3)), "CT")] == ["looks_like_mr"]


@pytest.mark.parametrize("change", [lambda hu: hu + 200, lambda hu: hu - 200, lambda hu: hu // 2, lambda hu: hu * 1.6])
def test_a_ct_whose_air_is_not_at_minus_1000_is_doubted(rendered, change):
    assert "air_offset" in codes(change(rendered["CT"].astype(np.float32)), (3, 3, 3))


def test_padding_far_below_air_is_no_offset(rendered):
    padded = np.pad(rendered["CT"], ((0, 0), (10, 10), (10, 10)), constant_values=-3024)
    assert codes(padded, (3, 3, 3)) == []


def test_the_run_says_what_the_panel_said(rendered):
    shifted = sitk.GetImageFromArray(rendered["CT"] + np.int16(200))
    shifted.SetSpacing((3.0, 3.0, 4.0))
    doubts = validate_image(shifted, "CT")
    assert [doubt.code for doubt in doubts] == ["air_offset", "thick"]
    narrow = sitk.GetImageFromArray(rendered["CT"][:20])
    narrow.SetSpacing((3.0, 3.0, 3.0))
    assert [doubt.code for doubt in validate_image(narrow, "CT")] == ["heart_cut"]


@pytest.mark.parametrize(("said", "count"), [("PT", 1), ("MR", 1), ("CT", 0), ("CT ", 0)])
def test_a_volume_that_its_files_call_something_else_is_doubted(rendered, said, count):
    image = sitk.GetImageFromArray(rendered["CT"])
    image.SetSpacing((3.0, 3.0, 3.0))
    image.SetMetaData("0008|0060", said)
    doubts = validate_image(image, "CT")
    assert [doubt.code for doubt in doubts] == ["dicom_modality"] * count
    assert all(doubt.figures == {"said": said, "modality": "CT"} for doubt in doubts)
