"""A segmentation as DICOM files: ``NAME.dcm`` is the Segmentation, and ``NAME.sr.dcm`` beside it the report."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.io import dicom_seg, dicom_sr
from mkd_core.io.atomic import MARK_PLACEHOLDER, OutputFiles, check_folder
from mkd_core.io.dicom import Series, read_source
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Report

#: Ending of the Segmentation's name, and of the report's.
ENDING, REPORT_ENDING = ".dcm", ".sr.dcm"


def paths(path: Path) -> tuple[Path, Path]:
    """The files that an output named ``NAME.dcm`` stands for.

    Raises:
        InputError: it is no such name, or its folder is missing or closed to us.
    """
    name = path.name
    if not name.lower().endswith(ENDING) or name.lower().endswith(REPORT_ENDING) or len(name) == len(ENDING):
        raise refusal(finding("dicom_output_name", file=name))
    check_folder(path)
    return path, path.with_name(name[: -len(ENDING)] + REPORT_ENDING)


def write(
    outputs: OutputFiles,
    path: Path,
    series: Series,
    labels: sitk.Image,
    report: Report,
    *,
    kind: dicom_seg.SegmentationKind = "BINARY",
) -> None:
    """Write Segmentation and report of a series, both or neither.

    Args:
        outputs: what writes them.
        path: of the Segmentation, as :func:`paths` wants it.
        series: what was segmented.
        labels: on any grid in its space, values as ``report["labels"]`` says.
        report: of the segmentation.
        kind: how segments are stored.

    Raises:
        InputError: pydicom or highdicom is missing, a file of the series has changed, or nothing was found.
    """
    headers, stack = read_source(series)
    store(outputs, path, *build(series, headers, stack.labels_on(labels), report, kind=kind))


def build(
    series: Series,
    headers: list[Any],
    labels: np.ndarray,
    report: Report,
    *,
    kind: dicom_seg.SegmentationKind = "BINARY",
    edited: Collection[str] = (),
) -> tuple[Any, Any]:
    """Segmentation and report of labels (N, Y, X) on the slices of a series, as pydicom datasets; arguments as of
    :func:`mkd_core.io.dicom_seg.build`.
    """
    dicom_seg.require_highdicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the source's files say wrong is not ours to correct
        seg = dicom_seg.build(series, headers, labels, report, kind=kind, edited=edited)
        return seg, dicom_sr.build(series, headers, seg, report)


def store(outputs: OutputFiles, path: Path, seg: Any, document: Any) -> None:
    """Write both datasets, with our mark in the preamble, which DICOM leaves to applications (PS3.10, 7.1)."""
    for place, dataset in zip(paths(path), (seg, document)):
        dataset.preamble = MARK_PLACEHOLDER.ljust(128, b"\0")
        outputs.write(place, functools.partial(dataset.save_as, enforce_file_format=True))
