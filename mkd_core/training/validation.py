"""Dice of whole volumes by the deployment pipeline itself, and a look at what every network does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from mkd_core.errors import InputError, NoHeartError
from mkd_core.evaluation.cases import Case, read_case
from mkd_core.inference.pipeline import segment
from mkd_core.io.bundle import Bundle
from mkd_core.method.ensemble import agreement, best_class
from mkd_core.method.networks import select_stream
from mkd_core.protocol import SegmentationOptions
from mkd_core.structures import STRUCTURES, Structure


def dice_of_labels(
    found: np.ndarray, truth: np.ndarray, structures: Sequence[Structure] = STRUCTURES
) -> dict[str, float]:
    """Dice per structure of two label arrays of the same shape; NaN for a structure that neither has."""
    values = agreement(np.asarray(found), np.asarray(truth), len(structures) + 1)
    return {s.key: float("nan") if (value := values[s.label]) is None else value for s in structures}


def validate(
    bundle: Bundle, cases: Sequence[Case], options: SegmentationOptions, stop: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Mean Dice over cases, per structure and over all as ``"mean"``; a case in which no heart is found counts 0.

    Args:
        bundle: weights.
        cases: labelled volumes; structures that a case does not label do not count.
        options: how to segment.
        stop: polled before every case; True ends the look with the cases that were done.
    """
    rows: list[list[float]] = []
    structures = bundle.structures
    for case in cases:
        if rows and stop():
            break
        image, truth = read_case(case, structures)
        try:
            found = segment(image, bundle, modality=case.modality, options=options).labels
        except NoHeartError:
            rows.append([0.0 if case.labels(structure) else np.nan for structure in structures])
            continue
        except InputError as error:
            raise InputError(f"“{case.image.name}” cannot validate: {error.message}", error.advice) from error
        dice = dice_of_labels(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(truth), structures)
        rows.append([dice[s.key] if case.labels(s) else np.nan for s in structures])
    mean = np.nanmean(np.array(rows), axis=0)
    return {s.key: round(float(value), 4) for s, value in zip(structures, mean)} | {
        "mean": round(float(np.nanmean(mean)), 4)
    }


#: Columns of :func:`panel`.
PANEL_COLUMNS = ("image", "translation", "reconstruction", "S_real", "S_syn", "truth")


@torch.no_grad()
def panel(
    parts: Mapping[str, nn.Module],
    x_t: torch.Tensor,
    y_t: torch.Tensor,
    x_a: torch.Tensor,
    y_a: torch.Tensor,
    structures: Sequence[Structure] = STRUCTURES,
) -> np.ndarray:
    """What the networks make of a pair: above the assistant's image, below the target's, see :data:`PANEL_COLUMNS`.

    Args:
        parts: both generators and both segmentors, as a bundle holds them; they are left in evaluation mode.
        x_t, x_a: images ``(1, 1, D, H, W)``; y_t, y_a: labels ``(1, D, H, W)``.
        structures: what the labels mean.

    Returns:
        Middle axial slices, ``(2 H, 6 W, 3)``, uint8.
    """
    for network in parts.values():
        network.eval()
    rows = []
    for image, truth, there, back in (
        (x_a, y_a, "generator_a2t", "generator_t2a"),
        (x_t, y_t, "generator_t2a", "generator_a2t"),
    ):
        translated = parts[there](image)
        cycled = parts[back](translated)
        is_target = image is x_t
        seen = {
            "segmentor_real": image if is_target else translated,
            "segmentor_syn": cycled if is_target else translated,
        }
        labels = []
        for name, shown in seen.items():
            select_stream(parts[name], "target" if shown is x_t else "translated")
            labels.append(best_class(parts[name](shown)[0]))
        labels.append(truth[0])
        middle = image.shape[2] // 2
        greys = [_grey(shown[0, 0, middle]) for shown in (image, translated, cycled)]
        rows.append(
            np.concatenate(
                [*greys, *(_paint(greys[0], one[middle].cpu().numpy(), structures) for one in labels)], axis=1
            )
        )
    return np.concatenate(rows)


def _grey(values: torch.Tensor) -> np.ndarray:
    return ((values.float().cpu().numpy()[..., None].repeat(3, axis=-1) + 1) * 127.5).clip(0, 255).astype(np.uint8)


def _paint(grey: np.ndarray, labels: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    colours = np.zeros((256, 3))
    for structure in structures:
        colours[structure.label] = structure.color
    weight = np.where((labels > 0) & (labels <= len(structures)), 0.5, 0.0)[..., None]
    return (grey * (1 - weight) + colours[labels] * weight).astype(np.uint8)
