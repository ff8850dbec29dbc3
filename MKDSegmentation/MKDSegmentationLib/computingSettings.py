"""The choices of the Advanced section that belong to this computer: device and weights, with what is known of the weights."""

import html

from mkd_core.bundle import default_bundle_path, read_description
from mkd_core.errors import BundleError
from slicer.i18n import tr as _

from .parameters import MachineSettings


class ComputingSettings:
    """Keeps the widgets for device and weights and the application settings in agreement.

    :param deviceComboBox: QComboBox to fill with devices.
    :param weightsPathLineEdit: ctkPathLineEdit for the bundle.
    :param modelLabel: QLabel that describes the bundle.
    :param onChanged: called after each change by the user.
    """

    def __init__(self, deviceComboBox, weightsPathLineEdit, modelLabel, onChanged) -> None:
        self._settings = MachineSettings()
        self._deviceComboBox = deviceComboBox
        self._weightsPathLineEdit = weightsPathLineEdit
        self._modelLabel = modelLabel
        self._onChanged = onChanged
        self._weightsProblem = ""
        self._devices = ["auto", "cpu", "cuda", "mps"]
        for text in (_("Automatic"), _("Processor (CPU)"), _("NVIDIA graphics card (CUDA)"), _("Apple graphics processor (MPS)")):
            deviceComboBox.addItem(text)
        if self._settings.device in self._devices:
            deviceComboBox.currentIndex = self._devices.index(self._settings.device)
        weightsPathLineEdit.nameFilters = [_("Weights bundle") + " (*.safetensors)"]
        weightsPathLineEdit.currentPath = self._settings.weightsPath
        deviceComboBox.connect("currentIndexChanged(int)", self._onDeviceChanged)
        weightsPathLineEdit.connect("currentPathChanged(QString)", self._onWeightsChanged)
        self._describeWeights()

    @property
    def device(self) -> str:
        """The chosen device as the worker knows it."""
        return self._settings.device

    @property
    def weightsPath(self) -> str:
        """The chosen bundle; empty for the one that comes with the extension."""
        return self._settings.weightsPath

    @property
    def problem(self) -> str:
        """Why the chosen weights cannot be used, or an empty string."""
        return self._weightsProblem

    def _onDeviceChanged(self, index: int) -> None:
        self._settings.device = self._devices[index]
        self._onChanged()

    def _onWeightsChanged(self, path: str) -> None:
        self._settings.weightsPath = path.strip()
        self._describeWeights()
        self._onChanged()

    def _describeWeights(self) -> None:
        try:
            description = read_description(self.weightsPath or default_bundle_path())
        except BundleError as error:
            self._weightsProblem = str(error)
            self._modelLabel.text = ""
        else:
            self._weightsProblem = ""
            self._modelLabel.text = _modelCard(description)


def _modelCard(description: dict) -> str:
    lines = [
        _("Made for {target}, learned with {assistant}.").format(target=description["target"], assistant=description["assistant"]),
        description["intended_use"],
        _("Licence: {licence}").format(licence=description["licence"]),
    ]
    title = "<b>{}</b> {}".format(html.escape(description["name"]), html.escape(description["version"]))
    return "<br>".join([title] + [html.escape(line) for line in lines])
