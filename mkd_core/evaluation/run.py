"""Segment labelled volumes by the pipeline itself and measure what comes out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

import mkd_core
from mkd_core.errors import Cancelled, InputError, NoHeartError
from mkd_core.evaluation.cases import Case, check_cases, labelled_in, read_case
from mkd_core.evaluation.measures import measure_case
from mkd_core.evaluation.results import CaseResult, ResultFolder, check_targets
from mkd_core.inference.details import appended
from mkd_core.inference.geometry import block_of
from mkd_core.inference.pipeline import detail_keys_for, detail_weights_for, segment
from mkd_core.io.bundle import Bundle
from mkd_core.io.detail_weights import DetailWeights
from mkd_core.protocol import IN_DETAIL, SegmentationOptions, findings, titles_of_weights
from mkd_core.structures import Structure

#: Called as ``progress(stage, fraction, message)``.
Progress = Callable[[str, float, str], None]

#: Options that change how fast a case is done, but not what comes out.
_OF_NO_CONSEQUENCE = ("threads", "with_disagreement", "with_aligned")


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        bundle: the weights.
        detail_weights: those for the structures in detail; None where they were not wanted.
        options: how cases were segmented.
        results: one per case, in the order of the cases.
        folder: where results and segmentations are kept.
        kept: cases whose results were there from an earlier run.
    """

    bundle: Bundle
    detail_weights: DetailWeights | None
    options: SegmentationOptions
    results: list[CaseResult]
    folder: ResultFolder
    kept: int

    @property
    def weights(self) -> str:
        """Names and versions of all weights."""
        return titles_of_weights(self.identities)

    @property
    def identities(self) -> dict[str, Any]:
        """Of all weights, as reports give them."""
        return _identities(self.bundle, self.detail_weights)


def choose_cases(
    cases: Iterable[Case], modality: str | None = None, split: str | None = None, limit: int | None = None
) -> list[Case]:
    """Some of the cases.

    Args:
        cases: to choose from.
        modality: "CT" or "MR"; None for both.
        split: only cases of this split; None for all.
        limit: only the first so many of what is left.

    Raises:
        InputError: no case is left, or the limit is no number of cases.
    """
    if limit is not None and limit < 1:
        raise InputError(f"{limit} is not a number of cases.", "Choose a number from 1.")
    cases = list(cases)
    chosen = [
        case
        for case in cases
        if modality in (None, case.modality) and (split is None or case.split == split.strip().lower())
    ]
    if not chosen:
        wanted = " and ".join(
            [f"modality {modality}"] * (modality is not None) + [f"split “{split}”"] * (split is not None)
        )
        splits = sorted({case.split for case in cases if case.split})
        raise InputError(
            f"None of the {len(cases)} cases has {wanted or 'labels'}.",
            f"The splits are {', '.join(splits)}." if split is not None and splits else "",
        )
    return chosen[:limit]


def evaluate(
    bundle: Bundle,
    cases: Sequence[Case],
    folder: Path,
    *,
    options: SegmentationOptions | None = None,
    progress: Progress | None = None,
    finished: Callable[[CaseResult], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    inputs: Sequence[Path] = (),
    overwrite: bool = False,
) -> Evaluation:
    """Segment and measure cases.  All are checked before the first is segmented; what an earlier run finished is not
    done again.

    A case in which no heart is found, or that the pipeline refuses, counts with Dice 0 and its reason.

    Args:
        bundle: weights.
        cases: labelled volumes, of one modality or both.
        folder: for results.
        options: how to segment.  Of its structures the set counts: those that the weights know, or, for
            :data:`mkd_core.protocol.IN_DETAIL`, these and those in detail.
        progress: how far we are, and the time left.
        finished: called with the result of every case that was segmented now.
        cancelled: polled all the time; True stops the run.  What is finished is kept.
        inputs: what is read besides the cases and the bundle, such as the table of cases; no result replaces it.
        overwrite: whether files in the folder that no evaluation made may be replaced.

    Raises:
        InputError: a case or an option cannot be used, or the folder cannot be written.
        DeviceError: the device is missing or out of memory.
        Cancelled: ``cancelled`` said so.
    """
    options = options or SegmentationOptions()
    options = dataclasses.replace(
        options,
        structures=IN_DETAIL if options.structures == IN_DETAIL else None,
        with_disagreement=False,
        with_aligned=False,
    )
    for modality in {case.modality for case in cases}:
        options.check(modality, bundle.target, [structure.key for structure in bundle.structures])
    detail_weights = detail_weights_for(bundle, options)
    structures = appended(bundle.structures, detail_keys_for(bundle, options))
    check_targets(folder, cases, [*inputs, bundle.path], overwrite=overwrite)
    results = ResultFolder(folder, _setting(_identities(bundle, detail_weights), options))
    known = {case: result for case in cases if (result := _find(results, case)) is not None}
    pending = [case for case in cases if case not in known]
    report = progress or (lambda stage, fraction, message: None)
    cancelled = cancelled or (lambda: False)

    def checking(done: int, count: int) -> None:
        if cancelled():
            raise Cancelled()
        report("check", 0.0, f"Checking volume {done + 1} of {count}")

    check_cases(pending, progress=checking, structures=structures)
    clock = _RemainingTime(len(pending))
    for number, case in enumerate(pending):

        def show(stage: str, fraction: float, message: str, number: int = number, case: Case = case) -> None:
            done = (number + fraction) / len(pending)
            report(
                stage,
                done,
                ", ".join(filter(None, (f"{case.name} ({number + 1} of {len(pending)})", message, clock.left(done)))),
            )

        result, labels = _evaluate_case(bundle, structures, case, options, show, cancelled)
        results.keep(result, labels)
        known[case] = result
        if finished is not None:
            finished(result)
    return Evaluation(
        bundle, detail_weights, options, [known[case] for case in cases], results, len(cases) - len(pending)
    )


def _find(results: ResultFolder, case: Case) -> CaseResult | None:
    # A file that is missing is for the check to refuse.
    return results.find(case) if case.image.exists() and case.label.exists() else None


def _identities(bundle: Bundle, detail_weights: DetailWeights | None) -> dict[str, Any]:
    both: dict[str, Any] = {"bundle": bundle.identity}
    return both if detail_weights is None else both | {"detail_weights": detail_weights.identity}


def _setting(identities: dict[str, Any], options: SegmentationOptions) -> dict:
    chosen = {name: value for name, value in dataclasses.asdict(options).items() if name not in _OF_NO_CONSEQUENCE}
    files = {name: identity["sha256"] for name, identity in identities.items()}
    return {**files, "version": mkd_core.__version__, "options": chosen}


def _evaluate_case(
    bundle: Bundle,
    structures: Sequence[Structure],
    case: Case,
    options: SegmentationOptions,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> tuple[CaseResult, sitk.Image | None]:
    progress("read", 0.0, "Reading")
    image, truth = read_case(case, structures)
    spacing = image.GetSpacing()[::-1]
    known = sitk.GetArrayViewFromImage(truth)
    in_truth = labelled_in(case, truth, structures)
    start = time.perf_counter()
    try:
        prediction = segment(
            image, bundle, modality=case.modality, options=options, progress=progress, cancelled=cancelled
        )
    except (NoHeartError, InputError) as error:
        return CaseResult(
            case,
            measure_case(None, known, spacing, structures, in_truth),
            error.message,
            seconds=time.perf_counter() - start,
        ), None
    seconds = time.perf_counter() - start
    progress("measure", 1.0, "Comparing with the truth")
    found = sitk.GetArrayViewFromImage(prediction.labels)
    box = block_of(image, prediction.report["heart_box_mm"])
    measured = measure_case(found, known, spacing, structures, in_truth, box)
    return CaseResult(
        case,
        measured,
        "",
        tuple(findings(prediction.report["warnings"])),
        round(seconds, 3),
        prediction.report["device"],
    ), prediction.labels


class _RemainingTime:
    """Time left, from the time that the finished cases took."""

    def __init__(self, count: int) -> None:
        self._start = time.monotonic()
        self._least = 1.0 / max(1, count)

    def left(self, done: float) -> str:
        """In words; empty before the first case is finished, since stages of a case take their time unevenly."""
        if done < self._least:
            return ""
        seconds = (time.monotonic() - self._start) / done * (1 - done)
        if seconds < 60:
            return f"{seconds:.0f} s left"
        minutes = round(seconds / 60)
        return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left"
