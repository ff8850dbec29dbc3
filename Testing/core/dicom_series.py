"""DICOM series as scanners leave them, for tests."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk


def write_series(image: sitk.Image, folder: Path, number: int) -> None:
    """Write a volume as one CT series, a file per slice; series of other numbers may lie in the same folder."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(image.GetDepth()):
        part = image[:, :, z]
        tags = {"0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0018": f"1.2.3.{number}.{z + 1}", "0020|000d": "1.2.3", "0020|000e": f"1.2.3.{number}",
                "0008|0060": "CT", "0020|0013": str(z), "0028|1052": "0", "0028|1053": "1",
                "0020|0037": "1\\0\\0\\0\\1\\0", "0020|0032": "\\".join(map(str, image.TransformIndexToPhysicalPoint((0, 0, z))))}
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}_{z:03d}.dcm"))
        writer.Execute(part)
