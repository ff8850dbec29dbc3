"""Segment what waits in a ledger in this process, one series after the other; needs no Dask.

Slower than :mod:`mkd_core.archive.run`, and for folders rather than archives: it is what the panel in 3D Slicer starts.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from mkd_core.archive import study
from mkd_core.archive.ledger import Ledger, Shard, process_name
from mkd_core.archive.progress import Progress, fix_settings, progress_of, take_over_abandoned
from mkd_core.archive.study import Settings
from mkd_core.errors import MKDError
from mkd_core.isolation import when_stdin_ends
from mkd_core.protocol import SegmentationOptions


def run_here(
    ledger: Ledger,
    settings: Settings,
    options: SegmentationOptions,
    *,
    shard: Shard | None = None,
    with_parent: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Segment what waits.  Whatever happens to this process, the next call goes on.

    Args:
        ledger: what there is to do.
        settings: what results depend on; those of the first run hold.
        options: device and threads.
        shard: do only this part.
        with_parent: end, and let what is not finished wait, when standard input ends: as it does with the program that
            started this one.
        progress: called after each series.

    Raises:
        InputError: the settings are not those of the first run.
        MKDError: the weights, the device or the disk cannot be used; the rows wait.
    """
    fix_settings(ledger, settings)
    owner = process_name()
    if with_parent:
        end_with_input(lambda: _release(ledger.folder, owner))
    take_over_abandoned(ledger, settings)
    state = progress_of(ledger, shard)
    bundle, options = study.prepare(settings, options)
    start = time.monotonic()
    try:
        while tasks := ledger.claim(owner, 1, shard):
            outcome = study.process(ledger.folder, tasks[0], settings, bundle, options)
            state.finished += ledger.commit(owner, [outcome])
            state.done += outcome.state == "done"
            state.failed += outcome.state == "failed"
            state.seconds = time.monotonic() - start
            if progress is not None:
                progress(state)
    finally:
        ledger.release(owner)
    return state


def end_with_input(before: Callable[[], None] | None = None) -> None:
    """From now on, end this process at once when its standard input ends; networks under way are not asked.

    Args:
        before: what to do first, in a thread of its own.
    """

    def end() -> None:
        if before is not None:
            before()
        os._exit(0)

    when_stdin_ends(end)


def _release(folder: Path, owner: str) -> None:
    """Let the rows of this process wait; by a connection of this thread's own."""
    with contextlib.suppress(MKDError), Ledger(folder) as ledger:
        ledger.release(owner)
