"""How long a run will take and how much memory it needs, told before it begins.

The first estimate comes from measurements on a usual computer; what runs really take on this one corrects it.
"""

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

from mkd_core.environment import available_memory
from mkd_core.protocol import DEVICE_KINDS, Report

from ..parameters import MachineSettings
from .computingSettings import deviceName

# Measured with Testing/benchmarks/click.py on two cores of an AMD EPYC and the weights that come with the extension.
_SECONDS_TO_START = 4.0  # Python, torch and weights
_SECONDS = 1.8  # of the networks, whose work does not depend on the volume; a first run on another device corrects it
_SECONDS_PER_GIGAVOXEL = 9.0
_GIGABYTES = 0.87
_GIGABYTES_PER_GIGAVOXEL = 2.0


@dataclass(frozen=True)
class RunEstimate:
    """What a run costs.

    seconds - how long it will take.
    gigabytes - of memory that it needs.
    device - what it will compute on: "cpu", "cuda" or "mps".
    warning - a sentence if memory is short, else empty.
    """

    seconds: float
    gigabytes: float
    device: str
    warning: str = ""


class RuntimeEstimate:
    """Tells and learns what a run costs.

    :param ui: the panel's widgets: estimateLabel.
    """

    def __init__(self, ui) -> None:
        self._label = ui.estimateLabel
        self._settings = MachineSettings()

    def of(self, volumeNode, device: str, isWarm: bool) -> RunEstimate:
        """Return the estimate for a volume that can be segmented.

        :param device: as chosen, "auto" included.
        :param isWarm: True if the worker has the weights loaded.
        """
        voxels, used = volumeNode.GetImageData().GetNumberOfPoints(), self._device(device)
        gigabytes = _GIGABYTES + _GIGABYTES_PER_GIGAVOXEL * voxels / 1e9
        return RunEstimate(self.seconds(voxels, used, isWarm), gigabytes, used, self._memoryWarning(gigabytes))

    def _memoryWarning(self, gigabytes: float) -> str:
        free = available_memory()
        if free is None or free / 1e9 > gigabytes:
            return ""
        return _(
            "Memory is short: the run needs about {needed} GB, {free} GB are free. Close other programs first."
        ).format(needed=f"{gigabytes:.1f}", free=f"{free / 1e9:.1f}")

    def show(self, state) -> None:
        """Show the estimate in the state of the panel; during a run the last one stays."""
        if state.isRunning:
            return
        estimate = state.assessment.estimate
        self._label.visible = estimate is not None
        self._label.text = _estimateText(estimate, state.box) if estimate is not None else ""

    def seconds(self, voxels: int, device: str, isWarm: bool) -> float:
        """Return how long a run on so many voxels takes here, in seconds."""
        return self._model(voxels) * self._settings.speedFactor(device) + (0.0 if isWarm else _SECONDS_TO_START)

    def updateFromRun(self, report: Report, device: str) -> None:
        """Take to heart what a run really took.

        :param report: of the run.
        :param device: as it was chosen.
        """
        used = str(report.get("device") or "").partition(":")[0]
        total = (report.get("timings_s") or {}).get("total")
        size = (report.get("input") or {}).get("size")
        if used not in DEVICE_KINDS or not total or not size:
            return
        if device == "auto":
            self._settings.automaticDevice = used
        factor = float(total) / self._model(int(np.prod(size)))
        self._settings.setSpeedFactor(
            used, float(np.clip(0.5 * self._settings.speedFactor(used) + 0.5 * factor, 0.05, 50.0))
        )

    def _device(self, device: str) -> str:
        return (self._settings.automaticDevice or "cpu") if device == "auto" else device.partition(":")[0]

    @staticmethod
    def _model(voxels: int) -> float:
        return _SECONDS + _SECONDS_PER_GIGAVOXEL * voxels / 1e9


def _estimateText(estimate: RunEstimate, boxNode) -> str:
    text = _("About {seconds} s and {memory} GB of memory on: {device}").format(
        seconds=max(1, round(estimate.seconds)),
        memory=f"{estimate.gigabytes:.1f}",
        device=deviceName(estimate.device),
    )
    if boxNode is not None:  # told here because Advanced may be folded
        text += "\n" + _("Only inside the box “{name}”").format(name=boxNode.GetName())
    return text
