"""The demo works from the command line; the worker is the quick one here, so this says nothing about the weights."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import ROOT


@pytest.fixture
def demo(worker, tmp_path, tiny_bundle_path):
    """Function that runs the demo with these arguments and returns the finished process."""

    def run(*arguments, mode="good"):
        worker(mode)
        command = [
            sys.executable,
            "-m",
            "Testing.demo",
            "--out",
            tmp_path / "out",
            "--weights",
            tiny_bundle_path,
            *arguments,
        ]
        return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)

    return run


def test_the_demo_makes_a_heart_and_leaves_segmentation_picture_and_report(demo, tmp_path):
    run = demo("--spacing", "4")
    assert run.returncode == 0, run.stderr
    assert "Left ventricle" in run.stdout and "Dice" in run.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "heart.png",
        "heart.seg.nrrd",
        "report.json",
        "volume.nrrd",
    ]
    assert (
        json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["structures"]["LV"]["volume_ml"] > 0
    )


def noise(path):
    """Write a small volume of noise and return its path."""
    import numpy as np
    import SimpleITK as sitk

    voxels = np.random.default_rng(0).integers(-1000, 1000, (20, 24, 36)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return path


def test_the_demo_takes_a_volume_of_the_user(demo, tmp_path):
    run = demo("--ct", noise(tmp_path / "my heart.nii.gz"))
    assert run.returncode == 0, run.stderr
    assert "Dice" not in run.stdout
    assert not (tmp_path / "out" / "volume.nrrd").exists()


def test_the_demo_tells_why_there_is_no_result_and_fails(demo, tmp_path):
    run = demo("--ct", noise(tmp_path / "noise.nii.gz"), mode="no-heart")
    assert run.returncode == 1
    assert "No heart was found" in run.stderr
    assert not (tmp_path / "out" / "heart.seg.nrrd").exists()


def test_the_demo_of_a_beating_heart_draws_its_curves(worker, tmp_path):
    import os

    worker("good")
    program = (
        "import sys, runpy; from pathlib import Path; sys.path[:0] = [{root!r}, {module!r}]\n"
        "from Testing.harness import bootstrap; bootstrap.start()\n"
        "from MKDSegmentationLib.run import workerProcess\n"
        "command = workerProcess.pythonCommand\n"
        "def pythonCommand(*arguments):  # the phantom is made by the real program\n"
        "    return [sys.executable, *arguments] if 'synthesize' in arguments else command(*arguments)\n"
        "workerProcess.pythonCommand = pythonCommand\n"
        "sys.argv = ['beat', '--spacing', '4', '--frames', '2', '--out', {picture!r}]\n"
        "runpy.run_module('Testing.demo.beat', run_name='__main__')"
    )
    code = program.format(root=str(ROOT), module=str(ROOT / "MKDSegmentation"), picture=str(tmp_path / "beat.png"))
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0, run.stderr
    assert "All 2 frames are segmented" in run.stdout and "Ejection fraction (%)" in run.stdout
    assert (tmp_path / "beat.png").read_bytes().startswith(b"\x89PNG")
