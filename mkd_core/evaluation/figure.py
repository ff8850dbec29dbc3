"""The figure of an evaluation: Dice, agreement of volumes, and how the best, the median and the worst case look."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mkd_core.errors import InputError, MKDError
from mkd_core.evaluation.cases import read_case
from mkd_core.evaluation.measures import agreement
from mkd_core.evaluation.results import CaseResult
from mkd_core.io import atomic
from mkd_core.io.preview import comparison
from mkd_core.protocol import MODALITIES
from mkd_core.structures import labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from mkd_core.evaluation.run import Evaluation

# What tells things apart is position, mark and stroke; the two colours also differ for colour-blind eyes and in grey.
_DARK = "#1f3b5c"
_WARM = "#d55e00"

# Inches.
_WIDTH = 10.0
_TITLE_HEIGHT, _DICE_HEIGHT, _VOLUMES_HEIGHT, _SLICES_HEIGHT = 0.4, 2.8, 2.2, 8.4  # volumes: of a row
_SLICE_WIDTH = 2.55

_STYLE = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}

_DPI = 180

#: Plots of volumes side by side.
_VOLUME_PLOTS = 4

_VIEWS = ("axial", "coronal", "sagittal")


def require_matplotlib() -> None:
    """Raise :class:`MKDError` if matplotlib is not there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MKDError(
            "matplotlib, which draws the figure, is not installed.",
            "Install it by “pip install matplotlib”, or leave out the figure by --no-figure.",
        )


def write_figure(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``evaluation.png`` and ``evaluation.pdf``; cases shown as slices are read again.

    Raises:
        MKDError: matplotlib is not installed.
        InputError: the folder cannot be written.
    """
    require_matplotlib()
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure = _draw(evaluation)
        paths = [folder / "evaluation.png", folder / "evaluation.pdf"]
        for path in paths:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                atomic.write_file(path, lambda draft: figure.savefig(draft, dpi=_DPI))
            except OSError as error:
                raise InputError(
                    f"“{path}” cannot be written.", "Close it if it is open elsewhere, and check the space on the disk."
                ) from error
    return paths


def exemplary_cases(results: Sequence[CaseResult]) -> list[tuple[str, CaseResult]]:
    """Best, median and worst case by mean Dice, with these words; fewer if there are fewer cases."""
    ranked = sorted(
        (result for result in results if result.mean("dice") is not None),
        key=lambda result: -(result.mean("dice") or 0.0),
    )
    chosen = {0: "Best", len(ranked) - 1: "Worst"} if len(ranked) > 1 else {0: "Only case"} if ranked else {}
    if len(ranked) > 2:
        chosen[(len(ranked) - 1) // 2] = "Median"
    return [(word, ranked[place]) for place, word in sorted(chosen.items())]


def _draw(evaluation: Evaluation) -> Figure:
    from matplotlib.figure import Figure

    groups = [
        (modality, group)
        for modality in MODALITIES
        if (group := [one for one in evaluation.results if one.case.modality == modality])
    ]
    volumes_height = _VOLUMES_HEIGHT * _volume_rows(evaluation.results)
    height = _TITLE_HEIGHT + _DICE_HEIGHT + volumes_height + _SLICES_HEIGHT
    figure = Figure(figsize=(_WIDTH * len(groups), height))
    blocks = figure.subfigures(1, len(groups), squeeze=False)[0]
    for (modality, results), block in zip(groups, blocks):
        title, boxes, volumes, slices = block.subfigures(
            4, 1, height_ratios=(_TITLE_HEIGHT, _DICE_HEIGHT, volumes_height, _SLICES_HEIGHT)
        )
        title.text(
            0.5,
            0.35,
            f"{evaluation.weights} on {len(results)} {modality}",
            ha="center",
            va="center",
            fontsize=12,
            parse_math=False,
        )
        _draw_dice(boxes, results)
        _draw_volumes(volumes, results)
        _draw_slices(slices, results, evaluation)
    return figure


def _draw_dice(block: SubFigure, results: Sequence[CaseResult]) -> None:
    axes = block.subplots(gridspec_kw={"left": 0.07, "right": 0.98, "bottom": 0.11, "top": 0.88})
    structures = labelled(results[0].structures)
    columns = [[(result, result.structures[structure.key].dice) for result in results] for structure in structures]
    columns.append([(result, result.mean("dice")) for result in results])
    names = [structure.abbreviation for structure in structures] + ["mean"]
    values = [[value for _, value in column if value is not None] for column in columns]
    axes.boxplot(
        values,
        positions=range(len(names)),
        widths=0.5,
        showfliers=False,
        medianprops={"color": _WARM, "linewidth": 1.6},
        boxprops={"color": _DARK},
        whiskerprops={"color": _DARK},
        capprops={"color": _DARK},
    )
    for place, column in enumerate(columns):
        known = [(result, value) for result, value in column if value is not None]
        shifts = np.linspace(-0.16, 0.16, len(known)) if len(known) > 1 else [0.0]
        for failed, mark in ((False, "o"), (True, "x")):
            points = [
                (place + shift, value)
                for shift, (result, value) in zip(shifts, known)
                if bool(result.failure) == failed
            ]
            if points:
                axes.plot(
                    *zip(*points),
                    mark,
                    color=_WARM if failed else _DARK,
                    markersize=5 if failed else 3,
                    alpha=0.9 if failed else 0.55,
                    linestyle="none",
                )
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("Dice")
    lowest = min((value for column in values for value in column), default=0.0)
    axes.set_ylim(max(-0.02, np.floor(10 * lowest - 0.5) / 10 if lowest > 0.1 else -0.02), 1.0)
    axes.grid(axis="y", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.text(
        0.0,
        1.04,
        "line: median; box: quartiles; whiskers: farthest case within 1.5 box lengths; dots: cases",
        transform=axes.transAxes,
        fontsize=7.5,
    )
    if any(result.failure for result in results):
        axes.text(1.0, 1.04, "×  not segmented", color=_WARM, transform=axes.transAxes, ha="right")


def _volume_rows(results: Sequence[CaseResult]) -> int:
    """Rows of plots: one plot a structure, and a place for what the marks mean."""
    return math.ceil((len(results[0].structures) + 1) / _VOLUME_PLOTS)


def _draw_volumes(block: SubFigure, results: Sequence[CaseResult]) -> None:
    rows = _volume_rows(results)
    grid = block.subplots(
        rows,
        _VOLUME_PLOTS,
        gridspec_kw={
            "left": 0.07,
            "right": 0.95,
            "bottom": 0.2 / rows,
            "top": 1 - 0.16 / rows,
            "hspace": 0.55,
            "wspace": 0.58,
        },
    )
    for structure, axes in zip(labelled(results[0].structures), grid.ravel()):
        measured = [result.structures[structure.key] for result in results]
        _draw_agreement(
            axes,
            structure.name,
            [
                (one.volume_ml, one.truth_ml)
                for one in measured
                if one.volume_ml is not None and one.truth_ml is not None
            ],
        )
    rest = grid.ravel()[len(results[0].structures) :]
    for axes in rest:
        axes.axis("off")
    note = rest[-1]
    from matplotlib.lines import Line2D

    note.legend(
        handles=[
            Line2D([], [], marker="o", color=_DARK, linestyle="none", markersize=4, label="case"),
            Line2D([], [], color=_WARM, label="bias"),
            Line2D([], [], color=_WARM, linestyle="--", label="95 % limits of agreement"),
        ],
        loc="center",
        frameon=False,
        title="Bland-Altman, ml",
    )


def _draw_agreement(axes: Axes, title: str, pairs: Sequence[tuple[float, float]]) -> None:
    axes.set_title(title)
    axes.axhline(0.0, color="0.75", linewidth=0.8)
    if not pairs:
        axes.text(0.5, 0.5, "no volumes", transform=axes.transAxes, ha="center")
        return
    found, true = np.array(pairs).T
    axes.plot((found + true) / 2, found - true, "o", color=_DARK, markersize=3.5, alpha=0.75)
    agreed = agreement(found.tolist(), true.tolist())
    lines = [(agreed.bias, "-"), (agreed.lower, "--"), (agreed.upper, "--")]
    for value, stroke in lines:
        if value is not None:
            axes.axhline(value, color=_WARM, linestyle=stroke, linewidth=1.1)
            axes.annotate(
                f"{value:+.1f}".replace("-", "−"),
                (1.0, value),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                ha="left",
                va="center",
                fontsize=7,
                color=_WARM,
            )
    known = [value for value, _ in lines if value is not None] + [0.0, *(found - true)]
    reach = max(np.ptp(known), 1.0)
    axes.set_ylim(min(known) - 0.15 * reach, max(known) + 0.15 * reach)
    axes.margins(x=0.12)
    axes.set_xlabel("mean of segmentation and truth", fontsize=7.5, labelpad=1)
    axes.set_ylabel("segmentation − truth", fontsize=7.5, labelpad=1)
    axes.tick_params(labelsize=7.5)


def _draw_slices(block: SubFigure, results: Sequence[CaseResult], evaluation: Evaluation) -> None:
    from matplotlib.patches import Patch

    shown = exemplary_cases(results)
    half = 0.5 * max(1, len(shown)) * _SLICE_WIDTH / _WIDTH
    grid = block.subplots(
        len(_VIEWS),
        max(1, len(shown)),
        squeeze=False,
        gridspec_kw={
            "left": 0.5 - half,
            "right": 0.5 + half,
            "bottom": 0.07,
            "top": 0.965,
            "hspace": 0.03,
            "wspace": 0.03,
        },
    )
    for axes in grid.ravel():
        axes.axis("off")
    structures = labelled(results[0].structures)
    for (word, result), column in zip(shown, grid.T):
        image, truth = read_case(result.case, structures)
        slices = comparison(image, truth, evaluation.folder.segmentation(result), result.case.modality, structures)
        outcome = "not segmented" if result.failure else f"Dice {result.mean('dice'):.3f}"
        column[0].set_title(f"{word}: {result.case.name}, {outcome}", fontsize=8)
        for view, axes in zip(_VIEWS, column):
            if view in slices:
                axes.imshow(slices[view], interpolation="lanczos")
    for view, axes in zip(_VIEWS, grid[:, 0]):
        axes.text(-0.02, 0.5, view, transform=axes.transAxes, rotation=90, va="center", ha="right")
    colours = [
        Patch(facecolor=np.array(structure.color) / 255, label=structure.abbreviation) for structure in structures
    ]
    block.legend(
        handles=colours,
        ncols=len(colours),
        loc="lower center",
        frameon=False,
        title="filled: segmentation; outline: truth",
        handlelength=1.2,
    )
