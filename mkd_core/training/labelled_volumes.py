"""Training patches cut from labelled volumes.

Every volume is brought to the training grid once, by the very functions that inference uses, and kept as plain ``.npy``
files, so that a run needs little memory however many volumes it has.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.evaluation.cases import Case, read_case
from mkd_core.inference.geometry import Grid, OrientedVolume, Spacing, enclosing_grid, steps_of
from mkd_core.inference.normalisation import normalise
from mkd_core.inference.resampling import sample
from mkd_core.io.atomic import write_file, write_text
from mkd_core.structures import IGNORE, STRUCTURES, Structure
from mkd_core.training.pairs import Patch


@dataclass(frozen=True)
class PreparedVolume:
    """A labelled volume on a training grid.

    Attributes:
        image: file of intensities in [-1, 1], ``(D, H, W)``, float16, axes to the head, the back and the left.
        labels: file of labels, ``(D, H, W)``, uint8.
        heart_low, heart_high: voxel index box of all labels, (z, y, x).
        labelled: which classes the labels know, background first.
    """

    image: Path
    labels: Path
    heart_low: tuple[int, int, int]
    heart_high: tuple[int, int, int]
    labelled: tuple[bool, ...]


def prepare_volume(
    case: Case,
    spacing: Spacing,
    rule: dict[str, Any],
    folder: Path,
    margin_mm: float,
    structures: Sequence[Structure] = STRUCTURES,
) -> PreparedVolume:
    """Bring a case to a regular grid and normalise it; done once, kept in ``folder``.

    Args:
        case: image and labels.
        spacing: of the grid.
        rule: intensity rule of the case's modality, see :func:`mkd_core.inference.normalisation.normalise`; percentiles
            are taken round the heart.
        folder: for the files.
        margin_mm: of the box round the heart that percentiles are taken of, as a bundle of the run will do, mm.
        structures: what the labels mean.

    Raises:
        InputError: the case cannot be read, or has no label at all.
    """
    stamp = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in (case.image, case.label)]
    known = [stamp, spacing, rule, margin_mm, [structure.key for structure in structures]]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]
    description = folder / f"{case.name}_{steps_of(spacing).min():g}mm_{key}.json"
    image_file, labels_file = (description.with_name(f"{description.stem}_{kind}.npy") for kind in ("image", "labels"))
    if not description.exists():
        folder.mkdir(parents=True, exist_ok=True)
        image, labels = read_case(case, structures)
        image_field = OrientedVolume(image)
        grid = enclosing_grid(image_field, spacing, 1)
        on_grid = _labels_on_grid(labels, grid, len(structures) + 1)
        heart = np.argwhere(on_grid)
        if not len(heart):
            raise InputError(f"“{case.label.name}” labels nothing.")
        low, high = heart.min(axis=0), heart.max(axis=0) + 1
        values = sample(image_field, grid)
        reach = np.rint(margin_mm / grid.steps).astype(int)
        near = values[tuple(slice(max(0, a - far), b + far) for a, b, far in zip(low, high, reach))]
        for path, array in (
            (image_file, normalise(values, rule, near).numpy().astype(np.float16)),
            (labels_file, on_grid),
        ):
            write_array(path, array)
        write_text(description, json.dumps({"low": low.tolist(), "high": high.tolist()}))
    box = json.loads(description.read_text(encoding="utf-8"))
    labelled = (True, *(case.labels(structure) for structure in structures))
    return PreparedVolume(image_file, labels_file, tuple(box["low"]), tuple(box["high"]), labelled)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file as a whole."""
    write_file(path, lambda draft: np.save(draft, array))


def _labels_on_grid(labels: sitk.Image, grid: Grid, class_count: int) -> np.ndarray:
    """Label with the largest share of every voxel of the grid."""
    result, largest = np.zeros(grid.size, np.uint8), np.zeros(grid.size, np.float32)
    for label in range(class_count):
        share = sample(OrientedVolume(labels == label), grid).numpy()
        result[share > largest] = label
        np.maximum(largest, share, out=largest)
    return result


class ArrayCache:
    """Arrays from files, the latest used kept in memory within a budget; the others are mapped and read as needed.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.held = 0
        self._arrays: OrderedDict[Path, np.ndarray] = OrderedDict()

    def get(self, path: Path) -> np.ndarray:
        """The array of a ``.npy`` file, read-only."""
        if path in self._arrays:
            self._arrays.move_to_end(path)
            return self._arrays[path]
        array = np.load(path, mmap_mode="r")
        if array.nbytes > self.budget:
            return array
        while self.held + array.nbytes > self.budget:
            self.held -= self._arrays.popitem(last=False)[1].nbytes
        self._arrays[path] = np.array(array)
        self.held += array.nbytes
        return self._arrays[path]


class LabelledVolumes:
    """Patches of labelled volumes of one modality.

    Args:
        volumes: on the training grid.
        size: voxels per side, or along (z, y, x).
        heart_fraction: share of the patches that are centred in the box of the labels; the others lie anywhere.
        budget: bytes of memory in which volumes may be kept.
        structure_fraction: share of the patches, before all others, that are centred on a voxel of a structure; every
            structure that the volume shows is as likely, as nnU-Net has it (Isensee et al., Nature Methods 18, 2021).
    """

    def __init__(
        self,
        volumes: Sequence[PreparedVolume],
        size: int | tuple[int, int, int],
        heart_fraction: float,
        budget: float,
        structure_fraction: float = 0.0,
    ) -> None:
        self._volumes = tuple(volumes)
        self._size = np.broadcast_to(np.asarray(size, int), (3,))
        self._heart_share = heart_fraction
        self._structure_share = structure_fraction
        self._cache = ArrayCache(budget)

    def draw(self, rng: np.random.Generator) -> Patch:
        """A patch; its target is :data:`IGNORE` outside the volume."""
        volume = self._volumes[rng.integers(len(self._volumes))]
        image, labels = self._cache.get(volume.image), self._cache.get(volume.labels)
        low, high = np.array(volume.heart_low), np.array(volume.heart_high)
        if self._structure_share and rng.random() < self._structure_share:
            present = np.setdiff1d(np.flatnonzero(np.bincount(labels.ravel())), (0, IGNORE))
            voxels = np.flatnonzero(labels == rng.choice(present))
            centre = np.array(np.unravel_index(voxels[rng.integers(len(voxels))], labels.shape)) + 0.5
        elif rng.random() < self._heart_share:
            centre = low + (high - low) * rng.beta(2, 2, 3)
        else:
            centre = rng.uniform(0, image.shape)
        first = np.round(centre - self._size / 2).astype(int)
        wanted = [start + np.arange(count) for start, count in zip(first, self._size)]
        index = np.ix_(*[np.clip(positions, 0, length - 1) for positions, length in zip(wanted, image.shape)])
        target = np.array(labels[index])
        for axis, (positions, length) in enumerate(zip(wanted, image.shape)):
            outside = (positions < 0) | (positions >= length)
            target[(slice(None),) * axis + (outside,)] = IGNORE
        return Patch(image[index].astype(np.float32)[None], target, np.array(volume.labelled))
