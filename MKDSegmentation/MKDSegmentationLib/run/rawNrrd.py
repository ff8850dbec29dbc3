"""Uncompressed NRRD files, written and read piece by piece, so that a large volume never holds up the application.

A plain header and the voxels behind it; the format is described at https://teem.sourceforge.net/nrrd/format.html.
"""

import math
import os
import sys

import numpy as np

PIECE_BYTES = 8 * 1024 * 1024  # takes a hundredth of a second or two
_TYPES = {
    "i1": "int8",
    "u1": "uint8",
    "i2": "int16",
    "u2": "uint16",
    "i4": "int32",
    "u4": "uint32",
    "i8": "int64",
    "u8": "uint64",
    "f4": "float",
    "f8": "double",
}
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

    lines = [
        "NRRD0004",
        f"type: {_TYPES[code]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(size) for size in reversed(shape)),
        "space directions: " + " ".join(vector(ijkToLps[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: {vector(ijkToLps[:3, 3])}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def planesPerPiece(shape: tuple, itemBytes: int) -> int:
    """Return how many planes along the first axis make a piece."""
    return max(1, PIECE_BYTES // max(1, shape[1] * shape[2] * itemBytes))


class BytesFile:
    """An uncompressed file of bytes, read plane by plane. It is read and not mapped: a disk that fails while a file is
    mapped ends the process.

    shape - (k, j, i).

    :param path: of the file.
    :raises ValueError: if it is not such a file, or incomplete.
    :raises OSError: if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with open(path, "rb") as file:
            start = file.read(_LONGEST_HEADER)
            size = os.fstat(file.fileno()).st_size
        text, separator, _voxels = start.partition(b"\n\n")
        fields = dict(
            line.split(": ", 1) for line in text.decode("ascii", errors="replace").splitlines() if ": " in line
        )
        isBytes = fields.get("type") in ("uint8", "uchar", "unsigned char", "uint8_t")
        if not (start.startswith(b"NRRD") and separator and isBytes and fields.get("encoding") == "raw"):
            raise ValueError("The label map is not an uncompressed file of bytes.")
        self.shape = tuple(int(count) for count in reversed(fields.get("sizes", "").split()))
        self._offset = len(text) + len(separator)
        if len(self.shape) != 3 or size != self._offset + math.prod(self.shape):
            raise ValueError("The label map is incomplete.")

    def planes(self, first: int, end: int) -> np.ndarray:
        """Return the planes from the first to the one before the end along the first axis, as an array (end - first, j,
        i).

        :raises ValueError: if the file has become shorter.
        :raises OSError: if it cannot be read.
        """
        planeBytes = self.shape[1] * self.shape[2]
        with open(self._path, "rb") as file:
            file.seek(self._offset + first * planeBytes)
            voxels = file.read((end - first) * planeBytes)
        if len(voxels) != (end - first) * planeBytes:
            raise ValueError("The label map is incomplete.")
        return np.frombuffer(voxels, np.uint8).reshape(end - first, *self.shape[1:])
