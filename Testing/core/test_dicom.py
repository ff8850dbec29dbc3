"""DICOM in: what is found in a folder, which series is chosen, and which slices make a volume (more refusals:
Testing/trust/volumes.py).
"""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io import dicom, dicom_files, integrity
from mkd_core.io.volumes import read_volume
from mkd_core.protocol import MODALITY_TAG
from Testing.support.dicom_exports import SYNTAXES, write_enhanced, write_export, write_other_object
from Testing.support.dicom_series import write_series
from Testing.support.stored_volumes import rotation


def noise(size=(11, 10, 9), seed: int = 0) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(seed).integers(-1000, 1000, size[::-1]).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-31.25, 17.5, 402.75))
    return image


def turned(image: sitk.Image, angle: float = 0.3) -> sitk.Image:
    image.SetDirection(rotation((angle, 0, angle)).ravel().tolist())
    return image


def assert_same(first: sitk.Image, second: sitk.Image) -> None:
    assert first.GetPixelID() == second.GetPixelID()
    assert np.array_equal(sitk.GetArrayViewFromImage(first), sitk.GetArrayViewFromImage(second))
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(first, name)(), getattr(second, name)(), atol=1e-5), name


def refusal(path: Path | str) -> str:
    """The code of why a folder is not read."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert caught.value.finding is not None, caught.value
    return caught.value.finding.code


def chosen(*paths: Path, **how) -> dicom.Choice:
    return dicom.choose(dicom.index(paths).series, **how)


# ---- whole volumes ----


def test_slices_are_put_in_order_whatever_their_names(tmp_path):
    write_series(noise(), tmp_path, 1)
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_name(f"{999 - int(path.stem.split('_')[1])}.dcm"))
    assert_same(read_volume(tmp_path), noise())


@pytest.mark.parametrize("reverse", [False, True])
def test_an_oblique_series_is_read_as_itk_reads_it(tmp_path, reverse):
    paths = write_export(turned(noise()), tmp_path, reverse=reverse)
    assert_same(read_volume(tmp_path), turned(noise()))
    by_itk = sitk.ReadImage([str(path) for path in (reversed(paths) if reverse else paths)])
    assert_same(read_volume(tmp_path), sitk.Cast(by_itk, sitk.sitkInt16))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("is_unsigned", [False, True])
def test_compressed_voxels_are_read_exactly(tmp_path, syntax, is_unsigned):
    write_export(noise((37, 40, 8)), tmp_path, syntax=syntax, is_unsigned=is_unsigned)
    assert_same(read_volume(tmp_path), noise((37, 40, 8)))


def test_lossless_jpeg_is_read_exactly(tmp_path):
    image = noise((17, 16, 8))
    write_export(image, tmp_path / "plain", is_unsigned=True)
    plain = sitk.ImageFileReader()
    for path in sorted((tmp_path / "plain").iterdir()):
        plain.SetFileName(str(path))
        part = plain.Execute()
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.SetFileName(str(tmp_path / path.name))
        writer.Execute(part)
        path.unlink()
    (header,) = {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in tmp_path.glob("*.dcm")}
    assert header == "1.2.840.10008.1.2.4.70"
    assert_same(read_volume(tmp_path), image)


@pytest.mark.parametrize("syntax", ["explicit", "JPEG 2000", "RLE"])
def test_an_enhanced_multi_frame_file_is_a_volume(tmp_path, syntax):
    image = turned(noise((37, 40, 8)))
    path = write_enhanced(image, tmp_path / "enhanced.dcm", syntax=syntax)
    assert_same(read_volume(tmp_path), image)
    assert_same(read_volume(path), image)


def test_the_phases_of_an_enhanced_file_are_volumes_of_their_own(tmp_path):
    write_enhanced(noise(), tmp_path / "enhanced.dcm", phases=2)
    series = dicom.index([tmp_path]).series
    assert [(one.part, one.parts, one.phase) for one in series] == [(1, 2, 35.0), (2, 2, 75.0)]
    choice = dicom.choose(series)
    assert choice.series is series[1] and choice.others[0][1].code == "dicom_other_phase"
    assert_same(dicom.read(choice.series)[0], noise() + 100)
    assert_same(dicom.read(dicom.choose(series, wanted="1").series)[0], noise())
    assert_same(dicom.read(dicom.choose(series, wanted=series[0].key).series)[0], noise())


def test_numbers_with_fractions_stay(tmp_path):
    write_export(noise(), tmp_path, RescaleSlope="0.5", RescaleIntercept="-3")
    half = sitk.GetArrayFromImage(read_volume(tmp_path))
    assert half.dtype == np.float32 and np.array_equal(half, sitk.GetArrayFromImage(noise()) * 0.5 - 3)


def test_a_ct_that_does_not_say_how_numbers_become_hu_is_doubted(tmp_path):
    write_export(noise(), tmp_path / "a", RescaleSlope=None, RescaleIntercept=None)
    assert [one.code for one in dicom.read(chosen(tmp_path / "a").series)[1]] == ["dicom_no_rescale"]
    write_export(noise(), tmp_path / "b", Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    assert dicom.read(chosen(tmp_path / "b").series)[1] == []


def changed(folder: Path, change) -> Path:
    """A series of 12 slices after ``change(tags, number)`` of each file."""
    for number, path in enumerate(write_export(noise((11, 10, 12)), folder)):
        file = pydicom.dcmread(path)
        change(file, number)
        file.save_as(path)
    return folder


@pytest.mark.parametrize("text", [b"nan ", b"inf ", b"abc ", b"0 ", b"1e300 ", b"1\\2 "])
@pytest.mark.parametrize("number", [0, 7])
def test_a_scale_that_is_none_is_refused_in_whichever_slice_it_stands(tmp_path, text, number):
    def change(tags, at):
        if at == number:
            slope = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag("RescaleSlope"), "DS", len(text), text, 0, False, True
            )
            tags[slope.tag] = slope

    assert refusal(changed(tmp_path, change)) == "dicom_rescale"


@pytest.mark.parametrize(
    "tags, code",
    [
        ({"RescaleType": "MGML"}, "dicom_not_hu"),
        ({"RescaleType": "HU"}, None),
        ({"RescaleType": "US"}, None),
        ({"RescaleType": "MGML", "Modality": "MR"}, None),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "dicom_inverted"),
        ({"PhotometricInterpretation": "MONOCHROME1", "Modality": "MR"}, "dicom_inverted"),
    ],
)
def test_numbers_that_are_said_to_be_no_plain_intensities_are_doubted(tmp_path, tags, code):
    write_export(noise(), tmp_path, **tags)
    assert [one.code for one in dicom.read(chosen(tmp_path).series)[1]] == ([] if code is None else [code])


def test_colours_of_a_palette_are_no_intensities(tmp_path):
    write_export(noise(), tmp_path, PhotometricInterpretation="PALETTE COLOR")
    assert refusal(tmp_path) == "not_scalar"


@pytest.mark.parametrize(
    "name, values",
    [
        ("PatientID", "AB"),
        ("FrameOfReferenceUID", ("1.2.1", "1.2.2")),
        ("Modality", ("CT", "MR")),
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("NominalPercentageOfCardiacPhase", (40.0, 70.0)),
        ("EchoTime", ("1.2", "2.4")),
    ],
)
def test_slices_of_two_volumes_that_lie_between_each_other_are_not_taken_for_one(tmp_path, name, values):
    """At even distances, as one volume's are: nothing but the tag tells."""
    changed(tmp_path, lambda tags, at: setattr(tags, name, values[at % 2]))
    series = dicom.index([tmp_path]).series
    assert [(one.size[2], one.spacing and one.spacing[2], one.problem) for one in series] == [(6, 4.0, None)] * 2


@pytest.mark.parametrize("name", ["PatientID", "FrameOfReferenceUID"])
def test_slices_of_two_patients_or_spaces_one_above_the_other_are_no_volume(tmp_path, name):
    changed(tmp_path, lambda tags, at: setattr(tags, name, ("1.1", "1.2")[at >= 9]))
    assert [one.size[2] for one in dicom.index([tmp_path]).series] == [9, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda tags, at: setattr(tags, "AcquisitionNumber", 1 + at % 2),  # taken in two passes
        lambda tags, at: setattr(tags, "TriggerTime", 300 + at),
        lambda tags, at: setattr(tags, "NominalPercentageOfCardiacPhase", (40.0, 70.0)[at >= 6]),  # slab above slab
        lambda tags, at: setattr(tags, "EchoTime", 1.2 + 0.01 * (at % 3)),
        lambda tags, at: setattr(tags, "FrameOfReferenceUID", f"1.2.{at}"),  # as a program made them that removes names
    ],
)
def test_slices_of_one_volume_may_differ_in_this(tmp_path, change):
    changed(tmp_path, change)
    assert_same(read_volume(tmp_path), noise((11, 10, 12)))


def test_a_series_keeps_what_the_scanner_calls_it(tmp_path):
    write_export(noise(), tmp_path, Modality="MR")
    assert read_volume(tmp_path).GetMetaData(MODALITY_TAG) == "MR"


@pytest.mark.parametrize("direction", ["upright", "oblique"])
@pytest.mark.parametrize("shift", [0.3, -0.41])
def test_slices_of_a_tilted_gantry_are_moved_to_where_they_were_taken(tmp_path, direction, shift):
    """A field that is linear in the world stays so: each voxel holds the place that it says it has."""
    image = sitk.Image(24, 20, 12, sitk.sitkInt16)
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-31.25, 17.5, 402.75))
    if direction == "oblique":
        turned(image)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    z, y, x = np.meshgrid(*map(np.arange, (12, 20, 24)), indexing="ij")
    places = np.stack([x * 0.5, y * 0.75 + shift * z * 2.0, z * 2.0], axis=-1) @ axes.T + image.GetOrigin()
    slope = np.array([3.0, -5.0, 7.0])
    field = sitk.GetImageFromArray(np.rint(places @ slope).astype(np.int16))
    field.CopyInformation(image)
    write_export(field, tmp_path, shift_per_mm=shift)

    choice = chosen(tmp_path)
    read, findings = dicom.read(choice.series)
    assert [one.code for one in findings] == ["dicom_tilt"]
    assert findings[0].figures["degrees"] == pytest.approx(np.degrees(np.arctan(abs(shift))), abs=0.1)
    assert np.allclose(read.GetDirection(), image.GetDirection()) and np.allclose(read.GetSpacing(), (0.5, 0.75, 2.0))
    assert read.GetSize()[1] == 20 + int(np.ceil(abs(shift) * 22 / 0.75)) and read.GetSize()[::2] == (24, 12)
    voxels = sitk.GetArrayFromImage(read)
    inside = voxels > field_minimum(field)
    index = np.argwhere(inside)[:, ::-1]
    found = np.array([read.TransformIndexToPhysicalPoint([int(value) for value in at]) for at in index]) @ slope
    # A slice that lies between two voxels loses the half voxel at one end.
    off = np.abs(found - voxels[inside])
    assert np.mean(off < 1.5) > 0.94 and inside.mean() > 0.5


def field_minimum(image: sitk.Image) -> int:
    return int(sitk.GetArrayViewFromImage(image).min())


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.41])
def test_labels_return_to_the_slices_they_were_made_of(tmp_path, shift):
    write_export(turned(noise()), tmp_path, shift_per_mm=shift)
    series = chosen(tmp_path).series
    image, _ = dicom.read(series)
    _, stack = dicom.read_source(series)
    expected = np.zeros((9, 10, 11), np.int16)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    for z, y, x in np.ndindex(expected.shape):
        place = axes @ (x * 0.5, y * 0.75 + shift * z * 2.0, z * 2.0) + turned(noise()).GetOrigin()
        at = image.TransformPhysicalPointToIndex(place.tolist())
        expected[z, y, x] = image[at]
    assert np.array_equal(stack.labels_on(image), expected)
    if shift == 0:
        assert np.array_equal(expected, sitk.GetArrayFromImage(noise()))
    swapped = sitk.PermuteAxes(image, (1, 0, 2))
    assert np.array_equal(stack.labels_on(swapped), expected), "axes in another order go the general way"


# ---- what is refused ----


def change_tag(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_dicom_without_a_voxel_size_is_refused(tmp_path):
    write_export(noise(), tmp_path, PixelSpacing=None)
    assert refusal(tmp_path) == "no_voxel_size"


def test_a_slice_with_another_voxel_size_is_refused(tmp_path):
    write_series(noise(), tmp_path, 1)
    change_tag(tmp_path / "1_004.dcm", b".75\\.5", b".75\\.6")
    assert refusal(tmp_path) == "dicom_voxel_sizes"


def test_a_slice_of_another_size_is_refused(tmp_path):
    write_export(noise(), tmp_path)
    write_export(noise((11, 8, 9)), tmp_path / "other")
    (tmp_path / "other" / "IM0009.dcm").rename(tmp_path / "IM0009.dcm")
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    assert refusal(tmp_path) == "dicom_unlike"


@pytest.mark.parametrize("syntax", ["explicit", "deflated", "RLE", "JPEG 2000"])
@pytest.mark.parametrize("number", [1, 5, 9])
def test_a_slice_that_is_cut_off_is_told_wherever_it_lies(tmp_path, number, syntax):
    write_export(noise((37, 40, 9)), tmp_path, syntax=syntax)
    path = tmp_path / f"IM{number:04d}.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    assert refusal(tmp_path) == "file_damaged"


@pytest.mark.parametrize("kept", [140, 400, 900])
def test_a_slice_of_which_only_a_part_of_the_header_is_left_is_not_left_out(tmp_path, kept):
    write_export(noise(), tmp_path)
    path = tmp_path / "IM0009.dcm"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(tmp_path) == "file_damaged"


@pytest.mark.parametrize(("name", "content"), [("IM0009.dcm", b""), ("IM0009.dcm", bytes(5000)), ("IM0009", b"")])
def test_a_slice_that_was_not_copied_is_told_though_it_is_the_last(tmp_path, name, content):
    write_export(noise(), tmp_path)[-1].unlink()
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path) == "file_damaged"
    (tmp_path / name).unlink()
    (tmp_path / "empty.txt").write_bytes(b"")
    assert read_volume(tmp_path).GetSize() == (11, 10, 8)


def test_a_slice_behind_a_link_that_leads_nowhere_is_told_and_a_pipe_is_never_opened(tmp_path):
    last = write_export(noise(), tmp_path)[-1]
    last.unlink()
    try:
        last.symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("no links here")
    assert [entry.finding.code for entry in dicom.index([tmp_path]).aside] == ["dicom_gone"]
    assert refusal(tmp_path) == "file_damaged"
    last.rename(tmp_path / "notes.txt")
    assert read_volume(tmp_path).GetSize() == (11, 10, 8)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert {entry.finding.code for entry in dicom.index([tmp_path]).aside} == {"dicom_gone", "dicom_not_dicom"}


def test_an_enhanced_file_that_is_cut_off_is_told(tmp_path):
    path = write_enhanced(noise(), tmp_path / "enhanced.dcm")
    path.write_bytes(path.read_bytes()[:-300])
    assert refusal(tmp_path) == "file_damaged"


@pytest.mark.parametrize("removed", [(4,), (4, 5), (2, 6)])
def test_missing_slices_are_told(tmp_path, removed):
    paths = write_export(noise((11, 10, 12)), tmp_path)
    for number in removed:
        paths[number].unlink()
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path)
    assert caught.value.finding.code == "dicom_slices_missing"
    assert caught.value.finding.figures["count"] == len(removed)


def test_slices_that_lie_aside_without_a_rule_are_refused(tmp_path):
    write_export(noise(), tmp_path)
    write_export(noise(), tmp_path / "other", shift_per_mm=0.5)
    (tmp_path / "other" / "IM0006.dcm").replace(tmp_path / "IM0006.dcm")
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    assert refusal(tmp_path) == "dicom_shifted"


def test_several_phases_that_no_tag_tells_apart_are_refused(tmp_path):
    write_export(noise(), tmp_path / "a")
    write_export(noise(seed=1), tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        change_uid(path)
    assert refusal(tmp_path) == "dicom_same_place"


def change_uid(path: Path, **tags) -> None:
    file = pydicom.dcmread(path)
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = f"{file.SOPInstanceUID}.9"
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path)


def test_phases_in_one_series_are_told_apart_by_a_tag(tmp_path):
    write_export(noise(), tmp_path / "a", TriggerTime="300")
    write_export(noise(seed=1), tmp_path / "b", TriggerTime="700")
    for path in (tmp_path / "b").iterdir():
        change_uid(path)
    series = dicom.index([tmp_path]).series
    assert [one.key for one in series] == ["1.2.3.1.1:1", "1.2.3.1.1:2"]
    assert_same(dicom.read(series[0])[0], noise())
    assert_same(dicom.read(series[1])[0], noise(seed=1))
    with pytest.raises(InputError, match="2 DICOM series"):
        read_volume(tmp_path)


def test_a_scout_within_the_series_is_a_volume_of_its_own_and_cannot_be_chosen(tmp_path):
    write_export(noise(), tmp_path)
    scout = noise((11, 10, 1), seed=2)
    scout.SetDirection((1, 0, 0, 0, 0, 1, 0, -1, 0))
    (path,) = write_export(scout, tmp_path, prefix="scout")
    change_uid(path)
    series = dicom.index([tmp_path]).series
    assert [one.problem and one.problem.code for one in series] == [None, "file_of_series"]
    assert_same(read_volume(tmp_path), noise())


def test_a_compression_that_nobody_knows_is_named(tmp_path):

    for path in write_export(noise((37, 40, 8)), tmp_path, syntax="JPEG 2000"):
        file = pydicom.dcmread(path)
        file.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        file.save_as(path)
    with pytest.raises(InputError, match="MPEG2"):
        read_volume(tmp_path)


def test_too_little_memory_is_told_before_anything_is_read(tmp_path, monkeypatch):
    write_export(noise(), tmp_path)
    monkeypatch.setattr(integrity, "available_memory", lambda: 1000)
    assert refusal(tmp_path) == "file_beyond_memory"


def test_files_that_changed_since_they_were_listed_are_told(tmp_path):
    paths = write_export(noise(), tmp_path)
    series = chosen(tmp_path).series
    paths[3].unlink()
    with pytest.raises(InputError, match="There is no file"):
        dicom.read(series)
    write_export(turned(noise()), tmp_path, reverse=True)
    with pytest.raises(InputError, match="have changed"):
        dicom.read(series)


def test_without_pydicom_the_command_that_installs_it_is_said(tmp_path, monkeypatch):
    write_export(noise(), tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match="pip install") as caught:
        read_volume(tmp_path)
    assert caught.value.finding.code == "dicom_needs_extra"


# ---- what is in a folder, and which is chosen ----


def test_a_folder_as_a_pacs_exports_it(tmp_path):
    export = tmp_path / "export"
    tall = noise()
    tall.SetSpacing((0.5, 0.75, 10.0))
    write_export(tall, export / "ST1" / "SE4", 4, SeriesDescription="CTA 40 %", ContrastBolusAgent="Iomeprol")
    write_export(tall, export / "ST1" / "SE5", 5, SeriesDescription="CTA 75 %", ContrastBolusAgent="Iomeprol")
    write_export(tall, export / "ST1" / "SE2", 2, SeriesDescription="Calcium score")
    write_export(
        tall, export / "ST1" / "SE9", 9, SeriesDescription="MPR", ImageType=["DERIVED", "SECONDARY", "MPR"]
    )  # fmt: skip
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_export(noise((11, 10, 2)), export / "ST1" / "SE1", 1, SeriesDescription="scout", ImageType=scout)
    write_export(noise(), export / "ST2" / "SE1", 1, study="2", SeriesDescription="head", BodyPartExamined="HEAD")
    write_export(noise(), export / "ST1" / "SE8", 8, Modality="PT")
    (export / "ST1" / "SE5" / "copy.dcm").write_bytes((export / "ST1" / "SE5" / "IM0007.dcm").read_bytes())
    write_other_object(export / "ST1" / "report.dcm", "88.22")
    write_other_object(export / "ST1" / "letter.dcm", "104.1")
    (export / "letter.pdf").write_bytes(b"%PDF-1.4")
    (export / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (export / "README.TXT").write_text("insert the disc")
    (export / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")

    found = dicom.index([export])
    assert {entry.file.name: entry.finding.code for entry in found.aside} == {
        "copy.dcm": "dicom_copy",
        "report.dcm": "dicom_report",
        "letter.dcm": "dicom_pdf",
        "letter.pdf": "dicom_pdf",
        ".DS_Store": "dicom_hidden",
        "README.TXT": "dicom_not_dicom",
        "DICOMDIR": "dicom_directory",
    }
    choice = dicom.choose(found.series, modality="CT")
    assert choice.series.description == "CTA 75 %" and choice.series.size[2] == 9
    assert {one.description: why.code for one, why in choice.others} == {
        "CTA 40 %": "dicom_other_phase",
        "Calcium score": "dicom_plain",
        "MPR": "dicom_derived",
        "scout": "dicom_scout",
        "head": "dicom_other_study",
        "series 8": "dicom_modality_unknown",
    }
    assert [one.code for one in choice.findings] == ["dicom_chosen"]
    assert dicom.index([export / "DICOMDIR"]).series == found.series


def series_of(folder: Path, *variants: dict) -> list[dicom.Series]:
    for number, tags in enumerate(variants, start=1):
        tags = dict(tags)
        image = noise((4, 4, tags.pop("slices", 8)))
        image.SetSpacing((1, 1, tags.pop("step", 12.0)))
        write_export(image, folder / str(number), number, **tags)
    return dicom.index([folder]).series


@pytest.mark.parametrize(
    ("better", "worse", "code"),
    [
        ({"Modality": "CT"}, {"Modality": "MR"}, "dicom_other_modality"),
        ({"BodyPartExamined": "CHEST"}, {"BodyPartExamined": ""}, "dicom_other_body_part"),
        ({"BodyPartExamined": ""}, {"BodyPartExamined": "ABDOMEN"}, "dicom_other_body_part"),
        ({"SeriesDescription": "Coronaries"}, {"BodyPartExamined": "HEAD"}, "dicom_other_body_part"),
        ({}, {"ImageType": ["DERIVED", "SECONDARY"]}, "dicom_derived"),
        ({"step": 12.0}, {"step": 6.0}, "dicom_short"),
        ({"ContrastBolusAgent": "Iomeprol"}, {}, "dicom_plain"),
        ({"NominalPercentageOfCardiacPhase": 70}, {"NominalPercentageOfCardiacPhase": 40}, "dicom_other_phase"),
        ({"SeriesDescription": "ASIR-V 20% 78%"}, {"SeriesDescription": "ASIR-V 75% 40%"}, "dicom_other_phase"),
        ({"SeriesDescription": "CTA 70%"}, {"SeriesDescription": "CTA SAFIRE (75 %)"}, "dicom_other_phase"),
        ({"SeriesDescription": "CTA 70%"}, {"SeriesDescription": "CTA 75%-35%"}, "dicom_other_phase"),
        ({"step": 11.0}, {"step": 12.0}, "dicom_thicker"),
    ],
)
@pytest.mark.parametrize("first", ["better", "worse"])
def test_every_rule_of_the_choice(tmp_path, better, worse, code, first):
    series = series_of(tmp_path, *([better, worse] if first == "better" else [worse, better]))
    choice = dicom.choose(series, modality="CT")
    assert choice.series is series[0 if first == "better" else 1]
    assert [why.code for _, why in choice.others] == [code]


def test_two_that_are_as_good_are_told_and_the_first_is_taken(tmp_path):
    series = series_of(tmp_path, {}, {})
    choice = dicom.choose(series)
    assert choice.series.number == 1 and choice.others[0][1].code == "dicom_later"
    assert choice.findings[0].figures == {"title": "series 1", "count": 2.0}
    with pytest.raises(InputError, match="2 DICOM series"):
        read_volume(tmp_path)


def test_a_series_is_taken_by_its_number_or_uid_and_an_unknown_one_refused(tmp_path):
    series = series_of(tmp_path, {}, {}, {"slices": 3})
    for wanted in ("2", "1.2.3.1.2"):
        choice = dicom.choose(series, wanted=wanted)
        assert choice.series is series[1] and choice.findings == []
        assert [why.code for _, why in choice.others] == ["dicom_not_wanted", "dicom_few_slices"]
    for wanted in ("0", "4", "-1", "1.2.3", "1" * 5000, "²"):
        with pytest.raises(InputError, match="There is no series"):
            dicom.choose(series, wanted=wanted)
    with pytest.raises(InputError, match="3 slices"):
        dicom.choose(series, wanted="3")


def test_of_several_patients_none_is_chosen(tmp_path):
    series = series_of(tmp_path, {}, {"PatientID": "P2"})
    with pytest.raises(InputError, match="2 patients"):
        dicom.choose(series)
    assert dicom.choose(series, wanted="2").series.patient == "P2"


def test_a_folder_without_any_image_is_refused(tmp_path):
    assert refusal(tmp_path) == "dicom_none"
    write_other_object(tmp_path / "report.dcm", "88.22")
    assert refusal(tmp_path) == "dicom_none"
    write_export(noise(), tmp_path, Modality="PT")
    assert refusal(tmp_path) == "dicom_modality_unknown"


def test_a_single_slice_is_no_volume_as_file_or_folder(tmp_path):
    (path,) = write_export(noise((11, 10, 1)), tmp_path)
    assert refusal(path) == refusal(tmp_path) == "file_of_series"


def test_old_files_without_preamble_are_read(tmp_path):
    for path in write_export(noise(), tmp_path, syntax="implicit"):
        content = path.read_bytes()
        start = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
        path.write_bytes(content[start:])
    assert_same(read_volume(tmp_path), noise())


def test_two_files_with_one_uid_that_differ_are_not_taken_for_copies(tmp_path):
    paths = write_export(noise(), tmp_path)
    write_export(noise(seed=5), tmp_path / "other")
    (tmp_path / "other" / paths[4].name).rename(tmp_path / "other.dcm")
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    assert refusal(tmp_path) == "dicom_same_place"


def test_a_series_in_plain_values_is_the_same_series(tmp_path):
    write_export(noise(), tmp_path / "a")
    write_enhanced(noise(), tmp_path / "b" / "enhanced.dcm", 2, phases=2)
    write_export(noise((11, 10, 3)), tmp_path / "c", 3)
    zipped(tmp_path / "a", tmp_path / "a.zip")
    for one in dicom.index([tmp_path / "a.zip", tmp_path / "b", tmp_path / "c"]).series:
        again = dicom.Series.from_dict(json.loads(json.dumps(one.to_dict())))
        assert again == one and pickle.loads(pickle.dumps(one)) == one


# ---- archives ----


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_an_archive_is_read_and_nothing_of_it_written(tmp_path, monkeypatch):
    write_export(noise(), tmp_path / "a" / "deep" / "er", syntax="RLE")
    write_other_object(tmp_path / "a" / "report.dcm", "88.22")
    path = zipped(tmp_path / "a", tmp_path / "a.zip")
    monkeypatch.setattr(zipfile.ZipFile, "extract", None)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    assert_same(read_volume(path), noise())
    assert [entry.finding.code for entry in dicom.index([path]).aside] == ["dicom_report"]


def test_names_in_an_archive_lead_nowhere(tmp_path):
    paths = write_export(noise(), tmp_path / "a")
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for number, file in enumerate(paths):
            archive.write(file, f"../../{number}.dcm" if number % 2 else f"/etc/{number}.dcm")
    before = set(tmp_path.rglob("*"))
    assert_same(read_volume(path), noise())
    assert set(tmp_path.rglob("*")) == before


def test_an_archive_that_would_become_far_too_large_is_set_aside(tmp_path, monkeypatch):
    write_export(noise(), tmp_path / "a")
    monkeypatch.setattr(dicom_files, "_FREE_BYTES", 1 << 20)
    path = zipped(tmp_path / "a", tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(30 << 20))
    assert [entry.finding.code for entry in dicom.index([path]).aside] == ["dicom_archive_bomb"]
    assert refusal(path) == "dicom_none"


def test_a_damaged_archive_and_one_within_another_are_set_aside(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and nothing more")
    assert [entry.finding.code for entry in dicom.index([tmp_path]).aside] == ["dicom_archive_damaged"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.zip", "PK")
    assert [entry.finding.code for entry in dicom.index([tmp_path]).aside] == ["dicom_archive_within"]


def test_a_damaged_member_is_told(tmp_path):
    write_export(noise(), tmp_path / "a")
    path = zipped(tmp_path / "a", tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[4]
    content = bytearray(path.read_bytes())
    content[info.header_offset + 200 : info.header_offset + 210] = bytes(10)
    path.write_bytes(content)
    assert refusal(path) == "file_damaged"


def test_a_member_that_was_damaged_since_it_was_listed_is_told(tmp_path):
    write_export(noise(), tmp_path / "a")
    path = zipped(tmp_path / "a", tmp_path / "a.zip")
    [series] = dicom.index([path]).series
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[4]
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename)] |= 0x06  # a kind of block that deflate does not have
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        dicom.read(series)
    assert caught.value.finding.code == "file_damaged"


def test_no_bytes_make_more_than_an_entry(tmp_path):
    """Whatever the files hold, they are listed or set aside."""
    chance = random.Random(3)
    content = write_export(noise(), tmp_path / "a")[0].read_bytes()
    (tmp_path / "b").mkdir()
    for number in range(150):
        spoilt = bytearray(content)
        for _ in range(chance.choice((1, 4, 30))):
            spoilt[chance.randrange(len(spoilt) - 220)] = chance.randrange(256)
        (tmp_path / "b" / f"{number}.dcm").write_bytes(spoilt)
    found = dicom.index([tmp_path / "b"])
    assert all(one.problem is not None for one in found.series)
