"""What DICOM costs: processor time to list, read and write a CT of 512 x 512 x 300 voxels, and sizes of the results.

    python -m Testing.benchmarks.dicom

prints the figures of docs/dicom.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.io import dicom, dicom_out, dicom_seg
from mkd_core.structures import STRUCTURES
from Testing.support.dicom_exports import write_export

SHAPE = (300, 512, 512)


def balls() -> np.ndarray:
    """Labels (D, H, W) of seven balls in a row."""
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij", sparse=True)
    labels = np.zeros(SHAPE, np.uint8)
    for label in range(1, 8):
        near = (z - 60 - 20 * label) ** 2 + (y - 180 - 20 * label) ** 2 + (x - 155 - 25 * label) ** 2 < 50**2
        labels[near] = label
    return labels


def report(labels: np.ndarray) -> dict[str, Any]:
    """A report on them as the pipeline makes them, as far as DICOM files hold it."""
    structures = {
        one.key: {"volume_ml": float((labels == one.label).sum()), "mean_intensity": 300.0, "agreement": 0.9}
        | {"warnings": []}
        for one in STRUCTURES
    }
    keys = {one.key: one.label for one in STRUCTURES}
    bundle = {"name": "weights", "version": "1", "sha256": "0" * 64}
    return {"structures": structures, "labels": keys, "warnings": [], "modality": "CT", "bundle": bundle}


def timed(what: str, work: Callable[[], Any]) -> Any:
    """The result of some work; its processor time is printed."""
    start = time.process_time()
    result = work()
    print(f"{what:<36}{time.process_time() - start:6.2f} CPU s", flush=True)
    return result


def main() -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16))
    image.SetSpacing((0.4, 0.4, 0.6))
    labels = balls()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_export(image, folder / "in")
        dicom_seg.require_highdicom()
        series = timed("headers of 300 files", lambda: dicom.index([folder / "in"])).series[0]
        timed("voxels", lambda: dicom.read(series))
        headers, _ = timed("headers with all tags", lambda: dicom.read_source(series))
        for kind in dicom_seg.SEGMENTATION_KINDS:
            made = timed(
                f"{kind} and report",
                lambda kind=kind: dicom_out.build(series, headers, labels, report(labels), kind=kind),
            )
            sizes = []
            for number, dataset in enumerate(made):
                dataset.save_as(folder / f"{kind}{number}.dcm", enforce_file_format=True)
                sizes.append((folder / f"{kind}{number}.dcm").stat().st_size)
            print(f"{'':<4}{sizes[0] / 1e6:.1f} MB, report {sizes[1] / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
