"""Continuous integration covers the three systems and the oldest versions, by commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def jobs():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))["jobs"]


def commands(job: dict) -> str:
    """All commands of a job, one a line."""
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_every_test_runs_on_the_three_systems(jobs):
    systems = {system.rpartition("-")[0] for system in jobs["test"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    assert jobs["test"]["runs-on"] == "${{ matrix.os }}"
    assert "pytest" in commands(jobs["test"]) and "Testing/requirements-test.txt" in commands(jobs["test"])


def test_the_oldest_versions_are_tested_and_every_target_and_script_exists(jobs):
    everything = "\n".join(map(commands, jobs.values()))
    targets = re.findall(r"\bmake ([\w-]+)", everything)
    assert {"lint", "test-oldest"} <= set(targets)
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(targets) <= set(rules)
    assert all((ROOT / script).is_file() for script in re.findall(r"(?<!\S)\.ci/[\w-]+", everything))
