"""Was it refused as it must be: with the right sentence, at once, without taking memory, and with every file as it
was?
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mkd_core import cli
from mkd_core.errors import MKDError

#: A refusal may take so long of a processor, s; so long in all, on a computer that is busy; and let the memory of this
#: process grow by so much, bytes.
MOST_WORK, MOST_WAITING, MOST_MEMORY = 30.0, 300.0, 300 << 20

#: More letters than this nobody reads.
_LONGEST_SENTENCE = 700


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

    def run() -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as said:
            code = cli.main(arguments)
        assert code == 1, f"exit code {code}"
        assert printed.getvalue() == "", "something was printed"
        return said.getvalue().removeprefix("mkd: ").removesuffix("\n")

    return _judged(run, expected, watched)


def refuses(run: Callable[[], object], expected: str, watched: Path) -> tuple[str, str]:
    """The same of a function that must raise an :class:`MKDError`."""

    def refuse() -> str:
        try:
            run()
        except MKDError as error:
            return str(error)
        raise AssertionError("not refused")

    return _judged(refuse, expected, watched)


def _judged(refuse: Callable[[], str], expected: str, watched: Path) -> tuple[str, str]:
    before, message, notes = _contents(watched), "", []
    start, work, memory = time.perf_counter(), time.process_time(), peak_memory()
    try:
        message = refuse()
    except Exception as error:  # whatever it is, it is not a refusal
        notes.append(str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}")
    seconds, worked, grown = time.perf_counter() - start, time.process_time() - work, peak_memory() - memory
    if seconds > MOST_WAITING or worked > MOST_WORK:
        notes.append(f"{seconds:.1f} s, of these {worked:.1f} s of a processor")
    if grown > MOST_MEMORY:
        notes.append(f"{grown >> 20} MiB more memory")
    if message and expected not in message:
        notes.append(f"the sentence lacks “{expected}”")
    if not message.isprintable() or len(message) > _LONGEST_SENTENCE:
        notes.append("the sentence is endless or cannot be shown")
    if _contents(watched) != before:
        notes.append("files were changed or left behind")
    return message, "; ".join(notes)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
