"""Was it refused as it must be: with the right sentence, at once, without taking memory, and with every file as it was?"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mkd_core import cli

#: A refusal may take so long of a processor, s; so long in all, on a computer that is busy; and let the memory of this process grow by so much, bytes.
MOST_WORK, MOST_WAITING, MOST_MEMORY = 2.0, 120.0, 300 << 20


def peak_memory() -> int:
    """Most bytes of memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def command_refuses(arguments: list[str], expected: str, watched: Path) -> tuple[str, str]:
    """Run ``mkd`` with arguments that it must refuse.

    Args:
        arguments: of the command.
        expected: words that the sentence must hold.
        watched: folder in which nothing may change.

    Returns:
        The sentence, and why the refusal is not as it must be; empty if it is.
    """
    printed, said = io.StringIO(), io.StringIO()
    before = _contents(watched)

    def run() -> int:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            return cli.main(arguments)

    code, notes = _measured(run)
    message = said.getvalue().removeprefix("mkd: ").strip()
    if code != 1:
        notes.append(f"exit code {code}")
    if expected not in message or "\n" in message:
        notes.append(f"the sentence lacks “{expected}”" if "\n" not in message else "more than a sentence")
    if printed.getvalue():
        notes.append("something was printed")
    if _contents(watched) != before:
        notes.append("files were changed or left behind")
    return message, "; ".join(notes)


def _measured(run: Callable[[], int]) -> tuple[int | None, list[str]]:
    start, work, memory = time.perf_counter(), time.process_time(), peak_memory()
    notes = []
    try:
        code = run()
    except Exception as error:  # whatever it is, it is not a refusal
        code = None
        notes.append(f"{type(error).__name__}: {error}")
    seconds, worked, grown = time.perf_counter() - start, time.process_time() - work, peak_memory() - memory
    if seconds > MOST_WAITING or worked > MOST_WORK:
        notes.append(f"{seconds:.1f} s, of these {worked:.1f} s of a processor")
    if grown > MOST_MEMORY:
        notes.append(f"{grown / 2**20:.0f} MiB more memory")
    return code, notes


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
