"""A small scripted module with which the stand-in GUI is tested. It counts voxels above a threshold, in a timer."""

import pathlib
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


class StandInSample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Stand-in sample")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Examples")]
        self.parent.contributors = ["Testers"]
        self.started = False
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self):
        self.started = True


@parameterNodeWrapper
class StandInSampleParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    weights: pathlib.Path
    threshold: Annotated[int, WithinRange(-1000, 1000)] = 10
    inverted: bool = False
    modality: Annotated[str, Choice(["CT", "MR"]), Default("CT")]
    note: str | None


class StandInSampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._parameterNode = None
        self._guiTag = None
        self.timer = qt.QTimer()
        self.timer.setSingleShot(True)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/StandInSample.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = StandInSampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.timer.connect("timeout()", self.onTimeout)
        self.initializeParameterNode()

    def cleanup(self):
        self.timer.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.timer.stop()
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                self._parameterNode.inputVolume = first

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._guiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
            self._checkCanApply()

    def _checkCanApply(self, caller=None, event=None):
        self.ui.applyButton.enabled = bool(self._parameterNode and self._parameterNode.inputVolume)
        self.ui.applyButton.toolTip = _("Count voxels") if self.ui.applyButton.enabled else _("Select a volume")

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("Counting failed."), waitCursor=True):
            self.ui.statusLabel.text = _("Counting...")
            self.timer.start(1)

    def onTimeout(self):
        count = self.logic.count(self._parameterNode.inputVolume, self._parameterNode.threshold)
        self.ui.statusLabel.text = _("{count} voxels").format(count=count)
        self.ui.progressBar.value = 100
        item = qt.QTableWidgetItem(str(count))
        self.ui.table.setRowCount(1)
        self.ui.table.setItem(0, 0, item)


class StandInSampleLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return StandInSampleParameterNode(super().getParameterNode())

    def count(self, volumeNode, threshold):
        return int((slicer.util.arrayFromVolume(volumeNode) > threshold).sum())


class StandInSampleTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_counting(self):
        import numpy

        volume = slicer.util.addVolumeFromArray(numpy.arange(24).reshape(2, 3, 4).astype("int16"))
        self.assertEqual(StandInSampleLogic().count(volume, 19), 4)
        self.delayDisplay("Counted")
