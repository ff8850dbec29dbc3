"""Diameters of the aorta beyond its ascending part: against tubes whose measures are known, whole and cut."""

from __future__ import annotations

import numpy as np
import pytest

from mkd_core.measure.clinical_figures import clinical_figures, measure_geometry, name_of
from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.measure.vessel_diameter import AORTIC_LEVELS, VesselDiameter, aorta_diameters
from mkd_core.protocol import Finding
from mkd_core.structures import DETAILED, STRUCTURES, labelled, with_parts

EVERY = labelled((*(structure.key for structure in STRUCTURES), *DETAILED))
LABEL = {structure.key: structure.label for structure in EVERY}
ARCH_MM, DESCENDING_MM, BEND_MM = 28.0, 23.0, 32.0

#: The arch's middle, (x, y, z) mm; the ascending aorta runs up before it (small y), the descending one down behind.
MIDDLE = np.array([40.0, 66.0, 110.0])


def heart(spacing=(1.5, 1.5, 1.5), shape=(112, 84, 54)) -> tuple[np.ndarray, np.ndarray]:
    """A ball for the left ventricle, one for the pulmonary artery, an aorta with two branches of its arch."""
    z, y, x = (step * np.arange(count) for step, count in zip(spacing[::-1], shape))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    dy, dz = y - MIDDLE[1], z - MIDDLE[2]
    labels = np.zeros(shape, np.uint8)
    beside = x - MIDDLE[0]
    labels[beside**2 + (dy + BEND_MM) ** 2 + (z - 32) ** 2 < 24**2] = LABEL["LV"]
    labels[(beside - 8) ** 2 + dy**2 + (z - 84) ** 2 < 13**2] = LABEL["PA"]
    up = (beside**2 + (dy + BEND_MM) ** 2 < (ARCH_MM / 2) ** 2) & (dz < 0) & (z > 55)
    labels[up] = LABEL["AA"]
    bend = (np.sqrt(dy**2 + dz**2) - BEND_MM) ** 2 + beside**2 < (ARCH_MM / 2) ** 2
    down = (beside**2 + (dy - BEND_MM) ** 2 < (DESCENDING_MM / 2) ** 2) & (dz < 0)
    branches = sum((beside**2 + (dy - at) ** 2 < 4.0**2) for at in (-8.0, 10.0)) > 0
    labels[(bend & (dz >= 0)) | down | (branches & (dz > BEND_MM))] = LABEL["DAo"]
    affine = np.diag((*spacing, 1.0))
    return labels, affine


def diameters(labels: np.ndarray, affine: np.ndarray) -> dict:
    return aorta_diameters(HeartGrid.of(labels, affine, EVERY))


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (1.0, 1.5, 2.0)])
def test_diameters_are_those_of_the_tubes_whatever_branches_off(spacing):
    shape = tuple(round(side / step) for side, step in zip((168, 126, 81), spacing[::-1]))
    found = diameters(*heart(spacing, shape))
    assert found["arch"].diameter_mm == pytest.approx(ARCH_MM, abs=1.2)
    assert found["descending"].diameter_mm == pytest.approx(DESCENDING_MM, abs=0.8)
    assert abs(found["descending"].direction[2]) > 0.97 and abs(found["arch"].direction[2]) < 0.3
    ends = np.array(found["descending"].line)
    assert np.linalg.norm(ends.mean(axis=0)[:2] - [MIDDLE[0], MIDDLE[1] + BEND_MM]) < 2.0
    assert ends.mean(axis=0)[2] == pytest.approx(84.0, abs=3.0), "at the height of the pulmonary artery"


def test_what_is_cut_or_missing_has_a_reason_in_place_of_a_diameter():
    labels, affine = heart()
    for what, expected in (
        (np.s_[int((MIDDLE[2] + BEND_MM) / 1.5) :], {"arch"}),  # the box ends within the arch
        (np.s_[:, int((MIDDLE[1] + BEND_MM) / 1.5) :], {"descending"}),  # and halves the descending aorta
    ):
        cut = labels.copy()
        cut[what] = 0
        found = diameters(cut, affine)
        assert {level for level in AORTIC_LEVELS if isinstance(found[level], Finding)} == expected
    for key in ("PA", "DAo", "LV"):
        found = diameters(np.where(labels == LABEL[key], 0, labels), affine)
        assert {one.code for one in found.values()} == {"figure_needs_structure"}
    short = labels.copy()
    short[: int(90 / 1.5)][short[: int(90 / 1.5)] == LABEL["DAo"]] = 0
    assert diameters(short, affine)["descending"].code == "figure_at_edge"


def test_the_figures_follow_only_where_the_aorta_is_segmented():
    labels, affine = heart()
    volumes = {"LV": 60.0, "PA": 9.0, "AA": 30.0, "DAo": 80.0}
    seven = np.where(labels == LABEL["DAo"], 0, labels)
    patient, phase = Patient(), CardiacPhase()
    names = []
    for one in (labels, seven):
        geometry = measure_geometry(HeartGrid.of(one, affine, EVERY))
        figures = clinical_figures(volumes, geometry, patient, "CT", phase)
        names.append([name_of(figure, phase) for figure in figures])
        if one is labels:
            shown = {figure.key: figure.text for figure in figures}
            assert isinstance(geometry.aorta_beyond["arch"], VesselDiameter)
            assert shown["descending_diameter"] == f"{DESCENDING_MM:.0f} mm" and shown["arch_diameter"].endswith("mm")
            doubted = clinical_figures(volumes, geometry, patient, "CT", phase, doubted=frozenset({"DAo"}))
            assert [figure.reason.code for figure in doubted[-2:]] == ["figure_doubted"] * 2
    assert names[0] == [*names[1], "Aortic arch", "Descending aorta"]


def test_an_atrium_has_its_appendage_in_whichever_way_it_is_labelled():
    assert with_parts({"LA": 60.0, "LAA": 8.0, "LV": 90.0}) == {"LA": 68.0, "LAA": 8.0, "LV": 90.0}
    assert with_parts({"LAA": 8.0, "LA": 0.0}) == {"LAA": 8.0, "LA": 0.0}
    patient = Patient(1.8, 80.0, "M")
    geometry = measure_geometry(None)
    both, whole = (
        {one.key: one.value for one in clinical_figures(ml, geometry, patient, "CT", CardiacPhase())}
        for ml in ({"LA": 60.0, "LAA": 8.0}, {"LA": 68.0})
    )
    assert both["LA_index"] == pytest.approx(whole["LA_index"]) and both["LA_index"] > 0
