"""What was measured and what to doubt, readable at a glance in a narrow panel, and ready to be taken away."""

import html
import os
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from mkd_core.io.atomic import write_text
from mkd_core.measure.trust import Trust, shared_findings, trust_of
from mkd_core.protocol import Report, findings
from mkd_core.structures import BY_KEY

from ..parameters import MachineSettings
from ..scene.findingTexts import findingText, notWrittenText, researchUse
from ..scene.measurements import measurementRows, measurementsAsText, statusText
from ..scene.provenance import provenanceDetails, provenanceText
from ..scene.segmentMeasurement import DELETED, EDITED, currentReport
from .fittedTable import FittedTable
from .lights import LIGHTS

_STRUCTURE, _VOLUME, _MEAN, _AGREEMENT, _CHECK = range(5)


class ResultsTable:
    """Fills a table with one row per structure, and labels with the warnings and the provenance; copies and saves the
    numbers.

    :param ui: the panel's widgets: resultsTable with five columns, warningsLabel and provenanceLabel below it,
        copyButton for the clipboard.
    :param menu: ExportMenu that gets an entry for a CSV file.
    """

    def __init__(self, ui, menu) -> None:
        self._table, self._warningsLabel, self._provenanceLabel = ui.resultsTable, ui.warningsLabel, ui.provenanceLabel
        self._exportButton = ui.exportButton
        self._settings = MachineSettings()
        self._report, self._keys = None, []
        self._segmentation, self._volume = None, None
        self._fitted = FittedTable(ui.resultsTable)
        ui.copyButton.connect("clicked(bool)", self._onCopy)
        menu.add(
            _("Table as CSV ..."),
            _("Save the table as a CSV file. The same table is in the scene as a table node."),
            self._onSave,
        )

    def show(self, state) -> None:
        """Show the report in the state of the panel; rows stand in the order of the label values."""
        self._segmentation, self._volume = state.segmentation, state.volume
        report = state.report
        if report == self._report:
            return  # what the user selected in the table stays selected
        self._report = report
        self._keys = list(report["structures"])
        rows, whole = measurementRows(report), findings(report.get("warnings"))
        isCt = report.get("modality", "CT") == "CT"
        self._table.setHorizontalHeaderLabels(
            [_("Structure"), _("ml"), _("HU") if isCt else _("Signal"), _("Agreement"), ""]
        )
        self._setHeaderTips(isCt)
        self._table.setRowCount(len(rows))
        for row, (title, volume, mass, mean, agreement, warnings, status) in enumerate(rows):
            entry, structure = report["structures"][self._keys[row]], BY_KEY[self._keys[row]]
            tip = "\n".join(
                text
                for text in (
                    title,
                    "" if title == structure.name else structure.name,
                    _("{mass} g").format(mass=f"{mass:.0f}") if mass else "",
                    status,
                    warnings,
                )
                if text
            )
            isEdited = entry.get("state") == EDITED
            self._setItem(row, _STRUCTURE, title, tip, icon=_swatch(structure.color))
            self._setItem(row, _VOLUME, _volumeText(volume, status), tip, alignRight=True)
            self._setItem(row, _MEAN, f"{mean:.0f}" if volume and mean is not None else "", tip, alignRight=True)
            text = f"{agreement:.0f} %" if agreement is not None else statusText(entry) if isEdited else ""
            self._setItem(row, _AGREEMENT, text, tip, alignRight=True)
            trust = trust_of(entry, whole)
            mark, color = LIGHTS[trust.light]
            self._setItem(row, _CHECK, mark, _lightText(trust, status), color=color)
            self._table.item(row, _CHECK).setData(qt.Qt.AccessibleTextRole, _lightText(trust, status))
        self._fitted.fit()
        self._warningsLabel.text = _massText(report) + _warningsText(report)
        self._provenanceLabel.text = researchUse() + "\n" + provenanceText(report)
        self._provenanceLabel.toolTip = provenanceDetails(report)

    def keyOfRow(self, row: int) -> str:
        """Return the key of the structure in a row."""
        return self._keys[row]

    def _setHeaderTips(self, isCt: bool) -> None:
        tips = (
            _("Click a row to see the structure in the slice views."),
            _("Volume in ml."),
            _("Mean intensity of the structure, in Hounsfield units (HU).")
            if isCt
            else _("Mean signal intensity of the structure; MR has no unit."),
            _(
                "Agreement of the two segmentors on the structure (Dice overlap). "
                "Too little is named below the table; how much is enough depends on the structure."
            ),
            _(
                "Green circle: no sign of a failed segmentation. Amber triangle: check the outline. "
                "Red square: likely to be wrong."
            ),
        )
        for column, tip in enumerate(tips):
            self._table.horizontalHeaderItem(column).setToolTip(tip)

    def _setItem(
        self, row: int, column: int, text: str, toolTip: str, icon=None, alignRight: bool = False, color=None
    ) -> None:
        item = qt.QTableWidgetItem(text)
        if icon is not None:
            item.setIcon(icon)
        if alignRight:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        if color is not None:
            item.setForeground(qt.QBrush(qt.QColor(*color)))
        item.setToolTip(toolTip)
        self._table.setItem(row, column, item)

    def _onCopy(self) -> None:
        report = currentReport(self._segmentation, self._volume)
        slicer.app.clipboard().setText(measurementsAsText(report, "\t"))

    def _onSave(self) -> None:
        proposed = self._settings.exportPath(self._segmentation.GetName(), ".csv")
        path = qt.QFileDialog.getSaveFileName(
            self._exportButton, _("Save the measurements"), proposed, _("Table") + " (*.csv)"
        )
        if not path:
            return
        try:
            text = measurementsAsText(currentReport(self._segmentation, self._volume), ",")
            write_text(Path(path), "\ufeff" + text)  # with a mark that tells Excel that it is UTF-8
        except OSError as error:
            slicer.util.warningDisplay(notWrittenText(error))
            return
        self._settings.exportFolder = os.path.dirname(path)


def _volumeText(volume: float | None, status: str) -> str:
    if not volume:
        return status or "0"
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.1f}"


def _massText(report: Report) -> str:
    mass = (report.get("structures", {}).get("Myo") or {}).get("mass_g")
    return html.escape(_("Left ventricular mass: {mass} g").format(mass=f"{mass:.0f}")) + "<br>" if mass else ""


def _warningsText(report: Report) -> str:
    warnings = []
    for shared in shared_findings(report):
        text = html.escape(findingText(shared.finding))
        warnings.append(f"<b>{_namesOf(shared.keys, report)}:</b> {text}" if shared.keys else text)
    changes = []
    for state, sentence in _CHANGES.items():
        keys = [key for key, entry in report.get("structures", {}).items() if entry.get("state") == state]
        if keys:
            changes.append(f"<b>{_namesOf(keys, report)}:</b> " + html.escape(sentence()))
    if not warnings and not changes:
        return _("No sign of a failed segmentation. This says nothing about the patient.")
    title = [_("Warnings:")] if warnings else []
    return "<br>".join(title + [f"• {warning}" for warning in warnings + changes])


def _namesOf(keys, report: Report) -> str:
    """Return what the user calls structures, as a list within a sentence."""
    structures = report.get("structures", {})
    if len(keys) > 1 and len(keys) == len(structures):
        return html.escape(_("All structures"))
    return html.escape(", ".join(structures[key].get("name") or BY_KEY[key].name for key in keys))


_CHANGES = {
    EDITED: lambda: _("edited after the run. The agreement and the warnings of the run no longer apply."),
    DELETED: lambda: _("deleted after the run."),
}


def _lightText(trust: Trust, status: str) -> str:
    """Return in one sentence how far to trust an outline."""
    if trust.reason is not None:
        return findingText(trust.reason)
    if trust.light == "green":
        return _("No sign of a failed segmentation.")
    return _("Nothing is known of this outline ({status}).").format(status=status) if status else ""


def _swatch(color: tuple):
    pixmap = qt.QPixmap(14, 14)
    pixmap.fill(qt.QColor(*color))
    return qt.QIcon(pixmap)
