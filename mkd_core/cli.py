"""The command ``mkd``.

    mkd segment ct.nii.gz heart.nii.gz --report report.json --preview picture.png
    mkd info [BUNDLE]
    mkd synthesize [LABELMAP] image.nii.gz [truth.nii.gz] --modality CT --seed 1

Exit code 0: done.  1: refused or failed, with a sentence on stderr; no output file is left.  2: wrong usage.  130: interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mkd_core import __version__
from mkd_core.errors import InputError, MKDError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen, parser)
    except MKDError as error:
        print(f"mkd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mkd: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mkd", description="Whole-heart segmentation of cardiac CT and MR.")
    parser.add_argument("--version", action="version", version=f"mkd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    segment = commands.add_parser("segment", help="segment the heart in a volume")
    segment.add_argument("input", type=Path, help="volume (NRRD, NIfTI, MetaImage) or folder with one DICOM series")
    segment.add_argument("output", type=Path, help="label map to write (.nii.gz, .nrrd, .mha): 1 LV, 2 RV, 3 LA, 4 RA, 5 Myo, 6 AA, 7 PA")
    segment.add_argument("--weights", type=Path, help="weights bundle (default: the one that comes with this package)")
    segment.add_argument("--modality", choices=("CT", "MR"), default="CT")
    segment.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    segment.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    segment.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    segment.add_argument("--alignment", choices=("cycle", "none", "mean", "translate"),
                         help="what the segmentors see (default: as the weights say)")
    segment.add_argument("--structures", nargs="+", metavar="KEY", help="only these structures")
    segment.add_argument("--segmentor", choices=("ensemble", "real", "synthetic"), default="ensemble",
                         help="whose answer counts: both together, S_real's or S_syn's")
    segment.add_argument("--report", type=Path, help="figures, remarks and provenance as JSON")
    segment.add_argument("--preview", type=Path, help="picture of slices through the heart (.png)")
    segment.add_argument("--disagreement", type=Path, help="map of where the two segmentors differ, 0 to 1")
    segment.add_argument("--aligned", type=Path, help="the volume as the generators rendered it")
    segment.add_argument("--quiet", action="store_true", help="print nothing but errors")
    segment.set_defaults(run=_segment)

    info = commands.add_parser("info", help="say what a weights bundle is")
    info.add_argument("bundle", type=Path, nargs="?", help="weights bundle (default: the one that comes with this package)")
    info.add_argument("--json", action="store_true", help="the whole description as JSON")
    info.set_defaults(run=_info)

    synthesize = commands.add_parser("synthesize", help="make a synthetic heart CT or MR with its truth")
    synthesize.add_argument("paths", type=Path, nargs="+", metavar="[LABELMAP] IMAGE [TRUTH]",
                            help="tissue label map to render (default: a heart drawn from the seed), image to write, truth to write")
    synthesize.add_argument("--modality", choices=("CT", "MR"), default="CT")
    synthesize.add_argument("--seed", type=int, default=0)
    synthesize.add_argument("--spacing", type=float, default=1.0, help="voxel size, mm")
    synthesize.set_defaults(run=_synthesize)
    return parser


class _Outputs:
    """Files written so far; all go if one cannot be written."""

    def __init__(self) -> None:
        self._written: list[Path] = []

    def __enter__(self) -> _Outputs:
        return self

    def write(self, path: Path | None, write: Callable[[Path], None]) -> None:
        """Call ``write(path)`` unless there is no path."""
        if path is not None:
            self._written.append(path)
            write(path)

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            for path in self._written:
                path.unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)):
            raise InputError(f"“{self._written[-1]}” cannot be written.", "Check the folder and the space on the disk.") from error


def _segment(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core import pipeline, preview
    from mkd_core.volume_files import check_folder, check_writable, read_volume, write_volume

    volumes = [path for path in (chosen.output, chosen.disagreement, chosen.aligned) if path is not None]
    for path in volumes:
        check_writable(path)
    for path in (chosen.report, chosen.preview):
        if path is not None:
            check_folder(path)
    if chosen.preview is not None and chosen.preview.suffix.lower() != ".png":
        raise InputError(f"“{chosen.preview.name}” is not a name for a picture.", "End it in .png.")
    options = pipeline.SegmentationOptions(
        chosen.device, chosen.precision, chosen.threads, chosen.alignment, tuple(chosen.structures) if chosen.structures else None,
        segmentor=chosen.segmentor, with_disagreement=chosen.disagreement is not None, with_aligned=chosen.aligned is not None)
    image = read_volume(chosen.input)
    show = _ProgressLine(enabled=not chosen.quiet and sys.stderr.isatty())
    try:
        result = pipeline.segment(image, chosen.weights, modality=chosen.modality, options=options, progress=show)
    finally:
        show.clear()
    with _Outputs() as outputs:
        outputs.write(chosen.report, lambda path: path.write_text(json.dumps(result.report, indent=2) + "\n", encoding="utf-8"))
        outputs.write(chosen.preview, lambda path: preview.write_png(preview.picture(image, result.labels, chosen.modality), path))
        for path, extra in ((chosen.disagreement, result.disagreement), (chosen.aligned, result.aligned)):
            if extra is not None:
                outputs.write(path, lambda path, extra=extra: write_volume(extra, path))
        outputs.write(chosen.output, lambda path: write_volume(result.labels, path))
    if not chosen.quiet:
        _print_report(result.report)


class _ProgressLine:
    """One line on a terminal that tells how far we are."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    def __call__(self, stage: str, fraction: float, message: str) -> None:
        if self._enabled:
            print(f"\r\033[K{fraction:4.0%}  {message}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave an empty line."""
        if self._enabled:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print_report(report: dict) -> None:
    from mkd_core.structures import BY_KEY

    for key, entry in report["structures"].items():
        print(f"{BY_KEY[key].name:<28}{entry['volume_ml']:8.1f} ml  {' '.join(entry['remarks'])}".rstrip())
    for remark in report["remarks"]:
        print(remark)
    weights, seconds = report["bundle"], report["timings_s"]["total"]
    print(f"{seconds:.1f} s on {report['device']} ({report['precision']}), weights {weights['name']} {weights['version']}")


def _info(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.bundle import default_bundle_path, read_description

    path = chosen.bundle or default_bundle_path()
    description = read_description(path)
    if chosen.json:
        print(json.dumps(description, indent=2))
        return
    print(f"{description['name']} {description['version']}, made {description['created']}, {path.stat().st_size / 1e6:.1f} MB")
    print(f"Target modality   {description['target']} (assistant {description['assistant']})")
    print(f"Structures        {', '.join(description['structures'])}")
    print(f"Grid              {description['segmentor']['spacing_mm']:g} mm; heart found at {description['localiser']['spacing_mm']:g} mm")
    alignment = description["alignment"]
    print(f"Alignment         {description['target']}: {alignment['target']}, {description['assistant']}: {alignment['assistant']}")
    print(f"Intended use      {description['intended_use']}")
    print(f"Licence           {description['licence']}")
    for title in ("quality", "training"):
        for key, value in description[title].items():
            print(f"{title.capitalize():<18}{key}: {value if isinstance(value, (str, int, float)) else json.dumps(value)}")


def _synthesize(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from mkd_core.volume_files import check_writable, read_volume, write_volume

    if len(chosen.paths) > 3:
        parser.error("synthesize takes at most a label map, an image and a truth")
    # Of two paths, the first is a label map if such a file is there; an image left by an earlier run is not one and is made anew.
    has_labelmap = len(chosen.paths) == 3 or (len(chosen.paths) == 2 and _is_labelmap(chosen.paths[0]))
    labelmap = chosen.paths[0] if has_labelmap else None
    image_path, *truth_path = chosen.paths[has_labelmap:]
    for path in (image_path, *truth_path):
        check_writable(path)
    from mkd_core.synthesis import synthesize

    if labelmap is not None and labelmap.exists() and not _is_labelmap(labelmap):
        raise InputError(f"“{labelmap.name}” is not a label map: its voxels are not 8-bit numbers.")
    image, truth = synthesize(None if labelmap is None else read_volume(labelmap), chosen.modality, chosen.seed, spacing=chosen.spacing)
    with _Outputs() as outputs:
        outputs.write(image_path, lambda path: write_volume(image, path))
        for path in truth_path:
            outputs.write(path, lambda path: write_volume(truth, path))


def _is_labelmap(path: Path) -> bool:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return reader.GetDimension() == 3 and reader.GetPixelID() == sitk.sitkUInt8


if __name__ == "__main__":
    sys.exit(main())
