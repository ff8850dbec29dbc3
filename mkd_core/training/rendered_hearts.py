"""Training patches rendered from heart tissue maps.

Bodies are painted once per heart and cached as plain ``.npy`` files, which workers map into memory; appearance and
geometry are drawn anew for every patch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from mkd_core.inference import normalisation as normalisation_rule
from mkd_core.io.atomic import write_text
from mkd_core.structures import STRUCTURES, Structure
from mkd_core.synthesis import body, findings, render
from mkd_core.synthesis.heartbeat import contracted
from mkd_core.synthesis.render import Canvas
from mkd_core.training.labelled_volumes import write_array
from mkd_core.training.pairs import Patch


def normalise(image: np.ndarray, rule: dict, measured: np.ndarray | None = None) -> np.ndarray:
    """Bring an array to [-1, 1] just as inference does, see :func:`mkd_core.inference.normalisation.normalise`.

    Args:
        image: any shape, HU for CT.
        rule: intensity rule of its modality.
        measured: values that percentiles are taken of; by default all of ``image``.
    """
    counted = None if measured is None else torch.from_numpy(measured)
    return normalisation_rule.normalise(torch.from_numpy(image), rule, counted).numpy()


def training_hearts(folder: Path, last: int) -> list[Path]:
    """Tissue maps ``NAME_NUMBER.nii.gz`` in a folder, in order, those numbered above ``last`` left out: they are for
    tests.
    """
    return [path for path in sorted(folder.glob("*.nii.gz")) if int(path.name.split(".")[0].split("_")[-1]) <= last]


def prepare_canvases(hearts: Sequence[Path], cache: Path, bodies: int = 1) -> list[Path]:
    """Paint bodies round hearts and cache them; finished ones are kept.

    Args:
        hearts: tissue maps of hearts, at end-diastole.
        cache: folder for ``NAME_bB.npy`` (chest, the heart's own voxel size) and ``NAME_bB_torso.npy`` (3 mm).
        bodies: different bodies per heart.  The first is of a patient without findings; in the others the heart is
            anywhere in its beat, and there may be calcium, a pacemaker's lead or an effusion.

    Returns:
        Description files (``.json``) of the canvases, one per heart and body.
    """
    cache.mkdir(parents=True, exist_ok=True)
    described = []
    for path in hearts:
        for number in range(bodies):
            name = f"{path.name.split('.')[0]}_b{number}"
            description = cache / f"{name}.json"
            described.append(description)
            stamp = [path.stat().st_size, path.stat().st_mtime_ns]
            if description.exists() and json.loads(description.read_text(encoding="utf-8")).get("heart") == stamp:
                continue
            heart = sitk.ReadImage(str(path))
            seed = int.from_bytes(name.encode()[-8:], "little") % (2**31)
            chest = _canvas(render.body_canvas(heart, seed, body.chest_extent(heart)))
            torso = _canvas(body.surround(heart, seed, 3.0, body.torso_extent(heart)))
            if number:
                chest, torso = with_findings(chest, seed), with_findings(torso, seed)
            render.mark_vein_stubs(chest.tissues, chest.spacing)
            canvases = {"chest": Canvas.from_array(chest.tissues, chest.spacing), "torso": torso}
            for kind, canvas in canvases.items():
                write_array(cache / f"{name}_{kind}.npy", canvas.tissues)
            entry: dict[str, Any] = {
                kind: {
                    "spacing": canvas.spacing,
                    "low": [int(v) for v in canvas.heart_low],
                    "high": [int(v) for v in canvas.heart_high],
                }
                for kind, canvas in canvases.items()
            }
            write_text(description, json.dumps(entry | {"heart": stamp}))
    return described


def _canvas(image: sitk.Image) -> Canvas:
    return Canvas.from_array(sitk.GetArrayFromImage(image), image.GetSpacing()[0])


def with_findings(canvas: Canvas, seed: int) -> Canvas:
    """A canvas at a drawn moment of the beat, at times with calcium, a pacemaker's lead or an effusion."""
    rng = np.random.default_rng(seed)
    canvas = contracted(canvas, rng.uniform(0.0, 1.0))
    if rng.random() < 0.4:
        findings.paint_calcium(canvas.tissues, canvas.spacing, rng)
    if rng.random() < 0.15:
        findings.paint_lead(canvas.tissues, canvas.spacing, rng)
    if rng.random() < 0.25:
        findings.paint_effusion(canvas.tissues, canvas.spacing, rng)
    return canvas


def open_canvas(description: Path, kind: str = "chest") -> Canvas:
    """Map a cached canvas into memory; ``kind`` is ``"chest"`` or ``"torso"``."""
    entry = json.loads(description.read_text(encoding="utf-8"))[kind]
    tissues = np.load(description.with_name(f"{description.stem}_{kind}.npy"), mmap_mode="r")
    return Canvas(tissues, entry["spacing"], tuple(entry["low"]), tuple(entry["high"]))


@dataclass(frozen=True)
class RenderedHearts:
    """Patches of one modality rendered from hearts in bodies; appearance and geometry are drawn anew for every patch.

    Attributes:
        canvases: descriptions, see :func:`prepare_canvases`.
        modality: "CT" or "MR".
        size: voxels per side.
        spacing: mm.
        rule: intensity rule of the modality, see :func:`mkd_core.inference.normalisation.normalise`.
        heart_fraction: share of patches centred in the heart.
        structures: of the targets, with their labels.
    """

    canvases: tuple[Path, ...]
    modality: str
    size: int
    spacing: float
    rule: dict
    heart_fraction: float = 0.85
    structures: tuple[Structure, ...] = STRUCTURES

    def draw(self, rng: np.random.Generator) -> Patch:
        """A patch; its target has :data:`mkd_core.structures.IGNORE`, and knows all classes."""
        canvas = open_canvas(self.canvases[rng.integers(len(self.canvases))])
        image, target = render.random_patch(
            canvas,
            self.modality,
            rng,
            self.size,
            self.spacing,
            self.heart_fraction,
            structures=self.structures,
        )
        return Patch(normalise(image, self.rule)[None], target, np.ones(len(self.structures) + 1, bool))
