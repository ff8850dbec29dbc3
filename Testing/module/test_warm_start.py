"""The worker process gets ready before the click, and computes with as many threads as were chosen: the module in the
stand-in GUI.
"""

import json

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import (
    addVolume,
    driving,
    hideTorch,
    segment,
    segmentations,
    waitForStage,
    waitUntilReady,
)


@pytest.fixture
def soon(panel):
    """The panel waits only a moment after the choice of a volume."""
    panel._warmTimer.setInterval(50)


def reportOfRun():
    """Return the report of the newest segmentation."""
    return json.loads(segmentations()[-1].GetAttribute("MKDSegmentation.Report"))


def test_a_chosen_volume_starts_the_worker_and_the_click_uses_that_process(panel, worker, workerProcesses, soon):
    worker("good")
    addVolume()
    assert workerProcesses() == []
    driving.waitUntil(lambda: len(workerProcesses()) == 2, message="the worker and its launcher")
    ready = workerProcesses()
    segment(panel)
    assert reportOfRun()["pid"] in ready and reportOfRun()["warmed"] == 1


def test_an_empty_panel_and_one_without_torch_start_nothing(panel, worker, workerProcesses, soon, monkeypatch):
    worker("good")
    driving.processEvents(0.3)
    assert workerProcesses() == []
    hideTorch(monkeypatch)
    addVolume()
    driving.processEvents(0.5)
    assert workerProcesses() == []


def test_the_same_is_not_warmed_twice_and_nothing_during_a_run(panel, worker, workerProcesses, soon):
    worker("slow")
    addVolume()
    driving.waitUntil(workerProcesses, message="the worker")
    logic, options = panel.logic, panel._chosenOptions()
    sent = []
    send = logic._worker._child.send
    logic._worker._child.send = lambda message: sent.append(message) or send(message)
    logic._worker._warmedFor = None
    logic.warm(options)
    logic.warm(options)
    assert len(sent) == 1
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    logic.warm(options)
    assert panel.ui.segmentButton.text == "Cancel"
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the button")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    assert "Cancelled" in panel.ui.statusLabel.text
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")


def test_a_warm_worker_without_work_ends_and_the_next_click_starts_another(
    panel, volume, worker, workerProcesses, monkeypatch
):
    from MKDSegmentationLib.run import workerProcess

    worker("good")
    panel.logic.warm(panel._chosenOptions())
    driving.waitUntil(lambda: len(workerProcesses()) == 2, message="the worker and its launcher")
    first = workerProcesses()
    with monkeypatch.context() as patched:  # neither its start nor the run takes longer than it may be idle
        patched.setattr(workerProcess, "IDLE_MS", 50)
        panel.logic.warm(panel._chosenOptions())
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    assert not panel.logic.isWarm
    segment(panel)
    assert reportOfRun()["pid"] not in first
    assert reportOfRun()["warmed"] == 1, "while the volume was written"


def test_a_worker_that_dies_while_it_warms_is_started_again_by_the_click(panel, volume, worker, workerProcesses):
    worker("dies-at-start")
    panel.logic.warm(panel._chosenOptions())
    driving.waitUntil(lambda: not panel.logic.isWarm, message="the end of the worker")
    worker("good")
    segment(panel)
    assert reportOfRun()["structures"]


def test_the_number_of_threads_is_kept_for_this_computer_and_reaches_the_worker(panel, volume, worker, slicerApp):
    worker("good")
    assert panel.ui.threadsSpinBox.text == "Automatic"
    segment(panel)
    assert reportOfRun()["request"]["options"]["threads"] is None
    panel.ui.threadsSpinBox.value = 1
    assert slicerApp.userSettings().value("MKDSegmentation/Threads") == "1"
    segment(panel)
    assert reportOfRun()["request"]["options"]["threads"] == 1


def test_a_run_that_was_cancelled_leaves_no_process_that_warms(panel, worker, workerProcesses):
    worker("slow")
    panel._warmTimer.setInterval(400)
    addVolume()
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the button")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    driving.processEvents(0.6)
    assert workerProcesses() == []
