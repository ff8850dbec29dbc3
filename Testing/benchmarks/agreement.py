"""Which agreement of the two segmentors is a reason to doubt a structure?

    python -m Testing.benchmarks.agreement [--weights BUNDLE] [--hearts 24] [--json FILE] [--samples FILE] [--write]

Renders validation hearts as CT and MR, distorts some, segments them, and compares each structure's agreement with its
overlap with the truth.  Prints for every structure and modality how many bad structures (Dice below 0.8) two thresholds
catch and how many good ones they flag; ``--write`` puts the thresholds into ``mkd_core/measure/agreement.json``.

The hearts are computer-made ones that neither training nor the test figures of the weights have used: hearts of
`mkd_core.synthesis.anatomy` with seeds of their own and, where the data folder is there, the last ten of its training
range, which training keeps for validation.

Real MR is harder than rendered MR: there the agreement promises more than it keeps.  By how much is measured on the
real left atria of the data folder, and taken off the overlap of every rendered MR structure before thresholds are
chosen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import MKDError
from mkd_core.io.atomic import write_text
from mkd_core.structures import BY_KEY, STRUCTURES
from mkd_core.synthesis import synthesize
from Testing.benchmarks.accuracy import ROOT, data_folder, dice
from Testing.trust import distortions
from Testing.trust.distortions import Distortion

TABLE = ROOT / "mkd_core" / "measure" / "agreement.json"

#: Dice overlap with the truth below which a structure is bad.
BAD = 0.8

#: Share of the good structures of a modality that the low thresholds may flag together; of any one structure; and of
#: any one by the very low threshold.
_MOST_FLAGGED, _MOST_FLAGGED_OF_ONE, _MOST_FLAGGED_RED = 0.05, 0.2, 0.02

#: In the place of a distortion: a real volume.
_REAL = "real"

#: Distorted copies of each heart, beside the undistorted one.
_COPIES = 4

#: Seeds of hearts and appearances that nothing else uses.
_FIRST_SEED = 810_000

#: Distortions after which the truth is still the truth of what can be seen.
_DISTORTIONS = (
    *distortions.QUALITY,
    *distortions.FIELD_OF_VIEW,
    *distortions.OFFSETS,
    *(one for one in distortions.SPACINGS if one.name != "0.5 of the true size"),
    *distortions.ORIENTATIONS,
    *(one for one in distortions.CONTENTS if one.group == "slice order"),
)


@dataclass(frozen=True)
class Sample:
    """One structure of one segmented volume.

    Attributes:
        modality, key: of what.
        distortion: group of what was done to the volume, see `Testing.trust.distortions`.
        agreement: Dice overlap of the two segmentors.
        dice: overlap of the result with the truth.
    """

    modality: str
    key: str
    distortion: str
    agreement: float
    dice: float


def rendered_samples(bundle, hearts: Sequence[Path | None]) -> Iterator[Sample]:
    """Segment rendered hearts, undistorted and distorted; None stands for a heart of our own."""
    for number, path in enumerate(hearts):
        heart = None if path is None else sitk.ReadImage(str(path))
        for modality in ("CT", "MR"):
            seed = _FIRST_SEED + number
            image, truth = synthesize(heart, modality, seed, spacing=1.5, around_mm=20 + 10 * (number % 5))
            known = [one for one in _DISTORTIONS if modality in one.modalities]
            chosen = [known[(number * _COPIES + copy) % len(known)] for copy in range(_COPIES)]
            for distortion in (distortions.UNDISTORTED, *chosen):
                pair = distortion.apply(image, truth, np.random.default_rng(seed))
                yield from _samples(bundle, *pair, modality, distortion)


def _samples(bundle, image: sitk.Image, truth: sitk.Image, modality: str, distortion: Distortion) -> Iterator[Sample]:
    try:
        result = mkd_core.segment(image, bundle, modality=modality)
    except MKDError as error:
        print(f"  {modality}, {distortion.name}: {error}")
        return
    found, true = sitk.GetArrayViewFromImage(result.labels), sitk.GetArrayViewFromImage(truth)
    for structure in STRUCTURES:
        agreement = result.report["structures"][structure.key]["agreement"]
        if agreement is not None and (true == structure.label).any():
            overlap = dice(found == structure.label, true == structure.label)
            yield Sample(modality, structure.key, distortion.group, agreement, overlap)


def real_left_atria(bundle, folder: Path) -> list[Sample]:
    """The left atria of real MR, outlined by experts."""
    samples = []
    for path in sorted(folder.glob("*_image.nii.gz")):
        outline = sitk.ReadImage(str(path).replace("_image", "_left_atrium"))
        truth = sitk.Cast(outline > 0, sitk.sitkUInt8) * BY_KEY["LA"].label
        real = Distortion(_REAL, path.name, distortions.UNDISTORTED.apply)
        samples += _samples(bundle, sitk.ReadImage(str(path)), truth, "MR", real)
    return samples


def optimism(rendered: Sequence[Sample], real: Sequence[Sample]) -> float:
    """By how much the agreement promises more on real MR than on undistorted rendered MR, at least 0."""

    def gap(samples: Sequence[Sample]) -> float:
        return float(np.mean([sample.agreement - sample.dice for sample in samples]))

    alike = [one for one in rendered if (one.modality, one.key, one.distortion) == ("MR", "LA", "undistorted")]
    return max(0.0, gap(real) - gap(alike)) if real and alike else 0.0


def choose(samples: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, tuple[float, float]]:
    """Thresholds (low, very low) for the structures of a modality.

    The low thresholds are chosen together: of all that flag at most one good structure in twenty, those that catch the
    most bad ones, so that flags are spent where they catch.  Very low is for each structure the highest threshold that
    flags at most 2 % of its good ones.  None is higher than it takes to flag all bad ones.

    Args:
        samples: by structure, agreements and overlaps with the truth.

    Raises:
        ValueError: a structure is never good: there is nothing to choose by.
    """
    very_low = {}
    #: By flags spent so far: bad structures caught, and the low thresholds that catch them.
    best: dict[int, tuple[int, dict[str, float]]] = {0: (0, {})}
    most = int(_MOST_FLAGGED * sum(np.count_nonzero(overlap >= BAD) for _, overlap in samples.values()))
    for key, (agreement, overlap) in samples.items():
        bad = overlap < BAD
        good = np.sort(agreement[~bad])
        if not len(good):
            raise ValueError("no good structure: thresholds cannot be chosen")
        enough = float(agreement[bad].max()) + 0.005 if bad.any() else 1.0
        steps = [min(float(at), enough) for at in good]
        fewest = min(round(_MOST_FLAGGED_RED * len(good)), len(good) - 1)
        very_low[key] = _rounded(steps[fewest])
        choices: dict[int, tuple[int, dict[str, float]]] = {}
        for spent, (caught, chosen) in best.items():
            for step in steps[fewest : max(fewest, int(_MOST_FLAGGED_OF_ONE * len(good))) + 1]:
                low = _rounded(step)
                flags = spent + np.count_nonzero(good < low)
                catches = caught + np.count_nonzero(agreement[bad] < low)
                is_affordable = flags <= most or step == steps[fewest]
                if is_affordable and (flags not in choices or catches > choices[flags][0]):
                    choices[flags] = (catches, {**chosen, key: low})
        best = choices
    _, low_by_key = max(best.items(), key=lambda one: (one[0] <= most, one[1][0], -one[0]))[1]
    return {key: (low_by_key[key], very_low[key]) for key in samples}


def _rounded(threshold: float) -> float:
    return math.floor(1000 * threshold) / 1000


def thresholds(samples: Sequence[Sample], mr_optimism: float) -> dict[str, dict[str, dict[str, float]]]:
    """Thresholds by modality and structure, with what they catch and flag; printed as a table."""
    caught = f"{'caught':>8}{'flagged':>9}"
    print(f"\n{'':<8}{'bad':>5}{'good':>6}{'low':>7}{caught}{'very low':>10}{caught}")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for modality in ("CT", "MR"):
        known = {}
        for structure in STRUCTURES:
            some = [one for one in samples if (one.modality, one.key) == (modality, structure.key)]
            overlap = np.array([one.dice for one in some]) - (mr_optimism if modality == "MR" else 0.0)
            known[structure.key] = np.array([one.agreement for one in some]), overlap
        rows = []
        for key, (low, very_low) in choose(known).items():
            agreement, overlap = known[key]
            bad = overlap < BAD
            entry = {"low": low, "very_low": very_low, "bad": int(bad.sum()), "good": int((~bad).sum())}
            for name, threshold in (("low", low), ("very_low", very_low)):
                entry[f"{name}_caught"] = _fraction(agreement[bad] < threshold)
                entry[f"{name}_flagged"] = _fraction(agreement[~bad] < threshold)
            table.setdefault(modality, {})[key] = entry
            rows.append(entry)
            print(_row(f"{modality} {BY_KEY[key].abbreviation}", entry, f"{low:>7.3f}", f"{very_low:>10.3f}"))
        print(_row(f"{modality} all", _together(rows), f"{'':>7}", f"{'':>10}"))
    return table


def _row(name: str, entry: Mapping[str, float], low: str, very_low: str) -> str:
    return (
        f"{name:<8}{entry['bad']:>5}{entry['good']:>6}"
        f"{low}{entry['low_caught']:>8.0%}{entry['low_flagged']:>9.0%}"
        f"{very_low}{entry['very_low_caught']:>8.0%}{entry['very_low_flagged']:>9.0%}"
    )


def _together(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Counts and shares of several structures together."""
    counts = {of: sum(row[of] for row in rows) for of in ("bad", "good")}
    shares = {
        f"{name}_{what}": sum(row[f"{name}_{what}"] * row[of] for row in rows) / max(counts[of], 1)
        for name in ("low", "very_low")
        for what, of in (("caught", "bad"), ("flagged", "good"))
    }
    return counts | shares


def _fraction(flagged: np.ndarray) -> float:
    return round(float(flagged.mean()), 3) if len(flagged) else 0.0


def validation_hearts(count: int, data: Path) -> list[Path | None]:
    """Half of them from the data folder, as far as it goes, and hearts of our own."""
    known = sorted((data / "hearts").glob("heart_*.nii.gz"))
    own = [path for path in known if 191 <= int(path.name.split(".")[0].split("_")[1]) <= 200][: count // 2]
    return own + [None] * (count - len(own))


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose the thresholds, print them, and write them where asked to."""
    parser = argparse.ArgumentParser(prog="python -m Testing.benchmarks.agreement", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=None, help="bundle; default the one shipped")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--hearts", type=int, default=24, help="validation hearts")
    parser.add_argument("--json", type=Path, default=None, help="file for all samples and figures")
    parser.add_argument("--samples", type=Path, default=None, help="choose by the samples of an earlier --json")
    parser.add_argument("--write", action="store_true", help=f"write the thresholds into {TABLE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    bundle = mkd_core.load_bundle(options.weights or mkd_core.default_bundle_path())
    if options.samples:
        known = [Sample(**one) for one in json.loads(options.samples.read_text(encoding="utf-8"))["samples"]]
        samples = [one for one in known if one.distortion != _REAL]
        real = [one for one in known if one.distortion == _REAL]
    else:
        samples = list(rendered_samples(bundle, validation_hearts(options.hearts, options.data)))
        real = real_left_atria(bundle, options.data / "mr_left_atrium")
    too_much = optimism(samples, real)
    print(
        f"\nreal MR, left atria: {len(real)}; "
        f"the agreement is {100 * too_much:.1f} points more optimistic than on rendered MR"
    )
    table = thresholds(samples, too_much)
    if real:
        flagged = sum(one.agreement < table["MR"]["LA"]["low"] for one in real)
        bad = [one for one in real if one.dice < BAD]
        caught = sum(one.agreement < table["MR"]["LA"]["low"] for one in bad)
        print(f"\nof {len(real)} real left atria {flagged} are flagged, and {caught} of the {len(bad)} bad ones caught")
    figures = {"bundle": bundle.identity, "bad_below": BAD, "mr_optimism": round(too_much, 3), "thresholds": table}
    if options.json:
        everything = figures | {"samples": [vars(one) for one in [*samples, *real]]}
        write_text(options.json, json.dumps(everything, indent=1) + "\n")
    if options.write:
        write_text(TABLE, json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
