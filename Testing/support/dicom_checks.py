"""Other people's tools that read our DICOM files: dcmqi (PyPI) and dciodvfy (Debian's dicom3tools)."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk


def dcmqi(name: str, *arguments: object) -> str:
    """Run a tool of dcmqi and give what it printed; skips the test where dcmqi is not installed."""
    try:
        files = distribution("dcmqi").files or []
    except PackageNotFoundError:
        pytest.skip("dcmqi is not installed (pip install dcmqi)")
    program = next(Path(str(file.locate())) for file in files if Path(str(file)).stem == name and "bin" in file.parts)
    run = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def segments_by_dcmqi(path: Path, folder: Path) -> tuple[dict[int, sitk.Image], list[dict]]:
    """The segments of a Segmentation, an image of zeros and ones by segment number, and their descriptions."""
    folder.mkdir()
    dcmqi(
        "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd", "--prefix", "s"
    )
    described = json.loads((folder / "s-meta.json").read_text(encoding="utf-8"))["segmentAttributes"]
    images = {int(file.stem.split("-")[1]): sitk.ReadImage(str(file)) for file in folder.glob("s-*.nrrd")}
    return images, [segment for group in described for segment in group]


def report_by_dcmqi(path: Path) -> list[dict]:
    """The measurement groups of a report."""
    out = path.with_suffix(".json")
    dcmqi("tid1500reader", "--inputDICOM", path, "--outputMetadata", out)
    return json.loads(out.read_text(encoding="utf-8"))["Measurements"]


def errors_by_dciodvfy(path: Path) -> list[str]:
    """Lines with errors; skips the test where the tool is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (apt-get install dicom3tools)")
    run = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", timeout=600)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def labels_of(images: dict[int, sitk.Image], like: sitk.Image) -> np.ndarray:
    """One array of segment numbers on a grid, found voxel by voxel by their places in the patient."""
    found = np.zeros(like.GetSize()[::-1], np.uint8)
    for image in images.values():
        voxels = sitk.GetArrayViewFromImage(image)
        for z, y, x in np.argwhere(voxels > 0).tolist():
            place = like.TransformPhysicalPointToContinuousIndex(image.TransformIndexToPhysicalPoint((x, y, z)))
            nearest = np.rint(place).astype(int)
            assert np.abs(place - nearest).max() < 0.02, "the voxels lie on each other"
            assert found[tuple(nearest[::-1])] == 0, "segments do not overlap"
            found[tuple(nearest[::-1])] = voxels[z, y, x]
    return found
