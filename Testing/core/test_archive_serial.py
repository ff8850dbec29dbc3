"""Folders segmented by one process without Dask: it goes on where another ended, and others can look on meanwhile."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest

from mkd_core.archive import ledger as ledgers
from mkd_core.archive.identity import Pseudonyms
from mkd_core.archive.index import index
from mkd_core.archive.ledger import LEDGER_NAME, Found, Ledger, rows_seen
from mkd_core.cli import main
from mkd_core.io.volumes import write_volume
from mkd_core.protocol import SegmentationOptions

pytest.importorskip("PIL")


def found(name: str) -> Found:
    return Found(name, "", "", "place", {"kind": "file", "path": f"{name}.nrrd"}, "CT")


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("has_psutil", [True, False])
def test_a_process_is_known_to_be_gone_or_there_with_psutil_and_without(monkeypatch, has_psutil):
    if not has_psutil:
        monkeypatch.setitem(sys.modules, "psutil", None)
        if os.name == "nt":
            pytest.skip("there, leases alone tell")
    name = ledgers.process_name()
    assert not ledgers._is_gone(name)
    host, _, _, rest = name.split("|")
    assert ledgers._is_gone(f"{host}|{ended_process()}|0.00|{rest}")
    assert not ledgers._is_gone(f"another host|{ended_process()}|0.00|{rest}")


def test_one_process_segments_all_that_waits_and_takes_over_what_a_dead_one_left(
    tmp_path, tiny_bundle_path, monkeypatch
):
    pytest.importorskip("torch")
    from mkd_core.archive import serial, study
    from mkd_core.archive.study import Settings
    from mkd_core.io import bundle
    from Testing.support.archive_faults import known_bundle
    from Testing.support.known_heart import known_volume

    monkeypatch.setattr(bundle, "load_bundle", known_bundle)
    source = tmp_path / "source"
    source.mkdir()
    write_volume(known_volume((64, 56, 56), (3.0, 3.0, 3.0))[0], source / "heart.nrrd", compress=False)
    (source / "broken.nii").write_bytes(bytes(1000))
    settings = Settings(str(tiny_bundle_path), known_bundle(tiny_bundle_path).sha256)
    seen = []
    with Ledger(tmp_path / "run", create=True) as ledger:
        index(ledger, [str(source)], Pseudonyms(bytes(32)))
        name = ledgers.process_name()
        dead = name.replace(f"|{os.getpid()}|", f"|{ended_process()}|")
        assert len(ledger.claim(dead, 2)) == 2
        final = serial.run_here(
            ledger,
            settings,
            SegmentationOptions(device="cpu", threads=1),
            progress=lambda state: seen.append((state.done, state.failed)),
        )
        assert (final.done, final.failed, final.finished, final.total) == (1, 1, 2, 2)
        assert sorted(map(sum, seen)) == [1, 2]
        rows = {row["state"]: row for row in ledger.rows()}
        assert (study.result_folder(ledger.folder, rows["done"]["id"]) / "labels.nrrd").is_file()
        assert rows["failed"]["reason_text"]
        again = serial.run_here(ledger, settings, SegmentationOptions(device="cpu", threads=1))
        assert (again.done, again.failed, again.finished) == (1, 1, 0)


def test_who_looks_on_never_waits_for_the_process_that_writes(tmp_path):
    with Ledger(tmp_path, create=True) as ledger:
        ledger.add([found("a"), found("b")])
    writer = sqlite3.connect(tmp_path / LEDGER_NAME, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE series SET state = 'running' WHERE id = 'a'")
    rows = rows_seen(tmp_path, 10)  # as it was before that
    assert [(row["id"], row["state"], row["source"]["path"]) for row in rows] == [
        ("a", "waiting", "a.nrrd"),
        ("b", "waiting", "b.nrrd"),
    ]
    writer.execute("COMMIT")
    assert rows_seen(tmp_path, 1)[0]["state"] == "running"
    writer.execute("PRAGMA journal_mode = DELETE")  # as on a shared disk
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BlockingIOError):
        rows_seen(tmp_path, 10)
    writer.close()


def test_what_belongs_to_one_way_to_run_is_refused_with_another(tmp_path, capsys, monkeypatch):
    with Ledger(tmp_path, create=True):
        pass
    assert main(["archive", "run", str(tmp_path), "--threads", "2"]) == 1
    assert "--here" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert main(["archive", "run", str(tmp_path)]) == 1
    assert "Dask" in (said := capsys.readouterr().err) and "--here" in said


def test_the_process_ends_with_the_program_that_started_it(tmp_path):
    code = "from mkd_core.archive.serial import end_with_input; end_with_input(); import time; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=600) == 0
