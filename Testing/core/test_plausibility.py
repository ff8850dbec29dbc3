"""Rules that hold in every heart: silent on a heart, loud where one is broken."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.inference.geometry import OrientedVolume
from mkd_core.inference.localisation import SHORT_AXIS, STACK_DIRECTIONS
from mkd_core.inference.self_test import draw_phantom
from mkd_core.measure import plausibility
from mkd_core.measure.heart_stretch import stretch_of
from mkd_core.measure.quantify import Measurement
from mkd_core.structures import BY_KEY, STRUCTURES

SPACING = 2.0
VOLUMES = {"LV": 150.0, "RV": 160.0, "LA": 80.0, "RA": 90.0, "Myo": 120.0, "AA": 60.0, "PA": 60.0}
HU = {"LV": 400.0, "RV": 300.0, "LA": 410.0, "RA": 280.0, "Myo": 100.0, "AA": 390.0, "PA": 320.0}


@pytest.fixture
def labels():
    """A drawn heart, ``(D, H, W)``, on voxels of 2 mm."""
    return draw_phantom("CT", SPACING, (64, 48, 64))[1].copy()


def measured(**changes: dict) -> dict[str, Measurement]:
    """Figures of a healthy heart in CT, with changes by structure."""
    figures = {key: Measurement(VOLUMES[key], HU[key], False, 1, 0.95, (0.0, 0.0, 0.0)) for key in VOLUMES}
    for key, change in changes.items():
        figures[key] = dataclasses.replace(figures[key], **change)
    return figures


def codes(figures, shape=None, modality="CT", width=None) -> list[str]:
    """Codes of what is found in the heart as a whole."""
    return [finding.code for finding in plausibility.heart_findings(figures, shape, modality, width)]


def structure_codes(figures, modality="CT") -> dict[str, list[str]]:
    """Codes of what is found in single structures."""
    found = plausibility.structure_findings(figures, modality)
    return {key: [finding.code for finding in findings] for key, findings in found.items()}


def test_nothing_is_said_of_a_heart(labels):
    shape = plausibility.heart_shape(labels, SPACING)
    assert codes(measured(), shape, "CT", 350.0) == []
    assert structure_codes(measured()) == {}
    assert shape.wall_fraction > 0.9
    assert all(contact > 50 for contact in shape.contacts_mm2.values())


def test_nothing_labelled_has_no_shape():
    assert plausibility.heart_shape(np.zeros((8, 8, 8), np.uint8), SPACING) is None


def test_a_ventricle_without_its_wall_is_doubted(labels):
    myocardium = labels == BY_KEY["Myo"].label
    labels[myocardium & (np.arange(labels.shape[2]) > np.argwhere(myocardium)[:, 2].mean())] = 0
    shape = plausibility.heart_shape(labels, SPACING)
    assert shape.wall_fraction < 0.9
    assert "wall_open" in codes(measured(), shape)


@pytest.mark.parametrize(("moved", "partner"), [("LA", "LV"), ("RA", "RV"), ("PA", "RV"), ("AA", "LV")])
def test_chambers_that_do_not_touch_where_their_valve_is_are_doubted(labels, moved, partner):
    gap = labels == BY_KEY[moved].label
    labels[gap] = 0
    apart = np.pad(labels, ((0, 20), (0, 0), (0, 0)))
    block = np.flatnonzero(gap.any(axis=(1, 2)))
    apart[-15:-5, 10:30, 10:30] = BY_KEY[moved].label
    assert block.size
    shape = plausibility.heart_shape(apart, SPACING)
    findings = [one for one in plausibility.heart_findings(measured(), shape, "CT") if one.code == "apart"]
    pairs = [{one.figures["first"], one.figures["second"]} for one in findings]
    assert {moved, partner} in pairs


def test_nothing_is_said_of_valves_beyond_the_field_of_view(labels):
    labels[labels == BY_KEY["PA"].label] = 0
    shape = plausibility.heart_shape(labels, SPACING)
    assert "apart" in codes(measured(), shape)
    assert "apart" not in codes(measured(PA={"touches_border": True}), shape)
    assert "apart" not in codes(measured(PA={"volume_ml": 1.0}), shape)


def test_a_heart_stretched_by_a_wrong_voxel_size_is_doubted(labels):
    stretched = np.repeat(labels, 2, axis=0)
    assert "stretched" in codes(measured(), plausibility.heart_shape(stretched, SPACING))
    assert "stretched" not in codes(measured(), plausibility.heart_shape(labels, SPACING))


@pytest.mark.parametrize(("axis", "code"), list(enumerate(["stretched_z", "stretched_y", "stretched_x"])))
@pytest.mark.parametrize("times", [0.65, 1.5])
def test_voxels_said_to_be_longer_or_shorter_along_one_axis_than_they_are_are_doubted(labels, axis, code, times):
    steps = np.full(3, SPACING)
    steps[axis] *= times
    (doubt,) = plausibility.stretch_findings(stretch_of(labels, steps))
    assert doubt.code == code and 0.8 < doubt.figures["ratio"] / times < 1.25


def test_a_heart_is_not_called_stretched_for_its_size_or_what_lies_beyond_the_field_of_view(labels):
    for times in (0.6, 1.0, 1.7):
        assert not plausibility.stretch_findings(stretch_of(labels, np.full(3, times * SPACING)))
    shape = plausibility.heart_shape(np.repeat(labels, 2, axis=0), SPACING)
    assert "stretched_z" in codes(measured(), shape)
    assert "stretched_z" in codes(measured(AA={"touches_border": True}), shape), "vessels are often cut"
    assert "stretched_z" not in codes(measured(LV={"touches_border": True}), shape), "part of it may be cut off"
    labels[labels == BY_KEY["RA"].label] = 0
    assert stretch_of(labels, np.full(3, SPACING)) is None


def short_axis_labels(sides: tuple[float, float]) -> np.ndarray:
    """A left ventricle in its wall in eight slices along the third axis, with half axes in pixels."""
    y, x = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5, indexing="ij")
    radius = np.hypot(y / sides[0], x / sides[1])
    plane = np.where(radius < 0.7, BY_KEY["LV"].label, np.where(radius < 1.0, BY_KEY["Myo"].label, 0))
    return np.repeat(plane[..., None], 8, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("sides", "severity"), [((20, 20), None), ((20, 17), None), ((20, 14.5), "amber"), ((14, 22), "red")]
)
def test_a_left_ventricle_that_is_no_circle_in_short_axis_slices_is_doubted(sides, severity):
    image = sitk.Image([8, 64, 64], sitk.sitkInt16)
    image.SetSpacing([8.0, 1.5, 1.5])
    for name in SHORT_AXIS:
        volume = OrientedVolume(image, STACK_DIRECTIONS[name][:, [2, 1, 0]])
        labels = np.moveaxis(short_axis_labels(sides), 2, 0) if volume.spacing[0] > 2 else short_axis_labels(sides)
        if volume.spacing[1] > 2:
            labels = np.moveaxis(short_axis_labels(sides), 2, 1)
        found = plausibility.oval_findings(labels, volume)
        assert [one.severity for one in found] == ([severity] if severity else [])
    assert not plausibility.oval_findings(short_axis_labels(sides), OrientedVolume(image)), "no short-axis slices"


def test_thick_voxels_do_not_change_what_the_shape_says(labels):
    fine, coarse = stretch_of(labels, np.full(3, SPACING)), stretch_of(labels[2::4], SPACING * np.array([4, 1, 1]))
    assert abs(fine.height - coarse.height) < 0.05 and abs(fine.breadth - coarse.breadth) < 0.05


@pytest.mark.parametrize(
    ("total", "severity"), [(200, "red"), (295, "amber"), (365, "amber"), (400, None), (1500, "amber"), (1900, "red")]
)
def test_a_heart_that_is_too_small_or_large_as_a_whole_is_doubted(total, severity):
    factor = total / sum(VOLUMES.values())
    figures = measured(**{key: {"volume_ml": ml * factor} for key, ml in VOLUMES.items()})
    found = plausibility.heart_findings(figures, None, "CT")
    assert [(one.code, one.severity) for one in found] == ([("heart_volume", severity)] if severity else [])


def test_a_small_rest_of_a_heart_is_not_doubted_where_the_field_of_view_cuts_it():
    figures = measured(**{key: {"volume_ml": 0.3 * ml} for key, ml in VOLUMES.items()})
    figures["LV"] = dataclasses.replace(figures["LV"], touches_border=True)
    assert codes(figures) == []


@pytest.mark.parametrize("offset", [200.0, -200.0])
def test_ct_numbers_with_an_offset_are_doubted(offset):
    shifted = measured(**{key: {"mean_intensity": value + offset} for key, value in HU.items()})
    assert codes(shifted) == ["muscle_hu"]
    assert codes(shifted, modality="MR") == []


def test_blood_of_the_left_heart_must_be_equally_bright():
    assert structure_codes(measured(LA={"mean_intensity": 150.0})) == {"LA": ["blood_differs"]}
    plain = {key: {"mean_intensity": 45.0} for key in HU}
    assert structure_codes(measured(**plain)) == {}


def test_blood_without_contrast_agent_is_not_darker_than_fat():
    assert structure_codes(measured(RA={"mean_intensity": 40.0})) == {}
    assert structure_codes(measured(RA={"mean_intensity": -60.0})) == {"RA": ["blood_dark"]}


def test_muscle_as_bright_as_blood_in_mr_is_doubted():
    assert structure_codes(measured(), "MR") == {}
    bright = measured(Myo={"mean_intensity": 500.0})
    assert structure_codes(bright, "MR") == {"LV": ["muscle_bright"], "Myo": ["muscle_bright"]}


def test_a_heart_in_a_body_of_impossible_width_is_doubted(labels):
    shape = plausibility.heart_shape(labels, SPACING)
    assert codes(measured(), shape, "CT", 150.0) == ["body_width"]
    assert codes(measured(), shape, "CT", 640.0) == ["heart_width"]


def test_the_width_of_a_body_is_measured_where_air_is_seen_on_both_sides():
    plane = np.full((100, 200), -1000.0)
    plane[20:80, 30:150] = 40.0
    plane[40:60, 50:90] = -850.0
    assert plausibility.body_width_mm(plane, 2.0) == pytest.approx(240.0)
    assert plausibility.body_width_mm(plane[:, 60:], 2.0) is None
    assert plausibility.body_width_mm(np.full((50, 50), -1000.0), 2.0) is None
    between_lungs = np.where(plane < -900, -850.0, plane)
    assert plausibility.body_width_mm(between_lungs, 2.0) is None


def test_a_second_heart_is_seen_and_a_stray_piece_is_not(labels):
    twice = np.concatenate([labels, np.zeros_like(labels[:4]), labels])
    assert plausibility.second_heart_ml(labels, 0.008) == 0.0
    assert plausibility.second_heart_ml(twice, 0.008) == pytest.approx(np.count_nonzero(labels) * 0.008)
    twice[len(labels) :][twice[len(labels) :] > 0] = BY_KEY["AA"].label
    assert plausibility.second_heart_ml(twice, 0.008) == 0.0


def test_normal_values_lie_inside_the_plausible_ranges():
    # Mean of men and of women; sources are named in mkd_core.structures.
    normal = {"LV": (160, 135), "RV": (190, 148), "LA": (103, 89), "Myo": (134 / 1.05, 98 / 1.05)}
    for structure in STRUCTURES:
        low, high = structure.plausible_ml
        assert 0 < low < high
        for value in normal.get(structure.key, ()):
            assert 1.5 * low < value < 0.75 * high


def test_weights_that_know_fewer_structures_are_not_blamed_for_it(labels):
    labels[labels == BY_KEY["Myo"].label] = 0
    labels[labels == BY_KEY["PA"].label] = 0
    unknown = {"volume_ml": 0.0, "mean_intensity": None, "centre": None, "agreement": None}
    assert codes(measured(Myo=unknown, PA=unknown), plausibility.heart_shape(labels, SPACING)) == []


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("air", [0.0, -3000.0], ids=["as it is", "beside dark lung"])
def test_a_blurred_heart_is_doubted_and_a_sharp_or_noisy_one_is_not(modality, air, labels):
    values = draw_phantom(modality, SPACING, (64, 48, 64))[0]
    values = np.where(ndimage.binary_dilation(labels > 0, iterations=2), values, values + air)
    assert plausibility.blur_findings(values, labels, SPACING) == []
    noisy = values + np.random.default_rng(1).normal(0, 30, values.shape)
    assert plausibility.blur_findings(noisy, labels, SPACING) == []
    (found,) = plausibility.blur_findings(ndimage.gaussian_filter(values, 2.5), labels, SPACING)
    assert found.code == "blurred" and found.figures["mm"] > 5
    assert plausibility.blur_findings(np.zeros_like(values), labels, SPACING) == []
    assert plausibility.blur_findings(values, np.where(labels == BY_KEY["LV"].label, 0, labels), SPACING) == []


@pytest.mark.parametrize("scale", [1.0, 0.001], ids=["HU", "normalised"])
def test_noise_is_doubted_where_it_is_not_small_beside_what_blood_and_muscle_differ_by(scale, labels):
    values = draw_phantom("CT", SPACING, (64, 48, 64))[0] * scale
    contrast = abs(np.median(values[labels == BY_KEY["LV"].label]) - np.median(values[labels == BY_KEY["Myo"].label]))
    assert plausibility.noise_findings(values, labels) == []
    noise = np.random.default_rng(1).standard_normal(values.shape)
    (found,) = plausibility.noise_findings(values + 0.3 * contrast * noise, labels)
    assert found.code == "noisy" and found.figures["ratio"] == pytest.approx(0.3, abs=0.05)
    assert plausibility.noise_findings(np.zeros_like(values), labels) == []
    assert plausibility.noise_findings(values, np.zeros_like(labels)) == []


def test_a_structure_that_the_localiser_saw_otherwise_is_doubted(labels):
    keys = [structure.key for structure in STRUCTURES]
    atrium, muscle = BY_KEY["LA"].label, BY_KEY["Myo"].label
    coarse = labels.copy()
    middle = int(np.argwhere(labels == atrium)[:, 0].mean())
    coarse[middle - 1 :][labels[middle - 1 :] == atrium] = 0  # less than half of it is left
    coarse[labels == muscle] = 0

    def found(known=keys, voxel_ml=SPACING**3 / 1000) -> list[str]:
        return sorted(plausibility.coarse_findings(coarse, labels, voxel_ml, known))

    assert plausibility.coarse_findings(labels, labels, SPACING**3 / 1000, keys) == {}
    assert found() == ["LA"], "muscle is too thin for the localiser"
    assert found([key for key in keys if key != "LA"]) == []
    assert found(voxel_ml=1e-6) == [], "nothing is said of next to nothing"
