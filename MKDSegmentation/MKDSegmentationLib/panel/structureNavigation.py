"""From a row of the results to the structure: in the slice views by mouse or arrow keys, in the Segment Editor."""

import slicer
from slicer.i18n import tr as _

from ..scene.heartView import jumpToStructure, prepareEditor
from ..scene.ourSegments import ourSegments

#: How long the status bar says how to come back.
_MESSAGE_MS = 15000


class StructureNavigation:
    """Follows the selected row of the table of results.

    :param ui: the panel's widgets: resultsTable and editButton.
    :param results: knows which structure is in a row.
    """

    def __init__(self, ui, results) -> None:
        self._ui, self._results = ui, results
        self._segmentation, self._volume, self._isRunning = None, None, False
        ui.resultsTable.connect("cellClicked(int,int)", self._onClicked)
        ui.resultsTable.connect("itemSelectionChanged()", self._onSelected)
        ui.editButton.connect("clicked(bool)", self._onEdit)

    def show(self, state) -> None:
        """Follow the segmentation in the state of the panel."""
        self._segmentation, self._volume, self._isRunning = state.segmentation, state.volume, state.isRunning
        self._showButton()

    def _showButton(self) -> None:
        self._ui.editButton.enabled = self._segmentToEdit() is not None and not self._isRunning

    def _onClicked(self, row: int, column: int) -> None:
        if self._segmentation is not None:
            jumpToStructure(self._segmentation, self._results.keyOfRow(row))

    def _onSelected(self) -> None:
        if self._ui.resultsTable.selectedItems():
            self._onClicked(self._ui.resultsTable.currentRow(), 0)
        self._showButton()

    def _segmentToEdit(self) -> str | None:
        """Return the id of the segment in the selected row, of the first one if none is selected; None where the user
        deleted it.
        """
        ours, table = ourSegments(self._segmentation), self._ui.resultsTable
        if table.selectedItems():
            return ours.get(self._results.keyOfRow(table.currentRow()))
        return next(iter(ours.values()), None)

    def _onEdit(self) -> None:
        """Open the Segment Editor on a structure. The way back is that of Slicer: its list of modules keeps the ones
        that were open, and this panel keeps what was selected.
        """
        segmentId = self._segmentToEdit()
        prepareEditor(self._segmentation, segmentId, self._volume)
        slicer.util.selectModule("SegmentEditor")
        name = self._segmentation.GetSegmentation().GetSegment(segmentId).GetName()
        text = _("Editing {structure}. To come back, click the left arrow beside the module list.")
        slicer.util.showStatusMessage(text.format(structure=name), _MESSAGE_MS)
