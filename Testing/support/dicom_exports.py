"""DICOM objects as hospitals export them, for tests: volumes in any orientation, compressed, multi-frame, and the files
that lie around them.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pydicom
import pydicom.dataset
import pydicom.pixels
import pydicom.uid
import pytest
import SimpleITK as sitk

STORAGE = "1.2.840.10008.5.1.4.1.1."

#: Transfer syntaxes by the names that tests use.
SYNTAXES = {
    "explicit": pydicom.uid.ExplicitVRLittleEndian,
    "implicit": pydicom.uid.ImplicitVRLittleEndian,
    "deflated": pydicom.uid.DeflatedExplicitVRLittleEndian,
    "JPEG 2000": pydicom.uid.JPEG2000Lossless,
    "JPEG-LS": pydicom.uid.JPEGLSLossless,
    "RLE": pydicom.uid.RLELossless,
}


def write_export(
    image: sitk.Image,
    folder: Path,
    series: int = 1,
    *,
    study: str = "1",
    syntax: str = "explicit",
    shift_per_mm: float = 0.0,
    reverse: bool = False,
    is_unsigned: bool = False,
    prefix: str = "IM",
    **tags,
) -> list[Path]:
    """Write a volume of whole numbers, a file per slice.

    Args:
        image: on any grid.
        folder: is made if needed.
        series: number of the series, in its UIDs.
        study: end of the study's UID.
        syntax: one of :data:`SYNTAXES`.
        shift_per_mm: slices lie aside along their columns by this much per mm, as with a tilted gantry; voxels stay.
        reverse: the last slice has the first number and the first name.
        is_unsigned: numbers are stored without sign, 1024 too large, and rescaled.
        prefix: of file names.
        tags: others than the usual ones; None leaves a tag out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    voxels = sitk.GetArrayFromImage(image).astype(np.int32)
    order = range(len(voxels))
    paths = []
    for number, z in enumerate(reversed(order) if reverse else order, start=1):
        position = np.array(image.TransformIndexToPhysicalPoint((0, 0, z)))
        position += direction[:, 1] * shift_per_mm * z * image.GetSpacing()[2]
        slices = _common(image, series, study, tags.get("Modality", "CT"))
        slices.SOPInstanceUID = slices.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{study}.{series}.{number}"
        slices.InstanceNumber = number
        slices.ImagePositionPatient = [round(float(value), 9) for value in position]
        slices.ImageOrientationPatient = [round(float(value), 12) for value in direction[:, :2].T.ravel()]
        slices.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
        slices.SliceThickness = image.GetSpacing()[2]
        _set_voxels(slices, voxels[z], is_unsigned)
        _set_tags(slices, tags)
        path = folder / f"{prefix}{number:04d}.dcm"
        _save(slices, path, syntax)
        paths.append(path)
    return paths


def write_enhanced(
    image: sitk.Image,
    path: Path,
    series: int = 1,
    *,
    study: str = "1",
    syntax: str = "explicit",
    phases: int = 1,
    **tags,
) -> Path:
    """Write a volume as one enhanced CT file, frames in the order of the slices; of several phases, each 100 HU
    brighter than the one before, in turn at each slice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    voxels = sitk.GetArrayFromImage(image).astype(np.int32)
    file = _common(image, series, study, "CT")
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = STORAGE + "2.1"
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{study}.{series}.1"
    file.NumberOfFrames = len(voxels) * phases
    file.InstanceNumber = 1
    file.ContentDate, file.ContentTime = "20260102", "120000"
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = [pydicom.Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [round(float(v), 12) for v in direction[:, :2].T.flat]
    shared.PixelMeasuresSequence = [pydicom.Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
    shared.PixelMeasuresSequence[0].SliceThickness = image.GetSpacing()[2]
    shared.PixelValueTransformationSequence = [pydicom.Dataset()]
    shared.PixelValueTransformationSequence[0].RescaleSlope = 1
    shared.PixelValueTransformationSequence[0].RescaleIntercept = -1024
    shared.PixelValueTransformationSequence[0].RescaleType = "HU"
    file.SharedFunctionalGroupsSequence = [shared]
    file.PerFrameFunctionalGroupsSequence = []
    frames = []
    for z, part in enumerate(voxels):
        for phase in range(phases):
            own = pydicom.Dataset()
            own.PlanePositionSequence = [pydicom.Dataset()]
            position = image.TransformIndexToPhysicalPoint((0, 0, z))
            own.PlanePositionSequence[0].ImagePositionPatient = [round(float(value), 9) for value in position]
            own.FrameContentSequence = [pydicom.Dataset()]
            own.FrameContentSequence[0].DimensionIndexValues = [z + 1, phase + 1]
            own.CardiacSynchronizationSequence = [pydicom.Dataset()]
            own.CardiacSynchronizationSequence[0].NominalPercentageOfCardiacPhase = 35.0 + 40.0 * phase
            file.PerFrameFunctionalGroupsSequence.append(own)
            frames.append(part + 100 * phase)
    _set_voxels(file, np.stack(frames), True)
    for name in ("RescaleSlope", "RescaleIntercept"):
        delattr(file, name)
    _set_tags(file, tags)
    _save(file, path, syntax)
    return path


def _common(image: sitk.Image, series: int, study: str, modality: str) -> pydicom.dataset.FileDataset:
    meta = pydicom.dataset.FileMetaDataset()
    file = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = meta.MediaStorageSOPClassUID = STORAGE + {"MR": "4", "PT": "128"}.get(modality, "2")
    file.StudyInstanceUID, file.SeriesInstanceUID = f"1.2.3.{study}", f"1.2.3.{study}.{series}"
    file.FrameOfReferenceUID = f"1.2.3.{study}.999"
    file.PatientID, file.PatientName, file.PatientBirthDate, file.PatientSex = "P1", "Doe^Jane", "19600101", "F"
    file.StudyDate, file.StudyTime, file.StudyID, file.AccessionNumber = "20260102", "101112", "7", "A7"
    file.ReferringPhysicianName = ""
    file.Modality, file.SeriesNumber, file.SeriesDescription = modality, series, f"series {series}"
    file.Manufacturer, file.ManufacturerModelName = "Scanner", "One"
    file.PositionReferenceIndicator = ""
    file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    file.Columns, file.Rows = image.GetSize()[:2]
    file.RescaleSlope, file.RescaleIntercept = 1, 0
    return file


def _set_voxels(file: pydicom.Dataset, voxels: np.ndarray, is_unsigned: bool) -> None:
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.PixelRepresentation = 0 if is_unsigned else 1
    if is_unsigned:
        voxels = voxels + 1024
        file.RescaleIntercept, file.RescaleSlope = -1024, 1
        file.BitsStored, file.HighBit = 12, 11
    stored = voxels.astype("<u2" if is_unsigned else "<i2")
    file.add_new("PixelData", "OW", stored.tobytes())


def _set_tags(file: pydicom.Dataset, tags: dict) -> None:
    for name, value in tags.items():
        if value is not None:
            setattr(file, name, value)
        elif name in file:
            delattr(file, name)


def _save(file: pydicom.dataset.FileDataset, path: Path, syntax: str) -> None:
    uid = SYNTAXES[syntax]
    file.file_meta.TransferSyntaxUID = uid if not uid.is_compressed else pydicom.uid.ExplicitVRLittleEndian
    if uid.is_encapsulated:
        if not pydicom.pixels.get_encoder(uid).is_available:
            pytest.skip(f"there is no encoder of {syntax} (pip install pylibjpeg pylibjpeg-openjpeg pyjpegls)")
        file.compress(uid, generate_instance_uid=False)
    file.save_as(path, enforce_file_format=True)


def write_other_object(path: Path, kind: str, *, study: str = "1") -> None:
    """Write an object that is no image: an encapsulated PDF ("104.1") or a report ("88.22")."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = pydicom.dataset.FileMetaDataset()
    file = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = meta.MediaStorageSOPClassUID = STORAGE + kind
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = f"1.2.3.{study}.77.{kind}"
    file.StudyInstanceUID, file.SeriesInstanceUID = f"1.2.3.{study}", f"1.2.3.{study}.77"
    file.PatientID = "P1"
    file.Modality = "DOC"
    file.ContentDate = datetime.date(2026, 1, 2).strftime("%Y%m%d")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.save_as(path, enforce_file_format=True)
