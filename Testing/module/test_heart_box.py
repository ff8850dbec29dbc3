"""A box that the user draws round the heart: the module in the stand-in GUI."""

import json

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
import slicer
import vtk

from Testing.support.panel_driving import addVolume, driving, segment, segmentations
from Testing.support.sequence_driving import FRAMES, addSequence, segmentAll

if not hasattr(slicer, "vtkMRMLMarkupsROINode"):
    pytest.skip("this slicer has no markups ROI node", allow_module_level=True)

NONE = "Find the heart"


def addBox(name="R", center=(10.0, 20.0, 30.0), size=(40.0, 50.0, 60.0)):
    """Add a box to the scene, RAS mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    node.SetCenter(*center)
    node.SetSize(*size)
    driving.processEvents()
    return node


def chooseBox(panel, name):
    """Choose a box as a user does, and fold the section again."""
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.heartBoxSelector, name)
    driving.click(panel.ui.advancedCollapsibleButton)


def transform(*rows):
    """Add a linear transform to the scene from the rows of its matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([value for row in rows for value in row] + [0.0, 0.0, 0.0, 1.0])
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(matrix)
    return node


def requestedBox(segmentation):
    """Return the box that the worker was told, of the run that made a segmentation."""
    return json.loads(segmentation.GetAttribute("MKDSegmentation.Report"))["request"]["options"]["box_mm"]


def test_without_a_box_the_worker_finds_the_heart(panel, worker):
    addVolume()
    addBox()  # that nobody chose
    worker("good")
    segment(panel)
    assert requestedBox(segmentations()[0]) is None
    assert "box" not in panel.ui.estimateLabel.text


def test_the_worker_gets_the_bounds_of_the_box_in_lps(panel, worker):
    addVolume()
    addBox()
    worker("good")
    chooseBox(panel, "R")
    segment(panel)
    assert requestedBox(segmentations()[0]) == [-30.0, 10.0, -45.0, 5.0, 0.0, 60.0]


def test_a_transform_of_the_box_counts_as_it_is_seen(panel, worker):
    addVolume()
    quarterTurn = transform((0.0, -1.0, 0.0, 100.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 7.0))
    addBox().SetAndObserveTransformNodeID(quarterTurn.GetID())
    worker("good")
    chooseBox(panel, "R")
    segment(panel)
    # in RAS R = 100 - (-5 .. 45), A = -10 .. 30, S = 7 + (0 .. 60)
    assert requestedBox(segmentations()[0]) == pytest.approx([-105.0, -55.0, -30.0, 10.0, 7.0, 67.0])


def test_the_box_and_a_transformed_volume_lie_in_the_same_world(panel):
    from MKDSegmentationLib.run.volumeTransfer import WorldGrid
    from MKDSegmentationLib.scene.heartBox import boxOf

    volume, box = addVolume(), addBox()
    moved = transform((1.0, 0.0, 0.0, 50.0), (0.0, 1.0, 0.0, 60.0), (0.0, 0.0, 1.0, 70.0))
    before, corner = boxOf(box), WorldGrid.of(volume).ijkToRas[:3, 3]
    for node in (volume, box):
        node.SetAndObserveTransformNodeID(moved.GetID())
    right, front, up = WorldGrid.of(volume).ijkToRas[:3, 3] - corner
    shifts = (-right, -right, -front, -front, up, up)
    assert boxOf(box) == pytest.approx([value + shift for value, shift in zip(before, shifts, strict=True)])
    assert (right, front, up) == (50.0, 60.0, 70.0)


def test_every_frame_of_a_sequence_gets_the_box(panel, worker):
    from MKDSegmentationLib.scene.frameSequence import FrameSequence

    volume = addSequence()
    addBox()
    worker("beat")
    chooseBox(panel, "R")
    segmentAll(panel)
    reports = FrameSequence.of(volume).reports()
    options = [report["request"]["options"] for report in reports]
    assert [each["box_mm"] for each in options] == [[-30.0, 10.0, -45.0, 5.0, 0.0, 60.0]] * FRAMES
    assert [each["first_frame"] for each in options] == [None] + [["L P S", 0.0]] * (FRAMES - 1)


def test_a_chosen_box_is_told_while_advanced_is_folded(panel):
    addVolume()
    box = addBox()
    chooseBox(panel, "R")
    assert not panel.ui.heartBoxSelector.visible
    assert "Only inside the box “R”" in panel.ui.estimateLabel.text
    box.SetName("Mine")
    driving.processEvents()
    assert "Only inside the box “Mine”" in panel.ui.estimateLabel.text
    chooseBox(panel, NONE)
    assert "box" not in panel.ui.estimateLabel.text


def test_a_box_is_not_carried_to_another_volume(panel, worker):
    addVolume()
    addVolume("Other", seed=1)
    addBox()
    worker("good")
    driving.choose(panel.ui.inputSelector, "CT")
    chooseBox(panel, "R")
    driving.choose(panel.ui.inputSelector, "Other")
    assert panel.ui.heartBoxSelector.currentNode() is None and "box" not in panel.ui.estimateLabel.text
    segment(panel)
    assert requestedBox(segmentations()[0]) is None
    chooseBox(panel, "R")  # chosen again, it is meant
    assert "Only inside the box “R”" in panel.ui.estimateLabel.text


def test_a_box_stays_for_a_hardened_copy_of_its_volume(panel):
    volume = addVolume()
    volume.SetAndObserveTransformNodeID(
        transform((1.0, 0.3, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)).GetID()
    )
    addBox()
    driving.processEvents()
    chooseBox(panel, "R")
    driving.click(panel.ui.hardenTransformButton)
    assert panel.ui.inputSelector.currentNode() is not volume
    assert panel.ui.heartBoxSelector.currentNode().GetName() == "R"


def test_a_deleted_box_is_cleared_and_no_other_takes_its_place(panel, worker):
    addVolume()
    addBox("Above")
    box = addBox()
    addBox("Below")
    worker("good")
    chooseBox(panel, "R")
    slicer.mrmlScene.RemoveNode(box)
    driving.processEvents()
    assert panel.ui.heartBoxSelector.currentNode() is None and "box" not in panel.ui.estimateLabel.text
    segment(panel)
    assert requestedBox(segmentations()[0]) is None


def test_a_box_is_kept_with_the_scene(panel, tmp_path):
    addVolume()
    addBox()
    chooseBox(panel, "R")
    scene = str(tmp_path / "scene.mrml")
    slicer.mrmlScene.SetURL(scene)
    assert slicer.mrmlScene.Commit(scene)
    xml = (tmp_path / "scene.mrml").read_text(encoding="utf-8")
    assert "MKDSegmentation.Volume" in xml and "heartBox" in xml


def test_a_box_made_in_the_selector_lies_in_the_middle_of_the_volume(panel):
    volume = addVolume(shape=(20, 24, 120))
    driving.click(panel.ui.advancedCollapsibleButton)
    comboBox = panel.ui.heartBoxSelector
    driving.choose(comboBox, "Create new ROI")
    box, bounds, volumeBounds = comboBox.currentNode(), [0.0] * 6, [0.0] * 6
    box.GetRASBounds(bounds)
    volume.GetRASBounds(volumeBounds)
    assert box.GetDisplayNode() is not None and box.GetSize() == pytest.approx((150.0, 48.0, 40.0))
    assert [a + b for a, b in zip(bounds[::2], bounds[1::2], strict=True)] == pytest.approx(
        [a + b for a, b in zip(volumeBounds[::2], volumeBounds[1::2], strict=True)]
    )
    assert panel.ui.segmentButton.enabled


def test_a_box_that_is_not_drawn_yet_forbids_the_run_with_a_reason(panel):
    addVolume()
    box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    driving.processEvents()
    chooseBox(panel, "R")
    assert not panel.ui.segmentButton.enabled
    assert "The box “R” is not drawn yet" in panel.ui.statusLabel.text
    box.SetCenter(0.0, 0.0, 0.0)
    box.SetSize(30.0, 30.0, 30.0)
    driving.processEvents()
    assert panel.ui.segmentButton.enabled and panel.ui.statusLabel.text == ""


def test_a_refusal_names_the_control_as_the_panel_does(panel):
    from mkd_core.measure.messages import MESSAGES

    refusals = [code for code in MESSAGES if code.startswith("no_heart")]
    section, control = panel.ui.advancedCollapsibleButton.text, panel.ui.heartBoxLabel.text.rstrip(":")
    assert len(refusals) == 6
    for code in refusals:
        assert f"{section} > {control}," in MESSAGES[code].advice and "command line --box)" in MESSAGES[code].advice


def test_the_refusal_of_a_run_is_shown_with_its_advice(panel, worker):
    addVolume()
    worker("no-heart-advice")
    segment(panel)
    assert "No heart was found" in panel.ui.statusLabel.text and "Advanced > Heart box" in panel.ui.statusLabel.text
