"""DICOM series as volumes: which there are, which one to segment, and whether its slices make a volume.

Libraries stack whatever slices they are given: missing ones shift all that follow, those of a tilted gantry are put
straight above each other, and where a file does not state its voxel size a default takes its place.  So the place of
every slice is read from its tags, and what does not fit is refused.

Example:
    >>> found = index(["export"])                                                   # doctest: +SKIP
    >>> chosen = choose(found.series, modality="CT")                                # doctest: +SKIP
    >>> image, findings = read(chosen.series)                                       # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import SimpleITK as sitk

from mkd_core.io import dicom_pixels
from mkd_core.io.dicom_files import (
    SPLITTING_TAGS,
    Aside,
    FileReference,
    Frame,
    Header,
    Opener,
    frames_of,
    read_all,
)
from mkd_core.io.integrity import check_memory, orthonormalised
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.patient import phase_percent
from mkd_core.protocol import MIN_SIDE, MODALITIES, MODALITY_TAG, Finding

#: Slices have the same voxel size if it differs by no more than this, as a share.
_SAME_SIZE = 1e-3

#: Slices lie in parallel if their directions differ by no more than this.
_SAME_DIRECTION = 1e-3

#: Images whose directions differ by more than this are a scout of another direction, not a slice that went wrong.
_OTHER_DIRECTION = 0.1

#: Slices lie at even distances if none is further from its place than this, in distances.
_UNEVEN = 0.1

#: Slices nearer than this lie at the same place, mm.
_SAME_PLACE = 0.01

#: Slices lie straight above each other if none is further aside than this, in mm and as a share of the height of the
#: stack.
_ASIDE_MM, _ASIDE_SHARE = 0.05, 2e-3

#: A gantry is tilted by less than this; slices further aside are none of one volume, degrees.
_MOST_TILT = 45.0

#: What one volume has one value of.  Where slices with several values lie between each other, they are of several
#: volumes; where they lie one after the other, they are slabs of one.
_ONE_VALUE = ("NominalPercentageOfCardiacPhase", "EchoTime", "DiffusionBValue", "ConvolutionKernel")

#: Numbers of these tags are the same value if they differ by no more than this, as a share.
_SAME_VALUE = 0.04

#: A heart is at least this high, mm.
_LEAST_HEIGHT = 80.0

#: The phase of the heart's cycle that is preferred, in percent of the cycle: in mid-diastole it moves least.
_BEST_PHASE = 75.0

#: Photometric interpretations of intensities; others are colours, a palette's numbers among them.
_PLAIN = ("", "MONOCHROME1", "MONOCHROME2")

#: Words for the parts of the body that a heart is in.
_HEART_WORDS = ("HEART", "CARD", "CORON", "CHEST", "THORA", "AORTA")


@dataclass(frozen=True)
class Series:
    """One volume: a DICOM series or, where a series holds several, such as the phases of a beat, one of them.

    Attributes:
        uid: Series Instance UID.
        part: number of the volume within the series, from 1.
        parts: how many volumes the series holds.
        study: Study Instance UID.
        patient: Patient ID, and the name where there is none.
        frame_of_reference: Frame of Reference UID; may be empty.
        modality: as the files say it: "CT", "MR", "PT" and so on.
        body_part: as the files say it, in capitals; may be empty.
        description: Series Description; may be empty.
        number: Series Number; None where there is none.
        date: Study Date, YYYYMMDD; may be empty.
        is_original: made by the scanner from its measurements, and not from other images.
        has_contrast: a contrast agent is named.
        phase: percent of the heart's cycle; None where it is not stated.
        size: voxels along x, y and z.
        spacing: mm along x, y and z; None where it is not stated.
        problem: why it cannot be segmented; None if it can, as far as headers tell.
        frames: its slices in order: file and number of the frame (None where the file is one image).
        server: address of the DICOMweb server that it lies on; empty for files.
    """

    uid: str
    part: int
    parts: int
    study: str
    patient: str
    frame_of_reference: str
    modality: str
    body_part: str
    description: str
    number: int | None
    date: str
    is_original: bool
    has_contrast: bool
    phase: float | None
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    problem: Finding | None
    frames: tuple[tuple[FileReference, int | None], ...]
    server: str = ""

    @property
    def key(self) -> str:
        """What tells it apart from all others: its UID, and the number of the volume where the series holds several."""
        return self.uid if self.parts == 1 else f"{self.uid}:{self.part}"

    @property
    def title(self) -> str:
        """A name for people."""
        name = self.description or self.modality or self.uid
        part = f", {self.phase:g} %" if self.phase is not None else f", {self.part} of {self.parts}"
        return name + (part if self.parts > 1 else "")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        paths = sorted({str(file.path.parent if not file.member else file.path) for file, _ in self.frames})
        places = {path: number for number, path in enumerate(paths)}
        frames = [
            [
                places[str(file.path.parent if not file.member else file.path)],
                file.member or file.path.name,
                bool(file.member),
                number,
            ]
            for file, number in self.frames
        ]
        problem = None if self.problem is None else self.problem.to_dict()
        return values | {"frames": frames, "places": paths, "problem": problem}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Series:
        """A series from what :meth:`to_dict` gives."""
        table = dict(values)
        places = [Path(path) for path in table.pop("places")]
        table["frames"] = tuple(
            (FileReference(places[at], name) if is_member else FileReference(places[at] / name), number)
            for at, name, is_member, number in table["frames"]
        )
        table["size"] = tuple(table["size"])
        table["spacing"] = None if table["spacing"] is None else tuple(table["spacing"])
        table["problem"] = None if table["problem"] is None else Finding.from_dict(table["problem"])
        return cls(**table)


@dataclass(frozen=True)
class Index:
    """What there is: ``series``, those that cannot be segmented among them, in a fixed order; and all other files."""

    series: list[Series]
    aside: list[Aside]


@dataclass(frozen=True)
class Choice:
    """The series to segment, the others with the reason why each is not the one, and what a report should say."""

    series: Series
    others: list[tuple[Series, Finding]]
    findings: list[Finding]


def index(paths: Iterable[Path | str | FileReference], *, progress: Callable[[int], object] | None = None) -> Index:
    """All image series in folders, in those below, in ``.zip`` archives and files; only headers are read.

    Args:
        paths: folders, archives, files, as :func:`mkd_core.io.dicom_files.files_in` takes them.
        progress: called with the number of files looked at so far.

    Raises:
        InputError: a path is missing or cannot be read, or pydicom is missing.
    """
    headers, aside = read_all(paths, progress)
    headers, copies = _without_copies(headers)
    aside += copies
    by_series: dict[tuple[str, str], list[Header]] = {}
    for header in headers:
        by_series.setdefault((header.text("StudyInstanceUID"), header.text("SeriesInstanceUID")), []).append(header)
    damaged = [entry for entry in aside if entry.is_damaged_image]
    series = []
    for (_, uid), its_headers in by_series.items():
        folders = {header.file.folder for header in its_headers}
        broken = [
            entry for entry in damaged if entry.series == uid or (not entry.series and entry.file.folder in folders)
        ]
        series += _volumes(its_headers, broken)
    return Index(sorted(series, key=order_in_list), aside)


def order_in_list(one: Series) -> tuple[Any, ...]:
    """By what series are sorted in lists: study, number, UID."""
    return one.date, one.study, one.number is None, one.number or 0, one.uid, one.part


def choose(
    series: Sequence[Series], *, modality: str | None = None, wanted: str | None = None, folder: str = ""
) -> Choice:
    """The series to segment.

    By these rules, of which a later one counts only where all before it are even: of the modality asked for; of the
    heart or the chest as the files say it, before no statement, before another part of the body; made by the scanner,
    not derived; at least 80 mm high; with contrast agent (CT); nearest to 75 % of the heart's cycle; the thinnest
    slices; the first in the list.

    Args:
        series: of one patient, as :func:`index` gives them.
        modality: "CT" or "MR"; None for either.
        wanted: instead of the rules: a series' UID, key, or number in the list, from 1.
        folder: where they are, as a refusal names it.

    Raises:
        InputError: none can be segmented, they are of several patients, or there is none that is wanted.
    """
    if not series:
        raise refusal(finding("dicom_none", file=folder or "…"))
    if wanted is not None:
        return _wanted(series, wanted, modality)
    usable = [one for one in series if one.problem is None]
    if not usable:
        most = max(series, key=lambda one: (one.modality in MODALITIES, one.size[2]))
        assert most.problem is not None
        raise refusal(most.problem)
    if len(patients := {one.patient for one in usable}) > 1:
        raise refusal(finding("dicom_patients", count=len(patients)))
    ranked = sorted(usable, key=lambda one: [rank for rank, _ in _ranks(one, modality)])
    best = ranked[0]
    others = [(one, one.problem or _why_not(one, best, modality)) for one in series if one is not best]
    findings = [] if len(usable) == 1 else [finding("dicom_chosen", title=best.title, count=len(usable))]
    return Choice(best, others, findings)


def _wanted(series: Sequence[Series], wanted: str, modality: str | None) -> Choice:
    found = [one for one in series if wanted in (one.uid, one.key)]
    if not found and wanted.isdecimal() and len(wanted) < 10 and 1 <= int(wanted) <= len(series):
        found = [series[int(wanted) - 1]]
    if not found:
        raise refusal(finding("dicom_unknown_series", wanted=wanted, count=len(series)))
    if len(found) > 1:
        return choose(found, modality=modality)
    if found[0].problem is not None:
        raise refusal(found[0].problem)
    others = [(one, one.problem or finding("dicom_not_wanted")) for one in series if one is not found[0]]
    return Choice(found[0], others, [])


def _ranks(one: Series, modality: str | None) -> list[tuple[float, str]]:
    """How far a series is from the best by each rule, and the code of a finding for one that loses by it."""
    named = [word in f"{one.body_part} {one.description.upper()}" for word in _HEART_WORDS]
    height = one.size[2] * (one.spacing[2] if one.spacing else 0.0)
    return [
        (float(modality is not None and one.modality != modality), "dicom_other_modality"),
        (0.0 if any(named) else 1.0 if not one.body_part else 2.0, "dicom_other_body_part"),
        (float(not one.is_original), "dicom_derived"),
        (float(height < _LEAST_HEIGHT), "dicom_short"),
        (float(one.modality == "CT" and not one.has_contrast), "dicom_plain"),
        (50.0 if one.phase is None else abs(one.phase - _BEST_PHASE), "dicom_other_phase"),
        (round(one.spacing[2], 3) if one.spacing else 0.0, "dicom_thicker"),
    ]


def _why_not(one: Series, best: Series, modality: str | None) -> Finding:
    if one.study != best.study:
        return finding("dicom_other_study")
    for (mine, code), (others, _) in zip(_ranks(one, modality), _ranks(best, modality)):
        if mine > others:
            return finding(code)
    return finding("dicom_later")


def read_series(folder: Path) -> tuple[sitk.Image, list[Finding]]:
    """The only volume in a folder or an archive, for work that must not depend on a choice.

    Raises:
        InputError: none or several, or what :func:`read` raises.
    """
    series = index([folder]).series
    usable = sum(one.problem is None for one in series)
    if usable > 1:
        raise refusal(finding("dicom_several_series", file=folder.name, count=usable))
    return read(choose(series, folder=folder.name).series)


# ---- what the slices are ----


def _without_copies(headers: list[Header]) -> tuple[list[Header], list[Aside]]:
    """Leave out files that are copies of another, byte for byte."""
    seen: dict[str, list[Header]] = {}
    for header in headers:
        seen.setdefault(header.text("SOPInstanceUID") or str(header.file), []).append(header)
    kept, copies = [], []
    with Opener() as opener:
        for group in seen.values():
            digests: set[bytes] = set()
            for header in group:
                if len(group) > 1:
                    with opener.open(header.file) as stream:
                        digest = hashlib.sha256(stream.read()).digest()
                    if digest in digests:
                        copies.append(Aside(header.file, finding("dicom_copy")))
                        continue
                    digests.add(digest)
                kept.append(header)
    return kept, copies


def _volumes(headers: list[Header], broken: list[Aside]) -> list[Series]:
    """The volumes in one DICOM series."""
    by_file = {header.file: header for header in headers}
    stacks = [
        stack
        for frames in _by_owner(headers)
        for direction in _by_direction(frames)
        for mixed in _unmixed(direction)
        for stack in _by_phase(mixed)
    ]
    return [
        _volume(by_file, stack, part, len(stacks), broken)
        for part, stack in enumerate(sorted(stacks, key=_order_of_stack), start=1)
    ]


def _order_of_stack(stack: list[Frame]) -> tuple[Any, ...]:
    values = [stack[0].values.get(name) for name in SPLITTING_TAGS]
    return (-len(stack), *[(isinstance(value, str), value is not None, value or 0) for value in values])


def _by_owner(headers: list[Header]) -> list[list[Frame]]:
    """Frames apart by patient, modality and frame of reference: programs that remove names have given several series
    one UID.

    The frame of reference does not count where every file has one of its own, as other such programs leave it.
    """
    spaces = {header.text("FrameOfReferenceUID") for header in headers}
    groups: dict[tuple[str, ...], list[Frame]] = {}
    for header in headers:
        owner = [header.text("PatientID") or header.text("PatientName"), header.text("Modality").upper()]
        if len(spaces) < len(headers):
            owner.append(header.text("FrameOfReferenceUID"))
        groups.setdefault(tuple(owner), []).extend(header.frames)
    return list(groups.values())


def _unmixed(frames: list[Frame]) -> list[list[Frame]]:
    """Frames apart by each tag of :data:`_ONE_VALUE` of which frames with several values lie between each other."""
    if any(frame.position is None or frame.directions is None or frame.spacing is None for frame in frames):
        return [frames]
    stacks = [frames]
    for name in _ONE_VALUE:
        stacks = [part for stack in stacks for part in _apart(stack, name)]
    return stacks


def _apart(frames: list[Frame], name: str) -> list[list[Frame]]:
    groups: dict[Any, list[Frame]] = {}
    representative = _representatives({frame.values.get(name) for frame in frames})
    for frame in frames:
        groups.setdefault(representative[frame.values.get(name)], []).append(frame)
    normal = np.cross(*frames[0].geometry[1])
    ranges = []
    for group in groups.values():
        heights = [float(frame.geometry[0] @ normal) for frame in group]
        ranges.append((min(heights), max(heights)))
    ranges.sort()
    is_mixed = any(low < high - _SAME_PLACE for (_, high), (low, _) in itertools.pairwise(ranges))
    return list(groups.values()) if is_mixed else [frames]


def _representatives(values: set[Any]) -> dict[Any, Any]:
    """For every value of a tag the one that stands for it and for the numbers that are the same but for rounding."""
    found = {value: value for value in values}
    numbers = sorted(value for value in values if isinstance(value, float))
    for lower, higher in itertools.pairwise(numbers):
        if higher - lower <= _SAME_VALUE * abs(higher):
            found[higher] = found[lower]
    return found


def _by_direction(frames: list[Frame]) -> list[list[Frame]]:
    """Frames apart by the direction of their slices, the most first."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            mine, others = frame.directions, group[0].directions
            if mine is None or others is None or np.abs(mine - others).max() <= _OTHER_DIRECTION:
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _by_phase(frames: list[Frame]) -> list[list[Frame]]:
    """Frames apart by the first tag that leaves one frame at each place, or all together where none does."""
    if any(frame.position is None for frame in frames):
        return [frames]
    places = Counter(_place(frame) for frame in frames)
    most = max(places.values())
    if most == 1 or len(frames) != most * len(places):
        return [frames]
    for name in SPLITTING_TAGS:
        groups: dict[Any, list[Frame]] = {}
        for frame in frames:
            groups.setdefault(frame.values.get(name), []).append(frame)
        if len(groups) == most and all(
            len({_place(frame) for frame in group}) == len(group) == len(places) for group in groups.values()
        ):
            return list(groups.values())
    return [frames]


def _place(frame: Frame) -> tuple[float, ...]:
    assert frame.position is not None
    return tuple(np.round(frame.position, 2).tolist())


def _volume(
    by_file: Mapping[FileReference, Header], frames: list[Frame], part: int, parts: int, broken: list[Aside]
) -> Series:
    header = by_file[frames[0].file]
    text = header.text
    modality = text("Modality").upper()
    stack: Stack | None = None
    problem = _not_an_image(header, modality) or _too_few(frames)
    if problem is None and broken:
        problem = finding("file_damaged", file=broken[0].file.name)
    if problem is None:
        problem, stack = _stacked(frames)
    ordered = frames if stack is None else list(stack.frames)
    description = text("SeriesDescription") or text("ProtocolName")
    image_type = str(frames[0].values.get("ImageType") or text("ImageType")).upper()
    number = re.fullmatch(r"-?\d{1,9}", text("SeriesNumber"))
    spacing = None if stack is None else stack.spacing
    return Series(
        uid=text("SeriesInstanceUID"),
        part=part,
        parts=parts,
        study=text("StudyInstanceUID"),
        patient=text("PatientID") or text("PatientName"),
        frame_of_reference=text("FrameOfReferenceUID"),
        modality=modality,
        body_part=text("BodyPartExamined").upper(),
        description=description,
        number=int(number.group()) if number else None,
        date=text("StudyDate"),
        is_original=is_original(image_type),
        has_contrast=bool(text("ContrastBolusAgent")),
        phase=phase_of(frames[0].values.get("NominalPercentageOfCardiacPhase"), (description, text("ImageComments"))),
        size=(*frames[0].size, len(frames)),
        spacing=spacing,
        problem=problem,
        frames=tuple((frame.file, frame.number) for frame in ordered),
    )


def phase_of(stated: object, texts: Iterable[str]) -> float | None:
    """Percent of the heart's cycle, as the tag or, on many scanners, only a text says it; None where neither does."""
    if isinstance(stated, (int, float)) and 0 <= stated <= 100:
        return float(stated)
    return phase_percent(texts)


def is_original(image_type: str) -> bool:
    """Whether an image type, in capitals, says that the scanner made the image from its measurements."""
    return not image_type or image_type.startswith("ORIGINAL")


def scout(image_type: str) -> Finding | None:
    """The finding that a series is a scout, where its image type, in capitals, says so."""
    return finding("dicom_scout") if "LOCALIZER" in image_type else None


def few_slices(count: int) -> Finding | None:
    """The finding that so many slices are too few, where they are."""
    return finding("dicom_few_slices", count=count, needed=MIN_SIDE) if count < MIN_SIDE else None


def _not_an_image(header: Header, modality: str) -> Finding | None:
    if modality not in MODALITIES:
        return finding("dicom_modality_unknown", said=modality or "—")
    if header.text("SamplesPerPixel") not in ("", "1") or header.text("PhotometricInterpretation") not in _PLAIN:
        return finding("not_scalar")
    return scout(header.text("ImageType").upper())


def _too_few(frames: Sequence[Frame]) -> Finding | None:
    if len(frames) == 1:
        return finding("file_of_series", file=frames[0].file.name)
    return few_slices(len(frames))


# ---- how they lie ----


@dataclass(frozen=True)
class Stack:
    """Slices in order.

    Attributes:
        frames: from the first to the last along the normal.
        direction: (3, 3) with columns along x, y and z, orthonormal.
        spacing: mm along x, y and z.
        origin: (3,) of the first voxel of the first slice.
        aside: (N, 2) by how many voxels along x and y each slice lies aside of the first; None where they lie straight.
    """

    frames: tuple[Frame, ...]
    direction: np.ndarray
    spacing: tuple[float, float, float]
    origin: np.ndarray
    aside: np.ndarray | None

    def labels_on(self, labels: sitk.Image) -> np.ndarray:
        """Labels on the voxels of every slice (N, Y, X), the nearest ones of a label map in the same space."""
        columns, rows = self.frames[0].size
        lps_to_labels = np.linalg.inv(np.array(labels.GetDirection()).reshape(3, 3) * np.array(labels.GetSpacing()))
        steps = lps_to_labels @ (self.direction * self.spacing)
        first = lps_to_labels @ (self.origin - labels.GetOrigin())
        voxels = sitk.GetArrayViewFromImage(labels)
        found = np.zeros((len(self.frames), rows, columns), voxels.dtype)
        is_only_moved = np.abs(steps[:, :2] - np.eye(3)[:, :2]).max() * max(rows, columns) < 0.01
        if not is_only_moved:
            in_plane = np.tensordot(steps[:, :2], np.stack(np.meshgrid(np.arange(columns), np.arange(rows))), 1)
        for number, target in enumerate(found):
            start = first + steps[:, 2] * number
            if self.aside is not None:
                start = start + steps[:, :2] @ self.aside[number]
            if is_only_moved:
                _copy_moved(voxels, np.rint(start).astype(int), target)
                continue
            at = np.rint(in_plane + start[:, None, None]).astype(int)
            inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(at, labels.GetSize())])
            target[inside] = voxels[at[2][inside], at[1][inside], at[0][inside]]
        return found

    @property
    def tilt(self) -> float:
        """By how much the gantry was tilted, degrees."""
        if self.aside is None:
            return 0.0
        shift = float(np.linalg.norm(self.aside[-1] * self.spacing[:2]))
        return float(np.degrees(np.arctan2(shift, self.spacing[2] * (len(self.frames) - 1))))


def _copy_moved(voxels: np.ndarray, start: np.ndarray, target: np.ndarray) -> None:
    """Fill a slice (Y, X) with the voxels (D, H, W) from a start (x, y, z) on, as far as there are any."""
    (x, y, z), (depth, height, width) = start, voxels.shape
    if not 0 <= z < depth:
        return
    rows, columns = target.shape
    low_y, low_x = max(0, -y), max(0, -x)
    high_y, high_x = min(rows, height - y), min(columns, width - x)
    if low_y < high_y and low_x < high_x:
        target[low_y:high_y, low_x:high_x] = voxels[z, low_y + y : high_y + y, low_x + x : high_x + x]


def _stacked(frames: Sequence[Frame]) -> tuple[Finding | None, Stack | None]:
    """How slices lie above each other, or why they make no volume."""
    problem = _not_alike(frames)
    if problem is not None:
        return problem, None
    _, directions, (rows, columns) = frames[0].geometry
    normal = np.cross(*directions)
    ordered = sorted(frames, key=lambda frame: float(frame.geometry[0] @ normal))
    origin = ordered[0].geometry[0]
    offsets = np.array([frame.geometry[0] - origin for frame in ordered])
    heights = offsets @ normal
    problem = _uneven(heights, _place_name(frames))
    if problem is not None:
        return problem, None
    direction = orthonormalised(np.column_stack([*directions, normal]))
    if direction is None:
        return finding("dicom_sheared", file=_place_name(frames)), None
    aside = offsets - heights[:, None] * normal
    is_straight = np.linalg.norm(aside, axis=1).max() <= _ASIDE_MM + _ASIDE_SHARE * heights[-1]
    shifts = None
    if not is_straight:
        slope = heights @ aside / (heights @ heights)
        angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
        far = float(np.linalg.norm(aside - heights[:, None] * slope, axis=1).max())
        if far > _ASIDE_MM + _ASIDE_SHARE * heights[-1] or angle > _MOST_TILT:
            return finding(
                "dicom_shifted", file=_place_name(frames), mm=max(far, float(np.linalg.norm(aside[-1])))
            ), None
        shifts = (heights[:, None] * slope) @ directions.T / [columns, rows]
    spacing = (float(columns), float(rows), float(heights[-1] / (len(ordered) - 1)))
    return None, Stack(tuple(ordered), direction, spacing, origin, shifts)


def _not_alike(frames: Sequence[Frame]) -> Finding | None:
    for frame in frames:
        if frame.position is None or frame.directions is None:
            return finding("dicom_no_position", file=frame.file.name)
        if frame.spacing is None or frame.spacing.min() <= 0:
            return finding("no_voxel_size", file=frame.file.name)
    first = frames[0]
    _, first_directions, first_spacing = first.geometry
    for frame in frames:
        _, directions, spacing = frame.geometry
        if frame.size != first.size or np.abs(directions - first_directions).max() > _SAME_DIRECTION:
            return finding("dicom_unlike", file=_place_name(frames))
        if np.abs(spacing / first_spacing - 1).max() > _SAME_SIZE:
            return finding(
                "dicom_voxel_sizes",
                file=_place_name(frames),
                first_mm=_sizes(first_spacing),
                first_file=first.file.name,
                second_mm=_sizes(spacing),
                second_file=frame.file.name,
            )
    return None


def _place_name(frames: Sequence[Frame]) -> str:
    """Name of the folder of slices, or of the archive, or of the file that holds them all."""
    file = frames[0].file
    return file.path.name if file.member or frames[0].number is not None else file.path.absolute().parent.name


def _sizes(spacing: np.ndarray) -> str:
    return " x ".join(f"{step:.4g}" for step in spacing)


def _uneven(heights: np.ndarray, name: str) -> Finding | None:
    """What is wrong with the heights (N,) of the slices in a folder of this name, from the first on, mm."""
    steps = np.diff(heights)
    if steps.min() < _SAME_PLACE:
        return finding("dicom_same_place", file=name)
    step = float(np.median(steps))
    gaps = steps > (2 - _UNEVEN) * step
    if gaps.any():
        count = int(np.rint(steps[gaps] / step - 1).sum())
        at = int(steps.argmax())
        return finding(
            "dicom_slices_missing",
            file=name,
            count=count,
            from_slice=at + 1,
            to_slice=at + 2,
            mm=float(steps[at]),
            usual_mm=step,
        )
    even = np.linspace(0, heights[-1], len(heights))
    if np.abs(heights - even).max() > _UNEVEN * step:
        return finding("dicom_uneven", file=name, least_mm=float(steps.min()), most_mm=float(steps.max()))
    return None


# ---- voxels ----


def read(series: Series) -> tuple[sitk.Image, list[Finding]]:
    """The volume of a series, slices from the first to the last along their normal.

    Slices of a tilted gantry are moved within their planes onto a straight grid, which is made larger for them.

    Returns:
        The volume, intensities as the files scale them, with its modality under :data:`mkd_core.protocol.MODALITY_TAG`;
        and what is likely wrong with it, or was changed.

    Raises:
        InputError: it has a problem, a file is gone, cut off or compressed in an unknown way, or the memory is short.
    """
    _check_memory(series)
    findings: list[Finding] = []
    places = {frame: place for place, frame in enumerate(series.frames)}
    frames: list[Frame] = []
    x, y, z = series.size
    volume = np.empty((z, y, x), np.int16)

    with dicom_pixels.Decoder() as decoder:
        for file, numbers in _by_file(series):
            tags = decoder.read(file)
            frames += _wanted_frames(file, tags, numbers)
            for number, voxels in decoder.slices(file, tags, numbers):
                if voxels.shape != (y, x):
                    raise refusal(finding("file_damaged", file=file.name))
                volume = volume.astype(np.result_type(volume, voxels), copy=False)
                volume[places[file, number]] = voxels
            if not findings:
                findings += dicom_pixels.scale_findings(file, tags, numbers[0], series.modality)
    stack = _stack_of(series, frames)
    origin = stack.origin
    if stack.aside is not None:
        volume, low = _straightened(volume, stack.aside)
        origin = origin + stack.direction[:, :2] @ (low * stack.spacing[:2])
        findings.append(finding("dicom_tilt", degrees=stack.tilt))
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(stack.spacing)
    image.SetDirection(stack.direction.ravel().tolist())
    image.SetOrigin(origin.tolist())
    image.SetMetaData(MODALITY_TAG, series.modality)
    return image, findings


def read_source(series: Series) -> tuple[list[Any], Stack]:
    """The headers of a series' files without voxels, all tags of them, in the order of the slices, one header of a
    multi-frame file; and how the slices lie.

    Raises:
        InputError: a file is gone, or not what it was.
    """
    if series.problem is not None:
        raise refusal(series.problem)
    frames: list[Frame] = []
    headers: dict[FileReference, Any] = {}
    with dicom_pixels.Decoder() as decoder:
        for file, numbers in _by_file(series):
            headers[file] = decoder.read(file, with_voxels=False)
            frames += _wanted_frames(file, headers[file], numbers)
    return list(headers.values()), _stack_of(series, frames)


def _by_file(series: Series) -> list[tuple[FileReference, list[int | None]]]:
    """Files with the numbers of their frames that belong to a series, in the order of the slices."""
    numbers: dict[FileReference, list[int | None]] = {}
    for file, number in series.frames:
        numbers.setdefault(file, []).append(number)
    return list(numbers.items())


def _wanted_frames(file: FileReference, tags: Any, numbers: Sequence[int | None]) -> list[Frame]:
    wanted = set(numbers)
    return [frame for frame in frames_of(file, tags) if frame.number in wanted]


def _stack_of(series: Series, frames: Sequence[Frame]) -> Stack:
    """How the slices of a series lie by their files as they are now."""
    problem, stack = _stacked(frames) if len(frames) == len(series.frames) else (None, None)
    if stack is None or tuple((frame.file, frame.number) for frame in stack.frames) != series.frames:
        raise refusal(problem or finding("dicom_changed", title=series.title))
    return stack


def _check_memory(series: Series) -> None:
    """Refuse a series that is no volume, or one whose voxels do not fit into the memory."""
    if series.problem is not None:
        raise refusal(series.problem)
    if not series.frames:
        raise ValueError("A series on a server must be fetched before it is read.")
    check_memory(series.title, 2.0 * float(np.prod(series.size)))


def _straightened(volume: np.ndarray, aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, Y, X) moved by how many voxels (N, 2) they lie aside along x and y.

    Returns:
        The slices on one larger grid, filled up with the lowest intensity; and by how many voxels (2,) its first voxel
        lies from that of the first slice.
    """
    low = np.floor(aside.min(axis=0) + 1e-6)
    more = np.ceil(aside.max(axis=0) - 1e-6) - low
    count, height, width = volume.shape
    lowest = volume.min()
    larger = np.full((count, height + int(more[1]), width + int(more[0])), lowest, volume.dtype)
    for target, part, shift in zip(larger, volume, aside - low):
        padded = np.full(target.shape, lowest, np.float32)
        padded[:height, :width] = part
        moved = scipy.ndimage.shift(padded, shift[::-1], order=1, mode="constant", cval=float(lowest))
        target[:] = np.rint(moved) if np.issubdtype(volume.dtype, np.integer) else moved
    return larger, low
