"""Structures in detail: appendage, veins and the rest of the aorta, beside the seven, which stay what they are.

A small network of its own sees each view of the box, the image and what IAM renders of it, together with the seven
structures as they were predicted, and says which of their surroundings is what.  The appendage lies in the left atrium
of the seven and everything else in what they leave over, so merging the detailed labels gives back the seven.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mkd_core.arrays import as_array, as_tensor
from mkd_core.inference.geometry import Grid, OrientedVolume, open_faces
from mkd_core.inference.heart_search import Heart
from mkd_core.measure.messages import finding
from mkd_core.method import ensemble
from mkd_core.protocol import Finding
from mkd_core.structures import BY_KEY, CLASS_COUNT, DETAILED, Structure, labels_of_the_seven

if TYPE_CHECKING:
    import torch

#: Faces of the box at which a vessel may end by convention, as (axis, end): 0 is the feet, the front, the right.
_ENDS: dict[str, tuple[tuple[int, int], ...]] = {
    "PV": ((0, 0), (0, -1), (1, 0), (1, -1), (2, 0), (2, -1)),
    "SVC": ((0, -1),),
    "IVC": ((0, 0),),
    "DAo": ((0, 0), (0, -1)),
}


def given_to_network(image: torch.Tensor, seven: torch.Tensor) -> torch.Tensor:
    """What the network sees of a box: its image, and where each of the seven structures is.

    Args:
        image: normalised, ``(D, H, W)``.
        seven: labels of the seven structures, ``(D, H, W)``.

    Returns:
        ``(1, 8, D, H, W)``, float32.
    """
    import torch

    masks = [(seven == label).to(image.dtype) for label in range(1, CLASS_COUNT)]
    return torch.stack([image, *masks])[None]


@dataclass(frozen=True)
class Details:
    """What the network says about a box.

    Attributes:
        structures: with their labels, from 1 on.
        probabilities: ``(C, D, H, W)``, adding up to 1.
        confidences: per label, see :func:`expected_dice`.
        removed: per label, voxels of parts that were left out.
    """

    structures: tuple[Structure, ...]
    probabilities: torch.Tensor
    confidences: list[float | None]
    removed: np.ndarray


def predict(
    views: Sequence[torch.Tensor],
    seven: np.ndarray,
    structures: tuple[Structure, ...],
    stride: int,
    run: Callable[[torch.Tensor], torch.Tensor],
) -> Details:
    """Ask the network.

    Args:
        views: of the box, normalised, each ``(1, 1, D, H, W)``: the image, and what IAM made of it if anything.
        seven: labels of the seven structures, ``(D, H, W)``.
        structures: that the network tells apart, with its labels.
        stride: sides of the network's input are multiples of it.
        run: applies the network to ``(1, 8, D, H, W)``.
    """
    import torch
    from torch.nn import functional

    where = as_tensor(seven)
    short = [-side % stride for side in seven.shape]
    margin = [n for side in reversed(short) for n in (0, side)]
    single = []
    for view in views:
        given = functional.pad(given_to_network(view[0, 0], where), margin, mode="replicate")
        logits = run(given)[0][:, : seven.shape[0], : seven.shape[1], : seven.shape[2]]
        single.append(logits.softmax(dim=0))
    mean = torch.stack(single).mean(dim=0)
    before = as_array(ensemble.best_class(mean))
    mean = ensemble.keep_main_components(mean, structures)
    after = as_array(ensemble.best_class(mean))
    removed = np.bincount(within(before, seven, structures)[after != before], minlength=len(mean))
    confidences = expected_dice(as_array(mean), within(after, seven, structures))
    return Details(structures, mean, confidences, removed)


def expected_dice(probabilities: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """The Dice overlap with the truth that a network expects of each structure: ``2 sum(p in it) / (its voxels +
    sum(p))``, the soft Dice confidence of Borges, Pacheco and Silva, "Soft Dice Confidence", arXiv 2402.10665 (2024).

    It tells bad structures from good ones where two views of an image, on which one network says nearly the same, do
    not.  Labels that the seven forbid count as missed.

    Args:
        probabilities: of the classes, ``(C, D, H, W)``.
        labels: as they are given out, ``(D, H, W)``.

    Returns:
        By label, from 0 to 1; None for background and for what has no voxel.
    """
    expected: list[float | None] = [None]
    for label, probability in enumerate(probabilities[1:], start=1):
        mask = labels == label
        total = float(np.count_nonzero(mask) + probability.sum(dtype=np.float64))
        own = float(probability[mask].sum(dtype=np.float64))
        expected.append(2 * own / total if mask.any() else None)
    return expected


def within(labels: np.ndarray, seven: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    """Detailed labels where they may be: parts of one of the seven in it, all else where there is none of them.

    Args:
        labels: of ``structures``, any shape.
        seven: labels of the seven at the same places.
        structures: with their labels.
    """
    home = np.array(labels_of_the_seven(structures), np.uint8)
    return np.where(home[labels] == seven, labels, 0).astype(np.uint8)


def tidied(labels: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    """Detailed labels ``(D, H, W)`` without what the seven cut off from the rest of a structure; changed in place."""
    branching = {structure.label for structure in structures if structure.branches}
    for label, box in ensemble.boxes(labels).items():
        mask = labels[box] == label
        labels[box][mask & ~ensemble.main_parts(mask, label in branching)] = 0
    return labels


def merged(seven: np.ndarray, labels: np.ndarray, table: Sequence[int]) -> np.ndarray:
    """Labels of the seven with detailed ones over them.

    Args:
        seven: labels that stay where there is no detailed one, any shape.
        labels: detailed ones, 0 for none, as :func:`within` leaves them.
        table: for each detailed label the one in the result, 0 for one that is not wanted.
    """
    over = np.asarray(table, np.uint8)[labels]
    return np.where(over > 0, over, seven)


@dataclass(frozen=True)
class InDetail:
    """A segmentation with structures in detail.

    Attributes:
        structures: those of the bundle, then the detailed ones, with their labels.
        labels: of a block of the volume's voxels, ``(D, H, W)``, uint8.
        coarse: the same on the box's grid.
        agreements: per label, of the bundle's own as they were; in the place of those of structures in detail, which
            one network finds, stand its confidences.
        removed: per label, see :class:`Details`.
        cut: findings by structure, see :func:`cut_findings`.
    """

    structures: tuple[Structure, ...]
    labels: np.ndarray
    coarse: np.ndarray
    agreements: list[float | None]
    removed: np.ndarray
    cut: dict[str, list[Finding]]

    @property
    def changed(self) -> list[Structure]:
        """The detailed ones, and those of the others from which a part was taken."""
        added = [structure for structure in self.structures if structure.key in DETAILED]
        homes = {structure.part_of for structure in added}
        return [structure for structure in self.structures if structure in added or structure.key in homes]


def in_detail(
    heart: Heart,
    labels: np.ndarray,
    keys: Sequence[str],
    details: Details,
    restore: Callable[[torch.Tensor], np.ndarray],
) -> InDetail:
    """Add structures in detail to a segmentation.

    Args:
        heart: as it was segmented.
        labels: of its structures, of a block of the volume's voxels.
        keys: structures that are wanted.
        details: what the network says of the heart's box.
        restore: brings class probabilities to the same block of voxels and gives their labels.
    """
    structures = appended(heart.structures, [one.key for one in details.structures if one.key in keys])
    label_of = {structure.key: structure.label for structure in structures}
    table = [0] + [label_of[one.key] if one.key in keys else 0 for one in details.structures]
    to_seven = np.array(labels_of_the_seven(heart.structures), np.uint8)
    best = as_array(ensemble.best_class(details.probabilities))
    fine, coarse = (
        tidied(within(found, seven, details.structures), details.structures)
        for found, seven in ((restore(details.probabilities), to_seven[labels]), (best, heart.seven))
    )
    coarse = merged(heart.prediction.labels, coarse, table)
    own = len(heart.structures) + 1
    wanted = [one.label for one in details.structures if one.key in keys]
    return InDetail(
        structures,
        merged(labels, fine, table),
        coarse,
        [*heart.prediction.agreements, *(details.confidences[label] for label in wanted)],
        np.concatenate([heart.prediction.removed[:own], details.removed[wanted]]),
        cut_findings(coarse, structures[own - 1 :], heart.grid, heart.volume),
    )


def appended(structures: Sequence[Structure], keys: Sequence[str]) -> tuple[Structure, ...]:
    """Structures with those of the keys after them, labelled on."""
    more = (dataclasses.replace(BY_KEY[key], label=label) for label, key in enumerate(keys, len(structures) + 1))
    return (*structures, *more)


def cut_findings(
    labels: np.ndarray, structures: Sequence[Structure], grid: Grid, volume: OrientedVolume
) -> dict[str, list[Finding]]:
    """Which structures the box cuts where they do not end by convention, though the volume goes on.

    Args:
        labels: on the grid, ``(D, H, W)``.
        structures: with their labels.
        grid: of the box.
        volume: in which it lies.
    """
    cut: dict[str, list[Finding]] = {}
    for face in open_faces(grid, volume):
        axis, end = face
        present = set(np.unique(labels.take(end, axis)))
        for structure in structures:
            if structure.label in present and face not in _ENDS.get(structure.key, ()):
                cut[structure.key] = [finding("cut_by_box", structure=structure.key)]
    return cut
