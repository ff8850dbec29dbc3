"""What is known of the patient of a volume: from its DICOM files, or typed by the user, which goes before."""

import dataclasses

import slicer

from mkd_core.measure.patient import (
    AGE_TAG,
    HEIGHT_M,
    INTERVAL_TAG,
    PERCENT_TAG,
    SEX_TAG,
    SIZE_TAG,
    TEXT_TAGS,
    TRIGGER_TAG,
    WEIGHT_KG,
    WEIGHT_TAG,
    CardiacPhase,
    Patient,
    number_within,
)

from .dicomInstances import instancesOf
from .frameSequence import FrameSequence
from .functionNodes import functionOfReports

#: Attributes of a volume node that keep what the user typed; they stay with the volume, and do not pass to another.
_ATTRIBUTES = {
    "height_m": "MKDSegmentation.HeightM",
    "weight_kg": "MKDSegmentation.WeightKg",
    "sex": "MKDSegmentation.Sex",
}

_DATE_TAG, _MODALITY_TAG = "0008|0020", "0008|0060"
_PATIENT_ID_TAG, _NAME_TAG, _BIRTH_TAG = "0010|0020", "0010|0010", "0010|0030"
_TAGS = (
    _DATE_TAG,
    _MODALITY_TAG,
    _PATIENT_ID_TAG,
    _NAME_TAG,
    _BIRTH_TAG,
    SEX_TAG,
    AGE_TAG,
    SIZE_TAG,
    WEIGHT_TAG,
    PERCENT_TAG,
    TRIGGER_TAG,
    INTERVAL_TAG,
    *TEXT_TAGS,
)

_read: dict = {}  # UID of an instance -> its tags


def dicomTags(volumeNode) -> dict:
    """Return the tags that tell of patient and phase in the DICOM file that a volume was loaded from first; empty for a
    volume of another origin.
    """
    instances = instancesOf(volumeNode)
    if not instances:
        return {}
    first = instances[0]
    if first not in _read:
        _read[first] = {
            tag: str(slicer.dicomDatabase.instanceValue(first, tag.replace("|", ",")) or "") for tag in _TAGS
        }
    return _read[first]


def patientOf(volumeNode) -> Patient:
    """Return what is known of the patient: what was typed, else what the DICOM files say."""
    patient = Patient.from_tags(dicomTags(volumeNode))
    if volumeNode is None:
        return patient
    typed = {name: volumeNode.GetAttribute(attribute) for name, attribute in _ATTRIBUTES.items()}
    changes: dict = {}
    for name, limits in (("height_m", HEIGHT_M), ("weight_kg", WEIGHT_KG)):
        if typed[name] is not None:
            changes[name] = number_within(typed[name], limits)
    if typed["sex"] is not None:
        changes["sex"] = typed["sex"] if typed["sex"] in ("M", "F") else None
    return dataclasses.replace(patient, **changes)


def patientIdOf(volumeNode) -> tuple | None:
    """Return what can be compared to tell whether two volumes show one patient, as their DICOM files say; None where
    they do not.
    """
    tags = dicomTags(volumeNode)
    found = tuple(tags.get(tag, "").strip() for tag in (_PATIENT_ID_TAG, _NAME_TAG, _BIRTH_TAG))
    return found if any(found[:2]) else None


def keepTyped(volumeNode, name: str, value) -> None:
    """Keep with a volume what the user typed.

    :param name: "height_m", "weight_kg" or "sex".
    :param value: a number, "M" or "F"; None says that it is not known, whatever DICOM says.
    """
    volumeNode.SetAttribute(_ATTRIBUTES[name], "" if value is None else str(value))


def phaseOf(volumeNode) -> CardiacPhase:
    """Return the phase of the beat that a volume shows: of a frame of a segmented sequence by its ventricle's volume,
    else as the DICOM files state it, else unknown.
    """
    frames = FrameSequence.of(volumeNode)
    if frames is not None and frames.segmentations() is not None and frames.isMeasured:
        function = functionOfReports(frames.reports(), frames.isUnfinished)
        shown = frames.browser.GetSelectedItemNumber()
        for name, frame in (("end-diastole", function.end_diastole), ("end-systole", function.end_systole)):
            if frame is not None and frame == shown:
                return CardiacPhase(name, None, "sequence")
    return CardiacPhase.from_tags(dicomTags(volumeNode))


def studyDateOf(volumeNode) -> str:
    """Return the date of the study, YYYY-MM-DD, as the DICOM files say; "" where they do not."""
    text = dicomTags(volumeNode).get(_DATE_TAG, "")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 and text.isdecimal() else ""


def modalityOf(volumeNode) -> str:
    """Return the modality that the DICOM files state, such as "CT"; "" where there are none."""
    return dicomTags(volumeNode).get(_MODALITY_TAG, "")
