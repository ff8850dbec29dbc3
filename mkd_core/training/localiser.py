"""Training of the heart localiser: a small segmentor on coarse whole-torso volumes of either modality, with and without
a heart in view.

python -m mkd_core.training.localiser --hearts FOLDER --out runs/localiser
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mkd_core.io.atomic import write_file
from mkd_core.method.networks import build
from mkd_core.structures import IGNORE, STRUCTURES
from mkd_core.synthesis import appearance, render
from mkd_core.training.config import DataConfig, class_weights
from mkd_core.training.rendered_hearts import normalise, open_canvas, prepare_canvases, training_hearts
from mkd_core.training.updates import supervised_step

#: Voxel size of the localiser's grid, mm.
SPACING = 5.0
#: Margin round the heart of the box that is segmented, mm.
MARGIN_MM = 14.0
ARCHITECTURE = {"type": "segmentor", "channels": [8, 16, 32, 64]}
NORMALISATION = DataConfig().normalisation()
#: What else a bundle says of its localiser.
DESCRIPTION: dict[str, Any] = {
    "spacing_mm": SPACING,
    "min_heart_ml": 150.0,
    "margin_mm": MARGIN_MM,
    "structures": [structure.key for structure in STRUCTURES],
}
_PEAK_LR = 3e-3
#: Power of the segmentors' class weights that the localiser is trained with: it needs no fine borders, so small
#: structures weigh less than there.
_CLASS_WEIGHT_POWER = 0.5


@dataclass(frozen=True)
class TorsoSource(torch.utils.data.IterableDataset):
    """Endless batches of coarse volumes: whole torsos and views that miss the heart on a large grid, tight heart scans
    on a small one.

    Attributes:
        canvases: cached canvas descriptions.
        wide, tight: (voxels per side at :data:`SPACING`, examples per batch) of either kind.
        seed: start of the stream.
    """

    canvases: tuple[Path, ...]
    wide: tuple[int, int] = (56, 2)
    tight: tuple[int, int] = (32, 6)
    seed: int = 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        rng = np.random.default_rng((self.seed, info.id if info else 0))
        while True:
            is_tight = rng.random() < 0.5
            size, count = self.tight if is_tight else self.wide
            batch = [self._example(size, is_tight, rng) for _ in range(count)]
            images, targets = zip(*batch)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))

    def _example(self, size: int, tight: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        canvas = open_canvas(self.canvases[rng.integers(len(self.canvases))], "torso")
        modality = "CT" if rng.random() < 0.5 else "MR"
        look = appearance.draw_varied(modality, rng)
        view = draw_view(canvas, rng, size, tight)
        image, tissues = render.render_grid(canvas, look, rng, view.axes, SPACING, view.centre, view.matrix)
        outside = view.outside
        stack = render.draw_stack(modality, rng) if tight else None
        if stack is not None:
            image, outside = stack.record(image, outside, SPACING)
        target = render.TARGET_OF[tissues]
        target[outside] = IGNORE
        # Padding repeats the edge; a whole volume at inference has none, so percentiles are taken inside only.
        return normalise(image, NORMALISATION[modality], image[~outside])[None], target


def draw_view(canvas: render.Canvas, rng: np.random.Generator, size: int, tight: bool) -> render.View:
    """Draw what one example of ``size`` voxels per side shows: a heart scan if ``tight``, else a thorax, a torso, or a
    part of the body beside the heart.
    """
    low, high = np.array(canvas.heart_low), np.array(canvas.heart_high)
    shape = np.array(canvas.tissues.shape)
    centre = (low + high) / 2
    half = (high - low) / 2 * canvas.spacing  # mm
    if tight:  # a heart scan: little beyond the heart, or less than the heart
        reach = half * rng.uniform(0.45, 1.5, 3)
        centre = centre + rng.uniform(-0.35, 0.35, 3) * half / canvas.spacing
    elif rng.random() < 0.65:  # thorax or whole torso
        reach = rng.uniform(100, 260, 3)
        centre = centre + rng.uniform(-60, 60, 3) / canvas.spacing
    else:  # abdomen or neck: the heart at most touches the view
        reach = np.array([rng.uniform(50, 140), rng.uniform(100, 220), rng.uniform(120, 230)])
        down = rng.random() < 0.8
        edge = low[0] * canvas.spacing - reach[0] if down else high[0] * canvas.spacing + reach[0] + 30
        centre = np.array(
            [(edge - rng.uniform(-15, 60) * (1 if down else -1)) / canvas.spacing, shape[1] / 2, shape[2] / 2]
        )
    matrix = render.rotation(rng.normal(0, 7, 3)) @ np.diag(render.draw_size(rng) * rng.uniform(0.95, 1.05, 3))
    axes, outside = [], np.zeros((size,) * 3, bool)
    for axis in range(3):
        position = (np.arange(size) - (size - 1) / 2) * SPACING
        index: list[slice | np.ndarray] = [slice(None)] * 3
        index[axis] = np.abs(position) > reach[axis]
        outside[tuple(index)] = True
        axes.append(np.clip(position, -reach[axis], reach[axis]))
    return render.View(axes, centre, matrix, None, outside)


def train(canvases: Sequence[Path], out: Path, minutes: float, seed: int = 0) -> torch.nn.Module:
    """Train a localiser for some minutes, from ``out/localiser.pt`` if that is there.

    Writes ``out/localiser.pt`` and ``out/log.jsonl``; returns the network in evaluation mode.
    """
    out.mkdir(parents=True, exist_ok=True)
    network = build(ARCHITECTURE)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from torch's stubs
    weights_file = out / "localiser.pt"
    if weights_file.exists():
        network.load_state_dict(torch.load(weights_file, weights_only=True))
    weights = torch.tensor(class_weights(STRUCTURES)) ** _CLASS_WEIGHT_POWER
    optimiser = torch.optim.AdamW(network.parameters(), _PEAK_LR, weight_decay=1e-3)
    loader = iter(
        torch.utils.data.DataLoader(TorsoSource(tuple(canvases), seed=seed), None, num_workers=1, prefetch_factor=4)
    )
    start, step, total = time.monotonic(), 0, 0.0
    with (out / "log.jsonl").open("a", buffering=1, encoding="utf-8") as log:
        while (fraction := (time.monotonic() - start) / 60 / minutes) < 1:
            image, target = next(loader)
            lr = _PEAK_LR * 0.5 * (1 + float(np.cos(np.pi * fraction)))
            total += supervised_step(network, optimiser, lr, image, target, weights)
            step += 1
            if step % 50 == 0:
                log.write(
                    json.dumps({"step": step, "minutes": round(fraction * minutes, 2), "loss": round(total / 50, 4)})
                    + "\n"
                )
                total = 0.0
                if step % 250 == 0:
                    _save(network, weights_file)
    _save(network, weights_file)
    return network.eval()


def _save(network: torch.nn.Module, path: Path) -> None:
    write_file(path, lambda draft: torch.save(network.state_dict(), draft))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the localiser's training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hearts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--last-training-heart", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    canvases = prepare_canvases(
        training_hearts(options.hearts, options.last_training_heart), options.cache or options.out / "canvases"
    )
    train(canvases[:-10], options.out, options.minutes, seed=options.seed)


if __name__ == "__main__":
    main()
