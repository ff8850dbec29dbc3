"""A training run, from settings to a weights bundle.

    mkd train CONFIG.toml

The loop is in :meth:`Trainer.run`.  A run can be stopped at any time: the same command goes on from its last checkpoint
with the very pairs that it would have seen, and Ctrl-C leaves a bundle of what there is.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from mkd_core.errors import InputError
from mkd_core.inference.execution import choose_device, choose_precision
from mkd_core.io.bundle import Bundle, load_bundle
from mkd_core.protocol import TARGET_POLICIES, SegmentationOptions
from mkd_core.training import datasets
from mkd_core.training.across_processes import any_process, freeze_batch_norm
from mkd_core.training.augmentation import Augmentation
from mkd_core.training.baselines import SingleSegmentor
from mkd_core.training.bundling import BundleWriter, update_metadata
from mkd_core.training.checkpoint import load_checkpoint, save_checkpoint
from mkd_core.training.config import Stage, TrainingConfig
from mkd_core.training.mkd import MutualDistillation
from mkd_core.training.pairs import PairStream, Pairs, seed_of
from mkd_core.training.progress import Progress
from mkd_core.training.validation import panel, validate

#: Steps over which a run's learning rate rises from nothing.
_WARM_UP = 50

#: The method's own way to show S_syn a target volume, kept unless another one gains so much Dice: less may be chance.
_USUAL_POLICY, _NO_DIFFERENCE = "cycle", 0.001

#: Shares of S_real in the ensemble that are tried.
_ENSEMBLE_WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)

#: Steps whose mean losses are recorded together.
_RECORDED_TOGETHER = 25


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of a step as a share of its peak: a short warm-up, then in every stage a cosine from ``lr_from``
    to ``lr_to``.
    """
    stage, _, first = config.stage_at(step)
    fall = 0.5 * (1 + np.cos(np.pi * (step - first) / stage.steps))
    return float(stage.lr_to + (stage.lr_from - stage.lr_to) * fall) * min(1.0, (step + 1) / _WARM_UP)


class Trainer:
    """One run.

    Args:
        config: settings; ``out`` names the folder.
        data: what to train on; None opens what the settings name.
        stream: where progress is shown.

    Raises:
        InputError: settings or data that cannot be used, before anything is written; names the file or setting.
    """

    def __init__(
        self, config: TrainingConfig, data: datasets.TrainingData | None = None, stream: TextIO = sys.stderr
    ) -> None:
        if not config.out:
            raise InputError("The run has no folder.", "Set “out” in the settings, or use --out.")
        self.config = config
        self.out = Path(config.out)
        if data is None:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print("Checking the settings and the data", file=stream, flush=True)
            data = datasets.open_data(config, Path(config.data.folder) if config.data.folder else self.out / "prepared")
        self.data = data
        self.fabric = _launch(config)
        self.device = self.fabric.device
        self.is_first = self.fabric.is_global_zero
        self._stream = stream
        torch.manual_seed(config.run.seed)
        self.method = _method(config, self.device)
        if config.run.start:
            _start_from(self.method, load_bundle(config.run.start, self_test=False))
        # The weights that validate and that the bundle holds.
        self._live = torch.nn.ModuleDict(self.method.parts())
        self.average = AveragedModel(
            self._live, multi_avg_fn=_moving_average(config.run.average_decay), use_buffers=True
        )
        self.maker = BundleWriter(config, self.data.description)
        self.step = 0
        self.best = -1.0

    @property
    def bundle_path(self) -> Path:
        """The run's result: the weights that validated best, or the last ones where nothing validates."""
        return self.out / ("best.safetensors" if self.data.validation else "last.safetensors")

    def run(self) -> Path:
        """Train from the last checkpoint to the end.

        Returns:
            The bundle.

        Raises:
            KeyboardInterrupt: the run was asked to stop, and has left a checkpoint and a bundle.
        """
        config, method = self.config, self.method
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        self.progress = Progress(self.out, config.steps, self.step, self._stream, self.is_first)
        saved = time.monotonic()
        with _stop_on_signal() as asked_to_stop:
            while self.step < config.steps:
                stage, number, first = config.stage_at(self.step)
                self._enter_stage(stage, number, asked_to_stop)
                sums: dict[str, torch.Tensor] = {}
                counted = 0
                for pairs in self._pairs(stage, number, first):
                    method.set_lr(learning_rate(config, self.step))
                    terms = method.step(*self._augment(pairs))
                    self.average.update_parameters(self._live)
                    self.step += 1
                    counted += 1
                    sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
                    self.progress.step(self.step)
                    stage_ends = self.step == first + stage.steps
                    if self.step % _RECORDED_TOGETHER == 0 or stage_ends:
                        self._record(sums, counted)
                        sums, counted = {}, 0
                    stopping = any_process(asked_to_stop(), self.device)
                    if self.step % config.run.validate_every == 0 or stage_ends:
                        self._validate(pairs, asked_to_stop)
                        stopping = any_process(asked_to_stop(), self.device)
                    if (
                        stage_ends
                        or stopping
                        or any_process(time.monotonic() - saved > 60 * config.run.checkpoint_minutes, self.device)
                    ):
                        self._save()
                        saved = time.monotonic()
                    if stopping:
                        self._stop()
                    if stage_ends:
                        break
        self._finish()
        return self.bundle_path

    def _enter_stage(self, stage: Stage, number: int, asked_to_stop: Callable[[], bool]) -> None:
        def notice(text: str, fraction: float) -> None:
            self.progress.notice(text, fraction)
            if asked_to_stop():  # files that are complete are kept
                self.progress.close()
                raise KeyboardInterrupt

        self.method.set_class_weight_power(stage.class_weight_power)
        freeze_batch_norm(self.method, stage.freeze_batch_norm)
        if self.is_first:
            self.data.prepare(stage, notice)
        self.fabric.barrier()
        config, patch = self.config.augmentation, stage.patch
        self._cut = Augmentation.cut_size(config, patch) if self.data.augments else patch
        self._augmentation = Augmentation(config, patch, stage.spacing_mm, self.device) if self.data.augments else None
        self.progress.stage(
            number,
            f"Stage {number + 1}: {stage.steps} steps of {stage.batch} pairs at {stage.spacing_mm:g} mm, "
            f"patches of {patch} voxels, on {self.device}; {self.data.description}",
        )

    def _pairs(self, stage: Stage, number: int, first: int) -> Iterator[Pairs]:
        """Pairs from the present step on; ``first`` is the first step of the stage of that number."""
        config, fabric = self.config, self.fabric
        seen = sum(one.steps * one.batch for one in config.stages[:number]) + (self.step - first) * stage.batch
        budget = datasets.memory_of_each(config)
        single = config.method.scheme == "target-only"
        stream = PairStream(
            self.data.patches(config.target, stage, self._cut, budget),
            None if single else self.data.patches(config.assistant, stage, self._cut, budget),
            stage.batch,
            config.run.seed,
            seen,
            fabric.global_rank,
            fabric.world_size,
        )
        num_workers = config.run.num_workers
        return iter(
            torch.utils.data.DataLoader(
                stream,
                None,
                num_workers=num_workers,
                prefetch_factor=3 if num_workers else None,
                worker_init_fn=_ignore_interrupts,
                pin_memory=self.device.type == "cuda",
                multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
            )
        )

    def _augment(self, pairs: Pairs) -> tuple[torch.Tensor, ...]:
        x_t, y_t, x_a, y_a = (tensor.to(self.device, non_blocking=True) for tensor in pairs[:4])
        if self._augmentation is None:
            return x_t, y_t, x_a, y_a
        seeds = [[seed_of(self.config.run.seed, int(number), stream) for number in pairs.numbers] for stream in (0, 1)]
        x_t, y_t = self._augmentation(x_t, y_t, seeds[0])
        if self.config.method.scheme == "target-only":
            return x_t, y_t, x_t, y_t
        return (x_t, y_t, *self._augmentation(x_a, y_a, seeds[1]))

    def _record(self, sums: dict[str, torch.Tensor], counted: int) -> None:
        means = self.fabric.all_reduce({name: value / counted for name, value in sums.items()}, reduce_op="mean")
        self.progress.terms(
            self.step, learning_rate(self.config, self.step - 1), {name: float(value) for name, value in means.items()}
        )

    def _validate(self, pairs: Pairs, asked_to_stop: Callable[[], bool]) -> None:
        if self.is_first:
            parts = self.average.module
            if self.method.aligns:
                pair = self._augment(pairs)
                self.progress.panel(
                    self.step, panel(parts, *(tensor[:1] for tensor in pair), self.config.data.catalogue)
                )
            if self.data.validation:
                bundle = self._write(self.out / "last.safetensors", self._fixed_alignment)
                dice = validate(bundle, self.data.validation, self._options(), asked_to_stop)
                better = dice["mean"] > self.best
                self.progress.dice(self.step, dice, better)
                if better:
                    self.best = dice["mean"]
                    self._write(
                        self.out / "best.safetensors", bundle.alignment(self.config.target), {"validation Dice": dice}
                    )
        self.fabric.barrier()

    @property
    def _fixed_alignment(self) -> str:
        """Alignment of a bundle for which none was measured."""
        if not self.method.aligns:
            return "none"
        wanted = self.config.bundle.alignment
        return "cycle" if wanted == "measured" else wanted

    def _options(self, alignment: str | None = None) -> SegmentationOptions:
        return SegmentationOptions(
            device=str(self.device), threads=self.config.run.threads or None, alignment=alignment
        )

    def _write(self, path: Path, alignment: str, quality: dict | None = None) -> Bundle:
        return self.maker.write(
            path,
            self.average.module,
            steps=self.step,
            alignment=alignment,
            translate=self.method.aligns,
            quality=quality,
        )

    def _save(self) -> None:
        # Every process keeps its own pools; whoever resumes takes those of the same step.
        save_checkpoint(
            self.out / f"pools_{self.fabric.global_rank}.pt", {"step": self.step, "pools": self.method.pools()}
        )
        if self.is_first:
            save_checkpoint(
                self.out / "checkpoint.pt",
                {
                    "step": self.step,
                    "best": self.best,
                    "method": self.method.state(),
                    "average": self.average.state_dict(),
                    "settings": _identity(self.config),
                },
            )
        self.fabric.barrier()

    def _resume(self) -> None:
        saved = load_checkpoint(self.out / "checkpoint.pt")
        if saved is None:
            return
        if saved["settings"] != _identity(self.config):
            changed = [name for name, value in _identity(self.config).items() if saved["settings"].get(name) != value]
            raise InputError(
                f"The folder “{self.out}” holds a run with other settings ({', '.join(changed)}).",
                "Choose another folder with --out, or set them back.",
            )
        self.method.restore(saved["method"])
        self.average.load_state_dict(saved["average"])
        self.step, self.best = saved["step"], saved["best"]
        pools = load_checkpoint(self.out / f"pools_{self.fabric.global_rank}.pt")
        if pools is not None and pools["step"] == self.step:
            self.method.restore_pools(pools["pools"])

    def _stop(self) -> None:
        if self.is_first:
            last = self.out / "last.safetensors"
            self._write(last, self._fixed_alignment)
            self.progress.say(f"Stopped at step {self.step}; the same command goes on. Weights so far: {last}")
        self.progress.close()
        self.fabric.barrier()
        raise KeyboardInterrupt

    def _finish(self) -> None:
        """Write the last weights, and give the bundle the alignment that validates best."""
        if self.is_first:
            self._write(self.out / "last.safetensors", self._fixed_alignment)
            if self.data.validation and self.method.aligns and self.config.bundle.alignment == "measured":
                self._measure_alignment()
            if self.data.validation and self.config.bundle.ensemble == "measured":
                self._measure_ensemble()
            self.progress.say(f"Done: {self.bundle_path}")
        self.progress.close()
        self.fabric.barrier()

    def _measure_alignment(self) -> None:
        bundle = load_bundle(self.bundle_path, self_test=False)
        dice = {policy: validate(bundle, self.data.validation, self._options(policy)) for policy in TARGET_POLICIES}
        best = max(TARGET_POLICIES, key=lambda policy: dice[policy]["mean"])
        if dice[best]["mean"] - dice[_USUAL_POLICY]["mean"] < _NO_DIFFERENCE:
            best = _USUAL_POLICY
        self.progress.say(
            "Alignment: "
            + ", ".join(f"{policy} {dice[policy]['mean']:.4f}" for policy in TARGET_POLICIES)
            + f"; {best} is kept"
        )
        update_metadata(
            bundle,
            alignment=bundle.metadata["alignment"] | {"target": best},
            quality={
                "validation Dice": dice[best],
                "validation Dice by alignment": {policy: dice[policy]["mean"] for policy in TARGET_POLICIES},
            },
        )

    def _measure_ensemble(self) -> None:
        """Give S_real the share of the ensemble that validates best, for either modality of which there are volumes."""
        self.data.prepare(
            self.config.stages[-1], self.progress.notice
        )  # a finished run that goes on may come from a version that wrote fewer
        bundle = load_bundle(self.bundle_path, self_test=False)
        shares, quality = {}, dict(bundle.metadata["quality"])
        for role, cases in (("target", self.data.validation), ("assistant", self.data.assistant_validation)):
            if cases:
                dice = {
                    share: validate(_with_ensemble_weight(bundle, role, share), cases, self._options())["mean"]
                    for share in _ENSEMBLE_WEIGHTS
                }
                best = max(dice.values())
                shares[role] = min(
                    (share for share in _ENSEMBLE_WEIGHTS if dice[share] > best - _NO_DIFFERENCE),
                    key=lambda share: abs(share - 0.5),
                )
                self.progress.say(
                    f"S_real's share in the ensemble, {role}: "
                    + ", ".join(f"{share:g} {value:.4f}" for share, value in dice.items())
                )
                quality[f"validation Dice by S_real's share, {role}"] = {
                    f"{share:g}": value for share, value in dice.items()
                }
        update_metadata(bundle, ensemble=shares, quality=quality)


def train(config: TrainingConfig, data: datasets.TrainingData | None = None) -> Path:
    """Carry out a run; returns its bundle.  See :class:`Trainer`."""
    return Trainer(config, data).run()


def _launch(config: TrainingConfig):
    """Lightning Fabric with this run's device and processes; under torchrun it takes torchrun's."""
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "Lightning Fabric, which runs the training, is not installed.",
            "Install it by pip install 'mkd-core[train]'.",
        ) from error
    device = choose_device(config.run.device)
    processes, nodes = config.run.processes, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    several = processes * nodes > 1
    for stage in config.stages:
        if stage.batch % (processes * nodes):
            raise InputError(f"A batch of {stage.batch} cannot be shared evenly by {processes * nodes} processes.")
    devices = [device.index] if device.index is not None and not several else processes
    fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp" if several else "auto")
    fabric.launch()
    torch.set_num_threads(config.run.threads or max(1, (os.cpu_count() or 1) // processes))
    return fabric


def _method(config: TrainingConfig, device: torch.device) -> MutualDistillation | SingleSegmentor:
    precision = choose_precision(config.run.precision, device)
    if config.method.scheme == "mutual-distillation":
        return MutualDistillation(config.method, config.networks, device, precision, seed=config.run.seed)
    return SingleSegmentor(config.method, config.networks, config.steps, device, precision)


def _start_from(method: MutualDistillation | SingleSegmentor, bundle: Bundle) -> None:
    for part, network in method.parts().items():
        try:
            network.load_state_dict(bundle.network(part).state_dict())
        except RuntimeError as error:
            raise InputError(
                f"The networks of “{bundle.path.name}”, from which the run should start, have other sizes.",
                "Set “networks” to its sizes, or leave out “run.start”.",
            ) from error


def _with_ensemble_weight(bundle: Bundle, role: str, share: float) -> Bundle:
    return dataclasses.replace(bundle, metadata=bundle.metadata | {"ensemble": {role: share}})


def _moving_average(decay: float) -> Callable:
    """Exponential moving average that follows quickly at first; counters are copied."""

    def update(averages, currents, count) -> None:
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        for average, current in zip(averages, currents):
            if average.is_floating_point():
                average.lerp_(current.to(average.dtype), weight)
            else:
                average.copy_(current)

    return update


def _identity(config: TrainingConfig) -> dict:
    """What must not change between a run's starts, as plain values."""
    plain = dataclasses.asdict(config)
    run = {name: plain["run"][name] for name in ("seed", "average_decay")}
    stages = [{name: stage[name] for name in stage if name != "steps"} for stage in plain["stages"]]
    method = {
        name: value for name, value in _listed(plain["method"]).items() if name != "pretrain_steps"
    }  # a length, like the stages'
    return {
        "target": config.target,
        "networks": _listed(plain["networks"]),
        "method": method,
        "augmentation": plain["augmentation"],
        "stages": stages,
        "run": run,
    }


def _listed(table: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in table.items()}


def _ignore_interrupts(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; the training process decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag; the second does what it usually does."""
    asked: list[int] = []
    usual = {}

    def ask(number: int, _) -> None:
        asked.append(number)
        signal.signal(number, usual[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            usual[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        pass
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
