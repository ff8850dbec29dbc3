"""One run, from the click to the segments in the scene, or to a scene left as it was."""

import logging
import os
import time
from dataclasses import dataclass, field

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from mkd_core import __version__ as coreVersion
from mkd_core.errors import ProtocolError
from mkd_core.measure.messages import finding
from mkd_core.protocol import (
    ALIGNED,
    DISAGREEMENT,
    Report,
    SegmentRequest,
    WarmRequest,
    parse_report,
    titles_of_weights,
)
from mkd_core.structures import labelled

from ..parameters import RunOptions
from ..scene.measurements import writeMeasurementsTable
from ..scene.ourSegments import ourSegments
from ..scene.overlayVolumes import removeOverlay, writeOverlay
from ..scene.provenance import keepReport
from ..scene.runUndo import RunUndo
from ..scene.segmentationWriting import SegmentationBackup, reasonSegmentationCannotBeUsed, writeSegmentation
from ..scene.segmentMeasurement import currentReport, editedNames, figuresInSteps, voxelState
from ..scene.sequenceUndo import SequenceUndo
from ..scene.transformHardening import isUnderNonLinearTransform
from .contracts import Worker
from .incrementalTask import IncrementalTask
from .volumeTransfer import VolumeTransfer, WorldGrid, reasonVolumeCannotBeUsed


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    status - "done", "failed" or "cancelled".
    message - one or two sentences for the user.
    segmentation - the segmentation node of a run that is done.
    table - the table node with its measurements.
    report - what the pipeline measured and doubts, if it is done.
    undo - takes the run back, if it wrote into a segmentation that was there before (see runUndo, sequenceUndo).
    """

    status: str
    message: str
    segmentation: object = None
    table: object = None
    report: dict = field(default_factory=dict)
    undo: RunUndo | SequenceUndo | None = None


def reasonEditsForbid(edited: list) -> str:
    """Return why a run may not replace what was edited, one sentence for scripts.

    :param edited: names of what was edited.
    """
    return _("Edited since the last run: {segments}. Choose edits='replace' or edits='keep' in the options.").format(
        segments=", ".join(edited)
    )


def progressText(stage: str, message: str) -> str:
    """Return what the user reads during a stage of the pipeline."""
    texts = {
        "check": _("Checking the volume"),
        "localise": _("Looking for the heart"),
        "align": _("Aligning the appearance of CT and MR"),
        "segment": _("Segmenting the heart"),
        "restore": _("Bringing the result to the volume"),
        "measure": _("Measuring"),
    }
    return texts.get(stage, message)


class SegmentationRun(VTKObservationMixin):
    """Send a volume to the worker and put what comes back into the scene.

    The scene is touched once, in one turn of the event loop, when the whole result is there and measured. The outcome
    is told in the next turn. Until then the run can end at any time, through :meth:`cancel`, a closed scene, a removed
    node or a dead worker, and leaves nothing behind.

    :param worker: a worker that is not busy.
    :param inputVolume: volume node to segment.
    :param outputSegmentation: segmentation node to write into, or None for a new one.
    :param options: how to compute; None for the defaults.
    :param onProgress: called with a text for the user and the fraction done (0 to 1).
    :param onFinished: called once with a :class:`RunOutcome`.
    """

    def __init__(
        self,
        worker: Worker,
        inputVolume,
        outputSegmentation=None,
        options: RunOptions | None = None,
        onProgress=None,
        onFinished=None,
    ) -> None:
        super().__init__()
        self._worker = worker
        self._inputVolume = inputVolume
        self._outputSegmentation = outputSegmentation
        self._options = options or RunOptions()
        self._onProgress = onProgress
        self._onFinished = onFinished
        self._transfer = None
        self._grid = None  # of the volume in the world, as it was handed over
        self._steps = None  # of writing or reading a file, under way
        self._backup = None  # of the output, while the result is put into the scene
        self._made = None  # nodes of the result, once it is in the scene
        self._stateAtStart = None
        self._segmentsAtStart = {}  # what our segments in the output were
        self._startTime = 0.0

    def begin(self) -> None:
        """Begin to write the volume for the worker, which is then asked to segment.

        :raises ValueError: if the volume or the output cannot be used; the message says why.
        :raises OSError: if the volume cannot be written to the temporary folder.
        """
        reason = reasonVolumeCannotBeUsed(self._inputVolume) or reasonSegmentationCannotBeUsed(
            self._outputSegmentation, self._inputVolume
        )
        if reason:
            raise ValueError(reason)
        edited = editedNames(self._outputSegmentation) if self._options.edits != "replace" else []
        if self._options.edits == "refuse" and edited:
            raise ValueError(reasonEditsForbid(edited))
        if self._options.edits == "keep" and edited:
            self._outputSegmentation = None
        self._segmentsAtStart = self._segmentsNow()
        self._startTime = time.monotonic()
        self._transfer = VolumeTransfer()
        try:
            self._grid = self._worldGrid()
            writing = self._transfer.writeVolumeInPieces(self._inputVolume, self._grid)
            next(writing)  # what cannot be written at all is told at once
            self._stateAtStart = self._inputState()
            self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
            self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)
            # PyTorch is loaded while the volume is written
            self._worker.warm(WarmRequest(bundle=self._options.bundlePath, options=self._options.forWarming()))
        except Exception:
            self._release()
            raise
        self._steps = IncrementalTask(
            writing, self._onVolumeWritten, self._onWriteError, lambda _done: self._failIfChanged()
        )

    def cancel(self, message: str = "") -> None:
        """End the run now; the worker winds down in the background."""
        self._stopSteps()
        self._takeBack()
        transfer, self._transfer = self._transfer, None
        self._worker.cancel(whenGone=transfer.remove if transfer else None)
        self._finish(RunOutcome("cancelled", message or _("Cancelled. The scene is as it was.")))

    def _request(self) -> SegmentRequest:
        return SegmentRequest(
            input=self._transfer.volumePath,
            output=self._transfer.labelPath,
            bundle=self._options.bundlePath,
            modality=self._options.modality,
            options=self._options.forCore(),
            **self._overlayPaths(),
        )

    def _overlayPaths(self) -> dict:
        paths = {}
        if self._options.withDisagreement:
            paths[DISAGREEMENT] = self._transfer.disagreementPath
        if self._options.withAligned:
            paths[ALIGNED] = self._transfer.alignedPath
        return paths

    def _onVolumeWritten(self, _value) -> None:
        self._steps = None
        if not self._failIfChanged():
            self._worker.request(self._request(), self._onReply, self._onWorkerProgress)

    def _failIfChanged(self) -> bool:
        """End the run if the volume is not the one that it began with; tell whether it did."""
        if self._inputState() == self._stateAtStart:
            return False
        self._stopSteps()
        self._finish(RunOutcome("failed", _("The volume was changed during the segmentation. Click Segment again.")))
        return True

    def _onWriteError(self, error: Exception) -> None:
        self._steps = None
        if isinstance(error, OSError):
            self._finish(RunOutcome("failed", str(error)))
        else:
            logging.error("The volume could not be handed to the segmentation process.", exc_info=error)
            self._finish(
                RunOutcome(
                    "failed",
                    _(
                        "The volume could not be handed to the segmentation process. Close other programs and click "
                        "Segment again; details are in the application log."
                    ),
                )
            )

    def _onResultError(self, error: Exception) -> None:
        self._steps = None
        logging.error("The result of the segmentation could not be put into the scene.", exc_info=error)
        self._finish(
            RunOutcome(
                "failed",
                _(
                    "The result could not be put into the scene. Click Segment again; details are in the application "
                    "log."
                ),
            )
        )

    def _onWorkerProgress(self, stage: str, fraction: float, message: str) -> None:
        if self._onProgress is not None:
            self._onProgress(progressText(stage, message), fraction)

    def _onReply(self, reply) -> None:
        filesAreGone = self._transfer.reasonFilesAreGone()
        if filesAreGone or reply.outcome != "result":
            self._finish(RunOutcome("failed", filesAreGone or reply.message))
            return
        if self._failIfChanged():
            return
        try:
            report = parse_report(reply.report)
            if not report["structures"]:
                raise ProtocolError("The report names no structure.")
        except ProtocolError as error:
            self._onResultError(error)
            return
        report = _withTrueVolumes(report, self._grid.volumeFactor)
        self._steps = IncrementalTask(
            self._resultSteps(labelled(report["labels"])),
            lambda result: self._onResultRead(*result, report),
            self._onResultError,
        )

    def _resultSteps(self, structures):
        """Read the labels and measure them, in steps; the last step, on its own because it takes a moment, keeps what
        the output holds now.
        """
        labels = yield from self._transfer.readLabelsInPieces(self._inputVolume, len(structures))
        figures = {}
        if labels is not None:
            figures = yield from figuresInSteps(labels, structures, self._inputVolume)
        self._makeBackup()
        yield
        return labels, figures

    def _makeBackup(self) -> None:
        self._backup = SegmentationBackup(self._outputSegmentation)

    def _onResultRead(self, labels, figures: dict, report: Report) -> None:
        self._steps = None
        if self._failIfChanged():
            return
        try:
            outcome = self._writeResult(labels, figures, report)
        except Exception as error:
            self._takeBack()
            self._onResultError(error)
        else:
            self._steps = IncrementalTask(
                self._transfer.removeInSteps(), lambda _none: self._finish(outcome), self._onResultError
            )

    def _writeResult(self, labels, figures: dict, report: Report) -> RunOutcome:
        reason = reasonSegmentationCannotBeUsed(self._outputSegmentation, self._inputVolume)
        if reason:
            return RunOutcome("failed", reason)
        if labels is None:
            return RunOutcome("failed", _("No heart was found in this volume."))
        wasEdited = self._segmentsNow() != self._segmentsAtStart
        if wasEdited:  # during the run: nobody was asked about these edits
            self._outputSegmentation = self._backup = None
        overlays = self._readOverlays()  # what cannot be read must fail before the scene is touched
        report = {**report, "warnings": report["warnings"] + self._warningsOnTransform()}
        before, self._made = _nodesOfScene(), set()
        try:
            segmentation, table, report = self._writeNodes(labels, figures, overlays, report)
        finally:
            self._made = _nodesOfScene() - before
        seconds, device = time.monotonic() - self._startTime, str(report.get("device", "")).upper()
        logging.info("Heart segmented in %.1f s on %s with weights %s", seconds, device, titles_of_weights(report))
        message = _("The heart is segmented ({seconds} s on {device}).").format(
            seconds=max(1, round(seconds)), device=device
        )
        if wasEdited:
            message += " " + _("You edited the segments meanwhile, so the result is in a new segmentation.")
        undo = RunUndo(self._backup) if self._outputSegmentation is not None else None
        return RunOutcome("done", message, segmentation, table, report, undo)

    def _takeBack(self) -> None:
        """Bring the scene to what it was before the result, if that is in it."""
        made, self._made = self._made, None
        if made is None or slicer.mrmlScene.IsClosing():
            return
        for node in made:
            if slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
        if self._backup is not None:
            self._backup.restore()
        for kind in (DISAGREEMENT, ALIGNED):
            removeOverlay(kind, self._outputSegmentation)  # it belongs to the result that is taken back

    def _segmentsNow(self) -> dict:
        return voxelState(self._outputSegmentation, ourSegments(self._outputSegmentation).values())

    def _writeSegments(self, labels, figures: dict, report: Report) -> tuple:
        """Put the segments into the scene; return the segmentation node and the report as it was stored with it."""
        segmentation = writeSegmentation(
            labels,
            self._inputVolume,
            self._outputSegmentation,
            f"MKDSegmentation {coreVersion}",
            labelled(report["labels"]),
            figures,
        )
        return segmentation, keepReport(segmentation, report)

    def _writeNodes(self, labels, figures: dict, overlays: dict, report: Report) -> tuple:
        """Put the result into the scene; return segmentation node, table node and the report as it was stored."""
        segmentation, report = self._writeSegments(labels, figures, report)
        table = writeMeasurementsTable(currentReport(segmentation, self._inputVolume), segmentation)
        for kind in (DISAGREEMENT, ALIGNED):
            if kind in overlays:
                writeOverlay(kind, overlays[kind], segmentation, self._inputVolume, report.get("target", "CT"))
            else:
                removeOverlay(kind, segmentation)
        return segmentation, table, report

    def _readOverlays(self) -> dict:
        """Return the images that were asked for and came; alignment may have made none."""
        paths = {kind: path for kind, path in self._overlayPaths().items() if os.path.exists(path)}
        return {kind: self._transfer.readOverlay(path, self._inputVolume, self._grid) for kind, path in paths.items()}

    def _warningsOnTransform(self) -> list:
        if isUnderNonLinearTransform(self._inputVolume):
            return [finding("non_linear_transform").to_dict()]
        return [finding("shearing_transform").to_dict()] if self._grid.shears else []

    def _worldGrid(self) -> WorldGrid:
        """Return where the voxels of the input lie in the world now."""
        return WorldGrid.of(self._inputVolume)

    def _inputState(self) -> tuple:
        """Return what must not change while the worker works: the volume's voxels, and how its grid lies in the world.
        Where it lies does not matter.
        """
        image = self._inputVolume.GetImageData()
        scalars = image.GetPointData().GetScalars() if image else None
        return (
            image.GetDimensions() if image else None,
            scalars.GetMTime() if scalars else None,
            self._worldGrid().ijkToRas[:3, :3].tolist(),
        )

    def _onSceneStartClose(self, caller, event) -> None:
        self.cancel(_("Cancelled, because the scene was closed."))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        isOfResult = self._made is not None and node in self._made
        if isOfResult:
            self._made.discard(node)  # it goes by itself
        if node is self._inputVolume:
            self.cancel(_("Cancelled, because the volume was removed."))
        elif node is self._outputSegmentation or (isOfResult and node.IsA("vtkMRMLSegmentationNode")):
            self.cancel(_("Cancelled, because the output segmentation was removed."))

    def _stopSteps(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.stop()

    def _finish(self, outcome: RunOutcome) -> None:
        self._release()
        onFinished, self._onFinished, self._onProgress = self._onFinished, None, None
        if onFinished is not None:
            onFinished(outcome)

    def _release(self) -> None:
        self.removeObservers()
        self._backup = None
        if self._transfer is not None:
            self._transfer.remove()
            self._transfer = None


def _withTrueVolumes(report: Report, factor: float) -> Report:
    """Return a report whose volumes and masses, measured on an upright grid, are those of the sheared one."""
    if factor == 1.0:
        return report

    def scaled(entry: dict) -> dict:
        return {
            name: value * factor if name in ("volume_ml", "mass_g", "removed_ml") and value is not None else value
            for name, value in entry.items()
        }

    return {**report, "structures": {key: scaled(entry) for key, entry in report["structures"].items()}}


def _nodesOfScene() -> set:
    scene = slicer.mrmlScene
    return {scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())}
