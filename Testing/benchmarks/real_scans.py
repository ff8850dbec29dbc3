"""Real scans that weights are judged by though nobody outlined their chambers: a contrast CT with partial masks, plain
CT, and a beating heart in MR.  None of them trained anything; all were looked at while the renderer was written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import mkd_core
from mkd_core.errors import NoHeartError
from mkd_core.io import preview
from mkd_core.measure.cardiac_function import cardiac_function, volume_curve
from mkd_core.structures import BY_KEY, STRUCTURES

#: What the labels of the contrast CT's masks are.
_HEART, _AORTA, _VEINS = (1,), (2,), (3, 5, 6)

#: Labelled as chambers or their muscle.
_CHAMBERS = ("LV", "RV", "LA", "RA", "Myo")


def within(mask: np.ndarray, spacing: tuple[float, ...], millimetres: float) -> np.ndarray:
    """Voxels within some mm of a mask; ``spacing`` along the array's axes."""
    near: np.ndarray = ndimage.distance_transform_edt(~mask, sampling=spacing) <= millimetres
    return near


def contrast_ct(bundle: mkd_core.Bundle, folder: Path, pictures: Path | None = None) -> dict[str, float]:
    """Score a segmentation of ``contrast.nii.gz`` against a tool's masks of heart, aorta and veins, which know neither
    chambers nor the pulmonary artery.

    Returns:
        inside: share of the labelled voxels but PA within 3 mm of heart, aorta or veins; cover: share of the heart that
        is labelled; bright: the same of its voxels that are brighter than the middle between muscle and blood;
        ascending_aorta: share of AA in the aorta; chambers: share of chambers and muscle within 3 mm of the heart.
    """
    image, parts = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("contrast", "contrast_parts"))
    result = mkd_core.segment(image, bundle)
    if pictures:
        preview.write_png(preview.picture(image, result.labels), pictures / "contrast-CT.png")
    values, reference, found = map(sitk.GetArrayFromImage, (image, parts, result.labels))
    spacing, label = image.GetSpacing()[::-1], {key: BY_KEY[key].label for key in BY_KEY}
    heart = np.isin(reference, _HEART)
    muscle, blood = (float(np.median(values[found == label[key]])) for key in ("Myo", "LV"))
    bright = heart & (values > 0.5 * (muscle + blood))
    counted = (found > 0) & (found != label["PA"])
    chambers = np.isin(found, [label[key] for key in _CHAMBERS])
    return {
        "inside": float(within(np.isin(reference, _HEART + _AORTA + _VEINS), spacing, 3.0)[counted].mean()),
        "cover": float((found > 0)[heart].mean()),
        "bright": float((found > 0)[bright].mean()),
        "ascending_aorta": float(np.isin(reference, _AORTA)[found == label["AA"]].mean()),
        "chambers": float(within(heart, spacing, 3.0)[chambers].mean()),
    }


def plain_cts(bundle: mkd_core.Bundle, folder: Path, pictures: Path | None = None) -> dict[str, dict[str, float]]:
    """CT without contrast agent, by name: whether it was segmented, how many warnings there are on the whole, how many
    structures have any, and the least agreement.
    """
    found = {}
    for path in sorted(folder.glob("plain_*.nii.gz")):
        image, name = sitk.ReadImage(str(path)), path.name.removesuffix(".nii.gz")
        try:
            result = mkd_core.segment(image, bundle)
        except NoHeartError:
            found[name] = {"segmented": False}
            continue
        if pictures:
            preview.write_png(preview.picture(image, result.labels), pictures / f"{name}.png")
        entries = list(result.report["structures"].values())
        found[name] = {
            "segmented": True,
            "warnings": len(result.report["warnings"]),
            "structures with warnings": sum(bool(entry["warnings"]) for entry in entries),
            "least agreement": min(entry["agreement"] or 0.0 for entry in entries),
        }
    return found


def beating_heart(bundle: mkd_core.Bundle, folder: Path, pictures: Path | None = None) -> dict[str, object]:
    """Volumes over the frames of a cine MR of the whole heart, and what follows from them.

    Returns:
        By structure one volume per frame, ml, None where it is missing; ejection fractions of both ventricles, and the
        difference of their stroke volumes as a share of the mean.
    """
    reports = []
    for path in sorted(folder.glob("phase_*.nii.gz")):
        image = sitk.ReadImage(str(path))
        try:
            result = mkd_core.segment(image, bundle, modality="MR")
        except NoHeartError:
            reports.append(None)
            continue
        reports.append(result.report)
        if pictures:
            name = path.name.removesuffix(".nii.gz")
            preview.write_png(preview.picture(image, result.labels, "MR"), pictures / f"cine-{name}.png")
    curves = {structure.key: volume_curve(reports, structure.key) for structure in STRUCTURES}
    beat = cardiac_function(reports)
    figures: dict[str, object] = {
        f"{structure} ml": [None if one is None else round(one, 1) for one in curve]
        for structure, curve in curves.items()
    }
    if beat.left and beat.right:
        strokes = beat.left.stroke_volume_ml, beat.right.stroke_volume_ml
        figures |= {
            "LV ejection fraction": beat.left.ejection_fraction,
            "RV ejection fraction": beat.right.ejection_fraction,
            "stroke volumes differ": abs(strokes[0] - strokes[1]) / (0.5 * sum(strokes)),
        }
    return figures
