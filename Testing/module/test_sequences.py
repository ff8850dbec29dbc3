"""All frames of a sequence by one click, in the stand-in GUI, with a worker that is quick and obedient."""

import json
import os
import re
import time

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import (
    addVolume,
    driving,
    sceneContent,
    segment,
    segmentations,
    voxelsOf,
    waitForStage,
    waitUntilReady,
)
from Testing.support.sequence_driving import (
    FRAMES,
    addSequence,
    browserOf,
    framesOf,
    functionRows,
    nodesNamed,
    segmentAll,
)


@pytest.fixture
def sequence(slicerApp):
    """The volume node that shows a sequence of frames which differ."""
    return addSequence()


def test_a_single_volume_has_no_4d_section(panel, volume):
    assert not panel.ui.sequenceCollapsibleButton.visible


def test_a_sequence_is_told_with_its_frames_and_times(panel, sequence):
    driving.processEvents()
    assert panel.ui.sequenceLabel.text == f"Beat: {FRAMES} frames, time 0 to 320 ms"
    assert panel.ui.segmentSequenceButton.text == f"Segment all {FRAMES} frames"


def test_one_click_segments_every_frame_into_a_sequence_of_the_same_browser(panel, sequence, worker):
    import slicer

    from Testing.support.fake_worker import beatingBlocks

    worker("beat")
    segmentAll(panel)
    result = framesOf(sequence)
    assert result.GetName() == "Beat heart"
    assert (result.GetIndexName(), result.GetIndexUnit()) == ("time", "ms")
    browser = browserOf(sequence)
    assert [result.GetNthIndexValue(frame) for frame in range(FRAMES)] == ["0", "80", "160", "240", "320"]
    (shown,) = segmentations()
    for frame in range(FRAMES):
        browser.SetSelectedItemNumber(frame)
        expected = beatingBlocks(slicer.util.arrayFromVolume(sequence))
        assert np.array_equal(voxelsOf(shown, "LV", sequence), expected == 1), f"frame {frame}"
        assert np.array_equal(voxelsOf(shown, "Myo", sequence), expected == 5), f"frame {frame}"
    assert panel.ui.statusLabel.text.startswith(f"All {FRAMES} frames are segmented")


def test_a_run_does_not_copy_the_shown_volume_again_with_every_frame(panel, sequence, worker):
    worker("beat")
    before = sequence.GetImageData().GetPointData().GetScalars().GetMTime()
    for _run in ("first", "again"):
        segmentAll(panel)
        assert sequence.GetImageData().GetPointData().GetScalars().GetMTime() == before
    driving.click(panel.ui.undoButton)
    assert sequence.GetImageData().GetPointData().GetScalars().GetMTime() == before
    assert browserOf(sequence).GetPlayback(browserOf(sequence).GetMasterSequenceNode())


def test_the_progress_bar_counts_the_frames(panel, sequence, worker):
    worker("beat")
    texts, values = set(), []
    driving.click(panel.ui.segmentSequenceButton)

    def ready():
        texts.add(panel.ui.statusLabel.text)
        values.append(panel.ui.progressBar.value)
        return panel.ui.segmentButton.text == "Segment"

    driving.waitUntil(ready, message="the end of the run")
    for frame in range(1, FRAMES + 1):
        assert any(text.startswith(f"Frame {frame} of {FRAMES}: ") for text in texts), texts
    assert values[:-1] == sorted(values[:-1]) and max(values) > 80


def test_all_frames_are_worked_on_by_the_same_worker(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    pids = {
        json.loads(framesOf(sequence).GetNthDataNode(frame).GetAttribute("MKDSegmentation.Report"))["pid"]
        for frame in range(FRAMES)
    }
    assert len(pids) == 1


def test_the_orientation_of_the_first_frame_is_taken_for_those_that_follow(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    told = [
        json.loads(framesOf(sequence).GetNthDataNode(frame).GetAttribute("MKDSegmentation.Report"))["options"]
        for frame in range(FRAMES)
    ]
    assert [options["first_frame"] for options in told] == [None] + [["R P S", 0.75]] * (FRAMES - 1)


def test_the_function_is_that_of_the_frames_computed_by_hand(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    # Blocks of 5 x 6 voxels of 8 mm3 (see fake_worker.py): the left ventricle is 10, 7, 4, 6, 9 voxels wide, the right
    # one as much.
    edv, esv = 5 * 6 * 10 * 8 / 1000, 5 * 6 * 4 * 8 / 1000
    rows = functionRows(panel)
    assert rows["End-diastolic volume (ml)"] == [f"{edv:.0f}"] * 2
    assert rows["End-systolic volume (ml)"] == [f"{esv:.0f}"] * 2
    assert rows["Stroke volume (ml)"] == [f"{edv - esv:.0f}"] * 2
    assert rows["Ejection fraction (%)"] == ["60", "60"]
    assert rows["Myocardial mass (g)"] == [f"{5 * 6 * 4 * 8 / 1000 * 1.05:.0f}", ""]
    assert "End-diastole is frame 1, end-systole frame 3." in panel.ui.functionWarningsLabel.text
    assert "Only 5 frames" in panel.ui.functionWarningsLabel.text
    assert "Research use only" in panel.ui.functionWarningsLabel.text, "the figures stand in a section of their own"


def test_a_click_on_a_volume_shows_the_frame_it_was_measured_in(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    browser = browserOf(sequence)
    browser.SetPlaybackActive(True)
    panel.ui.functionTable.cellClicked.emit(1, 1)
    assert browser.GetSelectedItemNumber() == 2 and not browser.GetPlaybackActive()
    panel.ui.functionTable.cellClicked.emit(0, 0)
    assert browser.GetSelectedItemNumber() == 0
    panel.ui.functionTable.cellClicked.emit(2, 0)
    assert browser.GetSelectedItemNumber() == 0, "a stroke volume has no frame"


def test_volumes_over_time_and_function_are_table_nodes(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    (volumes,) = nodesNamed("Beat heart volumes")
    table = volumes.GetTable()
    assert [table.GetColumnName(column) for column in range(3)] == [
        "time (ms)",
        "Left ventricle (ml)",
        "Right ventricle (ml)",
    ]
    assert [table.GetValue(row, 0).ToDouble() for row in range(FRAMES)] == [0, 80, 160, 240, 320]
    assert [table.GetValue(row, 1).ToDouble() for row in range(FRAMES)] == pytest.approx([2.4, 1.68, 0.96, 1.44, 2.16])
    (function,) = nodesNamed("Beat heart function")
    cells = [[function.GetCellText(row, column) for column in range(3)] for row in range(function.GetNumberOfRows())]
    assert ["Ejection fraction (%)", "60", "60"] in cells and ["End-systole (frame)", "3", ""] in cells


def test_the_plot_has_a_curve_for_each_chamber_in_its_colour_and_is_shown_on_a_click(panel, sequence, worker):
    import slicer

    from mkd_core.structures import BY_KEY

    worker("beat")
    segmentAll(panel)
    driving.click(panel.ui.showPlotButton)
    chart = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID())
    assert chart.GetName() == "Beat heart volume-time curves"
    assert chart.GetXAxisTitle() == "time (ms)" and chart.GetYAxisTitle() == "Volume (ml)"
    low, high = chart.GetYAxisRange()
    assert not chart.GetYAxisRangeAuto() and low == 0.0 and high > 1.3 * 2.4, "the legend lies over no curve"
    series = [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [one.GetName() for one in series] == [BY_KEY[key].name for key in ("LV", "RV", "LA", "RA")]
    assert series[0].GetColor() == pytest.approx([channel / 255 for channel in BY_KEY["LV"].color])
    for one in series:
        assert one.GetTableNode().GetTable().GetColumnByName(one.GetYColumnName()) is not None
        assert one.GetTableNode().GetTable().GetColumnByName(one.GetXColumnName()) is not None


def test_the_results_follow_the_selected_frame(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    browser, seen = browserOf(sequence), []
    for frame in range(FRAMES):
        browser.SetSelectedItemNumber(frame)
        seen.append(driving.tableTexts(panel.ui.resultsTable)[0][1])
    assert seen == ["2.4", "1.7", "1.0", "1.4", "2.2"]


def test_show_3d_holds_for_every_frame_that_comes_into_view(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    browser, (shown,) = browserOf(sequence), segmentations()

    def hasSurfaces():
        return shown.GetSegmentation().ContainsRepresentation("Closed surface")

    def showsNow():
        driving.waitUntil(lambda: panel._surfaces._task is None, message="the surfaces")
        return hasSurfaces()

    assert showsNow()
    for frame in (1, 2, 0):
        browser.SetSelectedItemNumber(frame)
        assert showsNow(), f"frame {frame}"
    browser.SetSelectedItemNumber(2)  # before the surfaces of this one are made, the next one comes
    browser.SetSelectedItemNumber(3)
    assert showsNow()
    driving.pressKey(panel.ui.smoothingSlider, "Home")
    assert showsNow()
    browser.SetSelectedItemNumber(4)
    assert showsNow() and shown.GetSegmentation().GetConversionParameter("Smoothing factor") == "0.00"
    driving.click(panel.ui.show3DCheckBox)
    for frame in (1, 2, 0):
        browser.SetSelectedItemNumber(frame)
        assert not showsNow() and not hasSurfaces(), f"frame {frame}"


def test_cancel_keeps_the_frames_that_are_finished(panel, sequence, worker, slicerApp, tmp_path):
    worker(f"beat-until:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, f"Frame 3 of {FRAMES}: Looking")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    assert panel.ui.statusLabel.text == f"Cancelled after 2 of {FRAMES} frames; these are kept."
    assert framesOf(sequence).GetDataNodeAtValue("80", True).GetSegmentation().GetNumberOfSegments() == 7
    assert "Frames 3, 4, 5 are not segmented" in panel.ui.functionWarningsLabel.text
    rows = functionRows(panel)
    for title in ("End-diastolic volume (ml)", "End-systolic volume (ml)", "Ejection fraction (%)"):
        assert rows[title] == ["", ""], "two frames of five are no heartbeat"
    assert "ejection fraction is not shown" in panel.ui.functionWarningsLabel.text
    (function,) = nodesNamed("Beat heart function")
    cells = {function.GetCellText(row, 0): function.GetCellText(row, 1) for row in range(function.GetNumberOfRows())}
    assert cells["Ejection fraction (%)"] == "" and "End-systole (frame)" not in cells
    driving.waitUntil(lambda: not os.listdir(slicerApp.temporaryPath), message="an empty temporary folder")
    browserOf(sequence).SetSelectedItemNumber(3)
    assert segmentations()[0].GetSegmentation().GetNumberOfSegments() == 0, (
        "no frame shows its neighbour's segmentation"
    )


def test_a_run_cancelled_at_its_last_frame_tells_no_ejection_fraction_until_all_frames_are_segmented(
    panel, sequence, worker, tmp_path
):
    """One missing frame of a beat may be the end of systole."""
    worker(f"beat-last:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, f"Frame {FRAMES} of {FRAMES}: Looking")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    assert functionRows(panel)["Ejection fraction (%)"] == ["", ""]
    assert "the run was cancelled before all frames" in panel.ui.functionWarningsLabel.text
    worker("beat")
    segmentAll(panel)
    assert functionRows(panel)["Ejection fraction (%)"][0] != ""
    assert "cancelled" not in panel.ui.functionWarningsLabel.text


def test_cancel_before_the_first_frame_is_finished_leaves_the_scene_as_it_was(panel, sequence, worker):
    worker("slow")
    before = sceneContent()
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, "Frame 1 of")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    assert panel.ui.statusLabel.text == "Cancelled. The scene is as it was."
    assert sceneContent() == before


def test_a_frame_that_fails_is_told_and_the_others_are_kept(panel, sequence, worker):
    worker("beat-without-third")
    segmentAll(panel)
    assert f"4 of {FRAMES} frames are segmented" in panel.ui.statusLabel.text
    assert "Not segmented: 3. No heart was found in this volume." in panel.ui.statusLabel.text
    assert "Frame 3 is not segmented" in panel.ui.functionWarningsLabel.text
    (volumes,) = nodesNamed("Beat heart volumes")
    assert np.isnan(volumes.GetTable().GetValue(2, 1).ToDouble())


def test_frames_that_all_fail_alike_end_the_run_early_and_leave_nothing(panel, sequence, worker):
    worker("no-heart")
    before = sceneContent()
    segmentAll(panel)
    assert panel.ui.statusLabel.text == "No heart was found in this volume. Check that it shows the whole heart."
    assert sceneContent() == before


def test_a_second_run_replaces_our_segments_in_place_and_keeps_those_of_the_user(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    before = sceneContent()
    (shown,) = segmentations()
    browserOf(sequence).SetSelectedItemNumber(1)
    shown.GetSegmentation().AddEmptySegment("mine", "My measurement")
    segmentAll(panel)
    assert sceneContent() == before
    counts = [
        framesOf(sequence).GetNthDataNode(frame).GetSegmentation().GetNumberOfSegments() for frame in range(FRAMES)
    ]
    assert counts == [7, 8, 7, 7, 7]


def test_a_frame_that_failed_can_be_segmented_alone_later(panel, sequence, worker, tmp_path):
    worker(f"beat-without-third:{tmp_path / 'found'}")
    segmentAll(panel)
    (tmp_path / "found").touch()
    browserOf(sequence).SetSelectedItemNumber(2)
    segment(panel)
    browserOf(sequence).SetSelectedItemNumber(0)
    browserOf(sequence).SetSelectedItemNumber(2)
    assert segmentations()[0].GetSegmentation().GetNumberOfSegments() == 7
    assert "not segmented" not in panel.ui.functionWarningsLabel.text


def test_the_parent_transform_of_the_volume_moves_the_segmentations_along(panel, sequence, worker):
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    sequence.SetAndObserveTransformNodeID(transform.GetID())
    worker("beat")
    segmentAll(panel)
    assert segmentations()[0].GetParentTransformNode() is transform


def test_browsing_meanwhile_does_not_disturb_the_run(panel, sequence, worker, tmp_path):
    worker(f"beat-until:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, "Frame 3 of")
    for frame in (4, 1, 2, 3):
        browserOf(sequence).SetSelectedItemNumber(frame)
        driving.processEvents(0.02)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert f"All {FRAMES} frames are segmented" in panel.ui.statusLabel.text
    assert functionRows(panel)["Ejection fraction (%)"] == ["60", "60"]


@pytest.mark.parametrize(
    "removed, reason",
    [
        ("browser", "the sequence was removed"),
        ("sequence", "the sequence was removed"),
        ("result", "the segmentations were removed"),
        ("scene", "the scene was closed"),
    ],
)
def test_what_is_taken_away_in_mid_run_ends_it_with_a_reason(
    panel, sequence, worker, tmp_path, workerProcesses, slicerApp, removed, reason
):
    import slicer

    worker(f"beat-until:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, "Frame 3 of")
    browser = browserOf(sequence)
    if removed == "scene":
        slicer.mrmlScene.Clear()
    else:
        slicer.mrmlScene.RemoveNode(
            {"browser": browser, "sequence": browser.GetSequenceNode(sequence), "result": framesOf(sequence)}[removed]
        )
    assert panel.ui.segmentButton.text == "Segment"
    assert reason in panel.ui.statusLabel.text
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the worker")
    driving.waitUntil(lambda: not os.listdir(slicerApp.temporaryPath), message="an empty temporary folder")


def test_a_removed_volume_comes_back_from_its_sequence_and_the_run_goes_on(panel, sequence, worker, tmp_path):
    import slicer

    worker(f"beat-until:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, "Frame 3 of")
    slicer.mrmlScene.RemoveNode(sequence)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert panel.ui.inputSelector.currentNode().GetName() == "Beat"
    assert functionRows(panel)["Ejection fraction (%)"] == ["60", "60"]


def test_why_frames_cannot_be_segmented_stands_in_the_tool_tip(panel, sequence, tmp_path):
    driving.click(panel.ui.weightsCollapsibleButton)
    driving.typeText(panel.ui.weightsPathLineEdit, str(tmp_path / "nowhere.safetensors"))
    assert not panel.ui.segmentSequenceButton.enabled
    assert "nowhere.safetensors" in panel.ui.segmentSequenceButton.toolTip


def test_a_script_can_segment_a_sequence_without_the_panel(panel, sequence, worker):
    from MKDSegmentation import MKDSegmentationLogic

    worker("beat")
    logic, outcomes = MKDSegmentationLogic(), []
    begun = time.monotonic()
    logic.startSequence(sequence, onFinished=outcomes.append)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    told = re.fullmatch(rf"All {FRAMES} frames are segmented \((\d+) s\)\.", outcomes[0].message)
    assert 1 <= int(told[1]) <= time.monotonic() - begun + 1.0
    with pytest.raises(ValueError, match="does not belong to a sequence"):
        logic.startSequence(addVolume("Single"))
    logic.close()
    assert outcomes[0].status == "done"
    assert outcomes[0].report["function"]["left"]["ejection_fraction"] == pytest.approx(0.6)
    assert len(outcomes[0].report["frames"]) == FRAMES


def test_the_panel_with_4d_results_fits_350_pixels_and_every_control_has_a_tool_tip(panel, sequence, worker):
    worker("beat")
    segmentAll(panel)
    for name in ("segmentSequenceButton", "functionTable", "showPlotButton"):
        assert getattr(panel.ui, name).toolTip, name
    assert panel.parent.minimumSizeHint.width() <= 350


def test_the_event_loop_turns_between_the_steps_of_a_run(panel, sequence, worker):
    import qt

    seen = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: seen.append(panel.ui.statusLabel.text))
    worker("beat")
    driving.click(panel.ui.segmentSequenceButton)
    timer.start(0)
    waitUntilReady(panel)
    timer.stop()
    frames = {text.split(":")[0] for text in seen}
    assert frames >= {f"Frame {number} of 5" for number in range(1, 6)}
