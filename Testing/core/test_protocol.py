"""The contract: what crosses the border between module and worker, or comes out of a file, is checked once."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mkd_core import protocol
from mkd_core.errors import InputError, NoHeartError, ProtocolError
from mkd_core.measure import messages
from mkd_core.measure.messages import MESSAGES, describe, finding, refusal
from mkd_core.protocol import Finding, SegmentationOptions, parse_reply, parse_report, parse_request, to_message
from mkd_core.structures import STRUCTURES

PACKAGE = Path(protocol.__file__).parent

REPORT = {
    "structures": {
        "LV": {
            "volume_ml": 124.5,
            "mean_intensity": 310.0,
            "components": 1,
            "touches_border": False,
            "removed_ml": 0.0,
            "agreement": 0.95,
            "warnings": [finding("separate_parts", count=2).to_dict()],
        }
    },
    "labels": {structure.key: structure.label for structure in STRUCTURES},
    "warnings": [finding("fell_back").to_dict()],
    "modality": "CT",
    "bundle": {"name": "x", "version": "1", "sha256": "0" * 64},
    "options": SegmentationOptions().to_dict(),
    "timings_s": {"total": 1.0},
    "input": {"size": [1, 2, 3], "spacing_mm": [1.0, 1.0, 1.0]},
}


def test_the_contract_needs_no_heavy_library():
    code = "import sys, mkd_core.protocol, mkd_core.measure.messages; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "SimpleITK", "torch", "scipy"} & set(loaded)


# ---- requests ----

FULL = {
    "segment": {
        "id": 1,
        "input": "in.nrrd",
        "output": "out.nrrd",
        "modality": "MR",
        "bundle": "weights",
        "options": {"device": "cpu", "threads": 2, "structures": ["LV", "RV"]},
        "disagreement": "d.nrrd",
        "aligned": "a.nrrd",
    },
    "warm": {"id": "w", "bundle": "weights", "options": {"threads": 1}},
    "describe": {"id": 2, "bundle": "weights"},
    "environment": {"id": 3},
    "download": {"id": 4, "url": "https://example.org", "sha256": "00", "folder": "f", "part": "p"},
    "cancel": {"id": 5},
    "shutdown": {},
}


@pytest.mark.parametrize("op", FULL)
def test_a_request_survives_the_way_through_json(op):
    request = parse_request({"op": op} | FULL[op])
    again = parse_request(json.loads(json.dumps(to_message(request))))
    assert again == request and type(again).op == op
    for name, value in FULL[op].items():
        if name != "options":
            assert getattr(request, name) == value
    if op == "segment":
        assert request.options == SegmentationOptions(device="cpu", threads=2, structures=("LV", "RV"))


@pytest.mark.parametrize(
    "message, error, text",
    [
        ([], ProtocolError, "not a JSON object"),
        ({"op": ["segment"], "id": 1}, ProtocolError, "no operation"),
        ({"op": {}, "id": 1}, ProtocolError, "no operation"),
        ({"id": 1}, ProtocolError, "no operation"),
        ({"op": "warm", "id": True}, ProtocolError, "no proper id"),
        ({"op": "warm", "id": [1]}, ProtocolError, "no proper id"),
        ({"op": "cancel"}, ProtocolError, "no proper id"),
        ({"op": "segment", "id": 1, "output": "o"}, ProtocolError, "no proper path for “input”"),
        ({"op": "segment", "id": 1, "input": "a\0b", "output": "o"}, ProtocolError, "no proper path for “input”"),
        pytest.param(
            {"op": "segment", "id": 1, "input": "\ud800", "output": "o"},
            ProtocolError,
            "no proper path for “input”",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="files may be named so there"),
        ),
        ({"op": "segment", "id": 1, "input": "i", "output": "o", "aligned": 3}, ProtocolError, "for “aligned”"),
        ({"op": "segment", "id": 1, "input": "i", "output": "o", "modality": []}, InputError, "not a modality"),
        ({"op": "segment", "id": 1, "input": "i", "output": "o", "options": [1]}, ProtocolError, "“options”"),
        ({"op": "warm", "id": 1, "options": {"colour": "red"}}, InputError, "no option “colour”"),
        ({"op": "warm", "id": 1, "options": {"structures": [["LV"]]}}, InputError, "not a list of keys"),
        ({"op": "download", "id": 1, "url": 3, "sha256": "", "folder": "f", "part": "p"}, ProtocolError, "“url”"),
    ],
)
def test_a_malformed_request_is_refused_with_a_reason(message, error, text):
    with pytest.raises(error, match=text):
        parse_request(message)


# ---- replies ----

REPLIES = [
    protocol.ReadyReply(123, "0.4.0"),
    protocol.ProgressReply(1, "align", 0.25, "Aligning"),
    protocol.ResultReply(1, REPORT),
    protocol.ErrorReply(None, "ProtocolError", "No id."),
    protocol.ErrorReply(1, "InputError", "Too long.", "Cut it.", finding("extent", m=3.0)),
    protocol.CancelledReply("w"),
]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.event)
def test_a_reply_survives_the_way_through_json(reply):
    assert parse_reply(json.loads(json.dumps(to_message(reply)))) == reply


@pytest.mark.parametrize(
    "message",
    [
        None,
        [1],
        {"event": ["result"]},
        {"event": "news", "id": 1},
        {"event": "result", "id": {}},
        {"event": "result", "id": 1, "report": [1]},
        {"event": "progress"},
    ],
)
def test_what_is_no_reply_is_refused(message):
    with pytest.raises(ProtocolError):
        parse_reply(message)


@pytest.mark.parametrize(
    "said, shown",
    [
        (0.5, 0.5),
        (1, 1.0),
        (7, 1.0),
        (-3, 0.0),
        (10**400, 1.0),
        (math.nan, 0.0),
        (math.inf, 1.0),
        ("1", 0.0),
        (None, 0.0),
    ],
)
def test_any_fraction_that_a_worker_may_name_can_be_shown(said, shown):
    reply = parse_reply({"event": "progress", "id": 1, "stage": 3, "fraction": said, "message": "m" * 10_000})
    assert (reply.fraction, reply.stage) == (shown, "3") and len(reply.message) == 1000


def test_a_reply_with_a_broken_finding_still_has_its_sentence():
    reply = parse_reply({"event": "error", "id": 1, "kind": "InputError", "message": "m", "finding": {"code": 3}})
    assert reply.message == "m" and reply.finding is None


# ---- reports ----


def test_a_report_keeps_what_it_says():
    assert parse_report(json.loads(json.dumps(REPORT))) == REPORT
    assert parse_report(REPORT | {"of a newer version": {"a": 1}})["of a newer version"] == {"a": 1}


def test_a_report_of_an_earlier_version_shows_its_sentences():
    entry = {"volume_ml": 3.0, "stray_ml": 1.5, "remarks": ["Unusually small."], "agreement": None}
    old = {
        "structures": {"PA": entry},
        "remarks": ["The volume may not show it."],
        "real_share": 0.5,
        "version": "0.1.0",
    }
    report = parse_report(old)
    assert report["structures"]["PA"]["removed_ml"] == 1.5 and report["ensemble_weight"] == 0.5
    assert next(iter(report["labels"])) == "LV" and len(report["labels"]) == 7
    assert "remarks" not in report and "remarks" not in report["structures"]["PA"]
    shown = [describe(one) for one in protocol.findings(report["structures"]["PA"]["warnings"] + report["warnings"])]
    assert shown == ["Unusually small.", "The volume may not show it."]


@pytest.mark.parametrize(
    "spoil",
    [
        {"structures": []},
        {"structures": {"liver": {}}},
        {"structures": {"LV": 3}},
        {"structures": {"LV": {"volume_ml": "much"}}},
        {"structures": {"LV": {"volume_ml": math.nan}}},
        {"structures": {"LV": {"volume_ml": 10**400}}},
        {"structures": {"LV": {"warnings": "text"}}},
        {"structures": {"LV": {"warnings": [{"code": "x", "figures": {"ml": []}}]}}},
        {"structures": {"LV": {"warnings": [{"code": "x", "figures": {"ml": None}}]}}},
        {"labels": [1]},
        {"labels": {"LV": 2}},
        {"labels": {"LV": 1, "liver": 2}},
        {"labels": {"RV": 1}},
        {"warnings": [3]},
        {"warnings": "text"},
        {"warnings": [{"code": ""}]},
        {"warnings": [{"code": "x", "severity": "purple"}]},
        {"warnings": [{"code": "x", "structure": "liver"}]},
        {"warnings": [{"code": "x", "structure": []}]},
        {"bundle": "x"},
        {"bundle": {"name": {}}},
        {"options": [1]},
        {"timings_s": {"total": "long"}},
        {"input": {"size": ["a"]}},
        {"input": {"size": [None]}},
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_no_report(spoil):
    with pytest.raises(ProtocolError):
        parse_report(REPORT | spoil)


# ---- the vocabulary of findings ----


@pytest.mark.parametrize("code", MESSAGES)
def test_every_code_has_sentences_that_its_figures_fill(code):
    message = MESSAGES[code]
    assert message.severity in protocol.SEVERITIES and message.text
    named = messages.figures_of(message) - {"structure", "Structure"}
    words = {"size": "3 x 4 x 5", "frames": "2, 3", "text": "A sentence.", "first": "LA", "second": "RV"}
    texts = message.text + message.advice
    is_number = {name: f"{{{name}:" in texts for name in named}
    figures = {name: 3.0 if is_number[name] else words.get(name, "word") for name in named}
    one = finding(code, structure="LV", **figures)
    sentence = describe(Finding.from_dict(json.loads(json.dumps(one.to_dict()))))
    assert (
        "{" not in sentence
        and (sentence[0].isupper() or sentence[0].isdigit() or sentence[0] == "“")
        and sentence.endswith(".")
    )
    assert describe(one, lambda text: text.replace("{", "{un")) == sentence, "a spoilt translation is not used"


def test_a_sentence_names_structures_and_figures():
    assert describe(finding("left_of", first="RA", second="LV")).startswith(
        "The right atrium lies left of the left ventricle: "
    )
    assert describe(finding("not_found_at_systole", structure="RV", frame=5)) == (
        "Right ventricle was not found at end-systole (frame 5)."
    )
    assert describe(finding("no_air", file="ct.nii.gz")).startswith("“ct.nii.gz”: The volume shows neither air")
    assert describe(finding("thick", mm=5.0), lambda text: "Schichten: {mm:.2f} mm.") == "Schichten: 5.00 mm."


def test_a_finding_takes_the_figures_of_its_sentence_and_no_others():
    for wrong in ({}, {"mm": 1.0, "cm": 0.1}, {"cm": 0.1}):
        with pytest.raises(ValueError, match="takes the figures"):
            finding("thick", **wrong)
    with pytest.raises(ValueError, match="needs a structure"):
        finding("volume_jumps", frame=3)
    with pytest.raises(KeyError):
        finding("unheard_of")


def test_parts_of_the_method_are_named_in_the_language_of_the_reader():
    one = finding("bundle_no_network", part="generator_a2t", file="b")
    assert describe(one).startswith("“b”: The bundle has no generator to the target modality.")
    german = {"The bundle has no {part}.": "Es fehlt: {part}.", "generator to the target modality": "Generator"}
    assert describe(one, lambda text: german.get(text, text)).startswith("“b”: Es fehlt: Generator.")


def test_every_table_by_modality_has_them_all():
    modalities = set(protocol.MODALITIES)
    incomplete = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} lacks {', '.join(sorted(modalities - keys))}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Dict)
        and (keys := {key.value for key in node.keys if isinstance(key, ast.Constant)}) & modalities
        and not keys >= modalities
    ]
    assert incomplete == []


#: What a click can meet raises its errors from codes; these say why they do not.
_WITHOUT_CODES = {
    "errors.py": "defines them",
    "measure/messages.py": "makes them from findings",
    "archive/commands.py": "about options that only the command line has",
    "archive/export.py": "nothing in the panel exports a table",
    "archive/report.py": "nothing in the panel makes the page of an archive",
    "archive/run.py": "several processes, by the command line only",
}


def test_every_refusal_that_a_click_can_meet_has_a_code():
    listing = (PACKAGE / "CMakeLists.txt").read_text(encoding="utf-8")
    installed = re.findall(r"^\s+([\w/]+\.py)$", listing, flags=re.MULTILINE)
    assert len(installed) > 30
    kinds = {"MKDError", "InputError", "NoHeartError", "BundleError", "DeviceError", "DownloadError"}
    bare = [
        f"{name}:{node.lineno}"
        for name in installed
        if name not in _WITHOUT_CODES
        for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in kinds
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("values", "code", "figures"),
    [
        ({"colour": 1}, "option_unknown", {"option": "colour"}),
        ({"threads": "many"}, "option_value", {"option": "threads", "value": "many"}),
        ({"device": ["x" * 1000]}, "option_value", {"option": "device", "value": "['" + "x" * 98 + "…"}),
        ({"structures": [3]}, "option_no_keys", {}),
        ({"box_mm": [0, 1]}, "option_box", {}),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_a_code(values, code, figures):
    with pytest.raises(InputError) as caught:
        SegmentationOptions.from_dict(values)
    assert (caught.value.finding.code, caught.value.finding.figures) == (code, figures)


@pytest.mark.parametrize(
    ("options", "code", "choices"),
    [
        (SegmentationOptions(alignment="translate"), "option_alignment", "cycle, none, mean"),
        (SegmentationOptions(structures=("liver",)), "option_structure", "LV, RV"),
        (SegmentationOptions(segmentor="both"), "option_segmentor", "ensemble, real, synthetic"),
        (SegmentationOptions(threads=0), "option_threads", None),
        (SegmentationOptions(box_mm=(0.0, 1.0)), "option_box", None),
    ],
)
def test_a_value_that_does_not_exist_is_refused_by_a_code_with_those_that_do(options, code, choices):
    with pytest.raises(InputError) as caught:
        options.check("CT", "CT", ("LV", "RV"))
    assert (caught.value.finding.code, caught.value.finding.figures.get("choices")) == (code, choices)


def test_a_code_of_a_newer_version_and_figures_that_do_not_fit_are_shown_all_the_same():
    assert describe(Finding("from_the_future", figures={"ml": 3.5})) == "from_the_future (ml 3.5)"
    assert "{mm" in describe(Finding("thick", figures={"mm": "much"}))


def test_a_refusal_is_an_error_with_the_words_and_the_code():
    error = refusal(finding("extent", m=3.25))
    assert isinstance(error, InputError) and error.finding == finding("extent", m=3.25)
    assert error.message == "The volume is 3.2 m long, which cannot be right." and error.advice.startswith("Check")
    assert isinstance(refusal(finding("no_heart"), NoHeartError), NoHeartError)
    assert str(refusal(finding("file_empty", file="a.nrrd"))) == "“a.nrrd” is empty. Download or copy it again."
    assert dataclasses.replace(error.finding, severity="amber").severity == "amber"


def test_a_drawn_box_crosses_the_border_of_processes():
    options = SegmentationOptions(box_mm=(-10.0, 90.5, -40.0, 60.0, 0.0, 120.0))
    request = {"op": "segment", "id": 1, "input": "a.nrrd", "output": "b.nrrd", "options": options.to_dict()}
    assert parse_request(json.loads(json.dumps(request))).options == options
