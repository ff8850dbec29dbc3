"""Dice of trained networks on test volumes, on the training grid and in the box of the heart: what was learnt, apart
from localising and resampling.

Images are aligned and predictions put together by the functions that a click uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from mkd_core.evaluation.measures import measure_case
from mkd_core.inference.execution import choose_precision
from mkd_core.inference.geometry import Spacing, steps_of
from mkd_core.method import ensemble
from mkd_core.method.alignment import align_for_segmentors
from mkd_core.method.networks import Stream, select_stream, strides_of
from mkd_core.method.strides import Strides, common
from mkd_core.protocol import TARGET_POLICIES
from mkd_core.structures import STRUCTURES, Structure
from mkd_core.training.labelled_volumes import PreparedVolume
from mkd_core.training.validation import dice_of_labels

#: What :func:`score` measures.
Measure = Literal["dice", "hd95"]

#: A measure by volume and structure; None where it is not defined.
Scores = list[list[float | None]]


def score(
    parts: Mapping[str, nn.Module],
    volumes: Sequence[PreparedVolume],
    spacing: Spacing,
    aligns: bool,
    margin_mm: float,
    structures: Sequence[Structure] = STRUCTURES,
    measures: Sequence[Measure] = ("dice",),
) -> dict[Measure, dict[str, Scores]]:
    """Segment test volumes.

    Args:
        parts: networks as a bundle holds them; they compute on the device where they are.
        volumes: test volumes of the target modality on the training grid.
        spacing: of the grid.
        aligns: whether the generators were trained; without, every segmentor sees the volume itself.
        margin_mm: left round the heart, mm, as far as the volume goes; what lies beyond the volume does not count.
        structures: what the labels mean.
        measures: Dice, and HD95 in mm on the training grid, see :func:`mkd_core.evaluation.measures.hd95`.

    Returns:
        Each measure by prediction (``"S_real"``, ``"S_syn POLICY"``, ``"ensemble POLICY"``), volume and structure; None
        where it is not defined.
    """
    for network in parts.values():
        network.eval()
    strides = common(strides_of(network) for network in parts.values())
    device = device_of(parts)
    precision = choose_precision("auto", device)
    rows: dict[Measure, dict[str, Scores]] = {measure: {} for measure in measures}
    for volume in volumes:
        image, truth, seen = _heart_box(volume, spacing, strides, margin_mm)
        for name, everywhere in _answers(parts, image.to(device), aligns, precision, structures).items():
            labels = everywhere[seen]
            for measure in measures:
                if measure == "dice":
                    found = dice_of_labels(labels, truth, structures)
                else:
                    found = _hd95(labels, truth, steps_of(spacing), structures)
                rows[measure].setdefault(name, []).append([_rounded(found[s.key]) for s in structures])
    return rows


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def _hd95(
    labels: np.ndarray, truth: np.ndarray, steps: np.ndarray, structures: Sequence[Structure]
) -> dict[str, float]:
    measured = measure_case(labels, truth, steps.tolist(), structures)
    return {key: float("nan") if one.hd95_mm is None else one.hd95_mm for key, one in measured.items()}


def device_of(parts: Mapping[str, nn.Module]) -> torch.device:
    """Where the networks of a bundle compute."""
    return next(parts["segmentor_real"].parameters()).device


def heart_crop(volume: PreparedVolume, size: Sequence[int]) -> tuple[torch.Tensor, np.ndarray]:
    """The middle of a heart: image ``(1, 1, D, H, W)`` and labels ``(D, H, W)`` of ``size`` voxels (z, y, x); beyond
    the volume its edge again.
    """
    corners = zip(volume.heart_low, volume.heart_high, size)
    image, labels, _ = _cut(volume, [(low + high - side) // 2 for low, high, side in corners], size)
    return image, labels


def _heart_box(
    volume: PreparedVolume, spacing: Spacing, strides: Strides, margin_mm: float
) -> tuple[torch.Tensor, np.ndarray, tuple[slice, ...]]:
    """The heart with a margin round it, as far as the volume goes, in as many voxels as the networks take.

    Returns:
        The image ``(1, 1, D, H, W)``, its edge again where the networks take more than there is; the labels of the
        voxels that lie in the volume; and which of the image's voxels these are.
    """
    margins = np.rint(margin_mm / steps_of(spacing)).astype(int)
    lengths = np.load(volume.labels, mmap_mode="r").shape
    firsts, size = [], []
    for heart_low, heart_high, margin, stride, length in zip(
        volume.heart_low, volume.heart_high, margins, strides, lengths
    ):
        low, high = max(heart_low - margin, 0), min(heart_high + margin, length)
        size.append(-(-(high - low) // stride) * stride)
        firsts.append((low + high - size[-1]) // 2)
    image, labels, seen = _cut(volume, firsts, size)
    return image, labels[seen], seen


def _cut(
    volume: PreparedVolume, firsts: Sequence[int], size: Sequence[int]
) -> tuple[torch.Tensor, np.ndarray, tuple[slice, ...]]:
    """So many voxels of a volume from the first ones on (z, y, x), beyond it its edge again: image ``(1, 1, D, H, W)``,
    labels ``(D, H, W)``, and which of them lie in the volume.
    """
    image, labels = np.load(volume.image, mmap_mode="r"), np.load(volume.labels, mmap_mode="r")
    places = list(zip(firsts, size, image.shape))
    box = np.ix_(*[np.clip(first + np.arange(side), 0, length - 1) for first, side, length in places])
    seen = tuple(slice(max(-first, 0), min(side, length - first)) for first, side, length in places)
    return torch.from_numpy(image[box].astype(np.float32))[None, None], np.array(labels[box]), seen


@torch.inference_mode()
def _answers(
    parts: Mapping[str, nn.Module],
    image: torch.Tensor,
    aligns: bool,
    precision: torch.dtype,
    structures: Sequence[Structure],
) -> dict[str, np.ndarray]:
    known: dict[tuple[str, int], torch.Tensor] = {}  # policies share most of their work
    kept = [image]

    def run(part: str, given: torch.Tensor, stream: Stream = "target") -> torch.Tensor:
        key = (part, id(given))
        if key not in known:
            select_stream(parts[part], stream)
            with torch.autocast(given.device.type, precision, enabled=precision != torch.float32):
                known[key] = parts[part](given).float()
            kept.append(given)  # an id is good as long as its tensor lives
        return known[key]

    def labels(probabilities: torch.Tensor) -> np.ndarray:
        return ensemble.best_class(ensemble.keep_main_components(probabilities.cpu().clone(), structures)).numpy()

    found: dict[str, np.ndarray] = {}
    for policy in TARGET_POLICIES if aligns else ("none",):
        views = align_for_segmentors(image, policy, run)
        together, real, synthetic = ensemble.ensemble(
            [run("segmentor_real", view, views.stream(view))[0] for view in views.real],
            [run("segmentor_syn", view, views.stream(view))[0] for view in views.synthetic],
        )
        found |= {"S_real": labels(real), f"S_syn {policy}": labels(synthetic), f"ensemble {policy}": labels(together)}
    return found
