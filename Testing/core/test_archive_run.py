"""Archives on real Dask workers: what dies at any moment costs nothing, and a study that kills workers costs itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.archive import ledger as ledgers
from mkd_core.archive import study
from mkd_core.archive.identity import Pseudonyms
from mkd_core.archive.index import index
from mkd_core.archive.ledger import Ledger
from mkd_core.archive.study import Settings
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
    end = time.monotonic() + 300
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
    assert counts["running"] >= 1 and before, counts

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
