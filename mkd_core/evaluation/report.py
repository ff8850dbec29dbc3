"""The figures of an evaluation as files: every case (``cases.csv``), summary for programs (``summary.json``) and for a
paper (``summary.md``).
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mkd_core
from mkd_core.errors import InputError
from mkd_core.evaluation.measures import Agreement, Distribution, agreement, distribution
from mkd_core.evaluation.results import CaseResult
from mkd_core.evaluation.run import Evaluation
from mkd_core.io.atomic import write_text
from mkd_core.measure.messages import describe
from mkd_core.protocol import MODALITIES
from mkd_core.structures import BY_KEY, DETAILED

#: Columns of ``cases.csv``; an empty field is a measure that is not defined.
COLUMNS = (
    "case",
    "modality",
    "split",
    "structure",
    "dice",
    "hd95_mm",
    "assd_mm",
    "volume_ml",
    "truth_ml",
    "difference_ml",
    "seconds",
    "failure",
)

#: Overlap and distances: (name in results, name in tables, decimals).
MEASURES = (("dice", "Dice", 3), ("hd95_mm", "HD95 (mm)", 1), ("assd_mm", "ASSD (mm)", 2))

_DEFINITIONS = (
    "Mean ± standard deviation over cases (divided by n - 1). The last column is the mean over the structures of each "
    "case, then over cases.",
    "Surface: voxels with one of six neighbours outside, at the resolution of the volumes. HD95: the larger of the "
    "two directed 95th percentiles of the "
    "distances between the surfaces (Huttenlocher et al. 1993; Metrics Reloaded, Maier-Hein et al. 2024). ASSD: mean "
    "over the surface voxels of both.",
    "Bias and limits: mean of the differences, segmentation minus truth, and 95 % limits of agreement, bias ± 1.96 "
    "standard deviations (Bland and Altman 1986).",
    "Dice is 0 where only one of segmentation and truth has a structure. Distances are then not defined: so many are "
    "missing from their means as is said. "
    "A case without a segmentation has Dice 0, no distances and no volumes.",
)


#: Of an evaluation of structures in detail.
_DEFINITION_OF_DETAILS = (
    f"{', '.join(DETAILED)} are compared within the box round the heart that was segmented, since vessels go on beyond "
    "it. They count where the truth labels them; where it has no left atrial appendage, that of the segmentation "
    "counts as left atrium."
)


@dataclass(frozen=True)
class StructureSummary:
    """Measures of one structure over cases.

    Attributes:
        dice, hd95_mm, assd_mm: overlap and distances.
        volume_ml: segmentation against truth.
        unlabelled: cases whose truth has no voxel of the structure.
    """

    dice: Distribution
    hd95_mm: Distribution
    assd_mm: Distribution
    volume_ml: Agreement
    unlabelled: int


@dataclass(frozen=True)
class Summary:
    """Measures over the cases of one modality.

    Attributes:
        modality: "CT" or "MR".
        cases: how many.
        failures: name of each case that could not be segmented, and why.
        structures: by key of structure.
        mean: of the structures of a case, over cases: by name of measure ("dice", "hd95_mm", "assd_mm"); ``missing``
            counts structures of cases.
    """

    modality: str
    cases: int
    failures: dict[str, str]
    structures: dict[str, StructureSummary]
    mean: dict[str, Distribution]


def summarise(results: Sequence[CaseResult]) -> list[Summary]:
    """A summary for each modality that there are cases of."""
    groups = {modality: [result for result in results if result.case.modality == modality] for modality in MODALITIES}
    return [_summarise_modality(modality, group) for modality, group in groups.items() if group]


def _summarise_modality(modality: str, results: Sequence[CaseResult]) -> Summary:
    structures = {}
    for structure in map(BY_KEY.__getitem__, results[0].structures):
        every = [result.structures[structure.key] for result in results]
        measured = [one for one in every if one.truth_ml is not None]
        structures[structure.key] = StructureSummary(
            **{name: distribution([getattr(one, name) for one in measured]) for name, *_ in MEASURES},
            volume_ml=agreement([one.volume_ml for one in measured], [one.truth_ml or 0.0 for one in measured]),
            unlabelled=sum(not one.truth_ml for one in every),
        )
    mean = {}
    for name, *_ in MEASURES:
        missing = sum(getattr(summary, name).missing for summary in structures.values())
        mean[name] = dataclasses.replace(distribution([result.mean(name) for result in results]), missing=missing)
    return Summary(
        modality,
        len(results),
        {result.case.name: result.failure for result in results if result.failure},
        structures,
        mean,
    )


def write_report(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``cases.csv``, ``summary.json`` and ``summary.md``; older ones are replaced.

    Raises:
        InputError: the folder cannot be written.
    """
    summaries = summarise(evaluation.results)
    texts = {
        "cases.csv": case_table(evaluation.results),
        "summary.json": json.dumps(summary_values(evaluation, summaries), indent=2) + "\n",
        "summary.md": summary_text(evaluation, summaries),
    }
    paths = []
    for name, text in texts.items():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise InputError(
                f"“{path}” cannot be written.", "Close it if it is open elsewhere, and check the space on the disk."
            ) from error
        paths.append(path)
    return paths


def case_table(results: Sequence[CaseResult]) -> str:
    """CSV text with a row per case and structure, see :data:`COLUMNS`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        case = result.case
        for key, one in result.structures.items():
            difference = None if one.volume_ml is None or one.truth_ml is None else one.volume_ml - one.truth_ml
            numbers = (one.dice, one.hd95_mm, one.assd_mm, one.volume_ml, one.truth_ml, difference)
            writer.writerow(
                [
                    case.name,
                    case.modality,
                    case.split,
                    key,
                    *("" if number is None else f"{number:.6g}" for number in numbers),
                    f"{result.seconds:.2f}",
                    result.failure,
                ]
            )
    return file.getvalue()


def case_line(result: CaseResult) -> str:
    """A case in one line, for the terminal."""
    dice, distance = result.mean("dice"), result.mean("hd95_mm")
    if result.failure:
        return f"{result.case.name:<20} {result.failure}"
    figures = (
        "Dice –" if dice is None else f"Dice {dice:.3f}" + ("" if distance is None else f"  HD95 {distance:5.1f} mm")
    )
    return f"{result.case.name:<20} {figures}  {result.seconds:6.1f} s"


def tables(results: Sequence[CaseResult]) -> list[str]:
    """Lines of the table of every modality, an empty one before each and after all, for the terminal."""
    return [
        line for summary in summarise(results) for line in ("", *modality_table(summary), *_shortcomings(summary))
    ] + [""]


def summary_values(evaluation: Evaluation, summaries: Sequence[Summary]) -> dict[str, Any]:
    """The summary as plain values; by modality, then structure, then measure."""
    bundle, identities = evaluation.bundle, evaluation.identities
    return {
        **identities,
        "bundle": bundle.identity | {"file": str(bundle.path)},
        "options": dataclasses.asdict(evaluation.options),
        "version": mkd_core.__version__,
        "date": datetime.date.today().isoformat(),
        "definitions": _definitions(evaluation),
        "modalities": {
            summary.modality: {
                "cases": summary.cases,
                "failures": summary.failures,
                "structures": {key: dataclasses.asdict(one) for key, one in summary.structures.items()},
                "mean": {name: dataclasses.asdict(one) for name, one in summary.mean.items()},
            }
            for summary in summaries
        },
        "warnings": {
            result.case.name: list(map(describe, result.warnings)) for result in evaluation.results if result.warnings
        },
    }


def _definitions(evaluation: Evaluation) -> list[str]:
    return [*_DEFINITIONS, *([] if evaluation.detail_weights is None else [_DEFINITION_OF_DETAILS])]


def summary_text(evaluation: Evaluation, summaries: Sequence[Summary]) -> str:
    """The summary in Markdown: a table per modality and what its figures mean."""
    bundle, details = evaluation.bundle, evaluation.detail_weights
    of_details = "" if details is None else f"; those for structures in detail have SHA-256 `{details.sha256}`"
    alignment = f", alignment “{evaluation.options.alignment}”" if evaluation.options.alignment else ""
    lines = [
        f"# Evaluation of {evaluation.weights}",
        "",
        f"Weights `{bundle.path.name}`, SHA-256 `{bundle.sha256}`{of_details}; mkd {mkd_core.__version__}{alignment}.",
        "",
    ]
    for summary in summaries:
        lines += [*modality_table(summary), *_shortcomings(summary), ""]
    return "\n".join(lines + [f"- {definition}" for definition in _definitions(evaluation)]) + "\n"


def modality_table(summary: Summary) -> list[str]:
    """Lines of a Markdown table: measures down, structures across."""
    volumes = [one.volume_ml for one in summary.structures.values()]
    rows = [
        [
            label,
            *(_mean_and_sd(getattr(one, name), decimals) for one in summary.structures.values()),
            _mean_and_sd(summary.mean[name], decimals),
        ]
        for name, label, decimals in MEASURES
    ]
    rows.append(["Volume bias (ml)", *(_each(one.bias, "{:+.1f}") for one in volumes), ""])
    rows.append(["95 % limits (ml)", *(_limits(one) for one in volumes), ""])
    heading = [
        f"{summary.modality}, n = {summary.cases}",
        *(BY_KEY[key].abbreviation for key in summary.structures),
        "mean",
    ]
    return [_row(heading), _row(["---"] * len(heading)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _each(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value).replace("-", "−")


def _mean_and_sd(one: Distribution, decimals: int) -> str:
    mean = _each(one.mean, f"{{:.{decimals}f}}")
    return mean if one.sd is None else f"{mean} ± {one.sd:.{decimals}f}"


def _limits(one: Agreement) -> str:
    return "–" if one.lower is None else f"{_each(one.lower, '{:.1f}')} to {_each(one.upper, '{:.1f}')}"


def _shortcomings(summary: Summary) -> list[str]:
    """Lines on cases that failed and on values that are not in the means."""
    lines = [f"- Not segmented: {name}. {reason}" for name, reason in summary.failures.items()]
    counted: tuple[tuple[str, Callable[[StructureSummary], int]], ...] = (
        ("Not labelled in the truth", lambda one: one.unlabelled),
        ("No distances", lambda one: one.hd95_mm.missing),
        ("No Dice", lambda one: one.dice.missing),
        ("No volumes", lambda one: one.volume_ml.missing),
    )
    for words, number in counted:
        found = [
            f"{BY_KEY[key].abbreviation} in {number(one)}" for key, one in summary.structures.items() if number(one)
        ]
        if found:
            lines.append(f"- {words}: {', '.join(found)} of {summary.cases} cases.")
    return ["", *lines] if lines else []
