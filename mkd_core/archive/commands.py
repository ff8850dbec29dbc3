"""The command ``mkd archive``.

mkd archive index SOURCE... --out RUN
mkd archive run RUN [--workers N | --gpus all | --scheduler tcp://... | --here] [--shard I/N]
mkd archive status RUN
mkd archive retry RUN
mkd archive export RUN [--csv FILE] [--parquet FILE]
mkd archive report RUN
mkd archive review RUN FILE
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mkd_core.archive.ledger import Ledger, Shard, unusable
from mkd_core.errors import InputError
from mkd_core.protocol import (
    DEVICES_IN_WORDS,
    MODALITIES,
    STRUCTURE_SETS,
    STRUCTURE_SETS_IN_WORDS,
    SegmentationOptions,
)

if TYPE_CHECKING:
    from mkd_core.archive.progress import Progress
    from mkd_core.archive.study import Settings

#: Seconds between two lines of progress where there is no terminal.
_LINE_EVERY_S = 30.0

_BYTES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Give a parser the commands; each sets ``run(chosen, parser)``."""
    parser.description = "Segment a whole archive once, and look at the results."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        added.set_defaults(run=lambda chosen, _: _with_ledger(run, chosen))
        return added

    index = command("index", _index, "find all series, without reading a voxel")
    index.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="folder, volume, .zip, or address of a DICOMweb server"
    )
    index.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run; made if needed")
    index.add_argument("--key", type=Path, metavar="FILE", help="key of the ids (default: the user's own, made once)")
    _add_with_parent(index)
    index.add_argument(
        "--every-series", action="store_true", help="segment every usable series of a study, not only the best"
    )

    run = command("run", _run, "segment what waits; the same command goes on after any end")
    _add_run(run)
    place = run.add_mutually_exclusive_group()
    place.add_argument("--workers", type=_count, metavar="N", help="processes (default: as many as fit)")
    place.add_argument("--gpus", type=_cards, metavar="all|N", help="one process for each graphics card")
    place.add_argument("--scheduler", default="", metavar="ADDRESS", help="workers of this Dask scheduler")
    place.add_argument("--here", action="store_true", help="one series after the other in this process; needs no Dask")
    run.add_argument("--device", default="auto", help=f"with --here: {DEVICES_IN_WORDS}")
    run.add_argument("--threads", type=_count, metavar="N", help="with --here: processor threads (default: all cores)")
    _add_with_parent(run)
    run.add_argument("--shard", type=_shard, metavar="I/N", help="only part I of N, for job arrays")
    run.add_argument(
        "--memory", type=_size, metavar="SIZE", help="limit of a worker, such as 4G (default: an even share)"
    )
    run.add_argument("--dashboard", action="store_true", help="show Dask's pages at http://127.0.0.1:8787")
    kept = run.add_argument_group(
        "what the run keeps", "Named at its first start; the next ones need not name it again."
    )
    kept.add_argument("--weights", type=Path, help="weights bundle (default: the one that comes with this package)")
    kept.add_argument("--structures", choices=STRUCTURE_SETS, help=STRUCTURE_SETS_IN_WORDS)
    kept.add_argument("--modality", choices=("auto", *MODALITIES), help="default: auto, what the files say, else CT")
    kept.add_argument(
        "--labels", choices=("nrrd", "seg"), help="seg: DICOM SEG and SR for DICOM series (default: nrrd)"
    )
    kept.add_argument("--stow", metavar="URL", help="send SEG and SR to this DICOMweb server")
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")

    status = command("status", _status, "say how far a run is")
    _add_run(status)
    status.add_argument("--json", action="store_true", help="as JSON")

    retry = command("retry", _retry, "let failed series wait again")
    _add_run(retry)
    retry.add_argument("--reason", metavar="CODE", help="only those that failed for this reason, as status shows it")

    export = command("export", _export, "write one table of all series")
    _add_run(export)
    export.add_argument("--csv", type=Path, metavar="FILE", help="as comma-separated values")
    export.add_argument("--parquet", type=Path, metavar="FILE", help="as Parquet")
    export.add_argument(
        "--with-paths",
        action="store_true",
        help="with paths and identifiers of the sources, and details of failures",
    )
    _add_overwrite(export)

    report = command("report", _report, "make a page for quality control by eye")
    _add_run(report)
    report.add_argument("--out", type=Path, metavar="FILE", help="page to write (default: report.html in the run)")
    report.add_argument(
        "--pictures",
        choices=("small", "large", "none"),
        default="small",
        help="pictures inside the page, about 5 or 25 kB a study (default: small)",
    )
    _add_overwrite(report)

    review = command("review", _review, "enter the decisions that the page has saved")
    _add_run(review)
    review.add_argument("file", type=Path, help="file that the page has saved")


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of the run")


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace a file that this run did not make")


def _add_with_parent(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--with-parent",
        action="store_true",
        help="end when standard input ends, as it does with a program that starts this",
    )


# ---- arguments ----


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError("choose a number from 1 to 4096")
    return int(text)


def _cards(text: str) -> str:
    return text if text == "all" else str(_count(text))


def _shard(text: str) -> Shard:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError("choose I/N with I from 1 to N, such as 3/20")
    return Shard(int(index), int(count))


def _size(text: str) -> int:
    number, unit = text.rstrip("iIbB"), 1
    if number[-1:].lower() in _BYTES:
        number, unit = number[:-1], _BYTES[number[-1:].lower()]
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        size = 0
    if size < 1 << 28:
        raise argparse.ArgumentTypeError("choose a size of at least 256M, such as 4G")
    return size


# ---- commands ----


def _with_ledger(run: Callable[[argparse.Namespace], None], chosen: argparse.Namespace) -> None:
    """Call a command; a ledger that breaks under it is told in words."""
    try:
        run(chosen)
    except sqlite3.Error as error:
        raise unusable(getattr(chosen, "folder", None) or chosen.out, error) from error


def _index(chosen: argparse.Namespace) -> None:
    from mkd_core.archive.identity import Pseudonyms, default_key_path, read_key
    from mkd_core.archive.index import check_sources, index

    if chosen.with_parent:
        from mkd_core.archive.serial import end_with_input

        end_with_input()
    check_sources(chosen.sources)  # a name that was mistyped leaves no run behind
    line = _Line()
    pseudonyms = Pseudonyms(read_key(chosen.key or default_key_path()))
    with Ledger(chosen.out, create=True) as ledger:
        summary = index(
            ledger,
            chosen.sources,
            pseudonyms,
            every_series=chosen.every_series,
            progress=lambda found, place: line.show(f"{found.new + found.known} series; {place}"),
        )
        line.clear()
        counts = ledger.state_counts()
    print(
        f"{summary.new} new series, {summary.known} known; {counts['waiting']} to segment, {counts['aside']} set aside"
    )
    for (code, text), number in summary.aside.most_common():
        print(_reason_line("file", number, code, text))


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.here and (chosen.with_parent or chosen.threads or chosen.device != "auto"):
        raise InputError("Device, threads and --with-parent can be chosen with --here only.")
    if not chosen.here and importlib.util.find_spec("distributed") is None:
        raise InputError(
            "Archives need Dask, which is not installed.",
            "Install it with: pip install 'mkd-core[archive]', or say --here for one series after the other.",
        )
    if chosen.dashboard and importlib.util.find_spec("bokeh") is None:
        raise InputError("Dask's pages need Bokeh, which is not installed.", "Install it with: pip install bokeh")
    from mkd_core.archive.study import Settings, detail_sha256
    from mkd_core.inference.pipeline import require_torch
    from mkd_core.io.bundle import default_bundle_path, load_bundle

    with Ledger(chosen.folder) as ledger:
        require_torch()
        kept = ledger.get("settings") or {}
        weights = chosen.weights or Path(kept.get("weights", ""))
        path = (weights if chosen.weights or weights.is_file() else default_bundle_path()).absolute()
        names = ("modality", "labels", "stow", "structures")
        named = {name: value for name in names if (value := getattr(chosen, name)) is not None}
        bundle = load_bundle(path, self_test=False)
        settings = Settings(**{**kept, **named, "weights": str(path), "sha256": bundle.sha256})
        wanted = SegmentationOptions(structures=settings.structures)
        settings = dataclasses.replace(settings, detail_sha256=detail_sha256(bundle, wanted))
        if settings.stow and settings.labels != "seg":
            raise InputError("Only DICOM can be sent to a server.", "Say --labels seg as well.")
        line = _Line(quiet=chosen.quiet)
        try:
            final = _segment(ledger, settings, chosen, lambda state: line.show(_progress_text(state)))
        finally:
            line.clear()
    if not chosen.quiet:
        print(f"{final.done} of {final.total} done, {final.failed} failed; {final.finished} in this run")
        if final.failed:
            print(f"Reasons: mkd archive status {chosen.folder}; once more: mkd archive retry {chosen.folder}")


def _segment(
    ledger: Ledger, settings: Settings, chosen: argparse.Namespace, show: Callable[[Progress], None]
) -> Progress:
    if chosen.here:
        from mkd_core.archive.serial import run_here
        from mkd_core.inference.memory import let_waiting_threads_sleep

        let_waiting_threads_sleep()
        options = SegmentationOptions(device=chosen.device, threads=chosen.threads)
        return run_here(ledger, settings, options, shard=chosen.shard, with_parent=chosen.with_parent, progress=show)
    from mkd_core.archive.run import Engine, run

    engine = Engine(chosen.workers, chosen.gpus or "", chosen.scheduler, chosen.memory, chosen.dashboard)
    return run(ledger, settings, engine, shard=chosen.shard, progress=show)


def _progress_text(state: Progress) -> str:
    done = state.done + state.failed
    share = done / state.total if state.total else 1.0
    bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
    text = f"{bar} {share:4.0%}  {done} of {state.total}, {state.failed} failed"
    if state.seconds_left is not None:
        text += f"  {state.per_hour:.0f} an hour, {_duration(state.seconds_left)} left"
    return text + (f"  {state.dashboard}" if state.dashboard else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def _status(chosen: argparse.Namespace) -> None:
    with Ledger(chosen.folder) as ledger:
        counts = ledger.counts()
    if chosen.json:
        print(json.dumps({"states": counts.states, "severities": counts.severities, "decisions": counts.decisions}))
        return
    print("  ".join(f"{state} {number}" for state, number in counts.states.items()))
    if counts.states["done"]:
        worst = ", ".join(f"{counts.severities.get(one, 0)} {one}" for one in ("red", "amber", "none"))
        print(f"worst warning of those done: {worst}")
    if counts.decisions:
        print("reviewed: " + ", ".join(f"{number} {decision}" for decision, number in counts.decisions.items()))
    for state, code, text, number in counts.reasons:
        print(_reason_line(state, number, code, text))


def _reason_line(what: str, number: int, code: str, text: str) -> str:
    return f"{what:<8}{number:>9}  {code:<24}{text}"


def _retry(chosen: argparse.Namespace) -> None:
    with Ledger(chosen.folder) as ledger:
        print(f"{ledger.retry(chosen.reason)} series wait again")


def _export(chosen: argparse.Namespace) -> None:
    from mkd_core.archive.export import write_csv, write_parquet

    if chosen.csv is None and chosen.parquet is None:
        chosen.csv = chosen.folder / "table.csv"
    with Ledger(chosen.folder) as ledger:
        for path, write in ((chosen.csv, write_csv), (chosen.parquet, write_parquet)):
            if path is not None:
                rows = write(ledger, path, with_paths=chosen.with_paths, overwrite=chosen.overwrite)
                print(f"{path}: {rows} rows")


def _report(chosen: argparse.Namespace) -> None:
    from mkd_core.archive.report import write_report

    path = chosen.out or chosen.folder / "report.html"
    with Ledger(chosen.folder) as ledger:
        written = write_report(ledger, path, pictures=chosen.pictures, overwrite=chosen.overwrite)
    size = path.stat().st_size
    print(f"{path}: {written} studies, " + (f"{size / 1e6:.1f} MB" if size > 1e6 else f"{size / 1e3:.0f} kB"))


def _review(chosen: argparse.Namespace) -> None:
    from mkd_core.archive.report import read_reviews

    with Ledger(chosen.folder) as ledger:
        changed, unknown = ledger.review(read_reviews(chosen.file, ledger.get("run")))
    print(
        f"{changed} decisions entered" + (f"; {len(unknown)} are of series that are not in this run" if unknown else "")
    )


class _Line:
    """One line on a terminal that tells how far we are; without a terminal, a line from time to time."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._told = time.monotonic()

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._quiet:
            return
        if self._terminal:
            self._print(f"\r\033[K{text}", "")
        elif time.monotonic() - self._told >= _LINE_EVERY_S:
            self._told = time.monotonic()
            self._print(text, "\n")

    def clear(self) -> None:
        """Leave an empty line."""
        if self._terminal and not self._quiet:
            self._print("\r\033[K", "")

    def _print(self, text: str, end: str) -> None:
        try:
            print(text, end=end, file=sys.stderr, flush=True)
        except OSError:  # the terminal is gone; the work is not
            self._quiet = True
