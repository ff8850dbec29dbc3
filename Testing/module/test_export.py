"""Structures taken away as surfaces and label maps; in the stand-in GUI."""

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.structures import STRUCTURES
from Testing.support.fake_worker import blocks

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import SHAPE, driving, segment, segmentations, voxelsOf, waitForFigures

STL, OBJ, NIFTI = "Surfaces as STL ...", "Surfaces as OBJ ...", "Label map as NIfTI ..."


@pytest.fixture
def result(panel, volume, worker):
    """The panel after a run."""
    worker("good")
    segment(panel)
    return panel


@pytest.fixture
def told(monkeypatch):
    """What the user is told and asked in boxes; the answer is its item "answer"."""
    import slicer

    boxes = {"texts": [], "answer": True}

    def ask(text):
        boxes["texts"].append(text)
        return boxes["answer"]

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", ask)
    monkeypatch.setattr(slicer.util, "warningDisplay", boxes["texts"].append)
    return boxes


def export(panel, entry, path):
    driving.answerFileDialog(path)
    driving.chooseInMenu(panel.ui.exportButton, entry)


def pointsOf(path):
    """Return the points of a file as they stand in it."""
    import vtk
    from vtk.util import numpy_support

    reader = vtk.vtkSTLReader() if path.suffix == ".stl" else vtk.vtkOBJReader()
    reader.SetFileName(str(path))
    reader.Update()
    return numpy_support.vtk_to_numpy(reader.GetOutput().GetPoints().GetData())


def boundsInLps(key, volume):
    """Return the lowest and highest corner of a structure's voxels, from the middles of the outermost ones, mm LPS."""
    import slicer

    indices = np.argwhere(voxelsOf(segmentations()[0], key, volume))[:, ::-1]
    toRas = slicer.util.arrayFromVTKMatrix(_ijkToRas(volume))
    lps = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ toRas @ np.c_[indices, np.ones(len(indices))].T)[:3]
    return lps.min(axis=1), lps.max(axis=1)


def _ijkToRas(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


@pytest.mark.parametrize(("entry", "ending"), [(STL, "stl"), (OBJ, "obj")])
def test_each_structure_becomes_a_surface_called_after_it_where_other_programs_expect_it(
    result, volume, tmp_path, entry, ending, slicerApp
):
    segmentations()[0].GetSegmentation().GetSegment("RV").SetName("RV: mine/2")
    export(result, entry, tmp_path)
    names = [structure.name for structure in STRUCTURES if structure.key != "RV"] + ["RV_ mine_2"]
    assert sorted(path.name for path in tmp_path.glob("CT heart*")) == sorted(
        f"CT heart - {name}.{ending}" for name in names
    )
    path = tmp_path / f"CT heart - Left ventricle.{ending}"
    low, high = boundsInLps("LV", volume)
    points = pointsOf(path)
    assert np.abs(points.min(axis=0) - low).max() < 2.5 and np.abs(points.max(axis=0) - high).max() < 2.5
    assert b"SPACE=LPS" in path.read_bytes()[:200]
    assert f"7 surfaces in “{tmp_path.name}” ({ending.upper()}, mm, LPS)" in result.ui.exportedLabel.text
    assert result.ui.exportedLabel.visible
    assert slicerApp.userSettings().value("MKDSegmentation/ExportFolder") == str(tmp_path)


def test_surfaces_are_as_smooth_as_those_that_are_shown_and_exporting_shows_none(result, tmp_path):
    driving.waitUntil(lambda: result._surfaces._task is None, message="the surfaces")
    driving.pressKey(result.ui.smoothingSlider, "Home")
    driving.waitUntil(lambda: result._surfaces._task is None, message="the surfaces")
    export(result, STL, tmp_path)
    shown = pointsOf(tmp_path / "CT heart - Left atrium.stl")
    driving.click(result.ui.show3DCheckBox)
    export(result, OBJ, tmp_path)
    assert not segmentations()[0].GetSegmentation().ContainsRepresentation("Closed surface")
    made = pointsOf(tmp_path / "CT heart - Left atrium.obj")
    assert np.allclose(np.unique(shown, axis=0), np.unique(made, axis=0), atol=1e-3)


def test_surfaces_lie_where_they_are_seen_also_under_a_transform(result, volume, tmp_path):
    import slicer
    import vtk

    shift = vtk.vtkMatrix4x4()
    shift.SetElement(0, 3, 100.0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(shift)
    low, _high = boundsInLps("AA", volume)
    for one in (volume, segmentations()[0]):
        one.SetAndObserveTransformNodeID(node.GetID())
    export(result, STL, tmp_path)
    assert abs(pointsOf(tmp_path / "CT heart - Ascending aorta.stl").min(axis=0)[0] - (low[0] - 100.0)) < 2.5


def test_files_that_are_there_are_replaced_only_when_the_user_says_so(result, tmp_path, told):
    mine = tmp_path / "CT heart - Left ventricle.stl"
    mine.write_text("mine")
    told["answer"] = False
    export(result, STL, tmp_path)
    assert mine.read_text(encoding="utf-8") == "mine" and len(list(tmp_path.glob("CT heart*"))) == 1
    assert len(told["texts"]) == 1 and "CT heart - Left ventricle.stl" in told["texts"][0]
    assert not result.ui.exportedLabel.visible
    told["answer"] = True
    export(result, STL, tmp_path)
    assert mine.stat().st_size > 1000 and len(list(tmp_path.glob("CT heart*"))) == 7


def test_two_structures_of_one_name_get_two_files(result, tmp_path):
    for key in ("LV", "RV"):
        segmentations()[0].GetSegmentation().GetSegment(key).SetName("Ventricle")
    export(result, STL, tmp_path)
    assert (tmp_path / "CT heart - Ventricle.stl").is_file() and (tmp_path / "CT heart - Ventricle 2.stl").is_file()


def test_a_folder_that_cannot_be_written_to_is_told(result, tmp_path, told):
    import os

    if os.name == "nt" or not os.geteuid():
        folder = tmp_path / "CT heart - Left ventricle.stl"
        folder.mkdir()  # also root cannot put a file in place of a folder
    else:
        tmp_path.chmod(0o500)
    export(result, STL, tmp_path)
    tmp_path.chmod(0o700)
    assert "could not be written" in told["texts"][-1] and not result.ui.exportedLabel.visible
    assert [path for path in tmp_path.glob("CT heart*") if path.is_file()] == [], "whole or not at all"


def test_the_label_map_has_the_labels_of_the_report_on_the_voxels_of_the_volume(result, volume, tmp_path):
    import slicer

    mask = voxelsOf(segmentations()[0], "LV", volume)
    mask[7:] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentations()[0], "LV", volume)
    export(result, NIFTI, tmp_path / "heart.nii.gz")
    image = sitk.ReadImage(tmp_path / "heart.nii.gz")
    expected = np.where((blocks(SHAPE) == 1) & ~mask, 0, blocks(SHAPE))
    assert np.array_equal(sitk.GetArrayFromImage(image), expected)
    last = [side - 1 for side in SHAPE[::-1]]
    ras = slicer.util.arrayFromVTKMatrix(_ijkToRas(volume)) @ [*last, 1]
    assert np.allclose(image.TransformIndexToPhysicalPoint(last), (-ras[0], -ras[1], ras[2]))
    assert result.ui.exportedLabel.text == "Saved “heart.nii.gz” on the voxels of “CT”."
    assert "1: Left ventricle\n2: Right ventricle" in result.ui.exportedLabel.toolTip


def test_structures_that_overlap_are_refused_in_a_label_map(result, volume, tmp_path, told):
    import slicer

    both = voxelsOf(segmentations()[0], "LV", volume) | voxelsOf(segmentations()[0], "RV", volume)
    slicer.modules.segmentations.logic()
    segmentations()[0].GetSegmentation().SeparateSegmentLabelmap("RV")
    slicer.util.updateSegmentBinaryLabelmapFromArray(both.astype(np.uint8), segmentations()[0], "RV", volume)
    export(result, NIFTI, tmp_path / "heart.nii.gz")
    assert "overlaps another structure" in told["texts"][0] and not (tmp_path / "heart.nii.gz").exists()


def test_the_menu_offers_what_the_result_allows(result):
    from Testing.harness.driving import menuEntries

    assert menuEntries(result.ui.exportButton) == {
        "Table as CSV ...": True,
        STL: True,
        OBJ: True,
        NIFTI: True,
        "DICOM Segmentation ...": True,
    }
    for structure in STRUCTURES:
        segmentations()[0].GetSegmentation().RemoveSegment(structure.key)
    waitForFigures(result)
    entries = menuEntries(result.ui.exportButton)
    assert entries["Table as CSV ..."] and not entries[STL] and not entries[NIFTI]
