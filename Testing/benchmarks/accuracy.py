"""How good is a bundle?  Real CT, real MR, rendered test hearts, volumes without a heart.

    python Testing/benchmarks/accuracy.py [--weights BUNDLE] [--data FOLDER] [--hearts 40] [--json FILE] [--pictures FOLDER]

Prints one table and writes it as JSON.  ``FOLDER`` is the data folder (environment variable MKD_DATA, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import KDTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import mkd_core  # noqa: E402
from mkd_core.errors import MKDError  # noqa: E402
from mkd_core.structures import BY_KEY, STRUCTURES  # noqa: E402


def data_folder() -> Path:
    """Folder of the test data: MKD_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("MKD_DATA", ROOT.parent / "shared" / "data"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two boolean arrays; 1 where both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else 1.0


def _within(mask: np.ndarray, spacing: Sequence[float], millimetres: float) -> np.ndarray:
    """Voxels within some mm of a mask; ``spacing`` in array order."""
    return ndimage.distance_transform_edt(~mask, sampling=spacing) <= millimetres


def score_real_ct(labels: sitk.Image, folder: Path) -> dict[str, float]:
    """Score a segmentation of ``ct_thorax/ct.nii.gz`` against its partial reference masks.

    Returns:
        inside: share of labelled voxels within 3 mm of heart, pulmonary artery and aorta together; cover: share of the heart mask labelled; pulmonary_artery: Dice;
        ascending_aorta: share inside the reference aorta; chambers: share of the five heart labels within 3 mm of the heart mask; blood_minus_muscle: least difference
        of median HU; components: largest number of pieces of a structure (pulmonary artery left out).
    """

    def mask(name: str) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz"))) > 0

    image = sitk.ReadImage(str(folder / "ct.nii.gz"))
    spacing = image.GetSpacing()[::-1]
    hu = sitk.GetArrayFromImage(image)
    found = sitk.GetArrayFromImage(labels)
    heart, artery, aorta = mask("heart"), mask("pulmonary_artery"), mask("aorta")
    anything = found > 0
    if not anything.any():
        return {"inside": 0.0, "cover": 0.0}
    muscle = np.median(hu[found == BY_KEY["Myo"].label])
    return {
        "inside": float(_within(heart | artery | aorta, spacing, 3.0)[anything].mean()),
        "cover": float(anything[heart].mean()),
        "pulmonary_artery": dice(found == BY_KEY["PA"].label, artery),
        "ascending_aorta": float(aorta[found == BY_KEY["AA"].label].mean()),
        "chambers": float(_within(heart, spacing, 3.0)[(found > 0) & (found <= BY_KEY["Myo"].label)].mean()),
        "blood_minus_muscle": float(min(np.median(hu[found == s.label]) - muscle for s in STRUCTURES if s.is_blood)),
        "components": float(max(ndimage.label(found == s.label)[1] for s in STRUCTURES if s.key != "PA")),
    }


def anatomical_order(labels: sitk.Image) -> dict[str, bool]:
    """Is the anatomy the right way round in world (LPS) space?  One entry per statement."""
    array = sitk.GetArrayFromImage(labels)
    direction = np.array(labels.GetDirection()).reshape(3, 3)

    def points(key: str) -> np.ndarray:
        index = np.argwhere(array == BY_KEY[key].label)[:, ::-1]
        return (index * labels.GetSpacing()) @ direction.T + labels.GetOrigin()

    place = {s.key: points(s.key) for s in STRUCTURES}
    if any(len(p) == 0 for p in place.values()):
        return {"every structure is there": False}
    centre = {key: p.mean(axis=0) for key, p in place.items()}

    def root(vessel: str, ventricle: str) -> np.ndarray:
        """Middle of the tenth of a vessel that lies nearest to the ventricle it leaves."""
        distance, _ = KDTree(place[ventricle][::7]).query(place[vessel])
        return place[vessel][distance <= np.percentile(distance, 10)].mean(axis=0)

    aortic_root, pulmonary_root = root("AA", "LV"), root("PA", "RV")
    # Apex: the end of the left ventricle's long axis away from the left atrium.
    axis = centre["LV"] - centre["LA"]
    along = (place["Myo"] - centre["LA"]) @ (axis / np.linalg.norm(axis))
    apex = place["Myo"][along >= np.percentile(along, 98)].mean(axis=0)
    return {
        "RA is to the right of LV": bool(centre["RA"][0] < centre["LV"][0]),
        "LA is behind LV and RV": bool(centre["LA"][1] > max(centre["LV"][1], centre["RV"][1])),
        "the apex points left": bool(apex[0] > centre["LA"][0]),
        "PA is in front of AA at its root": bool(pulmonary_root[1] < aortic_root[1]),
        "PA is left of AA at its root": bool(pulmonary_root[0] > aortic_root[0]),
    }


def rendered_hearts(bundle, folder: Path, modality: str, count: int, seed: int = 900000) -> dict[str, float]:
    """Mean Dice per structure on rendered test hearts (numbers above 200), appearance seeds that training never uses."""
    from mkd_core.synthesis import synthesize

    rows = []
    hearts = sorted(folder.glob("heart_02*.nii.gz"))
    hearts = [h for h in hearts if int(h.name[6:10]) > 200][:count]
    for number, path in enumerate(hearts):
        image, truth = synthesize(sitk.ReadImage(str(path)), modality, seed + number)
        truth = sitk.GetArrayFromImage(truth)
        try:
            found = sitk.GetArrayFromImage(mkd_core.segment(image, bundle, modality=modality).labels)
        except MKDError as error:
            print(f"  {path.name} {modality}: {error}")
            found = np.zeros_like(truth)
        rows.append([dice(found == s.label, truth == s.label) for s in STRUCTURES])
        print(
            f"  {path.name} {modality}: "
            + " ".join(f"{s.abbreviation} {v:.3f}" for s, v in zip(STRUCTURES, rows[-1]))
            + f"  mean {np.mean(rows[-1]):.3f}",
            flush=True,
        )
    mean = np.mean(rows, axis=0)
    return {s.key: float(v) for s, v in zip(STRUCTURES, mean)} | {"mean": float(mean.mean()), "cases": len(rows)}


def real_left_atria(bundle, folder: Path, count: int) -> dict[str, float]:
    """Left atrium Dice on real late-enhancement MR whose field of view cuts the heart; refused cases count 0."""
    values = []
    for path in sorted(folder.glob("*_image.nii.gz"))[:count]:
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path).replace("_image", "_left_atrium"))) > 0
        try:
            found = sitk.GetArrayFromImage(mkd_core.segment(sitk.ReadImage(str(path)), bundle, modality="MR").labels)
            values.append(dice(found == BY_KEY["LA"].label, truth))
        except MKDError as error:
            print(f"  {path.name}: {error}")
            values.append(0.0)
    return {
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "lowest": float(np.min(values)),
        "highest": float(np.max(values)),
        "cases": len(values),
    }


def main(arguments: Sequence[str] | None = None) -> dict:
    """Run what the data folder allows; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=None, help="bundle; default the one shipped")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--hearts", type=int, default=40, help="rendered test hearts per modality")
    parser.add_argument("--mr", type=int, default=16, help="real MR volumes")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--pictures", type=Path, default=None, help="folder for a picture of the real CT")
    options = parser.parse_args(arguments)
    bundle = mkd_core.load_bundle(options.weights or mkd_core.default_bundle_path())
    figures: dict = {"bundle": {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256}}
    thorax = options.data / "ct_thorax"
    if thorax.exists():
        start = time.perf_counter()
        result = mkd_core.segment(sitk.ReadImage(str(thorax / "ct.nii.gz")), bundle)
        figures["real CT"] = score_real_ct(result.labels, thorax) | {"seconds": time.perf_counter() - start}
        figures["real CT order"] = anatomical_order(result.labels)
        figures["real CT ml"] = {key: entry["volume_ml"] for key, entry in result.report["structures"].items()}
        if options.pictures:
            from mkd_core.preview import picture, write_png

            options.pictures.mkdir(parents=True, exist_ok=True)
            write_png(picture(sitk.ReadImage(str(thorax / "ct.nii.gz")), result.labels), options.pictures / "real-ct.png")
    if (options.data / "hearts").exists() and options.hearts:
        for modality in ("CT", "MR"):
            figures[f"rendered {modality}"] = rendered_hearts(bundle, options.data / "hearts", modality, options.hearts)
    if (options.data / "mr_left_atrium").exists() and options.mr:
        figures["real MR left atrium"] = real_left_atria(bundle, options.data / "mr_left_atrium", options.mr)
    refused = {}
    for path, modality in (
        (options.data / "no_heart" / "ct_abdomen.nii.gz", "CT"),
        (options.data / "no_heart" / "mr_abdomen.nii.gz", "MR"),
    ):
        if path.exists():
            try:
                mkd_core.segment(sitk.ReadImage(str(path)), bundle, modality=modality)
                refused[path.name] = False
            except MKDError:
                refused[path.name] = True
    figures["refused without a heart"] = refused
    for name, entry in figures.items():
        print(
            f"{name}: " + ", ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in entry.items())
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
