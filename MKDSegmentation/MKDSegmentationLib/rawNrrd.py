"""Uncompressed NRRD files, written and read piece by piece, so that a large volume never holds up the application.

A plain header and the voxels behind it; the format is described at https://teem.sourceforge.net/nrrd/format.html.
"""

import sys
from pathlib import Path

import numpy as np

PIECE_BYTES = 8 * 1024 * 1024  # takes a hundredth of a second or two
_TYPES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32", "i8": "int64", "u8": "uint64",
          "f4": "float", "f8": "double"}
_LONGEST_HEADER = 1 << 16


def header(shape: tuple, kind: np.dtype, ijkToLps: np.ndarray) -> bytes:
    """Return the header of a three-dimensional volume.

    :param shape: (k, j, i).
    :param kind: type of the voxels, in this computer's byte order.
    :param ijkToLps: 4 x 4 matrix from voxel indices (i, j, k) to LPS in mm.
    :raises ValueError: if NRRD has no name for the type.
    """
    code = np.dtype(kind).str[1:]
    if code not in _TYPES:
        raise ValueError(f"Voxels of type {kind} cannot be written.")

    def vector(values) -> str:
        return "(" + ",".join(repr(float(value)) for value in values) + ")"

    lines = ["NRRD0004", f"type: {_TYPES[code]}", "dimension: 3", "space: left-posterior-superior",
             "sizes: " + " ".join(str(size) for size in reversed(shape)),
             "space directions: " + " ".join(vector(ijkToLps[:3, axis]) for axis in range(3)),
             "kinds: domain domain domain", f"endian: {sys.byteorder}", "encoding: raw", f"space origin: {vector(ijkToLps[:3, 3])}"]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def planesPerPiece(shape: tuple, itemBytes: int) -> int:
    """Return how many planes along the first axis make a piece."""
    return max(1, PIECE_BYTES // max(1, shape[1] * shape[2] * itemBytes))


def mapBytes(path: str) -> np.ndarray:
    """Return the voxels of an uncompressed file of bytes as an array (k, j, i) that reads from disk what is touched.

    :raises ValueError: if the file is not such a file.
    """
    with open(path, "rb") as file:
        start = file.read(_LONGEST_HEADER)
    text, separator, _voxels = start.partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in text.decode("ascii", errors="replace").splitlines() if ": " in line)
    isBytes = fields.get("type") in ("uint8", "uchar", "unsigned char", "uint8_t")
    if not (start.startswith(b"NRRD") and separator and isBytes and fields.get("encoding") == "raw"):
        raise ValueError("The label map is not an uncompressed file of bytes.")
    shape = tuple(int(size) for size in reversed(fields["sizes"].split()))
    if Path(path).stat().st_size != len(text) + len(separator) + int(np.prod(shape)):
        raise ValueError("The label map is incomplete.")
    return np.memmap(path, np.uint8, "r", len(text) + len(separator), shape)
