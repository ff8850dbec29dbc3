"""DICOM series as scanners leave them, for tests."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk


def write_series(
    image: sitk.Image,
    folder: Path,
    number: int,
    *,
    series: int | None = None,
    shift_per_mm: float = 0.0,
    uneven_mm: float = 0.0,
    modality: str = "CT",
) -> None:
    """Write a volume as one CT series, a file per slice; series of other numbers may lie in the same folder.

    Args:
        image: upright volume.
        folder: is made if needed.
        number: tells the files and instances of different calls apart.
        series: number of the series if it is not that of the files.
        shift_per_mm: slices lie further back by this much per mm of height, as with a tilted gantry.
        uneven_mm: every other slice lies higher by this much.
        modality: what the files say that they are.
    """
    folder.mkdir(exist_ok=True)
    series = number if series is None else series
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(image.GetDepth()):
        part = image[:, :, z]
        position = image.TransformIndexToPhysicalPoint((0, 0, z))
        position = (
            position[0],
            position[1] + shift_per_mm * z * image.GetSpacing()[2],
            position[2] + uneven_mm * (z % 2),
        )
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.{number}.{z + 1}",
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{series}",
            "0008|0060": modality,
            "0020|0013": str(z),
            "0028|1052": "0",
            "0028|1053": "1",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0032": "\\".join(map(str, position)),
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}_{z:03d}.dcm"))
        writer.Execute(part)
