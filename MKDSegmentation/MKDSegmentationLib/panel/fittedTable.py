"""A table that shows all that is in it."""

import qt


class FittedTable:
    """Makes a table as high as its rows, and rows as high as their texts need: nothing is cut, no scroll bar is needed.

    The first column takes the width that the others leave, and breaks its texts into lines where that is too little.

    :param table: QTableWidget.
    :param mostRows: of a longer table so many rows are shown at once, beside a scroll bar; None shows all.
    """

    def __init__(self, table, mostRows: int | None = None) -> None:
        self._table, self._mostRows = table, mostRows
        table.wordWrap = True
        header = table.horizontalHeader()
        header.minimumSectionSize = 20
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self._timer = qt.QTimer(table)  # a header tells of a width before its columns have it
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self.fit)
        header.connect("sectionResized(int,int,int)", lambda _section, _before, _now: self._timer.start())
        rows = table.verticalHeader()
        rows.hide()
        rows.setDefaultSectionSize(table.fontMetrics().height() + 8)
        rows.minimumSectionSize = table.fontMetrics().height() + 8

    def fit(self) -> None:
        """Fit the heights to the texts; call it after the texts changed."""
        table = self._table
        table.minimumWidth = self._longestWord() + sum(
            table.columnWidth(column) for column in range(1, table.columnCount)
        )
        table.resizeRowsToContents()
        height = table.horizontalHeader().sizeHint.height() + 2 * table.frameWidth
        count = table.rowCount if self._mostRows is None else min(table.rowCount, self._mostRows)
        height += sum(table.rowHeight(row) for row in range(count))
        if self._mostRows is not None:
            isLonger = table.rowCount > self._mostRows
            table.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAsNeeded if isLonger else qt.Qt.ScrollBarAlwaysOff)
        if table.minimumHeight != height or table.maximumHeight != height:
            table.setFixedHeight(height)

    def _longestWord(self) -> int:
        """Return the width that the first column needs for its longest word, in pixels."""
        table = self._table
        items = [table.item(row, 0) for row in range(table.rowCount)]
        words = [word for item in items if item is not None for word in item.text().split()]
        widths = [table.fontMetrics().horizontalAdvance(word) for word in words]
        return max(widths, default=0) + table.fontMetrics().height() + 20  # beside an icon, between margins
