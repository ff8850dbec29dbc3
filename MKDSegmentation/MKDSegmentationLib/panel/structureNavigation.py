"""From a row of the results to the structure: in the slice views by mouse or arrow keys, in the Segment Editor."""

import slicer

from ..scene.heartView import jumpToStructure, prepareEditor
from ..scene.ourSegments import ourSegments


class StructureNavigation:
    """Follows the selected row of the table of results.

    :param ui: the panel's widgets: resultsTable and editButton.
    :param results: knows which structure is in a row.
    """

    def __init__(self, ui, results) -> None:
        self._ui, self._results = ui, results
        self._segmentation, self._volume = None, None
        ui.resultsTable.connect("cellClicked(int,int)", self._onClicked)
        ui.resultsTable.connect("itemSelectionChanged()", self._onSelected)
        ui.editButton.connect("clicked(bool)", self._onEdit)

    def show(self, state) -> None:
        """Follow the segmentation in the state of the panel."""
        self._segmentation, self._volume = state.segmentation, state.volume
        self._ui.editButton.enabled = bool(ourSegments(state.segmentation)) and not state.isRunning

    def _onClicked(self, row: int, column: int) -> None:
        if self._segmentation is not None:
            jumpToStructure(self._segmentation, self._results.keyOfRow(row))

    def _onSelected(self) -> None:
        if self._ui.resultsTable.selectedItems():
            self._onClicked(self._ui.resultsTable.currentRow(), 0)

    def _onEdit(self) -> None:
        """Open the Segment Editor on the structure in the selected row, on the first one if none is selected."""
        ours = ourSegments(self._segmentation)
        table = self._ui.resultsTable
        key = self._results.keyOfRow(table.currentRow()) if table.selectedItems() else None
        segmentId = ours.get(key) or next(iter(ours.values()))
        prepareEditor(self._segmentation, segmentId, self._volume)
        slicer.util.selectModule("SegmentEditor")
