"""What is whole is read, however it is stored, and means the same to other programs when we wrote it; what is not
whole, or does not say where its voxels are, is refused (more refusals: Testing/trust/volumes.py).
"""

from __future__ import annotations

import ast
import gzip
import itertools
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io import integrity, nifti
from mkd_core.io.atomic import made_here
from mkd_core.io.volumes import WRITABLE, input_files, read_grid, read_volume, read_with_doubts, write_volume
from mkd_core.measure.messages import finding
from Testing.support.dicom_series import write_series
from Testing.support.stored_volumes import rotation

KINDS = [
    sitk.sitkUInt8,
    sitk.sitkInt8,
    sitk.sitkInt16,
    sitk.sitkUInt16,
    sitk.sitkInt32,
    sitk.sitkUInt32,
    sitk.sitkInt64,
    sitk.sitkFloat32,
    sitk.sitkFloat64,
]


def noise() -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (9, 10, 11)).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 2.0))
    return image


def turned(angle: float = 0.3, axes=(0, 1, 2), signs=(1, 1, 1)) -> sitk.Image:
    """Noise on an oblique grid whose axes are stored in this order and direction."""
    image = noise()
    direction = rotation((angle, 0, angle))[:, axes] * signs
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((-31.25, 17.5, 402.75))
    return image


def assert_same(first: sitk.Image, second: sitk.Image) -> None:
    assert first.GetPixelID() == second.GetPixelID()
    assert np.array_equal(sitk.GetArrayViewFromImage(first), sitk.GetArrayViewFromImage(second))
    for one, other in (
        (first.GetSpacing(), second.GetSpacing()),
        (first.GetOrigin(), second.GetOrigin()),
        (first.GetDirection(), second.GetDirection()),
    ):
        assert np.allclose(one, other, atol=1e-5)


def codes(path: Path) -> list[str]:
    """Codes of what is doubtful about a file."""
    return [doubt.code for doubt in read_with_doubts(path)[1]]


def refusal(path: Path) -> str:
    """What is said of a file that must not be read."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    return str(caught.value)


def test_voxels_that_do_not_fit_into_the_memory_are_refused_with_both_sizes(tmp_path, monkeypatch):
    voxels = noise()
    sitk.WriteImage(voxels, str(tmp_path / "a.nrrd"))
    needed = 2 * voxels.GetNumberOfPixels()
    monkeypatch.setattr(integrity, "available_memory", lambda: needed)
    assert_same(read_volume(tmp_path / "a.nrrd"), voxels)
    monkeypatch.setattr(integrity, "available_memory", lambda: needed - 1)
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "a.nrrd")
    assert caught.value.finding == finding(
        "file_beyond_memory", file="a.nrrd", needed_gb=needed / 2**30, free_gb=(needed - 1) / 2**30
    )


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_whole_files_are_read_as_they_were_written(tmp_path, name, compress):
    sitk.WriteImage(noise(), str(tmp_path / name), compress)
    assert_same(read_volume(tmp_path / name), noise())


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_every_orientation_is_read_as_itk_reads_it_and_written_as_itk_reads_it(tmp_path, name, axes):
    for signs in itertools.product((1, -1), repeat=3):
        image = turned(axes=axes, signs=signs)
        sitk.WriteImage(image, str(tmp_path / name))
        assert_same(read_volume(tmp_path / name), sitk.ReadImage(str(tmp_path / name)))
        assert codes(tmp_path / name) == []
        write_volume(image, tmp_path / f"our_{name}")
        assert_same(sitk.ReadImage(str(tmp_path / f"our_{name}")), image)


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_is_read_by_us_and_by_itk_and_carries_our_mark(tmp_path, ending, compress, kind):
    image, path = sitk.Cast(turned(), kind), tmp_path / f"a{ending}"
    write_volume(image, path, compress=compress)
    assert_same(read_volume(path), image)
    assert_same(sitk.ReadImage(str(path)), image)
    assert made_here(path) and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [*KINDS, sitk.sitkVectorInt16])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_every_type_of_voxel_is_read(tmp_path, name, kind):
    image = sitk.Compose(noise(), noise()) if kind == sitk.sitkVectorInt16 else sitk.Cast(noise(), kind)
    sitk.WriteImage(image, str(tmp_path / name), True)
    assert_same(read_volume(tmp_path / name), image)


def test_voxels_in_the_byte_order_of_other_computers_are_read(tmp_path):
    voxels = sitk.GetArrayFromImage(noise())
    text = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 11 10 9\nspace: RAS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n"
    )
    (tmp_path / "a.nrrd").write_bytes(f"{text}endian: big\nencoding: raw\n\n".encode() + voxels.astype(">i2").tobytes())
    image = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(sitk.GetArrayViewFromImage(image), voxels)
    assert image.GetSpacing() == (1, 2, 3) and image.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)


def nifti_file(path: Path, *changes: tuple) -> Path:
    """A NIfTI file whose header is changed: (format, position, values...)."""
    sitk.WriteImage(noise(), str(path.with_suffix(".nii")))
    content = bytearray(path.with_suffix(".nii").read_bytes())
    for form, position, *values in changes:
        struct.pack_into(form, content, position, *values)
    path.write_bytes(content)
    return path


def test_intensities_of_nifti_are_scaled_as_the_header_says(tmp_path):
    path = nifti_file(tmp_path / "a.nii", ("<2f", 112, 2.0, -1024.0))
    assert_same(read_volume(path), sitk.ReadImage(str(path)))
    assert sitk.GetArrayViewFromImage(read_volume(path)).max() == 2 * sitk.GetArrayViewFromImage(noise()).max() - 1024
    for slope, intercept in ((0.0, 5.0), (1.0, 0.0), (float("nan"), 0.0)):
        assert (
            read_volume(nifti_file(tmp_path / "b.nii", ("<2f", 112, slope, intercept))).GetPixelID() == sitk.sitkInt16
        )


def test_nifti_of_version_2_is_read(tmp_path):
    voxels = sitk.GetArrayFromImage(noise())
    header = bytearray(544)
    struct.pack_into("<i8s2h", header, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16)
    struct.pack_into("<8q", header, 16, 3, 11, 10, 9, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 0.5, 0.75, 2, 0, 0, 0, 0)
    struct.pack_into("<q2d", header, 168, 544, 1, 0)
    struct.pack_into("<2i", header, 344, 0, 1)
    struct.pack_into("<12d", header, 400, -0.5, 0, 0, 0, 0, -0.75, 0, 0, 0, 0, 2, 0)
    struct.pack_into("<i", header, 500, 2)
    (tmp_path / "a.nii").write_bytes(bytes(header) + voxels.astype("<i2").tobytes())
    assert_same(read_volume(tmp_path / "a.nii"), noise())


def test_lengths_in_other_units_become_millimetres(tmp_path):
    metres = [*np.array([1, 0.5, 0.75, 2.0]) / 1000]
    path = nifti_file(tmp_path / "a.nii", ("<B", 123, 1), ("<4f", 76, *metres), ("<2h", 252, 1, 0))
    assert np.allclose(read_volume(path).GetSpacing(), (0.5, 0.75, 2.0))


def test_compressed_files_of_several_streams_are_read(tmp_path):
    sitk.WriteImage(noise(), str(tmp_path / "a.nii"))
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    assert_same(read_volume(tmp_path / "b.nii.gz"), noise())


@pytest.mark.parametrize(
    ("written", "named"), [("a.nii", "b.nrrd"), ("a.nrrd", "b.nii.gz"), ("a.mha", "b"), ("a.nii.gz", "b.nii")]
)
def test_a_file_is_known_by_its_bytes_and_not_by_its_name(tmp_path, written, named):
    sitk.WriteImage(noise(), str(tmp_path / written))
    (tmp_path / written).rename(tmp_path / named)
    assert_same(read_volume(tmp_path / named), noise())


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii.gz"])
def test_a_time_series_of_one_frame_is_a_volume_and_one_of_two_is_refused(tmp_path, name):
    sitk.WriteImage(sitk.JoinSeries([turned()]), str(tmp_path / name))
    assert_same(read_volume(tmp_path / name), turned())
    sitk.WriteImage(sitk.JoinSeries([turned(), turned()]), str(tmp_path / name))
    assert "time series" in refusal(tmp_path / name)


def test_a_sequence_of_one_frame_as_slicer_saves_it_is_a_volume(tmp_path):
    sizes = "sizes: 1 11 10 9\nspace directions: none (0.5,0,0) (0,0.75,0) (0,0,2)\nkinds: list domain domain domain\n"
    text = (
        f"NRRD0005\ntype: short\ndimension: 4\nspace: left-posterior-superior\n{sizes}endian: little\nencoding: raw\n\n"
    )
    (tmp_path / "a.seq.nrrd").write_bytes(text.encode() + sitk.GetArrayFromImage(noise()).tobytes())
    assert_same(read_volume(tmp_path / "a.seq.nrrd"), noise())


def test_a_wrong_check_sum_is_told(tmp_path):
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        sitk.WriteImage(noise(), str(tmp_path / name), True)
        content = bytearray((tmp_path / name).read_bytes())
        content[-6] ^= 1  # within the check sum of gzip; of zlib, within the last voxels or it
        (tmp_path / name).write_bytes(content)
        assert "cut off or damaged" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    "steps", ["", "spacings: nan nan nan\n", "spacings: 1 1 0\n", "spacings: 1 1 nan\n", "spacings: 1 1\n"]
)
def test_nrrd_without_a_voxel_size_is_refused(tmp_path, steps):
    text = f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 11 10 9\n{steps}endian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(text.encode() + sitk.GetArrayFromImage(noise()).tobytes())
    assert "does not say how large its voxels are" in refusal(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    "directions", ["(1,0,0) (0,1,0) (0,0,0)", "(1,0,0) (0,1,0) (0,0,nan)", "(nan,nan,nan) (0,1,0) (0,0,1)"]
)
def test_nrrd_with_directions_that_are_none_is_refused(tmp_path, directions):
    text = f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 11 10 9\nspace: LPS\nspace directions: {directions}\n"
    (tmp_path / "a.nrrd").write_bytes(
        f"{text}endian: little\nencoding: raw\n\n".encode() + sitk.GetArrayFromImage(noise()).tobytes()
    )
    assert "does not say how large its voxels are" in refusal(tmp_path / "a.nrrd")


def nrrd_file(path: Path, lines: str, more: bytes = b"") -> Path:
    text = f"NRRD0005\ntype: int16\ndimension: 3\nsizes: 11 10 9\n{lines}endian: little\nencoding: raw\n\n"
    path.write_bytes(text.encode() + sitk.GetArrayFromImage(noise()).tobytes() + more)
    return path


_DIRECTIONS = "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (_DIRECTIONS + "spacings: 1 1 2\n", "two voxel sizes, 1 x 1 x 2 and 1 x 1 x 1 mm"),
        (_DIRECTIONS + "spacings: 2 2 2\n", "two voxel sizes"),
        (_DIRECTIONS + 'space units: "mm" "mm" "cm"\n', "does not say how large its voxels are"),
        (_DIRECTIONS + 'space units: "in" "in" "in"\n', "does not say how large its voxels are"),
        ('spacings: 1 1 1\nunits: "m" "mm" "mm"\n', "does not say how large its voxels are"),
        ("spacings: 1 1 1\nspacings: 1 1 2\n", "states “spacings” twice"),
    ],
)
def test_nrrd_that_contradicts_itself_is_refused(tmp_path, lines, words):
    assert words in refusal(nrrd_file(tmp_path / "a.nrrd", lines))


def test_nrrd_that_says_the_same_twice_or_in_other_units_is_read(tmp_path):
    same = nrrd_file(tmp_path / "a.nrrd", _DIRECTIONS + "spacings: 1 1 1\nspacings: 1 1 1\n")
    assert read_volume(same).GetSpacing() == (1, 1, 1)
    notes = nrrd_file(tmp_path / "b.nrrd", _DIRECTIONS + "a:=1\na:=2\n# note: 1\n# note: 2\n")
    assert read_volume(notes).GetSpacing() == (1, 1, 1)
    units = nrrd_file(tmp_path / "c.nrrd", 'spacings: 0.1 0.2 0.3\nunits: "cm" "cm" "cm"\n')
    assert np.allclose(read_volume(units).GetSpacing(), (1, 2, 3))


def test_more_slices_than_the_header_counts_are_a_doubt(tmp_path):
    slice_bytes = 11 * 10 * 2
    assert codes(nrrd_file(tmp_path / "a.nrrd", _DIRECTIONS, b"\0" * (slice_bytes - 1))) == []
    path = nrrd_file(tmp_path / "b.nrrd", _DIRECTIONS, b"\0" * (3 * slice_bytes))
    (doubt,) = read_with_doubts(path)[1]
    assert (doubt.code, doubt.figures["slices"]) == ("file_longer", 3)


def metaimage(path: Path, lines: str) -> Path:
    text = (
        f"ObjectType = Image\nNDims = 3\n{lines}DimSize = 11 10 9\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(text.encode() + sitk.GetArrayFromImage(noise()).tobytes())
    return path


@pytest.mark.parametrize(
    "line", ["", "ElementSpacing = 1 1 0\n", "ElementSpacing = 1 1 nan\n", "ElementSpacing = 1 1\n"]
)
def test_metaimage_without_a_voxel_size_is_refused(tmp_path, line):
    assert "does not say how large its voxels are" in refusal(metaimage(tmp_path / "a.mha", line))


def test_metaimage_that_contradicts_itself_is_refused_and_its_units_count(tmp_path):
    twice = metaimage(tmp_path / "a.mha", "ElementSpacing = 1 1 1\nElementSpacing = 2 2 2\n")
    assert "states “elementspacing” twice" in refusal(twice)
    unknown = metaimage(tmp_path / "b.mha", "DistanceUnits = inch\nElementSpacing = 1 1 1\n")
    assert "does not say how large its voxels are" in refusal(unknown)
    centimetres = metaimage(tmp_path / "c.mha", "DistanceUnits = cm\nElementSpacing = 0.1 0.1 0.2\n")
    assert np.allclose(read_volume(centimetres).GetSpacing(), (1, 1, 2))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_nifti_without_a_voxel_size_is_refused(tmp_path, value):
    for codes_ in ((1, 0), (0, 0)):
        path = nifti_file(tmp_path / "a.nii", ("<f", 88, value), ("<2h", 252, *codes_))
        assert "does not say how large its voxels are" in refusal(path)


def test_a_file_without_any_orientation_is_read_with_a_doubt(tmp_path):
    path = nifti_file(tmp_path / "a.nii", ("<2h", 252, 0, 0))
    assert codes(path) == ["no_orientation"]
    assert np.allclose(read_volume(path).GetSpacing(), noise().GetSpacing())
    assert codes(metaimage(tmp_path / "a.mha", "ElementSpacing = 1 1 1\n")) == ["no_orientation"]
    text = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 11 10 9\nspacings: 1 1 1\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(text.encode() + sitk.GetArrayFromImage(noise()).tobytes())
    assert codes(tmp_path / "a.nrrd") == ["no_orientation"]


def matrix(*diagonal: float, shear: float = 0.0) -> tuple:
    """Change of a NIfTI header to a matrix in place of the quaternion."""
    a, b, c = diagonal
    return ("<12f", 280, a, -a * shear, 0, 0, 0, b, 0, 0, 0, 0, c, 0)


def test_two_voxel_sizes_in_one_file_are_refused(tmp_path):
    path = nifti_file(tmp_path / "a.nii", ("<2h", 252, 1, 1), matrix(-0.5, -0.75, 3.0))
    assert "states two voxel sizes, 0.5 x 0.75 x 2 and 0.5 x 0.75 x 3 mm" in refusal(path)


def test_two_orientations_in_one_file_are_refused_if_mirrored_and_doubted_if_turned_a_little(tmp_path):
    path = nifti_file(tmp_path / "a.nii", ("<2h", 252, 1, 1), matrix(0.5, -0.75, 2.0))
    assert "states two orientations (qform and sform)" in refusal(path)
    angle = np.radians(10)
    c, s = np.cos(angle), np.sin(angle)
    turn = ("<12f", 280, -0.5 * c, 0.75 * s, 0, 0, -0.5 * s, -0.75 * c, 0, 0, 0, 0, 2, 0)
    (doubt,) = read_with_doubts(nifti_file(tmp_path / "b.nii", ("<2h", 252, 1, 1), turn))[1]
    assert doubt.code == "two_orientations" and doubt.figures["degrees"] == pytest.approx(10, abs=0.1)
    assert codes(nifti_file(tmp_path / "c.nii", ("<2h", 252, 1, 1), matrix(-0.5, -0.75, 2.0))) == []


@pytest.mark.parametrize("shear", [1e-6, 1e-5, 1e-4, 5e-4, 9e-4])
def test_axes_that_are_at_right_angles_but_for_rounding_are_read(tmp_path, shear):
    path = nifti_file(tmp_path / "a.nii", ("<2h", 252, 0, 1), matrix(-0.5, -0.75, 2.0, shear=shear))
    image = read_volume(path)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    assert np.abs(direction.T @ direction - np.eye(3)).max() < 2e-6
    assert np.allclose(direction, np.eye(3), atol=2 * shear) and np.allclose(
        image.GetSpacing(), (0.5, 0.75, 2), rtol=1e-5
    )


def test_sheared_axes_are_refused_without_advice_to_switch_a_check_off(tmp_path):
    for shear in (5e-3, 0.1):
        message = refusal(nifti_file(tmp_path / "a.nii", ("<2h", 252, 0, 1), matrix(-0.5, -0.75, 2.0, shear=shear)))
        assert "not at right angles" in message and "ITK_" not in message and "environment" not in message


def test_a_decimal_comma_of_the_program_around_changes_no_number(tmp_path):
    """As in a program that calls setlocale: strtod then ends at the point of 0.7."""
    ctypes = pytest.importorskip("ctypes")
    import locale
    import subprocess

    folder = tmp_path / "locales"
    folder.mkdir()
    made = (
        subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")], capture_output=True, check=False
        )
        if os.name == "posix" and Path("/usr/share/i18n/locales/de_DE").exists()
        else None
    )
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        if made is not None:
            os.environ["LOCPATH"] = str(folder)
        try:
            locale.setlocale(locale.LC_NUMERIC, "de_DE.UTF-8")
        except locale.Error:
            pytest.skip("this computer has no German locale")
        strtod = ctypes.CDLL(None).strtod
        strtod.restype = ctypes.c_double
        assert strtod(b"0.7", None) == 0.0, "the locale is in force"
        image = noise()
        image.SetSpacing((0.7, 0.7, 1.25))
        for ending in WRITABLE:
            write_volume(image, tmp_path / f"a{ending}")
            assert np.allclose(read_volume(tmp_path / f"a{ending}").GetSpacing(), (0.7, 0.7, 1.25))
        write_series(image, tmp_path / "series", 1)
        assert np.allclose(read_volume(tmp_path / "series").GetSpacing(), (0.7, 0.7, 1.25))
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
        os.environ.pop("LOCPATH", None)


@pytest.mark.parametrize("folder", ["Ünïcødé 心臓", "a b", "𝔘"])
def test_folders_with_any_characters_are_read_from_and_written_to(tmp_path, folder):
    place = tmp_path / folder
    place.mkdir()
    for ending in WRITABLE:
        write_volume(noise(), place / f"Herz ♥{ending}")
        assert_same(read_volume(place / f"Herz ♥{ending}"), noise())
    write_series(noise(), tmp_path / "series", 1)
    (tmp_path / "series").rename(place / "Σειρά")
    assert_same(read_volume(place / "Σειρά"), noise())


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_not_utf_8_are_read_from_and_written_to(tmp_path):
    place = tmp_path / os.fsdecode(b"\xe9t\xe9")
    place.mkdir()
    for ending in WRITABLE:
        path = place / os.fsdecode(b"c\xe9ur" + ending.encode())
        write_volume(noise(), path)
        assert_same(read_volume(path), noise())
    write_series(noise(), tmp_path / "series", 1)
    (tmp_path / "series").rename(place / "series")
    assert_same(read_volume(place / "series"), noise())


def test_itk_is_given_no_path_of_a_volume_file(tmp_path, monkeypatch):
    """Its paths break where a user's name is outside the code page."""
    monkeypatch.setattr(sitk, "ReadImage", None)
    monkeypatch.setattr(sitk, "WriteImage", None)
    monkeypatch.setattr(sitk, "ImageFileReader", None)
    for ending in WRITABLE:
        write_volume(noise(), tmp_path / f"a{ending}")
        assert_same(read_volume(tmp_path / f"a{ending}"), noise())


def test_nothing_that_slicer_gets_has_itk_open_a_file_of_the_users():
    root = Path(__file__).resolve().parents[2]
    sources = [*(root / "MKDSegmentation").rglob("*.py"), *(root / "mkd_core").rglob("*.py")]
    callers = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.search(
                r"\b(ReadImage|WriteImage|ImageFileReader|ImageFileWriter|ImageSeriesReader)$", ast.unparse(node.func)
            ):
                callers.add(path.relative_to(root).as_posix())
    outside = {path for path in callers if path.startswith("mkd_core/training/")}  # of mkd_core, Slicer gets the rest
    # which writes a copy of its own, in a folder with a plain name
    assert callers - outside == {"mkd_core/io/dicom_pixels.py"}


def test_the_files_that_a_volume_is_read_from_are_known(tmp_path):
    sitk.WriteImage(noise(), str(tmp_path / "a.nhdr"))
    assert input_files(tmp_path / "a.nhdr") == [tmp_path / "a.nhdr", tmp_path / "a.raw"]
    sitk.WriteImage(noise(), str(tmp_path / "b.mhd"))
    assert input_files(tmp_path / "b.mhd") == [tmp_path / "b.mhd", tmp_path / "b.raw"]
    assert input_files(tmp_path) == [tmp_path] and input_files(tmp_path / "none") == [tmp_path / "none"]


def test_the_grid_of_a_file_is_known_without_its_voxels(tmp_path):
    write_volume(turned(), tmp_path / "a.nrrd", compress=False)
    grid = read_grid(tmp_path / "a.nrrd")
    assert grid.size == (11, 10, 9) and np.allclose(grid.spacing, (0.5, 0.75, 2))
    assert np.allclose(grid.direction.ravel(), turned().GetDirection()) and np.allclose(
        grid.origin, turned().GetOrigin()
    )


def test_our_nifti_headers_state_the_same_orientation_twice():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            direction = np.array(turned(1.1, axes, signs).GetDirection()).reshape(3, 3)
            content = nifti.header((3, 4, 5), np.dtype("u1"), np.array([1.0, 2, 3]), direction, np.array([4.0, 5, 6]))
            qfac = struct.unpack_from("<f", content, 76)[0]
            turn = nifti._rotation(np.array(struct.unpack_from("<3f", content, 256), float), qfac)
            rows = np.array(struct.unpack_from("<12f", content, 280)).reshape(3, 4)
            assert np.allclose(turn * [1, 2, 3], rows[:, :3], atol=1e-5)
            assert np.allclose(turn * [[-1], [-1], [1]], direction, atol=1e-5)
