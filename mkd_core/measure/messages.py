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


#: What every place says that shows figures.
RESEARCH_USE = _("Research use only. Not for diagnosis.")

_NO_HEART_ADVICE = _(
    "If the heart is in view, check the volume's modality and orientation, or draw a box round the heart (in the panel "
    "Advanced > Heart box, on the command line --box) and segment again. Else choose a CT or MR that shows it."
)

#: Parts of the method, by the names that bundles give them; a figure ``part`` is shown by its name here.
_PARTS: Mapping[str, str] = {
    "localiser": _("localiser"),
    "generator_a2t": _("generator to the target modality"),
    "generator_t2a": _("generator to the assistant modality"),
    "segmentor_real": _("segmentor of real images"),
    "segmentor_syn": _("segmentor of translated images"),
    "detailed": _("network for structures in detail"),
}

_EXPORT_AGAIN = _("Export the series anew, or load it in 3D Slicer, look whether it is complete, and save it as .nrrd.")

_CONVERT_AGAIN = _("Convert it anew from its source.")

_CLOSE_OR_CROP = _("Close other programs, or crop the volume to the chest.")

_OTHER_DEVICE = _("Choose the device “auto” or “cpu”.")

_CHECK_FOLDER = _("Check the folder and the space on the disk.")


def _of_bundle(text: str) -> Message:
    """Why a file is no weights bundle; the file's name comes before it."""
    return Message(
        "refusal",
        text,
        _(
            "The file cannot be used. Choose a weights bundle (.safetensors) made for this extension, or leave the "
            "field empty for the one that comes with it."
        ),
    )


def _of_self_test(text: str) -> Message:
    """What a bundle's networks did wrong on the built-in phantom; the file's name comes before it."""
    return Message("refusal", text, _("Choose other weights, or ask whoever made them."))


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
    "no_heart_stack": Message(
        "refusal",
        _(
            "No heart was found in this volume. It is a stack of thick slices and shows none, neither with its own "
            "directions nor with those of short-axis slices. What looks most like one ({ml:.0f} ml) is recognised to "
            "only {recognition:.0%}, or the segmentors do not agree on it."
        ),
        _(
            "If it shows a heart, its directions were probably lost in a conversion: load it from its DICOM files, or "
            "draw a box round the heart (in the panel Advanced > Heart box, on the command line --box) and segment "
            "again."
        ),
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
    # ---- a file or a folder ----
    "file_missing": Message("refusal", _("There is no file “{file}”.")),
    "file_name": Message("refusal", _("“{file}” is not a name that a file can have."), _("Choose a shorter name.")),
    "file_name_zero_byte": Message("refusal", _("A name with a zero byte is not a name that a file can have.")),
    "file_unreadable": Message("refusal", _("“{file}” cannot be read ({reason}).")),
    "file_not_regular": Message("refusal", _("“{file}” is not a file.")),
    "file_empty": Message("refusal", _("“{file}” is empty."), _("Download or copy it again.")),
    "file_damaged": Message("refusal", _("“{file}” is cut off or damaged."), _("Download or copy it again.")),
    "file_no_volume": Message(
        "refusal",
        _("“{file}” cannot be read as a volume."),
        _("Choose a NRRD, NIfTI or MetaImage file, or a folder with one DICOM series."),
    ),
    "file_unusual": Message(
        "refusal",
        _("“{file}” keeps its voxels in an unusual way."),
        _("Save it anew as one .nrrd or .nii.gz file, for example in 3D Slicer."),
    ),
    "file_no_study_table": Message("refusal", _("“{file}” is no table of this program."), _("Choose another file.")),
    "file_too_large": Message("refusal", _("The memory of this computer is too small for “{file}”."), _CLOSE_OR_CROP),
    "file_beyond_memory": Message(
        "refusal",
        _("The voxels of “{file}” take {needed_gb:.0f} GB, and {free_gb:.0f} GB of this computer's memory are free."),
        _CLOSE_OR_CROP,
    ),
    "file_position": Message(
        "refusal", _("The position of the volume in “{file}” is not a number."), _("Export or convert it anew.")
    ),
    "file_sheared": Message(
        "refusal",
        _("The axes of “{file}” are not at right angles."),
        _("Resample it to a regular grid, for example with Resample Scalar Volume in 3D Slicer."),
    ),
    "file_voxels_missing": Message(
        "refusal",
        _("“{voxels}”, which holds the voxels of “{file}”, is missing."),
        _("Keep both files in one folder."),
    ),
    "file_half": Message(
        "refusal", _("“{file}” is one half of a pair of files."), _("Save the volume as one file, .nii.gz or .nrrd.")
    ),
    "file_two_values": Message("refusal", _("“{file}” states “{field}” twice and differently."), _CONVERT_AGAIN),
    "file_two_voxel_sizes": Message(
        "refusal", _("“{file}” states two voxel sizes, {first_mm} and {second_mm} mm."), _CONVERT_AGAIN
    ),
    "file_two_orientations": Message(
        "refusal",
        _("“{file}” states two orientations (qform and sform) that differ in which way is left, front or up."),
        _CONVERT_AGAIN,
    ),
    "file_of_series": Message(
        "refusal",
        _("“{file}” is a single DICOM file."),
        _(
            "Choose the folder that holds all files of the series, or load the series in 3D Slicer and save it as "
            ".nrrd."
        ),
    ),
    "file_no_label_map": Message("refusal", _("“{file}” is not a label map: its voxels are not 8-bit numbers.")),
    "output_format": Message("refusal", _("“{file}” is not a name for a volume."), _("End it in one of {choices}.")),
    "output_picture": Message("refusal", _("“{file}” is not a name for a picture."), _("End it in .png.")),
    "output_not_regular": Message("refusal", _("“{file}” is not a file."), _("Choose another name for the output.")),
    "output_not_written": Message("refusal", _("“{file}” cannot be written."), _CHECK_FOLDER),
    "output_twice": Message("refusal", _("“{file}” is named for two outputs."), _("Give each a name of its own.")),
    "output_is_input": Message(
        "refusal",
        _("“{file}” is the volume itself or a file that is read for it, which would be lost."),
        _("Choose another name for the output."),
    ),
    "output_exists": Message(
        "refusal",
        _("“{file}” exists already and is not an unchanged result of an earlier run."),
        _("Choose another name, or use --overwrite."),
    ),
    "folder_missing": Message("refusal", _("There is no folder “{file}”.")),
    "folder_name": Message("refusal", _("“{file}” is not a name that a folder can have.")),
    "folder_is_file": Message("refusal", _("“{file}” is a file where a folder for results is needed.")),
    "folder_closed": Message("refusal", _("The folder “{file}” cannot be written.")),
    # ---- a folder of DICOM files ----
    "dicom_none": Message(
        "refusal",
        _("The folder “{file}” holds no DICOM series."),
        _("Choose an image file, or a folder with one DICOM series."),
    ),
    "dicom_several_series": Message(
        "refusal",
        _("The folder “{file}” holds {count:.0f} DICOM series."),
        _("Choose one (mkd segment --series), or put the wanted series into a folder of its own."),
    ),
    "dicom_no_position": Message(
        "refusal",
        _("The DICOM file “{file}” does not say where in the patient its slice lies."),
        _("Choose the original axial series of the scanner."),
    ),
    "dicom_unlike": Message(
        "refusal",
        _("The slices in “{file}” differ in size or direction, as those of a scout or a localiser do."),
        _("Put the slices of one volume into a folder of their own."),
    ),
    "dicom_voxel_sizes": Message(
        "refusal",
        _(
            "The slices in “{file}” differ in voxel size: {first_mm} mm in “{first_file}”, {second_mm} mm in "
            "“{second_file}”."
        ),
        _EXPORT_AGAIN,
    ),
    "dicom_sheared": Message(
        "refusal", _("The axes of the slices in “{file}” are not at right angles."), _EXPORT_AGAIN
    ),
    "dicom_same_place": Message(
        "refusal",
        _(
            "Several slices in “{file}” lie at the same place, as those of a beating heart do, and no tag tells them "
            "apart."
        ),
        _(
            "Put the slices of one phase into a folder of their own, or load the series in 3D Slicer and save one "
            "frame."
        ),
    ),
    "dicom_slices_missing": Message(
        "refusal",
        _(
            "Slices are missing in “{file}”, about {count:.0f} in all: slices {from_slice:.0f} and {to_slice:.0f} lie "
            "{mm:.3g} mm apart, others {usual_mm:.3g} mm."
        ),
        _EXPORT_AGAIN,
    ),
    "dicom_uneven": Message(
        "refusal",
        _("The slices in “{file}” lie at uneven distances, from {least_mm:.3g} to {most_mm:.3g} mm."),
        _EXPORT_AGAIN,
    ),
    "dicom_needs_extra": Message(
        "refusal",
        _("Reading and writing DICOM needs the package {package}, which is not installed."),
        _("Install it: pip install pydicom highdicom dicomweb-client."),
    ),
    "dicom_patients": Message(
        "refusal",
        _("There are series of {count:.0f} patients."),
        _("Choose one (mkd dicom lists them, mkd segment --series takes one)."),
    ),
    "dicom_unknown_series": Message(
        "refusal",
        _("There is no series “{wanted}” among the {count:.0f}."),
        _("Give a number of the list that mkd dicom prints, or a Series Instance UID."),
    ),
    "dicom_few_slices": Message(
        "refusal",
        _("The series has {count:.0f} slices, and at least {needed:.0f} are needed."),
        _("Choose a whole series, not a scout."),
    ),
    "dicom_scout": Message("refusal", _("The series is a scout."), _("Choose the volume that was planned with it.")),
    "dicom_modality_unknown": Message(
        "refusal", _("The DICOM files say that this is {said}, neither CT nor MR."), _("Choose a CT or MR series.")
    ),
    "dicom_shifted": Message(
        "refusal",
        _(
            "The slices in “{file}” do not lie above each other, nor as those of a tilted gantry do: some lie "
            "{mm:.3g} mm aside."
        ),
        _EXPORT_AGAIN,
    ),
    "dicom_rescale": Message(
        "refusal",
        _("The DICOM file “{file}” does not say in numbers how what it stores becomes intensities."),
        _("Export the series anew."),
    ),
    "dicom_compression": Message(
        "refusal",
        _("The voxels are compressed in a way that cannot be read here ({compression})."),
        _("Export the series without compression."),
    ),
    "dicom_changed": Message(
        "refusal", _("The files of the series “{title}” have changed since they were listed."), _("Start again.")
    ),
    "dicom_output_name": Message(
        "refusal",
        _("“{file}” is not a name for a DICOM Segmentation."),
        _("End it in .dcm; the report is written beside it as .sr.dcm."),
    ),
    "dicom_input_needed": Message(
        "refusal",
        _("A DICOM Segmentation can only be written of a volume that was read from DICOM files."),
        _("Choose the folder with the DICOM series, or an output that ends in .nii.gz or .nrrd."),
    ),
    "dicom_series_option": Message(
        "refusal", _("A series can only be chosen of DICOM files."), _("Leave --series out.")
    ),
    "dicom_no_segments": Message(
        "refusal", _("There is no segment to write: no structure was found."), _("Look at the volume.")
    ),
    "dicom_no_reference": Message(
        "refusal",
        _("No DICOM Segmentation can refer to these files ({detail})."),
        _("Choose an output that ends in .nii.gz or .nrrd."),
    ),
    "dicom_no_volume": Message(
        "refusal",
        _("The volume that was segmented is no longer in the scene."),
        _("Load it from Slicer's DICOM database again and choose it."),
    ),
    "dicom_not_from_database": Message(
        "refusal",
        _("The volume was not loaded from Slicer's DICOM database, so there are no slices that a result could lie on."),
        _("Import the DICOM files in the module DICOM, load the volume from there, and segment it."),
    ),
    "dicom_files_gone": Message(
        "refusal",
        _("Of the files that the volume was loaded from, {count:.0f} are no longer in Slicer's DICOM database."),
        _("Import the DICOM files again."),
    ),
    "dicom_volume_changed": Message(
        "refusal",
        _("The volume's voxels are no longer those of the DICOM slices that it was loaded from."),
        _("Segment the volume as the module DICOM loads it."),
    ),
    "dicom_overlap": Message(
        "refusal",
        _("{Structure} overlaps another structure, and in such a file no two segments may."),
        _("Remove the overlap in Segment Editor."),
    ),
    "dicomweb_address": Message(
        "refusal",
        _("“{address}” is not the address of a DICOMweb server."),
        _("It begins with https:// and ends where its services begin, often in /dicom-web."),
    ),
    "dicomweb_unreachable": Message(
        "refusal",
        _("The DICOMweb server {server} does not answer ({reason})."),
        _("Check the address, the network and the certificate."),
    ),
    "dicomweb_refused": Message(
        "refusal",
        _("The DICOMweb server {server} refuses (status {status:.0f})."),
        _("Check the address, and name and password."),
    ),
    "dicomweb_not_stored": Message(
        "refusal",
        _("The DICOMweb server {server} does not take “{file}” (reason {reason:.0f})."),
        _("Ask those who keep the server whether it stores segmentations and reports."),
    ),
    # ---- runs over many series, and their ledger ----
    "archive_missing": Message("refusal", _("“{file}” holds no archive run."), _("Make one with mkd archive index.")),
    "archive_unusable": Message(
        "refusal", _("The ledger “{file}” cannot be used ({reason})."), _("Check the folder and the space on the disk.")
    ),
    "archive_other_version": Message("refusal", _("“{file}” was made by another version of this software.")),
    "archive_other_settings": Message(
        "refusal",
        _("This run was begun with other settings ({changed})."),
        _("Start it with those, or choose a new folder for the results."),
    ),
    "archive_other_weights": Message(
        "refusal",
        _("The weights are not those that the run began with."),
        _("Start it with those, or index into a new folder."),
    ),
    "archive_shard": Message("refusal", _("{index:.0f}/{count:.0f} is no shard."), _("Choose i/n with i from 1 to n.")),
    "archive_no_source": Message("refusal", _("There is no file or folder “{file}”.")),
    "archive_password": Message(
        "refusal",
        _("The ledger keeps the address of the server, and must not keep a password."),
        _("Put name and password into your .netrc file, and leave them out of the address."),
    ),
    "archive_other_key": Message(
        "refusal", _("The ids of this run were made with another key."), _("Name that one with --key.")
    ),
    "archive_member_large": Message("refusal", _("“{member}” in “{file}” is too large."), _("Unpack it first.")),
    "archive_member_damaged": Message("refusal", _("“{member}” cannot be taken out of “{file}” ({reason}).")),
    "key_open": Message(
        "refusal",
        _("Others can read the key “{file}”."),
        _("Run chmod 600 {file}, or choose another with --key."),
    ),
    "key_unusable": Message("refusal", _("The key “{file}” cannot be used ({reason}).")),
    "key_none": Message(
        "refusal", _("“{file}” holds no key."), _("Choose another file with --key; a new one is filled.")
    ),
    # ---- why a DICOM series is not the one that is segmented, or a file none ----
    "dicom_other_modality": Message("info", _("It is of the other modality.")),
    "dicom_other_body_part": Message("info", _("Its files do not name the heart or the chest.")),
    "dicom_derived": Message("info", _("It was derived from other images.")),
    "dicom_short": Message("info", _("It is too short for a heart.")),
    "dicom_plain": Message("info", _("No contrast agent is named.")),
    "dicom_other_phase": Message("info", _("Its phase of the heart's cycle is further from mid-diastole.")),
    "dicom_thicker": Message("info", _("Its slices lie further apart.")),
    "dicom_later": Message("info", _("It is as good, and comes later in the list.")),
    "dicom_other_study": Message("info", _("It belongs to another study.")),
    "dicom_not_wanted": Message("info", _("Another one was asked for.")),
    "dicom_hidden": Message("info", _("It is a hidden file.")),
    "dicom_not_dicom": Message("info", _("It is no DICOM file.")),
    "dicom_directory": Message("info", _("It is the directory of a disc.")),
    "dicom_pdf": Message("info", _("It is a PDF document.")),
    "dicom_report": Message("info", _("It is a report or a key note.")),
    "dicom_segmentation": Message("info", _("It is a segmentation or a registration.")),
    "dicom_presentation": Message("info", _("It is a presentation state.")),
    "dicom_other_object": Message("info", _("It is a DICOM object that is no image of a scanner.")),
    "dicom_copy": Message("info", _("It is a copy of another file.")),
    "dicom_damaged": Message("amber", _("It is cut off or damaged.")),
    "dicom_closed": Message("amber", _("It is a folder that cannot be read.")),
    "dicom_gone": Message("amber", _("It is a link that leads nowhere, or has just been removed.")),
    "dicom_encrypted": Message("amber", _("It is encrypted.")),
    "dicom_archive_within": Message("amber", _("It is an archive within an archive, which is not opened.")),
    "dicom_archive_damaged": Message("amber", _("It is a damaged archive.")),
    "dicom_archive_bomb": Message("amber", _("It claims to become far larger than any images do.")),
    # ---- a DICOM series as a volume ----
    "dicom_chosen": Message(
        "info",
        _("The series “{title}” was chosen of {count:.0f}."),
        _("mkd dicom lists them; --series takes another."),
    ),
    "dicom_tilt": Message(
        "info", _("The gantry was tilted by {degrees:.0f}°: the slices were moved onto a straight grid.")
    ),
    "dicom_no_rescale": Message(
        "amber",
        _("The DICOM files do not say how their numbers become HU."),
        _("Check the intensities; export the series anew."),
    ),
    "dicom_not_hu": Message(
        "amber",
        _("The DICOM files say that their numbers are not HU but {said}."),
        _("Choose the series of plain CT images."),
    ),
    "dicom_inverted": Message(
        "amber",
        _("The DICOM files say that their images are shown with bright and dark exchanged."),
        _("Check that blood is brighter than lung."),
    ),
    # ---- options ----
    "option_unknown": Message("refusal", _("There is no option “{option}”.")),
    "option_value": Message("refusal", _("“{value}” is no value for the option “{option}”.")),
    "option_no_keys": Message("refusal", _("The option “structures” is not a list of keys.")),
    "option_box": Message("refusal", _("The box is not six numbers."), _("Give x0, x1, y0, y1, z0, z1, LPS mm.")),
    "option_alignment": Message(
        "refusal", _("“{value}” is not an alignment for {modality} volumes."), _("Choose one of {choices}.")
    ),
    "option_structure": Message("refusal", _("There is no structure “{value}”."), _("Choose from {choices}.")),
    "option_segmentor": Message("refusal", _("There is no segmentor “{value}”."), _("Choose one of {choices}.")),
    "option_threads": Message(
        "refusal", _("“{value}” is not a number of threads."), _("Choose a number from 1 to {most:.0f}.")
    ),
    "option_modality": Message("refusal", _("“{value}” is not a modality."), _("Choose one of {choices}.")),
    "option_precision": Message("refusal", _("“{value}” is not a precision."), _("Choose one of {choices}.")),
    # ---- the computer ----
    "device_unknown": Message("refusal", _("“{value}” is not a computing device."), _OTHER_DEVICE),
    "device_no_cuda": Message(
        "refusal", _("This computer has no graphics card that torch can use (CUDA)."), _OTHER_DEVICE
    ),
    "device_no_such_cuda": Message("refusal", _("This computer has no CUDA device number {number}."), _OTHER_DEVICE),
    "device_no_metal": Message("refusal", _("This computer has no Metal device that torch can use."), _OTHER_DEVICE),
    "device_memory": Message(
        "refusal",
        _("The device “{device}” ran out of memory."),
        _("Choose the device “cpu”, or close other programs."),
    ),
    "memory": Message("refusal", _("This computer ran out of memory."), _CLOSE_OR_CROP),
    "torch_missing": Message(
        "refusal",
        _("PyTorch, which computes the segmentation, is not installed or does not start."),
        _("Install it through the PyTorch extension of 3D Slicer, or by “pip install torch”."),
    ),
    "package_missing": Message(
        "refusal",
        _("The segmentation process could not load a package that it needs ({reason})."),
        _("Reinstall PyTorch in the module PyTorch Utils and restart Slicer; details are in the application log."),
    ),
    "program_error": Message(
        "refusal",
        _("The segmentation failed because of an error in the program."),
        _("Details are in the application log."),
    ),
    # ---- a file that should be a weights bundle ----
    "bundle_missing": _of_bundle(_("There is no such file.")),
    "bundle_no_file": _of_bundle(_("This is not a file.")),
    "bundle_unreadable": _of_bundle(_("The file cannot be read ({reason}).")),
    "bundle_zip": _of_bundle(
        _("This is a zip archive or a PyTorch checkpoint (pickle), which could run code when opened.")
    ),
    "bundle_pickle": _of_bundle(_("This is a Python pickle, which could run code when opened.")),
    "bundle_foreign": _of_bundle(_("This is a file of another kind ({kind}).")),
    "bundle_too_short": _of_bundle(_("The file is too short to be a .safetensors file.")),
    "bundle_header_size": _of_bundle(_("This is not a .safetensors file, or its header is longer than 1 MB.")),
    "bundle_header_cut": _of_bundle(
        _("The file ends in the middle of its header; the download or copy may be incomplete.")
    ),
    "bundle_too_large": _of_bundle(_("The file is larger than 1 GB.")),
    "bundle_header_json": _of_bundle(_("This is not a .safetensors file: its header is not JSON.")),
    "bundle_header_table": _of_bundle(_("This is not a .safetensors file: its header is not a table.")),
    "bundle_header_texts": _of_bundle(_("The metadata in the header are not a table of texts.")),
    "bundle_header_long": _of_bundle(_("The header would be longer than 1 MB.")),
    "bundle_changed": _of_bundle(_("The file changed while it was read.")),
    "bundle_data_size": _of_bundle(
        _(
            "The file holds {found:.0f} bytes of data where its header describes {described:.0f}; the download or copy "
            "may be incomplete."
        )
    ),
    "bundle_tensor_gap": _of_bundle(_("The tensors overlap or leave a gap at “{tensor}”.")),
    "bundle_tensor_entry": _of_bundle(_("The header does not describe tensor “{tensor}” properly.")),
    "bundle_tensor_format": _of_bundle(
        _("Tensor “{tensor}” has number format “{format}”; only {choices} are allowed.")
    ),
    "bundle_tensor_shape": _of_bundle(_("Tensor “{tensor}” has no proper shape.")),
    "bundle_tensor_place": _of_bundle(_("Tensor “{tensor}” has no proper place in the file.")),
    "bundle_tensor_size": _of_bundle(_("The size of tensor “{tensor}” does not fit its shape.")),
    "bundle_tensor_missing": _of_bundle(_("Tensor “{tensor}” is missing.")),
    "bundle_tensor_other_shape": _of_bundle(_("Tensor “{tensor}” has shape {found} where {needed} is needed.")),
    "bundle_tensor_unknown": _of_bundle(_("Tensor “{tensor}” belongs to none of the networks.")),
    "bundle_tensor_not_finite": _of_bundle(_("Tensor “{tensor}” holds numbers that are not finite.")),
    "bundle_number_format": _of_bundle(_("A number is not finite or does not fit into {format}.")),
    "bundle_no_description": _of_bundle(_("This is a .safetensors file without the description of a weights bundle.")),
    "details_no_description": _of_bundle(
        _("This is a .safetensors file without the description of a network for structures in detail.")
    ),
    "details_seven": _of_bundle(_("“{key}” is one of the seven structures, which the bundle segments.")),
    "details_other_bundle": Message(
        "refusal",
        _("The network for structures in detail was trained for other weights than these."),
        _("Segment the seven structures, or choose the weights that come with the extension."),
    ),
    "bundle_description_json": _of_bundle(_("The description is not JSON.")),
    "bundle_description_table": _of_bundle(_("The description is not a table.")),
    "bundle_description_deep": _of_bundle(_("The description is nested too deep.")),
    "bundle_description_long": _of_bundle(_("A text in the description is too long.")),
    "bundle_description_characters": _of_bundle(_("A text in the description holds control characters.")),
    "bundle_description_number": _of_bundle(_("The description holds a number without end.")),
    "bundle_no_format": _of_bundle(_("The description names no format version.")),
    "bundle_newer_format": _of_bundle(
        _("The bundle is of a newer format ({version:g}); this version reads formats {choices}.")
    ),
    "bundle_unknown_format": _of_bundle(
        _("The bundle is of an unknown format ({version:g}); this version reads formats {choices}.")
    ),
    "bundle_no_text": _of_bundle(_("The description has no text for “{key}”.")),
    "bundle_no_name": _of_bundle(_("The description has an empty name or version.")),
    "bundle_no_table": _of_bundle(_("The description has no table “{key}”.")),
    "bundle_unknown_entry": _of_bundle(_("The table “{table}” of the description has an unknown entry “{key}”.")),
    "bundle_number": _of_bundle(_("“{key}” of “{table}” is not a number from {low:g} to {high:g}.")),
    "bundle_box": _of_bundle(_("“max_box_mm” of “segmentor” is not three lengths from {low:g} to {high:g} mm.")),
    "bundle_modalities": _of_bundle(_("The target and assistant modality are not CT and MR, or MR and CT.")),
    "bundle_no_normalisation": _of_bundle(_("The description does not say how to normalise {modality}.")),
    "bundle_no_range": _of_bundle(_("The intensity range of {modality} is not a range.")),
    "bundle_absurd_range": _of_bundle(_("The intensity range of {modality} is absurd.")),
    "bundle_percentiles": _of_bundle(_("The percentiles of {modality} do not lie in 0 to 100.")),
    "bundle_alignment_target": _of_bundle(_("The alignment of target volumes is not one of {choices}.")),
    "bundle_alignment_assistant": _of_bundle(_("The alignment of assistant volumes is not one of {choices}.")),
    "bundle_other_structures": _of_bundle(_("The structures are not {choices}.")),
    "bundle_no_structures": _of_bundle(_("The description does not list the structures.")),
    "bundle_unknown_structure": _of_bundle(_("There is a structure “{key}” that this version does not know.")),
    "bundle_structure_twice": _of_bundle(_("The description lists a structure twice.")),
    "bundle_no_network": _of_bundle(_("The bundle has no {part}.")),
    "bundle_unknown_network": _of_bundle(_("The bundle holds an unknown network “{key}”.")),
    "bundle_network_type": _of_bundle(_("The {part} has no type.")),
    "bundle_network_absurd": _of_bundle(_("The description of the {part} holds absurd values.")),
    "bundle_network_broken": _of_bundle(_("The {part} cannot be built ({reason}).")),
    "bundle_network_channels": _of_bundle(_("The {part} gives {found:.0f} channels where {needed:.0f} are needed.")),
    "bundle_box_small": _of_bundle(
        _("The networks need boxes of at least {needed_mm:.0f} mm, but the largest box has {mm:.0f} mm.")
    ),
    "bundle_box_voxels": _of_bundle(
        _(
            "The largest box has {millions:.0f} million voxels of {mm:g} mm; at most {most_millions:.0f} million can "
            "be computed."
        )
    ),
    "bundle_layer_memory": _of_bundle(_("One layer of the networks needs {gb:.0f} GB for the largest box.")),
    "bundle_work": _of_bundle(
        _(
            "The networks need {trillions:.0f} trillion multiplications for the largest box; at most "
            "{most_trillions:.0f} trillion can be computed in reasonable time."
        )
    ),
    "bundle_localiser_steps": _of_bundle(_("The localiser needs fields of view in steps of {mm:.0f} mm.")),
    "bundle_localiser_voxels": _of_bundle(
        _("The localiser's voxels of {mm:g} mm are too small to look for a heart in a whole body.")
    ),
    "bundle_localiser_memory": _of_bundle(
        _("The localiser needs too much memory to look for a heart in a whole body.")
    ),
    "bundle_localiser_work": _of_bundle(_("The localiser needs too much time to look for a heart in a whole body.")),
    # ---- weights that are sound as a file and wrong all the same ----
    "weights_segmentor": _of_self_test(
        _(
            "These weights give wrong structures on the self-test: the segmentor of real images does not see the heart "
            "of the built-in phantom."
        )
    ),
    "weights_generators": _of_self_test(
        _(
            "These weights give wrong structures on the self-test: the generators do not render the built-in phantom "
            "as an image that the segmentor of translated images knows."
        )
    ),
    "weights_generator_idle": _of_self_test(
        _(
            "These weights give wrong structures on the self-test: one of the generators leaves the built-in phantom "
            "as it is."
        )
    ),
    "weights_localiser": _of_self_test(
        _(
            "These weights give wrong structures on the self-test: the localiser does not see the heart of the "
            "built-in phantom."
        )
    ),
    "weights_confused": _of_self_test(
        _(
            "These weights give wrong structures on the self-test: the {part} takes the {first} of the built-in "
            "phantom for the {second}."
        )
    ),
    "weights_inverted": _of_self_test(
        _(
            "These weights give wrong structures on the self-test: the {part} takes the {first} of the built-in "
            "phantom for what lies round the heart."
        )
    ),
    "weights_no_numbers": Message(
        "refusal", _("These weights give no numbers for this volume."), _("Choose other weights.")
    ),
    # ---- a download of weights ----
    "download_address": Message(
        "refusal",
        _("The address does not begin with https://."),
        _("Ask whoever offers the weights for an encrypted address."),
    ),
    "download_sha256": Message(
        "refusal",
        _("The SHA-256 is not 64 hexadecimal digits."),
        _("Copy it from where the weights are offered."),
    ),
    "download_other_sha256": Message(
        "refusal",
        _("The file that came has another SHA-256 ({found}…) than the expected one ({wanted}…)."),
        _("It was removed. Check address and SHA-256."),
    ),
    "download_name_taken": Message(
        "refusal",
        _("The folder already holds another file “{file}”."),
        _("Remove it or choose another folder."),
    ),
    "download_not_kept": Message(
        "refusal",
        _("The file cannot be kept in the folder “{folder}” ({reason})."),
        _("Choose another folder."),
    ),
    "download_too_large": Message(
        "refusal", _("The file is larger than {gb:.1f} GB, which no bundle is."), _("Check the address.")
    ),
    "download_no_space": Message(
        "refusal", _("There is not enough free space for the file."), _("Free some, or choose another folder.")
    ),
    "download_refused": Message(
        "refusal", _("The server refused the file ({status:.0f} {reason})."), _("Check the address.")
    ),
    "download_no_connection": Message(
        "refusal",
        _("No connection ({reason})."),
        _("Check the address and the network, or choose a file that you already have."),
    ),
    "download_unencrypted": Message(
        "refusal",
        _("The server leads to an address without encryption."),
        _("Check the address, or choose a file that you already have."),
    ),
    "download_slow": Message(
        "refusal", _("The download broke off: it took more than {minutes:.0f} minutes."), _("Try again.")
    ),
    "download_cut": Message("refusal", _("The download broke off: it ended too early."), _("Try again.")),
    "weights_list_unreadable": Message(
        "refusal",
        _("The list of weights that came cannot be read."),
        _("Update the extension, which may know a newer kind of list."),
    ),
    "download_broken": Message("refusal", _("The download broke off ({reason})."), _("Try again.")),
    # ---- the volume: what to doubt ----
    "no_orientation": Message(
        "amber",
        _("The file does not say how the patient lies: left and right may be exchanged."),
        _("Compare it with the images of the scanner."),
    ),
    "file_longer": Message(
        "amber",
        _("“{file}” holds more voxels than its header counts: {slices:.0f} slices more may be missing."),
        _CONVERT_AGAIN,
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
    "copies": Message(
        "amber",
        _(
            "{count:.0f} slices are copies of the slice before, as where files were stacked twice: then all volumes in "
            "ml are too large."
        ),
        _("Check the series, or load it from its DICOM files."),
    ),
    "jumps": Message(
        "amber",
        _(
            "The image jumps between slices {from_slice:.0f} and {to_slice:.0f}, as where slices are missing or in a "
            "wrong order (such places: {count:.0f})."
        ),
        _("Check that the stack is complete and in order."),
    ),
    "uneven": Message(
        "amber",
        _(
            "From about slice {from_slice:.0f} on, slices seem to lie farther apart or closer together than before, "
            "as where every second one is missing in a part of the stack: then volumes in ml are wrong."
        ),
        _("Check that the stack is complete, or load the series from its DICOM files."),
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
    "equalised": Message(
        "amber",
        _(
            "All intensities are about equally frequent, as after histogram equalisation: tissues cannot be told apart "
            "by their brightness."
        ),
        _("Load the original series, as the scanner made it."),
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
    "ends_at_box": Message(
        "info", _("Veins and the aorta are segmented and measured as far as the box round the heart goes.")
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
    "cut_by_box": Message(
        "amber", _("Cut by the box round the heart, which ends before the volume does: part of it is missing.")
    ),
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
    "agreement_low_several": Message(
        "amber", _("The two segmentors agree by only {lowest:.0%} to {highest:.0%}: check the outlines.")
    ),
    "agreement_very_low_several": Message(
        "red", _("The two segmentors agree by only {lowest:.0%} to {highest:.0%}: outline them anew.")
    ),
    "confidence_low": Message(
        "amber",
        _(
            "The network expects an overlap of only {agreement:.0%} with the truth (good outlines: {limit:.0%} or "
            "more): check the outline."
        ),
    ),
    "confidence_very_low": Message(
        "red",
        _(
            "The network expects an overlap of only {agreement:.0%} with the truth (hardly any good outline lies below "
            "{limit:.0%}): outline it anew."
        ),
    ),
    "confidence_low_several": Message(
        "amber",
        _("The network expects overlaps of only {lowest:.0%} to {highest:.0%} with the truth: check the outlines."),
    ),
    "confidence_very_low_several": Message(
        "red",
        _("The network expects overlaps of only {lowest:.0%} to {highest:.0%} with the truth: outline them anew."),
    ),
    "blood_differs": Message(
        "amber",
        _("Its blood has {hu:.0f} HU where the rest of the left heart and the aorta have {others_hu:.0f} HU."),
    ),
    "blood_dark": Message(
        "amber", _("Its blood has {hu:.0f} HU, far less than the heart muscle ({muscle_hu:.0f} HU).")
    ),
    "one_value": Message(
        "amber",
        _(
            "{share:.0%} of its voxels have the very same value: intensities are cut off or stored in coarse steps, "
            "or part of the image is blank. Its mean intensity is not true."
        ),
        _("Load the original series, as the scanner made it."),
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
    "frame_differs": Message(
        "amber",
        _(
            "The heart of this frame is recognised best with the directions {directions}, that of the first frame with "
            "{first}: one of the two is wrong."
        ),
        _("Compare the frames before you use figures of the beat."),
    ),
    "frame_contradicts": Message(
        "amber",
        _(
            "This frame was segmented with the directions of the first frame, {first}, but its heart is recognised "
            "better with {directions}: perhaps they do not lie alike."
        ),
        _("Compare the frames before you use figures of the beat."),
    ),
    "short_axis": Message(
        "amber",
        _(
            "The directions of this stack seem to be lost: it shows a heart only if its slices are taken for the usual "
            "short-axis ones. It was segmented so."
        ),
        _("Check every structure. What the volume calls left, back and head is not."),
    ),
    "short_axis_turned": Message(
        "red",
        _(
            "The directions of this stack seem to be lost: it shows a heart only if its slices are taken for "
            "short-axis ones with rows and columns exchanged or reversed. It was segmented so."
        ),
        _("Check every structure. What the volume calls left, back and head is not; load it from its DICOM files."),
    ),
    "short_axis_in_box": Message(
        "amber",
        _(
            "The directions of this stack seem to be lost: the segmentors agree on more of what is in the box if its "
            "slices are taken for the usual short-axis ones. It was segmented so."
        ),
        _("Check every structure. What the volume calls left, back and head is not."),
    ),
    "coarse_differs": Message(
        "amber",
        _("The first, coarse look at the volume saw this structure otherwise: the two overlap by only {overlap:.0%}."),
        _("Check its outline."),
    ),
    "coarse_outlines": Message(
        "red",
        _(
            "The two segmentors do not agree on the heart here. The outlines are those of the localiser, which are "
            "coarse ({mm:.0f} mm voxels)."
        ),
        _("Check every structure."),
    ),
    "unconfirmed_in_box": Message(
        "red",
        _("The two segmentors do not agree that there is a heart in the box."),
        _("Check every structure."),
    ),
    "box_cuts": Message(
        "amber",
        _("The heart reaches the edge of the box, and what lies beyond is missing."),
        _("Draw the box larger."),
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
    "hole": Message(
        "amber",
        _(
            "{ml:.0f} ml within the heart have one value throughout, as where an image was blacked out, filled or cut "
            "off at its brightest: figures of the structures there cannot be trusted."
        ),
        _("Load the original series, as the scanner made it."),
    ),
    "heart_volume": Message(
        "amber",
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
    "stretched_z": Message(
        "amber",
        _("By the shape of its chambers the heart is {ratio:.2f} times as high as it should be."),
        _("Check the distance of the slices, and the orientation."),
    ),
    "stretched_y": Message(
        "amber",
        _("By the shape of its chambers the heart is {ratio:.2f} times as deep, from front to back, as it should be."),
        _("Check the size of the voxels within the slices, and the orientation."),
    ),
    "stretched_x": Message(
        "amber",
        _("By the shape of its chambers the heart is {ratio:.2f} times as wide as it should be."),
        _("Check the size of the voxels within the slices, and the orientation."),
    ),
    "ventricle_oval": Message(
        "amber",
        _("Across its own axis the left ventricle is {ratio:.2f} times as long as wide; it should be nearly round."),
        _("Check the size of the pixels: width and height may not be those that the file states."),
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
        _(
            "The edge between blood and muscle of the left ventricle is {mm:.1f} mm wide: the image is blurred, by "
            "motion or smoothing."
        ),
        _("Check the outlines, above all of thin walls."),
    ),
    "noisy": Message(
        "amber",
        _("The noise of the image is {ratio:.0%} of what blood and muscle differ by."),
        _("Check the outlines, above all between chambers and of thin walls."),
    ),
    "second_heart": Message(
        "amber", _("There is a second heart of {ml:.0f} ml in the volume, which was not segmented.")
    ),
    "one_segmentor": Message(
        "amber",
        _("The two segmentors of these weights are the same network, so their agreement says nothing."),
        _("Check each structure by eye, or choose other weights."),
    ),
    "weights_untried": Message(
        "amber", _("These weights could not be tried on the built-in phantom, so nothing shows that they know hearts.")
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
    # ---- figures that are not given ----
    "figure_needs_structure": Message("info", _("{Structure} is missing.")),
    "figure_at_edge": Message("info", _("{Structure} is cut off by the edge of the volume.")),
    "figure_doubted": Message("info", _("The outline of the {structure} cannot be trusted: see its warnings.")),
    "figure_implausible": Message(
        "info", _("{mm:.1f} mm were measured, which cannot be right: check the outline of the {structure}.")
    ),
    "vessel_unattached": Message("info", _("{Structure} does not begin at the {first}.")),
    "vessel_short": Message("info", _("Only {mm:.0f} mm of the {structure} are outlined ({needed_mm:.0f} mm needed).")),
    "vessel_shape": Message("info", _("{Structure} is not round where it is to be measured: check its outline.")),
    "no_septum": Message("info", _("The right ventricle does not show where the septum is.")),
    "needs_body_size": Message("info", _("Height and weight are needed.")),
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
        figures: numbers and words, as the sentence names them; ``file`` may be added to each, and comes before a
            sentence that does not name it.

    Raises:
        ValueError: a figure that the sentence names is missing, or one is given that it does not know.
    """
    message = MESSAGES[code]
    named = figures_of(message)
    if structure is None and named & {"structure", "Structure"}:
        raise ValueError(f"The finding {code!r} needs a structure.")
    named -= {"structure", "Structure"}
    if not named <= set(figures) <= named | {"file"}:
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
    if values.get("part") in _PARTS:
        values["part"] = translate(_PARTS[values["part"]])
    if finding.structure in BY_KEY:
        values["Structure"] = translate(BY_KEY[finding.structure].name)
        values["structure"] = values["Structure"].lower()
    text, advice = (_filled(template, values, translate) for template in (message.text, message.advice))
    file = values.get("file")
    return f"“{file}”: {text}" if file and "file" not in figures_of(message) else text, advice


def _filled(template: str, values: Mapping[str, Any], translate: Callable[[str], str]) -> str:
    if not template:
        return ""
    for text in (translate(template), template):  # a translation may have lost or changed a placeholder
        try:
            return text.format(**values)
        except (KeyError, ValueError, IndexError, AttributeError):
            continue
    return template  # of a report whose figures are not those of the code
