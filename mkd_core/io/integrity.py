"""Is a volume file whole?  Asked before ITK reads it.

ITK's readers put zeros or whatever lay in memory where voxels of a NIfTI file are missing, pass over the check sums of
compressed files, and take memory for as many voxels as a header claims before they look whether there are any.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO

import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io.nifti import check_nifti, is_nifti
from mkd_core.io.stored_bytes import BLOCK_BYTES, check_claim, cut_off

#: Longest text header that is looked at, bytes.
_MOST_HEADER_BYTES = 1 << 20

#: Bytes behind the voxels that a compressed file may hold.
_MOST_SURPLUS_BYTES = 1 << 20

#: wbits of zlib for gzip and zlib streams alike.
_GZIP_OR_ZLIB = 47


def unreadable(path: Path) -> InputError:
    """Refusal of what is no volume."""
    return InputError(
        f"“{path.name}” cannot be read as a volume.",
        "Choose a NRRD, NIfTI or MetaImage file, or a folder with one DICOM series.",
    )


def check_volume_file(path: Path) -> None:
    """Refuse a file that ITK would not read, or would read as something that it does not hold.  Memory stays small
    whatever the file claims.

    Args:
        path: NRRD, NIfTI or MetaImage.

    Raises:
        InputError: another format, empty, cut off, damaged, or too large for this computer; names the file.
        RuntimeError: ITK does not understand the header.
    """
    if path.stat().st_size == 0:
        raise InputError(f"“{path.name}” is empty.", "Download or copy it again.")
    kind = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if is_nifti(path):
        check_nifti(path)
    elif kind == "NiftiImageIO":
        raise InputError(
            f"“{path.name}” is one half of a pair of files.", "Save the volume as one file, .nii.gz or .nrrd."
        )
    elif kind == "NrrdImageIO":
        _check_parts(path, *_nrrd_data(path))
    elif kind == "MetaImageIO":
        _check_parts(path, *_meta_data(path))
    elif kind == "GDCMImageIO":
        raise InputError(
            f"“{path.name}” is a single DICOM file.",
            "Choose the folder that holds all files of the series, or load the series in 3D Slicer and save it as "
            ".nrrd.",
        )
    else:
        raise unreadable(path)


def _check_parts(path: Path, data: Path, start: int, is_compressed: bool) -> None:
    """Check the file ``data`` that holds the voxels of ``path`` from byte ``start`` on."""
    if not data.is_file():
        raise InputError(
            f"“{data.name}”, which holds the voxels of “{path.name}”, is missing.", "Keep both files in one folder."
        )
    needed = _voxel_bytes(path)
    check_claim(data, start, needed, is_compressed)
    if is_compressed:
        with data.open("rb") as file:
            file.seek(start)
            try:
                length = _inflated_length(file, needed + _MOST_SURPLUS_BYTES)
            except zlib.error as error:
                raise cut_off(data) from error
        if not needed <= length <= needed + _MOST_SURPLUS_BYTES:
            raise cut_off(data)


def _inflated_length(file: IO[bytes], most: int) -> int:
    """Length of a compressed stream, 0 if it ends before its check sum, ``most`` + 1 if it is longer than that.

    Raises:
        zlib.error: damaged, or another check sum.
    """
    length, stream = 0, zlib.decompressobj(_GZIP_OR_ZLIB)
    while not stream.eof:
        packed = stream.unconsumed_tail or file.read(BLOCK_BYTES)
        if not packed:
            return 0
        length += len(stream.decompress(packed, BLOCK_BYTES))
        if length > most:
            return most + 1
        if stream.eof and stream.unused_data[:2] == b"\x1f\x8b":  # gzip allows several streams in a row
            file.seek(-len(stream.unused_data), 1)
            stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    return length


def _voxel_bytes(path: Path) -> int:
    """Bytes that the voxels take as the header has it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    bytes_per_voxel = sitk.GetArrayViewFromImage(
        sitk.Image((1, 1, 1), reader.GetPixelID(), reader.GetNumberOfComponents())
    ).nbytes
    count = 1
    for side in reader.GetSize():
        count *= side
    return count * bytes_per_voxel


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_HEADER_BYTES)


def _nrrd_data(path: Path) -> tuple[Path, int, bool]:
    """File with the voxels, where in it they begin, and whether they are compressed.

    Fields as in https://teem.sourceforge.net/nrrd/format.html; what ITK does not read, or what nobody writes for
    volumes, is refused.
    """
    content = _header(path)
    ends = [(content.find(gap), len(gap)) for gap in (b"\n\n", b"\n\r\n")]
    ends = [(at, length) for at, length in ends if at >= 0]
    at, length = min(ends, default=(len(content), 0))
    fields = _fields(content[:at], ":")
    encoding = fields.get("encoding", "").lower()
    detached = fields.get("data file", fields.get("datafile"))
    if (
        encoding not in ("raw", "gzip", "gz")
        or fields.get("line skip", "0") != "0"
        or fields.get("byte skip", "0") != "0"
        or (detached is None and not ends)
    ):
        raise _unusual(path)
    if detached is None:
        return path, at + length, encoding != "raw"
    if detached.split()[:1] == ["LIST"] or "%" in detached:
        raise _unusual(path)
    return path.parent / detached, 0, encoding != "raw"


def _meta_data(path: Path) -> tuple[Path, int, bool]:
    """The same of a MetaImage, see https://itk.org/Wiki/ITK/MetaIO/Documentation."""
    content = _header(path)
    at = content.find(b"ElementDataFile")
    end = content.find(b"\n", at)
    end = len(content) if end < 0 else end
    fields = _fields(content[:end], "=")
    place = fields.get("elementdatafile", "")
    if (
        at < 0
        or not place
        or place.split()[0] == "LIST"
        or "%" in place
        or fields.get("headersize", "0") != "0"
        or (fields.get("binarydata", "true").lower() != "true")
    ):
        raise _unusual(path)
    is_compressed = fields.get("compresseddata", "false").lower() == "true"
    return (path, end + 1, is_compressed) if place.upper() == "LOCAL" else (path.parent / place, 0, is_compressed)


def _fields(text: bytes, separator: str) -> dict[str, str]:
    lines = (line.partition(separator) for line in text.decode("utf-8", errors="replace").splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in lines}


def _unusual(path: Path) -> InputError:
    return InputError(
        f"“{path.name}” keeps its voxels in an unusual way.",
        "Save it anew as one .nrrd or .nii.gz file, for example in 3D Slicer.",
    )
