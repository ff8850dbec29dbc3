"""The ensemble of the two segmentors: mean, disagreement, agreement, separate parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from scipy import ndimage

from mkd_core.method import ensemble

seeds = strategies.integers(0, 10_000)


def random_logits(seed: int, *shape: int) -> torch.Tensor:
    """Noise of some size."""
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seeds)
def test_the_ensemble_is_the_mean_of_the_softmax_maps(seed):
    real, one, two = (random_logits(seed + i, 8, 2, 3, 4) for i in range(3))
    mean, from_real, from_synthetic = ensemble.ensemble([real], [one, two])
    assert torch.allclose(from_real, real.softmax(0))
    assert torch.allclose(from_synthetic, (one.softmax(0) + two.softmax(0)) / 2)
    assert torch.allclose(mean, (from_real + from_synthetic) / 2)
    mostly_real = ensemble.ensemble([real], [one, two], ensemble_weight=0.75)[0]
    assert torch.allclose(mostly_real, 0.75 * from_real + 0.25 * from_synthetic)
    for prediction in (mean, mostly_real):
        assert torch.allclose(prediction.sum(dim=0), torch.ones(2, 3, 4))


@given(seeds)
def test_disagreement_is_zero_for_equal_answers_one_for_opposite_ones_and_symmetric(seed):
    first, second = random_logits(seed, 8, 3, 3, 3).softmax(0), random_logits(seed + 1, 8, 3, 3, 3).softmax(0)
    between = ensemble.disagreement(first, second)
    assert torch.allclose(between, ensemble.disagreement(second, first))
    assert torch.allclose(between, 0.5 * (first - second).abs().sum(dim=0), atol=1e-6)
    assert torch.allclose(ensemble.disagreement(first, first), torch.zeros(3, 3, 3), atol=1e-6)
    certain = torch.eye(8)
    assert ensemble.disagreement(certain[1].view(8, 1, 1, 1), certain[2].view(8, 1, 1, 1)).item() == 1.0


@given(seeds)
def test_the_best_class_is_the_first_of_the_largest(seed):
    values = torch.randint(0, 4, (5, 3, 4), generator=torch.Generator().manual_seed(seed)).float()
    assert np.array_equal(ensemble.best_class(values).numpy(), np.argmax(values.numpy(), axis=0))
    some = ensemble.best_class(values, (0, 2, 3, 6, 7)).numpy()
    assert np.array_equal(some, np.array((0, 2, 3, 6, 7))[np.argmax(values.numpy(), axis=0)])


def test_agreement_is_dice_and_none_for_what_neither_has():
    first, second = np.array([[[1, 1, 2, 0]]], np.uint8), np.array([[[1, 2, 2, 3]]], np.uint8)
    found = ensemble.agreement(first, second, 8)
    assert found == [0.0, pytest.approx(2 / 3), pytest.approx(2 / 3), 0.0, None, None, None, None]


def certain(labels: np.ndarray, confidence: float = 0.9, second: int = 0) -> torch.Tensor:
    """Probabilities of a label map, the rest of the probability with ``second``."""
    probabilities = torch.zeros(8, *labels.shape)
    probabilities[second] = 1 - confidence
    probabilities.scatter_add_(
        0, torch.from_numpy(labels.astype(np.int64))[None], torch.full((1, *labels.shape), confidence)
    )
    return probabilities


def best(probabilities: torch.Tensor) -> np.ndarray:
    """Best class per voxel."""
    return probabilities.argmax(dim=0).numpy()


def test_an_island_goes_to_its_second_best_class_where_that_joins_and_to_background_where_not():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:6, 1:6, 1:6] = 3
    labels[6:11, 1:6, 1:6] = 4
    clean = labels.copy()
    labels[8, 3, 3] = 3  # left atrium in the right atrium
    labels[1, 10, 10] = 3  # and far away
    result = best(ensemble.keep_main_components(certain(labels, second=4)))
    assert np.array_equal(result, clean)


def test_large_parts_of_the_pulmonary_artery_stay_and_small_ones_go():
    labels = np.zeros((20, 12, 12), np.uint8)
    labels[1:9, 2:8, 2:8] = 7
    labels[12:16, 2:6, 2:6] = 7  # 64 voxels of 288: a branch
    labels[18, 9:11, 9:11] = 7  # 4 voxels
    labels[1:9, 9:11, 2:8] = 1
    labels[12:16, 8:11, 2:6] = 1  # as large a share, but a ventricle is one
    result = best(ensemble.keep_main_components(certain(labels)))
    expected = labels.copy()
    expected[18] = 0
    expected[12:16, 8:11, 2:6] = 0
    assert np.array_equal(result, expected)


@settings(max_examples=30)
@given(seeds)
def test_after_removing_islands_every_structure_is_one_piece_and_probabilities_add_up(seed):
    noise = np.random.default_rng(seed).normal(size=(8, 14, 14, 14))
    probabilities = torch.from_numpy(40 * ndimage.gaussian_filter(noise, (0, 2, 2, 2))).float().softmax(0)
    before = best(probabilities)
    result = ensemble.keep_main_components(probabilities.clone())
    assert torch.allclose(result.sum(dim=0), torch.ones(14, 14, 14), atol=1e-5)
    assert result.min() >= 0
    after = best(result)
    for label in range(1, 7):
        assert ndimage.label(after == label)[1] <= 1
        parts, count = ndimage.label(before == label)
        if count:
            largest = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
            assert (after[largest] == label).all()  # the main part stays whole
    if all(ndimage.label(before == label)[1] <= 1 for label in range(1, 8)):
        assert np.array_equal(before, after)
