"""What image alignment (IAM) is worth when a CT is segmented: Dice and CPU seconds with it, without it, and with the
mean of both.

    python -m Testing.benchmarks.alignment [--weights BUNDLE] [--data FOLDER] [--hearts 10] [--out FOLDER]

Rendered validation hearts (numbers 191 to 200, which neither trained the default weights nor test them), appearance
seeds that training never uses.  ``FOLDER`` is the data folder (environment variable MKD_DATA, else ../shared/data
beside the checkout).  Prints a table and writes ``alignment.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]

import mkd_core
from mkd_core.io.atomic import write_text
from mkd_core.protocol import TARGET_POLICIES
from mkd_core.structures import STRUCTURES
from Testing.benchmarks.accuracy import data_folder, dice

SEED = 910000


def measure(bundle: mkd_core.Bundle, paths: Sequence[Path], spacing: float = 1.0) -> dict[str, dict]:
    """Mean Dice over hearts and structures, Dice per structure, and median CPU seconds of a segmentation, for each
    policy.

    Args:
        bundle: weights whose target is CT.
        paths: tissue maps of hearts.
        spacing: voxel size of the rendered CT, mm.
    """
    from mkd_core.synthesis import synthesize

    scores: dict[str, list[list[float]]] = {policy: [] for policy in TARGET_POLICIES}
    seconds: dict[str, list[float]] = {policy: [] for policy in TARGET_POLICIES}
    for number, path in enumerate(paths):
        image, truth = synthesize(sitk.ReadImage(str(path)), "CT", SEED + number, spacing)
        known = sitk.GetArrayViewFromImage(truth)
        for policy in TARGET_POLICIES:
            options = mkd_core.SegmentationOptions(device="cpu", threads=1, alignment=policy)
            begun = time.process_time()
            labels = mkd_core.segment(image, bundle, options=options).labels
            seconds[policy].append(time.process_time() - begun)
            found = sitk.GetArrayViewFromImage(labels)
            scores[policy].append(
                [dice(found == structure.label, known == structure.label) for structure in STRUCTURES]
            )
    figures = {}
    for policy in TARGET_POLICIES:
        gain = np.mean(scores[policy], axis=1) - np.mean(scores["none"], axis=1)
        figures[policy] = {
            "mean Dice": round(float(np.mean(scores[policy])), 4),
            "gain over none": round(float(gain.mean()), 4),
            "hearts better": int((gain > 0).sum()),
            "CPU s": round(statistics.median(seconds[policy]), 3),
        } | {
            structure.key: round(float(value), 4)
            for structure, value in zip(STRUCTURES, np.mean(scores[policy], axis=0))
        }
    return figures


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measure, print, write; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=mkd_core.default_bundle_path())
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--hearts", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args(arguments)
    bundle = mkd_core.load_bundle(options.weights)
    paths = [options.data / "hearts" / f"heart_{number:04}.nii.gz" for number in range(191, 201)][: options.hearts]
    figures = {"bundle": bundle.identity, "hearts": len(paths), "policies": measure(bundle, paths)}
    for policy, entry in figures["policies"].items():
        print(f"{policy:6} " + ", ".join(f"{key} {value}" for key, value in entry.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "alignment.json", json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
