"""What an archive run costs, and that it cannot be broken: generated DICOM studies, two workers, kill -9 at random.

    python -m Testing.benchmarks.archive [PART ...] [--folder FOLDER [--minutes 7]] [--json FILE]
                                         [--studies 300] [--killed 300] [--kills 20] [--rows 1000000] [--workers 2]

Parts, all of them in this order if none is named:

- ``studies`` generates the studies and indexes them.
- ``archive`` runs all of them; studies an hour, CPU seconds a study without the start of the workers, and memory of
  the workers over time.  Before and after, as many warm processes as workers do some of the studies without ledger and
  Dask: read, segment and write the labels (the pipeline alone), and the same with the report and pictures that the
  archive also writes.  Overhead is the archive's CPU time a study over that of each of the two.
- ``kills`` runs the first studies again, while workers, the client and all processes are killed at random moments, and
  once more if it ends before so many kills; final table and files must equal those of the undisturbed run.
- ``ledger`` makes one of a million rows: CPU seconds for index, status, export and a claim.

A part that is run again in the same folder goes on where it was, and its figures join those of the file.  After so many
minutes ``archive`` and ``kills`` end with one more kill.

Linux only: CPU time and memory are read from /proc, by psutil.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk

from mkd_core.archive import study
from mkd_core.archive.export import write_csv, write_parquet
from mkd_core.archive.identity import Pseudonyms
from mkd_core.archive.index import index
from mkd_core.archive.ledger import LEDGER_NAME, Ledger, Shard, Task, process_name
from mkd_core.archive.study import Settings
from mkd_core.inference import pipeline
from mkd_core.inference.memory import retain_memory
from mkd_core.io import dicom
from mkd_core.io.atomic import write_text
from mkd_core.io.bundle import default_bundle_path, load_bundle
from mkd_core.io.volumes import write_volume
from mkd_core.protocol import SegmentationOptions
from Testing.support import synthetic_ledger
from Testing.support.archive_results import final_table
from Testing.support.dicom_exports import write_export

#: Hearts that the studies are variations of, and the spacing of their CT, mm.
HEARTS, SPACING = 6, (1.6, 1.6, 2.5)

KEY = bytes(32)


def write_studies(folder: Path, count: int) -> None:
    """Generated cardiac CT as DICOM: oblique by a few degrees, another noise and another brightness each."""
    from mkd_core.synthesis import synthesize

    hearts = [synthesize(None, "CT", seed, spacing=2.0)[0] for seed in range(min(HEARTS, count))]
    for number in range(count):
        place = folder / f"{number // 100:02d}" / f"{number:04d}"
        if place.exists():
            continue
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
        draft = folder.with_name("draft")
        shutil.rmtree(draft, ignore_errors=True)
        write_export(noisy, draft, 1, study=str(1000 + number))
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(place)


def index_studies(folder: Path, name: str, count: int) -> Path:
    """A new run of the first of the generated studies."""
    run = folder / name
    if not (run / LEDGER_NAME).exists():
        sources = sorted(str(place) for place in (folder / "pacs").glob("*/*"))[:count]
        with Ledger(folder / f"{name}-draft", create=True) as ledger:
            assert index(ledger, sources, Pseudonyms(KEY)).new == count
        (folder / f"{name}-draft").rename(run)
    return run


def alone(run: Path, settings: Settings, count: int, workers: int) -> dict[str, float]:
    """CPU seconds a study without ledger and Dask, warm; in as many processes at a time as there are workers, because
    they share caches and memory.
    """
    code = "\n".join(
        [
            f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})",
            "from pathlib import Path; from Testing.benchmarks.archive import Settings, measure_alone",
            f"measure_alone(Path({str(run)!r}), {settings!r}, {count})",
        ]
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(workers)]
    figures = [json.loads(process.communicate()[0]) for process in processes]
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


def measure_alone(run: Path, settings: Settings, count: int) -> None:
    """Print what :func:`alone` returns; in a process of its own, set up as workers are."""
    import torch

    retain_memory()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    bundle = load_bundle(settings.weights)
    options = SegmentationOptions(device="cpu", threads=1)
    with Ledger(run) as ledger, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = list(itertools.islice(ledger.rows(with_origin=True), count + 1))
        plain, inner, with_all = [], [], []
        for row in rows:
            start = time.process_time()
            image, _ = dicom.read(dicom.Series.from_dict(row["source"]["series"]))
            before = time.process_time()
            result = pipeline.segment(image, bundle, options=options)
            inner.append(time.process_time() - before)
            write_volume(result.labels, folder / "labels.nrrd")
            plain.append(time.process_time() - start)
            start = time.process_time()
            task = Task(row["number"], row["id"], row["source"], row["modality"], 1)
            assert study.process(folder, task, settings, bundle, options).state == "done"
            with_all.append(time.process_time() - start)
    # The first is cold.
    figures = {"CPU s a study": plain, "of which segmentation": inner, "with report and pictures": with_all}
    print(json.dumps({name: float(np.mean(values[1:])) for name, values in figures.items()}))


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


def watched(run: Path, workers: int, settings: Settings, deadline: float) -> dict[str, Any] | None:
    """Run until the end or a moment of :func:`time.monotonic`, looking at the CPU time and memory of all processes;
    None if there was too little to do.
    """
    with Ledger(run) as ledger:
        before = finished(ledger)
        process = start(run, workers, settings)
        client = psutil.Process(process.pid)
        cpu: dict[int, float] = {}
        at_first: tuple[int, float, float] | None = None
        memory: list[tuple[int, int, float]] = []
        while process.poll() is None:
            time.sleep(0.5)
            done = finished(ledger) - before
            try:
                cpu |= {one.pid: sum(one.cpu_times()[:2]) for one in (client, *client.children(recursive=True))}
                memory += [(done, one.pid, one.memory_info().rss / 2**20) for one in workers_of(client)]
            except psutil.Error:
                continue
            if at_first is None and done >= 2 * workers:  # all are warm
                at_first = done, sum(cpu.values()), time.monotonic()
            if time.monotonic() > deadline and at_first is not None and done > at_first[0]:
                kill(process, "client", random.Random())
        done = finished(ledger) - before
    if at_first is None or done == at_first[0]:
        return None
    first, cpu_before, began = at_first
    return {
        "studies": done - first,
        "CPU s": sum(cpu.values()) - cpu_before,
        "s": time.monotonic() - began,
        "CPU s to start": cpu_before,
        "MiB": memory,
    }


def finished(ledger: Ledger) -> int:
    """How many studies have come to an end."""
    counts = ledger.state_counts()
    return counts["done"] + counts["failed"]


def joined(stretches: list[dict[str, Any]]) -> dict[str, float]:
    """Figures of all stretches of a run; memory of the longest, because each has workers of its own."""
    longest = max(stretches, key=lambda one: one["studies"])
    most = longest["MiB"][-1][0]
    early = [size for at, _, size in longest["MiB"] if most // 4 <= at < most // 2]
    late = [size for at, _, size in longest["MiB"] if at >= 3 * most // 4]
    # Those that died on the way, or replaced others, do not tell how memory grows.
    workers = sorted(
        {pid for at, pid, _ in longest["MiB"] if at <= most // 4} & {pid for _, pid, _ in longest["MiB"][-20:]}
    )
    total = {name: sum(one[name] for one in stretches) for name in ("studies", "CPU s", "s")}
    return {
        "studies": total["studies"],
        "CPU s a study": total["CPU s"] / total["studies"],
        "studies an hour": 3600 * total["studies"] / total["s"],
        "CPU s to start": float(np.mean([one["CPU s to start"] for one in stretches])),
        "studies in which memory was watched": longest["studies"],
        "MiB of a worker, second quarter": float(np.mean(early)),
        "MiB of a worker, last quarter": float(np.mean(late)),
        "MiB of a worker, most": max(size for one in stretches for *_, size in one["MiB"]),
        "workers": [growth(longest["MiB"], worker, most) for worker in workers],
    }


def growth(memory: Sequence[tuple[int, int, float]], worker: int, most: int) -> dict[str, Any]:
    """Memory of one worker over a run of so many studies: the least and the most in its quarters, of which the first
    begins with the start of the worker.  The least is what stays after it has given back what it kept, so that grows if
    anything is never freed.
    """
    seen = np.array([(at, size) for at, pid, size in memory if pid == worker])
    quarters = [seen[(seen[:, 0] >= most * n / 4) & (seen[:, 0] <= most * (n + 1) / 4), 1] for n in range(4)]
    ends = [(float(part.min()), float(part.max())) for part in quarters if len(part)]
    (least_before, most_before), (least_after, most_after) = ends[1], ends[-1]
    per_100 = 100 / (most / 2)  # from the middle of the second quarter to that of the last
    return {
        "MiB in quarters of the run, least": [round(low) for low, _ in ends],
        "MiB in quarters of the run, most": [round(high) for _, high in ends],
        "MiB more with 100 studies, least": round(per_100 * (least_after - least_before), 1),
        "MiB more with 100 studies, most": round(per_100 * (most_after - most_before), 1),
    }


def alone_beside(stretches: list[dict[str, Any]]) -> dict[str, float]:
    """CPU seconds a study of the pipeline alone: what was measured beside each stretch counts as much as its studies,
    because other work on the computer makes both slower.
    """
    studies = [one["studies"] for one in stretches]
    return {
        name: float(np.average([one["alone"][name] for one in stretches], weights=studies))
        for name in stretches[0]["alone"]
    }


def disturbed(
    run: Path, workers: int, settings: Settings, kills: int, chance: random.Random, deadline: float
) -> dict[str, int]:
    """Run to the end or to a moment of :func:`time.monotonic`, killing a worker, the client or everything at random
    moments; returns how many were killed.
    """
    killed = {"worker": 0, "client": 0, "everything": 0}
    process = start(run, workers, settings)
    with Ledger(run) as ledger:
        while True:
            # Anywhere between the first moment of the client and some studies later; with all kills done, at the end.
            is_last = sum(killed.values()) >= kills
            goal = float("inf") if is_last else finished(ledger) + chance.choice((0, 0, 1, 1, 2))
            while process.poll() is None and finished(ledger) < goal and time.monotonic() < deadline:
                time.sleep(0.1)
            moment = time.monotonic() + chance.uniform(0, 4)
            while process.poll() is None and time.monotonic() < min(moment, deadline):
                time.sleep(0.01)
            if time.monotonic() >= deadline and process.poll() is None:
                kill(process, "everything", chance)
                killed["everything"] += 1
                return killed
            counts = ledger.state_counts()
            if is_last or counts["waiting"] + counts["running"] == 0:
                assert process.wait() == 0
                return killed
            kind = chance.choice(list(killed))
            if not kill(process, kind, chance):
                continue
            killed[kind] += 1
            if kind != "worker":
                process = start(run, workers, settings)


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


def check_equal(undisturbed: Path, run: Path) -> tuple[int, int]:
    """Number of rows and of files of a run, which equal those of an undisturbed run: files byte by byte or, where
    reports tell the time, in what they say.
    """
    with Ledger(run) as ledger, Ledger(undisturbed) as reference:
        rows = final_table(ledger)
        ids = {row["id"] for row in rows}
        assert rows == [row for row in final_table(reference) if row["id"] in ids], "the tables differ"
        assert all(row["state"] == "done" for row in rows)

    def files(of_run: Path) -> dict[str, Path]:
        found = (path for path in of_run.glob("results/*/*/*") if path.parent.name in ids)
        return {str(path.relative_to(of_run)): path for path in found}

    first, second = files(undisturbed), files(run)
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    for name in first:
        contents = [path.read_bytes() for path in (first[name], second[name])]
        if name.endswith("report.json"):
            contents = [json.dumps(json.loads(content)["summary"]).encode() for content in contents]
        assert contents[0] == contents[1], name
    assert not list((run / "running").iterdir())
    return len(rows), len(first)


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
                dataclasses.replace(templates[task.number % 1000], id=task.id)
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


class Bench:
    """What all parts share: the arguments, the folder, and the figures that go into the file."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self.chosen = chosen
        self.folder = folder
        self.undisturbed = folder / "undisturbed"
        weights = default_bundle_path()
        self.settings = Settings(str(weights), load_bundle(weights, self_test=False).sha256)
        self.results: dict[str, Any] = {"machine": f"{os.cpu_count()} cores"}
        if chosen.json is not None and chosen.json.exists():
            self.results = json.loads(chosen.json.read_text(encoding="utf-8"))

    def deadline(self) -> float:
        return time.monotonic() + 60 * (self.chosen.minutes or float("inf"))

    def tell(self, name: str, value: Any) -> None:
        self.results[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        if self.chosen.json is not None:
            write_text(self.chosen.json, json.dumps(self.results, indent=1) + "\n")

    def appended(self, name: str, *values: Any) -> list[Any]:
        """All values that were kept under a name in the folder, by this call and those before."""
        path = self.folder / f"{name}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        write_text(path, json.dumps([*kept, *values]))
        return [*kept, *values]

    def studies(self) -> None:
        write_studies(self.folder / "pacs", self.chosen.studies)
        if not self.undisturbed.exists():
            began = time.process_time()
            index_studies(self.folder, "undisturbed", self.chosen.studies)
            each = 1000 * (time.process_time() - began) / self.chosen.studies
            self.tell("index of DICOM, CPU ms a study", round(each, 1))

    def archive(self) -> None:
        deadline = self.deadline()
        with Ledger(self.undisturbed) as ledger:
            if finished(ledger) == self.chosen.studies:
                return
        count = min(2 * HEARTS, self.chosen.studies - 1)
        before = alone(self.undisturbed, self.settings, count, self.chosen.workers)
        stretch = watched(self.undisturbed, self.chosen.workers, self.settings, deadline)
        after = alone(self.undisturbed, self.settings, count, self.chosen.workers)
        if stretch is None:
            return
        stretch["alone"] = {name: (before[name] + after[name]) / 2 for name in before}
        stretches = self.appended("stretches", stretch)
        pipeline_alone = alone_beside(stretches)
        self.tell("pipeline alone", pipeline_alone)
        archive = joined(stretches)
        self.tell("archive", archive)
        cpu = archive["CPU s a study"]
        self.tell("overhead", cpu / pipeline_alone["CPU s a study"] - 1)
        self.tell("overhead without report and pictures", cpu / pipeline_alone["with report and pictures"] - 1)

    def kills(self) -> None:
        deadline = self.deadline()
        killed = self.appended("killed")
        count = min(self.chosen.killed, self.chosen.studies)
        while time.monotonic() < deadline:
            runs = sorted(self.folder.glob("disturbed-*[0-9]"))
            unfinished = [run for run in runs if not (run / "equal").exists()]
            left = self.chosen.kills - sum(one["worker"] + one["client"] + one["everything"] for one in killed)
            if left <= 0 and not unfinished:
                return
            run = unfinished[0] if unfinished else index_studies(self.folder, f"disturbed-{len(runs)}", count)
            chance = random.Random(self.chosen.seed + len(killed))
            one = disturbed(run, self.chosen.workers, self.settings, left, chance, deadline)
            killed = self.appended("killed", {"run": run.name, **one})
            with Ledger(run) as ledger:
                is_done = finished(ledger) == count
            if is_done:
                rows, files = check_equal(self.undisturbed, run)
                (run / "equal").touch()
                equal = {run.name for run in self.folder.glob("disturbed-*[0-9]") if (run / "equal").exists()}
                counted = [each for each in killed if each["run"] in equal]
                self.tell("killed", {kind: sum(each[kind] for each in counted) for kind in one})
                self.tell("equal rows", rows)
                self.tell("equal files", files)

    def ledger(self) -> None:
        shutil.rmtree(self.folder / "million", ignore_errors=True)
        figures = million(self.folder / "million", self.chosen.rows)
        self.tell("ledger, CPU s", {"rows": self.chosen.rows, **figures})
        shutil.rmtree(self.folder / "million")


PARTS = ("studies", "archive", "kills", "ledger")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="keeps studies and runs from call to call")
    parser.add_argument("--minutes", type=float, help="end archive and kills after so long, to go on in the next call")
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--killed", type=int, default=300, help="studies of the runs that are disturbed")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the kills")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with contextlib.ExitStack() as stack:
        if chosen.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mkd-archive-")))
        else:
            folder = chosen.folder
            folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(chosen, folder)
        for part in chosen.parts or PARTS:
            getattr(bench, part)()


if __name__ == "__main__":
    main()
