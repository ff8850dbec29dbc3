"""What the panel shows and remembers: the module in the stand-in GUI."""

import ast
import json

import numpy as np
import pytest

from mkd_core.structures import STRUCTURES

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import (
    MODULE,
    ROOT,
    SHAPE,
    addVolume,
    driving,
    segment,
    segmentations,
    waitForStage,
    waitUntilReady,
)


def reason(panel):
    """Return why Segment cannot be clicked, as the user reads it; None if it can be clicked."""
    if panel.ui.segmentButton.enabled:
        return None
    assert panel.ui.statusLabel.text == panel.ui.segmentButton.toolTip, (
        "the reason stands beside the button and in its tool tip"
    )
    return panel.ui.statusLabel.text


def test_an_empty_scene_says_what_to_do_first(panel):
    assert "Load a CT or MR volume" in reason(panel)


def test_a_loaded_volume_is_preselected_so_that_one_click_is_enough(panel):
    addVolume("CT")
    driving.processEvents()
    assert panel.ui.inputSelector.currentNode().GetName() == "CT"
    assert reason(panel) is None


def test_the_volume_that_the_user_looks_at_is_preselected(loadModule, slicerApp):
    import slicer

    addVolume("First")
    looked = addVolume("Second")
    slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(looked.GetID())
    _module, widget = loadModule(MODULE)
    assert widget.ui.inputSelector.currentNode() is looked


def test_label_maps_cannot_be_selected(panel):
    import slicer

    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    driving.processEvents()
    assert panel.ui.inputSelector.currentNode() is None


def test_a_volume_whose_voxels_come_later_can_be_segmented_once_they_are_there(panel):
    import slicer

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Late")
    driving.choose(panel.ui.inputSelector, "Late")
    assert "no voxels" in reason(panel)
    slicer.util.updateVolumeFromArray(volume, np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16))
    assert reason(panel) is None


def test_a_single_slice_is_refused_with_a_reason(panel):
    addVolume("Slice", shape=(1, 64, 64))
    driving.processEvents()
    assert "not a few slices" in reason(panel)


def test_weights_that_do_not_exist_are_refused_with_a_reason_until_they_are_put_right(
    panel, volume, tmp_path, tiny_bundle_path
):
    driving.click(panel.ui.weightsCollapsibleButton)
    driving.typeText(panel.ui.weightsPathLineEdit, str(tmp_path / "nowhere.safetensors"))
    assert "nowhere.safetensors" in reason(panel)
    (tmp_path / "text.safetensors").write_text("these are no weights")
    driving.typeText(panel.ui.weightsPathLineEdit, str(tmp_path / "text.safetensors"))
    assert reason(panel)
    driving.typeText(panel.ui.weightsPathLineEdit, str(tiny_bundle_path))
    assert reason(panel) is None
    assert "<b>" in panel.ui.modelLabel.text, "the model card is shown"


def test_weights_and_device_are_remembered_on_this_computer_and_not_in_the_scene(
    panel, volume, loadModule, tiny_bundle_path
):
    import slicer

    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.deviceComboBox, "Processor (CPU)")
    parameterNode = slicer.mrmlScene.GetSingletonNode("MKDSegmentation", "vtkMRMLScriptedModuleNode")
    assert str(tiny_bundle_path) not in json.dumps(
        [parameterNode.GetParameter(name) for name in parameterNode.GetParameterNames()]
    )
    _module, again = loadModule(MODULE)
    assert again.ui.deviceComboBox.currentText == "Processor (CPU)"
    assert again.ui.weightsPathLineEdit.currentPath == str(tiny_bundle_path)


def test_the_modality_belongs_to_the_scene(panel, volume):
    import slicer

    driving.choose(panel.ui.modalityComboBox, "MR")
    parameterNode = slicer.mrmlScene.GetSingletonNode("MKDSegmentation", "vtkMRMLScriptedModuleNode")
    assert parameterNode.GetParameter("modality") == "MR"
    slicer.mrmlScene.Clear()
    assert panel.ui.modalityComboBox.currentText == "CT"


def test_an_output_that_would_harm_segments_of_the_user_is_refused_with_a_reason(panel, volume):
    import slicer

    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.outputSelector, "Mine")
    assert reason(panel) is None
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    mine.SetAndObserveTransformNodeID(transform.GetID())
    mine.GetSegmentation().AddEmptySegment("tumour")
    assert "another transform" in reason(panel)
    mine.GetSegmentation().RemoveSegment("tumour")
    assert reason(panel) is None


def test_the_results_table_tells_name_volume_and_where_to_look(panel, volume, worker):
    worker("good")
    assert not panel.ui.resultsTable.visible
    segment(panel)
    assert panel.ui.resultsTable.visible
    rows = driving.tableTexts(panel.ui.resultsTable)
    assert [row[0] for row in rows] == [structure.name for structure in STRUCTURES]
    voxels = (SHAPE[0] // 4) * (SHAPE[1] // 4) * (SHAPE[2] // 9)
    assert rows[0][1] == f"{voxels * 8 / 1000:.1f}", "2 mm voxels"
    assert [row[4] for row in rows] == ["●"] * 6 + ["▲"]
    assert "Left ventricular mass: 1 g" in panel.ui.warningsLabel.text
    assert "Pulmonary artery" in panel.ui.warningsLabel.text and "Reaches the edge" in panel.ui.warningsLabel.text
    assert "its ends are missing" in panel.ui.warningsLabel.text


def test_a_structure_that_was_not_found_is_told_as_such(panel, volume, worker):
    worker("without-PA")
    segment(panel)
    assert driving.tableTexts(panel.ui.resultsTable)[6][1] == "not found"
    assert "PA" not in segmentations()[0].GetSegmentation().GetSegmentIDs()


def test_the_results_come_back_with_the_volume_they_belong_to(panel, volume, worker):
    worker("good")
    segment(panel)
    addVolume("Second")
    driving.choose(panel.ui.inputSelector, "Second")
    assert not panel.ui.resultsTable.visible
    driving.choose(panel.ui.inputSelector, "CT")
    assert panel.ui.resultsTable.visible


def test_a_click_on_a_row_brings_the_slice_views_to_the_structure(panel, volume, worker):
    import slicer

    worker("good")
    segment(panel)
    panel.ui.resultsTable.cellClicked.emit(6, 0)
    center = segmentations()[0].GetSegmentCenterRAS("PA")
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(center[2], abs=0.01)


def test_show_3d_makes_surfaces(panel, volume, worker):
    worker("good")
    segment(panel)
    driving.waitUntil(
        lambda: segmentations()[0].GetSegmentation().ContainsRepresentation("Closed surface"), message="the surfaces"
    )


def test_choices_cannot_be_changed_during_a_run(panel, volume, worker, tmp_path):
    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    assert panel.ui.segmentButton.text == "Cancel"
    for widget in (
        panel.ui.inputSelector,
        panel.ui.modalityComboBox,
        panel.ui.outputSelector,
        panel.ui.weightsPathLineEdit,
    ):
        assert not widget.enabled
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert panel.ui.inputSelector.enabled


SECTIONS = (
    "advancedCollapsibleButton",
    "weightsCollapsibleButton",
    "downloadCollapsibleButton",
    "logCollapsibleButton",
)


@pytest.fixture
def openPanel(panel, volume, worker):
    """The panel after a run, with everything unfolded."""
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    driving.click(panel.ui.checkEnvironmentButton)
    driving.waitUntil(lambda: panel.ui.checkEnvironmentButton.enabled, message="the end of the check")
    for name in SECTIONS[1:]:
        driving.click(getattr(panel.ui, name))
    return panel


def test_every_control_has_a_tool_tip(openPanel):
    import qt

    untold = [
        name
        for name, widget in vars(openPanel.ui).items()
        if not name.startswith("qt_")
        and type(widget)
        in (
            qt.QPushButton,
            qt.QComboBox,
            qt.QCheckBox,
            qt.QLineEdit,
            qt.QListWidget,
            qt.QTableWidget,
            qt.QPlainTextEdit,
            qt.QProgressBar,
        )
        and not widget.toolTip
    ]
    assert untold == []
    for name in ("inputSelector", "outputSelector", "weightsPathLineEdit", "folderLineEdit", "smoothingSlider"):
        assert getattr(openPanel.ui, name).toolTip, name


def test_the_panel_fits_350_pixels_with_everything_unfolded(openPanel):
    assert openPanel.parent.minimumSizeHint.width() <= 350


def test_the_keyboard_goes_through_the_panel_from_top_to_bottom(openPanel):
    import qt

    places = []
    for widget in driving.tabOrder(openPanel.parent):
        corner = widget.mapTo(openPanel.parent, qt.QPoint(0, 0))
        places.append((corner.y(), corner.x()))
    assert len(places) > 20
    assert places == sorted(places)


def test_no_colour_is_fixed_so_that_the_panel_follows_dark_and_light_themes(openPanel):
    import qt

    for widget in openPanel.parent.findChildren(qt.QWidget):
        assert widget.styleSheet == "", widget.name
    legend = openPanel.ui.legendLabel.text  # its patches have the colours of the map, its words that of the theme
    assert "background-color" in legend and "color:" not in legend.replace("background-color:", "")
    shown = [text for text in driving.shownTexts(openPanel.parent) if text != legend]
    assert shown and not [text for text in shown if "color" in text or "<font" in text]


def test_what_is_folded_away_at_first_is_all_that_a_usual_run_does_not_need(panel, volume):
    assert all(getattr(panel.ui, name).collapsed for name in SECTIONS)
    assert not panel.ui.inputCollapsibleButton.collapsed and panel.ui.segmentButton.enabled


def test_every_text_that_the_code_shows_can_be_translated():
    """Texts of the .ui file are translated by Qt; those set in code must go through the function _()."""
    sinks = {
        "addItem",
        "setPlainText",
        "appendPlainText",
        "setToolTip",
        "QTableWidgetItem",
        "QListWidgetItem",
        "EnvironmentProblem",
        "RunOutcome",
        "begin",
    }
    bare = []
    for path in sorted((ROOT / "MKDSegmentation").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values = []
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Attribute)
                and node.targets[0].attr in ("text", "toolTip", "title", "helpText", "acknowledgementText")
            ):
                values = [node.value]
            elif (
                isinstance(node, ast.Call) and (getattr(node.func, "attr", "") or getattr(node.func, "id", "")) in sinks
            ):
                values = node.args[1:] if getattr(node.func, "id", "") == "RunOutcome" else node.args
            bare += [
                f"{path.name}:{node.lineno} {value.value!r}"
                for value in values
                if isinstance(value, ast.Constant)
                and isinstance(value.value, str)
                and any(c.isalpha() for c in value.value)
            ]
    assert bare == []


def test_the_module_says_what_it_is(panel, slicerApp):
    import slicer

    module = slicer.modules.mkdsegmentation
    assert module.title and module.categories == ("Segmentation",) and module.contributors
    assert "research" in module.helpText and module.acknowledgementText
    assert not module.icon.isNull()
    assert "MKDSegmentation whole heart" in terminologyNames()


def terminologyNames():
    import slicer
    import vtk

    names = vtk.vtkStringArray()
    slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
    return [names.GetValue(index) for index in range(names.GetNumberOfValues())]
