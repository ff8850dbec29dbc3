"""What an archive run costs, and that it cannot be broken: generated DICOM studies, two workers, kill -9 at random.

    python -m Testing.benchmarks.archive [--studies 300] [--kills 20] [--rows 1000000] [--workers 2] [--json FILE]

1. The pipeline alone: warm processes, as many as workers, read, segment and write some of the studies; CPU seconds a
   study.
2. The archive: indexes and runs all of them; studies an hour, CPU seconds a study without the start of the workers,
   what lies between the two, and memory of the workers over time.
3. The same again, while workers, the client and all processes are killed at random moments, and once more if it ends
   before so many kills; final table and files must equal those of the undisturbed run.
4. A ledger of a million rows: CPU seconds for index, status, export and a claim.

Linux only: CPU time and memory are read from /proc, by psutil.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk

from mkd_core.archive import study
from mkd_core.archive.export import table, write_csv, write_parquet
from mkd_core.archive.identity import Pseudonyms
from mkd_core.archive.index import index
from mkd_core.archive.ledger import Ledger, Shard, process_name
from mkd_core.archive.study import Settings
from mkd_core.inference import pipeline
from mkd_core.inference.memory import retain_memory
from mkd_core.io import dicom
from mkd_core.io.bundle import default_bundle_path, load_bundle
from mkd_core.io.volumes import write_volume
from mkd_core.protocol import SegmentationOptions
from Testing.support import synthetic_ledger
from Testing.support.dicom_exports import write_export

#: Columns of the table that tell of the run and not of the study.
OF_THE_RUN = ("attempts", "seconds", "finished")

#: Hearts that the studies are variations of, and the spacing of their CT, mm.
HEARTS, SPACING = 6, (1.6, 1.6, 2.5)

KEY = bytes(32)


def write_studies(folder: Path, count: int) -> None:
    """Generated cardiac CT as DICOM: oblique by a few degrees, another noise and another brightness each."""
    from mkd_core.synthesis import synthesize

    hearts = [synthesize(None, "CT", seed, spacing=2.0)[0] for seed in range(min(HEARTS, count))]
    for number in range(count):
        noise = np.random.default_rng(number)
        heart = hearts[number % len(hearts)]
        turned = sitk.Euler3DTransform(
            heart.TransformContinuousIndexToPhysicalPoint([side / 2 for side in heart.GetSize()]),
            *np.radians(noise.uniform(-6, 6, 3)).tolist(),
        )
        size = [round(n * s / step) for n, s, step in zip(heart.GetSize(), heart.GetSpacing(), SPACING)]
        image = sitk.Resample(
            heart, size, turned, sitk.sitkLinear, heart.GetOrigin(), SPACING, heart.GetDirection(), -1000.0
        )
        voxels = sitk.GetArrayFromImage(image) + noise.normal(noise.uniform(-15, 15), 12.0, size[::-1])
        noisy = sitk.GetImageFromArray(np.clip(voxels, -1000, 3000).astype(np.int16))
        noisy.CopyInformation(image)
        write_export(noisy, folder / f"{number // 100:02d}" / f"{number:04d}", 1, study=str(1000 + number))


def index_studies(folder: Path, name: str, count: int) -> Path:
    """A new run of the generated studies."""
    with Ledger(folder / name, create=True) as ledger:
        assert index(ledger, [str(folder / "pacs")], Pseudonyms(KEY)).new == count
    return folder / name


def alone(run: Path, settings: Settings, count: int, workers: int) -> dict[str, float]:
    """CPU seconds a study of the pipeline alone, warm: all, and of the segmentation in it; in as many processes at a
    time as there are workers, because they share caches and memory.
    """
    code = "\n".join(
        [
            f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})",
            "from pathlib import Path; from Testing.benchmarks.archive import measure_alone",
            f"measure_alone(Path({str(run)!r}), {settings.weights!r}, {count})",
        ]
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(workers)]
    figures = [json.loads(process.communicate()[0]) for process in processes]
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


def measure_alone(run: Path, weights: str, count: int) -> None:
    """Print what :func:`alone` returns; in a process of its own, set up as workers are."""
    import torch

    retain_memory()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    bundle = load_bundle(weights)
    options = SegmentationOptions(device="cpu", threads=1)
    with Ledger(run) as ledger, tempfile.TemporaryDirectory() as folder:
        sources = [row["source"] for row in ledger.rows(with_origin=True)][: count + 1]
        whole, inner = [], []
        for source in sources:
            start = time.process_time()
            image, _ = dicom.read(dicom.Series.from_dict(source["series"]))
            before = time.process_time()
            result = pipeline.segment(image, bundle, options=options)
            inner.append(time.process_time() - before)
            write_volume(result.labels, Path(folder) / "labels.nrrd")
            whole.append(time.process_time() - start)
    # The first is cold.
    print(json.dumps({"CPU s a study": np.mean(whole[1:]), "of which segmentation": np.mean(inner[1:])}))


def start(run: Path, workers: int, settings: Settings) -> subprocess.Popen:
    """``mkd archive run`` in a session of its own."""
    command = [sys.executable, "-m", "mkd_core", "archive", "run", str(run), "--workers", str(workers), "--quiet"]
    return subprocess.Popen([*command, "--weights", settings.weights], start_new_session=True)


def workers_of(client: psutil.Process) -> list[psutil.Process]:
    """Worker processes under a client, the oldest first."""
    found = []
    for child in client.children(recursive=True):
        try:
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def watched(run: Path, workers: int, settings: Settings) -> dict[str, Any]:
    """Run to the end, looking at the CPU time and memory of all processes."""
    process = start(run, workers, settings)
    client = psutil.Process(process.pid)
    cpu: dict[int, float] = {}
    at_first: tuple[int, float, float] | None = None
    memory: list[tuple[int, float]] = []
    done = 0
    with Ledger(run) as ledger:
        while process.poll() is None:
            time.sleep(0.5)
            done = sum(ledger.state_counts()[state] for state in ("done", "failed"))
            try:
                now = [client, *client.children(recursive=True)]
                cpu |= {one.pid: sum(one.cpu_times()[:2]) for one in now}
                memory += [(done, one.memory_info().rss / 2**20) for one in workers_of(client)]
            except psutil.Error:
                continue
            if at_first is None and done >= 2 * workers:  # all are warm
                at_first = done, sum(cpu.values()), time.perf_counter()
    assert process.returncode == 0 and at_first is not None
    first, cpu_before, began = at_first
    rest = done - first
    early = [size for at, size in memory if done // 4 <= at < done // 2]
    late = [size for at, size in memory if at >= 3 * done // 4]
    return {
        "studies": done,
        "CPU s a study": (sum(cpu.values()) - cpu_before) / rest,
        "studies an hour": 3600 * rest / (time.perf_counter() - began),
        "CPU s to start": cpu_before,
        "MiB of a worker, second quarter": float(np.mean(early)),
        "MiB of a worker, last quarter": float(np.mean(late)),
        "MiB of a worker, most": max(size for _, size in memory),
    }


def disturbed(run: Path, workers: int, settings: Settings, kills: int, seed: int) -> dict[str, int]:
    """Run to the end, killing a worker, the client or everything at random moments."""
    chance = random.Random(seed)
    killed = {"worker": 0, "client": 0, "everything": 0}
    process = start(run, workers, settings)
    with Ledger(run) as ledger:
        while True:
            if sum(killed.values()) == kills:
                process.wait()
                break
            # Anywhere between the first moment of the client and some studies later.
            counts = ledger.state_counts()
            goal = counts["done"] + chance.choice((0, 0, 1, 1, 2))
            while process.poll() is None and counts["done"] < goal:
                time.sleep(0.1)
                counts = ledger.state_counts()
            moment = time.monotonic() + chance.uniform(0, 4)
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.01)
            counts = ledger.state_counts()
            if counts["waiting"] + counts["running"] == 0:
                process.wait()
                break
            kind = chance.choice(list(killed))
            if not kill(process, kind, chance):
                continue
            killed[kind] += 1
            if kind != "worker":
                process = start(run, workers, settings)
    assert process.returncode == 0
    return killed


def kill(process: subprocess.Popen, kind: str, chance: random.Random) -> bool:
    """kill -9; False if there was nothing of the kind."""
    client = psutil.Process(process.pid)
    if kind == "worker":
        found = workers_of(client)
        if found:
            chance.choice(found).kill()
        return bool(found)
    below = client.children(recursive=True)
    if kind == "client":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
        for one in below:
            if one.is_running():
                one.kill()
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=120)
    assert not alive, f"processes without a client: {alive}"
    return True


def final_table(run: Path) -> list[dict[str, Any]]:
    with Ledger(run) as ledger:
        return [{name: row[name] for name in row if name not in OF_THE_RUN} for row in table(ledger)]


def check_files(first: Path, second: Path) -> int:
    """All result files of two runs are the same, byte by byte or, where reports tell the time, in what they say."""
    names = [
        {str(path.relative_to(run)) for path in run.glob("results/**/*") if path.is_file()} for run in (first, second)
    ]
    assert names[0] == names[1], names[0] ^ names[1]
    for name in names[0]:
        contents = [(run / name).read_bytes() for run in (first, second)]
        if name.endswith("report.json"):
            contents = [json.dumps(json.loads(content)["summary"]).encode() for content in contents]
        assert contents[0] == contents[1], name
    assert not list((second / "running").iterdir())
    return len(names[0])


def million(folder: Path, rows: int) -> dict[str, float]:
    """CPU seconds, which a quiet computer takes as long for, of what people wait for on a ledger of so many rows."""
    seconds: dict[str, float] = {}
    batch = 20_000

    def parts() -> Iterator[range]:
        for first in range(0, rows, batch):
            yield range(first, min(first + batch, rows))

    with Ledger(folder, create=True) as ledger:
        began = time.process_time()
        for numbers in parts():
            ledger.add(synthetic_ledger.indexed(numbers))
        seconds["index"] = time.process_time() - began
        # What became of them is the same for every thousandth, so that making it up does not take longest.
        templates = [synthetic_ledger.outcome(number) for number in range(1000)]
        began = time.process_time()
        for numbers in parts():
            tasks = ledger.claim("a|1|0|0", len(numbers))
            outcomes = [
                study.outcome_from({**vars(templates[task.number % 1000]), "id": task.id})
                for task in tasks
                if task.number < 0.999 * rows
            ]
            ledger.commit("a|1|0|0", outcomes)
        ledger.release("a|1|0|0")
        seconds["claim and commit"] = time.process_time() - began
        owner = process_name()
        for name, action in {
            "status": ledger.counts,
            "claim of 4": lambda: ledger.claim(owner, 4),
            "claim of 4 in shard 7/100": lambda: ledger.claim(owner, 4, Shard(7, 100)),
            "index again, 1000 known": lambda: ledger.add(synthetic_ledger.indexed(range(1000))),
            "export CSV": lambda: write_csv(ledger, folder / "table.csv"),
            "export Parquet": lambda: write_parquet(ledger, folder / "table.parquet"),
        }.items():
            began = time.process_time()
            action()
            seconds[name] = time.process_time() - began
    sizes = {name: (folder / name).stat().st_size / 1e6 for name in ("archive.sqlite", "table.csv", "table.parquet")}
    return {name: round(value, 3) for name, value in seconds.items()} | {
        f"{name} MB": round(size, 1) for name, size in sizes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--alone", type=int, default=2 * HEARTS, help="studies that the pipeline alone is measured on")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the kills")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results: dict[str, Any] = {"machine": f"{os.cpu_count()} cores"}

    def tell(name: str, value: Any) -> None:
        results[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        if chosen.json is not None:
            chosen.json.write_text(json.dumps(results, indent=1) + "\n")

    weights = default_bundle_path()
    settings = Settings(str(weights), load_bundle(weights, self_test=False).sha256)
    with tempfile.TemporaryDirectory(prefix="mkd-archive-") as name:
        folder = Path(name)
        if chosen.studies:
            write_studies(folder / "pacs", chosen.studies)
            began = time.process_time()
            index_studies(folder, "undisturbed", chosen.studies)
            tell("index of DICOM, CPU ms a study", round(1000 * (time.process_time() - began) / chosen.studies, 1))
            pipeline_alone = alone(
                folder / "undisturbed", settings, min(chosen.alone, chosen.studies - 1), chosen.workers
            )
            tell("pipeline alone", pipeline_alone)
            archive = watched(folder / "undisturbed", chosen.workers, settings)
            tell("archive", archive)
            tell("overhead", archive["CPU s a study"] / pipeline_alone["CPU s a study"] - 1)
        if chosen.studies and chosen.kills:
            killed: list[dict[str, int]] = []
            while (left := chosen.kills - sum(sum(one.values()) for one in killed)) > 0:
                run = index_studies(folder, f"disturbed-{len(killed)}", chosen.studies)
                killed.append(disturbed(run, chosen.workers, settings, left, chosen.seed + len(killed)))
                tell("killed, by run", killed)
                assert final_table(run) == final_table(folder / "undisturbed"), "the tables differ"
                tell("equal rows", len(final_table(run)))
                tell("equal files", check_files(folder / "undisturbed", run))
        if chosen.rows:
            tell(f"ledger of {chosen.rows} rows, CPU s", million(folder / "million", chosen.rows))


if __name__ == "__main__":
    main()
