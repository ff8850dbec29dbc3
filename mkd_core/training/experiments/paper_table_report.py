"""The table of the paper's comparison, its plot, and which of the paper's claims it bears out."""

from __future__ import annotations

import itertools
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mkd_core import __version__
from mkd_core.io.atomic import write_text
from mkd_core.protocol import TARGET_POLICIES
from mkd_core.structures import STRUCTURES
from mkd_core.training.experiments.paper_table import COMPETITORS, TWINS

#: Mean Dice in the paper (10 labelled CT, 20 MR), for comparison in the text.
_PAPER = {"target only": 0.8706, "best competitor": 0.8850, "MKD": 0.9012}

_PREDICTIONS = ("S_real", "S_syn", "ensemble")


def write(results: Sequence[dict[str, Any]], scale: str, folder: Path) -> str:
    """Write ``paper-table.json``, ``paper-table.md`` and, where matplotlib is installed, ``paper-table.png``; returns
    the table as text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(results, scale)
    text = _text(summary)
    for name, content in (("paper-table.json", json.dumps(summary, indent=1) + "\n"), ("paper-table.md", text)):
        write_text(folder / name, content)
    try:
        _plot(summary, folder / "paper-table.png")
    except ImportError:
        text += "\nmatplotlib is not installed: no plot was drawn.\n"
    return text


def summarise(results: Sequence[dict[str, Any]], scale: str) -> dict[str, Any]:
    """Mean Dice of every row over test volumes, structures and seeds, and what follows.

    Args:
        results: of :func:`mkd_core.training.experiments.paper_table.run_all`.
        scale: its name.
    """
    policy, by_policy = _best_policy(results)
    rows = []
    for key in dict.fromkeys((r["row"], r["target"], r["labelled"], r["assistants"]) for r in results):
        runs = [r for r in results if (r["row"], r["target"], r["labelled"], r["assistants"]) == key]
        row: dict[str, Any] = dict(zip(("row", "target", "labelled", "assistants"), key))
        row |= {
            "seeds": [r["seed"] for r in runs],
            "cpu_seconds": round(float(np.mean([r["cpu_seconds"] for r in runs]))),
        }
        for prediction in _PREDICTIONS:
            means = [_mean(_rows_of(r["test"], prediction, policy)) for r in runs]
            row[prediction] = {"mean": _rounded(float(np.mean(means))), "by seed": [_rounded(mean) for mean in means]}
        structures = np.nanmean(
            [np.nanmean(np.array(_rows_of(r["test"], "ensemble", policy), float), axis=0) for r in runs], axis=0
        )
        row["ensemble"]["by structure"] = {s.key: _rounded(value) for s, value in zip(STRUCTURES, structures)}
        rows.append(row)
    return {
        "experiment": "paper-table",
        "scale": scale,
        "version": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "alignment at inference": {"kept": policy, "validation Dice": by_policy},
        "rows": rows,
        "claims": _claims(rows),
        "paper": _PAPER,
    }


def _rows_of(scores: dict[str, list[list[float]]], prediction: str, policy: str) -> list[list[float]]:
    return next(scores[name] for name in (f"{prediction} {policy}", f"{prediction} none", prediction) if name in scores)


def _best_policy(results: Sequence[dict[str, Any]]) -> tuple[str, dict[str, float]]:
    """What S_syn should see of a target volume, by the validation volumes of the full method with CT as the target."""
    full = [r for r in results if r["row"] == "MKD" and r["target"] == "CT"]
    dice = {
        policy: _rounded(float(np.mean([_mean(r["validation"][f"ensemble {policy}"]) for r in full])))
        for policy in TARGET_POLICIES
    }
    return max(dice, key=lambda policy: dice[policy]), dice


def _mean(rows: Sequence[Sequence[float]]) -> float:
    return float(np.nanmean(np.array(rows, float)))


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paper's claims, each with the numbers it stands on, in Dice points."""
    claims = []
    most = max((row["assistants"] for row in rows), default=0)

    def claim(text: str, gain: float | None) -> None:
        if gain is not None:
            claims.append({"claim": text, "points": round(100 * gain, 2), "holds": gain > 0})

    for target in dict.fromkeys(row["target"] for row in rows):
        for labelled in sorted({row["labelled"] for row in rows if row["target"] == target}):

            def dice(
                name: str, prediction: str = "ensemble", assistants: int = most, target=target, labelled=labelled
            ) -> float | None:
                found = [
                    row
                    for row in rows
                    if (row["row"], row["target"], row["labelled"], row["assistants"])
                    == (name, target, labelled, assistants)
                ]
                return found[0][prediction]["mean"] if found else None

            def gain(better: float | None, worse: float | None) -> float | None:
                return None if better is None or worse is None else better - worse

            where = f"{labelled} labelled {target}"
            claim(f"{where}: MKD's ensemble over the target alone", gain(dice("MKD"), dice("target only")))
            claim(f"{where}: MKD's ensemble over S_real", gain(dice("MKD"), dice("MKD", "S_real")))
            claim(f"{where}: MKD's S_real over the target alone", gain(dice("MKD", "S_real"), dice("target only")))
            competitors = [value for name in COMPETITORS if (value := dice(name)) is not None]
            if competitors:
                claim(f"{where}: MKD's ensemble over every competitor", gain(dice("MKD"), max(competitors)))
                claim(f"{where}: MKD's S_real over every competitor", gain(dice("MKD", "S_real"), max(competitors)))
            claim(f"{where}: MKD's ensemble over two networks of the target alone", gain(dice("MKD"), dice(TWINS)))
            for name in ("MKD without IAM", "MKD without s->r", "MKD without r->s"):
                claim(
                    f"{where}: {name.replace('MKD without', 'without')}, the ensemble loses",
                    gain(dice("MKD"), dice(name)),
                )
            claim(
                f"{where}: without s->r, S_real loses", gain(dice("MKD", "S_real"), dice("MKD without s->r", "S_real"))
            )
            claim(f"{where}: without r->s, S_syn loses", gain(dice("MKD", "S_syn"), dice("MKD without r->s", "S_syn")))
            fewer = sorted(
                {
                    row["assistants"]
                    for row in rows
                    if row["row"] == "MKD" and row["target"] == target and row["labelled"] == labelled
                }
            )
            for less, more in itertools.pairwise(fewer):
                claim(
                    f"{where}: {more} assistant volumes over {less}",
                    gain(dice("MKD", assistants=more), dice("MKD", assistants=less)),
                )
    return claims


def _text(summary: dict[str, Any]) -> str:
    lines = []
    groups = dict.fromkeys((row["target"], row["labelled"]) for row in summary["rows"])
    for target, labelled in groups:
        lines += [
            f"### {labelled} labelled {target}, mean Dice of seven structures",
            "",
            "| trained | assistants | S_real | S_syn | ensemble | " + " | ".join(s.key for s in STRUCTURES) + " |",
            "| --- | --- | --- | --- | --- |" + " --- |" * len(STRUCTURES),
        ]
        for row in summary["rows"]:
            if (row["target"], row["labelled"]) == (target, labelled):
                single = row["S_real"]["by seed"] == row["ensemble"]["by seed"] == row["S_syn"]["by seed"]
                predictions = [
                    _cell(row[prediction]) if prediction == "ensemble" or not single else ""
                    for prediction in _PREDICTIONS
                ]
                assistants = "-" if row["row"].startswith("target only") else row["assistants"]
                structures = [f"{value:.3f}" for value in row["ensemble"]["by structure"].values()]
                lines.append("| " + " | ".join(map(str, [row["row"], assistants, *predictions, *structures])) + " |")
        lines.append("")
    alignment = summary["alignment at inference"]
    lines += [
        "Structures are the ensemble's. Several values: one a seed, after their mean.",
        f"What S_syn sees of a target volume, by validation Dice of MKD: "
        f"{', '.join(f'{name} {value:.4f}' for name, value in alignment['validation Dice'].items())}; "
        f"the table uses {alignment['kept']}.",
        "",
        "| claim | Dice points | |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {one['claim']} | {one['points']:+.2f} | {'yes' if one['holds'] else 'no'} |" for one in summary["claims"]
    ]
    return "\n".join(lines) + "\n"


def _cell(prediction: dict[str, Any]) -> str:
    seeds = (
        f" ({', '.join(f'{value:.3f}' for value in prediction['by seed'])})" if len(prediction["by seed"]) > 1 else ""
    )
    return f"{prediction['mean']:.4f}{seeds}"


def _plot(summary: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys((row["target"], row["labelled"]) for row in summary["rows"]))
    figure, axes = pyplot.subplots(
        1, len(groups), figsize=(1.5 + 4.6 * len(groups), 4.8), squeeze=False, layout="constrained"
    )
    for axis, (target, labelled) in zip(axes[0], groups):
        rows = [row for row in summary["rows"] if (row["target"], row["labelled"]) == (target, labelled)]
        names = [
            row["row"] + (f" ({row['assistants']})" if row["assistants"] != max(r["assistants"] for r in rows) else "")
            for row in rows
        ]
        for offset, (prediction, marker, colour) in enumerate(
            zip(_PREDICTIONS, "s^o", ("#0072b2", "#e69f00", "#000000"))
        ):
            for number, row in enumerate(rows):
                values = row[prediction]["by seed"]
                height = len(rows) - number - 0.2 * (offset - 1)
                axis.plot(
                    values,
                    [height] * len(values),
                    marker,
                    color=colour,
                    markersize=5,
                    linestyle="none",
                    label=prediction if number == 0 else None,
                    alpha=0.8,
                )
        axis.set_yticks(range(len(rows), 0, -1), names)
        axis.grid(axis="x", alpha=0.3)
        axis.set_xlabel("mean Dice, one mark a seed")
        axis.set_title(f"{labelled} labelled {target}")
    axes[0][0].legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
