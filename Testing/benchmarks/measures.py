"""How exact are diameters, wall thickness and volumes?  Rendered hearts, against truth by another way.

    python -m Testing.benchmarks.measures [--hearts 20] [--data FOLDER] [--out FOLDER]

Twenty hearts that trained nothing: the ten validation hearts of the data folder (numbers 191 to 200) and ten drawn from
formulas with seeds of their own; without the data folder all are drawn.  Truth comes from their label maps at 1 mm and
shares no code with what is measured:

- diameter: the smallest of the areas of 400 plane sections through the innermost point of the vessel, at several
  distances from the valve, the median of them;
- thickness: rays from the inner surface of the wall, along its normal, to the outer one;
- volumes: voxels counted.

Measured are (1) the same hearts on an oblique grid of 1.3 x 1.3 x 2 mm, which shows the error of measuring, and (2)
what the default weights make of a CT rendered of them at 1.5 mm, which shows the error of everything.  Prints median
and worst error of each figure beside what is aimed at, and writes ``measures.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import mkd_core
from mkd_core.errors import MKDError
from mkd_core.io.atomic import write_text
from mkd_core.measure.clinical_figures import HeartGeometry, measure_geometry
from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.heart_page import affine_of
from mkd_core.measure.vessel_diameter import VesselDiameter
from mkd_core.measure.wall_thickness import WallThickness
from mkd_core.structures import BY_KEY, STRUCTURES
from mkd_core.synthesis import synthesize
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.tissues import TARGET_OF
from Testing.benchmarks.accuracy import data_folder

#: Aims: largest median error, in the unit of the figure.
AIMS = {"AA_diameter": 1.5, "PA_diameter": 1.5, "wall_mean": 1.0, "wall_largest": 1.0, "volumes": 5.0}
_UNITS = {"volumes": "%"}

#: Distances from the valve, mm, at which the truth of a diameter is looked for; of the aorta as shares of its length.
_AORTA_SHARES, _TRUNK_MM = (0.5, 0.55, 0.6), (12.0, 16.0, 20.0)
_DIRECTIONS = 400
_FIRST_SEED = 910_000


def hearts(count: int, data: Path) -> list[tuple[str, sitk.Image]]:
    """Tissue maps at 1 mm with their names."""
    files = [data / "hearts" / f"heart_{number:04}.nii.gz" for number in range(191, 201)]
    found = [(path.name.split(".")[0], path) for path in files if path.is_file()][: (count + 1) // 2]
    drawn = [(f"drawn_{_FIRST_SEED + n}", n) for n in range(count - len(found))]
    return [(name, sitk.ReadImage(str(path))) for name, path in found] + [
        (name, make_heart(_FIRST_SEED + n, 1.0)) for name, n in drawn
    ]


# ---- truth ----


def true_diameter(labels: np.ndarray, key: str) -> float:
    """Diameter in mm of a vessel in a label map of 1 mm."""
    vessel = labels == BY_KEY[key].label
    ventricle = labels == BY_KEY["LV" if key == "AA" else "RV"].label
    valve = np.argwhere(vessel & ndimage.binary_dilation(ventricle, iterations=3)).mean(axis=0)
    depth = ndimage.distance_transform_edt(vessel)
    voxels = np.argwhere(vessel)
    away = np.linalg.norm(voxels - valve, axis=1)
    distances = _TRUNK_MM if key == "PA" else [share * np.quantile(away, 0.99) for share in _AORTA_SHARES]
    found = []
    for distance in distances:
        shell = voxels[np.abs(away - distance) < 1.0]
        found.append(_smallest_section(vessel, shell[depth[tuple(shell.T)].argmax()]))
    return 2.0 * float(np.sqrt(np.median(found) / np.pi))


def _smallest_section(mask: np.ndarray, centre: np.ndarray) -> float:
    """Smallest area in mm² of all plane sections through a point."""
    smooth = mask.astype(np.float32)
    steps = np.arange(-40.0, 41.0)
    u, v = np.meshgrid(steps, steps, indexing="ij")
    areas = []
    for n in range(_DIRECTIONS):  # evenly over half a sphere
        height = (n + 0.5) / _DIRECTIONS
        turn = n * np.pi * (3.0 - np.sqrt(5.0))
        normal = np.array([height, *(np.sqrt(1.0 - height**2) * np.array([np.cos(turn), np.sin(turn)]))])
        across = np.linalg.svd(normal[None])[2][1:]
        points = centre[:, None] + across.T @ np.stack([u.ravel(), v.ravel()])
        cut, _ = ndimage.label(ndimage.map_coordinates(smooth, points, order=1).reshape(u.shape) >= 0.5)
        areas.append(np.count_nonzero(cut == cut[40, 40]))
    return float(min(areas))


def true_thickness(labels: np.ndarray) -> tuple[float, float]:
    """Mean and 98th percentile in mm of the thickness of the wall in a label map of 1 mm."""
    cavity, muscle = (labels == BY_KEY[key].label for key in ("LV", "Myo"))
    inner, outer = (ndimage.gaussian_filter(part.astype(np.float32), 1.0) for part in (cavity, cavity | muscle))
    valves = np.isin(labels, [BY_KEY["LA"].label, BY_KEY["AA"].label])
    valve = ndimage.distance_transform_edt(~(valves & ndimage.binary_dilation(cavity, iterations=3)))
    start = np.argwhere(muscle & ndimage.binary_dilation(cavity) & (valve > 10.0)).astype(float)
    slopes = [ndimage.map_coordinates(one, start.T, order=1) for one in np.gradient(inner)]
    normal = -np.stack(slopes, axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    way = np.arange(-3.0, 30.0, 0.1)
    along = start[:, :, None] + normal[:, :, None] * way
    flat = along.transpose(1, 0, 2).reshape(3, -1)
    in_cavity = ndimage.map_coordinates(inner, flat, order=1).reshape(len(start), -1) >= 0.5
    in_wall = ndimage.map_coordinates(outer, flat, order=1).reshape(len(start), -1) >= 0.5
    begin = np.where(way < 3.0, in_cavity, False).cumsum(axis=1).argmax(axis=1)  # the last step inside the cavity
    beyond = ~in_wall & (np.arange(len(way)) > begin[:, None])
    end = np.where(beyond.any(axis=1), beyond.argmax(axis=1), -1)
    lengths = (way[end] - way[begin])[end > 0]
    return float(lengths.mean()), float(np.quantile(lengths, 0.98))


def truth_of(tissues: sitk.Image) -> dict[str, float]:
    """All figures of a heart."""
    labels = TARGET_OF[sitk.GetArrayFromImage(tissues)]
    mean, largest = true_thickness(labels)
    volumes = {f"{s.key}_ml": np.count_nonzero(labels == s.label) / 1000.0 for s in STRUCTURES}
    return volumes | {
        "AA_diameter": true_diameter(labels, "AA"),
        "PA_diameter": true_diameter(labels, "PA"),
        "wall_mean": mean,
        "wall_largest": largest,
    }


# ---- what is measured ----


def figures_of(labels: sitk.Image) -> tuple[dict[str, float | None], float]:
    """All figures of a label map as the panel gets them, and the CPU seconds that they took."""
    array, affine = sitk.GetArrayFromImage(labels), affine_of(labels)
    begun = time.process_time()
    geometry: HeartGeometry = measure_geometry(HeartGrid.of(array, affine, STRUCTURES))
    seconds = time.process_time() - begun
    aorta, trunk, wall = geometry.aorta, geometry.pulmonary_artery, geometry.wall
    voxel_ml = float(np.prod(labels.GetSpacing())) / 1000.0
    figures: dict[str, float | None] = {
        f"{s.key}_ml": np.count_nonzero(array == s.label) * voxel_ml for s in STRUCTURES
    }
    return figures | {
        "AA_diameter": aorta.diameter_mm if isinstance(aorta, VesselDiameter) else None,
        "PA_diameter": trunk.diameter_mm if isinstance(trunk, VesselDiameter) else None,
        "wall_mean": wall.mean_mm if isinstance(wall, WallThickness) else None,
        "wall_largest": wall.largest_mm if isinstance(wall, WallThickness) else None,
    }, seconds


def oblique(tissues: sitk.Image) -> sitk.Image:
    """The seven structures of a heart on an oblique, anisotropic grid that holds them all."""
    labels = sitk.GetImageFromArray(TARGET_OF[sitk.GetArrayFromImage(tissues)])
    labels.CopyInformation(tissues)
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.35, -0.25, 0.5)
    direction = np.array(turn.GetMatrix()).reshape(3, 3)
    middle = np.array(tissues.TransformContinuousIndexToPhysicalPoint([0.5 * side for side in tissues.GetSize()]))
    spacing, size = np.array([1.3, 1.3, 2.0]), np.array([230, 230, 150])
    grid = sitk.Image([int(side) for side in size], sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin((middle - direction @ (0.5 * (size - 1) * spacing)).tolist())
    return sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def errors(truth: dict[str, float], measured: dict[str, float | None]) -> dict[str, float | None]:
    """Signed errors in mm of lengths, and the mean unsigned error in % of the seven volumes."""
    found: dict[str, float | None] = {}
    for key in ("AA_diameter", "PA_diameter", "wall_mean", "wall_largest"):
        value = measured[key]
        found[key] = None if value is None else value - truth[key]
    shares = [100.0 * abs(measured[f"{s.key}_ml"] / truth[f"{s.key}_ml"] - 1.0) for s in STRUCTURES]
    return found | {"volumes": float(np.mean(shares))}


def summary(rows: Sequence[dict[str, float | None]]) -> dict[str, dict[str, float | int | None]]:
    """Median and worst unsigned error, mean signed error, and how many hearts have the figure."""
    found: dict[str, dict[str, float | int | None]] = {}
    for key, aim in AIMS.items():
        values = [value for row in rows if (value := row[key]) is not None]
        found[key] = {
            "median": round(statistics.median(map(abs, values)), 2),
            "worst": round(max(values, key=abs), 2),
            "mean signed": round(statistics.mean(values), 2),
            "given": len(values),
            "hearts": len(rows),
            "aim": aim,
        }
    return found


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measure, print, write; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--hearts", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-segmentation", action="store_true", help="only the error of measuring")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args(arguments)
    rows: dict[str, list[dict[str, float | None]]] = {"own labels": [], "segmented CT": []}
    seconds = []
    bundle = None if options.no_segmentation else mkd_core.load_bundle(mkd_core.default_bundle_path())
    for number, (name, tissues) in enumerate(hearts(options.hearts, options.data)):
        truth = truth_of(tissues)
        measured, took = figures_of(oblique(tissues))
        seconds.append(took)
        rows["own labels"].append(errors(truth, measured))
        line = [f"{name:14}"] + [f"{key} {truth[key]:.1f}" for key in AIMS if key in truth]
        if bundle is not None:
            image, _ = synthesize(tissues, "CT", _FIRST_SEED + number, 1.5)
            try:
                result = mkd_core.segment(
                    image, bundle, modality="CT", options=mkd_core.SegmentationOptions(threads=options.threads)
                )
                measured, took = figures_of(result.labels)
                seconds.append(took)
                rows["segmented CT"].append(errors(truth, measured))
            except MKDError as error:
                line.append(f"refused: {error}")
        for kind in rows:
            if rows[kind]:
                shown = [f"{k} {'-' if v is None else f'{v:+.1f}'}" for k, v in rows[kind][-1].items()]
                line.append(f"| {kind}: " + " ".join(shown))
        print(" ".join(line), flush=True)
    figures = {
        "hearts": options.hearts,
        "CPU s": {"median": round(statistics.median(seconds), 3), "worst": round(max(seconds), 3)},
        "errors": {kind: summary(found) for kind, found in rows.items() if found},
    }
    for kind, found in figures["errors"].items():
        for key, entry in found.items():
            unit = _UNITS.get(key, "mm")
            print(
                f"{kind:13} {key:13} median {entry['median']} {unit}, worst {entry['worst']} {unit}, mean signed "
                f"{entry['mean signed']} {unit}, given in {entry['given']} of {entry['hearts']}; aim: median "
                f"{entry['aim']} {unit}, {'reached' if entry['median'] <= entry['aim'] else 'MISSED'}"
            )
    print(f"measuring takes {figures['CPU s']['median']} s of CPU time (worst {figures['CPU s']['worst']} s)")
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "measures.json", json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
