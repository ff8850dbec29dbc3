"""People of the scarce-labels benchmark: hearts that differ, scanned as CT or as MR.

Hearts are tissue maps of a folder, or drawn by :mod:`mkd_core.synthesis.anatomy` with more spread than usual, so that
everyone can repeat the benchmark.  One number is one person, whatever the modality; who is labelled, who assists and
who validates or tests are different people.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.evaluation.cases import Case
from mkd_core.io.volumes import write_volume
from mkd_core.synthesis import appearance, body, render
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.appearance import BLOOD, Appearance
from mkd_core.synthesis.tissues import TARGET_OF, Tissue

#: Numbers of the people by purpose, first and last.  In the cohort the last group has vessels of other variants.
GROUPS = {"labelled": (1, 100), "assistant": (101, 200), "validation": (201, 208), "test": (209, 240)}

#: Voxel size of the tissue maps, and of the volumes, mm.
_TISSUE_MM, _VOLUME_MM = 1.5, 2.0

#: Body shown around the heart, mm.
_AROUND_MM = 20.0

#: Hearts drawn from formulas: seed of person 0, far from those of training, and how much more they differ than usual.
_FIRST_SEED, _SPREAD = 60000, 2.0


@dataclass(frozen=True)
class Cohort:
    """Where hearts come from.

    Attributes:
        hearts: folder of tissue maps ``NAME_NUMBER.nii.gz``; None draws them from formulas.
    """

    hearts: Path | None = None

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return "drawn" if self.hearts is None else self.hearts.name

    def heart(self, number: int) -> sitk.Image:
        """Tissue map of a person, isotropic, uint8.

        Raises:
            InputError: the folder has no such heart.
        """
        if self.hearts is None:
            return make_heart(_FIRST_SEED + number, _TISSUE_MM, _SPREAD)
        found = [path for path in self.hearts.glob("*.nii.gz") if _number_of(path) == number]
        if len(found) != 1:
            raise InputError(
                f"The folder “{self.hearts}” holds no tissue map NAME_{number:04d}.nii.gz, or several of this number."
            )
        return _coarsened(sitk.ReadImage(str(found[0])), _TISSUE_MM)

    def drawn(self, group: str, count: int, draw: int = 0) -> list[int]:
        """Numbers of ``count`` people of a group.  Those who are labelled are drawn at random, anew for each ``draw``,
        so that fewer of a draw are the first of more; of the other groups they are the first ones.
        """
        first, last = GROUPS[group]
        people = np.arange(first, last + 1)
        if group == "labelled":
            people = np.random.default_rng((7, draw)).permutation(people)
        return [int(number) for number in people[:count]]


def _number_of(path: Path) -> int:
    digits = path.name.split(".")[0].split("_")[-1]
    return int(digits) if digits.isdecimal() else -1


def _coarsened(heart: sitk.Image, spacing: float) -> sitk.Image:
    size = [int(count * own / spacing) for count, own in zip(heart.GetSize(), heart.GetSpacing())]
    origin = [first + 0.5 * (spacing - own) for first, own in zip(heart.GetOrigin(), heart.GetSpacing())]
    return sitk.Resample(
        heart,
        size,
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        origin,
        [spacing] * 3,
        heart.GetDirection(),
        0,
        sitk.sitkUInt8,
    )


def scans(cohort: Cohort, numbers: list[int], modality: str, folder: Path) -> list[Case]:
    """Scans of people with their truth; those that are there are kept.

    Args:
        cohort: whose.
        numbers: of the people.
        modality: "CT" or "MR".
        folder: for the files.
    """
    folder = folder / cohort.name
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in numbers:
        name = f"{modality}_{number:04d}"
        cases.append(Case(name, folder / f"{name}_image.nrrd", folder / f"{name}_label.nrrd", modality))
    for number, case in zip(numbers, cases):
        if not case.label.exists():
            _make(cohort, number, case)
    return cases


def _make(cohort: Cohort, number: int, case: Case) -> None:
    image, truth = render_person(cohort, number, case.modality)
    write_volume(image, case.image)
    write_volume(truth, case.label)  # last: it says that the case is complete


def render_person(cohort: Cohort, number: int, modality: str) -> tuple[sitk.Image, sitk.Image]:
    """A volume and its truth (labels 0 to 7), LPS."""
    heart = cohort.heart(number)
    tissues = render.body_canvas(heart, number, body.chest_extent(heart, _AROUND_MM))
    canvas = render.Canvas.from_array(sitk.GetArrayFromImage(tissues), _TISSUE_MM)
    rng = np.random.default_rng((number, {"CT": 0, "MR": 1}[modality]))
    axes = [np.arange(int(count * _TISSUE_MM / _VOLUME_MM)) * _VOLUME_MM for count in canvas.tissues.shape]
    values, at = render.render_grid(canvas, _protocol_look(modality, rng), rng, axes, _VOLUME_MM, np.zeros(3))
    scale = 500.0 if modality == "MR" else 1.0
    volumes = []
    for array in (np.clip(np.rint(values * scale), -1024, 3071).astype(np.int16), TARGET_OF[at]):
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing([_VOLUME_MM] * 3)
        volumes.append(volume)
    return volumes[0], volumes[1]


def _protocol_look(modality: str, rng: np.random.Generator) -> Appearance:
    """Appearance of a scan of one hospital's protocol: CT angiography with the right heart weaker; or MR whose blood is
    darker than muscle, as spin echo sequences with suppressed blood have it, so that nothing learnt from its grey
    values holds for CT.
    """
    while True:
        look = appearance.draw(modality, rng)
        left, right = (float(look.mean[t]) for t in (Tissue.LV, Tissue.RV))
        if modality == "CT":
            fits = 280 < left < 520 and 0.3 < right / left < 0.9 and not look.streaks and look.noise < 50
        else:
            fits = 0.75 < left < 1.25 and 0.75 < right < 1.25 and look.noise < 0.08 and look.bias < 0.3
        if fits and look.slice_mm < 2.5:
            break
    if modality == "MR":
        muscle = rng.uniform(0.75, 1.0)
        for tissue in BLOOD:
            look.mean[tissue] *= 0.38
        for tissue in (Tissue.MYOCARDIUM, Tissue.PAPILLARY_MUSCLE, Tissue.RV_WALL, Tissue.LA_WALL, Tissue.RA_WALL):
            look.mean[tissue] = muscle + rng.normal(0, 0.04)
        for tissue in (Tissue.AORTIC_WALL, Tissue.PULMONARY_ARTERY_WALL):
            look.mean[tissue] = muscle + rng.normal(0, 0.08)
        for tissue in (Tissue.FAT, Tissue.MEDIASTINAL_FAT):
            look.mean[tissue] = rng.uniform(1.1, 1.5)
    return look


def coverage(cohort: Cohort, labelled: int, tested: int, draws: int, spacing: float = 4.0) -> float:
    """How well a few people cover the others: the Dice of all structures between a test heart and the nearest of
    ``labelled`` ones, whose boxes are laid over each other, mean over test hearts and draws.

    A high value says that few labels suffice, and so that nothing can be shown on these hearts.
    """
    from mkd_core.method.ensemble import joint_agreement

    known: dict[int, np.ndarray] = {}

    def structures(number: int) -> np.ndarray:
        if number not in known:
            labels = TARGET_OF[sitk.GetArrayFromImage(cohort.heart(number))]
            known[number] = _fitted(labels, spacing / _TISSUE_MM)
        return known[number]

    values = [
        max(
            joint_agreement(structures(person), structures(other)) for other in cohort.drawn("labelled", labelled, draw)
        )
        for draw in range(draws)
        for person in cohort.drawn("test", tested)
    ]
    return float(np.mean(values))


def _fitted(labels: np.ndarray, step: float) -> np.ndarray:
    """Labels on a grid of 48 voxels a side centred on the heart's box, every ``step`` voxels."""
    inside = np.argwhere(labels)
    centre = (inside.min(axis=0) + inside.max(axis=0)) / 2
    index = [np.rint(middle + (np.arange(48) - 23.5) * step).astype(int) for middle in centre]
    cut = labels[np.ix_(*[np.clip(places, 0, size - 1) for places, size in zip(index, labels.shape)])]
    for axis, (places, size) in enumerate(zip(index, labels.shape)):
        cut[(slice(None),) * axis + ((places < 0) | (places >= size),)] = 0
    return cut


def main(arguments: list[str] | None = None) -> None:
    """Print the coverage of a folder of hearts, or of those drawn from formulas."""
    parser = argparse.ArgumentParser(prog="python -m mkd_core.training.experiments.people", description=main.__doc__)
    parser.add_argument("hearts", nargs="?", type=Path, help="folder of tissue maps (default: drawn from formulas)")
    parser.add_argument("--labelled", type=int, default=4, help="people who cover the others (default: %(default)s)")
    parser.add_argument("--tested", type=int, default=12, help="people to cover (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="of the labelled (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    cohort = Cohort(chosen.hearts)
    covered = coverage(cohort, chosen.labelled, chosen.tested, chosen.draws)
    print(f"{cohort.name}: the nearest of {chosen.labelled} hearts covers a test heart with a Dice of {covered:.3f}")


if __name__ == "__main__":
    main()
