"""Voxels of DICOM files, as they are or compressed.

Uncompressed voxels are unpacked by pydicom.  Compressed ones (JPEG, JPEG-LS, JPEG 2000, RLE) are decoded by GDCM,
which SimpleITK brings, so that no further package is needed; and where GDCM does not know a compression, by a decoder
that pydicom finds, if one is installed.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.io.dicom_files import UNPACKING_ERRORS, FileReference, Opener, functional_group, require_pydicom
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Finding

#: What GDCM decodes: JPEG, JPEG-LS, JPEG 2000, RLE (DICOM PS3.6, table A-1).
_KNOWN_TO_GDCM = tuple(
    f"1.2.840.10008.1.2.{end}" for end in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "5")
)

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

#: Tags that say how voxels are stored.
_PIXEL_TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
)


#: Rescale types of Hounsfield units; "US" is "unspecified" (DICOM PS3.3, C.11.1.1.2).
_HU = ("", "HU", "HU_MOD", "US")

#: Larger slopes and intercepts mean nothing.
_MOST_SCALE = 1e6


class Decoder:
    """Reads DICOM files and their voxels.  To be used by ``with``."""

    def __init__(self) -> None:
        self._pydicom = require_pydicom()
        self._opener = Opener()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Decoder:
        self._opener.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._opener.__exit__(*error)
        if self._folder is not None:
            self._folder.cleanup()

    def read(self, file: FileReference, *, with_voxels: bool = True) -> Any:
        """All tags of a file, as pydicom has them.

        Raises:
            InputError: it cannot be read, or ends before its voxels.
        """
        try:
            with self._opener.open(file) as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tags = self._pydicom.dcmread(stream, stop_before_pixels=not with_voxels, force=True)
        except FileNotFoundError as error:
            raise refusal(finding("file_missing", file=str(file))) from error
        except (*UNPACKING_ERRORS, KeyError, self._pydicom.errors.InvalidDicomError) as error:
            raise refusal(finding("file_damaged", file=file.name)) from error
        if "Rows" not in tags or (with_voxels and "PixelData" not in tags):
            raise refusal(finding("file_damaged", file=file.name))
        return tags

    def slices(
        self, file: FileReference, tags: Any, numbers: Sequence[int | None]
    ) -> Iterator[tuple[int | None, np.ndarray]]:
        """Slices (Y, X) of a file by the numbers of their frames, scaled to intensities: integers where the scale has
        no fractions, else 32-bit floating point.

        Raises:
            InputError: voxels are missing or damaged, or compressed in an unknown way.
        """
        stored = self._stored(file, tags)
        if stored.ndim == 2:
            stored = stored[None]
        for number in numbers:
            at = number or 0
            if at >= len(stored):
                raise refusal(finding("file_damaged", file=file.name))
            yield number, _scaled(stored[at], _scale(file, tags, number) or (1.0, 0.0))

    def _stored(self, file: FileReference, tags: Any) -> np.ndarray:
        syntax = tags.file_meta.get("TransferSyntaxUID") if hasattr(tags, "file_meta") else None
        if syntax is None:
            tags.file_meta = getattr(tags, "file_meta", None) or self._pydicom.dataset.FileMetaDataset()
            implicit, _ = tags.original_encoding
            tags.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
        elif syntax in _KNOWN_TO_GDCM:
            try:
                return self._decoded(tags)
            except RuntimeError as error:
                raise refusal(finding("file_damaged", file=file.name)) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                voxels: np.ndarray = tags.pixel_array
        except (RuntimeError, NotImplementedError) as error:  # no decoder for it
            name = getattr(syntax, "name", str(syntax))
            raise refusal(finding("dicom_compression", file=file.name, compression=name)) from error
        except (ValueError, AttributeError, TypeError) as error:
            raise refusal(finding("file_damaged", file=file.name)) from error
        return voxels

    def _decoded(self, tags: Any) -> np.ndarray:
        """The stored voxels of a file that GDCM decodes, (Y, X) or (N, Y, X).

        They go to it in a file of their own, which says nothing of the patient and has a name that ITK can open.
        """
        copy = self._pydicom.Dataset()
        copy.file_meta = self._pydicom.dataset.FileMetaDataset()
        copy.file_meta.TransferSyntaxUID = tags.file_meta.TransferSyntaxUID
        copy.SOPClassUID = copy.file_meta.MediaStorageSOPClassUID = _SECONDARY_CAPTURE
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        for name in _PIXEL_TAGS:
            if name in tags:
                setattr(copy, name, tags[name].value)
        copy["PixelData"] = tags["PixelData"]
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mkd-")
        path = Path(_short(self._folder.name), "voxels.dcm")
        copy.save_as(path, enforce_file_format=True)
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
        count = int(tags.get("NumberOfFrames") or 1)
        voxels = sitk.GetArrayFromImage(image).reshape(-1, int(tags.Rows), int(tags.Columns))
        if len(voxels) != count:
            raise RuntimeError(f"{len(voxels)} of {count} frames were decoded.")
        return voxels


def scale_findings(file: FileReference, tags: Any, number: int | None, modality: str) -> list[Finding]:
    """What is doubtful about how the numbers stored in a file become intensities."""
    found = []
    if modality == "CT":
        unit = str(_transformation(tags, number).get("RescaleType") or "").strip()
        if _scale(file, tags, number) is None:
            found.append(finding("dicom_no_rescale", file=file.name))
        elif unit.upper() not in _HU:
            found.append(finding("dicom_not_hu", file=file.name, said=unit))
    if tags.get("PhotometricInterpretation") == "MONOCHROME1":
        found.append(finding("dicom_inverted", file=file.name))
    return found


def _transformation(tags: Any, number: int | None) -> Any:
    """The tags that say how stored numbers become intensities."""
    if number is not None and "PerFrameFunctionalGroupsSequence" in tags:
        return functional_group(tags, number, "PixelValueTransformationSequence")
    return tags


def _scale(file: FileReference, tags: Any, number: int | None) -> tuple[float, float] | None:
    """Slope and intercept, None where one is not stated.

    Raises:
        InputError: they are no numbers by which anything could be scaled.
    """
    try:
        group = _transformation(tags, number)
        slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
        if slope is None or intercept is None:
            return None
        scale = float(slope), float(intercept)
    except (TypeError, ValueError) as error:
        raise refusal(finding("dicom_rescale", file=file.name)) from error
    if not all(abs(value) <= _MOST_SCALE for value in scale) or scale[0] == 0:  # False for what is no number, too
        raise refusal(finding("dicom_rescale", file=file.name))
    return scale


def _scaled(stored: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    if all(value == round(value) for value in scale) and np.issubdtype(stored.dtype, np.integer):
        wide = stored.astype(np.int64) * int(scale[0]) + int(scale[1])
        return wide.astype(np.int16 if wide.min() >= -32768 and wide.max() <= 32767 else np.int32)
    return (stored.astype(np.float64) * scale[0] + scale[1]).astype(np.float32)


def _short(folder: str) -> str:
    """The folder's name in plain characters, where Windows keeps one."""
    if os.name != "nt" or folder.isascii():
        return folder
    import ctypes

    buffer = ctypes.create_unicode_buffer(1024)
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]  # known on Windows only
    return buffer.value if kernel.GetShortPathNameW(folder, buffer, 1024) else folder
