"""What was measured as a DICOM Structured Report (TID 1500, DICOM PS3.16): one measurement group a structure, linked to
its segment; warnings as comments.
"""

from __future__ import annotations

from typing import Any

from mkd_core import __version__
from mkd_core.io.dicom import Series
from mkd_core.io.dicom_seg import (
    MANUFACTURER,
    SERIES_NUMBER_SR,
    algorithm_name,
    coded,
    provenance,
    require_highdicom,
    tracking_uid,
    uid,
)
from mkd_core.measure.messages import describe
from mkd_core.protocol import Report, StructureReport, findings, weights_of, weights_of_structure
from mkd_core.structures import ANATOMICAL_STRUCTURE, BY_KEY, Structure

#: Scheme of the codes that no standard has.
SCHEME = "99MKD"

_MEAN = ("373098007", "SCT", "Mean")

#: What was imaged (CID 100).
_PROCEDURES = {
    "CT": ("25045-6", "LN", "CT unspecified body region"),
    "MR": ("25056-3", "LN", "MRI unspecified body region"),
}

#: Name of intensities, and code and meaning of their unit.
_INTENSITIES = {
    "CT": (("112031", "DCM", "Attenuation Coefficient"), ("[hnsf'U]", "Hounsfield unit")),
    "MR": (("110852", "DCM", "MR signal intensity"), ("1", "no units")),
}

_AGREEMENT = ("agreement", SCHEME, "Dice overlap of the two segmentors")
_CONFIDENCE = ("confidence", SCHEME, "Dice overlap that the network expects")


def build(series: Series, headers: list[Any], seg: Any, report: Report) -> Any:
    """The Structured Report, as a pydicom dataset.

    Args:
        series: what was segmented.
        headers: of its files, as :func:`mkd_core.io.dicom.read_source` gives them.
        seg: the Segmentation of :mod:`mkd_core.io.dicom_seg`.
        report: of the segmentation.

    Raises:
        InputError: highdicom is missing.
    """
    highdicom = require_highdicom()
    sr = highdicom.sr
    by_name = {structure.name: structure for structure in BY_KEY.values()}
    files = weights_of(report)
    groups = []
    for segment in seg.SegmentSequence:
        if segment.SegmentLabel not in by_name:  # background of a label map
            continue
        structure = by_name[segment.SegmentLabel]
        groups.append(_group(sr, series, seg, int(segment.SegmentNumber), structure, report))
    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid("device", *(weights.sha256 for weights in files)),
            name=algorithm_name(files[0]),
            manufacturer_name=MANUFACTURER,
            model_name=provenance(report, files[0])["software"],
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept(*_PROCEDURES[report.get("modality", "CT")]),
        imaging_measurements=groups,
    )
    _comment(sr, content[0], [describe(one) for one in findings(report.get("warnings"))])
    document = sr.Comprehensive3DSR(
        evidence=[seg, *headers],
        content=content,
        series_instance_uid=uid("SR series", seg.SOPInstanceUID),
        series_number=SERIES_NUMBER_SR,
        sop_instance_uid=uid("SR", seg.SOPInstanceUID),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm_name(files[0]),
        software_versions=__version__,
        is_complete=True,
        is_final=False,
    )
    document.SpecificCharacterSet = "ISO_IR 192"  # comments hold more than the source's letters may be
    document.SeriesDescription = "Whole-heart measurements"
    return document


def _group(sr: Any, series: Series, seg: Any, number: int, structure: Structure, report: Report) -> Any:
    figures = report["structures"][structure.key]
    region = BY_KEY[structure.region] if structure.region else structure
    weights = weights_of_structure(report, structure.key)
    algorithm = sr.AlgorithmIdentification(
        name=algorithm_name(weights),
        version=weights.version,
        parameters=[f"{name}: {value}" for name, value in provenance(report, weights).items()],
    )
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=tracking_uid(series, structure), identifier=structure.name),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(series.uid),
        ),
        finding_category=coded(sr, ANATOMICAL_STRUCTURE),
        finding_type=coded(sr, structure.code),
        finding_sites=[sr.FindingSite(coded(sr, region.code))],
        algorithm_id=algorithm,
        measurements=_measurements(
            sr,
            figures,
            report.get("modality", "CT"),
            _AGREEMENT if weights == weights_of(report)[0] else _CONFIDENCE,
        ),
    )
    _comment(sr, group[0], [describe(one) for one in findings(figures["warnings"])])
    return group


def _measurements(
    sr: Any, figures: StructureReport, modality: str, name_of_agreement: tuple[str, str, str]
) -> list[Any]:
    def measured(name: tuple[str, str, str], value: float, unit: tuple[str, str], derivation: Any = None) -> Any:
        return sr.Measurement(
            name=sr.CodedConcept(*name),
            value=round(float(value), 4),
            unit=sr.CodedConcept(unit[0], "UCUM", unit[1]),
            derivation=derivation,
        )

    found = []
    if (volume := figures.get("volume_ml")) is not None:
        found.append(measured(("118565006", "SCT", "Volume"), volume, ("ml", "milliliter")))
    if (mass := figures.get("mass_g")) is not None:
        found.append(measured(("118538004", "SCT", "Mass"), mass, ("g", "gram")))
    if (intensity := figures.get("mean_intensity")) is not None:
        name, unit = _INTENSITIES[modality]
        found.append(measured(name, intensity, unit, sr.CodedConcept(*_MEAN)))
    if (agreement := figures.get("agreement")) is not None:
        found.append(measured(name_of_agreement, agreement, ("1", "no units")))
    return found


def _comment(sr: Any, item: Any, sentences: list[str]) -> None:
    """Add sentences to a container, each as a comment."""
    for sentence in sentences:
        item.ContentSequence.append(
            sr.TextContentItem(
                name=sr.CodedConcept("121106", "DCM", "Comment"), value=sentence, relationship_type="CONTAINS"
            )
        )
