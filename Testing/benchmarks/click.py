"""What a click on Segment costs: the real panel in the stand-in GUI, a 512 x 512 x 300 heart CT, twice in one worker.

    python -m Testing.benchmarks.click [--weights BUNDLE] [--size 512 512 300] [--json FILE]
    python -m Testing.benchmarks.click --repeats 5      in as many applications; prints and stores the range of each

Prints wall seconds from the click to the finished panel, CPU seconds and peak memory of the worker (and of its
children), the worker's own timings, and the longest time that the application's thread worked without looking at its
events.
Linux only: CPU time and memory are read from /proc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import SimpleITK as sitk

TESTING = Path(__file__).resolve().parents[1]
MODULE = TESTING.parent / "MKDSegmentation" / "MKDSegmentation.py"


def heart_ct(size: tuple[int, int, int], seed: int = 2) -> sitk.Image:
    """A synthetic heart CT of so many voxels; spacing follows from the field of view."""
    from mkd_core.synthesis import synthesize

    return with_voxels(synthesize(None, "CT", seed)[0], size)


def with_voxels(image: sitk.Image, size: tuple[int, int, int]) -> sitk.Image:
    """A CT resampled to so many voxels over the same field of view."""
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size)]
    return sitk.Resample(
        image, list(size), sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection(), -1000.0
    )


def workers() -> list[int]:
    """Worker processes under this one."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split()
    parents = dict(zip(map(int, listing[::2]), map(int, listing[1::2])))
    tree = [os.getpid()]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    return [pid for pid in tree if b"mkd_core.worker" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Largest resident size of a process so far."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    """Click twice and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=1, help="applications to start, one after the other")
    options = parser.parse_args()
    if options.repeats > 1:
        repeat(options)
        return
    from Testing.harness import bootstrap, driving

    bootstrap.start()
    _, panel = bootstrap.loadModule(MODULE)
    from MKDSegmentationLib.scene.phantom import addVolume

    volume = addVolume(heart_ct(tuple(options.size)), "Heart CT")
    driving.choose(panel.ui.inputSelector, volume.GetName())
    if options.weights:
        driving.click(panel.ui.weightsCollapsibleButton)
        driving.typeText(panel.ui.weightsPathLineEdit, str(options.weights.resolve()))
    import qt

    turns = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: turns.append(time.thread_time()))
    timer.start(1)
    clicks = []
    for _ in range(2):
        turns.clear()
        before = sum(map(cpu_seconds, workers()))
        start = time.perf_counter()
        driving.click(panel.ui.segmentButton)
        while panel.ui.segmentButton.text == "Cancel":
            driving.processEvents(0.01)
        wall = time.perf_counter() - start
        driving.processEvents(0.1)  # the last turn counts too
        if not panel.ui.resultsTable.visible:
            sys.exit(f"Not segmented: {panel.ui.statusLabel.text}")
        report = json.loads(panel.ui.outputSelector.currentNode().GetAttribute("MKDSegmentation.Report"))
        clicks.append(
            {
                "wall s": round(wall, 2),
                "worker CPU s": round(sum(map(cpu_seconds, workers())) - before, 2),
                "longest pause of the application ms": round(1000 * max(b - a for a, b in itertools.pairwise(turns))),
                "worker peak MiB": round(sum(map(peak_mib, workers()))),
                "threads": report["threads"],
                "precision": report["precision"],
                "timings s": {stage: round(value, 2) for stage, value in report["timings_s"].items()},
            }
        )
    machine = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    timer.stop()
    figures = {
        "size": list(options.size),
        "machine": f"{machine}, {os.cpu_count()} cores",
        "first click": clicks[0],
        "second click": clicks[1],
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        from mkd_core.io.atomic import write_text

        write_text(options.json, json.dumps(figures, indent=1) + "\n")
    bootstrap.unloadModule("MKDSegmentation")


def repeat(options: argparse.Namespace) -> None:
    """Click twice in several applications; the figures of the fastest, with the range of all."""
    base = [sys.executable, "-m", "Testing.benchmarks.click", "--size", *map(str, options.size)]
    if options.weights:
        base += ["--weights", str(options.weights)]
    runs = []
    for _ in range(options.repeats):
        printed = subprocess.run(base, cwd=TESTING.parent, capture_output=True, text=True, check=True).stdout
        runs.append(json.loads(printed[printed.index("{") :]))
    figures = min(runs, key=lambda run: run["first click"]["wall s"])
    for click in ("first click", "second click"):
        for cost in ("wall s", "worker CPU s"):
            seen = [run[click][cost] for run in runs]
            figures[click][f"{cost}, range of {len(runs)}"] = [min(seen), max(seen)]
    print(json.dumps(figures, indent=1))
    if options.json:
        from mkd_core.io.atomic import write_text

        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
