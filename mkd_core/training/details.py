"""Training of the network for structures in detail: appendage, veins and the rest of the aorta beside the seven.

python -m mkd_core.training.details --hearts FOLDER --out runs/detailed [--recipe mkd_core/weights/detailed.toml]

First a pool of boxes is made, each rendered from a heart as inference sees one: the image, the view of it that IAM
renders, and the seven structures as the weights predict them there.  Then the network learns from random pieces of
the pool, on a graphics card if there is one.  Both go on where they were stopped; training may begin while the pool
still grows (``--only pool``, ``--only train``).
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import json
import math
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from torch.optim.swa_utils import AveragedModel

from mkd_core.arrays import as_array
from mkd_core.inference.details import given_to_network
from mkd_core.inference.execution import Executor, choose_device, choose_precision
from mkd_core.io.atomic import write_file
from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle
from mkd_core.io.detail_weights import DetailWeights, load_details, save_details
from mkd_core.method import ensemble
from mkd_core.method.alignment import align_for_segmentors
from mkd_core.method.networks import build
from mkd_core.protocol import MODALITIES
from mkd_core.structures import CLASS_COUNT, DETAILED, IGNORE, labelled, labels_of_the_seven
from mkd_core.synthesis import appearance, body, render
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.render import Canvas
from mkd_core.synthesis.tissues import TISSUE_COUNT, targets_of
from mkd_core.synthesis.tissues import Tissue as T
from mkd_core.training.config import class_weights
from mkd_core.training.rendered_hearts import normalise, training_hearts, with_findings
from mkd_core.training.updates import moving_average, supervised_step

#: Structures that the network learns, with the labels that it gives them.
STRUCTURES = labelled(DETAILED)

#: Where a structure of the seven goes over into one of these without an edge: tissues on both sides.  What the seven
#: miss of the first beside the second counts in no loss.
_CUTS = (
    (T.ASCENDING_AORTA, T.AORTA_ARCH_DESCENDING),
    (T.RA, T.SVC),
    (T.RA, T.IVC),
    (T.RA, T.CORONARY_SINUS),
    (T.LA, T.PULMONARY_VEINS),
    (T.LA, T.PULMONARY_VEIN_STUB),
)

#: Vessels that bodies continue under another name beyond the heart's own map; where one name ends is a convention.
_CONTINUED = (
    (T.PULMONARY_VEINS, T.LUNG_VESSEL),
    (T.IVC, T.HEPATIC_VEIN),
    (T.SVC, T.LEAD_IN_VEIN),
)

#: Width of both zones, mm.
_CUT_MM = 5.0

#: An aorta that is cut lengthwise may go on so far, mm.
_AORTA_MM = 24.0

#: What lies behind such a cut and is as bright as blood.
_BONES = (T.CORTICAL_BONE, T.SPONGY_BONE, T.DISC, T.SPINAL_CANAL)

#: Seconds between checkpoints.
_SAVE_EVERY_S = 240.0

#: Share of the boxes whose heart is at any moment of its beat, with findings.
_SHARE_FINDINGS = 0.5

#: Share of the boxes whose heart is drawn from formulas.
_SHARE_DRAWN = 0.1


@dataclass(frozen=True)
class Recipe:
    """Settings of a run.

    Attributes:
        boxes: size of the pool.
        first_boxes: training begins when the pool has so many.
        last_heart: hearts with larger numbers are for tests.
        steps: length of the training.
        restarts: steps at which the learning rate goes up again, each time to half as much: Loshchilov and Hutter,
            "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
        patch: voxels per side of a piece.
        batch: pieces per step.
        peak_lr: of AdamW; falls to 0 along a cosine by the end or the next restart.
        equal_weights: all classes weigh the same in the loss.  Small structures are drawn often enough; the weights of
            the catalogue, which favour them over their surroundings, make vessels too thick.
        channels: features of the network per level.
        margin_mm: space round the seven structures in a box, smallest and largest.
        start: weights that the run starts from, a file beside the recipe; empty for new ones.
        average_decay: the result is a moving average of the weights with this decay; 0 for the last ones.
        seed: of everything.
        name, version, licence, intended_use, data: of the weights, for their description.
    """

    boxes: int = 600
    first_boxes: int = 40
    last_heart: int = 200
    steps: int = 3000
    restarts: tuple[int, ...] = ()
    patch: int = 48
    batch: int = 3
    peak_lr: float = 3e-3
    equal_weights: bool = True
    channels: tuple[int, ...] = (8, 24, 48, 64)
    margin_mm: tuple[float, float] = (9.0, 22.0)
    start: str = ""
    average_decay: float = 0.0
    seed: int = 0
    name: str = ""
    version: str = ""
    licence: str = ""
    intended_use: str = ""
    data: str = ""

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Settings from a TOML file; those that it does not name have their defaults.

        Raises:
            TypeError: a name that is no setting.
        """
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        if values.get("start"):
            values["start"] = str(path.parent / values["start"])
        return cls(**values)

    @property
    def architecture(self) -> dict[str, Any]:
        """Description of the network, see :func:`mkd_core.method.networks.build`."""
        return {
            "type": "segmentor",
            "in_channels": CLASS_COUNT,
            "out_channels": len(STRUCTURES) + 1,
            "channels": list(self.channels),
        }


# ---- the pool ----


@dataclass(frozen=True)
class Box:
    """A box round a heart as inference sees it, ``(D, H, W)`` each.

    Attributes:
        views: the image and what IAM makes of it, normalised, float16.
        seven: labels of the seven structures as predicted, uint8.
        tissues: true ones, uint8; :data:`mkd_core.structures.IGNORE` beyond the field of view.
    """

    views: tuple[np.ndarray, ...]
    seven: np.ndarray
    tissues: np.ndarray

    def write(self, path: Path) -> None:
        """Keep the box in a file."""
        arrays: dict[str, Any] = {f"view{number}": view for number, view in enumerate(self.views)}
        arrays |= {"seven": self.seven, "tissues": self.tissues}

        def save(draft: Path) -> None:
            with draft.open("wb") as file:
                np.savez(file, **arrays)

        write_file(path, save)

    @classmethod
    def read(cls, path: Path) -> Box:
        """The box in a file."""
        with np.load(path) as file:
            views = tuple(file[name] for name in sorted(file.files) if name.startswith("view"))
            return cls(views, file["seven"], file["tissues"])


def make_box(hearts: Sequence[Path], bundle: Bundle, executor: Executor, recipe: Recipe, number: int) -> Box:
    """One box of the pool, a function of the recipe and its number alone."""
    rng = np.random.default_rng((recipe.seed, number))
    canvas = _canvas(hearts, rng)
    modality = MODALITIES[number % 2]
    assert not isinstance(bundle.spacing, tuple)
    look = appearance.draw_varied(modality, rng)
    view = _draw_view(canvas, rng, bundle.spacing, bundle.stride, recipe.margin_mm)
    image, tissues, outside = render.record(canvas, look, view, rng, bundle.spacing)
    normalised = torch.from_numpy(normalise(image, bundle.normalisation(modality)))[None, None]
    views, seven = seven_of(normalised, modality, bundle, executor)
    tissues = np.where(outside, IGNORE, tissues).astype(np.uint8)
    return Box(tuple(as_array(one[0, 0]).astype(np.float16) for one in views), seven, tissues)


def _canvas(hearts: Sequence[Path], rng: np.random.Generator) -> Canvas:
    if rng.random() < _SHARE_DRAWN or not hearts:
        heart = make_heart(int(rng.integers(1_000_000)))
    else:
        heart = sitk.ReadImage(str(hearts[int(rng.integers(len(hearts)))]))
    seed = int(rng.integers(2**31))
    image = render.body_canvas(heart, seed, body.chest_extent(heart))
    canvas = Canvas.from_array(sitk.GetArrayFromImage(image), image.GetSpacing()[0])
    if rng.random() < _SHARE_FINDINGS:
        canvas = with_findings(canvas, seed)
    tissues = np.ascontiguousarray(canvas.tissues)
    render.mark_vein_stubs(tissues, canvas.spacing)
    return Canvas.from_array(tissues, canvas.spacing)


def _draw_view(
    canvas: Canvas, rng: np.random.Generator, spacing: float, stride: int, margin_mm: tuple[float, float]
) -> render.View:
    """A view of a whole heart with a margin, as the localiser's box has it."""
    matrix = render.draw_view(canvas, rng, (stride,) * 3, spacing).matrix
    scale = np.linalg.det(matrix) ** (1 / 3)
    low, high = np.array(canvas.heart_low), np.array(canvas.heart_high)
    sides = (high - low) * canvas.spacing / scale + rng.uniform(*margin_mm, 3) + rng.uniform(*margin_mm, 3)
    shape = tuple(int(n) for n in np.ceil(sides / (stride * spacing)) * stride)
    view = render.draw_view(canvas, rng, shape, spacing)
    centre = (low + high) / 2 + rng.normal(0, 3.0, 3) / canvas.spacing
    return dataclasses.replace(view, matrix=matrix, centre=centre)


def seven_of(
    image: torch.Tensor, modality: str, bundle: Bundle, executor: Executor
) -> tuple[list[torch.Tensor], np.ndarray]:
    """What IAM and MKD make of a normalised box ``(1, 1, D, H, W)``.

    Returns:
        The views of it, itself first, and the labels of the seven structures ``(D, H, W)``, uint8.
    """
    policy = bundle.alignment(modality)
    views = align_for_segmentors(image, policy, executor.run, is_target=modality == bundle.target)
    real, synthetic = views.segmented(lambda part, view: executor.run(part, view, stream=views.stream(view))[0])
    mean, _, _ = ensemble.ensemble(real, synthetic, bundle.ensemble_weight(modality))
    labels = as_array(ensemble.best_class(ensemble.keep_main_components(mean, bundle.structures)))
    rendered = [] if views.rendered is None else [views.rendered]
    return [image, *rendered], np.array(labels_of_the_seven(bundle.structures), np.uint8)[labels]


def make_pool(hearts: Sequence[Path], bundle: Bundle, recipe: Recipe, pool: Path) -> None:
    """Make what the pool lacks."""
    pool.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu")
    executor = Executor(bundle, device, choose_precision("auto", device))
    for number in range(recipe.boxes):
        path = pool / f"box_{number:05d}.npz"
        if not path.exists():
            make_box(hearts, bundle, executor, recipe, number).write(path)


# ---- training ----


def _target_table() -> np.ndarray:
    table = targets_of(STRUCTURES).copy()
    # The vein begins where the atrium as it is predicted ends, so its first part has the vein's label too.
    table[T.PULMONARY_VEIN_STUB] = table[T.PULMONARY_VEINS]
    return np.concatenate([table, np.full(256 - TISSUE_COUNT, IGNORE, np.uint8)])


_TARGETS = _target_table()


def target_of(tissues: np.ndarray, seven: np.ndarray, spacing: float) -> np.ndarray:
    """What the network shall say, ``(D, H, W)`` uint8, with :data:`mkd_core.structures.IGNORE`.

    Args:
        tissues: true ones, :data:`mkd_core.structures.IGNORE` beyond the field of view, ``(D, H, W)``.
        seven: labels of the seven structures as predicted, ``(D, H, W)``.
        spacing: mm.
    """
    target = _TARGETS[tissues]
    steps = max(1, round(_CUT_MM / spacing))
    for own, beyond in _CUTS:
        missed = (tissues == own) & (seven == 0)
        _ignore_near(target, tissues == beyond, missed, steps)
    for own, beyond in _CONTINUED:
        _ignore_near(target, tissues == own, tissues == beyond, steps)
    target[_behind_cut_aorta(tissues, spacing, steps) & (tissues != T.AORTA_ARCH_DESCENDING)] = IGNORE
    return target


def _behind_cut_aorta(tissues: np.ndarray, spacing: float, steps: int) -> np.ndarray:
    """Where the descending aorta would go on if a heart's own map did not end there: behind bone that it touches.  The
    bodies that are painted round hearts have the spine right behind such a cut.
    """
    behind = np.zeros(tissues.shape, bool)
    touching = (tissues[:, :-1] == T.AORTA_ARCH_DESCENDING) & np.isin(tissues[:, 1:], _BONES)
    for depth in range(1, min(1 + round(_AORTA_MM / spacing), tissues.shape[1])):
        behind[:, depth:] |= touching[:, : touching.shape[1] - depth + 1]
    if behind.any():
        behind = ndimage.binary_dilation(behind, iterations=steps)
    return behind


def _ignore_near(target: np.ndarray, place: np.ndarray, ignored: np.ndarray, steps: int) -> None:
    if place.any() and ignored.any():
        target[ndimage.binary_dilation(place, iterations=steps) & ignored] = IGNORE


class Pieces(torch.utils.data.IterableDataset):
    """Endless batches of pieces of the pool: what the network is given, ``(N, 8, D, H, W)``, and its targets.

    Args:
        pool: folder of the boxes.
        recipe: settings.
        spacing: mm.
        seed: start of the stream.
    """

    def __init__(self, pool: Path, recipe: Recipe, spacing: float, seed: int) -> None:
        self._pool, self._recipe, self._spacing, self._seed = pool, recipe, spacing, seed
        self._known: dict[Path, tuple[Box, np.ndarray]] = {}  # a few megabytes each; reading is slower than learning

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self._seed)
        while True:
            paths = sorted(self._pool.glob("box_*.npz"))  # it may still grow
            batch = [self._piece(paths[int(rng.integers(len(paths)))], rng) for _ in range(self._recipe.batch)]
            given, targets = zip(*batch)
            yield torch.cat(given), torch.from_numpy(np.stack(targets))

    def _piece(self, path: Path, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray]:
        if path not in self._known:
            box = Box.read(path)
            self._known[path] = box, target_of(box.tissues, box.seven, self._spacing)
        box, whole = self._known[path]
        place = _draw_place(whole, self._recipe.patch, rng)
        view = box.views[int(rng.integers(len(box.views)))]
        image, seven, target = (_cut(array, place, self._recipe.patch) for array in (view, box.seven, whole))
        image = _vary(image.astype(np.float32), rng)
        return given_to_network(torch.from_numpy(image), torch.from_numpy(seven)), target


def _draw_place(labels: np.ndarray, side: int, rng: np.random.Generator) -> list[int]:
    """First voxel of a piece: round a voxel of a structure drawn evenly from those that are there, so that small ones
    are seen as often as large ones; at times anywhere.
    """
    shape = np.array(labels.shape)
    present = [structure.label for structure in STRUCTURES if (labels == structure.label).any()]
    if present and rng.random() < 0.8:
        voxels = np.flatnonzero(labels == present[int(rng.integers(len(present)))])
        middle = np.array(np.unravel_index(voxels[int(rng.integers(len(voxels)))], labels.shape))
        middle = middle + rng.integers(-side // 4, side // 4 + 1, 3)
    else:
        middle = rng.integers(0, shape)
    return [int(v) for v in np.clip(middle - side // 2, 0, np.maximum(shape - side, 0))]


def _cut(array: np.ndarray, place: Sequence[int], side: int) -> np.ndarray:
    """A cube of an array; where the array ends first, its edge goes on."""
    piece = array[tuple(slice(first, first + side) for first in place)]
    return np.pad(piece, [(0, side - n) for n in piece.shape], mode="edge")


def _vary(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another contrast, brightness and noise."""
    image = image * np.float32(rng.uniform(0.85, 1.15)) + np.float32(rng.normal(0, 0.06))
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(0, 0.08), image.shape).astype(np.float32)
    return np.clip(image, -1, 1)


def train(pool: Path, recipe: Recipe, spacing: float, out: Path) -> torch.nn.Module:
    """Train from ``out/checkpoint.pt`` on if that is there; returns the network in evaluation mode.

    Writes ``out/checkpoint.pt`` every four minutes and ``out/log.jsonl``.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    device = choose_device("auto")
    network = build(recipe.architecture)
    if recipe.start:
        network.load_state_dict(load_details(recipe.start).network().state_dict())
    network.train()
    network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from torch's stubs
    average = AveragedModel(network, multi_avg_fn=moving_average(recipe.average_decay), use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.peak_lr, weight_decay=1e-3)
    checkpoint, step = out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    while len(list(pool.glob("box_*.npz"))) < min(recipe.first_boxes, recipe.boxes):
        time.sleep(5.0)
    weights = torch.ones(len(STRUCTURES) + 1) if recipe.equal_weights else torch.tensor(class_weights(STRUCTURES))
    weights = weights.to(device)
    batches = torch.utils.data.DataLoader(
        Pieces(pool, recipe, spacing, recipe.seed + step), None, num_workers=1, prefetch_factor=4
    )

    def keep() -> None:
        state = {"network": network.state_dict(), "average": average.state_dict(), "step": step}
        state["optimiser"] = optimiser.state_dict()
        write_file(checkpoint, lambda draft: torch.save(state, draft))

    saved, total = time.monotonic(), 0.0
    with (out / "log.jsonl").open("a", buffering=1, encoding="utf-8") as log:
        for given, target in batches:
            if step >= recipe.steps:
                break
            given = given.to(device).contiguous(memory_format=torch.channels_last_3d)
            target = target.to(device)
            total += supervised_step(network, optimiser, learning_rate(recipe, step), given, target, weights)
            average.update_parameters(network)
            step += 1
            if step % 25 == 0:
                log.write(json.dumps({"step": step, "loss": round(total / 25, 4)}) + "\n")
                total = 0.0
            if time.monotonic() - saved >= _SAVE_EVERY_S:
                saved = time.monotonic()
                keep()
    keep()
    return average.module.cpu().eval()


def save(out: Path, recipe: Recipe, bundle: Bundle) -> DetailWeights:
    """Make ``out/detailed.safetensors`` of the checkpoint in a run's folder."""
    state = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)
    average = AveragedModel(build(recipe.architecture), use_buffers=True)
    average.load_state_dict(state["average"])
    metadata = {
        "name": recipe.name,
        "version": recipe.version,
        "licence": recipe.licence,
        "intended_use": recipe.intended_use,
        "structures": list(DETAILED),
        "network": recipe.architecture,
        "spacing_mm": bundle.metadata["segmentor"]["spacing_mm"],
        "normalisation": bundle.metadata["normalisation"],
        "training": {
            "data": recipe.data,
            "boxes": len(list((out / "pool").glob("box_*.npz"))),
            "steps": state["step"],
            "restarts": list(recipe.restarts),
            "equal_weights": recipe.equal_weights,
            "patch": recipe.patch,
            "batch": recipe.batch,
            "bundle": bundle.identity,
        }
        | ({"started_from": load_details(recipe.start).identity} if recipe.start else {}),
        "quality": {},
    }
    return save_details(out / "detailed.safetensors", metadata, average.module)


def learning_rate(recipe: Recipe, step: int) -> float:
    """After so many steps: up for a fiftieth of the run between two restarts, then down along half a cosine."""
    ends = [0, *recipe.restarts, recipe.steps]
    cycle = bisect.bisect_right(recipe.restarts, step)
    fraction = min((step - ends[cycle]) / (ends[cycle + 1] - ends[cycle]), 1.0)
    peak = recipe.peak_lr / 2**cycle
    return peak * min(1.0, 0.1 + fraction / 0.02) * 0.5 * (1 + math.cos(math.pi * fraction))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hearts", type=Path, required=True, help="tissue maps NAME_NUMBER.nii.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=default_bundle_path().with_name("detailed.toml"))
    parser.add_argument("--weights", type=Path, default=default_bundle_path(), help="bundle that finds the seven")
    parser.add_argument(
        "--only", choices=("pool", "train", "save"), help="one part of the work; “save” makes weights of a checkpoint"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = Recipe.read(options.recipe)
    bundle = load_bundle(options.weights)
    pool = options.out / "pool"
    if options.only in (None, "pool"):
        make_pool(training_hearts(options.hearts, recipe.last_heart), bundle, recipe, pool)
    if options.only != "pool":
        assert not isinstance(bundle.spacing, tuple)
        if options.only != "save":
            train(pool, recipe, bundle.spacing, options.out)
        save(options.out, recipe, bundle)


if __name__ == "__main__":
    main()
