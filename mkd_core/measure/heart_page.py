"""From a volume with its labels to the page of its heart: figures, pictures, page, in one call.

page = heart_page(image, labels, report, structures, person="Pseudonym 17", patient=Patient(1.8, 80.0, "M"))
write_text("report.html", report_html(page))
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.io.preview import filled_slices, png_bytes
from mkd_core.measure.cardiac_function import CardiacFunction
from mkd_core.measure.clinical_figures import clinical_figures, measure_geometry, untrusted
from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.measure.report_page import ReportPage
from mkd_core.measure.wall_thickness import WallThickness
from mkd_core.protocol import findings
from mkd_core.structures import Structure


def affine_of(image: sitk.Image) -> np.ndarray:
    """Matrix ``(4, 4)`` from indices (i, j, k) of an image to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def heart_page(
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
) -> ReportPage:
    """Measure a segmentation and put its page together.

    Args:
        image: the volume.
        labels: its labels, on any grid in the same world.
        report: on these labels, see :class:`mkd_core.protocol.Report`.
        structures: what the labels mean.
        person: name or pseudonym, as the user chose it; empty for none.
        study: what the volume is: text by label.
        patient, phase: as far as they are known.
        function, curves: of a sequence, see :class:`mkd_core.measure.report_page.ReportPage`.
    """
    patient, phase = patient or Patient(), phase or CardiacPhase()
    entries = report.get("structures") or {}
    at_edge = frozenset(key for key, entry in entries.items() if entry.get("touches_border"))
    warnings = {key: findings(entry.get("warnings")) for key, entry in entries.items()}
    doubted = untrusted({None: findings(report.get("warnings")), **warnings})
    voxels = sitk.GetArrayViewFromImage(labels)
    geometry = measure_geometry(HeartGrid.of(voxels, affine_of(labels), structures, at_edge))
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
    slices = filled_slices(image, labels, modality, structures) if voxels.any() else {}
    return ReportPage(
        person=person or "Not named",
        study=study or {},
        report=report,
        figures=figures,
        patient=patient,
        phase=phase,
        wall=wall,
        pictures={name.capitalize(): png_bytes(pixels) for name, pixels in slices.items()},
        function=function,
        curves=curves or {},
        provenance=provenance(report),
        created=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def provenance(report: Mapping[str, Any]) -> dict[str, str]:
    """How a segmentation was made, as text by label."""
    bundle, options = report.get("bundle") or {}, report.get("options") or {}
    facts = {
        "Weights": f"{bundle.get('name', '?')} {bundle.get('version', '?')}",
        "SHA-256": str(bundle.get("sha256", "?"))[:16],
        "MKDSegmentation": str(report.get("version", "?")),
        "Alignment": str(report.get("alignment") or ""),
        "Segmentor": {"real": "S_real alone", "synthetic": "S_syn alone"}.get(str(options.get("segmentor")), "both"),
        "Device": " ".join(str(report.get(part) or "") for part in ("device", "precision")).strip(),
        "Segmented": str(report.get("date", ""))[:16].replace("T", " "),
    }
    return {name: text for name, text in facts.items() if text}
