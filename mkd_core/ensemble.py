"""The two segmentors' answers made one, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from mkd_core.structures import BY_KEY, CLASS_COUNT

if TYPE_CHECKING:
    import torch

#: A further part of the pulmonary artery is kept if it has this share of the largest one: slices between trunk and branches can be thin.
_KEPT_SHARE = 0.2

_PULMONARY_ARTERY = BY_KEY["PA"].label

_ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


def ensemble(real: Sequence[torch.Tensor], synthetic: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean of the softmax maps of S_real and S_syn.

    Args:
        real: logits of S_real, one or more ``(C, D, H, W)``; several are averaged after softmax.
        synthetic: logits of S_syn, the same way.

    Returns:
        (mean, S_real's, S_syn's) class probabilities, each ``(C, D, H, W)``.
    """
    from_real, from_synthetic = (sum(logits.softmax(dim=0) for logits in answers) / len(answers) for answers in (real, synthetic))
    return (from_real + from_synthetic) / 2, from_real, from_synthetic


def disagreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Share of probability on which two answers differ: 0 where equal, 1 where no class is common (total variation distance).

    Args:
        first, second: class probabilities, ``(C, D, H, W)``.

    Returns:
        ``(D, H, W)``.
    """
    return 1.0 - first.minimum(second).sum(dim=0)


def agreement(first: np.ndarray, second: np.ndarray) -> list[float | None]:
    """Dice overlap of every class in two label arrays; None where neither has the class.  Index 0 is background."""
    sizes = np.bincount(first.ravel(), minlength=CLASS_COUNT) + np.bincount(second.ravel(), minlength=CLASS_COUNT)
    common = np.bincount(first[first == second], minlength=CLASS_COUNT)
    return [2.0 * float(both) / float(size) if size else None for both, size in zip(common, sizes)]


def remove_islands(probabilities: torch.Tensor) -> torch.Tensor:
    """Keep one connected part of every structure, of the pulmonary artery all large parts.

    An island first goes to its second-best class, as where two chambers are mistaken for each other; what is still an island then becomes background.

    Args:
        probabilities: ``(C, D, H, W)``, adding up to 1; changed in place.

    Returns:
        The same tensor, still adding up to 1.
    """
    for to_background in (False, True):
        labels = probabilities.argmax(dim=0).numpy()
        changed = False
        for label in range(1, CLASS_COUNT):
            islands = _outside_main_parts(labels == label, _KEPT_SHARE if label == _PULMONARY_ARTERY else 1.0)
            if islands is None:
                continue
            changed = True
            taken = probabilities[label][islands]
            probabilities[label][islands] = 0.0
            if to_background:
                probabilities[0][islands] += taken
        if not changed:
            break
        if not to_background:
            rest = probabilities.sum(dim=0)
            probabilities[0][rest <= 1e-6] = 1.0
            probabilities /= probabilities.sum(dim=0)
    return probabilities


def parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts (faces) of a mask: label array and voxels per part; index 0 counts what is outside the mask."""
    labelled, count = ndimage.label(mask)
    return labelled, np.bincount(labelled.ravel(), minlength=count + 1)


def _outside_main_parts(mask: np.ndarray, share: float) -> torch.Tensor | None:
    """Where a class must vanish so that only its main parts remain, None if it has but one.  A rim round the kept parts is left, for the slope of scores."""
    import torch

    labelled, sizes = parts(mask)
    if len(sizes) <= 2:
        return None
    largest = sizes[1:].max()
    kept = np.flatnonzero(sizes[1:] >= share * largest) + 1
    if share == 1.0:
        kept = kept[:1]
    if len(kept) == len(sizes) - 1:
        return None
    near = ndimage.binary_dilation(np.isin(labelled, kept), _ALL_NEIGHBOURS)
    return torch.from_numpy(~near | (mask & ~np.isin(labelled, kept)))
