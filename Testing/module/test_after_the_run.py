"""What the views show after a run, and the way from a row of the results to its structure; in the stand-in GUI."""

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import addVolume, driving, segment, segmentations, waitForFigures, waitUntilReady


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

    opened, told = [], []
    monkeypatch.setattr(slicer.util, "selectModule", opened.append)
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda text, _duration: told.append(text))
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
    assert "left arrow" in told[-1] and "Left ventricular myocardium" in told[-1]


def test_from_the_segment_editor_one_comes_back_to_what_was_selected(panel, volume, worker, monkeypatch):
    import slicer

    other = addVolume("Other", seed=1)
    panel._parameterNode.inputVolume = volume
    monkeypatch.setattr(slicer.util, "selectModule", lambda _name: panel.parent.exit())
    worker("good")
    segment(panel)
    panel.ui.resultsTable.selectRow(2)
    driving.click(panel.ui.editButton)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentations()[0], "LA", volume)
    mask[:8] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentations()[0], "LA", volume)
    slicer.util.setSliceViewerLayers(background=other)  # what one looks at there decides nothing here
    panel.parent.enter()
    waitForFigures(panel)
    assert panel.ui.inputSelector.currentNode() is volume
    assert panel.ui.outputSelector.currentNode() is segmentations()[0]
    assert panel.ui.resultsTable.currentRow() == 2 and panel.ui.resultsTable.selectedItems()
    assert driving.tableTexts(panel.ui.resultsTable)[2][3] == "edited"


def test_a_deleted_structure_cannot_be_edited(panel, volume, worker):
    worker("good")
    segment(panel)
    segmentations()[0].GetSegmentation().RemoveSegment("RA")
    waitForFigures(panel)
    panel.ui.resultsTable.selectRow(3)
    assert not panel.ui.editButton.enabled
    panel.ui.resultsTable.selectRow(4)
    assert panel.ui.editButton.enabled


# ---- 3D ----


def hasSurfaces(segmentation=None):
    node = segmentation or segmentations()[0]
    return node.GetSegmentation().ContainsRepresentation("Closed surface")


def waitForSurfaces(panel, areThere=True):
    driving.waitUntil(lambda: panel._surfaces._task is None, message="the surfaces")
    assert hasSurfaces() == areThere == panel.ui.show3DCheckBox.checked


def surface(key):
    return segmentations()[0].GetSegmentation().GetSegment(key).GetRepresentation("Closed surface")


def surfaceBySlicer(key, smoothing=0.5):
    """Return the surface that Slicer makes of a segment when it makes all at once."""
    import slicer

    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentations()[0].GetSegmentation())
    copy.SetConversionParameter("Smoothing factor", str(smoothing))
    copy.CreateRepresentation("Closed surface", True)
    return copy.GetSegment(key).GetRepresentation("Closed surface")


def points(polyData):
    from vtk.util import numpy_support

    return numpy_support.vtk_to_numpy(polyData.GetPoints().GetData())


def test_after_a_run_the_3d_view_shows_the_surfaces_that_slicer_would_make(panel, volume, worker, monkeypatch):
    import slicer

    centred = []
    monkeypatch.setattr(slicer.util, "resetThreeDViews", lambda: centred.append(hasSurfaces()))
    worker("good")
    segment(panel)
    waitForSurfaces(panel)
    assert centred == [True], "once, when there is something to see"
    for key in ("LV", "PA"):
        assert np.allclose(points(surface(key)), points(surfaceBySlicer(key)))
    assert segmentations()[0].GetDisplayNode().GetDisplayRepresentationName3D() == "Closed surface"
    assert segmentations()[0].GetDisplayNode().GetDisplayRepresentationName2D() == "Binary labelmap"
    segment(panel)
    waitForSurfaces(panel)


def test_who_switched_3d_off_gets_it_no_more_until_it_is_switched_on(panel, volume, worker, slicerApp):
    worker("good")
    segment(panel)
    waitForSurfaces(panel)
    driving.click(panel.ui.show3DCheckBox)
    waitForSurfaces(panel, False)
    segment(panel)
    waitForSurfaces(panel, False)
    assert slicerApp.userSettings().value("MKDSegmentation/Show3D") == "false"
    driving.click(panel.ui.show3DCheckBox)
    waitForSurfaces(panel)
    assert slicerApp.userSettings().value("MKDSegmentation/Show3D") == "true"


def test_without_a_3d_view_no_surfaces_are_made_unasked(panel, volume, worker):
    import slicer

    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLViewNode").SetMappedInLayout(0)
    worker("good")
    segment(panel)
    waitForSurfaces(panel, False)
    driving.click(panel.ui.show3DCheckBox)
    waitForSurfaces(panel)


def test_surfaces_are_made_in_steps_and_an_edit_meanwhile_is_in_them(panel, volume, worker):
    import slicer

    from MKDSegmentationLib.scene.surfaces import surfaceSteps

    worker("good")
    segment(panel)
    waitForSurfaces(panel)
    driving.click(panel.ui.show3DCheckBox)
    steps = surfaceSteps(segmentations()[0])
    next(steps)
    next(steps)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentations()[0], "LV", volume)
    mask[7:] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentations()[0], "LV", volume)
    assert 5 <= len(list(steps)) <= 20, "a step for each structure, so that the application has its turn"
    assert np.allclose(points(surface("LV")), points(surfaceBySlicer("LV")))


def test_smoothing_changes_the_surfaces_and_nothing_else(panel, volume, worker):
    import slicer

    worker("good")
    segment(panel)
    waitForSurfaces(panel)
    rows = driving.tableTexts(panel.ui.resultsTable)
    before = slicer.util.arrayFromSegmentBinaryLabelmap(segmentations()[0], "LV", volume)
    assert panel.ui.smoothingSlider.value == 10, "Slicer's own default"
    driving.pressKey(panel.ui.smoothingSlider, "Home")
    waitForSurfaces(panel)
    assert segmentations()[0].GetSegmentation().GetConversionParameter("Smoothing factor") == "0.00"
    assert np.allclose(points(surface("LV")), points(surfaceBySlicer("LV", 0.0)))
    driving.pressKey(panel.ui.smoothingSlider, "End")
    waitForSurfaces(panel)
    assert np.allclose(points(surface("LV")), points(surfaceBySlicer("LV", 1.0)))
    assert driving.tableTexts(panel.ui.resultsTable) == rows
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentations()[0], "LV", volume), before)


def test_surfaces_shown_elsewhere_are_shown_as_such_here(panel, volume, worker):
    worker("good")
    segment(panel)
    waitForSurfaces(panel)
    segmentations()[0].GetSegmentation().RemoveRepresentation("Closed surface")
    assert not panel.ui.show3DCheckBox.checked and not panel.ui.smoothingSlider.enabled
    segmentations()[0].CreateClosedSurfaceRepresentation()
    assert panel.ui.show3DCheckBox.checked and panel.ui.smoothingSlider.enabled


def test_a_segmentation_that_goes_while_its_surfaces_are_made_is_no_error(panel, volume, worker):
    import slicer

    worker("good")
    segment(panel)
    waitForSurfaces(panel)
    driving.click(panel.ui.show3DCheckBox)
    panel.ui.show3DCheckBox.click()
    slicer.mrmlScene.RemoveNode(segmentations()[0])
    driving.waitUntil(lambda: panel._surfaces._task is None, message="the end of the work")


@pytest.fixture
def surfaceTurns(panel, monkeypatch):
    """Surfaces that are never finished: grows by an entry with each step of making them."""
    from MKDSegmentationLib.panel import surfaceView

    turns = []

    def steps(_segmentationNode):
        while True:
            turns.append(True)
            yield

    monkeypatch.setattr(surfaceView, "surfaceSteps", steps)
    return turns


def waitForTurn(turns):
    """Wait until surfaces are being made: after the figures."""
    before = len(turns)
    driving.waitUntil(lambda: len(turns) > before, message="a step of the surfaces")


def beginRunThatStays(panel, worker):
    """Begin a run whose worker never comes to an end."""
    worker("stubborn")
    panel.logic._worker.stop()
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the next click")
    driving.click(panel.ui.segmentButton)
    driving.waitUntil(lambda: panel.logic._worker.isBusy, message="the request")


def test_surfaces_that_nobody_asked_for_wait_for_the_end_of_a_run(panel, volume, worker, surfaceTurns):
    worker("good")
    segment(panel)
    waitForTurn(surfaceTurns)
    beginRunThatStays(panel, worker)
    before = len(surfaceTurns)
    driving.processEvents(0.2)
    assert len(surfaceTurns) == before
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the next click")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    waitForTurn(surfaceTurns)  # of the result that stayed


def test_surfaces_of_a_result_that_the_user_clicks_on_are_made_during_a_run_too(panel, volume, worker, surfaceTurns):
    worker("good")
    segment(panel)
    beginRunThatStays(panel, worker)
    panel._surfaces.showNew(segmentations()[0], volume, isAsked=True)
    waitForTurn(surfaceTurns)
    panel._updatePanel()
    waitForTurn(surfaceTurns)


# ---- the volume that the views show ----


def test_the_panel_says_when_the_views_show_another_volume(panel, volume):
    import slicer

    label = panel.ui.shownVolumeLabel
    assert "No slice view shows “CT”, which is selected." in label.text and label.visible
    slicer.util.setSliceViewerLayers(background=volume)
    assert not label.visible
    other = addVolume("Other <b>", seed=1)
    slicer.util.setSliceViewerLayers(background=other)
    assert "“Other &lt;b&gt;”, not “CT”, which is selected" in label.text and label.visible
    driving.click(panel.ui.inputCollapsibleButton)
    assert label.visible, "the sentence stands by the button that segments"
    driving.followLink(label)
    assert backgrounds() == {volume.GetID()} and not label.visible
    driving.click(panel.ui.inputCollapsibleButton)
    driving.choose(panel.ui.inputSelector, "Other <b>")
    assert "“CT”, not “Other &lt;b&gt;”" in label.text
    slicer.util.setSliceViewerLayers(foreground=other, foregroundOpacity=0.5)
    assert not label.visible, "it lies over the other one"
    slicer.util.setSliceViewerLayers(foregroundOpacity=0.0)
    assert label.visible


def test_views_that_the_layout_does_not_have_show_nothing(panel, volume):
    import slicer

    slicer.util.setSliceViewerLayers(background=volume)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    red.SetBackgroundVolumeID(addVolume("Other", seed=1).GetID())
    label = panel.ui.shownVolumeLabel
    assert not label.visible, "two views show it"
    for name in ("Yellow", "Green"):
        slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}").SetMappedInLayout(0)
    assert "“Other”, not “CT”" in label.text and label.visible
