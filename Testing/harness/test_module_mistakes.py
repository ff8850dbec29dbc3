"""Deliberate mistakes in the sample module: each must fail in the stand-in GUI, and for the right reason."""

import re
import shutil
from pathlib import Path

import numpy
import pytest

SAMPLE = Path(__file__).with_name("sample")
STATUS = 'self.ui.statusLabel.text = _("Counting...")'
NO_UI = "object has no attribute 'ui'"  # setup() broke off, so that the panel has no widgets

#: mistake: (right text, wrong text, what the failure must say)
IN_PYTHON = {
    "a misspelt property is set": (STATUS, 'self.ui.statusLabel.txt = "x"', "'txt' does not exist on QLabel"),
    "a property is called": (STATUS, "self.ui.statusLabel.text()", "'str' object is not callable"),
    "an unknown method is called": (
        "setRowCount(1)",
        "setRowNumber(1)",
        "QTableWidget has no attribute named 'setRowNumber'",
    ),
    "an unknown class is used": ("qt.QTableWidgetItem(", "qt.QTableItem(", "qt has no attribute 'QTableItem'"),
    "a signal does not exist": ('"clicked(bool)"', '"klicked(bool)"', "QPushButton has no signal klicked"),
    "a signal has another signature": (
        '"clicked(bool)"',
        '"clicked(int)"',
        r"QPushButton has no signal clicked\(int\)",
    ),
    "a slot takes more arguments than the signal gives": (
        "def onApply(self):",
        "def onApply(self, checked, more):",
        "missing 1 required positional argument: 'more'",
    ),
    "the result of a slot is connected": (
        '"timeout()", self.onTimeout)',
        '"timeout()", self.logic.count)',
        "missing 2 required positional arguments",
    ),
    "nothing is connected": (
        '"clicked(bool)", self.onApply)',
        '"clicked(bool)", self.removeObservers())',
        "cannot connect",
    ),
    "categories are no list": (
        '[translate("qSlicerAbstractCoreModule", "Examples")]',
        '"Examples"',
        "'QStringList' does not accept an object of type str",
    ),
    "a slot raises": (
        "count = self.logic.count(",
        "count = 1 / 0 + self.logic.count(",
        "exception in a slot.*ZeroDivisionError",
    ),
    "an observer raises": (
        'self.ui.applyButton.toolTip = _("Count',
        '1 / 0 if caller else _("Count',
        "ZeroDivisionError",
    ),
    "a handler of startupCompleted raises": (
        "self.started = True",
        "self.started = 1 / 0",
        "exception in a slot.*ZeroDivisionError",
    ),
    "setup raises": ("self.logic = StandInSampleLogic()", "1 / 0", "Widget.setup.*ZeroDivisionError"),
    "enter raises": ("def enter(self):", "def enter(self):\n        1 / 0\n", "Widget.enter.*ZeroDivisionError"),
    "the logic raises under tryWithErrorDisplay": (STATUS, "1 / 0", "exception in a slot.*ZeroDivisionError"),
    "an error is logged": (STATUS, 'import logging; logging.error("wrong")', "logging.ERROR: wrong"),
    "an error box is shown": (STATUS, 'slicer.util.errorDisplay("wrong")', "logging.ERROR: wrong"),
    "VTK reports an error": (
        STATUS,
        'slicer.mrmlScene.AddNewNodeByClass("vtkMRMLNoSuchNode")',
        "VTK error: .*vtkMRMLNoSuchNode",
    ),
    "VTK reports a warning": (
        STATUS,
        'vtk.vtkOutputWindow.GetInstance().DisplayWarningText("odd")',
        "VTK warning: odd",
    ),
    "a parameter gets a wrong type": (STATUS, 'self._parameterNode.threshold = "5"', "Value must be of type"),
    "a parameter has a type that no node can keep": ("note: str | None", "note: qt.QWidget", "QWidget|member note"),
}

IN_UI = {
    "a widget has an unknown class": ('class="ctkPathLineEdit"', 'class="ctkPathEdit"', NO_UI),
    "a property does not exist": ('<property name="addEnabled">', '<property name="createEnabled">', NO_UI),
    "a parameter name does not exist": ("<string>weights</string>", "<string>wheights</string>", "wheights"),
    "a parameter is bound to a widget that cannot show it": (
        "<string>weights</string>",
        "<string>threshold</string>",
        "threshold|ctkPathLineEdit",
    ),
    "a widget that the code uses has another name": (
        'name="statusLabel"',
        'name="stateLabel"',
        "has no attribute 'statusLabel'",
    ),
    "a connected signal does not exist": (
        "<signal>mrmlSceneChanged(vtkMRMLScene*)",
        "<signal>mrmlSceneSet(vtkMRMLScene*)",
        NO_UI,
    ),
    "a connected slot does not exist": ("<slot>setMRMLScene(vtkMRMLScene*)", "<slot>setScene(vtkMRMLScene*)", NO_UI),
    "a receiver does not exist": ("<receiver>inputSelector</receiver>", "<receiver>outputSelector</receiver>", NO_UI),
}


def _use(loadModule, tmp_path, fileName=None, right="", wrong=""):
    """Load a copy of the sample with one replacement and use it as a user does."""
    import slicer

    from Testing.harness import driving

    folder = tmp_path / "sample"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if fileName:
        source = (folder / fileName).read_text(encoding="utf-8")
        assert right in source
        (folder / fileName).write_text(source.replace(right, wrong, 1))
    _module, widget = loadModule(folder / "StandInSample.py")
    slicer.util.addVolumeFromArray(numpy.arange(24).reshape(2, 3, 4).astype("int16"), name="ct")
    driving.choose(widget.ui.inputSelector, "ct")
    driving.click(widget.ui.applyButton)
    driving.waitUntil(lambda: widget.ui.statusLabel.text == "13 voxels")


def _mustFail(reason, *arguments):
    from Testing.harness import bootstrap, failures

    said = []
    try:
        _use(*arguments)
    except Exception as error:  # whatever a test would have seen
        said.append(repr(error))
    said += failures.take()
    bootstrap.clear()  # a broken module may break once more on being unloaded
    failures.take()
    assert said, "the mistake went unnoticed"
    assert re.search(reason, "\n".join(said), re.DOTALL), said


def test_the_sample_without_a_mistake_works(loadModule, tmp_path):
    _use(loadModule, tmp_path)


@pytest.mark.parametrize("mistake", IN_PYTHON)
def test_a_mistake_in_python_is_refused_by_the_stand_in_gui(mistake, loadModule, tmp_path):
    right, wrong, reason = IN_PYTHON[mistake]
    _mustFail(reason, loadModule, tmp_path, "StandInSample.py", right, wrong)


@pytest.mark.parametrize("mistake", IN_UI)
def test_a_mistake_in_the_ui_file_is_refused_by_the_stand_in_gui(mistake, loadModule, tmp_path):
    right, wrong, reason = IN_UI[mistake]
    _mustFail(reason, loadModule, tmp_path, "Resources/UI/StandInSample.ui", right, wrong)
