"""The whole path without a mouse, and names for those who hear the panel; in the stand-in GUI by key events alone."""

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtTest import QTest

from Testing.harness.pythonqt import unwrap
from Testing.support import panel_layout
from Testing.support.panel_driving import addVolume, driving, segmentations, waitForStage, waitUntilReady

Key = QtCore.Qt.Key


@pytest.fixture
def window(panel, monkeypatch):
    """The area that shows the panel, with the keyboard."""
    monkeypatch.setattr("MKDSegmentationLib.panel.keyboardAccess._MOMENT_S", driving.WAIT_S)  # on any machine
    panel_layout.show(panel, 400, 900)
    area = panel_layout.areaOf(panel)
    area.activateWindow()
    driving.waitUntil(area.isActiveWindow, message="the focus of the window")
    return area


def focus():
    return QtWidgets.QApplication.focusWidget()


def press(key, modifier=QtCore.Qt.KeyboardModifier.NoModifier):
    """Press a key where the keyboard is."""
    QTest.keyClick(focus(), key, modifier)
    driving.processEvents()


def owner(widget, panel):
    """Return the name of the control that a widget is, or is a part of."""
    names = {unwrap(control): name for name, control in vars(panel.ui).items() if not name.startswith("qt_")}
    while widget is not None and widget not in names:
        widget = widget.parentWidget()
    return names.get(widget, "")


def tabTo(panel, name, most=80):
    """Press Tab until a control has the keyboard."""
    for _ in range(most):
        if owner(focus(), panel) == name:
            return
        press(Key.Key_Tab)
    raise AssertionError(f"Tab never comes to {name}")


def tabbed(panel, most=120):
    """Press Tab once round; return the controls that had the keyboard, in order, each once."""
    found = []
    for _ in range(most):
        press(Key.Key_Tab)
        name = owner(focus(), panel)
        if found and name == found[0] and len(found) > 1:
            return found
        if name not in found:
            found.append(name)
    raise AssertionError(f"Tab does not come round: {found}")


def reachable(panel):
    """Return the names of all controls that a mouse can use now."""
    kinds = (
        QtWidgets.QAbstractButton,
        QtWidgets.QComboBox,
        QtWidgets.QLineEdit,
        QtWidgets.QAbstractSpinBox,
        QtWidgets.QAbstractItemView,
        QtWidgets.QPlainTextEdit,
    )
    found = set()
    for name, control in vars(panel.ui).items():
        raw = unwrap(control)
        if isinstance(raw, QtWidgets.QWidget) and raw.isVisible() and raw.isEnabled() and not name.startswith("qt_"):
            inside = [raw, *raw.findChildren(QtWidgets.QWidget)] if "LineEdit" in name or "Selector" in name else [raw]
            if any(isinstance(part, kinds) for part in inside):
                found.add(name)
    return found


def start(panel):
    unwrap(panel.ui.inputCollapsibleButton).setFocus(QtCore.Qt.FocusReason.TabFocusReason)
    driving.processEvents()


def test_from_the_volume_to_the_saved_table_by_keys_alone(panel, window, worker, monkeypatch, tmp_path):
    import qt

    addVolume("First")
    second = addVolume("Second", seed=1)
    worker("good")
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *arguments: str(tmp_path / "heart.csv"))
    start(panel)
    tabTo(panel, "inputSelector")
    press(Key.Key_Down)
    assert panel._parameterNode.inputVolume is second
    tabTo(panel, "segmentButton")
    press(Key.Key_Return)
    waitUntilReady(panel)
    assert [node.GetName() for node in segmentations()] == ["Second heart"]
    tabTo(panel, "resultsTable")
    press(Key.Key_Down)
    assert panel.ui.resultsTable.selectedItems(), "the arrow keys choose no structure"
    tabTo(panel, "exportButton")

    def chooseFirst():
        for key in (Key.Key_Down, Key.Key_Return):
            QTest.keyClick(QtWidgets.QApplication.activePopupWidget(), key)

    QtCore.QTimer.singleShot(0, chooseFirst)  # the menu has the keyboard until it closes
    press(Key.Key_Return)
    assert "Left ventricle" in (tmp_path / "heart.csv").read_text(encoding="utf-8-sig")


def test_ctrl_return_starts_and_cancels_from_anywhere_in_the_panel_and_escape_closes_a_question(
    panel, window, worker, volume
):
    worker("slow")
    start(panel)
    tabTo(panel, "modalityComboBox")
    press(Key.Key_Return, QtCore.Qt.KeyboardModifier.ControlModifier)
    waitForStage(panel, "Looking for the heart")
    driving.waitUntil(lambda: panel.ui.segmentButton.enabled, message="the end of the double click")
    unwrap(panel.ui.segmentButton).setFocus()
    press(Key.Key_Return, QtCore.Qt.KeyboardModifier.ControlModifier)
    waitUntilReady(panel)
    assert segmentations() == []
    panel._runButtons._installation.ask(lambda: None)
    driving.processEvents()
    assert panel.ui.installFrame.visible
    start(panel)
    tabTo(panel, "installButton")
    press(Key.Key_Escape)
    assert not panel.ui.installFrame.visible


def openEverything(panel):
    """Unfold every section, and segment, so that the results are there as well."""
    for name in ("batchCollapsibleButton", "advancedCollapsibleButton", "weightsCollapsibleButton"):
        driving.click(getattr(panel.ui, name))
    driving.click(panel.ui.downloadCollapsibleButton)
    driving.click(panel.ui.logCollapsibleButton)
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)


def test_tab_reaches_every_control_once_round_and_is_never_caught(panel, window, worker, volume):
    worker("good")
    openEverything(panel)
    driving.waitUntil(lambda: panel._clinical.geometry is not None, message="the clinical figures")
    start(panel)
    order = tabbed(panel)
    assert reachable(panel) - set(order) == set()
    places = [
        unwrap(getattr(panel.ui, name)).mapTo(unwrap(panel.parent), QtCore.QPoint(0, 0)) for name in order if name
    ]
    tops = [place.y() for place in places]
    first = tops.index(min(tops))
    assert tops[first:] + tops[:first] == sorted(tops), "not from top to bottom"


def test_return_in_a_field_does_not_fold_the_section_around_it(panel, window):
    for name in ("weightsCollapsibleButton", "downloadCollapsibleButton"):
        driving.click(getattr(panel.ui, name))
    start(panel)
    tabTo(panel, "urlLineEdit")
    press(Key.Key_Return)
    assert not panel.ui.downloadCollapsibleButton.collapsed and not panel.ui.weightsCollapsibleButton.collapsed


def test_return_folds_a_section_and_enter_shows_a_finished_row_of_a_batch(panel, window, worker, volume):
    second = addVolume("Second", seed=1)
    worker("good")
    start(panel)
    tabTo(panel, "batchCollapsibleButton")
    press(Key.Key_Return)
    assert not panel.ui.batchCollapsibleButton.collapsed
    tabTo(panel, "batchButton")
    press(Key.Key_Return)
    waitUntilReady(panel)
    tabTo(panel, "batchTable")
    while panel.ui.batchTable.currentRow() < 1:
        press(Key.Key_Down)
    press(Key.Key_Return)
    assert panel._parameterNode.inputVolume is second


def names_of(raw):
    """Return what a screen reader says of a widget."""
    interface = QtGui.QAccessible.queryAccessibleInterface(raw)
    return interface.text(QtGui.QAccessible.Text.Name).strip()


def test_everything_that_takes_the_keyboard_has_a_name(panel, window, worker, volume):
    worker("good")
    openEverything(panel)
    start(panel)
    unnamed = []
    for _ in range(100):
        press(Key.Key_Tab)
        if focus() is not window and not names_of(focus()):
            unnamed.append(owner(focus(), panel) or focus().metaObject().className())
    assert sorted(set(unnamed)) == []
    for bar in (panel.ui.progressBar, panel.ui.downloadProgressBar, panel.ui.installProgressBar):
        assert bar.accessibleName


def test_nothing_is_said_by_colour_alone_and_marks_are_seen_on_light_and_on_dark(panel, window, worker, volume):
    from MKDSegmentationLib.panel.lights import LIGHTS

    worker("good")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    marks = [mark for mark, _colour in LIGHTS.values()]
    assert len(set(marks)) == len(marks)
    table = unwrap(panel.ui.resultsTable)
    for row in range(table.rowCount()):
        item = table.item(row, 4)
        assert bool(item.text()) == bool(item.toolTip()) == bool(item.data(QtCore.Qt.ItemDataRole.AccessibleTextRole))
    for light in ("green", "amber", "red"):
        for background in ((255, 255, 255), (36, 36, 36)):
            assert contrast(LIGHTS[light][1], background) >= 3.0, (light, background)


def contrast(first, second):
    """Return the contrast of two sRGB colours, as the Web Content Accessibility Guidelines define it."""

    def luminance(colour):
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
