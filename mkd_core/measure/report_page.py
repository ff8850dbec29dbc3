"""The report of one heart as one page of HTML: self-contained, on one side of A4, the same for command line and panel.

    page = ReportPage(person="Pseudonym 17", study={"Volume": "CTA 75 %"}, report=report, figures=figures, ...)
    Path("report.html").write_text(report_html(page), encoding="utf-8")

Nothing is loaded from anywhere: pictures are within the page, there is no script.  Every text that comes from outside
is escaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mkd_core.measure.cardiac_function import CardiacFunction, VentricleFunction
from mkd_core.measure.clinical_figures import ClinicalFigure, name_of, phase_text
from mkd_core.measure.messages import RESEARCH_USE, describe
from mkd_core.measure.patient import BSA_FORMULA, CardiacPhase, Patient
from mkd_core.measure.svg import SCALE_MM, bullseye_svg, colour_of, curve_svg, range_svg
from mkd_core.measure.trust import MARKS, light_of, shared_findings, trust_of
from mkd_core.measure.wall_thickness import WallThickness
from mkd_core.protocol import findings
from mkd_core.structures import BY_KEY

#: Most warnings on the page; how many more there are is said.
_MOST_WARNINGS = 7


@dataclass(frozen=True)
class ReportPage:
    """What goes on the page.

    Attributes:
        person: name or pseudonym of the patient, as the user chose it.
        study: what the volume is, such as its name, date and modality: text by label.
        report: of the segments as they are, see :class:`mkd_core.protocol.Report`; entries may have "state" and "name".
        figures: see :func:`mkd_core.measure.clinical_figures.clinical_figures`.
        patient: body size and sex.
        phase: of the beat.
        wall: thickness of the wall, None where it could not be measured.
        pictures: PNG files by their captions.
        function: of a sequence, None for a single volume.
        curves: volumes in ml in the frames of a sequence, by the names of the structures.
        provenance: how the segmentation was made: text by label.
        created: date and time of the report.
    """

    person: str
    study: Mapping[str, str]
    report: Mapping[str, Any]
    figures: Sequence[ClinicalFigure]
    patient: Patient = field(default_factory=Patient)
    phase: CardiacPhase = field(default_factory=CardiacPhase)
    wall: WallThickness | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    function: CardiacFunction | None = None
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    created: str = ""


def report_html(page: ReportPage, translate: Callable[[str], str] = str) -> str:
    """The page.

    Args:
        page: what goes on it.
        translate: of the sentences of warnings, see :func:`mkd_core.measure.messages.describe`.
    """
    parts = report_parts(page, translate)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Heart report: {_e(page.person)}</title><style>{_STYLE}</style></head><body>"
        f"{_header(page)}{_pictures(page)}"
        f'<div class="columns"><section>{parts["structures"]}{parts["figures"]}</section>'
        f"<section>{parts['wall']}{parts['function']}{parts['warnings']}</section></div>"
        f"{parts['footer']}</body></html>\n"
    )


def report_parts(page: ReportPage, translate: Callable[[str], str] = str) -> dict[str, str]:
    """The parts of the page below its head, as HTML by name, for other layouts of the same figures: "structures",
    "figures", "wall", "function", "warnings" and "footer"; empty where there is nothing to show.
    """
    return {
        "structures": _structures(page),
        "figures": _figures(page, translate),
        "wall": _bullseye(page),
        "function": _function(page),
        "warnings": _warnings(page, translate),
        "footer": _footer(page),
    }


def report_facts(page: ReportPage) -> dict[str, str]:
    """What the head of the page says of patient and study: text by label."""
    patient, body = page.patient, []
    if patient.sex:
        body.append({"M": "male", "F": "female"}[patient.sex])
    if patient.age_years is not None:
        body.append(f"{patient.age_years:.0f} years")
    if patient.height_m is not None:
        body.append(f"{100 * patient.height_m:.0f} cm")
    if patient.weight_kg is not None:
        body.append(f"{patient.weight_kg:.0f} kg")
    if patient.bsa_m2 is not None:
        body.append(f"BSA {patient.bsa_m2:.2f} m²")
    return ({"Patient": ", ".join(body)} if body else {}) | dict(page.study)


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)


def _header(page: ReportPage) -> str:
    items = report_facts(page)
    facts = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(text)}</dd></div>" for name, text in items.items())
    return (
        f'<header><div><h1>Whole-heart segmentation</h1><p class="person">{_e(page.person)}</p></div>'
        f'<p class="stamp">{_e(RESEARCH_USE)}</p></header><dl>{facts}</dl>'
    )


def _pictures(page: ReportPage) -> str:
    shown = [
        f'<figure><img alt="{_e(name)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'
        f"<figcaption>{_e(name)}</figcaption></figure>"
        for name, png in page.pictures.items()
    ]
    return f'<div class="pictures">{"".join(shown)}</div>' if shown else ""


_LIGHTS = {
    "green": (MARKS["green"], "no sign of a failed segmentation"),
    "amber": (MARKS["amber"], "check the outline"),
    "red": (MARKS["red"], "likely to be wrong"),
    "none": ("○", "no statement"),
}


def _structures(page: ReportPage) -> str:
    whole = findings(page.report.get("warnings"))
    unit = "HU" if page.report.get("modality") == "CT" else "signal"
    rows = []
    for key, entry in (page.report.get("structures") or {}).items():
        light = trust_of(entry, whole).light
        mark, meaning = _LIGHTS[light]
        state = entry.get("state") or ("" if entry.get("volume_ml") else "not found")
        name = _e(entry.get("name") or BY_KEY[key].name) + (f' <i class="state">{_e(state)}</i>' if state else "")
        red, green, blue = BY_KEY[key].color
        agreement, mean = entry.get("agreement"), entry.get("mean_intensity")
        rows.append(
            f'<tr><th><b class="swatch" style="background:rgb({red},{green},{blue})"></b>{name}</th>'
            f"<td>{_number(entry.get('volume_ml'))}</td><td>{_number(entry.get('mass_g'))}</td>"
            f"<td>{'' if mean is None or not entry.get('volume_ml') else f'{mean:.0f}'}</td>"
            f"<td>{'' if agreement is None else f'{100 * agreement:.0f}'}</td>"
            f'<td class="light {light}" title="{meaning}">{mark}</td></tr>'
        )
    return (
        "<h2>Structures</h2><table><thead><tr><th></th><td>Volume<br>ml</td><td>Mass<br>g</td>"
        f"<td>Mean<br>{unit}</td><td>Agree&shy;ment<br>%</td><td></td></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        + '<p class="note legend">'
        + "".join(
            f'<i><b class="light {light}">{mark}</b> {meaning}</i> ' for light, (mark, meaning) in _LIGHTS.items()
        )
        + "</p>"
    )


def _number(value: float | None) -> str:
    """A figure as the panel shows it, which rounds to what its table keeps first."""
    value = round(value or 0.0, 1)
    return "" if not value else f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"


def _figures(page: ReportPage, translate: Callable[[str], str]) -> str:
    rows, reasons = [], dict[str, list[str]]()
    for figure in page.figures:
        name = name_of(figure, page.phase)
        if figure.value is None:
            if figure.reason is not None:
                reasons.setdefault(describe(figure.reason, translate), []).append(name)
            continue
        reference = figure.reference
        normal = reference.text(figure.digits) if reference is not None else ""
        verdict = {"high": "↑", "low": "↓"}.get(figure.verdict, "")
        rows.append(
            f'<tr><th>{_e(name)}</th><td class="value">{_e(figure.text)} <b>{verdict}</b></td>'
            f"<td>{range_svg(figure)}</td><td>{_e(normal)}</td></tr>"
        )
    table = (
        "<table><thead><tr><th></th><td></td><td></td><td>Normal</td></tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table>"
        if rows
        else ""
    )
    missing = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    notes = [f"{phase_text(page.phase)}."]
    if page.patient.bsa_m2 is not None:
        notes.append(f"Body surface area: {BSA_FORMULA}.")
    sources: dict[str, str] = {}
    for figure in page.figures:
        if figure.value is not None and figure.reference is not None:
            sources.setdefault(figure.reference.source, figure.reference.method)
    notes += [f"Normal: {source}. {method}." for source, method in sources.items()]
    absent = "".join(f"<p>Not given: {_e(text)}</p>" for text in missing)
    return f'<h2>Figures</h2>{table}<div class="note">{absent}{"".join(f"<p>{_e(note)}</p>" for note in notes)}</div>'


def _bullseye(page: ReportPage) -> str:
    if page.wall is None or not page.wall.segments:
        return ""
    low, high = map(int, SCALE_MM)
    scale = "".join(f'<i style="background:rgb{colour_of(float(mm))}"></i>' for mm in range(low, high + 1))
    return (
        '<h2>Wall thickness, mm</h2><div class="wall">'
        f'{bullseye_svg(page.wall.segments)}<div class="scale"><span>{low}</span>{scale}<span>{high} mm</span></div>'
        "<p class='note'>Mean of each of the 17 segments of the American Heart Association, without trabeculae and "
        f"papillary muscles. Mean {page.wall.mean_mm:.1f} mm, largest {page.wall.largest_mm:.1f} mm.</p></div>"
    )


def _function(page: ReportPage) -> str:
    function = page.function
    if function is None:
        return ""
    colours = {s.name: "rgb({},{},{})".format(*s.color) for s in BY_KEY.values()}
    rows = [
        (name, *(_ventricle(part, one) for one in (function.left, function.right)))
        for name, part in (
            ("EDV, ml", "end_diastolic_ml"),
            ("ESV, ml", "end_systolic_ml"),
            ("SV, ml", "stroke_volume_ml"),
            ("EF, %", "ejection_fraction"),
        )
    ]
    table = "".join(f"<tr><th>{name}</th><td>{left}</td><td>{right}</td></tr>" for name, left, right in rows)
    return (
        f"<h2>Function</h2>{curve_svg(page.curves, colours)}<table><thead><tr><th></th><td>LV</td><td>RV</td></tr>"
        f"</thead><tbody>{table}</tbody></table>"
    )


def _ventricle(part: str, ventricle: VentricleFunction | None) -> str:
    if ventricle is None:
        return ""
    value = getattr(ventricle, part) * (100.0 if part == "ejection_fraction" else 1.0)
    return f"{value:.0f}"


def _warnings(page: ReportPage, translate: Callable[[str], str]) -> str:
    lines = []
    for shared in shared_findings(page.report):
        names = ", ".join(BY_KEY[key].abbreviation for key in shared.keys)
        severity = shared.finding.severity
        mark, _ = _LIGHTS[light_of(severity)]
        text = (f"<b>{_e(names)}:</b> " if names else "") + _e(describe(shared.finding, translate))
        lines.append(f'<li class="{_e(severity)}"><span>{mark}</span>{text}</li>')
    if page.function is not None:
        lines += [
            f'<li class="amber"><span>{MARKS["amber"]}</span>{_e(describe(one, translate))}</li>'
            for one in page.function.warnings
        ]
    for state in ("edited", "deleted"):
        changed = [
            _e(entry.get("name") or BY_KEY[key].name)
            for key, entry in (page.report.get("structures") or {}).items()
            if entry.get("state") == state
        ]
        if changed:
            lines.append(f'<li class="none"><span>○</span><b>{", ".join(changed)}:</b> {state} after the run.</li>')
    if not lines:
        return "<h2>Warnings</h2><p>No sign of a failed segmentation. This says nothing about the patient.</p>"
    more = len(lines) - _MOST_WARNINGS
    if more > 0:
        lines = [
            *lines[:_MOST_WARNINGS],
            f'<li class="none"><span>…</span>{more} more: see the panel or the JSON report.</li>',
        ]
    return f"<h2>Warnings</h2><ul>{''.join(lines)}</ul>"


def _footer(page: ReportPage) -> str:
    facts = " · ".join(f"{_e(name)}: {_e(text)}" for name, text in page.provenance.items())
    created = f"{_e(page.created)} · " if page.created else ""
    return f"<footer>{created}{facts}<br><b>{_e(RESEARCH_USE)}</b></footer>"


_STYLE = """
@page{size:A4;margin:11mm 12mm}
*{box-sizing:border-box}
html{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{font:10.5px/1.38 "Segoe UI","Helvetica Neue",Arial,"Noto Sans","DejaVu Sans",sans-serif;color:#1d2733;
margin:0 auto;max-width:186mm;background:#fff}
header{display:flex;justify-content:space-between;align-items:flex-start;border-bottom:2px solid #123456;
padding:4px 0 6px}
h1{font-size:11px;font-weight:600;letter-spacing:.06em;text-transform:uppercase;color:#52647a;margin:0}
.person{font-size:20px;font-weight:600;margin:1px 0 0;color:#123456;overflow-wrap:anywhere}
.stamp{margin:2px 0 0;padding:3px 9px;border:1px solid #b3541e;border-radius:3px;color:#b3541e;font-weight:600;
white-space:nowrap}
dl{display:flex;flex-wrap:wrap;gap:3px 22px;margin:7px 0 9px}
dt{font-size:9px;color:#6a7787}dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.pictures{display:flex;gap:7px;margin-bottom:4px}
figure{margin:0;flex:1;min-width:0}
figure img{width:100%;height:47mm;object-fit:cover;border-radius:3px;background:#000;display:block}
figcaption{font-size:9px;color:#6a7787;padding-top:2px}
.columns{display:grid;grid-template-columns:1.22fr 1fr;gap:0 9mm}
section{min-width:0}
h2{font-size:11.5px;color:#123456;margin:9px 0 3px;border-bottom:1px solid #d9dee4;padding-bottom:2px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
thead td{color:#6a7787;font-size:9px;line-height:1.15;vertical-align:bottom;white-space:nowrap}
td,tbody th{padding:2.1px 0 2.1px 6px;text-align:right}
tbody th{text-align:left;font-weight:400;padding-left:0}
tbody tr+tr{border-top:1px solid #eef0f3}
td{white-space:nowrap}
.value{font-weight:600;white-space:nowrap}.value b{color:#b3541e;display:inline-block;width:8px}
.swatch{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:6px;vertical-align:-0.5px}
.state{color:#b3541e}
.light{font-size:10px}.green{color:#2e7d4f}.amber{color:#b77400}.red{color:#b3261e}.none{color:#7b8794}
.note{font-size:8.6px;line-height:1.32;color:#5c6978;margin:3px 0 0}.note p{margin:0 0 1.5px}
.legend i{font-style:normal;white-space:nowrap;margin-right:6px}
.wall{text-align:center}.wall .note{text-align:left}
.scale{display:flex;justify-content:center;align-items:center;font-size:8.5px;color:#5c6978}
.scale i{width:12px;height:7px}.scale span{margin:0 5px}
.curve{width:100%;height:auto;display:block}
ul{list-style:none;margin:4px 0 0;padding:0}
ul li,ul li.amber,ul li.red{position:relative;padding:0 0 3px 15px;color:#1d2733}
li span{position:absolute;left:0;color:#7b8794}li.red span{color:#b3261e}li.amber span{color:#b77400}
footer{margin-top:9px;border-top:1px solid #d9dee4;padding-top:4px;font-size:8.3px;color:#5c6978;overflow-wrap:anywhere}
@media screen{body{padding:10mm 4mm}}
"""
