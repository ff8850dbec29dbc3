"""Segments of ours as DICOM Segmentation and report, on the slices that the volume was loaded from."""

import os
from pathlib import Path

import numpy as np
import slicer

from mkd_core.io import dicom, dicom_out
from mkd_core.io.atomic import OutputFiles
from mkd_core.measure.messages import finding, refusal

from ..run.volumeTransfer import ijkToRas
from .dicomInstances import instancesOf
from .heartGeometry import imageFromArray, labelsOnVolume
from .segmentMeasurement import EDITED, currentReport

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ON_GRID = 0.1  # voxels; a volume whose voxels lie further from those of its slices has been changed


def saveAsDicom(segmentationNode, volumeNode, path: str) -> tuple:
    """Write the segments as they are now, and add both files to Slicer's DICOM database.

    :param volumeNode: volume that was segmented.
    :param path: of the Segmentation, ends in .dcm; one that is there is replaced. The report is written beside it.
    :return: paths of Segmentation and report.
    :raises MKDError: the volume is not from Slicer's DICOM database or no longer lies on its slices, structures
        overlap, highdicom is missing, or a file cannot be written.
    """
    files = sourceFiles(volumeNode)
    target, reportPath = dicom_out.paths(Path(path))
    OutputFiles(inputs=files).check(reportPath)  # for this name nobody was asked
    series = _seriesOf(files, volumeNode)
    headers, stack = dicom.read_source(series)
    report = currentReport(segmentationNode, volumeNode, scale=1.0)
    labels = _onSlices(stack, volumeNode, labelsOnVolume(segmentationNode, volumeNode, report["labels"]))
    edited = [key for key, entry in report["structures"].items() if entry.get("state") == EDITED]
    made = dicom_out.build(series, headers, labels, report, edited=edited)
    with OutputFiles(inputs=files, overwrite=True) as outputs:
        dicom_out.store(outputs, target, *made)
    for file in (target, reportPath):
        slicer.dicomDatabase.insert(str(file), True, False)
    return str(target), str(reportPath)


def sourceFiles(volumeNode) -> list:
    """Return the files that a volume was loaded from.

    :raises MKDError: there is no volume, it did not come from Slicer's DICOM database, or files are gone.
    """
    if volumeNode is None:
        raise refusal(finding("dicom_no_volume"))
    instances = instancesOf(volumeNode)
    if not instances:
        raise refusal(finding("dicom_not_from_database"))
    files = [slicer.dicomDatabase.fileForInstance(instance) for instance in instances]
    gone = sum(not file or not os.path.isfile(file) for file in files)
    if gone:
        raise refusal(finding("dicom_files_gone", count=gone))
    return [Path(file) for file in dict.fromkeys(files)]


def _seriesOf(files: list, volumeNode) -> dicom.Series:
    """Return the volume in these files that has as many voxels as the volume node."""
    size = tuple(volumeNode.GetImageData().GetDimensions())
    found = dicom.index(files).series
    fitting = [one for one in found if one.problem is None and one.size == size]
    if len(fitting) == 1:
        return fitting[0]
    problems = [one.problem for one in found if one.problem is not None]
    raise refusal(problems[0] if problems and not fitting else finding("dicom_volume_changed"))


def _onSlices(stack: dicom.Stack, volumeNode, labels: np.ndarray) -> np.ndarray:
    """Return labels on a volume's voxels as labels (N, Y, X) on the slices that it was loaded from."""
    ijkToLps = _RAS_TO_LPS @ ijkToRas(volumeNode)
    axes = stack.direction * stack.spacing
    if stack.aside is not None:  # Slicer puts the slices of a tilted gantry straight, under a transform
        if not np.allclose(ijkToLps[:3, :3], axes, atol=_ON_GRID * min(stack.spacing)):
            raise refusal(finding("dicom_volume_changed"))
        return labels
    last = np.array(labels.shape[::-1]) - 1
    corners = np.array(np.meshgrid(*([0, side] for side in last))).reshape(3, -1)
    lpsToIjk = np.linalg.inv(ijkToLps)
    places = lpsToIjk[:3, :3] @ (axes @ corners + stack.origin[:, None]) + lpsToIjk[:3, 3:]
    nearest = np.rint(places)
    isWhole = not nearest.min(axis=1).any() and (nearest.max(axis=1) == last).all()
    if np.abs(places - nearest).max() > _ON_GRID or not isWhole:
        raise refusal(finding("dicom_volume_changed"))
    return stack.labels_on(imageFromArray(labels, ijkToRas(volumeNode)))
