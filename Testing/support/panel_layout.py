"""What is wrong with how a panel is laid out, told from the geometry of its widgets."""

from PySide6 import QtWidgets

from Testing.harness import driving
from Testing.harness.pythonqt import unwrap

_SINGLE_LINE = (QtWidgets.QLabel, QtWidgets.QPushButton, QtWidgets.QCheckBox)


def areaOf(panel):
    """Return the scroll area that shows a module's panel."""
    return unwrap(panel.parent).window()


def show(panel, width, height) -> None:
    """Give the area that shows the panel a size, as a user does with the window's border."""
    areaOf(panel).resize(width, height)
    settle()


def settle() -> None:
    """Let Qt lay out what changed: a table that became higher moves what is below it in the next round."""
    for _round in range(6):
        driving.processEvents()


def faults(panel) -> list:
    """Return a sentence for each overlap, cut text and clipped row that a user can see."""
    raw = unwrap(panel.parent)
    widgets = [widget for widget in raw.findChildren(QtWidgets.QWidget) if widget.isVisible() and _isOurs(widget)]
    found = []
    for widget in widgets:
        found += _cut(widget) + _roomy(widget)
        if isinstance(widget, QtWidgets.QTableWidget):
            found += _clippedCells(widget)
        if isinstance(widget, QtWidgets.QListWidget):
            found += _clippedItems(widget)
    for parent in {widget.parentWidget() for widget in widgets}:
        found += _overlaps([widget for widget in widgets if widget.parentWidget() is parent], parent)
    if areaOf(panel).horizontalScrollBar().maximum() > 0:
        found.append("the panel is wider than its area")
    return found


def _isOurs(widget) -> bool:
    """Tell whether a widget is one of the panel's, not a part of a table, list, combo box or the like."""
    parent = widget.parentWidget()
    return not isinstance(
        parent, (QtWidgets.QAbstractScrollArea, QtWidgets.QComboBox, QtWidgets.QAbstractSpinBox, QtWidgets.QHeaderView)
    ) and not (isinstance(parent, QtWidgets.QWidget) and isinstance(parent.parentWidget(), QtWidgets.QAbstractItemView))


def _name(widget) -> str:
    return widget.objectName() or type(widget).__name__


def _roomy(widget) -> list:
    """Tell of a word-wrapped label that keeps room for more than its text, as one that was narrower may."""
    if not isinstance(widget, QtWidgets.QLabel) or not widget.wordWrap() or not widget.text():
        return []
    alike = QtWidgets.QLabel(widget.text())
    alike.setWordWrap(True)
    alike.setFont(widget.font())
    alike.setTextFormat(widget.textFormat())
    alike.setMinimumWidth(widget.minimumWidth())
    spare = widget.minimumHeight() - alike.heightForWidth(widget.width())
    return [f"{_name(widget)} keeps {spare} pixels too many"] if spare > 2 else []


def _cut(widget) -> list:
    if not isinstance(widget, _SINGLE_LINE) or not widget.text():
        return []
    if isinstance(widget, QtWidgets.QLabel) and widget.wordWrap():
        needed = widget.heightForWidth(widget.width())
        return [f"{_name(widget)} is {widget.height()} high, its text needs {needed}"] * (widget.height() < needed)
    needed = widget.minimumSizeHint() if isinstance(widget, QtWidgets.QLabel) else widget.sizeHint()
    isCut = widget.width() < needed.width() or widget.height() < needed.height()
    size = f"{widget.width()} x {widget.height()}"
    return [f"{_name(widget)} is {size}, {widget.text()!r} needs {needed.width()} x {needed.height()}"] * isCut


def _clippedCells(table) -> list:
    found = []
    rows = sum(table.rowHeight(row) for row in range(table.rowCount()))
    if table.viewport().height() < rows:
        found.append(f"{_name(table)} shows {table.viewport().height()} of {rows} pixels of its rows")
    if sum(table.columnWidth(column) for column in range(table.columnCount())) > table.viewport().width():
        found.append(f"{_name(table)} shows not all of its columns")
    header = table.horizontalHeader()
    option = QtWidgets.QStyleOptionViewItem()
    option.initFrom(table)
    option.font, option.fontMetrics = table.font(), table.fontMetrics()
    if table.wordWrap():
        option.features |= QtWidgets.QStyleOptionViewItem.ViewItemFeature.WrapText
    for column in range(table.columnCount()):
        if header.sectionSizeHint(column) > header.sectionSize(column):
            found.append(f"{_name(table)}: the title of column {column} is cut")
        for row in range(table.rowCount()):
            item = table.item(row, column)
            if item is None or not item.text():
                continue
            index = table.model().index(row, column)
            option.rect = table.visualRect(index)
            needed = table.itemDelegateForIndex(index).sizeHint(option, index)
            longest = max(map(table.fontMetrics().horizontalAdvance, item.text().split()))
            isCut = needed.height() > option.rect.height() if table.wordWrap() else needed.width() > option.rect.width()
            if longest > option.rect.width() or isCut:
                found.append(f"{_name(table)}: {item.text()!r} is cut")
    return found


def _clippedItems(view) -> list:
    rows = sum(view.sizeHintForRow(row) for row in range(view.count()))
    if view.viewport().height() < rows:
        return [f"{_name(view)} shows {view.viewport().height()} of {rows} pixels of its items"]
    return []


def _overlaps(siblings: list, parent) -> list:
    found = []
    for index, first in enumerate(siblings):
        if not parent.rect().contains(first.geometry()):
            found.append(f"{_name(first)} reaches out of {_name(parent)}")
        for second in siblings[index + 1 :]:
            if first.geometry().intersects(second.geometry()):
                found.append(f"{_name(first)} and {_name(second)} overlap")
    return found
