"""A folder with one DICOM series, and whether its slices make a volume.

ITK stacks whatever slices it is given: missing ones shift all that follow, and those of a tilted gantry are put
    straight above each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
import numpy as np

from mkd_core.errors import InputError
from mkd_core.protocol import MODALITY_TAG

#: Position and orientation of a slice in the patient.
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"

#: Slices lie at even distances if none is further from its place than this, in distances.
_UNEVEN = 0.1

#: Slices nearer than this lie at the same place, mm.
_SAME_PLACE = 0.01

#: Slices lie straight above each other if none is further aside than this, in mm and as a share of the height of the
#: stack.
_ASIDE_MM, _ASIDE_SHARE = 0.05, 2e-3

_IMPORT_AGAIN = "Export the series anew, or load it in 3D Slicer, look whether it is complete, and save it as .nrrd."


@dataclass(frozen=True)
class _Slice:
    """A file of the series: its name, voxels along x, y and z, position (3,) of its first voxel in mm, directions (2,
    3) of rows and columns.
    """

    name: str
    size: tuple[int, ...]
    position: np.ndarray
    directions: np.ndarray


def series_files(folder: Path) -> list[str]:
    """Files of the only series in a folder, from the first slice to the last along its normal.

    Raises:
        InputError: no series or several, or slices that do not make a volume: missing, several at one place, sheared,
            of different sizes.
        RuntimeError: GDCM cannot read a file.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise InputError(
            f"The folder “{folder.name}” holds no DICOM series.",
            "Choose an image file, or a folder with one DICOM series.",
        )
    if len(series) > 1:
        raise InputError(
            f"The folder “{folder.name}” holds {len(series)} DICOM series.",
            "Put the wanted series into a folder of its own.",
        )
    slices = [_read_slice(name) for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])]
    _check_alike(slices, folder)
    first = slices[0]
    normal = np.cross(*first.directions)
    slices.sort(key=lambda part: float(part.position @ normal))
    _check_stack(np.array([part.position - slices[0].position for part in slices]), normal, folder)
    return [part.name for part in slices]


def _read_slice(name: str) -> _Slice:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    numbers = {}
    for tag, count in ((_POSITION, 3), (_ORIENTATION, 6)):
        try:
            numbers[tag] = np.array([float(value) for value in reader.GetMetaData(tag).split("\\")])
        except (RuntimeError, ValueError):
            numbers[tag] = np.empty(0)
        if numbers[tag].shape != (count,) or not np.isfinite(numbers[tag]).all():
            raise InputError(
                f"The DICOM file “{Path(name).name}” does not say where in the patient its slice lies.",
                "Choose the original axial series of the scanner.",
            )
    return _Slice(name, reader.GetSize(), numbers[_POSITION], numbers[_ORIENTATION].reshape(2, 3))


def _check_alike(slices: list[_Slice], folder: Path) -> None:
    first = slices[0]
    for part in slices:
        if part.size[2:] not in ((), (1,)):
            raise InputError(
                f"The DICOM file “{Path(part.name).name}” holds several slices.",
                "Load it in 3D Slicer and save it as .nrrd.",
            )
        if part.size != first.size or np.abs(part.directions - first.directions).max() > 1e-3:
            raise InputError(
                f"The slices in “{folder.name}” differ in size or direction, as those of a scout or a localiser do.",
                "Put the slices of one volume into a folder of their own.",
            )


def _check_stack(offsets: np.ndarray, normal: np.ndarray, folder: Path) -> None:
    """Check the places of the slices, (N, 3) from the first on, mm."""
    if len(offsets) < 2:
        return
    heights = offsets @ normal
    steps = np.diff(heights)
    if steps.min() < _SAME_PLACE:
        raise InputError(
            f"Several slices in “{folder.name}” lie at the same place, as those of a beating heart do.",
            "Put the slices of one phase into a folder of their own, or load the series in 3D Slicer and save one "
            "frame.",
        )
    step = float(np.median(steps))
    if steps.max() > (2 - _UNEVEN) * step:
        count = int(np.rint(steps[steps > (2 - _UNEVEN) * step] / step - 1).sum())
        at = int(steps.argmax())
        raise InputError(
            f"Slices are missing in “{folder.name}”, about {count} in all: slices {at + 1} and {at + 2} lie "
            f"{steps[at]:.3g} mm apart, "
            f"others {step:.3g} mm.",
            _IMPORT_AGAIN,
        )
    even = np.linspace(0, heights[-1], len(heights))
    if np.abs(heights - even).max() > _UNEVEN * step:
        raise InputError(
            f"The slices in “{folder.name}” lie at uneven distances, from {steps.min():.3g} to {steps.max():.3g} mm.",
            _IMPORT_AGAIN,
        )
    aside = np.linalg.norm(offsets - heights[:, None] * normal, axis=1)
    if aside.max() > _ASIDE_MM + _ASIDE_SHARE * heights[-1]:
        raise InputError(
            f"The slices in “{folder.name}” do not lie straight above each other: the gantry was tilted, by about "
            f"{np.degrees(np.arctan2(aside[-1], heights[-1])):.0f}°.",
            "Load the series in 3D Slicer, resample it with Crop Volume, and save it as .nrrd.",
        )


def series_modality(file: str) -> str:
    """What a DICOM file says that it is, empty if it does not.

    Raises:
        RuntimeError: GDCM cannot read the file.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader.GetMetaData(MODALITY_TAG).strip() if reader.HasMetaDataKey(MODALITY_TAG) else ""
