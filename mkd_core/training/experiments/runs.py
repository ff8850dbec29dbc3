"""What all experiments share: rows that differ in one thing, runs that resume, results that are kept one by one.

A row is a way to train; a run is a row with so many labelled people, so many assistants, and one pair of draw and seed.
Runs are independent, a finished one is kept and a stopped one continues, so the same command carries on wherever an
experiment was left.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from mkd_core.evaluation.cases import Case
from mkd_core.io.atomic import write_text
from mkd_core.io.bundle import load_bundle
from mkd_core.io.preview import write_png
from mkd_core.protocol import Modality
from mkd_core.structures import Structure
from mkd_core.training.bundling import box_margin_mm
from mkd_core.training.config import (
    AugmentationConfig,
    DataConfig,
    MethodConfig,
    NetworksConfig,
    Phase,
    RunConfig,
    Stage,
    TrainingConfig,
)
from mkd_core.training.datasets import LabelledData
from mkd_core.training.experiments.scoring import Measure, Scores, device_of, heart_crop, score
from mkd_core.training.labelled_volumes import PreparedVolume, prepare_volume
from mkd_core.training.pairs import Pairs
from mkd_core.training.recipes import ALIGNMENT, GENERATORS, phases
from mkd_core.training.schedule import translates
from mkd_core.training.trainer import Trainer
from mkd_core.training.validation import panel

#: Settings that decide a result; others only say where and how fast.
_TABLES = ("networks", "method", "stages", "phases", "augmentation", "data")

#: Coarse and short runs need faster learning rates than the defaults.
QUICK = MethodConfig(segmentor_lr=5e-3, generator_lr=4e-4)

#: Networks of scales that show that everything runs, and of those that can be had on a few processors.
TINY_NETWORKS = NetworksConfig((4, 8, 8), generator=2, generator_blocks=1, discriminator=2)
SMALL_NETWORKS = NetworksConfig((8, 16, 32, 64), generator=4, generator_blocks=2, discriminator=8)

#: Pixels of a voxel in pictures.
_PICTURE_ZOOM = 4

#: Seeds of a second network and of the first are so far apart.
_TWIN_SEED = 1000

#: What the cases of a benchmark are for.
Kind = Literal["labelled", "assistant", "oracle", "validation", "test"]


@dataclass(frozen=True)
class Row:
    """A way to train.

    Attributes:
        method, networks: settings that differ from the scale's.
        phases: of the run, given its length.
        length: steps as a multiple of the scale's.
        twin: a second network with another seed takes the place of S_syn.
        oracle: the assistants' people are labelled in the target modality too.
        claim: whether a claim of the paper rests on it.
    """

    method: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    phases: Callable[[int], tuple[Phase, ...]] = lambda steps: (Phase(),)
    length: float = 1.0
    twin: bool = False
    oracle: bool = False
    claim: bool = False


#: MKD's steps take so many times the computing of a step on the target alone: for 2000 steps at 5 mm on two cores, 810
#: and 165 CPU seconds.
_COMPUTING = 5.0

#: The method with what docs/method.md says was added to it.
_NETWORKS = {"segmentor_norm": "batch-per-stream", **GENERATORS}

#: All rows; the settings that they do not name are the defaults of `mkd train`.
ROWS: dict[str, Row] = {
    "assistant only": Row({"scheme": "assistant-only"}),
    "target only": Row({"scheme": "target-only"}, claim=True),
    "target only, MKD's computing": Row({"scheme": "target-only"}, length=_COMPUTING, claim=True),
    "target only, two networks": Row({"scheme": "target-only"}, twin=True, claim=True),
    "fine-tuned": Row({"scheme": "fine-tune"}, length=2.0),
    "joint": Row({"scheme": "joint"}, {"segmentor_norm": "batch"}, claim=True),
    "joint, norm per modality": Row({"scheme": "joint"}, {"segmentor_norm": "batch-per-stream"}, claim=True),
    "one network, translated assistant": Row(
        {"scheme": "translated-joint", **ALIGNMENT}, GENERATORS, partial(phases, cross_supervision=0.0)
    ),
    "IAM without distillation": Row({"distillation": "none", **ALIGNMENT}, _NETWORKS, phases),
    "MKD without IAM": Row({}, _NETWORKS, lambda steps: (Phase(generators="off", cross_supervision=1.0),)),
    "MKD without s->r": Row({"distillation": "real-to-syn", **ALIGNMENT}, _NETWORKS, phases),
    "MKD without r->s": Row({"distillation": "syn-to-real", **ALIGNMENT}, _NETWORKS, phases),
    "MKD as in the paper": Row(),
    "MKD": Row(ALIGNMENT, _NETWORKS, phases, claim=True),
    "joint, norm per modality, two networks": Row(
        {"scheme": "joint"}, {"segmentor_norm": "batch-per-stream"}, twin=True, claim=True
    ),
    "oracle": Row({"scheme": "target-only"}, oracle=True, claim=True),
}


@dataclass(frozen=True)
class Scale:
    """Size of all runs.

    Attributes:
        stage: resolution, patches and length of every run.
        networks: widths.
        method: settings of the method that all rows share.
        labelled: numbers of labelled people.
        assistants: people of the assistant modality; and fewer, which the study of their number looks at.
        validating, tested: people.
        pairs: of draw and seed, of rows with a claim; and of the others.
        curve: validations along a run.
    """

    stage: Stage
    networks: NetworksConfig
    method: MethodConfig = field(default_factory=MethodConfig)
    labelled: tuple[int, ...] = (4, 10)
    assistants: int = 20
    fewer_assistants: tuple[int, ...] = (5, 10)
    validating: int = 8
    tested: int = 32
    pairs: tuple[int, int] = (5, 2)
    curve: int = 8


@dataclass(frozen=True)
class Run:
    """One training run."""

    row: str
    labelled: int
    assistants: int
    pair: int

    @property
    def name(self) -> str:
        """Fit for a file name."""
        row = "".join(letter if letter.isalnum() else "_" for letter in self.row.replace("->", " to "))
        return f"{self.labelled:02d}_{self.assistants:02d}_{row}_{self.pair}"


class Benchmark(Protocol):
    """People, their scans, and the names of the two modalities."""

    @property
    def name(self) -> str:
        """Fit for a file name."""

    @property
    def target(self) -> Modality:
        """Modality that is segmented."""

    @property
    def data(self) -> DataConfig:
        """Settings of the data."""

    @property
    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Intensity rules by modality."""

    @property
    def margin_mm(self) -> float | None:
        """Left round the heart of what is tested and normalised; None for what a bundle of the run would leave."""

    def cases(self, kind: Kind, count: int, pair: int, folder: Path) -> list[Case]:
        """Scans of ``count`` people; files are written to ``folder`` where they are missing."""


def runs_of(scale: Scale, rows: Iterable[str] = ROWS) -> list[Run]:
    """All runs, those that carry a claim first, one pair of draw and seed after the other."""
    rows = list(rows)
    found: list[Run] = []
    for labelled in scale.labelled:
        for pair in range(scale.pairs[0]):
            found += [Run(row, labelled, scale.assistants, pair) for row in rows if ROWS[row].claim]
    for labelled in scale.labelled:
        for pair in range(scale.pairs[1]):
            found += [Run(row, labelled, scale.assistants, pair) for row in rows if not ROWS[row].claim]
            if "MKD" in rows:
                found += [Run("MKD", labelled, count, pair) for count in scale.fewer_assistants]
    return found


def run_all(
    benchmark: Benchmark,
    scale: Scale,
    runs: Sequence[Run],
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
        benchmark: what to train and test on.
        scale: size of the runs.
        runs: which.
        out: folder for volumes and runs.
        kept: JSON file for the result of every run, written anew after each; results of other runs in it stay.
        jobs: runs at a time.
        threads: CPU threads of each.
        device: "auto", "cpu", "cuda" or "mps".
        say: called with a line of text.

    Returns:
        Results, one a run, in their order.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    everything = _read(kept)
    results = {run: found for run in runs if (found := _find(everything, run, _settings(benchmark, run, scale)))}
    missing = [run for run in runs if run not in results]
    say(f"{benchmark.name}: {len(runs)} runs, {len(runs) - len(missing)} of them done")
    begun = time.monotonic()

    def keep(run: Run, result: dict[str, Any], number: int) -> None:
        results[run] = result
        everything.append(result)
        lines = ",\n".join(json.dumps(one) for one in everything)
        write_text(kept, f"[\n{lines}\n]\n")
        left = (time.monotonic() - begun) / number * (len(missing) - number) / 60
        scores = ", ".join(f"{name} {mean_dice(rows):.4f}" for name, rows in result["validation"].items())
        say(f"{run.name}: validation {scores}; {number} of {len(missing)}, about {left:.0f} min left")

    if jobs == 1:
        for number, run in enumerate(missing, 1):
            keep(run, _carry_out(benchmark, run, scale, out, threads, device), number)
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(_carry_out, benchmark, run, scale, out, threads, device): run for run in missing}
            for number, future in enumerate(as_completed(futures), 1):
                keep(futures[future], future.result(), number)
    return [results[run] for run in runs]


def _read(kept: Path) -> list[dict[str, Any]]:
    """Results of earlier starts; a damaged or foreign file counts for nothing."""
    try:
        entries = json.loads(kept.read_text(encoding="utf-8"))
        return [entry for entry in entries if {"settings", *(one.name for one in fields(Run))} <= set(entry)]
    except (OSError, ValueError, TypeError):
        return []


def _find(entries: Sequence[dict[str, Any]], run: Run, settings: dict[str, Any]) -> dict[str, Any] | None:
    for entry in entries:
        same = all(entry[name] == value for name, value in vars(run).items())
        if same and _with_defaults(entry["settings"]) == settings:
            return entry
    return None


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a result; those that did not exist when it was kept have their defaults, which change nothing."""
    defaults: dict[str, Any] = json.loads(json.dumps(asdict(TrainingConfig())))
    completed = dict(settings)
    for table in _TABLES:
        found, default = settings.get(table), defaults[table]
        if isinstance(found, dict):
            completed[table] = {**default, **found}
        elif isinstance(found, list):
            completed[table] = [{**default[0], **one} if isinstance(one, dict) else one for one in found]
    return completed


def _settings(benchmark: Benchmark, run: Run, scale: Scale) -> dict[str, Any]:
    """All that decides a run's result, as plain values."""
    config = _config(benchmark, run, scale, Path(), 1, "cpu")
    values = asdict(config)
    plain = json.loads(json.dumps({name: values[name] for name in _TABLES}))
    margin_mm = _margin_mm(benchmark, config)
    measured = {"tested": scale.tested, "validating": scale.validating, "margin_mm": margin_mm}
    return plain | measured | {"benchmark": benchmark.name}


def _margin_mm(benchmark: Benchmark, config: TrainingConfig) -> float:
    return box_margin_mm(config) if benchmark.margin_mm is None else benchmark.margin_mm


def _config(
    benchmark: Benchmark, run: Run, scale: Scale, out: Path, threads: int, device: str, twin: bool = False
) -> TrainingConfig:
    row = ROWS[run.row]
    steps = round(scale.stage.steps * row.length)
    return TrainingConfig(
        target=benchmark.target,
        data=benchmark.data,
        out=str(out / "runs" / f"{run.name}{'_twin' if twin else ''}"),
        networks=replace(scale.networks, **row.networks),
        method=replace(scale.method, **row.method),
        stages=(replace(scale.stage, steps=steps),),
        phases=row.phases(steps),
        augmentation=AugmentationConfig(),
        run=RunConfig(
            seed=run.pair + (_TWIN_SEED if twin else 0),
            threads=threads,
            num_workers=0,
            device=device,
            validate_every=max(1, steps // scale.curve),
            checkpoint_minutes=2.0,
        ),
    )


class _Scored(Trainer):
    """A run whose validation segments the validation volumes on the training grid, as the test does; it decides
    nothing, and gives the learning curve.  It knows its CPU seconds, those of earlier starts included.
    """

    validate_on: Callable[[dict[str, nn.Module], bool], dict[str, Any]]

    def cpu_seconds(self) -> float:
        """Of all starts, as far as they went into this one."""
        return self._cpu_before + time.process_time() - self._cpu_at_start

    def _on_run_start(self) -> None:
        super()._on_run_start()
        self._cpu_at_start = time.process_time()
        resumed = self.step > 0 and self._cpu_file.exists()
        self._cpu_before = float(self._cpu_file.read_text(encoding="utf-8")) if resumed else 0.0

    def _save_checkpoint(self) -> None:
        super()._save_checkpoint()
        write_text(self._cpu_file, f"{self.cpu_seconds():.1f}")

    @property
    def _cpu_file(self) -> Path:
        return self.out / "cpu_seconds.txt"

    def _validate(self, pairs: Pairs) -> None:
        found = self.validate_on(self._averaged, self._translates)
        with (self.out / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **found}) + "\n")


def _carry_out(benchmark: Benchmark, run: Run, scale: Scale, out: Path, threads: int, device: str) -> dict[str, Any]:
    """Train and test; returns the run, its settings, its Dice and HD95, and the CPU time of its training."""
    torch.set_num_threads(threads)
    row = ROWS[run.row]
    config = _config(benchmark, run, scale, out, threads, device)
    volumes = out / "volumes"
    cases = benchmark.cases("labelled", run.labelled, run.pair, volumes)
    if row.oracle:
        cases += benchmark.cases("oracle", run.assistants, run.pair, volumes)
    elif config.method.scheme != "target-only":
        cases += benchmark.cases("assistant", run.assistants, run.pair, volumes)
    margin_mm = _margin_mm(benchmark, config)
    rules, structures = benchmark.normalisation, config.data.catalogue
    data = LabelledData(cases, [], config.data, out / "prepared", margin_mm, rules)
    wanted: dict[Kind, int] = {"validation": scale.validating, "test": scale.tested}
    tested = {
        kind: [
            prepare_volume(case, scale.stage.spacing, rules[benchmark.target], out / "prepared", margin_mm, structures)
            for case in benchmark.cases(kind, count, run.pair, volumes)
        ]
        for kind, count in wanted.items()
    }

    def measure(
        parts: dict[str, nn.Module], aligns: bool, kind: Kind, *measures: Measure
    ) -> dict[Measure, dict[str, Scores]]:
        return score(parts, tested[kind], scale.stage.spacing, aligns, margin_mm, structures, measures)

    def train(config: TrainingConfig) -> tuple[dict[str, nn.Module], bool, list[dict[str, Any]], float]:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            trainer = _Scored(config, data, nowhere)
            trainer.validate_on = lambda parts, aligns: {
                name: round(mean_dice(rows), 4)
                for name, rows in measure(parts, aligns, "validation", "dice")["dice"].items()
            }
            bundle = load_bundle(trainer.run(), self_test=False)
        parts = {name: bundle.network(name).to(trainer.device) for name in trainer.method.parts()}
        # Of a point that a stopped run passed twice the later one holds.
        curve = {(point := json.loads(line))["step"]: point for line in (trainer.out / "curve.jsonl").open()}
        return parts, translates(config, config.steps), list(curve.values()), trainer.cpu_seconds()

    parts, aligns, curve, seconds = train(config)
    if row.twin:
        twin, *_, more = train(_config(benchmark, run, scale, out, threads, device, twin=True))
        parts["segmentor_syn"], seconds = twin["segmentor_real"], seconds + more
    result: dict[str, Any] = {
        **vars(run),
        "settings": _settings(benchmark, run, scale),
        "cpu_seconds": round(seconds, 1),
        "curve": curve,
    }
    if aligns and run.pair == 0:
        case = next(case for case in cases if case.modality != benchmark.target)
        rule = rules[case.modality]
        assistant = prepare_volume(case, scale.stage.spacing, rule, out / "prepared", margin_mm, structures)
        _draw(parts, tested["test"][0], assistant, scale.stage.patch_size, structures, Path(config.out) / "panel.png")
    result |= {"validation": measure(parts, aligns, "validation", "dice")["dice"]}
    on_test = measure(parts, aligns, "test", "dice", "hd95")
    return result | {"test": on_test["dice"], "test HD95": on_test["hd95"]}


def _draw(
    parts: dict[str, nn.Module],
    target: PreparedVolume,
    assistant: PreparedVolume,
    size: tuple[int, int, int],
    structures: Sequence[Structure],
    path: Path,
) -> None:
    """Picture of what the networks make of a person of the test and of one of the assistants."""
    device = device_of(parts)
    (x_t, y_t), (x_a, y_a) = (heart_crop(volume, size) for volume in (target, assistant))
    seen = [x_t, torch.from_numpy(y_t)[None], x_a, torch.from_numpy(y_a)[None]]
    x_t, of_t, x_a, of_a = (values.to(device) for values in seen)
    pixels = panel(parts, x_t, of_t, x_a, of_a, structures)
    write_png(pixels.repeat(_PICTURE_ZOOM, axis=0).repeat(_PICTURE_ZOOM, axis=1), path)


def mean_dice(rows: Scores) -> float:
    """Mean over cases and structures; what is not defined is left out."""
    return float(np.nanmean(np.array(rows, float)))
