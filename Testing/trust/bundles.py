"""Hostile weights: files made to mislead, to run code, or to fill the memory.

Each must be refused with a reason, or be a sound bundle.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mkd_core.errors import BundleError
from mkd_core.io.bundle import load_bundle, read_description, save_bundle
from mkd_core.io.bundle_metadata import PARTS
from Testing.support.tiny_bundles import random_state_dicts, tiny_description
from Testing.trust.outcome import Outcome
from Testing.trust.refusing import MOST_MEMORY, MOST_WORK, peak_memory, refuses

_GROUP = "hostile bundles"

#: Folder in memory, where there is one: a hundred thousand files need not go to the disk.
_MEMORY = Path("/dev/shm")

#: Values that break careless programs.
_NASTY = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    10**400,
    1.5,
    -0.0,
    1e308,
    "",
    "x" * 20_000,
    "../../etc/passwd",
    "C:\\Windows",
    "\x00",
    "\x1b[2J",
    "\ud800",
    "<img src=http://example.org>",
    "__class__",
    "self",
    "NaN",
    [],
    [[]],
    [None],
    [1] * 100,
    {},
    {"": {}},
    {"type": "segmentor"},
    {"__reduce__": ["os.system"]},
]


def _file(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


class _Parts:
    """A sound bundle taken apart, to be put together wrongly."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tiny.safetensors")
            save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
            self.content = path.read_bytes()
        (length,) = struct.unpack("<Q", self.content[:8])
        self.header: dict[str, Any] = json.loads(self.content[8 : 8 + length])
        self.description: dict[str, Any] = json.loads(self.header["__metadata__"]["mkd"])
        self.data = self.content[8 + length :]

    def with_header(self, change: Callable[[dict], None]) -> bytes:
        """The bundle after a change of its header."""
        header = copy.deepcopy(self.header)
        change(header)
        return _file(json.dumps(header).encode(), self.data)

    def with_description(self, change: Callable[[dict], None]) -> bytes:
        """The bundle after a change of its description."""
        description = copy.deepcopy(self.description)
        change(description)
        return self.with_text(json.dumps(description))

    def with_text(self, text: str) -> bytes:
        """The bundle with this text for a description."""
        return self.with_header(lambda header: header.update(__metadata__={"mkd": text}))

    def with_number(self, name: str, number: float) -> bytes:
        """The bundle with one number (float16) of a tensor changed."""
        begin = self.header[name]["data_offsets"][0]
        changed = self.data[:begin] + np.float16(number).tobytes() + self.data[begin + 2 :]
        return self.content[: -len(self.data)] + changed


class _RunsCode:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def _checkpoint(trace: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"weights": _RunsCode(trace)}, stream)
    return stream.getvalue()


def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights", bytes(100 << 20))
    return stream.getvalue()


def _known(parts: _Parts, trace: Path) -> list[tuple[str, str, bytes]]:
    """What it is, words of the refusal, content of the file."""
    name = "segmentor_real/up.0.weight"
    entry = parts.header[name]

    def tensor(**changes) -> bytes:
        return parts.with_header(lambda header: header[name].update(changes))

    def network(**architecture) -> bytes:
        return parts.with_description(lambda description: description["networks"].update(localiser=architecture))

    def set_training(value: Any) -> bytes:
        return parts.with_description(lambda description: description.update(training={"x": value}))

    return [
        ("a pickle renamed", "pickle", pickle.dumps(_RunsCode(trace))),
        ("an old pickle renamed", "cannot be used", pickle.dumps(_RunsCode(trace), protocol=0)),
        ("a PyTorch checkpoint renamed", "pickle", _checkpoint(trace)),
        ("a pickle behind the header", "where its header describes", parts.content + pickle.dumps(_RunsCode(trace))),
        ("a zip bomb", "zip archive", _zip_bomb()),
        ("a header of 4 GB", "longer than 1 MB", struct.pack("<Q", 4 << 30) + b"{}"),
        ("a header of 2^64 bytes", "longer than 1 MB", b"\xff" * 8 + b"{}"),
        ("a header longer than the file", "ends in the middle", struct.pack("<Q", 900_000) + b"{}"),
        ("an empty file", "too short", b""),
        ("a header that is not UTF-8", "not JSON", _file(b'{"\xff\xfe": 1}')),
        ("a header of a hundred thousand brackets", "not JSON", _file(b"[" * 100_000)),
        ("a million empty tables", "not a table", _file(b"[" + b"{}," * 300_000 + b"{}]")),
        ("a key that occurs twice", "not JSON", _file(b'{"a": 1, "a": 2}')),
        ("a number of 100,000 digits", "not JSON", _file(b'{"a": ' + b"9" * 100_000 + b"}")),
        ("a shape that lies", "does not fit its shape", tensor(shape=[1, 2, 3])),
        ("a shape of 10^18 numbers", "does not fit its shape", tensor(shape=[10**9, 10**9])),
        ("a shape of 10^18 numbers with a side of none", "does not fit its shape", tensor(shape=[10**18, 0])),
        ("a negative side", "no proper shape", tensor(shape=[-1, -8])),
        ("a shape of text", "no proper shape", tensor(shape=["8"])),
        (
            "an offset behind the end",
            "overlap or leave a gap",
            tensor(data_offsets=[10**12, 10**12 + entry["data_offsets"][1] - entry["data_offsets"][0]]),
        ),
        (
            "overlapping tensors",
            "overlap or leave a gap",
            tensor(data_offsets=[begin - 2 for begin in entry["data_offsets"]]),
        ),
        ("an offset that runs backwards", "does not fit its shape", tensor(data_offsets=entry["data_offsets"][::-1])),
        ("an unknown number format", "number format", tensor(dtype="F8_E4M3")),
        ("objects instead of numbers", "number format", tensor(dtype="O")),
        ("a weight that is NaN", "not finite", parts.with_number(name, float("nan"))),
        ("a weight that is infinite", "not finite", parts.with_number(name, float("inf"))),
        (
            "a path for a name",
            "belongs to none",
            parts.with_header(
                lambda header: header.update(
                    {"../../../etc/passwd": {"dtype": "F32", "shape": [0], "data_offsets": [len(parts.data)] * 2}}
                )
            ),
        ),
        (
            "a name of 500,000 letters",
            "cannot be used",
            parts.with_header(
                lambda header: header.update(
                    {"n" * 500_000: {"dtype": "F32", "shape": [0], "data_offsets": [len(parts.data)] * 2}}
                )
            ),
        ),
        ("a missing tensor", "overlap or leave a gap", parts.with_header(lambda header: header.pop(name))),
        ("no description", "without the description", parts.with_header(lambda header: header.pop("__metadata__"))),
        (
            "a description nested a thousand deep",
            "nested too deep",
            parts.with_text('{"training": ' + "[" * 400 + "]" * 400 + "}"),
        ),
        ("a description nested a hundred thousand deep", "not JSON", parts.with_text("[" * 100_000)),
        (
            "another format version",
            "newer format (99)",
            parts.with_description(lambda description: description.update(format=99)),
        ),
        (
            "a number beyond all numbers",
            "number without end",
            parts.with_text(json.dumps(parts.description).replace('"training": {}', '"training": {"x": 1e999}')),
        ),
        ("a whole number of 400 digits", "number without end", set_training(10**400)),
        (
            "commands for the terminal in a text",
            "control characters",
            parts.with_description(lambda description: description.update(licence="\x1b]0;x\x07")),
        ),
        ("half a character in a text", "control characters", set_training("\ud800")),
        (
            "a licence of 500,000 letters",
            "too long",
            parts.with_description(lambda description: description.update(licence="x" * 500_000)),
        ),
        ("channels of 10^9", "absurd", network(type="segmentor", channels=[10**9, 8])),
        ("a thousand blocks", "absurd", network(type="generator", channels=2, blocks=1024)),
        ("another architecture", "unknown network type", network(type="os.system")),
        (
            "an architecture with arguments of its own",
            "cannot be built",
            network(type="segmentor", channels=[4, 8], __class__="x"),
        ),
        ("a deeper network than its weights", "is needed", network(type="segmentor", channels=[1024] * 16)),
        ("no channels", "cannot be built", network(type="segmentor", channels=[0, 0])),
        (
            "an intensity range without width",
            "is not a range",
            parts.with_description(lambda description: description["normalisation"]["CT"].update(low=0.0, high=0.0)),
        ),
        (
            "voxels of 0.3 mm",
            "million voxels",
            parts.with_description(lambda description: description["segmentor"].update(spacing_mm=0.3)),
        ),
        (
            "a localiser that sees single millimetres",
            "too small to look for a heart",
            parts.with_description(lambda description: description["localiser"].update(spacing_mm=1.0)),
        ),
        (
            "an endless intensity range",
            "absurd",
            parts.with_description(lambda description: description["normalisation"]["CT"].update(low=-1e200)),
        ),
    ]


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """Everything hostile that a weights file can be, and very many that nobody thought of."""
    parts = _Parts()
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        path = Path(folder, "weights.safetensors")
        yield _sound(parts, path)
        for name, expected, content in _known(parts, Path(folder, "trace")):
            yield _refusal(name, expected, content, path)
        yield _sparse(path)
        yield from _fuzzed(parts, path, 60 if quick else 2_000)


def _sound(parts: _Parts, path: Path) -> Outcome:
    path.write_bytes(parts.content)
    bundle = load_bundle(path)
    return Outcome(
        _GROUP, "the sound bundle that all others are made from: it must be read", bundle.metadata == parts.description
    )


def _refusal(name: str, expected: str, content: bytes, path: Path) -> Outcome:
    path.write_bytes(content)
    message, note = refuses(
        lambda: load_bundle(path), expected, path.parent
    )  # a trace of code that was run would be a file more
    return Outcome(_GROUP, name, not note, message=message, note=note)


def _sparse(path: Path) -> Outcome:
    """A file of 30 GB that takes no room on the disk, with a header that fits it."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [30 << 28], "data_offsets": [0, 30 << 30]}}).encode()
    with path.open("wb") as file:
        file.write(_file(header))
        file.truncate(8 + len(header) + (30 << 30))
    try:
        load_bundle(path)
        message = ""
    except BundleError as error:
        message = str(error)
    path.unlink()
    return Outcome(_GROUP, "30 GB of nothing", "larger than 1 GB" in message, message=message)


def _fuzzed(parts: _Parts, path: Path, count: int) -> Iterator[Outcome]:
    for number, (name, mutate) in enumerate(_MUTATIONS.items()):
        generator = random.Random(number)
        note, refused, memory, slowest = "", 0, peak_memory(), 0.0
        for _ in range(count):
            content = mutate(parts, generator)
            path.write_bytes(content)
            start = time.process_time()
            try:
                _use(path)
            except BundleError as error:
                refused += 1
                if len(str(error)) > 700 or not str(error).isprintable():
                    note = note or f"a sentence that is endless or cannot be shown: {ascii(str(error))[:200]}"
            except Exception as error:  # anything else would have been a crash
                note = note or f"{type(error).__name__}: {error} on {content[:300]!r}"
            slowest = max(slowest, time.process_time() - start)
        if slowest > MOST_WORK:
            note = note or f"one took {slowest:.1f} s"
        if peak_memory() - memory > MOST_MEMORY:
            note = note or f"{(peak_memory() - memory) >> 20} MiB more memory"
        if refused == 0 and name != "wrong numbers":
            note = note or "none was refused: this tries nothing"
        yield Outcome(_GROUP, f"by chance: {name}", not note, count, note=note)


def _use(path: Path) -> None:
    """What the program does with a file that it does not know."""
    json.dumps(read_description(path), allow_nan=False)
    bundle = load_bundle(path, self_test=False)  # the phantom would take most of the time and none of the reading
    assert set(bundle.metadata["networks"]) == set(PARTS)


def _wrong_bytes(parts: _Parts, generator: random.Random) -> bytes:
    spoilt = bytearray(parts.content)
    for _ in range(generator.randint(1, 6)):
        spoilt[generator.randrange(len(spoilt) - len(parts.data))] = generator.choice(
            (generator.randrange(256), *b'{}[]",:019e-\\u')
        )
    return bytes(spoilt)


def _wrong_numbers(parts: _Parts, generator: random.Random) -> bytes:
    spoilt = bytearray(parts.content)
    for _ in range(generator.randint(1, 4)):
        spoilt[generator.randrange(len(spoilt) - len(parts.data), len(spoilt))] = generator.randrange(256)
    return bytes(spoilt)


def _wrong_length(parts: _Parts, generator: random.Random) -> bytes:
    choice = generator.randrange(3)
    if choice == 0:
        return parts.content[: generator.randrange(len(parts.content))]
    if choice == 1:
        return parts.content + generator.randbytes(generator.randint(1, 50))
    return (
        struct.pack("<Q", generator.choice((generator.randrange(2**64), generator.randrange(2 * len(parts.content)))))
        + parts.content[8:]
    )


def _wrong_value(table: Any, generator: random.Random) -> None:
    """Replace, delete, rename or repeat one entry somewhere in a table."""
    while True:
        keys = list(table) if isinstance(table, dict) else list(range(len(table)))
        if not keys:
            return
        key = generator.choice(keys)
        if isinstance(table[key], (dict, list)) and table[key] and generator.random() < 0.7:
            table = table[key]
            continue
        change = generator.randrange(4)
        if change == 0 and isinstance(table, dict):
            del table[key]
        elif change == 1 and isinstance(table, dict):
            table[str(generator.choice(_NASTY))[:100]] = table.pop(key)
        else:
            table[key] = copy.deepcopy(generator.choice(_NASTY))
        return


def _wrong_header(parts: _Parts, generator: random.Random) -> bytes:
    return parts.with_header(lambda header: [_wrong_value(header, generator) for _ in range(generator.randint(1, 3))])


def _wrong_description(parts: _Parts, generator: random.Random) -> bytes:
    return parts.with_description(
        lambda description: [_wrong_value(description, generator) for _ in range(generator.randint(1, 3))]
    )


def _soup(parts: _Parts, generator: random.Random) -> bytes:
    """A header, or a description in a sound header, of random pieces of JSON."""
    text = "".join(generator.choices(_PIECES, k=generator.randint(1, 60)))
    if generator.random() < 0.5:
        return _file(text.encode("utf-8", "surrogatepass"), generator.randbytes(generator.randint(0, 20)))
    return parts.with_text(text)


_PIECES = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    '"a"',
    '"dtype":"F32"',
    '"shape":[1]',
    '"data_offsets":[0,4]',
    '"__metadata__":{"mkd":"{}"}',
    "1",
    "-1",
    "1e999",
    "NaN",
    "null",
    "true",
    "\\ud800",
    '"\\ud800"',
    "\x00",
    "ä",
    "9" * 400,
    " " * 50,
    '{"a":',
    "{}",
    "[" * 30,
]

_MUTATIONS: dict[str, Callable[[_Parts, random.Random], bytes]] = {
    "wrong bytes in the header": _wrong_bytes,
    "wrong numbers": _wrong_numbers,
    "wrong length": _wrong_length,
    "wrong entries of the header": _wrong_header,
    "wrong entries of the description": _wrong_description,
    "random pieces of JSON": _soup,
}
