"""Which weights to use: the ones that come with the extension, or any file; remembered on this computer."""

import os

from slicer.i18n import tr as _

from mkd_core.errors import BundleError
from mkd_core.io.bundle import default_bundle_path, read_description

from ..parameters import MachineSettings
from .modelCard import modelCard


class WeightsSettings:
    """Keeps the widget for the weights and the application settings in agreement, and describes what is chosen.

    :param pathLineEdit: ctkPathLineEdit for the bundle.
    :param cardLabel: QLabel that describes it.
    :param removeButton: QPushButton that deletes the chosen file if it is a downloaded one; asks once more by its own
        text.
    :param onChanged: called after each change.
    """

    def __init__(self, pathLineEdit, cardLabel, removeButton, onChanged) -> None:
        self._settings = MachineSettings()
        self._pathLineEdit, self._cardLabel, self._removeButton = pathLineEdit, cardLabel, removeButton
        self._onChanged = onChanged
        self._problem = ""
        self._isSure = False
        pathLineEdit.nameFilters = [_("Weights bundle") + " (*.safetensors)"]
        pathLineEdit.currentPath = self._settings.weightsPath
        pathLineEdit.connect("currentPathChanged(QString)", self._onPathChanged)
        removeButton.connect("clicked(bool)", self._onRemove)
        self._describe()

    @property
    def path(self) -> str:
        """The chosen bundle; empty for the one that comes with the extension."""
        return self._settings.weightsPath

    @property
    def problem(self) -> str:
        """Why the chosen weights cannot be used, or an empty string."""
        return self._problem

    def choose(self, path: str) -> None:
        """Use a file, as if the user had typed its path."""
        if self._pathLineEdit.currentPath == path:
            self._onPathChanged(path)  # the file may have changed under its name
        self._pathLineEdit.currentPath = path

    def refresh(self) -> None:
        """Look again at what is chosen: the folder for downloads is another one."""
        self._describe()

    def _onPathChanged(self, path: str) -> None:
        self._settings.weightsPath = path.strip()
        self._describe()
        self._onChanged()

    def _describe(self) -> None:
        path = self.path or str(default_bundle_path())
        try:
            self._cardLabel.text = modelCard(read_description(path), path)
            self._problem = ""
        except (BundleError, OSError) as error:
            self._cardLabel.text = ""
            self._problem = str(error)
        self._setSure(False)
        self._removeButton.enabled = self._isDownloaded()

    def _isDownloaded(self) -> bool:
        """Only a file in the folder for downloads can be removed here: a user's own file is the user's business."""
        folder = os.path.realpath(self._settings.weightsFolder)
        return bool(self.path) and os.path.isfile(self.path) and os.path.dirname(os.path.realpath(self.path)) == folder

    def _setSure(self, isSure: bool) -> None:
        self._isSure = isSure
        self._removeButton.text = _("Remove for good?") if isSure else _("Remove this file")

    def _onRemove(self) -> None:
        if not self._isSure:
            self._setSure(True)
            return
        try:
            os.remove(self.path)
        except OSError as error:
            self._setSure(False)
            self._cardLabel.text = _("The file could not be removed ({reason}).").format(reason=error.strerror or error)
            return
        self.choose("")
