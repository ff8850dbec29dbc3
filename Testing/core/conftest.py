"""Fixtures of the core tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mkd_core.io.bundle import save_bundle
from Testing.support.tiny_bundles import random_state_dicts, tiny_description


@pytest.fixture()
def known_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that classify by intensity, whatever file is named."""
    from mkd_core.inference import pipeline
    from Testing.support.known_heart import KnownBundle

    monkeypatch.setattr(pipeline, "load_bundle", lambda path: KnownBundle())


@pytest.fixture()
def tiny_bundle_path(tmp_path: Path) -> Path:
    """A bundle file with tiny random networks."""
    path = tmp_path / "tiny.safetensors"
    save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
    return path
