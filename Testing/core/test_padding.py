"""Marks outside the field of view are no intensities; blank slices and padding are the edge of the volume; missing and
misplaced slices are told by the image.
"""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.errors import InputError
from mkd_core.inference import padding, pipeline, stack
from mkd_core.inference.geometry import OrientedVolume
from mkd_core.inference.image_check import validate_image
from mkd_core.inference.padding import blank_slices, labels_at_edges, slanted_padding, without_marks
from mkd_core.inference.stack import find_breaks, find_copies
from mkd_core.io.volumes import read_volume
from mkd_core.protocol import Finding, SegmentationOptions
from Testing.benchmarks import accuracy
from Testing.support.known_heart import KnownBundle, known_volume

DATA = accuracy.data_folder()
FLOAT_MAX, DOUBLE_MAX = -3.4028235e38, 1.7976931348623157e308


def like(voxels: np.ndarray, image: sitk.Image) -> sitk.Image:
    """An image on the same grid."""
    result = sitk.GetImageFromArray(voxels)
    result.CopyInformation(image)
    return result


def find_jumps(voxels: np.ndarray) -> list[Finding]:
    """What is said of missing or misplaced slices."""
    some = stack.sampled(voxels)
    return [] if some is None else stack.find_jumps(some, stack.smoothed(some))


def find_uneven_part(voxels: np.ndarray) -> list[Finding]:
    """What is said of slices that lie farther apart from a place on, whatever else is odd about the stack."""
    some = stack.sampled(voxels)
    return [] if some is None else stack.find_uneven_part(some, stack.smoothed(some))


def circle(image: sitk.Image) -> np.ndarray:
    """What lies outside of a round field of view, (k, j, i)."""
    shape = image.GetSize()[::-1]
    j, i = np.ogrid[: shape[1], : shape[2]]
    outside = (j - shape[1] / 2) ** 2 + (i - shape[2] / 2) ** 2 > (min(shape[1:]) / 2) ** 2
    return np.broadcast_to(outside, shape)


def segmented(image: sitk.Image) -> dict:
    """Report of a segmentation with known networks."""
    return pipeline.segment(image, KnownBundle(), options=SegmentationOptions(device="cpu", threads=1)).report


def codes(report: dict, structure: str | None = None) -> list[str]:
    found = report["warnings"] if structure is None else report["structures"][structure]["warnings"]
    return [one["code"] for one in found]


@pytest.fixture(scope="module")
def ct() -> sitk.Image:
    return known_volume((52, 44, 46), (4, 4, 4))[0]


@pytest.fixture(scope="module")
def whole(ct) -> dict:
    """The report of the volume as it is."""
    return segmented(ct)


@pytest.mark.parametrize(
    ("mark", "kind"), [(FLOAT_MAX, np.float32), (DOUBLE_MAX, np.float64), (np.nan, np.float32), (-np.inf, np.float64)]
)
def test_marks_outside_a_round_field_of_view_change_no_volume_and_are_told(ct, whole, mark, kind):
    voxels = sitk.GetArrayFromImage(ct).astype(kind)
    voxels[circle(ct)] = mark
    report = segmented(like(voxels, ct))
    assert "padding_values" in codes(report)
    for key, entry in report["structures"].items():
        assert entry["volume_ml"] == pytest.approx(whole["structures"][key]["volume_ml"], rel=0.02), key


def test_a_single_mark_in_a_corner_changes_no_volume(ct, whole):
    voxels = sitk.GetArrayFromImage(ct).astype(np.float64)
    voxels[2, 2, 2] = DOUBLE_MAX
    report = segmented(like(voxels, ct))
    assert {key: one["volume_ml"] for key, one in report["structures"].items()} == {
        key: one["volume_ml"] for key, one in whole["structures"].items()
    }


def test_marks_get_the_lowest_intensity_and_a_volume_without_any_is_left_alone(ct):
    assert without_marks(ct, "CT") == (ct, [])
    clean = sitk.Cast(ct, sitk.sitkFloat32)
    assert without_marks(clean, "CT")[0] is clean
    voxels = sitk.GetArrayFromImage(clean)
    voxels[3, 4, 5], voxels[6, 7, 8] = np.nan, 1e30
    cleaned, (found,) = without_marks(like(voxels, ct), "CT")
    assert found.figures["share"] == pytest.approx(2 / voxels.size)
    assert cleaned.GetPixel(5, 4, 3) == cleaned.GetPixel(8, 7, 6) == -1000
    assert cleaned.GetSpacing() == ct.GetSpacing() and cleaned.GetOrigin() == ct.GetOrigin()
    voxels[:] = np.nan
    with pytest.raises(InputError, match="NaN"):
        without_marks(like(voxels, ct), "MR")


@pytest.mark.parametrize("fill", [-1000, -150, -3024])
def test_structures_that_end_at_blank_slices_are_told_to_reach_the_edge(ct, whole, fill):
    """The lower part of the heart blanked: far inside the volume, so that no outermost layer is touched."""
    voxels = sitk.GetArrayFromImage(ct)
    middle = len(voxels) // 2 - 4
    voxels[:middle] = fill
    report = segmented(like(voxels, ct))
    lv = report["structures"]["LV"]
    assert 5 < lv["volume_ml"] < 0.8 * whole["structures"]["LV"]["volume_ml"]
    assert lv["touches_border"] and "touches_border" in codes(report, "LV")
    assert not whole["structures"]["LV"]["touches_border"]
    assert not report["structures"]["AA"]["touches_border"], "far from the cut"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blank_slices_along_every_axis_and_a_gap_are_edges(axis):
    voxels = np.random.default_rng(0).integers(-500, 500, (40, 42, 44)).astype(np.int16)
    at = [slice(None)] * 3
    at[axis] = slice(20, 22)
    voxels[tuple(at)] = 7
    assert np.flatnonzero(blank_slices(voxels, axis)).tolist() == [20, 21]
    field = OrientedVolume(sitk.GetImageFromArray(voxels))
    labels = np.zeros(field.size, np.uint8)
    near, far = [10, 10, 10], [10, 10, 10]
    near[axis], far[axis] = 18, 14
    labels[tuple(near)], labels[tuple(far)] = 3, 4
    assert labels_at_edges(labels, field, tuple(slice(0, side) for side in field.size)) >= {3}
    assert 4 not in labels_at_edges(labels, field, tuple(slice(0, side) for side in field.size))


def test_constant_padding_round_the_volume_is_its_edge():
    inner = np.random.default_rng(0).integers(-500, 500, (30, 30, 30)).astype(np.int16)
    field = OrientedVolume(sitk.GetImageFromArray(np.pad(inner, 10, constant_values=-2000)))
    labels = np.zeros(field.size, np.uint8)
    labels[25, 25, 11], labels[25, 38, 25], labels[25, 25, 25] = 1, 2, 3
    assert labels_at_edges(labels, field, tuple(slice(0, side) for side in field.size)) - {0} == {1, 2}


def test_a_circle_of_padding_is_the_edge_of_the_volume():
    voxels = np.random.default_rng(0).integers(-500, 500, (30, 60, 60)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    voxels[circle(image)] = -3024
    field = OrientedVolume(sitk.GetImageFromArray(voxels))
    block = (slice(2, 28), slice(2, 58), slice(2, 58))
    labels = np.zeros((26, 56, 56), np.uint8)
    labels[13, 8, 8], labels[13, 28, 28] = 5, 6  # the first near the circle, the second in its middle
    assert labels_at_edges(labels, field, block) - {0} == {5}


def test_padding_in_the_corners_of_all_slices_is_an_edge_whatever_shape_it_leaves():
    voxels = np.random.default_rng(0).integers(-500, 500, (30, 60, 60)).astype(np.int16)
    aside = (np.arange(60) < 14) | (np.arange(60) >= 46)
    voxels[:, aside[:, None] & aside] = -3024  # leaves a cross, which is not convex
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((4.0, 4.0, 4.0))
    field = OrientedVolume(image)
    assert not slanted_padding(voxels).any()
    labels = np.zeros((30, 60, 60), np.uint8)
    labels[15, 12, 14], labels[15, 30, 30] = 5, 6  # the first near a corner, the second in the middle
    assert labels_at_edges(labels, field, tuple(slice(0, side) for side in field.size)) - {0} == {5}


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_padding_in_a_single_corner_of_all_slices_is_outside(corner):
    voxels = np.random.default_rng(0).integers(-500, 500, (30, 24, 24)).astype(np.int16)
    padded = np.zeros((24, 24), bool)
    padded[tuple(slice(-6, None) if end else slice(0, 6) for end in corner)] = True
    voxels[:, padded] = -3024
    blank = [blank_slices(voxels, axis) for axis in range(3)]
    assert np.array_equal(padding._outside_columns(voxels, 0, blank, np.full(3, 2.0)), padded)


@pytest.mark.parametrize("spacing", [1.0, 2.0, 5.0])
def test_wedges_of_padding_as_a_tilted_volume_leaves_them_are_its_edge(spacing):
    voxels = np.random.default_rng(0).integers(-500, 500, (60, 64, 40)).astype(np.int16)
    z, y = np.arange(60)[:, None], np.arange(64)[None]
    voxels[y < 25 - 0.5 * z], voxels[y > 75 - 0.4 * z] = -1024, -1024
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([spacing] * 3)
    field = OrientedVolume(image)
    labels = np.zeros(field.size, np.uint8)
    labels[10, 21, 20], labels[50, 54, 20] = 1, 2  # at the two wedges
    labels[10, 44, 20], labels[30, 30, 20] = 3, 4  # far from both
    everywhere = tuple(slice(0, side) for side in field.size)
    assert labels_at_edges(labels, field, everywhere) - {0} == {1, 2}
    block = (slice(5, 58), slice(6, 60), slice(3, 38))
    assert labels_at_edges(labels[block], field, block) - {0} == {1, 2}


def test_a_body_in_air_of_one_value_is_no_padding():
    voxels = np.random.default_rng(0).integers(-500, 500, (40, 60, 60)).astype(np.int16)
    z, y, x = np.ogrid[:40, :60, :60]
    trunk = (y - 30) ** 2 / 400 + (x - 30) ** 2 / (16 + 10 * np.cos(z / 6.2)) ** 2 < 1  # waisted
    voxels[np.broadcast_to(~trunk, voxels.shape)] = -1024
    assert not slanted_padding(voxels).any()
    wedge = np.broadcast_to(y < 20 - 0.4 * z, voxels.shape)
    voxels[:] = np.random.default_rng(1).integers(-500, 500, voxels.shape)
    voxels[wedge] = -1024
    assert np.array_equal(slanted_padding(voxels), wedge)


def slices(count: int = 60) -> np.ndarray:
    """Something that changes little by little, with noise."""
    generator = np.random.default_rng(0)
    z, y, x = np.ogrid[:count, :96, :96]
    smooth = sum(
        generator.normal() * 100 * np.sin(z / 11 + a) * np.sin(y / generator.uniform(5, 9) + b) * np.sin(x / 7 + c)
        for a, b, c in generator.uniform(0, 6, (12, 3))
    )
    return smooth + generator.normal(0, 3, (count, 96, 96))


def spoilt(count: int) -> dict[str, np.ndarray]:
    """Orders of slices in which something is wrong."""
    swapped, half = np.arange(count), count // 2
    swapped[[count // 3, 2 * count // 3]] = swapped[[2 * count // 3, count // 3]]
    return {
        "one missing": np.delete(np.arange(count), half),
        "eight missing": np.r_[0:half, half + 8 : count],
        "two exchanged": swapped,
        "shuffled": np.random.default_rng(0).permutation(count),
        "by name": np.array(sorted(range(count), key=str)),
        "odd after even": np.r_[0:count:2, 1:count:2],
    }


@pytest.mark.parametrize("kind", list(spoilt(60)))
def test_missing_and_misplaced_slices_are_told_by_the_image(kind):
    voxels = slices()
    assert find_jumps(voxels) == []
    (found,) = find_jumps(voxels[spoilt(60)[kind]])
    assert found.code == "jumps" and found.severity == "amber"
    if kind == "eight missing":
        assert (found.figures["from_slice"], found.figures["to_slice"], found.figures["count"]) == (30, 31, 1)


def test_a_part_of_the_image_in_which_anatomy_begins_is_no_jump(monkeypatch):
    voxels = slices()
    part = voxels[:-1].copy()
    part[30:, :68] = voxels[31:, :68]  # changes twice as much here
    part[30, 68:] = 0.8 * voxels[30, 68:] + 0.2 * voxels[29, 68:]  # and no more than elsewhere here
    assert find_jumps(part) == []
    monkeypatch.setattr(stack, "_SMALL_JUMP", {0.5: stack._SMALL_JUMP[0.5]})
    assert find_jumps(part), "half of the image alone would tell of a jump"


def test_slices_of_little_but_noise_are_in_their_places():
    voxels = slices()
    noise = np.random.default_rng(1).normal(0, 6 * voxels.std(), voxels.shape)
    assert find_jumps(voxels + noise) == [] and find_jumps(noise) == []


def test_many_missing_slices_are_told_where_pixels_are_too_few_for_a_closer_look():
    few = slices()[:, ::2, ::2]
    assert find_jumps(few) == []
    (found,) = find_jumps(few[spoilt(60)["eight missing"]])
    assert found.code == "jumps" and found.figures["from_slice"] == 30


def half_thinned(count: int, *, first: bool) -> np.ndarray:
    """Slices of a stack of which every second one is missing in the first or the second half."""
    order = np.arange(count)
    is_dense = order >= count // 2 if first else order < count // 2
    return order[is_dense | (order % 2 == 0)]


def texture(size: float = 2.5) -> np.ndarray:
    """Detail of the same size, voxels, along all axes, with noise."""
    generator = np.random.default_rng(0)
    detail = ndimage.gaussian_filter(generator.normal(0, 1000, (80, 96, 96)), size)
    return detail + generator.normal(0, 3, detail.shape) * (2.5 / size) ** 3


@pytest.mark.parametrize("first", [True, False])
def test_every_second_slice_missing_in_one_half_is_told(first):
    voxels = texture()
    assert find_uneven_part(voxels) == [] and find_uneven_part(voxels[::2]) == []
    (found,) = find_uneven_part(voxels[half_thinned(80, first=first)])
    assert (found.code, found.severity) == ("uneven", "amber")
    assert abs(found.figures["from_slice"] - (21 if first else 41)) <= 3
    image = sitk.GetImageFromArray(voxels[half_thinned(80, first=first)].astype(np.float32))
    assert {"jumps", "uneven"} & {one.code for one in validate_image(image, "MR")}


@pytest.mark.parametrize("first", [True, False])
def test_every_second_slice_missing_in_one_half_is_told_through_noise(first):
    detail = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1000, (80, 96, 96)), 2.5)
    noisy = detail + np.random.default_rng(1).normal(0, 0.17 * detail.std(), detail.shape)
    assert find_uneven_part(noisy) == []
    (found,) = find_uneven_part(noisy[half_thinned(80, first=first)])
    assert abs(found.figures["from_slice"] - (21 if first else 41)) <= 3


def test_what_changes_in_a_part_of_the_image_alone_is_no_uneven_stack():
    voxels = texture()
    flat, brighter = voxels.copy(), voxels.copy()
    flat[40:, :48] = ndimage.gaussian_filter(flat[40:, :48], (2, 0, 0))
    brighter[40:] *= 3
    flat[:9] = 0
    for good in (flat, brighter, np.zeros_like(voxels), voxels[:20]):
        assert find_uneven_part(good) == []


@pytest.mark.parametrize("distance", [0.95, 0.9, 0.75, 0.6, 0.4, 0.2])
def test_a_stack_that_was_interpolated_to_another_slice_distance_is_even(distance):
    voxels = texture()[:30]
    at = np.arange(0, 29 - 1e-9, distance)
    below, share = at.astype(int), (at % 1)[:, None, None]
    assert find_uneven_part((1 - share) * voxels[below] + share * voxels[below + 1]) == []


@pytest.mark.parametrize("first", [True, False])
def test_a_stack_that_a_scanner_interpolated_to_half_the_slice_distance_is_told_uneven_as_well(first):
    voxels = texture()[:40]
    voxels = np.repeat(voxels, 2, axis=0)[:-1]
    voxels[1::2] = 0.5 * (voxels[:-1:2] + voxels[2::2])
    assert find_uneven_part(voxels) == []
    assert find_uneven_part(voxels[half_thinned(len(voxels), first=first)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(60, 4, 4), (60, 5, 96), (60, 15, 15)])
def test_of_slices_of_a_few_pixels_nothing_is_said(shape):
    assert find_uneven_part(texture()[:60, : shape[1], : shape[2]]) == []


def test_copies_of_slices_are_told_and_blank_slices_are_none():
    voxels = slices().astype(np.float32)
    assert find_copies(voxels) == []
    voxels[:12] = 0
    assert find_copies(voxels) == []
    for order, count in ((np.arange(60).repeat(2), 48), (np.r_[0:31, 30:60], 1), (np.r_[0:60, 59], 1)):
        (found,) = find_copies(voxels[order])
        assert (found.code, found.figures["count"]) == ("copies", count)


def test_of_two_kinds_of_breaks_the_missing_slices_are_told():
    for voxels, code, order in (
        (slices(), "jumps", spoilt(60)["eight missing"]),
        (texture(size=5.0), "uneven", half_thinned(80, first=True)),
    ):
        assert find_breaks(voxels) == [] and find_breaks(voxels[:20]) == []
        (found,) = find_breaks(voxels[order])
        assert found.code == code


def test_slices_that_are_blank_or_fade_out_are_no_jump():
    voxels = slices()
    voxels[:12] = 0
    voxels[-3:] *= 0.1
    assert find_jumps(voxels) == []
    assert find_jumps(np.zeros((60, 20, 20))) == [] and find_jumps(voxels[:20]) == []


@pytest.mark.parametrize(
    "name",
    [
        "ct_thorax/ct",
        "chest_ct/contrast",
        "chest_ct/plain_4mm",
        "chest_ct/plain_5mm",
        "chest_ct/plain_ringing",
        "mr_left_atrium/mr_000_image",
        "mr_left_atrium/mr_009_image",
        "mr_refused/mr_01_image",
        "mr_cine_4d/phase_00",
        "no_heart/ct_abdomen",
    ],
)
def test_real_stacks_are_not_suspected_and_spoilt_ones_are(name):
    path = DATA / f"{name}.nii.gz"
    if not path.exists():
        pytest.skip(f"no real data: {path} is missing (set MKD_DATA)")
    voxels = sitk.GetArrayFromImage(read_volume(path))
    assert find_jumps(voxels) == [] and find_uneven_part(voxels) == []
    if name.startswith("mr_"):  # the noise of CT hides it in half of them
        for first in (True, False):
            assert find_uneven_part(voxels[half_thinned(len(voxels), first=first)])
    for kind, order in spoilt(len(voxels)).items():
        is_finer_than_detail = kind == "odd after even" and name == "mr_cine_4d/phase_00"
        is_coarse = kind == "one missing" and min(voxels.shape[1:]) < 80
        if not (is_finer_than_detail or is_coarse):
            assert find_jumps(voxels[order]), kind
