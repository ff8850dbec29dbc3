from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import sys
import time
import unittest

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

import MKDSegmentationLib as lib

#
# MKDSegmentation
#


class MKDSegmentation(ScriptedLoadableModule):
    """Tells Slicer what the module is; does nothing else until the user opens it."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Heart Segmentation (MKD)")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The MKDSegmentation developers"]
        self.parent.helpText = _("""
Segments the heart in a cardiac CT or MR volume: four chambers, left ventricular myocardium, ascending aorta and
pulmonary artery, with their volumes and with warnings on what to doubt. Load a volume, select it and click Segment.
For research; not for clinical decisions.
""")
        self.parent.acknowledgementText = _("""
The method is whole-heart segmentation by image alignment and online mutual knowledge distillation between CT and MR.
""")
        slicer.app.connect("startupCompleted()", registerTerminology)
        slicer.app.connect("startupCompleted()", registerSamples)
        slicer.app.connect("startupCompleted()", removeLeftoversOfCrashes)


def registerTerminology():
    """Let Slicer's terminology selector offer the seven structures with our colours."""
    slicer.modules.terminologies.logic().LoadTerminologyFromFile(_resource("MKDSegmentation.term.json"))


def registerSamples():
    """Offer synthetic hearts in the module Sample Data; they are made when someone asks for them."""
    lib.registerSampleData(_resource("Icons"))


def removeLeftoversOfCrashes():
    """Delete the volumes that an earlier session left in the temporary folder where Slicer or the computer went down in
    the middle of a run.
    """
    lib.removeLeftovers(slicer.app.temporaryPath)


def _resource(name: str) -> str:
    return os.path.join(os.path.dirname(__file__), "Resources", name)


#
# MKDSegmentationWidget
#

#: Time after the choice of a volume before the worker process gets ready for a run: looking through volumes must cost
#: nothing.
WARM_DELAY_MS = 500


class MKDSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: shows what the parameter node and the logic know, and passes clicks on to the logic."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: lib.Logic | None = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._shownInput, self._shownFrame = None, None
        self._outcome = None  # of the last run, as long as it is worth telling
        self._isHeld = False  # True while changes follow each other, so that the panel is shown after the last one
        self._updateTimer = qt.QTimer()  # what a run changes within a turn of the event loop is shown once
        self._updateTimer.setSingleShot(True)
        self._updateTimer.setInterval(0)
        self._updateTimer.connect("timeout()", self._onChangesOver)
        self._look = lib.VolumeLook()
        self._warmTimer = qt.QTimer()
        self._warmTimer.setSingleShot(True)
        self._warmTimer.setInterval(WARM_DELAY_MS)
        self._warmTimer.connect("timeout()", self._warm)

    def setup(self) -> None:
        """Called when the user opens the module the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MKDSegmentation.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = MKDSegmentationLogic()
        self._createSections()
        self._wrappedLabels = lib.WrappedLabels(uiWidget)
        self._keyboard = lib.KeyboardAccess(uiWidget, self.ui.segmentButton, self._runButtons.takeQuestionBack)
        self.logic.measurements.onMeasured = self._onChangesOver

        scene = slicer.mrmlScene
        for event in (scene.StartCloseEvent, scene.StartImportEvent):
            self.addObserver(scene, event, self.onSceneStartChange)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self.onSceneEndChange)
        # before the selector notices, which might take another box instead
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved, priority=1.0)
        self.ui.heartBoxSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onHeartBoxAdded)
        self.initializeParameterNode()

    def _createSections(self) -> None:
        """Give each subject of the panel its widgets."""
        ui = self.ui
        self._advice = lib.VolumeAdvice(ui, self.onSwitchModality, self.onHardenTransform)
        self._estimate = lib.RuntimeEstimate(ui)
        self._runButtons = lib.RunButtons(ui, self.logic, self._prepareRun, self.onFinished, self._updatePanel)
        self._undoButton = lib.UndoButton(ui, self.onUndone)
        exportMenu = lib.ExportMenu(ui)
        self._results = lib.ResultsTable(ui, exportMenu)
        self._segmentExport = lib.SegmentExport(ui, exportMenu)
        self._dicomSaving = lib.DicomSaving(ui, exportMenu)
        self._surfaces = lib.SurfaceView(ui)
        self._shownVolume = lib.ShownVolume(ui)
        self._navigation = lib.StructureNavigation(ui, self._results)
        self._clinical = lib.ClinicalSection(ui)
        self._reportButtons = lib.ReportButtons(ui, self._clinical)
        self._sequence = lib.SequenceSection(ui)
        self._batch = lib.BatchSection(
            ui, self.logic, self._runButtons, self.onShowBatchRow, self.onBatchRow, self._secondsFor
        )
        self._overlay = lib.OverlayChoice(ui)
        self._choices = lib.OutputChoices(ui)
        self._computing = lib.ComputingSettings(ui, onChanged=self._updatePanel)
        self._weights = lib.WeightsSettings(ui, onChanged=self._onWeightsChanged)
        self._choices.offer(self._weights.structures, self._weights.structuresInDetail)
        self._download = lib.WeightsDownload(
            ui, onDownloaded=self._weights.choose, onFolderChanged=self._weights.refresh
        )
        self._newerWeights = lib.NewerWeights(ui, self._weights, onFound=self._download.offer)

    def cleanup(self) -> None:
        """Called when the application closes and when the module is reloaded."""
        if self.logic:
            self.logic.close()
            self._computing.close()
            self._sequence.close()
            self._surfaces.close()
            self._shownVolume.close()
            self._batch.close()
            self._clinical.close()
            self._reportButtons.close()
            self._wrappedLabels.close()
            self._keyboard.close()
            self._download.close()
            self._newerWeights.close()
            self._runButtons.close()
        self._warmTimer.stop()
        self._updateTimer.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.initializeParameterNode()
        self._warmTimer.start()

    def exit(self) -> None:
        """Called each time the user opens a different module; a run goes on."""
        self.setParameterNode(None)

    def onReload(self) -> None:
        """Reload the module together with its packages."""
        for name in list(sys.modules):
            if name.split(".")[0] in ("MKDSegmentationLib", "mkd_core"):
                del sys.modules[name]
        importlib.invalidate_caches()
        super().onReload()

    def onSceneStartChange(self, caller, event) -> None:
        """Called just before the scene is closed or filled from a file: selectors must not write into the parameter
        node meanwhile.
        """
        self.setParameterNode(None)
        self._choices.forgetPatient()

    def onSceneEndChange(self, caller, event) -> None:
        """Called just after the scene was closed or filled from a file."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Connect the panel with the scene's parameter node; preselect the volume that the user looks at."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = lib.preferredVolume()

    def setParameterNode(self, parameterNode: lib.MKDSegmentationParameterNode | None) -> None:
        """Show and observe a parameter node, or none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._choices.setParameterNode(None)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
            self.removeObservers(self._onSelectedNodeModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self._choices.setParameterNode(self._parameterNode)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
            self._onParametersModified()

    def _prepareRun(self) -> tuple[lib.PanelState, lib.RunOptions]:
        """Look once more at what a run will use; return it."""
        self._outcome = None
        self._warmTimer.stop()  # the run starts the process itself, and one that is cancelled leaves none
        self._weights.refresh()  # the file may have gone or changed since it was chosen
        self._choices.offer(self._weights.structures, self._weights.structuresInDetail)
        return self._currentState(), self._chosenOptions()

    def onSwitchModality(self, modality: str) -> None:
        """Take the other modality, which the volume looks like."""
        self._parameterNode.modality = modality

    def onHardenTransform(self) -> None:
        """Take a copy of the volume into which its transform is hardened."""
        with slicer.util.tryWithErrorDisplay(_("The volume could not be hardened."), waitCursor=True):
            copy = lib.hardenedCopy(self._parameterNode.inputVolume)
            lib.keepForVolume(self._parameterNode.heartBox, copy)  # which lies where the volume lies
            self._choices.keepFor(copy)
            self._parameterNode.inputVolume = copy

    def onHeartBoxAdded(self, roiNode) -> None:
        """Draw the box that the user has just made in the selector."""
        volume = self._parameterNode.inputVolume if self._parameterNode else None
        if not lib.reasonVolumeCannotBeUsed(volume):
            lib.placeInVolume(roiNode, volume)

    def onFinished(self, outcome: lib.RunOutcome) -> None:
        """Show how the run ended."""
        self._outcome = outcome
        if outcome.segmentation:
            self._undoButton.offer(outcome.undo)
            with self._held():
                # even if another module is shown meanwhile
                self.logic.getParameterNode().outputSegmentation = outcome.segmentation
                self._estimate.updateFromRun(outcome.report, self._computing.device)
        self._updatePanel()
        if outcome.segmentation and self._parameterNode:
            self._showHeart(outcome.segmentation)
            self._surfaces.showNew(outcome.segmentation, self._parameterNode.inputVolume)
            self._overlay.showFirst()

    def _showHeart(self, segmentation) -> None:
        """Bring the views to a segmentation; how it is shown there changes nothing in the panel."""
        with self._held():
            lib.showHeart(segmentation)

    @contextlib.contextmanager
    def _held(self):
        """Show nothing of changes that follow each other: one alone may be a volume with another one's segmentation."""
        wasHeld, self._isHeld = self._isHeld, True
        try:
            yield
        finally:
            self._isHeld = wasHeld

    def onBatchRow(self, row: lib.BatchRow) -> None:
        """Keep what the views show while a batch segments other volumes; take the result of the selected one."""
        if not self._parameterNode:
            return
        if row.state in (lib.RUNNING, lib.DONE):
            lib.showOnlyThoseOf(self._parameterNode.inputVolume)
        if row.state == lib.DONE and row.volume is self._parameterNode.inputVolume:
            self._parameterNode.outputSegmentation = row.segmentation

    def onShowBatchRow(self, row: lib.BatchRow) -> None:
        """Show a finished volume of a batch and its segmentation."""
        if self._parameterNode:
            with self._held():
                self._parameterNode.inputVolume = row.volume
                self._parameterNode.outputSegmentation = row.segmentation
            self._updatePanel()
            self._showHeart(row.segmentation)
            self._surfaces.showNew(row.segmentation, row.volume, isAsked=True)

    def _secondsFor(self, volume) -> float:
        if lib.reasonVolumeCannotBeUsed(volume):
            return 0.0
        return self._estimate.of(volume, self._computing.device, isWarm=True).seconds

    def _chosenOptions(self) -> lib.RunOptions:
        chosen = self._parameterNode
        return lib.RunOptions(
            chosen.modality,
            self._computing.device,
            self._weights.path,
            self._choices.structures,
            chosen.segmentor,
            chosen.withDisagreement,
            chosen.withAligned,
            self._computing.threads,
            box=lib.boxOf(chosen.heartBox),
        )

    def _warm(self) -> None:
        """Get ready for the click that is likely to come."""
        if self._parameterNode and not self._currentState().blockingReason:
            self.logic.warm(self._chosenOptions())

    def onUndone(self, outcome: lib.RunOutcome) -> None:
        """Show that the last run was undone, or done again."""
        self._outcome = outcome
        self._updatePanel()

    def _onParametersModified(self, caller=None, event=None) -> None:
        """Follow the selected volume: its own segmentation is the output, so that a run never overwrites that of
        another volume.
        """
        with self._held():
            volume, box = self._parameterNode.inputVolume, self._parameterNode.heartBox
            if volume is not self._shownInput:
                if lib.isBoxOfAnother(box, volume):
                    box = self._parameterNode.heartBox = None
                wasRemoved = self._shownInput and not slicer.mrmlScene.IsNodePresent(self._shownInput)
                if self._outcome and not (wasRemoved and self._outcome.status == "cancelled"):
                    self._outcome = None  # but that a run was cancelled because its volume was removed stays
                self._shownInput = volume
                self._runButtons.takeQuestionBack()
                lib.showOnlyThoseOf(volume)
                self._warmTimer.start()
                if not self.logic.isRunning or self._batch.isActive:
                    self._parameterNode.outputSegmentation = lib.segmentationOf(
                        volume, self._parameterNode.outputSegmentation
                    )
            lib.keepForVolume(box, volume)
            self._choices.followVolume(volume)
            self._choices.show(self._parameterNode)
            self._observeSelectedNodes()
        self._updatePanel()

    def _observeSelectedNodes(self) -> None:
        """Notice voxels that come after their node, transforms, and segments of the user: each may allow or forbid a
        run.
        """
        self.removeObservers(self._onSelectedNodeModified)
        volume, segmentation = self._parameterNode.inputVolume, self._parameterNode.outputSegmentation
        if volume:
            for event in (vtk.vtkCommand.ModifiedEvent, volume.ImageDataModifiedEvent, volume.TransformModifiedEvent):
                self.addObserver(volume, event, self._onSelectedNodeModified)
        if segmentation:
            for event in (
                vtk.vtkCommand.ModifiedEvent,
                segmentation.TransformModifiedEvent,
                slicer.vtkSegmentation.SegmentAdded,
                slicer.vtkSegmentation.SegmentRemoved,
            ):
                self.addObserver(segmentation, event, self._onSelectedNodeModified)
        box = self._parameterNode.heartBox
        if box:  # its name and whether it is drawn
            for event in (vtk.vtkCommand.ModifiedEvent, box.PointPositionDefinedEvent, box.PointRemovedEvent):
                self.addObserver(box, event, self._onSelectedNodeModified)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        if self._parameterNode and node is self._parameterNode.heartBox:
            self._parameterNode.heartBox = None

    def _onWeightsChanged(self) -> None:
        self._choices.offer(self._weights.structures, self._weights.structuresInDetail)
        self._updatePanel()

    def _onSelectedNodeModified(self, caller=None, event=None) -> None:
        if self._isHeld:
            return
        if self.logic.isRunning:  # which changes nodes many times within a turn
            self._updateTimer.start()
        else:
            self._onChangesOver()

    def _onChangesOver(self) -> None:
        """Show what changed; edited segments wait for their figures, which take longer. A frame of a sequence that
        comes into view does not: it must not stand beside the figures of another one.
        """
        if self._parameterNode and self._selectedFrame() == self._shownFrame:
            isWaiting = self.logic.measurements.isWaitingFor(self._parameterNode.outputSegmentation)
        else:
            isWaiting = False
        if not isWaiting:
            self._updatePanel()

    def _selectedFrame(self) -> int | None:
        """Return the number of the frame that the selected volume shows, None if it is none of a sequence."""
        frames = lib.FrameSequence.of(self._parameterNode.inputVolume)
        return frames.browser.GetSelectedItemNumber() if frames is not None else None

    def _updatePanel(self) -> None:
        self._updateTimer.stop()
        if self._parameterNode and not self._isHeld:
            self._shownFrame = self._selectedFrame()
            self._show(self._currentState())

    def _currentState(self) -> lib.PanelState:
        """Put together what the panel shows; changes nothing."""
        volume, segmentation = self._parameterNode.inputVolume, self._parameterNode.outputSegmentation
        assessment = self._assessment()
        blockingReason = (
            assessment.blockingReason
            or lib.reasonSegmentationCannotBeUsed(segmentation, volume)
            or lib.reasonBoxCannotBeUsed(self._parameterNode.heartBox)
            or self._choices.problem
            or self._weights.problem
        )
        return lib.PanelState(
            volume,
            segmentation,
            assessment,
            blockingReason,
            lib.currentReport(segmentation, volume),
            self.logic.isRunning,
            self._message(),
            self._parameterNode.heartBox,
            self._choices.problem or self._weights.problem,
        )

    def _assessment(self) -> lib.VolumeAssessment:
        volume, modality = self._parameterNode.inputVolume, self._parameterNode.modality
        if lib.reasonVolumeCannotBeUsed(volume):
            return lib.assessVolume(volume, modality)
        isRunning = self.logic.isRunning  # what memory is free then says nothing about the next run
        estimate = None if isRunning else self._estimate.of(volume, self._computing.device, self.logic.isWarm)
        return lib.assessVolume(volume, modality, self._look.findings(volume, modality), estimate)

    def _message(self) -> str:
        """Return how the last run ended, as long as what it made is there."""
        if self._outcome is None:
            return ""
        made = self._outcome.segmentation
        return self._outcome.message if not made or slicer.mrmlScene.IsNodePresent(made) else ""

    def _show(self, state: lib.PanelState) -> None:
        ui, running = self.ui, state.isRunning
        for section in (
            ui.inputCollapsibleButton,
            ui.sequenceCollapsibleButton,
            ui.advancedCollapsibleButton,
            ui.weightsCollapsibleButton,
        ):
            section.enabled = not running
        ui.resultsCollapsibleButton.visible = bool(state.report) and not running
        for section in (
            self._runButtons,
            self._shownVolume,
            self._advice,
            self._estimate,
            self._surfaces,
            self._overlay,
            self._navigation,
            self._clinical,
            self._reportButtons,
            self._sequence,
            self._batch,
            self._undoButton,
            self._segmentExport,
            self._dicomSaving,
        ):
            section.show(state)
        if state.report:
            self._results.show(state)


#
# MKDSegmentationLogic
#


class MKDSegmentationLogic(ScriptedLoadableModuleLogic):
    """Segments hearts without the panel too.

    In a script, waiting for the result::

        logic = MKDSegmentationLogic()
        outcome = logic.segment(slicer.util.getNode("CTACardio"))
        print(outcome.report["structures"]["LV"]["volume_ml"])

    In the background, with the application usable meanwhile::

        logic.start(slicer.util.getNode("CTACardio"), onFinished=lambda outcome: print(outcome.message))
    """

    def __init__(self, worker: lib.Worker | None = None) -> None:
        """Make the logic.

        :param worker: process that segments; None for one of its own.
        """
        ScriptedLoadableModuleLogic.__init__(self)
        self._worker = worker or lib.WorkerProcess(onLog=self._onWorkerLog)
        self._run = None
        self._onLog = None
        #: Keeps tables and plots in step with the segments.
        self.measurements = lib.LiveMeasurements()

    def getParameterNode(self) -> lib.MKDSegmentationParameterNode:
        node = super().getParameterNode()
        lib.forgetUnknownChoices(node)
        return lib.MKDSegmentationParameterNode(node)

    @property
    def isRunning(self) -> bool:
        """True from a successful start to the outcome."""
        return self._run is not None

    @property
    def isWarm(self) -> bool:
        """True while a worker process is there, with the weights of its last run loaded."""
        return self._worker.isAlive

    def warm(self, options: lib.RunOptions | None = None) -> None:
        """Let the worker process load PyTorch and the weights in the background, so that the first run starts as
        quickly as the next ones.

        Does nothing where PyTorch is missing or a run is under way. A process that is not used gives its memory back
        after some minutes.

        :param options: device, weights and threads that the run will have; None for the defaults.
        """
        from mkd_core.protocol import WarmRequest

        if not self.isRunning and not lib.torchProblem():
            options = options or lib.RunOptions()
            self._worker.warm(WarmRequest(bundle=options.bundlePath, options=options.forWarming()))

    def segment(
        self, inputVolume, outputSegmentation=None, options: lib.RunOptions | None = None, onProgress=None
    ) -> lib.RunOutcome:
        """Segment a volume and return when it is done; the application handles events meanwhile.

        :param inputVolume: scalar volume node, CT or MR.
        :param outputSegmentation: segmentation node to write into; None makes a new one.
        :param options: modality, device, weights and what to give; None for the defaults.
        :param onProgress: called with a text for the user and the fraction done (0 to 1).
        :return: the outcome, with segmentation node, table node and report.
        :raises ValueError: if the volume or the output cannot be used; the message says why.
        :raises OSError: if the volume cannot be written to the temporary folder.
        :raises RuntimeError: if a run is under way, or if this one fails or is cancelled; the message says why.
        """
        outcomes = []
        self.start(inputVolume, outputSegmentation, options, onProgress, outcomes.append)
        while not outcomes:
            slicer.app.processEvents()
            time.sleep(0.01)
        if outcomes[0].status != "done":
            raise RuntimeError(outcomes[0].message)
        return outcomes[0]

    def start(
        self,
        inputVolume,
        outputSegmentation=None,
        options: lib.RunOptions | None = None,
        onProgress=None,
        onFinished=None,
        onLog=None,
    ) -> None:
        """Segment a volume in the background; returns at once.

        :param inputVolume: scalar volume node, CT or MR.
        :param outputSegmentation: segmentation node to write into; None makes a new one when the result is there.
        :param options: modality, device, weights and what to give; None for the defaults.
        :param onProgress: called with a text for the user and the fraction done (0 to 1).
        :param onFinished: called once with a RunOutcome: done, failed or cancelled.
        :param onLog: called with each line that the worker process writes besides its messages.
        :raises ValueError: if the volume or the output cannot be used; the message says why.
        :raises OSError: if the volume cannot be written to the temporary folder.
        :raises RuntimeError: if a run is under way.
        """
        self._begin(
            lambda finished: lib.SegmentationRun(
                self._worker, inputVolume, outputSegmentation, options, onProgress, finished
            ),
            onFinished,
            onLog,
        )

    def startSequence(
        self, inputVolume, options: lib.RunOptions | None = None, onProgress=None, onFinished=None, onLog=None
    ) -> None:
        """Segment every frame of the sequence that a volume belongs to, in the background; returns at once.

        The segmentations become a sequence in the same browser. Each frame is kept as soon as it is finished, also if
        the run is cancelled.

        :param inputVolume: scalar volume node that a sequence browser shows.
        :param options: modality, device and weights; None for the defaults.
        :param onProgress: called with a text for the user and the fraction done (0 to 1).
        :param onFinished: called once with a RunOutcome; its segmentation shows the selected frame, and
            ``report["function"]`` has the ejection fractions, volumes and mass (see mkd_core.measure.cardiac_function).
        :param onLog: called with each line that the worker process writes besides its messages.
        :raises ValueError: if the volume is none of a sequence or cannot be used; the message says why.
        :raises OSError: if a frame cannot be written to the temporary folder.
        :raises RuntimeError: if a run is under way.
        """
        self._begin(
            lambda finished: lib.SequenceRun(self._worker, inputVolume, options, onProgress, finished),
            onFinished,
            onLog,
        )

    def startBatch(
        self,
        rows: list,
        options: lib.RunOptions | None = None,
        onProgress=None,
        onFinished=None,
        onRow=None,
        onLog=None,
    ) -> None:
        """Segment many volumes and sequences of the scene in the background, one after the other; returns at once.

        For example all that the scene holds and that is not segmented yet::

            logic.startBatch(rowsOfScene(), onRow=lambda row: print(row.name, row.state, row.text))

        :param rows: list of BatchRow, see rowsOfScene(); those that wait are segmented, and all are kept up to date.
        :param options: how to compute; modality is for volumes that do not say theirs, nor look like the other one.
        :param onProgress: called with a text for the user and the fraction done (0 to 1).
        :param onFinished: called once with a RunOutcome: done or cancelled.
        :param onRow: called with each row that changed.
        :param onLog: called with each line that the worker process writes besides its messages.
        :raises ValueError: if no row waits.
        :raises RuntimeError: if a run is under way.
        """
        self._begin(
            lambda finished: lib.BatchRun(self._worker, rows, options, onProgress, finished, onRow), onFinished, onLog
        )

    def startArchive(
        self,
        folder: str,
        results: str,
        options: lib.RunOptions | None = None,
        onProgress=None,
        onFinished=None,
        onRows=None,
        onLog=None,
    ) -> None:
        """Segment the volumes of a folder in the background, by a process of its own; returns at once.

        What is done is written into the folder of the results, an archive run (see mkd_core.archive): the same call
        goes on after any end. The scene is not touched.

        :param folder: with DICOM, NIfTI, NRRD or MetaImage files, in folders of any depth.
        :param results: folder of the results; made if it is not there.
        :param options: device, threads, weights and set of structures.
        :param onProgress: called with a text for the user and the fraction done (0 to 1).
        :param onFinished: called once with a RunOutcome: done, failed or cancelled.
        :param onRows: called with a list of BatchRow when one of them changed.
        :param onLog: called with each line that the process writes.
        :raises RuntimeError: if a run is under way.
        """
        self._begin(
            lambda finished: lib.ArchiveRun(folder, results, options, onProgress, finished, onRows, self._onWorkerLog),
            onFinished,
            onLog,
        )

    def leaveOut(self, row: lib.BatchRow) -> None:
        """Leave a volume out of the batch that is under way."""
        if isinstance(self._run, lib.BatchRun):
            self._run.leaveOut(row)

    def _begin(self, makeRun, onFinished, onLog) -> None:
        if self.isRunning:
            raise RuntimeError("A segmentation is under way.")

        def finished(outcome: lib.RunOutcome) -> None:
            self._run = None
            if onFinished is not None:
                onFinished(outcome)

        self._onLog = onLog
        self._run = makeRun(finished)
        try:
            self._run.begin()
        except Exception:
            self._run = None
            raise

    def cancel(self) -> None:
        """End the run, if there is one, with the outcome "cancelled"."""
        if self._run is not None:
            self._run.cancel()

    def close(self) -> None:
        """End the run and the worker process."""
        self.cancel()
        self._worker.stop()
        self.measurements.close()

    def _onWorkerLog(self, line: str) -> None:
        if self._onLog is not None:
            self._onLog(line)


#
# MKDSegmentationTest
#


class MKDSegmentationTest(ScriptedLoadableModuleTest):
    """Clicks through the panel with synthetic hearts; takes less than a minute and needs no download.

    What needs PyTorch is skipped where it is not installed, and the message at the end says so.
    """

    #: Limit of a wait, generous: it ends with what is waited for, on slow computers too.
    WAIT_S = 600

    def runTest(self):
        """Run all tests for "Reload and Test", which knows no skipping: go on after one, and say at the end which."""
        names = unittest.defaultTestLoader.getTestCaseNames(type(self))
        skipped, start = [], time.monotonic()
        for name in names:
            slicer.app.processEvents()
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as reason:
                skipped.append(f"{name}: {reason}")
            finally:
                self.tearDown()
        logging.info("MKDSegmentation: %d tests in %.0f s", len(names), time.monotonic() - start)
        if skipped:
            slicer.util.warningDisplay(
                _("{skipped} of {all} tests were skipped, the others passed.").format(
                    skipped=len(skipped), all=len(names)
                ),
                detailedText="\n".join(skipped),
            )

    def setUp(self):
        slicer.mrmlScene.Clear()
        slicer.modules.mkdsegmentation.widgetRepresentation()  # makes the panel, with or without a main window
        self.panel = slicer.modules.MKDSegmentationWidget
        self.panel.enter()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def test_EmptySceneSaysWhatIsNeeded(self):
        self.assertFalse(self.panel.ui.segmentButton.enabled)
        self.assertIn("Load", self.panel.ui.statusLabel.text)

    def test_WeightsOfTheExtensionAreComplete(self):
        from mkd_core.io.bundle import default_bundle_path, read_description
        from mkd_core.structures import STRUCTURES, labelled

        found = labelled(read_description(default_bundle_path())["structures"])
        self.assertEqual([structure.key for structure in found], [structure.key for structure in STRUCTURES])

    def test_AnMRTakenForACTIsNoticedAndOneClickCorrectsIt(self):
        volume, _truth = lib.addHeartPhantom(seed=1, modality="MR", spacing=3.0)
        self.panel.ui.inputSelector.setCurrentNode(volume)
        parameters = self.panel.logic.getParameterNode()
        parameters.modality = "CT"
        self.assertFalse(self.panel.ui.switchModalityButton.isHidden())
        self.panel.ui.switchModalityButton.click()
        self.assertEqual(parameters.modality, "MR")

    def test_SegmentsThatAreWrittenMeasureWhatTheyAre(self):
        import numpy as np

        from mkd_core.structures import STRUCTURES

        volume, truth = lib.addHeartPhantom(seed=1, spacing=3.0)
        segmentation = lib.writeSegmentation(lib.LabelBlock(truth, (0, 0, 0)), volume)
        voxelMl = np.prod(volume.GetSpacing()) / 1000.0
        for structure in STRUCTURES:
            segmentId = lib.ourSegments(segmentation)[structure.key]
            measured = lib.measureSegment(segmentation, segmentId, volume)
            self.assertAlmostEqual(measured.volumeMl, np.count_nonzero(truth == structure.label) * voxelMl, places=3)
            terminology = vtk.mutable("")
            tag = slicer.vtkSegment.GetTerminologyEntryTagName()
            self.assertTrue(segmentation.GetSegmentation().GetSegment(segmentId).GetTag(tag, terminology))
            self.assertIn(structure.code[1], str(terminology))

    def test_ClickGivesSevenSegmentsOnTheGridOfTheVolume(self):
        import numpy as np

        from mkd_core.method.ensemble import agreement
        from mkd_core.structures import CLASS_COUNT, STRUCTURES

        self._skipWithoutTorch()
        volume, truth = lib.addHeartPhantom(seed=1, spacing=2.0)
        self.panel.ui.inputSelector.setCurrentNode(volume)
        self._click(self.panel.ui.segmentButton)
        self.assertEqual(self.panel.ui.segmentButton.text, _("Cancel"))
        self._waitUntilReady()
        segmentation = self.panel.ui.outputSelector.currentNode()
        self.assertIsNotNone(segmentation, self.panel.ui.statusLabel.text)
        labels = np.zeros_like(truth)
        for structure in STRUCTURES:
            segmentId = lib.ourSegments(segmentation)[structure.key]
            found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume) > 0
            self.assertEqual(found.shape, truth.shape)
            labels[found] = structure.label
        for structure, overlap in zip(STRUCTURES, agreement(labels, truth, CLASS_COUNT)[1:]):
            self.assertGreater(overlap, 0.5, structure.name)

    def test_VolumesOfASampleAreNearTheTruth(self):
        self._skipWithoutTorch()
        volume = lib.loadSample(dataclasses.replace(lib.CT, spacing=2.0))
        self.panel.ui.inputSelector.setCurrentNode(volume)
        self._click(self.panel.ui.segmentButton)
        self._waitUntilReady()
        report = lib.reportOf(self.panel.ui.outputSelector.currentNode())
        self.assertTrue(report, self.panel.ui.statusLabel.text)
        for key, trueMl in json.loads(volume.GetAttribute(lib.TRUTH_ATTRIBUTE)).items():
            self.assertLess(abs(report["structures"][key]["volume_ml"] / trueMl - 1.0), 0.25, key)

    def test_AllFramesOfABeatGiveTheEjectionFraction(self):
        from mkd_core.measure.cardiac_function import cardiac_function

        self._skipWithoutTorch()
        volume = lib.loadSample(dataclasses.replace(lib.BEAT, spacing=2.5, frames=3))
        self.panel.ui.inputSelector.setCurrentNode(volume)
        self._click(self.panel.ui.segmentSequenceButton)
        self._waitUntilReady()
        frames = lib.FrameSequence.of(volume)
        self.assertIsNotNone(frames.segmentations(), self.panel.ui.statusLabel.text)
        truth = json.loads(frames.volumes.GetAttribute(lib.TRUTH_ATTRIBUTE))
        expected = cardiac_function(
            [{"structures": {key: {"volume_ml": ml} for key, ml in frame.items()}} for frame in truth]
        )
        measured = cardiac_function(frames.reports())
        self.assertEqual((measured.end_diastole, measured.end_systole), (expected.end_diastole, expected.end_systole))
        self.assertLess(abs(measured.left.ejection_fraction - expected.left.ejection_fraction), 0.15)
        self.assertEqual(self.panel.ui.functionTable.item(3, 1).text(), f"{100 * measured.left.ejection_fraction:.0f}")

    def test_CancelLeavesTheSceneAsItWas(self):
        self._skipWithoutTorch()
        volume, _truth = lib.addHeartPhantom(seed=2, spacing=3.0)
        self.panel.ui.inputSelector.setCurrentNode(volume)
        nodesBefore = slicer.mrmlScene.GetNumberOfNodes()
        self._click(self.panel.ui.segmentButton)
        self._click(self.panel.ui.segmentButton)
        self._waitUntilReady()
        self.assertEqual(self.panel.ui.segmentButton.text, _("Segment"))
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodesBefore)

    def _skipWithoutTorch(self):
        if not lib.torchVersion():
            raise unittest.SkipTest("PyTorch is not installed: open the module and click Segment once to install it.")

    def _click(self, button, seconds=WAIT_S):
        """Click as soon as the button can be clicked; right after another click it cannot."""
        end = time.monotonic() + seconds
        while not button.enabled and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.02)
        button.click()

    def _waitUntilReady(self, seconds=WAIT_S):
        end = time.monotonic() + seconds
        while self.panel.logic.isRunning and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.02)
        self.assertFalse(self.panel.logic.isRunning, "the segmentation takes too long")
