"""The vocabulary of findings: every code with its severity and its sentences, the only place where they are worded.

A finding (:class:`mkd_core.protocol.Finding`) travels as a code with figures.  It becomes a sentence where it is shown:
by :func:`describe` in English for the command line and reports, and translated in the panel, which passes its
translation.  To add a code, add an entry to :data:`MESSAGES` and make the finding by :func:`finding`, or raise
:func:`refusal`.

Imports neither numpy nor SimpleITK nor torch.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from mkd_core.errors import InputError, MKDError
from mkd_core.protocol import Finding, Severity
from mkd_core.structures import BY_KEY

#: Context of the sentences for Qt's translation: this file, as 3D Slicer names it.
TRANSLATION_CONTEXT = "measure.messages"

#: Figures that are keys of structures and are shown by their names.
_STRUCTURE_FIGURES = ("first", "second")


@dataclass(frozen=True)
class Message:
    """Words of a code.

    Attributes:
        severity: that a finding with this code has, unless the one who makes it says otherwise.
        text: what was found; a template of :meth:`str.format` with the names of figures.  ``{structure}`` and
            ``{Structure}`` are the name of the finding's structure within and at the beginning of a sentence.
        advice: what to do, the same way; may be empty.
    """

    severity: Severity
    text: str
    advice: str = ""


def _(text: str) -> str:
    """Mark a text for translation; Slicer's tools look for this name."""
    return text


_NO_HEART_ADVICE = _(
    "If the heart is in view, check the volume's modality and orientation, or draw a box round the heart (in the panel "
    "Advanced > Heart box, on the command line --box) and segment again. Else choose a CT or MR that shows it."
)

#: Every code that there is.
MESSAGES: Mapping[str, Message] = {
    # ---- a sentence of a report of an earlier version ----
    "text": Message("amber", _("{text}")),
    # ---- the volume: it cannot be segmented ----
    "time_series": Message("refusal", _("The volume is a time series."), _("Choose one frame of it.")),
    "not_3d": Message(
        "refusal",
        _("The image has {dimensions:.0f} dimensions where a volume has 3."),
        _("Choose a volume, not a single slice."),
    ),
    "not_scalar": Message(
        "refusal",
        _("The volume has colours or vectors, not plain intensities."),
        _("Choose the original CT or MR volume."),
    ),
    "complex": Message("refusal", _("The volume holds complex numbers."), _("Choose its magnitude.")),
    "too_few_voxels": Message(
        "refusal",
        _("The volume has only {size} voxels, and at least {needed:.0f} are needed in each direction."),
        _("Choose a whole series, not a few slices."),
    ),
    "spacing": Message(
        "refusal",
        _("A voxel size of {mm:.4g} mm cannot be right."),
        _("Check the volume's spacing in the Volumes module."),
    ),
    "extent": Message(
        "refusal",
        _("The volume is {m:.1f} m long, which cannot be right."),
        _("Check the volume's spacing in the Volumes module."),
    ),
    "position": Message(
        "refusal", _("The volume's position is not a number."), _("Centre the volume in the Volumes module.")
    ),
    "sheared": Message(
        "refusal",
        _("The volume's axes are not at right angles: its slices are sheared."),
        _("Resample it first, for example with Crop Volume."),
    ),
    "not_a_number": Message(
        "refusal",
        _("The volume holds voxels that are NaN (not a number)."),
        _("Replace them, for example by the Threshold Scalar Volume module."),
    ),
    "infinite": Message(
        "refusal",
        _("The volume holds voxels that are infinite."),
        _("Replace them, for example by the Threshold Scalar Volume module."),
    ),
    "constant": Message("refusal", _("All voxels of the volume have the same value."), _("Choose another volume.")),
    "labels": Message(
        "refusal",
        _("The volume looks like a label map with {values:.0f} different values, not like an image."),
        _("Choose the CT or MR that belongs to it."),
    ),
    "stored_ct": Message(
        "refusal",
        _("The intensities are not Hounsfield units: water lies near 1000 instead of 0."),
        _("Load the CT from its DICOM files; or subtract 1024, if that is how it was shifted."),
    ),
    "looks_like_mr": Message(
        "refusal",
        _("The intensities are not Hounsfield units: no voxel lies below zero, as air does in a CT. It looks like MR."),
        _("Choose the modality MR for an MR volume; load a CT from its DICOM files."),
    ),
    "dark_ct": Message(
        "refusal",
        _("The intensities are not Hounsfield units: no voxel is as bright as soft tissue."),
        _("Load the CT from its DICOM files."),
    ),
    "no_heart": Message(
        "refusal", _("No heart was found in this volume. Nothing in it looks like one."), _NO_HEART_ADVICE
    ),
    "no_heart_part": Message(
        "refusal",
        _("No heart was found in this volume. What looks like one is mostly {first} ({ml:.0f} ml), not a whole heart."),
        _NO_HEART_ADVICE,
    ),
    "no_heart_cut": Message(
        "refusal",
        _(
            "No heart was found in this volume. What looks like one ({ml:.0f} ml) reaches the edge of the volume and "
            "seems to be cut off."
        ),
        _NO_HEART_ADVICE,
    ),
    "no_heart_no_contrast": Message(
        "refusal",
        _(
            "No heart was found in this volume. What looks most like one holds no contrast agent ({hu:.0f} HU), so "
            "that its chambers cannot be told apart."
        ),
        _NO_HEART_ADVICE,
    ),
    "no_heart_unlike": Message(
        "refusal",
        _(
            "No heart was found in this volume. Something of {ml:.0f} ml was taken for one, but the two segmentors "
            "agree on its parts by only {agreement:.0%}."
        ),
        _NO_HEART_ADVICE,
    ),
    "box_outside": Message("refusal", _("The box lies outside the volume."), _("Draw it round the heart.")),
    "box_small": Message(
        "refusal",
        _("The box is only {mm:.0f} mm wide inside the volume."),
        _("Draw it round the whole heart."),
    ),
    "box_empty": Message(
        "refusal", _("Nothing in the box looks like a part of a heart."), _("Draw the box round the heart.")
    ),
    "larger_than_a_person": Message(
        "refusal",
        _("The volume's field of view is larger than a person."),
        _("Crop it to the chest (Crop Volume), and check its spacing."),
    ),
    "no_voxel_size": Message(
        "refusal",
        _("The file does not say how large its voxels are, so no volume in ml could be true."),
        _("Export it anew from its source; or enter its spacing in the Volumes module and save it as .nrrd."),
    ),
    "no_image": Message(
        "refusal",
        _("Nearly all voxels of the volume are NaN (not a number), infinite or far beyond any intensity."),
        _("Convert it anew from its source."),
    ),
    # ---- the volume: what to doubt ----
    "no_orientation": Message(
        "amber",
        _("The file does not say how the patient lies: left and right may be exchanged."),
        _("Compare it with the images of the scanner."),
    ),
    "two_orientations": Message(
        "amber",
        _("The file states two orientations that differ by {degrees:.1f}°; the one of its matrix (sform) was used."),
        _("Compare it with the images of the scanner."),
    ),
    "padding_values": Message(
        "amber",
        _(
            "{share:.2%} of the voxels hold no intensity but a mark such as NaN: they were taken for the outside of "
            "the field of view."
        ),
    ),
    "jumps": Message(
        "amber",
        _(
            "The image jumps between slices {from_slice:.0f} and {to_slice:.0f}, as where slices are missing or in a "
            "wrong order (such places: {count:.0f})."
        ),
        _("Check that the stack is complete and in order."),
    ),
    "no_air": Message(
        "amber",
        _("The volume shows neither air nor lung, which is unusual for a CT in Hounsfield units."),
        _("Check that it is one; an MR must be segmented as MR."),
    ),
    "looks_like_ct": Message(
        "amber",
        _("The volume looks like a CT in Hounsfield units, with air near -1000, but it is taken for an MR."),
        _("Choose the modality CT for a CT."),
    ),
    "heart_cut": Message(
        "amber",
        _(
            "The volume is only {mm:.0f} mm wide in one direction. A whole heart with its vessels needs more than "
            "{needed_mm:.0f} mm: parts that are cut off are not measured."
        ),
    ),
    "air_offset": Message(
        "amber",
        _("The darkest air has {hu:.0f} HU instead of -1000: the CT numbers are shifted or scaled."),
        _("Load the CT from its DICOM files."),
    ),
    "dicom_modality": Message(
        "amber", _("The DICOM files say that this is {said}, but it is segmented as {modality}.")
    ),
    "thick": Message(
        "amber", _("The slices are {mm:.1f} mm thick: thin walls are blurred and volumes are less exact.")
    ),
    "non_linear_transform": Message(
        "amber",
        _(
            "The volume is under a non-linear transform (for example of a tilted gantry); volumes in ml are measured "
            "without it."
        ),
        _("For true volumes segment a hardened copy."),
    ),
    "shearing_transform": Message(
        "amber",
        _("The volume is sheared by its transform, which the networks do not see. Volumes in ml count it."),
        _("For better outlines segment a hardened copy."),
    ),
    # ---- the run ----
    "box_too_small": Message(
        "amber", _("The heart is larger than the box that these weights work on: its ends are missing.")
    ),
    "fell_back": Message("info", _("The graphics card had too little memory: the processor did the work.")),
    "was_split": Message(
        "amber",
        _("Memory was short: the heart was segmented in parts."),
        _("Look at the contours for a step where they meet, or close other programs and segment again."),
    ),
    # ---- one structure ----
    "not_found": Message("red", _("Not found.")),
    "not_found_by_one": Message("red", _("Not found, though one of the two segmentors saw it.")),
    "touches_border": Message("amber", _("Reaches the edge of the volume: part of it may be missing.")),
    "too_small": Message("amber", _("Unusually small (usual in an adult: {smallest_ml:.0f} to {largest_ml:.0f} ml).")),
    "too_large": Message("amber", _("Unusually large (usual in an adult: {smallest_ml:.0f} to {largest_ml:.0f} ml).")),
    "separate_parts": Message("amber", _("Found in {count:.0f} separate parts.")),
    "removed_parts": Message("amber", _("Further pieces were found apart from it and left out ({removed_ml:.0f} ml).")),
    "agreement_low": Message(
        "amber",
        _("The two segmentors agree by only {agreement:.0%} (good outlines: {limit:.0%} or more): check the outline."),
    ),
    "agreement_very_low": Message(
        "red",
        _(
            "The two segmentors agree by only {agreement:.0%} (hardly any good outline lies below {limit:.0%}): "
            "outline it anew."
        ),
    ),
    "blood_differs": Message(
        "amber",
        _("Its blood has {hu:.0f} HU where the rest of the left heart and the aorta have {others_hu:.0f} HU."),
    ),
    "blood_dark": Message(
        "amber", _("Its blood has {hu:.0f} HU, far less than the heart muscle ({muscle_hu:.0f} HU).")
    ),
    "muscle_bright": Message(
        "amber",
        _("The muscle is {ratio:.1f} times as bright as the blood in the left ventricle, which is darker here."),
    ),
    # ---- the heart as a whole ----
    "mirrored": Message(
        "red",
        _("Left and right are probably exchanged: the heart is recognised better in the mirror image."),
        _(
            "Check the volume's orientation; if it is right, think of situs inversus or dextrocardia. Do not use the "
            "labels as they are."
        ),
    ),
    "turned": Message(
        "red",
        _(
            "The volume's orientation is probably wrong: the directions that it calls L, P and S (left, back and head) "
            "look like {directions}, for the heart is recognised better so."
        ),
        _("Check the orientation. Do not use the labels as they are."),
    ),
    "coarse_outlines": Message(
        "red",
        _(
            "The two segmentors do not agree on the heart here. The outlines are those of the first, coarse look "
            "({mm:.0f} mm voxels)."
        ),
        _("Check every structure."),
    ),
    "unconfirmed_in_box": Message(
        "red",
        _("The two segmentors do not agree that there is a heart in the box."),
        _("Check every structure."),
    ),
    "left_of": Message("red", _("The {first} lies left of the {second}: the volume's orientation may be wrong.")),
    "in_front_of": Message(
        "red", _("The {first} lies in front of the {second}: the volume's orientation may be wrong.")
    ),
    "below": Message("red", _("The {first} lies below the {second}: the volume's orientation may be wrong.")),
    "no_contrast_agent": Message(
        "amber",
        _("The blood is not enhanced by contrast agent (at most {hu:.0f} HU): borders inside the heart are guesses."),
    ),
    "heart_volume": Message(
        "red",
        _(
            "The heart with its great vessels has {ml:.0f} ml (usual in an adult: {smallest_ml:.0f} to "
            "{largest_ml:.0f} ml)."
        ),
        _("Check the voxel size, and whether this is a whole heart."),
    ),
    "muscle_hu": Message(
        "amber",
        _("The heart muscle has {hu:.0f} HU (usual: {low_hu:.0f} to {high_hu:.0f} HU)."),
        _("Check whether the CT numbers are shifted or scaled, and whether this is muscle."),
    ),
    "wall_open": Message(
        "red",
        _("Only {fraction:.0%} of the left ventricle is wrapped in its muscle."),
        _("Check the outlines, the orientation and the field of view."),
    ),
    "apart": Message(
        "red",
        _("The {first} and the {second} do not touch, as they do at a valve."),
        _("Check whether this is a heart, and its orientation."),
    ),
    "proportions": Message(
        "red",
        _("The heart is {ratio:.2f} times as high as it is wide and deep (usual: {low:.2f} to {high:.2f})."),
        _("Check the distance of the slices, and the orientation."),
    ),
    "stretched": Message(
        "red",
        _("The heart is {ratio:.1f} times as long as it is thick."),
        _("Check the voxel size and the distance of the slices."),
    ),
    "body_width": Message(
        "red",
        _("The body is {mm:.0f} mm wide at the heart (usual in an adult: {low_mm:.0f} to {high_mm:.0f} mm)."),
        _("Check the voxel size."),
    ),
    "heart_width": Message(
        "red",
        _("The heart is {mm:.0f} mm wide in a body of {body_mm:.0f} mm."),
        _("Check whether this is a heart."),
    ),
    "blurred": Message(
        "amber",
        _("The sharpest edges of the heart are {mm:.0f} mm wide: the image is blurred, by motion or smoothing."),
        _("Check the outlines, above all of thin walls."),
    ),
    "second_heart": Message(
        "amber", _("There is a second heart of {ml:.0f} ml in the volume, which was not segmented.")
    ),
    "weights_unproven": Message(
        "amber",
        _(
            "These weights recognised {found:.0f} of {known:.0f} structures of the built-in phantom: they may be made "
            "for another kind of image, or not be trained."
        ),
    ),
    # ---- a sequence of frames ----
    "frame_missing": Message(
        "amber", _("Frame {frame:.0f} is not segmented: end-diastole or end-systole may be what is missing.")
    ),
    "frames_missing": Message(
        "amber", _("Frames {frames} are not segmented: end-diastole or end-systole may be among what is missing.")
    ),
    "different_weights": Message(
        "red", _("The frames were segmented with different weights: segment all of them again.")
    ),
    "too_few_frames": Message("amber", _("At least two frames with a left ventricle are needed for its function.")),
    "no_beat": Message(
        "amber", _("The volume of the left ventricle hardly changes: these frames do not show a heartbeat.")
    ),
    "few_frames": Message(
        "amber",
        _("Only {count:.0f} frames: end-systole may lie between two of them, and the ejection fraction may be higher."),
    ),
    "not_found_at_diastole": Message("red", _("{Structure} was not found at end-diastole (frame {frame:.0f}).")),
    "not_found_at_systole": Message("red", _("{Structure} was not found at end-systole (frame {frame:.0f}).")),
    "touches_border_at_diastole": Message(
        "amber",
        _("{Structure} reaches the edge of the volume at end-diastole (frame {frame:.0f}): part of it may be missing."),
    ),
    "touches_border_at_systole": Message(
        "amber",
        _("{Structure} reaches the edge of the volume at end-systole (frame {frame:.0f}): part of it may be missing."),
    ),
    "volume_jumps": Message(
        "amber", _("The volume of the {structure} jumps at frame {frame:.0f}: check its outline there.")
    ),
    "ejection_fraction": Message(
        "amber",
        _("An ejection fraction of {fraction:.0%} of the {structure} is unusual: check its outlines."),
    ),
    "stroke_volumes_differ": Message(
        "amber",
        _(
            "The stroke volumes of left and right ventricle differ by {difference_ml:.0f} ml: without a leak or shunt "
            "they are equal."
        ),
    ),
    "myocardium_changes": Message(
        "amber",
        _(
            "The volume of the myocardium changes by {change:.0%} from end-diastole to end-systole, which muscle does "
            "not: check its outlines."
        ),
    ),
    # ---- labelled volumes, for training and evaluation ----
    "label_missing": Message(
        "amber", _("The label map has no voxel of the {structure}."), _("Complete the label, or leave the case out.")
    ),
}


def finding(code: str, *, structure: str | None = None, severity: Severity | None = None, **figures: Any) -> Finding:
    """A finding with a code of :data:`MESSAGES`.

    Args:
        code: what it is.
        structure: key of the structure that it is about.
        severity: if it is not the code's usual one.
        figures: numbers and words, as the sentence names them; ``file`` may be added to each.

    Raises:
        ValueError: a figure that the sentence names is missing, or one is given that it does not know.
    """
    message = MESSAGES[code]
    named = figures_of(message)
    if structure is None and named & {"structure", "Structure"}:
        raise ValueError(f"The finding {code!r} needs a structure.")
    named -= {"structure", "Structure"}
    if named != set(figures) - {"file"}:
        raise ValueError(f"The finding {code!r} takes the figures {sorted(named)}, not {sorted(figures)}.")
    plain = {name: value if isinstance(value, str) else float(value) for name, value in figures.items()}
    return Finding(code, severity or message.severity, plain, structure)


def figures_of(message: Message) -> set[str]:
    """Names of the figures in a message's sentences."""
    formatter = string.Formatter()
    return {name for text in (message.text, message.advice) for _, name, _, _ in formatter.parse(text) if name}


def describe(finding: Finding, translate: Callable[[str], str] = str) -> str:
    """The sentence or sentences of a finding: what was found, and what to do.

    Args:
        finding: of any origin; a code of a newer version is shown as it is.
        translate: gives the text to use instead of an English template.
    """
    return " ".join(text for text in _sentences(finding, translate) if text)


_Error = TypeVar("_Error", bound=MKDError)


@overload
def refusal(finding: Finding) -> InputError: ...
@overload
def refusal(finding: Finding, kind: type[_Error]) -> _Error: ...
def refusal(finding: Finding, kind: type[MKDError] = InputError) -> MKDError:
    """The error of a finding that stops a run, to be raised: the one place where errors are made from findings.

    Args:
        finding: why.
        kind: class of the error, one that takes a message, an advice and a finding.
    """
    return kind(*_sentences(finding, str), finding)


def _sentences(finding: Finding, translate: Callable[[str], str]) -> tuple[str, str]:
    message = MESSAGES.get(finding.code)
    if message is None:
        figures = ", ".join(f"{name} {value}" for name, value in finding.figures.items())
        return f"{finding.code} ({figures})" if figures else finding.code, ""
    values: dict[str, Any] = dict(finding.figures)
    for name in _STRUCTURE_FIGURES:
        if values.get(name) in BY_KEY:
            values[name] = translate(BY_KEY[values[name]].name).lower()
    if finding.structure in BY_KEY:
        values["Structure"] = translate(BY_KEY[finding.structure].name)
        values["structure"] = values["Structure"].lower()
    text, advice = (_filled(template, values, translate) for template in (message.text, message.advice))
    file = values.get("file")
    return f"“{file}”: {text}" if file else text, advice


def _filled(template: str, values: Mapping[str, Any], translate: Callable[[str], str]) -> str:
    if not template:
        return ""
    for text in (translate(template), template):  # a translation may have lost or changed a placeholder
        try:
            return text.format(**values)
        except (KeyError, ValueError, IndexError, AttributeError):
            continue
    return template  # of a report whose figures are not those of the code
