"""The pictures of the panel are there, and the command that makes them works."""

import subprocess
import sys

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.screenshots.__main__ import STATES
from Testing.support.panel_driving import ROOT

LARGEST_BYTES = 700_000


def test_every_state_of_the_panel_has_its_picture_and_none_is_large():
    pictures = {path.stem: path.stat().st_size for path in (ROOT / "Resources" / "Screenshots").glob("*.png")}
    assert set(pictures) == set(STATES)
    assert max(pictures.values()) < LARGEST_BYTES


def test_the_command_makes_pictures_of_the_states_that_are_asked_for(tmp_path):
    command = [sys.executable, "-m", "Testing.screenshots", "--only", "disabled", "warning", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disabled.png", "warning.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
