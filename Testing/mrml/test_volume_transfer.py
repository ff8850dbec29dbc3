"""The way of a volume to the worker and of its labels back, on the real MRML of slicer-core."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import SimpleITK as sitk
import numpy as np
import pytest

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
    from MKDSegmentationLib.run import rawNrrd

    monkeypatch.setattr(rawNrrd, "PIECE_BYTES", 900)
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
    with pytest.raises(ValueError, match="label map"):
        transfer.readLabels(volume)


def test_a_parent_transform_plays_no_part(addVolume, addTransform, transfer, tmp_path):
    volume = addVolume(np.zeros((9, 10, 11), np.int16))
    transfer.writeVolume(volume)
    before = Path(transfer.volumePath).read_bytes()
    volume.SetAndObserveTransformNodeID(addTransform().GetID())
    transfer.writeVolume(volume)
    assert Path(transfer.volumePath).read_bytes() == before


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
    assert "too few" in reasonVolumeCannotBeUsed(addVolume(np.zeros((1, 64, 64), np.int16)))
    colours = slicer.util.addVolumeFromArray(
        np.zeros((9, 10, 11, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert "one value per voxel" in reasonVolumeCannotBeUsed(colours)
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
