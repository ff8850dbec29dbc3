"""A resumable training run of the method in stages, from coarse to fine.

    python -m mkd_core.training.run --hearts FOLDER --out runs/first

``FOLDER`` holds tissue maps of hearts (``*.nii.gz``, see :mod:`mkd_core.synthesis.tissues`).  The run writes ``log.jsonl``, ``checkpoint.pt`` (every few
minutes; the same command continues from it), ``panel_*.png`` (what IAM and the segmentors do) and ends with the networks in ``networks.pt``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from mkd_core.bundle import Bundle, load_bundle
from mkd_core.structures import STRUCTURES
from mkd_core.synthesis import render
from mkd_core.training.data import PatchSource, normalise, open_canvas, prepare_canvases, training_hearts
from mkd_core.training.mkd import MKDConfig, MutualDistillation

NORMALISATION = {"CT": {"kind": "window", "low": -300.0, "high": 700.0}, "MR": {"kind": "percentile", "low": 1.0, "high": 99.5}}


@dataclass(frozen=True)
class Stage:
    """Part of a run at one resolution.

    Attributes:
        minutes: wall time of the stage.
        spacing: mm.
        size: voxels per side of a patch.
        batch: patches of each modality per step.
        rate_from, rate_to: learning-rate factor at its start and end, cosine between.
        weighting: power of the class weights of the cross-entropy: 1 wakes small structures early, 0 lets borders settle where they are most likely.
    """

    minutes: float
    spacing: float
    size: int
    batch: int
    rate_from: float = 1.0
    rate_to: float = 0.0
    weighting: float = 1.0


def stage_rate(stage: Stage, fraction: float) -> float:
    """Learning-rate factor at a fraction of a stage: cosine from ``rate_from`` to ``rate_to``."""
    return stage.rate_to + (stage.rate_from - stage.rate_to) * 0.5 * (1 + float(np.cos(np.pi * min(1.0, fraction))))


class ValidationHearts:
    """Rendered volumes of hearts kept out of training, for a look at the run; never the test hearts."""

    def __init__(self, canvases: Sequence[Path], spacing: float, size: int = 80) -> None:
        self.cases = []
        for number, description in enumerate(canvases):
            canvas = open_canvas(description)
            for modality in ("CT", "MR"):
                rng = np.random.default_rng(1000 + number)
                look = render.appearance.draw(modality, rng)
                axes = [(np.arange(size) - (size - 1) / 2) * spacing] * 3
                centre = (np.array(canvas.heart_low) + np.array(canvas.heart_high)) / 2
                image, tissues = render.render_grid(canvas, look, rng, axes, spacing, centre)
                self.cases.append(
                    (modality, torch.from_numpy(normalise(image, modality, NORMALISATION))[None, None], render.TARGET_OF[tissues])
                )

    def dice(self, model: MutualDistillation) -> dict[str, dict[str, float]]:
        """Dice per structure of S_real, S_syn and their mean; MR goes through G_a2t, CT reaches S_syn through the cycle."""
        model.eval()
        scores: dict[str, list] = {}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for modality, image, truth in self.cases:
                if modality == "CT":
                    cycled = model.generator_a2t(model.generator_t2a(image)).float()
                    views = {"real": (image, None), "syn cycle": (None, cycled), "syn none": (None, image), "ensemble": (image, cycled)}
                else:
                    aligned = model.generator_a2t(image).float()
                    views = {"real": (aligned, None), "syn": (None, aligned), "ensemble": (aligned, aligned)}
                for name, (for_real, for_syn) in views.items():
                    parts = [
                        net(x).float().softmax(1)
                        for net, x in ((model.segmentor_real, for_real), (model.segmentor_syn, for_syn))
                        if x is not None
                    ]
                    labels = sum(parts).argmax(1)[0].numpy()
                    per_structure = [
                        2
                        * np.count_nonzero((labels == s.label) & (truth == s.label))
                        / max(1, np.count_nonzero(labels == s.label) + np.count_nonzero(truth == s.label))
                        for s in STRUCTURES
                    ]
                    scores.setdefault(f"{modality} {name}", []).append(per_structure)
        model.train()
        return {
            name: {s.key: round(float(v), 3) for s, v in zip(STRUCTURES, np.mean(rows, axis=0))} | {"mean": round(float(np.mean(rows)), 4)}
            for name, rows in scores.items()
        }

    def panel(self, model: MutualDistillation, path: Path) -> None:
        """Picture: each case's image, translation, cycle, ensemble and truth, middle axial slices."""
        model.eval()
        palette = np.array([(0, 0, 0)] + [s.color for s in STRUCTURES], np.float32)
        rows = []
        with torch.inference_mode():
            for modality, image, truth in self.cases:
                there, back = (model.generator_t2a, model.generator_a2t) if modality == "CT" else (model.generator_a2t, model.generator_t2a)
                made = there(image)
                cycled = back(made)
                first, second = (image, cycled) if modality == "CT" else (made, made)
                labels = (model.segmentor_real(first).softmax(1) + model.segmentor_syn(second).softmax(1)).argmax(1)[0].numpy()
                middle = image.shape[2] // 2
                tiles = [np.repeat((x[0, 0, middle].numpy()[..., None] + 1) * 127.5, 3, axis=-1) for x in (image, made, cycled)]
                tiles += [0.55 * tiles[0] + 0.45 * palette[x[middle]] for x in (labels, truth)]
                rows.append(np.concatenate(tiles, axis=1))
        model.train()
        picture = np.clip(np.concatenate(rows), 0, 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)
        sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path))


def _replace(path: Path, content: dict) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def train(
    model: MutualDistillation,
    stages: Sequence[Stage],
    train_canvases: Sequence[Path],
    validation: Sequence[Path],
    out: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    checkpoint_minutes: float = 4.0,
    validate_minutes: float = 12.0,
) -> None:
    """Run the stages, continuing from ``out/checkpoint.pt`` if it is there.

    Args:
        model: the method's networks.
        stages: in order.
        train_canvases, validation: cached canvases (:func:`mkd_core.training.data.prepare_canvases`).
        out: folder of the run.
        seed: of the data stream; a continued stage takes a fresh part of the stream.
        workers: processes that render patches.
        checkpoint_minutes, validate_minutes: how often.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = {"stage": 0, "minutes": 0.0, "step": 0}
    if (out / "checkpoint.pt").exists():
        saved = torch.load(out / "checkpoint.pt", weights_only=True)
        model.restore(saved["model"])
        done = saved["done"]
    log = (out / "log.jsonl").open("a", buffering=1)

    def note(**entry) -> None:
        log.write(json.dumps({"time": time.strftime("%H:%M:%S"), **done, **entry}) + "\n")

    for number in range(done["stage"], len(stages)):
        stage = stages[number]
        held_out = ValidationHearts(validation, stage.spacing, 80 if stage.spacing <= 2 else 64)
        source = PatchSource(
            tuple(train_canvases), tuple(train_canvases), stage.size, stage.spacing, NORMALISATION, seed=seed + 7919 * done["step"] + number
        )
        loader = iter(torch.utils.data.DataLoader(source, stage.batch, num_workers=workers, prefetch_factor=3 if workers else None))
        model.class_weights = torch.tensor(model.config.class_weights, dtype=torch.float32, device=model.device) ** stage.weighting
        model.train()
        last = checkpointed = validated = time.monotonic()
        sums: dict[str, float] = {}
        counted = 0
        while done["minutes"] < stage.minutes:
            model.set_rate(stage_rate(stage, done["minutes"] / stage.minutes) * min(1.0, (done["step"] + 1) / 50))
            terms = model.step(*(tensor.to(model.device) for tensor in next(loader)))
            done["step"] += 1
            counted += 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            now = time.monotonic()
            done["minutes"] += (now - last) / 60
            last = now
            if counted == 25:
                note(**{name: round(value / counted, 4) for name, value in sums.items()})
                sums, counted = {}, 0
            if (now - checkpointed) / 60 > checkpoint_minutes:
                _replace(out / "checkpoint.pt", {"model": model.state(), "done": done})
                checkpointed = now
            if (now - validated) / 60 > validate_minutes:
                note(dice=held_out.dice(model))
                held_out.panel(model, out / f"panel_{done['step']:06d}.png")
                validated = last = time.monotonic()
        note(dice=held_out.dice(model), end_of_stage=number)
        held_out.panel(model, out / f"panel_stage{number}.png")
        done.update(stage=number + 1, minutes=0.0)
        _replace(out / "checkpoint.pt", {"model": model.state(), "done": done})
    _replace(out / "networks.pt", {name: network.state_dict() for name, network in model.bundle_parts().items()})


def start_from(model: MutualDistillation, bundle: Bundle) -> None:
    """Copy a bundle's generators and segmentors into a model of the same architectures.

    Raises:
        RuntimeError: the architectures differ.
    """
    for part, network in model.bundle_parts().items():
        network.load_state_dict(bundle.network(part).state_dict())


#: Seeds of :func:`mkd_core.synthesis.anatomy.make_heart` that training uses; demonstrations and tests use smaller ones.
FIRST_OWN_SEED = 10001


def make_own_hearts(count: int, folder: Path) -> list[Path]:
    """Tissue maps of hearts of our own anatomy, made once and kept in ``folder``."""
    from mkd_core.synthesis.anatomy import make_heart

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"own_{FIRST_OWN_SEED + number}.nii.gz" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            sitk.WriteImage(make_heart(FIRST_OWN_SEED + number), str(path), True)
    return paths


#: Coarse first, where a step is cheap and sees the whole heart, then at the bundle's resolution.  The first default bundle had stages of this length; its class
#: weights faded in the last 24 minutes only.
DEFAULT_STAGES = (Stage(30, 3.0, 48, 2, 1.0, 0.3), Stage(64, 2.0, 64, 1, 0.6, 0.0, weighting=0.2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of a run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--hearts", type=Path, required=True, help="folder of heart tissue maps; the last ten of the training split validate"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cache", type=Path, help="folder of painted bodies; default OUT/canvases")
    parser.add_argument("--own-hearts", type=int, default=30, help="hearts of mkd_core.synthesis.anatomy to add to the folder's")
    parser.add_argument("--last-training-heart", type=int, default=200, help="hearts numbered above it are never read")
    parser.add_argument("--start", type=Path, help="bundle whose generators and segmentors the run starts from; the discriminators start anew")
    parser.add_argument("--minutes", type=float, nargs="*", help="wall minutes of each stage instead of the default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    cache = options.cache or options.out / "canvases"
    canvases = prepare_canvases(training_hearts(options.hearts, options.last_training_heart), cache)
    own = prepare_canvases(make_own_hearts(options.own_hearts, cache / "hearts"), cache)
    stages = list(DEFAULT_STAGES)
    if options.minutes:
        stages = [Stage(**{**asdict(s), "minutes": m}) for s, m in zip(stages, options.minutes)]
    model = MutualDistillation(MKDConfig())
    if options.start:
        start_from(model, load_bundle(options.start))
    train(model, stages, canvases[:-10] + own, canvases[-10::3], options.out, seed=options.seed)


if __name__ == "__main__":
    main()
