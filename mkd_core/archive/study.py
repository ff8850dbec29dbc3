"""What a worker does with one series: read, segment, draw, write; and what it says of it.

The files of a study appear together, the report last: a study with a report is complete, whatever became of the process
that wrote it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import traceback
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkd_core.archive.identity import anonymous, public_text, without_names
from mkd_core.archive.ledger import Outcome, Task
from mkd_core.errors import BundleError, DeviceError, InputError, MKDError
from mkd_core.io.atomic import OutputFiles, remove_drafts, write_text
from mkd_core.io.dicom_files import UNPACKING_ERRORS
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import MODALITIES, WHOLE_HEART, Finding, SegmentationOptions, findings, titles_of_weights
from mkd_core.structures import labelled

if TYPE_CHECKING:
    import SimpleITK as sitk

    from mkd_core.inference.pipeline import SegmentationResult
    from mkd_core.io.bundle import Bundle

#: Points of doubt: of every red warning, of every amber one, and of segmentors that do not agree at all.
POINTS = {"red": 10.0, "amber": 3.0, "disagreement": 20.0}

#: The largest volume that is taken out of a .zip, bytes.
_LARGEST_MEMBER = 8 << 30

#: Numbers of the errors of a disk that is full, or of which a user has had a share.
_FULL = (errno.ENOSPC, errno.EDQUOT)

_GO_ON = "Start the same command again when that is mended."

#: Name and password in an address.
_PASSWORD = re.compile("//[^/]*@")

#: Name of a DICOM Segmentation; the report of the same name ends in .sr.dcm.
SEGMENTATION = "segmentation.dcm"


@dataclass(frozen=True)
class Settings:
    """What the results of a run depend on; fixed by its first start.

    Attributes:
        weights: path of the bundle.
        sha256: of the bundle's content.
        modality: "CT" or "MR"; "auto" for what the files say, CT if they say nothing.
        labels: "nrrd", or "seg" for DICOM SEG and SR; series that are no DICOM get .nrrd.
        stow: address of a DICOMweb server that SEG and SR are sent to; empty to send nothing anywhere.
        structures: name of a set of structures, see :data:`mkd_core.protocol.STRUCTURE_SETS`.
        detail_sha256: of the weights for structures in detail; empty where there are none.
    """

    weights: str
    sha256: str
    modality: str = "auto"
    labels: str = "nrrd"
    stow: str = ""
    structures: str = WHOLE_HEART
    detail_sha256: str = ""

    def to_dict(self) -> dict[str, str]:
        """The same as plain values, without name and password of the server."""
        return dataclasses.asdict(self) | {"stow": _PASSWORD.sub("//", self.stow)}

    @property
    def digest(self) -> str:
        """Changes with everything that changes a result."""
        content = {name: value for name, value in self.to_dict().items() if name != "weights"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def prepare(settings: Settings, options: SegmentationOptions) -> tuple[Bundle, SegmentationOptions]:
    """Weights, read and got ready, and options of a worker of a run.

    Args:
        settings: of the run.
        options: device and threads.

    Raises:
        InputError: the weights are not those that the run began with.
        BundleError, DeviceError: they cannot be used.
    """
    from mkd_core.inference import pipeline
    from mkd_core.io.bundle import load_bundle

    bundle = load_bundle(Path(settings.weights))
    options = dataclasses.replace(options, structures=settings.structures)
    if (bundle.sha256, detail_sha256(bundle, options)) != (settings.sha256, settings.detail_sha256):
        raise refusal(finding("archive_other_weights"))
    pipeline.warm(bundle, options)
    return bundle, options


def detail_sha256(bundle: Bundle, options: SegmentationOptions) -> str:
    """SHA-256 of the weights for the structures in detail that the options want; empty where they want none.

    Raises:
        BundleError: they cannot be used, or not with this bundle.
    """
    from mkd_core.inference.pipeline import detail_weights_for

    weights = detail_weights_for(bundle, options)
    return "" if weights is None else weights.sha256


class ResultsUnwritable(MKDError):
    """Results cannot be written: no study is to blame, and the run cannot go on."""


def result_folder(run: Path, identifier: str) -> Path:
    """Folder of a study's files; one folder holds at most a few thousand of them."""
    return run / "results" / identifier[:2] / identifier


def process(run: Path, task: Task, settings: Settings, bundle: Bundle, options: SegmentationOptions) -> Outcome:
    """Segment one series and write its files.  Whatever is wrong with the series becomes an outcome.

    Raises:
        ResultsUnwritable: the disk is full, or not there.
        DeviceError, BundleError: of the worker, not of the study.
    """
    start = time.perf_counter()
    with _started(run, task.id):
        try:
            folder = result_folder(run, task.id)
            summary = _segment_and_write(folder, task, settings, bundle, options)
        except (ResultsUnwritable, DeviceError, BundleError):
            raise
        except Exception as error:  # whatever it is, it costs this study alone
            if _is_of_a_full_disk(error):
                temporary = tempfile.gettempdir()
                raise ResultsUnwritable(
                    f"The disk is full: that of “{run}”, or that of temporary files, “{temporary}”.", _GO_ON
                ) from error
            return failure(task.id, error, time.perf_counter() - start)
        return _outcome(task.id, summary, time.perf_counter() - start)


def _segment_and_write(
    folder: Path, task: Task, settings: Settings, bundle: Bundle, options: SegmentationOptions
) -> dict[str, Any]:
    from mkd_core.archive import pictures
    from mkd_core.inference import pipeline
    from mkd_core.io.volumes import store_volume

    modality = _modality(task, settings)
    with _volume(task.source) as (image, doubts, series):
        result = pipeline.segment(image, bundle, modality=modality, options=options)
        result.report["warnings"][:0] = [doubt.to_dict() for doubt in doubts]
        public = _public(result.report)
        summary = _summary(public)
        drawn = pictures.draw(image, result.labels, modality, labelled(result.report["labels"]))
        report = public | {"id": task.id, "settings": settings.digest, "summary": summary}
        text = json.dumps(report, indent=1) + "\n"
        with _writing(folder), OutputFiles(overwrite=True) as outputs:
            if settings.labels == "seg" and series is not None:
                _write_dicom(outputs, folder, series, result)
            else:
                outputs.write(folder / "labels.nrrd", lambda draft: store_volume(result.labels, draft))
            for name, content in drawn.items():
                outputs.write(folder / name, functools.partial(Path.write_bytes, data=content))
        if settings.stow and series is not None:
            _send(folder, settings.stow)
    with _writing(folder):
        write_text(folder / "report.json", text)  # says that all else is there
    return summary


def _write_dicom(outputs: OutputFiles, folder: Path, series: Any, result: SegmentationResult) -> None:
    from mkd_core.io import dicom_out

    dicom_out.write(outputs, folder / SEGMENTATION, series, result.labels, result.report)


def _send(folder: Path, address: str) -> None:
    """Send Segmentation and report to a server; their UIDs follow from the input, so a second time changes nothing."""
    from mkd_core.io import dicom_out, dicomweb

    dicomweb.Server(address).store(list(dicom_out.paths(folder / SEGMENTATION)))


def complete(run: Path, identifier: str, settings: Settings) -> Outcome | None:
    """The outcome of a study whose files are all there, written by a process that could not tell any more."""
    try:
        text = (result_folder(run, identifier) / "report.json").read_text(encoding="utf-8")
        report = json.loads(text)
        if report["id"] != identifier or report["settings"] != settings.digest:
            return None
        return _outcome(identifier, report["summary"], report["timings_s"]["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def was_started(run: Path, identifier: str) -> bool:
    """Whether a worker began with a series and never came to an end."""
    return _mark(run, identifier).exists()


def sweep(run: Path, identifier: str) -> None:
    """Remove what a dead worker left of a series: drafts of files, and the sign that it had begun."""
    remove_drafts(result_folder(run, identifier))
    _mark(run, identifier).unlink(missing_ok=True)


def _mark(run: Path, identifier: str) -> Path:
    return run / "running" / identifier


@contextlib.contextmanager
def _started(run: Path, identifier: str) -> Iterator[None]:
    """Leave a sign as long as a series is worked on."""
    mark = _mark(run, identifier)
    with _writing(mark.parent):
        if mark.exists():
            sweep(run, identifier)
        mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, InputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or not _is_of_the_results(cause, folder):
            raise
        reason = "the disk is full" if cause.errno in _FULL else cause.strerror or str(cause)
        raise ResultsUnwritable(f"Results cannot be written to “{folder}” ({reason}).", _GO_ON) from error


def _is_of_the_results(error: OSError, folder: Path) -> bool:
    """Whether it is not the source that cannot be used, which is read once more for DICOM results."""
    if error.filename is None:
        return error.errno in (*_FULL, errno.EROFS, errno.EIO)
    return Path(os.fsdecode(error.filename)).is_relative_to(folder)


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk; nothing that is only read gives such a one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


# ---- reading ----


def _modality(task: Task, settings: Settings) -> str:
    if settings.modality != "auto":
        return settings.modality
    if task.modality and task.modality not in MODALITIES:
        raise refusal(finding("dicom_modality_unknown", said=task.modality))
    return task.modality or "CT"


@contextlib.contextmanager
def opened_volume(source: Mapping[str, Any]) -> Iterator[sitk.Image]:
    """The image of a series, to be looked at.

    Args:
        source: of its row in the ledger.

    Raises:
        MKDError: it cannot be read.
    """
    with _volume(source) as (image, *_):
        yield image


@contextlib.contextmanager
def _volume(source: Mapping[str, Any]) -> Iterator[tuple[sitk.Image, list[Finding], Any]]:
    """Image, what is doubtful in its description, and the DICOM series if it is one."""
    from mkd_core.io.volumes import read_with_doubts

    kind = source["kind"]
    if kind == "file":
        yield (*read_with_doubts(Path(source["path"])), None)
    elif kind == "member":
        with _extracted(Path(source["path"]), source["member"]) as path:
            image, doubts = read_with_doubts(path)
        yield image, doubts, None
    else:
        with _series(source) as series:
            from mkd_core.io import dicom

            yield (*dicom.read(series), series)


@contextlib.contextmanager
def _series(source: Mapping[str, Any]) -> Iterator[Any]:
    """A DICOM series, fetched from its server if it lies on one."""
    from mkd_core.io import dicom

    series = dicom.Series.from_dict(source["series"])
    if source["kind"] == "dicomweb":
        from mkd_core.io import dicomweb

        with tempfile.TemporaryDirectory(prefix="mkd-") as folder:
            yield dicomweb.Server(series.server).retrieve(series, Path(folder))
    else:
        yield series


@contextlib.contextmanager
def _extracted(archive: Path, member: str) -> Iterator[Path]:
    """A volume out of a .zip, in a folder that only this user can read.

    Raises:
        InputError: it is not in there, is damaged, or is too large.
    """
    with tempfile.TemporaryDirectory(prefix="mkd-") as folder:
        path = Path(folder) / f"volume{''.join(Path(member).suffixes[-2:])}"
        try:
            with zipfile.ZipFile(archive) as packed, packed.open(member) as stream, path.open("wb") as file:
                if packed.getinfo(member).file_size > _LARGEST_MEMBER:
                    raise refusal(finding("archive_member_large", member=member, file=archive.name))
                shutil.copyfileobj(stream, file, 1 << 20)
        except (*UNPACKING_ERRORS, KeyError) as error:
            raise refusal(
                finding("archive_member_damaged", member=member, file=archive.name, reason=type(error).__name__)
            ) from error
        yield path


# ---- telling ----


def _public(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without figures that could name a file or a person."""

    def cleaned(values: list[Any]) -> list[dict[str, Any]]:
        return [dict(anonymous(one).to_dict()) for one in findings(values)]

    structures = {key: {**entry, "warnings": cleaned(entry["warnings"])} for key, entry in report["structures"].items()}
    return {**report, "structures": structures, "warnings": cleaned(report["warnings"])}


def _summary(public: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a report without names that tables and pages show."""
    structures = {
        key: {name: entry.get(name) for name in ("volume_ml", "mass_g", "mean_intensity", "agreement") if name in entry}
        for key, entry in public["structures"].items()
    }
    warnings = public["warnings"] + [one for entry in public["structures"].values() for one in entry["warnings"]]
    evidence = public.get("evidence", {})
    return {
        "modality": public["modality"],
        "size": public["input"]["size"],
        "spacing_mm": [round(step, 4) for step in public["input"]["spacing_mm"]],
        "structures": structures,
        "warnings": warnings,
        "joint_agreement": evidence.get("joint_agreement"),
        "weights": titles_of_weights(public),
        "version": public["version"],
    }


def doubt(summary: Mapping[str, Any]) -> float:
    """How much there is to doubt: :data:`POINTS` of its warnings, and up to 20 for segmentors that differ."""
    points = sum(POINTS.get(warning["severity"], 0.0) for warning in summary["warnings"])
    agreement = summary["joint_agreement"]
    return round(points + (POINTS["disagreement"] * (1.0 - agreement) if agreement is not None else 0.0), 2)


def severity(summary: Mapping[str, Any]) -> str:
    """The worst of all warnings: "red", "amber" or "none"."""
    found = {warning["severity"] for warning in summary["warnings"]}
    return next((one for one in ("red", "amber") if one in found), "none")


def _outcome(identifier: str, summary: Mapping[str, Any], seconds: float) -> Outcome:
    return Outcome(
        identifier,
        "done",
        severity=severity(summary),
        doubt=doubt(summary),
        summary=summary,
        seconds=round(seconds, 3),
    )


def failure(identifier: str, error: Exception, seconds: float = 0.0) -> Outcome:
    """The outcome of a study that cannot be segmented."""
    if isinstance(error, MKDError):
        code = type(error).__name__ if error.finding is None else error.finding.code
        text = without_names(str(error)) if error.finding is None else public_text(error.finding)
        detail = str(error)
    else:
        code, text = "internal_error", f"An error in the program ({type(error).__name__})."
        detail = "".join(traceback.format_exception(error))
    return Outcome(
        identifier, "failed", reason=code, reason_text=text, detail=detail[-20_000:], seconds=round(seconds, 3)
    )
