"""Volumes on their way between the module and the worker: uncompressed NRRD files, written and read by numpy.

ITK is not asked to open them, because on Windows it cannot open a path outside the code page, which a user's name may
well be.  They are written and read plane by plane where a large volume must not hold up an application.  The format is
described at https://teem.sourceforge.net/nrrd/format.html.

Importing this module imports numpy alone.
"""

from __future__ import annotations

import math
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk

_TYPES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "unsigned char", "uchar", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "unsigned short", "ushort", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "unsigned int", "uint", "uint32_t"),
    "i8": ("int64", "long long", "longlong", "long long int", "signed long long", "signed long long int", "int64_t"),
    "u8": ("uint64", "unsigned long long", "ulonglong", "unsigned long long int", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}
_LONGEST_HEADER = 1 << 16


def header(shape: tuple[int, ...], kind: np.dtype, ijk_to_lps: np.ndarray) -> bytes:
    """The header of a three-dimensional volume; the voxels follow it in C order.

    Args:
        shape: ``(k, j, i)``.
        kind: type of the voxels, in this computer's byte order.
        ijk_to_lps: (4, 4); from voxel indices (i, j, k) to LPS in mm.

    Raises:
        ValueError: NRRD has no name for the type.
    """
    code = np.dtype(kind).str[1:]
    if code not in _TYPES:
        raise ValueError(f"Voxels of type {kind} cannot be written.")

    def vector(values: np.ndarray) -> str:
        return "(" + ",".join(repr(float(value)) for value in values) + ")"

    lines = [
        "NRRD0004",
        f"type: {_TYPES[code][0]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(size) for size in reversed(shape)),
        "space directions: " + " ".join(vector(ijk_to_lps[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: {vector(ijk_to_lps[:3, 3])}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


class ExchangeFile:
    """A volume in an uncompressed NRRD file, read plane by plane.  It is read and not mapped: a disk that fails while a
    file is mapped ends the process.

    Attributes:
        shape: ``(k, j, i)``.
        dtype: type of the voxels in the file.
        ijk_to_lps: (4, 4); from voxel indices (i, j, k) to LPS in mm.

    Args:
        path: of the file.

    Raises:
        ValueError: it is not such a file, or incomplete.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        with self._path.open("rb") as file:
            start = file.read(_LONGEST_HEADER)
            size = os.fstat(file.fileno()).st_size
        text, separator, _ = start.partition(b"\n\n")
        lines = text.decode("ascii", errors="replace").splitlines()
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        code = _CODES.get(fields.get("type", ""))
        if not (start.startswith(b"NRRD") and separator and code and fields.get("encoding") == "raw"):
            raise ValueError("The file is no uncompressed volume.")
        if any(name in fields for name in ("data file", "datafile", "byte skip", "line skip")):
            raise ValueError("The file keeps its voxels elsewhere.")
        if code[1] != "1" and fields.get("endian") not in ("little", "big"):
            raise ValueError("The file does not tell its byte order.")
        self.dtype = np.dtype(code).newbyteorder(">" if fields.get("endian") == "big" else "<")
        self.shape = tuple(int(count) for count in reversed(fields.get("sizes", "").split()))
        self.ijk_to_lps = _geometry(fields)
        self._offset = len(text) + len(separator)
        if len(self.shape) != 3 or size != self._offset + math.prod(self.shape) * self.dtype.itemsize:
            raise ValueError("The file is incomplete.")

    def planes(self, first: int, end: int) -> np.ndarray:
        """The planes from the first to the one before the end along the first axis, ``(end - first, j, i)``.

        Raises:
            ValueError: the file has become shorter.
            OSError: it cannot be read.
        """
        plane_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        with self._path.open("rb") as file:
            file.seek(self._offset + first * plane_bytes)
            voxels = file.read((end - first) * plane_bytes)
        if len(voxels) != (end - first) * plane_bytes:
            raise ValueError("The file is incomplete.")
        planes = np.frombuffer(voxels, self.dtype).reshape(end - first, *self.shape[1:])
        return planes.astype(self.dtype.newbyteorder("="), copy=False)

    def read(self) -> np.ndarray:
        """All voxels, ``(k, j, i)``; raises what :meth:`planes` does."""
        return self.planes(0, self.shape[0])


def _geometry(fields: dict[str, str]) -> np.ndarray:
    if fields.get("space") != "left-posterior-superior":
        raise ValueError("The file is not in the LPS frame.")
    matrix = np.eye(4)
    try:
        for axis, vector in enumerate(fields["space directions"].split()):
            matrix[:3, axis] = _vector(vector)
        matrix[:3, 3] = _vector(fields["space origin"])
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError("The file does not tell where the volume lies.") from error
    return matrix


def _vector(text: str) -> list[float]:
    return [float(number) for number in text.strip("()").split(",")]


def read_image(path: Path | str) -> sitk.Image:
    """Read a volume from an uncompressed NRRD file.

    Raises:
        ValueError: it is not such a file, or incomplete.
        OSError: it cannot be read.
    """
    import SimpleITK as sitk

    file = ExchangeFile(path)
    image = sitk.GetImageFromArray(file.read())
    spacing = np.linalg.norm(file.ijk_to_lps[:3, :3], axis=0)
    if not (np.isfinite(spacing).all() and spacing.min() > 0):
        raise ValueError("The file has an impossible voxel spacing.")
    image.SetSpacing(spacing.tolist())
    image.SetDirection((file.ijk_to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(file.ijk_to_lps[:3, 3].tolist())
    return image


def write_image(image: sitk.Image, path: Path | str) -> None:
    """Write a volume as an uncompressed NRRD file that only this user can read; it appears when it is complete.

    Raises:
        OSError: it cannot be written.
    """
    import SimpleITK as sitk

    path = Path(path)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    voxels = np.ascontiguousarray(sitk.GetArrayViewFromImage(image))
    draft = path.with_name(f".mkd-{secrets.token_hex(8)}.nrrd")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(draft, flags, stat.S_IRUSR | stat.S_IWUSR), "wb") as file:
            file.write(header(voxels.shape, voxels.dtype, matrix))
            file.write(voxels.data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
