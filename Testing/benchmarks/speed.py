"""Our pipeline against the way that MONAI's users take, with the same weights: CPU seconds stage by stage, memory, and
how far the labels agree.

    python -m Testing.benchmarks.speed [--cases heart thorax] [--repeats 3] [--monai-repeats 3] [--threads 1]
                                       [--out FOLDER]
    python -m Testing.benchmarks.speed --huge            memory on a volume of 1024 x 1024 x 1000 voxels

Both ways run in processes of their own, in turn, and are loaded before (:mod:`Testing.benchmarks.speed_routes`).  CPU
seconds are compared because they do not depend on what else the computer does.  Prints a table and writes
``speed.json`` and ``speed.png`` into the folder, after each case; those that are not measured anew are kept there.

Agreement is measured inside the box that our pipeline chose, between its labels and those of the plain way through the
same box: float32, networks as the weights file has them, all eight class probabilities interpolated linearly to every
voxel by SimpleITK, the best of them; small components removed as ours does. So it shows what lower precision, folding,
tiles and slabs change.  MONAI's way sees other windows and resamples without averaging; its overlap with ours is given
for information.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]

from mkd_core.io.atomic import write_file, write_text
from mkd_core.io.bundle import default_bundle_path, load_bundle
from mkd_core.structures import STRUCTURES
from Testing.benchmarks.accuracy import dice
from Testing.benchmarks.click import heart_ct, with_voxels

RESULTS = Path(__file__).with_name("results")


def thorax_ct(size: tuple[int, int, int], seed: int = 2) -> sitk.Image:
    """A synthetic CT of the whole chest, 339 x 327 x 375 mm, of so many voxels."""
    from mkd_core.synthesis import synthesize

    return with_voxels(synthesize(None, "CT", seed, spacing=1.5, around_mm=90.0)[0], size)


CASES: dict[str, Callable[[], sitk.Image]] = {
    "heart": lambda: heart_ct((512, 512, 300)),
    "thorax": lambda: thorax_ct((512, 512, 400)),
    "small": lambda: heart_ct((112, 112, 96)),
}

#: Volumes for the law by which time grows with voxels, of the case's field of view.
SCALING = {
    "heart": ((256, 256, 150), (512, 512, 300), (768, 768, 450)),
    "small": ((56, 56, 48), (80, 80, 68), (112, 112, 96)),
}


class Route:
    """A process that goes one of the two ways."""

    def __init__(self, name: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "Testing.benchmarks.speed_routes", name, "--threads", str(threads)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"},
        )
        self.start = self._answer()

    def run(self, source: Path, target: Path) -> dict:
        """Segment a file; returns what it cost."""
        self._process.stdin.write(json.dumps({"input": str(source), "output": str(target)}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError("The process ended without an answer.")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def median_of(runs: Sequence[dict]) -> dict:
    """Medians of what several runs cost."""
    stages = {
        stage: round(statistics.median(run["stages CPU s"][stage] for run in runs), 3)
        for stage in runs[0]["stages CPU s"]
    }
    return {
        "runs": len(runs),
        "CPU s": round(statistics.median(run["CPU s"] for run in runs), 3),
        "CPU s, range": [round(end(run["CPU s"] for run in runs), 3) for end in (min, max)],
        "wall s": round(statistics.median(run["wall s"] for run in runs), 3),
        "peak MiB": max(run["peak MiB"] for run in runs),
        "stages CPU s": stages,
    }


def plain_labels(image: sitk.Image, box_mm: dict[str, list[float]]) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Labels of the plain way (see above) on the block of voxels that a box covers, and the block.

    Args:
        image: an upright CT, axes along LPS.
        box_mm: as our pipeline reports it.
    """
    import torch

    from mkd_core.inference.geometry import Grid, OrientedVolume, overlap_slices
    from mkd_core.inference.normalisation import normalise
    from mkd_core.inference.resampling import sample
    from mkd_core.method import ensemble
    from mkd_core.method.alignment import align_for_segmentors

    bundle = load_bundle(default_bundle_path())
    field = OrientedVolume(image)
    low, high = (np.array(box_mm[end][::-1]) - image.GetOrigin()[::-1] for end in ("low", "high"))
    size = np.rint((high - low) / bundle.spacing).astype(int)
    grid = Grid(tuple(size.tolist()), tuple((low + 0.5 * bundle.spacing).tolist()), bundle.spacing)
    block = overlap_slices(grid, field)
    x, y, z = (slice(side.start, side.stop) for side in reversed(block))
    region = image[x, y, z]
    given = normalise(sample(field, grid), bundle.normalisation("CT"))[None, None]
    with torch.inference_mode():
        views = align_for_segmentors(given, bundle.alignment("CT"), lambda part, image: bundle.network(part)(image))
        real, synthetic = views.segmented(lambda part, view: bundle.network(part)(view)[0])
        probabilities = ensemble.keep_main_components(
            ensemble.ensemble(real, synthetic, bundle.ensemble_weight("CT"))[0]
        )
    best = np.full(region.GetSize()[::-1], -1.0, np.float32)
    labels = np.zeros(best.shape, np.uint8)
    for label, probability in enumerate(probabilities.numpy()):
        # One voxel more all round: SimpleITK interpolates only between voxels, and the box ends half a voxel beyond the
        # last.
        channel = field.grid_to_image(
            np.pad(probability, 1, mode="edge"),
            Grid(
                tuple(count + 2 for count in grid.size),
                tuple(start - grid.spacing for start in grid.start),
                grid.spacing,
            ),
        )
        values = sitk.GetArrayFromImage(sitk.Resample(channel, region, sitk.Transform(), sitk.sitkLinear, 0.0))
        labels[values > best] = label
        np.maximum(best, values, out=best)
    return labels, block


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Share of equal voxels, and Dice of every structure, of two label arrays."""
    figures = {"equal voxels": float((first == second).mean())}
    for structure in STRUCTURES:
        figures[structure.key] = dice(first == structure.label, second == structure.label)
    return {key: round(float(value), 5) for key, value in figures.items()}


def compare(image: sitk.Image, folder: Path, routes: dict[str, Route], repeats: dict[str, int]) -> dict:
    """Send a volume both ways, in turn, and measure how far the results agree."""
    from mkd_core.inference.pipeline import segment
    from mkd_core.protocol import SegmentationOptions

    source = folder / "volume.nrrd"
    sitk.WriteImage(image, str(source))
    targets = {name: folder / f"{name}.nrrd" for name in routes}
    costs: dict[str, list[dict]] = {name: [] for name in routes}
    for number in range(max(repeats.values())):
        for name, route in routes.items():
            if number < repeats[name]:
                costs[name].append(route.run(source, targets[name]))
    figures: dict = {"size": list(image.GetSize()), "spacing mm": [round(step, 4) for step in image.GetSpacing()]}
    figures |= {name: median_of(runs) for name, runs in costs.items()}
    figures["ratio of CPU seconds"] = round(figures["monai"]["CPU s"] / figures["ours"]["CPU s"], 1)
    fewest, most = ([figures[name]["CPU s, range"][end] for name in ("monai", "ours")] for end in (0, 1))
    figures["ratio of CPU seconds, range"] = [round(fewest[0] / most[1], 1), round(most[0] / fewest[1], 1)]
    figures["ratio of peak memory"] = round(figures["monai"]["peak MiB"] / figures["ours"]["peak MiB"], 1)
    ours = {
        precision: segment(image, options=SegmentationOptions(device="cpu", precision=precision, threads=1))
        for precision in ("float32", "bfloat16")
    }
    for precision, result in ours.items():
        plain, block = plain_labels(image, result.report["heart_box_mm"])
        figures[f"agreement with the plain way, {precision}"] = agreement(
            sitk.GetArrayViewFromImage(result.labels)[block], plain
        )
    ways = [sitk.GetArrayFromImage(sitk.ReadImage(str(targets[name])))[block] for name in ("ours", "monai")]
    figures["agreement with MONAI's way"] = agreement(*ways)
    return figures


def scaling(image: sitk.Image, sizes: Sequence[tuple[int, int, int]], folder: Path, route: Route) -> dict:
    """CPU seconds from file to file for a volume in several sizes, and the exponent of the power of the voxels that
    they grow with.
    """
    seconds = []
    for size in sizes:
        sitk.WriteImage(with_voxels(image, size), str(folder / "volume.nrrd"))
        seconds.append(
            statistics.median(route.run(folder / "volume.nrrd", folder / "labels.nrrd")["CPU s"] for _ in range(3))
        )
    voxels = [float(np.prod(size)) for size in sizes]
    return {
        "sizes": [list(size) for size in sizes],
        "CPU s": seconds,
        "exponent": round(float(np.polyfit(np.log(voxels), np.log(seconds), 1)[0]), 3),
    }


def waiting() -> dict[str, float]:
    """Seconds that ``import mkd_core`` takes, and from a fresh worker's start to its first progress message: CPU and
    wall.
    """
    figures = {}
    before = os.times()
    subprocess.run([sys.executable, "-c", "pass"], cwd=ROOT, check=True)
    between = os.times()
    subprocess.run([sys.executable, "-c", "import mkd_core"], cwd=ROOT, check=True)
    after = os.times()
    bare, loaded = (sum(b[2:4]) - sum(a[2:4]) for a, b in ((before, between), (between, after)))
    figures["import mkd_core, CPU s beyond Python's own"] = round(max(0.0, loaded - bare), 3)
    worker = subprocess.Popen(
        [sys.executable, "-m", "mkd_core.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    begun = time.perf_counter()
    worker.stdin.write(b'{"op": "segment", "id": 1, "input": "none.nrrd", "output": "none.nrrd"}\n')
    worker.stdin.flush()
    while b'"progress"' not in worker.stdout.readline():
        pass
    figures["first progress message of a cold worker, wall s"] = round(time.perf_counter() - begun, 3)
    from Testing.benchmarks.click import cpu_seconds

    figures["first progress message of a cold worker, CPU s"] = cpu_seconds(worker.pid)
    worker.stdin.close()
    worker.wait()
    return figures


def machine(threads: int) -> dict:
    """What the figures were measured on."""
    import monai
    import torch

    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "CPU": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "MONAI": monai.__version__,
        "SimpleITK": sitk.Version.VersionString(),
        "load at the end": round(os.getloadavg()[0], 1),
    }


def print_case(name: str, figures: dict) -> None:
    """One case as a table."""
    print(
        f"\n{name}, {' x '.join(map(str, figures['size']))} voxels of {' x '.join(map(str, figures['spacing mm']))} mm"
    )
    for route in ("ours", "monai"):
        cost = figures[route]
        print(
            f"  {route:6} CPU {cost['CPU s']:8.2f} s   wall {cost['wall s']:8.2f} s   peak {cost['peak MiB']:6} MiB   "
            f"({cost['runs']} runs)"
        )
        print("         " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in cost["stages CPU s"].items()))
    print(f"  ratio of CPU seconds {figures['ratio of CPU seconds']}, of peak memory {figures['ratio of peak memory']}")
    for key, entry in figures.items():
        if key.startswith("agreement"):
            print(f"  {key}: " + ", ".join(f"{what} {value:.4f}" for what, value in entry.items()))
    sys.stdout.flush()


def draw(figures: dict, path: Path) -> None:
    """CPU seconds per stage, one bar per way and case; the lower row shows ours alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = figures["cases"]
    figure, axes = pyplot.subplots(2, len(cases), figsize=(6.5 * len(cases), 4.6), squeeze=False, layout="constrained")
    for column, (name, case) in enumerate(cases.items()):
        for row, routes in enumerate((("monai", "ours"), ("ours",))):
            axis = axes[row][column]
            for height, route in enumerate(reversed(routes)):
                left = 0.0
                for number, (stage, seconds) in enumerate(case[route]["stages CPU s"].items()):
                    axis.barh(height, seconds, left=left, color=f"C{number}")
                    if seconds > 0.04 * max(case[other]["CPU s"] for other in routes):
                        axis.text(left + seconds / 2, height, stage, rotation=90, ha="center", va="center", fontsize=7)
                    left += seconds
            axis.set_yticks(
                range(len(routes)),
                [{"ours": "MKDSegmentation", "monai": "MONAI, whole volume"}[route] for route in reversed(routes)],
            )
            axis.set_xlabel("CPU seconds")
        axes[0][column].set_title(
            f"{name} CT, {' x '.join(map(str, case['size']))}: {case['ratio of CPU seconds']} times", fontsize=10
        )
    write_file(path, lambda draft: figure.savefig(draft, dpi=110))
    pyplot.close(figure)


def huge(threads: int) -> dict:
    """Cost of a volume of 1024 x 1024 x 1000 voxels, 2 GB: a heart CT of 1 mm in air, every voxel repeated four times
    along each axis.
    """
    from mkd_core.synthesis import synthesize

    heart, _ = synthesize(None, "CT", 2)
    voxels = sitk.GetArrayViewFromImage(heart)[:250]
    voxels = np.pad(
        voxels, [(0, 250 - len(voxels)), (0, 256 - voxels.shape[1]), (0, 256 - voxels.shape[2])], constant_values=-1000
    )
    for axis in range(3):
        voxels = voxels.repeat(4, axis)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([0.25] * 3)
    with tempfile.TemporaryDirectory() as name:
        sitk.WriteImage(image, str(Path(name) / "volume.nrrd"))
        del image, voxels
        route = Route("ours", threads)
        cost = route.run(Path(name) / "volume.nrrd", Path(name) / "labels.nrrd")
        route.close()
    return {
        "size": [1024, 1024, 1000],
        "CPU s": cost["CPU s"],
        "wall s": cost["wall s"],
        "peak GB": round(cost["peak MiB"] * 2**20 / 1e9, 2),
        "stages CPU s": cost["stages CPU s"],
    }


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measure, print, write; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["heart", "thorax"])
    parser.add_argument("--repeats", type=int, default=3, help="runs of our way")
    parser.add_argument("--monai-repeats", type=int, default=3, help="runs of MONAI's way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--huge", action="store_true", help="only the memory on a huge volume")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.huge:
        figures = {"machine": machine(options.threads)} | huge(options.threads)
        print(json.dumps(figures, indent=1))
        write_text(options.out / "speed-huge.json", json.dumps(figures, indent=1) + "\n")
        return figures
    path = options.out / "speed.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        routes = {route: Route(route, options.threads) for route in ("ours", "monai")}
        for case in options.cases:
            image = CASES[case]()
            measured = compare(image, folder, routes, {"ours": options.repeats, "monai": options.monai_repeats})
            print_case(case, measured)
            if case in SCALING:
                measured["growth with voxels"] = scaling(image, SCALING[case], folder, routes["ours"])
                print("  growth with voxels:", measured["growth with voxels"])
            figures["cases"][case] = measured | {"machine": machine(options.threads)}
            write_text(path, json.dumps(figures, indent=1) + "\n")
        figures["start CPU s"] = {route: process.start["start CPU s"] for route, process in routes.items()}
        for route in routes.values():
            route.close()
    figures["waiting"] = waiting()
    print(f"start CPU s: {figures['start CPU s']}\nwaiting: {figures['waiting']}")
    write_text(path, json.dumps(figures, indent=1) + "\n")
    draw(figures, options.out / "speed.png")
    return figures


if __name__ == "__main__":
    main()
