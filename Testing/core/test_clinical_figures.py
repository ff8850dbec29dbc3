"""Diameters, wall thickness, indexed volumes, normal ranges: against solids whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest

from mkd_core.measure.clinical_figures import (
    NAMES,
    ClinicalFigure,
    HeartGeometry,
    clinical_figures,
    measure_geometry,
    name_of,
    phase_text,
    untrusted,
)
from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.messages import finding
from mkd_core.measure.patient import CardiacPhase, Patient, phase_percent
from mkd_core.measure.reference_values import reference_range
from mkd_core.measure.vessel_diameter import VesselDiameter
from mkd_core.measure.wall_thickness import WALL_KEYS, WallThickness
from mkd_core.protocol import Finding
from mkd_core.structures import BY_KEY, STRUCTURES, labelled
from Testing.support.solid_heart import ANTERIOR, AORTA_MM, TO_APEX, TO_SEPTUM, TRUNK_MM, WALL_MM, phantom, turned


def measured(labels: np.ndarray, affine: np.ndarray) -> HeartGeometry:
    return measure_geometry(HeartGrid.of(labels, affine, STRUCTURES))


def test_a_grid_is_the_same_for_what_does_not_depend_on_the_structure_that_changed():
    affine, shape = turned((2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (86, 86, 86))
    labels = phantom(affine, shape)
    grid = HeartGrid.of(labels, affine, STRUCTURES)
    other = labels.copy()
    inside = np.argwhere(labels == BY_KEY["LA"].label)
    other[tuple(inside[len(inside) // 2])] = 0
    changed = HeartGrid.of(other, affine, STRUCTURES)
    assert changed.is_same_for(grid, ("AA", "LV")) and changed.is_same_for(grid, ("PA", "RV"))
    shifted = affine.copy()
    shifted[2, 3] += 1.0
    for same, keys in (
        (changed, ("LV", "LA")),
        (HeartGrid.of(labels, shifted, STRUCTURES), ("AA",)),
        (HeartGrid.of(labels, affine, STRUCTURES, at_edge={"AA"}), ("AA",)),
        (HeartGrid.of(labels[:60], affine, STRUCTURES), ("LV",)),
    ):
        assert not same.is_same_for(grid, keys), keys
    assert not grid.is_same_for(None, ())


GRIDS = {
    "upright": turned((2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (86, 86, 86)),
    "oblique, thick slices": turned((1.6, 1.6, 2.5), size=(72, 108, 108)),
}


@pytest.fixture(scope="module", params=list(GRIDS))
def geometry(request) -> HeartGeometry:
    affine, shape = GRIDS[request.param]
    return measured(phantom(affine, shape), affine)


def test_diameters_are_those_of_the_tubes_on_any_grid_and_their_lines_lie_across(geometry):
    for found, diameter, way in (
        (geometry.aorta, AORTA_MM, [-0.2, 0.1, 1.0]),
        (geometry.pulmonary_artery, TRUNK_MM, [0.35, -0.5, 1.0]),
    ):
        assert isinstance(found, VesselDiameter), found
        assert found.diameter_mm == pytest.approx(diameter, abs=0.8)
        first, second = np.array(found.line)
        assert np.linalg.norm(second - first) == pytest.approx(found.diameter_mm, abs=0.01)
        across = (second - first) / np.linalg.norm(second - first)
        assert abs(across @ np.array(way) / np.linalg.norm(way)) < 0.12
        assert abs(np.dot(found.direction, way)) / np.linalg.norm(way) > 0.98


def test_the_line_of_the_aorta_lies_in_the_world_where_the_aorta_is(geometry):
    aorta = geometry.aorta
    root, way = -20.0 * TO_APEX + 12.0 * ANTERIOR, np.array([-0.2, 0.1, 1.0]) / np.linalg.norm([-0.2, 0.1, 1.0])
    for end in np.array(aorta.line):
        off = end - root - (end - root) @ way * way
        assert np.linalg.norm(off) == pytest.approx(0.5 * AORTA_MM, abs=1.5)


def test_a_uniform_wall_has_its_thickness_in_all_segments(geometry):
    wall = geometry.wall
    assert isinstance(wall, WallThickness), wall
    assert wall.mean_mm == pytest.approx(WALL_MM, abs=0.5)
    assert set(wall.segments) == set(range(1, 18))
    assert all(abs(value - WALL_MM) < 1.0 for value in wall.segments.values()), wall.segments


@pytest.mark.parametrize(
    ("direction", "basal"),
    [(TO_SEPTUM, {2, 3}), (-TO_SEPTUM, {5, 6}), (ANTERIOR, {1, 2, 6}), (-ANTERIOR, {3, 4, 5})],
    ids=["septum", "lateral", "anterior", "inferior"],
)
@pytest.mark.parametrize("flip", [(), (0,)], ids=["as is", "mirrored array"])
def test_a_thick_wall_is_thick_in_the_segments_that_anatomy_calls_so_however_the_array_is_stored(
    direction, basal, flip
):
    affine, shape = turned((2.2, 2.2, 2.2), size=(64, 64, 64))
    labels = phantom(affine, shape, (direction, 5.0))
    for axis in flip:  # the same heart at the same place in the world, stored the other way round
        labels = np.flip(labels, axis)
        column = 2 - axis
        affine = affine.copy()
        affine[:3, 3] += affine[:3, column] * (shape[axis] - 1)
        affine[:3, column] *= -1.0
    wall = measured(labels, affine).wall
    ring = {number: wall.segments[number] for number in range(1, 7)}
    thickest = sorted(ring, key=ring.__getitem__)[-2:]
    assert set(thickest) <= basal, ring
    assert wall.largest_mm == pytest.approx(WALL_MM + 5.0, abs=1.0)


def test_a_wall_is_as_thick_where_the_appendage_has_a_label_of_its_own():
    affine, shape = GRIDS["upright"]
    labels = phantom(affine, shape)
    whole = HeartGrid.of(labels, affine, STRUCTURES)
    structures = labelled([*(structure.key for structure in STRUCTURES), "LAA"])
    atrium = np.argwhere(labels == BY_KEY["LA"].label)
    part = atrium[atrium[:, 2] > np.median(atrium[:, 2])]
    labels[tuple(part.T)] = structures[-1].label
    apart = HeartGrid.of(labels, affine, structures)
    assert apart.mask("LAA").any()
    assert measure_geometry(apart).wall == measure_geometry(whole).wall
    assert not apart.is_same_for(whole, WALL_KEYS) and "LAA" in WALL_KEYS


def test_what_is_missing_cut_or_apart_is_not_measured_and_says_why():
    affine, shape = GRIDS["upright"]
    labels = phantom(affine, shape)

    def without(key: str) -> HeartGeometry:
        return measured(np.where(labels == BY_KEY[key].label, 0, labels), affine)

    assert without("AA").aorta == finding("figure_needs_structure", structure="AA")
    assert without("LV").aorta == finding("figure_needs_structure", structure="LV")
    assert without("Myo").wall == finding("figure_needs_structure", structure="Myo")
    no_septum = without("RV").wall
    assert no_septum.mean_mm == pytest.approx(WALL_MM, abs=0.5)
    assert no_septum.segments == {} and no_septum.no_segments == finding("no_septum")
    nothing = measured(np.zeros_like(labels), affine)
    assert all(isinstance(one, Finding) for one in (nothing.aorta, nothing.pulmonary_artery, nothing.wall))

    middle = measured(labels[:, :, : int(np.argwhere(labels == BY_KEY["Myo"].label)[:, 2].mean())], affine).wall
    assert middle == finding("figure_at_edge", structure="Myo" if middle.structure == "Myo" else "LV")
    away = labels.copy()
    near = np.argwhere(labels == BY_KEY["AA"].label)
    low = near[near[:, 0] < near[:, 0].min() + 16]
    away[tuple(low.T)] = 0
    assert measured(away, affine).aorta == finding("vessel_unattached", structure="AA", first="LV")


def test_an_open_wall_has_no_thickness():
    affine, shape = GRIDS["upright"]
    labels = phantom(affine, shape)
    muscle = np.argwhere(labels == BY_KEY["Myo"].label)
    labels[tuple(muscle[muscle[:, 1] > np.median(muscle[:, 1]) - 8].T)] = 0
    found = measured(labels, affine).wall
    assert isinstance(found, Finding) and found.code == "wall_open" and found.figures["fraction"] < 0.5


def test_the_grid_keeps_volumes_and_places_of_sheared_and_fine_label_maps():
    affine, shape = GRIDS["upright"]
    labels = phantom(affine, shape)
    sheared = affine.copy()
    sheared[0, 2] = 0.25  # the slices lean, as under a tilted gantry
    grid = HeartGrid.of(phantom(sheared, shape), sheared, STRUCTURES)
    for key in ("LV", "Myo"):
        expected = np.count_nonzero(labels == BY_KEY[key].label) * 2.0**3
        assert np.count_nonzero(grid.mask(key)) * grid.spacing**3 == pytest.approx(expected, rel=0.04)
    assert grid.to_world(np.argwhere(grid.mask("LV"))).mean(axis=0) @ TO_APEX == pytest.approx(5.0, abs=6.0)
    assert measured(phantom(sheared, shape), sheared).aorta.diameter_mm == pytest.approx(AORTA_MM, abs=0.9)


# ---- the figures ----

VOLUMES = {"LV": 160.0, "RV": 170.0, "LA": 80.0, "RA": 85.0, "Myo": 120.0, "AA": 60.0, "PA": 55.0}
GEOMETRY = HeartGeometry(
    VesselDiameter(33.4, 32.0, 35.0, ((0.0, 0.0, 0.0), (33.4, 0.0, 0.0)), (0.0, 0.0, 1.0)),
    VesselDiameter(26.6, 25.0, 28.0, ((0.0, 0.0, 0.0), (26.6, 0.0, 0.0)), (0.0, 0.0, 1.0)),
    WallThickness(8.2, 11.0, dict.fromkeys(range(1, 18), 8.0)),
)
MAN = Patient(height_m=1.8, weight_kg=80.0, sex="M", age_years=50.0)
MID_DIASTOLE = CardiacPhase.at(75.0)


def by_key(*arguments, **keywords) -> dict[str, ClinicalFigure]:
    figures = clinical_figures(*arguments, **keywords)
    assert [figure.key for figure in figures] == list(NAMES)
    assert all((figure.value is None) == (figure.reason is not None) for figure in figures)
    return {figure.key: figure for figure in figures}


def test_volumes_are_indexed_by_body_surface_after_mosteller():
    assert MAN.bsa_m2 == pytest.approx(2.0)
    figures = by_key(VOLUMES, GEOMETRY, MAN, "CT", MID_DIASTOLE)
    assert figures["LV_index"].text == "80 ml/m²" and figures["LV_index"].verdict == "normal"
    assert figures["mass_index"].text == "63 g/m²"
    assert figures["RV_LV_ratio"].text == "1.06"
    assert figures["AA_diameter"].text == "33 mm" and figures["PA_AA_ratio"].text == "0.80"


def test_without_a_body_size_volumes_are_not_indexed_and_the_rest_is_given():
    figures = by_key(VOLUMES, GEOMETRY, Patient(sex="F"), "CT", MID_DIASTOLE)
    assert all(figures[f"{key}_index"].reason.code == "needs_body_size" for key in ("LV", "RV", "LA", "RA", "mass"))
    assert figures["PA_diameter"].reference.text(1) == "≤ 26.9" and figures["PA_diameter"].verdict == "normal"


@pytest.mark.parametrize("key", ["LV", "RV", "AA", "PA", "Myo"])
def test_no_figure_is_made_of_what_is_doubted_or_not_there(key):
    made_of = {
        "LV": {"LV_index", "RV_LV_ratio", "wall_mean", "wall_largest"},
        "RV": {"RV_index", "RV_LV_ratio"},
        "AA": {"AA_diameter", "PA_AA_ratio"},
        "PA": {"PA_diameter", "PA_AA_ratio"},
        "Myo": {"mass_index", "wall_mean", "wall_largest"},
    }[key]
    for figures in (
        by_key(VOLUMES, GEOMETRY, MAN, "CT", MID_DIASTOLE, doubted=frozenset({key})),
        by_key(VOLUMES | {key: 0.0}, GEOMETRY, MAN, "CT", MID_DIASTOLE),
    ):
        assert {name for name, figure in figures.items() if figure.value is None} == made_of


def test_a_chamber_that_the_edge_cuts_has_no_index():
    figures = by_key(VOLUMES, GEOMETRY, MAN, "CT", MID_DIASTOLE, at_edge=frozenset({"RV"}))
    assert {key for key, one in figures.items() if one.value is None} == {"RV_index", "RV_LV_ratio"}


def test_a_structure_with_too_little_agreement_and_a_heart_the_wrong_way_round_are_not_trusted():
    low = finding("agreement_very_low", structure="LA", agreement=0.3, limit=0.6)
    assert untrusted({"LA": [low], "LV": [finding("separate_parts", structure="LV", count=2)]}) == {"LA"}
    for doubt in (finding("mirrored"), finding("hole", ml=14.0), finding("uneven", from_slice=40)):
        assert "AA" in untrusted({None: [doubt]})


def test_figures_of_a_small_heart_are_given_and_those_of_an_impossible_one_are_not():
    small = {"ml": 300.0, "smallest_ml": 380.0, "largest_ml": 1400.0}
    assert not untrusted({None: [finding("heart_volume", **small)]})
    assert "AA" in untrusted({None: [finding("heart_volume", severity="red", **small)]})


def test_ranges_hold_only_for_their_modality_sex_age_and_phase():
    def limits(figure, modality="CT", patient=MAN, phase=MID_DIASTOLE):
        found = reference_range(figure, modality, patient, phase)
        return found and found.text(1)

    assert limits("LV_index") == "≤ 97.0" and limits("LV_index", patient=Patient(sex="F")) == "≤ 83.0"
    assert limits("LV_index", patient=Patient()) is None
    assert limits("LV_index", patient=Patient(sex="M", age_years=12.0)) is None
    assert limits("LV_index", phase=CardiacPhase()) is None
    assert limits("LV_index", phase=CardiacPhase.at(40.0)) is None
    assert limits("LV_index", "MR") is None and limits("LV_index", "MR", phase=CardiacPhase.at(0.0)) == "57.0–105.0"
    assert limits("AA_diameter", "MR") is None
    assert limits("PA_AA_ratio") == "≤ 0.9"
    found = reference_range("PA_diameter", "CT", MAN, CardiacPhase())
    assert "Truong" in found.source and "CT" in found.method


def test_a_verdict_is_that_of_the_numbers_that_are_shown():
    figures = by_key(VOLUMES | {"LV": 194.9}, GEOMETRY, MAN, "CT", MID_DIASTOLE)
    assert figures["LV_index"].text == "97 ml/m²" and figures["LV_index"].verdict == "normal"
    assert by_key(VOLUMES | {"LV": 196.0}, GEOMETRY, MAN, "CT", MID_DIASTOLE)["LV_index"].verdict == "high"


def test_the_phase_is_that_of_the_dicom_tags_or_unknown():
    assert CardiacPhase.from_tags({"0020|9241": "75"}) == CardiacPhase("diastole", 75.0, "DICOM")
    assert CardiacPhase.from_tags({"0018|1060": "320", "0018|1062": "800"}).name == "end-systole"
    assert CardiacPhase.from_tags({"0008|103e": "CTA 0.75 Bv40 BestDiast 74 %"}).percent == 74.0
    assert CardiacPhase.from_tags({"0008|103e": "CTA 35% - 75%"}).name == "unknown"
    assert CardiacPhase.from_tags({"0018|1060": "320"}).name == "unknown"
    assert CardiacPhase.from_tags({"0020|9241": "nonsense", "0018|1062": "-1"}).name == "unknown"
    assert CardiacPhase.from_tags({"0008|103e": "CTA Heart ASIR-V 40 %"}).name == "unknown"
    assert phase_text(CardiacPhase()) == "Cardiac phase unknown: neither ED nor ES"
    figure = by_key(VOLUMES, GEOMETRY, MAN, "CT", MID_DIASTOLE)["LV_index"]
    assert name_of(figure, CardiacPhase()) == "LV volume index" and "ED" in name_of(figure, CardiacPhase.at(0.0))


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("CTA 75 % ASIR-V 40 %", 75.0),
        ("ASiR-V40% 75%", 75.0),
        ("75% 40% ASIR", 75.0),
        ("CTA_ASIR 40.0 %", None),
        ("SAFIRE (40 %)", None),
        ("BestDiast 75 % ADMIRE 3", 75.0),
        ("ADMIRE 3 75 %", 75.0),
        ("iDose4 40 %", 40.0),
        ("iDose (4) 75%", 75.0),
        ("AIDR 3D 75 %", 75.0),
        ("VEO 30 %", None),
        ("Video 30 %", 30.0),
        ("CTA 35% - 75%", None),
        ("75 % CTA 75%", 75.0),
        ("CTA 75%-35%", None),
        ("CTA 35-75 %", None),
        ("CTA -20 %", None),
        ("CTA-75%", 75.0),
    ],
)
def test_strengths_of_noise_reduction_are_no_phase(text, percent):
    assert phase_percent([text]) == percent


def test_the_phase_is_that_of_the_first_text_that_has_one():
    assert phase_percent(["CTA 35% - 75%", "ASIR 40 %", "75 %", "40 %"]) == 75.0
    assert phase_percent([]) is None


def test_the_patient_is_read_from_dicom_tags_and_nonsense_is_left_out():
    tags = {"0010|0040": "F ", "0010|1010": "064Y", "0010|1020": "1.65", "0010|1030": "62.5"}
    assert Patient.from_tags(tags) == Patient(1.65, 62.5, "F", 64.0)
    assert Patient.from_tags({"0010|0040": "O", "0010|1020": "165", "0010|1030": "0", "0010|1010": "x"}) == Patient()
