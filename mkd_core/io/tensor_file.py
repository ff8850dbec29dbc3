"""The .safetensors container: a JSON header and plain numbers, read and written without trusting what is in the file.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes header length, little endian; JSON header
``{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}``; then the data.  Nothing in
such a file is ever executed.  The whole header is checked against the size of the file before a byte of data is read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mkd_core.io.bundle_refusals import refused

#: Longest header that is read, in bytes.  A bundle of this project needs about 20 kB.
MAX_HEADER_BYTES = 1_000_000

#: Largest file that is read, in bytes: more than any network of this project needs, and little enough to be held in
#: memory.
MAX_FILE_BYTES = 1 << 30

#: Bytes per element of the number formats a bundle may hold.
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}

#: The formats that numpy knows, by its names.
_NUMPY = {"F32": "<f4", "F16": "<f2", "I8": "i1"}

# First bytes of what people pick by mistake.
_FOREIGN_FORMATS: Mapping[bytes, tuple[str, dict[str, str]]] = {
    b"PK\x03\x04": ("bundle_zip", {}),
    b"\x80\x02": ("bundle_pickle", {}),
    b"\x80\x03": ("bundle_pickle", {}),
    b"\x80\x04": ("bundle_pickle", {}),
    b"\x80\x05": ("bundle_pickle", {}),
    b"\x89HDF": ("bundle_foreign", {"kind": "HDF5"}),
    b"\x1f\x8b": ("bundle_foreign", {"kind": "gzip"}),
    b"NRRD": ("bundle_foreign", {"kind": "NRRD"}),
}


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies in the file.

    Attributes:
        dtype: key of :data:`DTYPE_BYTES`.
        shape: sides; empty for a scalar.
        begin, end: bytes, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """Header of a .safetensors file.

    Attributes:
        tensors: entry per tensor name.
        metadata: the free text entries.
        data_start: position of the data in the file, in bytes.
        data_bytes: length of the data.
    """

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_start: int
    data_bytes: int


def read_header(path: Path) -> Header:
    """Read and check the header; the data are not touched.

    Args:
        path: the file.

    Raises:
        BundleError: not a file, not this format, or a header that does not describe exactly the bytes that follow
            it.
    """
    with _opened(path) as file:
        return _read_header(file)[0]


def read(path: Path) -> tuple[Header, bytes]:
    """Read the whole file from one opening, so that its header and its data belong together.

    Args:
        path: the file.

    Returns:
        The checked header, and all bytes of the file.

    Raises:
        BundleError: as :func:`read_header`, or the file changed while it was read.
    """
    with _opened(path) as file:
        header, start = _read_header(file)
        data = file.read(header.data_bytes + 1)
        if len(data) != header.data_bytes:
            raise refused("bundle_changed")
        return header, start + data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        if not path.exists():
            raise refused("bundle_missing")
        if not path.is_file():
            raise refused("bundle_no_file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise refused("bundle_unreadable", reason=str(error.strerror or error)) from error
    except ValueError as error:
        raise refused("bundle_unreadable", reason=str(error)) from error  # a name with a zero byte


def _read_header(file: IO[bytes]) -> tuple[Header, bytes]:
    """The checked header, and all bytes up to the data."""
    file_bytes = os.fstat(file.fileno()).st_size
    start = file.read(8)
    for magic, (code, figures) in _FOREIGN_FORMATS.items():
        if start.startswith(magic):
            raise refused(code, **figures)
    if len(start) < 8:
        raise refused("bundle_too_short")
    (header_bytes,) = struct.unpack("<Q", start)
    if header_bytes > MAX_HEADER_BYTES:
        raise refused("bundle_header_size")
    if 8 + header_bytes > file_bytes:
        raise refused("bundle_header_cut")
    if file_bytes > MAX_FILE_BYTES:
        raise refused("bundle_too_large")
    text = file.read(header_bytes)
    return _parse_header(text, 8 + header_bytes, file_bytes - 8 - header_bytes), start + text


def _parse_header(text: bytes, data_start: int, data_bytes: int) -> Header:
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise refused("bundle_header_json") from error
    if not isinstance(table, dict):
        raise refused("bundle_header_table")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refused("bundle_header_texts")
    tensors = {name: _parse_entry(name, entry) for name, entry in table.items()}
    position = 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise refused("bundle_tensor_gap", tensor=name)
        position = entry.end
    if position != data_bytes:
        raise refused("bundle_data_size", found=data_bytes, described=position)
    return Header(tensors, metadata, data_start, data_bytes)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _parse_entry(name: str, entry: object) -> TensorEntry:
    def is_count(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refused("bundle_tensor_entry", tensor=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise refused("bundle_tensor_format", tensor=name, format=str(dtype), choices=", ".join(sorted(DTYPE_BYTES)))
    if not isinstance(shape, list) or not all(map(is_count, shape)) or len(shape) > 8:
        raise refused("bundle_tensor_shape", tensor=name)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise refused("bundle_tensor_place", tensor=name)
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise refused("bundle_tensor_size", tensor=name)
    return TensorEntry(dtype, tuple(shape), begin, end)


def decode(entry: TensorEntry, data: bytes) -> np.ndarray:
    """Numbers of a tensor as a float32 array of its shape (a copy).

    Args:
        entry: which tensor.
        data: everything after the header.
    """
    raw = data[entry.begin : entry.end]
    if entry.dtype == "BF16":  # the upper half of a float32
        numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = np.frombuffer(raw, _NUMPY[entry.dtype]).astype("<f4")
    return numbers.reshape(entry.shape).astype(np.float32, copy=False)


def encode(numbers: np.ndarray, dtype: str) -> bytes:
    """Bytes of an array in number format ``dtype``; numbers are rounded to nearest, ties to even.

    Raises:
        BundleError: a number is not finite, or too big for the format.
    """
    numbers = np.ascontiguousarray(numbers, "<f4")
    if dtype == "BF16":
        bits = numbers.view("<u4").astype(np.uint64)
        halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        stored, raw = (halves.astype("<u4") << 16).view("<f4"), halves.tobytes()
    elif dtype == "I8":
        stored = np.where(np.abs(numbers) < 127.5, np.rint(numbers), np.inf)
        raw = np.nan_to_num(stored).astype("i1").tobytes()
    else:
        with np.errstate(over="ignore"):
            stored = numbers.astype(_NUMPY[dtype])
        raw = stored.tobytes()
    if not np.isfinite(stored).all():
        raise refused("bundle_number_format", format=dtype)
    return raw


def write(path: Path, tensors: Mapping[str, tuple[np.ndarray, str]], metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file.

    Args:
        path: the file, a draft of :mod:`mkd_core.io.atomic`.
        tensors: name -> (float array, number format).
        metadata: free text entries.

    Raises:
        BundleError: a number does not fit, or the header grows too long to be read again.
        OSError: the folder cannot be written.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    chunks, position = [], 0
    # Wide formats first keeps every tensor aligned to its own element size, as readers that map the file expect.
    for name, (numbers, dtype) in sorted(tensors.items(), key=lambda item: (-DTYPE_BYTES[item[1][1]], item[0])):
        chunk = encode(numbers, dtype)
        table[name] = {"dtype": dtype, "shape": list(numbers.shape), "data_offsets": [position, position + len(chunk)]}
        chunks.append(chunk)
        position += len(chunk)
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER_BYTES:
        raise refused("bundle_header_long")
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.writelines(chunks)
