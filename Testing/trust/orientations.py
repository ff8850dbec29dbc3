"""Volumes that lie: all 48 ways in which the axes of a volume can be told wrongly.

    python -m Testing.trust.orientations [--volumes NAME ...] [--json FILE]

The array is turned or mirrored and the header stays plain, so that what is called left, back and head is not.  The
structures found are compared with where they are: a structure is wrong if it overlaps the true one by less than half
(Dice).  Wrong structures must come with a warning, on themselves or on the whole, or not at all.  The mistake is to be
told, the right orientation to be left in peace.  ``--json`` writes the file after each orientation; what stands in it
already, found with the same weights, is not tried again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import NoHeartError
from mkd_core.measure.messages import describe
from mkd_core.protocol import findings
from mkd_core.structures import STRUCTURES
from Testing.benchmarks.accuracy import data_folder, dice
from Testing.trust.outcome import Outcome, store, stored

_GROUP = "orientations"

#: A structure that overlaps the true one by less is wrong.
_RIGHT_DICE = 0.5

#: Fraction of the wrong structures that may be shown without a warning.
_MOST_SILENT = 0.01

#: Exchanged axes (z, y, x) of the array, and reversed ones.
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
RIGHT = ORIENTATIONS[0]

#: A third of them, the mirror image among them, tried on each volume by default.
THIRD = [RIGHT, *ORIENTATIONS[1::3]]

#: Left and right exchanged; head and feet; a half turn on the table; axial slices taken for coronal ones.
QUICK = [RIGHT, ((0, 1, 2), (1, 1, -1)), ((0, 1, 2), (-1, 1, 1)), ((0, 1, 2), (1, -1, -1)), ((1, 0, 2), (1, 1, 1))]


@dataclass(frozen=True)
class Known:
    """A volume, the right way round, with where its structures are."""

    name: str
    modality: str
    image: sitk.Image
    truth: sitk.Image


@dataclass
class Tally:
    """What became of the structures of one volume in all its orientations.

    Attributes:
        tried: how many of the orientations.
        refused, told, untold: turned volumes that were refused, shown with a warning about the orientation, and shown
            without one.
        wrong: wrong structures that were shown; of these, ``silent`` have no warning on themselves or on the whole.
        false_alarm: the right orientation was doubted.
        unsaid: which wrong structures have no warning.
    """

    tried: int = 0
    refused: int = 0
    told: int = 0
    untold: int = 0
    wrong: int = 0
    silent: int = 0
    false_alarm: bool = False
    unsaid: list[str] = field(default_factory=list)


def turned(image: sitk.Image, axes: Sequence[int], signs: Sequence[int]) -> sitk.Image:
    """The voxels with their axes (z, y, x) exchanged and reversed, under a header that says nothing of it."""
    array = sitk.GetArrayViewFromImage(image).transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    result = sitk.GetImageFromArray(np.ascontiguousarray(array))
    spacing = np.array(image.GetSpacing())[::-1][list(axes)]
    result.SetSpacing(spacing[::-1].tolist())
    return result


def examine(
    known: Known, tally: Tally, orientations: Sequence[tuple], done: Callable[[Tally], None] = lambda tally: None
) -> None:
    """Segment a volume in some orientations.

    Args:
        known: the volume.
        tally: to which is added.
        orientations: of which the first ones were tried if the tally says so.
        done: called with the tally after each.
    """
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1)
    for axes, signs in orientations[tally.tried :]:
        tally.tried += 1
        try:
            result = mkd_core.segment(turned(known.image, axes, signs), modality=known.modality, options=options)
        except NoHeartError:
            tally.refused += (axes, signs) != RIGHT
            done(tally)
            continue
        on_whole = [describe(finding) for finding in findings(result.report["warnings"])]
        told = any("orientation" in sentence for sentence in on_whole)
        truth = sitk.GetArrayFromImage(turned(known.truth, axes, signs))
        found = sitk.GetArrayFromImage(result.labels)
        wrong = [one.key for one in STRUCTURES if dice(found == one.label, truth == one.label) < _RIGHT_DICE]
        if (axes, signs) == RIGHT:
            tally.false_alarm = told
        else:
            tally.told += told
            tally.untold += not told
            tally.wrong += len(wrong)
            warned = result.report["structures"]
            silent = [key for key in wrong if not on_whole and not warned[key]["warnings"]]
            tally.silent += len(silent)
            tally.unsaid += [f"{axes} {signs}: {key}" for key in silent]
        done(tally)


def rendered(seed: int, modality: str, spacing: float) -> Known:
    """A heart from formulas in a body."""
    from mkd_core.synthesis import synthesize

    image, truth = synthesize(None, modality, seed, spacing, around_mm=45.0)
    return Known(f"rendered {modality} {seed}", modality, image, truth)


def real(path: Path, modality: str) -> Known:
    """A real volume with what the segmentation finds the right way round, which other tests hold against references."""
    image = sitk.ReadImage(str(path))
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1)
    return Known(
        f"real {modality}", modality, image, mkd_core.segment(image, modality=modality, options=options).labels
    )


def volumes(quick: bool) -> dict[str, Callable[[], Known]]:
    """The volumes to turn, by name; real ones first, where the data folder is there."""
    if quick:
        return {"rendered CT 300": lambda: rendered(300, "CT", 3.0)}
    found: dict[str, Callable[[], Known]] = {}
    for name, modality in (("ct_thorax/ct", "CT"), ("mr_cine_4d/phase_00", "MR")):
        path = data_folder() / f"{name}.nii.gz"
        if path.exists():
            found[f"real {modality}"] = functools.partial(real, path, modality)
    for seed, modality in ((301, "CT"), (303, "CT"), (304, "MR")):
        found[f"rendered {modality} {seed}"] = functools.partial(rendered, seed, modality, 2.0)
    return found


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """One row for each real volume, or each rendered one where there are none, in a third of the orientations; ``main``
    tries all volumes in all orientations.
    """
    found = volumes(quick)
    real_ones = {name: make for name, make in found.items() if name.startswith("real")}
    orientations = QUICK if quick else THIRD
    for name, make in (real_ones or found).items():
        tally = Tally()
        examine(make(), tally, orientations)
        notes = []
        if tally.silent > _MOST_SILENT * tally.wrong:
            notes.append(f"{tally.silent} of {tally.wrong} wrong structures without a warning")
        if tally.false_alarm:
            notes.append("the right orientation is doubted")
        yield Outcome(_GROUP, name, not notes, len(orientations), note="; ".join(notes))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m Testing.trust.orientations", description=__doc__)
    parser.add_argument("--volumes", nargs="+", help="only volumes whose name holds one of these words")
    parser.add_argument("--json", type=Path, help="written after each orientation, and read if it is there")
    chosen = parser.parse_args()
    known = {name: Tally(**tally) for name, tally in stored(chosen.json).items()}
    print(f"{'':<20}{'refused':>9}{'told':>7}{'not told':>10}{'wrong':>8}{'silent':>8}  right orientation")
    for name, make in volumes(quick=False).items():
        if chosen.volumes and not any(word in name for word in chosen.volumes):
            continue
        tally = known.setdefault(name, Tally())

        def keep(_: Tally) -> None:
            rows = {name: dataclasses.asdict(one) for name, one in known.items()}
            store(chosen.json, "python -m Testing.trust.orientations", rows)

        if tally.tried < len(ORIENTATIONS):
            examine(make(), tally, ORIENTATIONS, keep)
        print(
            f"{name:<20}{tally.refused:>9}{tally.told:>7}{tally.untold:>10}{tally.wrong:>8}{tally.silent:>8}"
            f"  {'doubted' if tally.false_alarm else 'not doubted'}",
            *tally.unsaid,
            sep="\n  ",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
