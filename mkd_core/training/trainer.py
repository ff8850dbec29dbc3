"""A training run, from settings to a weights bundle.

    mkd train CONFIG.toml

:meth:`Trainer.run` is the outline.  A run can be stopped at any time: the same command goes on from its last checkpoint
as if nothing had happened, and Ctrl-C leaves a bundle of what there is.
"""

from __future__ import annotations

import dataclasses
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mkd_core.errors import InputError
from mkd_core.inference.execution import choose_precision
from mkd_core.io.atomic import remove_drafts
from mkd_core.io.bundle import Bundle, load_bundle
from mkd_core.method.networks import TRAINING_ONLY
from mkd_core.protocol import SegmentationOptions
from mkd_core.training import checkpoint, datasets, selection
from mkd_core.training.across_processes import any_process, freeze_batch_norm, gather_bytes
from mkd_core.training.augmentation import Augmentation
from mkd_core.training.baselines import SingleSegmentor
from mkd_core.training.bundling import BundleWriter
from mkd_core.training.checkpoint import Checkpoints
from mkd_core.training.config import TrainingConfig
from mkd_core.training.launch import interrupted_by_sigterm, launch, leave_signals_to_the_run, stop_on_signal
from mkd_core.training.mkd import ACCURACY, Labelled, MutualDistillation
from mkd_core.training.pairs import Pairs, PairStream, seed_of
from mkd_core.training.progress import Progress
from mkd_core.training.schedule import learning_rate, plan_at, translates
from mkd_core.training.updates import moving_average
from mkd_core.training.validation import panel, validate

#: Steps whose mean losses are recorded together.
_RECORDED_TOGETHER = 25

#: Records whose mean says whether a discriminator is fit, and how often one may be right.
_JUDGED_TOGETHER = 20
_FIT_ACCURACY = (0.55, 0.98)

#: Fewest voxels along a side of the coarsest features whose gradients a CPU computes rightly in bfloat16.
_THINNEST_BFLOAT16 = 3

#: What a checkpoint holds, see :meth:`Trainer._save_checkpoint`.
_CHECKPOINT_ENTRIES = {"settings", "images", "step", "pairs_seen", "best", "method", "average", "processes"}


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
        self, config: TrainingConfig, data: datasets.TrainingData | None = None, stream: TextIO | None = None
    ) -> None:
        if not config.out:
            raise InputError("The run has no folder.", "Set “out” in the settings, or use --out.")
        stream = sys.stderr if stream is None else stream
        self.config = config
        self.out = Path(config.out)
        if data is None:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print("Checking the settings and the data", file=stream, flush=True)
            data = datasets.open_data(config, Path(config.data.folder) if config.data.folder else self.out / "prepared")
        self.data = data
        self.fabric = launch(config)
        self.device = self.fabric.device
        self.is_first = self.fabric.is_global_zero
        self._stream = stream
        torch.manual_seed(config.run.seed)
        self.method = _method(config, self.device)
        if config.run.start:
            _start_from(self.method, load_bundle(config.run.start, self_test=False))
        # The weights that validate and that the bundle holds.
        self._live = nn.ModuleDict(self.method.parts())
        self.average = AveragedModel(
            self._live, multi_avg_fn=moving_average(config.run.average_decay), use_buffers=True
        )
        self.writer = BundleWriter(config, self.data.description)
        self.step = 0
        self.best = -1.0
        self._without_gain = 0  # validations since the best one
        self._accuracies: list[dict[str, float]] = []
        self._pairs_seen = 0
        self._checkpoints = Checkpoints(self.out)
        self._asked_to_stop: Callable[[], bool] = lambda: False
        self._losses: dict[str, torch.Tensor] = {}
        self._losses_counted = 0

    @property
    def bundle_path(self) -> Path:
        """The run's result: the weights that validated best, or the last ones where nothing validates."""
        return self.out / ("best.safetensors" if self.data.validation else "last.safetensors")

    def run(self) -> Path:
        """Train from the last checkpoint to the end.

        Returns:
            The bundle.

        Raises:
            InputError: the folder holds another run, or cannot be written, or a run is under way in it.
            KeyboardInterrupt: the run was asked to stop, and has left a checkpoint and a bundle.
        """
        try:
            with self._alone_in_folder():
                with stop_on_signal() as self._asked_to_stop:
                    self._on_run_start()
                    while not self._is_over():
                        self._train_stage()
                self._on_run_end()
        except OSError as error:
            raise self._cannot_go_on(error) from error
        return self.bundle_path

    @contextmanager
    def _alone_in_folder(self) -> Iterator[None]:
        """Two runs in one folder would write over each other's log and checkpoints; a lock that ends with its process
        keeps the second one out.
        """
        from filelock import FileLock, Timeout

        lock, taken = FileLock(self.out / ".lock"), False
        if self.is_first:
            self.out.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                taken = True
            except NotImplementedError:
                pass  # a file system without locks
        try:
            if any_process(taken, self.device):
                raise InputError(
                    f"Another run is under way in the folder “{self.out}”.", "Give this one another folder, or wait."
                )
            yield
        finally:
            lock.release()

    def _train_stage(self) -> None:
        """Train to the end of the present stage, or of the run if that comes first."""
        self._on_stage_start()
        for pairs in self._pairs():
            self._train_step(pairs)
            self._on_step_end(pairs)
            if self.step == self._stage.end or self._is_over():
                break

    def _on_run_start(self) -> None:
        if self.is_first:
            remove_drafts(self.out)
            remove_drafts(self.out / "prepared")
        notes = self._resume()
        self.out.mkdir(parents=True, exist_ok=True)
        self.fabric.barrier()
        self._progress = Progress(self.out, self.config.steps, self.step, self._stream, self.is_first)
        for note in notes:
            self._progress.say(note)
        self._saved_at = time.monotonic()

    def _on_stage_start(self) -> None:
        self._stage = self.config.stage_at(self.step)
        stage, patch = self._stage.stage, self._stage.stage.patch_size
        freeze_batch_norm(self.method, stage.freeze_batch_norm)
        self._prepare_data()
        augmentation = self.config.augmentation
        self._cut = Augmentation.cut_size(augmentation, patch) if self.data.augments else patch
        self._augmentation = (
            Augmentation(augmentation, patch, stage.spacing, self.device) if self.data.augments else None
        )
        self._progress.stage(
            self._stage.number,
            f"Stage {self._stage.number + 1}: {stage.steps} steps of {stage.batch} pairs at "
            f"{_sides(stage.spacing_mm)} mm, patches of {_sides(stage.patch)} voxels, on {self.device}; "
            f"{self.data.description}",
        )

    def _train_step(self, pairs: Pairs) -> None:
        terms = self.method.step(*self._augment(pairs), plan_at(self.config, self.step), self._labelled(pairs))
        self.average.update_parameters(self._live)
        self.step += 1
        self._pairs_seen += self._stage.stage.batch
        self._losses = {name: self._losses.get(name, 0.0) + value for name, value in terms.items()}
        self._losses_counted += 1
        self._progress.step(self.step)

    def _on_step_end(self, pairs: Pairs) -> None:
        stage_ends = self.step == self._stage.end
        if self.step % _RECORDED_TOGETHER == 0 or stage_ends:
            self._record_losses()
        if self.step % self.config.run.validate_every == 0 or stage_ends:
            self._validate(pairs)
        stopping = any_process(self._asked_to_stop(), self.device)
        if stage_ends or self._is_over() or stopping or any_process(self._checkpoint_is_due(), self.device):
            self._save_checkpoint()
        if stopping:
            self._stop()

    def _is_over(self) -> bool:
        """Whether the run has its length, or validation has stopped improving."""
        patience = self.config.run.patience
        return self.step >= self.config.steps or (bool(patience) and self._without_gain >= patience)

    def _on_run_end(self) -> None:
        """Write the last weights, and give the bundle the alignment and ensemble that validate best."""
        if self.is_first:
            self._write_bundle(self.out / "last.safetensors", self._fixed_alignment)
            self._select()
            self._progress.say(f"Done: {self.bundle_path}")
        self._progress.close()
        self.fabric.barrier()

    # Data

    def _prepare_data(self) -> None:
        def notice(text: str, fraction: float) -> None:
            self._progress.notice(text, fraction)
            if self._asked_to_stop():  # files that are complete are kept
                raise KeyboardInterrupt

        stopping = False
        if self.is_first:
            try:
                self.data.prepare(self._stage.stage, notice)
            except KeyboardInterrupt:
                stopping = True
        if any_process(stopping or self._asked_to_stop(), self.device):
            self._progress.say(f"Stopped at step {self.step}, before the data were prepared; the same command goes on.")
            self._leave()

    def _pairs(self) -> Iterator[Pairs]:
        """Pairs from those on that the run has not seen."""
        config, fabric, stage = self.config, self.fabric, self._stage.stage
        budget = datasets.memory_of_each(config)
        single = config.method.scheme == "target-only"
        stream = PairStream(
            self.data.patches(config.target, stage, self._cut, budget),
            None if single else self.data.patches(config.assistant, stage, self._cut, budget),
            stage.batch,
            config.run.seed,
            self._pairs_seen,
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
                worker_init_fn=leave_signals_to_the_run,
                pin_memory=self.device.type == "cuda",
                multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
            )
        )

    def _augment(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        images = (pairs.x_t, pairs.y_t, pairs.x_a, pairs.y_a)
        x_t, y_t, x_a, y_a = (tensor.to(self.device, non_blocking=True) for tensor in images)
        if self._augmentation is None:
            return x_t, y_t, x_a, y_a
        seeds = [[seed_of(self.config.run.seed, int(number), stream) for number in pairs.numbers] for stream in (0, 1)]
        x_t, y_t = self._augmentation(x_t, y_t, seeds[0])
        if self.config.method.scheme == "target-only":
            return x_t, y_t, x_t, y_t
        return (x_t, y_t, *self._augmentation(x_a, y_a, seeds[1]))

    def _labelled(self, pairs: Pairs) -> Labelled:
        t, a = (None if known.all() else known.to(self.device) for known in (pairs.labelled_t, pairs.labelled_a))
        return Labelled(t, a)

    # What is recorded

    def _record_losses(self) -> None:
        sums = {name: value / self._losses_counted for name, value in self._losses.items()}
        means: Any = self.fabric.all_reduce(sums, reduce_op="mean")
        lr = learning_rate(self.config, self.step - 1)
        terms = {name: float(value) for name, value in means.items()}
        self._progress.terms(self.step, lr, terms)
        self._losses, self._losses_counted = {}, 0
        self._accuracies.append({name: value for name, value in terms.items() if name.startswith(ACCURACY)})
        if len(self._accuracies) == _JUDGED_TOGETHER:
            for name in self._accuracies[-1]:
                warning = doubt_of_accuracy(name, float(np.mean([one.get(name, 0.75) for one in self._accuracies])))
                if warning:
                    self._progress.say(f"step {self.step}: {warning}")
            self._accuracies.clear()

    def _validate(self, pairs: Pairs) -> None:
        if self.is_first:
            if self._translates:
                x_t, y_t, x_a, y_a = (tensor[:1] for tensor in self._augment(pairs))
                self._progress.panel(self.step, panel(self._averaged, x_t, y_t, x_a, y_a, self.config.data.catalogue))
            if self.data.validation:
                bundle = self._write_bundle(self.out / "last.safetensors", self._fixed_alignment)
                dice = validate(bundle, self.data.validation, self._options(), self._asked_to_stop)
                better = dice["mean"] > self.best
                self._without_gain = 0 if better else self._without_gain + 1
                self._progress.dice(self.step, dice, better)
                if better:
                    self.best = dice["mean"]
                    alignment = bundle.alignment(self.config.target)
                    self._write_bundle(self.out / "best.safetensors", alignment, {"validation Dice": dice})
        self._without_gain = self.fabric.broadcast(self._without_gain)

    def _options(self) -> SegmentationOptions:
        return SegmentationOptions(device=str(self.device), threads=self.config.run.threads or None)

    # Bundles

    @property
    def _averaged(self) -> dict[str, nn.Module]:
        networks = self.average.module
        assert isinstance(networks, nn.ModuleDict)
        return dict(networks.items())

    @property
    def _translates(self) -> bool:
        return translates(self.config, self.step)

    @property
    def _fixed_alignment(self) -> str:
        """Alignment of a bundle for which none was measured."""
        if not self._translates:
            return "none"
        wanted = self.config.bundle.alignment
        return "cycle" if wanted == "measured" else wanted

    def _write_bundle(self, path: Path, alignment: str, quality: dict[str, Any] | None = None) -> Bundle:
        return self.writer.write(
            path,
            self._averaged,
            steps=self.step,
            alignment=alignment,
            translate=self._translates,
            quality=quality,
        )

    def _select(self) -> None:
        config, data, say = self.config, self.data, self._progress.say
        if data.validation and self._translates and config.bundle.alignment == "measured":
            selection.choose_alignment(
                load_bundle(self.bundle_path, self_test=False), data.validation, self._options(), say
            )
        if data.validation and config.bundle.ensemble == "measured":
            # A finished run that goes on may come from a version that prepared fewer volumes.
            data.prepare(config.stages[-1], self._progress.notice)
            cases = {"target": data.validation, "assistant": data.assistant_validation}
            selection.choose_ensemble_weights(
                load_bundle(self.bundle_path, self_test=False), cases, self._options(), say
            )

    # Stopping and going on

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.config.run.checkpoint_minutes

    def _save_checkpoint(self) -> None:
        """Everything that the rest of the run depends on.  Pools, sums of losses and random states are each process's
        own; networks and optimisers are alike in all.
        """
        own = {
            "pools": self.method.pools(),
            "losses": self._losses,
            "losses_counted": self._losses_counted,
            "random": _random_state(self.device),
        }
        if self.fabric.world_size == 1:
            processes = [own]
        else:
            processes = [checkpoint.decode(one) for one in gather_bytes(checkpoint.encode(own), self.device)]
        if self.is_first:
            self._checkpoints.save(
                {
                    "settings": _identity(self.config),
                    "images": self.data.fingerprints(),
                    "step": self.step,
                    "pairs_seen": self._pairs_seen,
                    "best": self.best,
                    "without_gain": self._without_gain,
                    "method": self.method.state(),
                    "average": self.average.state_dict(),
                    "processes": processes,
                }
            )
        self.fabric.barrier()
        self._saved_at = time.monotonic()

    def _resume(self) -> list[str]:
        """Go on from the newest sound checkpoint, if there is one; returns what the user should know of it."""
        saved = self._checkpoints.load()
        if saved is None:
            _refuse_earlier_format(self.out)
            return []
        _check_checkpoint(self.out, saved, _identity(self.config), self.data.fingerprints())
        self.method.restore(saved["method"])
        self.average.load_state_dict(saved["average"])
        self.step, self._pairs_seen, self.best = saved["step"], saved["pairs_seen"], saved["best"]
        self._without_gain = saved.get("without_gain", 0)
        notes = [
            f"“{name}” cannot be used: {reason}. The run goes on from the other checkpoint, at step {self.step}."
            for name, reason in self._checkpoints.damaged.items()
        ]
        processes = saved["processes"]
        if len(processes) == self.fabric.world_size:
            own = processes[self.fabric.global_rank]
            self.method.restore_pools(own["pools"])
            self._losses = {name: value.to(self.device) for name, value in own["losses"].items()}
            self._losses_counted = own["losses_counted"]
            _restore_random_state(own["random"], self.device)
        else:
            notes.append(
                f"The run had {len(processes)} processes and now has {self.fabric.world_size}: the pools of past "
                "images begin anew, so it will not be the same to the last bit."
            )
        return notes

    def _stop(self) -> NoReturn:
        if self.is_first:
            last = self.out / "last.safetensors"
            self._write_bundle(last, self._fixed_alignment)
            self._progress.say(f"Stopped at step {self.step}; the same command goes on. Weights so far: {last}")
        self._leave()

    def _leave(self) -> NoReturn:
        self._progress.close()
        self.fabric.barrier()
        if self.is_first:
            raise KeyboardInterrupt
        # A process that fails is taken for a crash, on which launchers kill the first one.
        raise SystemExit(0)

    def _cannot_go_on(self, error: OSError) -> InputError:
        name = error.filename if isinstance(error.filename, str) else str(self.out)
        return InputError(
            f"The run stopped at step {self.step}: “{name}” could not be read or written ({error.strerror or error}).",
            "Once that is mended, for example by making room on the disk, the same command goes on from the last "
            "checkpoint.",
        )


def train(config: TrainingConfig, data: datasets.TrainingData | None = None) -> Path:
    """Carry out a run; returns its bundle.  See :class:`Trainer`."""
    with interrupted_by_sigterm():
        return Trainer(config, data).run()


def _method(config: TrainingConfig, device: torch.device) -> MutualDistillation | SingleSegmentor:
    precision = _precision(config, device)
    if config.method.translates:
        return MutualDistillation(config.method, config.networks, device, precision, seed=config.run.seed)
    return SingleSegmentor(config.method, config.networks, config.steps, device, precision)


def _precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """Number format of the networks' arithmetic.

    "auto" takes float32 on a CPU where the coarsest features of a patch have a side of one or two voxels: there the
    gradients of bfloat16 convolutions hold whatever the memory held before (PyTorch 2.13 on a CPU with AVX-512 BF16).
    """
    wanted = config.run.precision
    if wanted == "auto" and device.type == "cpu":
        strides = np.array(config.networks.strides[::-1])
        coarsest = [np.min(np.broadcast_to(stage.patch, 3) // strides) for stage in config.stages]
        if min(coarsest) < _THINNEST_BFLOAT16:
            wanted = "float32"
    return choose_precision(wanted, device)


def doubt_of_accuracy(name: str, accuracy: float) -> str:
    """What a discriminator's accuracy gives reason to doubt, as a line for the user; empty if nothing."""
    lowest, highest = _FIT_ACCURACY
    if accuracy < lowest:
        return (
            f"The {name} is {accuracy:.2f}, which is chance: it hardly guides the generators. Give it more features "
            "(networks.discriminator) or let it see less (networks.discriminator_halvings)."
        )
    if accuracy > highest:
        return (
            f"The {name} is {accuracy:.2f}, nearly perfect: the generators do not keep up. Give them more features "
            "(networks.generator), or lower method.generator_lr."
        )
    return ""


def _sides(value: float | tuple[float, ...]) -> str:
    return " x ".join(f"{side:g}" for side in value) if isinstance(value, tuple) else f"{value:g}"


def _start_from(method: MutualDistillation | SingleSegmentor, bundle: Bundle) -> None:
    for part, network in method.parts().items():
        try:
            missing, unknown = network.load_state_dict(bundle.network(part).state_dict(), strict=False)
            if unknown or not all(name.startswith(TRAINING_ONLY) for name in missing):
                raise RuntimeError("other layers")
        except RuntimeError as error:
            raise InputError(
                f"The networks of “{bundle.path.name}”, from which the run should start, have other sizes.",
                "Set “networks” to its sizes, or leave out “run.start”.",
            ) from error


def _identity(config: TrainingConfig) -> dict[str, Any]:
    """What must not change between a run's starts, as plain values; lengths may."""
    plain = dataclasses.asdict(config)

    def without_steps(name: str) -> list[dict[str, Any]]:
        return [{key: value for key, value in one.items() if key != "steps"} for one in plain[name]]

    data = (
        "structures",
        "own_hearts",
        "bodies",
        "heart_fraction",
        "structure_fraction",
        "ct_window",
        "mr_percentiles",
    )
    return {
        "target": config.target,
        "networks": plain["networks"],
        "method": plain["method"],
        "augmentation": plain["augmentation"],
        "stages": without_steps("stages"),
        "phases": without_steps("phases"),
        "data": {name: plain["data"][name] for name in data},
        "run": {name: plain["run"][name] for name in ("seed", "average_decay")},
    }


def _check_checkpoint(folder: Path, saved: Any, settings: dict[str, Any], images: dict[str, str]) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        InputError: what is different.
    """
    advice = "Choose another folder with --out, or set them back."
    if not isinstance(saved, dict) or not set(saved) >= _CHECKPOINT_ENTRIES:
        raise InputError(
            f"The checkpoint in “{folder}” does not say of which run it is.",
            "Choose another folder with --out, or remove the checkpoints to begin anew.",
        )
    changed = [name for name, value in settings.items() if saved["settings"].get(name) != value]
    if changed:
        raise InputError(f"The folder “{folder}” holds a run with other settings ({', '.join(changed)}).", advice)
    if saved["images"] != images:
        names = sorted(name for name in saved["images"] | images if saved["images"].get(name) != images.get(name))
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise InputError(
            f"The folder “{folder}” holds a run with other images ({listed or 'in another order'}).", advice
        )


def _refuse_earlier_format(folder: Path) -> None:
    earlier = folder / "checkpoint.pt"
    if earlier.exists():
        raise InputError(
            f"“{earlier}” is a checkpoint of an earlier version, which this version cannot continue.",
            "Choose another folder with --out; “run.start” can name the bundle that the earlier run has left.",
        )


def _random_state(device: torch.device) -> dict[str, Any]:
    """State of every generator that is shared by the whole process.  Patches, augmentation and pools have their own."""
    kind, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, [int(key) for key in keys], *rest),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
