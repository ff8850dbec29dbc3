"""Command line of the mutation runs; exits with 1 if a fault survives."""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Testing.mutants.described import ROOT, chosen
from Testing.mutants.generated import generate
from Testing.mutants.workspace import Fault, Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Testing.mutants", description=__doc__)
    parser.add_argument("what", nargs="*", help="files of Testing/mutants or parts of names; default: all")
    parser.add_argument(
        "--generate", nargs="+", metavar="PLACE", help="make generic faults in these files or folders instead"
    )
    parser.add_argument("--limit", type=int, default=100, help="at most so many generic faults (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their choice (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        faults: list[Fault] = [
            *(generate(options.generate, options.limit, options.seed) if options.generate else chosen(options.what))
        ]
    except ValueError as error:
        parser.error(str(error))
    return try_out_all(faults, options.jobs)


def try_out_all(faults: Sequence[Fault], jobs: int = 1, root: Path = ROOT) -> int:
    """Try faults out and print a line for each; returns 1 if one survived or could not be tried, else 0."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        free: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
        for number in range(jobs):
            (Path(folder) / str(number)).mkdir()
            free.put(Workspace(root, Path(folder) / str(number)))

        def borrowed(use):
            workspace = free.get()
            try:
                return use(workspace)
            finally:
                free.put(workspace)

        # A fault is killed by a test that fails with it and passes without it.
        selections = list(dict.fromkeys(fault.tests for fault in faults))
        outcomes = pool.map(lambda tests: borrowed(lambda workspace: workspace.run(tests)), selections)
        sound = dict(zip(selections, outcomes))
        for tests, outcome in sound.items():
            if outcome != "passed":
                print(f"{outcome} without any fault: {' '.join(tests)}", flush=True)

        def verdict(fault: Fault) -> str:
            if sound[fault.tests] != "passed":
                return "not tried"
            return borrowed(lambda workspace: workspace.try_out(fault))

        counts: dict[str, int] = {}
        for fault, outcome in zip(faults, pool.map(verdict, faults)):
            counts[outcome] = counts.get(outcome, 0) + 1
            print(f"{outcome:9} {fault.name}", flush=True)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    print(f"{len(faults)} faults: {summary or 'none'} ({time.monotonic() - begun:.0f} s)")
    return 0 if counts.keys() <= {"killed"} else 1


if __name__ == "__main__":
    sys.exit(main())
