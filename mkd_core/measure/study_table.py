"""A study's table: one CSV file, one row per heart, to which hearts are added one after the other."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mkd_core.io.atomic import write_text
from mkd_core.measure.cardiac_function import CardiacFunction
from mkd_core.measure.clinical_figures import AORTIC_NAMES, NAMES, UNITS, ClinicalFigure
from mkd_core.measure.messages import RESEARCH_USE, finding, refusal
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.protocol import titles_of_weights, weights_of
from mkd_core.structures import DETAILED, STRUCTURES


def _figure_column(key: str, unit: str) -> str:
    unit = unit.replace("/", "_").replace("²", "2")
    return f"{key}_{unit}" if unit else key


#: Keys of the structures that have columns, those in detail last.
_KEYS = (*(structure.key for structure in STRUCTURES), *DETAILED)

#: Titles of the columns, units in them.
COLUMNS: tuple[str, ...] = (
    "person",
    "volume",
    "date",
    "modality",
    "phase",
    "phase_percent",
    "sex",
    "age_years",
    "height_m",
    "weight_kg",
    "bsa_m2",
    *(f"{key}_ml" for key in _KEYS),
    *(f"{key}_agreement" for key in _KEYS),
    "LV_mass_g",
    "LV_ejection_fraction",
    "RV_ejection_fraction",
    *(_figure_column(key, UNITS[key]) for key in NAMES),
    *(_figure_column(key, "mm") for key in AORTIC_NAMES),
    "edited",
    "deleted",
    "weights",
    "weights_sha256",
    "program",
    "segmented",
    "use",
)


def study_row(
    report: Mapping[str, Any],
    figures: Sequence[ClinicalFigure],
    *,
    person: str,
    volume: str,
    date: str = "",
    patient: Patient | None = None,
    phase: CardiacPhase | None = None,
    function: CardiacFunction | None = None,
) -> dict[str, str]:
    """The row of a heart, a text for each of :data:`COLUMNS`; empty where nothing is given.

    Args:
        report: of the segments as they are; entries may have "state".
        figures: of the same segments.
        person: name or pseudonym, as the user chose it.
        volume, date: which volume, and when it was acquired.
        patient, phase: as far as they are known.
        function: of the sequence that the volume is a frame of.
    """
    patient, phase = patient or Patient(), phase or CardiacPhase()
    structures = report.get("structures") or {}
    has_weights = bool(report.get("bundle"))
    values: dict[str, Any] = {
        "person": person,
        "volume": volume,
        "date": date,
        "modality": report.get("modality"),
        "phase": phase.name,
        "phase_percent": phase.percent,
        "sex": patient.sex,
        "age_years": patient.age_years,
        "height_m": patient.height_m,
        "weight_kg": patient.weight_kg,
        "bsa_m2": patient.bsa_m2,
        **{state: _keys_in_state(structures, state) for state in ("edited", "deleted")},
        "weights": titles_of_weights(report) if has_weights else None,
        "weights_sha256": " ".join(one.sha256 for one in weights_of(report)) if has_weights else None,
        "program": report.get("version"),
        "segmented": report.get("date"),
        "use": RESEARCH_USE,
    }
    for key in _KEYS:
        entry = structures.get(key) or {}
        values[f"{key}_ml"] = entry.get("volume_ml")
        values[f"{key}_agreement"] = entry.get("agreement")
    values["LV_mass_g"] = (structures.get("Myo") or {}).get("mass_g")
    for side, ventricle in (("LV", function and function.left), ("RV", function and function.right)):
        values[f"{side}_ejection_fraction"] = ventricle.ejection_fraction if ventricle else None
    values |= {_figure_column(figure.key, figure.unit): figure.value for figure in figures}
    return {name: _text(values.get(name)) for name in COLUMNS}


def _keys_in_state(structures: Mapping[str, Any], state: str) -> str:
    return " ".join(key for key, entry in structures.items() if entry.get("state") == state)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return no_formula(value) if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)


def no_formula(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def append_row(path: Path, row: Mapping[str, str]) -> int:
    """Add a row to a study's table, which is made if there is none, and return how many rows it has then.

    The file appears whole or not at all.

    Raises:
        InputError: the file is there and is no such table; it is left as it is.
        OSError: it cannot be read or written.
    """
    rows: list[dict[str, str]] = []
    if path.exists():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise refusal(finding("file_no_study_table", file=path.name)) from None
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise refusal(finding("file_no_study_table", file=path.name))
        there = list(reader)
        if any(None in found for found in there):  # cells beyond the last title, which would be lost
            raise refusal(finding("file_no_study_table", file=path.name))
        rows = [{name: found.get(name) or "" for name in COLUMNS} for found in there]
    rows.append(dict(row))
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "\ufeff" + target.getvalue())  # with a mark that tells Excel that it is UTF-8
    return len(rows)
