"""What was measured and what to doubt, readable at a glance in a narrow panel."""

import html

import qt
from mkd_core.structures import BY_KEY, STRUCTURES
from slicer.i18n import tr as _

_COLUMN_STRUCTURE, _COLUMN_VOLUME, _COLUMN_CHECK = range(3)


class ResultsTable:
    """Fills a table with one row per structure and a label with the remarks.

    :param table: QTableWidget with three columns.
    :param remarksLabel: QLabel below it.
    """

    def __init__(self, table, remarksLabel) -> None:
        self._table = table
        self._remarksLabel = remarksLabel
        self._report = None
        header = table.horizontalHeader()
        header.setSectionResizeMode(_COLUMN_STRUCTURE, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(_COLUMN_VOLUME, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(_COLUMN_CHECK, qt.QHeaderView.ResizeToContents)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 8)

    def show(self, report: dict) -> None:
        """Show a report of the pipeline; rows stand in the order of the label values."""
        if report == self._report:
            return  # what the user selected in the table stays selected
        self._report = report
        measured = report.get("structures", {})
        self._table.setRowCount(len(STRUCTURES))
        for row, structure in enumerate(STRUCTURES):
            entry = measured.get(structure.key) or {}
            remarks = entry.get("remarks") or []
            self._setItem(row, _COLUMN_STRUCTURE, structure.name, icon=_swatch(structure.color))
            self._setItem(row, _COLUMN_VOLUME, _volumeText(entry), alignRight=True)
            self._setItem(row, _COLUMN_CHECK, "\N{WARNING SIGN}" if remarks else "", toolTip="\n".join(remarks))
        self._fitHeight()
        self._remarksLabel.text = _massText(report) + _remarksText(report)

    def keyOfRow(self, row: int) -> str:
        """Return the key of the structure in a row."""
        return STRUCTURES[row].key

    def _setItem(self, row: int, column: int, text: str, icon=None, alignRight: bool = False, toolTip: str = "") -> None:
        item = qt.QTableWidgetItem(text)
        if icon is not None:
            item.setIcon(icon)
        if alignRight:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        item.setToolTip(toolTip or text)
        self._table.setItem(row, column, item)

    def _fitHeight(self) -> None:
        """Make the table as high as its rows: seven rows need no scroll bar."""
        height = self._table.horizontalHeader().sizeHint.height() + 2 * self._table.frameWidth
        for row in range(self._table.rowCount):
            height += self._table.rowHeight(row)
        self._table.setFixedHeight(height)


def _volumeText(entry: dict) -> str:
    volume = entry.get("volume_ml")
    if not volume:
        return _("not found")
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.1f}"


def _massText(report: dict) -> str:
    mass = (report.get("structures", {}).get("Myo") or {}).get("mass_g")
    return html.escape(_("Left ventricular mass: {mass} g").format(mass=f"{mass:.0f}")) + "<br>" if mass else ""


def _remarksText(report: dict) -> str:
    remarks = [html.escape(remark) for remark in report.get("remarks", [])]
    for key, entry in report.get("structures", {}).items():
        for remark in entry.get("remarks") or []:
            remarks.append(f"<b>{html.escape(BY_KEY[key].name)}:</b> {html.escape(remark)}")
    if not remarks:
        return _("Nothing conspicuous was found. Look at the contours before you use the volumes.")
    return _("Please check:") + "".join(f"<br>• {remark}" for remark in remarks)


def _swatch(color: tuple):
    pixmap = qt.QPixmap(14, 14)
    pixmap.fill(qt.QColor(*color))
    return qt.QIcon(pixmap)
