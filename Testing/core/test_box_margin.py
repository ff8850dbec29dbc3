"""The box that the localiser gives: round all that it found, with the margin of the weights on every side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mkd_core.inference.geometry import Grid
from mkd_core.inference.localisation import Localisation

GRID = Grid((48, 52, 56), (-3.0, 2.0, 7.0), 5.0)


def seen_in(block: tuple[slice, ...]) -> Localisation:
    """What the localiser sees if one structure fills a block of its grid."""
    labels = np.zeros(GRID.size, np.uint8)
    labels[block] = 3
    nothing = torch.empty(0)
    return Localisation(nothing, {}, GRID, nothing, labels, 1.0, False, 0.0)


@pytest.mark.parametrize("margin", [0.0, 15.0, 32.5])
def test_the_box_leaves_the_margin_of_the_weights_on_every_side(margin):
    grid, block = GRID, (slice(15, 33), slice(16, 35), slice(17, 37))
    low, high = seen_in(block).box(margin, 150.0)
    first = np.array(grid.start) + [(side.start - 0.5) * grid.spacing for side in block]
    last = np.array(grid.start) + [(side.stop - 0.5) * grid.spacing for side in block]
    assert np.allclose(low, first - margin) and np.allclose(high, last + margin)


def test_the_box_round_a_part_of_a_heart_has_room_for_a_whole_one_about_the_same_middle():
    part = seen_in((slice(15, 17), slice(16, 18), slice(5, 45)))  # 10 x 10 x 200 mm, 20 ml
    low, high = part.box(0.0, 21.0)
    just_enough = part.box(0.0, 20.0)
    assert np.allclose(np.subtract(*just_enough[::-1]), (10.0, 10.0, 200.0)), "as much as it takes is no part"
    assert np.allclose(high - low, (150.0, 150.0, 200.0))
    assert np.allclose(low + high, np.add(*just_enough))
