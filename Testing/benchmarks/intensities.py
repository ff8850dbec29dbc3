"""How blood and muscle look in real scans, and in the rendered patches that networks are trained on.

    python -m Testing.benchmarks.intensities [--data FOLDER] [--patches 120] [--scans 12] [--out FOLDER]

Real scans have outlines by experts or by a tool, of a few structures each; of every kind at most so many are read.  All
images are brought to the networks' grid and range first.  Of every structure the median and the spread (half the range
from the 16th to the 84th percentile) inside its outline are taken, one voxel off its border, and the median's distance
from muscle's.  Printed is where the real scans lie, where 90 % of the rendered patches lie, and which share of the real
scans that is.  What lies outside is what the renderer does not draw.  ``FOLDER`` is the data folder (environment
variable MKD_DATA, else ../shared/data beside the checkout).  Writes ``intensities.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from mkd_core.inference.geometry import OrientedVolume, box_grid
from mkd_core.inference.normalisation import normalise
from mkd_core.inference.resampling import sample
from mkd_core.io.atomic import write_text
from mkd_core.structures import STRUCTURES
from mkd_core.synthesis import render
from mkd_core.training.config import DataConfig
from mkd_core.training.rendered_hearts import training_hearts
from Testing.benchmarks.accuracy import data_folder

#: The default weights' grid, mm, a side of the patches that train them, and of real images round what is outlined, mm.
_SPACING, _PATCH, _MARGIN_MM = 2.0, 80, 40.0

#: Sides of the largest piece of a real scan that is looked at, mm.
_LARGEST_MM = (400.0, 400.0, 400.0)

#: Fewest voxels of a structure, off its border, that are measured.
_FEWEST = 60

#: Hearts that patches are rendered from.
_HEARTS = 8

_SEED = 930000

#: Kinds of real scans: images, what their outlines are called in place of "_image", and the structure by their value.
_KINDS: dict[str, tuple[str, str, str, str, dict[int, str]]] = {
    "CT with contrast agent, vessels": ("CT", "chest_ct", "contrast.nii.gz", "contrast_parts.nii.gz", {2: "AA"}),
    "CT with contrast agent, dissection": ("CT", "ct_thorax", "ct.nii.gz", "pulmonary_artery.nii.gz", {1: "PA"}),
    "cine MR, short axis": ("MR", "cine_lge/cine", "*_image.nii.gz", "*_label.nii.gz", {1: "LV", 2: "RV", 5: "Myo"}),
    "late enhancement, short axis": ("MR", "cine_lge/lge", "*_image.nii.gz", "*_label.nii.gz", {1: "LV", 5: "Myo"}),
    "late enhancement, atria": ("MR", "mr_left_atrium", "*_image.nii.gz", "*_left_atrium.nii.gz", {1: "LA"}),
}

#: What is taken of a structure.
_FIGURES = ("median", "spread", "above muscle")


@dataclass(frozen=True)
class Look:
    """Median and spread of a structure in an image, in the networks' range -1 to 1, by its key."""

    of: dict[str, tuple[float, float]]

    def figure(self, key: str, name: str) -> float | None:
        """One of ``_FIGURES`` of a structure; None where it is not known."""
        if key not in self.of or (name == "above muscle" and "Myo" not in self.of):
            return None
        median, spread = self.of[key]
        return {"median": median, "spread": spread}.get(name, median - self.of.get("Myo", (0.0, 0.0))[0])


def look(image: np.ndarray, labels: np.ndarray, keys: dict[int, str]) -> Look:
    """Measure an image.

    Args:
        image: in the networks' range, ``(D, H, W)``.
        labels: of the same shape.
        keys: of the structures, by label.
    """
    found = {}
    for label, key in keys.items():
        inside = ndimage.binary_erosion(labels == label)
        if np.count_nonzero(inside) >= _FEWEST:
            low, middle, high = np.percentile(image[inside], (16, 50, 84))
            found[key] = float(middle), float(high - low) / 2
    return Look(found)


def real_looks(kind: str, folder: Path, most: int) -> Iterator[Look]:
    """Measure the real scans of a kind, at most so many, spread evenly over the folder."""
    modality, place, images, outlines, keys = _KINDS[kind]
    paths = sorted((folder / place).glob(images))
    for path in paths[:: max(1, -(-len(paths) // most))]:
        name = path.name.removesuffix(images.lstrip("*")) if "*" in images else ""
        outline = sitk.ReadImage(str(path.with_name(outlines.replace("*", name))))
        volume = OrientedVolume(sitk.ReadImage(str(path)))
        outline.CopyInformation(volume.image)
        labels = OrientedVolume(outline)
        where = np.argwhere(np.isin(labels.voxels, list(keys))) * volume.spacing
        low, high = where.min(axis=0) - _MARGIN_MM, where.max(axis=0) + _MARGIN_MM
        grid, _ = box_grid(volume, low, high, _SPACING, 1, _LARGEST_MM)
        seen = normalise(sample(volume, grid), DataConfig().normalisation()[modality]).numpy()
        at = [
            np.clip(np.rint((start + step * np.arange(count)) / width), 0, many - 1).astype(int)
            for start, step, count, width, many in zip(
                grid.start, grid.steps, grid.size, volume.spacing, labels.voxels.shape
            )
        ]
        yield look(seen, labels.voxels[np.ix_(*at)], keys)


def rendered_looks(modality: str, folder: Path, patches: int) -> Iterator[Look]:
    """Measure rendered patches, as training draws them."""
    hearts = training_hearts(folder / "hearts", DataConfig.last_heart)
    keys = {structure.label: structure.key for structure in STRUCTURES}
    chosen: Sequence[Path | None] = hearts[:: max(1, len(hearts) // _HEARTS)][:_HEARTS] or [None]
    rule = DataConfig().normalisation()[modality]
    for number, path in enumerate(chosen):
        heart = None if path is None else sitk.ReadImage(str(path))
        canvas, _ = render.canvas_around(heart, _SEED + number, 60.0)
        rng = np.random.default_rng(_SEED + number)
        for _ in range(-(-patches // len(chosen))):
            image, labels = render.random_patch(canvas, modality, rng, _PATCH, _SPACING, heart_bias=1.0)
            yield look(normalise(torch.from_numpy(image), rule).numpy(), labels, keys)


def compare(real: Sequence[Look], rendered: Sequence[Look], keys: Sequence[str]) -> list[dict]:
    """One entry for each structure and figure that real scans have: their range, that of 90 % of the rendered ones, and
    the share of the real scans inside the latter.
    """
    rows = []
    for key in keys:
        for name in _FIGURES:
            if name == "above muscle" and key == "Myo":
                continue
            values, drawn = (
                np.array([value for one in looks if (value := one.figure(key, name)) is not None])
                for looks in (real, rendered)
            )
            if not len(values) or not len(drawn):
                continue
            low, high = np.percentile(drawn, (5, 95))
            rows.append(
                {
                    "structure": key,
                    "figure": name,
                    "scans": len(values),
                    "real": [round(float(value), 2) for value in (values.min(), np.median(values), values.max())],
                    "rendered": [round(float(value), 2) for value in (low, np.median(drawn), high)],
                    "inside": round(float(((values >= low) & (values <= high)).mean()), 2),
                }
            )
    return rows


def table(figures: dict) -> list[str]:
    """The figures as lines of Markdown."""

    def words(values: Sequence[float], figure: str) -> str:
        return " ".join(f"{value:.2f}" if figure == "spread" else f"{value:+.2f}" for value in dict.fromkeys(values))

    lines = ["| scans | structure | what | real | rendered | inside |", "| --- | --- | --- | --- | --- | --- |"]
    for kind, rows in figures["kinds"].items():
        for row in rows:
            ends = " | ".join(words(row[side], row["figure"]) for side in ("real", "rendered"))
            share = f"{row['inside']:.0%} of {row['scans']}"
            lines.append(f"| {kind} | {row['structure']} | {row['figure']} | {ends} | {share} |")
    return lines


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> dict:
    """Measure, print, write; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--patches", type=int, default=120, help="rendered patches of either modality")
    parser.add_argument("--scans", type=int, default=12, help="most real scans of a kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args(arguments)
    rendered = {modality: list(rendered_looks(modality, options.data, options.patches)) for modality in ("CT", "MR")}
    figures = {"patches": options.patches, "kinds": {}}
    for kind, (modality, *_, keys) in _KINDS.items():
        real = list(real_looks(kind, options.data, options.scans))
        figures["kinds"][kind] = compare(real, rendered[modality], list(dict.fromkeys(keys.values())))
    say("\n".join(table(figures)))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "intensities.json", json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
