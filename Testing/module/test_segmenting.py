"""From the click to the segments in the stand-in GUI, with a worker that is quick and obedient."""

import json
import os

import numpy as np
import pytest

from mkd_core.structures import STRUCTURES
from Testing.support.fake_worker import blocks

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from mkd_core.protocol import SegmentationOptions
from Testing.support.panel_driving import (
    SHAPE,
    addVolume,
    driving,
    sceneContent,
    segment,
    segmentations,
    voxelsOf,
    waitForStage,
    waitUntilReady,
)


def test_a_click_turns_the_volume_into_seven_exact_segments(panel, volume, worker):
    worker("good")
    segment(panel)
    (segmentation,) = segmentations()
    for structure in STRUCTURES:
        assert np.array_equal(voxelsOf(segmentation, structure.key, volume), blocks(SHAPE) == structure.label), (
            structure.name
        )
    assert panel.ui.outputSelector.currentNode() is segmentation
    assert "segmented" in panel.ui.statusLabel.text


def test_the_new_segmentation_is_named_after_its_volume_and_stands_beside_it(panel, volume, worker):
    import slicer

    worker("good")
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    study = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    segment(panel)
    (segmentation,) = segmentations()
    assert segmentation.GetName() == "CT heart"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study


def test_the_parent_transform_of_the_volume_moves_the_segments_along(panel, volume, worker):
    import slicer
    import vtk

    transform = vtk.vtkTransform()
    transform.RotateWXYZ(25, 0.2, 0.9, 0.1)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    volume.SetAndObserveTransformNodeID(node.GetID())
    worker("good")
    segment(panel)
    (segmentation,) = segmentations()
    assert segmentation.GetParentTransformNode() is node
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), blocks(SHAPE) == 1)


def test_a_transform_applied_during_the_run_is_that_of_the_segmentation(panel, volume, worker, tmp_path):
    import slicer

    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(node.GetID())
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert segmentations()[0].GetParentTransformNode() is node


def test_a_second_click_replaces_our_segments_in_the_same_node_and_keeps_those_of_the_user(panel, volume, worker):
    import slicer

    worker("good")
    segment(panel)
    (segmentation,) = segmentations()
    mine = np.zeros(SHAPE, np.uint8)
    mine[2:6, 2:20, 3:30] = 1
    segmentation.GetSegmentation().AddEmptySegment("mine", "My measurement")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mine, segmentation, "mine", volume)
    segment(panel)
    assert segmentations() == [segmentation]
    assert sorted(segmentation.GetSegmentation().GetSegmentIDs()) == sorted(
        [structure.key for structure in STRUCTURES] + ["mine"]
    )
    assert np.array_equal(voxelsOf(segmentation, "mine", volume), mine > 0)


def test_the_worker_stays_warm_between_clicks(panel, volume, worker):
    worker("good")
    segment(panel)
    first = json.loads(segmentations()[0].GetAttribute("MKDSegmentation.Report"))["pid"]
    segment(panel)
    assert json.loads(segmentations()[0].GetAttribute("MKDSegmentation.Report"))["pid"] == first


def test_the_worker_is_asked_for_what_the_panel_shows(panel, volume, worker, tiny_bundle_path):
    worker("good")
    driving.choose(panel.ui.modalityComboBox, "MR")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.deviceComboBox, "Processor (CPU)")
    driving.click(panel.ui.weightsCollapsibleButton)
    driving.typeText(panel.ui.weightsPathLineEdit, str(tiny_bundle_path))
    segment(panel)
    request = json.loads(segmentations()[0].GetAttribute("MKDSegmentation.Report"))["request"]
    assert request["op"] == "segment" and request["modality"] == "MR"
    assert request["options"] == SegmentationOptions(device="cpu", structures=None).to_dict()
    assert request["bundle"] == str(tiny_bundle_path)


def test_each_volume_keeps_its_own_segmentation(panel, volume, worker):
    worker("good")
    segment(panel)
    first = segmentations()[0]
    addVolume("Second")
    driving.choose(panel.ui.inputSelector, "Second")
    assert panel.ui.outputSelector.currentNode() is None
    segment(panel)
    assert len(segmentations()) == 2
    driving.choose(panel.ui.inputSelector, "CT")
    assert panel.ui.outputSelector.currentNode() is first


def test_a_segmentation_chosen_by_the_user_receives_the_segments(panel, volume, worker):
    import slicer

    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.outputSelector, "Mine")
    segment(panel)
    assert segmentations() == [mine]
    assert mine.GetSegmentation().GetNumberOfSegments() == 7


def test_slicer_stays_responsive_while_the_worker_works(panel, volume, worker, tmp_path):
    import qt

    worker(f"waits-for:{tmp_path / 'go'}")
    ticks = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: ticks.append(1))
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    assert panel.ui.progressBar.visible and panel.ui.progressBar.value == 25
    timer.start(5)
    driving.waitUntil(lambda: len(ticks) > 10, message="ten turns of the event loop")
    timer.stop()
    assert panel.ui.segmentButton.text == "Cancel"
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert not panel.ui.progressBar.visible


def test_a_run_goes_on_while_the_user_looks_at_another_module(panel, volume, worker, tmp_path):
    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    panel.parent.exit()
    (tmp_path / "go").touch()
    driving.waitUntil(segmentations, message="the segmentation")
    panel.parent.enter()
    waitUntilReady(panel)
    assert panel.ui.outputSelector.currentNode() is segmentations()[0]
    assert panel.ui.resultsTable.rowCount == 7


@pytest.mark.parametrize(
    "mode, sentence",
    [
        ("no-heart", "No heart was found in this volume. Check that it shows the whole heart."),
        ("empty", "No heart was found in this volume."),
    ],
)
def test_a_volume_without_a_heart_gives_a_sentence_and_no_node(panel, volume, worker, mode, sentence):
    worker(mode)
    before = sceneContent()
    segment(panel)
    assert panel.ui.statusLabel.text == sentence
    assert sceneContent() == before
    assert not panel.ui.resultsTable.visible


def test_a_label_map_on_another_grid_changes_nothing_in_the_scene(panel, volume, worker, expectedErrors):
    worker("wrong-grid")
    before = sceneContent()
    with expectedErrors("could not be put into the scene"):
        segment(panel)
    assert "could not be put into the scene" in panel.ui.statusLabel.text
    assert sceneContent() == before


def test_a_failure_while_results_are_stored_leaves_an_earlier_segmentation_as_the_user_left_it(
    panel, volume, worker, monkeypatch, expectedErrors
):
    import slicer

    from MKDSegmentationLib.run import segmentationRun

    worker("good")
    segment(panel)
    (segmentation,) = segmentations()
    edited = voxelsOf(segmentation, "LV", volume)
    edited[: len(edited) // 2] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited.astype("uint8"), segmentation, "LV", volume)
    before, reportBefore = sceneContent(), segmentation.GetAttribute("MKDSegmentation.Report")
    changed = []

    def fail(report, node):
        changed.append(node.GetAttribute("MKDSegmentation.Report") != reportBefore)
        raise RuntimeError("no table")

    monkeypatch.setattr(segmentationRun, "writeMeasurementsTable", fail)
    driving.click(panel.ui.segmentButton)
    with expectedErrors("could not be put into the scene"):
        driving.click(panel.ui.replaceEditsButton)
        waitUntilReady(panel)
    assert changed == [True], "the failure came after the segments and their report"
    assert sceneContent() == before and segmentation.GetAttribute("MKDSegmentation.Report") == reportBefore
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), edited)


@pytest.mark.parametrize("changed", ["grid", "voxels"])
def test_a_volume_that_changes_during_the_run_gets_no_segmentation(panel, volume, worker, tmp_path, changed):
    import slicer

    worker(f"waits-for:{tmp_path / 'go'}")
    before = sceneContent()
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    if changed == "grid":
        volume.SetSpacing(1.0, 1.0, 1.0)
    else:
        slicer.util.arrayFromVolume(volume)[:] = 7
        slicer.util.arrayFromVolumeModified(volume)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert "changed during the segmentation" in panel.ui.statusLabel.text
    assert sceneContent() == before


def test_a_volume_under_a_non_linear_transform_is_segmented_with_a_warning(panel, volume, worker):
    import slicer
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    for points in (spline.SetSourceLandmarks, spline.SetTargetLandmarks):
        landmarks = vtk.vtkPoints()
        for point in (
            (0, 0, 0),
            (50, 0, 0),
            (0, 50, 0),
            (0, 0, 50),
            (20, 20, 30 if points == spline.SetTargetLandmarks else 20),
        ):
            landmarks.InsertNextPoint(point)
        points(landmarks)
    node.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(node.GetID())
    worker("good")
    segment(panel)
    assert segmentations()[0].GetParentTransformNode() is node
    assert "non-linear transform" in panel.ui.warningsLabel.text


def test_nothing_is_left_in_the_temporary_folder(panel, volume, worker, slicerApp):
    worker("good")
    segment(panel)
    assert os.listdir(slicerApp.temporaryPath) == []
    worker("no-heart")
    segment(panel)
    assert os.listdir(slicerApp.temporaryPath) == []


def test_a_temporary_folder_that_cannot_be_written_is_told_in_a_sentence(panel, volume, worker, slicerApp, tmp_path):
    worker("good")
    slicerApp.temporaryPath = str(tmp_path / "gone")
    driving.click(panel.ui.segmentButton)
    assert "temporary folder" in panel.ui.statusLabel.text
    assert panel.ui.segmentButton.text == "Segment" and panel.ui.segmentButton.enabled


def test_a_script_can_segment_without_the_panel(slicerApp, panel, volume, worker):
    from MKDSegmentation import MKDSegmentationLogic
    from MKDSegmentationLib.parameters import RunOptions

    worker("good")
    logic, outcomes = MKDSegmentationLogic(), []
    logic.start(volume, options=RunOptions(modality="MR"), onFinished=outcomes.append)
    with pytest.raises(RuntimeError):
        logic.start(volume)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    logic.close()
    assert outcomes[0].status == "done" and outcomes[0].segmentation is segmentations()[0]
    assert outcomes[0].report["request"]["modality"] == "MR"
