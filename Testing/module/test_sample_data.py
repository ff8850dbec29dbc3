"""Synthetic hearts in the module Sample Data: in the stand-in GUI, made by a process of their own, as small as will
do.
"""

import dataclasses
import inspect
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import MODULE, driving, sceneContent

NAMES = ["MKD heart phantom CT", "MKD heart phantom MR", "MKD beating heart phantom CT"]


@pytest.fixture
def sampleData(slicerApp):
    """The harness's Sample Data, without samples."""
    from Testing.harness import sample_data

    sample_data.install()
    yield sample_data
    sample_data.uninstall()


@pytest.fixture
def coarseSamples(sampleData, loadModule, monkeypatch):
    """The module loaded, with its samples registered at 4 mm, the beat with 3 frames."""

    def register():
        lib = sys.modules["MKDSegmentationLib.scene.sampleData"]
        coarse = [dataclasses.replace(sample, spacing=4.0, frames=min(sample.frames, 3)) for sample in lib.SAMPLES]
        monkeypatch.setattr(lib, "SAMPLES", coarse)
        return lib

    _module, panel = loadModule(MODULE)
    lib = register()
    sampleData.install()
    lib.registerSampleData(str(MODULE.parent / "Resources" / "Icons"))
    return panel


def sources():
    import slicer

    return slicer.modules.sampleDataSources["MKDSegmentation"]


def test_the_samples_are_there_once_slicer_has_started_each_with_a_picture(sampleData, loadModule):
    import slicer

    loadModule(MODULE)
    assert [source.sampleName for source in sources()] == NAMES
    assert slicer.modules.sampleDataSourceCategories["MKDSegmentation"]["title"] == "Heart Segmentation (MKD)"
    for source in sources():
        assert Path(source.thumbnailFileName).read_bytes().startswith(b"\x89PNG")


def test_loading_the_module_twice_registers_each_sample_once(sampleData, loadModule):
    loadModule(MODULE)
    loadModule(MODULE)
    assert sorted({source.sampleName for source in sources()}) == sorted(NAMES)
    assert len(sources()) == len(NAMES)


def test_a_slicer_without_sample_data_loads_the_module_all_the_same(loadModule):
    _module, panel = loadModule(MODULE)
    assert panel.ui.segmentButton.visible


def test_nothing_is_made_at_the_start(sampleData, loadModule, slicerApp):
    before = set(os.listdir(slicerApp.cachePath))
    loadModule(MODULE)
    assert set(os.listdir(slicerApp.cachePath)) == before


def test_a_click_gives_a_heart_ct_with_its_truth_selected_in_the_panel(coarseSamples, sampleData):
    import slicer

    icon, text = sampleData.click("MKD heart phantom CT")
    assert text == "MKD heart phantom CT" and not icon.isNull()
    volume = slicer.util.getNode("MKD heart phantom CT")
    voxels = slicer.util.arrayFromVolume(volume)
    assert voxels.min() < -800 and 150 < voxels.max() < 3072, "Hounsfield units"
    assert volume.GetSpacing() == pytest.approx((4.0, 4.0, 4.0))
    truth = json.loads(volume.GetAttribute("MKDSegmentation.Truth"))
    assert 100 < truth["LV"] < 250 and set(truth) == {"LV", "RV", "LA", "RA", "Myo", "AA", "PA"}
    driving.processEvents()
    assert coarseSamples.ui.inputSelector.currentNode() is volume
    assert coarseSamples.ui.segmentButton.enabled


def test_the_second_click_takes_what_was_made_before(coarseSamples, sampleData, monkeypatch):
    import slicer

    sampleData.click("MKD heart phantom MR")
    monkeypatch.setattr("MKDSegmentationLib.run.workerProcess.pythonCommand", lambda *arguments: ["/nowhere/python"])
    sampleData.click("MKD heart phantom MR")
    first, second = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert np.array_equal(slicer.util.arrayFromVolume(first), slicer.util.arrayFromVolume(second))


def test_the_beating_heart_comes_as_a_sequence_with_the_truth_of_each_frame(coarseSamples, sampleData):
    import slicer

    sampleData.click("MKD beating heart phantom CT")
    volume = slicer.util.getNode("MKD beating heart phantom CT")
    driving.processEvents()
    assert coarseSamples.ui.sequenceLabel.text == "MKD beating heart phantom CT: 3 frames, time 0 to 533.333 ms"
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volume)
    truth = json.loads(browser.GetSequenceNode(volume).GetAttribute("MKDSegmentation.Truth"))
    assert [frame["LV"] for frame in truth] == sorted((frame["LV"] for frame in truth), reverse=True) or truth[1][
        "LV"
    ] < 0.6 * truth[0]["LV"]
    assert abs(truth[1]["Myo"] / truth[0]["Myo"] - 1) < 0.1
    first = slicer.util.arrayFromVolume(volume).copy()
    browser.SetSelectedItemNumber(1)
    assert not np.array_equal(slicer.util.arrayFromVolume(volume), first)


def test_a_process_that_cannot_start_is_told_and_leaves_nothing(
    coarseSamples, sampleData, monkeypatch, slicerApp, expectedErrors
):
    lib = sys.modules["MKDSegmentationLib.scene.sampleData"]
    monkeypatch.setattr(lib, "SAMPLES", [dataclasses.replace(sample, spacing=4.5) for sample in lib.SAMPLES])
    sampleData.install()
    lib.registerSampleData("")
    monkeypatch.setattr("MKDSegmentationLib.run.workerProcess.pythonCommand", lambda *arguments: ["/nowhere/python"])
    before = sceneContent()
    with expectedErrors("SampleError: The process that makes it could not be started"):
        sampleData.click("MKD heart phantom CT")
    assert sceneContent() == before
    assert not [
        name for name in os.listdir(Path(slicerApp.cachePath, "MKDSegmentation")) if "4.5mm" in name or "making" in name
    ]


def test_cancel_in_the_progress_dialog_ends_the_process_and_leaves_nothing(
    coarseSamples, sampleData, monkeypatch, slicerApp
):
    from PySide6 import QtCore, QtWidgets

    lib = sys.modules["MKDSegmentationLib.scene.sampleData"]
    monkeypatch.setattr(lib, "SAMPLES", [dataclasses.replace(sample, spacing=5.0) for sample in lib.SAMPLES])
    sampleData.install()
    lib.registerSampleData("")
    monkeypatch.setattr(
        "MKDSegmentationLib.run.workerProcess.pythonCommand",
        lambda *arguments: [sys.executable, "-c", "import time; time.sleep(3600)"],
    )

    cancelled = []

    def cancelDialog():
        for widget in QtWidgets.QApplication.topLevelWidgets():
            if isinstance(widget, QtWidgets.QProgressDialog) and widget.isVisible():
                cancelled.append(widget.cancel())
        if not cancelled:
            QtCore.QTimer.singleShot(20, cancelDialog)

    QtCore.QTimer.singleShot(0, cancelDialog)
    before = sceneContent()
    sampleData.click("MKD heart phantom CT")
    assert cancelled and sceneContent() == before
    assert not [
        name for name in os.listdir(Path(slicerApp.cachePath, "MKDSegmentation")) if "-5mm" in name or "making" in name
    ]


def test_the_stand_in_takes_the_arguments_of_slicers_own_sample_data(slicerApp):
    from Testing.harness import sample_data

    if sample_data.slicersOwn() is None:
        pytest.skip("SLICER_SOURCE_DIR names no checkout with SampleData.py")
    own = sample_data.install()
    sample_data.uninstall()
    for ours, theirs in (
        (sample_data.SampleDataSource.__init__, own.SampleDataSource.__init__),
        (
            sample_data.SampleDataLogic.registerCustomSampleDataSource,
            own.SampleDataLogic.registerCustomSampleDataSource,
        ),
        (
            sample_data.SampleDataLogic.registerCustomSampleDataCategory,
            own.SampleDataLogic.registerCustomSampleDataCategory,
        ),
    ):
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
