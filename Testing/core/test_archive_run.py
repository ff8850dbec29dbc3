"""Archives on real Dask workers: what dies at any moment costs nothing, and a study that kills workers costs itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.archive import ledger as ledgers
from mkd_core.archive import study
from mkd_core.archive.identity import Pseudonyms
from mkd_core.archive.index import index
from mkd_core.archive.ledger import Ledger
from mkd_core.archive.study import Settings
from mkd_core.cli import main
from mkd_core.errors import DeviceError
from mkd_core.io.volumes import write_volume
from mkd_core.protocol import SegmentationOptions
from Testing.support.archive_results import final_table
from Testing.support.known_heart import known_volume

pytest.importorskip("distributed")
pytest.importorskip("PIL")

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = "Testing.support.archive_faults"
LIMIT = 2 << 30


def wait_until(condition, process: subprocess.Popen | None = None) -> None:
    """Wait for an event, as long as it takes a very slow machine."""
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, "it never happened"
        assert process is None or process.poll() is None, "the process has ended"
        time.sleep(0.05)


def voxels_of_results(folder: Path) -> dict[str, bytes]:
    return {
        path.parent.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))).tobytes()
        for path in folder.glob("results/*/*/labels.nrrd")
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Six hearts, one of which holds its worker; a file that is no volume, and one that takes too much memory."""
    folder = tmp_path_factory.mktemp("source")
    for number, name in enumerate(("a", "b", "holding", "x", "y", "z")):
        image, _ = known_volume((64, 56, 56), (3.0 + 0.02 * number, 3.0, 3.0))
        write_volume(image, folder / f"{name}.nrrd", compress=False)
    (folder / "broken.nii").write_bytes(bytes(1000))
    (folder / "hungry.nrrd").write_bytes((folder / "a.nrrd").read_bytes())
    return folder


@pytest.fixture()
def indexed(source, tmp_path):
    """indexed(name): a run of its own with the same ids."""

    def make(name: str) -> Path:
        with Ledger(tmp_path / name, create=True) as ledger:
            index(ledger, [str(source)], Pseudonyms(bytes(32)))
        return tmp_path / name

    return make


def test_whatever_dies_the_table_is_that_of_an_undisturbed_run(indexed, source, tiny_bundle_path, monkeypatch):
    import dask

    from mkd_core.archive.run import Engine, run
    from Testing.support.archive_faults import known_bundle

    bundle = known_bundle(tiny_bundle_path)
    settings = Settings(str(tiny_bundle_path), bundle.sha256)

    # Without any cluster: what each study gives.
    undisturbed = indexed("undisturbed")
    with Ledger(undisturbed) as ledger:
        owner = ledgers.process_name()
        outcomes = [
            study.process(undisturbed, task, settings, bundle, SegmentationOptions(device="cpu", threads=1))
            for task in ledger.claim(owner, 100)
            if not task.source["path"].endswith("hungry.nrrd")
        ]
        ledger.commit(owner, outcomes)
        expected = final_table(ledger)
    assert [row["state"] for row in expected].count("done") == 6

    # All processes are killed while one study is worked on.
    disturbed = indexed("disturbed")
    hold = source / "hold"
    hold.touch()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mkd_core.cli import main; sys.exit(main(sys.argv[1:]))"
    command = ["archive", "run", str(disturbed), "--workers", "1", "--weights", str(tiny_bundle_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": PRELOAD},
        start_new_session=True,
    )
    try:
        with Ledger(disturbed) as ledger:
            [held] = [row["id"] for row in ledger.rows(with_origin=True) if "holding" in row["source"]["path"]]
        wait_until(lambda: study.was_started(disturbed, held), process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    hold.unlink()
    (study.result_folder(disturbed, held)).mkdir(parents=True, exist_ok=True)
    (study.result_folder(disturbed, held) / ".mkd-0123456789abcdef.nrrd").write_bytes(b"half a file")
    with Ledger(disturbed) as ledger:
        counts = ledger.state_counts()
        before = list(ledger.rows(states=("done", "failed")))
    assert 1 <= counts["running"] <= 2, "one is worked on, and one more at most is handed out"
    assert before, counts

    # The same command goes on; the study that takes too much memory is tried again and given up.
    monkeypatch.setattr(ledgers, "MAX_CRASHES", 2)
    with dask.config.set({"distributed.worker.preload": [PRELOAD]}), Ledger(disturbed) as ledger:
        progress = run(ledger, settings, Engine(workers=1, memory=LIMIT))
        assert (progress.done, progress.failed) == (6, 2)
        assert progress.loads and set(progress.loads.values()) == {1}, "weights are loaded once a process"
        rows = {row["id"]: row for row in ledger.rows(with_origin=True)}
        assert [rows[row["id"]]["finished"] for row in before] == [row["finished"] for row in before], "done twice"
        hungry = [row for row in rows.values() if row["source"]["path"].endswith("hungry.nrrd")]
        assert [(row["reason"], row["crashes"]) for row in hungry] == [("worker_died", 2)]
        hungry_id = hungry[0]["id"]
        assert [row for row in final_table(ledger) if row["id"] != hungry_id] == [
            row for row in expected if row["id"] != hungry_id
        ]
        assert run(ledger, settings, Engine(workers=1)).finished == 0, "nothing is left to do"

    assert voxels_of_results(disturbed) == voxels_of_results(undisturbed)
    assert len(voxels_of_results(disturbed)) == 6
    assert list(disturbed.rglob(".mkd-*")) == [] and list((disturbed / "running").iterdir()) == []
    for report in disturbed.glob("results/*/*/report.json"):
        assert {path.name for path in report.parent.iterdir()} == {
            "report.json",
            "labels.nrrd",
            "picture.webp",
            "thumbnail.webp",
        }
    assert np.all([len(found) for found in voxels_of_results(disturbed).values()])


# ---- where the work is done ----


@pytest.fixture()
def scheduler(tmp_path) -> Iterator[str]:
    """Address of a Dask scheduler on the loopback that has one worker, both in processes of their own."""
    place = tmp_path / "scheduler.json"
    loopback = ["--host", "127.0.0.1", "--no-dashboard"]
    commands = [
        ["scheduler", *loopback, "--port", "0", "--scheduler-file", str(place)],
        ["worker", *loopback, "--scheduler-file", str(place), "--nthreads", "1", "--no-nanny", "--preload", PRELOAD],
    ]

    def address() -> str:
        try:
            return json.loads(place.read_text(encoding="utf-8"))["address"]
        except ValueError:  # it is being written
            return ""

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    processes = []
    try:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
                )
            )
            wait_until(lambda: place.exists() and address() != "", processes[0])
        yield address()
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def job_of_the_documentation() -> list[str]:
    """The command of the job array, as the documentation has it, with its variables."""
    page = (ROOT / "docs" / "archive.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^mkd (archive run .*\$SLURM_ARRAY_TASK_ID.*)$", page, re.MULTILINE)
    return shlex.split(line)


def test_the_jobs_of_an_array_do_a_part_each_on_the_workers_of_a_cluster(scheduler, tiny_bundle_path, tmp_path, capsys):
    (tmp_path / "source").mkdir()
    for number in range(5):
        image, _ = known_volume((40, 36, 36), (4.5 + 0.02 * number, 4.5, 4.5))
        write_volume(image, tmp_path / "source" / f"{number}.nrrd", compress=False)
    run = tmp_path / "run"
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(tmp_path / "source")], Pseudonyms(bytes(32)))
    done = []
    for job in (1, 2, 2):
        words = [word.replace("$SLURM_ARRAY_TASK_ID/20", f"{job}/2") for word in job_of_the_documentation()]
        place = words.index("--workers")
        words[place : place + 2] = ["--scheduler", scheduler, "--weights", str(tiny_bundle_path)]
        assert main([str(run) if word == "runs/cohort" else word for word in words]) == 0, capsys.readouterr().err
        with Ledger(run) as ledger:
            done.append([row["number"] % 2 for row in ledger.rows(states=("done",))])
    assert set(done[0]) == {0} and done[1] == done[2] and len(done[1]) == 5, "parts do not overlap, and leave nothing"
    assert len(voxels_of_results(run)) == 5


def test_a_scheduler_that_does_not_answer_is_named(indexed, tiny_bundle_path, capsys, monkeypatch):
    from mkd_core.archive import run as runs

    monkeypatch.setattr(runs, "_ANSWERS_WITHIN_S", 1)
    command = ["archive", "run", str(indexed("alone")), "--scheduler", "tcp://127.0.0.1:9"]
    assert main([*command, "--weights", str(tiny_bundle_path)]) == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_graphics_cards_that_are_not_there_are_told_and_nothing_is_begun(
    indexed, tiny_bundle_path, capsys, monkeypatch
):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    run = indexed("without")
    assert main(["archive", "run", str(run), "--gpus", "all", "--weights", str(tiny_bundle_path)]) == 1
    assert "This computer has no graphics cards that PyTorch can use" in capsys.readouterr().err
    with Ledger(run) as ledger:
        assert ledger.get("settings") is None and ledger.state_counts()["waiting"] == 8


@pytest.mark.parametrize(
    ("visible", "wanted", "cards"),
    [(None, "all", ["0", "1", "2"]), (None, "2", ["0", "1"]), ("5,GPU-7", "all", ["5", "GPU-7"]), ("5,7", "1", ["5"])],
)
def test_every_worker_is_pinned_to_a_graphics_card_of_its_own(monkeypatch, visible, wanted, cards):
    import torch

    from mkd_core.archive.run import Engine, _environments

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _environments(Engine(gpus=wanted)) == [{"CUDA_VISIBLE_DEVICES": card} for card in cards]
    assert _environments(Engine(workers=2)) == [{"CUDA_VISIBLE_DEVICES": ""}] * 2, "processors do without"
    with pytest.raises(DeviceError, match=f"This computer has {3 if visible is None else 2} graphics cards"):
        _environments(Engine(gpus="4"))


def test_workers_see_their_card_alone_and_the_pages_of_dask_are_shown(monkeypatch):
    pytest.importorskip("bokeh")
    import dask
    import torch
    from distributed import Client, SpecCluster

    from mkd_core.archive.run import _OWN_CLUSTER, Engine, _specification

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    specification = _specification(Engine(gpus="all", dashboard=True))
    with dask.config.set(_OWN_CLUSTER), SpecCluster(**specification) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=300)
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["0", "1"]
        assert set(client.run(os.getenv, "MALLOC_ARENA_MAX").values()) == {"1"}
        assert all(worker.startswith("tls://127.0.0.1:") for worker in client.nthreads())
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(client.dashboard_link, timeout=300) as page:
            assert "docs_json" in page.read().decode("utf-8"), "Bokeh draws nothing"


def test_the_dashboard_without_its_package_is_refused_in_words(indexed, capsys, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bokeh" else found(name))
    assert main(["archive", "run", str(indexed("plain")), "--dashboard"]) == 1
    assert "pip install bokeh" in capsys.readouterr().err


@pytest.mark.parametrize("limit, most", [(None, 4 << 30), (2 << 30, 3 << 29), (64 << 30, 4 << 30)])
def test_a_worker_returns_what_a_large_study_leaves_and_keeps_what_the_next_one_needs(
    monkeypatch, tiny_bundle_path, limit, most
):
    import torch

    from mkd_core.archive import run
    from mkd_core.inference import memory, pipeline
    from mkd_core.io import bundle
    from Testing.support.archive_faults import known_bundle

    monkeypatch.setattr(bundle, "load_bundle", known_bundle)
    monkeypatch.setattr(pipeline, "warm", lambda *_: None)
    # This process stays as it is.
    monkeypatch.setattr(memory, "retain_memory", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(sitk.ProcessObject, "SetGlobalDefaultNumberOfThreads", lambda _: None)
    monkeypatch.setattr(run, "_resident", lambda: 1 << 30)
    prepared = run._Prepared(Settings(str(tiny_bundle_path), known_bundle(tiny_bundle_path).sha256), Path(), False)
    prepared.setup(SimpleNamespace(memory_manager=SimpleNamespace(memory_limit=limit)))
    released = []
    monkeypatch.setattr(memory, "release_memory", lambda: released.append(True))
    for held, count in ((most, 0), (most + 1, 1), (most // 2, 1)):
        monkeypatch.setattr(run, "_resident", lambda held=held: held)
        prepared.give_back()
        assert len(released) == count
    released.clear()
    for _ in range(2 * run._GIVE_BACK_EVERY):  # whatever they need
        prepared.give_back()
    assert len(released) == 2


# ---- what the benchmark makes of its figures ----


def test_figures_of_a_run_that_was_interrupted_are_those_of_all_its_stretches():
    pytest.importorskip("pydicom")
    from Testing.benchmarks.archive import alone_beside, joined

    memory = [(done, worker, 1000.0 + worker * done) for done in range(41) for worker in (0, 2)]
    memory[:0] = [(done, 1, 1000.0 + done) for done in range(20)]  # it died
    short = {"studies": 10, "CPU s": 30.0, "s": 200.0, "CPU s to start": 20.0, "MiB": [(1, 1, 6000.0)]}
    long = {"studies": 40, "CPU s": 45.0, "s": 160.0, "CPU s to start": 10.0, "MiB": memory}
    figures = joined([short, long])
    assert (figures["studies"], figures["CPU s a study"], figures["studies an hour"]) == (50, 1.5, 500.0)
    assert figures["CPU s to start"] == 15.0 and figures["MiB of a worker, most"] == 6000.0
    quarters = [figures[f"MiB of a worker, {part} quarter"] for part in ("second", "last")]
    assert quarters == [np.mean(range(1010, 1020)), np.mean(range(1030, 1041))]
    assert [one["MiB more with 100 studies, least"] for one in figures["workers"]] == [0.0, 200.0], "of one stretch"
    assert [one["MiB more with 100 studies, most"] for one in figures["workers"]] == [0.0, 200.0]
    assert figures["workers"][1]["MiB in quarters of the run, least"] == [1000, 1020, 1040, 1060]
    assert figures["workers"][1]["MiB in quarters of the run, most"] == [1020, 1040, 1060, 1080]
    assert alone_beside([short | {"alone": {"s": 2.0}}, long | {"alone": {"s": 1.0}}]) == {"s": 1.2}, "by their studies"


@pytest.mark.parametrize(
    ("specified", "alive", "dead"),
    [(2, [True, True], False), (2, [True, False], True), (2, [True], True), (1, [], True)],
)
def test_a_worker_that_dask_has_given_up_is_missed(specified, alive, dead):
    from mkd_core.archive.run import _has_dead_workers

    nannies = {number: SimpleNamespace(is_alive=lambda one=one: one) for number, one in enumerate(alive)}
    cluster = SimpleNamespace(workers=nannies, worker_spec=dict.fromkeys(range(specified)))
    assert _has_dead_workers(SimpleNamespace(cluster=cluster)) == dead
    assert not _has_dead_workers(SimpleNamespace(cluster=None))
