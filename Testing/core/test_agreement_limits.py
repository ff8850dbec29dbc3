"""Thresholds of the segmentors' agreement: how they are chosen, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mkd_core.measure import agreement, quantify
from mkd_core.measure.agreement import AgreementLimits, agreement_limits
from mkd_core.measure.quantify import Measurement
from mkd_core.structures import BY_KEY, STRUCTURES
from Testing.benchmarks.agreement import BAD, Sample, choose, optimism


def test_every_structure_has_thresholds_in_either_modality():
    limits = [agreement_limits(modality, one.key) for modality in ("CT", "MR") for one in STRUCTURES]
    assert all(0.3 < one.very_low <= one.low < 0.95 for one in limits)
    assert len(set(limits)) > 7, "they differ by structure and modality"


def test_the_table_says_what_it_catches_and_flags():
    table = json.loads(Path(agreement.__file__).with_name("agreement.json").read_text(encoding="utf-8"))
    for modality in ("CT", "MR"):
        entries = [table["thresholds"][modality][structure.key] for structure in STRUCTURES]
        assert all(entry["very_low_flagged"] < 0.03 and entry["good"] >= 50 for entry in entries)
        good, bad = (sum(entry[of] for entry in entries) for of in ("good", "bad"))
        assert sum(entry["low_flagged"] * entry["good"] for entry in entries) <= 0.05 * good
        assert sum(entry["low_caught"] * entry["bad"] for entry in entries) >= {"CT": 0.85, "MR": 0.69}[modality] * bad


def test_weights_may_bring_their_own_and_nonsense_is_ignored():
    own = {"agreement": {"CT": {"LV": {"low": 0.6, "very_low": 0.4}}}}
    assert agreement_limits("CT", "LV", own) == AgreementLimits(0.6, 0.4)
    assert agreement_limits("CT", "RV", own) == agreement_limits("CT", "RV")
    for nonsense in (
        {"agreement": 3},
        {"agreement": {"CT": []}},
        {"agreement": {"CT": {"LV": {"low": "0.6", "very_low": 0.4}}}},
        {"agreement": {"CT": {"LV": {"low": 0.4, "very_low": 0.6}}}},
        {"agreement": {"CT": {"LV": {"low": 7.0, "very_low": 0.4}}}},
        {"agreement": {"CT": {"LV": {"low": 0.01, "very_low": 0.0}}}},  # would never doubt anything
    ):
        assert agreement_limits("CT", "LV", nonsense) == agreement_limits("CT", "LV")


def structures(*ranges: tuple[float, float, int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Agreements and overlaps: of each range low, high, count and overlap."""
    rng = np.random.default_rng(0)
    agreements = np.concatenate([rng.uniform(low, high, count) for low, high, count, _ in ranges])
    return agreements, np.concatenate([np.full(count, overlap) for _, _, count, overlap in ranges])


def shares(sample: tuple[np.ndarray, np.ndarray], threshold: float) -> tuple[float, float]:
    """Of the bad structures and of the good ones, the share that is flagged."""
    agreement, overlap = sample
    return float((agreement[overlap < BAD] < threshold).mean()), float((agreement[overlap >= BAD] < threshold).mean())


def test_thresholds_flag_few_good_structures_and_catch_the_bad():
    easy = structures((0.8, 1.0, 1000, 0.95), (0.2, 0.79, 50, 0.5))
    low, very_low = choose({"LV": easy})["LV"]
    assert shares(easy, low)[0] == 1.0 and shares(easy, low)[1] <= 0.05
    assert very_low <= low <= 0.8, "no higher than it takes"
    hard = structures((0.8, 1.0, 1000, 0.95), (0.8, 1.0, 50, 0.5))
    low, very_low = choose({"LV": hard})["LV"]
    assert 0.03 <= shares(hard, low)[1] <= 0.05
    assert 0.015 <= shares(hard, very_low)[1] <= 0.02 and very_low <= low


def test_flags_are_spent_on_the_structure_where_they_catch_the_most():
    caught_late = structures((0.8, 1.0, 500, 0.95), (0.81, 0.82, 50, 0.5))  # above one good structure in twelve
    never_bad = structures((0.7, 1.0, 500, 0.95), (0.2, 0.3, 1, 0.5))
    chosen = choose({"LV": caught_late, "RV": never_bad})
    assert shares(caught_late, chosen["LV"][0])[0] == 1.0
    flagged = [shares(sample, chosen[key][0])[1] for key, sample in (("LV", caught_late), ("RV", never_bad))]
    assert flagged[0] > 0.05 > np.mean(flagged) and flagged[1] <= 0.02


def test_nothing_can_be_chosen_where_nothing_is_good():
    with pytest.raises(ValueError, match="no good structure"):
        choose({"LV": (np.array([0.9]), np.array([BAD - 0.1]))})


def test_what_real_mr_promises_beyond_rendered_mr_is_measured_on_left_atria():
    rendered = [Sample("MR", "LA", "undistorted", 0.92, 0.91), Sample("MR", "LV", "undistorted", 0.99, 0.5)]
    real = [Sample("MR", "LA", "real", 0.90, 0.85)]
    assert optimism(rendered, real) == pytest.approx(0.04)
    assert optimism(rendered, []) == 0.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.9, []), (0.75, [("agreement_low", "amber")]), (0.5, [("agreement_very_low", "red")])],
)
def test_two_thresholds_give_two_severities(value, expected):
    measurement = Measurement(150.0, 300.0, False, 1, value, (0.0, 0.0, 0.0))
    warnings = quantify.structure_report(BY_KEY["LV"], measurement, AgreementLimits(0.8, 0.6))["warnings"]
    assert [(one["code"], one["severity"]) for one in warnings] == expected
