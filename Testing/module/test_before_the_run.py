"""What the panel says of a volume, of the computer and of the cost before anything is computed: the module in the
stand-in GUI.
"""

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import addVolume, driving, segment, segmentations


def heartLike(kind, shape=(60, 60, 60)):
    """Return voxels with the range of values of a kind of image."""
    noise = np.random.default_rng(1).normal(0, 20, shape)
    body = np.zeros(shape)
    body[10:50, 10:50, 10:50] = 1
    levels = {"CT": (-1000, 40), "MR": (5, 300), "stored CT": (24, 1064)}[kind]
    voxels = np.where(body > 0, levels[1], levels[0]) + noise
    voxels[25:35, 25:35, 25:35] += 300
    return np.maximum(voxels, -1024 if kind == "CT" else 0).astype(np.int16)


def add(kind, name="Heart", **options):
    """Add such a volume and select it."""
    import slicer

    volume = addVolume(name, shape=(60, 60, 60), **options)
    slicer.util.updateVolumeFromArray(volume, heartLike(kind))
    driving.processEvents()
    return volume


def test_of_a_good_ct_nothing_is_said_but_what_the_run_will_cost(panel):
    add("CT")
    assert panel.ui.segmentButton.enabled
    assert not panel.ui.adviceFrame.visible and panel.ui.statusLabel.text == ""
    assert (
        panel.ui.estimateLabel.text.startswith("About ")
        and "GB of memory on: Processor (CPU)" in panel.ui.estimateLabel.text
    )


def test_an_mr_taken_for_a_ct_is_noticed_and_one_click_sets_it_right(panel, worker):
    worker("good")
    add("MR")
    assert "It looks like MR" in panel.ui.adviceLabel.text
    assert panel.ui.switchModalityButton.text == "Segment as MR"
    driving.click(panel.ui.switchModalityButton)
    assert panel.ui.modalityComboBox.currentText == "MR"
    assert not panel.ui.adviceFrame.visible
    segment(panel)
    import json

    assert json.loads(segmentations()[0].GetAttribute("MKDSegmentation.Report"))["request"]["modality"] == "MR"


def test_a_ct_taken_for_an_mr_is_noticed_too(panel):
    add("CT")
    driving.choose(panel.ui.modalityComboBox, "MR")
    assert "looks like a CT" in panel.ui.adviceLabel.text
    driving.click(panel.ui.switchModalityButton)
    assert panel.ui.modalityComboBox.currentText == "CT" and not panel.ui.adviceFrame.visible


def test_a_ct_without_hounsfield_units_is_told_and_not_called_an_mr(panel):
    add("stored CT")
    assert "not Hounsfield units" in panel.ui.adviceLabel.text
    assert not panel.ui.switchModalityButton.visible


def test_a_label_map_loaded_as_a_volume_is_noticed(panel):
    import slicer

    volume = add("CT")
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[20:40, 20:40, 20:40] = np.arange(20)[:, None, None] % 7 + 1
    slicer.util.updateVolumeFromArray(volume, labels)
    driving.processEvents()
    assert "looks like a label map" in panel.ui.adviceLabel.text


def test_a_field_of_view_that_cuts_the_heart_and_thick_slices_are_told(panel):
    volume = add("CT", spacing=1.5)
    assert "only 90 mm wide" in panel.ui.adviceLabel.text and panel.ui.segmentButton.enabled
    volume.SetSpacing(2.0, 2.0, 5.0)
    assert "5.0 mm thick" in panel.ui.adviceLabel.text and "wide" not in panel.ui.adviceLabel.text


def test_a_spacing_that_cannot_be_forbids_the_run_with_a_reason(panel):
    volume = add("CT")
    volume.SetSpacing(0.001, 2.0, 2.0)
    assert not panel.ui.segmentButton.enabled
    assert "voxel size of 0.001 mm cannot be right" in panel.ui.statusLabel.text


def test_the_look_is_taken_again_when_the_voxels_change(panel):
    import slicer

    volume = add("CT")
    slicer.util.updateVolumeFromArray(volume, heartLike("MR"))
    assert "It looks like MR" in panel.ui.adviceLabel.text


def test_a_lack_of_memory_is_told(panel, monkeypatch):
    from MKDSegmentationLib.panel import runtimeEstimate as runtimeEstimate

    monkeypatch.setattr(runtimeEstimate, "available_memory", lambda: 200_000_000)
    add("CT")
    assert "Memory is short" in panel.ui.adviceLabel.text and "0.2 GB are free" in panel.ui.adviceLabel.text
    assert panel.ui.segmentButton.enabled, "it is a warning: whoever knows better may try"


def test_the_estimate_learns_what_runs_take_here(panel, worker, slicerApp):
    worker("good")
    add("CT")
    before = panel.ui.estimateLabel.text
    segment(panel)
    assert float(slicerApp.userSettings().value("MKDSegmentation/Slowness/cpu")) < 0.6, (
        "the fake worker takes a tenth of a second"
    )
    assert panel.ui.estimateLabel.text != before and "About 1 s" in panel.ui.estimateLabel.text, "warm, and quick"


def test_the_estimate_names_the_chosen_device(panel):
    add("CT")
    seconds, _on, _device = panel.ui.estimateLabel.text.partition(" on: ")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.deviceComboBox, "NVIDIA graphics card (CUDA)")
    assert panel.ui.estimateLabel.text == f"{seconds} on: NVIDIA graphics card (CUDA)", "until a run was timed there"


def test_check_environment_tells_torch_device_why_no_graphics_card_and_where_the_weights_are(
    panel, worker, workerProcesses, tiny_bundle_path
):
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    assert not panel.ui.environmentTextEdit.visible
    driving.click(panel.ui.checkEnvironmentButton)
    assert not panel.ui.checkEnvironmentButton.enabled
    driving.waitUntil(lambda: panel.ui.checkEnvironmentButton.enabled, message="the end of the check")
    text = panel.ui.environmentTextEdit.toPlainText()
    for words in (
        "PyTorch 2.9.1+cpu",
        "Device cpu",
        "Automatic takes: Processor (CPU)",
        "without support for graphics cards",
        str(tiny_bundle_path),
        "Python 3.12.10",
    ):
        assert words in text
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the process that checked")


def test_check_environment_tells_that_torch_is_missing(panel, worker, monkeypatch):
    from MKDSegmentationLib.panel import computingSettings

    worker("without-torch")
    monkeypatch.setattr(computingSettings, "torchProblem", lambda: "")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.checkEnvironmentButton)
    driving.waitUntil(lambda: panel.ui.checkEnvironmentButton.enabled, message="the end of the check")
    assert "PyTorch does not start: No module named 'torch'" in panel.ui.environmentTextEdit.toPlainText()


def test_a_check_under_way_ends_with_the_module(panel, worker, workerProcesses):
    from Testing.harness import bootstrap

    worker("slow")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.checkEnvironmentButton)
    bootstrap.unloadModule("MKDSegmentation")
    driving.waitUntil(lambda: not workerProcesses(), message="the end of the process that checked")


def bend(volume, isDirect=True):
    """Put a volume under a transform that turns its upper end, or under a linear one that is itself under such a
    transform.
    """
    import slicer
    import vtk

    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Bent")
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    for points, shift in ((spline.SetSourceLandmarks, 0), (spline.SetTargetLandmarks, 12)):
        landmarks = vtk.vtkPoints()
        for x in (-120, 0):
            for y in (-120, 0):
                landmarks.InsertNextPoint(x, y, 0)
                landmarks.InsertNextPoint(x + shift, y, 120)
                landmarks.InsertNextPoint(x, y, 60)
        points(landmarks)
    bent.SetAndObserveTransformToParent(spline)
    if not isDirect:
        linear = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Between")
        linear.SetAndObserveTransformNodeID(bent.GetID())
        bent = linear
    volume.SetAndObserveTransformNodeID(bent.GetID())
    driving.processEvents()


@pytest.mark.parametrize("isDirect", [True, False], ids=["parent", "grandparent"])
def test_a_non_linear_transform_is_told_and_one_click_takes_a_hardened_copy(panel, worker, isDirect):
    import slicer

    volume = add("CT")
    assert not panel.ui.hardenTransformButton.visible
    stored, bounds = slicer.util.arrayFromVolume(volume).copy(), np.zeros(6)
    bend(volume, isDirect)
    volume.GetRASBounds(bounds)
    assert "non-linear transform" in panel.ui.adviceLabel.text and panel.ui.segmentButton.enabled
    driving.click(panel.ui.hardenTransformButton)
    copy = panel.ui.inputSelector.currentNode()
    assert copy.GetName() == "Heart hardened" and copy.GetParentTransformNode() is None
    assert not panel.ui.adviceFrame.visible
    assert volume.GetParentTransformNode() is not None and np.array_equal(slicer.util.arrayFromVolume(volume), stored)
    found = np.zeros(6)
    copy.GetRASBounds(found)
    assert np.allclose(found, bounds, atol=2.0), "the copy lies where the volume was seen"
    resampled = slicer.util.arrayFromVolume(copy)
    assert not np.array_equal(resampled.shape, stored.shape) and resampled[:, :, -1].max() < -800, (
        "outside is air, not water"
    )
    worker("good")
    segment(panel)
    assert segmentations()[0].GetParentTransformNode() is None and "non-linear" not in panel.ui.warningsLabel.text


def test_a_linear_transform_is_nothing_to_speak_of(panel):
    import slicer

    volume = add("CT")
    volume.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    driving.processEvents()
    assert not panel.ui.hardenTransformButton.visible and not panel.ui.adviceFrame.visible
