"""A result of an archive run comes into the scene, while the application goes on."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from mkd_core import __version__ as coreVersion
from mkd_core.protocol import Report, parse_report
from mkd_core.structures import labelled

from ..scene.measurements import writeMeasurementsTable
from ..scene.ourSegments import boundingBox
from ..scene.provenance import keepReport
from ..scene.segmentationWriting import writeSegmentation
from ..scene.segmentMeasurement import currentReport, figuresInSteps
from .batchRun import BatchRow
from .volumeTransfer import LabelBlock, setVolume, voxelsAndGrid

#: Longest wait for the thread that reads in one turn of the event loop, s.
_TURN_S = 0.01


@dataclass(frozen=True)
class _Files:
    """What is read of a result.

    voxels, ijkToRas - of the volume: array (k, j, i), and 4 x 4 matrix from (i, j, k) to RAS in mm.
    window - values of the volume that are shown black and white.
    """

    voxels: np.ndarray
    ijkToRas: np.ndarray
    window: tuple
    labels: LabelBlock
    report: Report


def openingSteps(results: str, row: BatchRow):
    """Load the volume of a finished row and its segmentation into the scene; a generator of short steps.

    A thread reads the files. The scene is touched in the last step only.

    :param results: folder of the archive run.
    :raises MKDError: if one of the files cannot be read.
    :raises OSError: if one of them is not there.
    :raises ValueError: if the label map is not that of the volume.
    """
    files = yield from _inThread(lambda: _read(Path(results), row.source))
    volume = slicer.vtkMRMLScalarVolumeNode()
    setVolume(volume, files.voxels, files.ijkToRas)
    yield
    structures = labelled(files.report["labels"])
    figures = yield from figuresInSteps(files.labels, structures, volume)
    volume.SetName(slicer.mrmlScene.GenerateUniqueName(row.name))
    slicer.mrmlScene.AddNode(volume)
    _addDisplay(volume, files.window)
    segmentation = writeSegmentation(files.labels, volume, None, f"MKDSegmentation {coreVersion}", structures, figures)
    keepReport(segmentation, files.report)
    writeMeasurementsTable(currentReport(segmentation, volume), segmentation)
    row.volume, row.segmentation = volume, segmentation


def _addDisplay(volume, window: tuple) -> None:
    """Let a volume be shown in a window that is known; to find one, Slicer looks at all voxels twice."""
    display = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(*window)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    volume.SetAndObserveDisplayNodeID(display.GetID())


def _read(results: Path, source: dict) -> _Files:
    import SimpleITK as sitk  # here, because it takes a while

    from mkd_core.archive.study import opened_volume, result_folder
    from mkd_core.io.preview import shown_range
    from mkd_core.io.volumes import read_volume

    folder = result_folder(results, source["id"])
    report = parse_report(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    labels = read_volume(folder / "labels.nrrd")
    with opened_volume(source["source"]) as image:
        if image.GetSize() != labels.GetSize():
            raise ValueError(_("The volume is no longer the one that was segmented."))
        voxels, ijkToRas = voxelsAndGrid(image)
    window = shown_range(voxels, report.get("modality", "CT"))
    array = sitk.GetArrayViewFromImage(labels)
    box = boundingBox(array > 0) or tuple(slice(0, 1) for _axis in range(3))
    return _Files(
        voxels, ijkToRas, window, LabelBlock(array[box].astype(np.uint8), tuple(side.start for side in box)), report
    )


def _inThread(function):
    """Call a function in a thread of its own; a generator that returns its value. A thread that nobody waits for any
    more ends by itself.
    """
    outcome: dict = {}

    def work() -> None:
        try:
            outcome["value"] = function()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_TURN_S)
        yield
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
