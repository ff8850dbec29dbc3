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
        for structure in STRUCTURES:
            entry = table["thresholds"][modality][structure.key]
            assert entry["low_flagged"] < 0.09 and entry["very_low_flagged"] < 0.03
            assert entry["good"] >= 50


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
    ):
        assert agreement_limits("CT", "LV", nonsense) == agreement_limits("CT", "LV")


def test_a_threshold_flags_few_good_structures_and_catches_the_bad():
    rng = np.random.default_rng(0)
    good = np.column_stack([rng.uniform(0.8, 1.0, 1000), np.full(1000, 0.95)])
    bad = np.column_stack([rng.uniform(0.2, 0.79, 50), np.full(50, 0.5)])
    low, very_low = choose(*np.concatenate([good, bad]).T)
    flagged = (good[:, 0] < low).mean()
    assert (bad[:, 0] < low).all() and flagged <= 0.08
    assert very_low <= low <= 0.8, "no higher than it takes"
    hard = np.column_stack([rng.uniform(0.8, 1.0, 50), np.full(50, 0.5)])
    low, very_low = choose(*np.concatenate([good, hard]).T)
    assert 0.07 <= (good[:, 0] < low).mean() <= 0.08
    assert 0.015 <= (good[:, 0] < very_low).mean() <= 0.02


def test_nothing_can_be_chosen_where_nothing_is_good():
    with pytest.raises(ValueError, match="no good structure"):
        choose(np.array([0.9]), np.array([BAD - 0.1]))


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
