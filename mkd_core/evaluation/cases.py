"""Labelled volumes: finding them, checking them before work starts, reading them.

Two layouts are known: the folder of MM-WHS 2017 as it is downloaded (``ct_train_1001_image.nii.gz`` beside
``ct_train_1001_label.nii.gz``, also in sub-folders), and a CSV file with the columns ``image``, ``label``, ``modality``
and, if wanted, ``split`` and ``structures``: keys of those that the case labels, separated by spaces.

Example:
    >>> cases = find_cases("MM-WHS 2017 Dataset")          # doctest: +SKIP
    >>> check_cases(cases, needed=("CT", "MR"))            # doctest: +SKIP
    >>> image, labels = read_case(cases[0])                # doctest: +SKIP
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.inference.image_check import validate_image
from mkd_core.inference.padding import without_marks
from mkd_core.io.volumes import VolumeGrid, read_grid, read_volume
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import MODALITIES, Finding
from mkd_core.structures import BY_KEY, DETAILED, STRUCTURES, Structure

_COLUMNS = ("image", "label", "modality")

#: Names in MM-WHS: modality, part of the data set, number, image or label.
_MMWHS_NAME = re.compile(r"(ct|mr)_(train|test)_(\d+)_(image|label)\.nii(?:\.gz)?", re.IGNORECASE)

_Grid: TypeAlias = sitk.Image | sitk.ImageFileReader
_Read = TypeVar("_Read")

#: Image and label lie on the same grid if no voxel of one is further than this from its fellow in the other, in voxels.
_GRID_TOLERANCE = 0.1


@dataclass(frozen=True)
class Case:
    """A volume and its labels.

    Attributes:
        name: unique among the cases found together, and fit for a file name.
        image: the volume: a file, or a folder with one DICOM series.
        label: its label map, with the values of MM-WHS or of :mod:`mkd_core.structures`.
        modality: "CT" or "MR".
        split: what the case is for, such as "train", "validation" or "test", in lower case; empty where nothing says
            so.
        structures: keys of the structures that are labelled, of those of the catalogue; None for all.  What is not
            labelled may be anywhere in the label map's background.
    """

    name: str
    image: Path
    label: Path
    modality: str
    split: str = ""
    structures: tuple[str, ...] | None = None

    def labels(self, structure: Structure) -> bool:
        """Whether the label map would show the structure."""
        return self.structures is None or structure.key in self.structures


def find_cases(path: Path | str) -> list[Case]:
    """Cases of a folder or a CSV file; their volumes are not opened.

    In a folder, ``*_test_*`` images without a label are left out, since MM-WHS publishes none for them; with one their
    split is "test".  All others have no split.  Paths in a CSV file are relative to it.

    Args:
        path: MM-WHS folder, or CSV file.

    Returns:
        At least one case; by modality and number in a folder, in the order of the rows in a CSV file.

    Raises:
        InputError: no cases, an image without label or the reverse, the same case twice, or a CSV file that makes no
            sense; names the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no folder or file “{path}”.")
    cases = _cases_of_folder(path) if path.is_dir() else _cases_of_table(path)
    if not cases:
        raise InputError(
            f"“{path}” holds no labelled volumes.",
            "Choose a folder with ct_train_1001_image.nii.gz, ct_train_1001_label.nii.gz and so on, or a CSV file "
            "with the columns "
            "image, label, modality.",
        )
    return cases


def check_cases(
    cases: Sequence[Case],
    needed: Iterable[str] = (),
    require_all: bool = False,
    progress: Callable[[int, int], None] | None = None,
    structures: Sequence[Structure] = STRUCTURES,
) -> list[Finding]:
    """Refuse cases that cannot be used, before any work is done for them.  All headers are read first, then all voxels.

    Args:
        cases: to check; may be empty if nothing is needed.
        needed: modalities of which there must be a case.
        require_all: whether every case must have voxels of every structure that it labels.
        progress: called as ``progress(done, count)`` before each case's voxels are read.
        structures: what the labels mean.

    Returns:
        Warnings on what does not stop the work; each names its file.

    Raises:
        InputError: with the first reason, which names the file.
    """
    for modality in needed:
        if not any(case.modality == modality for case in cases):
            raise InputError(
                f"There is no {modality} among the labelled volumes.", f"Add {modality} volumes with their labels."
            )
    for case in cases:
        _check_grids(case, _read(case.image, read_grid), _read(case.label, read_grid))
    warnings = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number, len(cases))
        warnings += _check_voxels(case, require_all, structures)
    return warnings


def read_case(case: Case, structures: Sequence[Structure] = STRUCTURES) -> tuple[sitk.Image, sitk.Image]:
    """Read a case that :func:`check_cases` let pass.

    Args:
        case: image and labels.
        structures: what the labels mean.

    Returns:
        The volume; and its labels, uint8, those of the structures, on exactly the volume's grid.

    Raises:
        InputError: a file cannot be read, the grids differ, or there is a value that means no structure; names the
            file.
    """
    return _read_pair(case, structures)


def labelled_in(case: Case, labels: sitk.Image, structures: Sequence[Structure]) -> list[str]:
    """Keys of the structures that a case's label map shows: those that the case names; where it names none, all of
    whole-heart segmentation, and of those in detail the ones of which there are voxels.

    Args:
        case: whose labels they are.
        labels: as :func:`read_case` gives them.
        structures: what the labels mean.
    """
    if case.structures is not None:
        return [structure.key for structure in structures if case.labels(structure)]
    empty = set(missing_structures(labels, structures))
    return [one.key for one in structures if one.key not in DETAILED or one.key not in empty]


def missing_structures(labels: sitk.Image, structures: Sequence[Structure] = STRUCTURES) -> list[str]:
    """Keys of the structures of which a label map has no voxel."""
    voxels = sitk.GetArrayViewFromImage(labels)
    present = set().union(*(np.unique(part) for part in voxels))
    return [structure.key for structure in structures if structure.label not in present]


def _read_pair(case: Case, structures: Sequence[Structure]) -> tuple[sitk.Image, sitk.Image]:
    image, label = _read(case.image, read_volume), _read(case.label, read_volume)
    _check_grids(case, VolumeGrid.of(image), VolumeGrid.of(label))
    voxels = _our_labels(case.label, sitk.GetArrayViewFromImage(label), structures)
    for structure in structures:
        if not case.labels(structure) and (voxels == structure.label).any():
            raise InputError(
                f"“{case.label.name}” has voxels of {structure.key}, which its case says is not labelled.",
                f"Add {structure.key} to the case's structures, or set these voxels to 0.",
            )
    labels = sitk.GetImageFromArray(voxels)
    labels.CopyInformation(image)
    return image, labels


def _cases_of_folder(folder: Path) -> list[Case]:
    files: dict[tuple[str, str, str], dict[str, Path]] = {}
    for path in _files_below(folder):
        found = _MMWHS_NAME.fullmatch(path.name)
        if found:
            modality, part, number, kind = (group.lower() for group in found.groups())
            pair = files.setdefault((modality, part, number), {})
            if kind in pair:
                raise InputError(
                    f"“{pair[kind].relative_to(folder)}” and “{path.relative_to(folder)}” are the same case.",
                    "Keep one of them.",
                )
            pair[kind] = path
    cases = []
    for (modality, part, number), pair in sorted(files.items()):
        if "image" not in pair:
            raise InputError(f"“{pair['label'].name}” has no image beside it.")
        if "label" in pair:
            split = "test" if part == "test" else ""
            cases.append(Case(f"{modality}_{part}_{number}", pair["image"], pair["label"], modality.upper(), split))
        elif part == "train":
            raise InputError(f"“{pair['image'].name}” has no label beside it.")
    return cases


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, hidden ones left out: archives made on a Mac hold a hidden double of each file."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _cases_of_table(path: Path) -> list[Case]:
    rows = _rows(path)
    entries: list[tuple[Path, Path, str, str, tuple[str, ...] | None]] = []
    seen: dict[Path, int] = {}
    for line, row in rows:
        place = f"Line {line} of “{path.name}”"
        for column in _COLUMNS:
            if not row[column]:
                raise InputError(f"{place} has no {column}.")
        modality = row["modality"].upper()
        if modality not in MODALITIES:
            raise InputError(f"{place} has the modality “{row['modality']}”.", "Write CT or MR.")
        image, label = path.parent / row["image"], path.parent / row["label"]
        first = seen.setdefault(image.resolve(), line)
        if first != line:
            raise InputError(f"{place} names the same image as line {first}: “{row['image']}”.", "Keep one of them.")
        entries.append((image, label, modality, row["split"].lower(), _structures_of_row(row["structures"], place)))
    names = _names(path, [image for image, *_ in entries])
    return [Case(name, *entry) for name, entry in zip(names, entries)]


def _structures_of_row(text: str, place: str) -> tuple[str, ...] | None:
    """Keys of the structures that a row says are labelled; None where it says nothing."""
    keys = {key.casefold(): key for key in BY_KEY}
    for word in text.split():
        if word.casefold() not in keys:
            raise InputError(f"{place} names an unknown structure “{word}”.", f"Choose from {', '.join(BY_KEY)}.")
    return tuple(keys[word.casefold()] for word in text.split()) or None


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table, blank rows left out; column names in lower case, all columns there."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"“{path.name}” cannot be read as a CSV file.",
            "Choose a table in UTF-8, or a folder in the layout of MM-WHS.",
        ) from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, restval="")
    columns = {name: name.strip().lower() for name in reader.fieldnames or ()}
    missing = [column for column in _COLUMNS if column not in columns.values()]
    if missing:
        raise InputError(
            f"“{path.name}” has no column “{missing[0]}”.",
            "Its first line must name the columns image, label, modality and, if wanted, split and structures.",
        )
    rows = []
    try:
        for row in reader:
            known = {"split": "", "structures": ""} | {
                columns[name]: (value or "").strip() for name, value in row.items() if name is not None
            }
            if any(known.values()):
                rows.append((reader.line_num, known))
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} of “{path.name}” is not a line of a CSV file.") from error
    return rows


def _names(table: Path, images: Sequence[Path]) -> list[str]:
    """Short names, with as many folders in them as it takes to tell the images apart."""
    parts = [re.sub(r"[_-]?image$", "", _stem(image), flags=re.IGNORECASE) or _stem(image) for image in images]
    folders = [image.absolute().parent.parts for image in images]
    for depth in range(max(map(len, folders), default=0) + 1):
        names = ["_".join([*above[max(0, len(above) - depth) :], part]) for above, part in zip(folders, parts)]
        names = [re.sub(r"[^\w.-]+", "_", name).strip("_") or "case" for name in names]
        if len({name.casefold() for name in names}) == len(names):  # some file systems do not tell a from A
            return names
    raise InputError(f"The images of “{table.name}” cannot be told apart by name.", "Give them different file names.")


def _stem(path: Path) -> str:
    return re.sub(r"\.(nii\.gz|[A-Za-z]+)$", "", path.name)


def _read(path: Path, read: Callable[[Path], _Read]) -> _Read:
    """Read a file; a refusal names it."""
    try:
        return read(path)
    except InputError as error:
        if path.name in error.message:
            raise
        raise InputError(f"“{path.name}” cannot be read: {_lower(error.message)}", error.advice) from error


def _check_grids(case: Case, image: VolumeGrid, label: VolumeGrid) -> None:
    names = f"“{case.image.name}” and “{case.label.name}” lie on different grids"
    if image.size != label.size:
        sizes = [" x ".join(map(str, grid.size)) for grid in (image, label)]
        raise InputError(f"{names}: {sizes[0]} and {sizes[1]} voxels.", "Resample the label to the image's grid.")
    apart = np.abs(_corners(image) - _corners(label)).max()
    if not apart <= _GRID_TOLERANCE * image.spacing.min():
        raise InputError(
            f"{names}: their voxels are up to {apart:.3g} mm apart.",
            "Correct the spacing, origin or direction of one of them.",
        )


def _corners(grid: VolumeGrid) -> np.ndarray:
    """Positions of the corner voxels, (8, 3), mm."""
    last = (np.array(grid.size) - 1) * grid.spacing
    return np.array([grid.direction @ (last * corner) for corner in np.ndindex(2, 2, 2)]) + grid.origin


def _check_voxels(case: Case, require_all: bool, structures: Sequence[Structure]) -> list[Finding]:
    image, labels = _read_pair(case, structures)
    try:
        image, marks = without_marks(image, case.modality)
        doubts = marks + validate_image(image, case.modality)
    except InputError as error:
        raise InputError(f"“{case.image.name}” cannot be used: {_lower(error.message)}", error.advice) from error
    empty = [
        finding("label_missing", structure=key, file=case.label.name)
        for key in missing_structures(labels, [structure for structure in structures if case.labels(structure)])
    ]
    if require_all and empty:
        raise refusal(empty[0])
    return [dataclasses.replace(doubt, figures={**doubt.figures, "file": case.image.name}) for doubt in doubts] + empty


def _our_labels(path: Path, voxels: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    """Labels of the structures, uint8, of a label map with these or with the values of MM-WHS, whichever all its values
    fit.
    """
    own = range(len(structures) + 1)
    from_mmwhs = {0: 0} | {value: structure.label for structure in structures for value in structure.mmwhs}
    if voxels.ndim != 3 or voxels.dtype.kind not in "iuf":
        raise InputError(f"“{path.name}” has colours or vectors where a label map has numbers.")
    present = set().union(*(np.unique(part[part != 0]).tolist() for part in voxels))
    if present <= set(own):
        return voxels.astype(np.uint8)
    unknown = [value for value in present if value not in from_mmwhs]
    if unknown:
        # Of mixed tables, the value that is in neither tells most.
        value = next((value for value in unknown if value not in own), unknown[0])
        raise InputError(
            f"“{path.name}” has the value {value:g}, which means no structure.",
            f"Labels are {', '.join(str(number) for number in from_mmwhs)}; or 0 to {own[-1]}.",
        )
    ours = np.zeros(max(from_mmwhs) + 1, np.uint8)
    ours[list(from_mmwhs)] = list(from_mmwhs.values())
    converted = np.empty(voxels.shape, np.uint8)
    for part, into in zip(voxels, converted):
        into[...] = ours[part.astype(np.int16)]
    return converted


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
