"""Which false voxel sizes does the shape of a heart tell?

    python -m Testing.benchmarks.stretch [--data FOLDER] [--write]

Fits the linear model of `mkd_core.measure.heart_stretch` to the training hearts of the data folder, each turned and
stretched at random, and looks at the test hearts: how many are doubted as they are, and how many of which one axis is
said to be longer or shorter than it is.  ``--write`` puts the model into ``mkd_core/measure/heart_stretch.json``.
``FOLDER`` is the data folder (environment variable MKD_DATA, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mkd_core.io.atomic import write_text
from mkd_core.measure import plausibility
from mkd_core.measure.heart_stretch import Moments, Stretch, features_of, moments, predicted
from mkd_core.synthesis.tissues import TARGET_OF
from mkd_core.synthesis.warp import rotation
from Testing.benchmarks.accuracy import ROOT, data_folder

TABLE = ROOT / "mkd_core" / "measure" / "heart_stretch.json"

#: Copies of each heart, standard deviation of their turns about each axis in degrees, largest logarithm of a factor.
_COPIES, _TURN, _LARGEST = 20, 10.0, 0.5

#: Weight of the penalty on large coefficients.
_RIDGE = 0.01

#: Every so many voxels of the hearts are looked at along each axis.
_EVERY = 2

#: Factors by which one axis is said to be longer than it is.
_FACTORS = (0.67, 0.7, 0.8, 1.25, 1.4, 1.5)


def stretched(heart: Moments, factors: np.ndarray, turn: np.ndarray | None = None) -> Moments:
    """What `moments` gives of a heart turned by a matrix and then stretched along z, y, x."""
    matrix = np.diag(factors) @ (np.eye(3) if turn is None else turn)
    return [(share, matrix @ mean, matrix @ spread @ matrix.T) for share, mean, spread in heart]


def fit(hearts: Sequence[Moments]) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(45, 2)`` and offsets ``(2,)`` of the model."""
    rng = np.random.default_rng(0)
    seen, wanted = [], []
    for heart in hearts:
        for _ in range(_COPIES):
            logs = rng.uniform(-_LARGEST, _LARGEST, 3)
            seen.append(features_of(stretched(heart, np.exp(logs), rotation(rng.normal(0.0, _TURN, 3)))))
            wanted.append((logs[0] - logs[1:].mean(), logs[2] - logs[1]))
    x, y = np.array(seen), np.array(wanted)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / scale
    weights = np.linalg.solve(z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1]), z.T @ (y - y.mean(axis=0)))
    weights = (weights / scale[:, None]).round(5)
    return weights, (y.mean(axis=0) - mean @ weights).round(5)


def read(path: Path) -> Moments:
    """Of a heart of the data folder."""
    image = sitk.ReadImage(str(path))
    labels = TARGET_OF[sitk.GetArrayViewFromImage(image)[::_EVERY, ::_EVERY, ::_EVERY]]
    found = moments(labels, np.array(image.GetSpacing())[::-1] * _EVERY)
    assert found is not None
    return found


def main() -> int:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(prog="python -m Testing.benchmarks.stretch", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    paths = sorted((chosen.data / "hearts").glob("heart_*.nii.gz"))
    training = [read(path) for path in paths[:200]]
    tests = [read(path) for path in paths[200:]]
    weights, offsets = fit(training)

    def found(heart: Moments) -> Stretch:
        return predicted(heart, weights, offsets)

    def doubted(hearts: Sequence[Moments], factors: np.ndarray) -> float:
        return float(np.mean([bool(plausibility.stretch_findings(found(stretched(one, factors)))) for one in hearts]))

    as_they_are = [found(one) for one in training]
    height, breadth = (np.std([getattr(one, name) for one in as_they_are]) for name in ("height", "breadth"))
    print(f"standard deviation of training hearts as they are: height {height:.3f}, breadth {breadth:.3f}")
    print(f"doubted as they are: {doubted(training, np.ones(3)):.1%} of 200, {doubted(tests, np.ones(3)):.1%} of tests")
    shares = {}
    for factor in _FACTORS:
        of_axes = [doubted(tests, np.where(np.arange(3) == axis, factor, 1.0)) for axis in range(3)]
        shares[str(factor)] = dict(zip(("height", "depth", "width"), np.round(of_axes, 3).tolist()))
        print(f"test hearts {factor} times as", *(f"{name} {share:.0%}" for name, share in shares[str(factor)].items()))
    if chosen.write:
        content = {
            "command": "python -m Testing.benchmarks.stretch --write",
            "hearts": len(training),
            "deviations": [round(float(height), 4), round(float(breadth), 4)],
            "doubted_test_hearts": {"1.0": round(doubted(tests, np.ones(3)), 3), **shares},
            "offsets": offsets.tolist(),
            "weights": weights.T.tolist(),
        }
        write_text(TABLE, json.dumps(content) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
