"""Where is the heart?  A small network looks at the whole volume on a coarse grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mkd_core.errors import NoHeartError
from mkd_core.inference.clock import Clock
from mkd_core.inference.geometry import Grid, OrientedVolume, enclosing_grid
from mkd_core.inference.normalisation import normalise
from mkd_core.inference.resampling import sample
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.plausibility import second_heart_ml
from mkd_core.method import ensemble
from mkd_core.structures import BY_KEY, CLASS_COUNT, labels_of_the_seven

if TYPE_CHECKING:
    from mkd_core.inference.execution import Executor
    from mkd_core.io.bundle import Bundle

#: Chambers of which the localiser must find three, or all that it knows, before it is believed.
_CHAMBERS = ("LV", "RV", "LA", "RA")
_FEWEST_CHAMBERS = 3
_LEAST_CHAMBER_ML = 2.0

#: Most voxels of the localiser's grid; at 5 mm this is a cubic metre.
_MOST_COARSE_VOXELS = 8_000_000


def locate_heart(
    field: OrientedVolume, bundle: Bundle, modality: str, executor: Executor, clock: Clock
) -> tuple[np.ndarray, np.ndarray, float]:
    """Box round the heart, with its margin: corners (z, y, x) in mm; and the volume of a second heart, in ml."""
    grid = enclosing_grid(field, bundle.localiser_spacing, bundle.network("localiser").stride)
    if math.prod(grid.size) > _MOST_COARSE_VOXELS:
        raise refusal(finding("larger_than_a_person"))
    values = sample(field, grid, sparsely=True)
    clock.advance(0.4, "Looking for the heart")
    inside = _voxels_inside(grid, field)
    image = normalise(values, bundle.normalisation(modality), values[inside])
    logits = executor.run("localiser", image[None, None], clock.poll)[0]
    labels = np.zeros(grid.size, np.uint8)
    seven = np.array(labels_of_the_seven(bundle.localiser_structures), np.uint8)
    labels[inside] = seven[ensemble.best_class(logits).numpy()[inside]]

    labelled, sizes = ensemble.parts(labels > 0)
    sizes[0] = 0
    largest = int(sizes.argmax())
    heart = np.where(labelled == largest, labels, 0) if largest else np.zeros_like(labels)
    volumes = np.bincount(heart.ravel(), minlength=CLASS_COUNT) * grid.voxel_ml
    known = [key for key in _CHAMBERS if BY_KEY[key].label in seven]
    seen = sum(volumes[BY_KEY[key].label] >= _LEAST_CHAMBER_ML for key in known)
    if volumes[1:].sum() < bundle.min_heart_ml or seen < min(_FEWEST_CHAMBERS, len(known)):
        raise refusal(finding("no_heart"), NoHeartError)
    points = np.argwhere(heart)
    start = np.asarray(grid.start)
    reach = 0.5 * grid.spacing + bundle.margin
    low, high = start + points.min(axis=0) * grid.spacing - reach, start + points.max(axis=0) * grid.spacing + reach
    return low, high, second_heart_ml(labels, grid.voxel_ml)


def _voxels_inside(grid: Grid, field: OrientedVolume) -> tuple[slice, ...]:
    """Voxels of a covering grid that are not all padding."""
    low, high = field.bounds()
    first = np.maximum(np.ceil((low - grid.start) / grid.spacing - 0.5), 0).astype(int)
    last = np.minimum(np.floor((high - grid.start) / grid.spacing + 0.5), np.array(grid.size) - 1).astype(int)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last))
