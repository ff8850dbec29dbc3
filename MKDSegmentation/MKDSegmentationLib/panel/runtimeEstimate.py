"""How long a run will take and how much memory it needs, told before it begins.

The first estimate comes from measurements on a usual computer; what runs really take on this one corrects it.
"""

import numpy as np
from slicer.i18n import tr as _

from mkd_core.environment import available_memory

from ..parameters import MachineSettings
from .computingSettings import deviceName

# Measured with Testing/benchmarks/click.py on two cores of an AMD EPYC and the weights that come with the extension.
_SECONDS_TO_START = 4.0  # Python, torch and weights
_SECONDS = {"cpu": 1.8, "cuda": 0.8, "mps": 1.5}  # of the networks, whose work does not depend on the volume
_SECONDS_PER_GIGAVOXEL = 9.0
_GIGABYTES = 0.87
_GIGABYTES_PER_GIGAVOXEL = 2.0
_GRAPHICS_GIGABYTES = 1.5


class RuntimeEstimate:
    """Tells and learns what a run costs.

    :param label: QLabel.
    """

    def __init__(self, label) -> None:
        self._label = label
        self._settings = MachineSettings()

    def show(self, volumeNode, device: str, isWarm: bool) -> str:
        """Show the estimate for a volume that can be segmented (None: nothing) and return a warning if memory is short.

        :param device: as chosen, "auto" included.
        :param isWarm: True if the worker has the weights loaded.
        """
        voxels = _voxelCount(volumeNode)
        self._label.visible = bool(voxels)
        if not voxels:
            self._label.text = ""
            return ""
        used = self._device(device)
        seconds, gigabytes = self.seconds(voxels, used, isWarm), _GIGABYTES + _GIGABYTES_PER_GIGAVOXEL * voxels / 1e9
        text = _("About {seconds} s and {memory} GB of memory on: {device}").format(
            seconds=max(1, round(seconds)), memory=f"{gigabytes:.1f}", device=deviceName(used)
        )
        if used != "cpu":
            text += _(", {memory} GB there").format(memory=_GRAPHICS_GIGABYTES)
        self._label.text = text
        free = available_memory()
        if free is None or free / 1e9 > gigabytes:
            return ""
        return _(
            "Memory is short: the run needs about {needed} GB, {free} GB are free. Close other programs first."
        ).format(needed=f"{gigabytes:.1f}", free=f"{free / 1e9:.1f}")

    def seconds(self, voxels: int, device: str, isWarm: bool) -> float:
        """Return how long a run on so many voxels takes here, in seconds."""
        return self._model(voxels, device) * self._settings.speedFactor(device) + (0.0 if isWarm else _SECONDS_TO_START)

    def expectedSeconds(self, volumeNode, device: str, isWarm: bool) -> float:
        """Return how long the run on a volume will take, in seconds."""
        return self.seconds(_voxelCount(volumeNode), self._device(device), isWarm)

    def updateFromRun(self, report: dict, device: str) -> None:
        """Take to heart what a run really took.

        :param report: of the run.
        :param device: as it was chosen.
        """
        used = str(report.get("device") or "").partition(":")[0]
        total = (report.get("timings_s") or {}).get("total")
        size = (report.get("input") or {}).get("size")
        if used not in _SECONDS or not total or not size:
            return
        if device == "auto":
            self._settings.automaticDevice = used
        factor = float(total) / self._model(int(np.prod(size)), used)
        self._settings.setSlowness(
            used, float(np.clip(0.5 * self._settings.speedFactor(used) + 0.5 * factor, 0.05, 50.0))
        )

    def _device(self, device: str) -> str:
        return (self._settings.automaticDevice or "cpu") if device == "auto" else device.partition(":")[0]

    @staticmethod
    def _model(voxels: int, device: str) -> float:
        return _SECONDS.get(device, _SECONDS["cpu"]) + _SECONDS_PER_GIGAVOXEL * voxels / 1e9


def _voxelCount(volumeNode) -> int:
    return volumeNode.GetImageData().GetNumberOfPoints() if volumeNode is not None else 0
