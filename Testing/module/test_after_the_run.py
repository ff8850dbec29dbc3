"""What the views show after a run, and the way from a row of the results to its structure; in the stand-in GUI."""

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import addVolume, driving, segment, segmentations


@pytest.fixture(autouse=True)
def threeDirections(slicerApp):
    """The slice views look along three axes, as in Slicer's layouts."""
    import slicer

    slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeYellow").SetOrientationToSagittal()
    slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeGreen").SetOrientationToCoronal()


def crosshair():
    """Return where the slice views meet, RAS mm."""
    import slicer

    places = {}
    for name, axis in (("Red", 2), ("Yellow", 0), ("Green", 1)):
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        places[axis] = node.GetSliceToRAS().GetElement(axis, 3)
    return np.array([places[axis] for axis in range(3)])


def centre(key):
    return np.array(segmentations()[0].GetSegmentCenterRAS(key))


def backgrounds():
    import slicer

    return {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}


def test_after_a_run_the_views_show_its_volume_the_heart_in_their_middle_and_outlines(panel, volume, worker):
    import slicer

    other = addVolume("Other", seed=1)
    slicer.util.setSliceViewerLayers(background=other, fit=True)
    panel._parameterNode.inputVolume = volume
    worker("good")
    segment(panel)
    assert backgrounds() == {volume.GetID()}
    middle = np.mean([centre(key) for key in ("LV", "RV", "LA", "RA", "Myo", "AA", "PA")], axis=0)
    assert np.abs(crosshair() - middle).max() < 1.5
    display = segmentations()[0].GetDisplayNode()
    assert display.GetVisibility2DOutline() and not display.GetVisibility2DFill()
    display.SetVisibility2DFill(True)
    segment(panel)
    assert display.GetVisibility2DFill(), "what the user chose stays"


def test_a_click_and_the_arrow_keys_jump_to_the_structure(panel, volume, worker):
    worker("good")
    segment(panel)
    table = panel.ui.resultsTable
    table.selectRow(6)
    assert np.abs(crosshair() - centre("PA")).max() < 1.5
    driving.pressKey(table, "Up")
    assert np.abs(crosshair() - centre("AA")).max() < 1.5


def test_edit_opens_the_segment_editor_on_the_structure_of_the_row(panel, volume, worker, monkeypatch):
    import slicer

    opened = []
    monkeypatch.setattr(slicer.util, "selectModule", opened.append)
    worker("good")
    segment(panel)
    for row, key in ((None, "LV"), (3, "RA"), (4, "Myo")):
        if row is not None:
            panel.ui.resultsTable.selectRow(row)
        driving.click(panel.ui.editButton)
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        assert editor.GetSelectedSegmentID() == key
        assert editor.GetSegmentationNode() is segmentations()[0] and editor.GetSourceVolumeNode() is volume
    assert opened == ["SegmentEditor"] * 3
