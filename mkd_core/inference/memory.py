"""What a process of our own changes for all of itself.  Freed memory is kept for the next layer, and given back when
memory is short; threads that wait sleep; imports are not searched for garbage.

glibc returns every large block to the system when it is freed and takes page faults when the next one is used; a
network allocates many large blocks, one after the other.  Other systems have no such switch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Smaller blocks are kept.  The features of the largest box are smaller; a volume that is larger goes back to the
#: system at once.
_KEPT_BYTES = 256 * 2**20

#: The most that glibc before 2.35 takes.
_KEPT_BYTES_OLD = 32 * 2**20


def retain_memory() -> bool:
    """Let this process keep what it frees; for programs of ours only, because it holds for the whole process.

    Returns:
        Whether this system can.
    """
    library = _glibc()
    if library is None:
        return False
    kept = any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in (_KEPT_BYTES, _KEPT_BYTES_OLD))
    return kept and bool(library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def let_waiting_threads_sleep() -> None:
    """Have PyTorch's threads sleep until there is work, where its OpenMP is not told otherwise; for programs of ours
    only, before PyTorch is imported.

    By default a thread that has done its part of a layer looks for more without a pause.  Where another program needs
    the processor, the others then wait for threads that have nothing to do: beside two busy programs on two cores a
    run took four times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def release_memory() -> None:
    """Return all memory that is free inside this process, on graphics cards too, to those who need it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Import a module inside without garbage collection; for programs of ours only, because it holds for the process.

    Importing PyTorch makes so many objects that Python looks through all of them again and again, which takes a sixth
    of the time and finds nothing.  What is there afterwards is not looked at again.  Nothing happens if the module is
    there already.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
