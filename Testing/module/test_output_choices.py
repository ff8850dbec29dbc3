"""Choices that leave something out are told where they are folded away, and end with the patient; in the stand-in
GUI.
"""

import json

import pydicom
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.dicom_exports import write_export
from Testing.support.panel_driving import addVolume, driving, segment, segmentations


def ofPatient(folder, name, patientId):
    """Add a volume whose DICOM files name a patient."""
    import numpy as np
    import SimpleITK as sitk
    import slicer

    volume = addVolume(name)
    image = sitk.GetImageFromArray(np.zeros((3, 8, 8), np.int16))
    paths = write_export(image, folder, study=str(len(name)), PatientID=patientId)
    for path in paths:
        slicer.dicomDatabase.insert(str(path), False)
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return volume


def leaveOut(panel):
    """Choose two structures and one segmentor, and fold the choices away."""
    driving.click(panel.ui.advancedCollapsibleButton)
    for name in ("Right ventricle", "Left atrium", "Right atrium", "Left ventricular myocardium", "Pulmonary artery"):
        driving.tick(panel.ui.structuresList, name, on=False)
    driving.choose(panel.ui.segmentorComboBox, "S_real alone (trained on images as they are)")
    driving.click(panel.ui.advancedCollapsibleButton)


def isEverything(panel):
    return (
        panel._choices.structures is None
        and panel.ui.segmentorComboBox.currentText == "Both segmentors together"
        and not panel.ui.choicesLabel.visible
    )


def test_what_is_left_out_is_told_while_the_choices_are_folded_away_and_can_be_taken_back(panel, volume):
    assert isEverything(panel)
    leaveOut(panel)
    label = panel.ui.choicesLabel
    assert label.visible and not panel.ui.structuresList.visible
    assert "Only these structures: Left ventricle, Ascending aorta. Only the output of S_real." in label.text
    driving.followLink(label)
    assert isEverything(panel)


def test_a_choice_does_not_carry_over_to_a_volume_of_another_or_an_unknown_patient(panel, tmp_path, slicerApp):
    ofPatient(tmp_path / "a", "One", "A")
    ofPatient(tmp_path / "b", "Other", "A")
    ofPatient(tmp_path / "c", "Stranger", "B")
    addVolume("Fourth")
    addVolume("Fifth")
    driving.choose(panel.ui.inputSelector, "One")
    leaveOut(panel)
    driving.choose(panel.ui.inputSelector, "Other")
    assert panel.ui.choicesLabel.visible, "it is the same patient"
    driving.choose(panel.ui.inputSelector, "Stranger")
    assert isEverything(panel)
    for name in ("Fourth", "Fifth"):
        leaveOut(panel)
        driving.choose(panel.ui.inputSelector, name)
        assert isEverything(panel)


def test_a_choice_ends_with_the_patient_also_where_the_volume_was_removed(panel, volume):
    import slicer

    driving.choose(panel.ui.inputSelector, "CT")
    leaveOut(panel)
    slicer.mrmlScene.RemoveNode(volume)
    addVolume("Next", seed=1)
    driving.choose(panel.ui.inputSelector, "Next")
    assert isEverything(panel)


def test_a_choice_holds_for_a_hardened_copy_and_for_a_scene_that_was_saved_with_it(
    panel, volume, tmp_path, expectedErrors
):
    import slicer
    import vtk

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 0, 2.0)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    leaveOut(panel)
    driving.click(panel.ui.hardenTransformButton)
    assert panel.ui.inputSelector.currentNode() is not volume and panel.ui.choicesLabel.visible
    path = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    addVolume("Of today", seed=2)
    with expectedErrors("invalid orientation preset name: Reformat", atLeast=0):  # said by the slice views' own nodes
        assert slicer.mrmlScene.ReadFromMRB(path)
    driving.processEvents()
    assert panel.ui.choicesLabel.visible and "S_real" in panel.ui.choicesLabel.text


@pytest.fixture
def inDetail(panel, monkeypatch, tmp_path):
    """The panel of an extension that came with weights for structures in detail."""
    from MKDSegmentationLib.panel import weightsSettings

    path = tmp_path / "detailed.safetensors"
    path.touch()
    monkeypatch.setattr(weightsSettings, "default_details_path", lambda: path)
    panel._onWeightsChanged()
    driving.click(panel.ui.advancedCollapsibleButton)
    return panel


def offered(panel):
    return [panel.ui.structuresList.item(row).text() for row in range(panel.ui.structuresList.count)]


def test_structures_in_detail_are_chosen_told_and_become_segments_with_figures(inDetail, volume, worker):
    panel = inDetail
    assert panel.ui.structureSetComboBox.visible and len(offered(panel)) == 7
    driving.choose(panel.ui.structureSetComboBox, "In detail (13)")
    assert len(offered(panel)) == 13 and "Coronary sinus" in offered(panel)
    assert "Besides the whole heart: Left atrial appendage, Pulmonary veins," in panel.ui.choicesLabel.text
    worker("good")
    segment(panel)
    (segmentation,) = segmentations()
    assert json.loads(segmentation.GetAttribute("MKDSegmentation.Report"))["request"]["options"]["structures"] == (
        "detailed"
    )
    assert len(segmentation.GetSegmentation().GetSegmentIDs()) == 13
    assert "Weights fake 0 + fake details 1" in panel.ui.provenanceLabel.text
    rows = {row[0]: row[1] for row in driving.tableTexts(panel.ui.resultsTable)}
    assert len(rows) == 13 and float(rows["Superior vena cava"]) > 0
    driving.followLink(panel.ui.choicesLabel)
    assert len(offered(panel)) == 7 and isEverything(panel)


def test_some_of_the_structures_in_detail_can_be_chosen_and_end_with_the_patient(inDetail, volume, worker):
    panel = inDetail
    driving.choose(panel.ui.structureSetComboBox, "In detail (13)")
    for name in offered(panel):
        driving.tick(panel.ui.structuresList, name, on=name in ("Left ventricle", "Coronary sinus"))
    assert panel._choices.structures == ("LV", "CS")
    assert "Only these structures: Left ventricle, Coronary sinus." in panel.ui.choicesLabel.text
    worker("good")
    segment(panel)
    assert sorted(segmentations()[0].GetSegmentation().GetSegmentIDs()) == ["CS", "LV"]
    addVolume("Next", seed=1)
    driving.choose(panel.ui.inputSelector, "Next")
    assert len(offered(panel)) == 7 and isEverything(panel)


def test_without_their_weights_structures_in_detail_are_not_offered(panel, volume, monkeypatch, tmp_path):
    from MKDSegmentationLib.panel import weightsSettings

    monkeypatch.setattr(weightsSettings, "default_details_path", lambda: tmp_path / "nothing")
    panel._parameterNode.structureSet = "detailed"  # of a scene from another computer
    panel._onWeightsChanged()
    driving.click(panel.ui.advancedCollapsibleButton)
    assert not panel.ui.structureSetComboBox.visible and len(offered(panel)) == 7 and isEverything(panel)
