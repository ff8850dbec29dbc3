"""The page of a heart: complete, self-contained, true; and the lights that it shows."""

from __future__ import annotations

import base64
import html.parser
import re

import pytest

from mkd_core.measure.cardiac_function import cardiac_function
from mkd_core.measure.clinical_figures import HeartGeometry, clinical_figures
from mkd_core.measure.messages import RESEARCH_USE, finding
from mkd_core.measure.patient import CardiacPhase, Patient
from mkd_core.measure.report_page import ReportPage, report_html
from mkd_core.measure.report_print import report_rich_text
from mkd_core.measure.svg import bullseye_svg, colour_of, curve_svg
from mkd_core.measure.trust import Trust, shared_findings, trust_of
from mkd_core.measure.vessel_diameter import VesselDiameter
from mkd_core.measure.wall_thickness import WallThickness
from mkd_core.structures import BY_KEY, STRUCTURES

LINE = ((0.0, 0.0, 0.0), (33.4, 0.0, 0.0))
GEOMETRY = HeartGeometry(
    VesselDiameter(33.4, 32.0, 35.0, LINE, (0.0, 0.0, 1.0)),
    finding("vessel_unattached", structure="PA", first="RV"),
    WallThickness(8.2, 11.3, {number: 6.0 + 0.25 * number for number in range(1, 18)}),
)
PATIENT, PHASE = Patient(1.8, 80.0, "M", 50.0), CardiacPhase.at(75.0)
VOLUMES = {structure.key: 60.0 + 7 * structure.label for structure in STRUCTURES}
PNG = b"\x89PNG\r\n\x1a\n-picture"


def entry(key: str, *warnings, **more) -> dict:
    figures = {"volume_ml": VOLUMES[key], "mean_intensity": 300.0 + VOLUMES[key], "agreement": 0.93}
    return figures | {"warnings": [one.to_dict() for one in warnings]} | more


def report(**entries) -> dict:
    return {"modality": "CT", "warnings": [], "structures": {key: entry(key) for key in VOLUMES} | entries}


def page(**changes) -> ReportPage:
    figures = clinical_figures(VOLUMES, GEOMETRY, PATIENT, "CT", PHASE)
    given = {
        "person": "Pseudonym 17",
        "study": {"Volume": "CTA", "Date": "2026-01-02"},
        "report": report(),
        "figures": figures,
        "patient": PATIENT,
        "phase": PHASE,
        "wall": GEOMETRY.wall,
        "pictures": {"Axial": PNG},
        "provenance": {"Weights": "Rendered hearts 0.3"},
    }
    return ReportPage(**(given | changes))


class _Text(html.parser.HTMLParser):
    """What can be read on a page, and what it would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words, self.loaded, self._hidden = [], [], 0
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self._hidden += tag in ("style", "script", "title")
        self.loaded += [value for name, value in attributes if name in ("src", "href", "data")]

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script", "title")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_every_figure_of_the_table_is_on_the_page_and_what_is_not_given_has_its_reason():
    shown = _Text(report_html(page())).text
    for structure in STRUCTURES:
        assert f"{structure.name} {VOLUMES[structure.key]:.0f}" in shown
    figures = clinical_figures(VOLUMES, GEOMETRY, PATIENT, "CT", PHASE)
    for figure in figures:
        assert figure.value is None or figure.text in shown
    assert "Not given: Main pulmonary artery, PA/aorta ratio: Pulmonary artery does not begin" in shown
    for text in ("Pseudonym 17", "BSA 2.00 m²", "diastole, 75 %", "Fuchs et al.", "Mosteller", "Rendered hearts 0.3"):
        assert text in shown
    assert shown.count(RESEARCH_USE) == 2


def test_the_page_loads_nothing_runs_nothing_and_keeps_its_pictures():
    source = report_html(page())
    found = _Text(source)
    assert found.loaded == ["data:image/png;base64," + base64.b64encode(PNG).decode()]
    assert "<script" not in source and "url(" not in source and "@import" not in source
    assert "http://" not in source and "https://" not in source


def test_text_from_outside_is_text():
    nasty = '<img src=x onerror="alert(1)">&'
    source = report_html(
        page(
            person=nasty,
            study={nasty: nasty},
            pictures={nasty: PNG},
            provenance={nasty: nasty},
            report=report(LV=entry("LV", finding("text", text=nasty), name=nasty)),
            curves={nasty: [1.0, 2.0]},
            function=cardiac_function([report(), report(LV=entry("LV", volume_ml=30.0))]),
        )
    )
    assert "<img src=x" not in source
    assert _Text(source).text.count(nasty) >= 6


def test_the_page_for_print_has_the_same_words_and_numbers_in_a_form_that_needs_no_grid():
    frames = [report(LV=entry("LV", volume_ml=volume)) for volume in (150.0, 90.0, 60.0, 120.0)]
    doubted = report(LV=entry("LV", finding("separate_parts", structure="LV", count=2)))
    curves = {"Left ventricle": [150.0, 90.0, None, 120.0]}
    shown = page(function=cardiac_function(frames), curves=curves, report=doubted)
    web, printed = report_html(shown), report_rich_text(shown, draws_svg=False)
    assert "<svg" not in printed and "grid" not in printed and '<div class="columns"' not in printed

    def words(source):
        text = _Text(re.sub(r"<svg.*?</svg>|<div class=\"scale\">.*?</div>|■|&shy;", "", source, flags=re.DOTALL)).text
        return sorted(text.upper().split())

    assert words(printed) == words(web)
    drawn = report_rich_text(shown)
    pictures = [base64.b64decode(one).decode() for one in re.findall(r"svg\+xml;base64,([^\"]+)", drawn)]
    assert len(pictures) == len(re.findall("<svg", web)) and all("xmlns" in one for one in pictures)


def test_an_edited_structure_shows_no_agreement_and_no_light_of_ours():
    edited = {"volume_ml": 99.0, "mean_intensity": 310.0, "agreement": None, "warnings": [], "state": "edited"}
    shown = _Text(report_html(page(report=report(RA=edited)))).text
    assert "Right atrium edited 99 310 ○" in shown and "Right atrium: edited after the run." in shown


def test_a_deleted_structure_is_told_where_nothing_else_is():
    gone = {"volume_ml": None, "mean_intensity": None, "agreement": None, "warnings": [], "state": "deleted"}
    shown = _Text(report_html(page(report=report(RA=gone)))).text
    assert "Right atrium: deleted after the run." in shown and "No sign of a failed segmentation." not in shown


def test_the_page_of_a_sequence_has_its_function_and_curve():
    frames = [report(LV=entry("LV", volume_ml=volume)) for volume in (150.0, 90.0, 60.0, 120.0)]
    function = cardiac_function(frames)
    source = report_html(page(function=function, curves={"Left ventricle": [150.0, 90.0, None, 120.0]}))
    shown = _Text(source).text
    assert "EF, % 60" in shown and "EDV, ml 150" in shown
    assert source.count("<polyline") == 1


def test_the_page_says_how_many_warnings_are_not_on_it():
    many = [finding("text", text=f"warning {n}") for n in range(12)]
    shown = _Text(report_html(page(report=report() | {"warnings": [one.to_dict() for one in many]}))).text
    assert "5 more" in shown and "warning 6" in shown and "warning 7" not in shown


def test_the_bulls_eye_has_each_segment_where_the_american_heart_association_puts_it():
    source = bullseye_svg({number: float(number) for number in range(1, 18)})
    places = {
        float(value): (float(x), float(y))
        for x, y, value in re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)" fill="[^"]+">([\d.]+)</text>', source)
    }
    assert len(places) == 17
    for top, bottom in ((1.0, 4.0), (7.0, 10.0), (13.0, 15.0)):
        assert places[top][1] < -15 and abs(places[top][0]) < 1 and places[bottom][1] > 15
    assert all(places[number][0] < -15 for number in (2.0, 3.0, 8.0, 9.0, 14.0))  # the septum is on the left
    assert all(places[number][0] > 15 for number in (5.0, 6.0, 11.0, 12.0, 16.0))
    assert places[2.0][1] < 0 < places[3.0][1] and places[6.0][1] < 0 < places[5.0][1]
    assert places[17.0] == (0.0, 0.0)
    assert "not measured" in bullseye_svg({})


def test_the_bulls_eye_is_legible_on_white_paper_and_on_a_dark_panel():
    for ink, behind in ((None, (255, 255, 255)), ("#eeeeee", (50, 50, 50))):
        source = bullseye_svg({}, **({} if ink is None else {"ink": ink}))
        captions = re.search(r"\.side\{[^}]*fill:([^}]+)\}", source).group(1)
        assert contrast(rgb(captions), behind) >= 7.0
        lines = [rgb(colour) for colour in re.findall(r'<g fill="none" stroke="([^"]+)"', source)]
        for beside in (behind, *(colour_of(float(mm)) for mm in range(4, 17))):
            assert max(contrast(line, beside) for line in lines) >= 3.0
    for mm in range(4, 17):
        fill, ink = re.search(
            r'<circle r="12" fill="rgb\(([^)]+)\)">.*?fill="([^"]+)"', bullseye_svg({17: mm})
        ).groups()
        assert contrast(rgb(ink), tuple(map(int, fill.split(",")))) >= 3.9


def rgb(css: str) -> tuple[int, ...]:
    """Channels 0 to 255 of a colour as #rgb or #rrggbb."""
    digits = css[1:] if len(css) == 7 else "".join(2 * digit for digit in css[1:])
    return tuple(bytes.fromhex(digits))


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Contrast ratio of two sRGB colours as the Web Content Accessibility Guidelines 2.2 define it, 1 to 21."""

    def luminance(colour):
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_thicker_is_darker():
    shades = [sum(colour_of(float(mm))) for mm in range(4, 17)]
    assert shades == sorted(shades, reverse=True) and colour_of(1.0) == colour_of(4.0)


def test_no_curve_without_values():
    assert curve_svg({"Left ventricle": [None, None]}, {}) == ""


# ---- lights ----


def test_a_light_is_that_of_the_worst_finding():
    assert trust_of(entry("LV")) == Trust("green")
    amber = finding("separate_parts", structure="LV", count=2)
    red = finding("agreement_very_low", structure="LV", agreement=0.3, limit=0.6)
    assert trust_of(entry("LV", amber)) == Trust("amber", amber)
    assert trust_of(entry("LV", amber, red)) == Trust("red", red)
    assert trust_of(entry("LV"), [finding("mirrored")]) == Trust("red", finding("mirrored"))
    assert trust_of(entry("LV"), [finding("no_contrast_agent", hu=40.0)]).light == "green"


@pytest.mark.parametrize("change", [{"state": "edited"}, {"state": "deleted"}, {"volume_ml": 0.0}, {"agreement": None}])
def test_nothing_is_said_of_what_nobody_judged(change):
    assert trust_of(entry("LV", **change)) == Trust("none")


def test_what_is_said_of_several_structures_is_said_once():
    edge = {key: entry(key, finding("touches_border", structure=key)) for key in VOLUMES}
    shared = shared_findings({"warnings": [], "structures": edge})
    assert [one.keys for one in shared] == [tuple(VOLUMES)]
    low = {
        key: entry(key, finding("agreement_low", structure=key, agreement=value, limit=0.9))
        for key, value in (("LV", 0.71), ("RV", 0.64))
    }
    (one,) = shared_findings({"warnings": [], "structures": low})
    assert one.keys == ("LV", "RV") and one.finding.figures == {"lowest": 0.64, "highest": 0.71}
    red = [finding("mirrored").to_dict()]
    assert shared_findings({"warnings": red, "structures": edge})[0].finding.code == "mirrored"
    edited = {"LV": low["LV"] | {"state": "edited"}}
    assert shared_findings({"warnings": [], "structures": edited}) == []
    assert BY_KEY["LV"].abbreviation == "LV"
