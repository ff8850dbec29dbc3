"""What an experiment found: table, comparisons with intervals, learning curves; as text, JSON and a figure.

    python -m mkd_core.training.experiments.report REPORT.json... --out FOLDER

joins reports of one experiment whose rows were trained on different days or machines, and writes them as one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mkd_core import __version__
from mkd_core.io.atomic import write_text
from mkd_core.protocol import TARGET_POLICIES
from mkd_core.training.experiments.comparison import difference, difference_of_means, holm

#: The row that the others are compared with.
_METHOD = "MKD"

#: How rows are compared of which it is not known what every person has.
_BY_PAIRS = "Student's t"

#: What tells rows apart: labelled people, assistants, name.
_Key = tuple[int, int, str]

_PREDICTIONS = ("S_real", "S_syn", "ensemble")


def write(name: str, results: Sequence[Mapping[str, Any]], folder: Path, structures: Sequence[str]) -> str:
    """Write ``NAME.json``, ``NAME.md`` and, where matplotlib is installed, ``NAME.png``; returns the text.

    Args:
        name: of the experiment.
        results: of :func:`mkd_core.training.experiments.runs.run_all`.
        folder: for the files.
        structures: keys of the structures, in the order of the scores.
    """
    return _write(summarise(name, results, structures), folder)


def _write(summary: Mapping[str, Any], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    name, text = summary["experiment"], as_text(summary)
    write_text(folder / f"{name}.json", json.dumps(summary, indent=1) + "\n")
    write_text(folder / f"{name}.md", text)
    try:
        _plot(summary, folder / f"{name}.png")
    except ImportError:
        text += "\nmatplotlib is not installed: no figure was drawn.\n"
    return text


def summarise(name: str, results: Sequence[Mapping[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """Mean Dice of every row, and how it compares with the method.  Arguments as for :func:`write`."""
    policy, by_policy = _best_policy(results)
    groups: dict[tuple[int, int, str], list[Mapping[str, Any]]] = {}
    for result in sorted(results, key=lambda one: one["pair"]):
        groups.setdefault((result["labelled"], result["assistants"], result["row"]), []).append(result)
    rows = [
        {
            "labelled": labelled,
            "assistants": assistants,
            "row": row,
            "pairs": [one["pair"] for one in group],
            "steps": group[0]["settings"]["stages"][0]["steps"],
            "cpu_seconds": round(float(np.mean([one["cpu_seconds"] for one in group]))),
            **{kind: _by_pair(group, kind, policy) for kind in _PREDICTIONS},
            "structures": dict(zip(structures, _by_structure(group, policy))),
            "HD95 (mm)": _known_mean(
                [_scores(one, "ensemble", policy, "test HD95") for one in group if "test HD95" in one]
            ),
            "ensemble by person": [_by_person(one, policy).round(4).tolist() for one in group],
            "curve": group[0]["curve"],
        }
        for (labelled, assistants, row), group in groups.items()
    ]
    return {
        "experiment": name,
        "version": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "alignment at inference": {"kept": policy, "validation Dice": by_policy},
        "rows": rows,
        "comparisons": _comparisons(rows),
    }


def joined(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several reports of one experiment as one: all their rows, compared anew.

    Of a row that several reports hold, the first one's counts, with its pairs alone.  Rows of which a report does not
    say what every person has are compared by the means of their pairs, unless a report that holds the same two has
    compared them by people; they are not compared where they share a single pair.

    Raises:
        ValueError: the reports are of different experiments, or S_syn did not see the same of a target volume in all.
    """
    first, *others = summaries
    kept = [one["alignment at inference"] for one in summaries]
    alignment = next((one for one in kept if one["validation Dice"]), kept[0])
    if any(one["experiment"] != first["experiment"] for one in others) or any(
        _is_aligned_otherwise(one, alignment["kept"]) for one in summaries
    ):
        raise ValueError("these reports are not of one experiment with one way to align volumes")
    rows: dict[_Key, Mapping[str, Any]] = {}
    for row in (row for summary in summaries for row in summary["rows"]):
        rows.setdefault(_key(row), row)
    ordered = sorted(rows.values(), key=lambda row: (row["labelled"], -row["assistants"]))
    found_before = [
        one for summary in summaries for one in summary["comparisons"] if _still_holds(one, summary["rows"], ordered)
    ]
    return {
        **first,
        "alignment at inference": alignment,
        "rows": ordered,
        "comparisons": _comparisons(ordered, found_before),
    }


def _key(row: Mapping[str, Any]) -> _Key:
    return row["labelled"], row["assistants"], row["row"]


def _is_aligned_otherwise(summary: Mapping[str, Any], policy: str) -> bool:
    """Whether S_syn saw target volumes otherwise where it could have seen them so.  A report without the method's own
    runs has not chosen: its rows are those of volumes that were not aligned.
    """
    own = summary["alignment at inference"]
    if own["kept"] == policy:
        return False
    return bool(own["validation Dice"]) or any(f"ensemble {policy}" in row["curve"][-1] for row in summary["rows"])


def _still_holds(
    comparison: Mapping[str, Any], before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether both rows of an earlier report's comparison are among those of the joined one, unchanged."""
    labelled, key = comparison["labelled"], (comparison["labelled"], comparison["assistants"], comparison["over"])
    return _method_of(before, labelled) == _method_of(now, labelled) and any(
        row in before for row in now if _key(row) == key
    )


def _method_of(rows: Sequence[Mapping[str, Any]], labelled: int) -> Mapping[str, Any] | None:
    """The row that the others with as many labels are compared with: the method with the most assistants of them."""
    group = [row for row in rows if row["labelled"] == labelled]
    most = max((row["assistants"] for row in group), default=0)
    return next((row for row in group if (row["row"], row["assistants"]) == (_METHOD, most)), None)


def _best_policy(results: Iterable[Mapping[str, Any]]) -> tuple[str, dict[str, float]]:
    """What S_syn should see, by validation of the method's own runs."""
    found = [one["validation"] for one in results if one["row"] == _METHOD]
    by_policy = {
        policy: round(float(np.nanmean([np.array(one[f"ensemble {policy}"], float) for one in found])), 4)
        for policy in TARGET_POLICIES
        if found and all(f"ensemble {policy}" in one for one in found)
    }
    return (max(by_policy, key=lambda one: by_policy[one]) if by_policy else "none"), by_policy


def _scores(result: Mapping[str, Any], kind: str, policy: str, part: str = "test") -> np.ndarray:
    """Dice, or HD95 in mm, on the test, ``(people, structures)``."""
    test = result[part]
    names = (f"{kind} {policy}", f"{kind} none", kind)
    return np.array(next(test[name] for name in names if name in test), float)


def _by_pair(group: Sequence[Mapping[str, Any]], kind: str, policy: str) -> list[float]:
    return [round(float(np.nanmean(_scores(one, kind, policy))), 4) for one in group]


def _by_structure(group: Sequence[Mapping[str, Any]], policy: str) -> list[float]:
    means = np.nanmean([np.nanmean(_scores(one, "ensemble", policy), axis=0) for one in group], axis=0)
    return [round(float(value), 4) for value in means]


def _known_mean(scores: Sequence[np.ndarray]) -> float | None:
    """Mean of what is defined; None if nothing is."""
    known = [value for one in scores for value in one.ravel().tolist() if not np.isnan(value)]
    return round(float(np.mean(known)), 2) if known else None


def _by_person(result: Mapping[str, Any], policy: str) -> np.ndarray:
    """Mean Dice of the ensemble over the structures of everyone in the test."""
    found: np.ndarray = np.nanmean(_scores(result, "ensemble", policy), axis=1)
    return found


def _comparisons(
    rows: Sequence[Mapping[str, Any]], found_before: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The method's ensemble minus every other row with as many labels, on the pairs that both have; p values are
    corrected over all rows of a number of labels.

    Args:
        rows: of a summary.
        found_before: comparisons of these rows, which are kept but for the correction.
    """
    found = []
    for labelled in dict.fromkeys(row["labelled"] for row in rows):
        family: list[dict[str, Any]] = []
        method = _method_of(rows, labelled)
        for row in rows:
            if method is None or row is method or row["labelled"] != labelled:
                continue
            named = {"labelled": labelled, "over": row["row"], "assistants": row["assistants"]}
            known = [dict(one) for one in found_before if all(one[name] == value for name, value in named.items())]
            compared = known[0] if known else _difference(method, row)
            if compared is not None:
                family.append(named | compared)
        for one, corrected in zip(family, holm([float(one["p"]) for one in family])):
            found.append(one | {"p corrected": corrected})
    return found


def _difference(method: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the pairs that both rows have: over people, where both say what every person has; None where nothing can be
    compared.
    """
    shared = [pair for pair in row["pairs"] if pair in method["pairs"]]
    places = [[one["pairs"].index(pair) for pair in shared] for one in (method, row)]
    name = "ensemble by person"
    if shared and name in method and name in row:
        ours, theirs = (np.array(one[name])[at] for one, at in zip((method, row), places))
        return asdict(difference(ours, theirs))
    if len(shared) < 2:
        return None
    ours, theirs = (np.array(one["ensemble"])[at] for one, at in zip((method, row), places))
    people = next((len(one[name][0]) for one in (method, row) if name in one), 0)
    return asdict(difference_of_means(ours.tolist(), theirs.tolist(), people)) | {"test": _BY_PAIRS}


def as_text(summary: Mapping[str, Any]) -> str:
    """The table and the comparisons in Markdown."""
    lines: list[str] = []
    for labelled in dict.fromkeys(row["labelled"] for row in summary["rows"]):
        rows = [row for row in summary["rows"] if row["labelled"] == labelled]
        keys = list(rows[0]["structures"])
        lines += [
            f"### {labelled} labelled people, mean Dice on the test",
            "",
            f"| trained | assistants | steps | CPU s | S_real | S_syn | ensemble | {' | '.join(keys)} | HD95 (mm) |",
            f"| {' | '.join(['---'] * (8 + len(keys)))} |",
        ]
        for row in rows:
            values = [_means(row[kind]) for kind in _PREDICTIONS]
            values += [*(f"{row['structures'][key]:.3f}" for key in keys), _distance(row["HD95 (mm)"])]
            fixed = f"| {row['row']} | {row['assistants']} | {row['steps']} | {row['cpu_seconds']} |"
            lines.append(f"{fixed} {' | '.join(values)} |")
        lines += [""]
    kept = summary["alignment at inference"]
    tried = ", ".join(f"{policy} {value:.4f}" for policy, value in kept["validation Dice"].items())
    if tried:
        lines += [f"What S_syn sees of a target volume, by validation: {tried}; the table uses {kept['kept']}.", ""]
    if summary["comparisons"]:
        lines += [
            "| labelled | MKD's ensemble over | Dice points | 95 % interval | p | p corrected | pairs, people |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
    for one in summary["comparisons"]:
        mean, low, high = (100 * one[name] for name in ("mean", "low", "high"))
        lines.append(
            f"| {one['labelled']} | {one['over']} ({one['assistants']} assistants) | {mean:+.2f} | "
            f"{low:+.2f} to {high:+.2f} | {one['p']:.4f} | {one['p corrected']:.4f} | "
            f"{one['pairs']}, {one['people'] or '–'} |"
        )
    if any(one["pairs"] == 1 for one in summary["comparisons"]):
        lines += ["", "Where there is a single pair of draw and seed, the interval says nothing of how runs differ."]
    by_pairs = [one["over"] for one in summary["comparisons"] if one.get("test") == _BY_PAIRS]
    if by_pairs:
        lines += ["", f"By {_BY_PAIRS} of the means of pairs, not by the bootstrap: {', '.join(by_pairs)}."]
    return "\n".join(lines) + "\n"


def _distance(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _means(values: Sequence[float]) -> str:
    listed = f" ({', '.join(f'{value:.3f}' for value in values)})" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{listed}"


def _plot(summary: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    from mkd_core.io.atomic import write_file

    figure = Figure(figsize=(13, 0.45 * max(6, len(summary["comparisons"])) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, one in enumerate(reversed(summary["comparisons"])):
        mean, low, high = (100 * one[name] for name in ("mean", "low", "high"))
        left.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color="#1f5a8a", capsize=3)
    labels = [f"{one['over']}, {one['labelled']} labelled" for one in reversed(summary["comparisons"])]
    left.set_yticks(range(len(labels)), labels)
    left.axvline(0, color="0.6", linewidth=1)
    left.set_xlabel("MKD's ensemble is better by, Dice points (95 % interval)")
    kept = summary["alignment at inference"]["kept"]
    for row in summary["rows"]:
        points = [(point["step"], point.get(f"ensemble {kept}", point.get("ensemble none"))) for point in row["curve"]]
        right.plot(*zip(*points), marker=".", label=f"{row['row']}, {row['labelled']} labelled")
    right.set_xlabel("steps")
    right.set_ylabel("validation Dice of the ensemble, first pair")
    right.legend(fontsize=7)
    write_file(path, lambda draft: figure.savefig(draft, format="png", dpi=110))


def main() -> int:
    """Join reports."""
    parser = argparse.ArgumentParser(
        prog="python -m mkd_core.training.experiments.report", description="joins reports of one experiment"
    )
    parser.add_argument(
        "reports", type=Path, nargs="+", metavar="REPORT.json", help="those that count first come first"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the joined report")
    chosen = parser.parse_args()
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in chosen.reports]
    print(_write(joined(summaries), chosen.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
