"""From a volume with its labels to the page of its heart: figures, pictures, page, in one call.

page = heart_page(image, labels, report, structures, person="Pseudonym 17", patient=Patient(1.8, 80.0, "M"))
write_text("report.html", report_html(page))
"""

from __future__ import annotations

import datetime
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.io.preview import filled_slices, png_bytes
from mkd_core.measure.cardiac_function import CardiacFunction
from mkd_core.measure.clinical_figures import HeartGeometry, clinical_figures, measure_geometry, untrusted
from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.measure.report_page import ReportPage
from mkd_core.measure.steps import all_at_once
from mkd_core.measure.wall_thickness import WallThickness
from mkd_core.protocol import findings, titles_of_weights, weights_of
from mkd_core.structures import Structure


def affine_of(image: sitk.Image) -> np.ndarray:
    """Matrix ``(4, 4)`` from indices (i, j, k) of an image to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def heart_page(image: sitk.Image, labels: sitk.Image, *arguments: Any, **more: Any) -> ReportPage:
    """Measure a segmentation and put its page together, in one go; see :func:`page_steps`."""
    return all_at_once(page_steps(image, labels, *arguments, **more))


def page_steps(
    image: sitk.Image,
    labels: sitk.Image,
    report: Mapping[str, Any],
    structures: Sequence[Structure],
    *,
    person: str = "",
    study: Mapping[str, str] | None = None,
    patient: Patient | None = None,
    phase: CardiacPhase | None = None,
    function: CardiacFunction | None = None,
    curves: Mapping[str, Sequence[float | None]] | None = None,
    geometry: HeartGeometry | None = None,
) -> Generator[None, None, ReportPage]:
    """Measure a segmentation and put its page together, in steps for programs that must look at their events meanwhile.

    Args:
        image: the volume.
        labels: its labels, on any grid in the same world.
        report: on these labels, see :class:`mkd_core.protocol.Report`.
        structures: what the labels mean.
        person: name or pseudonym, as the user chose it; empty for none.
        study: what the volume is: text by label.
        patient, phase: as far as they are known.
        function, curves: of a sequence, see :class:`mkd_core.measure.report_page.ReportPage`.
        geometry: of these labels, if it is measured already.
    """
    patient, phase = patient or Patient(), phase or CardiacPhase()
    entries = report.get("structures") or {}
    at_edge = frozenset(key for key, entry in entries.items() if entry.get("touches_border"))
    warnings = {key: findings(entry.get("warnings")) for key, entry in entries.items()}
    doubted = untrusted({None: findings(report.get("warnings")), **warnings})
    voxels = sitk.GetArrayViewFromImage(labels)
    if geometry is None:
        geometry = measure_geometry(HeartGrid.of(voxels, affine_of(labels), structures, at_edge))
        yield
    modality = str(report.get("modality", "CT"))
    figures = clinical_figures(
        {key: entry.get("volume_ml") or 0.0 for key, entry in entries.items()},
        geometry,
        patient,
        modality,
        phase,
        at_edge,
        doubted,
    )
    wall = geometry.wall if isinstance(geometry.wall, WallThickness) and not {"Myo", "LV"} & doubted else None
    pictures: dict[str, bytes] = {}
    if voxels.any():
        yield
        for name, pixels in filled_slices(image, labels, modality, structures).items():
            yield
            pictures[name.capitalize()] = png_bytes(pixels)
    yield
    return ReportPage(
        person=person or "Not named",
        study=study or {},
        report=report,
        figures=figures,
        patient=patient,
        phase=phase,
        wall=wall,
        pictures=pictures,
        function=function,
        curves=curves or {},
        provenance=provenance(report),
        created=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def provenance(report: Mapping[str, Any]) -> dict[str, str]:
    """How a segmentation was made, as text by label."""
    options = report.get("options") or {}
    facts = {
        "Weights": titles_of_weights(report),
        "SHA-256": " + ".join(one.sha256[:16] for one in weights_of(report)),
        "MKDSegmentation": str(report.get("version", "?")),
        "Alignment": str(report.get("alignment") or ""),
        "Segmentor": {"real": "S_real alone", "synthetic": "S_syn alone"}.get(str(options.get("segmentor")), "both"),
        "Device": " ".join(str(report.get(part) or "") for part in ("device", "precision")).strip(),
        "Segmented": str(report.get("date", ""))[:16].replace("T", " "),
    }
    return {name: text for name, text in facts.items() if text}
