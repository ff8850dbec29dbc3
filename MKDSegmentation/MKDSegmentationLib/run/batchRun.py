"""Many volumes one after the other: a run of its own for each, in one worker; what fails costs its own row only."""

import dataclasses
import time
from dataclasses import dataclass

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from mkd_core.inference.image_check import BETTER_MODALITY, quick_check
from mkd_core.measure.trust import Light, shared_findings, worst_light
from mkd_core.protocol import MODALITIES, Report

from ..parameters import RunOptions
from ..scene.findingTexts import findingText
from ..scene.frameSequence import FrameSequence
from ..scene.nodeSelection import segmentationOf
from ..scene.overlayVolumes import ALIGNED, DISAGREEMENT, overlayOf
from ..scene.patientFacts import modalityOf
from ..scene.provenance import reportOf
from .contracts import Worker
from .segmentationRun import RunOutcome, SegmentationRun
from .sequenceRun import SequenceRun
from .volumeTransfer import WorldGrid, reasonVolumeCannotBeUsed

#: States of a row.
WAITING, RUNNING, DONE, REFUSED, LEFT_OUT = "waiting", "running", "done", "refused", "left out"


@dataclass
class BatchRow:
    """One volume, or one sequence of volumes, of a batch.

    name - what the user calls it.
    volume - volume node; None where it is not in the scene.
    frames - number of frames of a sequence; 1 for a single volume.
    state - WAITING, RUNNING, DONE, REFUSED or LEFT_OUT.
    fraction - of a running row, 0 to 1.
    text - why it was refused, or what there is to doubt.
    light - of a row that is done: its worst light.
    modality - "CT" or "MR", as it is taken for; empty as long as nobody looked.
    segmentation - segmentation node of a row that is done; None where it is not in the scene.
    source - what it takes to load a volume that is not in the scene.
    """

    name: str
    volume: object = None
    frames: int = 1
    state: str = WAITING
    fraction: float = 0.0
    text: str = ""
    light: Light = "none"
    modality: str = ""
    segmentation: object = None
    source: object = None


def rowsOfScene() -> list:
    """Return a row for every volume of the scene that can be meant, and one for every sequence of volumes. Those that
    are segmented already are done.
    """
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    ours = [overlayOf(node, kind) for node in segmentations for kind in (DISAGREEMENT, ALIGNED)]
    rows, sequences = [], set()
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        isPlain = volume.GetClassName() == "vtkMRMLScalarVolumeNode" and not volume.GetHideFromEditors()
        frames = FrameSequence.of(volume) if isPlain and volume not in ours else None
        if not isPlain or volume in ours or (frames is not None and frames.volumes.GetID() in sequences):
            continue
        row = BatchRow(volume.GetName(), volume)
        if frames is not None:
            sequences.add(frames.volumes.GetID())
            row.name, row.frames = frames.volumes.GetName(), frames.count
        takeResult(row)
        rows.append(row)
    return rows


def takeResult(row: BatchRow) -> None:
    """Let a row whose volume is segmented in the scene be done, with what there is to doubt."""
    frames = FrameSequence.of(row.volume)
    if frames is None:
        segmentation = segmentationOf(row.volume)
        reports = [reportOf(segmentation)]
    else:
        segmentation = frames.segmentationNode()
        reports = [reportOf(frames.segmentationOfFrame(value)) for value in frames.indexValues()]
    if segmentation is not None and all(reports):
        row.state, row.segmentation, row.modality = DONE, segmentation, reports[0].get("modality", "")
        row.light, row.text = doubtOf(reports)


def doubtOf(reports: list[Report]) -> tuple[Light, str]:
    """Return the worst light of reports, and what there is to doubt in sentences, each once."""
    sentences = [findingText(shared.finding) for report in reports for shared in shared_findings(report)]
    return worst_light(reports), "\n".join(dict.fromkeys(sentences))


def modalityToTake(volumeNode, chosen: str) -> tuple[str, str]:
    """Return what a volume is taken for, and why it cannot be segmented, empty if it can.

    What its DICOM files say goes first; else it is the chosen modality unless the voxels look like the other one.
    """
    stated = modalityOf(volumeNode)
    modality = stated if stated in MODALITIES else chosen
    spacing = WorldGrid.of(volumeNode).spacing[::-1]
    found = quick_check(slicer.util.arrayFromVolume(volumeNode), spacing, modality)
    if stated not in MODALITIES:
        better = next((BETTER_MODALITY[one.code] for one in found if BETTER_MODALITY.get(one.code)), modality)
        if better != modality:
            modality = better
            found = quick_check(slicer.util.arrayFromVolume(volumeNode), spacing, modality)
    return modality, " ".join(findingText(one) for one in found if one.severity == "refusal")


class BatchRun(VTKObservationMixin):
    """Segment the volumes of rows that wait, one after the other; sequences frame by frame.

    Each volume gets a segmentation of its own. Rows that are done are passed over, so a second batch goes on where the
    first one ended.

    :param worker: a worker that is not busy.
    :param rows: list of :class:`BatchRow`; they are changed as the batch goes on.
    :param options: how to compute; modality is what volumes are taken for that do not say or look otherwise. Box,
        edits and additional outputs do not count.
    :param onProgress: called with a text for the user and the fraction done (0 to 1).
    :param onFinished: called once with a RunOutcome without segmentation.
    :param onRow: called with each row that changed.
    """

    def __init__(
        self,
        worker: Worker,
        rows: list,
        options: RunOptions | None = None,
        onProgress=None,
        onFinished=None,
        onRow=None,
    ) -> None:
        super().__init__()
        self._worker, self._rows = worker, rows
        self._options = dataclasses.replace(
            options or RunOptions(), withDisagreement=False, withAligned=False, box=None, edits="keep"
        )
        self._onProgress, self._onFinished, self._onRow = onProgress, onFinished, onRow
        self._row, self._run = None, None  # under way
        self._done, self._refused = 0, 0  # in this batch
        self._startTime = 0.0
        self._nextTimer = qt.QTimer()
        self._nextTimer.setSingleShot(True)
        self._nextTimer.connect("timeout()", self._goOn)

    def begin(self) -> None:
        """Begin with the first row that waits.

        :raises ValueError: if none waits.
        """
        if all(row.state != WAITING for row in self._rows):
            raise ValueError(_("There is no volume to segment."))
        self._startTime = time.monotonic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)
        self._nextTimer.start(0)

    def cancel(self, message: str = "") -> None:
        """End the batch now. What is finished is kept; the row under way waits again."""
        row, run = self._row, self._run
        self._row = self._run = None
        if run is not None:
            run.cancel()
            self._change(row, WAITING)
        self._end("cancelled", message or _("Cancelled. {done} finished; these are kept.").format(done=self._done))

    def leaveOut(self, row: BatchRow) -> None:
        """Pass over a row that waits, or end the one that runs and go on with the next."""
        if row is self._row:
            run, self._row, self._run = self._run, None, None
            run.cancel()
            self._nextTimer.start(0)
        if row.state in (WAITING, RUNNING):
            self._change(row, LEFT_OUT)

    def _goOn(self) -> None:
        """Begin with the next row or end the batch; from the event loop, so that the panel never waits for two steps in
        a row.
        """
        row = next((row for row in self._rows if row.state == WAITING), None)
        if row is None:
            self._complete()
            return
        self._row = row
        self._change(row, RUNNING, _("Reading the volume"))
        try:
            reason = reasonVolumeCannotBeUsed(row.volume)
            if not reason:
                row.modality, reason = modalityToTake(row.volume, self._options.modality)
            if reason:
                raise ValueError(reason)
            self._run = self._runOf(row)
            self._run.begin()
        except (ValueError, OSError) as error:
            self._run = None
            self._onRowFinished(row, RunOutcome("failed", str(error)))

    def _runOf(self, row: BatchRow):
        options = dataclasses.replace(self._options, modality=row.modality)
        callbacks = (
            lambda text, fraction: self._onRowProgress(row, text, fraction),
            lambda outcome: self._onRowFinished(row, outcome),
        )
        if row.frames > 1:
            return SequenceRun(self._worker, row.volume, options, *callbacks)
        return SegmentationRun(self._worker, row.volume, None, options, *callbacks)

    def _onRowProgress(self, row: BatchRow, text: str, fraction: float) -> None:
        if row is not self._row:
            return
        self._change(row, RUNNING, text, fraction)
        if self._onProgress is not None:
            weights = [one.frames for one in self._rows]
            passed = sum(one.frames for one in self._rows if one.state not in (WAITING, RUNNING))
            self._onProgress(
                _("{volume}: {stage}").format(volume=row.name, stage=text),
                min(1.0, (passed + fraction * row.frames) / sum(weights)),
            )

    def _onRowFinished(self, row: BatchRow, outcome: RunOutcome) -> None:
        if row is not self._row:
            return
        self._row = self._run = None
        if outcome.status == "done":
            self._done += 1
            row.segmentation = outcome.segmentation
            reports = [report for report in outcome.report.get("frames", [outcome.report]) if report]
            row.light, doubts = doubtOf(reports)
            isPartial = len(reports) < row.frames
            self._change(row, DONE, "\n".join(text for text in (outcome.message if isPartial else "", doubts) if text))
        else:
            self._refused += 1
            self._change(row, REFUSED, outcome.message)
        self._nextTimer.start(0)

    def _change(self, row: BatchRow, state: str, text: str = "", fraction: float = 0.0) -> None:
        row.state, row.text, row.fraction = state, text, fraction
        if self._onRow is not None:
            self._onRow(row)

    def _complete(self) -> None:
        seconds = max(1, round(time.monotonic() - self._startTime))
        message = _("{done} finished ({seconds} s).").format(done=self._done, seconds=seconds)
        if self._refused:
            message += " " + _("{refused} refused; the reasons are in the table.").format(refused=self._refused)
        self._end("done", message)

    def _onSceneStartClose(self, caller, event) -> None:
        self.cancel(_("Cancelled, because the scene was closed."))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        for row in self._rows:
            if node is row.volume and row.state == WAITING and row is not self._row:
                self._change(row, REFUSED, _("The volume was removed."))

    def _end(self, status: str, message: str) -> None:
        if self._nextTimer is None:
            return  # it has ended already
        self.removeObservers()
        self._nextTimer.stop()
        self._nextTimer.deleteLater()  # drops its connection to this object, which would keep both alive
        self._nextTimer = None
        onFinished, self._onFinished, self._onProgress = self._onFinished, None, None
        if onFinished is not None:
            onFinished(RunOutcome(status, message))
