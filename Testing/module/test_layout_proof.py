"""Nothing in the panel overlaps, is cut or clipped, in any state and at any size; told from the geometry in the
stand-in GUI.
"""

import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from PySide6 import QtWidgets

from mkd_core.structures import STRUCTURES
from Testing.harness.pythonqt import unwrap
from Testing.support import panel_layout
from Testing.support.panel_driving import (
    MODULE,
    addSolidHeart,
    addVolume,
    draw,
    driving,
    segment,
    waitForClinicalFigures,
    waitForStage,
)
from Testing.support.sequence_driving import addSequence, segmentAll

UI_FILE = Path(__file__).resolve().parents[2] / "MKDSegmentation" / "Resources" / "UI" / "MKDSegmentation.ui"
WIDTHS = (350, 400, 480, 600)
HEIGHTS = (700, 850, 1000, 1150)

#: A fault that lasts longer is one: until then a text that was measured anew may not be laid out yet.
LAYOUT_S = 10.0


def idle(panel, worker, tmp_path):
    """Nothing is loaded."""


def ready(panel, worker, tmp_path):
    """A volume that the views do not show, and choices under Advanced that leave something out."""
    addVolume()
    driving.click(panel.ui.advancedCollapsibleButton)
    for structure in STRUCTURES[3:]:
        driving.tick(panel.ui.structuresList, structure.name, on=False)
    panel.ui.segmentorComboBox.currentIndex = 1
    driving.click(panel.ui.advancedCollapsibleButton)
    assert panel.ui.choicesLabel.visible and panel.ui.shownVolumeLabel.visible


def warned(panel, worker, tmp_path):
    """A volume that looks wrong in several ways, under a transform, in the wrong modality."""
    import slicer

    volume = addVolume(shape=(8, 24, 36), spacing=2.0)
    volume.SetSpacing(2.0, 2.0, 7.0)
    slicer.util.arrayFromVolume(volume)[:] = abs(slicer.util.arrayFromVolume(volume))
    slicer.util.arrayFromVolumeModified(volume)


def running(panel, worker, tmp_path):
    addVolume()
    worker("slow")
    driving.click(panel.ui.logCollapsibleButton)
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")


def done(panel, worker, tmp_path):
    addVolume()
    worker("good")
    segment(panel)


def edited(panel, worker, tmp_path):
    """A result with an edited, a deleted and a renamed segment, and the question what becomes of them."""
    import slicer

    from Testing.support.panel_driving import segmentations, voxelsOf

    done(panel, worker, tmp_path)
    (node,), volume = segmentations(), slicer.util.getNode("CT")
    mask = voxelsOf(node, "LV", volume)
    mask[:7] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype("uint8"), node, "LV", volume)
    node.GetSegmentation().RemoveSegment("RA")
    waitForClinicalFigures(panel)
    driving.click(panel.ui.segmentButton)


def figures(panel, worker, tmp_path):
    """A result with all clinical figures, normal ranges and the bull's-eye."""
    volume, labels = addSolidHeart()
    worker("good")
    segment(panel)
    draw(volume, labels)
    panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value = 170, 70
    panel.ui.sexComboBox.currentIndex = 1
    waitForClinicalFigures(panel)
    assert panel.ui.bullseyeLabel.visible and panel.ui.clinicalTable.rowCount > 8


def beat(panel, worker, tmp_path):
    addSequence()
    worker("beat")
    segmentAll(panel)


def unfolded(panel, worker, tmp_path):
    """A result with an overlay, and everything that is folded away at first."""
    addVolume()
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    segment(panel)
    driving.answerFileDialog(tmp_path)
    driving.chooseInMenu(panel.ui.exportButton, "Surfaces as STL ...")
    assert panel.ui.exportedLabel.visible and panel.ui.legendLabel.visible
    driving.click(panel.ui.checkEnvironmentButton)
    driving.waitUntil(lambda: panel.ui.checkEnvironmentButton.enabled, message="the end of the check")
    for name in ("weightsCollapsibleButton", "downloadCollapsibleButton", "logCollapsibleButton"):
        driving.click(getattr(panel.ui, name))
    panel._newerWeights._say("Version 9.1 (15 MB) is newer than 0.3. Click Download below to get it.")


def batch(panel, worker, tmp_path):
    """A batch that is over: volumes done, one refused for a reason of several lines, and a folder to choose."""
    addVolume("CT of a patient with a rather long name")
    addVolume("Thin", shape=(2, 24, 36))
    worker("good")
    driving.click(panel.ui.batchCollapsibleButton)
    driving.click(panel.ui.batchButton)
    driving.waitUntil(lambda: panel.ui.segmentButton.text == "Segment", message="the end of the batch")


def folder(panel, worker, tmp_path):
    """The choice of a folder whose results lie beside it."""
    driving.click(panel.ui.batchCollapsibleButton)
    driving.choose(panel.ui.batchSourceComboBox, "Volumes in a folder")
    driving.typeText(panel.ui.batchFolderLineEdit, str(tmp_path))


def asking(panel, worker, tmp_path):
    """The question whether PyTorch may be installed, which names a folder that has no blanks to wrap at."""
    addVolume()
    panel._runButtons._installation.ask(lambda: None)


STATES = {
    state.__name__: state
    for state in (idle, ready, warned, asking, running, done, edited, figures, beat, batch, folder, unfolded)
}


def lengthen(panel, factor=1.4):
    """Make every text longer, as German is longer than English."""
    raw = unwrap(panel.parent)
    for widget in raw.findChildren(QtWidgets.QWidget):
        if isinstance(widget, QtWidgets.QLabel) and widget.text():
            extra = " und so weiter" * max(1, round((factor - 1) * len(widget.text()) / len(" und so weiter")))
            short = widget.text()[:-1] + "en:" if widget.text().endswith(":") and len(widget.text()) < 25 else None
            widget.setText(short or widget.text() + extra)
        elif isinstance(widget, QtWidgets.QAbstractButton) and len(widget.text()) > 3:
            widget.setText(widget.text() + "en und weiter"[: round((factor - 1) * len(widget.text()))])


def lastingFaults(panel):
    """What is still wrong when texts that changed meanwhile have been laid out."""
    found, end = panel_layout.faults(panel), time.monotonic() + LAYOUT_S
    while found and time.monotonic() < end:
        driving.processEvents(0.05)
        found = panel_layout.faults(panel)
    return found


def everyFault(panel, widths=WIDTHS, heights=HEIGHTS):
    driving.waitUntil(  # what is measured meanwhile changes texts
        lambda: (
            not panel.logic.measurements.isBusy
            and (not panel.ui.clinicalCollapsibleButton.visible or panel._clinical.geometry is not None)
        ),
        message="the figures",
    )
    found = {}
    for width in widths:
        for height in heights:
            panel_layout.show(panel, width, height)
            for fault in lastingFaults(panel):
                found.setdefault(fault, f"{width} x {height}")
    return found


@pytest.mark.parametrize("state", STATES)
def test_nothing_overlaps_and_no_text_is_cut_at_any_size(panel, worker, tmp_path, state):
    STATES[state](panel, worker, tmp_path)
    assert everyFault(panel) == {}
    lengthen(panel)
    panel_layout.settle()
    assert everyFault(panel, heights=HEIGHTS[:1]) == {}, "with longer texts"


@pytest.mark.parametrize(
    ("state", "percent"),
    [(state, 200) for state in STATES] + [(state, 125) for state in ("done", "figures", "batch", "unfolded")],
)
def test_nothing_overlaps_with_larger_fonts(loadModule, slicerApp, tiny_bundle_path, worker, tmp_path, state, percent):
    slicerApp.userSettings().setValue("MKDSegmentation/WeightsPath", str(tiny_bundle_path))
    before = QtWidgets.QApplication.font()
    font = QtWidgets.QApplication.font()
    font.setPointSizeF(before.pointSizeF() * percent / 100)
    QtWidgets.QApplication.setFont(font)
    try:
        _module, panel = loadModule(MODULE)
        STATES[state](panel, worker, tmp_path)
        panel_layout.settle()  # a layout that has yet to hear of new texts asks for too little
        needed = unwrap(panel.parent).minimumSizeHint().width() + 20
        assert everyFault(panel, [max(width, needed) for width in (350, 480, 600)], HEIGHTS[:2]) == {}
    finally:
        QtWidgets.QApplication.setFont(before)


def test_no_wrapped_text_hides_in_a_frame_of_a_form():
    """Qt's form layout sometimes keeps the height that such a frame needed at another width."""
    forms = [layout for layout in ElementTree.parse(UI_FILE).iter("layout") if layout.get("class") == "QFormLayout"]
    assert forms
    held = [widget for form in forms for item in form.findall("item") for widget in item.findall("widget")]
    wrapped = ".//widget//property[@name='wordWrap']"
    assert [widget.get("name") for widget in held if widget.find(wrapped) is not None] == []
