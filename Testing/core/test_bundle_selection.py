"""What a finished run's bundle chooses on validation volumes."""

import pytest

pytest.importorskip("torch")

from mkd_core.io import bundle as bundles
from mkd_core.protocol import SegmentationOptions
from mkd_core.training import selection


@pytest.mark.parametrize(
    ("best", "others", "expected"),
    [(0.35, 0.0001, 0.35), (0.9, 0.0001, 0.9), (0.9, 0.0, 0.5)],
)
def test_the_ensemble_takes_the_weight_that_validates_best_and_of_equals_the_one_next_to_half(
    tiny_bundle_path, monkeypatch, best, others, expected
):
    def validate(bundle, cases, options):
        weight = bundle.ensemble_weight(cases[0])
        return {"mean": 0.9 if weight == best else 0.9 - others}

    monkeypatch.setattr(selection, "validate", validate)
    bundle, said = bundles.load_bundle(tiny_bundle_path), []
    cases = {"target": ["CT"], "assistant": ["MR"]}
    chosen = selection.choose_ensemble_weights(bundle, cases, SegmentationOptions(), said.append)
    assert [chosen.ensemble_weight(modality) for modality in ("CT", "MR")] == [expected, expected]
    assert bundles.load_bundle(tiny_bundle_path).metadata["ensemble"] == {"target": expected, "assistant": expected}
    assert len(said) == 2
