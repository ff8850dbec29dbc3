"""The way of a volume to the worker and of its label map back, through files in a folder that only this user can read.

Files hold voxels and geometry only: no patient name, no DICOM attribute, neither inside nor in a file name. Files are
read and written by numpy: ITK cannot open a path outside the code page of Windows.

Geometry is what is seen: that of the volume under its linear parent transforms, so that the networks know which side is
up and volumes in ml are those of the world. Labels come back on the same voxels, and the segmentation gets the same
parent transform, so they lie on exactly the volume's own grid. A non-linear transform cannot be told by a grid; under
one the volume's own geometry is handed over.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from mkd_core.io.nrrd import ExchangeFile, header
from mkd_core.measure.messages import finding
from mkd_core.measure.steps import all_at_once
from mkd_core.protocol import MIN_SIDE, SHEAR_TOLERANCE
from mkd_core.structures import STRUCTURES

from ..scene.findingTexts import findingText
from .privateFolder import PrivateFolder, openPrivate

PIECE_BYTES = 8 * 1024 * 1024  # written or read in one step; takes a hundredth of a second or two
_FREED_BYTES = 4 * PIECE_BYTES  # of a file, in one step
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_SCALE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LabelBlock:
    """The labelled part of a volume's grid.

    values - uint8 array (k, j, i) of the smallest block that holds all labels.
    start - index (k, j, i) of the block's first voxel in the volume.
    """

    values: np.ndarray
    start: tuple


@dataclass(frozen=True)
class Overlay:
    """A volume that lies over another one, under the same transform.

    voxels - array (k, j, i).
    ijkToRas - 4 x 4 matrix from voxel indices (i, j, k) to the RAS frame of the other volume in mm.
    """

    voxels: np.ndarray
    ijkToRas: np.ndarray


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
    own = ijkToRas(volumeNode)
    if not _isInvertible(own):
        return _("The selected volume has an impossible voxel spacing.")
    if _shear(own) > SHEAR_TOLERANCE:
        return findingText(finding("sheared"))
    if not _isInvertible(linearToWorld(volumeNode)):
        return _("The transform of the selected volume flattens it. Correct it in the module Transforms.")
    return ""


def ijkToRas(volumeNode) -> np.ndarray:
    """Return the 4 x 4 matrix from voxel indices (i, j, k) to the volume's own RAS frame in mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def linearToWorld(volumeNode) -> np.ndarray:
    """Return the 4 x 4 matrix from the volume's own RAS frame to the world, the identity under a non-linear
    transform.
    """
    transform = volumeNode.GetParentTransformNode()
    if transform is None or not transform.IsTransformToWorldLinear():
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@dataclass(frozen=True)
class WorldGrid:
    """A volume's grid as it lies in the world, in a form that an image file can hold.

    ijkToRas - 4 x 4 matrix from voxel indices (i, j, k) to RAS of the world in mm, with axes at right angles.
    volumeFactor - what a volume measured on that grid is multiplied by to be the one in the world: 1, unless a
        transform shears the grid.
    scales - True if a transform changes lengths, so that volumes in ml are not those of the stored voxels.
    shears - True if a transform shears the grid.
    """

    ijkToRas: np.ndarray
    volumeFactor: float = 1.0
    scales: bool = False
    shears: bool = False

    @classmethod
    def of(cls, volumeNode, toWorld: np.ndarray | None = None) -> "WorldGrid":
        """Return the grid of a volume node.

        :param toWorld: 4 x 4 matrix from the volume's own frame to the world; None for that of its transforms.
        """
        toWorld = linearToWorld(volumeNode) if toWorld is None else toWorld
        seen = toWorld @ ijkToRas(volumeNode)
        stretch = np.linalg.svd(toWorld[:3, :3], compute_uv=False)
        scales = bool(np.abs(stretch - 1.0).max() > _SCALE_TOLERANCE)
        if _shear(seen) <= SHEAR_TOLERANCE:
            return cls(seen, scales=scales)
        lengths = np.linalg.norm(seen[:3, :3], axis=0)
        left, _stretch, right = np.linalg.svd(seen[:3, :3] / lengths)
        upright = seen.copy()
        upright[:3, :3] = (left @ right) * lengths  # the nearest grid whose axes are at right angles
        factor = abs(np.linalg.det(seen[:3, :3])) / float(np.prod(lengths))
        return cls(upright, factor, scales=scales, shears=True)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along i, j, k in mm."""
        return np.linalg.norm(self.ijkToRas[:3, :3], axis=0)


def _isInvertible(matrix: np.ndarray) -> bool:
    return bool(np.isfinite(matrix).all()) and np.linalg.matrix_rank(matrix[:3, :3]) == 3


def _shear(matrix: np.ndarray) -> float:
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def setVolumeFromImage(volumeNode, image) -> None:
    """Give a volume node the voxels and the grid of a SimpleITK image (LPS)."""
    setVolume(volumeNode, *voxelsAndGrid(image))


def voxelsAndGrid(image) -> tuple:
    """Return the voxels (k, j, i) of a SimpleITK image (LPS) and the 4 x 4 matrix from (i, j, k) to RAS in mm."""
    import SimpleITK as sitk  # here, because it takes a while and Slicer loads this file at its start

    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    matrix[:3] *= _RAS_TO_LPS[:, np.newaxis]
    return sitk.GetArrayFromImage(image), matrix


def setVolume(volumeNode, voxels: np.ndarray, ijkToRasArray: np.ndarray) -> None:
    """Give a volume node voxels (k, j, i) and a grid, the 4 x 4 matrix from (i, j, k) to RAS in mm."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(ijkToRasArray.ravel().tolist())
    volumeNode.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(volumeNode, voxels)


def _planesPerPiece(shape: tuple, itemBytes: int) -> int:
    """Return how many planes along the first axis make a piece."""
    return max(1, PIECE_BYTES // max(1, shape[1] * shape[2] * itemBytes))


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

    def writeVolume(self, volumeNode, grid: WorldGrid | None = None) -> None:
        """Write the voxels in one go; see :meth:`writeVolumeInPieces`."""
        for _done in self.writeVolumeInPieces(volumeNode, grid):
            pass

    def writeVolumeInPieces(self, volumeNode, grid: WorldGrid | None = None):
        """Write the voxels, uncompressed because reading and writing is then faster than any compression.

        A generator: each step writes a few megabytes and yields the fraction done. The voxels must not change
            meanwhile.

        :param grid: where the voxels lie in the world; None for where the volume's transforms put them.
        :raises OSError: if the disk is full or the folder cannot be written; the message is for the user.
        """
        voxels = slicer.util.arrayFromVolume(volumeNode)
        self._requireSpace(2 * voxels.nbytes)
        ijkToLps = (grid or WorldGrid.of(volumeNode)).ijkToRas.copy()
        ijkToLps[:3] *= _RAS_TO_LPS[:, np.newaxis]
        step = _planesPerPiece(voxels.shape, voxels.itemsize)
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
        return all_at_once(self.readLabelsInPieces(volumeNode))

    def readLabelsInPieces(self, volumeNode, largestLabel: int = len(STRUCTURES)):
        """Read the worker's label map and cut it to its labels.

        A generator: each step looks at a few megabytes and yields; the value that it returns at last is a
        :class:`LabelBlock`, or None if nothing is labelled.

        :param largestLabel: label values above it mean nothing.
        :raises ValueError: if the file is no label map on the volume's grid.
        :raises OSError: if it cannot be read.
        """
        labels = ExchangeFile(self.labelPath)
        if labels.dtype != np.uint8:
            raise ValueError("The label map does not consist of bytes.")
        if labels.shape != tuple(reversed(volumeNode.GetImageData().GetDimensions())):
            raise ValueError("The label map is not on the grid of the volume.")
        occupied = [np.zeros(size, bool) for size in labels.shape]
        step = _planesPerPiece(labels.shape, 1)
        for plane in range(0, labels.shape[0], step):
            piece = labels.planes(plane, min(plane + step, labels.shape[0]))
            if piece.max() > largestLabel:
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

    def readOverlay(self, path: str, volumeNode, grid: WorldGrid) -> "Overlay":
        """Read a volume of the worker that lies over the one that was handed to it.

        :param grid: with which that one was handed over.
        :raises ValueError: if it is no volume.
        :raises OSError: if it cannot be read.
        """
        file = ExchangeFile(path)
        inWorld = file.ijk_to_lps.copy()
        inWorld[:3] *= _RAS_TO_LPS[:, np.newaxis]
        toOwn = ijkToRas(volumeNode) @ np.linalg.inv(grid.ijkToRas)
        return Overlay(file.read(), toOwn @ inWorld)

    def reasonFilesAreGone(self) -> str:
        """Return a sentence if somebody cleared the folder under the run, or an empty string."""
        if os.path.exists(self.volumePath):
            return ""
        return _("The temporary folder {folder} was cleared during the segmentation. Click Segment again.").format(
            folder=os.path.dirname(self.folder)
        )

    def removeInSteps(self):
        """Delete the folder with all that is in it; a generator, for to give back at once what a large file holds takes
        a moment. The files must have been read.
        """
        for path in (self.volumePath, self.labelPath):
            with contextlib.suppress(OSError):  # what is left goes with the folder
                for size in range(os.path.getsize(path), 0, -_FREED_BYTES):
                    os.truncate(path, max(0, size - _FREED_BYTES))
                    yield
        self.remove()
        yield

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        self._privateFolder.remove()


def _cannotWrite(folder: str, error: OSError) -> OSError:
    return OSError(
        _(
            "The temporary folder {folder} cannot be written ({reason}). Choose another in the application settings."
        ).format(folder=folder, reason=error.strerror or error)
    )
