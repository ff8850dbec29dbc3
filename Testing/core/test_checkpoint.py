"""The file that a run continues from: everything comes back as it was, and damage of any kind is noticed."""

import errno
import os
import random
import stat

import pytest

torch = pytest.importorskip("torch")

from mkd_core.errors import InputError
from mkd_core.training.checkpoint import NAMES, Checkpoints, DamagedError, decode, encode


def _content(step=1):
    conv = torch.nn.Conv3d(2, 4, 3).to(memory_format=torch.channels_last_3d)
    return {
        "step": step,
        "optimiser": {"state": {0: {"exp_avg": conv.weight.detach()}}, "betas": (0.5, 0.999)},
        "names": ["a", None, True, 1.5e-300, "ä"],
        "random": random.Random(3).getstate(),
        "tensors": [torch.arange(3), torch.tensor(2.5, dtype=torch.bfloat16), torch.empty(0, 4), torch.tensor(True)],
    }


def _same(first, second):
    if isinstance(first, torch.Tensor):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.stride() == second.stride()
            and torch.equal(first, second)
        )
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and first == second


def test_everything_comes_back_with_type_value_and_memory_layout():
    content = _content()
    assert not content["optimiser"]["state"][0]["exp_avg"].is_contiguous()
    assert _same(decode(encode(content)), content)


def test_what_is_not_plain_is_refused_when_it_is_written():
    with pytest.raises(TypeError, match="cannot hold object"):
        encode({"a": [object()]})
    with pytest.raises(TypeError, match="keys"):
        encode({None: 1})


def test_a_changed_byte_anywhere_is_noticed():
    data = encode({"numbers": torch.arange(4), "step": 3})
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(DamagedError):
            decode(bytes(changed))


def test_a_file_that_is_cut_or_is_another_one_is_noticed():
    data = encode({"numbers": torch.arange(4)})
    for wrong in (b"", data[:7], data[:50], data[:-1], data + b"0", b"PK\x03\x04" + data):
        with pytest.raises(DamagedError):
            decode(wrong)


def test_the_newest_generation_is_read_and_the_one_before_it_kept(tmp_path):
    assert Checkpoints(tmp_path).load() is None
    for step in (1, 2, 3):
        saving = Checkpoints(tmp_path)  # as after a restart
        saving.load()
        saving.save({"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    reading = Checkpoints(tmp_path)
    assert reading.load() == {"step": 3} and reading.damaged == {}
    newest = next(path for path in tmp_path.iterdir() if decode(path.read_bytes())["content"]["step"] == 3)
    newest.unlink()
    assert Checkpoints(tmp_path).load() == {"step": 2}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_generation_is_named_and_the_older_one_used_and_kept(tmp_path, damage):
    saving = Checkpoints(tmp_path)
    for step in (1, 2):
        newest = saving.save({"step": step, "weights": torch.arange(100.0)})
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0x10
    newest.write_bytes({"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[damage])
    reading = Checkpoints(tmp_path)
    assert reading.load()["step"] == 1
    assert list(reading.damaged) == [newest.name]
    assert reading.save({"step": 5}) == newest, "the sound one is not touched"
    assert Checkpoints(tmp_path).load() == {"step": 5}


def test_a_run_with_no_sound_generation_is_refused_and_not_begun_anew(tmp_path):
    Checkpoints(tmp_path).save({"step": 1})
    (tmp_path / NAMES[0]).write_bytes(b"something else")
    with pytest.raises(InputError, match=r"checkpoint-a\.mkd” cannot be used: it is not a checkpoint"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_both_generations_and_no_draft(tmp_path, monkeypatch, call):
    saving = Checkpoints(tmp_path)
    for step in (1, 2):
        saving.save({"step": step})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    usual, calls = getattr(os, call), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(*arguments)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        saving.save({"step": 3})
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    saving.save({"step": 4})
    assert Checkpoints(tmp_path).load() == {"step": 4}


def test_file_and_folder_are_brought_to_the_disk_and_the_name_comes_between(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def seen_replace(source, target):
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    Checkpoints(tmp_path).save({"step": 1})
    assert done == ["file", "name", "folder"]
