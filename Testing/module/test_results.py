"""What comes out and how it is taken away: table, clipboard, CSV, overlays, choices of output, provenance; in the
stand-in GUI.
"""

import csv
import json

import numpy as np
import pytest

from mkd_core.structures import STRUCTURES
from Testing.support.fake_worker import blocks

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import (
    SHAPE,
    driving,
    sceneContent,
    segment,
    segmentations,
    voxelsOf,
)

ML = (SHAPE[0] // 4) * (SHAPE[1] // 4) * (SHAPE[2] // 9) * 8 / 1000


def tables():
    """Return the table nodes of the scene."""
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLTableNode")


def request():
    """Return what the worker was asked for."""
    return json.loads(segmentations()[0].GetAttribute("MKDSegmentation.Report"))["request"]


def meanOf(key, volume):
    """Return the mean of the volume's voxels in a segment of ours, as the table shows it."""
    return f"{slicerArray(volume)[voxelsOf(segmentations()[0], key, volume)].mean():.0f}"


def slicerArray(volume):
    import slicer

    return slicer.util.arrayFromVolume(volume)


def test_the_table_shows_volume_mean_and_agreement_of_every_structure(panel, volume, worker):
    worker("good")
    segment(panel)
    rows = driving.tableTexts(panel.ui.resultsTable)
    assert rows[0][1:] == [f"{ML:.1f}", meanOf("LV", volume), "90 %", "●"] and rows[2][3] == "50 %"
    assert rows[6][4] == "▲" and "Reaches the edge" in panel.ui.resultsTable.item(6, 4).toolTip()
    assert "Research use only" in panel.ui.provenanceLabel.text
    header = [panel.ui.resultsTable.horizontalHeaderItem(column).text() for column in range(5)]
    assert header == ["Structure", "ml", "HU", "Agreement", ""]
    assert "two segmentors" in panel.ui.resultsTable.horizontalHeaderItem(3).toolTip()


def test_an_mr_has_no_hounsfield_units(panel, volume, worker):
    worker("good")
    driving.choose(panel.ui.modalityComboBox, "MR")
    segment(panel)
    assert panel.ui.resultsTable.horizontalHeaderItem(2).text() == "Signal"
    assert tables()[0].GetColumnName(3) == "Mean signal"


def test_a_table_node_with_all_numbers_is_in_the_scene_and_a_second_run_fills_the_same(panel, volume, worker):
    worker("good")
    segment(panel)
    segment(panel)
    (table,) = tables()
    assert table.GetName() == "CT heart measurements"
    assert [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())] == [
        "Structure",
        "Volume (ml)",
        "Mass (g)",
        "Mean (HU)",
        "Agreement (%)",
        "Warnings",
        "Status",
    ]
    assert table.GetNumberOfRows() == 7
    assert table.GetTable().GetValueByName(0, "Volume (ml)").ToDouble() == round(ML, 1)
    assert table.GetCellText(4, 2) == f"{round(ML * 1.05, 1)}" and table.GetCellText(0, 2) == ""
    assert "Reaches the edge" in table.GetCellText(6, 5)


def test_copy_puts_the_table_on_the_clipboard(panel, volume, worker):
    import slicer

    worker("good")
    segment(panel)
    driving.click(panel.ui.copyButton)
    lines = slicer.app.clipboard().text().splitlines()
    assert lines[0].split("\t")[:2] == ["Structure", "Volume (ml)"]
    assert lines[1].split("\t")[:5] == ["Left ventricle", f"{round(ML, 1):g}", "", meanOf("LV", volume), "90"]
    assert lines[-1].split("\t")[0] == "Whole heart" and "larger than the box" in lines[-1]


def test_save_writes_a_csv_file_and_remembers_the_folder(panel, volume, worker, tmp_path, slicerApp):
    worker("good")
    segment(panel)
    (tmp_path / "résultats").mkdir()
    driving.answerFileDialog(tmp_path / "résultats" / "heart.csv")
    driving.chooseInMenu(panel.ui.exportButton, "Table as CSV ...")
    with open(tmp_path / "résultats" / "heart.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows][1:8] == [row[0] for row in driving.tableTexts(panel.ui.resultsTable)]
    assert float(rows[5][2]) == round(ML * 1.05, 1), "myocardial mass at 1.05 g/ml"
    assert {len(row) for row in rows} == {8} and "Research use only" in rows[1][7] == rows[-1][7]
    assert slicerApp.userSettings().value("MKDSegmentation/ExportFolder") == str(tmp_path / "résultats")


def test_only_the_ticked_structures_are_segmented_and_told(panel, volume, worker):
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    for name in ("Right ventricle", "Left atrium", "Right atrium", "Ascending aorta", "Pulmonary artery"):
        driving.tick(panel.ui.structuresList, name, on=False)
    segment(panel)
    assert request()["options"]["structures"] == ["LV", "Myo"]
    assert sorted(segmentations()[0].GetSegmentation().GetSegmentIDs()) == ["LV", "Myo"]
    assert [row[0] for row in driving.tableTexts(panel.ui.resultsTable)] == [
        "Left ventricle",
        "Left ventricular myocardium",
    ]


def test_without_any_tick_the_panel_says_what_is_missing(panel, volume):
    driving.click(panel.ui.advancedCollapsibleButton)
    names = [panel.ui.structuresList.item(row).text() for row in range(7)]
    for name in names:
        driving.tick(panel.ui.structuresList, name, on=False)
    assert not panel.ui.segmentButton.enabled and "Tick at least one structure" in panel.ui.statusLabel.text
    driving.tick(panel.ui.structuresList, names[3])
    assert panel.ui.segmentButton.enabled


def test_the_answer_of_each_segmentor_can_be_chosen_and_is_told(panel, volume, worker):
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.segmentorComboBox, "S_syn alone (trained on translated images)")
    segment(panel)
    assert request()["options"]["segmentor"] == "synthetic"
    assert "S_syn alone" in panel.ui.provenanceLabel.text


def test_choices_of_output_belong_to_the_scene(panel, volume):
    import slicer

    driving.click(panel.ui.advancedCollapsibleButton)
    driving.tick(panel.ui.structuresList, "Left atrium", on=False)
    driving.choose(panel.ui.segmentorComboBox, "S_real alone (trained on images as they are)")
    driving.click(panel.ui.disagreementCheckBox)
    node = slicer.mrmlScene.GetSingletonNode("MKDSegmentation", "vtkMRMLScriptedModuleNode")
    assert node.GetParameter("excludedStructures") == "LA" and node.GetParameter("segmentor") == "real"
    slicer.mrmlScene.Clear()
    assert panel.ui.structuresList.item(2).checkState() and panel.ui.segmentorComboBox.currentIndex == 0
    assert not panel.ui.disagreementCheckBox.checked


def test_disagreement_and_aligned_volume_come_when_asked_for_and_are_shown_over_the_slices(panel, volume, worker):
    import slicer

    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    driving.click(panel.ui.alignedCheckBox)
    segment(panel)
    names = sorted(node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    assert names == ["CT", "CT heart aligned volume", "CT heart disagreement"]
    composite = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    assert panel.ui.overlayComboBox.currentText == "Disagreement of the segmentors"
    shown = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    assert shown.GetName() == "CT heart disagreement" and composite.GetForegroundOpacity() > 0.3
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    assert np.allclose(slicer.util.arrayFromVolume(shown), slicer.util.arrayFromVolume(volume)), "what the worker wrote"
    driving.choose(panel.ui.overlayComboBox, "Aligned volume (IAM)")
    assert slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID()).GetName() == "CT heart aligned volume"
    driving.choose(panel.ui.overlayComboBox, "Nothing")
    assert not composite.GetForegroundVolumeID()


def test_the_disagreement_map_has_colours_of_its_own_a_legend_and_leaves_image_and_outlines_to_be_seen(
    panel, volume, worker
):
    import re

    import slicer

    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    driving.click(panel.ui.alignedCheckBox)
    segment(panel)
    legend = panel.ui.legendLabel
    assert legend.visible and "10 to 30 %" in legend.text and "over 60 %" in legend.text
    patches = [bytes.fromhex(code) for code in re.findall("background-color:#(......)", legend.text)]
    display = slicer.util.getNode("CT heart disagreement").GetDisplayNode()
    colors = display.GetColorNode().GetLookupTable()
    colors.SetRange(0.0, 1.0)
    for share, patch in ((0.12, 0), (0.28, 0), (0.32, 1), (0.58, 1), (0.62, 2), (1.0, 2)):
        drawn = [0.0, 0.0, 0.0]
        colors.GetColor(share, drawn)
        assert bytes(round(255 * channel) for channel in drawn) == patches[patch], share
    assert not {tuple(patch) for patch in patches} & {structure.color for structure in STRUCTURES}
    assert display.GetApplyThreshold() and display.GetLowerThreshold() == 0.1, "below it nothing is drawn"
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0.0, 1.0)
    composite = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    assert 0.5 <= composite.GetForegroundOpacity() <= 0.7, "the image shows through"
    assert not segmentations()[0].GetDisplayNode().GetVisibility2DFill()
    driving.choose(panel.ui.overlayComboBox, "Aligned volume (IAM)")
    assert not legend.visible
    driving.choose(panel.ui.overlayComboBox, "Disagreement of the segmentors")
    assert legend.visible
    segment(panel)
    tables = [node for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode") if "isagreement" in node.GetName()]
    assert tables == [display.GetColorNode()], "one for all"


def test_overlays_of_an_earlier_run_do_not_stay_beside_a_new_result(panel, volume, worker):
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    assert not panel.ui.overlayComboBox.visible
    assert [node for node in sceneContent() if "disagreement" in node[1]] == []


def test_overlays_lie_under_the_transform_of_the_volume(panel, volume, worker):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(node.GetID())
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    assert slicer.util.getNode("CT heart disagreement").GetParentTransformNode() is node


def test_the_panel_tells_what_made_the_result(panel, volume, worker, monkeypatch):
    from MKDSegmentationLib.scene import findingTexts

    monkeypatch.setattr(findingTexts, "translate", lambda context, text: f"[{context}] {text}")
    worker("good")
    segment(panel)
    text = panel.ui.provenanceLabel.text
    assert text.startswith("[measure.messages] Research use only")
    for words in ("Weights fake 0", "CT", "both segmentors", "20"):
        assert words in text
    for words in ("SHA-256 of the weights: " + "0" * 64, "Program 0", "cpu float32"):
        assert words in panel.ui.provenanceLabel.toolTip and words not in text


def test_provenance_table_and_overlays_survive_saving_and_loading_the_scene(
    panel, volume, worker, tmp_path, expectedErrors
):
    import slicer

    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    before = segmentations()[0].GetAttribute("MKDSegmentation.Report")
    text, rows = panel.ui.provenanceLabel.text, driving.tableTexts(panel.ui.resultsTable)
    path = str(tmp_path / "scene with blank.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert segmentations() == [] and not panel.ui.resultsTable.visible
    with expectedErrors("invalid orientation preset name: Reformat", atLeast=0):  # said by the slice views' own nodes
        assert slicer.mrmlScene.ReadFromMRB(path)
    driving.processEvents()
    (segmentation,) = segmentations()
    assert json.loads(segmentation.GetAttribute("MKDSegmentation.Report")) == json.loads(before)
    loaded = slicer.util.getNode("CT")
    for label, key in enumerate(("LV", "RV", "LA", "RA", "Myo", "AA", "PA"), start=1):
        assert np.array_equal(voxelsOf(segmentation, key, loaded), blocks(SHAPE) == label)
    assert panel.ui.outputSelector.currentNode() is segmentation
    assert panel.ui.provenanceLabel.text == text and driving.tableTexts(panel.ui.resultsTable) == rows
    (table,) = tables()
    assert segmentation.GetNodeReference("MKDSegmentation.Measurements") is table
    assert segmentation.GetNodeReference("MKDSegmentation.Disagreement").GetName() == "CT heart disagreement"
    assert panel.ui.overlayComboBox.visible


def test_a_failed_run_leaves_neither_table_nor_overlay(panel, volume, worker):
    worker("empty")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    before = sceneContent()
    segment(panel)
    assert sceneContent() == before
