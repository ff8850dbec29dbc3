"""Folders for patient data: closed to others, and gone after a crash, but never taken from one who uses them."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
from MKDSegmentationLib.run import privateFolder
from MKDSegmentationLib.run.privateFolder import PREFIX, PrivateFolder, openPrivate, removeLeftovers

#: Another Slicer: makes a folder with a volume in it, says so, and waits until it is ended.
OTHER = """
import sys, time
sys.path.append(sys.argv[1])
from MKDSegmentationLib.run.privateFolder import PrivateFolder, openPrivate
folder = PrivateFolder(sys.argv[2])
openPrivate(folder.path + "/volume.nrrd").close()
print(folder.path, flush=True)
time.sleep(3600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process with a folder: (process, path of the folder)."""
    command = [sys.executable, "-c", OTHER, str(ROOT / "MKDSegmentation"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_the_folder_of_a_living_process_is_spared_and_that_of_a_killed_one_removed(tmp_path, other):
    process, folder = other
    removeLeftovers(str(tmp_path))
    assert os.listdir(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(folder), "nobody had time to clean up"
    removeLeftovers(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_our_own_folders_in_use_are_spared_and_a_folder_of_last_year_counts_like_one_of_tomorrow(tmp_path, other):
    mine = PrivateFolder(str(tmp_path))
    for folder, when in ((mine.path, 1.0), (other[1], time.time() + 1e8)):
        os.utime(folder, (when, when))
        os.utime(Path(folder) / "in-use", (when, when))
    removeLeftovers(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 2
    mine.remove()
    assert os.listdir(tmp_path) == [Path(other[1]).name]


def leftover(parent):
    """Return the path of a folder of ours that a crash left behind: unlocked, with its token and a volume in it."""
    crashed = [sys.executable, "-c", OTHER.replace("time.sleep(3600)", ""), str(ROOT / "MKDSegmentation"), str(parent)]
    return Path(subprocess.run(crashed, capture_output=True, text=True, check=True).stdout.strip())


def test_what_a_crash_left_is_removed_with_drafts_of_files_that_were_being_written(tmp_path):
    folder = leftover(tmp_path)
    (folder / ".mkd-0123456789abcdef.nrrd").touch()
    removeLeftovers(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [f"{PREFIX}main", f"{PREFIX}0.4.0", f"{PREFIX}abcdefgh"])
def test_a_folder_of_the_user_survives_whatever_its_name(tmp_path, name):
    """An archive of the program from the web unpacks into such a folder; the last name even looks like ours."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "thesis.txt").touch()
    (folder / "volume.nrrd").touch()
    removeLeftovers(str(tmp_path))
    assert sorted(os.listdir(folder)) == ["thesis.txt", "volume.nrrd"]


@pytest.mark.parametrize("spoil", ["copied", "renamed", "with a file of the user", "with a folder of the user"])
def test_a_folder_that_was_ours_and_is_used_for_something_else_survives(tmp_path, spoil):
    folder = leftover(tmp_path)
    if spoil == "copied":
        shutil.copytree(folder, tmp_path / f"{PREFIX}copy_123")
    elif spoil == "renamed":
        folder = folder.rename(tmp_path / f"{PREFIX}renamed_")
    elif spoil == "with a file of the user":
        (folder / "notes.txt").touch()
    else:
        (folder / "volume.nrrd").unlink()
        (folder / "volume.nrrd").mkdir()
    removeLeftovers(str(tmp_path))
    kept = tmp_path / f"{PREFIX}copy_123" if spoil == "copied" else folder
    assert (kept / "volume.nrrd").exists() and (kept / "in-use").exists()
    assert spoil == "copied" or os.listdir(tmp_path) == [folder.name]
    assert spoil != "copied" or not folder.exists(), "the original is ours all the same"


def test_a_folder_without_a_token_is_spared_and_so_is_one_with_an_empty_one(tmp_path):
    (tmp_path / f"{PREFIX}newborn1").mkdir()
    (tmp_path / f"{PREFIX}newborn2").mkdir()
    (tmp_path / f"{PREFIX}newborn2" / "in-use").touch()
    removeLeftovers(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 2


def test_nothing_else_is_removed(tmp_path):
    precious = leftover(tmp_path).rename(tmp_path / "precious")
    (tmp_path / f"{PREFIX}link1234").symlink_to(precious)
    (tmp_path / f"{PREFIX}file1234").touch()
    (tmp_path / "mkd-other").mkdir()
    removeLeftovers(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted([f"{PREFIX}file1234", f"{PREFIX}link1234", "mkd-other", "precious"])
    assert sorted(os.listdir(precious)) == ["in-use", "volume.nrrd"]


def test_the_end_of_a_run_leaves_what_somebody_else_put_into_its_folder(tmp_path):
    folder = PrivateFolder(str(tmp_path))
    openPrivate(f"{folder.path}/volume.nrrd").close()
    (Path(folder.path) / "notes.txt").touch()
    folder.remove()
    assert os.listdir(folder.path) == ["notes.txt"]


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_spared(tmp_path):
    folder = leftover(tmp_path)
    os.chown(folder, 12345, 12345)
    removeLeftovers(str(tmp_path))
    assert folder.exists()


def test_a_maker_who_cannot_lock_a_folder_makes_another_and_leaves_nothing_of_the_first(tmp_path, monkeypatch):
    locked, tries = privateFolder._newLock, []

    def lookedInto(folder):
        tries.append(folder)
        if len(tries) == 1:  # another process holds the lock for a moment
            os.close(locked(folder))
            return None
        return locked(folder)

    monkeypatch.setattr(privateFolder, "_newLock", lookedInto)
    folder = PrivateFolder(str(tmp_path))
    assert folder.path == tries[1] and os.listdir(tmp_path) == [Path(folder.path).name]
    folder.remove()
    assert os.listdir(tmp_path) == []


def test_on_a_disk_without_locks_a_folder_is_made_and_removed_and_no_sweep_dares_to_take_it(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(privateFolder, "_lockHandle", refuse)
    folder = PrivateFolder(str(tmp_path))
    openPrivate(f"{folder.path}/volume.nrrd").close()
    removeLeftovers(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*.nrrd")] == ["volume.nrrd"] and stat.S_IMODE(
        os.stat(folder.path).st_mode
    ) == 0o700
    folder.remove()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_no_problem_for_a_sweep_and_an_error_for_a_maker(tmp_path):
    removeLeftovers(str(tmp_path / "gone"))
    with pytest.raises(OSError):
        PrivateFolder(str(tmp_path / "gone"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_file_that_was_open_to_all_is_closed_before_anything_is_written(tmp_path):
    (tmp_path / "volume.nrrd").touch(0o666)
    with openPrivate(str(tmp_path / "volume.nrrd")) as file:
        assert stat.S_IMODE(os.stat(tmp_path / "volume.nrrd").st_mode) == 0o600
        file.write(b"voxels")


def test_a_folder_is_removed_once_and_a_second_time_is_no_error(tmp_path):
    folder = PrivateFolder(str(tmp_path))
    folder.remove()
    folder.remove()
    assert os.listdir(tmp_path) == []
