"""What ITK's reader of NIfTI keeps quiet about: a file that is cut off or damaged, and voxels that are not numbers.  It
puts 0 in their place.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from mkd_core.errors import InputError
from mkd_core.io.stored_bytes import BLOCK_BYTES, check_claim, cut_off

_HEADER_BYTES = 348

#: Bytes behind the voxels that a compressed file may hold.
_MOST_SURPLUS_BYTES = 1 << 20

#: Most bytes before the voxels.
_MOST_HEADER_BYTES = 1 << 24

#: Bytes of a voxel by the code of its type in the header.
_TYPE_BYTES = {
    2: 1,
    4: 2,
    8: 4,
    16: 4,
    32: 8,
    64: 8,
    128: 3,
    256: 1,
    512: 2,
    768: 4,
    1024: 8,
    1280: 8,
    1536: 16,
    1792: 16,
    2048: 32,
    2304: 4,
}

#: Floating-point voxel types by their code in the header.
_FLOATS = {16: "f4", 64: "f8"}


def is_nifti(path: Path | str) -> bool:
    """Whether a name is that of a NIfTI file in one piece."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def check_nifti(path: Path | str) -> None:
    """Refuse a NIfTI file that ITK would read, but not as what it holds.

    Header fields as in nifti1.h (https://nifti.nimh.nih.gov/nifti-1).

    Args:
        path: ``.nii`` or ``.nii.gz``; what does not begin as NIfTI-1 passes, for ITK to judge.

    Raises:
        InputError: cut off, damaged, larger than the memory, or a voxel that is NaN or infinite; names the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            _check_stream(file, path, is_compressed)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise cut_off(path) from error
    except OSError as error:
        raise InputError(f"“{path.name}” cannot be read.") from error


def _check_stream(file: IO[bytes], path: Path, is_compressed: bool) -> None:
    header = file.read(_HEADER_BYTES)
    order = next((order for order in "<>" if header[:4] == struct.pack(f"{order}i", _HEADER_BYTES)), None)
    if order is None:
        return
    if len(header) < _HEADER_BYTES:
        raise cut_off(path)
    sizes = struct.unpack_from(f"{order}8h", header, 40)
    (code,) = struct.unpack_from(f"{order}h", header, 70)
    (start,) = struct.unpack_from(f"{order}f", header, 108)
    if code not in _TYPE_BYTES:
        return
    if not start <= _MOST_HEADER_BYTES:
        raise cut_off(path)
    needed = math.prod(max(1, size) for size in sizes[1 : 1 + min(7, max(1, sizes[0]))]) * _TYPE_BYTES[code]
    check_claim(path, 0, needed, is_compressed)
    file.seek(max(_HEADER_BYTES, int(start)))  # as ITK does
    _check_voxels(file, needed, order + _FLOATS[code] if code in _FLOATS else None, path)
    if (
        is_compressed and len(file.read(_MOST_SURPLUS_BYTES + 1)) > _MOST_SURPLUS_BYTES
    ):  # reading to the end also compares the check sum
        raise cut_off(path)


def _check_voxels(file: IO[bytes], remaining: int, kind: str | None, path: Path) -> None:
    while remaining > 0:
        block = file.read(min(BLOCK_BYTES, remaining))
        if not block:
            raise cut_off(path)
        remaining -= len(block)
        if kind is not None:
            numbers = np.frombuffer(block, kind, len(block) // int(kind[-1]))
            if not np.isfinite(numbers).all():
                kinds = "NaN (not a number)" if np.isnan(numbers).any() else "infinite"
                raise InputError(f"“{path.name}” holds voxels that are {kinds}.", "Replace them by a number.")
