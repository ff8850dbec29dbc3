"""What was measured and what to doubt, readable at a glance in a narrow panel, and ready to be taken away."""

import contextlib
import html
import os

import qt
import slicer
from slicer.i18n import tr as _

from mkd_core.structures import BY_KEY

from ..parameters import MachineSettings
from ..scene.findingTexts import warningTexts
from ..scene.measurements import measurementRows, measurementsAsText
from ..scene.provenance import provenanceText

_STRUCTURE, _VOLUME, _MEAN, _CONFIDENCE, _CHECK = range(5)


class ResultsTable:
    """Fills a table with one row per structure, and labels with the warnings and the provenance; copies and saves the
    numbers.

    :param table: QTableWidget with five columns.
    :param warningsLabel: QLabel below it.
    :param provenanceLabel: QLabel for what made the result.
    :param copyButton: QPushButton that puts the numbers on the clipboard.
    :param saveButton: QPushButton that asks for a file name and writes CSV.
    """

    def __init__(self, table, warningsLabel, provenanceLabel, copyButton, saveButton) -> None:
        self._table, self._warningsLabel, self._provenanceLabel = table, warningsLabel, provenanceLabel
        self._copyButton, self._saveButton = copyButton, saveButton
        self._settings = MachineSettings()
        self._report, self._keys, self._name = None, [], ""
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(_STRUCTURE, qt.QHeaderView.Stretch)
        header.minimumSectionSize = 20
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 8)
        copyButton.connect("clicked(bool)", self._onCopy)
        saveButton.connect("clicked(bool)", self._onSave)

    def show(self, report: dict, name: str) -> None:
        """Show a report of the pipeline; rows stand in the order of the label values.

        :param name: of the segmentation, proposed as file name.
        """
        self._name = name
        if report == self._report:
            return  # what the user selected in the table stays selected
        self._report = report
        self._keys = list(report.get("structures", {}))
        rows = measurementRows(report)
        isCt = report.get("modality", "CT") == "CT"
        self._table.setHorizontalHeaderLabels(
            [_("Structure"), _("ml"), _("HU") if isCt else _("Signal"), _("Conf."), ""]
        )
        self._setHeaderTips(isCt)
        self._table.setRowCount(len(rows))
        for row, (title, volume, mass, mean, confidence, warnings) in enumerate(rows):
            structure = BY_KEY[self._keys[row]]
            tip = "\n".join(
                text for text in (title, _("{mass} g").format(mass=f"{mass:.0f}") if mass else "", warnings) if text
            )
            found = bool(volume)
            self._setItem(row, _STRUCTURE, title, tip, icon=_swatch(structure.color))
            self._setItem(row, _VOLUME, _volumeText(volume) if found else _("not found"), tip, alignRight=True)
            self._setItem(row, _MEAN, f"{mean:.0f}" if found and mean is not None else "", tip, alignRight=True)
            self._setItem(
                row, _CONFIDENCE, f"{confidence:.0f} %" if confidence is not None else "", tip, alignRight=True
            )
            self._setItem(row, _CHECK, "\N{WARNING SIGN}" if warnings else "", tip)
        self._fitHeight()
        self._warningsLabel.text = _massText(report) + _warningsText(report)
        self._provenanceLabel.text = provenanceText(report)
        self._provenanceLabel.toolTip = _("SHA-256 of the weights: {sha256}").format(
            sha256=(report.get("bundle") or {}).get("sha256", "?")
        )

    def keyOfRow(self, row: int) -> str:
        """Return the key of the structure in a row."""
        return self._keys[row]

    def _setHeaderTips(self, isCt: bool) -> None:
        tips = (
            _("Click a row to see the structure in the slice views."),
            _("Volume in ml."),
            _("Mean of the volume's values in the structure, in Hounsfield units.")
            if isCt
            else _("Mean of the volume's values in the structure."),
            _(
                "How far the two segmentors agree on the structure (Dice overlap). "
                "Too little is named below the table; how much is enough depends on the structure."
            ),
            _("Something to check: see below the table."),
        )
        for column, tip in enumerate(tips):
            self._table.horizontalHeaderItem(column).setToolTip(tip)

    def _setItem(self, row: int, column: int, text: str, toolTip: str, icon=None, alignRight: bool = False) -> None:
        item = qt.QTableWidgetItem(text)
        if icon is not None:
            item.setIcon(icon)
        if alignRight:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        item.setToolTip(toolTip)
        self._table.setItem(row, column, item)

    def _fitHeight(self) -> None:
        """Make the table as high as its rows: seven rows need no scroll bar."""
        height = self._table.horizontalHeader().sizeHint.height() + 2 * self._table.frameWidth
        for row in range(self._table.rowCount):
            height += self._table.rowHeight(row)
        self._table.setFixedHeight(height)

    def _onCopy(self) -> None:
        slicer.app.clipboard().setText(measurementsAsText(self._report, "\t"))

    def _onSave(self) -> None:
        folder = self._settings.exportFolder or os.path.expanduser("~")
        proposed = os.path.join(folder, "".join(c if c.isalnum() or c in " -_." else "_" for c in self._name) + ".csv")
        path = qt.QFileDialog.getSaveFileName(
            self._saveButton, _("Save the measurements"), proposed, _("Table") + " (*.csv)"
        )
        if not path:
            return
        try:
            _writeWhole(path, measurementsAsText(self._report, ","))
        except OSError as error:
            slicer.util.warningDisplay(
                _("The file could not be written ({reason}).").format(reason=error.strerror or error)
            )
            return
        self._settings.exportFolder = os.path.dirname(path)


def _writeWhole(path: str, text: str) -> None:
    """Write a text file all or nothing: an earlier file of that name stays until the new one is complete."""
    part = path + ".part"
    try:
        with open(part, "w", encoding="utf-8-sig", newline="") as file:  # with a mark that tells Excel that it is UTF-8
            file.write(text)
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def _volumeText(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.1f}"


def _massText(report: dict) -> str:
    mass = (report.get("structures", {}).get("Myo") or {}).get("mass_g")
    return html.escape(_("Left ventricular mass: {mass} g").format(mass=f"{mass:.0f}")) + "<br>" if mass else ""


def _warningsText(report: dict) -> str:
    warnings = [html.escape(warning) for warning in warningTexts(report)]
    for key, entry in report.get("structures", {}).items():
        for warning in warningTexts(entry):
            warnings.append(f"<b>{html.escape(BY_KEY[key].name)}:</b> {html.escape(warning)}")
    if not warnings:
        return _("Nothing conspicuous was found. Look at the contours before you use the volumes.")
    return _("Please check:") + "".join(f"<br>• {warning}" for warning in warnings)


def _swatch(color: tuple):
    pixmap = qt.QPixmap(14, 14)
    pixmap.fill(qt.QColor(*color))
    return qt.QIcon(pixmap)
