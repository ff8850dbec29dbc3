"""The parts of an archive run that need no workers: ids, ledger, index, single studies, tables, decisions."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sqlite3
import stat
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.archive import ledger as ledgers
from mkd_core.archive import report as reports
from mkd_core.archive import study
from mkd_core.archive.export import table, write_csv, write_parquet
from mkd_core.archive.identity import (
    Pseudonyms,
    anonymous,
    default_key_path,
    public_text,
    read_key,
    without_names,
)
from mkd_core.archive.index import index
from mkd_core.archive.ledger import LEDGER_NAME, Found, Ledger, Outcome, Review, Shard
from mkd_core.archive.report import modified_z_scores_exceed, read_reviews, write_report
from mkd_core.archive.study import Settings
from mkd_core.cli import main
from mkd_core.errors import InputError
from mkd_core.io.volumes import write_volume
from mkd_core.measure.messages import finding
from mkd_core.protocol import SegmentationOptions
from Testing.support import synthetic_ledger
from Testing.support.known_heart import KnownBundle, known_volume

pytest.importorskip("psutil")

KEY = bytes(range(32))
ONE_THREAD = SegmentationOptions(device="cpu", threads=1)
NAME = "Miller-Anna-19610203"


def found(number: int) -> Found:
    return Found(f"{number:032x}", "", "", "/archive", {"kind": "file", "path": f"/archive/{number}.nrrd"}, "CT")


@pytest.fixture()
def ledger(tmp_path):
    with Ledger(tmp_path / "run", create=True) as opened:
        yield opened


def states(ledger: Ledger) -> list[str]:
    return [row["state"] for row in ledger.rows()]


# ---- ids ----


def test_a_key_is_made_once_for_its_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME" if os.name == "posix" else "APPDATA", str(tmp_path))
    path = default_key_path()
    key = read_key(path)
    assert len(key) == 32 and read_key(path) == key
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        with pytest.raises(InputError, match="chmod 600"):
            read_key(path)
    other = tmp_path / "other"
    other.write_text("no key\n")
    other.chmod(0o600)
    with pytest.raises(InputError, match="holds no key"):
        read_key(other)


def test_an_id_depends_on_key_kind_and_identifier_and_is_no_plain_hash():
    ids = {
        Pseudonyms(key).of(kind, identifier)
        for key in (KEY, bytes(32))
        for kind in ("patient", "study")
        for identifier in ("1.2.3", "1.2.4")
    }
    assert len(ids) == 8 and all(len(one) == 32 for one in ids)
    # RFC 2104 by hand.
    import hashlib

    inner, outer = (bytes(byte ^ pad for byte in KEY.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    digest = hashlib.sha256(outer + hashlib.sha256(inner + b"study\x001.2.3").digest()).hexdigest()
    assert Pseudonyms(KEY).of("study", "1.2.3") == digest[:32]
    assert Pseudonyms(KEY).of("study", "") == ""


def test_no_name_passes_from_messages_into_tables():
    assert without_names(f"“{NAME}.nii.gz” is empty. See “x”.") == "“…” is empty. See “…”."
    told = anonymous(finding("no_orientation", file=f"{NAME}.nrrd"))
    assert dict(told.figures) == {}
    lost = finding("dicom_slices_missing", file=NAME, count=2, from_slice=3, to_slice=4, mm=6.0, usual_mm=2.0)
    assert "about 2 in all" in public_text(lost) and NAME not in public_text(lost) and "{" not in public_text(lost)
    kept = anonymous(finding("left_of", first="RA", second="LV"))
    assert dict(kept.figures) == {"first": "RA", "second": "LV"}
    assert anonymous(finding("too_few_voxels", size="4 x 512 x 512", needed=4)).figures["size"] == "4 x 512 x 512"
    assert anonymous(finding("text", text="1.2.840.113619.2")).figures["text"] == "…"


# ---- ledger ----


def test_a_row_is_leased_to_one_process_and_counts_for_it_alone(ledger):
    assert ledger.add(map(found, range(4))) == 4
    assert ledger.add(map(found, range(5))) == 1, "what is known stays"
    first = ledger.claim("a", 3)
    assert [task.source["path"] for task in first] == [f"/archive/{n}.nrrd" for n in range(3)]
    assert [task.id for task in ledger.claim("b", 9)] == [found(3).id, found(4).id]
    assert ledger.claim("c", 1) == []
    done = Outcome(first[0].id, "done", summary={"x": 1}, doubt=1.0, severity="none")
    assert ledger.commit("b", [done]) == 0
    assert ledger.commit("a", [done]) == 1
    assert ledger.commit("a", [done]) == 0, "a result comes into the ledger once"
    ledger.release("a")
    assert states(ledger) == ["done", "waiting", "waiting", "running", "running"]
    assert [task.attempt for task in ledger.claim("c", 9)] == [2, 2]


def test_rows_of_processes_that_are_gone_or_silent_are_taken_over(ledger, monkeypatch):
    ledger.add(map(found, range(3)))
    mine = ledgers.process_name()
    host, pid, created, token = mine.split("|")
    ledger.claim(mine, 1)
    ledger.claim(f"{host}|{pid}|{float(created) - 500}|{token}", 1)  # an earlier process of the same number
    ledger.claim(f"elsewhere|1|0|{token}", 1)
    assert [one for one, _ in ledger.abandoned()] == [found(1).id]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ledgers.LEASE_S - 1)
    ledger.renew(mine)
    monkeypatch.setattr(time, "time", lambda: now + ledgers.LEASE_S + 1)
    gone = ledger.abandoned()
    assert sorted(one for one, _ in gone) == [found(1).id, found(2).id]
    for identifier, owner in gone:
        ledger.take_over(identifier, owner, was_started=True)
    assert states(ledger) == ["running", "waiting", "waiting"]


def test_a_study_that_kills_workers_comes_last_and_is_given_up(ledger):
    ledger.add(map(found, range(2)))
    for _ in range(ledgers.MAX_CRASHES):
        tasks = ledger.claim("a", 2)
        bad = next(task for task in tasks if task.id == found(0).id)
        assert bad is (tasks[0] if bad.attempt == 1 else tasks[1])
        ledger.count_crash("a", bad.id)
        ledger.release("a")
    assert states(ledger) == ["failed", "waiting"]
    [row] = ledger.rows(states=("failed",))
    assert row["reason"] == "worker_died"
    assert ledger.retry("no_heart") == 0
    assert ledger.retry() == 1 and states(ledger) == ["waiting", "waiting"]
    assert ledger.claim("a", 1)[0].id == found(0).id, "with all chances again"


def test_the_death_of_a_whole_run_is_held_against_a_study_later_and_only_if_it_had_begun(ledger):
    ledger.add([found(0)])
    for _ in range(50):
        ledger.claim("a", 1)
        ledger.take_over(found(0).id, "a", was_started=False)
    assert states(ledger) == ["waiting"]
    for _ in range(ledgers.MAX_INTERRUPTIONS):
        assert ledger.claim("a", 1)
        ledger.take_over(found(0).id, "a", was_started=True)
    assert states(ledger) == ["failed"]


def test_shards_are_disjoint_and_complete(ledger):
    ledger.add(map(found, range(50)))
    shards = [{task.id for task in ledger.claim("a", 99, Shard(number, 7))} for number in range(1, 8)]
    assert sum(map(len, shards)) == 50 == len(set().union(*shards))
    assert ledger.state_counts(Shard(1, 7))["running"] == len(shards[0])
    with pytest.raises(InputError):
        Shard(8, 7)


@pytest.mark.parametrize(("shared", "mode"), [(False, "wal"), (True, "delete")])
def test_the_write_ahead_log_is_used_where_the_disk_allows(tmp_path, monkeypatch, shared, mode):
    monkeypatch.setattr(ledgers, "_is_shared", lambda path: shared)
    with Ledger(tmp_path, create=True):
        connection = sqlite3.connect(tmp_path / ledgers.LEDGER_NAME)
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
        connection.close()
    assert stat.S_IMODE((tmp_path / ledgers.LEDGER_NAME).stat().st_mode) == 0o600 or os.name == "nt"


def test_a_folder_without_a_ledger_and_a_file_that_is_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="no archive run"):
        Ledger(tmp_path)
    (tmp_path / ledgers.LEDGER_NAME).write_bytes(b"something else, and long enough to be looked at" * 100)
    with pytest.raises(InputError, match="cannot be used"):
        Ledger(tmp_path)


# ---- index ----


def write_source(folder: Path) -> Path:
    """A folder with volumes as people keep them; names tell who they are of."""
    (folder / NAME).mkdir(parents=True)
    image, _ = known_volume((48, 40, 40), (4.0, 4.0, 4.0))
    write_volume(image, folder / NAME / "ct.nii.gz")
    write_volume(image, folder / f"{NAME}.nrrd")
    (folder / f"{NAME}-broken.mha").write_text("not a volume")
    (folder / NAME / "._ct.nii.gz").write_bytes(b"a Mac was here")
    with zipfile.ZipFile(folder / "more.zip", "w") as packed:
        packed.write(folder / NAME / "ct.nii.gz", f"{NAME}/ct.nii.gz")
        packed.writestr("readme.txt", "")
    return folder


@pytest.fixture()
def source(tmp_path) -> Path:
    return write_source(tmp_path / "source")


def test_volumes_are_found_once_and_the_run_may_lie_among_them(source):
    run = source / NAME / "runs" / "run"
    for expected in (4, 0):
        with Ledger(run, create=True) as ledger:
            summary = index(ledger, [str(source)], Pseudonyms(KEY))
            assert (summary.new, summary.known) == (expected, 4 - expected)
            (run / "results").mkdir(exist_ok=True)  # what a run leaves is nothing to segment
            shutil.copy(source / f"{NAME}.nrrd", run / "results" / "labels.nrrd")
    with Ledger(run) as ledger, pytest.raises(InputError, match="another key"):
        index(ledger, [str(source)], Pseudonyms(bytes(32)))
    with Ledger(run) as ledger, pytest.raises(InputError, match="netrc"):
        index(ledger, ["https://me:secret@pacs/dicom-web"], Pseudonyms(KEY))
    with Ledger(run) as ledger, pytest.raises(InputError, match="no file or folder"):
        index(ledger, [str(source / "nowhere")], Pseudonyms(KEY))


@pytest.mark.skipif(os.name == "nt", reason="such names and pipes are of other systems")
def test_what_lies_beside_the_volumes_of_an_archive_never_ends_its_index(source, tmp_path):
    place = os.fsencode(source) + b"/M\xfcller"  # Latin-1, as old disks have it
    try:
        os.mkdir(place)
    except OSError:
        pytest.skip("this disk takes UTF-8 only")
    (source / f"{NAME}.nrrd").rename(os.fsdecode(place) + "/broken.nrrd")
    (source / NAME / "slice").symlink_to(source / "nowhere")
    (source / "gone").symlink_to(source / "nowhere")
    os.mkfifo(source / NAME / "pipe")
    packed = (source / "more.zip").read_bytes()
    (source / "names.zip").write_bytes(packed.replace(NAME[:6].encode(), "Mül".encode("latin-1").ljust(6, b"\xfc")))
    with zipfile.ZipFile(source / "utf8.zip", "w") as archive:
        archive.writestr("Müller/ct.nrrd", b"")
    (source / "utf8.zip").write_bytes((source / "utf8.zip").read_bytes().replace("ü".encode(), b"\xfc\xfc"))
    with Ledger(tmp_path / "run", create=True) as ledger:
        summary = index(ledger, [str(source)], Pseudonyms(KEY))
        assert summary.new == 5
        assert {code: number for (code, _), number in summary.aside.items()} == {
            "dicom_gone": 2,
            "dicom_not_dicom": 3,  # the pipe, and the notes in the archives
            "dicom_archive_damaged": 1,
        }
        [task] = [task for task in ledger.claim("a", 9) if task.source["path"].endswith("/broken.nrrd")]
        with study.opened_volume(task.source) as image:
            assert image.GetSize() == (48, 40, 40)
        error = InputError(f"“{task.source['path']}” is empty.")
        ledger.commit("a", [study.failure(task.id, error)])
        for name, write in {"t.csv": write_csv, "t.parquet": write_parquet}.items():
            write(ledger, tmp_path / name, with_paths=True)
        assert index(ledger, [str(source)], Pseudonyms(KEY)).new == 0
    assert r"/M\udcfcller/broken.nrrd" in (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_found(source, tmp_path, monkeypatch):
    (source / "closed" / "deep").mkdir(parents=True)
    scan = os.scandir

    def closed(path="."):
        if "closed" in os.fsdecode(path):
            raise PermissionError(13, os.strerror(13), os.fsdecode(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with Ledger(tmp_path / "run", create=True) as ledger:
        summary = index(ledger, [str(source)], Pseudonyms(KEY))
    assert summary.new == 4 and summary.aside[("dicom_closed", "It is a folder that cannot be read.")] == 1


def test_large_folders_are_looked_at_folder_by_folder_and_runs_and_hidden_ones_never(tmp_path, monkeypatch):
    from mkd_core.archive import index as module

    monkeypatch.setattr(module, "_MOST_FILES", 3)
    root = tmp_path / "disk"
    files = ["w/a/1.nrrd", "w/a/2.nrrd", "w/b/1.nrrd", "w/b/c/2.nrrd", "w/0.nrrd", "w/run/results/x/labels.nrrd"]
    for name in [*files, *(f"w/run/results/{number}" for number in range(4)), "w/run/archive.sqlite", "w/.x/1.nrrd"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert list(module._entries(root)) == [
        f"{root}/w/".replace("/", os.sep),
        str(root / "w" / "a"),
        str(root / "w" / "b"),
    ]
    with Ledger(tmp_path / "ledger", create=True) as ledger:
        assert index(ledger, [str(root)], Pseudonyms(KEY)).new == 5
        assert index(ledger, [str(root / "w" / "run")], Pseudonyms(KEY)).new == 0


# ---- single studies, tables ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of which every study was segmented here, by networks that know the heart."""
    bundle = KnownBundle()
    settings = Settings("known", bundle.sha256)
    folder = tmp_path_factory.mktemp("finished")
    source, run = write_source(folder / "source"), folder / "run"
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(source)], Pseudonyms(KEY))
        owner = ledgers.process_name()
        ledger.put_once("settings", settings.to_dict())
        tasks = ledger.claim(owner, 99)
        ledger.commit(owner, [study.process(run, task, settings, bundle, ONE_THREAD) for task in tasks])
        yield ledger


def test_studies_give_labels_figures_and_pictures_and_a_broken_one_costs_itself(finished):
    counts = finished.counts()
    assert (counts.states["done"], counts.states["failed"]) == (3, 1)
    rows = list(finished.rows(with_origin=True))
    for row in rows:
        folder = study.result_folder(finished.folder, row["id"])
        if row["state"] == "failed":
            assert not folder.exists() and row["source"]["path"].endswith("broken.mha")
            continue
        labels = sitk.ReadImage(str(folder / "labels.nrrd"))
        voxels = sitk.GetArrayFromImage(labels)
        ml = float(np.prod(labels.GetSpacing())) / 1000
        figures = row["summary"]["structures"]
        assert [figures[key]["volume_ml"] for key in ("LV", "PA")] == [
            pytest.approx(np.count_nonzero(voxels == label) * ml, abs=0.01) for label in (1, 7)
        ]
        for name, size in (("picture.webp", (1024, 256)), ("thumbnail.webp", (352, 88))):
            from PIL import Image

            with Image.open(folder / name) as picture:
                assert picture.size == size
                assert len(picture.convert("RGB").getcolors(1 << 24)) > 500, "nothing is drawn"
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert report["structures"]["LV"]["volume_ml"] == figures["LV"]["volume_ml"]
        assert row["doubt"] == study.doubt(row["summary"]) and row["severity"] == study.severity(row["summary"])


def test_no_table_page_or_result_names_a_patient_or_a_path_unless_asked(finished, tmp_path):
    write_csv(finished, tmp_path / "table.csv")
    write_report(finished, tmp_path / "report.html")
    files = [tmp_path / "table.csv", tmp_path / "report.html", *finished.folder.glob("results/**/*.*")]
    assert len(files) == 2 + 3 * 4
    for file in files:
        content = file.read_bytes()
        assert NAME.encode() not in content and str(finished.folder.parent).encode() not in content, file
        assert NAME not in str(file)
    write_csv(finished, tmp_path / "named.csv", with_paths=True)
    with (tmp_path / "named.csv").open(newline="", encoding="utf-8") as file:
        [detail] = [row["detail"] for row in csv.DictReader(file) if row["state"] == "failed"]
    assert NAME in (tmp_path / "named.csv").read_text(encoding="utf-8")
    assert f"“{NAME}-broken.mha”" in detail, "whoever asks for paths is told which file is broken"


@pytest.mark.parametrize("write, name", [(write_csv, "t.csv"), (write_parquet, "t.parquet"), (write_report, "t.html")])
def test_tables_and_pages_replace_those_of_the_run_but_no_foreign_file_and_never_the_ledger(
    finished, tmp_path, write, name
):
    path = tmp_path / name
    write(finished, path)
    write(finished, path)  # what the run has made itself
    path.write_bytes(b"edited by hand")
    with pytest.raises(InputError) as caught:
        write(finished, path)
    assert caught.value.finding.code == "output_exists" and path.read_bytes() == b"edited by hand"
    write(finished, path, overwrite=True)
    assert path.read_bytes() != b"edited by hand"
    with pytest.raises(InputError) as caught:
        write(finished, finished.folder / LEDGER_NAME, overwrite=True)
    assert caught.value.finding.code == "output_is_input" and list(finished.rows())


def test_a_study_whose_files_are_all_there_is_not_done_again(finished):
    settings = Settings(**finished.get("settings"))
    [row, *_] = finished.rows(states=("done",))
    outcome = study.complete(finished.folder, row["id"], settings)
    assert outcome is not None and outcome.summary == row["summary"] and outcome.doubt == row["doubt"]
    other = Settings(settings.weights, settings.sha256, modality="MR")
    assert study.complete(finished.folder, row["id"], other) is None, "those of other settings do not count"
    report = study.result_folder(finished.folder, row["id"]) / "report.json"
    report.rename(report.with_name("elsewhere"))
    assert study.complete(finished.folder, row["id"], settings) is None
    report.with_name("elsewhere").rename(report)


def test_a_run_that_is_ended_enters_what_came_to_its_end_and_lets_the_rest_wait(source, tmp_path):
    pytest.importorskip("distributed")
    from mkd_core.archive.run import Engine, _Run

    run, bundle = tmp_path / "ended", KnownBundle()
    settings = Settings("known", bundle.sha256)
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(source)], Pseudonyms(KEY))
        ended = _Run(ledger, settings, Engine(), Shard(), None)
        tasks = [task for task in ledger.claim(ended._owner, 9) if task.source["kind"] == "member"]
        outcome = study.process(run, tasks[0], settings, bundle, ONE_THREAD)
        ended.let_go()
        assert sorted(states(ledger)) == ["done", "waiting", "waiting", "waiting"]
        assert [row["summary"] for row in ledger.rows(states=("done",))] == [outcome.summary]


def test_a_full_disk_stops_the_run_and_blames_no_study(source, tmp_path, monkeypatch):
    run = tmp_path / "full"
    bundle = KnownBundle()
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(source / f"{NAME}.nrrd")], Pseudonyms(KEY))
        [task] = ledger.claim("a", 1)

    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(study.ResultsUnwritable, match="disk is full"):
        study.process(run, task, Settings("known", bundle.sha256), bundle, ONE_THREAD)
    assert not study.was_started(run, task.id) and list(run.rglob(".mkd-*")) == []


def test_a_disk_that_is_full_of_temporary_files_blames_no_study_either(source, tmp_path, monkeypatch):
    bundle, run = KnownBundle(), tmp_path / "full"
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(source / "more.zip")], Pseudonyms(KEY))
        [task] = ledger.claim("a", 1)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(study.ResultsUnwritable, match="temporary files"):
        study.process(run, task, Settings("known", bundle.sha256), bundle, ONE_THREAD)
    assert not study.was_started(run, task.id)


def test_a_volume_whose_archive_was_damaged_since_fails_with_that_word(source, tmp_path):
    bundle, run = KnownBundle(), tmp_path / "run"
    with zipfile.ZipFile(source / "more.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(source / f"{NAME}.nrrd", "ct.nrrd")
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(source / "more.zip")], Pseudonyms(KEY))
        [task] = ledger.claim("a", 1)
    content = bytearray((source / "more.zip").read_bytes())
    content[len("ct.nrrd") + 30] |= 0x06  # a kind of block that deflate does not have
    (source / "more.zip").write_bytes(content)
    outcome = study.process(run, task, Settings("known", bundle.sha256), bundle, ONE_THREAD)
    assert (outcome.state, outcome.reason) == ("failed", "archive_member_damaged")


def test_a_ledger_on_a_full_disk_is_told_in_words_and_stays_as_it_was(ledger, tmp_path, capsys, monkeypatch):
    ledger.add(map(found, range(3)))
    [pages] = ledger._connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InputError, match="disk is full"):
        ledger.add(map(found, range(3, 5000)))
    assert states(ledger) == 3 * ["waiting"]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert ledger.add([found(3)]) == 1, "it can be used again"

    def broken(_):
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(Ledger, "counts", broken)
    assert main(["archive", "status", str(ledger.folder)]) == 1
    assert f"{LEDGER_NAME}” cannot be used (database disk image is malformed)" in capsys.readouterr().err


def test_a_run_that_may_only_be_read_can_be_looked_at(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    with Ledger(run, create=True) as ledger:
        synthetic_ledger.fill(ledger, 3)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) not in (run, run / LEDGER_NAME) and access(path, mode)
    )
    before = sorted(path.name for path in run.iterdir())
    assert main(["archive", "status", str(run)]) == 0
    assert main(["archive", "export", str(run), "--csv", str(tmp_path / "t.csv")]) == 0
    assert main(["archive", "report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    assert sorted(path.name for path in run.iterdir()) == before, "SQLite has left nothing"
    capsys.readouterr()
    assert main(["archive", "retry", str(run)]) == 1
    assert "readonly" in capsys.readouterr().err
    # What a process that was killed has left in the log counts.
    monkeypatch.setattr(os, "access", access)
    with Ledger(run) as ledger:
        ledger.add([found(1000)])
        for path in run.glob(f"{LEDGER_NAME}*"):
            shutil.copy(path, tmp_path / path.name)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Ledger(tmp_path) as ledger:
        assert ledger.state_counts()["waiting"] == 1


def test_the_table_is_the_same_as_csv_and_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with Ledger(tmp_path / "run", create=True) as ledger:
        synthetic_ledger.fill(ledger, 200)
        synthetic_ledger.fill(ledger, 201)  # one is new
        ledger.review([Review(synthetic_ledger.identifier(3), "reject", "=cmd|' /C calc'!A0", "2026-01-01T00:00:00")])
        assert write_csv(ledger, tmp_path / "a.csv") == 201 == write_parquet(ledger, tmp_path / "a.parquet")
        rows = list(table(ledger))
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    stored = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(read) == len(stored) == len(rows) == 201
    assert read[3]["note"].startswith("'="), "a spreadsheet would run it"
    for row, text, value in zip(rows, read, stored):
        assert {name for name, one in value.items() if one is not None} == {n for n, v in row.items() if v is not None}
        assert all(row[name] == one for name, one in value.items() if one is not None)
        assert {name: one for name, one in text.items() if one} == {
            name: str(one) if name != "note" else f"'{one}" for name, one in row.items() if one not in (None, "")
        }
    assert "Myo_mass_g" in read[0] and "LV_mass_g" not in read[0]


# ---- looking and deciding ----


def test_outliers_are_those_beyond_the_modified_z_score():
    values = np.concatenate([np.linspace(-1, 1, 41), [4.0, -4.0]])
    # The median of 0 and the median distance of 0.5 to it put the limit at 3.5 * 0.5 / 0.6745 = 2.59.
    assert list(np.flatnonzero(modified_z_scores_exceed(values))) == [41, 42]
    assert not modified_z_scores_exceed(np.array([*values[:40:3], 2.5, 9.0])[:19]).any(), "too few to judge"
    assert not modified_z_scores_exceed(np.array([1.0] * 30 + [2.0])).any()


def test_of_two_decisions_the_later_one_holds_and_files_of_other_runs_are_refused(tmp_path):
    with Ledger(tmp_path / "run", create=True) as ledger:
        synthetic_ledger.fill(ledger, 10)
        run = ledger.get("run")

        def saved(of_run: str, *reviews: dict) -> Path:
            content = {"format": "mkd archive review 1", "run": of_run, "reviews": list(reviews)}
            (tmp_path / "review.json").write_text(json.dumps(content))
            return tmp_path / "review.json"

        one = {
            "id": synthetic_ledger.identifier(4),
            "decision": "accept",
            "note": "",
            "when": "2026-05-01T10:00:00.000Z",
        }
        later = one | {"decision": "reject", "note": "apex missing", "when": "2026-05-01T13:00:00+02:00"}
        stranger = one | {"id": "0" * 32}
        assert ledger.review(read_reviews(saved(run, one, stranger), run)) == (1, ["0" * 32])
        assert ledger.review(read_reviews(saved(run, later), run)) == (1, [])
        assert ledger.review(read_reviews(saved(run, one), run)) == (0, []), "an earlier one comes too late"
        [row] = [row for row in ledger.rows() if row["id"] == one["id"]]
        assert (row["decision"], row["note"]) == ("reject", "apex missing")
        with pytest.raises(InputError, match="another run"):
            list(read_reviews(saved("f" * 16, one), run))
        for wrong in ({"decision": "maybe"}, {"note": 7}, {"when": "yesterday"}, {"id": None}):
            with pytest.raises(InputError, match="not a file of decisions"):
                list(read_reviews(saved(run, one | wrong), run))
        (tmp_path / "review.json").write_text("[]")
        with pytest.raises(InputError, match="not a file of decisions"):
            list(read_reviews(tmp_path / "review.json", run))


def test_a_page_of_too_many_studies_shows_the_most_doubtful(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MOST_STUDIES", 5)
    with Ledger(tmp_path / "run", create=True) as ledger:
        synthetic_ledger.fill(ledger, 40)
        assert write_report(ledger, tmp_path / "report.html") == 5
        doubts = sorted((row["doubt"] for row in ledger.rows(states=("done",))), reverse=True)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the most doubtful of 40" in text
    [shown] = re.findall(r'"doubts":(\[[^]]*\])', text)
    assert min(json.loads(shown)) >= doubts[5]


def test_the_page_cannot_be_ended_by_what_it_shows(tmp_path):
    with Ledger(tmp_path / "run", create=True) as ledger:
        synthetic_ledger.fill(ledger, 3)
        evil = "</script><script>alert(1)</script>"
        ledger.review([Review(synthetic_ledger.identifier(1), None, evil, "2026-01-01T00:00:00")])
        write_report(ledger, tmp_path / "report.html")
    assert evil not in (tmp_path / "report.html").read_text(encoding="utf-8")


# ---- the command ----


def test_index_status_retry_export_and_report_by_command(source, tmp_path, capsys):
    run, key = tmp_path / "run", tmp_path / "key"
    assert main(["archive", "index", str(source), "--out", str(run), "--key", str(key)]) == 0
    assert "4 new series, 0 known; 4 to segment" in capsys.readouterr().out
    with Ledger(run) as ledger:
        [task, *_] = ledger.claim("a", 4)
        ledger.commit("a", [study.failure(task.id, InputError(f"“{NAME}” is empty."))])
        ledger.release("a")
    assert main(["archive", "status", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "waiting 3  running 0  done 0  failed 1" in shown and "“…” is empty." in shown and NAME not in shown
    assert main(["archive", "retry", str(run)]) == 0
    assert main(["archive", "export", str(run)]) == 0
    assert main(["archive", "report", str(run)]) == 0
    assert (run / "table.csv").is_file() and (run / "report.html").is_file()
    capsys.readouterr()
    assert main(["archive", "status", str(tmp_path)]) == 1
    assert "holds no archive run" in capsys.readouterr().err
    mistyped = [str(source.with_name("sauce")), "--out", str(tmp_path / "other"), "--key", str(key)]
    assert main(["archive", "index", *mistyped]) == 1
    assert "no file or folder" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_progress_tells_rate_and_time_left():
    from mkd_core.archive.commands import _progress_text
    from mkd_core.archive.progress import Progress

    assert _progress_text(Progress(400, 90, 10)) == "█████░░░░░░░░░░░░░░░  25%  100 of 400, 10 failed"
    told = _progress_text(Progress(400, 90, 10, finished=50, seconds=100.0, dashboard="http://here"))
    assert told.endswith("10 failed  1800 an hour, 10 min left  http://here")
    assert "20 h left" in _progress_text(Progress(36_001, 1, finished=1, seconds=2.0))


def test_a_run_keeps_what_its_first_start_named(source, tiny_bundle_path, tmp_path, capsys, monkeypatch):
    from mkd_core.archive import commands
    from mkd_core.archive.progress import Progress, fix_settings

    run, kept = tmp_path / "run", []

    def segment(ledger, settings, *_):
        fix_settings(ledger, settings)
        kept.append(settings)
        return Progress(4, 3, 1)

    monkeypatch.setattr(commands, "_segment", segment)
    with Ledger(run, create=True) as ledger:
        index(ledger, [str(source)], Pseudonyms(KEY))
    command = ["archive", "run", str(run), "--here"]
    named = ["--weights", str(tiny_bundle_path), "--modality", "MR", "--labels", "seg"]
    assert main([*command, *named, "--stow", "https://me:secret@pacs/dicom-web"]) == 0
    assert f"Reasons: mkd archive status {run}; once more: mkd archive retry {run}" in capsys.readouterr().out
    assert main(command) == 0
    assert kept[1] == Settings(kept[0].weights, kept[0].sha256, "MR", "seg", "https://pacs/dicom-web")
    assert main([*command, "--labels", "nrrd", "--stow", ""]) == 1
    assert "begun with other settings (labels, stow)" in capsys.readouterr().err


# ---- DICOM ----


def test_of_a_dicom_study_the_best_series_is_segmented_and_stored_as_segmentation_and_report(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from Testing.support.dicom_exports import write_export, write_other_object

    heart, _ = known_volume((48, 40, 40), (4.0, 4.0, 4.0))
    source = tmp_path / "pacs"
    write_export(heart, source / "1" / NAME / "A", 1, study="11", SeriesDescription="lung", ContrastBolusAgent=None)
    write_export(heart, source / "1" / NAME / "B", 2, study="11", SeriesDescription="heart", ContrastBolusAgent="x")
    write_export(heart[:, :, :2], source / "1" / NAME, 3, study="11", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_other_object(source / "1" / "letter.dcm", "104.1", study="11")
    (source / "1" / "DICOMDIR").write_bytes(bytes(200))
    halves = write_export(heart, source / "2", 1, study="12", SeriesDescription="heart")
    (source / "3").mkdir()
    for path in halves[20:]:
        path.rename(source / "3" / path.name)

    bundle = KnownBundle()
    settings = Settings("known", bundle.sha256, labels="seg")
    run = tmp_path / "run"
    with Ledger(run, create=True) as ledger:
        summary = index(ledger, [str(source)], Pseudonyms(KEY))
        assert summary.aside == {("dicom_pdf", "It is a PDF document."): 1}, (
            "a DICOMDIR makes no copies of what it lists"
        )
        rows = {row["source"]["series"]["uid"]: row for row in ledger.rows(with_origin=True)}
        assert {uid: row["state"] for uid, row in rows.items()} == {
            "1.2.3.11.1": "aside",
            "1.2.3.11.2": "waiting",
            "1.2.3.11.3": "aside",
            "1.2.3.12.1": "waiting",
        }
        assert rows["1.2.3.11.3"]["reason"] == "dicom_scout"
        assert len({row["study"] for row in rows.values()}) == 2 and all(row["patient"] for row in rows.values())
        assert len(rows["1.2.3.12.1"]["source"]["series"]["frames"]) == 40, "what lay in two folders is one again"
        source = source.rename(tmp_path / "moved")
        assert index(ledger, [str(source)], Pseudonyms(KEY)).new == 0
        places = [row["source"]["series"]["places"] for row in ledger.rows(with_origin=True)]
        assert all(place.startswith(str(source)) for of_series in places for place in of_series)

        owner = ledgers.process_name()
        outcomes = [study.process(run, task, settings, bundle, ONE_THREAD) for task in ledger.claim(owner, 9)]
        assert [one.state for one in outcomes] == ["done", "done"], [one.detail for one in outcomes]
        ledger.commit(owner, outcomes)
        write_csv(ledger, tmp_path / "table.csv")
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert not any(secret in text for secret in (NAME, "P1", "Doe", "1.2.3.", str(tmp_path)))
    folder = study.result_folder(run, rows["1.2.3.11.2"]["id"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "picture.webp",
        "report.json",
        "segmentation.dcm",
        "segmentation.sr.dcm",
        "thumbnail.webp",
    ]
    stored = pydicom.dcmread(folder / "segmentation.dcm")
    assert stored.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.11.2"
    assert len(stored.SegmentSequence) == 7


def test_a_zip_may_hold_dicom_and_other_volumes(tmp_path):
    pytest.importorskip("pydicom")
    from Testing.support.dicom_exports import write_export

    heart, _ = known_volume((24, 20, 20), (8.0, 8.0, 8.0))
    write_volume(heart, tmp_path / "ct.nii.gz")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as packed:
        packed.write(tmp_path / "ct.nii.gz", "ct.nii.gz")
        packed.writestr("readme.txt", "burned by")
        for path in write_export(heart, tmp_path / "slices"):
            packed.write(path, f"slices/{path.name}")
    with Ledger(tmp_path / "run", create=True) as ledger:
        summary = index(ledger, [str(tmp_path / "both.zip")], Pseudonyms(KEY))
        kinds = {row["source"]["kind"]: row["state"] for row in ledger.rows(with_origin=True)}
    assert kinds == {"member": "waiting", "dicom": "waiting"}
    assert [code for code, _ in summary.aside.elements()] == ["dicom_not_dicom"], "of the text alone"


def test_an_index_of_every_series_sets_none_aside_that_can_be_segmented(tmp_path):
    pytest.importorskip("pydicom")
    from Testing.support.dicom_exports import write_export

    heart, _ = known_volume((24, 20, 20), (8.0, 8.0, 8.0))
    for number in (1, 2):
        write_export(heart, tmp_path / "pacs", number, prefix=f"S{number}_")
    for every, waiting in ((False, 1), (True, 2)):
        with Ledger(tmp_path / f"run{every}", create=True) as ledger:
            index(ledger, [str(tmp_path / "pacs")], Pseudonyms(KEY), every_series=every)
            assert ledger.state_counts()["waiting"] == waiting


def test_of_a_study_whose_series_lie_apart_the_best_is_segmented_too(tmp_path):
    pytest.importorskip("pydicom")
    from Testing.support.dicom_exports import write_export

    heart, _ = known_volume((24, 20, 20), (8.0, 8.0, 8.0))
    for number, agent in enumerate((None, "x", None), start=1):
        write_export(heart, tmp_path / "pacs" / f"series {number}", number, ContrastBolusAgent=agent)
    with Ledger(tmp_path / "run", create=True) as ledger:
        # One after the other, as from several disks; the second is better than the first.
        for folder in sorted((tmp_path / "pacs").iterdir()):
            index(ledger, [str(folder)], Pseudonyms(KEY))
        rows = list(ledger.rows())
        assert [(row["state"], row["reason"]) for row in rows] == [
            ("aside", "dicom_plain"),
            ("waiting", None),
            ("aside", "dicom_plain"),
        ]
        index(ledger, [str(tmp_path / "pacs")], Pseudonyms(KEY))
        assert list(ledger.rows()) == rows
    with Ledger(tmp_path / "every", create=True) as ledger:
        index(ledger, [str(tmp_path / "pacs")], Pseudonyms(KEY), every_series=True)
        index(ledger, [str(tmp_path / "pacs")], Pseudonyms(KEY))
        assert ledger.state_counts()["waiting"] == 3


def test_a_pacs_is_a_source_and_gets_results_only_where_stow_names_it(tmp_path, monkeypatch):
    pytest.importorskip("dicomweb_client")
    from mkd_core.io.dicomweb import Server
    from Testing.support.dicom_exports import write_export
    from Testing.support.orthanc import running_orthanc

    heart, _ = known_volume((48, 40, 40), (4.0, 4.0, 4.0))
    bundle = KnownBundle()
    with running_orthanc(tmp_path / "orthanc") as with_password:
        server = Server(with_password)
        # The scout comes first, as from a scanner; of what servers tell of series nothing says that it is one.
        server.store(
            write_export(heart[:, :, :5], tmp_path / "scout", 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        )
        server.store(write_export(heart, tmp_path / "plain", 1, SliceThickness=5.0))
        server.store(write_export(heart, tmp_path / "files", 2, ContrastBolusAgent="x"))
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login tester password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for stow, stored in (("", {"CT"}), (with_password, {"CT", "SEG", "SR"}), (with_password, {"CT", "SEG", "SR"})):
            run = tmp_path / f"run{len(stored)}"
            settings = Settings("known", bundle.sha256, labels="seg", stow=stow)
            with Ledger(run, create=True) as ledger:
                index(ledger, [server.address], Pseudonyms(KEY))
                ledger.put_once("settings", settings.to_dict())
                reasons = {row["source"]["series"]["number"]: row["reason"] for row in ledger.rows(with_origin=True)}
                assert {number: reasons[number] for number in range(3)} == {0: "dicom_scout", 1: "dicom_plain", 2: None}
                tasks = ledger.claim("a", 9)
                outcomes = [study.process(run, task, settings, bundle, ONE_THREAD) for task in tasks]
                assert [one.state for one in outcomes] in (["done"], []), [one.detail for one in outcomes]
                ledger.commit("a", outcomes)
            found = server.index()
            assert {one.modality for one in found} == stored and len(found) == len(stored) + 2
    assert list(tmp_path.glob("run*/results/*/*/segmentation.dcm"))
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.glob("run*/archive.sqlite*"))
