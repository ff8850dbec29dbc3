"""The section "4D" of the panel: all frames of a sequence, and what they tell of the heart as a pump."""

import html

import qt
import slicer
from slicer.i18n import tr as _

from mkd_core.measure.cardiac_function import CardiacFunction

from ..scene.findingTexts import findingText, researchUse
from ..scene.frameSequence import FrameSequence
from ..scene.functionNodes import chartOf, functionNotes, functionOfReports, functionRows
from .fittedTable import FittedTable


class SequenceSection:
    """Shows the frames behind the selected volume, if it is one of a sequence, and the function that was measured in
    them.

    :param ui: the panel's widgets: sequenceCollapsibleButton and those in it.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._frames, self._isRunning = None, False
        self._nextTimer = qt.QTimer()
        self._nextTimer.setSingleShot(True)
        self._nextTimer.setInterval(0)
        self._nextTimer.connect("timeout()", self._showFunction)
        self._reports = []  # of the frames, as the function was derived from them
        self._fitted = FittedTable(ui.functionTable)
        ui.functionTable.connect("cellClicked(int,int)", self._onRowClicked)
        ui.showPlotButton.connect("clicked(bool)", self._onShowPlot)

    def show(self, state) -> None:
        """Show the frames behind the volume in the state of the panel."""
        ui = self._ui
        self._frames = FrameSequence.of(state.volume)
        ui.sequenceCollapsibleButton.visible = self._frames is not None
        if self._frames is None:
            return
        count = self._frames.count
        ui.sequenceLabel.text = _extentText(self._frames)
        ui.segmentSequenceButton.text = _("Segment all {count} frames").format(count=count)
        ui.segmentSequenceButton.enabled = not state.isRunning and not state.blockingReason
        ui.segmentSequenceButton.toolTip = state.blockingReason or _(
            "Segment every frame; frames that are finished are kept if you cancel."
        )
        self._isRunning = state.isRunning
        self._showFunction()

    def close(self) -> None:
        """End measuring."""
        self._nextTimer.stop()

    def _showFunction(self) -> None:
        """Show the function, or measure some of the frames and come back for the others."""
        isMeasured = self._isRunning or self._frames is None or self._frames.measureSome()
        if not isMeasured:
            self._nextTimer.start()
        function = None if self._isRunning or not isMeasured else self._function()
        for widget in (self._ui.functionTable, self._ui.functionWarningsLabel, self._ui.showPlotButton):
            widget.visible = function is not None
        if function is not None:
            self._show(function)

    def _function(self) -> CardiacFunction | None:
        """Return the function that the segments of the frames tell now, None if no frame was segmented."""
        if self._frames is None or self._frames.segmentations() is None:
            return None
        self._reports = self._frames.reports()
        return functionOfReports(self._reports, self._frames.isUnfinished) if any(self._reports) else None

    def _show(self, function: CardiacFunction) -> None:
        table, rows = self._ui.functionTable, functionRows(function)
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                item.setToolTip(self._frameText(function, row) or text)
                table.setItem(row, column, item)
        self._fitted.fit()
        self._ui.functionWarningsLabel.text = _warningsText(
            function, functionNotes(self._reports, self._frames.isUnfinished)
        )
        self._ui.showPlotButton.enabled = chartOf(self._frames) is not None

    def _frameOfRow(self, function: CardiacFunction, row: int):
        """Return the frame that a row's figure comes from, or None; mass is measured at end-diastole."""
        return {0: function.end_diastole, 1: function.end_systole, 4: function.end_diastole}.get(row)

    def _frameText(self, function: CardiacFunction, row: int) -> str:
        frame = self._frameOfRow(function, row)
        return _("Frame {frame}. Click to see it.").format(frame=frame + 1) if frame is not None else ""

    def _onRowClicked(self, row: int, column: int) -> None:
        function = self._function() if self._frames is not None else None
        frame = self._frameOfRow(function, row) if function is not None else None
        if frame is not None:
            self._frames.select(frame)

    def _onShowPlot(self) -> None:
        slicer.modules.plots.logic().ShowChartInLayout(chartOf(self._frames))


def _extentText(frames: FrameSequence) -> str:
    values, unit = frames.indexValues(), frames.volumes.GetIndexUnit()
    return (
        _("{name}: {count} frames, {index} {first} to {last} {unit}")
        .format(
            name=frames.volumes.GetName(),
            count=frames.count,
            index=frames.volumes.GetIndexName(),
            first=values[0],
            last=values[-1],
            unit=unit,
        )
        .strip()
    )


def _warningsText(function: CardiacFunction, notes: list) -> str:
    lines = []
    if function.end_diastole is not None:
        lines.append(
            html.escape(
                _("End-diastole is frame {diastole}, end-systole frame {systole}.").format(
                    diastole=function.end_diastole + 1, systole=function.end_systole + 1
                )
            )
        )
    lines += map(html.escape, notes)
    if function.warnings:
        lines.append(_("Warnings:"))
    lines += [f"• {html.escape(findingText(warning))}" for warning in function.warnings]
    return "<br>".join([*lines, f"<b>{html.escape(researchUse())}</b>"])
