"""The way of a volume to the worker and of its labels back, on the real MRML of slicer-core."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def transfer(scene):
    from MKDSegmentationLib.run.volumeTransfer import VolumeTransfer

    transfer = VolumeTransfer()
    yield transfer
    transfer.remove()


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint8, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_voxels_and_geometry_arrive_exactly(addVolume, obliqueIjkToRas, transfer, kind):
    voxels = (np.random.default_rng(0).random((9, 10, 11)) * 200).astype(kind)
    transfer.writeVolume(addVolume(voxels, obliqueIjkToRas))
    image = sitk.ReadImage(transfer.volumePath)
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels) and sitk.GetArrayFromImage(image).dtype == kind
    toLps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ obliqueIjkToRas
    for index in [(0, 0, 0), (10, 0, 0), (0, 9, 0), (0, 0, 8), (10, 9, 8)]:
        assert np.allclose(image.TransformIndexToPhysicalPoint(index), (toLps @ [*index, 1.0])[:3], atol=1e-9)


def test_a_large_volume_goes_to_and_fro_in_small_pieces(addVolume, transfer, monkeypatch):
    from MKDSegmentationLib.run import volumeTransfer

    monkeypatch.setattr(volumeTransfer, "PIECE_BYTES", 900)
    voxels = np.arange(9 * 10 * 11, dtype=np.int16).reshape(9, 10, 11)
    volume = addVolume(voxels)
    fractions = list(transfer.writeVolumeInPieces(volume))
    assert len(fractions) == 3 and fractions == sorted(fractions) and fractions[-1] == 1.0
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(transfer.volumePath)), voxels)
    labels = np.zeros((9, 10, 11), np.uint8)
    labels[8, 2:5, 3:4] = 3
    sitk.WriteImage(sitk.GetImageFromArray(labels), transfer.labelPath)
    assert len(list(transfer.readLabelsInPieces(volume))) == 3, "two pieces to look at, one to take"
    block = transfer.readLabels(volume)
    assert block.start == (8, 2, 3) and np.array_equal(block.values, np.full((1, 3, 1), 3))


@pytest.mark.parametrize("spoil", ["cut", "compressed", "text", "nameless"])
def test_a_label_map_that_is_incomplete_or_no_label_map_is_refused(addVolume, transfer, spoil):
    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    values = np.full((9, 10, 11), 8 if spoil == "nameless" else 1, np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), transfer.labelPath, spoil == "compressed")
    content = Path(transfer.labelPath).read_bytes()
    Path(transfer.labelPath).write_bytes(b"words" if spoil == "text" else content[:-1] if spoil == "cut" else content)
    with pytest.raises(ValueError):
        transfer.readLabels(volume)


TRANSFORMS = {
    "rotated": [("RotateWXYZ", 37.0, 0.3, 0.5, 0.8), ("Translate", 10.0, -20.0, 30.0)],
    "turned upside down": [("RotateWXYZ", 180.0, 1.0, 0.0, 0.0)],
    "mirrored": [("Scale", -1.0, 1.0, 1.0)],
    "scaled": [("Scale", 2.0, 2.0, 2.0)],
    "stretched along an axis of the grid": [("Scale", 1.0, 1.0, 2.0)],
}


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_what_is_seen_in_the_world_is_handed_over(addVolume, transformOf, transfer, kind):
    voxels = np.random.default_rng(0).integers(0, 99, (9, 10, 11)).astype(np.int16)
    volume = addVolume(voxels)
    volume.SetAndObserveTransformNodeID(transformOf(*TRANSFORMS[kind]).GetID())
    transfer.writeVolume(volume)
    image = sitk.ReadImage(transfer.volumePath)
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels), "voxels stay as they are"
    for index in [(0, 0, 0), (10, 0, 0), (0, 9, 0), (0, 0, 8), (10, 9, 8)]:
        seen = worldPoint(volume, index)
        assert np.allclose(image.TransformIndexToPhysicalPoint(index), seen * [-1.0, -1.0, 1.0], atol=1e-6)


def test_nested_transforms_count_together(addVolume, transformOf, transfer):
    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    inner, outer = transformOf(("Scale", 2.0, 2.0, 2.0)), transformOf(("RotateWXYZ", 90.0, 0.0, 0.0, 1.0))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    transfer.writeVolume(volume)
    image = sitk.ReadImage(transfer.volumePath)
    assert np.allclose(image.GetSpacing(), (1.0, 1.0, 1.6))
    assert np.allclose(image.TransformIndexToPhysicalPoint((3, 4, 5)), worldPoint(volume, (3, 4, 5)) * [-1, -1, 1])


def test_a_sheared_grid_is_handed_over_upright_and_volumes_are_corrected_by_the_determinant(addVolume, transformOf):
    import vtk

    from MKDSegmentationLib.run.volumeTransfer import WorldGrid, linearToWorld

    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    node = transformOf(("RotateWXYZ", 30.0, 0.0, 0.0, 1.0))
    matrix = vtk.vtkMatrix4x4()
    node.GetMatrixTransformToParent(matrix)
    matrix.SetElement(0, 2, 0.5)
    matrix.SetElement(2, 2, 1.5)
    node.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(node.GetID())
    grid = WorldGrid.of(volume)
    directions = grid.ijkToRas[:3, :3] / grid.spacing
    assert grid.shears and grid.scales and np.allclose(directions.T @ directions, np.eye(3))
    voxel = abs(np.linalg.det(linearToWorld(volume)[:3, :3])) * 0.5 * 0.5 * 0.8
    assert np.isclose(np.prod(grid.spacing) * grid.volumeFactor, voxel)


def test_a_transform_without_scale_neither_scales_nor_shears(addVolume, addTransform):
    from MKDSegmentationLib.run.volumeTransfer import WorldGrid

    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    volume.SetAndObserveTransformNodeID(addTransform().GetID())
    grid = WorldGrid.of(volume)
    assert not grid.scales and not grid.shears and grid.volumeFactor == 1.0
    assert np.allclose(grid.spacing, (0.5, 0.5, 0.8))


def test_a_transform_that_flattens_the_volume_is_refused(addVolume, transformOf):
    from MKDSegmentationLib.run.volumeTransfer import reasonVolumeCannotBeUsed

    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    volume.SetAndObserveTransformNodeID(transformOf(("Scale", 1.0, 1.0, 0.0)).GetID())
    assert "flattens" in reasonVolumeCannotBeUsed(volume)


def test_an_overlay_comes_back_where_it_belongs_under_the_transform_of_the_volume(addVolume, transformOf, transfer):
    """The worker knows the world alone; the volume that comes back is put under the same transform as its volume."""
    from MKDSegmentationLib.run.volumeTransfer import WorldGrid, setVolume

    from mkd_core.io.volumes import write_volume

    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    steps = [("RotateWXYZ", 37.0, 0.3, 0.5, 0.8), ("Scale", -2.0, 2.0, 2.0)]
    volume.SetAndObserveTransformNodeID(transformOf(*steps).GetID())
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((4, 5, 6), np.float32))
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((7.0, -8.0, 9.0))
    write_volume(image, transfer.disagreementPath, compress=False)
    overlay = transfer.readOverlay(transfer.disagreementPath, volume, WorldGrid.of(volume))
    node = addVolume(np.zeros((2, 2, 2), np.float32))
    setVolume(node, overlay.voxels, overlay.ijkToRas)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    assert np.array_equal(overlay.voxels, sitk.GetArrayFromImage(image))
    for index in [(0, 0, 0), (5, 4, 3)]:
        assert np.allclose(
            worldPoint(node, index), np.multiply(image.TransformIndexToPhysicalPoint(index), (-1, -1, 1))
        )


def worldPoint(volume, index):
    """RAS of the world, in mm, of a voxel (i, j, k), as Slicer shows it."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    own = matrix.MultiplyPoint([*index, 1.0])[:3]
    seen = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld(own, seen)
    return np.array(seen)


def test_no_path_is_given_to_itk_and_a_folder_of_any_name_will_do(addVolume, labels, tmp_path, monkeypatch):
    """ITK cannot open a path outside the code page of Windows, such as one with this user's name."""
    import slicer

    from MKDSegmentationLib.run.volumeTransfer import VolumeTransfer, WorldGrid

    from mkd_core.io.volumes import check_writable, read_volume, write_volume

    def refuse(*_arguments, **_keywords):
        raise RuntimeError("a path was given to ITK")

    folder = tmp_path / "Zoë Œuvré 心臓"
    folder.mkdir()
    monkeypatch.setattr(slicer.app, "temporaryPath", str(folder))
    volume = addVolume(np.arange(labels.size, dtype=np.int16).reshape(labels.shape))
    transfer = VolumeTransfer()
    transfer.writeVolume(volume)
    for name in ("ReadImage", "WriteImage"):
        monkeypatch.setattr(sitk, name, refuse)
    monkeypatch.setattr(sitk.ImageFileReader, "SetFileName", refuse)
    image = read_volume(Path(transfer.volumePath))
    assert np.array_equal(sitk.GetArrayFromImage(image), slicer.util.arrayFromVolume(volume))
    result = sitk.GetImageFromArray(labels)
    result.CopyInformation(image)
    check_writable(Path(transfer.labelPath))
    write_volume(result, Path(transfer.labelPath), compress=False, private=True)
    aligned = sitk.Cast(image, sitk.sitkFloat32)
    write_volume(aligned, Path(transfer.alignedPath), compress=False, private=True)
    block = transfer.readLabels(volume)
    assert block.start == tuple(int(axis.min()) for axis in np.nonzero(labels)) and block.values.any()
    aligned = transfer.readOverlay(transfer.alignedPath, volume, WorldGrid.of(volume))
    assert np.array_equal(aligned.voxels, slicer.util.arrayFromVolume(volume).astype(np.float32))
    assert stat.S_IMODE(os.stat(transfer.labelPath).st_mode) == 0o600
    transfer.remove()
    assert os.listdir(folder) == []


def test_nothing_that_names_the_patient_leaves_the_scene(addVolume, transfer):
    volume = addVolume(np.zeros((9, 10, 11), np.int16), name="Doe^Jane 1970")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.840.99999")
    transfer.writeVolume(volume)
    assert sorted(os.listdir(transfer.folder)) == ["in-use", "volume.nrrd"]
    content = Path(transfer.volumePath).read_bytes()
    assert b"Doe" not in content and b"1.2.840" not in content and "Doe" not in transfer.folder


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_only_the_user_can_enter_the_folder_whatever_the_umask_and_it_is_gone_afterwards(scene, addVolume, umask):
    from MKDSegmentationLib.run.volumeTransfer import VolumeTransfer

    before = os.umask(umask)
    try:
        transfer = VolumeTransfer()
        transfer.writeVolume(addVolume(np.zeros((9, 10, 11), np.int16)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(transfer.folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(transfer.volumePath).st_mode) == 0o600
    transfer.remove()
    assert not os.path.exists(transfer.folder)


def test_a_label_map_that_is_not_there_is_told_as_such(addVolume, transfer):
    with pytest.raises(OSError):
        transfer.readLabels(addVolume(np.zeros((9, 10, 11), np.int16)))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_is_full_is_told_in_words(addVolume, transfer):
    import resource

    volume = addVolume(np.zeros((9, 100, 110), np.int16))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"temporary folder .* cannot be written \(File too large\)\. Choose another"):
            transfer.writeVolume(volume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_labels_come_back_cut_to_the_heart(addVolume, labels, transfer):
    volume = addVolume(np.zeros(labels.shape, np.int16))
    sitk.WriteImage(sitk.GetImageFromArray(labels), transfer.labelPath)
    block = transfer.readLabels(volume)
    restored = np.zeros_like(labels)
    restored[tuple(slice(start, start + size) for start, size in zip(block.start, block.values.shape))] = block.values
    assert np.array_equal(restored, labels)
    for axis in range(3):
        for end in (0, -1):
            assert block.values.take(end, axis=axis).any(), "the block is not the smallest"


def test_a_label_map_without_labels_is_none(addVolume, transfer):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 10, 11), np.uint8)), transfer.labelPath)
    assert transfer.readLabels(addVolume(np.zeros((9, 10, 11), np.int16))) is None


def test_a_label_map_on_another_grid_is_refused(addVolume, transfer):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((9, 10, 12), np.uint8)), transfer.labelPath)
    with pytest.raises(ValueError, match="grid"):
        transfer.readLabels(addVolume(np.zeros((9, 10, 11), np.int16)))


def test_each_unsuitable_volume_is_refused_with_its_reason(scene, addVolume):
    import slicer

    from MKDSegmentationLib.run.volumeTransfer import reasonVolumeCannotBeUsed

    assert "Load" in reasonVolumeCannotBeUsed(None)
    assert "no voxels" in reasonVolumeCannotBeUsed(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
    assert "at least 4 are needed" in reasonVolumeCannotBeUsed(addVolume(np.zeros((1, 64, 64), np.int16)))
    colours = slicer.util.addVolumeFromArray(
        np.zeros((9, 10, 11, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert "colours or vectors" in reasonVolumeCannotBeUsed(colours)
    sheared = np.diag([-1.0, -1.0, 1.0, 1.0])
    sheared[1, 2] = 0.4
    assert "sheared" in reasonVolumeCannotBeUsed(addVolume(np.zeros((9, 10, 11), np.int16), sheared))
    assert reasonVolumeCannotBeUsed(addVolume(np.zeros((9, 10, 11), np.int16))) == ""


def test_the_mrml_layer_of_the_module_needs_no_qt():
    program = (
        "import slicer, sys; slicer.__path__.append('Testing/harness/slicer_python'); "
        "sys.path.append('MKDSegmentation');"
        "import MKDSegmentationLib.run.volumeTransfer, MKDSegmentationLib.scene.segmentationWriting;"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('qt', 'ctk', 'PySide6', 'torch')))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
