"""What a user does with the panel: click, choose, wait, read. Takes and returns the widgets that the module sees."""

import time

import shiboken6
from PySide6 import QtCore, QtWidgets
from PySide6.QtTest import QTest

from . import failures, scripted  # noqa: F401  (the application's classes come first)
from .pythonqt import unwrap, wrap


def processEvents(seconds=0.0):
    """Let the application work for at least `seconds`."""
    end = time.monotonic() + seconds
    while True:
        QtCore.QCoreApplication.processEvents()
        QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
        if time.monotonic() >= end:
            return
        time.sleep(0.005)


#: Limit of a wait: generous, since a test waits for an event and must not depend on how fast the machine is.
WAIT_S = 600.0


def waitUntil(condition, seconds=WAIT_S, message="the condition"):
    """Let the application work until `condition()` is true; returns its value.

    Raises TimeoutError after `seconds`, and AssertionError at once if an unexpected error was collected meanwhile.
    """
    end = time.monotonic() + seconds
    while True:
        processEvents()
        value = condition()
        if value:
            return value
        if failures.pending():
            raise AssertionError(f"while waiting for {message}:\n" + "\n".join(failures.pending()))
        if time.monotonic() > end:
            raise TimeoutError(f"{message} did not come true in {seconds} s")
        time.sleep(0.005)


def waitAside(condition, seconds=WAIT_S, message="the condition"):
    """Wait until `condition()` is true while the application stands still, as after its end; returns its value.

    Raises TimeoutError after `seconds`.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{message} did not come true in {seconds} s")
        time.sleep(0.005)
    return value


def click(widget, seconds=WAIT_S):
    """Click a button with the mouse, as a user can: it must be enabled and visible, now or within so many seconds."""
    raw = unwrap(widget)
    end = time.monotonic() + seconds
    while not (raw.isVisible() and raw.isEnabled()) and time.monotonic() < end:
        processEvents(0.02)
    if not raw.isVisible() or not raw.isEnabled():
        state = "hidden" if not raw.isVisible() else "disabled"
        raise AssertionError(f"a user cannot click {raw.objectName() or raw!r}: it is {state}")
    point = (
        QtCore.QPoint(min(8, raw.width() // 2), raw.height() // 2)
        if isinstance(raw, QtWidgets.QCheckBox)
        else raw.rect().center()
    )
    if raw.inherits("QAbstractButton") and not raw.hitButton(point):
        point = QtCore.QPoint(raw.rect().center().x(), 8)
    QTest.mouseClick(raw, QtCore.Qt.MouseButton.LeftButton, pos=point)
    processEvents()


def doubleClick(widget):
    """Click a button twice as fast as a hand can."""
    raw = unwrap(widget)
    for send in (
        QTest.mouseClick,
        QTest.mouseDClick,
        QTest.mouseRelease,
    ):  # Qt's double click is the second press alone
        send(raw, QtCore.Qt.MouseButton.LeftButton, pos=raw.rect().center())
    processEvents()


def choose(selector, text):
    """Choose an item by its text in a combo box or node selector, as a user does."""
    raw = unwrap(selector)
    comboBox = raw if isinstance(raw, QtWidgets.QComboBox) else raw.findChild(QtWidgets.QComboBox)
    if not raw.isEnabled() or not raw.isVisible():
        raise AssertionError(f"a user cannot choose in {raw.objectName() or raw!r}: it is disabled or hidden")
    index = comboBox.findText(text)
    if index < 0:
        raise AssertionError(
            f"there is no item {text!r}, only {[comboBox.itemText(i) for i in range(comboBox.count())]}"
        )
    comboBox.setCurrentIndex(index)
    comboBox.activated.emit(index)
    processEvents()


def chooseInMenu(button, text):
    """Open the menu of a button with the mouse and click the entry of this text."""
    raw = unwrap(button)
    if not raw.isEnabled() or not raw.isVisible():
        raise AssertionError(f"a user cannot click {raw.objectName() or raw!r}: it is disabled or hidden")
    problems = []

    def choose():
        menu = raw.menu()
        found = [action for action in menu.actions() if action.text() == text]
        if not found:
            problems.append(f"there is no entry {text!r}, only {[action.text() for action in menu.actions()]}")
        elif not found[0].isEnabled():
            problems.append(f"the entry {text!r} is disabled")
        if problems:
            menu.close()
        else:
            QTest.mouseClick(menu, QtCore.Qt.MouseButton.LeftButton, pos=menu.actionGeometry(found[0]).center())

    QtCore.QTimer.singleShot(0, choose)
    QTest.mouseClick(raw, QtCore.Qt.MouseButton.LeftButton, pos=raw.rect().center())  # returns when the menu closes
    processEvents()
    if problems:
        raise AssertionError(problems[0])


def menuEntries(button):
    """Return the entries of a button's menu by their texts: True for one that can be chosen."""
    return {action.text(): action.isEnabled() for action in unwrap(button).menu().actions()}


def followLink(label):
    """Click the link in a label, by the keyboard, which reaches the only one with the tabulator."""
    raw = unwrap(label)
    if not raw.isVisible() or "<a " not in raw.text():
        raise AssertionError(f"a user sees no link in {raw.objectName() or raw!r}")
    raw.setFocus()
    QTest.keyClick(raw, QtCore.Qt.Key.Key_Tab)
    QTest.keyClick(raw, QtCore.Qt.Key.Key_Return)
    processEvents()


def typeText(widget, text):
    """Replace the text of a line edit (or of the line edit inside a path selector) and press Return."""
    raw = unwrap(widget)
    lineEdit = raw if isinstance(raw, QtWidgets.QLineEdit) else raw.findChild(QtWidgets.QLineEdit)
    if not lineEdit.isEnabled() or not lineEdit.isVisible() or lineEdit.isReadOnly():
        raise AssertionError(
            f"a user cannot type into {raw.objectName() or raw!r}: it is disabled, hidden or read-only"
        )
    lineEdit.setFocus()
    lineEdit.selectAll()
    lineEdit.insert(text)  # QTest.keyClicks knows ASCII only
    QTest.keyClick(lineEdit, QtCore.Qt.Key.Key_Return)
    processEvents()


def pressKey(widget, name):
    """Press a key, named as Qt does ("Up", "Return", "Space"), on a widget that has the keyboard then."""
    raw = unwrap(widget)
    if not raw.isEnabled() or not raw.isVisible():
        raise AssertionError(f"a user cannot reach {raw.objectName() or raw!r}: it is disabled or hidden")
    raw.setFocus()
    QTest.keyClick(raw, getattr(QtCore.Qt.Key, f"Key_{name}"))
    processEvents()


def shownTexts(widget):
    """Return every text that a user can read in the panel: labels, buttons, line edits, combo boxes, table cells,
    progress bars.
    """
    texts = []
    for raw in [unwrap(widget), *unwrap(widget).findChildren(QtWidgets.QWidget)]:
        if not raw.isVisible():
            continue
        if isinstance(raw, QtWidgets.QTableWidget):
            items = [raw.item(row, column) for row in range(raw.rowCount()) for column in range(raw.columnCount())]
            texts += [item.text() for item in items if item is not None]
        elif isinstance(raw, QtWidgets.QPlainTextEdit):
            texts.append(raw.toPlainText())
        elif isinstance(raw, QtWidgets.QComboBox):
            texts.append(raw.currentText())
        elif isinstance(
            raw, (QtWidgets.QLabel, QtWidgets.QAbstractButton, QtWidgets.QLineEdit, QtWidgets.QProgressBar)
        ):
            texts.append(raw.text())
    return [text for text in texts if text]


def tableTexts(table):
    """Return the rows of a QTableWidget as lists of str."""
    raw = unwrap(table)
    return [
        [raw.item(r, c).text() if raw.item(r, c) else "" for c in range(raw.columnCount())]
        for r in range(raw.rowCount())
    ]


def openDialogs():
    """Return the visible top-level dialogs."""
    return [
        wrap(w) for w in QtWidgets.QApplication.topLevelWidgets() if isinstance(w, QtWidgets.QDialog) and w.isVisible()
    ]


def answerFileDialog(path):
    """Type a path into the next file dialog that opens, accept it, and agree if it asks whether an earlier file may be
    replaced.
    """

    def agree(dialog):
        for question in dialog.findChildren(QtWidgets.QMessageBox) if shiboken6.isValid(dialog) else ():
            question.button(QtWidgets.QMessageBox.StandardButton.Yes).click()

    def answer(triesLeft=200):
        dialogs = [
            w
            for w in QtWidgets.QApplication.topLevelWidgets()
            if isinstance(w, QtWidgets.QFileDialog) and w.isVisible()
        ]
        if dialogs:
            dialogs[0].findChild(QtWidgets.QLineEdit, "fileNameEdit").setText(str(path))
            QtCore.QTimer.singleShot(
                50, lambda: agree(dialogs[0])
            )  # accept() does not return while the question is open
            dialogs[0].accept()
        elif triesLeft:
            QtCore.QTimer.singleShot(20, lambda: answer(triesLeft - 1))

    QtCore.QTimer.singleShot(0, answer)


def tick(listWidget, text, on=True):
    """Tick or untick an item of a list by its text, as a click on its box does."""
    raw = unwrap(listWidget)
    if not raw.isEnabled() or not raw.isVisible():
        raise AssertionError(f"a user cannot tick in {raw.objectName() or raw!r}: it is disabled or hidden")
    (item,) = raw.findItems(text, QtCore.Qt.MatchFlag.MatchExactly)
    if not item.flags() & QtCore.Qt.ItemFlag.ItemIsUserCheckable:
        raise AssertionError(f"{text!r} has no box to tick")
    item.setCheckState(QtCore.Qt.CheckState.Checked if on else QtCore.Qt.CheckState.Unchecked)
    processEvents()


def tabOrder(widget):
    """Return the visible widgets that the Tab key reaches inside a widget, in its order, as the names of what they
    belong to.
    """
    raw = unwrap(widget)
    order, current = [], raw.nextInFocusChain()
    while current is not raw:
        if (
            raw.isAncestorOf(current)
            and current.isVisible()
            and current.isEnabled()
            and (current.focusPolicy() & QtCore.Qt.FocusPolicy.TabFocus)
            and current.focusProxy() is None
        ):
            order.append(wrap(current))
        current = current.nextInFocusChain()
    return order
