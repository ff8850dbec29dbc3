"""The same volume, weights, device and threads give the same labels in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Runs every network of the default weights, and the whole pipeline on the known heart; prints a check sum of each
#: answer.
PROGRAM = """
import hashlib, sys
import SimpleITK as sitk, torch
from Testing.support.known_heart import KnownBundle, known_volume
import mkd_core
from mkd_core.inference import execution
from mkd_core.io.bundle_metadata import PARTS
precision = sys.argv[1]
bundle = mkd_core.load_bundle(mkd_core.default_bundle_path())
image = torch.rand((1, 1, 32, 48, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
with execution.compute_settings(2):
    cpu = torch.device("cpu")
    executor = execution.Executor(bundle, cpu, execution.choose_precision(precision, cpu))
    for part in PARTS:
        print(part, hashlib.sha256(executor.run(part, image).numpy()).hexdigest())
options = mkd_core.SegmentationOptions(device="cpu", precision=precision, threads=2)
labels = mkd_core.segment(known_volume((44, 36, 40), (5, 5, 5))[0], KnownBundle(), options=options).labels
print("labels", hashlib.sha256(sitk.GetArrayViewFromImage(labels)).hexdigest())
"""


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_two_processes_give_the_same_numbers(precision):
    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, precision], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    first = run()
    assert len(first.splitlines()) == 6
    assert run() == first
