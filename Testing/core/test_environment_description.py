"""What is said of this computer: why there is no graphics card at work."""

from __future__ import annotations

import os
import platform

import pytest

torch = pytest.importorskip("torch")

from mkd_core.environment import available_memory, describe_environment


@pytest.mark.parametrize(
    ("cuda", "mps", "words"),
    [
        (None, False, "without support for graphics cards"),
        ("12.8", False, "driver is missing or too old"),
        (None, True, "Apple graphics processor is used only if it is chosen"),
    ],
)
def test_the_reason_for_having_no_graphics_card_is_told(monkeypatch, cuda, mps, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    report = describe_environment()
    assert report["device"] == "cpu" and words in report["no_gpu"]


@pytest.mark.skipif(platform.system() not in ("Linux", "Windows"), reason="other systems do not tell in a simple way")
def test_free_memory_is_told_in_bytes():
    free = available_memory()
    assert 10 * 2**20 < free < 2**50
    if platform.system() == "Linux":
        assert free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
