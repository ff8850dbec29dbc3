"""During a run: stage, fraction, times, log, and an application that never stops answering; the module in the stand-in
GUI.
"""

import re

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import addVolume, driving, segment, segmentations, waitForStage, waitUntilReady


def test_stage_fraction_and_times_are_shown_and_go_away_with_the_run(panel, volume, worker, tmp_path, monkeypatch):
    from MKDSegmentationLib.panel import runProgress

    monkeypatch.setattr(runProgress, "SILENCE_S", driving.WAIT_S)
    worker(f"waits-for:{tmp_path / 'go'}")
    assert not panel.ui.timeLabel.visible
    driving.click(panel.ui.segmentButton)
    assert panel.ui.statusLabel.text == "Handing the volume over"
    waitForStage(panel, "Looking for the heart")
    assert panel.ui.progressBar.value == 25
    driving.waitUntil(lambda: not panel.ui.timeLabel.text.startswith("0:00 "), message="a second")
    assert re.fullmatch(r"\d+:\d\d elapsed, about \d+:\d\d left", panel.ui.timeLabel.text)
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


def test_a_large_volume_is_worked_on_in_steps_between_which_the_application_answers(panel, worker, monkeypatch):
    """How long the steps take is measured by Testing/benchmarks/click.py; that there are steps does not depend on the
    computer."""
    import qt

    from MKDSegmentationLib.run import volumeTransfer

    monkeypatch.setattr(volumeTransfer, "PIECE_BYTES", 16 * 40 * 40 * 2)
    addVolume("Large", shape=(160, 40, 40), spacing=2.0)
    driving.processEvents()
    worker("good")
    stages = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: stages.append(panel.ui.statusLabel.text))
    timer.start(0)
    segment(panel)
    timer.stop()
    assert len(segmentations()) == 1
    assert stages.count("Handing the volume over") >= 5, "the volume goes over in ten pieces"


def test_the_volume_can_be_changed_while_it_is_handed_over_and_the_run_says_so(panel, worker, monkeypatch):
    import slicer

    from MKDSegmentationLib.run import volumeTransfer

    monkeypatch.setattr(volumeTransfer, "PIECE_BYTES", 100)
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

    from MKDSegmentationLib.run import volumeTransfer

    monkeypatch.setattr(volumeTransfer, "PIECE_BYTES", 100)
    addVolume("Slow", shape=(200, 20, 20))
    driving.processEvents()
    worker("good")
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    driving.waitUntil(
        lambda: not os.listdir(slicerApp.temporaryPath) and not workerProcesses(), message="an empty temporary folder"
    )
    assert panel.ui.statusLabel.text == "Cancelled. The scene is as it was."


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def progress(panel):
    """The progress of a run on the panel's widgets with a clock of its own: (progress, clock, text of the times)."""
    from MKDSegmentationLib.panel.runProgress import RunProgress

    clock = Clock()
    return RunProgress(panel.ui, now=clock), clock, lambda: panel.ui.timeLabel.text


def test_the_time_left_is_the_estimate_at_first_and_the_pace_of_the_run_in_the_end(progress):
    shown, clock, text = progress
    shown.begin("Handing the volume over", expectedSeconds=20.0)
    assert text() == "0:00 elapsed, about 0:20 left"
    clock.now += 30.0
    shown.update("Segmenting the heart", 0.5)  # at this pace 30 s are left; of the estimate nothing is: half of each
    assert text() == "0:30 elapsed, about 0:15 left"
    clock.now += 30.0
    shown.update("Measuring", 0.9)
    assert text() == "1:00 elapsed, about 0:06 left"
    shown.end("Done")


def test_a_silent_run_is_told_as_such(progress):
    shown, clock, text = progress
    shown.begin("Handing the volume over", expectedSeconds=20.0)
    clock.now += 75.0
    shown._showTimes()
    assert text() == "1:15 elapsed, no news for 1:15. If this computer is slow, wait; else click Cancel."
    shown.end("Done")
