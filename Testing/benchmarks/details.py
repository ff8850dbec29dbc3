"""How good are the structures in detail?  Rendered test hearts of both modalities, and a real CT.

    python -m Testing.benchmarks.details [--hearts 40] [--first 201] [--data FOLDER] [--json FILE] [--pictures FOLDER]
    [--weights FILE] [--write-limits]

Dice of each structure within the box round the heart that is segmented: beyond it vessels go on, and nothing is
labelled.  What lies behind the heart's own tissue map does not count: many maps cut the descending aorta lengthwise
there, and the body that is painted round them has none behind the cut.  ``FOLDER`` is the data folder (environment
variable MKD_DATA, else ../shared/data beside the checkout).  Hearts 191 to 200 are for validation, which chooses the
thresholds of agreement; 201 to 240 are for the test.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import MKDError
from mkd_core.inference import pipeline
from mkd_core.inference.geometry import block_of
from mkd_core.io import preview
from mkd_core.io.atomic import write_text
from mkd_core.io.detail_weights import default_details, load_details, save_details
from mkd_core.protocol import IN_DETAIL, MODALITIES, Report, SegmentationOptions
from mkd_core.structures import DETAILED, STRUCTURES, labelled
from mkd_core.synthesis import synthesize
from Testing.benchmarks.accuracy import aim_at_least, data_folder, dice, print_aims

#: All structures of a segmentation in detail by the default weights, with their labels.
EVERY = labelled((*(structure.key for structure in STRUCTURES), *DETAILED))

#: Appearance seeds that neither training nor the benchmark of the seven uses.
_FIRST_SEED = 950_000

#: Mean Dice that is aimed at.
AIMS = {"rendered CT": 0.85, "rendered MR": 0.80, "real CT": 0.70}

#: Parts of the real CT's reference, by label: structures of ours that together are the same thing.
_REAL_PARTS = {
    "aorta": (2, ("AA", "DAo")),
    "PV": (3, ("PV",)),
    "LAA": (4, ("LAA",)),
    "SVC": (5, ("SVC",)),
    "IVC": (6, ("IVC",)),
}

#: Of these the aim for the real CT is the mean.
_REAL_AIM = ("LAA", "SVC", "IVC")


def score(found: sitk.Image, truth: sitk.Image, report: Report, back_mm: float = np.inf) -> dict[str, float]:
    """Dice of each detailed structure within the box, by key; left out where neither has it.

    Args:
        found, truth: labels on the same upright grid.
        report: of the segmentation.
        back_mm: how far to the back (y, LPS) the truth is known.
    """
    z, y, x = block_of(truth, report["heart_box_mm"])
    known = int(np.clip((back_mm - truth.GetOrigin()[1]) / truth.GetSpacing()[1], 0, truth.GetSize()[1]))
    box = (z, slice(y.start, min(y.stop, known)), x)
    ours, true = (sitk.GetArrayViewFromImage(one)[box] for one in (found, truth))
    label = {structure.key: structure.label for structure in EVERY}
    masks = {key: (ours == label[key], true == label[key]) for key in DETAILED}
    return {key: dice(a, b) for key, (a, b) in masks.items() if a.any() or b.any()}


def rendered(
    bundle: mkd_core.Bundle, hearts: Sequence[Path], modality: str, pictures: Path | None = None
) -> tuple[dict[str, float], list[dict]]:
    """Mean Dice by structure on rendered hearts, with their ``mean`` and the number of ``cases``; and a row for each
    heart with Dice, agreement and volumes.  A refused case counts 0.
    """
    rows = []
    for path in hearts:
        number = int(path.name.split(".")[0].split("_")[-1])
        heart = sitk.ReadImage(str(path))
        image, truth = synthesize(heart, modality, _FIRST_SEED + number, structures=EVERY)
        try:
            result = mkd_core.segment(
                image, bundle, modality=modality, options=SegmentationOptions(structures=IN_DETAIL)
            )
        except MKDError as error:
            print(f"  {path.name}: {error}")
            rows.append({"heart": number, "dice": dict.fromkeys(DETAILED, 0.0), "agreement": {}})
            continue
        found = score(
            result.labels, truth, result.report, heart.GetOrigin()[1] + heart.GetSize()[1] * heart.GetSpacing()[1]
        )
        agreement = {key: result.report["structures"][key]["agreement"] for key in DETAILED}
        rows.append({"heart": number, "dice": found, "agreement": agreement})
        words = " ".join(f"{key} {value:.3f}" for key, value in found.items())
        print(f"  {path.name} {modality}: {words}", flush=True)
        if pictures:
            draw(image, result.labels, pictures / f"{modality}-{number}.png", modality)
            draw(image, truth, pictures / f"{modality}-{number}-truth.png", modality)
    means = {
        key: float(np.mean([row["dice"][key] for row in rows if key in row["dice"]]))
        for key in DETAILED
        if any(key in row["dice"] for row in rows)
    }
    return means | {"mean": float(np.mean(list(means.values()))), "cases": len(rows)}, rows


def real_ct(bundle: mkd_core.Bundle, folder: Path, pictures: Path | None = None) -> dict[str, float]:
    """Dice with a tool's masks of a real CT within the box, by part; ``mean`` of those that the aim names."""
    image = sitk.ReadImage(str(folder / "contrast.nii.gz"))
    parts = sitk.ReadImage(str(folder / "contrast_parts.nii.gz"))
    result = mkd_core.segment(image, bundle, modality="CT", options=SegmentationOptions(structures=IN_DETAIL))
    if pictures:
        draw(image, result.labels, pictures / "real-CT.png", "CT")
    box = block_of(image, result.report["heart_box_mm"])
    ours, reference = (sitk.GetArrayViewFromImage(one)[box] for one in (result.labels, parts))
    label = result.report["labels"]
    found = {
        name: dice(np.isin(ours, [label[key] for key in keys]), reference == value)
        for name, (value, keys) in _REAL_PARTS.items()
    }
    return found | {"mean": float(np.mean([found[name] for name in _REAL_AIM]))}


def draw(image: sitk.Image, labels: sitk.Image, path: Path, modality: str) -> None:
    """Slices through the heart with outlines."""
    preview.write_png(preview.picture(image, labels, modality, EVERY), path)


def limits(rows: Sequence[dict], good: float = 0.8) -> dict[str, dict[str, float]]:
    """Thresholds of agreement by structure, chosen on validation hearts: of the structures that are as good as ``good``
    (Dice), one in twenty lies below ``low`` and one in fifty below ``very_low``.  None where fewer than twenty are.
    """
    found = {}
    for key in DETAILED:
        values = [
            row["agreement"][key]
            for row in rows
            if row["dice"].get(key, 0) >= good and row["agreement"].get(key) is not None
        ]
        if len(values) >= 20:
            low, very_low = np.quantile(values, (0.05, 0.02))
            found[key] = {"low": round(float(max(low, 0.3)), 3), "very_low": round(float(max(very_low, 0.3)), 3)}
    return found


def seconds_added(bundle: mkd_core.Bundle, image: sitk.Image, modality: str) -> float:
    """CPU seconds that the structures in detail add to a segmentation, both warm."""
    spent = {}
    for _ in range(2):
        for wanted in ("whole-heart-7", IN_DETAIL):
            start = time.process_time()
            mkd_core.segment(
                image, bundle, modality=modality, options=SegmentationOptions(structures=wanted, threads=1)
            )
            spent[wanted] = time.process_time() - start
    return spent[IN_DETAIL] - spent["whole-heart-7"]


def main(arguments: Sequence[str] | None = None) -> dict:
    """Run what the data folder allows; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hearts", type=int, default=40, help="rendered hearts per modality")
    parser.add_argument("--first", type=int, default=201, help="number of the first heart")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--weights", type=Path, help="detailed weights; default those shipped")
    parser.add_argument(
        "--write-limits",
        action="store_true",
        help="write the thresholds of agreement into the description of --weights",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for pictures of every case")
    options = parser.parse_args(arguments)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    if options.weights:
        weights = load_details(options.weights)
        pipeline.default_details = lambda: weights
    else:
        weights = default_details()
    bundle = mkd_core.load_bundle(mkd_core.default_bundle_path())
    figures: dict = {"weights": weights.identity, "bundle": bundle.identity}
    if (options.data / "chest_ct").exists():
        figures["real CT"] = real_ct(bundle, options.data / "chest_ct", options.pictures)
        print(f"real CT: {figures['real CT']}", flush=True)
    hearts = [
        options.data / "hearts" / f"heart_{options.first + number:04d}.nii.gz" for number in range(options.hearts)
    ]
    hearts = [path for path in hearts if path.exists()]
    for modality in MODALITIES if hearts else ():
        figures[f"rendered {modality}"], rows = rendered(bundle, hearts, modality, options.pictures)
        figures[f"agreement limits {modality}"] = limits(rows)
        print(f"rendered {modality}: {figures[f'rendered {modality}']}", flush=True)
    if hearts:
        image, _ = synthesize(sitk.ReadImage(str(hearts[0])), "CT", _FIRST_SEED)
        figures["CPU seconds added"] = round(seconds_added(bundle, image, "CT"), 2)
    if options.write_limits and options.weights:
        agreement = {modality: figures[f"agreement limits {modality}"] for modality in MODALITIES}
        quality = {**weights.metadata["quality"], "agreement": agreement}
        save_details(options.weights, {**weights.metadata, "quality": quality}, weights.network())
    figures["aims"] = [
        aim_at_least(f"{name}: mean Dice", aim, figures[name]["mean"]) for name, aim in AIMS.items() if name in figures
    ]
    print_aims(figures["aims"])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.json, json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
