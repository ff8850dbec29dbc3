"""Which weights to use: the ones that come with the extension, or any file; remembered on this computer."""

import html
import os

from slicer.i18n import tr as _

from mkd_core.errors import BundleError
from mkd_core.io.bundle import default_bundle_path, read_description
from mkd_core.io.detail_weights import default_details_path
from mkd_core.structures import DETAILED, STRUCTURES, labelled

from ..parameters import MachineSettings
from ..scene.findingTexts import errorText
from .modelCard import modelCard
from .pathField import PathField


class WeightsSettings:
    """The field for the weights, and what is known of the file that it names. What the field shows is what is used.

    :param ui: the panel's widgets: weightsPathLineEdit, modelLabel, useDefaultWeightsButton, removeWeightsButton.
    :param onChanged: called after each change.
    """

    def __init__(self, ui, onChanged) -> None:
        self._settings = MachineSettings()
        self._cardLabel, self._defaultButton, self._removeButton = (
            ui.modelLabel,
            ui.useDefaultWeightsButton,
            ui.removeWeightsButton,
        )
        self._onChanged = onChanged
        self._problem = ""
        self._structures = STRUCTURES
        self._identity = ("", "")
        self._isSure = False
        ui.weightsPathLineEdit.nameFilters = [_("Weights bundle") + " (*.safetensors)"]  # of the file dialog
        ui.weightsPathLineEdit.currentPath = self._settings.weightsPath
        self._field = PathField(ui.weightsPathLineEdit, self._onEdited)
        self._field.setPlaceholder(_("the weights that come with the extension"))
        self._defaultButton.connect("clicked(bool)", self._onUseDefault)
        self._removeButton.connect("clicked(bool)", self._onRemove)
        self._describe()

    @property
    def path(self) -> str:
        """The chosen bundle; empty for the one that comes with the extension."""
        return self._field.path

    @property
    def structures(self) -> tuple:
        """The structures that the weights know, with their labels; the earlier ones if they cannot be used."""
        return self._structures

    @property
    def structuresInDetail(self) -> tuple:
        """The structures that can be segmented besides, as far as their weights came with the extension."""
        return labelled(DETAILED) if default_details_path().is_file() else ()

    @property
    def problem(self) -> str:
        """Why the chosen weights cannot be used, or an empty string; as of the last look at the file."""
        return self._problem

    @property
    def identity(self) -> tuple[str, str]:
        """Name and version of the weights; empty texts if they cannot be used."""
        return self._identity

    def choose(self, path: str) -> None:
        """Use a file, or the default with an empty path, as if the user had typed it."""
        if self._field.path == path:
            self._onEdited()  # the file may have changed under its name
        self._field.set(path)

    def refresh(self) -> None:
        """Look at the file again: it may have come, gone or changed."""
        self._describe()

    def _onEdited(self) -> None:
        self._settings.weightsPath = self.path
        self._describe()
        self._onChanged()

    def _describe(self) -> None:
        path = self.path or str(default_bundle_path())
        try:
            description = read_description(path)
            self._structures = labelled(description["structures"])
            self._identity = (str(description["name"]), str(description["version"]))
            text, self._problem = modelCard(description, path), ""
        except (BundleError, OSError) as error:
            self._problem, self._identity = errorText(error), ("", "")
            text = "\N{WARNING SIGN} " + html.escape(self._problem)
        self._cardLabel.text = text
        self._defaultButton.enabled = bool(self.path)
        self._setSure(False)
        self._removeButton.enabled = self._isDownloaded()

    def _isDownloaded(self) -> bool:
        """Only a file in the folder for downloads can be removed here: a user's own file is the user's business."""
        folder = os.path.realpath(self._settings.weightsFolder)
        return bool(self.path) and os.path.isfile(self.path) and os.path.dirname(os.path.realpath(self.path)) == folder

    def _setSure(self, isSure: bool) -> None:
        self._isSure = isSure
        self._removeButton.text = _("Remove for good?") if isSure else _("Remove this file")

    def _onUseDefault(self) -> None:
        self.choose("")

    def _onRemove(self) -> None:
        if not self._isSure:
            self._setSure(True)
            return
        try:
            os.remove(self.path)
        except OSError as error:
            self._setSure(False)
            self._cardLabel.text = html.escape(
                _("The file could not be removed ({reason}).").format(reason=error.strerror or error)
            )
            return
        self.choose("")
