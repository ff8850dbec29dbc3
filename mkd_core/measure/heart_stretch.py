"""How much a heart seems stretched along the axes of the body: a voxel size that is not true makes round things oval.

How long, how tilted and how far from each other the chambers are varies from heart to heart, but a false voxel size
changes all of it at once.  A linear model gives the factor by which the heart was stretched from the logarithms of the
chambers' covariance matrices and from where they lie to each other; ``python -m Testing.benchmarks.stretch`` fits it to
hearts turned and stretched at random, and prints how well it tells.  A heart that is larger or smaller by the same
factor along all axes has the same shape: of that nothing is said here.

A stack of short-axis slices shows only parts of the chambers; there the left ventricle must be round.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mkd_core.structures import BY_KEY, CLASS_COUNT

#: Structures whose shape and place tell; vessels end where the field of view or a convention ends them.
PARTS = ("LV", "RV", "LA", "RA", "Myo")

#: Fewer voxels have no shape.
_FEWEST_VOXELS = 60

#: From the base of a usual heart to its apex (z, y, x), and the cosine from which on a direction runs along that axis.
_TOWARDS_APEX = (-0.505, -0.606, 0.626)
_ALONG_AXIS = 0.87

#: Slices that show less of cavity or muscle say nothing of the ventricle's shape, nor do so few slices.
_FEWEST_PIXELS, _FEWEST_SLICES = 20, 3

_TABLE = Path(__file__).with_name("heart_stretch.json")


@dataclass(frozen=True)
class Stretch:
    """By what a heart seems stretched, as natural logarithms of factors.

    Attributes:
        height: from feet to head, beside the geometric mean of the other two.
        breadth: from right to left, beside that from front to back.
    """

    height: float
    breadth: float

    @property
    def factors(self) -> tuple[float, float, float]:
        """By which each of the axes z, y, x seems longer than the other two."""
        first, second, third = np.exp(
            [self.height, -0.5 * self.height - 0.75 * self.breadth, -0.5 * self.height + 0.75 * self.breadth]
        ).tolist()
        return first, second, third


def stretch_of(labels: np.ndarray, steps: np.ndarray) -> Stretch | None:
    """By what the heart in a label array ``(D, H, W)`` seems stretched; None where one of `PARTS` is missing.

    Args:
        labels: of the seven structures, upright.
        steps: voxel size along z, y, x, mm.
    """
    found = moments(labels, steps)
    return None if found is None else predicted(found, *_model())


#: Share of all voxels, mean (3,) and covariance (3, 3) of the positions along z, y, x, mm, of the heart and each part.
Moments = list[tuple[float, np.ndarray, np.ndarray]]


def moments(labels: np.ndarray, steps: np.ndarray) -> Moments | None:
    """Size, place and spread of the parts of a heart, all of them together last; None where one is missing."""
    within = np.diag(np.asarray(steps, float) ** 2 / 12.0)  # spread of the points of one voxel
    found: Moments = []
    for key in PARTS:
        points = np.argwhere(labels == BY_KEY[key].label)
        if len(points) < _FEWEST_VOXELS:
            return None
        places = points * np.asarray(steps, float)
        found.append((float(len(points)), places.mean(axis=0), np.cov(places.T) + within))
    total = sum(count for count, _, _ in found)
    found = [(count / total, mean, spread) for count, mean, spread in found]
    middle = sum(share * mean for share, mean, _ in found)
    whole = sum(share * (spread + np.outer(mean - middle, mean - middle)) for share, mean, spread in found)
    return [*found, (1.0, np.asarray(middle), np.asarray(whole))]


def predicted(found: Moments, weights: np.ndarray, offsets: np.ndarray) -> Stretch:
    """What a model, weights ``(45, 2)`` and offsets ``(2,)``, says of a heart."""
    height, breadth = features_of(found) @ weights + offsets
    return Stretch(float(height), float(breadth))


def features_of(found: Moments) -> np.ndarray:
    """What the model sees of a heart, ``(45,)``: nothing in it changes with the size of the heart."""
    _, middle, whole = found[-1]
    size = float(np.linalg.det(whole)) ** (1.0 / 6.0)
    values: list[float] = []
    for _, _, spread in found:
        variances, axes = np.linalg.eigh(spread)
        log = (axes * (0.5 * np.log(variances))) @ axes.T
        values += [log[0, 0] - log[1, 1], log[1, 1] - log[2, 2], log[0, 1], log[0, 2], log[1, 2]]
    for _, mean, _ in found[:-1]:
        values += ((mean - middle) / size).tolist()
    return np.array(values)


def oval_of(
    labels: np.ndarray, spacing: np.ndarray, rotation: np.ndarray, of_seven: Sequence[int] = range(CLASS_COUNT)
) -> float | None:
    """How many times as long as wide the left ventricle with its muscle is in slices across its own axis, where it is
    nearly round; None where the volume has no such slices, or too few that show it.

    Args:
        labels: in the volume's own voxels, ``(D, H, W)``.
        spacing: of these, mm.
        rotation: (3, 3); column a is the direction of array axis a along z, y, x.
        of_seven: what each label counts as, of the seven structures.
    """
    across = np.abs(np.asarray(_TOWARDS_APEX) @ rotation)
    axis = int(across.argmax())
    if across[axis] < _ALONG_AXIS:
        return None
    within = np.delete(np.asarray(spacing, float), axis)
    counted = (np.flatnonzero(np.equal(of_seven, BY_KEY[key].label)) for key in ("LV", "Myo"))
    ventricle, muscle = (np.moveaxis(np.isin(labels, known), axis, 0) for known in counted)
    ratios = []
    for cavity, wall in zip(ventricle, muscle):
        both = cavity | wall
        is_cut = any(both.take(end, side).any() for side in (0, 1) for end in (0, -1))
        if is_cut or min(np.count_nonzero(cavity), np.count_nonzero(wall)) < _FEWEST_PIXELS:
            continue
        variances = np.linalg.eigvalsh(np.cov((np.argwhere(both) * within).T))
        ratios.append(float(np.sqrt(variances[1] / variances[0])))
    return float(np.median(ratios)) if len(ratios) >= _FEWEST_SLICES else None


@functools.lru_cache(maxsize=1)
def _model() -> tuple[np.ndarray, np.ndarray]:
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return np.array(table["weights"]).T, np.array(table["offsets"])
