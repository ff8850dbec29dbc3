"""The rules of PythonQt hold for qt, ctk, MRML widgets and slicer.app in the stand-in GUI: what works, what is refused,
in which words.
"""

import pathlib

import numpy
import pytest


@pytest.fixture
def names(slicerApp):
    """What a module has in scope, and a few widgets."""
    import ctk
    import qt
    import slicer

    return {
        "qt": qt,
        "ctk": ctk,
        "slicer": slicer,
        "Path": pathlib.Path,
        "numpy": numpy,
        "button": qt.QPushButton("Run"),
        "label": qt.QLabel("text"),
        "bar": qt.QProgressBar(),
        "box": qt.QDoubleSpinBox(),
        "selector": slicer.qMRMLNodeComboBox(),
        "pathEdit": ctk.ctkPathLineEdit(),
        "show3D": slicer.qMRMLSegmentationShow3DButton(),
        "table": qt.QTableWidget(),
        "timer": qt.QTimer(),
        "item": qt.QTableWidgetItem("1"),
    }


REFUSED = {
    "print(label.txt)": "QLabel has no attribute named 'txt'",
    "label.txt = 'x'": "'txt' does not exist on QLabel",
    "label.text()": "not callable",
    "label.text = Path('x')": "does not accept an object of type PosixPath",
    "label.text = 5": "does not accept an object of type int",
    "label.text = None": "does not accept an object of type NoneType",
    "label.setText(5)": "setText",
    "label.setText(Path('x'))": "setText",
    "bar.value = None": "NoneType",
    "bar.value = 0.5": "float",
    "box.value = None": "NoneType",
    "box.value = numpy.float32(1)": "float32",
    "button.enabled = None": "NoneType",
    "button.enabled = 'no'": "str",
    "button.setEnabled = None": "'setEnabled' can not be overwritten",
    "button.clicked = None": "'clicked' can not be overwritten",
    "timer.singleShot = True": "'singleShot' can not be overwritten on QTimer",
    "button.connect = None": "'connect' can not be overwritten",
    "button.connect('klicked()', print)": "no signal klicked",
    "button.connect('clicked(int)', print)": "no signal clicked",
    "button.connect('clicked()', None)": "cannot connect",
    "button.connect('clicked()', label, 'setTxt(QString)')": "setTxt",
    "button.connect('clicked()', label, 'text()')": "no slot",
    "button.clicked.connect(5)": "cannot connect",
    "qt.QLabel(text='x')": "no keyword arguments",
    "label.setText(text='x')": "no keyword arguments",
    "qt.QLable()": "qt has no attribute 'QLable'",
    "qt.Qt.AlignLefty": "AlignLefty",
    "qt.QProcess.Runing": "Runing",
    "qt.Signal()": "qt has no attribute 'Signal'",
    "qt.QMenu().addAction('x', print)": "does not take a Python callable",
    "item.colour = 1": "'colour' does not exist on QTableWidgetItem",
    "table.setItem(0, 0, 'x')": "setItem",
    "ctk.ctkMagicButton": "ctk has no attribute",
    "ctk.ctkSliderWidget()": "does not make ctkSliderWidget",
    "slicer.qMRMLMagic": "has no attribute",
    "slicer.qMRMLSliderWidget()": "does not make qMRMLSliderWidget",
    "selector.nodeTypes = 'vtkMRMLNode'": "does not accept an object of type str",
    "selector.noneEnabled = None": "NoneType",
    "selector.currentNode(1)": "wrong arguments",
    "selector.setMRMLScene(label)": "wrong arguments",
    "selector.nodes()": "has no attribute named 'nodes'",
    "selector.connect('currentNodeChanged(int)', print)": "no signal currentNodeChanged",
    "selector.sizeAdjustPolicy": "does not make qMRMLNodeComboBox.sizeAdjustPolicy",
    "selector.renameCurrentNode()": "does not make qMRMLNodeComboBox.renameCurrentNode",
    "selector.connect('currentNodeRenamed(QString)', print)": "does not make the signal",
    "show3D.setSegmentationNode(slicer.mrmlScene.AddNewNodeByClass('vtkMRMLScalarVolumeNode'))": "wrong arguments",
    "pathEdit.currentPath = Path('x')": "PosixPath",
    "pathEdit.minimumContentsLength = 3": "does not make ctkPathLineEdit.minimumContentsLength",
    "slicer.app.layoutManagr()": "layoutManagr",
    "slicer.app.layoutManager().threeDWidget(0)": "does not make",
    "slicer.app.coreIOManager().readNodes()": "readNodes",
    "slicer.app.moduleManager().module(5)": "wrong arguments",
    "slicer.modules.volumes.logik()": "logik",
    "slicer.modules.volumes.path = 'x'": "not writable",
    "slicer.util.getModule('Segmentationz')": "Could not find module",
    "type('Label', (qt.QLabel,), {'mousePressEvent': print})": "does not forward virtual functions",
}


@pytest.mark.parametrize("statement", REFUSED)
def test_the_stand_in_gui_refuses(statement, names):
    with pytest.raises((AttributeError, TypeError, ValueError, NotImplementedError, RuntimeError)) as refusal:
        exec(statement, names)
    assert REFUSED[statement] in str(refusal.value)


ACCEPTED = (
    "label.text = 'x'; assert label.text == 'x'",
    "label.name = 'status'; assert label.objectName == 'status'",
    "label.setProperty('SlicerParameterName', 'x'); assert label.SlicerParameterName == label.property('SlicerParameterName') == 'x'",
    "box.value = 1; assert box.value == 1.0 and box.isEnabled() and box.enabled",
    "bar.value = numpy.int64(30); assert bar.value == 30",
    "assert label.className() == 'QLabel' and label.inherits('QWidget') and type(label) == qt.QLabel",
    "assert isinstance(label, qt.QLabel) and not isinstance(label, qt.QWidget)",
    "assert selector.className() == 'qMRMLNodeComboBox' and type(selector) == slicer.qMRMLNodeComboBox",
    "selector.nodeTypes = ['vtkMRMLModelNode']; assert selector.nodeTypes == ('vtkMRMLModelNode',)",
    "assert qt.QProcess().state() == qt.QProcess.NotRunning == 0 and int(qt.Qt.AlignLeft) == 1",
    "parent = qt.QWidget(); child = qt.QLabel(parent); child.name = 'inner'; assert parent.inner == child and child.parent() == parent",
    "parent = qt.QWidget(); child = qt.QLabel(parent); assert parent.findChildren(qt.QLabel) == (child,) == parent.findChildren('QLabel')",
    "layout = qt.QVBoxLayout(); layout.addWidget(label); assert layout.itemAt(0).widget() == label and layout.count() == 1",
    "button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)",
    "settings = qt.QSettings(); settings.setValue('a/b', 3); assert slicer.util.settingsValue('a/b', 0, int) == 3",
    "assert isinstance(qt.QFileDialog, type) and qt.QDir(slicer.app.temporaryPath).exists()",
    "button.connect('clicked()', label, 'hide()'); button.click(); assert label.isHidden()",
    "path = slicer.app.temporaryPath + '/a.seg.nrrd'; assert slicer.app.coreIOManager().fileType(path) == 'NoFile'",
    "path = slicer.app.temporaryPath + '/a.seg.nrrd'; open(path, 'w').close(); assert slicer.app.coreIOManager().fileType(path) == 'SegmentationFile'",
    "assert slicer.app.testingEnabled()",
    # in testing mode Slicer compares True with QMessageBox.Yes, so that the answer is no
    "assert slicer.util.confirmYesNoDisplay('?') is False and slicer.util.tempDirectory().startswith(slicer.app.temporaryPath)",
    "slicer.util.resetSliceViews(); slicer.util.setSliceViewerLayers(background=None, fit=True); assert slicer.util.mainWindow() is None",
)


@pytest.mark.parametrize("statement", ACCEPTED)
def test_the_stand_in_gui_accepts(statement, names):
    exec(statement, names)


def test_a_slot_gets_as_many_arguments_as_it_takes(names):
    seen = []
    button = names["button"]
    button.connect("clicked(bool)", lambda: seen.append(()))
    button.connect("clicked(bool)", lambda checked: seen.append((checked,)))
    button.connect("clicked(bool)", lambda *everything: seen.append(everything))
    button.connect("clicked()", lambda more=3: seen.append((more,)))
    button.click()
    assert seen == [(), (False,), (False,), (3,)]


def test_a_disconnected_slot_is_not_called_any_more(names):
    class Panel:
        count = 0

        def onClick(self):
            self.count += 1

    panel, button = Panel(), names["button"]
    button.connect("clicked(bool)", panel.onClick)
    assert button.disconnect("clicked(bool)", panel.onClick) is True
    assert button.disconnect("clicked(bool)", panel.onClick) is False
    button.clicked.connect(panel.onClick)
    button.click()
    assert panel.count == 1


def test_an_exception_in_a_slot_fails_the_test_but_not_the_click(names, expectedErrors):
    seen = []
    names["button"].connect("clicked()", lambda: 1 / 0)
    names["button"].connect("clicked()", lambda: seen.append(1))
    with expectedErrors("ZeroDivisionError") as texts:
        names["button"].click()
    assert seen == [1] and len(texts) == 1


def test_an_expected_error_that_does_not_come_is_an_error(slicerApp, expectedErrors):
    with pytest.raises(AssertionError, match="expected at least 1"), expectedErrors("anything"):
        pass


def test_an_exception_in_a_thread_is_collected(slicerApp, expectedErrors):
    import threading

    with expectedErrors("exception in thread(.|\n)*ZeroDivisionError"):
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()


def test_a_destroyed_widget_refuses_to_be_used(names):
    label = names["qt"].QLabel("x")
    label.delete()
    with pytest.raises(ValueError, match="was destroyed"):
        label.text = "y"


def test_a_process_runs_and_reports_through_signals(names):
    from Testing.harness import driving

    qt, seen = names["qt"], []
    process = qt.QProcess()
    process.connect("readyReadStandardOutput()", lambda: seen.append(process.readAllStandardOutput().data()))
    process.connect(
        "finished(int,QProcess::ExitStatus)", lambda code, status: seen.append((code, status == qt.QProcess.NormalExit))
    )
    process.start("echo", ["hello"])
    driving.waitUntil(lambda: len(seen) == 2)
    assert seen == [b"hello\n", (0, True)]


def test_a_timer_and_a_single_shot_fire(names):
    from Testing.harness import driving

    seen = []
    names["timer"].setSingleShot(True)
    names["timer"].connect("timeout()", lambda: seen.append("timer"))
    names["timer"].start(1)
    names["qt"].QTimer.singleShot(0, lambda: seen.append("shot"))
    driving.waitUntil(lambda: len(seen) == 2)


def test_the_event_filter_of_a_subclass_sees_the_events_of_what_it_watches(slicerApp, expectedErrors):
    import qt

    class Filter(qt.QObject):
        answer, seen = False, ()

        def eventFilter(self, watched, event):
            self.seen += ((watched, event.type()),)
            return self.answer

    watched, watching = qt.QLabel("x"), Filter()
    watched.installEventFilter(watching)
    watched.resize(80, 20)
    watched.show()
    assert (watched, qt.QEvent.Resize) in watching.seen
    watching.answer = None  # PythonQt wants a bool
    with expectedErrors("eventFilter returned None"):
        watched.hide()
    watching.answer = False
    watched.removeEventFilter(watching)
    count = len(watching.seen)
    watched.show()
    assert len(watching.seen) == count
    watched.delete()
