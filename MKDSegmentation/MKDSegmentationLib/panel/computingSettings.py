"""Where to compute: a choice that belongs to this computer, and what this computer offers."""

import os

from slicer.i18n import tr as _

from mkd_core.io.bundle import default_bundle_path
from mkd_core.protocol import DEVICE_KINDS, EnvironmentRequest

from ..parameters import MachineSettings
from ..run.contracts import Worker
from ..run.environment import torchProblem
from ..run.workerProcess import WorkerProcess


def deviceName(device: str) -> str:
    """Return what the user reads for a device as the worker names it."""
    names = {
        "auto": _("Automatic"),
        "cpu": _("Processor (CPU)"),
        "cuda": _("NVIDIA graphics card (CUDA)"),
        "mps": _("Apple graphics processor (MPS)"),
    }
    return names.get(device.partition(":")[0], device)


class ComputingSettings:
    """Keeps the widgets for device and threads and the application settings in agreement, and checks the environment
    when asked.

    The check runs in a worker process of its own, so that PyTorch is never imported into Slicer and nothing blocks.

    :param ui: the panel's widgets: deviceComboBox, threadsSpinBox, checkEnvironmentButton, environmentTextEdit.
    :param onChanged: called after each change.
    :param worker: process that checks; None for one of its own.
    """

    def __init__(self, ui, onChanged, worker: Worker | None = None) -> None:
        self._settings = MachineSettings()
        deviceComboBox, threadsSpinBox = ui.deviceComboBox, ui.threadsSpinBox
        self._checkButton, self._environmentTextEdit = ui.checkEnvironmentButton, ui.environmentTextEdit
        self._onChanged = onChanged
        self._worker = worker or WorkerProcess()
        for device in DEVICE_KINDS:
            deviceComboBox.addItem(deviceName(device))
        if self._settings.device in DEVICE_KINDS:
            deviceComboBox.currentIndex = DEVICE_KINDS.index(self._settings.device)
        threadsSpinBox.maximum = max(os.cpu_count() or 1, self._settings.threads)
        threadsSpinBox.value = self._settings.threads
        self._environmentTextEdit.visible = False
        threadsSpinBox.connect("valueChanged(int)", self._onThreadsChanged)
        deviceComboBox.connect("currentIndexChanged(int)", self._onDeviceChanged)
        self._checkButton.connect("clicked(bool)", self._onCheck)

    @property
    def device(self) -> str:
        """The chosen device as the worker knows it."""
        return self._settings.device

    @property
    def threads(self) -> int:
        """The chosen number of processor threads; 0 leaves the choice to PyTorch."""
        return self._settings.threads

    def close(self) -> None:
        """End a check under way."""
        self._worker.stop()

    def _onDeviceChanged(self, index: int) -> None:
        self._settings.device = DEVICE_KINDS[index]
        self._onChanged()

    def _onThreadsChanged(self, count: int) -> None:
        self._settings.threads = count
        self._onChanged()

    def _onCheck(self) -> None:
        if self._worker.isBusy:
            return
        self._checkButton.enabled = False
        self._show([_("Checking ...")])
        self._worker.request(EnvironmentRequest(), self._onChecked)

    def _onChecked(self, reply) -> None:
        self._worker.stop()
        self._checkButton.enabled = True
        if reply.outcome != "result":
            self._show([reply.message])
            return
        if reply.report.get("device"):
            self._settings.automaticDevice = reply.report["device"].partition(":")[0]
        self._show(self._lines(reply.report))
        self._onChanged()

    def _lines(self, report: dict) -> list:
        problem = torchProblem()
        if report.get("torch"):
            lines = [_("PyTorch {version}").format(version=report["torch"]) + (f": {problem}" if problem else "")]
        else:
            lines = [problem or _("PyTorch does not start: {reason}").format(reason=report.get("torch_problem", ""))]
        for device in report.get("devices", []):
            memory = f", {device['memory_gb']} GB" if "memory_gb" in device else ""
            lines.append(_("Device {device}: {name}").format(device=device["device"], name=device["name"]) + memory)
        if report.get("device"):
            lines.append(
                _("Automatic takes: {device} ({precision}, {threads} threads)").format(
                    device=deviceName(report["device"]),
                    precision=report.get("precision", "?"),
                    threads=report.get("threads", "?"),
                )
            )
        if report.get("no_gpu"):
            lines.append(_("No graphics card: {reason}").format(reason=report["no_gpu"]))
        weights = self._settings.weightsPath
        lines.append(_("Weights: {path}").format(path=weights or default_bundle_path()))
        lines.append(
            _("MKDSegmentation {version}, Python {python}, {cores} cores").format(
                version=report.get("mkd_core", "?"), python=report.get("python", "?"), cores=report.get("cores", "?")
            )
        )
        return lines

    def _show(self, lines: list) -> None:
        self._environmentTextEdit.setPlainText("\n".join(lines))
        self._environmentTextEdit.visible = True
