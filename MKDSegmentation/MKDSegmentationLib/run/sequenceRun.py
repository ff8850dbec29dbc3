"""One run over all frames of a sequence: a run of its own for each frame, one after the other, in one worker."""

import dataclasses
import time

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from mkd_core.protocol import Report

from ..parameters import RunOptions
from ..scene.frameSequence import FrameSequence
from ..scene.functionNodes import writeFunctionNodes
from ..scene.ourSegments import ourSegments
from ..scene.segmentMeasurement import measureSegment, takeFigures, voxelState
from ..scene.sequenceUndo import SequenceUndo
from .contracts import Worker
from .incrementalTask import IncrementalTask
from .segmentationRun import RunOutcome, SegmentationRun, reasonEditsForbid
from .volumeTransfer import WorldGrid, linearToWorld, reasonVolumeCannotBeUsed

#: So many frames that fail for the same reason before any succeeded end the run: the others would fail as well.
_HOPELESS = 2


class SequenceRun(VTKObservationMixin):
    """Segment the frames of a sequence and keep each as soon as it is done.

    The worker stays the same, so weights are loaded once. A frame is read from the sequence itself: the user may browse
    meanwhile. What ends the run early (:meth:`cancel`, a closed scene, a removed node) keeps the frames that are
    finished.

    :param worker: a worker that is not busy.
    :param volumeNode: volume node that a sequence browser shows.
    :param options: how to compute; None for the defaults.
    :param onProgress: called with a text for the user and the fraction done (0 to 1).
    :param onFinished: called once with a RunOutcome; its segmentation is the node that shows the selected frame, its
        report a table with "function" (see mkd_core.measure.cardiac_function) and "frames" (the report of each, None
        where there is none).
    """

    def __init__(
        self, worker: Worker, volumeNode, options: RunOptions | None = None, onProgress=None, onFinished=None
    ) -> None:
        super().__init__()
        self._worker = worker
        self._volumeNode = volumeNode
        self._edits = (options or RunOptions()).edits
        self._options = dataclasses.replace(
            options or RunOptions(), withDisagreement=False, withAligned=False, edits="replace"
        )  # a result keeps labels alone of each frame
        self._onProgress = onProgress
        self._onFinished = onFinished
        self._frames = None
        self._indexValues = []
        self._toWorld = None  # transform of the volume node; the frames themselves are under none
        self._frame = -1
        self._finishedFrames = 0
        self._kept = set()  # numbers of the frames with edits that stay as they are
        self._segmentsAtStart = {}  # what the segments of the frame were when its run began
        self._earlier = {}  # index value -> copy of the segmentation that the run replaced, None where there was none
        self._isFirst, self._wasCancelled = True, False  # whether there is no sequence of segmentations yet
        self._failures = {}  # frame number -> reason
        self._frameRun = None
        self._scratch = None  # a scene of its own for the segmentation of the frame under way
        self._keeping = None  # task that keeps a finished frame
        self._completing, self._function = None, None  # task that writes the function, and what it wrote
        self._startTime = 0.0
        self._nextTimer = qt.QTimer()
        self._nextTimer.setSingleShot(True)
        self._nextTimer.connect("timeout()", self._goOn)

    def begin(self) -> None:
        """Begin with the first frame.

        :raises ValueError: if the volume is none of a sequence or cannot be used; the message says why.
        :raises OSError: if a frame cannot be written to the temporary folder.
        """
        self._frames = FrameSequence.of(self._volumeNode)
        if self._frames is None:
            raise ValueError(_("The selected volume does not belong to a sequence."))
        reason = reasonVolumeCannotBeUsed(self._volumeNode)
        if reason:
            raise ValueError(reason)
        self._indexValues = self._frames.indexValues()
        self._toWorld = linearToWorld(self._volumeNode)
        edited = self._frames.editedFrames()
        if self._edits == "refuse" and edited:
            names = [_("frame {frame}").format(frame=frame + 1) for frame in edited]
            raise ValueError(reasonEditsForbid(names))
        self._kept = set(edited) if self._edits == "keep" else set()
        if len(self._kept) == len(self._indexValues):
            raise ValueError(_("Every frame was edited since the last run: there is none to segment."))
        self._isFirst = self._frames.segmentations() is None
        self._wasCancelled = not self._isFirst and self._frames.wasCancelled
        self._startTime = time.monotonic()
        self._scratch = slicer.vtkMRMLScene()
        self._frame = -1
        self._toNextFrame()
        self._makeFrameRun()
        self._frameRun.begin()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)

    def cancel(self, message: str = "") -> None:
        """End the run now; finished frames are kept."""
        if not message:
            message = _("Cancelled. The scene is as it was.")
            if self._finishedFrames:
                message = _("Cancelled after {done} of {count} frames; these are kept.").format(
                    done=self._finishedFrames, count=len(self._indexValues)
                )
        self._end("cancelled", message)

    def _toNextFrame(self) -> None:
        self._frame += 1
        while self._frame in self._kept:
            self._frame += 1

    def _makeFrameRun(self) -> None:
        frame, value = self._frame, self._indexValues[self._frame]
        self._scratch.Clear(0)
        segmentation = self._scratch.AddNode(slicer.vtkMRMLSegmentationNode())
        earlier = self._frames.segmentationOfFrame(value)
        self._segmentsAtStart = _allSegments(earlier)
        if earlier is not None:
            segmentation.CopyContent(earlier)  # segments of the user are kept
            takeFigures(segmentation, earlier)
        segmentation.SetName(self._name())
        self._frameRun = _FrameRun(
            self._worker,
            self._frames.volumes.GetDataNodeAtValue(value, True),
            segmentation,
            self._options,
            lambda text, fraction: self._onFrameProgress(frame, text, fraction),
            lambda outcome: self._onFrameFinished(frame, outcome),
            toWorld=self._toWorld,
        )

    def _name(self) -> str:
        return _("{volume} heart").format(volume=self._frames.volumes.GetName())

    def _goOn(self) -> None:
        """Begin with the next frame or end the run; from the event loop, so that the panel never waits for two steps in
        a row.
        """
        if self._frame >= len(self._indexValues) or self._isHopeless():
            self._completing = IncrementalTask(self._completionSteps(), self._complete, self._onCompletionError)
            return
        self._onFrameProgress(self._frame, _("Reading the volume"), 0.0)
        try:
            self._makeFrameRun()
            self._frameRun.begin()
        except (ValueError, OSError) as error:
            self._onFrameFinished(self._frame, RunOutcome("failed", str(error)))

    def _onFrameProgress(self, frame: int, text: str, fraction: float) -> None:
        if self._onProgress is not None:
            count = len(self._indexValues)
            message = _("Frame {frame} of {count}: {stage}").format(frame=frame + 1, count=count, stage=text)
            self._onProgress(message, (frame + fraction) / count)

    def _onFrameFinished(self, frame: int, outcome: RunOutcome) -> None:
        self._frameRun = None
        if outcome.status == "cancelled":
            self.cancel(outcome.message)
            return
        self._keeping = IncrementalTask(self._keepingSteps(frame, outcome), self._onKept, self._onKeepingError)

    def _keepingSteps(self, frame: int, outcome: RunOutcome):
        """Keep the result of a frame, in steps: a segmentation is copied twice."""
        value = self._indexValues[frame]
        if outcome.status == "done":
            earlier = self._frames.copyOfFrame(value)
            yield
            if self._segmentsAtStart == _allSegments(self._frames.segmentationOfFrame(value)):
                self._earlier[value] = earlier
                self._frames.keep(outcome.segmentation, value, self._name())
            else:
                outcome = RunOutcome("failed", _("The frame was edited during the run, and its segments are kept."))
        if outcome.status == "done":
            self._carryOrientation(outcome.report)
            self._finishedFrames += 1
            while not self._frames.measureSome():  # now, so that it need not be done for all frames at once
                yield
        else:
            self._failures[frame] = outcome.message
        yield

    def _onKept(self, _value) -> None:
        self._keeping = None
        self._toNextFrame()
        self._nextTimer.start(0)

    def _onKeepingError(self, error: Exception) -> None:
        self._keeping = None
        self._end("failed", _("The result could not be put into the scene. Click Segment again."))
        raise error

    def _carryOrientation(self, report: Report) -> None:
        """Let the frames that follow take the orientation of the first one, whose search takes long."""
        evidence = report.get("evidence") or {}
        if self._options.firstFrame is None and "orientation" in evidence:
            recognition = float(evidence.get("recognition", 0.0))  # of a drawn box the localiser is not asked
            self._options = dataclasses.replace(self._options, firstFrame=(str(evidence["orientation"]), recognition))

    def _isHopeless(self) -> bool:
        return not self._finishedFrames and len(self._failures) >= _HOPELESS and len(set(self._failures.values())) == 1

    def _completionSteps(self):
        """Write the function and measure the frame that is shown, in steps: all at once the panel would wait for
        both.
        """
        if not self._finishedFrames:
            return None
        function = writeFunctionNodes(self._frames)
        yield
        self._scratch.Clear(0)  # what the last frame took; to give that back takes a moment
        node = self._frames.segmentationNode()
        for segmentId in ourSegments(node).values():
            yield
            measureSegment(node, segmentId, self._frames.browser.GetProxyNode(self._frames.volumes))
        yield
        return function

    def _onCompletionError(self, error: Exception) -> None:
        self._end(
            "failed", _("The function of the heart could not be measured; the frames are kept."), givesResult=False
        )
        raise error

    def _complete(self, function) -> None:
        self._function = function
        count, seconds = len(self._indexValues), max(1, round(time.monotonic() - self._startTime))
        if not self._finishedFrames:
            self._end("failed", next(iter(self._failures.values())))
        elif not self._failures:
            message = _("All {count} frames are segmented ({seconds} s).").format(count=count, seconds=seconds)
            if self._kept:
                message = _("{done} frames are segmented ({seconds} s), {kept} with your edits are kept.").format(
                    done=self._finishedFrames, seconds=seconds, kept=len(self._kept)
                )
            self._end("done", message)
        else:
            failed = ", ".join(str(frame + 1) for frame in self._failures)
            self._end(
                "done",
                _("{done} of {count} frames are segmented ({seconds} s). Not segmented: {failed}. {reason}").format(
                    done=self._finishedFrames,
                    count=count,
                    seconds=seconds,
                    failed=failed,
                    reason=next(iter(self._failures.values())),
                ),
            )

    def _onSceneStartClose(self, caller, event) -> None:
        self._end("cancelled", _("Cancelled, because the scene was closed."), givesResult=False)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        # A volume that is removed comes back: the browser makes it anew, and frames are read from the sequence anyway.
        if node in (self._frames.browser, self._frames.volumes):
            self._end("cancelled", _("Cancelled, because the sequence was removed."), givesResult=False)
        elif node in (self._frames.segmentations(), self._frames.segmentationNode()):
            self._end("cancelled", _("Cancelled, because the segmentations were removed."), givesResult=False)

    def _end(self, status: str, message: str, givesResult: bool = True) -> None:
        if self._scratch is None:
            return  # it has ended already
        self.removeObservers()
        self._nextTimer.stop()
        self._nextTimer.deleteLater()  # drops its connection to this object, which would keep both alive
        self._scratch = None
        for task in (self._keeping, self._completing):
            if task is not None:
                task.stop()
        frameRun, self._frameRun = self._frameRun, None
        if frameRun is not None:
            frameRun.abandon()
        segmentation, report, undo = None, {}, None
        if givesResult and self._finishedFrames:
            segmentation = self._frames.segmentationNode()
            self._frames.markCancelled(status == "cancelled")
            function = self._function or writeFunctionNodes(self._frames)
            report = {"function": function.as_dict(), "frames": self._frames.reports()}
            undo = None if self._isFirst else SequenceUndo(self._frames, self._earlier, self._wasCancelled)
        onFinished, self._onFinished, self._onProgress = self._onFinished, None, None
        if onFinished is not None:
            onFinished(RunOutcome(status, message, segmentation=segmentation, report=report, undo=undo))


def _allSegments(segmentationNode) -> dict:
    """Return what the segments of a frame are, those of the user included."""
    if segmentationNode is None:
        return {}
    segmentation = segmentationNode.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
    return voxelState(segmentationNode, ids)


class _FrameRun(SegmentationRun):
    """A run on one frame. Volume and segmentation are in scenes of their own; the user's scene is not touched.

    :param toWorld: 4 x 4 matrix of the transform under which the frames are shown.
    """

    def __init__(self, *arguments, toWorld) -> None:
        super().__init__(*arguments)
        self._toWorld = toWorld

    def _worldGrid(self) -> WorldGrid:
        return WorldGrid.of(self._inputVolume, self._toWorld)

    def abandon(self) -> None:
        """End the run without a word."""
        self._onFinished = None
        self.cancel()

    def _makeBackup(self) -> None:
        """The segmentation is a copy itself."""

    def _writeResult(self, labels, figures: dict, report: Report) -> RunOutcome:
        if labels is None:
            return RunOutcome("failed", _("No heart was found in this volume."))
        segmentation, report = self._writeSegments(labels, figures, report)
        return RunOutcome("done", "", segmentation=segmentation, report=report)
