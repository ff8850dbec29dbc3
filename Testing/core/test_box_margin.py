"""The box that the localiser gives: round all that it found, with the margin of the weights on every side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mkd_core.inference.geometry import Grid
from mkd_core.inference.localisation import Localisation


@pytest.mark.parametrize("margin", [0.0, 15.0, 32.5])
def test_the_box_leaves_the_margin_of_the_weights_on_every_side(margin):
    grid = Grid((48, 52, 56), (-3.0, 2.0, 7.0), 5.0)
    labels = np.zeros(grid.size, np.uint8)
    block = (slice(15, 33), slice(16, 35), slice(17, 37))
    labels[block] = 3
    nothing = torch.empty(0)
    seen = Localisation(nothing, {}, grid, nothing, labels, 1.0, False, 0.0)
    low, high = seen.box(margin, 150.0)
    first = np.array(grid.start) + [(side.start - 0.5) * grid.spacing for side in block]
    last = np.array(grid.start) + [(side.stop - 0.5) * grid.spacing for side in block]
    assert np.allclose(low, first - margin) and np.allclose(high, last + margin)
