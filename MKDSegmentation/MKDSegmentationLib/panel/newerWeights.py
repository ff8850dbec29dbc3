"""Whether there is a newer version of the weights: asked when the user clicks, and never otherwise."""

from collections.abc import Callable

from slicer.i18n import tr as _

from mkd_core.errors import DownloadError
from mkd_core.io import releases
from mkd_core.measure.messages import finding
from mkd_core.protocol import ReleasesRequest

from ..run.contracts import Worker
from ..run.workerProcess import WorkerProcess
from ..scene.findingTexts import errorText, findingText
from .weightsSettings import WeightsSettings


class NewerWeights:
    """The button that asks, and its answer.

    :param ui: the panel's widgets: checkWeightsButton, checkWeightsLabel, downloadCollapsibleButton.
    :param weights: the weights in use.
    :param onFound: called with address and SHA-256 of a newer version.
    :param worker: process that asks; None for one of its own.
    """

    def __init__(
        self, ui, weights: WeightsSettings, onFound: Callable[[str, str], None], worker: Worker | None = None
    ) -> None:
        self._ui, self._weights, self._onFound = ui, weights, onFound
        self._worker = worker or WorkerProcess()
        ui.checkWeightsButton.connect("clicked(bool)", self._onButton)

    def close(self) -> None:
        """Stop asking."""
        self._worker.stop()

    def _onButton(self) -> None:
        self._ui.checkWeightsButton.enabled = False
        self._say(_("Asking ..."))
        self._worker.request(ReleasesRequest(url=releases.ADDRESS), self._onReply)

    def _onReply(self, reply) -> None:
        self._worker.stop()
        self._ui.checkWeightsButton.enabled = True
        if reply.outcome != "result":
            self._say(reply.message)
            return
        name, version = self._weights.identity
        try:
            offered = [releases.Release(**entry) for entry in reply.report["releases"]]
        except DownloadError as error:
            self._say(errorText(error))
            return
        except (KeyError, TypeError):
            self._say(findingText(finding("weights_list_unreadable")))
            return
        newer = releases.newest(offered, name, version)
        if newer is None:
            self._say(_("There is no newer version of these weights."))
            return
        self._say(
            _("Version {version} ({size:.0f} MB) is newer than {present}. Click Download below to get it.").format(
                version=newer.version, size=newer.size_bytes / 1e6, present=version
            )
        )
        self._ui.downloadCollapsibleButton.collapsed = False
        self._onFound(newer.url, newer.sha256)

    def _say(self, text: str) -> None:
        self._ui.checkWeightsLabel.text = text
        self._ui.checkWeightsLabel.visible = bool(text)
