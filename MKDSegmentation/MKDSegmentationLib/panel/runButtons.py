"""The buttons that start a run and cancel it."""

import dataclasses
from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from ..parameters import RunOptions
from ..run.contracts import Logic
from ..run.environment import EnvironmentProblem, torchProblem, torchVersion
from ..run.segmentationRun import RunOutcome
from ..scene.frameSequence import FrameSequence
from ..scene.segmentMeasurement import editedNames
from .editsQuestion import REPLACE, EditsQuestion
from .panelState import PanelState
from .runProgress import RunProgress
from .torchInstallation import TorchInstallation

#: Time after a click on Segment or Cancel in which the button takes no other.
DOUBLE_CLICK_MS = 400


class RunButtons:
    """Starts a run over the selected volume or over all frames of its sequence, and cancels it; asks before it what to
    do about edits, and shows its progress.

    :param ui: the panel's widgets: segmentButton, segmentSequenceButton, and those of EditsQuestion and RunProgress.
    :param logic: does the work.
    :param prepare: called before a run starts; looks again at what may have changed unnoticed, and returns the state of
        the panel and the chosen options.
    :param onFinished: called with the RunOutcome of every run, and of every one that could not be started.
    :param onChanged: called when the panel has to be shown anew.
    """

    def __init__(
        self,
        ui,
        logic: Logic,
        prepare: Callable[[], tuple[PanelState, RunOptions]],
        onFinished: Callable[[RunOutcome], None],
        onChanged: Callable[[], None],
    ) -> None:
        self._ui, self._logic = ui, logic
        self._prepare, self._onFinished, self._onChanged = prepare, onFinished, onChanged
        self._state = PanelState()
        self._edits = EditsQuestion(ui)
        self._progress = RunProgress(ui)
        self._installation = TorchInstallation(ui, self._installationFailed, onChanged)
        # A double click on Segment must not start and cancel, nor one on Cancel cancel and start again.
        self.doubleClickTimer = qt.QTimer()
        self.doubleClickTimer.setSingleShot(True)
        self.doubleClickTimer.setInterval(DOUBLE_CLICK_MS)
        self.doubleClickTimer.connect("timeout()", onChanged)
        ui.segmentButton.connect("clicked(bool)", self._onSegment)
        ui.segmentSequenceButton.connect("clicked(bool)", self._onSegmentSequence)

    def show(self, state: PanelState) -> None:
        """Show whether a run can be started or cancelled, and why it cannot."""
        ui, running = self._ui, state.isRunning
        self._state = state
        ui.segmentButton.text = _("Cancel") if running else _("Segment")
        ui.segmentButton.enabled = (running or not state.blockingReason) and not (
            self.doubleClickTimer.active or self._installation.isRunning
        )
        ui.segmentButton.toolTip = (
            _("Stop; the scene stays as it is.") if running else state.blockingReason or _("Segment the heart.")
        )
        for widget in (ui.progressBar, ui.timeLabel):
            widget.visible = running
        if not running:
            ui.statusLabel.text = " ".join(text for text in (state.message, state.blockingReason) if text)

    def takeQuestionBack(self) -> None:
        """Close the questions that a click on Segment asked, if they are open."""
        self._edits.close()
        self._installation.takeQuestionBack()

    def close(self) -> None:
        """End what is timed."""
        self.doubleClickTimer.stop()
        self._installation.close()

    def _onSegment(self) -> None:
        self.doubleClickTimer.start()
        if self._logic.isRunning:
            self._logic.cancel()
            return
        edited = editedNames(self._state.segmentation)
        if edited:
            self._edits.ask(edited, self._startVolume)
        else:
            self._startVolume()

    def _startVolume(self, edits: str = REPLACE) -> None:
        self._start(
            lambda state, options, **callbacks: self._logic.start(
                state.volume, state.segmentation, options, **callbacks
            ),
            edits,
        )

    def _onSegmentSequence(self) -> None:
        edited = FrameSequence.of(self._state.volume).editedFrames()
        if edited:
            self._edits.askAboutFrames(edited, self._startSequence)
        else:
            self._startSequence()

    def _startSequence(self, edits: str = REPLACE) -> None:
        self._start(
            lambda state, options, **callbacks: self._logic.startSequence(state.volume, options, **callbacks),
            edits,
            frames=FrameSequence.of(self._state.volume).count,
        )

    def startBatch(self, startRun: Callable, seconds: float) -> None:
        """Start a run over many volumes, which asks for nothing of the selected one.

        :param startRun: called with the options and the callbacks of a run.
        :param seconds: how long it will probably take; 0 if nobody knows.
        """
        self.doubleClickTimer.start()
        self.takeQuestionBack()
        state, options = self._prepare()
        self._launch(
            state.batchReason,
            lambda callbacks: startRun(options, **callbacks),
            lambda: seconds,
            lambda: self.startBatch(startRun, seconds),
            _("Looking for volumes"),
        )

    def _start(self, startRun: Callable, edits: str, frames: int = 1) -> None:
        """Start a run on the selected volume."""
        self.takeQuestionBack()
        state, options = self._prepare()
        self._launch(
            state.blockingReason,
            lambda callbacks: startRun(state, dataclasses.replace(options, edits=edits), **callbacks),
            lambda: frames * state.assessment.estimate.seconds,
            lambda: self._start(startRun, edits, frames),
            _("Handing the volume over"),
        )

    def _launch(self, reason: str, startRun: Callable, seconds: Callable, again: Callable, first: str) -> None:
        """Start a run and show its progress; say why where it cannot be started.

        :param reason: why it cannot; empty if it can.
        :param startRun: called with the callbacks of the run.
        :param seconds: returns how long it will probably take.
        :param again: called when PyTorch, which was missing, is there.
        :param first: what happens first.
        """
        if not reason and not torchVersion():
            self._installation.ask(again)
        elif not reason:
            with slicer.util.tryWithErrorDisplay(_("The segmentation could not be started."), waitCursor=True):
                try:
                    problem = torchProblem()
                    if problem:
                        raise EnvironmentProblem(problem)
                    startRun(
                        {
                            "onProgress": self._progress.update,
                            "onFinished": self._finished,
                            "onLog": self._progress.log,
                        }
                    )
                    self._progress.begin(first, seconds())
                except (EnvironmentProblem, ValueError, OSError) as problem:
                    self.doubleClickTimer.stop()
                    self._onFinished(RunOutcome("failed", str(problem)))
        self._onChanged()

    def _installationFailed(self, message: str) -> None:
        self.doubleClickTimer.stop()
        self._onFinished(RunOutcome("failed", message))

    def _finished(self, outcome: RunOutcome) -> None:
        self._progress.end(outcome.message)
        self._onFinished(outcome)
