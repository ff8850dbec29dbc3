"""The panel without a mouse and without eyes: keys, and names for screen readers."""

import time

import qt

#: Time after which the focus is left where it went.
_MOMENT_S = 2.0


class KeyboardAccess(qt.QObject):
    """Gives every control of a panel a name, and the panel its keys.

    Return and Enter press the button that has the focus, as Space does; Ctrl+Return presses the main button from
    anywhere in the panel, Escape closes a question. A button that its own click disables for a moment gets the focus
    back. Outside the panel these keys mean what they always mean.

    :param panel: QWidget with the controls.
    :param mainButton: button that starts and cancels.
    :param onEscape: called without arguments for the key Escape.
    """

    def __init__(self, panel, mainButton, onEscape) -> None:
        super().__init__()
        _nameControls(panel)
        self._lost, self._lostAt = None, 0.0  # button that lost the focus because it was disabled, and when
        self._keys = (qt.Qt.Key_Return, qt.Qt.Key_Enter)
        self._buttons = list(panel.findChildren("QAbstractButton"))
        for button in self._buttons:
            button.installEventFilter(self)
        self._shortcuts = [
            _shortcut(panel, "Ctrl+Return", mainButton.click),
            _shortcut(panel, "Ctrl+Enter", mainButton.click),  # of the number pad
            _shortcut(panel, "Escape", onEscape),
        ]

    def close(self) -> None:
        """Let the panel be."""
        for button in self._buttons:
            button.removeEventFilter(self)
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.deleteLater()
        self._buttons, self._shortcuts = [], []

    def eventFilter(self, watched, event) -> bool:
        """Called by Qt for each event of a button."""
        if event.type() == qt.QEvent.FocusOut and not watched.enabled:
            self._lost, self._lostAt = watched, time.monotonic()
        elif event.type() == qt.QEvent.EnabledChange and watched.enabled and watched == self._lost:
            self._lost = None
            if time.monotonic() - self._lostAt < _MOMENT_S:
                watched.setFocus()
        # a section gets the keys of the controls in it too, when these leave them alone
        isPressed = event.type() == qt.QEvent.KeyPress and watched.focus and event.key() in self._keys
        if isPressed and not _modifiersOf(event):
            if not event.isAutoRepeat():
                watched.click()
            return True
        return False


def _modifiersOf(event) -> int:
    """Return the keys that are held besides, without the one that says that a key is on the number pad."""
    modifiers = event.modifiers()
    return int(getattr(modifiers, "value", modifiers)) & ~int(getattr(_KEYPAD, "value", _KEYPAD))


_KEYPAD = qt.Qt.KeypadModifier


def _shortcut(panel, keys: str, pressed):
    shortcut = qt.QShortcut(panel)
    shortcut.setKey(qt.QKeySequence(keys))
    shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
    shortcut.connect("activated()", pressed)
    return shortcut


def _nameControls(panel) -> None:
    """Name what a label stands beside after that label; parts of a control, such as the field of a path, after it."""
    for label in panel.findChildren("QLabel"):
        buddy = label.buddy()
        if buddy is not None and not buddy.accessibleName:
            buddy.accessibleName = label.text.replace("&", "").rstrip(": ")
    for className in ("qMRMLNodeComboBox", "ctkPathLineEdit"):
        for control in panel.findChildren(className):
            control.accessibleDescription = control.toolTip
            for part in (*control.findChildren("QComboBox"), *control.findChildren("QLineEdit")):
                part.accessibleName = control.accessibleName
            for button in control.findChildren("QAbstractButton"):
                if not button.text:
                    button.accessibleName = button.toolTip or control.accessibleName
