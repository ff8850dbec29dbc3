"""How good is a bundle?  Real CT, real MR, rendered test hearts, volumes without a heart.

    python -m Testing.benchmarks.accuracy [--weights BUNDLE] [--data FOLDER] [--hearts 40] [--json FILE] [--pictures
    FOLDER] [--in-detail 13] [--describe]

Prints every figure, then what is aimed at beside what was reached, and writes both as JSON.  ``FOLDER`` is the data
folder (environment variable MKD_DATA, else ../shared/data beside the checkout).

Vessels are scored twice: to their full length, and as the organisers of MM-WHS cut them
(:mod:`Testing.benchmarks.vessel_ends`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import KDTree

ROOT = Path(__file__).resolve().parents[2]

import mkd_core
from mkd_core.errors import BundleError, MKDError
from mkd_core.evaluation import measures
from mkd_core.inference import pipeline
from mkd_core.io import preview
from mkd_core.io.atomic import write_text
from mkd_core.protocol import IN_DETAIL, SEGMENTORS, SegmentationOptions
from mkd_core.structures import BY_KEY, STRUCTURES, Structure
from Testing.benchmarks import real_scans, vessel_ends

#: Appearance seeds that training never uses.
_FIRST_SEED = 900000


def data_folder() -> Path:
    """Folder of the test data: MKD_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("MKD_DATA", ROOT.parent / "shared" / "data"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two boolean arrays; 1 where both are empty."""
    overlap = measures.dice(a, b)
    return 1.0 if overlap is None else overlap


def score_real_ct(labels: sitk.Image, folder: Path) -> dict[str, float]:
    """Score a segmentation of ``ct_thorax/ct.nii.gz`` against its partial reference masks.

    Returns:
        inside: share of labelled voxels within 3 mm of heart, pulmonary artery and aorta together; cover: share of the
            heart mask labelled; pulmonary_artery: Dice;
        ascending_aorta: share inside the reference aorta; chambers: share of the five heart labels within 3 mm of the
        heart mask; blood_minus_muscle: least difference of median HU; components: largest number of pieces of a
        structure (pulmonary artery left out).
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
        "inside": float(real_scans.within(heart | artery | aorta, spacing, 3.0)[anything].mean()),
        "cover": float(anything[heart].mean()),
        "pulmonary_artery": dice(found == BY_KEY["PA"].label, artery),
        "ascending_aorta": float(aorta[found == BY_KEY["AA"].label].mean()),
        "chambers": float(real_scans.within(heart, spacing, 3.0)[(found > 0) & (found <= BY_KEY["Myo"].label)].mean()),
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


class WorstCases:
    """The worst case of each structure.

    Args:
        structures: with their labels.
    """

    def __init__(self, structures: Sequence[Structure]) -> None:
        self._structures = structures
        self._worst: dict[str, tuple[float, str, sitk.Image, sitk.Image, sitk.Image]] = {}

    def see(
        self,
        name: str,
        scores: Iterable[tuple[Structure, float]],
        image: sitk.Image,
        truth: sitk.Image,
        labels: sitk.Image | None,
    ) -> None:
        """Look at a case: Dice of its structures, and what a picture of it takes; no labels where it was refused."""
        for structure, score in scores:
            if structure.key not in self._worst or score < self._worst[structure.key][0]:
                found = truth * 0 if labels is None else labels
                self._worst[structure.key] = (float(score), name, image, truth, found)

    def table(self) -> dict[str, dict[str, float | str]]:
        """Name and Dice of each structure's worst case."""
        return {key: {"case": name, "dice": score} for key, (score, name, *_) in self._worst.items()}

    def draw(self, folder: Path, modality: str) -> None:
        """A picture of each: slices through the structure, the segmentation filled and the truth as a line."""
        for structure in self._structures:
            if structure.key in self._worst:
                _, _, image, *both = self._worst[structure.key]
                own = [sitk.Cast(one == structure.label, sitk.sitkUInt8) * structure.label for one in both]
                slices = list(preview.comparison(image, *own, modality, self._structures).values())
                if slices:
                    path = folder / f"worst-rendered-{modality}-{structure.key}.png"
                    preview.write_png(preview.stack(slices, axis=1), path)


def rendered_hearts(
    bundle, folder: Path, modality: str, count: int, pictures: Path | None = None
) -> dict[str, dict[str, float]]:
    """Mean Dice per structure on rendered test hearts.

    Args:
        bundle: weights.
        folder: of the hearts' tissue maps.
        modality: "CT" or "MR".
        count: hearts.
        pictures: folder for pictures of the worst heart, and of the worst case of each structure.

    Returns:
        By whose prediction it is, "ensemble", "real" or "synthetic": mean Dice by structure, their ``mean``, and the
        number of ``cases``; and of the ensemble, as "vessels as MM-WHS cuts them", the mean Dice of AA and PA, and as
        "worst" each structure's worst case.
    """
    from mkd_core.synthesis import synthesize
    from mkd_core.training.config import DataConfig
    from mkd_core.training.rendered_hearts import training_hearts

    rows: dict[str, list[list[float]]] = {prediction: [] for prediction in SEGMENTORS}
    cut: dict[str, list[float]] = {"AA": [], "PA": []}
    worst, by_structure = (np.inf, None), WorstCases(STRUCTURES)
    hearts = sorted(set(folder.glob("*.nii.gz")).difference(training_hearts(folder, DataConfig.last_heart)))[:count]
    for number, path in enumerate(hearts):
        image, truth = synthesize(sitk.ReadImage(str(path)), modality, _FIRST_SEED + number)
        true = sitk.GetArrayViewFromImage(truth)
        for prediction in SEGMENTORS:
            labels = _segment(image, bundle, modality, f"{path.name} {modality}", segmentor=prediction)
            found = np.zeros_like(true) if labels is None else sitk.GetArrayViewFromImage(labels)
            rows[prediction].append([dice(found == s.label, true == s.label) for s in STRUCTURES])
            if prediction == "ensemble":
                for key, score in vessel_ends.truncated_dice(found, true, image.GetSpacing()[::-1]).items():
                    cut[key].append(1.0 if score is None else score)
            if prediction == "ensemble":
                by_structure.see(path.name, [*zip(STRUCTURES, rows[prediction][-1])], image, truth, labels)
            if prediction == "ensemble" and np.mean(rows[prediction][-1]) < worst[0]:
                worst = (np.mean(rows[prediction][-1]), (image, truth, labels))
        reached = rows["ensemble"][-1]
        print(
            f"  {path.name} {modality}: "
            + " ".join(f"{s.abbreviation} {v:.3f}" for s, v in zip(STRUCTURES, reached))
            + "  "
            + " ".join(f"{prediction} {np.mean(rows[prediction][-1]):.3f}" for prediction in rows),
            flush=True,
        )
    if pictures and worst[1]:
        _draw(pictures / f"worst-rendered-{modality}.png", *worst[1], modality)
        by_structure.draw(pictures, modality)
    means = {prediction: np.mean(values, axis=0) for prediction, values in rows.items()}
    return {
        prediction: {s.key: float(v) for s, v in zip(STRUCTURES, mean)}
        | {"mean": float(mean.mean()), "cases": len(hearts)}
        for prediction, mean in means.items()
    } | {
        "vessels as MM-WHS cuts them": {key: float(np.mean(scores)) for key, scores in cut.items()},
        "worst": by_structure.table(),
    }


def real_left_atria(bundle, folder: Path, count: int, pictures: Path | None = None) -> dict[str, dict[str, float]]:
    """Left atrium Dice on real late-enhancement MR whose field of view cuts the heart, through image alignment and
    without; refused cases count 0.

    Arguments as for :func:`rendered_hearts`.
    """
    values: dict[str, list[float]] = {"translate": [], "none": []}
    worst = (np.inf, None)
    for path in sorted(folder.glob("*_image.nii.gz"))[:count]:
        truth = (
            sitk.Cast(sitk.ReadImage(str(path).replace("_image", "_left_atrium")) > 0, sitk.sitkUInt8)
            * BY_KEY["LA"].label
        )
        true = sitk.GetArrayViewFromImage(truth) > 0
        image = sitk.ReadImage(str(path))
        for alignment, scores in values.items():
            labels = _segment(image, bundle, "MR", path.name, alignment=alignment)
            scores.append(
                0.0 if labels is None else dice(sitk.GetArrayViewFromImage(labels) == BY_KEY["LA"].label, true)
            )
            if alignment == "translate" and scores[-1] < worst[0]:
                worst = (scores[-1], (image, truth, labels))
        print(
            f"  {path.name}: " + " ".join(f"{alignment} {scores[-1]:.3f}" for alignment, scores in values.items()),
            flush=True,
        )
    if pictures and worst[1]:
        _draw(pictures / "worst-left-atrium-MR.png", *worst[1], "MR")
    return {
        alignment: {
            "mean": float(np.mean(scores)),
            "median": float(np.median(scores)),
            "lowest": min(scores),
            "highest": max(scores),
            "cases": len(scores),
        }
        for alignment, scores in values.items()
    }


def _segment(image: sitk.Image, bundle, modality: str, name: str, **options) -> sitk.Image | None:
    """Labels, or None where the volume is refused, which is printed."""
    try:
        return mkd_core.segment(image, bundle, modality=modality, options=SegmentationOptions(**options)).labels
    except MKDError as error:
        print(f"  {name}: {error}")
        return None


def _draw(path: Path, image: sitk.Image, truth: sitk.Image, labels: sitk.Image | None, modality: str) -> None:
    preview.write_png(preview.stack(list(preview.comparison(image, truth, labels, modality).values()), axis=1), path)


def refused_without_a_heart(bundle, folder: Path) -> dict[str, bool]:
    """Is each volume without a heart refused?"""
    modalities = {"ct_abdomen.nii.gz": "CT", "mr_abdomen.nii.gz": "MR"}
    return {
        name: _segment(sitk.ReadImage(str(folder / name)), bundle, modality, name) is None
        for name, modality in modalities.items()
        if (folder / name).exists()
    }


def aim_at_least(what: str, aim: float, reached: float) -> dict:
    """An aim that is met by what is as large or larger."""
    return {"what": what, "aim": aim, "reached": reached, "met": bool(reached >= aim)}


def print_aims(aims: Sequence[dict]) -> None:
    """What is aimed at beside what was reached."""
    print(f"\n{'':<58}{'aim':>8}{'reached':>10}")
    for aim in aims:
        print(f"{aim['what']:<58}{aim['aim']:>8g}{aim['reached']:>10.3f}  {'' if aim['met'] else 'not met'}".rstrip())


def aims(figures: dict) -> list[dict]:
    """What is aimed at: ``what``, ``aim``, ``reached`` and whether it is ``met``; only of what was measured."""
    found: list[dict] = []

    def at_least(what: str, aim: float, reached: float) -> None:
        found.append(aim_at_least(what, aim, reached))

    def shares_at_least(scan: str, shares: Sequence[tuple[str, float, str]]) -> None:
        for key, aim, what in shares if scan in figures else ():
            at_least(f"{scan}: {what}", aim, figures[scan][key])

    for modality, aim in (("CT", 0.95), ("MR", 0.92)):
        if rendered := figures.get(f"rendered {modality}"):
            both = rendered["ensemble"]
            at_least(f"rendered {modality}: mean Dice", aim, both["mean"])
            at_least(f"rendered {modality}: lowest structure", 0.88, min(both[s.key] for s in STRUCTURES))
            at_least(
                f"rendered {modality}: ensemble less the better segmentor",
                0.0,
                both["mean"] - max(rendered[one]["mean"] for one in ("real", "synthetic")),
            )
    shares_at_least(
        "real CT",
        (
            ("inside", 0.985, "labels within 3 mm of the reference"),
            ("cover", 0.93, "heart mask covered"),
            ("pulmonary_artery", 0.87, "pulmonary artery Dice"),
            ("ascending_aorta", 0.98, "ascending aorta inside the reference"),
            ("chambers", 0.985, "chambers within 3 mm of the heart mask"),
            ("blood_minus_muscle", 100.0, "blood brighter than myocardium, HU"),
        ),
    )
    if ct := figures.get("real CT"):
        found.append(
            {
                "what": "real CT: pieces of a structure",
                "aim": 1,
                "reached": ct["components"],
                "met": ct["components"] == 1,
            }
        )
        at_least("real CT: the anatomy is the right way round", 1, min(figures["real CT order"].values()))
    shares_at_least(
        "contrast CT",
        (
            ("inside", 0.99, "labels within 3 mm of the reference"),
            ("cover", 0.94, "heart mask covered"),
            ("bright", 0.97, "bright voxels of the heart mask covered"),
            ("ascending_aorta", 0.985, "ascending aorta inside the reference"),
            ("chambers", 0.99, "chambers within 3 mm of the heart mask"),
        ),
    )
    if plain := figures.get("plain CT"):
        at_least("plain CT with a heart segmented", 1, min(one["segmented"] for one in plain.values()))
    if "stroke volumes differ" in figures.get("beating heart", {}):
        at_least(
            "beating heart: stroke volumes differ, less", -0.15, -figures["beating heart"]["stroke volumes differ"]
        )
    if atria := figures.get("real MR left atrium"):
        at_least("real MR: left atrium Dice", 0.87, atria["translate"]["mean"])
        at_least("real MR: gain by image alignment", 0.0, atria["translate"]["mean"] - atria["none"]["mean"])
    if refused := figures.get("refused without a heart"):
        at_least("volumes without a heart refused", 1, min(refused.values()))
    return found


def describe(bundle: mkd_core.Bundle, figures: dict) -> mkd_core.Bundle:
    """Write figures into the description that a bundle gives of itself, beside those of its validation; returns it as
    it was read back.
    """
    from mkd_core.io.bundle import update_metadata

    quality = {name: values for name, values in bundle.metadata["quality"].items() if name.startswith("validation")}
    for name, values in figures.items():
        if name in ("bundle", "aims", "plain CT", "beating heart", "in detail"):
            continue
        if name.startswith("rendered"):
            values = values["ensemble"]
        elif name == "real MR left atrium":
            values = values["translate"]
        quality[name] = {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in values.items()
            if key != "seconds"
        }
    return update_metadata(bundle, quality=quality)


def main(arguments: Sequence[str] | None = None) -> dict:
    """Run what the data folder allows; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=None, help="bundle; default the one shipped")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--hearts", type=int, default=40, help="rendered test hearts per modality")
    parser.add_argument("--mr", type=int, default=16, help="real MR volumes")
    parser.add_argument("--in-detail", type=int, default=13, help="rendered test hearts per modality, in detail")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument(
        "--pictures", type=Path, default=None, help="folder for pictures of the real CT and of the worst cases"
    )
    parser.add_argument(
        "--describe",
        action="store_true",
        help="write the figures into the description that the weights give of themselves",
    )
    options = parser.parse_args(arguments)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    bundle = mkd_core.load_bundle(options.weights or mkd_core.default_bundle_path())
    figures: dict = {"bundle": bundle.identity}
    thorax = options.data / "ct_thorax"
    if thorax.exists():
        start = time.perf_counter()
        image = sitk.ReadImage(str(thorax / "ct.nii.gz"))
        result = mkd_core.segment(image, bundle)
        figures["real CT"] = score_real_ct(result.labels, thorax) | {"seconds": time.perf_counter() - start}
        figures["real CT order"] = anatomical_order(result.labels)
        figures["real CT ml"] = {key: entry["volume_ml"] for key, entry in result.report["structures"].items()}
        if options.pictures:
            preview.write_png(preview.picture(image, result.labels), options.pictures / "real-CT.png")
    chest, beat = options.data / "chest_ct", options.data / "mr_cine_4d"
    if chest.exists():
        figures["contrast CT"] = real_scans.contrast_ct(bundle, chest, options.pictures)
        figures["plain CT"] = real_scans.plain_cts(bundle, chest, options.pictures)
    if beat.exists():
        figures["beating heart"] = real_scans.beating_heart(bundle, beat, options.pictures)
    if (options.data / "hearts").exists() and options.hearts:
        for modality in ("CT", "MR"):
            figures[f"rendered {modality}"] = rendered_hearts(
                bundle, options.data / "hearts", modality, options.hearts, options.pictures
            )
    if (options.data / "mr_left_atrium").exists() and options.mr:
        figures["real MR left atrium"] = real_left_atria(
            bundle, options.data / "mr_left_atrium", options.mr, options.pictures
        )
    if refused := refused_without_a_heart(bundle, options.data / "no_heart"):
        figures["refused without a heart"] = refused
    if options.in_detail:
        figures["in detail"] = _in_detail(bundle, options.data, options.in_detail, options.pictures)
    figures["aims"] = aims(figures)
    _print(figures)
    if options.describe:
        figures["bundle"] = describe(bundle, figures).identity
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.json, json.dumps(figures, indent=1) + "\n")
    return figures


def _in_detail(bundle: mkd_core.Bundle, data: Path, hearts: int, pictures: Path | None) -> dict:
    """Figures of the structures in detail, as their own command measures them; empty where they cannot be found with
    this bundle.
    """
    from Testing.benchmarks import details  # which imports this module

    try:
        weights = pipeline.detail_weights_for(bundle, SegmentationOptions(structures=IN_DETAIL))
    except BundleError as error:
        print(f"in detail: {error}")
        return {}
    return details.measure(bundle, weights, data, range(201, 201 + hearts), pictures) if weights else {}


def _print(figures: dict) -> None:
    def words(entry: dict) -> str:
        return ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in entry.items()
        )

    for name, entry in figures.items():
        if name in ("aims", "in detail"):  # which are printed below, and were
            continue
        parts = entry if all(isinstance(value, dict) for value in entry.values()) else {"": entry}
        for part, values in parts.items():
            print(f"{name} {part}".strip() + f": {words(values)}")
    print_aims(figures["aims"])


if __name__ == "__main__":
    main()
