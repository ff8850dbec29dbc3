"""The click with the real worker process and the real pipeline, in the stand-in GUI.

With the weights that come with the extension these tests take minutes on two cores; those on real images need MKD_DATA.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.io.bundle import default_bundle_path
from mkd_core.structures import STRUCTURES

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
pytest.importorskip("torch")
from Testing.support.panel_driving import (
    MODULE,
    ROOT,
    addVolume,
    childProcesses,
    driving,
    hideTorch,
    sceneContent,
    segment,
    segmentations,
    voxelsOf,
    waitForStage,
    waitUntilReady,
)

DATA = Path(os.environ.get("MKD_DATA", ROOT.parent / "shared" / "data"))

needsWeights = pytest.mark.skipif(not default_bundle_path().exists(), reason="there are no default weights")


@pytest.fixture
def dataFile():
    """Function that returns the path of a file of real data, or skips the test."""

    def find(name):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no real data: {path} is missing (set MKD_DATA)")
        return path

    return find


@pytest.fixture
def shippedPanel(loadModule):
    """The panel as a new user has it, with the weights that come with the extension."""
    _module, widget = loadModule(MODULE)
    return widget


def pythonChildren():
    """Return the process ids of our children that run a worker."""
    if not Path("/proc").is_dir():
        pytest.skip("processes are looked for in /proc")
    found = []
    for pid in childProcesses():
        with contextlib.suppress(OSError):  # it may end while it is looked at
            if b"mkd_core.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_the_real_worker_answers_a_click_with_a_sentence(panel):
    addVolume(shape=(40, 40, 40), spacing=3.0)
    before = sceneContent()
    segment(panel)
    assert "heart" in panel.ui.statusLabel.text, "random weights find a heart or do not, but the pipeline gets through"
    if not segmentations():
        assert sceneContent() == before


def test_the_real_worker_can_be_cancelled_while_it_starts(panel):
    addVolume(shape=(40, 40, 40), spacing=3.0)
    before = sceneContent()
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    driving.waitUntil(lambda: not pythonChildren(), message="the end of the worker")
    assert sceneContent() == before


@needsWeights
def test_the_modules_own_test_passes(shippedPanel):
    import slicer

    slicer.selfTests["MKDSegmentation"](msec=1)


@needsWeights
def test_an_mr_is_segmented_through_alignment_with_its_map_of_disagreement_and_the_ct_that_was_made_of_it(shippedPanel):
    import slicer

    from MKDSegmentationLib.scene.phantom import addHeartPhantom

    panel = shippedPanel
    addHeartPhantom(seed=1, modality="MR", spacing=3.0)
    driving.processEvents()
    driving.click(panel.ui.switchModalityButton)
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    driving.click(panel.ui.alignedCheckBox)
    segment(panel)
    (segmentation,) = segmentations()
    doubt, aligned = (segmentation.GetNodeReference(f"MKDSegmentation.{kind}") for kind in ("Disagreement", "Aligned"))
    values = slicer.util.arrayFromVolume(doubt)
    assert values.min() >= 0 and 0.1 < values.max() <= 1
    voxels = slicer.util.arrayFromVolume(aligned)
    assert -301 <= voxels.min() < -200 and voxels.max() > 200, "an MR has become a CT within the window of the weights"
    bounds, around = np.zeros(6), np.zeros(6)
    segmentation.GetRASBounds(bounds)
    aligned.GetRASBounds(around)
    assert (around[::2] <= bounds[::2] + 3).all() and (around[1::2] >= bounds[1::2] - 3).all(), (
        "it lies where the heart is"
    )
    assert panel.ui.overlayComboBox.currentText == "Disagreement of the segmentors"


def test_check_environment_tells_what_is_really_installed(shippedPanel):
    import importlib.metadata

    driving.click(shippedPanel.ui.advancedCollapsibleButton)
    driving.click(shippedPanel.ui.checkEnvironmentButton)
    driving.waitUntil(lambda: shippedPanel.ui.checkEnvironmentButton.enabled, message="the end of the check")
    text = shippedPanel.ui.environmentTextEdit.toPlainText()
    assert f"PyTorch {importlib.metadata.version('torch').partition('+')[0]}" in text
    assert "Automatic takes:" in text and str(default_bundle_path()) in text
    assert ("No graphics card:" in text) == ("Device cuda" not in text)


@needsWeights
def test_cancel_in_the_middle_of_a_real_run_leaves_no_process(shippedPanel, dataFile):
    import slicer

    slicer.util.loadVolume(str(dataFile("ct_thorax/ct.nii.gz")))
    before = sceneContent()
    driving.click(shippedPanel.ui.segmentButton)
    waitForStage(shippedPanel, "Segmenting the heart")
    driving.click(shippedPanel.ui.segmentButton)
    waitUntilReady(shippedPanel)
    driving.waitUntil(lambda: not pythonChildren(), message="the end of the worker")
    assert sceneContent() == before


@needsWeights
def test_click_and_command_give_identical_labels_on_a_real_ct(shippedPanel, dataFile, tmp_path):
    import slicer

    source = dataFile("ct_thorax/ct.nii.gz")
    subprocess.run(
        [sys.executable, "-m", "mkd_core", "segment", str(source), str(tmp_path / "heart.nii.gz")], cwd=ROOT, check=True
    )
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "heart.nii.gz")))
    volume = slicer.util.loadVolume(str(source))
    segment(shippedPanel)
    (segmentation,) = segmentations()
    for structure in STRUCTURES:
        assert np.array_equal(voxelsOf(segmentation, structure.key, volume), labels == structure.label), structure.name
        assert (labels == structure.label).any(), structure.name


@needsWeights
@pytest.mark.parametrize("name, modality", [("no_heart/ct_abdomen.nii.gz", "CT"), ("no_heart/mr_abdomen.nii.gz", "MR")])
def test_an_abdomen_is_refused_and_nothing_is_left(shippedPanel, dataFile, name, modality):
    import slicer

    slicer.util.loadVolume(str(dataFile(name)))
    driving.choose(shippedPanel.ui.modalityComboBox, modality)
    before = sceneContent()
    segment(shippedPanel)
    assert "No heart was found" in shippedPanel.ui.statusLabel.text
    assert sceneContent() == before


@pytest.fixture
def withoutTorch(monkeypatch):
    hideTorch(monkeypatch)


def test_the_modules_own_test_goes_on_without_pytorch_and_says_what_it_skipped(panel, withoutTorch, monkeypatch):
    import slicer

    said = []
    monkeypatch.setattr(slicer.util, "warningDisplay", lambda text, **more: said.append((text, more["detailedText"])))
    slicer.selfTests["MKDSegmentation"](msec=1)
    [(text, details)] = said
    assert text == "4 of 8 tests were skipped, the others passed."
    assert details.count("PyTorch is not installed") == 4
    assert "test_ClickGivesSevenSegmentsOnTheGridOfTheVolume" in details


def test_the_modules_own_test_fails_where_something_is_wrong(panel, withoutTorch, monkeypatch):
    import slicer

    monkeypatch.setattr("mkd_core.synthesis.synthesize", lambda *_arguments, **_options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        slicer.selfTests["MKDSegmentation"](msec=1)
