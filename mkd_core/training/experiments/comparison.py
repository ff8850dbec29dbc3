"""Is one way to train better than another?  Paired hierarchical bootstrap over pairs of draw and seed and over people,
or Student's t where only the mean of each pair is known; with Holm's correction for several comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Replicates of the bootstrap.
REPLICATES = 10_000


@dataclass(frozen=True)
class Difference:
    """Difference of two rows on the same people.

    Attributes:
        mean: of the first minus the second.
        low, high: 95 % interval.
        p: two-sided, that the true difference is 0.
        pairs, people: how many it rests on; with a single pair of draw and seed the interval says how people differ,
            and nothing of how runs do.
    """

    mean: float
    low: float
    high: float
    p: float
    pairs: int
    people: int


def difference(first: np.ndarray, second: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> Difference:
    """Compare two rows.

    A replicate draws pairs of draw and seed with replacement, and within each the people with replacement: Davison and
    Hinkley, "Bootstrap Methods and their Application", Cambridge 1997, section 3.8.

    Args:
        first, second: a score of every person by pair of draw and seed, ``(pairs, people)``; the same pairs and people
            in both.
        replicates: of the bootstrap.
        seed: of its draws.

    Raises:
        ValueError: the rows were not scored on the same pairs and people.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise ValueError(f"rows of shape {first.shape} and {second.shape} cannot be compared")
    differences = first - second
    pairs, people = differences.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(pairs, size=(replicates, pairs))
    counted = rng.integers(people, size=(replicates, pairs, people))
    means = differences[drawn[:, :, None], counted].mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    # One more than counted: the observed data are a replicate too, so that no p is 0.
    tail = min(int((means <= 0).sum()), int((means >= 0).sum())) + 1
    return Difference(
        float(differences.mean()), float(low), float(high), min(1.0, 2 * tail / (replicates + 1)), pairs, people
    )


def difference_of_means(first: Sequence[float], second: Sequence[float], people: int) -> Difference:
    """Compare two rows of which only the mean of every pair of draw and seed is known: Student's paired t.

    Args:
        first, second: means over the people, one a pair, in the same order.
        people: how many were tested, 0 if that is not known.

    Raises:
        ValueError: the rows have not as many pairs, or fewer than two.
    """
    from scipy import stats

    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"means of {len(first)} and {len(second)} pairs cannot be compared")
    tested = stats.ttest_rel(first, second)
    low, high = tested.confidence_interval(0.95)
    mean = float(np.mean(first) - np.mean(second))
    return Difference(mean, float(low), float(high), float(tested.pvalue), len(first), people)


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for their number: Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6 (1979).
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected.tolist()
