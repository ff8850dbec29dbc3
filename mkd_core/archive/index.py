"""Find every volume in folders, .zip files and on DICOMweb servers, and enter it in the ledger.

Headers are read, voxels are not.  What lies in a source is looked at entry by entry, so that memory stays small however
large the archive is.  A series whose files lie under several entries is put together again, and of a study whose series
do the best is chosen in the end.
"""

from __future__ import annotations

import functools
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mkd_core.archive.identity import Pseudonyms, public_text
from mkd_core.archive.ledger import LEDGER_NAME, Found, Ledger
from mkd_core.io import dicom, dicom_files, dicomweb
from mkd_core.io.dicom_files import UNPACKING_ERRORS, FileReference
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Finding

#: Endings of volumes that are no DICOM.
VOLUME_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

#: Rows that enter the ledger together.
_BATCH = 1000

#: A folder with more files below it is looked at folder by folder; a header takes about 4 kB of memory.
_MOST_FILES = 20_000


@dataclass
class Summary:
    """What an index found.

    Attributes:
        new: series that were not in the ledger.
        known: series that were.
        aside: files that are no images, by code and sentence of the reason.
    """

    new: int = 0
    known: int = 0
    aside: Counter[tuple[str, str]] = field(default_factory=Counter)


def index(
    ledger: Ledger,
    sources: Sequence[str],
    pseudonyms: Pseudonyms,
    *,
    every_series: bool = False,
    progress: Callable[[Summary, str], None] | None = None,
) -> Summary:
    """Enter all series of all sources; those that are in the ledger stay as they are.

    Args:
        ledger: of the run.
        sources: folders, volumes, .zip files, addresses of DICOMweb servers.
        pseudonyms: gives the ids; the ledger refuses another key than its first.
        every_series: segment all usable series of a study, not only the best.
        progress: called with what was found so far, and where.

    Raises:
        InputError: a source is not there, or the key is not the ledger's.
    """
    check_sources(sources)
    if ledger.put_once("key", pseudonyms.check) != pseudonyms.check:
        raise refusal(finding("archive_other_key"))
    summary = Summary()
    batch: list[Found] = []
    for source in sources:
        for place in [source] if dicomweb.is_address(source) else _entries(Path(source)):
            if progress is not None:
                progress(summary, place)
            try:
                batch += _found_in(place, pseudonyms, every_series, summary)
            except OSError as error:  # of this place; the others are to be found all the same
                _tell_closed(summary, error)
            if len(batch) >= _BATCH:
                _enter(ledger, batch, pseudonyms, every_series, summary)
                batch = []
    _enter(ledger, batch, pseudonyms, every_series, summary)
    _set_aside_others(ledger)
    return summary


def check_sources(sources: Sequence[str]) -> None:
    """See that all sources can be looked for.

    Raises:
        InputError: a folder or file is not there, or an address holds a password.
    """
    for source in sources:
        if dicomweb.is_address(source):
            if "@" in source:
                raise refusal(finding("archive_password"))
        elif not Path(source).exists():
            raise refusal(finding("archive_no_source", file=source))


def _entries(source: Path) -> Iterator[str]:
    """The entries of a source: its own files, as one entry whose name ends in a separator, and every folder in it with
    all below, or the entries of that folder where these are too many.
    """
    source = source.absolute()
    if not source.is_dir():
        yield str(source)
        return
    with os.scandir(source) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    if any(entry.name == LEDGER_NAME for entry in listed):  # a run, whose labels are no volumes to segment
        return
    folders = [entry for entry in listed if entry.is_dir()]
    if len(folders) < len(listed):
        yield str(source) + os.sep  # its own files, without its folders
    for folder in folders:
        if folder.name.startswith("."):
            continue
        if not folder.is_symlink() and _is_large(folder.path):
            yield from _entries(Path(folder.path))
        else:
            yield folder.path


def _is_large(folder: str) -> bool:
    count = 0
    for _, _, names in os.walk(folder):
        count += len(names)
        if count > _MOST_FILES:
            return True
    return False


def _found_in(place: str, pseudonyms: Pseudonyms, every_series: bool, summary: Summary) -> Iterator[Found]:
    """All series of one entry."""
    if dicomweb.is_address(place):
        listed = dicomweb.Server(place).index()
        yield from _studies(listed, place, pseudonyms, every_series, {"kind": "dicomweb"})
        return
    others: list[Path] = []
    volumes: set[tuple[Path, str]] = set()
    for path in _files(Path(place), whole=not place.endswith(os.sep), failed=functools.partial(_tell_closed, summary)):
        name = path.name.lower()
        if name.endswith(VOLUME_ENDINGS):
            yield _volume(pseudonyms, str(path), {"kind": "file", "path": str(path)})
            continue
        others.append(path)
        for member in _volume_members(path) if name.endswith(".zip") else ():
            identifier = f"{path}{os.sep}{member}"
            yield _volume(pseudonyms, identifier, {"kind": "member", "path": str(path), "member": member})
            volumes.add((path, member))
    if others:
        listing = dicom.index(map(FileReference, others))
        aside = [one for one in listing.aside if (one.file.path, one.file.member) not in volumes]
        summary.aside.update(_public_reason(one.finding) for one in aside)
        yield from _studies(listing.series, place, pseudonyms, every_series, {"kind": "dicom"})


def _files(place: Path, *, whole: bool, failed: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """The files of an entry in a fixed order, without hidden ones; links to folders are not followed.

    A DICOMDIR stands for all files below it, which are found anyway.

    Args:
        place: folder or file.
        whole: with all folders below.
        failed: called with the error of a folder that cannot be read; its files are passed over.
    """
    if not place.is_dir():
        yield place
        return
    for folder, folders, names in os.walk(place, onerror=failed):
        if LEDGER_NAME in names:  # a run, whose labels are no volumes to segment
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if whole else []
        yield from (
            Path(folder) / name
            for name in sorted(names)
            if not name.startswith(".") and name.upper() != dicom_files.DICOMDIR
        )


def _volume_members(path: Path) -> list[str]:
    """Volumes in a .zip that are no DICOM."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = [info.filename for info in packed.infolist() if not info.is_dir()]
    except UNPACKING_ERRORS:
        return []  # the DICOM index says what is wrong with it
    packs = (".nii", ".nii.gz", ".nrrd", ".mha")  # those whose voxels lie in the same file
    return sorted(name for name in names if name.lower().endswith(packs) and not Path(name).name.startswith("."))


def _volume(pseudonyms: Pseudonyms, identifier: str, source: dict[str, Any]) -> Found:
    return Found(pseudonyms.of("series", identifier), "", "", source["path"], source, "")


def _studies(
    listed: Sequence[dicom.Series], place: str, pseudonyms: Pseudonyms, every_series: bool, source: dict[str, Any]
) -> Iterator[Found]:
    """Rows of DICOM series; of every study the best is to be segmented, or all that can be."""
    studies: dict[str, list[dicom.Series]] = {}
    for series in listed:
        studies.setdefault(series.study, []).append(series)
    for members in studies.values():
        reasons = {} if every_series else _others_than_best(members)
        for series in members:
            why = series.problem or reasons.get(series.key)
            yield Found(
                pseudonyms.of("series", series.key),
                pseudonyms.of("study", series.study),
                pseudonyms.of("patient", series.patient),
                place,
                {**source, "series": series.to_dict(), "every": every_series},
                series.modality,
                None if why is None else _public_reason(why),
            )


def _set_aside_others(ledger: Ledger) -> None:
    """Of every study leave the best series alone, though they were found under several entries."""
    for rows in ledger.studies_of_several():
        members = [dicom.Series.from_dict(row.source["series"]) for row in rows]
        reasons = _others_than_best(members)
        ledger.set_aside(
            [
                (row.id, _public_reason(reasons[series.key]))
                for row, series in zip(rows, members)
                if series.key in reasons and not row.source.get("every")
            ]
        )


def _others_than_best(members: Sequence[dicom.Series]) -> dict[str, Finding]:
    """Why each series of a study is set aside that is not its best, by key."""
    usable = [series for series in members if series.problem is None]
    if len({series.patient for series in usable}) != 1:  # none, or a study that is mixed up: all of it is to be seen
        return {}
    return {series.key: why for series, why in dicom.choose(usable).others}


def _tell_closed(summary: Summary, error: OSError) -> None:
    summary.aside[_public_reason(finding("dicom_closed"))] += 1


def _public_reason(why: Finding) -> tuple[str, str]:
    return why.code, public_text(why)


def _enter(
    ledger: Ledger, batch: Iterable[Found], pseudonyms: Pseudonyms, every_series: bool, summary: Summary
) -> None:
    """Bring rows into the ledger, and together what lies in several places."""
    batch = list(batch)
    new = ledger.add(batch)
    summary.new += new
    summary.known += len(batch) - new
    if new == len(batch):
        return
    for places in sorted({tuple(sorted({one.origin, place})) for one, place in _elsewhere(ledger, batch)}):
        listing = dicom.index(
            [FileReference(path) for place in places for path in _files(Path(place), whole=not place.endswith(os.sep))]
        )
        for found in _studies(listing.series, places[0], pseudonyms, every_series, {"kind": "dicom"}):
            ledger.replace_source(found)


def _elsewhere(ledger: Ledger, batch: Iterable[Found]) -> Iterator[tuple[Found, str]]:
    """DICOM series of a batch whose row says that they lie under another entry, and under which; their own if that is
    gone.
    """
    for one in batch:
        place = ledger.origin_of(one.id)
        if one.source["kind"] == "dicom" and place is not None and place != one.origin:
            yield one, place if Path(place).exists() else one.origin
