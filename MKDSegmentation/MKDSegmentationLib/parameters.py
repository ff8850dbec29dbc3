"""What the user chooses: choices that belong to the scene, and choices that belong to this computer."""

import os
from dataclasses import dataclass
from typing import Annotated

import qt
import slicer
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper

from mkd_core.protocol import IN_DETAIL, MODALITIES, SEGMENTORS, STRUCTURE_SETS, WHOLE_HEART, SegmentationOptions
from mkd_core.structures import DETAILED


@parameterNodeWrapper
class MKDSegmentationParameterNode:
    """Choices saved with the scene.

    inputVolume - the CT or MR volume to segment.
    outputSegmentation - the node that receives the structures; none means that a new one is made.
    modality - what kind of image the input volume is.
    heartBox - box round the heart that the user drew; none means that the heart is found automatically.
    structureSet - whether structures in detail are wanted besides those that the weights know.
    excludedStructures - keys of the structures that are not wanted, separated by blanks.
    segmentor - whose output counts: both together, S_real's or S_syn's.
    withDisagreement - also give a volume that shows where the two segmentors differ.
    withAligned - also give the volume as image alignment rendered it.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    heartBox: vtkMRMLMarkupsROINode
    modality: Annotated[str, Choice(list(MODALITIES))] = "CT"
    structureSet: Annotated[str, Choice(list(STRUCTURE_SETS))] = WHOLE_HEART
    excludedStructures: str = ""
    segmentor: Annotated[str, Choice(list(SEGMENTORS))] = "ensemble"
    withDisagreement: bool = False
    withAligned: bool = False


def forgetUnknownChoices(node) -> None:
    """Remove from the node of a scene what another version chose and this one does not know: the default comes back.

    :param node: the vtkMRMLScriptedModuleNode under the parameter node.
    """
    for name, choices in (("modality", MODALITIES), ("segmentor", SEGMENTORS), ("structureSet", STRUCTURE_SETS)):
        if node.GetParameter(name) not in ("", *choices):
            node.UnsetParameter(name)


def _storedText(key: str, default: str) -> str:
    """Return a text of the application settings; a file edited by hand may hold something else there."""
    value = qt.QSettings().value(key, "")
    return value if value and isinstance(value, str) else default


def _setting(name: str, default: str, meaning: str) -> property:
    """Return a property that keeps a text in the application settings."""
    key = f"MKDSegmentation/{name}"

    def read(self) -> str:
        return _storedText(key, default)

    def write(self, value: str) -> None:
        qt.QSettings().setValue(key, value)

    return property(read, write, doc=meaning)


class MachineSettings:
    """Choices that make sense on this computer only, kept in the application settings instead of the scene."""

    weightsPath = _setting(
        "WeightsPath", "", "Path of the weights bundle; empty for the one that comes with the extension."
    )
    device = _setting("Device", "auto", "Computing device: auto, cpu, cuda or mps.")
    automaticDevice = _setting(
        "AutomaticDevice", "", "What auto last turned out to be: cpu or cuda; empty as long as nobody knows."
    )
    downloadUnderWay = _setting(
        "DownloadUnderWay", "", "Path of the private folder of the download under way; empty if there is none."
    )
    exportFolder = _setting("ExportFolder", "", "Where measurements were last saved.")

    def exportPath(self, name: str, ending: str = "") -> str:
        """Return the path to propose for a file: where one was last saved, under a name that every disk allows."""
        return os.path.join(self.exportFolder or os.path.expanduser("~"), self.fileName(name) + ending)

    @staticmethod
    def fileName(name: str) -> str:
        """Return a name that every disk allows."""
        return "".join(c if c.isalnum() or c in " -_." else "_" for c in name)

    @property
    def show3D(self) -> bool:
        """True if a new result is shown as surfaces too."""
        return _storedText("MKDSegmentation/Show3D", "true") == "true"

    @show3D.setter
    def show3D(self, isWanted: bool) -> None:
        qt.QSettings().setValue("MKDSegmentation/Show3D", "true" if isWanted else "false")

    @property
    def threads(self) -> int:
        """Number of processor threads to compute with; 0 leaves the choice to PyTorch."""
        text = str(qt.QSettings().value("MKDSegmentation/Threads", "0"))
        return int(text) if text.isdecimal() else 0

    @threads.setter
    def threads(self, count: int) -> None:
        qt.QSettings().setValue("MKDSegmentation/Threads", str(count))

    @property
    def weightsFolder(self) -> str:
        """Where downloaded weights are kept: chosen by the user, else beside Slicer's settings."""
        return _storedText("MKDSegmentation/WeightsFolder", self.defaultWeightsFolder)

    @property
    def defaultWeightsFolder(self) -> str:
        """Where downloaded weights are kept if the user chose no folder."""
        return os.path.join(os.path.dirname(slicer.app.slicerUserSettingsFilePath), "MKDSegmentation")

    @weightsFolder.setter
    def weightsFolder(self, path: str) -> None:
        qt.QSettings().setValue("MKDSegmentation/WeightsFolder", path)

    def speedFactor(self, device: str) -> float:
        """How many times as long as estimated runs took on a device here; 1 as long as nobody knows."""
        try:
            factor = float(qt.QSettings().value(f"MKDSegmentation/Slowness/{device}", "1"))
        except (TypeError, ValueError):
            return 1.0
        return factor if 0.0 < factor < 1000.0 else 1.0

    def setSpeedFactor(self, device: str, factor: float) -> None:
        """Remember how many times as long as estimated runs take on a device here."""
        qt.QSettings().setValue(f"MKDSegmentation/Slowness/{device}", f"{factor:.3f}")


@dataclass(frozen=True)
class RunOptions:
    """How one run computes, and what it gives.

    modality - "CT" or "MR".
    device - "auto", "cpu", "cuda", "cuda:1", "mps".
    weightsPath - weights bundle; empty for the one that comes with the extension.
    structures - keys of the structures wanted (see mkd_core.structures), or the name of a set of them (see
        mkd_core.protocol); None for those that the weights know.
    segmentor - whose output counts: "ensemble" of both, "real" for S_real alone, "synthetic" for S_syn alone.
    withDisagreement - also give a volume that shows where the two segmentors differ, 0 to 1.
    withAligned - also give the volume as image alignment rendered it.
    threads - processor threads to compute with; 0 leaves the choice to PyTorch, which takes one for each core.
    edits - what becomes of segments of an earlier run that were edited since: "refuse" does not run, "replace" replaces
        them, "keep" writes into a new segmentation (of a sequence: leaves frames with edits as they are).
    box - bounds (x0, x1, y0, y1, z0, z1) of a box round the heart in the world, LPS mm (see scene.heartBox); None finds
        the heart automatically.
    firstFrame - what the first frame of a sequence showed of its orientation (see mkd_core.SegmentationOptions), which
        is then not looked for anew; None for a single volume.
    """

    modality: str = "CT"
    device: str = "auto"
    weightsPath: str = ""
    structures: tuple | str | None = None
    segmentor: str = "ensemble"
    withDisagreement: bool = False
    withAligned: bool = False
    threads: int = 0
    edits: str = "refuse"
    box: tuple[float, ...] | None = None
    firstFrame: tuple[str, float] | None = None

    @property
    def bundlePath(self) -> str | None:
        """The weights bundle in the words of the worker's protocol; the worker has another working folder."""
        return os.path.abspath(self.weightsPath) if self.weightsPath else None

    @property
    def structureSet(self) -> str:
        """Name of the smallest set that holds the structures wanted (see mkd_core.protocol)."""
        wanted = () if self.structures is None or isinstance(self.structures, str) else self.structures
        return IN_DETAIL if self.structures == IN_DETAIL or set(DETAILED).intersection(wanted) else WHOLE_HEART

    def forWarming(self) -> SegmentationOptions:
        """Return the part of the options that decides what a worker gets ready."""
        return SegmentationOptions(device=self.device, threads=self.threads or None)

    def forCore(self) -> SegmentationOptions:
        """Return the same in the terms of mkd_core; a request for the extra volumes names their paths."""
        return SegmentationOptions(
            device=self.device,
            threads=self.threads or None,
            structures=self.structures,
            segmentor=self.segmentor,
            box_mm=self.box,
            first_frame=self.firstFrame,
        )
