"""The box that the localiser gives: round all that it found, with the margin of the weights on every side."""

from __future__ import annotations

import SimpleITK as sitk
import numpy as np
import pytest
import torch

from Testing.support.known_heart import KnownBundle
from mkd_core.inference.clock import Clock
from mkd_core.inference.geometry import OrientedVolume, enclosing_grid
from mkd_core.inference.localisation import locate_heart


class FoundThere:
    """Stands for the executor of a localiser that finds four chambers in a block of its grid."""

    def __init__(self, block: tuple[slice, slice, slice]) -> None:
        self._block = block

    def run(self, part: str, image: torch.Tensor, poll) -> torch.Tensor:
        assert part == "localiser"
        labels = np.zeros(image.shape[2:], int)
        labels[self._block] = 1 + np.arange(labels[self._block].shape[2]) * 4 // labels[self._block].shape[2]
        return torch.nn.functional.one_hot(torch.from_numpy(labels), 8).permute(3, 0, 1, 2)[None].float()


@pytest.mark.parametrize("margin", [0.0, 15.0, 32.5])
def test_the_box_leaves_the_margin_of_the_weights_on_every_side(margin):
    image = sitk.GetImageFromArray(np.zeros((120, 130, 140), np.int16))
    image.SetSpacing((2.0, 2.0, 2.0))
    field, bundle = OrientedVolume(image), KnownBundle()
    bundle.metadata["localiser"]["margin_mm"] = margin
    grid = enclosing_grid(field, bundle.localiser_spacing, bundle.network("localiser").stride)
    block = (slice(15, 33), slice(16, 35), slice(17, 37))
    clock = Clock(None, None)
    clock.enter("localise", "")
    low, high, *_ = locate_heart(field, bundle, "CT", FoundThere(block), clock)
    first = np.array(grid.start) + [(side.start - 0.5) * grid.spacing for side in block]
    last = np.array(grid.start) + [(side.stop - 0.5) * grid.spacing for side in block]
    assert np.allclose(low, first - margin) and np.allclose(high, last + margin)
