"""What is said of this computer: why there is no graphics card at work."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from mkd_core.environment import describe_environment  # noqa: E402


@pytest.mark.parametrize(("cuda", "mps", "words"), [
    (None, False, "without support for graphics cards"),
    ("12.8", False, "driver is missing or too old"),
    (None, True, "Apple graphics processor is used only if it is chosen"),
])
def test_the_reason_for_having_no_graphics_card_is_told(monkeypatch, cuda, mps, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    report = describe_environment()
    assert report["device"] == "cpu" and words in report["no_gpu"]
