"""How fine must the segmentors' grid be?  The best Dice that a grid allows, what the networks reach on it, and what
they cost.

    python -m Testing.benchmarks.resolution [--data FOLDER] [--hearts 5] [--spacings 1.5 1.75 2 2.5 3] [--out FOLDER]

Networks that were always right would give, on every voxel of their grid, the share of each structure in it.  These
shares are brought back to the volume as the pipeline brings scores back, and compared with the truth: no network
trained on that grid can be expected to do better.  Beside it stands what the networks reach that were trained on the
bundle's own grid, on rendered CT and MR and on the real CT, as accuracy.py scores it; and what both segmentors and both
generators cost on a grid of that fineness round the heart.  Rendered validation hearts, as in alignment.py.  Prints a
table and writes ``resolution.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

ROOT = Path(__file__).resolve().parents[2]

import mkd_core
from mkd_core.errors import NoHeartError
from mkd_core.inference.execution import Executor, choose_precision, compute_settings
from mkd_core.inference.geometry import Grid, OrientedVolume, box_grid, overlap_slices
from mkd_core.inference.resampling import sample, write_labels
from mkd_core.io.atomic import write_text
from mkd_core.method.ensemble import agreement
from mkd_core.method.networks import stride_of
from mkd_core.protocol import MODALITIES
from mkd_core.structures import CLASS_COUNT, STRUCTURES
from Testing.benchmarks.accuracy import data_folder, score_real_ct

_MARGIN_MM = 15.0

#: Shares of the real CT that are shown, see :func:`Testing.benchmarks.accuracy.score_real_ct`.
_OF_REAL_CT = ("inside", "cover", "pulmonary_artery", "ascending_aorta")

_NETWORKS = ("generator_t2a", "generator_a2t", "segmentor_real", "segmentor_syn")


def best_dice(truth: sitk.Image, grid: Grid) -> list[float]:
    """Dice of each structure when its true shares on a grid are brought back to the volume."""
    labels = sitk.GetArrayFromImage(truth)
    shares = []
    for label in range(CLASS_COUNT):
        one = sitk.GetImageFromArray((labels == label).astype(np.float32))
        one.CopyInformation(truth)
        shares.append(sample(OrientedVolume(one), grid))
    field = OrientedVolume(truth)
    block = overlap_slices(grid, field)
    found = np.zeros([side.stop - side.start for side in block], np.uint8)
    for _ in write_labels(torch.stack(shares), grid, field, found):
        pass
    return agreement(found, field.voxels[block], CLASS_COUNT)[1:]


def cost(bundle: mkd_core.Bundle, size: tuple[int, int, int]) -> float:
    """CPU seconds of all networks on a grid of that size, the lower of two runs."""
    device = torch.device("cpu")
    executor = Executor(bundle, device, choose_precision("auto", device), False)
    image = torch.zeros(1, 1, *size)
    seconds = []
    with compute_settings(1):
        for _ in range(2):
            begun = time.process_time()
            for part in _NETWORKS:
                executor.run(part, image)
            seconds.append(time.process_time() - begun)
    return min(seconds)


def on_grid(bundle: mkd_core.Bundle, spacing: float) -> mkd_core.Bundle:
    """A bundle whose segmentors are run on a grid of another spacing, mm, than they were trained on."""
    segmentor = bundle.metadata["segmentor"] | {"spacing_mm": spacing}
    return dataclasses.replace(bundle, metadata=bundle.metadata | {"segmentor": segmentor})


def reached(bundle: mkd_core.Bundle, cases: Sequence[tuple[sitk.Image, sitk.Image]], modality: str) -> float:
    """Mean Dice of all structures of (volume, truth) pairs; of a volume that is refused 0."""
    scores = []
    for image, truth in cases:
        try:
            labels = mkd_core.segment(image, bundle, modality=modality).labels
        except NoHeartError:
            labels = truth * 0
        found, true = (sitk.GetArrayViewFromImage(one) for one in (labels, truth))
        scores.append(agreement(found, true, CLASS_COUNT)[1:])
    return float(np.mean(scores))


def heart_grid(truth: sitk.Image, spacing: float, stride: int) -> Grid:
    """Grid round the structures, as the pipeline lays it round the heart that the localiser found."""
    field = OrientedVolume(truth)
    where = np.argwhere(field.voxels) * field.spacing
    grid, _ = box_grid(
        field, where.min(axis=0) - _MARGIN_MM, where.max(axis=0) + _MARGIN_MM, spacing, stride, (1000.0,) * 3
    )
    return grid


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measure, print, write; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--hearts", type=int, default=5)
    parser.add_argument("--spacings", type=float, nargs="+", default=[1.5, 1.75, 2.0, 2.5, 3.0])
    parser.add_argument("--voxel", type=float, default=0.8, help="voxel size of the rendered volumes, mm")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args(arguments)
    from mkd_core.synthesis import synthesize

    bundle = mkd_core.load_bundle(mkd_core.default_bundle_path())
    stride = stride_of(bundle.network("segmentor_real"))
    paths = [options.data / "hearts" / f"heart_{number:04}.nii.gz" for number in range(191, 191 + options.hearts)]
    cases = {
        modality: [
            synthesize(sitk.ReadImage(str(path)), modality, number, options.voxel) for number, path in enumerate(paths)
        ]
        for modality in MODALITIES
    }
    truths = [truth for _, truth in cases["CT"]]
    thorax = options.data / "ct_thorax"
    real_ct = sitk.ReadImage(str(thorax / "ct.nii.gz")) if thorax.exists() else None
    rows = []
    for spacing in options.spacings:
        grids = [heart_grid(truth, spacing, stride) for truth in truths]
        values = np.mean([best_dice(truth, grid) for truth, grid in zip(truths, grids)], axis=0)
        on_this = on_grid(bundle, spacing)
        row = {
            "spacing mm": spacing,
            "CPU s": statistics.median(cost(bundle, grid.size) for grid in grids),
            **{f"reached, {modality}": reached(on_this, cases[modality], modality) for modality in cases},
        }
        if real_ct is not None:
            real = score_real_ct(mkd_core.segment(real_ct, on_this).labels, thorax)
            row |= {f"real CT, {what}": real[what] for what in _OF_REAL_CT if what in real}
        row |= {"mean": values.mean(), **{s.key: value for s, value in zip(STRUCTURES, values)}}
        rows.append({name: round(float(value), 2 if name == "CPU s" else 4) for name, value in row.items()})
        print("  ".join(f"{name} {value:g}" for name, value in rows[-1].items()), flush=True)
    figures = {"bundle": bundle.identity, "hearts": len(paths), "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "resolution.json", json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
