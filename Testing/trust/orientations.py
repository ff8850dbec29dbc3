"""Volumes that lie: all 48 ways in which the axes of a volume can be told wrongly.

    python -m Testing.trust.orientations [--volumes NAME ...]

The array is turned or mirrored and the header stays plain, so that what is called left, back and head is not.  The
structures found are compared with where they are: a structure is wrong if it overlaps the true one by less than half
(Dice).  Wrong structures must come with a warning, on themselves or on the whole, or not at all.  The mistake is to be
told, the right orientation to be left in peace.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import NoHeartError
from mkd_core.measure.messages import describe
from mkd_core.protocol import findings
from mkd_core.structures import STRUCTURES
from Testing.benchmarks.accuracy import data_folder, dice
from Testing.trust.outcome import Outcome

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
        refused, told, untold: turned volumes that were refused, shown with a warning about the orientation, and shown
            without one.
        wrong: wrong structures that were shown; of these, ``silent`` have no warning on themselves or on the whole.
        false_alarm: the right orientation was doubted.
    """

    refused: int = 0
    told: int = 0
    untold: int = 0
    wrong: int = 0
    silent: int = 0
    false_alarm: bool = False


def turned(image: sitk.Image, axes: Sequence[int], signs: Sequence[int]) -> sitk.Image:
    """The voxels with their axes (z, y, x) exchanged and reversed, under a header that says nothing of it."""
    array = sitk.GetArrayViewFromImage(image).transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    result = sitk.GetImageFromArray(np.ascontiguousarray(array))
    spacing = np.array(image.GetSpacing())[::-1][list(axes)]
    result.SetSpacing(spacing[::-1].tolist())
    return result


def examine(known: Known, orientations: Sequence[tuple], report=lambda line: None) -> Tally:
    """Segment a volume in some orientations."""
    tally = Tally()
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1)
    for axes, signs in orientations:
        try:
            result = mkd_core.segment(turned(known.image, axes, signs), modality=known.modality, options=options)
        except NoHeartError as error:
            tally.refused += (axes, signs) != RIGHT
            report(f"  {axes} {signs} refused: {error.message}")
            continue
        on_whole = [describe(finding) for finding in findings(result.report["warnings"])]
        told = any("orientation" in sentence for sentence in on_whole)
        truth = sitk.GetArrayFromImage(turned(known.truth, axes, signs))
        found = sitk.GetArrayFromImage(result.labels)
        wrong = [one.key for one in STRUCTURES if dice(found == one.label, truth == one.label) < _RIGHT_DICE]
        silent = [key for key in wrong if not on_whole and not result.report["structures"][key]["warnings"]]
        report(f"  {axes} {signs} {'told' if told else 'NOT TOLD'}: wrong {wrong}, silent {silent}")
        if (axes, signs) == RIGHT:
            tally.false_alarm = told
            continue
        tally.told += told
        tally.untold += not told
        tally.wrong += len(wrong)
        tally.silent += len(silent)
    return tally


def rendered(seed: int, modality: str, spacing: float) -> Known:
    """A heart from formulas in a body."""
    from mkd_core.synthesis import synthesize

    image, truth = synthesize(None, modality, seed, spacing, around_mm=45.0)
    return Known(f"rendered {modality} {seed}", modality, image, truth)


def real(name: str, modality: str) -> Known | None:
    """A real volume with what the segmentation finds the right way round, which other tests hold against references."""
    path = data_folder() / f"{name}.nii.gz"
    if not path.exists():
        return None
    image = sitk.ReadImage(str(path))
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1)
    return Known(
        f"real {modality}", modality, image, mkd_core.segment(image, modality=modality, options=options).labels
    )


def volumes(quick: bool) -> Iterator[Known]:
    """The volumes to turn."""
    if quick:
        yield rendered(300, "CT", 3.0)
        return
    for name, modality in (("ct_thorax/ct", "CT"), ("mr_cine_4d/phase_00", "MR")):
        known = real(name, modality)
        if known is not None:
            yield known
    for seed, modality in ((301, "CT"), (303, "CT"), (304, "MR")):
        yield rendered(seed, modality, 2.0)


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """One row for each real volume, or each rendered one where there are none, in a third of the orientations; ``main``
    tries all volumes in all orientations.
    """
    has_real = False
    for known in volumes(quick):
        has_real = has_real or known.name.startswith("real")
        if has_real and not known.name.startswith("real"):
            return
        orientations = QUICK if quick else THIRD
        tally = examine(known, orientations)
        notes = []
        if tally.silent > _MOST_SILENT * tally.wrong:
            notes.append(f"{tally.silent} of {tally.wrong} wrong structures without a warning")
        if tally.false_alarm:
            notes.append("the right orientation is doubted")
        yield Outcome(_GROUP, known.name, not notes, len(orientations), note="; ".join(notes))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m Testing.trust.orientations", description=__doc__)
    parser.add_argument("--volumes", nargs="+", help="only volumes whose name holds one of these words")
    parser.add_argument("--verbose", action="store_true", help="a line for each orientation")
    chosen = parser.parse_args()
    print(f"{'':<20}{'refused':>9}{'told':>7}{'not told':>10}{'wrong':>8}{'silent':>8}  right orientation")
    for known in volumes(quick=False):
        if chosen.volumes and not any(word in known.name for word in chosen.volumes):
            continue
        tally = examine(known, ORIENTATIONS, lambda line: print(line, flush=True) if chosen.verbose else None)
        print(
            f"{known.name:<20}{tally.refused:>9}{tally.told:>7}{tally.untold:>10}{tally.wrong:>8}{tally.silent:>8}"
            f"  {'doubted' if tally.false_alarm else 'not doubted'}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
