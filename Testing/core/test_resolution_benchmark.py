"""The benchmark of the grid's fineness: a finer grid allows more, and nothing is lost in resampling."""

from __future__ import annotations

from mkd_core.io.bundle import default_bundle_path, load_bundle
from mkd_core.synthesis import synthesize


def test_a_finer_grid_allows_a_better_dice_and_costs_more():
    from Testing.benchmarks.resolution import best_dice, cost, heart_grid

    truth = synthesize(None, "CT", 3, spacing=1.5)[1]
    grids = [heart_grid(truth, spacing, 16) for spacing in (1.5, 3.0)]
    fine, coarse = (best_dice(truth, grid) for grid in grids)
    assert all(first > second for first, second in zip(fine, coarse))
    assert min(fine) > 0.97 and min(coarse) > 0.85
    bundle = load_bundle(default_bundle_path())
    assert cost(bundle, (48, 48, 48)) > 1.5 * cost(bundle, (16, 48, 48)) > 0
