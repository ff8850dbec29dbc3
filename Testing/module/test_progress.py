"""During a run: stage, fraction, times, log, and an application that never stops answering; the module in the stand-in
GUI.
"""

import re
import time

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import addVolume, driving, segment, segmentations, waitForStage, waitUntilReady

LONGEST_PAUSE_S = 0.2


def test_stage_fraction_and_times_are_shown_and_go_away_with_the_run(panel, volume, worker, tmp_path):
    worker(f"waits-for:{tmp_path / 'go'}")
    assert not panel.ui.timeLabel.visible
    driving.click(panel.ui.segmentButton)
    assert panel.ui.statusLabel.text == "Handing the volume over"
    waitForStage(panel, "Looking for the heart")
    assert panel.ui.progressBar.value == 25
    driving.waitUntil(
        lambda: "0:01 elapsed" in panel.ui.timeLabel.text or "0:02 elapsed" in panel.ui.timeLabel.text, 10, "a second"
    )
    assert re.fullmatch(r"0:0\d elapsed, about \d+:\d\d left", panel.ui.timeLabel.text)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert not panel.ui.timeLabel.visible and not panel.ui.progressBar.visible


def test_the_log_is_one_fold_away_and_tells_stages_and_what_the_worker_wrote(panel, volume, worker):
    worker("good")
    segment(panel)
    assert not panel.ui.logTextEdit.visible
    driving.click(panel.ui.logCollapsibleButton)
    lines = [line.partition("\t")[2] for line in panel.ui.logTextEdit.toPlainText().splitlines()]
    assert (
        lines[0] == "Handing the volume over"
        and "Looking for the heart" in lines
        and "the worker writes to its log" in lines
    )
    assert "The heart is segmented" in lines[-1]


def test_a_failure_is_in_the_log_too(panel, volume, worker):
    worker("no-heart")
    segment(panel)
    driving.click(panel.ui.logCollapsibleButton)
    assert "No heart was found" in panel.ui.logTextEdit.toPlainText()


def test_a_large_volume_never_keeps_the_application_from_answering_for_a_fifth_of_a_second(panel, worker):
    """Measured is the processor time of the application's thread from one turn of the event loop to the next: what
    other programs take from a busy computer does not count."""
    import qt

    addVolume("Large", shape=(160, 512, 512), spacing=0.5)
    driving.processEvents()
    worker("good")
    turns = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: turns.append(time.thread_time()))
    timer.start(1)
    segment(panel, 120)
    timer.stop()
    assert len(segmentations()) == 1 and len(turns) > 20
    assert np.diff(turns).max() < LONGEST_PAUSE_S


def test_the_volume_can_be_changed_while_it_is_handed_over_and_the_run_says_so(panel, worker, monkeypatch):
    import slicer

    from MKDSegmentationLib.run import rawNrrd

    monkeypatch.setattr(rawNrrd, "PIECE_BYTES", 100)
    volume = addVolume("Changing", shape=(60, 20, 20))
    driving.processEvents()
    worker("good")
    driving.click(panel.ui.segmentButton)
    slicer.util.arrayFromVolume(volume)[:] = 5
    slicer.util.arrayFromVolumeModified(volume)
    waitUntilReady(panel)
    assert "changed during the segmentation" in panel.ui.statusLabel.text and segmentations() == []


def test_a_cancel_while_the_volume_is_handed_over_leaves_nothing(
    panel, worker, monkeypatch, slicerApp, workerProcesses
):
    import os

    from MKDSegmentationLib.run import rawNrrd

    monkeypatch.setattr(rawNrrd, "PIECE_BYTES", 100)
    addVolume("Slow", shape=(200, 20, 20))
    driving.processEvents()
    worker("good")
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel, 2)
    driving.waitUntil(
        lambda: not os.listdir(slicerApp.temporaryPath) and not workerProcesses(), 3, "an empty temporary folder"
    )
    assert panel.ui.statusLabel.text == "Cancelled. The scene is as it was."
