"""The result saved as DICOM on the slices that the volume was loaded from; in the stand-in GUI."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from mkd_core.structures import STRUCTURES
from Testing.support.dicom_checks import errors_by_dciodvfy, labels_of, report_by_dcmqi, segments_by_dcmqi

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.dicom_volume import ct, loadFromDatabase
from Testing.support.panel_driving import SHAPE, addVolume, driving, segment, segmentations, voxelsOf, waitForFigures


def save(panel, path: Path) -> None:
    driving.answerFileDialog(path)
    driving.chooseInMenu(panel.ui.exportButton, "DICOM Segmentation ...")


@pytest.fixture
def told(monkeypatch):
    """What the user is told in boxes."""
    import slicer

    told = []
    monkeypatch.setattr(slicer.util, "warningDisplay", told.append)
    return told


@pytest.mark.parametrize("reverse", [False, True])
def test_the_segments_as_they_are_now_are_saved_and_come_into_the_database(panel, worker, tmp_path, told, reverse):
    import slicer

    volume, image = loadFromDatabase(tmp_path / "in", reverse=reverse)
    worker("good")
    segment(panel)
    (node,) = segmentations()
    edited = voxelsOf(node, "LV", volume)
    edited[:, :3] = False
    edited[12:15, 15:20, 4:9] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited.astype(np.uint8), node, "LV", volume)
    node.GetSegmentation().RemoveSegment("PA")
    waitForFigures(panel)

    path = tmp_path / "heart.dcm"
    save(panel, path)
    assert told == []
    expected = np.zeros(SHAPE, np.uint8)
    for number, structure in enumerate(STRUCTURES[:6], start=1):
        expected[voxelsOf(node, structure.key, volume)] = number
    images, described = segments_by_dcmqi(path, tmp_path / "back")
    assert np.array_equal(labels_of(images, image), expected)
    assert [one["SegmentAlgorithmType"] for one in described] == ["SEMIAUTOMATIC"] + ["AUTOMATIC"] * 5
    report = tmp_path / "heart.sr.dcm"
    assert errors_by_dciodvfy(path) == [] and errors_by_dciodvfy(report) == []
    groups = report_by_dcmqi(report)
    volumes = [float(group["measurementItems"][0]["value"]) for group in groups]
    assert np.allclose(volumes, np.bincount(expected.ravel())[1:] * 4.5 / 1000, atol=1e-3)
    names = [[item["quantity"]["CodeMeaning"] for item in group["measurementItems"]] for group in groups]
    assert "Dice overlap of the two segmentors" not in names[0] and "Dice overlap of the two segmentors" in names[1]
    for file in (path, report):
        instance = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        assert Path(slicer.dicomDatabase.fileForInstance(instance)).read_bytes() == file.read_bytes()


def test_slicer_reads_our_names_codes_and_colours_in_the_file(panel, worker, tmp_path, told):
    """By what its own DICOM plug-in does: dcmqi describes the segments, the terminology logic reads that."""
    import slicer

    loadFromDatabase(tmp_path / "in")
    worker("good")
    segment(panel)
    save(panel, tmp_path / "heart.dcm")
    _, described = segments_by_dcmqi(tmp_path / "heart.dcm", tmp_path / "back")
    assert [one["SegmentLabel"] for one in described] == [structure.name for structure in STRUCTURES]
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert logic.LoadTerminologyFromSegmentDescriptorFile("the file", str(tmp_path / "back" / "s-meta.json"))
    category = slicer.vtkSlicerTerminologyCategory()
    assert logic.GetNthCategoryInTerminology("the file", 0, category) and category.GetCodeValue() == "123037004"
    for number, structure in enumerate(STRUCTURES):
        kind = slicer.vtkSlicerTerminologyType()
        assert logic.GetNthTypeInTerminologyCategory("the file", category, number, kind)
        assert (kind.GetCodingSchemeDesignator(), kind.GetCodeValue(), kind.GetCodeMeaning()) == structure.code
        assert np.abs(np.subtract(kind.GetRecommendedDisplayRGBValue(), structure.color)).max() <= 1


def test_a_tilted_series_is_saved_on_its_slices(panel, worker, tmp_path, told):
    """Slicer puts its slices straight, voxel for voxel, and leaves the tilt to a transform."""
    import slicer

    volume, _ = loadFromDatabase(tmp_path / "in", shift_per_mm=0.3)
    slicer.util.updateVolumeFromArray(volume, sitk.GetArrayFromImage(ct()))
    worker("good")
    segment(panel)
    save(panel, tmp_path / "heart.dcm")
    assert told == []
    seg = pydicom.dcmread(tmp_path / "heart.dcm")
    frames = {}
    for group, voxels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array):
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        frames[int(str(source).split(".")[-1]), group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] = voxels
    (node,) = segmentations()
    for number, structure in enumerate(STRUCTURES, start=1):
        mask = voxelsOf(node, structure.key, volume)
        for slice_number in range(SHAPE[0]):
            found = frames.get((slice_number + 1, number), np.zeros(SHAPE[1:]))
            assert np.array_equal(found > 0, mask[slice_number])


def test_a_volume_from_elsewhere_is_refused_before_a_name_is_asked_for(panel, worker, told):
    addVolume()
    worker("good")
    segment(panel)
    driving.chooseInMenu(panel.ui.exportButton, "DICOM Segmentation ...")
    assert len(told) == 1 and "was not loaded from Slicer's DICOM database" in told[0]
    assert not driving.openDialogs()


def test_without_its_volume_a_segmentation_cannot_be_saved(panel, worker, volume):
    import slicer

    from MKDSegmentationLib.scene.dicomExport import sourceFiles

    from mkd_core.errors import InputError  # that of the module as it is loaded now

    worker("good")
    segment(panel)
    assert driving.menuEntries(panel.ui.exportButton)["DICOM Segmentation ..."]
    slicer.mrmlScene.RemoveNode(volume)
    panel.ui.outputSelector.setCurrentNode(segmentations()[0])
    entries = driving.menuEntries(panel.ui.exportButton)
    assert panel.ui.resultsCollapsibleButton.visible and not entries["DICOM Segmentation ..."]
    assert entries["Surfaces as STL ..."] and not entries["Label map as NIfTI ..."]
    with pytest.raises(InputError, match="no longer in the scene"):
        sourceFiles(None)


def test_what_no_longer_fits_its_slices_is_refused_and_nothing_is_written(panel, worker, tmp_path, told):
    import slicer

    volume, _ = loadFromDatabase(tmp_path / "in")
    worker("good")
    segment(panel)
    path = tmp_path / "heart.dcm"
    volume.SetSpacing(1.6, 1.5, 2.0)
    save(panel, path)
    volume.SetSpacing(1.5, 1.5, 2.0)
    (node,) = segmentations()
    mask = voxelsOf(node, "RV", volume) | voxelsOf(node, "LV", volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, "RV", volume)
    save(panel, path)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        (mask & ~voxelsOf(node, "LV", volume)).astype(np.uint8), node, "RV", volume
    )
    (tmp_path / "heart.sr.dcm").write_text("mine")
    save(panel, path)
    (tmp_path / "heart.sr.dcm").unlink()
    save(panel, tmp_path / "in" / "IM0001.dcm")
    next((tmp_path / "in").iterdir()).unlink()
    driving.chooseInMenu(panel.ui.exportButton, "DICOM Segmentation ...")
    slicer.dicomDatabase.closeDatabase()
    driving.chooseInMenu(panel.ui.exportButton, "DICOM Segmentation ...")
    said = (
        "no longer those of",
        "overlaps another",
        "exists already",
        "would be lost",
        "1 are no longer",
        "was not loaded",
    )
    assert len(told) == len(said) and all(part in text for part, text in zip(said, told)), told
    assert sorted(one.name for one in tmp_path.glob("heart*")) == []
