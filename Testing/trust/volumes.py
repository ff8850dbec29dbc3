"""Bad volumes: each is given to ``mkd segment`` and must be refused in plain words, in two seconds, with nothing left
behind.
"""

from __future__ import annotations

import gzip
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io.bundle import default_bundle_path, load_bundle
from mkd_core.io.volumes import read_volume
from Testing.support.dicom_series import write_series
from Testing.support.known_heart import BODY, known_volume
from Testing.trust.outcome import Outcome
from Testing.trust.refusing import MOST_MEMORY, command_refuses, peak_memory

_GROUP = "bad volumes"

#: Every way in which ITK and 3D Slicer write a volume: name of the file, whether compressed, name of the file with the
#: voxels.
STORED = [
    ("ct.nii", False, "ct.nii"),
    ("ct.nii.gz", True, "ct.nii.gz"),
    ("ct.nrrd", False, "ct.nrrd"),
    ("packed.nrrd", True, "packed.nrrd"),
    ("ct.nhdr", False, "ct.raw"),
    ("packed.nhdr", True, "packed.raw.gz"),
    ("ct.mha", False, "ct.mha"),
    ("packed.mha", True, "packed.mha"),
    ("ct.mhd", False, "ct.raw"),
    ("packed.mhd", True, "packed.zraw"),
]


@dataclass(frozen=True)
class BadVolume:
    """A volume that must be refused.

    Attributes:
        name: what is wrong with it.
        expected: words of the refusal.
        make: writes it into a folder and returns its path.
        modality: what it is said to be.
    """

    name: str
    expected: str
    make: Callable[[Path], Path]
    modality: str = "CT"


def ct(size: tuple[int, int, int] = (44, 36, 40), spacing: tuple[float, float, float] = (5, 5, 5)) -> sitk.Image:
    """The known CT."""
    return known_volume(size, spacing)[0]


def _written(image: sitk.Image, folder: Path, name: str = "volume.nrrd") -> Path:
    sitk.WriteImage(image, str(folder / name))
    return folder / name


def _changed(change: Callable[[sitk.Image], sitk.Image | None], name: str = "volume.nrrd") -> Callable[[Path], Path]:
    """Writes the known CT after a change, which happens in place or gives another image."""

    def make(folder: Path) -> Path:
        image = ct()
        return _written(change(image) or image, folder, name)

    return make


def _mostly(value: float) -> Callable[[sitk.Image], sitk.Image]:
    def change(image: sitk.Image) -> sitk.Image:
        voxels = sitk.GetArrayFromImage(image).astype(np.float32)
        voxels[:-2] = value
        result = sitk.GetImageFromArray(voxels)
        result.CopyInformation(image)
        return result

    return change


def _without_voxel_size() -> bytes:
    header = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 20 20 20\nendian: little\nencoding: raw\n\n"
    return header.encode() + _air_and_bone()


def _content(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _nrrd(sizes: str, encoding: str = "raw", data: bytes = b"", directions: str = "(1,0,0) (0,1,0) (0,0,1)") -> bytes:
    header = (
        f"NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\nspace directions: "
        f"{directions}\n"
        f"endian: little\nencoding: {encoding}\n\n"
    )
    return header.encode() + data


def _huge_nifti(folder: Path, name: str) -> Path:
    path = _written(ct(), folder, "small.nii")
    header = bytearray(path.read_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 2000, 2000, 2000, 1, 1, 1, 1)
    path.unlink()
    (folder / name).write_bytes(gzip.compress(header) if name.endswith(".gz") else header)
    return folder / name


def _air_and_bone() -> bytes:
    return np.random.default_rng(0).choice([-1000, 800], 8000).astype("<i2").tobytes()


def _shifted(folder: Path) -> Path:
    voxels = sitk.GetArrayFromImage(ct())
    voxels[np.abs(voxels - BODY) <= 3] = 20  # with its grain
    image = sitk.GetImageFromArray(voxels + np.int16(1024))
    image.CopyInformation(ct())
    return _written(image, folder)


def _mr(folder: Path) -> Path:
    image = sitk.Cast(ct(), sitk.sitkFloat32)
    noise = np.random.default_rng(0).normal(0, 12, sitk.GetArrayViewFromImage(image).shape)
    voxels = np.abs((sitk.GetArrayFromImage(image) + 1000) * 0.3 + noise)
    result = sitk.GetImageFromArray(voxels.astype(np.int16))
    result.CopyInformation(image)
    return _written(result, folder)


def _noise(folder: Path) -> Path:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 200, (40, 40, 40)).astype(np.int16))
    image.SetSpacing((4, 4, 4))
    return _written(image, folder)


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.nrrd")
    return folder / "pipe.nrrd"


def _named_by_nobody(folder: Path) -> Path:
    path = _written(ct(), folder, "ct.nhdr")
    (folder / "ct.raw").unlink()
    return path


def _half_of_a_pair(folder: Path) -> Path:
    return _written(ct(), folder, "volume.hdr")


def _series(
    spoil: Callable[[Path], None] = lambda folder: None, image: sitk.Image | None = None, **how
) -> Callable[[Path], Path]:
    """Writes a DICOM series and spoils the folder."""

    def make(folder: Path) -> Path:
        series = folder / "series"
        write_series(image or ct(), series, 1, **how)
        spoil(series)
        return series

    return make


def _remove(*slices: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for number in slices:
            (folder / f"1_{number:03d}.dcm").unlink()

    return spoil


def _cut_slice(folder: Path) -> None:
    path = folder / "1_017.dcm"
    path.write_bytes(path.read_bytes()[:-1500])


def _one_slice_of_another_size(folder: Path) -> None:
    path = folder / "1_039.dcm"
    other = folder.parent / "other"
    write_series(ct((40, 30, 40)), other, 1)
    path.write_bytes((other / path.name).read_bytes())


def _without_position(folder: Path) -> None:
    """Give the tag Image Position (Patient) of each file another number."""
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x31\x00"))


def _single_slice(folder: Path) -> Path:
    return _series()(folder) / "1_000.dcm"


BAD = [
    BadVolume("nearly all voxels are NaN", "NaN (not a number)", _changed(_mostly(float("nan")))),
    BadVolume("nearly all voxels are infinite", "infinite", _changed(_mostly(float("inf")))),
    BadVolume("the same in a NIfTI file", "NaN (not a number)", _changed(_mostly(float("nan")), "volume.nii.gz")),
    BadVolume("no voxel size", "how large its voxels are", _content("v.nrrd", _without_voxel_size())),
    BadVolume("all voxels alike", "the same value", _changed(lambda image: image * 0 + 40)),
    BadVolume("a single slice", "2 dimensions", _changed(lambda image: image[:, :, 20])),
    BadVolume("three slices", "44 x 36 x 3 voxels", _changed(lambda image: image[:, :, 18:21])),
    BadVolume("three voxels", "3 x 1 x 1 voxels", _changed(lambda image: image[18:21, 20:21, 20:21])),
    BadVolume(
        "colours (RGB)",
        "colours or vectors",
        _changed(lambda image: sitk.Compose(*[sitk.Cast(image, sitk.sitkUInt8)] * 3)),
    ),
    BadVolume("a time series", "time series", _changed(lambda image: sitk.JoinSeries([image, image]))),
    BadVolume(
        "a time series of vectors",
        "time series",
        _changed(lambda image: sitk.JoinSeries([sitk.Compose(image, image)] * 2), "volume.mha"),
    ),
    BadVolume(
        "complex numbers",
        "complex numbers",
        _changed(lambda image: sitk.Cast(image, sitk.sitkComplexFloat32), "volume.nii"),
    ),
    BadVolume("a label map", "label map", lambda folder: _written(known_volume((44, 36, 40), (5, 5, 5))[1], folder)),
    BadVolume(
        "a label map said to be an MR",
        "label map",
        lambda folder: _written(known_volume((44, 36, 40), (5, 5, 5))[1], folder),
        "MR",
    ),
    BadVolume("values shifted by 1024", "water lies near 1000", _shifted),
    BadVolume(
        "unsigned, rescaling forgotten", "Hounsfield", _changed(lambda image: sitk.Cast(image + 1024, sitk.sitkUInt16))
    ),
    BadVolume(
        "values divided by 1000",
        "as bright as soft tissue",
        _changed(lambda image: sitk.Cast(image, sitk.sitkFloat32) / 1000),
    ),
    BadVolume("an MR said to be a CT", "Choose the modality MR", _mr),
    BadVolume("noise", "No heart was found", _noise),
    BadVolume("voxels of 0.005 mm", "cannot be right", _changed(lambda image: image.SetSpacing((0.005, 0.005, 0.005)))),
    BadVolume("slices 100 mm apart", "cannot be right", _changed(lambda image: image.SetSpacing((5, 5, 100)))),
    BadVolume(
        "a field of view of more than a cubic metre",
        "larger than a person",
        _changed(lambda image: image.SetSpacing((29, 29, 29)), "volume.mha"),
    ),
    BadVolume(
        "sheared axes",
        "not at right angles",
        _content("v.nrrd", _nrrd("20 20 20", data=_air_and_bone(), directions="(1,0,0) (0.3,1,0) (0,0,1)")),
    ),
    BadVolume("no voxels", "cannot be read as a volume", _content("v.nrrd", _nrrd("0 20 20"))),
    BadVolume(
        "2000 x 2000 x 2000 voxels claimed, none there (NRRD)", "cut off", _content("v.nrrd", _nrrd("2000 2000 2000"))
    ),
    BadVolume(
        "the same, compressed",
        "cut off",
        _content("v.nrrd", _nrrd("2000 2000 2000", "gzip", gzip.compress(bytes(100)))),
    ),
    BadVolume("the same in NIfTI", "cut off", lambda folder: _huge_nifti(folder, "v.nii")),
    BadVolume("the same in compressed NIfTI", "cut off", lambda folder: _huge_nifti(folder, "v.nii.gz")),
    BadVolume(
        "the same in MetaImage",
        "cut off",
        _content(
            "v.mha",
            b"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
            b"DimSize = 2000 2000 2000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
        ),
    ),
    BadVolume(
        "a negative size (MetaImage)",
        "cut off",
        _content(
            "v.mha",
            b"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = -20 20 20\n"
            b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n",
        ),
    ),
    BadVolume("voxels written as text", "unusual way", _content("v.nrrd", _nrrd("2 2 2", "text", b"1 2 3 4 5 6 7 8"))),
    BadVolume("a header without its file of voxels", "is missing", _named_by_nobody),
    BadVolume("one half of a pair (Analyze)", "one half of a pair", _half_of_a_pair),
    BadVolume("an empty file", "is empty", _content("v.nii.gz", b"")),
    BadVolume("a text file", "cannot be read as a volume", _content("v.nrrd", b"hello")),
    BadVolume(
        "a picture",
        "cannot be read as a volume",
        lambda folder: _written(sitk.Image((20, 20), sitk.sitkUInt8), folder, "v.png"),
    ),
    BadVolume("no such file", "There is no file", lambda folder: folder / "none.nrrd"),
    BadVolume("a name that is too long", "cannot be read", lambda folder: folder / ("n" * 300)),
    BadVolume("a pipe that nobody writes to", "is not a file", _pipe),
    BadVolume("a folder without DICOM", "holds no DICOM series", lambda folder: _named_by_nobody(folder).parent),
    BadVolume("a single DICOM file", "single DICOM file", _single_slice),
    BadVolume(
        "a DICOM series without slices in its middle",
        "Slices are missing in “series”, about 3",
        _series(_remove(12, 13, 25)),
    ),
    BadVolume("a slice of the series that is cut off", "“1_017.dcm” is cut off", _series(_cut_slice)),
    BadVolume("slices further aside than a gantry tilts", "some lie", _series(shift_per_mm=1.2)),
    BadVolume("uneven slices", "uneven distances", _series(uneven_mm=1.5)),
    BadVolume("a DICOM series that is neither CT nor MR", "neither CT nor MR", _series(modality="PT")),
    BadVolume(
        "two phases of a beating heart in a series",
        "at the same place",
        _series(lambda folder: write_series(ct(), folder, 2, series=1)),
    ),
    BadVolume(
        "a slice of another size in a series", "differ in size or direction", _series(_one_slice_of_another_size)
    ),
    BadVolume("slices that do not say where they lie", "does not say where", _series(_without_position)),
]


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """Everything bad that a user can choose as a volume."""
    load_bundle(default_bundle_path())  # what PyTorch and the weights take is no cost of a refusal
    for bad in BAD:
        yield _refusal(bad)
    yield _output_over_input()
    for name, is_compressed, data in STORED:
        yield _cut_off(name, is_compressed, data, 3 if quick else 40)
        yield _damaged(name, is_compressed, data, 20 if quick else 300)


def _refusal(bad: BadVolume) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        target.mkdir()
        (target / "heart.nii.gz").write_bytes(b"an earlier result")
        arguments = [
            "segment",
            str(bad.make(source)),
            str(target / "heart.nii.gz"),
            "--report",
            str(target / "report.json"),
            "--modality",
            bad.modality,
            "--threads",
            "1",
            "--overwrite",
        ]
        message, note = command_refuses(arguments, bad.expected, target)
    return Outcome(_GROUP, bad.name, not note, message=message.replace(folder, "…"), note=note)


def _output_over_input() -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        path = _written(ct(), Path(folder))
        message, note = command_refuses(["segment", str(path), str(path)], "is the volume itself", Path(folder))
    return Outcome(_GROUP, "the volume itself as output", not note, message=message.replace(folder, "…"), note=note)


def _cut_off(name: str, is_compressed: bool, data: str, count: int) -> Outcome:
    """The file without its end, for many lengths of it; every one must be refused."""
    note, message = "", ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        sitk.WriteImage(ct(), str(path), is_compressed)
        whole = Path(folder, data).read_bytes()
        for length in np.linspace(0, len(whole) - 1, count).astype(int):
            Path(folder, data).write_bytes(whole[:length])
            try:
                read_volume(path)
                note = note or f"read, though only {length} of {len(whole)} bytes were there"
            except InputError as error:
                message = str(error)
    return Outcome(
        _GROUP, f"cut off: {name} with {data}" if data != name else f"cut off: {name}", not note, count, message, note
    )


def _damaged(name: str, is_compressed: bool, data: str, count: int) -> Outcome:
    """Wrong bytes in the header or among the voxels.

    Nothing must crash or take memory; compressed voxels must be refused or read as they were.
    """
    generator = np.random.default_rng(0)
    note, memory = "", peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        sitk.WriteImage(ct(), str(path), is_compressed)
        known = sitk.GetArrayFromImage(ct())
        header, voxels = path.read_bytes(), Path(folder, data).read_bytes()
        start = _voxels_begin(voxels) if data == name else 0
        for number in range(count):
            in_voxels = number % 2 == 0
            spoilt = bytearray(voxels if in_voxels else header)
            for at in generator.integers(
                start if in_voxels else 0,
                len(spoilt) if in_voxels else start or len(spoilt) or 1,
                generator.integers(1, 4),
            ):
                spoilt[at] = generator.integers(256)
            path.write_bytes(header)
            (Path(folder, data) if in_voxels else path).write_bytes(spoilt)
            try:
                read = read_volume(path)
            except InputError:
                continue
            if in_voxels and is_compressed and not np.array_equal(sitk.GetArrayViewFromImage(read), known):
                note = note or "read with other voxels"
    grown = peak_memory() - memory
    if grown > MOST_MEMORY:
        note = f"{grown >> 20} MiB more memory"
    return Outcome(_GROUP, f"wrong bytes: {name}", not note, count, note=note)


def _voxels_begin(content: bytes) -> int:
    """Where the voxels of a file with header and voxels begin; 0 where all of it is compressed."""
    for separator in (b"\n\n", b"LOCAL\n"):
        if content.startswith((b"NRRD", b"ObjectType")) and separator in content:
            return content.index(separator) + len(separator)
    return 0 if content.startswith(b"\x1f\x8b") else 352
