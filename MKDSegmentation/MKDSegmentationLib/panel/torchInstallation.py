"""Asks before PyTorch is installed, and shows how far it is."""

import re
from collections.abc import Callable

from slicer.i18n import tr as _

from ..run.environment import EnvironmentProblem
from ..run.torchInstaller import TorchInstaller, installationPlan


class TorchInstallation:
    """Nothing is downloaded until the user agrees.

    :param ui: the panel's widgets: installFrame with installLabel, installProgressBar, installButton and
        cancelInstallButton in it.
    :param onFailed: called with a text for the user if PyTorch was not installed.
    :param onChanged: called when an installation begins or ends.
    """

    def __init__(self, ui, onFailed: Callable[[str], None], onChanged: Callable[[], None]) -> None:
        self._ui, self._onFailed, self._onChanged = ui, onFailed, onChanged
        self._installer = TorchInstaller(self._onProgress, self._onFinished)
        self._goOn = None  # what the user wanted when PyTorch turned out to be missing
        ui.installButton.connect("clicked(bool)", self._onInstall)
        ui.cancelInstallButton.connect("clicked(bool)", self._onCancel)

    @property
    def isRunning(self) -> bool:
        """True while PyTorch is being installed."""
        return self._installer.isRunning

    def ask(self, goOn: Callable[[], None]) -> None:
        """Say what would be installed, how large it is and where to, and ask.

        :param goOn: called when PyTorch is there.
        """
        if self.isRunning:
            return
        self._goOn = goOn
        plan = installationPlan()
        card = _(" (the build for your NVIDIA graphics card)") if plan.forGraphicsCard else ""
        text = _(
            "PyTorch is needed, which computes the segmentation. About {download:g} GB are downloaded{card}; it takes "
            "about {disk:g} GB in {folder}. It is installed once."
        ).format(download=plan.downloadGb, card=card, disk=plan.diskGb, folder=plan.folder)
        lack = plan.lackGb
        if lack:
            text += " " + _("The disk lacks {lack:.1f} GB of free space for that.").format(lack=lack)
        ui = self._ui
        # A path has no blanks to wrap at: after each folder it may.
        ui.installLabel.text = re.sub(r"([/\\])", "\\1\N{ZERO WIDTH SPACE}", text)
        ui.installButton.visible, ui.installButton.enabled = True, not lack
        ui.cancelInstallButton.enabled = True
        ui.installProgressBar.visible = False
        ui.installFrame.visible = True

    def takeQuestionBack(self) -> None:
        """Close the question; an installation under way goes on, but nothing follows it."""
        self._goOn = None
        self._ui.installFrame.visible = self.isRunning

    def close(self) -> None:
        """End an installation, when the application closes."""
        self._installer.close()

    def _onInstall(self, _checked: bool) -> None:
        self._ui.installButton.visible = False
        self._ui.installProgressBar.visible = True
        try:
            self._installer.start()
        except (EnvironmentProblem, OSError) as problem:
            self._onFinished(str(problem))
        self._onChanged()

    def _onCancel(self, _checked: bool) -> None:
        if self.isRunning:
            self._installer.cancel()
        else:
            self.takeQuestionBack()

    def _onProgress(self, text: str, fraction: float | None, canCancel: bool) -> None:
        ui = self._ui
        ui.installLabel.text = text
        ui.installProgressBar.maximum = 0 if fraction is None else 100  # a bar without an end
        ui.installProgressBar.value = round(100 * (fraction or 0.0))
        ui.cancelInstallButton.enabled = canCancel

    def _onFinished(self, problem: str) -> None:
        goOn, self._goOn = self._goOn, None
        self._ui.installFrame.visible = False
        if problem:
            self._onFailed(problem)
        self._onChanged()
        if goOn is not None and not problem:
            goOn()
