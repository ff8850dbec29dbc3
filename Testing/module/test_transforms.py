"""Volumes under transforms: what is seen is what is segmented and measured; the module in the stand-in GUI."""

import json

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
import vtk

from Testing.support.panel_driving import (
    MODULE,
    driving,
    segment,
    segmentations,
    voxelsOf,
    waitForStage,
    waitUntilReady,
)
from Testing.support.sequence_driving import addSequence, framesOf, segmentAll

KEYS = ("LV", "RV", "LA", "RA", "Myo", "AA", "PA")

TRANSFORMS = {
    "rotated": [("RotateWXYZ", 37.0, 0.3, 0.5, 0.8), ("Translate", 10.0, -20.0, 30.0)],
    "turned upside down": [("RotateWXYZ", 180.0, 1.0, 0.0, 0.0)],
    "mirrored": [("Scale", -1.0, 1.0, 1.0)],
    "scaled": [("Scale", 2.0, 2.0, 2.0)],
    "stretched": [("Scale", 1.0, 1.0, 2.0)],
    "stretched and turned": [("RotateWXYZ", 37.0, 0.3, 0.5, 0.8), ("Scale", 1.0, 1.0, 2.0)],
    "sheared": [("Scale", 1.0, 1.0, 2.0), ("RotateWXYZ", 37.0, 0.3, 0.5, 0.8)],
}


def put(volume, steps, parent=None):
    """Put a volume under a linear transform of steps of vtkTransform, that under a parent; returns the transform."""
    import slicer

    transform = vtk.vtkTransform()
    for name, *arguments in steps:
        getattr(transform, name)(*arguments)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    volume.SetAndObserveTransformNodeID(node.GetID())
    driving.processEvents()
    return node


def reportOf(segmentation):
    """Return the report that the run left."""
    return json.loads(segmentation.GetAttribute("MKDSegmentation.Report"))


def worldMl(segmentation, key):
    """Return the volume of a segment in the world as Segment Statistics measures it, in ml.

    The transform is hardened into a copy. A label map under a shear is resampled then; there the number of voxels and
    the determinant tell.
    """
    import slicer

    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    copy.Copy(segmentation)
    copy.HardenTransform()
    image = copy.GetBinaryLabelmapInternalRepresentation(key)
    voxels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(copy, key)
    count = (voxels == copy.GetSegmentation().GetSegment(key).GetLabelValue()).sum()
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    slicer.mrmlScene.RemoveNode(copy)
    return count * abs(matrix.Determinant()) / 1000.0


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_volumes_are_those_of_the_world_and_labels_lie_on_the_grid_of_the_volume(panel, volume, worker, kind):
    from Testing.support.fake_worker import blocks

    worker("good")
    put(volume, TRANSFORMS[kind])
    segment(panel)
    (segmentation,) = segmentations()
    labels = blocks(volume.GetImageData().GetDimensions()[::-1])
    told = {key: entry["volume_ml"] for key, entry in reportOf(segmentation)["structures"].items()}
    for label, key in enumerate(KEYS, start=1):
        assert np.array_equal(voxelsOf(segmentation, key, volume), labels == label), key
        tolerance = 0.1 if kind == "sheared" else 1e-3  # the label map itself is resampled there
        assert told[key] == pytest.approx(worldMl(segmentation, key), rel=tolerance), key


def test_nested_transforms_count_together(panel, volume, worker):
    worker("good")
    put(volume, [("Scale", 2.0, 2.0, 2.0)], parent=put(volume, [("RotateWXYZ", 90.0, 0.0, 0.0, 1.0)]))
    segment(panel)
    (segmentation,) = segmentations()
    assert reportOf(segmentation)["structures"]["LV"]["volume_ml"] == pytest.approx(worldMl(segmentation, "LV"))


@pytest.mark.parametrize("kind", ["scaled", "stretched", "sheared"])
def test_a_transform_that_scales_or_shears_offers_a_hardened_copy(panel, volume, kind):
    put(volume, TRANSFORMS[kind])
    assert panel.ui.hardenTransformButton.visible and panel.ui.segmentButton.enabled
    assert ("sheared" if kind == "sheared" else "scaled") in panel.ui.adviceLabel.text
    driving.click(panel.ui.hardenTransformButton)
    assert panel.ui.inputSelector.currentNode() is not volume
    assert not panel.ui.hardenTransformButton.visible


@pytest.mark.parametrize("kind", ["rotated", "turned upside down", "mirrored"])
def test_a_transform_that_only_turns_is_nothing_to_speak_of(panel, volume, kind):
    put(volume, TRANSFORMS[kind])
    assert not panel.ui.hardenTransformButton.visible


def test_the_result_of_a_sheared_volume_says_that_it_is_doubtful(panel, volume, worker):
    worker("good")
    put(volume, TRANSFORMS["sheared"])
    segment(panel)
    assert "sheared by its transform" in panel.ui.warningsLabel.text


def test_a_scale_that_makes_the_volume_impossible_forbids_the_run(panel, volume):
    put(volume, [("Scale", 1000.0, 1000.0, 1000.0)])
    assert not panel.ui.segmentButton.enabled and panel.ui.statusLabel.text


@pytest.mark.parametrize(
    "steps, isRefused", [([("Scale", 2.0, 1.0, 1.0)], True), ([("Translate", 9.0, 0.0, 0.0)], False)]
)
def test_a_transform_that_changes_during_the_run_counts_if_it_changes_what_is_measured(
    panel, volume, worker, tmp_path, steps, isRefused
):
    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    put(volume, steps)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert ("changed during the segmentation" in panel.ui.statusLabel.text) == isRefused
    assert len(segmentations()) == (0 if isRefused else 1)


def test_the_frames_of_a_sequence_are_measured_in_the_world_too(panel, slicerApp, worker):
    worker("beat")
    volume = addSequence()
    driving.processEvents()
    plain = framesVolumes(panel, volume)
    put(volume, [("Scale", 2.0, 2.0, 2.0)])
    assert framesVolumes(panel, volume) == pytest.approx([8.0 * ml for ml in plain])


def framesVolumes(panel, volume):
    """Segment all frames; return the volume of the left ventricle in each, in ml."""
    segmentAll(panel)
    frames = framesOf(volume)
    return [
        reportOf(frames.GetNthDataNode(frame))["structures"]["LV"]["volume_ml"]
        for frame in range(frames.GetNumberOfDataNodes())
    ]


@pytest.mark.slow
def test_a_volume_stored_upside_down_and_set_right_by_a_transform_gets_the_labels_of_the_upright_one(
    loadModule, slicerApp
):
    """The real pipeline with the weights that come with the extension."""
    pytest.importorskip("torch")
    import slicer

    _module, panel = loadModule(MODULE)
    from MKDSegmentationLib.scene.phantom import addHeartPhantom

    upright, _truth = addHeartPhantom(seed=3, spacing=3.0)
    driving.processEvents()
    segment(panel, 600)
    (expected,) = segmentations()
    labels = {key: voxelsOf(expected, key, upright) for key in KEYS}
    assert labels["LV"].any()
    panel.ui.inputSelector.setCurrentNode(None)
    turned = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, upright, "turned")
    slicer.util.updateVolumeFromArray(turned, slicer.util.arrayFromVolume(upright)[::-1, ::-1].copy())
    bounds = np.zeros(6)
    upright.GetRASBounds(bounds)
    node = put(turned, [])
    matrix = vtk.vtkMatrix4x4()
    for axis in (1, 2):
        matrix.SetElement(axis, axis, -1.0)
        matrix.SetElement(axis, 3, bounds[2 * axis] + bounds[2 * axis + 1])
    node.SetMatrixTransformToParent(matrix)
    panel.ui.inputSelector.setCurrentNode(turned)
    driving.processEvents()
    segment(panel, 600)
    (found,) = (node for node in segmentations() if node is not expected)
    for key in KEYS:
        assert np.array_equal(voxelsOf(found, key, turned)[::-1, ::-1], labels[key]), key
