"""The two segmentors' predictions made one, and where they differ."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from mkd_core.arrays import as_array, as_tensor
from mkd_core.structures import STRUCTURES, Structure

if TYPE_CHECKING:
    import torch

#: A further part of a structure that branches is kept if it has this share of the largest one: slices between trunk and
#: branches can be thin.
_KEPT_SHARE = 0.2

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


def ensemble(
    real: Sequence[torch.Tensor],
    synthetic: Sequence[torch.Tensor],
    ensemble_weight: float = 0.5,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean of the softmax maps of S_real and S_syn.

    Args:
        real: logits of S_real, one or more ``(C, D, H, W)``; several are averaged after softmax.
        synthetic: logits of S_syn, the same way.
        ensemble_weight: weight of S_real in the mean, 0 to 1.

    Returns:
        (mean, S_real's, S_syn's) class probabilities, each ``(C, D, H, W)``, in the order of
        :data:`mkd_core.protocol.SEGMENTORS`.
    """
    import torch

    from_real, from_synthetic = (
        functools.reduce(torch.add, [logits.softmax(dim=0) for logits in predictions]) / len(predictions)
        for predictions in (real, synthetic)
    )
    return torch.lerp(from_synthetic, from_real, ensemble_weight), from_real, from_synthetic


def best_class(values: torch.Tensor, classes: Sequence[int] | None = None) -> torch.Tensor:
    """Class with the largest value; of equal ones the first.  Several times as fast as argmax over the first axis.

    Args:
        values: ``(C, ...)``.
        classes: their labels; 0 to C - 1 if None.

    Returns:
        Labels, ``(...)``, uint8.
    """
    import torch

    classes = range(len(values)) if classes is None else classes
    best = values[0]
    labels = torch.full(best.shape, classes[0], dtype=torch.uint8)
    for number in range(1, len(values)):
        labels.masked_fill_(values[number] > best, classes[number])
        if number + 1 < len(values):
            best = torch.maximum(best, values[number])
    return labels


def disagreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Share of probability on which two predictions differ: 0 where equal, 1 where no class is common (total variation
    distance).

    Args:
        first, second: class probabilities, ``(C, D, H, W)``.

    Returns:
        ``(D, H, W)``.
    """
    return (1.0 - first.minimum(second).sum(dim=0)).clamp_(min=0.0)  # rounding may lift the sum above 1


def agreement(first: np.ndarray, second: np.ndarray, class_count: int) -> list[float | None]:
    """Dice overlap of every class in two label arrays; None where neither has the class.  Index 0 is background."""
    sizes = np.bincount(first.ravel(), minlength=class_count) + np.bincount(second.ravel(), minlength=class_count)
    common = np.bincount(first[first == second], minlength=class_count)
    return [2.0 * float(both) / float(size) if size else None for both, size in zip(common, sizes)]


def joint_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Dice overlap of all structures of two label arrays together: of two voxels that both have the same structure
    counts each, of all that have any.  0 where neither has one.
    """
    labelled = np.count_nonzero(first) + np.count_nonzero(second)
    common = np.count_nonzero((first == second) & (first > 0))
    return 2.0 * common / float(labelled) if labelled else 0.0


def keep_main_components(probabilities: torch.Tensor, structures: Sequence[Structure] = STRUCTURES) -> torch.Tensor:
    """Keep one connected part of every structure, of those that branch all large parts.

    What lies apart first goes to its second-best class, as where two chambers are mistaken for each other; what still
    lies apart then becomes background.

    Args:
        probabilities: ``(C, D, H, W)``, adding up to 1; changed in place.
        structures: what the classes mean.

    Returns:
        The same tensor, still adding up to 1.
    """
    branching = [structure.label for structure in structures if structure.branches]
    labels = as_array(best_class(probabilities))
    found = boxes(labels)
    mains = np.zeros_like(labels)
    for label, box in found.items():
        main = main_parts(labels[box] == label, label in branching)
        mains[box][main] = label
    if np.array_equal(mains, labels):
        return probabilities
    for label in range(1, len(probabilities)):
        if label in found:
            _confine(probabilities[label], mains == label, labels == label, found[label])
        else:
            probabilities[label] = 0.0
    rest = probabilities.sum(dim=0)
    nothing = rest <= 1e-6
    probabilities[0].masked_fill_(nothing, 1.0)
    probabilities /= rest.masked_fill_(nothing, 1.0)
    labels = as_array(best_class(probabilities))
    for label, box in boxes(labels).items():
        labelled, sizes = parts(labels[box] == label)
        joined = np.isin(labelled, np.setdiff1d(labelled[mains[box] == label], 0))
        if np.count_nonzero(joined) < sizes[1:].sum():
            kept = np.zeros(labels.shape, bool)
            kept[box] = joined
            probabilities[0] += _confine(probabilities[label], kept, labels == label, box)
    return probabilities


def boxes(labels: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    """Smallest box round the voxels of every structure that a label array ``(D, H, W)`` has."""
    return {label: box for label, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None}


def parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts (faces) of a mask: label array and voxels per part; index 0 counts what is outside the mask."""
    labelled, count = ndimage.label(mask)
    return labelled, np.bincount(labelled.ravel(), minlength=count + 1)


def main_parts(mask: np.ndarray, branches: bool) -> np.ndarray:
    """The largest part of a mask, of equal ones the first; of a structure that branches all large parts."""
    labelled, sizes = parts(mask)
    if len(sizes) <= 2:
        return mask
    sizes = sizes[1:]
    kept = np.flatnonzero(sizes >= _KEPT_SHARE * sizes.max()) if branches else np.array([sizes.argmax()])
    return np.isin(labelled, kept + 1)


def _confine(scores: torch.Tensor, kept: np.ndarray, mask: np.ndarray, box: tuple[slice, slice, slice]) -> torch.Tensor:
    """Let a class vanish, in place, so that of its voxels, ``mask``, all in ``box``, only ``kept`` remain; returns what
    is lost.

    A rim round the kept voxels is left: there the class is not the best, but its scores make the slope that
        interpolation needs.
    """

    near = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    beyond = (mask[near] & ~kept[near]) | ~ndimage.binary_dilation(kept[near], _ALL_NEIGHBOURS)
    lost = scores.clone()
    lost[near].masked_fill_(as_tensor(~beyond), 0.0)
    scores -= lost
    return lost
