"""Segmentations of a sequence outlive saving and loading the scene: real MRML, with the module in the stand-in GUI."""

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import driving, voxelsOf
from Testing.support.sequence_driving import FRAMES, addSequence, browserOf, framesOf, segmentAll


@pytest.fixture
def reloaded(panel, slicerApp, worker, tmp_path, expectedErrors):
    """The scene with a segmented sequence, saved as a bundle, closed and loaded again."""
    import slicer

    addSequence()
    worker("beat")
    segmentAll(panel)
    folder = tmp_path / "saved"
    folder.mkdir()
    assert slicer.mrmlScene.SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    slicer.mrmlScene.Clear()
    (scene,) = folder.rglob("*.mrml")
    slicer.mrmlScene.SetURL(str(scene))
    with expectedErrors(
        "invalid orientation preset name: Reformat", atLeast=0
    ):  # of slice views that nobody has turned yet
        assert slicer.mrmlScene.Connect()
    driving.processEvents()
    return slicer.util.getNode("Beat")


def test_function_table_and_plot_come_back_with_the_scene(reloaded, panel):
    import slicer

    driving.choose(panel.ui.inputSelector, "Beat")
    rows = {row[0]: row[1:] for row in driving.tableTexts(panel.ui.functionTable)}
    assert rows["Ejection fraction (%)"] == ["60", "60"]
    driving.click(panel.ui.showPlotButton)
    chart = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID())
    table = chart.GetNthPlotSeriesNode(0).GetTableNode().GetTable()
    assert [table.GetValue(row, 1).ToDouble() for row in range(FRAMES)] == pytest.approx([2.4, 1.68, 0.96, 1.44, 2.16])


def test_each_frame_has_its_segmentation_again(reloaded, panel):
    import slicer

    from Testing.support.fake_worker import BEAT_WIDTHS

    (shown,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    for frame, width in enumerate(BEAT_WIDTHS):
        browserOf(reloaded).SetSelectedItemNumber(frame)
        assert voxelsOf(shown, "LV", reloaded).sum() == 5 * 6 * width
    assert framesOf(reloaded).GetNumberOfDataNodes() == FRAMES
