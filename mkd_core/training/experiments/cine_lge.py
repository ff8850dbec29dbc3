"""Real scans: late-enhancement MR with few labels, cine MR of other people with many; or the other way round.

    mkd experiment cine-lge --data FOLDER --out runs/cine-lge

``FOLDER`` holds ``cine`` and ``lge``, each with ``NAME_image.nii.gz`` and ``NAME_label.nii.gz`` whose labels are 1
(left ventricle) and 5 (myocardium); all others count as background.  One anatomy, two appearances: settings know two
names of modalities, so that the kind that is segmented takes the place of MR and the other one that of CT.

The stacks are cropped round the left ventricle already, so that all of a stack is segmented, and every slice is brought
to the same brightness.  Both kinds have to show the heart the same way up; where the files do not, and their headers do
not say so, ``--lge-axes`` turns them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.evaluation.cases import Case
from mkd_core.io.volumes import read_volume, write_volume
from mkd_core.training.config import DataConfig, NetworksConfig, Stage
from mkd_core.training.experiments.runs import QUICK, SMALL_NETWORKS, TINY_NETWORKS, Kind, Scale

#: Values in the files, in the order of the structures.
_VALUES = {"LV": 1, "Myo": 5}

#: People of the kind that is segmented who test and who validate; the others may be labelled.
_TESTED, _VALIDATING = 40, 8

#: More than a stack has on any side of its heart, mm.
_WHOLE_STACK_MM = 300.0

#: Of the intensities of a slice, percent.
_SLICE_PERCENTILES = (1.0, 99.5)

#: Axes as they are stored.
AS_STORED = "xyz"

_OTHER: dict[str, Literal["cine", "lge"]] = {"lge": "cine", "cine": "lge"}


@dataclass(frozen=True)
class CineLge:
    """The benchmark.

    Attributes:
        folder: of the scans.
        kind: that is segmented.
        lge_axes: which axes of the late-enhancement files become x, y and z; capital letters are taken backwards.  The
            headers of these files do not count then.

    Raises:
        InputError: these are no axes.
    """

    folder: Path
    kind: Literal["cine", "lge"] = "lge"
    lge_axes: str = AS_STORED
    target: Literal["MR"] = "MR"
    margin_mm: float = _WHOLE_STACK_MM

    def __post_init__(self) -> None:
        if sorted(self.lge_axes.lower()) != sorted(AS_STORED):
            raise InputError(f"“{self.lge_axes}” does not name x, y and z once each, such as xyz or YXZ.")

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"cine-lge-{self.kind}" + (f"-{self.lge_axes}" if self.lge_axes != AS_STORED else "")

    @property
    def data(self) -> DataConfig:
        """Settings of the data."""
        return DataConfig(structures=tuple(_VALUES))

    @property
    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Both kinds are MR, and normalised as such."""
        rule = self.data.normalisation()["MR"]
        return {"CT": rule, "MR": rule}

    def cases(self, kind: Kind, count: int, pair: int, folder: Path) -> list[Case]:
        """See :class:`mkd_core.training.experiments.runs.Benchmark`; an oracle is not to be had.

        Raises:
            InputError: there are not so many scans.
        """
        if kind == "assistant":
            people, modality = self._people(_OTHER[self.kind]), "CT"
            people = people[: len(people) // 2]  # the others test in the other direction
        else:
            modality = self.target
            people = self._people(self.kind)[::-1]
            starts = {"test": 0, "validation": _TESTED, "labelled": _TESTED + _VALIDATING}
            ends = {"test": _TESTED, "validation": _TESTED + _VALIDATING, "labelled": len(people)}
            people = people[starts[kind] : ends[kind]]
            if kind == "labelled":
                people = [people[place] for place in np.random.default_rng((7, pair)).permutation(len(people))]
        if count > len(people):
            raise InputError(f"“{self.folder}” has {len(people)} scans for “{kind}”, not {count}.")
        return [self._case(image, modality, folder / "cine-lge") for image in people[:count]]

    def _people(self, kind: str) -> list[Path]:
        """Images of a kind, in an order that is not the files'."""
        images = sorted((self.folder / kind).glob("*_image.nii.gz"))
        if not images:
            raise InputError(f"There are no scans NAME_image.nii.gz in “{self.folder / kind}”.")
        return [images[place] for place in np.random.default_rng(5).permutation(len(images))]

    def _case(self, image: Path, modality: str, folder: Path) -> Case:
        """The case of an image; its files are written to ``folder``."""
        name = image.name.removesuffix("_image.nii.gz")
        axes = self.lge_axes if image.parent.name == "lge" else AS_STORED
        seen, label = (folder / f"{name}_{axes}_{kind}.nii.gz" for kind in ("image", "label"))
        if not label.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_volume(_turned(_each_slice_as_bright(read_volume(image)), axes), seen)
            write_volume(_turned(_ours(read_volume(image.with_name(f"{name}_label.nii.gz"))), axes), label)
        return Case(name, seen, label, modality)


def _each_slice_as_bright(stack: sitk.Image) -> sitk.Image:
    """The stack with the percentiles of :data:`_SLICE_PERCENTILES` of every slice at 0 and 1, float32: slices that were
    acquired one by one are stored with a contrast of their own each.
    """
    voxels = sitk.GetArrayFromImage(stack).astype(np.float32)
    low, high = np.percentile(voxels, _SLICE_PERCENTILES, axis=(1, 2), keepdims=True)
    written = sitk.GetImageFromArray((voxels - low) / np.maximum(high - low, 1e-6))
    written.CopyInformation(stack)
    return written


def _ours(known: sitk.Image) -> sitk.Image:
    """Labels of the structures, by their order."""
    voxels = sitk.GetArrayViewFromImage(known)
    labels = np.zeros(voxels.shape, np.uint8)
    for number, value in enumerate(_VALUES.values(), start=1):
        labels[voxels == value] = number
    written = sitk.GetImageFromArray(labels)
    written.CopyInformation(known)
    return written


def _turned(stack: sitk.Image, axes: str) -> sitk.Image:
    """The stack with other axes, see :class:`CineLge`."""
    if axes == AS_STORED:
        return stack
    stack = sitk.PermuteAxes(stack, [AS_STORED.index(axis) for axis in axes.lower()])
    stack = sitk.Flip(stack, [axis.isupper() for axis in axes])
    stack.SetOrigin((0.0, 0.0, 0.0))
    stack.SetDirection(np.eye(3).ravel().tolist())
    return stack


SCALES = {
    "tiny": Scale(
        Stage(2, (6.0, 6.0, 10.0), (16, 16, 8), 2),
        TINY_NETWORKS,
        labelled=(2,),
        assistants=2,
        fewer_assistants=(1,),
        validating=1,
        tested=2,
        pairs=(1, 1),
        curve=1,
    ),
    "small": Scale(
        Stage(1000, (2.8, 2.8, 10.0), (64, 64, 8), 2),
        SMALL_NETWORKS,
        QUICK,
        labelled=(2, 5, 10, 20),
        assistants=50,
        tested=_TESTED,
        validating=_VALIDATING,
    ),
    "full": Scale(
        Stage(20000, (1.4, 1.4, 10.0), (128, 128, 8), 2),
        NetworksConfig(),
        labelled=(2, 5, 10, 20),
        assistants=50,
        tested=_TESTED,
        validating=_VALIDATING,
    ),
}
