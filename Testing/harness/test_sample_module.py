"""A whole scripted module works in the stand-in GUI: loading, binding, clicking, closing the scene, its own test."""

from pathlib import Path

import numpy
import pytest

SAMPLE = Path(__file__).with_name("sample") / "StandInSample.py"


@pytest.fixture
def sample(loadModule):
    return loadModule(SAMPLE)


def _addVolume(name="ct"):
    import slicer

    return slicer.util.addVolumeFromArray(numpy.arange(24).reshape(2, 3, 4).astype("int16"), name=name)


def test_startup_completes_before_the_panel_is_made_and_the_panel_is_entered(sample):
    module, widget = sample
    assert module.started
    assert widget.parent.isEntered is True


def test_a_chosen_volume_enables_the_button_and_a_click_counts(sample):
    from Testing.harness import driving

    _module, widget = sample
    assert widget.ui.applyButton.enabled is False and widget.ui.applyButton.toolTip == "Select a volume"
    _addVolume()
    driving.choose(widget.ui.inputSelector, "ct")
    assert widget._parameterNode.inputVolume.GetName() == "ct"
    driving.click(widget.ui.applyButton)
    driving.waitUntil(lambda: widget.ui.statusLabel.text.endswith("voxels"))
    assert "13 voxels" in driving.shownTexts(widget.parent)
    assert driving.tableTexts(widget.ui.table) == [["13"]]


def test_a_disabled_button_cannot_be_clicked(sample):
    from Testing.harness import driving

    with pytest.raises(AssertionError, match="disabled"):
        driving.click(sample[1].ui.applyButton, seconds=0)


def test_gui_and_parameter_node_follow_each_other(sample):
    from Testing.harness import driving

    _module, widget = sample
    widget._parameterNode.threshold = 20
    assert widget.ui.thresholdSpinBox.value == 20
    widget.ui.modalityComboBox.currentIndex = 1
    assert widget._parameterNode.modality == "MR"
    driving.click(widget.ui.advancedButton)
    driving.click(widget.ui.invertedCheckBox)
    assert widget._parameterNode.inverted is True
    driving.typeText(widget.ui.weightsEdit, "/tmp/ä weights")
    assert str(widget._parameterNode.weights) == "/tmp/ä weights"


def test_values_outside_the_declared_range_are_refused(sample):
    node = sample[1]._parameterNode
    with pytest.raises(ValueError):
        node.threshold = 5000
    with pytest.raises(ValueError):
        node.modality = "PET"
    with pytest.raises(TypeError):
        node.threshold = "10"
    assert node.note is None


def test_closing_the_scene_makes_a_new_parameter_node(sample):
    import slicer

    _module, widget = sample
    _addVolume()
    before = widget._parameterNode
    slicer.mrmlScene.Clear()
    assert widget._parameterNode is not before
    assert widget._parameterNode.inputVolume is None
    assert widget.ui.applyButton.enabled is False


def test_deleting_the_volume_empties_the_selector(sample):
    import slicer

    _module, widget = sample
    volume = _addVolume()
    widget._parameterNode.inputVolume = volume
    slicer.mrmlScene.RemoveNode(volume)
    assert widget.ui.inputSelector.currentNode() is None


def test_the_modules_own_test_runs_by_both_runners(sample):
    import slicer
    import slicer.testing

    slicer.selfTests["StandInSample"](msec=1)
    slicer.testing.runUnitTest([str(SAMPLE.parent)], "StandInSample")


def test_reloading_makes_a_working_panel(sample):
    import slicer

    slicer.util.reloadScriptedModule("StandInSample")
    widget = slicer.modules.StandInSampleWidget
    assert widget is not sample[1]
    _addVolume()
    assert widget.ui.inputSelector.enabled
