"""The section "Batch" of the panel: all volumes of the scene, or of a folder, one row each."""

import os
from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from mkd_core.errors import MKDError

from ..run.archiveResult import openingSteps
from ..run.archiveRun import rowsOfArchive
from ..run.batchRun import DONE, LEFT_OUT, REFUSED, RUNNING, WAITING, BatchRow, rowsOfScene
from ..run.contracts import Logic
from ..run.incrementalTask import IncrementalTask
from ..scene.findingTexts import errorText
from .fittedTable import FittedTable
from .lights import LIGHTS
from .pathField import PathField

_SCENE, _FOLDER = range(2)  # in the order of the combo box
_VOLUME, _STATE = range(2)

#: Rows that are shown without a scroll bar, and rows that are shown at all: an archive has a page of its own.
_ROWS_AT_ONCE, _MOST_ROWS = 12, 300


class BatchSection(VTKObservationMixin):
    """Starts a batch, shows how far each volume is and why one was refused, and brings a finished one into the views.

    :param ui: the panel's widgets: batchCollapsibleButton and those in it.
    :param logic: does the work.
    :param runButtons: start it as they start every other run.
    :param onShow: called with a finished row that the user wants to see.
    :param onRow: called with each row of the scene that changed.
    :param seconds: returns how long a volume node will probably take.
    """

    def __init__(self, ui, logic: Logic, runButtons, onShow: Callable, onRow: Callable, seconds: Callable) -> None:
        super().__init__()
        self._ui, self._logic, self._runButtons = ui, logic, runButtons
        self._onShow, self._onRow, self._seconds = onShow, onRow, seconds
        self._rows: list[BatchRow] = []
        self._isActive, self._seen = False, None
        self._fitted = FittedTable(ui.batchTable, _ROWS_AT_ONCE)
        ui.batchSourceComboBox.addItems([_("All volumes of the scene"), _("Volumes in a folder")])
        self._folder = PathField(ui.batchFolderLineEdit, self._onFolder)
        self._results = PathField(ui.batchResultsLineEdit, self._onFolder)
        ui.batchSourceComboBox.connect("currentIndexChanged(int)", self._onSource)
        ui.batchButton.connect("clicked(bool)", self._onButton)
        ui.batchLeaveOutButton.connect("clicked(bool)", self._onLeaveOut)
        ui.batchTable.connect("cellClicked(int,int)", self._onRowChosen)
        ui.batchTable.connect("cellActivated(int,int)", self._onRowChosen)
        ui.batchTable.connect("itemSelectionChanged()", self._showButtons)
        ui.batchCollapsibleButton.connect("contentsCollapsed(bool)", lambda _collapsed: self._lookAgain())
        self._reason, self._isRunning = "", False
        self._lookTimer = qt.QTimer()  # a scene that is loaded or closed changes many nodes in one turn
        self._lookTimer.setSingleShot(True)
        self._lookTimer.setInterval(0)
        self._lookTimer.connect("timeout()", self._lookAgain)
        self._opening, self._openingTask = None, None  # row that is being loaded into the scene
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, lambda _caller, _event: self._stopOpening())
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(scene, event, lambda _caller, _event: self._lookTimer.start())
        self._showSource()

    def close(self) -> None:
        """Stop following the scene."""
        self._stopOpening()
        self._lookTimer.stop()
        self.removeObservers()

    @property
    def isActive(self) -> bool:
        """True while a batch is under way."""
        return self._isActive

    def show(self, state) -> None:
        """Show what can be started in the state of the panel."""
        self._reason, self._isRunning = state.batchReason, state.isRunning
        self._lookAgain()
        self._showButtons()

    # ---- what there is to do ----

    @property
    def _isFolder(self) -> bool:
        return self._ui.batchSourceComboBox.currentIndex == _FOLDER

    @property
    def resultsFolder(self) -> str:
        """Folder in which the results of a folder are kept, beside it if the user chose none."""
        folder = self._folder.path
        return self._results.path or (folder + " " + _("segmented") if folder else "")

    def _onSource(self, _index: int) -> None:
        self._rows, self._seen = [], None
        self._showSource()
        self._lookAgain()
        self._showButtons()

    def _onFolder(self) -> None:
        self._results.setPlaceholder("" if self._results.path else self.resultsFolder)
        self._seen = None
        self._lookAgain()
        self._showButtons()

    def _showSource(self) -> None:
        ui = self._ui
        for widget in (
            ui.batchFolderLabel,
            ui.batchFolderLineEdit,
            ui.batchResultsLabel,
            ui.batchResultsLineEdit,
        ):
            widget.visible = self._isFolder
        ui.batchLeaveOutButton.visible = not self._isFolder

    def _lookAgain(self) -> None:
        """Show a row for each volume, if the section is open and what there is has changed."""
        if self._isActive or self._ui.batchCollapsibleButton.collapsed:
            return
        seen = (self._isFolder, self.resultsFolder) if self._isFolder else _nodesThatCount()
        if seen == self._seen:
            return
        self._seen = seen
        self._setRows(rowsOfArchive(self.resultsFolder, _MOST_ROWS) if self._isFolder else self._rowsOfScene())

    def _rowsOfScene(self) -> list:
        """Return the rows of the scene; why a volume was refused or left out stays until the next batch."""
        known = {id(row.volume): row for row in self._rows if row.state in (REFUSED, LEFT_OUT)}
        return [known.get(id(row.volume), row) if row.state == WAITING else row for row in rowsOfScene()]

    def _setRows(self, rows: list) -> None:
        before, self._rows = self._rows, rows
        table = self._ui.batchTable
        table.setRowCount(len(rows))
        isOther = len(before) != len(rows)
        for row, one in enumerate(rows):
            if row >= len(before) or one is before[row] or one != before[row]:
                isOther = self._showRow(row) or isOther
        table.visible = bool(rows)
        if isOther:
            self._fitted.fit()
        self._showButtons()

    # ---- running ----

    def _onButton(self) -> None:
        if self._isActive:
            self._runButtons.doubleClickTimer.start()
            self._logic.cancel()
        elif self._isFolder:
            self._start(
                lambda options, **callbacks: self._logic.startArchive(
                    self._folder.path, self.resultsFolder, options, onRows=self._setRows, **callbacks
                ),
                0.0,
            )
        else:
            self._setRows(rowsOfScene())
            waiting = [row for row in self._rows if row.state == WAITING]
            self._start(
                lambda options, **callbacks: self._logic.startBatch(
                    self._rows, options, onRow=self._onRowChanged, **callbacks
                ),
                sum(row.frames * self._seconds(row.volume) for row in waiting),
            )

    def _start(self, startRun: Callable, seconds: float) -> None:
        def start(options, onFinished, **callbacks) -> None:
            self._isActive = True
            try:
                startRun(options, onFinished=lambda outcome: self._onFinished(outcome, onFinished), **callbacks)
            except Exception:
                self._isActive = False
                raise

        self._runButtons.startBatch(start, seconds)

    def _onFinished(self, outcome, onFinished: Callable) -> None:
        self._isActive, self._seen = False, None
        onFinished(outcome)

    def _onLeaveOut(self) -> None:
        row = self._selectedRow()
        if row is not None:
            self._logic.leaveOut(row)

    def _onRowChanged(self, changed: BatchRow) -> None:
        for row, one in enumerate(self._rows):
            if one is changed and self._showRow(row):
                self._fitted.fit()
        self._showButtons()
        self._onRow(changed)

    # ---- showing ----

    def _selectedRow(self) -> BatchRow | None:
        table = self._ui.batchTable
        row = table.currentRow() if table.selectedItems() else -1
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def _showButtons(self) -> None:
        ui, isBlocked = self._ui, self._isRunning and not self._isActive
        selected = self._selectedRow()
        reason = self._reason or self._reasonForNothing()
        ui.batchButton.text = _("Cancel the batch") if self._isActive else _("Segment all")
        ui.batchButton.enabled = (self._isActive or not (isBlocked or reason)) and (
            not self._runButtons.doubleClickTimer.active
        )
        ui.batchButton.toolTip = (
            _("Stop; what is finished is kept.")
            if self._isActive
            else reason or _("Segment one volume after the other. What is segmented already is passed over.")
        )
        for widget in (ui.batchSourceComboBox, ui.batchFolderLineEdit, ui.batchResultsLineEdit):
            widget.enabled = not self._isRunning
        ui.batchLeaveOutButton.enabled = (
            self._isActive and selected is not None and selected.state in (WAITING, RUNNING)
        )
        ui.batchLabel.text = self._summary(reason)

    def _reasonForNothing(self) -> str:
        if not self._isFolder:
            isLeft = any(row.state in (WAITING, REFUSED, LEFT_OUT) for row in self._rows)
            return "" if isLeft or self._ui.batchCollapsibleButton.collapsed else _("No volume is left to segment.")
        if not self._folder.path:
            return _("Choose a folder with DICOM, NIfTI, NRRD or MetaImage files.")
        return "" if os.path.isdir(self._folder.path) else _("There is no such folder.")

    def _summary(self, reason: str) -> str:
        counts = {state: sum(row.state == state for row in self._rows) for state in (WAITING, RUNNING, DONE, REFUSED)}
        if not self._rows:
            return reason
        if self._opening is not None:
            return _("Loading “{volume}” ...").format(volume=self._opening.name)
        text = _("{done} done, {refused} refused, {left} to do.").format(
            done=counts[DONE], refused=counts[REFUSED], left=counts[WAITING] + counts[RUNNING]
        )
        if len(self._rows) >= _MOST_ROWS:
            text += " " + _("The first {count} are shown.").format(count=_MOST_ROWS)
        if self._isFolder:  # the archive's process knows neither the tick list nor the heart box
            text += " " + _("All structures of the set are segmented, whatever is ticked under Advanced.")
        if counts[DONE]:
            text += " " + _("Click a finished row, or press Enter on it, to see it.")
        return text

    def _showRow(self, row: int) -> bool:
        """Show a row; tell whether it may need another height."""
        one, table = self._rows[row], self._ui.batchTable
        title = one.name
        if one.frames > 1:
            title += " " + _("({count} frames)").format(count=one.frames)
        if one.modality:
            title += f", {one.modality}"
        if one.state == REFUSED:
            title += "\n" + one.text
        mark = LIGHTS[one.light][0] if one.state == DONE else ""
        text = f"{mark} {_stateText(one)}".strip()
        before = table.item(row, _VOLUME)
        isOther = before is None or before.text() != title
        for column, content in ((_VOLUME, title), (_STATE, text)):
            item = qt.QTableWidgetItem(content)
            item.setToolTip(one.text or _stateText(one))
            if column == _STATE:
                item.setData(qt.Qt.AccessibleTextRole, _stateText(one))
            table.setItem(row, column, item)
        return isOther

    def _onRowChosen(self, row: int, _column: int) -> None:
        """Bring a finished volume and its segmentation into the views."""
        one = self._rows[row] if row < len(self._rows) else None
        if one is None or one.state != DONE:
            return
        self._stopOpening()  # the user wants another one now
        if one.source is not None and not _isThere(one.volume):
            self._opening = one
            self._openingTask = IncrementalTask(
                openingSteps(self.resultsFolder, one), lambda _none: self._onOpened(one), self._onOpeningError
            )
            self._showButtons()
        else:
            self._bringIntoView(one)

    def _stopOpening(self) -> None:
        if self._openingTask is not None:
            self._openingTask.stop()
        self._opening = self._openingTask = None

    def _onOpened(self, opened: BatchRow) -> None:
        self._stopOpening()
        for row in self._rows:  # the ledger may have been read again meanwhile
            if row.source is not None and row.source["id"] == opened.source["id"]:
                row.volume, row.segmentation = opened.volume, opened.segmentation
        self._showButtons()
        self._bringIntoView(opened)

    def _onOpeningError(self, error: Exception) -> None:
        self._stopOpening()
        self._showButtons()
        if not isinstance(error, (MKDError, OSError, ValueError)):
            raise error
        slicer.util.warningDisplay(_("The result could not be loaded ({reason}).").format(reason=errorText(error)))

    def _bringIntoView(self, row: BatchRow) -> None:
        if _isThere(row.volume) and _isThere(row.segmentation):
            self._onShow(row)


def _isThere(node) -> bool:
    return node is not None and bool(slicer.mrmlScene.IsNodePresent(node))


def _nodesThatCount() -> tuple:
    """Return what the rows of the scene follow from, as far as it is cheap to tell."""
    nodes = [
        *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"),
        *slicer.util.getNodesByClass("vtkMRMLSegmentationNode"),
        *slicer.util.getNodesByClass("vtkMRMLSequenceNode"),
    ]
    return tuple((node.GetID(), node.GetName()) for node in nodes)


def _stateText(row: BatchRow) -> str:
    if row.state == DONE:
        return {"amber": _("done, check"), "red": _("done, likely wrong")}.get(row.light) or _("done")
    if row.state == RUNNING:
        return _("running {percent} %").format(percent=round(100 * row.fraction)) if row.fraction else _("running")
    return {WAITING: _("waiting"), REFUSED: _("refused"), LEFT_OUT: _("left out")}[row.state]
