"""The button that takes the last run back, and brings it again."""

from collections.abc import Callable

from slicer.i18n import tr as _

from ..run.segmentationRun import RunOutcome
from ..scene.runUndo import RunUndo
from ..scene.sequenceUndo import SequenceUndo
from .panelState import PanelState


class UndoButton:
    """Offers to undo the last run while the segmentation that it wrote into is selected.

    :param ui: the panel's widgets: undoButton.
    :param onToggled: called with what to tell of the segmentation then, as the outcome of a run.
    """

    def __init__(self, ui, onToggled: Callable[[RunOutcome], None]) -> None:
        self._button, self._onToggled = ui.undoButton, onToggled
        self._undo: RunUndo | SequenceUndo | None = None
        ui.undoButton.connect("clicked(bool)", self._onClicked)

    def offer(self, undo: RunUndo | SequenceUndo | None) -> None:
        """Offer to undo a run; None if it wrote into nothing that was there before."""
        self._undo = undo

    def show(self, state: PanelState) -> None:
        """Show what a click would do to the segmentation in the state of the panel."""
        node = self._undo.segmentation if self._undo else None
        self._button.visible = node is not None and node is state.segmentation
        if node is None:
            self._undo = None
            return
        self._button.enabled = not state.isRunning
        if self._undo.isUndone:
            self._button.text = _("Redo this run")
            self._button.toolTip = _("Bring back the segments that the run made.")
        else:
            self._button.text = _("Undo this run")
            self._button.toolTip = _("Bring back the segments that this run replaced.")

    def _onClicked(self) -> None:
        self._undo.toggle()
        message = _("The run is undone.") if self._undo.isUndone else _("The run is done again.")
        self._onToggled(RunOutcome("done", message, self._undo.segmentation))
