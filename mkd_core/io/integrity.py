"""What a volume file says about itself, whether that can be true, and its voxels.

The headers of NRRD, NIfTI and MetaImage files (:mod:`mkd_core.io.nrrd`, :mod:`mkd_core.io.nifti`,
:mod:`mkd_core.io.metaimage`) become a :class:`StoredVolume`.  Nothing that a header leaves out is filled in: a default
of a library is no measurement.  No library opens the file, so its name may hold any characters, and numbers mean the
same whatever the decimal comma of the program around is.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mkd_core.environment import available_memory
from mkd_core.errors import InputError
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import SHEAR_TOLERANCE, Finding

#: Bytes that are looked at in one go.
BLOCK_BYTES = 1 << 23

#: Longest header that is looked at, bytes.
MOST_HEADER_BYTES = 1 << 20

#: Directions this close to orthonormal are left as they are.
_EXACT = 1e-6

#: Two statements of a voxel size are the same if they differ by no more than this, as a share.
_SAME_SIZE = 0.01

#: Deflate packs at most so many bytes into one (https://zlib.net/zlib_tech.html).
_MOST_PACKED = 1032

#: Bytes behind the voxels that a compressed file may hold.
_MOST_SURPLUS_BYTES = 1 << 20

#: wbits of zlib for gzip and zlib streams alike.
_GZIP_OR_ZLIB = 47


@dataclass(frozen=True)
class StoredVolume:
    """A volume as its header has it.

    Attributes:
        path: file with the header.
        data: file with the voxels.
        start: byte where the voxels begin; of the unpacked bytes where the whole file is packed.
        packing: "none"; "voxels", a gzip or zlib stream from ``start`` on; or "file", the whole is such a stream.
        dtype: of a voxel, with its byte order.
        components: values of a voxel; 1 for an image.
        size: voxels along x, y, z.
        columns: (3, 3), mm: the step from voxel to voxel along x, y and z, in LPS; None where the file does not say how
            large its voxels are.
        origin: (3,), centre of the first voxel in LPS, mm.
        scale: slope and intercept that make intensities of the numbers stored; None where they are the intensities.
        doubts: what is likely wrong with the header.
    """

    path: Path
    data: Path
    start: int
    packing: str
    dtype: np.dtype
    components: int
    size: tuple[int, int, int]
    columns: np.ndarray | None
    origin: np.ndarray
    scale: tuple[float, float] | None = None
    doubts: tuple[Finding, ...] = ()

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels as they are stored."""
        x, y, z = self.size
        return x * y * z * self.components * self.dtype.itemsize

    def geometry(self) -> tuple[np.ndarray, np.ndarray]:
        """Spacing (3,) in mm and direction (3, 3) with orthonormal columns.

        Raises:
            InputError: the voxel size is missing or no size, or the axes are not at right angles.
        """
        if self.columns is None:
            raise without_voxel_size(self.path.name)
        spacing = np.linalg.norm(self.columns, axis=0)
        if not (np.isfinite(self.columns).all() and (spacing > 0).all()):
            raise without_voxel_size(self.path.name)
        if not np.isfinite(self.origin).all():
            raise refusal(finding("file_position", file=self.path.name))
        direction = orthonormalised(self.columns / spacing)
        if direction is None:
            raise refusal(finding("file_sheared", file=self.path.name))
        return spacing, direction

    def check_claim(self) -> None:
        """Refuse a file that is too short for its voxels, or voxels that do not fit into the memory, before either is
        touched.

        Raises:
            InputError: with the reason.
        """
        if min(self.size) < 1:
            raise cut_off(self.path)
        if not self.data.is_file():
            raise refusal(finding("file_voxels_missing", file=self.path.name, voxels=self.data.name))
        needed, size = self.voxel_bytes, self.data.stat().st_size
        most = size if self.packing == "file" else size - self.start
        if needed > most * (1 if self.packing == "none" else _MOST_PACKED):
            raise cut_off(self.data)
        check_memory(self.path.name, needed)

    def length_doubts(self) -> list[Finding]:
        """A doubt where more slices follow than the header counts."""
        x, y, _ = self.size
        slice_bytes = x * y * self.components * self.dtype.itemsize
        surplus = self.data.stat().st_size - self.start - self.voxel_bytes if self.packing == "none" else 0
        if surplus < slice_bytes:
            return []
        return [finding("file_longer", file=self.path.name, slices=surplus // slice_bytes)]

    def slabs(self) -> Iterator[np.ndarray]:
        """The voxels in this computer's byte order, scaled, some slices at a time: ``(D, H, W)`` arrays, or ``(D, H, W,
        C)`` of vectors.

        Raises:
            InputError: something is missing, or a check sum is wrong.
            OSError: the file cannot be read.
        """
        x, y, z = self.size
        slice_bytes = x * y * self.components * self.dtype.itemsize
        count = max(1, BLOCK_BYTES // slice_bytes)
        shape = (y, x) if self.components == 1 else (y, x, self.components)
        with self.data.open("rb") as file:
            stream = _Unpacked(file, self.start if self.packing == "voxels" else 0, self.packing != "none", self.data)
            if self.packing != "voxels":
                stream.skip(self.start)
            for first in range(0, z, count):
                some = min(count, z - first)
                stored = np.frombuffer(stream.read(some * slice_bytes), self.dtype).reshape(some, *shape)
                yield self._scaled(stored)
            stream.finish()

    def _scaled(self, stored: np.ndarray) -> np.ndarray:
        native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        if self.scale is None:
            return native
        wide = native.dtype.itemsize > 4 or native.dtype in (np.int32, np.uint32)
        kind = np.dtype(np.float64 if wide else np.float32).type
        scaled: np.ndarray = native.astype(kind) * kind(self.scale[0]) + kind(self.scale[1])
        return scaled


class _Unpacked:
    """Bytes of a file, or of the gzip or zlib streams in it.

    Raises:
        InputError: the file ends too early, or is damaged.
    """

    def __init__(self, file: IO[bytes], start: int, is_packed: bool, path: Path) -> None:
        self._file = file
        self._path = path
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB) if is_packed else None
        file.seek(start)

    def read(self, count: int) -> bytes:
        if self._stream is None:
            content = self._file.read(count)
        else:
            pieces, missing = [], count
            while missing and (piece := self._inflated(missing)):
                pieces.append(piece)
                missing -= len(piece)
            content = b"".join(pieces)
        if len(content) != count:
            raise cut_off(self._path)
        return content

    def skip(self, count: int) -> None:
        while count > 0:
            count -= len(self.read(min(count, BLOCK_BYTES)))

    def finish(self) -> None:
        """Read to the end of what is packed, which compares the check sums."""
        if self._stream is None:
            return
        surplus = 0
        while piece := self._inflated(BLOCK_BYTES):
            surplus += len(piece)
            if surplus > _MOST_SURPLUS_BYTES:
                raise cut_off(self._path)
        if not self._stream.eof:
            raise cut_off(self._path)

    def _inflated(self, most: int) -> bytes:
        """Up to ``most`` further bytes; none at the end."""
        assert self._stream is not None
        while True:
            if self._stream.eof:
                rest = self._stream.unused_data or self._file.read(2)
                if rest[:2] != b"\x1f\x8b":  # gzip allows several streams in a row
                    return b""
                self._stream, packed = zlib.decompressobj(_GZIP_OR_ZLIB), rest
            else:
                packed = self._stream.unconsumed_tail or self._file.read(1 << 18)
                if not packed:
                    return b""
            try:
                piece = self._stream.decompress(packed, most)
            except zlib.error as error:
                raise cut_off(self._path) from error
            if piece:
                return piece


def check_memory(name: str, needed: float) -> None:
    """Refuse voxels that do not fit into the memory that is free.

    Args:
        name: of the file or series.
        needed: bytes.

    Raises:
        InputError: they do not.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise refusal(finding("file_beyond_memory", file=name, needed_gb=needed / 2**30, free_gb=free / 2**30))


def orthonormalised(direction: np.ndarray) -> np.ndarray | None:
    """The orthonormal matrix closest to a direction matrix (3, 3) that is one but for rounding; None if it is none."""
    apart = np.abs(direction.T @ direction - np.eye(3)).max()
    if not apart <= SHEAR_TOLERANCE:
        return None
    if apart <= _EXACT:
        return direction
    left, _, right = np.linalg.svd(direction)
    return left @ right


def unpacked_start(path: Path) -> tuple[bytes, bool]:
    """First bytes of a file, unpacked if it is packed by gzip, and whether it is.

    Raises:
        InputError: a packed file that is damaged at its start.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read(MOST_HEADER_BYTES), False
        stream = _Unpacked(file, 0, True, path)
        content = b""
        while len(content) < 4096 and (piece := stream._inflated(4096 - len(content))):
            content += piece
        return content, True


def text_fields(path: Path, text: bytes, separator: str) -> dict[str, str]:
    """Fields of a header of lines ``key separator value``, keys in lower case.

    Raises:
        InputError: a field stands there twice with different values; notes may.
    """
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", errors="replace").splitlines():
        key, _, value = (part.strip() for part in line.partition(separator))
        key = key.lower()
        is_note = key.startswith("#") or key == "comment" or value.startswith("=")
        if not is_note and fields.get(key, value) != value:
            raise refusal(finding("file_two_values", file=path.name, field=key[:40]))
        if not key.startswith("#"):
            fields[key] = value
    return fields


def check_same_size(path: Path, first: np.ndarray, second: np.ndarray) -> None:
    """Refuse a header that states two voxel sizes, (3,) each, mm; one that is no number says nothing.

    Raises:
        InputError: they differ.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return
    if (np.abs(np.abs(second) - np.abs(first)) > _SAME_SIZE * np.abs(first)).any():
        first_mm, second_mm = (" x ".join(f"{abs(step):.4g}" for step in steps) for steps in (first, second))
        raise refusal(finding("file_two_voxel_sizes", file=path.name, first_mm=first_mm, second_mm=second_mm))


def detached(path: Path, name: str) -> Path:
    """The file of voxels that a header names, beside the header unless its name is absolute."""
    return path.parent / os.fsdecode(name.encode("utf-8", errors="surrogateescape"))


def cut_off(path: Path) -> InputError:
    """Refusal of a file of which something is missing or wrong."""
    return refusal(finding("file_damaged", file=path.name))


def unreadable(path: Path) -> InputError:
    """Refusal of what is no volume."""
    return refusal(finding("file_no_volume", file=path.name))


def unusual(path: Path) -> InputError:
    """Refusal of a file that is a volume, but stored as hardly any is."""
    return refusal(finding("file_unusual", file=path.name))


def without_voxel_size(name: str) -> InputError:
    """Refusal of a file that does not say how large its voxels are."""
    return refusal(finding("no_voxel_size", file=name))


def time_series() -> InputError:
    """Refusal of a volume with several frames."""
    return refusal(finding("time_series"))


def wrong_dimension(count: int) -> InputError:
    """Refusal of an image that is no volume."""
    return refusal(finding("not_3d", dimensions=count))


def complex_numbers() -> InputError:
    """Refusal of complex voxels."""
    return refusal(finding("complex"))


def colours() -> InputError:
    """Refusal of voxels that are no plain intensities."""
    return refusal(finding("not_scalar"))
