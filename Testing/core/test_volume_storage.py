"""What is whole is read, however it is stored; what is not is refused (the refusals: Testing/trust/volumes.py)."""

from __future__ import annotations

import gzip

import SimpleITK as sitk
import numpy as np
import pytest

from Testing.support.dicom_series import write_series
from mkd_core.errors import InputError
from mkd_core.io.volumes import read_volume


def noise() -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (9, 10, 11)).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 2.0))
    return image


def assert_same(first: sitk.Image, second: sitk.Image) -> None:
    assert np.array_equal(sitk.GetArrayViewFromImage(first), sitk.GetArrayViewFromImage(second))
    assert np.allclose(first.GetSpacing(), second.GetSpacing()) and np.allclose(
        first.GetOrigin(), second.GetOrigin(), atol=1e-6
    )


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_whole_files_are_read_as_they_were_written(tmp_path, name, compress):
    sitk.WriteImage(noise(), str(tmp_path / name), compress)
    assert_same(read_volume(tmp_path / name), noise())


@pytest.mark.parametrize(
    "kind", [sitk.sitkUInt8, sitk.sitkFloat32, sitk.sitkFloat64, sitk.sitkInt64, sitk.sitkVectorInt16]
)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_the_bytes_needed_are_counted_for_every_type_of_voxel(tmp_path, name, kind):
    image = sitk.Compose(noise(), noise()) if kind == sitk.sitkVectorInt16 else sitk.Cast(noise(), kind)
    sitk.WriteImage(image, str(tmp_path / name), True)
    assert_same(read_volume(tmp_path / name), image)


def test_compressed_files_of_several_streams_are_read(tmp_path):
    sitk.WriteImage(noise(), str(tmp_path / "a.nii"))
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    assert_same(read_volume(tmp_path / "b.nii.gz"), noise())


def test_a_wrong_check_sum_is_told(tmp_path):
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        sitk.WriteImage(noise(), str(tmp_path / name), True)
        content = bytearray((tmp_path / name).read_bytes())
        content[-6] ^= 1  # within the check sum of gzip; of zlib, within the last voxels or it
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cut off or damaged"):
            read_volume(tmp_path / name)


def test_slices_are_put_in_order_whatever_their_names(tmp_path):
    write_series(noise(), tmp_path / "series", 1)
    for path in sorted((tmp_path / "series").iterdir()):
        path.rename(path.with_name(f"{999 - int(path.stem.split('_')[1])}.dcm"))
    assert_same(read_volume(tmp_path / "series"), noise())
