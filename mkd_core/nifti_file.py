"""What ITK's reader of NIfTI keeps quiet about: a file that is cut off, and voxels that are not numbers.  It puts 0 in their place."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from mkd_core.errors import InputError

_HEADER_BYTES = 348

_BLOCK_BYTES = 1 << 24

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
        InputError: cut off, or a voxel that is NaN or infinite; names the file.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            _check_stream(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut_off(path) from error
    except OSError as error:
        raise InputError(f"“{path.name}” cannot be read.") from error


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_compressed else path.open("rb")


def _cut_off(path: Path) -> InputError:
    return InputError(f"“{path.name}” is cut off or damaged.", "Download or copy it again.")


def _check_stream(file: IO[bytes], path: Path) -> None:
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise _cut_off(path)
    order = next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == _HEADER_BYTES), None)
    if order is None:
        return
    sizes = struct.unpack_from(f"{order}8h", header, 40)
    code, bits = struct.unpack_from(f"{order}2h", header, 70)
    start = int(struct.unpack_from(f"{order}f", header, 108)[0])
    count = math.prod(max(1, size) for size in sizes[1:1 + min(7, max(1, sizes[0]))])
    file.seek(start)
    _check_voxels(file, count * bits // 8, order + _FLOATS[code] if code in _FLOATS else None, path)


def _check_voxels(file: IO[bytes], remaining: int, kind: str | None, path: Path) -> None:
    while remaining > 0:
        block = file.read(min(_BLOCK_BYTES, remaining))
        if not block:
            raise _cut_off(path)
        remaining -= len(block)
        if kind is not None:
            numbers = np.frombuffer(block, kind, len(block) // int(kind[-1]))
            if not np.isfinite(numbers).all():
                kinds = "NaN (not a number)" if np.isnan(numbers).any() else "infinite"
                raise InputError(f"“{path.name}” holds voxels that are {kinds}.", "Replace them by a number.")
