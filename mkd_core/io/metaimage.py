"""MetaImage files: headers read and written, see https://itk.org/Wiki/ITK/MetaIO/Documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mkd_core.io.integrity import (
    StoredVolume,
    cut_off,
    detached,
    text_fields,
    time_series,
    unreadable,
    unusual,
    wrong_dimension,
)
from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
#: Millimetres in a unit of length; unknown ones mean nothing else.
_UNITS_MM = {"?": 1.0, "": 1.0, "mm": 1.0, "cm": 10.0, "um": 0.001}

#: Place of the number of compressed bytes in a header that is written.
SIZE_FIELD = b"?" * 20
_NAMES = {code: name for name, code in _TYPES.items()}


def is_metaimage(content: bytes) -> bool:
    """Whether the first bytes of a file are those of a MetaImage."""
    start = content[:256].lstrip()
    return start.startswith((b"ObjectType", b"NDims", b"Comment")) and b"\0" not in start[:32]


def parse(path: Path, content: bytes) -> StoredVolume:
    """The header of a MetaImage; what nobody writes for volumes is refused.

    Args:
        path: the file.
        content: its first bytes.

    Raises:
        InputError: the header makes no sense, or the file holds no volume.
    """
    at = content.find(b"ElementDataFile")
    end = content.find(b"\n", at)
    end = len(content) if end < 0 else end
    fields = text_fields(path, content[:end], "=")
    place = fields.get("elementdatafile", "")
    if (
        at < 0
        or not place
        or place.split()[0] == "LIST"
        or "%" in place
        or fields.get("headersize", "0") != "0"
        or fields.get("binarydata", "true").lower() != "true"
        or _numbers(fields.get("elementtointensityfunctionslope", "1")) != [1.0]
        or _numbers(fields.get("elementtointensityfunctionoffset", "0")) != [0.0]
    ):
        raise unusual(path)
    sizes = _numbers(fields.get("dimsize", ""))
    code = _TYPES.get(fields.get("elementtype", ""))
    components = _numbers(fields.get("elementnumberofchannels", "1"))
    count = len(sizes)
    if not sizes or code is None or _numbers(fields.get("ndims", "")) != [count] or len(components) != 1:
        raise unreadable(path)
    if not all(size >= 1 and size == int(size) for size in [*sizes, *components]):
        raise cut_off(path)
    if any(size > 1 for size in sizes[3:]):
        raise time_series()
    if count < 3:
        raise wrong_dimension(count)
    is_big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")).lower() == "true"
    columns, origin, doubts = _geometry(path, count, fields)
    is_local = place.upper() == "LOCAL"
    return StoredVolume(
        path,
        path if is_local else detached(path, place),
        end + 1 if is_local else 0,
        "voxels" if fields.get("compresseddata", "false").lower() == "true" else "none",
        np.dtype((">" if is_big else "<") + code),
        int(components[0]),
        (int(sizes[0]), int(sizes[1]), int(sizes[2])),
        columns,
        origin,
        doubts=doubts,
    )


def _geometry(
    path: Path, count: int, fields: dict[str, str]
) -> tuple[np.ndarray | None, np.ndarray, tuple[Finding, ...]]:
    def first(*names: str) -> list[float]:
        return next((_numbers(fields[name]) for name in names if name in fields), [])

    steps = first("elementspacing", "elementsize")
    turned = first("transformmatrix", "orientation", "rotation")
    place = first("offset", "position", "origin")
    origin = np.array(place[:3]) if len(place) == count else np.zeros(3)
    doubts: tuple[Finding, ...] = ()
    direction = np.eye(3)
    if len(turned) == count * count:
        direction = np.array(turned).reshape(count, count)[:3, :3].T  # a row is the direction of an axis
    else:
        doubts = (finding("no_orientation", file=path.name),)
    unit = _UNITS_MM.get(fields.get("distanceunits", "?").lower(), float("nan"))
    return direction * steps[:3] * unit if len(steps) == count else None, origin * unit, doubts


def _numbers(text: str) -> list[float]:
    """Numbers of a field; NaN for a word that is none."""
    found = []
    for word in text.split():
        try:
            found.append(float(word))
        except ValueError:
            found.append(float("nan"))
    return found


def header(
    size: tuple[int, int, int],
    kind: np.dtype,
    spacing: np.ndarray,
    direction: np.ndarray,
    origin: np.ndarray,
    *,
    is_compressed: bool,
    note: str = "",
) -> bytes:
    """The header of a volume in one file; little-endian voxels follow.  Where they are compressed, their size in bytes
    is to be written over :data:`SIZE_FIELD`.

    Args:
        size: voxels along x, y, z.
        kind: type of the voxels.
        spacing: (3,), mm.
        direction: (3, 3), LPS.
        origin: (3,), LPS, mm.
        is_compressed: whether the voxels are a zlib stream.
        note: a comment; may be empty.

    Raises:
        ValueError: MetaImage has no name for the type.
    """
    name = _NAMES.get(np.dtype(kind).str[1:])
    if name is None:
        raise ValueError(f"Voxels of type {kind} cannot be written.")

    def words(values: np.ndarray) -> str:
        return " ".join(repr(float(value)) for value in np.ravel(values))

    lines = [
        "ObjectType = Image",
        *([f"Comment = {note}"] if note else []),
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        f"CompressedData = {is_compressed}",
        *([f"CompressedDataSize = {SIZE_FIELD.decode()}"] if is_compressed else []),
        f"TransformMatrix = {words(np.asarray(direction).T)}",
        f"Offset = {words(origin)}",
        "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RAI",
        f"ElementSpacing = {words(spacing)}",
        f"DimSize = {' '.join(map(str, size))}",
        f"ElementType = {name}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")
