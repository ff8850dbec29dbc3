"""Labels as a DICOM Segmentation on the frames of the series that they were made of (DICOM PS3.3, A.51).

highdicom is imported by the first call; the package's extra ``archive`` brings it, and 3D Slicer has it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from mkd_core import __version__
from mkd_core.io.dicom import Series
from mkd_core.io.dicom_files import require_pydicom
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Report, Weights, weights_of, weights_of_structure
from mkd_core.structures import ANATOMICAL_STRUCTURE, BY_KEY, Structure

#: How segments are stored: a bit for each voxel of each segment, which every viewer reads; or one label for each voxel,
#: which is a fraction of the size.
SegmentationKind = Literal["BINARY", "LABELMAP"]
SEGMENTATION_KINDS: tuple[SegmentationKind, ...] = ("BINARY", "LABELMAP")

MANUFACTURER = "MKDSegmentation"

#: Numbers of the series that are made, beyond those that scanners give.
SERIES_NUMBER_SEG, SERIES_NUMBER_SR = 9001, 9002

#: Tags without which no object of a study can be made; empty where the source has none, as after anonymisation.
_STUDY_TAGS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def require_highdicom() -> ModuleType:
    """highdicom.

    Raises:
        InputError: it is missing, with the command that installs it.
    """
    require_pydicom()
    try:
        import highdicom
        import highdicom.sr
    except ImportError as error:
        raise refusal(finding("dicom_needs_extra", package="highdicom")) from error
    return highdicom


def build(
    series: Series,
    headers: Sequence[Any],
    labels: np.ndarray,
    report: Report,
    *,
    kind: SegmentationKind = "BINARY",
    edited: Collection[str] = (),
) -> Any:
    """The Segmentation, as a pydicom dataset.

    The same labels of the same series by the same weights get the same UIDs, so that a run that is repeated makes no
    second object in an archive.

    Args:
        series: what was segmented.
        headers: of its files, as :func:`mkd_core.io.dicom.read_source` gives them.
        labels: (N, Y, X) on its slices, values as ``report["labels"]`` says.
        report: of the segmentation.
        kind: one of :data:`SEGMENTATION_KINDS`.
        edited: keys of structures that a person has changed since.

    Raises:
        InputError: highdicom is missing, no voxel belongs to a structure, or the source's files are such as no
            Segmentation can refer to.
    """
    highdicom = require_highdicom()
    segments = segments_of(labels, report)
    if not segments:
        raise refusal(finding("dicom_no_segments"))
    numbers = np.zeros(max(report["labels"].values()) + 1, np.uint8)
    for number, structure in enumerate(segments, start=1):
        numbers[report["labels"][structure.key]] = number
    voxels = np.where(labels < len(numbers), numbers[np.minimum(labels, len(numbers) - 1)], 0).astype(np.uint8)
    sources = [_complete(header) for header in headers]
    frames = [number for _, number in series.frames if number is not None]
    if frames:
        sources = [_of_frames(sources, frames)]
    identity = _identity(series, report, labels, kind, edited)
    files = weights_of(report)
    algorithms = {
        weights: highdicom.AlgorithmIdentificationSequence(
            name=algorithm_name(weights),
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=weights.version,
            source=MANUFACTURER,
            parameters=provenance(report, weights),
        )
        for weights in files
    }
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=structure.name,
            segmented_property_category=coded(highdicom.sr, ANATOMICAL_STRUCTURE),
            segmented_property_type=coded(highdicom.sr, structure.code),
            algorithm_type="SEMIAUTOMATIC" if structure.key in edited else "AUTOMATIC",
            algorithm_identification=algorithms[weights_of_structure(report, structure.key)],
            tracking_uid=tracking_uid(series, structure),
            tracking_id=structure.name,
            anatomic_regions=[coded(highdicom.sr, BY_KEY[structure.region].code)] if structure.region else None,
            display_color=highdicom.color.CIELabColor.from_rgb(*structure.color),
        )
        for number, structure in enumerate(segments, start=1)
    ]
    pydicom = require_pydicom()
    try:
        seg = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=voxels,
            segmentation_type=kind,
            segment_descriptions=descriptions,
            series_instance_uid=uid("SEG series", *identity),
            series_number=SERIES_NUMBER_SEG,
            sop_instance_uid=uid("SEG", *identity),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=algorithm_name(files[0]),
            software_versions=__version__,
            device_serial_number=" ".join(weights.sha256[:16] for weights in files),
            content_label="WHOLE_HEART",
            content_description="Whole-heart segmentation",
            transfer_syntax_uid=(pydicom.uid.RLELossless if kind == "LABELMAP" else pydicom.uid.ExplicitVRLittleEndian),
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise refusal(finding("dicom_no_reference", detail=str(error).splitlines()[0][:200])) from error
    if frames:
        _refer_to_frames(seg, frames)
    seg.SeriesDescription = "Whole-heart segmentation"
    return seg


def segments_of(labels: np.ndarray, report: Report) -> list[Structure]:
    """Structures that have voxels, in the order of their labels: the segments of a Segmentation, from number 1 on."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    order = sorted(report["structures"], key=lambda key: report["labels"][key])
    return [BY_KEY[key] for key in order if report["labels"][key] in present]


def algorithm_name(weights: Weights) -> str:
    """Name of the algorithm, with that of its weights."""
    return f"MKD whole-heart segmentation ({weights.name})"[:64]


def provenance(report: Report, weights: Weights) -> dict[str, str]:
    """How structures were found, as names and values.

    Args:
        report: of the segmentation.
        weights: whose network found them.
    """
    values: Mapping[str, Any] = report
    bundle = weights_of(report)[0]
    told = {
        "software": f"mkd_core {values.get('version', '?')}",
        "weights": weights.title,
        "weights SHA-256": weights.sha256,
        "given the structures by": "" if weights == bundle else f"{bundle.title}, SHA-256 {bundle.sha256}",
        "modality": values.get("modality"),
        "alignment": values.get("alignment"),
        "ensemble weight of S_real": values.get("ensemble_weight"),
        "device": values.get("device"),
        "precision": values.get("precision"),
    }
    return {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in told.items() if value}


def uid(*parts: str) -> str:
    """A UID that is the same for the same parts (DICOM PS3.5, B.2)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(chr(0).join(parts).encode()).digest()[:16], 'big')}"


def tracking_uid(series: Series, structure: Structure) -> str:
    """What tells a structure of a series apart from all others, in the Segmentation and in the report."""
    return uid("tracking", series.study, series.key, structure.key)


def _identity(
    series: Series, report: Report, labels: np.ndarray, kind: str, edited: Collection[str]
) -> tuple[str, ...]:
    digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    weights = [one.sha256 for one in weights_of(report)]
    return (series.study, series.key, digest, *weights, str(report.get("version")), kind, *sorted(edited))


def coded(sr: ModuleType, code: tuple[str, str, str]) -> Any:
    """A code of :mod:`mkd_core.structures` by highdicom.sr."""
    scheme, value, meaning = code
    return sr.CodedConcept(value, scheme, meaning)


def _complete(header: Any) -> Any:
    for name in _STUDY_TAGS:
        if name not in header:
            setattr(header, name, "")
    return header


def _of_frames(headers: Sequence[Any], numbers: Sequence[int]) -> Any:
    """The header of a multi-frame file as if it held only these of its frames."""
    if len(headers) != 1:
        raise refusal(finding("dicom_no_reference", detail="several multi-frame files"))
    part = copy.copy(headers[0])
    part.PerFrameFunctionalGroupsSequence = [headers[0].PerFrameFunctionalGroupsSequence[number] for number in numbers]
    part.NumberOfFrames = len(numbers)
    return part


def _refer_to_frames(seg: Any, numbers: Sequence[int]) -> None:
    """Let a Segmentation that was made of some frames name them by their numbers in the whole file."""
    sources = {  # frames of several segments share them
        id(source): source
        for group in seg.PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence", ())
        for source in derivation.SourceImageSequence
    }
    for source in sources.values():
        source.ReferencedFrameNumber = numbers[int(source.ReferencedFrameNumber) - 1] + 1
