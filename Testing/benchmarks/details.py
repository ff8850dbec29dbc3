"""How good are the structures in detail?  Rendered test hearts of both modalities, and a real CT.

    python -m Testing.benchmarks.details [--hearts 40] [--first 201] [--data FOLDER] [--json FILE] [--pictures FOLDER]
    [--weights FILE]

    python -m Testing.benchmarks.details --calibrate FOLDER [--boxes 60] [--weights FILE] [--json FILE] [--write]

Dice of each structure within the box round the heart that is segmented: beyond it vessels go on, and nothing is
labelled.  What lies behind the heart's own tissue map does not count: many maps cut the descending aorta lengthwise
there, and the body that is painted round them has none behind the cut.  ``FOLDER`` is the data folder (environment
variable MKD_DATA, else ../shared/data beside the checkout).  Hearts 191 to 200 are for validation; 201 to 240 are for
the test.

The second command chooses the thresholds of the overlap that the network expects of itself, below which a structure is
doubted.  It renders boxes of validation hearts as variously as those of the training, and keeps them in ``FOLDER``,
where it goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

import mkd_core
from mkd_core.arrays import as_array
from mkd_core.errors import MKDError
from mkd_core.inference import details, pipeline
from mkd_core.inference.execution import Executor, choose_precision
from mkd_core.inference.geometry import block_of
from mkd_core.io import preview
from mkd_core.io.atomic import write_text
from mkd_core.io.detail_weights import (
    PART,
    DetailWeights,
    default_details,
    load_details,
)
from mkd_core.method import ensemble
from mkd_core.protocol import IN_DETAIL, MODALITIES, Report, SegmentationOptions
from mkd_core.structures import DETAILED, IGNORE, STRUCTURES, labelled
from mkd_core.synthesis import synthesize
from mkd_core.synthesis.tissues import TISSUE_COUNT, targets_of
from mkd_core.training import details as training
from Testing.benchmarks.accuracy import ROOT, WorstCases, aim_at_least, data_folder, dice, print_aims

#: All structures of a segmentation in detail by the default weights, with their labels.
EVERY = labelled((*(structure.key for structure in STRUCTURES), *DETAILED))

#: Appearance seeds that neither training nor the benchmark of the seven uses.
_FIRST_SEED = 950_000

#: Hearts that neither training nor test uses, and how boxes are drawn from them.
VALIDATION_HEARTS = range(191, 201)
_VALIDATION = training.Recipe(seed=77)

TABLE = ROOT / "mkd_core" / "measure" / "confidence.json"

#: Dice overlap with the truth below which a structure in detail is bad.
BAD = 0.7

#: Thresholds below this would silence every doubt.
_LEAST = 0.3

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
    rows, worst = [], WorstCases(EVERY)
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
            rows.append({"heart": number, "dice": dict.fromkeys(DETAILED, 0.0), "confidence": {}})
            continue
        found = score(
            result.labels, truth, result.report, heart.GetOrigin()[1] + heart.GetSize()[1] * heart.GetSpacing()[1]
        )
        confidence = {key: result.report["structures"][key]["agreement"] for key in DETAILED}
        rows.append({"heart": number, "dice": found, "confidence": confidence})
        words = " ".join(f"{key} {value:.3f}" for key, value in found.items())
        print(f"  {path.name} {modality}: {words}", flush=True)
        if pictures:
            draw(image, result.labels, pictures / f"{modality}-{number}.png", modality)
            draw(image, truth, pictures / f"{modality}-{number}-truth.png", modality)
            scores = [(structure, found[structure.key]) for structure in EVERY if structure.key in found]
            worst.see(path.name, scores, image, truth, result.labels)
    if pictures:
        worst.draw(pictures, modality)
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


@dataclass(frozen=True)
class Sample:
    """One structure of one box.

    Attributes:
        heart: its number.
        modality, key: of what.
        confidence: Dice overlap that the network expects.
        dice: overlap with the truth, on the box's grid.
    """

    heart: int
    modality: str
    key: str
    confidence: float
    dice: float


def validation_box(
    pool: Path, number: int, bundle: mkd_core.Bundle, executor: Executor, hearts: Sequence[Path]
) -> training.Box:
    """A box of a validation heart, rendered as variously as those of the training, and kept in a folder."""
    path = pool / f"box_{number:05d}.npz"
    if not path.exists():
        heart = hearts[number // 2 % len(hearts)]
        training.make_box([heart], bundle, executor, _VALIDATION, number).write(path)
    return training.Box.read(path)


def samples_of_boxes(
    weights: DetailWeights, bundle: mkd_core.Bundle, hearts: Sequence[Path], pool: Path, count: int
) -> list[Sample]:
    """What the network expects of itself in boxes of validation hearts, and how good it is."""
    device = torch.device("cpu")
    precision = choose_precision("auto", device)
    of_bundle, of_details = Executor(bundle, device, precision), Executor(weights, device, precision)
    truth_of = np.concatenate([targets_of(weights.structures), np.full(256 - TISSUE_COUNT, IGNORE, np.uint8)])
    found = []
    for number in range(count):
        box = validation_box(pool, number, bundle, of_bundle, hearts)
        result = details.predict(
            [torch.from_numpy(view.astype(np.float32))[None, None] for view in box.views],
            box.seven,
            weights.structures,
            weights.stride,
            lambda given: of_details.run(PART, given),
        )
        best = as_array(ensemble.best_class(result.probabilities))
        labels = details.tidied(details.within(best, box.seven, weights.structures), weights.structures)
        truth = truth_of[box.tissues]
        known = truth != IGNORE
        for structure in weights.structures:
            confidence, true = result.confidences[structure.label], (truth == structure.label) & known
            if confidence is not None and true.any():
                overlap = dice((labels == structure.label) & known, true)
                heart = VALIDATION_HEARTS[number // 2 % len(hearts)]
                found.append(Sample(heart, MODALITIES[number % 2], structure.key, confidence, overlap))
    return found


def limits(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Thresholds of the expected overlap by modality: of its good structures one in twenty lies below ``low`` and one
    in fifty below ``very_low``.  All structures have the same ones: those of their own, chosen by a dozen samples each,
    caught fewer bad structures of hearts left out and flagged more good ones.
    """
    table = {}
    for modality in MODALITIES:
        good = [one.confidence for one in samples if one.modality == modality and one.dice >= BAD]
        if good:
            low, very_low = (max(math.floor(1000 * at) / 1000, _LEAST) for at in np.quantile(good, (0.05, 0.02)))
            table[modality] = {"low": low, "very_low": very_low}
    return table


def left_out(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """What the low thresholds catch and flag, by modality, of hearts that they were not chosen by: each is left out
    once.
    """
    counts = {modality: dict.fromkeys(("bad", "caught", "good", "flagged"), 0) for modality in MODALITIES}
    for heart in {one.heart for one in samples}:
        table = limits([one for one in samples if one.heart != heart])
        for one in samples:
            if one.heart == heart:
                kind, told = ("bad", "caught") if one.dice < BAD else ("good", "flagged")
                counts[one.modality][kind] += 1
                counts[one.modality][told] += one.confidence < table[one.modality]["low"]
    return counts


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


def calibrate(weights: DetailWeights, bundle: mkd_core.Bundle, options: argparse.Namespace) -> dict[str, Any]:
    """Choose thresholds, and write them where they are read from if asked to; returns them."""
    options.calibrate.mkdir(parents=True, exist_ok=True)
    hearts = [options.data / "hearts" / f"heart_{number:04d}.nii.gz" for number in VALIDATION_HEARTS]
    samples = samples_of_boxes(weights, bundle, hearts, options.calibrate, options.boxes)
    table, unseen = limits(samples), left_out(samples)
    for modality, counts in unseen.items():
        print(f"{modality}: {table[modality]}; each heart left out once: {counts}")
    figures = {"weights": weights.identity, "bundle": bundle.identity, "boxes": options.boxes, "bad_below": BAD}
    figures |= {"thresholds": table, "left_out": unseen}
    if options.write:
        write_text(TABLE, json.dumps(figures, indent=1) + "\n")
    if options.json:
        write_text(options.json, json.dumps(figures | {"samples": [vars(one) for one in samples]}, indent=1) + "\n")
    return figures


def measure(
    bundle: mkd_core.Bundle, weights: DetailWeights, data: Path, numbers: Sequence[int], pictures: Path | None = None
) -> dict[str, Any]:
    """All figures that the data folder allows, printed as they come.

    Args:
        bundle: weights of the seven.
        weights: those in detail that the pipeline takes.
        data: folder.
        numbers: of the rendered hearts.
        pictures: folder for pictures of every case and of each structure's worst one.
    """
    figures: dict[str, Any] = {"weights": weights.identity, "bundle": bundle.identity}
    if (data / "chest_ct").exists():
        figures["real CT"] = real_ct(bundle, data / "chest_ct", pictures)
        print(f"real CT: {figures['real CT']}", flush=True)
    hearts = [path for number in numbers if (path := data / "hearts" / f"heart_{number:04d}.nii.gz").exists()]
    for modality in MODALITIES if hearts else ():
        figures[f"rendered {modality}"], figures[f"hearts {modality}"] = rendered(bundle, hearts, modality, pictures)
        print(f"rendered {modality}: {figures[f'rendered {modality}']}", flush=True)
    if hearts:
        image, _ = synthesize(sitk.ReadImage(str(hearts[0])), "CT", _FIRST_SEED)
        figures["CPU seconds added"] = round(seconds_added(bundle, image, "CT"), 2)
    figures["aims"] = [
        aim_at_least(f"{name}: mean Dice", aim, figures[name]["mean"]) for name, aim in AIMS.items() if name in figures
    ]
    print_aims(figures["aims"])
    return figures


def main(arguments: Sequence[str] | None = None) -> dict:
    """Run what the data folder allows; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hearts", type=int, default=40, help="rendered hearts per modality")
    parser.add_argument("--first", type=int, default=201, help="number of the first heart")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--weights", type=Path, help="detailed weights; default those shipped")
    parser.add_argument("--calibrate", type=Path, metavar="FOLDER", help="choose thresholds by boxes in this folder")
    parser.add_argument("--boxes", type=int, default=60, help="with --calibrate: how many")
    parser.add_argument("--write", action="store_true", help=f"write the thresholds into {TABLE.relative_to(ROOT)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for pictures of every case and of each worst one")
    options = parser.parse_args(arguments)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    if options.weights:
        weights = load_details(options.weights)
        pipeline.default_details = lambda: weights
    else:
        weights = default_details()
    bundle = mkd_core.load_bundle(mkd_core.default_bundle_path())
    if options.calibrate:
        return calibrate(weights, bundle, options)
    figures = measure(
        bundle, weights, options.data, range(options.first, options.first + options.hearts), options.pictures
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.json, json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
