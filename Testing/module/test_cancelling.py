"""However a run is broken off, the scene is as before, the panel is ready and no process is left: the module in the
stand-in GUI.
"""

import os

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import (
    addVolume,
    driving,
    sceneContent,
    segment,
    segmentations,
    stayCold,
    waitForStage,
    waitUntilReady,
)


@pytest.fixture
def started(panel, volume, worker):
    """Function started(mode): a run under way in a worker of this mode; returns the content of the scene before."""

    def start(mode):
        worker(mode)
        before = sceneContent()
        driving.click(panel.ui.segmentButton)
        waitForStage(panel, "Looking for the heart")
        return before

    return start


@pytest.mark.parametrize("mode", ["slow", "stubborn"])
def test_cancel_gives_back_panel_scene_processes_and_files(panel, started, workerProcesses, slicerApp, mode):
    before = started(mode)
    assert len(workerProcesses()) == 2, "launcher and worker"
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    assert panel.ui.statusLabel.text == "Cancelled. The scene is as it was."
    assert sceneContent() == before
    driving.waitUntil(lambda: not os.listdir(slicerApp.temporaryPath), message="an empty temporary folder")


def test_cancel_before_the_worker_is_ready_leaves_nothing(panel, volume, worker, workerProcesses, slicerApp):
    worker("slow")
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    driving.waitUntil(
        lambda: not workerProcesses() and not os.listdir(slicerApp.temporaryPath),
        message="the end of the worker and its files",
    )
    assert segmentations() == []


def test_a_double_click_starts_a_run_and_does_not_cancel_it(panel, volume, worker):
    worker("good")
    driving.doubleClick(panel.ui.segmentButton)
    assert panel.ui.segmentButton.text == "Cancel"
    waitUntilReady(panel)
    assert len(segmentations()) == 1 and "segmented" in panel.ui.statusLabel.text


def test_a_double_click_on_cancel_does_not_start_again(panel, started, worker):
    started("slow")
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the button")
    driving.doubleClick(panel.ui.segmentButton)
    waitUntilReady(panel)
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the button")
    assert (
        panel.ui.segmentButton.text == "Segment" and panel.ui.statusLabel.text == "Cancelled. The scene is as it was."
    )


def test_a_new_run_can_start_at_once_after_a_cancel(panel, started, worker):
    started("stubborn")
    driving.click(panel.ui.segmentButton)
    worker("good")
    segment(panel)
    assert len(segmentations()) == 1 and "segmented" in panel.ui.statusLabel.text


def test_a_cancelled_second_run_leaves_the_first_result(panel, volume, worker, workerProcesses):
    worker("good")
    segment(panel)
    panel.logic.close()  # so that the second run needs another worker, which never comes to an end
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    worker("slow")
    before = sceneContent()
    voxels = segmentations()[0].GetSegmentation().GetMTime()
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    assert sceneContent() == before and segmentations()[0].GetSegmentation().GetMTime() == voxels
    assert panel.ui.resultsTable.visible


def test_closing_the_scene_ends_the_run(panel, started, workerProcesses):
    import slicer

    started("stubborn")
    slicer.mrmlScene.Clear()
    assert panel.ui.segmentButton.text == "Segment" and not panel.ui.segmentButton.enabled
    assert "the scene was closed" in panel.ui.statusLabel.text
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    assert segmentations() == []


def test_removing_the_volume_ends_the_run_with_a_reason(panel, volume, started, workerProcesses):
    import slicer

    started("slow")
    slicer.mrmlScene.RemoveNode(volume)
    assert panel.ui.segmentButton.text == "Segment"
    assert "the volume was removed" in panel.ui.statusLabel.text
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    assert segmentations() == []


def test_after_the_volume_was_removed_the_next_one_is_ready_to_be_segmented(panel, volume, started, worker):
    import slicer

    addVolume("Next")
    started("slow")
    slicer.mrmlScene.RemoveNode(volume)
    assert panel.ui.statusLabel.text == "Cancelled, because the volume was removed."
    assert panel.ui.inputSelector.currentNode().GetName() == "Next"
    worker("good")
    segment(panel)
    assert segmentations()[0].GetName() == "Next heart"


def test_removing_the_chosen_output_ends_the_run_with_a_reason(panel, volume, worker, tmp_path):
    import slicer

    go = tmp_path / "go"
    worker(f"waits-for:{go}")
    go.touch()
    segment(panel)
    go.unlink()
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    slicer.mrmlScene.RemoveNode(segmentations()[0])
    assert panel.ui.segmentButton.text == "Segment"
    assert "output segmentation was removed" in panel.ui.statusLabel.text
    assert segmentations() == []


def test_removing_another_node_does_not_disturb_the_run(panel, volume, worker, tmp_path):
    import slicer

    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    slicer.mrmlScene.RemoveNode(other)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert len(segmentations()) == 1


@pytest.mark.parametrize("mode", ["crash", "dies-at-start"])
def test_a_worker_that_dies_is_told_in_a_sentence_and_changes_nothing(panel, volume, worker, slicerApp, mode):
    worker(mode)
    before = sceneContent()
    segment(panel)
    assert "ended unexpectedly" in panel.ui.statusLabel.text
    assert sceneContent() == before and os.listdir(slicerApp.temporaryPath) == []


def test_after_a_crash_the_next_click_starts_a_new_worker(panel, volume, worker, tmp_path):
    worker(f"crash-once:{tmp_path / 'crashed'}")
    segment(panel)
    assert "ended unexpectedly" in panel.ui.statusLabel.text
    segment(panel)
    assert len(segmentations()) == 1


def test_a_worker_that_talks_nonsense_does_not_disturb_the_run(panel, volume, worker):
    worker("garbage")
    segment(panel)
    assert len(segmentations()) == 1


def test_a_launcher_that_cannot_start_is_told_in_a_sentence(panel, volume, worker, tmp_path):
    worker("good")
    (tmp_path / "bin" / "PythonSlicer").write_text("#!/nowhere/sh\n")
    before = sceneContent()
    segment(panel)
    assert "could not be started" in panel.ui.statusLabel.text
    assert sceneContent() == before


def test_unloading_the_module_during_a_run_leaves_no_process(panel, started, workerProcesses):
    from Testing.harness import bootstrap

    before = started("stubborn")
    bootstrap.unloadModule("MKDSegmentation")
    driving.waitAside(lambda: not workerProcesses(), message="the end of the worker")
    assert sceneContent() == before


def test_reloading_the_module_during_a_run_gives_a_working_panel_with_new_code(panel, started, worker, workerProcesses):
    import sys

    import slicer

    started("stubborn")
    library = sys.modules["MKDSegmentationLib.run.workerProcess"]
    panel.onReload()
    driving.waitAside(lambda: not workerProcesses(), message="the end of the worker")
    assert sys.modules["MKDSegmentationLib.run.workerProcess"] is not library
    reloaded = slicer.modules.MKDSegmentationWidget
    assert reloaded is not panel
    stayCold(reloaded)
    driving.processEvents()
    worker("good")
    segment(reloaded)
    assert len(segmentations()) == 1


def test_a_warm_worker_ends_with_the_module(panel, volume, worker, workerProcesses):
    from Testing.harness import bootstrap

    worker("good")
    segment(panel)
    assert workerProcesses()
    bootstrap.unloadModule("MKDSegmentation")
    driving.waitAside(lambda: not workerProcesses(), message="the end of the worker")


def test_a_worker_without_work_gives_its_memory_back_after_a_while(panel, volume, worker, workerProcesses, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["MKDSegmentationLib.run.workerProcess"], "IDLE_MS", 50)
    worker("good")
    segment(panel)
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the idle worker")
    segment(panel)
    assert "segmented" in panel.ui.statusLabel.text
