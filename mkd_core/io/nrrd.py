"""NRRD files: the one reader of their headers, and uncompressed ones read and written piece by piece.

The format is described at https://teem.sourceforge.net/nrrd/format.html.  Needs numpy alone: the module in 3D Slicer
and the worker hand volumes to each other through these functions, whatever characters the folder's name holds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mkd_core.errors import InputError
from mkd_core.io.integrity import (
    BLOCK_BYTES,
    MOST_HEADER_BYTES,
    StoredVolume,
    check_same_size,
    complex_numbers,
    detached,
    text_fields,
    time_series,
    unreadable,
    unusual,
    wrong_dimension,
)
from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding

#: Names of voxel types by numpy's code; the first is the one that is written.
_TYPES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "unsigned char", "uchar", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "unsigned short", "ushort", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "unsigned int", "uint", "uint32_t"),
    "i8": ("int64", "longlong", "long long", "long long int", "signed long long", "signed long long int", "int64_t"),
    "u8": ("uint64", "unsigned long long", "ulonglong", "unsigned long long int", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}

#: Signs of the axes that make LPS of a space.
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "lpst": (1, 1, 1),
    "rast": (-1, -1, 1),
    "last": (1, -1, 1),
}

#: Millimetres in a unit of length.
_UNITS_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    "cm": 10.0,
    "m": 1000.0,
    **dict.fromkeys(("um", "µm", "micron", "microns"), 0.001),
}

#: Kinds of an axis that counts places.
_PLACES = ("domain", "space", "???", "")


def parse(path: Path, content: bytes) -> StoredVolume:
    """The header of a NRRD file; what nobody writes for volumes is refused.

    Args:
        path: the file.
        content: its first bytes.

    Raises:
        InputError: the header makes no sense, or the file holds no volume.
    """
    text, start = _split(content)
    fields = text_fields(path, text, ":")
    name = fields.get("data file", fields.get("datafile"))
    encoding = fields.get("encoding", "").lower()
    if (
        encoding not in ("raw", "gzip", "gz")
        or fields.get("line skip", fields.get("lineskip", "0")) != "0"
        or fields.get("byte skip", fields.get("byteskip", "0")) != "0"
        or (name is None and start is None)
        or (name is not None and (name.split()[:1] == ["LIST"] or "%" in name))
    ):
        raise unusual(path)
    code = _CODES.get(fields.get("type", "").lower())
    try:
        sizes = [int(word) for word in fields.get("sizes", "").split()]
    except ValueError as error:
        raise unreadable(path) from error
    if code is None or not sizes or str(len(sizes)) != fields.get("dimension") or min(sizes) < 1:
        raise unreadable(path)
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower(), None if code[1] != "1" else "=")
    if order is None:
        raise unusual(path)
    places, components = _axes(path, sizes, fields)
    columns, origin, doubts = _geometry(path, places, fields)
    return StoredVolume(
        path,
        path if name is None else detached(path, name),
        (start or 0) if name is None else 0,
        "none" if encoding == "raw" else "voxels",
        np.dtype(order + code),
        components,
        (sizes[places[0]], sizes[places[1]], sizes[places[2]]),
        columns,
        origin,
        doubts=doubts,
    )


def _split(content: bytes) -> tuple[bytes, int | None]:
    """Text of the header, and where what follows it begins; None if nothing follows."""
    ends = [(content.find(gap), len(gap)) for gap in (b"\n\n", b"\n\r\n")]
    ends = [(at, length) for at, length in ends if at >= 0]
    if not ends:
        return content, None
    at, length = min(ends)
    return content[:at], at + length


def _axes(path: Path, sizes: list[int], fields: dict[str, str]) -> tuple[list[int], int]:
    """The three axes that count places, and the values of a voxel; axes of one entry that count something else, such as
    the frames of a sequence with one, do not matter.
    """
    kinds = [kind.lower() for kind in _words(fields.get("kinds", ""), len(sizes))]
    vectors = _vectors(fields.get("space directions", ""))
    if vectors and len(vectors) != len(sizes):
        raise unreadable(path)

    def counts_places(axis: int) -> bool:
        if vectors:
            vector = vectors[axis]
            return vector is not None and (len(vector) < 4 or bool(np.any(vector[:3] != 0)))
        return kinds[axis] in _PLACES

    places = [axis for axis in range(len(sizes)) if counts_places(axis)]
    if len(places) == 4 and not vectors:
        places = places[:3]  # the fourth dimension is time
    others = [axis for axis in range(len(sizes)) if axis not in places and sizes[axis] > 1]
    if any("complex" in kinds[axis] for axis in others):
        raise complex_numbers()
    if any(axis > max(places, default=0) for axis in others):
        raise time_series()
    if len(places) != 3:
        raise wrong_dimension(len(places))
    if len(others) > 1 or any(axis > places[0] for axis in others):
        raise unusual(path)
    return places, sizes[others[0]] if others else 1


def _geometry(
    path: Path, places: list[int], fields: dict[str, str]
) -> tuple[np.ndarray, np.ndarray, tuple[Finding, ...]]:
    space = fields.get("space", "").lower().removesuffix("-time")
    signs = np.array(_SPACES.get(space, (1, 1, 1)), float)
    origin = np.zeros(3)
    doubts: tuple[Finding, ...] = () if space in _SPACES else (finding("no_orientation", file=path.name),)
    stated = _vectors(fields.get("space origin", ""))
    if stated and stated[0] is not None and len(stated[0]) >= 3:
        origin = stated[0][:3] * signs
    unit = _unit(places, fields)
    words = fields.get("spacings", "").split()
    steps = np.array([_number(words[axis]) if axis < len(words) else np.nan for axis in places])
    vectors = _vectors(fields.get("space directions", ""))
    if vectors:
        chosen = [vector[:3] for axis in places if (vector := vectors[axis]) is not None and len(vector) >= 3]
        if len(chosen) < len(places):
            raise unreadable(path)
        columns = np.stack(chosen, axis=1) * signs[:, None]
        check_same_size(path, steps, np.linalg.norm(columns, axis=0))
        return columns * unit, origin * unit, doubts
    return np.diag(steps) * unit, origin, (finding("no_orientation", file=path.name),)


def _unit(places: list[int], fields: dict[str, str]) -> float:
    """Millimetres in the unit of lengths; NaN where axes have different ones, or one that is none of length."""
    words = [word.strip('"').lower() for word in fields.get("space units", "").split()][:3]
    if not words:
        of_axes = [word.strip('"').lower() for word in fields.get("units", "").split()]
        words = [of_axes[axis] for axis in places if axis < len(of_axes)]
    units = {1.0 if word in ("", "???", "none") else _UNITS_MM.get(word, float("nan")) for word in words}
    return units.pop() if len(units) == 1 else float("nan") if units else 1.0


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _words(text: str, count: int) -> list[str]:
    words = text.split()
    return words if len(words) == count else [""] * count


def _vectors(text: str) -> list[np.ndarray | None]:
    """Vectors such as ``(1,0,0) none (0,1,0)``; one that is no vector of numbers gives NaN."""
    found: list[np.ndarray | None] = []
    while text := text.strip():
        if text.startswith("("):
            inner, _, text = text[1:].partition(")")
            try:
                found.append(np.array([float(number) for number in inner.split(",")]))
            except ValueError:
                found.append(np.full(3, np.nan))
        else:
            _, _, text = text.partition(" ")
            found.append(None)
    return found


def header(
    shape: tuple[int, ...], kind: np.dtype, ijk_to_lps: np.ndarray, *, encoding: str = "raw", note: str = ""
) -> bytes:
    """The header of a volume in one file.

    Args:
        shape: (k, j, i).
        kind: type of the voxels, in this computer's byte order.
        ijk_to_lps: (4, 4), from voxel indices (i, j, k) to LPS in mm.
        encoding: "raw" or "gzip".
        note: a comment; may be empty.

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
        *([f"# {note}"] if note else []),
        f"type: {_TYPES[code][0]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(size) for size in reversed(shape)),
        "space directions: " + " ".join(vector(ijk_to_lps[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        f"encoding: {encoding}",
        f"space origin: {vector(ijk_to_lps[:3, 3])}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def pieces(voxels: np.ndarray) -> Iterator[memoryview]:
    """The bytes of a volume (k, j, i), some planes at a time."""
    step = max(1, BLOCK_BYTES // max(1, voxels[0].nbytes))
    for plane in range(0, len(voxels), step):
        yield np.ascontiguousarray(voxels[plane : plane + step]).data.cast("B")


class ExchangeFile:
    """A volume in an uncompressed NRRD file on its way between the module and the worker, read plane by plane.  It is
    read and not mapped: a disk that fails while a file is mapped ends the process.

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
            start = file.read(MOST_HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
        try:
            stored = parse(self._path, start) if start.startswith(b"NRRD") else None
        except InputError as error:
            raise ValueError(error.message) from error
        if stored is None or stored.packing != "none" or stored.components != 1 or stored.data != self._path:
            raise ValueError("The file is no uncompressed volume.")
        if stored.columns is None or stored.doubts:
            raise ValueError("The file does not tell where the volume lies.")
        if size != stored.start + stored.voxel_bytes:
            raise ValueError("The file is incomplete.")
        self.dtype = stored.dtype
        self.shape = stored.size[::-1]
        self.ijk_to_lps = np.eye(4)
        self.ijk_to_lps[:3, :3], self.ijk_to_lps[:3, 3] = stored.columns, stored.origin
        self._offset = stored.start

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
