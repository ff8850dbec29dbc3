"""DICOM files in folders and archives: which are images, and what their headers say of every slice.

Nothing of an archive is written to the disk, so a name in it can lead nowhere, and no more of it is unpacked than is
looked at.  Of every file only the header is read, and of that only the tags named here.

pydicom is imported by the first call; the package's extra ``archive`` brings it, and 3D Slicer has it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, Any

import numpy as np

from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Finding

#: Name of the file that lists all files beside and below it (PS3.10, 8.6).
DICOMDIR = "DICOMDIR"

#: Classes of DICOM objects that are images of a scanner (DICOM PS3.4, B.5), after this prefix.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_IMAGES = ("1", "1.1", "2", "2.1", "2.2", "4", "4.1", "4.4", "7", "7.2", "7.3", "20", "128", "128.1", "130")

#: What other objects in an export are, by the beginning of their class.
_OBJECTS = {
    "1.2.840.10008.1.3.10": "dicom_directory",
    _STORAGE + "104.1": "dicom_pdf",
    _STORAGE + "66.": "dicom_segmentation",
    _STORAGE + "88.": "dicom_report",
    _STORAGE + "11.": "dicom_presentation",
}

#: Tags that are read of every file.
_TAGS = (
    "AcquisitionNumber",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "DiffusionBValue",
    "EchoTime",
    "FrameOfReferenceUID",
    "ImageComments",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "Modality",
    "NominalPercentageOfCardiacPhase",
    "NumberOfFrames",
    "PatientID",
    "PatientName",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ProtocolName",
    "Rows",
    "Columns",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
    "StudyDate",
    "StudyInstanceUID",
    "TemporalPositionIdentifier",
    "TriggerTime",
)

#: By what the images of one place differ, in this order: phase of the heart, time, echo, and how they were made.
SPLITTING_TAGS = (
    "NominalPercentageOfCardiacPhase",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "EchoTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "ConvolutionKernel",
    "ImageType",
)

#: Most files of an archive; most bytes of one of them; how many times larger than itself an archive may become beyond
#: the first gigabyte.
_MOST_MEMBERS, _MOST_MEMBER_BYTES, _MOST_UNPACKED, _FREE_BYTES = 2_000_000, 8 << 30, 200, 1 << 30

#: Ends of names of files that should be DICOM.
_SUFFIXES = (".dcm", ".dicom", ".ima")

#: What opening and unpacking a damaged archive raises, beside KeyError for a file that is not in it.
UNPACKING_ERRORS = (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)

#: Bytes at the start of a file in an archive in which its header usually ends.
_USUAL_HEADER_BYTES = 1 << 17


@dataclass(frozen=True)
class FileReference:
    """A file in a folder, or one in an archive."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """Name without folders."""
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def folder(self) -> str:
        """What files side by side have in common."""
        return f"{self.path}!/{PurePosixPath(self.member).parent}" if self.member else str(self.path.parent)

    def __str__(self) -> str:
        return f"{self.path}!/{self.member}" if self.member else str(self.path)


@dataclass(frozen=True)
class Frame:
    """One slice: an image file, or a frame of a multi-frame file.

    Attributes:
        file: where it is.
        number: of the frame, from 0; None where the file is one image.
        size: columns and rows.
        position: (3,) of its first voxel, LPS mm; None where the file does not state it, as below.
        directions: (2, 3) of rows and columns.
        spacing: (2,) distances of its rows and columns, mm.
        values: what it says of :data:`SPLITTING_TAGS`.
    """

    file: FileReference
    number: int | None
    size: tuple[int, int]
    position: np.ndarray | None
    directions: np.ndarray | None
    spacing: np.ndarray | None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def geometry(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position, directions and spacing of a frame that states them all."""
        assert self.position is not None and self.directions is not None and self.spacing is not None
        return self.position, self.directions, self.spacing


@dataclass(frozen=True)
class Header:
    """What is known of an image file: some of its tags as texts, and its slices."""

    file: FileReference
    texts: Mapping[str, str]
    frames: tuple[Frame, ...]

    def text(self, name: str) -> str:
        """A tag as one text without spaces around, several values with a backslash between; empty where it is
        missing.
        """
        return self.texts.get(name, "")


@dataclass(frozen=True)
class Aside:
    """A file that is no image, and why; a damaged image names its series where it still says so."""

    file: FileReference
    finding: Finding
    series: str = ""
    is_damaged_image: bool = False


def require_pydicom() -> ModuleType:
    """pydicom.

    Raises:
        InputError: it is missing, with the command that installs it.
    """
    try:
        import pydicom
    except ImportError as error:
        raise refusal(finding("dicom_needs_extra", package="pydicom")) from error
    return pydicom


class Opener:
    """Opens files of folders and archives; an archive's list of files is read once.  To be used by ``with``."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._archives: dict[Path, zipfile.ZipFile] = {}

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def archive(self, path: Path) -> zipfile.ZipFile:
        """An archive.

        Raises:
            one of :data:`UNPACKING_ERRORS`: it cannot be read.
        """
        if path not in self._archives:
            self._archives[path] = self._stack.enter_context(zipfile.ZipFile(path))
        return self._archives[path]

    @contextlib.contextmanager
    def open(self, file: FileReference, first: int | None = None) -> Iterator[IO[bytes]]:
        """A file, or at least its ``first`` bytes.

        Raises:
            one of :data:`UNPACKING_ERRORS`: it cannot be read.
        """
        if not file.member:
            with file.path.open("rb") as stream:
                yield stream
            return
        with self.archive(file.path).open(file.member) as packed:
            yield io.BytesIO(packed.read(_MOST_MEMBER_BYTES if first is None else first))


def files_in(paths: Iterable[Path | str | FileReference], opener: Opener) -> Iterator[FileReference | Aside]:
    """All files in folders, in those below, and in archives, in a fixed order; those that need no look set aside.

    A file that is given as a reference comes from a listing, and may have gone since.

    Raises:
        InputError: a path is missing, or a folder cannot be read.
    """
    for given in paths:
        if isinstance(given, FileReference):
            yield from _file_or_archive(given.path, opener)
            continue
        path = Path(given)
        if path.is_dir():
            yield from _files_below(path, opener)
        elif path.name.upper() == DICOMDIR:
            yield from _files_below(path.parent, opener)
        elif path.is_file():
            yield from _file_or_archive(path, opener)
        else:
            raise refusal(finding("file_missing", file=str(path)))


def _files_below(folder: Path, opener: Opener) -> Iterator[FileReference | Aside]:
    def cannot(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=cannot):
        hidden = [name for name in folders if _is_hidden(name)]
        folders[:] = sorted(name for name in folders if name not in hidden)
        for name in sorted(hidden):
            yield Aside(FileReference(Path(parent, name)), finding("dicom_hidden"))
        for name in sorted(names):
            path = Path(parent, name)
            if _is_hidden(name):
                yield Aside(FileReference(path), finding("dicom_hidden"))
            else:
                yield from _file_or_archive(path, opener)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _file_or_archive(path: Path, opener: Opener) -> Iterator[FileReference | Aside]:
    if path.suffix.lower() != ".zip":
        yield FileReference(path)
        return
    try:
        members = opener.archive(path).infolist()
    except UNPACKING_ERRORS:
        yield Aside(FileReference(path), finding("dicom_archive_damaged"))
        return
    unpacked = sum(member.file_size for member in members)
    is_bomb = unpacked > _FREE_BYTES and unpacked > _MOST_UNPACKED * max(1, path.stat().st_size)
    if is_bomb or len(members) > _MOST_MEMBERS:
        yield Aside(FileReference(path), finding("dicom_archive_bomb"))
        return
    for member in sorted(members, key=lambda member: member.filename):
        file = FileReference(path, member.filename)
        parts = PurePosixPath(member.filename).parts
        if member.is_dir():
            continue
        if any(_is_hidden(part) and part != ".." and part != "." for part in parts):
            yield Aside(file, finding("dicom_hidden"))
        elif member.flag_bits & 1:
            yield Aside(file, finding("dicom_encrypted"))
        elif member.file_size > _MOST_MEMBER_BYTES:
            yield Aside(file, finding("dicom_archive_bomb"))
        elif file.name.lower().endswith(".zip"):
            yield Aside(file, finding("dicom_archive_within"))
        else:
            yield file


def read_header(file: FileReference, opener: Opener) -> Header | Aside:
    """The header of a file, or why it is no image.

    Raises:
        InputError: pydicom is missing.
    """
    pydicom = require_pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read_header(pydicom, file, opener)
    except Exception:  # pydicom raises what it likes on bytes that are damaged
        return Aside(file, finding("dicom_damaged"), is_damaged_image=True)


def _read_header(pydicom: ModuleType, file: FileReference, opener: Opener) -> Header | Aside:
    if file.name.upper() == DICOMDIR:
        return Aside(file, finding("dicom_directory"))
    if not file.member and not file.path.is_file():  # a pipe would never come to its end
        if file.path.exists():
            return Aside(file, finding("dicom_not_dicom"))
        return Aside(file, finding("dicom_gone"), is_damaged_image=file.path.suffix.lower() in ("", *_SUFFIXES))
    first = _USUAL_HEADER_BYTES if file.member else None
    with opener.open(file, first) as stream:
        start = stream.read(2048)
        if not (start[128:132] == b"DICM" or _looks_like_a_dataset(start)):
            suffix = PurePosixPath(file.name).suffix.lower()
            if suffix in _SUFFIXES or not (start or suffix):  # a slice that was to be copied and was not
                return Aside(file, finding("dicom_damaged"), is_damaged_image=True)
            return Aside(file, finding("dicom_pdf" if start.startswith(b"%PDF") else "dicom_not_dicom"))
        tags, is_whole = _read_tags(pydicom, stream)
    if not is_whole and first is not None:
        with opener.open(file) as stream:
            tags, is_whole = _read_tags(pydicom, stream)
    kind = str(tags.get("SOPClassUID") or tags.file_meta.get("MediaStorageSOPClassUID") or "")
    for beginning, code in _OBJECTS.items():
        if kind.startswith(beginning):
            return Aside(file, finding(code))
    if kind and kind.removeprefix(_STORAGE) not in _IMAGES:
        return Aside(file, finding("dicom_other_object"))
    series = _text(tags.get("SeriesInstanceUID"))
    if not (is_whole and kind and series and "Rows" in tags and "Columns" in tags):
        return Aside(file, finding("dicom_damaged"), series, is_damaged_image=True)
    texts = {name: _text(tags.get(name)) for name in _TAGS if not name.endswith("GroupsSequence")}
    return Header(file, texts, frames_of(file, tags))


def _text(value: Any) -> str:
    parts = [value] if value is None or isinstance(value, str) or not hasattr(value, "__iter__") else value
    return "\\".join("" if part is None else str(part) for part in parts).strip().strip("\0")


def _looks_like_a_dataset(start: bytes) -> bool:
    """Whether a file without preamble begins with the group 0008, as old exports do."""
    return re.match(rb"\x08\0[\0-\x18]\0(UI|CS|DA|UL|..\0\0)", start, re.DOTALL) is not None


def _read_tags(pydicom: ModuleType, stream: IO[bytes]) -> tuple[Any, bool]:
    """The tags of a file, and whether they are followed by its pixels."""
    stream.seek(0)
    reached = False

    def stop(tag: int, vr: object, length: int) -> bool:
        nonlocal reached
        reached = reached or tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)
        return reached

    tags = pydicom.filereader.read_partial(stream, stop, specific_tags=_tag_list(), force=True)
    return tags, reached


@functools.cache
def _tag_list() -> list[Any]:
    from pydicom.datadict import tag_for_keyword

    return [tag_for_keyword(name) for name in _TAGS]


def frames_of(file: FileReference, tags: Any) -> tuple[Frame, ...]:
    """The slices of an image file by its tags, those of a functional group first."""
    size = (int(tags.Columns), int(tags.Rows))
    if "PerFrameFunctionalGroupsSequence" not in tags:
        count = int(tags.get("NumberOfFrames") or 1)
        values = {name: _plain(tags.get(name)) for name in SPLITTING_TAGS}
        if count == 1:
            spacing = _numbers(tags.get("PixelSpacing"), 2)
            directions = _numbers(tags.get("ImageOrientationPatient"), 6)
            position = _numbers(tags.get("ImagePositionPatient"), 3)
            return (Frame(file, None, size, position, _pair(directions), spacing, values),)
        return tuple(Frame(file, number, size, None, None, None, values) for number in range(count))
    shared = (tags.get("SharedFunctionalGroupsSequence") or [{}])[0]
    frames = []
    for number, own in enumerate(tags.PerFrameFunctionalGroupsSequence):
        group = functools.partial(_group, own, shared)
        measures, cardiac, content = (
            group("PixelMeasuresSequence"),
            group("CardiacSynchronizationSequence"),
            group("FrameContentSequence"),
        )
        frame_type = group("CTImageFrameTypeSequence") or group("MRImageFrameTypeSequence")
        values = {
            "NominalPercentageOfCardiacPhase": _plain(cardiac.get("NominalPercentageOfCardiacPhase")),
            "TemporalPositionIdentifier": _plain(content.get("TemporalPositionIndex")),
            "TriggerTime": _plain(cardiac.get("NominalCardiacTriggerDelayTime")),
            "EchoTime": _plain(group("MREchoSequence").get("EffectiveEchoTime")),
            "DiffusionBValue": _plain(group("MRDiffusionSequence").get("DiffusionBValue")),
            "AcquisitionNumber": _plain(content.get("FrameAcquisitionNumber")),
            "ConvolutionKernel": _plain(group("CTReconstructionSequence").get("ConvolutionKernel")),
            "ImageType": _plain(frame_type.get("FrameType")) or _plain(tags.get("ImageType")),
        }
        frames.append(
            Frame(
                file,
                number,
                size,
                _numbers(group("PlanePositionSequence").get("ImagePositionPatient"), 3),
                _pair(_numbers(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6)),
                _numbers(measures.get("PixelSpacing"), 2),
                values,
            )
        )
    return tuple(frames)


def _group(own: Any, shared: Any, name: str) -> Any:
    """A functional group of a frame: its own, or the one that all share."""
    for groups in (own, shared):
        if sequence := groups.get(name):
            return sequence[0]
    return {}


def functional_group(tags: Any, number: int, name: str) -> Any:
    """A functional group of a frame of a multi-frame file, empty where there is none."""
    shared = (tags.get("SharedFunctionalGroupsSequence") or [{}])[0]
    return _group(tags.PerFrameFunctionalGroupsSequence[number], shared, name)


def _numbers(value: Any, count: int) -> np.ndarray | None:
    try:
        numbers = np.array([float(part) for part in value])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _pair(directions: np.ndarray | None) -> np.ndarray | None:
    return None if directions is None else directions.reshape(2, 3)


def _plain(value: Any) -> str | float | None:
    """A tag as a number or a text that can be compared."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return "\\".join(map(str, value))
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def read_all(
    paths: Iterable[Path | str | FileReference], progress: Callable[[int], object] | None = None
) -> tuple[list[Header], list[Aside]]:
    """The headers of all images in folders, archives and files, and what else there is.

    Args:
        paths: folders, ``.zip`` archives and files, as :func:`files_in` takes them.
        progress: called with the number of files looked at so far.

    Raises:
        InputError: a path is missing or cannot be read, or pydicom is missing.
    """
    require_pydicom()
    headers: list[Header] = []
    aside: list[Aside] = []
    with Opener() as opener:
        try:
            for count, file in enumerate(files_in(paths, opener), start=1):
                entry = read_header(file, opener) if isinstance(file, FileReference) else file
                if isinstance(entry, Header):
                    headers.append(entry)
                else:
                    aside.append(entry)
                if progress is not None:
                    progress(count)
        except OSError as error:
            name = str(error.filename or "")
            raise refusal(finding("file_unreadable", file=name, reason=error.strerror or str(error))) from error
    return headers, aside
