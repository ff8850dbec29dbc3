"""The way of a volume to the worker and of its label map back, through files in a folder that only this user can read.

Files hold voxels and geometry only: no patient name, no DICOM attribute, neither inside nor in a file name. Geometry is the volume's own;
a parent transform plays no part here, the segmentation gets the same one later.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

SMALLEST_SIDE = 8  # voxels; the pipeline refuses less
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
    if image is None or image.GetNumberOfPoints() == 0:
        return _("The selected volume has no voxels.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("The selected volume has colours or vectors; a volume with one value per voxel is needed.")
    if min(image.GetDimensions()) < SMALLEST_SIDE:
        return _("The selected volume has too few slices or voxels; a three-dimensional volume is needed.")
    columns = ijkToRas(volumeNode)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(lengths)) or lengths.min() <= 0:
        return _("The selected volume has an impossible voxel spacing.")
    directions = columns / lengths
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3:
        return _("The slices of the selected volume are sheared; resample it first, for example with Crop Volume.")
    return ""


def ijkToRas(volumeNode) -> np.ndarray:
    """Return the 4 x 4 matrix from voxel indices (i, j, k) to the volume's own RAS frame in mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


class VolumeTransfer:
    """A private folder for one run; call :meth:`remove` when the run is over, however it ends.

    :raises OSError: if the folder cannot be made; the message is for the user.
    """

    def __init__(self) -> None:
        try:
            # mkdtemp gives a folder that only this user can enter
            self.folder = tempfile.mkdtemp(prefix="mkd-", dir=slicer.app.temporaryPath or None)
        except OSError as error:
            raise _cannotWrite(slicer.app.temporaryPath, error) from error
        self.volumePath = os.path.join(self.folder, "volume.nrrd")
        self.labelPath = os.path.join(self.folder, "labels.nrrd")

    def writeVolume(self, volumeNode) -> None:
        """Write the voxels, uncompressed because reading and writing is then faster than any compression.

        :raises OSError: if the disk is full or the folder cannot be written; the message is for the user.
        """
        import SimpleITK as sitk  # here, because it takes a while and Slicer loads this file at its start

        matrix = ijkToRas(volumeNode)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        image = sitk.GetImageFromArray(slicer.util.arrayFromVolume(volumeNode))
        image.SetSpacing(spacing.tolist())
        image.SetOrigin((_RAS_TO_LPS * matrix[:3, 3]).tolist())
        image.SetDirection((_RAS_TO_LPS[:, np.newaxis] * matrix[:3, :3] / spacing).ravel().tolist())
        voxelBytes = image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
        if shutil.disk_usage(self.folder).free < 2 * voxelBytes:
            raise OSError(_("There is not enough free space in the temporary folder {folder}.").format(folder=self.folder))
        try:
            sitk.WriteImage(image, self.volumePath, useCompression=False)
        except RuntimeError as error:  # SimpleITK's only kind
            raise _cannotWrite(self.folder, error) from error

    def readLabels(self, volumeNode) -> LabelBlock | None:
        """Read the worker's label map and cut it to its labels; None if nothing is labelled.

        :raises ValueError: if the label map is not on the volume's grid.
        """
        import SimpleITK as sitk

        image = sitk.ReadImage(self.labelPath)
        if image.GetSize() != volumeNode.GetImageData().GetDimensions():
            raise ValueError("The label map is not on the grid of the volume.")
        labels = sitk.GetArrayViewFromImage(image)
        bounds = []
        block = labels
        for axis in range(3):
            occupied = np.flatnonzero(block.any(axis=tuple(other for other in range(3) if other != axis)))
            if occupied.size == 0:
                return None
            bounds.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
            block = labels[tuple(bounds)]  # the next axes search less
        return LabelBlock(np.ascontiguousarray(block, dtype=np.uint8), tuple(bound.start for bound in bounds))

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _cannotWrite(folder: str, error: Exception) -> OSError:
    return OSError(_("The temporary folder {folder} cannot be written ({reason}). Choose another in the application settings.").format(
        folder=folder, reason=str(error).strip().splitlines()[-1]))
