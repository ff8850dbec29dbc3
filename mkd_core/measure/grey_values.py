"""Does the image show tissue where the heart is?

Where it was blacked out, saturated or stored in coarse steps, many voxels have the very same value.  Tissue has noise
and texture: neighbours may be equal by chance, whole regions are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mkd_core.measure.messages import finding
from mkd_core.measure.quantify import regular_sample
from mkd_core.protocol import Finding
from mkd_core.structures import Structure

#: At most this share of a structure's voxels has the commonest of its values: up to 0.06 in whole hearts of 16 real CT
#: and MR, up to 0.14 in what was outlined wrong.  Steps of 100 units give 0.24 to 0.97, steps of 50 0.12 to 0.8.
_MOST_OF_ONE_VALUE = 0.25

#: Fewer voxels say nothing about values.
_FEWEST_VOXELS = 200

#: A hole: regions of one value of so many ml in all, of whose surroundings the heart takes at least this share.  Hearts
#: of 21 real CT and MR have up to 0.42 ml; a cube of 15 mm is measured as 3.0 ml or more, one of 12 mm as 1.3.
_HOLE_ML, _SURROUNDED = 2.5, 0.5

#: Holes are looked for on a grid of about so many millimetres.
_CELL_MM = 2.0


def one_value_findings(
    labels: np.ndarray, voxels: np.ndarray, structures: Sequence[Structure]
) -> dict[str, list[Finding]]:
    """Findings about structures of which many voxels have the very same value, by their keys.

    Args:
        labels: of a block of the volume's voxels, ``(D, H, W)``.
        voxels: of that block, in any units.
        structures: what the labels mean.
    """
    thin = regular_sample(labels.size)
    some, values = labels[thin], voxels[thin]
    found = {}
    for structure in structures:
        own = values[some == structure.label]
        if own.size < _FEWEST_VOXELS:
            continue
        share = float(np.unique(own, return_counts=True)[1].max() / own.size)
        if share > _MOST_OF_ONE_VALUE:
            found[structure.key] = [finding("one_value", structure=structure.key, share=share)]
    return found


def hole_findings(labels: np.ndarray, voxels: np.ndarray, spacing: np.ndarray) -> list[Finding]:
    """A finding for regions of one value that the heart surrounds.

    Args:
        labels: of a block of the volume's voxels, ``(D, H, W)``.
        voxels: of that block, in any units.
        spacing: of both, mm.
    """
    millilitres = hole_ml(labels, voxels, spacing)
    return [finding("hole", ml=millilitres)] if millilitres >= _HOLE_ML else []


def hole_ml(labels: np.ndarray, voxels: np.ndarray, spacing: np.ndarray) -> float:
    """Volume of the regions of one value that the heart surrounds, ml; arguments as for :func:`hole_findings`."""
    strides = [max(1, int(_CELL_MM / step)) for step in spacing]
    thin = tuple(slice(None, None, stride) for stride in strides)
    heart = labels[thin] > 0
    box = ndimage.find_objects(heart.astype(np.uint8))
    if not box or min(side.stop - side.start for side in box[0]) < 3:
        return 0.0
    heart, some = heart[box[0]], voxels[thin][box[0]]
    cell_ml = float(np.prod(spacing * strides)) / 1000.0
    inner = np.zeros(some.shape, bool)
    middle = some[1:-1, 1:-1, 1:-1]
    constant = inner[1:-1, 1:-1, 1:-1]
    constant[:] = True
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            beside = [slice(1, -1)] * 3
            beside[axis] = side
            constant &= some[tuple(beside)] == middle
    regions, count = ndimage.label(ndimage.binary_dilation(inner)) if inner.any() else (inner, 0)
    total = 0.0
    for number, where in enumerate(ndimage.find_objects(regions, count) if count else (), 1):
        around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in where)
        region = regions[around] == number
        shell = ndimage.binary_dilation(region) & ~region
        if shell.any() and heart[around][shell].mean() >= _SURROUNDED:
            total += float(np.count_nonzero(region)) * cell_ml
    return total
