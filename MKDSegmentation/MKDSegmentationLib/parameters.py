"""What the user chooses: choices that belong to the scene, and choices that belong to this computer."""

from dataclasses import dataclass
from typing import Annotated

import qt
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper

MODALITIES = ["CT", "MR"]


@parameterNodeWrapper
class MKDSegmentationParameterNode:
    """Choices saved with the scene.

    inputVolume - the CT or MR volume to segment.
    outputSegmentation - the node that receives the seven segments; none means that a new one is made.
    modality - what kind of image the input volume is.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    modality: Annotated[str, Choice(MODALITIES)] = "CT"


class MachineSettings:
    """Choices that make sense on this computer only, kept in the application settings instead of the scene."""

    _WEIGHTS = "MKDSegmentation/WeightsPath"
    _DEVICE = "MKDSegmentation/Device"

    @property
    def weightsPath(self) -> str:
        """Path of the weights bundle; empty for the one that comes with the extension."""
        return qt.QSettings().value(self._WEIGHTS, "") or ""

    @weightsPath.setter
    def weightsPath(self, path: str) -> None:
        qt.QSettings().setValue(self._WEIGHTS, path)

    @property
    def device(self) -> str:
        """Computing device: auto, cpu, cuda or mps."""
        return qt.QSettings().value(self._DEVICE, "auto") or "auto"

    @device.setter
    def device(self, device: str) -> None:
        qt.QSettings().setValue(self._DEVICE, device)


@dataclass(frozen=True)
class RunOptions:
    """How one run computes.

    modality - "CT" or "MR".
    device - "auto", "cpu", "cuda", "cuda:1", "mps".
    weightsPath - weights bundle; empty for the one that comes with the extension.
    """

    modality: str = "CT"
    device: str = "auto"
    weightsPath: str = ""
