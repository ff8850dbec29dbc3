"""By how much a network halves each axis of its image, level by level."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Strides = tuple[int, int, int]

#: Proportions of a cubic voxel.
CUBIC = (1.0, 1.0, 1.0)


def level_strides(voxel: Sequence[float], levels: int) -> list[Strides]:
    """Strides (z, y, x) of each of some levels.

    An axis is halved where its voxels are less than twice as long as the shortest, so that a short axis of thick slices
    is halved only once the others have caught up: Isensee et al., "nnU-Net", Nature Methods 18 (2021).

    Args:
        voxel: its sides along (z, y, x), in any unit.
        levels: how many.
    """
    sides, found = list(voxel), []
    for _ in range(levels):
        z, y, x = (2 if side < 2 * min(sides) else 1 for side in sides)
        found.append((z, y, x))
        sides = [side * stride for side, stride in zip(sides, (z, y, x))]
    return found


def total(strides: Sequence[Strides]) -> Strides:
    """Strides of all levels together."""
    z, y, x = (math.prod(stride[axis] for stride in strides) for axis in range(3))
    return z, y, x


def common(networks: Iterable[Strides]) -> Strides:
    """Strides of which all networks' are divisors: sides of an image that all of them are given are multiples."""
    z, y, x = (math.lcm(*axis) for axis in zip(*networks))
    return z, y, x
