"""Memory of a training run on full-size volumes: 20 CT and 20 MR of 512 x 512 x 300 voxels, from checking the files to
the last step.

    python -m Testing.benchmarks.training_memory [--volumes 40] [--size 512 512 300] [--cache-gb 4] [--json FILE]

One synthetic CT and one MR are made and linked under as many names; a run cannot tell.  Prints the largest memory
(proportional set size) of all processes of the run together, and what its volumes take on the training grid.  Linux
only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = """
out = "run"
[data]
cases = "volumes"
validation = 0.0
cache_gb = {cache_gb}
[[stages]]
steps = {steps}
spacing_mm = 1.5
patch = 64
"""


def make_volumes(folder: Path, count: int, size: tuple[int, int, int]) -> None:
    """``count`` labelled volumes of so many voxels in MM-WHS's layout, half of them CT."""
    from mkd_core.synthesis import synthesize

    folder.mkdir()
    for modality in ("CT", "MR"):
        for volume, kind, interpolator in zip(
            synthesize(None, modality, 2), ("image", "label"), (sitk.sitkLinear, sitk.sitkNearestNeighbor)
        ):
            spacing = [n * s / m for n, s, m in zip(volume.GetSize(), volume.GetSpacing(), size)]
            full = sitk.Resample(
                volume,
                list(size),
                sitk.Transform(),
                interpolator,
                volume.GetOrigin(),
                spacing,
                volume.GetDirection(),
                0.0,
            )
            first = folder.parent / f"{modality}_{kind}.nii"
            sitk.WriteImage(full, str(first))
            for number in range(count // 2):
                (folder / f"{modality.lower()}_train_{1001 + number}_{kind}.nii").symlink_to(first)


def memory_of_tree(pid: int) -> int:
    """Bytes of a process and all below it; shared pages are counted once."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split()
    parents = dict(zip(map(int, listing[::2]), map(int, listing[1::2])))
    tree = [pid]
    for member in tree:
        tree += [child for child, parent in parents.items() if parent == member]
    total = 0
    for member in tree:
        try:
            for line in Path(f"/proc/{member}/smaps_rollup").read_text(encoding="utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
        except OSError:  # it ended meanwhile
            continue
    return total


def main() -> None:
    """Make the volumes, train, print the largest memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--volumes", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cache-gb", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_volumes(folder / "volumes", options.volumes, tuple(options.size))
        (folder / "run.toml").write_text(SETTINGS.format(cache_gb=options.cache_gb, steps=options.steps))
        begun = time.monotonic()
        run = subprocess.Popen(
            [sys.executable, "-m", "mkd_core", "train", str(folder / "run.toml")],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        peak = 0
        while run.poll() is None:
            peak = max(peak, memory_of_tree(run.pid))
            time.sleep(0.5)
        if run.returncode:
            sys.exit(run.returncode)
        prepared = sum(path.stat().st_size for path in (folder / "run" / "prepared").glob("*.npy"))
    figures = {
        "volumes": options.volumes,
        "size": list(options.size),
        "cache GB": options.cache_gb,
        "peak memory GB": round(peak / 1e9, 2),
        "volumes on the training grid GB": round(prepared / 1e9, 2),
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        from mkd_core.io.atomic import write_text

        write_text(options.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
