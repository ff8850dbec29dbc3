"""The paper's comparison and ablation on a synthetic cross-modality benchmark.

    mkd experiment paper-table --out runs/paper-table

Every row of the table is a handful of training runs that differ in one setting.  Runs are independent, several go at
once, a finished one is kept and a stopped one continues, so the same command carries on wherever the experiment was
left.  The published table: Li, Yu, Wang, Heng, AAAI 2020.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mkd_core.errors import InputError
from mkd_core.inference.execution import choose_precision
from mkd_core.io.atomic import write_text
from mkd_core.io.bundle import load_bundle
from mkd_core.training.bundling import box_margin_mm
from mkd_core.training.config import (
    AugmentationConfig,
    MethodConfig,
    NetworksConfig,
    Phase,
    RunConfig,
    Stage,
    TrainingConfig,
    config_from,
)
from mkd_core.training.datasets import LabelledData
from mkd_core.training.experiments.benchmark_data import Part, make_part
from mkd_core.training.experiments.scoring import score
from mkd_core.training.labelled_volumes import prepare_volume
from mkd_core.training.schedule import translates

#: Settings of the method by row; all rows share everything else.
ROWS: dict[str, dict[str, Any]] = {
    "target only": {"scheme": "target-only"},
    "target only, two networks": {"scheme": "target-only"},
    "fine-tuned from the assistant": {"scheme": "fine-tune"},
    "joint training": {"scheme": "joint"},
    "IAM images, no distillation": {"distillation": "none"},
    "MKD without IAM": {},
    "MKD without s->r": {"distillation": "real-to-syn"},
    "MKD without r->s": {"distillation": "syn-to-real"},
    "MKD": {},
    "MKD, student's stream": {"distillation_images": "student-stream"},
    "MKD, both streams": {"distillation_images": "both"},
}

#: Phases of rows that differ in what learns.
_PHASES = {"MKD without IAM": (Phase(generators="off"),)}

#: Rows that the method competes with, in the paper's sense.
COMPETITORS = ("fine-tuned from the assistant", "joint training", "IAM images, no distillation")

#: Not in the paper: what an ensemble of two networks is worth without the method.  The second one is trained with
#: another seed.
TWINS = "target only, two networks"
_TWIN_SEED = 1000

#: Settings that decide a result; others only say where and how fast.
_TABLES = ("networks", "method", "stages", "phases", "augmentation", "data")

#: Margin round the heart of results that do not name theirs, mm.
_EARLIER_MARGIN_MM = 20.0

#: Rows that the numbers of labelled volumes are all tried with; the others look at a switch.
_COMPARED = tuple(ROWS)[:9]


@dataclass(frozen=True)
class Scale:
    """Size of all runs.

    Attributes:
        stage: resolution, patches and length of every run.
        networks: widths.
        labelled: numbers of labelled target volumes.
        assistants: assistant volumes; and what the study of their number looks at.
        tested, validating: volumes.
        seeds: of training.
        segmentor_lr, generator_lr: peak learning rates; short runs need faster ones.
    """

    stage: Stage
    networks: NetworksConfig
    labelled: tuple[int, ...] = (4, 10)
    assistants: int = 20
    fewer_assistants: tuple[int, ...] = (5, 10)
    tested: int = 20
    validating: int = 8
    seeds: tuple[int, ...] = (0, 1)
    segmentor_lr: float = MethodConfig.segmentor_lr
    generator_lr: float = MethodConfig.generator_lr


SCALES = {
    "tiny": Scale(Stage(4, 8.0, 16, 2), NetworksConfig((4, 8, 8), 2, 1, 2), (2,), 2, (), 2, 1, (0,)),
    "small": Scale(
        Stage(2000, 5.0, 32, 2), NetworksConfig((8, 16, 32, 64), 4, 2, 8), segmentor_lr=5e-3, generator_lr=4e-4
    ),
    "full": Scale(Stage(20000, 2.0, 64, 2), NetworksConfig()),
}


@dataclass(frozen=True)
class Run:
    """One training run of the table."""

    row: str
    target: Literal["CT", "MR"]
    labelled: int
    assistants: int
    seed: int

    @property
    def name(self) -> str:
        """Fit for a file name."""
        row = "".join(letter if letter.isalnum() else "_" for letter in self.row.replace("->", " to "))
        return f"{self.target}_{self.labelled:02d}_{self.assistants:02d}_{row}_{self.seed}"


def runs_of(scale: Scale) -> Iterator[Run]:
    """All runs, the most telling first."""
    few = scale.labelled[0]
    for seed in scale.seeds:
        for row in _COMPARED:
            yield Run(row, "CT", few, scale.assistants, seed)
    for seed in scale.seeds:
        for count in scale.fewer_assistants:
            yield Run("MKD", "CT", few, count, seed)
        for row in ("target only", "MKD"):
            yield Run(row, "MR", few, scale.assistants, seed)
        for row in tuple(ROWS)[len(_COMPARED) :]:
            yield Run(row, "CT", few, scale.assistants, seed)
    for labelled in scale.labelled[1:]:
        for seed in scale.seeds:
            for row in _COMPARED:
                yield Run(row, "CT", labelled, scale.assistants, seed)


def run_all(
    scale: Scale,
    out: Path,
    kept: Path,
    *,
    jobs: int = 1,
    threads: int = 1,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Carry out what is missing.

    Args:
        scale: size of the runs.
        out: folder for volumes and runs.
        kept: JSON file for the result of every run, written anew after each.
        jobs: runs at a time.
        threads: CPU threads of each.
        device: "auto", "cpu", "cuda" or "mps".
        say: called with a line of text.

    Returns:
        Results, one a run, in the order of :func:`runs_of`.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    runs = list(dict.fromkeys(runs_of(scale)))
    say("Generating the benchmark's volumes")
    for part in _parts(scale):
        make_part(part, out / "volumes", jobs)
    results = _kept_results(kept, runs, scale)
    missing = [run for run in runs if run not in results]
    say(f"{len(runs)} runs, {len(runs) - len(missing)} of them done")
    begun = time.monotonic()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_carry_out, run, scale, out, threads, device): run for run in missing}
        for number, future in enumerate(as_completed(futures), 1):
            run, result = futures[future], future.result()
            results[run] = result
            _keep(kept, [results[run] for run in runs if run in results])
            left = (time.monotonic() - begun) / number * (len(missing) - number) / 60
            scores = ", ".join(f"{name} {_mean(rows):.4f}" for name, rows in result["test"].items())
            say(f"{run.name}: {scores}; {number} of {len(missing)}, about {left:.0f} min left")
    return [results[run] for run in runs]


def _parts(scale: Scale) -> Iterator[Part]:
    for target, assistant in (("CT", "MR"), ("MR", "CT")):
        labelled = max(scale.labelled) if target == "CT" else scale.labelled[0]
        yield Part("labelled", target, labelled)
        yield Part("assistant", assistant, scale.assistants)
        yield Part("validation", target, scale.validating)
        yield Part("test", target, scale.tested)


def _kept_results(kept: Path, runs: Sequence[Run], scale: Scale) -> dict[Run, dict[str, Any]]:
    """What earlier starts found out with these settings; a damaged or foreign file counts for nothing."""
    try:
        entries = json.loads(kept.read_text(encoding="utf-8"))
        found = {Run(**{field.name: entry[field.name] for field in fields(Run)}): entry for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {run: found[run] for run in runs if run in found and _had_settings(found[run], _settings(run, scale))}


def _had_settings(result: dict[str, Any], settings: dict[str, Any]) -> bool:
    try:
        known = dict(result["settings"])
        tables = {name: known.pop(name) for name in _TABLES if name in known}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # settings that have a new name since
            # A setting that did not exist then had what is now its default.
            known |= _plain(config_from(tables))
    except (KeyError, TypeError, InputError):
        return False
    return {"margin_mm": _EARLIER_MARGIN_MM, **known} == settings


def _keep(kept: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write results, one a line."""
    lines = ",\n".join(json.dumps(result) for result in results)
    write_text(kept, f"[\n{lines}\n]\n")


def _settings(run: Run, scale: Scale) -> dict[str, Any]:
    """All that decides a run's result, as plain values."""
    config = _config(run, scale, Path(), 1, "cpu")
    measured = {"tested": scale.tested, "validating": scale.validating, "margin_mm": box_margin_mm(config)}
    return _plain(config) | measured


def _plain(config: TrainingConfig) -> dict[str, Any]:
    values = asdict(config)
    return json.loads(json.dumps({name: values[name] for name in _TABLES}))


def _carry_out(run: Run, scale: Scale, out: Path, threads: int, device: str) -> dict[str, Any]:
    """Train and test; returns the run, its settings, its Dice and the CPU time of its training."""
    config = _config(run, scale, out, threads, device)
    modalities = {"labelled": run.target, "assistant": config.assistant, "validation": run.target, "test": run.target}
    counts = {
        "labelled": run.labelled,
        "assistant": run.assistants,
        "validation": scale.validating,
        "test": scale.tested,
    }
    cases = {
        kind: make_part(Part(kind, modality, counts[kind]), out / "volumes") for kind, modality in modalities.items()
    }
    margin_mm = box_margin_mm(config)
    data = LabelledData(cases["labelled"] + cases["assistant"], [], config.data, out / "prepared", margin_mm)
    begun = time.process_time()
    parts, aligns = _train(config, data)
    if run.row == TWINS:
        twin = replace(config, out=f"{config.out}_twin", run=replace(config.run, seed=run.seed + _TWIN_SEED))
        parts["segmentor_syn"] = _train(twin, data)[0]["segmentor_real"]
    trained = time.process_time() - begun
    rule = config.data.normalisation()[run.target]
    result: dict[str, Any] = {**vars(run), "settings": _settings(run, scale), "cpu_seconds": round(trained, 1)}
    for kind in ("test", "validation"):
        volumes = [
            prepare_volume(case, scale.stage.spacing_mm, rule, out / "prepared", margin_mm) for case in cases[kind]
        ]
        precision = choose_precision("auto", torch.device("cpu"))
        result[kind] = score(parts, volumes, scale.stage.spacing_mm, aligns, precision, margin_mm)
    return result


def _train(config: TrainingConfig, data: LabelledData) -> tuple[dict[str, nn.Module], bool]:
    """Networks of a run as its bundle holds them, and whether it trained generators."""
    from mkd_core.training.trainer import Trainer

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        trainer = Trainer(config, data, nowhere)
        bundle = load_bundle(trainer.run(), self_test=False)
    return {name: bundle.network(name) for name in trainer.method.parts()}, translates(config, config.steps)


def _mean(rows: Sequence[Sequence[float]]) -> float:
    numbers = [value for row in rows for value in row if value == value]
    return sum(numbers) / len(numbers)


def _config(run: Run, scale: Scale, out: Path, threads: int, device: str) -> TrainingConfig:
    return TrainingConfig(
        target=run.target,
        out=str(out / "runs" / run.name),
        networks=scale.networks,
        method=replace(MethodConfig(segmentor_lr=scale.segmentor_lr, generator_lr=scale.generator_lr), **ROWS[run.row]),
        stages=(scale.stage,),
        phases=_PHASES.get(run.row, (Phase(),)),
        augmentation=AugmentationConfig(),
        run=RunConfig(seed=run.seed, threads=threads, num_workers=0, device=device, validate_every=10**9),
    )
