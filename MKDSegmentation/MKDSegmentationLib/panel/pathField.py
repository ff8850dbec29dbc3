"""A field for a path whose text is always what counts."""

import os

import qt


class PathField:
    """Reads and writes a ctkPathLineEdit, and tells of every change of its text.

    The widget's own signal currentPathChanged does not: a validator keeps it silent about an empty text and about
    texts that do not match the name filters, so that the field would show one path while another is used.

    :param pathLineEdit: ctkPathLineEdit.
    :param onEdited: called without arguments after each change of the text, by hand or by :meth:`set`.
    """

    def __init__(self, pathLineEdit, onEdited) -> None:
        self._pathLineEdit, self._onEdited = pathLineEdit, onEdited
        self._lineEdit = pathLineEdit.comboBox().lineEdit()
        self._lineEdit.connect("textChanged(QString)", self._onTextChanged)

    @property
    def path(self) -> str:
        """What the field shows now, as an absolute path: without blanks and quotation marks around it, and without the
        "file:" of a file that was dropped; empty for an empty field.
        """
        text = self._lineEdit.text.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":  # as Windows copies paths
            text = text[1:-1].strip()
        if text.lower().startswith("file:"):
            text = qt.QUrl(text).toLocalFile()
        return os.path.abspath(os.path.expanduser(text)) if text else ""

    def set(self, path: str) -> None:
        """Show a path."""
        self._pathLineEdit.currentPath = path

    def setPlaceholder(self, text: str) -> None:
        """Say in grey what an empty field means."""
        self._lineEdit.placeholderText = text

    def _onTextChanged(self, _text: str) -> None:
        self._onEdited()
