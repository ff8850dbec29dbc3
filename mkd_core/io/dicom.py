"""A folder with one DICOM series, and whether its slices make a volume.

ITK stacks whatever slices it is given: missing ones shift all that follow, those of a tilted gantry are put straight
above each other, and where a file does not state its voxel size a default takes its place.  So the place of every slice
is read from its tags, and what does not fit is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io.integrity import cut_off, orthonormalised, without_voxel_size
from mkd_core.protocol import MODALITY_TAG, Finding

#: Position and orientation of a slice in the patient, and the distances of its rows and columns.
_POSITION, _ORIENTATION, _SPACING = "0020|0032", "0020|0037", "0028|0030"

_SERIES, _INSTANCE = "0020|000e", "0008|0018"

#: Fewest slices of a volume; a series with fewer is a scout or a localiser if there is one with more.
_FEWEST_SLICES = 8

#: Classes of DICOM objects that are images of a scanner (DICOM PS3.4, B.5), after this prefix.  A file of another
#: class, such as a report, is no part of a volume.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_IMAGES = ("1", "1.1", "2", "2.1", "2.2", "4", "4.1", "4.4", "7", "7.2", "7.3", "20", "128", "130")

#: Slices have the same voxel size if it differs by no more than this, as a share.
_SAME_SIZE = 1e-3

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
    """A file of a series: voxels along x, y and z, position (3,) of its first voxel and distances (2,) of its rows and
    columns in mm, directions (2, 3) of rows and columns; numbers are missing where the file does not state them.
    """

    path: Path
    name: str
    series: str
    instance: str
    modality: str
    size: tuple[int, ...]
    position: np.ndarray | None
    directions: np.ndarray | None
    spacing: np.ndarray | None

    @property
    def geometry(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position, directions and spacing of a slice that states them all."""
        assert self.position is not None and self.directions is not None and self.spacing is not None
        return self.position, self.directions, self.spacing


def read_series(folder: Path) -> tuple[sitk.Image, list[Finding]]:
    """The only series in a folder as a volume, slices from the first to the last along their normal.

    A folder as it is exported is read as well: a second copy of a slice, a scout of a few slices, reports, the
    directory file of a disc, and series one level or more below.

    Raises:
        InputError: no series or several, or slices that do not make a volume: missing, cut off, several at one place,
            sheared, of different sizes, without place or voxel size.
        RuntimeError: GDCM cannot read a file.
        OSError: a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        slices = _only_series(
            _read_slices(_files(folder, below=False), stack) or _read_slices(_files(folder, True), stack), folder
        )
        slices = _without_copies(slices)
        _check_alike(slices, folder)
        _, directions, (rows, columns) = slices[0].geometry
        normal = np.cross(*directions)
        slices.sort(key=lambda part: float(part.geometry[0] @ normal))
        origin = slices[0].geometry[0]
        offsets = np.array([part.geometry[0] - origin for part in slices])
        _check_stack(offsets, normal, folder)
        image = sitk.ReadImage([part.name for part in slices])
    height = float(offsets[-1] @ normal) / (len(slices) - 1) if len(slices) > 1 else image.GetSpacing()[2]
    direction = orthonormalised(np.column_stack([*directions, normal]))
    if direction is None:
        raise InputError(f"The axes of the slices in “{folder.name}” are not at right angles.", _IMPORT_AGAIN)
    image.SetSpacing([float(columns), float(rows), height])
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(origin.tolist())
    if slices[0].modality:
        image.SetMetaData(MODALITY_TAG, slices[0].modality)
    return image, []


def _files(folder: Path, below: bool) -> list[Path]:
    """Files that may be slices, hidden ones and the directory of a disc left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if below and not name.startswith("."))
        found += [
            Path(parent, name) for name in sorted(names) if not name.startswith(".") and name.upper() != "DICOMDIR"
        ]
    return found


def _read_slices(paths: Sequence[Path], stack: contextlib.ExitStack) -> list[_Slice]:
    names = stack.enter_context(_names_for_itk([path for path in paths if path.is_file()]))
    return [part for path, name in names if (part := _read_slice(path, name)) is not None]


def _read_slice(path: Path, name: str) -> _Slice | None:
    """A slice; None for a file that is none.

    Raises:
        InputError: it is one, but cannot be read.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if _is_image_object(path):
            raise cut_off(path) from error
        return None

    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""

    def numbers(tag: str, count: int) -> np.ndarray | None:
        try:
            values = np.array([float(value) for value in text(tag).split("\\")])
        except ValueError:
            return None
        return values if values.shape == (count,) and np.isfinite(values).all() else None

    directions = numbers(_ORIENTATION, 6)
    return _Slice(
        path,
        name,
        text(_SERIES),
        text(_INSTANCE),
        text(MODALITY_TAG),
        reader.GetSize(),
        numbers(_POSITION, 3),
        None if directions is None else directions.reshape(2, 3),
        numbers(_SPACING, 2),
    )


def _is_image_object(path: Path) -> bool:
    """Whether the header of a DICOM file says that it is an image of a scanner."""
    with path.open("rb") as file:
        start = file.read(2048)
    if start[128:132] != b"DICM":
        return False
    found = re.search(rb"\x02\0\x02\0UI..([0-9.]+)", start, re.DOTALL)  # (0002,0002) Media Storage SOP Class UID
    if found is None:
        return True
    name = found.group(1).decode("ascii")
    return name.startswith(_STORAGE) and name.removeprefix(_STORAGE) in _IMAGES


def _only_series(slices: list[_Slice], folder: Path) -> list[_Slice]:
    if not slices:
        raise InputError(
            f"The folder “{folder.name}” holds no DICOM series.",
            "Choose an image file, or a folder with one DICOM series.",
        )
    series: dict[str, list[_Slice]] = {}
    for part in slices:
        series.setdefault(part.series, []).append(part)
    volumes = [parts for parts in series.values() if len(parts) >= _FEWEST_SLICES]
    candidates = volumes or list(series.values())
    if len(candidates) > 1:
        raise InputError(
            f"The folder “{folder.name}” holds {len(candidates)} DICOM series.",
            "Put the wanted series into a folder of its own.",
        )
    return candidates[0]


def _without_copies(slices: list[_Slice]) -> list[_Slice]:
    """Leave out files that are copies of another, byte for byte."""
    seen: dict[str, list[_Slice]] = {}
    for part in slices:
        seen.setdefault(part.instance, []).append(part)
    kept = []
    for parts in seen.values():
        digests = {hashlib.sha256(part.path.read_bytes()).digest(): part for part in parts} if len(parts) > 1 else {}
        kept += list(digests.values()) or parts
    return kept


@contextlib.contextmanager
def _names_for_itk(paths: Sequence[Path]) -> Iterator[list[tuple[Path, str]]]:
    """Names under which ITK can open files: their own, or those of links in a temporary folder where their own have
    characters that ITK may not pass on.
    """
    if all(_can_be_passed(str(path)) for path in paths):
        yield [(path, str(path)) for path in paths]
        return
    with tempfile.TemporaryDirectory(prefix="mkd-") as folder:
        names = []
        for number, path in enumerate(paths):
            name = os.path.join(_short(folder), f"{number:06d}.dcm")
            try:
                os.symlink(path.absolute(), name)
            except (OSError, NotImplementedError):  # Windows asks for a privilege
                shutil.copyfile(path, name)
            names.append((path, name))
        yield names


def _can_be_passed(name: str) -> bool:
    if os.name == "nt":
        return name.isascii()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(folder: str) -> str:
    """The folder's name in plain characters, where Windows keeps one."""
    if os.name != "nt" or folder.isascii():
        return folder
    import ctypes

    buffer = ctypes.create_unicode_buffer(1024)
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]  # known on Windows only
    return buffer.value if kernel.GetShortPathNameW(folder, buffer, 1024) else folder


def _check_alike(slices: list[_Slice], folder: Path) -> None:
    for part in slices:
        if part.position is None or part.directions is None:
            raise InputError(
                f"The DICOM file “{part.path.name}” does not say where in the patient its slice lies.",
                "Choose the original axial series of the scanner.",
            )
        if part.spacing is None or part.spacing.min() <= 0:
            raise without_voxel_size(part.path.name)
        if part.size[2:] not in ((), (1,)):
            raise InputError(
                f"The DICOM file “{part.path.name}” holds several slices.",
                "Load it in 3D Slicer and save it as .nrrd.",
            )
    first = slices[0]
    _, first_directions, first_spacing = first.geometry
    for part in slices:
        _, directions, spacing = part.geometry
        if part.size != first.size or np.abs(directions - first_directions).max() > 1e-3:
            raise InputError(
                f"The slices in “{folder.name}” differ in size or direction, as those of a scout or a localiser do.",
                "Put the slices of one volume into a folder of their own.",
            )
        if np.abs(spacing / first_spacing - 1).max() > _SAME_SIZE:
            raise InputError(
                f"The slices in “{folder.name}” differ in voxel size: {_sizes(first_spacing)} mm in “{first.path.name}”"
                f", {_sizes(spacing)} mm in “{part.path.name}”.",
                _IMPORT_AGAIN,
            )


def _sizes(spacing: np.ndarray) -> str:
    return " x ".join(f"{step:.4g}" for step in spacing)


def _check_stack(offsets: np.ndarray, normal: np.ndarray, folder: Path) -> None:
    """Check the places of the slices, (N, 3) from the first on, mm."""
    if len(offsets) < 2:
        return
    heights = offsets @ normal
    steps = np.diff(heights)
    if steps.min() < _SAME_PLACE:
        raise InputError(
            f"Several slices in “{folder.name}” lie at the same place, as those of a beating heart do.",
            "Put the slices of one phase into a folder of their own, "
            "or load the series in 3D Slicer and save one frame.",
        )
    step = float(np.median(steps))
    if steps.max() > (2 - _UNEVEN) * step:
        count = int(np.rint(steps[steps > (2 - _UNEVEN) * step] / step - 1).sum())
        at = int(steps.argmax())
        raise InputError(
            f"Slices are missing in “{folder.name}”, about {count} in all: slices {at + 1} and {at + 2} lie "
            f"{steps[at]:.3g} mm apart, others {step:.3g} mm.",
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
