"""NIfTI files in one piece, versions 1 and 2: headers read and written.

Fields and the three ways in which a file says where its voxels are: https://nifti.nimh.nih.gov/nifti-1,
https://nifti.nimh.nih.gov/nifti-2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mkd_core.io.integrity import (
    MOST_HEADER_BYTES,
    StoredVolume,
    check_same_size,
    colours,
    complex_numbers,
    cut_off,
    orthonormalised,
    time_series,
    unusual,
    wrong_dimension,
)
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Finding

#: numpy's code of a voxel by the code in the header.
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_COLOURS = (128, 2304)
_COMPLEX = (32, 1792, 2048)

#: Millimetres in the unit of length by its code; where it is not given it is taken for millimetres.
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}

#: The two matrices say the same orientation if no entry of their directions differs by more.
_SAME_DIRECTION = 0.01

#: NIfTI's axes run to the right, front and head.
_TO_LPS = np.array([-1.0, -1.0, 1.0])

#: Most voxels along an axis of a file of version 1.
_MOST_VOXELS = 32767

_CODES = {kind: code for code, kind in _TYPES.items()}


@dataclass(frozen=True)
class _Layout:
    """Places of the fields in a header."""

    bytes: int
    dim: str
    dim_at: int
    type_at: int
    pixdim: str
    pixdim_at: int
    start: str
    start_at: int
    scale: str
    scale_at: int
    units: str
    units_at: int
    codes: str
    codes_at: int
    quaternion: str
    quaternion_at: int
    matrix_at: int


_NIFTI_1 = _Layout(348, "8h", 40, 70, "8f", 76, "f", 108, "2f", 112, "B", 123, "2h", 252, "6f", 256, 280)
_NIFTI_2 = _Layout(540, "8q", 16, 12, "8d", 104, "q", 168, "2d", 176, "i", 500, "2i", 344, "6d", 352, 400)
_MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0")}


def is_nifti(content: bytes) -> bool:
    """Whether the first (unpacked) bytes of a file are those of a NIfTI header, or of a format that it grew from."""
    return content[:4] in [struct.pack(order + "i", length) for order in "<>" for length in _MAGIC]


def parse(path: Path, content: bytes, is_packed: bool) -> StoredVolume:
    """The header of a NIfTI file.

    Args:
        path: the file.
        content: its first bytes, unpacked.
        is_packed: whether the file is packed by gzip.

    Raises:
        InputError: the header makes no sense or contradicts itself, or the file holds no volume.
    """
    order = next(order for order in "<>" if struct.unpack(order + "i", content[:4])[0] in _MAGIC)
    length = struct.unpack(order + "i", content[:4])[0]
    layout = _NIFTI_1 if length == 348 else _NIFTI_2
    if len(content) < length:
        raise cut_off(path)
    at, magic = _MAGIC[length]
    if content[at : at + 4] != magic:
        raise refusal(finding("file_half", file=path.name))

    def numbers(form: str, position: int) -> np.ndarray:
        return np.array(struct.unpack_from(order + form, content, position))

    dim = numbers(layout.dim, layout.dim_at)
    (code,), (start,) = numbers("h", layout.type_at), numbers(layout.start, layout.start_at)
    if not (1 <= dim[0] <= 7) or not 0 <= start <= MOST_HEADER_BYTES:
        raise cut_off(path)
    size = dim[1 : 1 + dim[0]].tolist()
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    if len(size) > 4 and all(count == 1 for count in size[3:4]):
        raise colours()
    if len(size) > 3:
        raise time_series()
    if len(size) < 3:
        raise wrong_dimension(len(size))
    if code in _COMPLEX:
        raise complex_numbers()
    if code in _COLOURS:
        raise colours()
    if code not in _TYPES:
        raise unusual(path)
    columns, origin, doubts = _geometry(path, layout, numbers)
    return StoredVolume(
        path,
        path,
        max(length, int(start)),
        "file" if is_packed else "none",
        np.dtype(order + _TYPES[code]),
        1,
        tuple(size),
        columns,
        origin,
        _scale(path, *numbers(layout.scale, layout.scale_at).tolist()),
        doubts,
    )


def _scale(path: Path, slope: float, intercept: float) -> tuple[float, float] | None:
    if slope == 0 or (slope, intercept) == (1, 0):
        return None
    if not np.isfinite([slope, intercept]).all():
        if np.isnan(slope):  # some programs write this for “no scaling”
            return None
        raise unusual(path)
    return slope, intercept


def _geometry(path: Path, layout: _Layout, numbers) -> tuple[np.ndarray | None, np.ndarray, tuple[Finding, ...]]:
    """Columns and origin in LPS, mm.

    Raises:
        InputError: two voxel sizes, or two orientations, of which one must be wrong.
    """
    pixdim = numbers(layout.pixdim, layout.pixdim_at)
    (units,) = numbers(layout.units, layout.units_at)
    unit = _UNITS_MM.get(int(units) & 7, 1.0)
    qform_code, sform_code = numbers(layout.codes, layout.codes_at)
    steps = np.abs(pixdim[1:4]) * unit
    has_steps = bool(np.isfinite(steps).all() and (steps > 0).all())
    by_quaternion: tuple[np.ndarray | None, np.ndarray] | None = None
    by_matrix: tuple[np.ndarray, np.ndarray] | None = None
    if qform_code > 0:
        values = numbers(layout.quaternion, layout.quaternion_at)
        turned = _rotation(values[:3], -1.0 if pixdim[0] < 0 else 1.0)
        by_quaternion = turned * steps if has_steps else None, values[3:] * unit
    if sform_code > 0:
        matrix = numbers("12f" if layout is _NIFTI_1 else "12d", layout.matrix_at).reshape(3, 4) * unit
        by_matrix = matrix[:, :3], matrix[:, 3]
        lengths = np.linalg.norm(matrix[:, :3], axis=0)
        if has_steps:
            check_same_size(path, steps, lengths)
    doubts: tuple[Finding, ...] = ()
    if by_quaternion and by_matrix and by_quaternion[0] is not None:
        doubts = _contradictions(path, by_quaternion[0], by_matrix[0], steps)
    chosen = by_matrix or by_quaternion
    if chosen:
        columns, origin = chosen
        return None if columns is None else columns * _TO_LPS[:, None], origin * _TO_LPS, doubts
    # Neither: voxels are counted to the right, front and head, as programs that know no orientation have it.
    columns = np.diag(steps) * _TO_LPS[:, None] if has_steps else None
    return columns, np.zeros(3), (finding("no_orientation", file=path.name),)


def _contradictions(path: Path, first: np.ndarray, second: np.ndarray, steps: np.ndarray) -> tuple[Finding, ...]:
    """What the two orientations of a file make doubtful."""
    one, other = first / steps, second / np.linalg.norm(second, axis=0)
    if not np.isfinite(other).all() or np.abs(one - other).max() <= _SAME_DIRECTION:
        return ()
    if not np.array_equal(_nearest_axes(one), _nearest_axes(other)):
        raise refusal(finding("file_two_orientations", file=path.name))
    cosine = 0.5 * (np.trace(one.T @ other) - 1)
    return (
        finding(
            "two_orientations", file=path.name, degrees=round(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), 1)
        ),
    )


def _nearest_axes(direction: np.ndarray) -> np.ndarray:
    return np.sign(direction) * (np.abs(direction) == np.abs(direction).max(axis=0))


def _rotation(quaternion: np.ndarray, qfac: float) -> np.ndarray:
    """Rotation matrix (3, 3) of the last three numbers of a unit quaternion; ``qfac`` is the sign of the third axis."""
    b, c, d = quaternion
    rest = 1.0 - float(quaternion @ quaternion)
    if rest < 1e-7:
        a = 0.0
        b, c, d = quaternion / np.linalg.norm(quaternion)
    else:
        a = np.sqrt(rest)
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    ) * np.array([1.0, 1.0, qfac])


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """The last three of the four numbers (the first is not negative) of a proper rotation (3, 3)."""
    # Of the four eigenvectors that fit, the one of the largest eigenvalue is the quaternion (Bar-Itzhack 2000).
    m = rotation
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    b, c, d, a = np.linalg.eigh(symmetric)[1][:, -1]
    return np.array([b, c, d]) * (-1.0 if a < 0 else 1.0)


def header(
    size: tuple[int, int, int],
    kind: np.dtype,
    spacing: np.ndarray,
    direction: np.ndarray,
    origin: np.ndarray,
    note: bytes = b"",
) -> bytes:
    """The header of a volume, version 1, with the same orientation stated both ways.

    Args:
        size: voxels along x, y, z.
        kind: type of the voxels; they follow in little-endian order.
        spacing: (3,), mm.
        direction: (3, 3), LPS.
        origin: (3,), LPS, mm.
        note: description, at most 79 bytes.

    Raises:
        ValueError: NIfTI cannot hold this.
    """
    code = _CODES.get(np.dtype(kind).str[1:])
    if code is None or max(size) > _MOST_VOXELS or len(note) > 79:
        raise ValueError(f"Voxels of type {kind} in a volume of {size} cannot be written as NIfTI.")
    ras = orthonormalised(direction * _TO_LPS[:, None])
    if ras is None:
        raise ValueError("The axes are not at right angles.")
    place = np.asarray(origin) * _TO_LPS
    qfac = 1.0 if np.linalg.det(ras) > 0 else -1.0
    content = bytearray(352)
    pack = struct.pack_into
    pack("<i", content, 0, 348)
    pack("<8h", content, 40, 3, *size, 1, 1, 1, 1)
    pack("<2h", content, 70, code, 8 * np.dtype(kind).itemsize)
    pack("<8f", content, 76, qfac, *spacing, 0, 0, 0, 0)
    pack("<3f", content, 108, 352.0, 1.0, 0.0)
    content[123] = 2  # millimetres
    content[148 : 148 + len(note)] = note
    pack("<2h", content, 252, 1, 1)  # both in the scanner's frame
    pack("<6f", content, 256, *_quaternion(ras * [1.0, 1.0, qfac]), *place)
    pack("<12f", content, 280, *np.column_stack([ras * spacing, place]).ravel())
    content[344:348] = b"n+1\0"
    return bytes(content)
