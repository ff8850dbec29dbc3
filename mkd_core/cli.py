"""The command ``mkd``.

    mkd segment ct.nii.gz heart.nii.gz --report report.json --preview picture.png
    mkd evaluate BUNDLE DATA --out evaluation
    mkd info [BUNDLE]
    mkd dicom FOLDER
    mkd synthesize [LABELMAP] image.nii.gz [truth.nii.gz] --modality CT --seed 1 --frames 10
    mkd train CONFIG.toml [--out runs/mine]
    mkd experiment scarce-labels --hearts HEARTS --out runs/scarce-labels
    mkd archive index SOURCE... --out RUN

Exit code 0: done.  1: refused or failed, with a sentence on stderr; no output file is left.  2: wrong usage.  130 and
143: interrupted, and told to end; no output file is left either.

No output replaces an input, or a file that is not an unchanged result of an earlier run, unless ``--overwrite`` allows
the latter.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from mkd_core import __version__
from mkd_core.errors import MKDError
from mkd_core.inference.memory import let_waiting_threads_sleep, retain_memory
from mkd_core.measure.messages import describe, finding, refusal
from mkd_core.protocol import (
    ASSISTANT_POLICIES,
    DEVICES_IN_WORDS,
    MODALITIES,
    PRECISIONS,
    SEGMENTORS,
    STRUCTURE_SETS,
    STRUCTURE_SETS_IN_WORDS,
    TARGET_POLICIES,
    WHOLE_HEART,
    Report,
    SegmentationOptions,
    findings,
    titles_of_weights,
)
from mkd_core.structures import BY_KEY, STRUCTURES, labelled


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    with _usable_streams(), _ending_cleanly():
        parser = _parser()
        chosen = parser.parse_args(arguments)
        try:
            chosen.run(chosen, parser)
            sys.stdout.flush()
        except MKDError as error:
            _complain(f"mkd: {error}")
            return 1
        except KeyboardInterrupt:
            _complain("mkd: interrupted")
            return 130
        except _ToldToEnd:
            _complain("mkd: told to end")
            return 143
        except BrokenPipeError:  # whoever read has seen enough
            _silence(sys.stdout)
        except OSError as error:
            _silence(sys.stdout)
            _complain(f"mkd: What was to be printed cannot be written ({error.strerror or error}).")
            return 1
    return 0


class _ToldToEnd(BaseException):
    """The process was asked to end by SIGTERM or SIGHUP."""


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Make an exception of the signals that ask a process to end, so that drafts are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def leave(number: int, frame: object) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)  # what follows is quick, and must come to its end
        raise _ToldToEnd

    # A signal that is ignored, as under nohup, stays so.
    before = {one: signal.signal(one, leave) for one in signals if signal.getsignal(one) != signal.SIG_IGN}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _usable_streams() -> Iterator[None]:
    """Give a program without a console, such as one started by pythonw, streams that go nowhere; and let names that
    the terminal cannot show be shown with escapes.
    """
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
            elif hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def _complain(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _silence(stream: TextIO) -> None:
    """Send what is still to be printed nowhere: Python would complain once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _tell(text: str) -> None:
    """Print what is also in a file; if nobody can read it, the run has succeeded all the same."""
    try:
        print(text, flush=True)
    except OSError:
        _silence(sys.stdout)


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text) if len(text) < 30 else high + 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"choose a whole number from {low} to {high}")
        return value

    return parse


def _length(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(f"choose a number from {low:g} to {high:g} mm")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    from mkd_core.archive.commands import add_commands

    parser = argparse.ArgumentParser(prog="mkd", description="Whole-heart segmentation of cardiac CT and MR.")
    parser.add_argument("--version", action="version", version=f"mkd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_segment(commands)
    _add_evaluate(commands)
    _add_info(commands)
    _add_dicom(commands)
    _add_synthesize(commands)
    _add_train(commands)
    _add_experiment(commands)
    add_commands(commands.add_parser("archive", help="segment a whole archive, and look at the results"))
    return parser


#: The place for commands in a parser.
_Commands = argparse._SubParsersAction


def _add_segment(commands: _Commands) -> None:
    command = commands.add_parser("segment", help="segment the heart in a volume")
    command.add_argument("input", type=Path, help="volume (NRRD, NIfTI, MetaImage), or folder or .zip with DICOM")
    command.add_argument(
        "output",
        type=Path,
        help="label map to write (.nii.gz, .nrrd, .mha): "
        + ", ".join(f"{structure.label} {structure.key}" for structure in STRUCTURES)
        + ", unless the weights say otherwise (mkd info); or, of a DICOM series, NAME.dcm: a DICOM Segmentation, and "
        "the measurements as DICOM SR in NAME.sr.dcm",
    )
    command.add_argument(
        "--series",
        metavar="UID|N",
        help="DICOM series to segment, by its number in the list of mkd dicom or its UID, instead of the best one",
    )
    command.add_argument(
        "--seg-type",
        choices=("binary", "labelmap"),
        default="binary",
        help="how a DICOM Segmentation stores its segments: labelmap is smaller, and not yet read by every viewer",
    )
    command.add_argument("--weights", type=Path, help="weights bundle (default: the one that comes with this package)")
    command.add_argument("--modality", choices=MODALITIES, default="CT")
    _add_computing(command)
    command.add_argument(
        "--box",
        nargs=6,
        type=float,
        metavar=("X0", "X1", "Y0", "Y1", "Z0", "Z1"),
        help="segment this box round the heart, LPS mm, instead of looking for the heart",
    )
    command.add_argument(
        "--structures",
        nargs="+",
        metavar="SET|KEY",
        help=f"{STRUCTURE_SETS_IN_WORDS}; or keys of the structures wanted",
    )
    command.add_argument(
        "--segmentor",
        choices=SEGMENTORS,
        default="ensemble",
        help="whose prediction counts: both together, S_real's or S_syn's",
    )
    command.add_argument("--report", type=Path, help="figures, warnings and provenance as JSON")
    command.add_argument("--preview", type=Path, help="picture of slices through the heart (.png)")
    command.add_argument("--disagreement", type=Path, help="map of where the two segmentors differ, 0 to 1")
    command.add_argument("--aligned", type=Path, help="the volume as the generators rendered it")
    _add_overwrite(command)
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    command.set_defaults(run=_segment)


def _add_evaluate(commands: _Commands) -> None:
    command = commands.add_parser("evaluate", help="measure how good a weights bundle is on labelled volumes")
    command.add_argument(
        "bundle", type=Path, help="weights bundle, or the word “default” for the one that comes with this package"
    )
    command.add_argument(
        "data",
        type=Path,
        help="MM-WHS folder as downloaded, or CSV file with the columns image, label, modality, split, structures",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="FOLDER",
        help="folder for results (default: evaluation); the same command continues there after a stop",
    )
    command.add_argument("--modality", choices=MODALITIES, help="only cases of this modality (default: both)")
    command.add_argument("--split", help="only cases of this split, such as test (default: all)")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N cases")
    command.add_argument(
        "--structures",
        choices=STRUCTURE_SETS,
        default=WHOLE_HEART,
        help=f"{STRUCTURE_SETS_IN_WORDS}, as far as the labels have them",
    )
    _add_computing(command)
    _add_overwrite(command)
    command.add_argument("--no-figure", action="store_true", help="draw no figure; matplotlib is then not needed")
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    command.set_defaults(run=_evaluate)


def _add_info(commands: _Commands) -> None:
    command = commands.add_parser("info", help="say what a weights bundle is")
    command.add_argument(
        "bundle", type=Path, nargs="?", help="weights bundle (default: the one that comes with this package)"
    )
    command.add_argument("--json", action="store_true", help="the whole description as JSON")
    command.set_defaults(run=_info)


def _add_dicom(commands: _Commands) -> None:
    command = commands.add_parser("dicom", help="list the DICOM series in folders and archives, and which one is best")
    command.add_argument(
        "paths",
        nargs="+",
        metavar="FOLDER",
        help="folder, .zip archive or DICOMDIR; or the address of a DICOMweb server",
    )
    command.add_argument("--modality", choices=MODALITIES, default="CT", help="modality that is looked for")
    command.add_argument("--json", action="store_true", help="everything as JSON")
    command.set_defaults(run=_dicom)


def _add_synthesize(commands: _Commands) -> None:
    command = commands.add_parser("synthesize", help="make a synthetic heart CT or MR with its truth")
    command.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="[LABELMAP] IMAGE [TRUTH]",
        help="tissue label map to render (default: a heart drawn from the seed), image to write, truth to write",
    )
    command.add_argument("--modality", choices=MODALITIES, default="CT")
    command.add_argument("--seed", type=_whole_number(0, 2**63 - 1), default=0)
    command.add_argument("--spacing", type=_length(0.3, 20.0), default=1.0, help="voxel size, mm (0.3 to 20)")
    _add_overwrite(command)
    command.add_argument(
        "--frames",
        type=_whole_number(1, 1000),
        help="make the frames of one heartbeat, end-diastole first: IMAGE_00, IMAGE_01 and so on",
    )
    command.set_defaults(run=_synthesize)


def _add_train(commands: _Commands) -> None:
    command = commands.add_parser(
        "train", help="train weights on labelled CT and unpaired labelled MR, or on rendered hearts"
    )
    command.add_argument("config", type=Path, nargs="?", help="settings of the run (.toml)")
    command.add_argument("--out", type=Path, help="folder of the run, instead of the one that the settings name")
    command.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting instead of the file's, such as data.hearts=FOLDER or run.device=cpu; may be repeated",
    )
    command.add_argument(
        "--settings",
        nargs="?",
        const="paper",
        choices=("paper", "few-labels", "target-only"),
        help="print all settings with units and values, as a file to start from: those of the paper, which are the "
        "defaults; few-labels, with what was added to the method since; or target-only, without an assistant, "
        "which the others have to beat (docs/method.md says what was measured)",
    )
    command.set_defaults(run=_train)


def _add_experiment(commands: _Commands) -> None:
    command = commands.add_parser("experiment", help="compare the method with others where labels are scarce")
    command.add_argument("name", choices=("scarce-labels", "cine-lge"))
    command.add_argument(
        "--hearts",
        type=Path,
        help="for scarce-labels: folder of tissue maps NAME_NUMBER.nii.gz, 1 to 240 (default: drawn from formulas)",
    )
    command.add_argument("--data", type=Path, help="for cine-lge: folder with cine and lge")
    command.add_argument(
        "--target", choices=("lge", "cine"), default="lge", help="for cine-lge: what is segmented (default: lge)"
    )
    command.add_argument(
        "--lge-axes",
        default="xyz",
        metavar="AXES",
        help="for cine-lge: which axes of the late-enhancement files become x, y and z, capital letters backwards, so "
        "that both kinds show the heart the same way up; such as YXZ (default: as they are stored)",
    )
    command.add_argument("--out", type=Path, help="folder for volumes, runs and results (default: runs/NAME)")
    command.add_argument(
        "--results", type=Path, help="folder for table, figure and what every run gave (default: the folder --out)"
    )
    command.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows of the table")
    command.add_argument("--pairs", type=int, help="only so many pairs of draw and seed")
    command.add_argument("--labelled", type=int, nargs="+", metavar="N", help="only these numbers of labelled people")
    command.add_argument("--steps", type=int, help="length of a run instead of the scale's")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="a setting of all rows that do not have their own, such as method.temperature=3 or "
        "networks.segmentor_norm=instance; may be repeated",
    )
    command.add_argument(
        "--scale",
        choices=("tiny", "small", "full"),
        default="small",
        help="tiny: minutes, shows that it works; small: hours on two cores; full: for a graphics card",
    )
    command.add_argument("--jobs", type=int, default=2, help="runs at a time")
    command.add_argument("--threads", type=int, default=1, help="CPU threads of each run")
    command.add_argument("--device", default="auto", help=DEVICES_IN_WORDS)
    command.set_defaults(run=_experiment)


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that are not unchanged results of an earlier run; inputs are never replaced",
    )


def _add_computing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help=DEVICES_IN_WORDS)
    command.add_argument("--precision", default="auto", choices=PRECISIONS)
    command.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    command.add_argument(
        "--alignment",
        choices=tuple(dict.fromkeys((*TARGET_POLICIES, *ASSISTANT_POLICIES))),
        help="what the segmentors see (default: as the weights say)",
    )


def _segment(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.inference import pipeline
    from mkd_core.io import preview
    from mkd_core.io.atomic import MARK_PLACEHOLDER, OutputFiles
    from mkd_core.io.bundle import default_bundle_path
    from mkd_core.io.volumes import check_writable, input_files, store_volume

    as_dicom = chosen.output.name.lower().endswith(".dcm")
    volumes = [path for path in (chosen.disagreement, chosen.aligned) if path is not None]
    volumes += [] if as_dicom else [chosen.output]
    for path in volumes:
        check_writable(path)
    results = _dicom_paths(chosen.output) if as_dicom else []
    if chosen.preview is not None and chosen.preview.suffix.lower() != ".png":
        raise refusal(finding("output_picture", file=chosen.preview.name))
    inputs = [*input_files(chosen.input), chosen.weights or default_bundle_path()]
    outputs = OutputFiles(inputs=inputs, overwrite=chosen.overwrite)
    outputs.check(*(path for path in (*volumes, *results, chosen.report, chosen.preview) if path is not None))
    options = SegmentationOptions(
        chosen.device,
        chosen.precision,
        chosen.threads,
        chosen.alignment,
        _structures_wanted(chosen.structures),
        segmentor=chosen.segmentor,
        with_disagreement=chosen.disagreement is not None,
        with_aligned=chosen.aligned is not None,
        box_mm=tuple(chosen.box) if chosen.box else None,
    )
    retain_memory()
    let_waiting_threads_sleep()
    image, doubts, series = _read_input(chosen, needs_series=as_dicom)
    show = _ProgressLine(enabled=not chosen.quiet)
    try:
        result = pipeline.segment(image, chosen.weights, modality=chosen.modality, options=options, progress=show)
    finally:
        show.clear()
    result.report["warnings"][:0] = [doubt.to_dict() for doubt in doubts]
    report = {"mark": MARK_PLACEHOLDER.decode("ascii")} | result.report | {"run": _run_record(chosen, image, result)}
    text = json.dumps(report, indent=2) + "\n"
    with outputs:
        if chosen.report is not None:
            outputs.write(chosen.report, lambda draft: draft.write_text(text, encoding="utf-8"))
        if chosen.preview is not None:
            pixels = preview.picture(image, result.labels, chosen.modality, labelled(result.report["labels"]))
            outputs.write(chosen.preview, lambda draft: preview.store_png(pixels, draft))
        for path, extra in ((chosen.disagreement, result.disagreement), (chosen.aligned, result.aligned)):
            if path is not None and extra is not None:
                outputs.write(path, functools.partial(store_volume, extra))
        if as_dicom and series is not None:
            from mkd_core.io import dicom_out

            kind = chosen.seg_type.upper()
            dicom_out.write(outputs, chosen.output, series, result.labels, result.report, kind=kind)
        else:
            outputs.write(chosen.output, lambda draft: store_volume(result.labels, draft))
    if not chosen.quiet:
        _print_report(result.report)


def _dicom_paths(path: Path) -> list[Path]:
    """The files of an output NAME.dcm; refused before the work is done where they cannot be written."""
    from mkd_core.io import dicom_out, dicom_seg

    dicom_seg.require_highdicom()
    return list(dicom_out.paths(path))


def _read_input(chosen: argparse.Namespace, *, needs_series: bool):
    """The volume, what is to be said of it, and its DICOM series if it is one."""
    from mkd_core.io.volumes import is_dicom, read_with_doubts

    if not is_dicom(chosen.input):
        if chosen.series is not None:
            raise refusal(finding("dicom_series_option"))
        if needs_series and chosen.input.exists():
            raise refusal(finding("dicom_input_needed"))
        return *read_with_doubts(chosen.input), None
    from mkd_core.io import dicom

    found = dicom.index([chosen.input])
    choice = dicom.choose(found.series, modality=chosen.modality, wanted=chosen.series, folder=chosen.input.name)
    image, doubts = dicom.read(choice.series)
    return image, [*choice.findings, *doubts], choice.series


def _dicom(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.io import dicom, dicomweb

    show = _ProgressLine(enabled=not chosen.json)
    try:
        servers = [path for path in chosen.paths if dicomweb.is_address(path)]
        found = dicom.index([path for path in chosen.paths if path not in servers], progress=show.count)
        for address in servers:
            found.series.extend(dicomweb.Server(address).index(modality=chosen.modality))
    finally:
        show.clear()
    patients: dict[str, list[dicom.Series]] = {}
    for one in found.series:
        patients.setdefault(one.patient, []).append(one)
    best: list[dicom.Series] = []
    reasons = {one.key: one.problem for one in found.series}
    for its_series in patients.values():
        with contextlib.suppress(MKDError):  # every series then says itself why it is none
            choice = dicom.choose(its_series, modality=chosen.modality)
            best.append(choice.series)
            reasons |= {one.key: why for one, why in choice.others}
    if chosen.json:
        print(json.dumps(_dicom_table(found, best, reasons), indent=2))
        return
    if not found.series:
        raise refusal(finding("dicom_none", file=chosen.paths[0]))
    for number, one in enumerate(found.series, start=1):
        why = reasons.get(one.key)
        spacing = ", " + " x ".join(f"{step:.3g}" for step in one.spacing) + " mm" if one.spacing else ""
        size = f"{one.size[2]} files" if one.server else " x ".join(map(str, one.size))
        text = describe(why) if why is not None else "best" if len(best) == 1 else "best of this patient"
        title = " ".join(filter(None, (one.modality, one.body_part, f"“{one.title}”")))
        print(f"{number:3d}{'*' if one in best else ' '} {title}")
        print(f"     {size}{spacing}; {text}\n     {one.key}")
    kinds: dict[str, list[str]] = {}
    for entry in found.aside:
        kinds.setdefault(describe(entry.finding), []).append(entry.file.name)
    for text, names in sorted(kinds.items()):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"Set aside: {', '.join(names[:3])}{more}. {text}")
    if len(best) > 1:
        print(f"There are series of {len(best)} patients: mkd segment takes one by --series, mkd archive takes all.")


def _dicom_table(found, best, reasons: dict) -> dict:
    return {
        "series": [
            {
                name: value
                for name, value in one.to_dict().items()
                if name not in ("frames", "places", "patient", "problem", "server")
            }
            | {"key": one.key, "number_in_list": number, "is_best": one in best}
            | {"reason": None if (why := reasons.get(one.key)) is None else why.to_dict()}
            for number, one in enumerate(found.series, start=1)
        ],
        "aside": [{"file": str(entry.file), "reason": entry.finding.to_dict()} for entry in found.aside],
    }


def _run_record(chosen: argparse.Namespace, image, result) -> dict:
    """What it takes to repeat a run and to see that nothing differs: the command with all that was chosen by itself
    written out, and check sums.
    """
    import SimpleITK as sitk

    from mkd_core.environment import describe_environment
    from mkd_core.io.bundle import default_bundle_path

    report = result.report
    command = [
        "mkd",
        "segment",
        str(chosen.input.absolute()),
        str(chosen.output.absolute()),
        "--weights",
        str((chosen.weights or default_bundle_path()).absolute()),
        "--modality",
        chosen.modality,
        "--device",
        report["device"],
        "--precision",
        report["precision"],
        "--threads",
        str(report["threads"]),
        "--alignment",
        report["alignment"],
        "--segmentor",
        chosen.segmentor,
    ]
    if chosen.structures:
        command += ["--structures", *chosen.structures]
    if chosen.series:
        command += ["--series", chosen.series]
    if chosen.box:
        command += ["--box", *map(str, chosen.box)]
    environment = describe_environment()
    return {
        "command": command,
        "input_voxels_sha256": hashlib.sha256(sitk.GetArrayViewFromImage(image)).hexdigest(),
        "labels_sha256": hashlib.sha256(sitk.GetArrayViewFromImage(result.labels)).hexdigest(),
        "versions": {
            name: environment[name] for name in ("python", "numpy", "scipy", "SimpleITK", "torch", "platform")
        },
    }


class _ProgressLine:
    """One line on a terminal that tells how far we are."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled and sys.stderr.isatty()

    def __call__(self, stage: str, fraction: float, message: str) -> None:
        self._print(f"\r\033[K{fraction:4.0%}  {message}")

    def count(self, files: int) -> None:
        """Say, now and then, how many files were looked at."""
        if files % 100 == 0:
            self._print(f"\r\033[K{files} files")

    def clear(self) -> None:
        """Leave an empty line."""
        self._print("\r\033[K")

    def _print(self, text: str) -> None:
        if self._enabled:
            try:
                print(text, end="", file=sys.stderr, flush=True)
            except OSError:  # the terminal is gone; the work is not
                self._enabled = False


def _structures_wanted(words: Sequence[str] | None) -> tuple[str, ...] | str:
    if not words:
        return WHOLE_HEART
    return words[0] if len(words) == 1 and words[0] in STRUCTURE_SETS else tuple(words)


def _print_report(report: Report) -> None:
    seconds = report["timings_s"]["total"]
    lines = [
        f"{BY_KEY[key].name:<28}{entry['volume_ml']:8.1f} ml  "
        f"{' '.join(map(describe, findings(entry['warnings'])))}".rstrip()
        for key, entry in report["structures"].items()
    ]
    lines += map(describe, findings(report["warnings"]))
    lines.append(f"{seconds:.1f} s on {report['device']} ({report['precision']}), weights {titles_of_weights(report)}")
    _tell("\n".join(lines))


def _evaluate(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.evaluation import figure, report, run
    from mkd_core.evaluation.cases import find_cases
    from mkd_core.inference.pipeline import require_torch
    from mkd_core.io import bundle as bundles
    from mkd_core.io.volumes import check_output_folder

    if not chosen.no_figure:
        figure.require_matplotlib()
    check_output_folder(chosen.out)
    cases = run.choose_cases(find_cases(chosen.data), chosen.modality, chosen.split, chosen.limit)
    require_torch()
    weights = bundles.load_bundle(bundles.default_bundle_path() if str(chosen.bundle) == "default" else chosen.bundle)
    options = SegmentationOptions(chosen.device, chosen.precision, chosen.threads, chosen.alignment, chosen.structures)
    show = _ProgressLine(enabled=not chosen.quiet)

    def finished(result) -> None:
        show.clear()
        if not chosen.quiet:
            _tell(report.case_line(result))

    try:
        evaluation = run.evaluate(
            weights,
            cases,
            chosen.out,
            options=options,
            progress=show,
            finished=finished,
            inputs=[chosen.data],
            overwrite=chosen.overwrite,
        )
        paths = report.write_report(evaluation, chosen.out)
        if not chosen.no_figure:
            show("figure", 1.0, "Drawing the figure")
            paths += figure.write_figure(evaluation, chosen.out)
    finally:
        show.clear()
    if not chosen.quiet:
        if evaluation.kept:
            _tell(f"{evaluation.kept} of {len(cases)} cases were finished before.")
        _tell("\n".join([*report.tables(evaluation.results), *map(str, paths)]))


def _info(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.io.bundle import default_bundle_path, read_description

    path = chosen.bundle or default_bundle_path()
    description = read_description(path)
    if chosen.json:
        print(json.dumps(description, indent=2))
        return
    print(
        f"{description['name']} {description['version']}, made {description['created']}, "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )
    print(f"Target modality   {description['target']} (assistant {description['assistant']})")
    print(f"Structures        {', '.join(description['structures'])}")
    print(
        f"Grid              {_millimetres(description['segmentor']['spacing_mm'])}; heart found at "
        f"{description['localiser']['spacing_mm']:g} mm"
    )
    alignment = description["alignment"]
    print(
        f"Alignment         {description['target']}: {alignment['target']}, {description['assistant']}: "
        f"{alignment['assistant']}"
    )
    if shares := description.get("ensemble"):
        print(
            "Ensemble          "
            + ", ".join(f"{description[role]}: {share:.0%} S_real" for role, share in shares.items())
        )
    print(f"Intended use      {description['intended_use']}")
    print(f"Licence           {description['licence']}")
    for title in ("quality", "training"):
        for key, value in description[title].items():
            print(
                f"{title.capitalize():<18}{key}: {value if isinstance(value, (str, int, float)) else json.dumps(value)}"
            )


def _synthesize(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.io.atomic import OutputFiles
    from mkd_core.io.volumes import check_writable, input_files, read_volume, store_volume

    if len(chosen.paths) > 3:
        parser.error("synthesize takes at most a label map, an image and a truth")
    # Of two paths, the first is a label map if such a file is there; an image left by an earlier run is not one and is
    # made anew.
    has_labelmap = len(chosen.paths) == 3 or (len(chosen.paths) == 2 and _is_labelmap(chosen.paths[0]))
    labelmap = chosen.paths[0] if has_labelmap else None
    image_path, *truth_path = chosen.paths[has_labelmap:]
    for path in (image_path, *truth_path):
        check_writable(path)
    outputs = OutputFiles(inputs=[] if labelmap is None else input_files(labelmap), overwrite=chosen.overwrite)
    suffixes = [""] if chosen.frames is None else [f"_{number:02d}" for number in range(chosen.frames)]
    outputs.check(*(_numbered(path, suffix) for path in (image_path, *truth_path) for suffix in suffixes))
    if labelmap is not None and labelmap.exists() and not _is_labelmap(labelmap):
        raise refusal(finding("file_no_label_map", file=labelmap.name))
    heart = None if labelmap is None else read_volume(labelmap)
    with outputs:
        for suffix, (image, truth) in zip(suffixes, _synthetic(heart, chosen)):
            outputs.write(_numbered(image_path, suffix), functools.partial(store_volume, image))
            for path in truth_path:
                outputs.write(_numbered(path, suffix), functools.partial(store_volume, truth))


def _synthetic(heart, chosen: argparse.Namespace):
    """Yield image and truth, one volume or one frame after the other."""
    if chosen.frames is None:
        from mkd_core.synthesis import synthesize

        yield synthesize(heart, chosen.modality, chosen.seed, spacing=chosen.spacing)
    else:
        from mkd_core.synthesis.heartbeat import synthesize_beat

        yield from synthesize_beat(heart, chosen.modality, chosen.seed, chosen.spacing, chosen.frames)


def _numbered(path: Path, suffix: str) -> Path:
    """The path with a suffix before the ending, ``.nii.gz`` counting as one."""
    ending = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    return path.with_name(
        path.name[: len(path.name) - len(ending)] + suffix + path.name[len(path.name) - len(ending) :]
    )


def _train(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.inference.pipeline import require_torch
    from mkd_core.training.config import load_config, settings_text
    from mkd_core.training.recipes import RECIPES

    if chosen.settings:
        print(settings_text(RECIPES[chosen.settings]))
        return
    if chosen.config is None:
        parser.error("train needs a file of settings; mkd train --settings prints one to start from")
    config = load_config(chosen.config, chosen.changes)
    require_torch()
    from mkd_core.training.trainer import train

    train(dataclasses.replace(config, out=str(chosen.out)) if chosen.out else config)


def _experiment(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.inference.pipeline import require_torch

    require_torch()
    from mkd_core.training.config import apply_change, config_from
    from mkd_core.training.experiments import cine_lge, report, runs, scarce_labels
    from mkd_core.training.experiments.people import Cohort

    unknown = [row for row in chosen.rows or () if row not in runs.ROWS]
    if unknown:
        parser.error(f"unknown row {unknown[0]!r}; known are {', '.join(map(repr, runs.ROWS))}")
    benchmark: runs.Benchmark
    if chosen.name == "cine-lge":
        if not chosen.data:
            parser.error("cine-lge needs --data, a folder with cine and lge")
        benchmark = cine_lge.CineLge(chosen.data, chosen.target, chosen.lge_axes)
        scale = cine_lge.SCALES[chosen.scale]
        rows = [row for row in chosen.rows or runs.ROWS if not runs.ROWS[row].oracle]
    else:
        benchmark, scale = scarce_labels.ScarceLabels(Cohort(chosen.hearts)), scarce_labels.SCALES[chosen.scale]
        rows = list(chosen.rows or runs.ROWS)
    if chosen.pairs:
        scale = dataclasses.replace(scale, pairs=(min(chosen.pairs, scale.pairs[0]), min(chosen.pairs, scale.pairs[1])))
    if chosen.labelled:
        scale = dataclasses.replace(scale, labelled=tuple(chosen.labelled))
    if chosen.steps:
        scale = dataclasses.replace(scale, stage=dataclasses.replace(scale.stage, steps=chosen.steps))
    if chosen.set:
        values = {"method": dataclasses.asdict(scale.method), "networks": dataclasses.asdict(scale.networks)}
        for change in chosen.set:
            apply_change(change, values)
        changed = config_from(values)
        scale = dataclasses.replace(scale, method=changed.method, networks=changed.networks)
    out = chosen.out or Path("runs") / chosen.name
    folder = chosen.results or out
    results = runs.run_all(
        benchmark,
        scale,
        runs.runs_of(scale, rows),
        out,
        folder / f"{benchmark.name}-runs.json",
        jobs=chosen.jobs,
        threads=chosen.threads,
        device=chosen.device,
        say=lambda text: print(text, flush=True),
    )
    print(report.write(benchmark.name, results, folder, benchmark.data.structures))


def _millimetres(spacing: float | list[float]) -> str:
    return f"{' x '.join(f'{side:g}' for side in spacing) if isinstance(spacing, list) else f'{spacing:g}'} mm"


def _is_labelmap(path: Path) -> bool:
    from mkd_core.io.volumes import is_label_map

    return is_label_map(path)


if __name__ == "__main__":
    sys.exit(main())
