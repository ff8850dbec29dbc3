"""Which segments are ours, which were edited, and what they measure: real MRML of slicer-core."""

import json

import numpy as np
import pytest
from test_segmentation_writing import addUserSegment, block, segmentIds, tag, voxelsOf, write  # noqa: F401

from mkd_core.structures import STRUCTURES

KEYS = [structure.key for structure in STRUCTURES]


def report(labels, voxelMl=0.5 * 0.5 * 0.8 / 1000):
    """Return what a run would report of the labels."""
    return {
        "structures": {
            structure.key: {
                "volume_ml": round(float((labels == structure.label).sum()) * voxelMl, 3),
                "mean_intensity": 1.0,
                "agreement": 0.9,
                "warnings": [],
            }
            for structure in STRUCTURES
        },
        "warnings": [],
        "modality": "CT",
    }


@pytest.fixture
def result(addVolume, labels, write):  # noqa: F811
    """A segmentation as a run leaves it, and its volume."""
    from MKDSegmentationLib.scene.provenance import keepReport

    volume = addVolume(np.random.default_rng(3).integers(-1000, 1000, labels.shape).astype(np.int16))
    segmentation = write(volume)
    keepReport(segmentation, report(labels))
    return segmentation, volume


def edit(segmentation, volume, segmentId, mask):
    import slicer

    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, segmentId, volume)


def asWrittenByAnEarlierVersion(segmentation):
    """Take away all that versions before ours did not write: segments were known by their ids."""
    from MKDSegmentationLib.scene import ourSegments

    segmentation.RemoveAttribute("MKDSegmentation.Token")
    for segmentId in segmentIds(segmentation):
        segment = segmentation.GetSegmentation().GetSegment(segmentId)
        for name in (
            ourSegments.STRUCTURE_TAG,
            ourSegments.ORIGIN_TAG,
            ourSegments.FINGERPRINT_TAG,
            ourSegments.WRITTEN_TAG,
        ):
            segment.RemoveTag(name)


def test_a_segment_of_the_user_with_the_id_of_a_structure_survives(addVolume, labels, write):  # noqa: F811
    from MKDSegmentationLib.scene.ourSegments import ourSegments, segmentsOfOthers

    volume = addVolume(labels.astype(np.int16))
    import slicer

    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "my manual truth")
    mine.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    drawn = np.zeros(labels.shape, bool)
    drawn[:3, :3, :3] = True
    addUserSegment(mine, volume, drawn, "LV")
    mine.GetSegmentation().GetSegment("LV").SetName("LV, drawn by hand")
    for _run in range(2):
        write(volume, segmentationNode=mine)
        assert np.array_equal(voxelsOf(mine, "LV", volume), drawn)
        assert mine.GetSegmentation().GetSegment("LV").GetName() == "LV, drawn by hand"
        assert segmentsOfOthers(mine) == ["LV"] and len(segmentIds(mine)) == 8
        ours = ourSegments(mine)
        assert sorted(ours) == sorted(KEYS) and ours["LV"] != "LV"
        for structure in STRUCTURES:
            assert np.array_equal(voxelsOf(mine, ours[structure.key], volume), labels == structure.label)


def test_a_copy_of_one_of_our_segments_belongs_to_the_user(result, addVolume, labels, write):  # noqa: F811
    import slicer

    from MKDSegmentationLib.scene.ourSegments import ourSegments, segmentsOfOthers

    segmentation, _volume = result
    inner = segmentation.GetSegmentation()
    assert inner.CopySegmentFromSegmentation(inner, "LV", False)
    (copy,) = set(segmentIds(segmentation)) - set(KEYS)
    assert ourSegments(segmentation)["LV"] == "LV" and segmentsOfOthers(segmentation) == [copy]
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Kept")
    assert other.GetSegmentation().CopySegmentFromSegmentation(inner, "LV", False)
    assert segmentsOfOthers(other) == ["LV"] and ourSegments(other) == {}
    inner.RemoveSegment("LV")
    assert "LV" not in ourSegments(segmentation), "the copy does not take the place of the original"
    ofAnotherRun = write(addVolume(labels.astype(np.int16), name="Second"))
    ofAnotherRun.GetSegmentation().RemoveSegment("RV")
    assert ofAnotherRun.GetSegmentation().CopySegmentFromSegmentation(inner, "RV", False)
    assert segmentsOfOthers(ofAnotherRun) == ["RV"]


def test_segments_of_earlier_versions_are_recognised_by_id_and_report(result, labels, write):  # noqa: F811
    from MKDSegmentationLib.scene.ourSegments import ourSegments, segmentsOfOthers
    from MKDSegmentationLib.scene.segmentMeasurement import editedStructures

    segmentation, volume = result
    asWrittenByAnEarlierVersion(segmentation)
    addUserSegment(segmentation, volume, labels == 0, "mine")
    assert list(ourSegments(segmentation)) == KEYS and segmentsOfOthers(segmentation) == ["mine"]
    assert editedStructures(segmentation) == []
    edit(segmentation, volume, "RV", (labels == 2) & (np.indices(labels.shape)[1] > 7))
    assert editedStructures(segmentation) == ["RV"]
    write(volume, segmentationNode=segmentation)
    assert sorted(segmentIds(segmentation)) == sorted([*KEYS, "mine"])
    assert editedStructures(segmentation) == []


def test_a_segment_that_the_user_puts_into_the_place_of_ours_is_the_users(result, labels, write):  # noqa: F811
    segmentation, volume = result
    segmentation.GetSegmentation().RemoveSegment("LV")
    drawn = np.zeros(labels.shape, bool)
    drawn[:4, :5, :6] = True
    addUserSegment(segmentation, volume, drawn, "LV")
    write(volume, segmentationNode=segmentation)
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), drawn)


@pytest.mark.parametrize(
    "change",
    [
        lambda lv: np.roll(lv, 1, axis=0),  # as many voxels, of the same shape, elsewhere
        lambda lv: lv & (np.cumsum(lv) != 5).reshape(lv.shape),  # one voxel
        lambda lv: np.zeros_like(lv),
    ],
    ids=["moved", "one voxel", "emptied"],
)
def test_an_edit_is_noticed_and_only_of_the_structure_that_was_edited(result, labels, change):
    from MKDSegmentationLib.scene.segmentMeasurement import editedStructures

    segmentation, volume = result
    assert editedStructures(segmentation) == []
    edit(segmentation, volume, "LV", change(labels == 1))
    assert editedStructures(segmentation) == ["LV"]
    edit(segmentation, volume, "LV", labels == 1)
    assert editedStructures(segmentation) == [], "an edit that was taken back is none"


def test_saving_loading_renaming_and_surfaces_are_no_edits(result, scene, labels, tmp_path):
    import slicer

    from MKDSegmentationLib.scene.segmentMeasurement import currentReport, editedStructures

    segmentation, volume = result
    segmentation.GetSegmentation().GetSegment("LV").SetName("Linke Kammer")
    segmentation.CreateClosedSurfaceRepresentation()
    addUserSegment(segmentation, volume, labels > 0, "mine")
    segmentation.GetSegmentation().CollapseBinaryLabelmaps(False)
    segmentation.GetSegmentation().SeparateSegmentLabelmap("RV")
    assert editedStructures(segmentation) == []
    assert currentReport(segmentation, volume)["structures"]["LV"]["name"] == "Linke Kammer"
    segmentation.AddDefaultStorageNode()
    storage = segmentation.GetStorageNode()
    storage.SetFileName(str(tmp_path / "heart.seg.nrrd"))
    assert storage.WriteData(segmentation)
    for name in segmentIds(segmentation):
        segmentation.GetSegmentation().RemoveSegment(name)
    assert storage.ReadData(segmentation)
    assert len(segmentIds(segmentation)) == 8 and editedStructures(segmentation) == []
    assert slicer.util.arrayFromVolume(volume).shape == labels.shape


def test_figures_are_those_of_the_voxels(result, labels):
    import slicer

    from MKDSegmentationLib.scene.segmentMeasurement import currentReport

    segmentation, volume = result
    voxels = slicer.util.arrayFromVolume(volume)
    half = (labels == 1) & (np.indices(labels.shape)[1] > 7)
    edit(segmentation, volume, "LV", half)
    segmentation.GetSegmentation().RemoveSegment("PA")
    entries = currentReport(segmentation, volume)["structures"]
    assert entries["LV"]["volume_ml"] == pytest.approx(half.sum() * 0.2 / 1000)
    assert entries["LV"]["mean_intensity"] == pytest.approx(voxels[half].mean())
    assert entries["LV"]["state"] == "edited" and entries["LV"]["agreement"] is None
    assert entries["Myo"]["mass_g"] == pytest.approx((labels == 5).sum() * 0.2 / 1000 * 1.05)
    assert entries["Myo"]["mean_intensity"] == pytest.approx(voxels[labels == 5].mean())
    assert entries["Myo"]["agreement"] == 0.9 and "state" not in entries["Myo"]
    assert entries["PA"]["state"] == "deleted" and entries["PA"]["volume_ml"] is None


def test_other_voxels_of_the_volume_change_the_mean(result, labels):
    import slicer

    from MKDSegmentationLib.scene.segmentMeasurement import currentReport

    segmentation, volume = result
    before = currentReport(segmentation, volume)["structures"]["LV"]["mean_intensity"]
    slicer.util.arrayFromVolume(volume)[labels == 1] += 7
    slicer.util.arrayFromVolumeModified(volume)
    assert currentReport(segmentation, volume)["structures"]["LV"]["mean_intensity"] == pytest.approx(before + 7)


def test_voxels_that_are_changed_in_place_are_measured_anew(result, labels):
    from vtk.util import numpy_support

    from MKDSegmentationLib.scene.segmentMeasurement import measureSegment

    segmentation, _volume = result
    assert measureSegment(segmentation, "LV").fingerprint.count == (labels == 1).sum()
    image = segmentation.GetBinaryLabelmapInternalRepresentation("LV")
    voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    voxels[np.flatnonzero(voxels == 1)[:5]] = 0
    image.GetPointData().GetScalars().Modified()
    assert measureSegment(segmentation, "LV").fingerprint.count == (labels == 1).sum() - 5


def test_a_mean_that_is_no_number_is_none(result, labels):
    import slicer

    from MKDSegmentationLib.scene.segmentMeasurement import measureSegment

    segmentation, volume = result
    voxels = slicer.util.arrayFromVolume(volume).astype(np.float32)
    voxels[np.argwhere(labels == 1)[0][0]] = np.nan
    slicer.util.updateVolumeFromArray(volume, voxels)
    assert measureSegment(segmentation, "LV", volume).meanIntensity is None
    assert measureSegment(segmentation, "PA", volume).meanIntensity is not None


def test_segments_on_a_finer_grid_have_the_mean_of_the_voxels_they_lie_in(result, labels):
    import slicer
    import vtk

    from MKDSegmentationLib.scene.segmentMeasurement import measureSegment

    segmentation, volume = result
    fine = slicer.vtkOrientedImageData()
    fine.SetExtent(0, 55, 0, 47, 0, 39)
    fine.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    for row in range(3):
        step = [matrix.GetElement(row, column) / 2 for column in range(3)]
        for column in range(3):
            matrix.SetElement(row, column, step[column])
        matrix.SetElement(row, 3, matrix.GetElement(row, 3) - sum(step) / 2)  # eight fine voxels fill a coarse one
    fine.SetGeometryFromImageToWorldMatrix(matrix)
    from vtk.util import numpy_support

    doubled = np.kron(labels == 1, np.ones((2, 2, 2), bool))
    numpy_support.vtk_to_numpy(fine.GetPointData().GetScalars())[:] = doubled.ravel()
    segmentation.GetSegmentation().RemoveSegment("LV")
    assert segmentation.AddSegmentFromBinaryLabelmapRepresentation(fine, "fine", [1, 0, 0], "fine")
    figures = measureSegment(segmentation, "fine", volume)
    assert figures.volumeMl == pytest.approx((labels == 1).sum() * 0.2 / 1000)
    assert figures.meanIntensity == pytest.approx(slicer.util.arrayFromVolume(volume)[labels == 1].mean())


@pytest.mark.parametrize("factors, scale", [((1, 1, 2), 2.0), ((-1, 1, 1), 1.0), ((1.1, -0.9, 2), 1.98)])
def test_volumes_count_the_scale_of_parent_transforms(result, scene, labels, factors, scale):
    import vtk

    from MKDSegmentationLib.scene.segmentMeasurement import currentReport
    from MKDSegmentationLib.scene.transformHardening import volumeScale

    segmentation, volume = result
    outer, inner = (scene.AddNewNodeByClass("vtkMRMLLinearTransformNode") for _ in range(2))
    turned, scaled = vtk.vtkTransform(), vtk.vtkTransform()
    turned.RotateWXYZ(30, 1, 2, 3)
    scaled.Scale(*factors)
    outer.SetMatrixTransformToParent(turned.GetMatrix())
    inner.SetMatrixTransformToParent(scaled.GetMatrix())
    inner.SetAndObserveTransformNodeID(outer.GetID())
    for node in (segmentation, volume):
        node.SetAndObserveTransformNodeID(inner.GetID())
    assert volumeScale(segmentation) == pytest.approx(scale)
    entries = currentReport(segmentation, volume)["structures"]
    assert entries["LV"]["volume_ml"] == pytest.approx((labels == 1).sum() * 0.2 / 1000 * scale)
    assert entries["Myo"]["mass_g"] == pytest.approx((labels == 5).sum() * 0.2 / 1000 * scale * 1.05)
    assert "state" not in entries["LV"], "a transform is no edit"
    assert volumeScale(None) == 1.0


def test_a_hidden_segmentation_and_hidden_segments_are_shown_by_a_second_run(result, labels, write):  # noqa: F811
    segmentation, volume = result
    display = segmentation.GetDisplayNode()
    addUserSegment(segmentation, volume, labels > 0, "mine")
    display.SetVisibility(False)
    for segmentId in ("LV", "mine"):
        display.SetSegmentVisibility(segmentId, False)
    write(volume, segmentationNode=segmentation)
    assert display.GetVisibility() and display.GetSegmentVisibility("LV")
    assert not display.GetSegmentVisibility("mine"), "what the user hid of his own stays hidden"


def test_only_the_segmentation_of_the_volume_that_is_looked_at_is_shown(result, addVolume, labels, write):  # noqa: F811
    from MKDSegmentationLib.scene.nodeSelection import showOnlyThoseOf
    from MKDSegmentationLib.scene.provenance import keepReport

    first, firstVolume = result
    secondVolume = addVolume(labels.astype(np.int16), name="Second")
    second = write(secondVolume)
    keepReport(second, report(labels))
    shown = [node.GetDisplayNode().GetVisibility() for node in (first, second)]
    assert shown == [0, 1], "the run on the second volume hid the first one's"
    showOnlyThoseOf(firstVolume)
    assert [node.GetDisplayNode().GetVisibility() for node in (first, second)] == [1, 0]
    first.GetDisplayNode().SetVisibility(False)  # by the user
    showOnlyThoseOf(secondVolume)
    showOnlyThoseOf(firstVolume)
    assert not first.GetDisplayNode().GetVisibility()
    showOnlyThoseOf(None)
    assert json.loads(first.GetAttribute("MKDSegmentation.Report"))["modality"] == "CT"


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, -1, 3), (-3, 0, 0), (9, 9, 9)])
@pytest.mark.parametrize("shape", [(6, 7, 8), (3, 9, 5)])
def test_labels_whose_voxels_differ_are_found_wherever_the_arrays_lie(scene, shift, shape):
    from MKDSegmentationLib.scene.segmentMeasurement import differingSteps

    from mkd_core.measure.steps import all_at_once

    random, whole = np.random.default_rng(4), np.zeros((2, 28, 28, 28), np.uint8)
    starts, shapes = ((8, 8, 8), tuple(8 + step for step in shift)), ((6, 7, 8), shape)
    whole[:, 9:12, 9:12, 9:12] = random.integers(0, 4, (3, 3, 3))  # the same in both
    whole[0, 10, 10, 10], whole[1, 10, 10, 10] = 5, 6
    parts = []
    for one, start, size in zip(whole, starts, shapes):
        inside = np.zeros(one.shape, bool)
        inside[tuple(slice(begin, begin + length) for begin, length in zip(start, size))] = True
        one[~inside] = 0
        parts.append(one[inside].reshape(size))
    expected = {label for label in range(1, 7) if not np.array_equal(*(whole == label))}
    assert all_at_once(differingSteps(parts[0], starts[0], parts[1], starts[1])) == expected
    assert all_at_once(differingSteps(parts[1], starts[1], parts[0], starts[0])) == expected


def test_a_label_map_too_large_to_be_kept_is_not_copied(addVolume, labels, write, monkeypatch):  # noqa: F811
    from MKDSegmentationLib.scene import segmentMeasurement

    class Counting(np.ndarray):
        copies = 0

        def copy(self, *order):
            Counting.copies += 1
            return np.array(self)

    voxelsOf = segmentMeasurement._voxelsOf
    monkeypatch.setattr(segmentMeasurement, "_voxelsOf", lambda image: voxelsOf(image).view(Counting))
    volume = addVolume(np.zeros(labels.shape, np.int16))
    write(volume, labels)
    assert Counting.copies == 1, "all segments share it"
    monkeypatch.setattr(segmentMeasurement, "_LARGEST_SEEN", labels.nbytes // 100)
    write(volume, labels)
    assert Counting.copies == 1


def test_figures_of_a_long_sequence_in_detail_are_all_kept():
    """Where they are not, measuring its frames never ends: the first are forgotten when the last are measured."""
    from MKDSegmentationLib.scene.segmentMeasurement import _CACHED

    from mkd_core.structures import DETAILED, STRUCTURES

    assert 300 * (len(STRUCTURES) + len(DETAILED)) <= _CACHED


def test_figures_that_are_kept_from_the_writing_are_those_that_are_measured(addVolume, labels, write, monkeypatch):  # noqa: F811
    from MKDSegmentationLib.scene import segmentMeasurement

    grid = np.diag([-0.5, 0.7, 0.8, 1.0])
    grid[:3, :3] = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ grid[:3, :3]
    grid[:3, 3] = 11.3, -7.9, 104.2
    atBorder = labels.copy()
    atBorder[:, :, -1] = 6
    volume = addVolume(np.random.default_rng(3).integers(-1000, 1000, labels.shape).astype(np.int16), grid)
    measure, measured = segmentMeasurement._measure, []
    segmentation = write(volume, atBorder)
    monkeypatch.setattr(segmentMeasurement, "_measure", lambda *one: measured.append(one) or measure(*one))
    kept = {key: segmentMeasurement.measureSegment(segmentation, key, volume) for key in KEYS}
    withoutIntensities = segmentMeasurement.measureSegment(segmentation, "LV")
    assert not measured, "nothing is measured twice"
    segmentMeasurement._measured.clear()
    for key in KEYS:
        again = segmentMeasurement.measureSegment(segmentation, key, volume)
        assert kept[key].fingerprint.matches(again.fingerprint) and kept[key].touchesBorder == again.touchesBorder
        assert kept[key].volumeMl == pytest.approx(again.volumeMl) and kept[key].middle == pytest.approx(again.middle)
        assert kept[key].meanIntensity == again.meanIntensity
    assert kept["AA"].touchesBorder and not kept["LV"].touchesBorder and len(measured) == len(KEYS)
    assert withoutIntensities.meanIntensity is None and withoutIntensities.volumeMl == kept["LV"].volumeMl


@pytest.mark.parametrize("shape", [(9, 8, 7), (1, 5, 6), (5, 1, 1)])
def test_the_box_of_a_label_is_found_wherever_it_lies(scene, shape):
    from MKDSegmentationLib.scene.ourSegments import boundingBox, maskOfLabel

    random = np.random.default_rng(1)
    for count in (1, 2, 5, 40):
        array = np.zeros(shape, np.uint8)
        array.ravel()[random.integers(0, array.size, count)] = 3
        array.ravel()[random.integers(0, array.size, count)] = 2
        box, mask = maskOfLabel(array, 3)
        expected = boundingBox(array == 3)
        assert box == expected
        assert expected is None or np.array_equal(mask, (array == 3)[expected])
    assert maskOfLabel(np.zeros(shape, np.uint8), 3) == (None, None)
