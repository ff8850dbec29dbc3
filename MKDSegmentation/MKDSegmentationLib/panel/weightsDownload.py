"""Weights by address: fetched by a process of their own when the user clicks, and never otherwise."""

import os

import ctk
from slicer.i18n import tr as _

from mkd_core.errors import DownloadError
from mkd_core.io.download import check_request
from mkd_core.protocol import DownloadRequest

from ..parameters import MachineSettings
from ..run.contracts import Worker
from ..run.privateFolder import PrivateFolder, removeLeftover
from ..run.workerProcess import WorkerProcess
from ..scene.findingTexts import errorText
from .pathField import PathField


class WeightsDownload:
    """The controls for a download, and the download.

    :param ui: the panel's widgets: urlLineEdit, sha256LineEdit, folderLineEdit, downloadButton, downloadProgressBar,
        downloadLabel.
    :param onDownloaded: called with the path of the file.
    :param onFolderChanged: called after the folder was changed.
    :param worker: process that downloads; None for one of its own.
    """

    def __init__(self, ui, onDownloaded, onFolderChanged, worker: Worker | None = None) -> None:
        self._settings = MachineSettings()
        self._urlLineEdit, self._sha256LineEdit, self._folderLineEdit = (
            ui.urlLineEdit,
            ui.sha256LineEdit,
            ui.folderLineEdit,
        )
        self._button, self._progressBar, self._label = ui.downloadButton, ui.downloadProgressBar, ui.downloadLabel
        self._onDownloaded, self._onFolderChanged = onDownloaded, onFolderChanged
        self._worker = worker or WorkerProcess()
        self._partFolder = (
            None  # holds what has come so far; beside the place of the whole, so that it can be moved there at once
        )
        ui.folderLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.folderLineEdit.currentPath = self._settings.weightsFolder
        self._folder = PathField(ui.folderLineEdit, self._onFolder)
        self._folder.setPlaceholder(self._settings.defaultWeightsFolder)
        ui.urlLineEdit.connect("textChanged(QString)", self._onEdited)
        ui.sha256LineEdit.connect("textChanged(QString)", self._onEdited)
        ui.downloadButton.connect("clicked(bool)", self._onButton)
        self._removeLeftover()
        self._update("")

    def offer(self, url: str, sha256: str) -> None:
        """Fill in where a file is; the user decides whether to download it."""
        if not self._worker.isBusy:
            self._urlLineEdit.text, self._sha256LineEdit.text = url, sha256

    def close(self) -> None:
        """End a download under way and remove what came of it."""
        self._worker.stop()
        self._removePartFolder()

    def _onFolder(self) -> None:
        self._settings.weightsFolder = self._folder.path
        self._onFolderChanged()

    def _onEdited(self, _text: str) -> None:
        self._update(self._blockingReason() if self._urlLineEdit.text else "")

    def _blockingReason(self) -> str:
        try:
            check_request(self._urlLineEdit.text, self._sha256LineEdit.text)
        except DownloadError as error:
            return errorText(error)
        return ""

    def _onButton(self) -> None:
        if self._worker.isBusy:
            partFolder, self._partFolder = self._partFolder, None
            self._worker.cancel(whenGone=partFolder.remove)
            self._update(_("The download was cancelled."))
            return
        folder = self._settings.weightsFolder
        try:
            os.makedirs(folder, exist_ok=True)
            self._removeLeftover()
            self._partFolder = PrivateFolder(folder)
            self._settings.downloadUnderWay = self._partFolder.path
        except OSError as error:
            self._update(
                _("The folder {folder} cannot be written ({reason}). Choose another folder.").format(
                    folder=folder, reason=error.strerror or error
                )
            )
            return
        self._worker.request(
            DownloadRequest(
                url=self._urlLineEdit.text,
                sha256=self._sha256LineEdit.text,
                folder=folder,
                part=os.path.join(self._partFolder.path, "weights.part"),
            ),
            self._onReply,
            self._onProgress,
        )
        self._update(_("Connecting ..."))

    def _onProgress(self, _stage: str, fraction: float, message: str) -> None:
        self._progressBar.maximum = 100 if fraction > 0 else 0  # a bar without an end, as long as the size is unknown
        self._progressBar.value = round(100 * fraction)
        self._label.text = message

    def _onReply(self, reply) -> None:
        self._worker.stop()
        self._removePartFolder()
        if reply.outcome != "result":
            self._update(reply.message)
            return
        self._update(_("The weights were downloaded and are selected."))
        self._onDownloaded(reply.report["path"])

    def _removePartFolder(self) -> None:
        partFolder, self._partFolder = self._partFolder, None
        if partFolder is not None:
            partFolder.remove()

    def _removeLeftover(self) -> None:
        """Remove what a crash left of an earlier download. Its folder is remembered, because the folder of the user is
        not searched for anything to delete.
        """
        if self._settings.downloadUnderWay:
            removeLeftover(self._settings.downloadUnderWay)

    def _update(self, text: str) -> None:
        isBusy = self._worker.isBusy
        self._button.text = _("Cancel download") if isBusy else _("Download")
        self._button.enabled = isBusy or not self._blockingReason()
        self._progressBar.visible = isBusy
        for widget in (self._urlLineEdit, self._sha256LineEdit, self._folderLineEdit):
            widget.enabled = not isBusy
        self._label.text = text
        self._label.visible = bool(text)
