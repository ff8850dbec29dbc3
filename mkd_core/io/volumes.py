"""Volumes on disk: read with reasons, written all or nothing.

NRRD, NIfTI and MetaImage are read and written here, byte by byte as their formats say; ITK sees DICOM files only.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io import atomic, metaimage, nifti, nrrd
from mkd_core.io.atomic import shortened
from mkd_core.io.integrity import StoredVolume, unpacked_start, unreadable
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Finding

#: File names that volumes can be written to.
WRITABLE = (".nrrd", ".nii.gz", ".nii", ".mha")

#: How hard files are compressed, 1 to 9: labels become no smaller beyond.
_LEVEL = 6

_NOTE = atomic.MARK_PLACEHOLDER


def read_volume(path: Path | str) -> sitk.Image:
    """Read a volume from an image file, or from a folder that holds one DICOM series.

    Args:
        path: NRRD, NIfTI or MetaImage file, known by its bytes and not by its name; or the folder.

    Raises:
        InputError: no such file, several series, not whole, without a voxel size, contradictory, or nothing that can be
            read; names the file.
    """
    return read_with_doubts(path)[0]


def read_with_doubts(path: Path | str) -> tuple[sitk.Image, list[Finding]]:
    """As :func:`read_volume`, and what is likely wrong with how the file describes the volume."""
    path = Path(path)
    with _told_of(path):
        if is_dicom(path):
            from mkd_core.io.dicom import read_series

            return read_series(path)
        stored = _stored(path)
        spacing, direction = stored.geometry()
        image = _image(stored)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(stored.origin.tolist())
    return image, [*stored.doubts, *stored.length_doubts()]


@dataclass(frozen=True)
class VolumeGrid:
    """Where the voxels of a volume are: how many along x, y and z; spacing and origin (3,), mm; direction (3, 3)."""

    size: tuple[int, ...]
    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray

    @classmethod
    def of(cls, image: sitk.Image) -> VolumeGrid:
        """The grid of an image of three dimensions."""
        direction = np.array(image.GetDirection()).reshape(3, 3)
        return cls(image.GetSize(), np.array(image.GetSpacing()), np.array(image.GetOrigin()), direction)


def read_grid(path: Path | str) -> VolumeGrid:
    """A volume's grid; the voxels of a file are not touched.

    Raises:
        InputError: as :func:`read_volume`.
    """
    path = Path(path)
    if is_dicom(path):
        return VolumeGrid.of(read_volume(path))
    with _told_of(path):
        stored = _stored(path)
        return VolumeGrid(stored.size, stored.geometry()[0], stored.origin, stored.geometry()[1])


def is_dicom(path: Path | str) -> bool:
    """Whether a path is a folder, a ``.zip`` archive or a DICOM file: what :mod:`mkd_core.io.dicom` reads."""
    path = Path(path)
    try:
        if not path.is_file():
            return path.is_dir()
        if path.suffix.lower() == ".zip" or path.name.upper() == "DICOMDIR":
            return True
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):  # reading it says what is wrong
        return False


def is_label_map(path: Path | str) -> bool:
    """Whether a file is a volume of 8-bit numbers."""
    try:
        return _stored(Path(path)).dtype == np.uint8
    except (OSError, ValueError, InputError):
        return False


def input_files(path: Path | str) -> list[Path]:
    """The files that a volume is read from: the header and, if that is elsewhere, the file with the voxels; or the
    folder of a DICOM series.
    """
    path = Path(path)
    try:
        if path.is_file():
            return sorted({path, _stored(path).data})
    except (OSError, ValueError, InputError):
        pass  # reading it says what is wrong
    return [path]


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Whatever goes wrong when a file is read, in the user's words."""
    if "\0" in str(path):
        raise refusal(finding("file_name_zero_byte"))
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.exists():
            raise refusal(finding("file_missing", file=shortened(path))) from error
        raise refusal(finding("file_unreadable", file=shortened(path), reason=str(error.strerror or error))) from error
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise refusal(finding("file_too_large", file=path.name)) from error
        raise unreadable(path) from error


def _stored(path: Path) -> StoredVolume:
    """What the header of a file says.

    Raises:
        InputError: it cannot be a volume, or is shorter than it says.
    """
    if not path.is_file():  # a pipe or a device would make us wait
        os.lstat(path)
        raise refusal(finding("file_not_regular", file=shortened(path)))
    if path.stat().st_size == 0:
        raise refusal(finding("file_empty", file=path.name))
    content, is_packed = unpacked_start(path)
    if nifti.is_nifti(content):
        stored = nifti.parse(path, content, is_packed)
    elif is_packed:
        raise unreadable(path)
    elif content.startswith(b"NRRD"):
        stored = nrrd.parse(path, content)
    elif metaimage.is_metaimage(content):
        stored = metaimage.parse(path, content)
    else:
        raise unreadable(path)
    stored.check_claim()
    return stored


def _image(stored: StoredVolume) -> sitk.Image:
    """The voxels as an image without a place."""
    slabs = stored.slabs()
    first = next(slabs)
    if stored.components > 1:
        return sitk.GetImageFromArray(np.concatenate([first, *slabs]), isVector=True)
    image = sitk.Image(stored.size, sitk.GetImageFromArray(first[:1, :1, :1]).GetPixelID())
    z = 0
    for slab in _with(first, slabs):
        image[:, :, z : z + len(slab)] = sitk.GetImageFromArray(slab)
        z += len(slab)
    return image


def _with(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def check_writable(path: Path | str) -> None:
    """Refuse an output path before the work is done for it.

    Raises:
        InputError: a file name that means no volume format, or a folder that is not there or closed to us.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE):
        raise refusal(finding("output_format", file=shortened(path), choices=", ".join(WRITABLE)))
    atomic.check_folder(path)


def check_output_folder(path: Path | str) -> None:
    """Refuse a folder that results cannot be written to; it need not be there yet.

    Raises:
        InputError: with the folder's name.
    """
    path = Path(path).absolute()
    try:
        nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    except (OSError, ValueError) as error:
        raise refusal(finding("folder_name", file=shortened(path))) from error
    if not nearest.is_dir():
        raise refusal(finding("folder_is_file", file=str(nearest)))
    if not os.access(nearest, os.W_OK):
        raise refusal(finding("folder_closed", file=str(path)))


def write_volume(image: sitk.Image, path: Path | str, *, compress: bool = True, private: bool = False) -> None:
    """Write a volume under a draft name and give it its own when it is complete.

    Args:
        image: the volume.
        path: ends in one of :data:`WRITABLE`.
        compress: smaller and slower; ``.nii.gz`` is always compressed.
        private: whether only this user may read it.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    try:
        atomic.write_file(path, lambda draft: store_volume(image, draft, compress=compress), private=private)
    except (RuntimeError, OSError) as error:
        raise refusal(finding("output_not_written", file=shortened(path))) from error


def store_volume(image: sitk.Image, draft: Path, *, compress: bool = True) -> None:
    """Write a volume to a draft of :mod:`mkd_core.io.atomic`, in the format that its name ends in, with our mark.

    Raises:
        OSError: it cannot be written.
        ValueError: the format cannot hold it.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    spacing, origin = np.array(image.GetSpacing()), np.array(image.GetOrigin())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    name = draft.name.lower()
    with draft.open("wb") as file:
        if name.endswith(".nrrd"):
            ijk_to_lps = np.eye(4)
            ijk_to_lps[:3, :3], ijk_to_lps[:3, 3] = direction * spacing, origin
            encoding = "gzip" if compress else "raw"
            file.write(nrrd.header(voxels.shape, voxels.dtype, ijk_to_lps, encoding=encoding, note=_NOTE.decode()))
            _write_pieces(file, nrrd.pieces(voxels), "gzip" if compress else "")
        elif name.endswith(".nii.gz"):
            start = nifti.header(image.GetSize(), voxels.dtype, spacing, direction, origin)
            _write_pieces(file, _after(start, voxels), "gzip", _NOTE)
        elif name.endswith(".nii"):
            file.write(nifti.header(image.GetSize(), voxels.dtype, spacing, direction, origin, _NOTE))
            _write_pieces(file, nrrd.pieces(voxels), "")
        else:
            start = metaimage.header(
                image.GetSize(), voxels.dtype, spacing, direction, origin, is_compressed=compress, note=_NOTE.decode()
            )
            file.write(start)
            _write_pieces(file, nrrd.pieces(voxels), "zlib" if compress else "")
            if compress:
                length = str(file.tell() - len(start)).encode()
                file.seek(start.index(metaimage.SIZE_FIELD))
                file.write(length.ljust(len(metaimage.SIZE_FIELD)))


def _after(start: bytes, voxels: np.ndarray) -> Iterator[bytes | memoryview]:
    yield start
    yield from nrrd.pieces(voxels)


def _write_pieces(file: IO[bytes], pieces: Iterator[bytes | memoryview], packing: str, note: bytes = b"") -> None:
    """Write bytes, packed as "gzip" (RFC 1952, with a comment in the clear if there is a note), as "zlib" or not."""
    if not packing:
        file.writelines(pieces)
        return
    if packing == "gzip":
        file.write(b"\x1f\x8b\x08" + (b"\x10" if note else b"\0") + b"\0\0\0\0\0\xff" + (note + b"\0" if note else b""))
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15 if packing == "gzip" else 15)
    check, length = 0, 0
    for piece in pieces:
        file.write(stream.compress(piece))
        check, length = zlib.crc32(piece, check), length + len(piece)
    file.write(stream.flush())
    if packing == "gzip":
        file.write(check.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little"))
