"""Warnings on figures, in words for a clinician."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mkd_core.measure import quantify
from mkd_core.measure.agreement import AgreementLimits
from mkd_core.measure.messages import describe
from mkd_core.measure.quantify import Measurement
from mkd_core.protocol import findings
from mkd_core.structures import BY_KEY, STRUCTURES

LIMITS = AgreementLimits(low=0.8, very_low=0.6)

CENTRES = {
    "LV": (0, 0, 20),
    "RV": (0, -30, -10),
    "LA": (20, 30, 10),
    "RA": (0, 0, -30),
    "Myo": (-5, 0, 25),
    "AA": (50, 0, -5),
    "PA": (50, -20, 10),
}


def measurement(key: str, **changes) -> Measurement:
    """A measurement that raises no warning."""
    smallest, largest = BY_KEY[key].plausible_ml
    usual = Measurement((smallest + largest) / 2, 300.0, False, 1, 0.95, CENTRES[key])
    return dataclasses.replace(usual, **changes)


def heart(**changes) -> dict[str, Measurement]:
    """All seven measurements, some replaced."""
    return {structure.key: measurement(structure.key) for structure in STRUCTURES} | changes


def warnings(key: str, **changes) -> list[str]:
    """Warnings on one structure."""
    report = quantify.structure_report(BY_KEY[key], measurement(key, **changes), LIMITS)
    return [describe(one) for one in findings(report["warnings"])]


def test_a_usual_heart_raises_no_warning():
    assert quantify.global_warnings(heart(), "CT") == []
    assert not any(warnings(structure.key) for structure in STRUCTURES)


def test_each_doubt_has_its_sentence():
    assert warnings("LV", volume_ml=12.0) == ["Unusually small (usual in an adult: 20 to 300 ml)."]
    assert warnings("LV", volume_ml=400.0) == ["Unusually large (usual in an adult: 20 to 300 ml)."]
    assert warnings("AA", volume_ml=5.0, touches_border=True) == [
        "Reaches the edge of the volume: part of it may be missing."
    ]
    assert warnings("PA", components=2) == ["Found in 2 separate parts."]
    assert warnings("PA", removed_ml=30.0) == ["Further pieces were found apart from it and left out (30 ml)."]
    assert warnings("PA", removed_ml=0.9, volume_ml=21.0) == [], "a few voxels are not worth a warning"
    assert warnings("RA", agreement=0.75) == [
        "The two segmentors agree by only 75% (good outlines: 80% or more): check the outline."
    ]
    missing = {"volume_ml": 0.0, "mean_intensity": None, "centre": None, "components": 0}
    assert warnings("RA", **missing, agreement=None) == ["Not found."]
    assert warnings("RA", **missing, agreement=0.0) == ["Not found, though one of the two segmentors saw it."]


def test_mass_is_given_for_muscle_only():
    assert quantify.structure_report(BY_KEY["Myo"], measurement("Myo", volume_ml=100.0), LIMITS)[
        "mass_g"
    ] == pytest.approx(105.0)
    assert "mass_g" not in quantify.structure_report(BY_KEY["LV"], measurement("LV"), LIMITS)


@pytest.mark.parametrize(
    ("key", "centre", "words"),
    [
        ("RA", (0, 0, 60), "The right atrium lies left of the left ventricle: "),
        ("LA", (20, -60, 10), "The left atrium lies in front of the right ventricle: "),
        ("AA", (-60, 0, -5), "The ascending aorta lies below the left ventricle: "),
    ],
)
def test_chambers_out_of_order_question_the_orientation(key, centre, words):
    (warning,) = map(describe, quantify.global_warnings(heart(**{key: measurement(key, centre=centre)}), "CT"))
    assert warning == words + "the volume's orientation may be wrong."


def test_dark_blood_is_warninged_in_ct_only():
    dark = {key: measurement(key, mean_intensity=45.0) for key in ("LV", "LA", "AA")}
    assert quantify.global_warnings(heart(**dark), "MR") == []
    (warning,) = map(describe, quantify.global_warnings(heart(**dark), "CT"))
    assert "not enhanced by contrast agent (at most 45 HU)" in warning


def test_a_large_block_is_counted_in_full_and_its_brightness_sampled(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(np.repeat(rng.integers(0, 8, (5, 6, 7)), 9, 0), 8, 1), 7, 2).astype(np.uint8)
    voxels = (labels * 100 + rng.normal(0, 5, labels.shape)).astype(np.float32)
    assert quantify._count(labels, STRUCTURES)[1:].tolist() == np.bincount(labels.ravel(), minlength=8)[1:].tolist()
    exact = quantify._mean_intensities(labels, voxels, 8)
    for label in range(1, 8):
        assert exact[label] == pytest.approx(float(voxels[labels == label].mean()), rel=1e-6)
    monkeypatch.setattr(quantify, "_ENOUGH_VOXELS", labels.size // 27)
    sampled = quantify._mean_intensities(labels, voxels, 8)
    assert sampled != exact, "every third voxel along each axis"
    assert np.allclose(sampled[1:], exact[1:], atol=1.0)
    assert quantify._mean_intensities(np.zeros((2, 2, 2), np.uint8), np.ones((2, 2, 2)), 8) == [None] * 8
