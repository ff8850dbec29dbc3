"""Numbers that a cardiologist reads: indexed volumes, ratios, diameters, wall thickness, with their normal ranges.

Every figure is either given, or has a reason why not.  All are computed on the labels as they are, edited or not.

    grid = HeartGrid.of(labels, affine, STRUCTURES)
    geometry = measure_geometry(grid)
    figures = clinical_figures(volumes_ml, geometry, Patient(1.8, 80.0, "M"), "CT", CardiacPhase.at(75.0))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.messages import finding
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.measure.reference_values import ReferenceRange, reference_range
from mkd_core.measure.vessel_diameter import VesselDiameter, aorta_diameters, vessel_diameter
from mkd_core.measure.wall_thickness import WallThickness, wall_thickness
from mkd_core.protocol import Finding
from mkd_core.structures import MYOCARDIUM_DENSITY, with_parts

#: A structure whose figures say one of these is not measured further.
_NOT_TRUSTED = frozenset(
    {"agreement_very_low", "confidence_very_low", "not_found", "not_found_by_one", "too_large", "too_small"}
)

#: Findings about the heart as a whole with which lengths and orientations mean nothing; a heart whose volume is only
#: unusual may be as it is.
_WRONG_HEART = frozenset(
    {
        "mirrored",
        "turned",
        "heart_volume",
        "stretched",
        "stretched_x",
        "stretched_y",
        "stretched_z",
        "coarse_outlines",
        "hole",
        "uneven",
    }
)


@dataclass(frozen=True)
class ClinicalFigure:
    """One figure.

    Attributes:
        key: what it is; the names are those of :data:`NAMES` and :data:`AORTIC_NAMES`.
        value: in its unit, None where it is not given.
        unit: see :data:`UNITS`.
        digits: after the decimal point, as many as the figure is worth.
        reason: why there is no value, or None.
        reference: normal range, None where none is known to hold.
    """

    key: str
    value: float | None
    unit: str
    digits: int
    reason: Finding | None = None
    reference: ReferenceRange | None = None

    @property
    def text(self) -> str:
        """The value with its unit, "" where there is none."""
        return "" if self.value is None else f"{self.value:.{self.digits}f} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """ "low", "normal", "high", or "" without a value or a range; of the figures as they are shown, rounded."""
        return "" if self.value is None or self.reference is None else self.reference.verdict(self.value, self.digits)


@dataclass(frozen=True)
class HeartGeometry:
    """Lengths measured on a label map; a finding in the place of what could not be measured.

    ``aorta_beyond`` holds those of :data:`mkd_core.measure.vessel_diameter.AORTIC_LEVELS` where the arch and the
    descending aorta are segmented.
    """

    aorta: VesselDiameter | Finding
    pulmonary_artery: VesselDiameter | Finding
    wall: WallThickness | Finding
    aorta_beyond: Mapping[str, VesselDiameter | Finding] = field(default_factory=dict)


#: Context of the names for Qt's translation: this file, as 3D Slicer names it.
TRANSLATION_CONTEXT = "measure.clinical_figures"


def _(text: str) -> str:
    """Mark a text for translation; Slicer's tools look for this name."""
    return text


#: English names of the figures, in the order in which they are shown.
NAMES: dict[str, str] = {
    "LV_index": _("LV volume index"),
    "RV_index": _("RV volume index"),
    "LA_index": _("LA volume index"),
    "RA_index": _("RA volume index"),
    "mass_index": _("LV mass index"),
    "RV_LV_ratio": _("RV/LV volume ratio"),
    "AA_diameter": _("Ascending aorta"),
    "PA_diameter": _("Main pulmonary artery"),
    "PA_AA_ratio": _("PA/aorta ratio"),
    "wall_mean": _("LV wall, mean"),
    "wall_largest": _("LV wall, largest"),
}

#: Further figures, which follow where the aorta is segmented beyond its ascending part; all in mm.
AORTIC_NAMES: dict[str, str] = {
    "arch_diameter": _("Aortic arch"),
    "descending_diameter": _("Descending aorta"),
}

#: Units of the figures; "" of ratios.
UNITS: Mapping[str, str] = {
    "LV_index": "ml/m²",
    "RV_index": "ml/m²",
    "LA_index": "ml/m²",
    "RA_index": "ml/m²",
    "mass_index": "g/m²",
    "RV_LV_ratio": "",
    "AA_diameter": "mm",
    "PA_diameter": "mm",
    "PA_AA_ratio": "",
    "wall_mean": "mm",
    "wall_largest": "mm",
}


def measure_geometry(grid: HeartGrid | None) -> HeartGeometry:
    """Measure diameters and the wall; None for a label map without a heart."""
    if grid is None:
        missing = {key: finding("figure_needs_structure", structure=key) for key in ("AA", "PA", "Myo")}
        return HeartGeometry(missing["AA"], missing["PA"], missing["Myo"])
    beyond = aorta_diameters(grid) if "DAo" in grid.label_of else {}
    return HeartGeometry(vessel_diameter(grid, "AA"), vessel_diameter(grid, "PA"), wall_thickness(grid), beyond)


def untrusted(warnings: Mapping[str | None, list[Finding]]) -> frozenset[str]:
    """Keys of the structures that figures must not be made of.

    Args:
        warnings: by structure; under None those about the heart as a whole.
    """
    of_heart = warnings.get(None, ())
    if any(one.code in _WRONG_HEART and (one.code, one.severity) != ("heart_volume", "amber") for one in of_heart):
        return frozenset({"LV", "RV", "LA", "RA", "Myo", "AA", "PA"})
    return frozenset(key for key, found in warnings.items() if key and any(one.code in _NOT_TRUSTED for one in found))


def clinical_figures(
    volumes_ml: Mapping[str, float],
    geometry: HeartGeometry,
    patient: Patient,
    modality: str,
    phase: CardiacPhase,
    at_edge: frozenset[str] = frozenset(),
    doubted: frozenset[str] = frozenset(),
) -> list[ClinicalFigure]:
    """All figures, in the order of :data:`NAMES`, then those of :data:`AORTIC_NAMES` that the geometry has.

    Args:
        volumes_ml: of each structure by key; missing or 0 where it is not there.
        geometry: of the same labels.
        patient: whose heart it is.
        modality: "CT" or "MR".
        phase: of the beat.
        at_edge: structures that the edge of the volume cuts: their volumes are no volumes of a chamber.
        doubted: structures whose outlines cannot be trusted, see :func:`untrusted`.
    """
    volumes_ml = with_parts(volumes_ml)

    def blocked(*keys: str) -> Finding | None:
        for key in keys:
            if not volumes_ml.get(key):
                return finding("figure_needs_structure", structure=key)
            if key in doubted:
                return finding("figure_doubted", structure=key)
        return None

    def cut(*keys: str) -> Finding | None:
        found = [finding("figure_at_edge", structure=key) for key in keys if key in at_edge]
        return found[0] if found else None

    figures: dict[str, ClinicalFigure] = {}

    def add(key: str, digits: int, value: float | None, reason: Finding | None = None) -> None:
        given = None if reason is not None else value
        reference = reference_range(key, modality, patient, phase) if given is not None else None
        figures[key] = ClinicalFigure(key, given, UNITS[key], digits, reason, reference)

    area = patient.bsa_m2
    no_area = None if area is not None else finding("needs_body_size")
    for key in ("LV", "RV", "LA", "RA"):
        value = volumes_ml.get(key, 0.0) / (area or 1.0)
        add(f"{key}_index", 0, value, blocked(key) or cut(key) or no_area)
    mass = volumes_ml.get("Myo", 0.0) * MYOCARDIUM_DENSITY / (area or 1.0)
    add("mass_index", 0, mass, blocked("Myo") or cut("Myo") or no_area)
    no_ratio = blocked("RV", "LV") or cut("RV", "LV")
    add("RV_LV_ratio", 2, None if no_ratio else volumes_ml["RV"] / volumes_ml["LV"], no_ratio)

    diameters: dict[str, float] = {}
    for key, found in (("AA", geometry.aorta), ("PA", geometry.pulmonary_artery)):
        reason = blocked(key) or (found if isinstance(found, Finding) else None)
        if isinstance(found, VesselDiameter) and reason is None:
            diameters[key] = found.diameter_mm
        add(f"{key}_diameter", 0, diameters.get(key), reason)
    missing = [figures[f"{key}_diameter"].reason for key in ("PA", "AA") if key not in diameters]
    add("PA_AA_ratio", 2, None if missing else diameters["PA"] / diameters["AA"], missing[0] if missing else None)

    wall = geometry.wall
    reason = blocked("Myo", "LV") or (wall if isinstance(wall, Finding) else None)
    add("wall_mean", 1, wall.mean_mm if isinstance(wall, WallThickness) else None, reason)
    add("wall_largest", 1, wall.largest_mm if isinstance(wall, WallThickness) else None, reason)
    for level, found in geometry.aorta_beyond.items():
        key, reason = f"{level}_diameter", blocked("DAo") or (found if isinstance(found, Finding) else None)
        mm = found.diameter_mm if isinstance(found, VesselDiameter) and reason is None else None
        figures[key] = ClinicalFigure(key, mm, "mm", 0, reason)
    return [figures[key] for key in (*NAMES, *AORTIC_NAMES) if key in figures]


def name_of(figure: ClinicalFigure, phase: CardiacPhase) -> str:
    """English name of a figure; volumes of ventricles are called end-diastolic only where the phase says so."""
    if figure.key in ("LV_index", "RV_index") and phase.name in ("end-diastole", "end-systole"):
        side, moment = figure.key[:2], "ED" if phase.name == "end-diastole" else "ES"
        return f"{side} {moment} volume index"
    return (NAMES | AORTIC_NAMES)[figure.key]


def phase_text(phase: CardiacPhase) -> str:
    """The phase in words, for beside the figures."""
    if phase.name == "unknown":
        return "Cardiac phase unknown: neither ED nor ES"
    share = "" if phase.percent is None else f", {phase.percent:.0f} % of the R-R interval"
    return f"Cardiac phase: {phase.name}{share}"
