"""The checkpoint that a run continues from: one file that holds all of its state, in two generations.

Layout of a file: 8 bytes ``MKDRUN01``; SHA-256 of all that follows; length of the header, 8 bytes, little endian; JSON
header; the tensors' bytes.  Nothing in it is ever executed, and a file is read only if its SHA-256 is right.

The two generations are two files that are written in turn, so that the newest sound one is never touched: whatever
happens to a run, one of them can be read.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import torch

from mkd_core.errors import InputError
from mkd_core.io.atomic import write_file

_MAGIC = b"MKDRUN01"
_DIGEST_BYTES = 32
_LENGTH = struct.Struct("<Q")

#: Number formats that networks, optimisers and pools hold.
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
}

#: Files of the two generations.
NAMES = ("checkpoint-a.mkd", "checkpoint-b.mkd")


class DamagedError(ValueError):
    """The bytes are not what was written; the text says how, as the end of a sentence."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: of the run.

    Attributes:
        damaged: files that :meth:`load` could not use, with the reason.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest: str | None = None
        self._generation = 0
        self.damaged: dict[str, str] = {}

    def save(self, content: dict[str, Any]) -> Path:
        """Write the next generation over the older of the two.

        Args:
            content: tensors, numbers, texts, None, and lists, tuples and dictionaries of them.

        Raises:
            OSError: it cannot be written; both generations are as before.
        """
        name = NAMES[1] if self._newest == NAMES[0] else NAMES[0]
        chunks = _chunks({"generation": self._generation + 1, "content": content})
        write_file(self._folder / name, lambda draft: _write(draft, chunks))
        self._generation, self._newest = self._generation + 1, name
        return self._folder / name

    def load(self) -> dict[str, Any] | None:
        """The newest sound generation, on the CPU; None if there is no file.

        Raises:
            InputError: there are files, and none is sound.
        """
        found: dict[str, dict[str, Any]] = {}
        self.damaged = {}
        for name in NAMES:
            path = self._folder / name
            if not path.exists():
                continue
            try:
                entry = decode(path.read_bytes())
                if not (isinstance(entry, dict) and isinstance(entry.get("generation"), int) and "content" in entry):
                    raise DamagedError("it is not a checkpoint of a run")
                found[name] = entry
            except DamagedError as error:
                self.damaged[name] = str(error)
        if not found and self.damaged:
            (name, reason), *_ = self.damaged.items()
            raise InputError(
                f"“{self._folder / name}” cannot be used: {reason}.",
                "Remove the checkpoints to begin anew, or choose another folder for the run.",
            )
        if not found:
            return None
        self._newest = max(found, key=lambda name: found[name]["generation"])
        self._generation = found[self._newest]["generation"]
        return found[self._newest]["content"]


def encode(content: Any) -> bytes:
    """Bytes of tensors, numbers, texts, None, and lists, tuples and dictionaries of them.

    Raises:
        TypeError: there is something else in it.
    """
    return b"".join(_chunks(content))


def _write(path: Path, chunks: list[bytes | memoryview]) -> None:
    with path.open("wb") as file:
        file.writelines(chunks)


def _chunks(content: Any) -> list[bytes | memoryview]:
    """The bytes in pieces; those of tensors are not copied."""
    tensors: list[torch.Tensor] = []
    plain = _plain(content, tensors)
    described = [
        {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "channels_last": _is_channels_last(tensor),
        }
        for tensor in tensors
    ]
    header = json.dumps({"content": plain, "tensors": described}).encode("ascii")
    chunks: list[bytes | memoryview] = [_LENGTH.pack(len(header)), header]
    chunks += [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data for tensor in tensors]
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return [_MAGIC, digest.digest(), *chunks]


def decode(data: bytes) -> Any:
    """What :func:`encode` was given; tensors on the CPU, with values, number format and memory layout as they were.

    Raises:
        DamagedError: other bytes.
    """
    start = len(_MAGIC) + _DIGEST_BYTES
    if not data.startswith(_MAGIC):
        raise DamagedError("it is not a checkpoint of a run")
    if hashlib.sha256(memoryview(data)[start:]).digest() != data[len(_MAGIC) : start]:
        raise DamagedError("it is damaged, its checksum is wrong")
    try:
        (length,) = _LENGTH.unpack_from(data, start)
        position = start + _LENGTH.size + length
        header = json.loads(data[start + _LENGTH.size : position])
        tensors = []
        for entry in header["tensors"]:
            tensor, position = _tensor(data, position, entry)
            tensors.append(tensor)
        return _restored(header["content"], tensors)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise DamagedError(f"it is not a checkpoint of this version ({error})") from error


def _plain(value: Any, tensors: list[torch.Tensor]) -> Any:
    """JSON for a value: lists and plain values as they are, all else as a table with one key."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        if not all(type(key) in (str, int) for key in value):
            raise TypeError("keys must be texts or whole numbers")
        return {"dict": [[key, _plain(one, tensors)] for key, one in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(one, tensors) for one in value]}
    if isinstance(value, list):
        return [_plain(one, tensors) for one in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _restored(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "tuple":
        return tuple(_restored(one, tensors) for one in held)
    if kind == "dict":
        return {key: _restored(one, tensors) for key, one in held}
    raise ValueError(f"unknown kind {kind!r}")


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return (
        tensor.dim() == 5 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last_3d)
    )


def _tensor(data: bytes, position: int, entry: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """(tensor at a position of the file, position after it)."""
    tensor = torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]])
    count = tensor.numel() * tensor.element_size()
    if position + count > len(data):
        raise ValueError("a tensor is cut short")
    if count:
        raw = torch.frombuffer(bytearray(data[position : position + count]), dtype=tensor.dtype)
        tensor = raw.reshape(entry["shape"])
    if entry["channels_last"]:
        tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
    return tensor, position + count
