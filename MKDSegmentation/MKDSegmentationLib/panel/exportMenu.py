"""The menu that takes a result away in files."""

import qt


class ExportMenu:
    """Menu of a button; whoever writes files adds an entry.

    :param ui: the panel's widgets: exportButton.
    """

    def __init__(self, ui) -> None:
        self._menu = qt.QMenu(ui.exportButton)
        self._menu.toolTipsVisible = True
        ui.exportButton.setMenu(self._menu)

    def add(self, text: str, toolTip: str, onChosen):
        """Add an entry and return its action."""
        action = self._menu.addAction(text)
        action.toolTip = toolTip
        action.connect("triggered(bool)", onChosen)
        return action
