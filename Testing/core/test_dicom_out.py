"""DICOM out: Segmentation and report, read back by tools of others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

pytest.importorskip("highdicom")

from mkd_core import cli
from mkd_core.errors import InputError
from mkd_core.inference import pipeline
from mkd_core.io import dicom, dicom_out
from mkd_core.io.atomic import OutputFiles, made_here
from mkd_core.measure.messages import describe, finding
from mkd_core.structures import BY_KEY, DETAILED, STRUCTURES, labelled
from Testing.support.dicom_checks import errors_by_dciodvfy, labels_of, report_by_dcmqi, segments_by_dcmqi
from Testing.support.dicom_exports import write_enhanced, write_export
from Testing.support.known_heart import known_volume
from Testing.support.stored_volumes import rotation

KEYS = ("LV", "RV", "LA", "RA", "Myo", "AA", "PA")


def image_and_labels(kind: str = "axial") -> tuple[sitk.Image, sitk.Image]:
    """A CT of 12 slices, and labels in which no two slices, rows or columns are alike; PA has no voxel."""
    chance = np.random.default_rng(1)
    size, spacing = (22, 26, 12), (0.8, 0.8, 1.5)
    if kind == "anisotropic":
        spacing = (0.4, 0.9, 3.0)
    voxels = chance.integers(-1000, 1000, size[::-1]).astype(np.int16)
    labels = np.zeros(size[::-1], np.uint8)
    labels[1:11, 2:24, 1:20] = chance.integers(0, 7, (10, 22, 19))
    labels[3] = 0  # a slice without any
    images = [sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(labels)]
    for image in images:
        image.SetSpacing(spacing)
        image.SetOrigin((-91.25, 17.5, 402.75))
        if kind == "oblique":
            image.SetDirection(rotation((0.4, 0, 0.4)).ravel().tolist())
        if kind == "sagittal":
            image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    return images[0], images[1]


def report_of(labels: sitk.Image, modality: str = "CT") -> dict:
    """A report as the pipeline makes them."""
    voxels = sitk.GetArrayViewFromImage(labels)
    ml = float(np.prod(labels.GetSpacing())) / 1000
    structures = {
        structure.key: {
            "volume_ml": float((voxels == structure.label).sum() * ml),
            "mean_intensity": 100.5 + structure.label,
            "components": 1,
            "touches_border": False,
            "removed_ml": 0.0,
            "agreement": 0.9 + structure.label / 100,
            "warnings": [],
        }
        for structure in STRUCTURES
    }
    structures["Myo"]["mass_g"] = structures["Myo"]["volume_ml"] * 1.05
    structures["LA"]["warnings"] = [finding("too_small", structure="LA", smallest_ml=15, largest_ml=220).to_dict()]
    return {
        "structures": structures,
        "labels": {structure.key: structure.label for structure in STRUCTURES},
        "warnings": [finding("no_contrast_agent", hu=90).to_dict()],
        "modality": modality,
        "target": "CT",
        "alignment": "cycle",
        "ensemble_weight": 0.5,
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "bundle": {"name": "weights", "version": "1.2", "sha256": "ab" * 32},
        "options": {},
        "version": "0.4.0",
    }


def write(path: Path, series: dicom.Series, labels: sitk.Image, report: dict, **how) -> tuple[Path, Path]:
    with OutputFiles() as outputs:
        dicom_out.write(outputs, path, series, labels, report, **how)
    return path, path.with_name(path.stem + ".sr.dcm")


def exported(kind: str, folder: Path) -> tuple[dicom.Series, sitk.Image, np.ndarray]:
    """A series of a kind, the image as it is read, and its labels."""
    image, labels = image_and_labels(kind)
    if kind == "enhanced":
        write_enhanced(image, folder / "enhanced.dcm", phases=2)
    else:
        write_export(image, folder, reverse=kind == "reversed")
    series = dicom.choose(dicom.index([folder]).series).series
    return series, dicom.read(series)[0], sitk.GetArrayFromImage(labels)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("axial", "BINARY"),
        ("reversed", "BINARY"),
        ("oblique", "BINARY"),
        ("sagittal", "BINARY"),
        ("anisotropic", "BINARY"),
        ("enhanced", "BINARY"),
        ("oblique", "LABELMAP"),
        ("enhanced", "LABELMAP"),
    ],
)
def test_labels_read_back_by_dcmqi_are_ours_voxel_by_voxel(tmp_path, kind, stored):
    series, image, expected = exported(kind, tmp_path / "in")
    labels = sitk.GetImageFromArray(expected)
    labels.CopyInformation(image)
    seg, report = write(tmp_path / "out.dcm", series, labels, report_of(labels), kind=stored)
    if stored == "BINARY":  # the tool does not know label maps, which are of 2024
        assert errors_by_dciodvfy(seg) == [] and errors_by_dciodvfy(report) == []
    if kind == "enhanced":
        assert frames_referred_to(seg) == {2 * number for number in (2, 3, 5, 6, 7, 8, 9, 10, 11)}, "those of 75 %"
    images, described = segments_by_dcmqi(seg, tmp_path / "back")
    assert np.array_equal(labels_of(images, image), expected)
    described = [segment for segment in described if segment["labelID"]]
    assert [segment["SegmentLabel"] for segment in described] == [BY_KEY[key].name for key in KEYS[:6]]


def test_structures_in_detail_are_segments_with_codes_of_their_own_and_the_weights_that_found_them(tmp_path):
    series, image, _ = exported("axial", tmp_path / "in")
    every = labelled((*KEYS, *DETAILED))
    voxels = (np.arange(np.prod(image.GetSize())) % (len(every) + 1)).astype(np.uint8).reshape(image.GetSize()[::-1])
    labels = sitk.GetImageFromArray(voxels)
    labels.CopyInformation(image)
    report = report_of(labels)
    lv = report["structures"]["LV"]
    report["structures"] |= {key: lv | {"agreement": 0.8, "warnings": []} for key in DETAILED}
    report["labels"] = {structure.key: structure.label for structure in every}
    report["detail_weights"] = {"name": "small", "version": "0.1", "sha256": "cd" * 32}
    seg, measured = write(tmp_path / "out.dcm", series, labels, report)
    assert errors_by_dciodvfy(seg) == [] and errors_by_dciodvfy(measured) == []
    read = pydicom.dcmread(seg)
    found = [
        (one.SegmentLabel, one.SegmentedPropertyTypeCodeSequence[0].CodeValue, one.SegmentNumber)
        for one in read.SegmentSequence
    ]
    assert found == [(one.name, one.code[1], one.label) for one in every]
    assert len({code for _name, code, _number in found}) == len(every)
    document = pydicom.dcmread(measured)
    (measurements,) = [
        item for item in document.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    for one, segment, group in zip(every, read.SegmentSequence, measurements.ContentSequence, strict=True):
        name, version, sha256 = ("small", "0.1", "cd" * 32) if one.key in DETAILED else ("weights", "1.2", "ab" * 32)
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == f"MKD whole-heart segmentation ({name})"
        assert algorithm.AlgorithmVersion == version
        told = str(algorithm.AlgorithmParameters)
        assert f"weights={name} {version}," in told and f"weights SHA-256={sha256}" in told
        assert ("given the structures by=weights 1.2" in told) == (one.key in DETAILED)
        (overlap,) = [name for name in names_in(group) if "overlap" in name]
        assert overlap.endswith("that the network expects" if one.key in DETAILED else "of the two segmentors")
        said = texts_of(group)
        assert f"({name})" in said and f"weights SHA-256: {sha256}" in said, one.key
    other = report | {"detail_weights": report["detail_weights"] | {"sha256": "ef" * 32}}
    headers, _ = dicom.read_source(series)
    assert {str(dicom_out.build(series, headers, voxels, one)[0].SOPInstanceUID) for one in (report, other)} > {
        read.SOPInstanceUID
    }


def frames_referred_to(seg: Path) -> set[int]:
    return {
        int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for group in pydicom.dcmread(seg).PerFrameFunctionalGroupsSequence
    }


@pytest.mark.parametrize("shift", [0.25, -0.41])
def test_labels_of_a_tilted_series_lie_on_the_voxels_they_were_made_of(tmp_path, shift):
    """Every frame is compared by the image that it names, for tools that stack frames put them straight.  So does
    dcmqi, which refuses slices that lean to the side of the first row; where it reads them, they are compared, too.
    """
    image, labels = image_and_labels()
    write_export(image, tmp_path / "in", shift_per_mm=shift)
    series = dicom.choose(dicom.index([tmp_path / "in"]).series).series
    upright, _ = dicom.read(series)
    # A label for every voxel of the straight grid that says where it is.
    size = upright.GetSize()
    z, y, x = np.meshgrid(*map(np.arange, size[::-1]), indexing="ij")
    codes = sitk.GetImageFromArray((1 + (x // 2 + 3 * (y // 2) + 5 * z) % 7).astype(np.uint8))
    codes.CopyInformation(upright)
    seg, report = write(tmp_path / "out.dcm", series, codes, report_of(labels))
    assert errors_by_dciodvfy(seg) == [] and errors_by_dciodvfy(report) == []
    read = pydicom.dcmread(seg)
    sources = {str(file.SOPInstanceUID): file for file in map(pydicom.dcmread, (tmp_path / "in").iterdir())}
    frames = 0
    for own, voxels in zip(read.PerFrameFunctionalGroupsSequence, read.pixel_array):
        source = sources[own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        position = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.allclose(position, np.array(source.ImagePositionPatient, float), atol=1e-4)
        assert voxels.shape == (source.Rows, source.Columns)
        number = own.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for row, column in np.ndindex(voxels.shape):
            place = position + (column * 0.8, row * 0.8, 0)
            assert bool(voxels[row, column]) == (codes[upright.TransformPhysicalPointToIndex(place.tolist())] == number)
        frames += 1
    assert frames == 7 * 12
    if shift > 0:
        on_slices = dicom.read_source(series)[1].labels_on(codes)
        images, _ = segments_by_dcmqi(seg, tmp_path / "back")
        assert np.array_equal(sum(map(sitk.GetArrayFromImage, images.values())), on_slices)


def test_the_segmentation_says_what_viewers_need(tmp_path):
    series, image, expected = exported("oblique", tmp_path / "in")
    labels = sitk.GetImageFromArray(expected)
    labels.CopyInformation(image)
    seg = pydicom.dcmread(write(tmp_path / "out.dcm", series, labels, report_of(labels))[0])
    source = pydicom.dcmread(tmp_path / "in" / "IM0001.dcm")
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", "Rows", "Columns"):
        assert seg[name].value == source[name].value, name
    assert seg.SegmentsOverlap == "NO" and seg.SegmentationType == "BINARY" and seg.Modality == "SEG"
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 12
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid
    assert seg.NumberOfFrames == 6 * 9, "frames without a voxel are left out"
    for segment, key in zip(seg.SegmentSequence, KEYS[:6], strict=True):
        structure = BY_KEY[key]
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning) == structure.code
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
        assert segment.SegmentAlgorithmType == "AUTOMATIC" and "weights" in segment.SegmentAlgorithmName
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == "1.2" and "ab" * 32 in algorithm.AlgorithmParameters
        from highdicom.color import CIELabColor

        color = CIELabColor.from_dicom_value(list(segment.RecommendedDisplayCIELabValue)).to_rgb()
        assert np.abs(np.subtract(color, structure.color)).max() <= 2
    region = seg.SegmentSequence[4].AnatomicRegionSequence[0]
    assert region.CodeValue == BY_KEY["LV"].code[1], "the muscle is that of the left ventricle"


def test_the_report_holds_figures_warnings_and_provenance_and_names_the_segments(tmp_path):
    image, labels = image_and_labels()
    write_export(image, tmp_path / "in", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    series = dicom.choose(dicom.index([tmp_path / "in"]).series).series
    figures = report_of(labels)
    figures["warnings"].append(finding("dicom_chosen", title="Größe ≤ 1 mm", count=2).to_dict())
    seg_path, path = write(tmp_path / "out.dcm", series, labels, figures)
    seg, document = pydicom.dcmread(seg_path), pydicom.dcmread(path)
    groups = report_by_dcmqi(path)
    assert len(groups) == 6
    for group, segment, key in zip(groups, seg.SegmentSequence, KEYS[:6]):
        values = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        own = figures["structures"][key]
        assert values["Volume"] == pytest.approx(own["volume_ml"], abs=1e-3)
        assert values["Attenuation Coefficient"] == own["mean_intensity"]
        assert values["Dice overlap of the two segmentors"] == pytest.approx(own["agreement"])
        assert ("Mass" in values) == (key == "Myo")
        assert group["TrackingUniqueIdentifier"] == segment.TrackingUID
        assert group["TrackingIdentifier"] == segment.TrackingID == BY_KEY[key].name
        assert group["ReferencedSegment"] == segment.SegmentNumber
        assert group["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
        assert group["SourceSeriesForImageSegmentation"] == series.uid
    text = texts_of(document)
    assert describe(finding("too_small", structure="LA", smallest_ml=15, largest_ml=220)) in text
    assert describe(finding("no_contrast_agent", hu=90)) in text and "“Größe ≤ 1 mm”" in text
    assert document.PatientName == seg.PatientName == "Müller^Jörg"
    assert "ab" * 32 in text and "mkd_core 0.4.0" in text


def names_in(item: pydicom.Dataset) -> list[str]:
    """Names of what is measured in a group."""
    return [one.ConceptNameCodeSequence[0].CodeMeaning for one in item.ContentSequence]


def texts_of(item: pydicom.Dataset) -> str:
    """All texts in a report."""
    own = [str(item.get("TextValue", "")), *(texts_of(below) for below in item.get("ContentSequence", ()))]
    return "\n".join(text for text in own if text)


def test_an_mr_is_measured_without_hounsfield_units(tmp_path):
    image, labels = image_and_labels()
    write_export(image, tmp_path / "in", Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    series = dicom.choose(dicom.index([tmp_path / "in"]).series).series
    _, path = write(tmp_path / "out.dcm", series, labels, report_of(labels, "MR"))
    (items,) = {tuple(item["quantity"]["CodeMeaning"] for item in group["measurementItems"][:2])
                for group in report_by_dcmqi(path) if len(group["measurementItems"]) == 3}  # fmt: skip
    assert items == ("Volume", "MR signal intensity")


def test_the_same_work_gives_the_same_uids_and_other_work_others(tmp_path):
    series, _, expected = exported("axial", tmp_path / "in")
    headers, stack = dicom.read_source(series)
    labels = sitk.GetImageFromArray(expected)
    report = report_of(labels)

    def uids(changed: np.ndarray = expected, **more) -> tuple[str, str]:
        return tuple(one.SOPInstanceUID for one in dicom_out.build(series, headers, changed, report | more))

    other = expected.copy()
    other[5, 5, 5] = 0 if other[5, 5, 5] else 1
    assert uids() == uids()
    assert not set(uids()) & set(uids(other))
    assert not set(uids()) & set(uids(bundle={"name": "weights", "version": "1.2", "sha256": "cd" * 32}))
    seg, _ = dicom_out.build(series, headers, expected, report, edited=["RV"])
    assert [one.SegmentAlgorithmType for one in seg.SegmentSequence[:3]] == ["AUTOMATIC", "SEMIAUTOMATIC", "AUTOMATIC"]
    assert len(stack.frames) == 12


def test_a_study_whose_files_say_nothing_of_the_patient_can_be_answered(tmp_path):
    image, labels = image_and_labels()
    patient = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
    anonymous = dict.fromkeys((*patient, "AccessionNumber", "StudyID", "StudyDate", "StudyTime"))
    write_export(image, tmp_path / "in", **anonymous)
    series = dicom.choose(dicom.index([tmp_path / "in"]).series).series
    seg, report = write(tmp_path / "out.dcm", series, labels, report_of(labels))
    assert errors_by_dciodvfy(seg) == [] and errors_by_dciodvfy(report) == []


def test_labels_without_any_voxel_are_refused(tmp_path):
    series, image, expected = exported("axial", tmp_path / "in")
    empty = sitk.GetImageFromArray(np.zeros_like(expected))
    empty.CopyInformation(image)
    with pytest.raises(InputError, match="no structure was found"):
        write(tmp_path / "out.dcm", series, empty, report_of(empty))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("package", ["pydicom", "highdicom"])
def test_without_the_packages_the_command_that_installs_them_is_said_before_the_work(
    tmp_path, capsys, monkeypatch, package
):
    write_export(image_and_labels()[0], tmp_path / "in")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(pipeline, "segment", None)
    assert mkd("segment", tmp_path / "in", tmp_path / "heart.dcm") == 1
    said = capsys.readouterr().err
    assert f"needs the package {package}" in said and "pip install" in said


# ---- the command ----


def mkd(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_command_writes_both_files_and_replaces_only_its_own(known_weights, tmp_path, capsys):
    write_export(known_volume((44, 36, 40), (5, 5, 5))[0], tmp_path / "in", 1)
    write_export(known_volume((22, 18, 20), (5, 5, 5))[0], tmp_path / "in" / "more", 2)
    out, plain = tmp_path / "heart.dcm", tmp_path / "heart.nrrd"
    report = tmp_path / "report.json"
    assert mkd("segment", tmp_path / "in", plain, "--series", "1", "--quiet") == 0
    assert mkd("segment", tmp_path / "in", out, "--report", report) == 0
    assert "The series “series 1” was chosen of 2." in capsys.readouterr().out
    assert made_here(out) and made_here(tmp_path / "heart.sr.dcm")
    labels = sitk.ReadImage(str(plain))
    images, _ = segments_by_dcmqi(out, tmp_path / "back")
    assert np.array_equal(labels_of(images, labels), sitk.GetArrayFromImage(labels))
    codes = [one["code"] for one in json.loads(report.read_text(encoding="utf-8"))["warnings"]]
    assert codes.count("dicom_chosen") == 1

    first = out.read_bytes()
    assert mkd("segment", tmp_path / "in", out, "--seg-type", "labelmap", "--quiet") == 0
    assert pydicom.dcmread(out).SegmentationType == "LABELMAP" and len(out.read_bytes()) < len(first)
    (tmp_path / "heart.sr.dcm").write_bytes(b"mine")
    before = out.read_bytes()
    assert mkd("segment", tmp_path / "in", out) == 1
    assert "“heart.sr.dcm” exists already" in capsys.readouterr().err
    assert out.read_bytes() == before and (tmp_path / "heart.sr.dcm").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ct.nii.gz", "heart.dcm"), "read from DICOM files"),
        (("ct.nii.gz", "heart.nrrd", "--series", "1"), "chosen of DICOM files"),
        (("in", "heart.sr.dcm"), "not a name for a DICOM Segmentation"),
        (("in", ".dcm"), "not a name for a DICOM Segmentation"),
        (("in", "none/heart.dcm"), "There is no folder"),
        (("in", "heart.dcm", "--series", "7"), "There is no series “7”"),
        (("none", "heart.dcm"), "There is no file"),
    ],
)
def test_what_the_command_refuses(known_weights, tmp_path, capsys, monkeypatch, arguments, said):
    sitk.WriteImage(image_and_labels()[0], str(tmp_path / "ct.nii.gz"))
    write_export(image_and_labels()[0], tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert mkd("segment", *arguments) == 1
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_lists_what_is_in_a_folder(tmp_path, capsys):
    image = image_and_labels()[0]
    image.SetSpacing((0.8, 0.8, 8.0))
    write_export(image, tmp_path / "a", 3, SeriesDescription="CTA 75%")
    write_export(image, tmp_path / "b", 4, SeriesDescription="CTA 40%")
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.4")
    assert mkd("dicom", tmp_path) == 0
    text = capsys.readouterr().out
    assert "  1* CT “CTA 75%”" in text and "  2  CT “CTA 40%”" in text and "letter.pdf. It is a PDF" in text
    assert "further from mid-diastole" in text and "22 x 26 x 12, 0.8 x 0.8 x 8 mm; best" in text
    assert mkd("dicom", tmp_path, "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert [(one["is_best"], one["reason"] and one["reason"]["code"]) for one in table["series"]] == [
        (True, None),
        (False, "dicom_other_phase"),
    ]
    assert "P1" not in json.dumps(table)
    write_export(image, tmp_path / "c", 5, study="2", PatientID="P2")
    assert mkd("dicom", tmp_path) == 0
    text = capsys.readouterr().out
    assert text.count("mm; best of this patient\n") == 2 and "There are series of 2 patients" in text
    (tmp_path / "empty").mkdir()
    assert mkd("dicom", tmp_path / "empty") == 1
