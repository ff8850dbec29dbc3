"""A study's table grows by one row a heart; and a volume with its labels becomes a page in one call."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.measure.cardiac_function import cardiac_function
from mkd_core.measure.clinical_figures import NAMES, ClinicalFigure
from mkd_core.measure.heart_page import heart_page
from mkd_core.measure.messages import finding
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.measure.report_page import report_html
from mkd_core.measure.study_table import COLUMNS, append_row, study_row
from mkd_core.structures import STRUCTURES
from Testing.support.solid_heart import AORTA_MM, phantom, turned

PATIENT, PHASE = Patient(1.8, 80.0, "M", 50.0), CardiacPhase.at(75.0)


@pytest.fixture(scope="module")
def heart() -> tuple[sitk.Image, sitk.Image, dict]:
    """Volume and labels on an oblique grid, and their report."""
    affine, shape = turned((2.4, 2.4, 2.4), size=(60, 64, 64))
    labels = sitk.GetImageFromArray(phantom(affine, shape))
    labels.SetSpacing([2.4] * 3)
    labels.SetDirection((affine[:3, :3] / 2.4).ravel().tolist())
    labels.SetOrigin(affine[:3, 3].tolist())
    counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel(), minlength=8)
    structures = {
        one.key: {"volume_ml": counts[one.label] * 2.4**3 / 1000.0, "agreement": 0.95, "warnings": []}
        for one in STRUCTURES
    }
    report = {"modality": "CT", "structures": structures, "warnings": [], "bundle": {"name": "tiny", "version": "1"}}
    return sitk.Cast(labels > 0, sitk.sitkInt16) * 1000 - 800, labels, report


def test_a_volume_with_its_labels_becomes_a_page(heart):
    image, labels, report = heart
    page = heart_page(image, labels, report, STRUCTURES, person="P 1", patient=PATIENT, phase=PHASE)
    figures = {figure.key: figure for figure in page.figures}
    assert figures["AA_diameter"].value == pytest.approx(AORTA_MM, abs=1.5)
    assert figures["LV_index"].value == pytest.approx(report["structures"]["LV"]["volume_ml"] / 2.0)
    assert list(page.pictures) == ["Axial", "Coronal", "Sagittal"]
    assert all(png.startswith(b"\x89PNG") for png in page.pictures.values())
    assert page.wall is not None and "tiny 1" in report_html(page)


def test_the_page_of_a_doubted_wall_has_no_bulls_eye_and_that_of_nothing_no_pictures(heart):
    image, labels, report = heart
    mirrored = report | {"warnings": [finding("mirrored").to_dict()]}
    page = heart_page(image, labels, mirrored, STRUCTURES)
    assert page.wall is None and all(figure.value is None for figure in page.figures)
    assert "bullseye" not in report_html(page) and page.person == "Not named"
    empty = heart_page(image, labels * 0, report | {"structures": {}}, STRUCTURES)
    assert not empty.pictures and report_html(empty)


def row(heart, **changes) -> dict[str, str]:
    image, labels, report = heart
    page = heart_page(image, labels * 0, report, STRUCTURES, patient=PATIENT, phase=PHASE)
    given = {"person": "P 1", "volume": "CTA", "date": "2026-01-02", "patient": PATIENT, "phase": PHASE} | changes
    return study_row(given.pop("report", report), page.figures, **given)


def test_a_row_says_whose_heart_what_was_measured_and_how(heart):
    frames = [{"structures": {"LV": {"volume_ml": ml}}} for ml in (150.0, 60.0)]
    found = row(heart, function=cardiac_function(frames))
    assert tuple(found) == COLUMNS
    assert (found["person"], found["date"], found["phase_percent"], found["bsa_m2"]) == ("P 1", "2026-01-02", "75", "2")
    assert found["LV_ejection_fraction"] == "0.6" and found["RV_ejection_fraction"] == ""
    assert float(found["LV_ml"]) == pytest.approx(heart[2]["structures"]["LV"]["volume_ml"], rel=1e-4)
    assert found["AA_diameter_mm"] == "" and "LV_index_ml_m2" in found and found["weights"] == "tiny 1"
    assert len([name for name in COLUMNS if name.split("_m")[0] in NAMES]) >= 6


def test_a_row_tells_edited_structures_from_deleted_ones(heart):
    structures = heart[2]["structures"] | {"LA": {"volume_ml": 60.0, "state": "edited"}}
    structures |= {key: {"volume_ml": None, "state": "deleted"} for key in ("RA", "PA")}
    found = row(heart, report=heart[2] | {"structures": structures})
    assert (found["edited"], found["deleted"]) == ("LA", "RA PA")
    assert found["LA_ml"] == "60" and found["RA_ml"] == ""


def test_a_row_holds_structures_in_detail_and_the_diameters_of_the_aorta_beyond_its_ascending_part(heart):
    structures = heart[2]["structures"] | {"LAA": {"volume_ml": 7.5, "agreement": 0.8}}
    arch = ClinicalFigure("arch_diameter", 28.5, "mm", 0, None, None)
    detail_weights = {"name": "veins", "version": "2", "sha256": "b" * 64}
    report = heart[2] | {"structures": structures, "detail_weights": detail_weights}
    found = study_row(report, [arch], person="P 1", volume="CTA")
    assert found["weights"] == "tiny 1 + veins 2" and found["weights_sha256"].endswith(" " + "b" * 64)
    assert (found["LAA_ml"], found["LAA_agreement"], found["arch_diameter_mm"]) == ("7.5", "0.8", "28.5")
    assert found["CS_ml"] == found["descending_diameter_mm"] == ""


def test_rows_are_added_and_texts_keep_their_characters(heart, tmp_path):
    path = tmp_path / "study.csv"
    assert append_row(path, row(heart, person='Ä, "B"\nC')) == 1
    assert append_row(path, row(heart, person="P 2")) == 2
    with path.open(encoding="utf-8-sig", newline="") as file:
        assert [found["person"] for found in csv.DictReader(file)] == ['Ä, "B"\nC', "P 2"]


def test_a_name_is_no_formula_of_a_spreadsheet(heart):
    assert row(heart, person="=1+1")["person"] == "'=1+1"


BEYOND = ",".join(COLUMNS) + "\n" + "1," * len(COLUMNS) + "a remark\n"


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00", b"", BEYOND.encode()])
def test_a_file_that_is_no_such_table_is_left_as_it_is(heart, tmp_path, content):
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no table"):
        append_row(path, row(heart))
    assert path.read_bytes() == content
