"""Files appear whole or not at all, follow no links, keep to the umask, and never replace what is not ours."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from mkd_core.errors import InputError
from mkd_core.io import atomic
from mkd_core.io.atomic import (
    MARK_PLACEHOLDER,
    OutputFiles,
    made_here,
    remove_drafts,
    write_bytes,
    write_file,
    write_new,
    write_text,
)
from mkd_core.protocol import DRAFT_NAME

posix = pytest.mark.skipif(os.name != "posix", reason="modes and links as on POSIX")


def names(folder: Path) -> list[str]:
    """Names of all files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def marked(draft: Path) -> None:
    """Write a file with a mark."""
    draft.write_bytes(b"figures\n" + MARK_PLACEHOLDER + b"\nmore")


def write_marked(path: Path, **how) -> None:
    """Write a file as a run does."""
    with OutputFiles(**how) as outputs:
        outputs.write(path, marked)


@pytest.fixture()
def umask():
    """Sets the umask for a test."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


@posix
@pytest.mark.parametrize(("mask", "private", "mode"), [(0o022, False, 0o644), (0o077, False, 0o600), (0, True, 0o600)])
def test_a_file_gets_the_mode_that_the_umask_leaves_and_0600_if_it_is_private(tmp_path, umask, mask, private, mode):
    umask(mask)
    write_text(tmp_path / "a.json", "{}", private=private)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_that_write_a_new_file_at_once_the_first_one_wins(tmp_path, monkeypatch, has_links):
    path, link = tmp_path / "key", os.link

    def overtaken(draft, target, **how):
        path.write_text("first")
        if not has_links:
            raise OSError("no second names here")
        link(draft, target, **how)

    monkeypatch.setattr(os, "link", overtaken)
    assert not write_new(path, b"second") and path.read_text(encoding="utf-8") == "first"
    assert names(tmp_path) == ["key"]


@posix
@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_is_whole_and_stays(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *names, **how: (_ for _ in ()).throw(OSError("no second names here")))
    path = tmp_path / "key"
    assert write_new(path, b"whole", private=True) and not write_new(path, b"other")
    assert path.read_bytes() == b"whole" and stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError):
        write_new(tmp_path / "nowhere" / "key", b"whole")
    assert names(tmp_path) == ["key"]


def test_drafts_of_a_killed_run_are_removed_and_nothing_else(tmp_path):
    draft = tmp_path / ".mkd-0123456789abcdef.mkd"
    others = [tmp_path / ".mkd-notes", tmp_path / "last.safetensors", tmp_path / ".hidden"]
    for path in (draft, *others):
        path.write_bytes(b"")
    remove_drafts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    remove_drafts(tmp_path / "nowhere")


@posix
def test_the_name_of_a_draft_cannot_be_guessed_and_a_link_in_its_place_is_not_followed(tmp_path, monkeypatch):
    drafts = []
    for _ in range(2):
        write_file(tmp_path / "a.nii.gz", lambda draft: drafts.append(draft.name))
    assert drafts[0] != drafts[1] and all(name.endswith(".nii.gz") and len(name) > 20 for name in drafts)
    assert all(DRAFT_NAME.fullmatch(name) for name in drafts), "they could not be cleared away after a crash"

    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda count: "known")
    (tmp_path / ".mkd-known.json").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        write_text(tmp_path / "a.json", "{}")
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "precious"


@posix
def test_a_file_put_in_the_place_of_a_draft_is_not_given_the_name(tmp_path):
    def exchange(draft: Path) -> None:
        (tmp_path / "other").write_text("foreign")
        draft.unlink()
        draft.symlink_to(tmp_path / "other")

    with pytest.raises(OSError):
        write_file(tmp_path / "a.json", exchange)
    assert names(tmp_path) == ["other"]


@posix
def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "target").read_text(encoding="utf-8") == "precious"
    assert (tmp_path / "link").read_text(encoding="utf-8") == "new" and not (tmp_path / "link").is_symlink()


def test_shares_that_refuse_to_change_modes_are_written_to(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, refuse, raising=False)
    monkeypatch.setattr(Path, "chmod", refuse)
    write_text(tmp_path / "a.json", "{}", private=True)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "{}"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic.os, "fsync", lambda descriptor: synced.append((tmp_path / "a.json").exists()))
    write_text(tmp_path / "a.json", "{}")
    assert synced[0] is False


def test_nothing_is_left_after_an_exception_or_an_interruption_and_the_earlier_file_stays(tmp_path):
    write_text(tmp_path / "a.json", "earlier")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)):

        def fail(draft: Path, error=error) -> None:
            draft.write_text("half")
            raise error

        with pytest.raises(type(error)):
            write_file(tmp_path / "a.json", fail)
        assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text(encoding="utf-8") == "earlier"


def test_files_of_one_run_appear_together_or_not_at_all(tmp_path, monkeypatch):
    seen = []
    with OutputFiles() as outputs:
        for name in ("a", "b"):
            outputs.write(tmp_path / name, marked)
            seen.append([(tmp_path / other).exists() for other in "ab"])
    assert seen == [[False, False]] * 2 and names(tmp_path) == ["a", "b"]

    before, replace, calls = (tmp_path / "a").read_bytes(), os.replace, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", second_fails)
    with pytest.raises(InputError, match="cannot be written"), OutputFiles() as outputs:
        outputs.write(tmp_path / "a", lambda draft: draft.write_bytes(b"new"))
        outputs.write(tmp_path / "c", marked)
    assert names(tmp_path) == ["a", "b"] and (tmp_path / "a").read_bytes() == before


def test_a_result_of_an_earlier_run_is_known_until_a_byte_of_it_changes(tmp_path):
    path = tmp_path / "a.json"
    write_marked(path)
    content = path.read_bytes()
    assert made_here(path) and content.startswith(b"figures\nmkd sha256:") and b"0" * 64 not in content
    write_marked(path)
    assert path.read_bytes() == content, "the mark is the same for the same content"
    for position in (0, content.index(b":") + 1, len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert not made_here(path)
        with pytest.raises(InputError, match="--overwrite"):
            write_marked(path)
        assert path.read_bytes() == changed
    path.write_bytes(MARK_PLACEHOLDER)
    assert not made_here(path)


def test_a_foreign_file_is_replaced_only_if_the_user_says_so(tmp_path):
    path = tmp_path / "heart.nrrd"
    path.write_text("drawn by hand")
    with pytest.raises(InputError, match="exists already"):
        OutputFiles().check(path)
    with pytest.raises(InputError, match="exists already"):
        write_marked(path)
    assert path.read_text(encoding="utf-8") == "drawn by hand"
    write_marked(path, overwrite=True)
    assert made_here(path)


def test_a_file_that_appears_during_the_work_is_kept(tmp_path):
    path = tmp_path / "heart.nrrd"
    with pytest.raises(InputError, match="exists already"), OutputFiles() as outputs:
        outputs.check(path)
        outputs.write(path, marked)
        path.write_text("saved meanwhile")
    assert path.read_text(encoding="utf-8") == "saved meanwhile" and names(tmp_path) == ["heart.nrrd"]


def test_no_output_is_an_input_by_whatever_name_even_with_overwrite(tmp_path):
    source = tmp_path / "ct.nrrd"
    source.write_text("voxels")
    aliases = [source, tmp_path / "sub" / ".." / "ct.nrrd"]
    (tmp_path / "sub").mkdir()
    if os.name == "posix":
        (tmp_path / "link.nrrd").symlink_to(source)
        os.link(source, tmp_path / "hard.nrrd")
        aliases += [tmp_path / "link.nrrd", tmp_path / "hard.nrrd"]
    for alias in aliases:
        with pytest.raises(InputError, match="the volume itself or a file that is read for it"):
            OutputFiles(inputs=[source], overwrite=True).check(alias)


def test_files_of_an_input_folder_are_inputs_but_our_own_result_in_it_is_not(tmp_path):
    (tmp_path / "slice.dcm").write_text("slice")
    for inputs in ([tmp_path], [tmp_path.parent]):
        with pytest.raises(InputError, match="read for it"):
            OutputFiles(inputs=inputs, overwrite=True).check(tmp_path / "slice.dcm")
    for _ in range(2):
        write_marked(tmp_path / "heart.nrrd", inputs=[tmp_path])


def test_outputs_need_names_and_folders_of_their_own(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, words in (
        (tmp_path / "none" / "a", "no folder"),
        (tmp_path / "folder", "cannot be written"),
        (tmp_path / ("a" * 300), "not a name"),
        (tmp_path / "a\0b", "not a name"),
    ):
        with pytest.raises(InputError, match=words):
            OutputFiles().check(path)
    with pytest.raises(InputError, match="two outputs"):
        OutputFiles().check(tmp_path / "a", tmp_path / "folder" / ".." / "a")
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="is not a file"):
            OutputFiles(overwrite=True).check(tmp_path / "pipe")


def test_the_longest_name_that_a_file_can_have_can_be_written(tmp_path):
    path = tmp_path / ("a" * 250 + ".json")
    write_bytes(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_on_windows_a_file_that_a_scanner_holds_is_moved_when_it_lets_go(tmp_path, monkeypatch):
    held, moved = [None, None], os.replace

    def replace(source, target):
        if held:
            held.pop()
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        moved(source, target)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "a.json", "{}")
    assert not held and names(tmp_path) == ["a.json"]

    held += [None] * 1000
    monkeypatch.setattr(atomic, "_HELD_S", 0.0)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a.json", "[]")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "{}" and names(tmp_path) == ["a.json"]


def test_elsewhere_what_cannot_be_moved_is_told_at_once(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "replace", lambda *names: tried.append(names) or _forbid())
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a.json", "{}")
    assert len(tried) == 1


def _forbid():
    raise PermissionError(13, "Permission denied")


def test_without_a_choice_to_follow_links_as_on_windows_an_earlier_file_comes_back_too(tmp_path, monkeypatch):
    linked = os.link

    def link(source, target, **how):
        if how:
            raise NotImplementedError("link: follow_symlinks unavailable on this platform")
        linked(source, target)

    monkeypatch.setattr(os, "link", link)
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    write_text(first, "before")
    moved = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: _forbid() if target == second else moved(source, target))
    with pytest.raises(InputError), OutputFiles(overwrite=True) as outputs:
        outputs.write(first, lambda draft: draft.write_text("after"))
        outputs.write(second, lambda draft: draft.write_text("after"))
    assert first.read_text(encoding="utf-8") == "before" and names(tmp_path) == ["a.json"]
