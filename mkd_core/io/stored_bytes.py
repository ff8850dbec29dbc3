"""Can a file hold what its header claims?"""

from __future__ import annotations

from pathlib import Path

from mkd_core.environment import available_memory
from mkd_core.errors import InputError

#: Bytes that are looked at in one go.
BLOCK_BYTES = 1 << 24

#: Deflate packs at most so many bytes into one (https://zlib.net/zlib_tech.html).
_MOST_PACKED = 1032


def cut_off(path: Path) -> InputError:
    """Refusal of a file of which something is missing or wrong."""
    return InputError(f"“{path.name}” is cut off or damaged.", "Download or copy it again.")


def check_claim(path: Path, start: int, needed: int, is_compressed: bool) -> None:
    """Refuse a file that is too short for its voxels, or voxels that do not fit into the memory, before either is
    touched.

    Args:
        path: the file.
        start: byte where the voxels begin.
        needed: bytes that the voxels take in memory.
        is_compressed: whether deflate has packed them.

    Raises:
        InputError: with the reason.
    """
    if needed > (path.stat().st_size - start) * (_MOST_PACKED if is_compressed else 1):
        raise cut_off(path)
    free = available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"The voxels of “{path.name}” take {needed / 2**30:.0f} GB, and {free / 2**30:.0f} GB of this computer's "
            "memory are free.",
            "Close other programs, or cut the volume to the chest.",
        )
