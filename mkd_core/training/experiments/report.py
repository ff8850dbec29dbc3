"""What an experiment found: table, comparisons with intervals, learning curves; as text, JSON and a figure."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mkd_core import __version__
from mkd_core.io.atomic import write_text
from mkd_core.protocol import TARGET_POLICIES
from mkd_core.training.experiments.comparison import difference, holm

#: The row that the others are compared with.
_METHOD = "MKD"

_PREDICTIONS = ("S_real", "S_syn", "ensemble")


def write(name: str, results: Sequence[Mapping[str, Any]], folder: Path, structures: Sequence[str]) -> str:
    """Write ``NAME.json``, ``NAME.md`` and, where matplotlib is installed, ``NAME.png``; returns the text.

    Args:
        name: of the experiment.
        results: of :func:`mkd_core.training.experiments.runs.run_all`.
        folder: for the files.
        structures: keys of the structures, in the order of the scores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(name, results, structures)
    text = as_text(summary)
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
        "comparisons": _comparisons(groups, policy),
    }


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


def _comparisons(
    groups: Mapping[tuple[int, int, str], Sequence[Mapping[str, Any]]], policy: str
) -> list[dict[str, Any]]:
    """The method's ensemble minus every other row with as many labels, on the pairs that both have; p values are
    corrected over all rows of a number of labels.
    """
    found = []
    for labelled in dict.fromkeys(labelled for labelled, _, _ in groups):
        family: list[dict[str, Any]] = []
        most = max(assistants for number, assistants, _ in groups if number == labelled)
        method = {one["pair"]: one for one in groups.get((labelled, most, _METHOD), ())}
        for (number, assistants, row), group in groups.items():
            shared = [one for one in group if one["pair"] in method]
            if number != labelled or not shared or (row, assistants) == (_METHOD, most):
                continue
            ours, theirs = (
                np.array([np.nanmean(_scores(one, "ensemble", policy), axis=1) for one in ones])
                for ones in ([method[one["pair"]] for one in shared], shared)
            )
            family.append(
                {"labelled": labelled, "over": row, "assistants": assistants} | asdict(difference(ours, theirs))
            )
        for one, corrected in zip(family, holm([float(one["p"]) for one in family])):
            found.append(one | {"p corrected": corrected})
    return found


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
            f"{low:+.2f} to {high:+.2f} | {one['p']:.4f} | {one['p corrected']:.4f} | {one['pairs']}, {one['people']} |"
        )
    if any(one["pairs"] == 1 for one in summary["comparisons"]):
        lines += ["", "Where there is a single pair of draw and seed, the interval says nothing of how runs differ."]
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
