"""The way of a volume to the worker and of its label map back, through files in a folder that only this user can read.

Files hold voxels and geometry only: no patient name, no DICOM attribute, neither inside nor in a file name. Geometry is
the volume's own; a parent transform plays no part here, the segmentation gets the same one later.
"""

import os
import shutil
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from mkd_core.measure.messages import finding
from mkd_core.protocol import MIN_SIDE, SHEAR_TOLERANCE
from mkd_core.structures import CLASS_COUNT

from ..scene.findingTexts import findingText
from .privateFolder import PrivateFolder, openPrivate
from .rawNrrd import BytesFile, header, planesPerPiece

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class LabelBlock:
    """The labelled part of a volume's grid.

    values - uint8 array (k, j, i) of the smallest block that holds all labels.
    start - index (k, j, i) of the block's first voxel in the volume.
    """

    values: np.ndarray
    start: tuple


def reasonVolumeCannotBeUsed(volumeNode) -> str:
    """Return why the volume cannot be segmented, one sentence, or an empty string if it can.

    Only what is known without reading voxels is judged here; the worker looks at the rest.
    """
    if volumeNode is None:
        return _("Load a CT or MR volume of the heart, or select one.")
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return _("The selected volume has no voxels.")
    if image.GetNumberOfScalarComponents() != 1:
        return findingText(finding("not_scalar"))
    if min(image.GetDimensions()) < MIN_SIDE:
        size = " x ".join(map(str, image.GetDimensions()))
        return findingText(finding("too_few_voxels", size=size, needed=MIN_SIDE))
    columns = ijkToRas(volumeNode)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(lengths)) or lengths.min() <= 0:
        return _("The selected volume has an impossible voxel spacing.")
    directions = columns / lengths
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR_TOLERANCE:
        return findingText(finding("sheared"))
    return ""


def ijkToRas(volumeNode) -> np.ndarray:
    """Return the 4 x 4 matrix from voxel indices (i, j, k) to the volume's own RAS frame in mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def setVolumeFromImage(volumeNode, image) -> None:
    """Give a volume node the voxels and the grid of a SimpleITK image (LPS)."""
    import SimpleITK as sitk  # here, because it takes a while and Slicer loads this file at its start

    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    matrix[:3] *= _RAS_TO_LPS[:, np.newaxis]
    ijkToRasMatrix = vtk.vtkMatrix4x4()
    ijkToRasMatrix.DeepCopy(matrix.ravel().tolist())
    volumeNode.SetIJKToRASMatrix(ijkToRasMatrix)
    slicer.util.updateVolumeFromArray(volumeNode, sitk.GetArrayFromImage(image))


class VolumeTransfer:
    """A private folder for one run; call :meth:`remove` when the run is over, however it ends.

    :raises OSError: if the folder cannot be made; the message is for the user.
    """

    def __init__(self) -> None:
        try:
            self._privateFolder = PrivateFolder(slicer.app.temporaryPath or None)
        except OSError as error:
            raise _cannotWrite(slicer.app.temporaryPath, error) from error
        self.folder = self._privateFolder.path
        self.volumePath = os.path.join(self.folder, "volume.nrrd")
        self.labelPath = os.path.join(self.folder, "labels.nrrd")
        self.disagreementPath = os.path.join(self.folder, "disagreement.nrrd")
        self.alignedPath = os.path.join(self.folder, "aligned.nrrd")

    def writeVolume(self, volumeNode) -> None:
        """Write the voxels in one go; see :meth:`writeVolumeInPieces`."""
        for _done in self.writeVolumeInPieces(volumeNode):
            pass

    def writeVolumeInPieces(self, volumeNode):
        """Write the voxels, uncompressed because reading and writing is then faster than any compression.

        A generator: each step writes a few megabytes and yields the fraction done. The voxels must not change
            meanwhile.

        :raises OSError: if the disk is full or the folder cannot be written; the message is for the user.
        """
        voxels = slicer.util.arrayFromVolume(volumeNode)
        self._requireSpace(2 * voxels.nbytes)
        ijkToLps = ijkToRas(volumeNode)
        ijkToLps[:3] *= _RAS_TO_LPS[:, np.newaxis]
        step = planesPerPiece(voxels.shape, voxels.itemsize)
        try:
            with openPrivate(self.volumePath) as file:
                file.write(header(voxels.shape, voxels.dtype, ijkToLps))
                for plane in range(0, len(voxels), step):
                    file.write(np.ascontiguousarray(voxels[plane : plane + step]).data)
                    yield min(1.0, (plane + step) / len(voxels))
        except OSError as error:
            raise _cannotWrite(self.folder, error) from error

    def _requireSpace(self, size: int) -> None:
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise _cannotWrite(self.folder, error) from error
        if free < size:
            raise OSError(
                _(
                    "There is not enough free space in the temporary folder {folder}. Free some, or choose another "
                    "temporary "
                    "folder in the application settings."
                ).format(folder=os.path.dirname(self.folder))
            )

    def readLabels(self, volumeNode) -> LabelBlock | None:
        """Read the label map in one go; see :meth:`readLabelsInPieces`."""
        reading = self.readLabelsInPieces(volumeNode)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                return end.value

    def readLabelsInPieces(self, volumeNode):
        """Read the worker's label map and cut it to its labels.

        A generator: each step looks at a few megabytes and yields; the value that it returns at last is a
        :class:`LabelBlock`, or None if nothing is labelled.

        :raises ValueError: if the file is no label map on the volume's grid.
        :raises OSError: if it cannot be read.
        """
        labels = BytesFile(self.labelPath)
        if labels.shape != tuple(reversed(volumeNode.GetImageData().GetDimensions())):
            raise ValueError("The label map is not on the grid of the volume.")
        occupied = [np.zeros(size, bool) for size in labels.shape]
        step = planesPerPiece(labels.shape, 1)
        for plane in range(0, labels.shape[0], step):
            piece = labels.planes(plane, min(plane + step, labels.shape[0]))
            if piece.max() >= CLASS_COUNT:
                raise ValueError("The label map holds labels that mean nothing.")
            inRow = piece.any(axis=2)
            occupied[0][plane : plane + step] = inRow.any(axis=1)
            occupied[1] |= inRow.any(axis=0)
            occupied[2] |= piece.any(axis=(0, 1))
            yield
        if not occupied[0].any():
            return None
        low, high = zip(*((int(inside[0]), int(inside[-1]) + 1) for inside in map(np.flatnonzero, occupied)))
        block = np.empty(np.subtract(high, low), np.uint8)
        for plane in range(low[0], high[0], step):
            end = min(plane + step, high[0])
            block[plane - low[0] : end - low[0]] = labels.planes(plane, end)[:, low[1] : high[1], low[2] : high[2]]
            yield
        return LabelBlock(block, low)

    def reasonFilesAreGone(self) -> str:
        """Return a sentence if somebody cleared the folder under the run, or an empty string."""
        if os.path.exists(self.volumePath):
            return ""
        return _("The temporary folder {folder} was cleared during the segmentation. Click Segment again.").format(
            folder=os.path.dirname(self.folder)
        )

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        self._privateFolder.remove()


def _cannotWrite(folder: str, error: OSError) -> OSError:
    return OSError(
        _(
            "The temporary folder {folder} cannot be written ({reason}). Choose another in the application settings."
        ).format(folder=folder, reason=error.strerror or error)
    )
