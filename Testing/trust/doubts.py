"""Results that are wrong must be doubted: how many structures come out wrong, and of how many of these nothing is said?

Good volumes are distorted in every way of `Testing.trust.distortions` and segmented.  A structure is wrong if it
overlaps its truth by less than 0.8 (Dice), if it lies where none is, or if its volume cannot be true.  It is warned of
if the volume is refused, if it has a warning of its own, or if the result as a whole has one.

    python -m Testing.trust.doubts [--hearts 6] [--good 24] [--json FILE]

prints the table of more hearts than `python -m Testing.trust` tries, and what nothing was said of.  How often a good
structure is doubted shows on hearts that nobody distorted; ``--good`` adds some that are tried only as they are.
``--json`` writes the file after each heart; what stands in it already, found with the same weights, is not tried again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import BundleError, MKDError
from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle, save_bundle
from mkd_core.structures import BY_KEY, STRUCTURES
from mkd_core.synthesis import synthesize
from Testing.benchmarks.accuracy import data_folder, dice
from Testing.trust import distortions
from Testing.trust.distortions import UNDISTORTED, Distortion
from Testing.trust.outcome import Outcome, store, stored

_GROUP = "doubtful results"

#: Dice overlap with the truth below which a structure is wrong, and ml that are wrong where there is no such structure.
_WRONG_DICE, _WRONG_ML = 0.8, 5.0

#: What is aimed at: share of the wrong structures of which nothing is said, of all and of any one kind of distortion,
#: and of the good ones that get a warning.
_MOST_SILENT, _MOST_SILENT_OF_ONE, _MOST_FALSE = 0.01, 0.2, 0.05

#: The same share of volumes whose voxel size is wrong by no more than hearts differ from each other.
_MOST_SILENT_IF_SLIGHT = 0.8

#: Hearts that are rendered as CT and as MR and distorted in every way.
_HEARTS = 1

#: Appearances that nothing else uses; those of volumes that are not distorted begin so much higher.
_FIRST_SEED, _GOOD_SEED = 830_000, 100

_EVERYTHING = (*distortions.ALL, *distortions.SLIGHT)

#: Groups that are counted apart: their numbers are wrong by no more than hearts differ from each other.
_SLIGHT = {one.group for one in distortions.SLIGHT}

#: Classes that a conversion of weights can swap.
_SWAPS = (("LV", "RV"), ("LA", "RA"), ("AA", "PA"), ("LV", "Myo"))


@dataclass
class Tally:
    """Structures of one kind of distortion: wrong ones, those of them that were warned of, good ones, those flagged;
    and which wrong ones were not warned of.
    """

    wrong: int = 0
    warned: int = 0
    good: int = 0
    flagged: int = 0
    unsaid: list[str] = field(default_factory=list)

    @property
    def silent(self) -> int:
        """Wrong structures of which nothing was said."""
        return self.wrong - self.warned

    def __iadd__(self, other: Tally) -> Tally:
        self.wrong += other.wrong
        self.warned += other.warned
        self.good += other.good
        self.flagged += other.flagged
        self.unsaid += other.unsaid
        return self


def judge(bundle: Bundle, image: sitk.Image, truth: sitk.Image, modality: str, *, always_wrong: bool = False) -> Tally:
    """Segment a volume whose truth is known.

    Args:
        bundle: the weights.
        image: the volume.
        truth: labels on its grid, 0 everywhere if there is no heart.
        modality: "CT" or "MR".
        always_wrong: all numbers are wrong, whatever the labels are.
    """
    try:
        result = mkd_core.segment(image, bundle, modality=modality)
    except MKDError:
        true = sitk.GetArrayViewFromImage(truth)
        # A refusal is the right result of a volume without a heart, and a warning about any other.
        missing = sum(bool((true == structure.label).any()) for structure in STRUCTURES)
        return Tally(wrong=missing, warned=missing)
    found, true = sitk.GetArrayViewFromImage(result.labels), sitk.GetArrayViewFromImage(truth)
    voxel_ml = float(np.prod(image.GetSpacing())) / 1000.0
    tally = Tally()
    for structure in STRUCTURES:
        is_warned = bool(result.report["warnings"] or result.report["structures"][structure.key]["warnings"])
        if always_wrong or _is_wrong(found == structure.label, true == structure.label, voxel_ml):
            unsaid = [] if is_warned else [structure.key]
            tally += Tally(wrong=1, warned=int(is_warned), unsaid=unsaid)
        elif (true == structure.label).any():
            tally += Tally(good=1, flagged=int(is_warned))
    return tally


def _is_wrong(found: np.ndarray, true: np.ndarray, voxel_ml: float) -> bool:
    if not true.any():
        return np.count_nonzero(found) * voxel_ml >= _WRONG_ML
    return dice(found, true) < _WRONG_DICE


def swapped_weights(bundle: Bundle, first: str, second: str, path: Path) -> None:
    """Write weights whose segmentors and localiser take one structure for another and the other for the one."""
    order = list(range(len(STRUCTURES) + 1))
    a, b = BY_KEY[first].label, BY_KEY[second].label
    order[a], order[b] = b, a
    states = {part: bundle.network(part).state_dict() for part in bundle.metadata["networks"]}
    for part in ("localiser", "segmentor_real", "segmentor_syn"):
        states[part] = {
            name: tensor[order] if name.startswith("head.") else tensor for name, tensor in states[part].items()
        }
    save_bundle(path, bundle.metadata, states)


def _is_refused(path: Path) -> tuple[bool, str]:
    try:
        load_bundle(path)
    except BundleError as error:
        return True, str(error)
    return False, ""


def volumes(
    hearts: int, modalities: Sequence[str] = ("CT", "MR"), first: int = 0
) -> Iterator[tuple[str, str, Callable[[], tuple[sitk.Image, sitk.Image]]]]:
    """Good volumes: name, modality, and what renders the image with its truth; half of the hearts are test hearts where
    the data folder is there, the others our own.  They are numbered from ``first``.
    """
    folder = data_folder() / "hearts"
    paths: list[Path | None] = list(sorted(folder.glob("heart_02[0-4]?.nii.gz"))[-40:][:: max(1, 80 // (hearts + 1))])
    paths = paths[: (hearts + 1) // 2]
    for number, path in enumerate(paths + [None] * (hearts - len(paths)), first):
        heart = None if path is None else sitk.ReadImage(str(path))
        for modality in modalities:
            name = f"{'formulas' if path is None else path.name.partition('.')[0]}, {modality} {number}"
            yield name, modality, functools.partial(synthesize, heart, modality, _FIRST_SEED + number, spacing=2.0)


def tallies(hearts: int, modalities: Sequence[str] = ("CT", "MR"), *, quick: bool = False) -> dict[str, Tally]:
    """Wrong and warned structures of every group of distortions."""
    firsts = {one.group: one for one in reversed(distortions.ALL)}
    some = list(firsts.values()) if quick else _EVERYTHING
    return together(
        tally_of(*render(), modality, number, some)
        for number, (_, modality, render) in enumerate(volumes(hearts, modalities))
    )


def tally_of(
    image: sitk.Image, truth: sitk.Image, modality: str, seed: int, some: Sequence[Distortion] = _EVERYTHING
) -> dict[str, Tally]:
    """Wrong and warned structures of every group of distortions of one volume."""
    bundle = load_bundle(default_bundle_path())
    found = {one.group: Tally() for one in some}
    for distortion in some:
        if modality in distortion.modalities:
            found[distortion.group] += _distorted(bundle, image, truth, modality, distortion, seed)
    return found


def together(volumes: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """The tallies of several volumes in one."""
    found: dict[str, Tally] = {}
    for tallies_of_one in volumes:
        for group, tally in tallies_of_one.items():
            found.setdefault(group, Tally())
            found[group] += tally
    return found


def _distorted(
    bundle: Bundle, image: sitk.Image, truth: sitk.Image, modality: str, distortion: Distortion, seed: int
) -> Tally:
    image, truth = distortion.apply(image, truth, np.random.default_rng(seed))
    tally = judge(bundle, image, truth, modality, always_wrong=distortion.always_wrong)
    tally.unsaid = [f"heart {seed}, {modality}, {distortion.name}: {one}" for one in tally.unsaid]
    return tally


def table(found: Mapping[str, Tally]) -> list[str]:
    """Lines of the table that is printed."""
    lines = ["", f"{'':<34}{'wrong':>8}{'warned':>8}{'silent':>8}{'good':>8}{'flagged':>9}"]
    lines += [_line(group, tally) for group, tally in found.items() if group not in _SLIGHT]
    lines.append(_line("all", sum_of(found)))
    return lines + [_line(group, tally) for group, tally in found.items() if group in _SLIGHT]


def sum_of(found: Mapping[str, Tally]) -> Tally:
    """Of all groups of distortions but the slight ones."""
    total = Tally()
    for group, tally in found.items():
        if group not in _SLIGHT:
            total += tally
    return total


def _line(name: str, tally: Tally) -> str:
    return f"{name:<34}{tally.wrong:>8}{tally.warned:>8}{tally.silent:>8}{tally.good:>8}{tally.flagged:>9}"


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """Distorted volumes and swapped classes."""
    found = tallies(1, ("CT",), quick=True) if quick else tallies(_HEARTS)
    print(*table(found), sep="\n", flush=True)
    total = sum_of(found)
    for group, tally in found.items():
        most = _MOST_SILENT_IF_SLIGHT if group in _SLIGHT else _MOST_SILENT_OF_ONE
        note = "" if tally.silent <= most * max(10, tally.wrong) else f"nothing was said of {tally.silent}"
        yield Outcome(_GROUP, f"{group}: wrong structures", not note, max(1, tally.wrong), note=note)
    is_rare = total.silent <= _MOST_SILENT * max(100, total.wrong)
    note = f"{total.silent} of {total.wrong} without a warning"
    yield Outcome(_GROUP, "all wrong structures", is_rare, note=note)
    undistorted = found[UNDISTORTED.group]
    share = undistorted.flagged / max(1, undistorted.good)
    note = "" if share <= _MOST_FALSE else f"{share:.1%} got a warning"
    yield Outcome(_GROUP, "good structures of undistorted volumes", not note, max(1, undistorted.good), note=note)
    bundle = load_bundle(default_bundle_path())
    with tempfile.TemporaryDirectory() as folder:
        for first, second in _SWAPS[:1] if quick else _SWAPS:
            path = Path(folder, f"{first}-{second}.safetensors")
            swapped_weights(bundle, first, second, path)
            refused, message = _is_refused(path)
            name = f"weights whose {first} and {second} are swapped"
            yield Outcome(_GROUP, name, refused, message=message, note="" if refused else "they were loaded")


def main() -> int:
    """Print the table and what nothing was said of."""
    parser = argparse.ArgumentParser(prog="python -m Testing.trust.doubts", description=__doc__.split("\n")[0])
    parser.add_argument("--hearts", type=int, default=6, help="hearts, each rendered as CT and as MR")
    parser.add_argument("--good", type=int, default=24, help="hearts that are tried only as they are")
    parser.add_argument("--json", type=Path, help="written after each heart, and read if it is there")
    chosen = parser.parse_args()
    known = {
        name: {group: Tally(**tally) for group, tally in rows.items()} for name, rows in stored(chosen.json).items()
    }
    distorted = ((*volume, _EVERYTHING) for volume in volumes(chosen.hearts))
    as_they_are = ((*volume, [UNDISTORTED]) for volume in volumes(chosen.good, first=_GOOD_SEED))
    for number, (name, modality, render, some) in enumerate((*distorted, *as_they_are)):
        if name not in known:
            known[name] = tally_of(*render(), modality, number, some)
            print(_line(name, sum_of(known[name])), flush=True)
        rows = {name: {group: dataclasses.asdict(one) for group, one in each.items()} for name, each in known.items()}
        total = dataclasses.asdict(sum_of(together(known.values())))
        store(chosen.json, "python -m Testing.trust.doubts", rows, all=total)
    found = together(known.values())
    print(*table(found), "", *(one for tally in found.values() for one in tally.unsaid), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
