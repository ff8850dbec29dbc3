"""Structures in detail: they lie within what the seven leave them, and the seven stay what they are."""

from __future__ import annotations

import csv
import dataclasses
import json
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import SimpleITK as sitk

import mkd_core
from mkd_core import protocol
from mkd_core.cli import main
from mkd_core.errors import ProtocolError
from mkd_core.evaluation import run as evaluation
from mkd_core.inference import details, pipeline
from mkd_core.inference.geometry import Grid, OrientedVolume
from mkd_core.io import detail_weights
from mkd_core.measure.agreement import AgreementLimits, confidence_limits
from mkd_core.measure.messages import describe, finding
from mkd_core.measure.quantify import Measurement, structure_warnings
from mkd_core.measure.trust import shared_findings
from mkd_core.protocol import IN_DETAIL, WHOLE_HEART
from mkd_core.structures import BY_KEY, DETAILED, STRUCTURES, labelled, labels_of_the_seven
from Testing.benchmarks import details as benchmark
from Testing.support.known_details import NETWORK, description, seeing_slabs, tiny_network, tiny_weights
from Testing.support.known_heart import KnownBundle, known_volume


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("d"))


@pytest.fixture
def bundle(weights, monkeypatch):
    seeing = seeing_slabs(weights)
    monkeypatch.setattr(pipeline, "default_details", lambda: seeing)
    return KnownBundle()


def run(bundle, image, structures=WHOLE_HEART, **others):
    options = mkd_core.SegmentationOptions(
        device="cpu", precision="float32", threads=1, structures=structures, **others
    )
    return mkd_core.segment(image, bundle, options=options)


@pytest.mark.parametrize("turn", [np.eye(3), np.diag((-1.0, -1.0, 1.0))[[2, 0, 1]]])
def test_merging_the_detailed_labels_gives_back_the_seven_bit_for_bit(bundle, turn):
    image, _ = known_volume((70, 62, 66), (3.0, 3.2, 3.1), turn)
    seven, detailed = (sitk.GetArrayFromImage(run(bundle, image, wanted).labels) for wanted in (WHOLE_HEART, IN_DETAIL))
    known = labelled((*(structure.key for structure in STRUCTURES), *DETAILED))
    assert set(np.unique(detailed)) == set(range(14))
    assert np.array_equal(np.array(labels_of_the_seven(known), np.uint8)[detailed], seven)


def test_the_report_tells_of_every_detailed_structure_and_which_weights_found_it(bundle, weights):
    image, _ = known_volume((70, 62, 66), (3.0, 3.2, 3.1))
    plain, result = run(bundle, image), run(bundle, image, IN_DETAIL)
    report = result.report
    assert list(report["labels"]) == list(report["structures"]) == [*(s.key for s in STRUCTURES), *DETAILED]
    assert (
        report["detail_weights"] == {**weights.identity, "structures": list(DETAILED)}
        and "detail_weights" not in plain.report
    )
    assert "ends_at_box" in [one["code"] for one in report["warnings"]]
    voxels = sitk.GetArrayViewFromImage(result.labels)
    for key, label in report["labels"].items():
        counted = np.count_nonzero(voxels == label) * np.prod(image.GetSpacing()) / 1000
        assert report["structures"][key]["volume_ml"] == pytest.approx(counted, abs=1e-3)
        assert (report["structures"][key]["agreement"] is not None) == (counted > 0)
    atrium = plain.report["structures"]["LA"]
    parts = [report["structures"][key]["volume_ml"] for key in ("LA", "LAA")]
    assert sum(parts) == pytest.approx(atrium["volume_ml"], abs=2e-3) and parts[1] > 0
    assert report["structures"]["LA"]["warnings"] == atrium["warnings"]
    for key in ("LV", "RV", "RA", "Myo", "AA", "PA"):
        assert report["structures"][key] == plain.report["structures"][key]
    assert mkd_core.parse_report(json.loads(json.dumps(report))) == report


def test_keys_choose_among_all_and_an_appendage_that_is_not_wanted_stays_in_its_atrium(bundle):
    image, _ = known_volume((70, 62, 66), (3.0, 3.2, 3.1))
    seven = sitk.GetArrayFromImage(run(bundle, image).labels)
    some = run(bundle, image, ("LA", "SVC"))
    assert list(some.report["structures"]) == ["LA", "SVC"]
    found, label = sitk.GetArrayFromImage(some.labels), some.report["labels"]["SVC"]
    assert np.array_equal(found == 3, seven == 3) and (found == label).any() and set(np.unique(found)) == {0, 3, label}


def test_the_overlap_that_a_network_expects_follows_from_its_probabilities():
    labels = np.zeros((1, 2, 5), np.uint8)
    labels[0, 0, :4] = 1
    probabilities = np.zeros((4, 1, 2, 5), np.float32)
    probabilities[1, 0, 0] = (1.0, 1.0, 0.6, 0.6, 0.4)
    probabilities[2, 0, 1] = 0.9
    assert details.expected_dice(probabilities, labels) == [None, pytest.approx(2 * 3.2 / (4 + 3.6)), None, None]
    sure = np.stack([labels != 1, labels == 1]).astype(np.float32)
    assert details.expected_dice(sure, labels) == [None, 1.0]
    elsewhere = sure.copy()
    elsewhere[1, 0, 1, :4] = 1.0  # as much again where the seven forbid it
    assert details.expected_dice(elsewhere, labels) == [None, pytest.approx(2 * 4 / (4 + 8))]


def test_structures_in_detail_are_doubted_by_the_overlap_that_the_network_expects(weights, monkeypatch):
    image, _ = known_volume((70, 62, 66), (3.0, 3.2, 3.1))
    limits = {"LAA": (0.9, 0.9), "SVC": (0.5, 0.4), "DAo": (1.0, 0.4)}
    table = {key: {"low": low, "very_low": very_low} for key, (low, very_low) in limits.items()}
    quality = {"agreement": {"CT": table}}
    judged = seeing_slabs(dataclasses.replace(weights, metadata=weights.metadata | {"quality": quality}))
    monkeypatch.setattr(pipeline, "default_details", lambda: judged)
    for alignment in (None, "none"):  # two views or one
        found = run(KnownBundle(), image, IN_DETAIL, alignment=alignment).report["structures"]
        assert found["LAA"]["agreement"] < 0.9, "most of its slab is not in the atrium"
        assert 0.9 < found["DAo"]["agreement"] < 1
        codes = {key: [one["code"] for one in found[key]["warnings"]] for key in limits}
        said = {
            key: [code for code in of_one if code.startswith(("confidence", "agree"))] for key, of_one in codes.items()
        }
        assert said == {"LAA": ["confidence_very_low"], "SVC": [], "DAo": ["confidence_low"]}
    low = [finding("confidence_low", structure=key, agreement=value, limit=0.9).to_dict() for key, value in RARE]
    report = {"structures": {key: {"volume_ml": 9.0, "warnings": [one]} for (key, _), one in zip(RARE, low)}}
    (shared,) = shared_findings(report)
    assert shared.keys == ("PV", "CS") and "70% to 80%" in describe(shared.finding)


RARE = (("PV", 0.7), ("CS", 0.8))


def test_thresholds_catch_bad_structures_and_flag_few_good_ones_of_hearts_left_out():
    rng = np.random.default_rng(3)
    samples = [
        benchmark.Sample(191 + number % 5, modality, key, float(confidence) - worse, 0.9 if number < 40 else 0.5)
        for modality, worse in (("CT", 0.0), ("MR", 0.1))
        for key in DETAILED
        for number, confidence in enumerate((*rng.uniform(0.82, 1.0, 40), *rng.uniform(0.4, 0.82, 10)))
    ]
    table = benchmark.limits(samples)
    for modality, low in (("CT", 0.829), ("MR", 0.729)):
        assert table[modality]["very_low"] < table[modality]["low"] == pytest.approx(low, abs=0.01)
    for modality, counts in benchmark.left_out(samples).items():
        assert counts["caught"] >= 0.95 * counts["bad"] and counts["flagged"] <= 0.1 * counts["good"], modality
        assert (counts["bad"], counts["good"]) == (60, 240)
    assert benchmark.limits(samples[40:50]) == {}, "none of these is good"


def test_the_thresholds_that_come_with_the_package_are_of_its_weights_and_say_what_they_catch():
    table = json.loads(benchmark.TABLE.read_text(encoding="utf-8"))
    assert table["weights"] == detail_weights.default_details().identity and table["bad_below"] == 0.7
    for modality in ("CT", "MR"):
        assert confidence_limits(modality, "SVC") == AgreementLimits(**table["thresholds"][modality])
        counts = table["left_out"][modality]
        assert counts["flagged"] <= 0.1 * counts["good"] and counts["caught"] >= 0.45 * counts["bad"]
    own = {"agreement": {"CT": {"SVC": {"low": 0.5, "very_low": 0.4}}}}
    assert confidence_limits("CT", "SVC", own) == AgreementLimits(0.5, 0.4)
    assert confidence_limits("CT", "IVC", own) == confidence_limits("CT", "IVC")


def test_the_seven_need_no_detailed_weights_and_other_grids_and_words_are_refused(weights, monkeypatch):
    image, _ = known_volume((40, 40, 40), (5.0, 5.0, 5.0))
    monkeypatch.setattr(pipeline, "default_details", lambda: pytest.fail("the seven do not need it"))
    run(KnownBundle(), image)
    other = dataclasses.replace(weights, metadata=weights.metadata | {"spacing_mm": 2.0})
    monkeypatch.setattr(pipeline, "default_details", lambda: other)
    with pytest.raises(mkd_core.BundleError) as caught:
        run(KnownBundle(), image, IN_DETAIL)
    assert caught.value.finding.code == "details_other_bundle"
    for wanted, choice in (("everything", WHOLE_HEART), (("LV", "spleen"), "SVC"), ((IN_DETAIL,), "SVC")):
        with pytest.raises(mkd_core.InputError) as caught:
            run(KnownBundle(), image, wanted)
        assert caught.value.finding.code == "option_structure" and choice in str(caught.value)


def test_what_the_seven_cut_off_from_a_structure_goes_and_veins_come_in_several_parts():
    structures = labelled(DETAILED)
    label = {structure.key: structure.label for structure in structures}
    labels = np.zeros((6, 6, 30), np.uint8)
    for key, row in (("SVC", 0), ("PV", 2)):
        labels[:3, row, 2:12] = labels[3, row, 16:24] = labels[5, row, 28] = label[key]
    found = details.tidied(labels.copy(), structures)
    assert np.count_nonzero(found == label["SVC"]) == 30 and np.count_nonzero(found == label["PV"]) == 38
    limits = AgreementLimits(0.5, 0.4)
    for key, parts, codes in (("PV", 4, []), ("SVC", 2, ["separate_parts"]), ("DAo", 3, ["separate_parts"])):
        measured = Measurement(30.0, 100.0, touches_border=False, components=parts, agreement=0.9, centre=None)
        assert [one.code for one in structure_warnings(BY_KEY[key], measured, limits)] == codes
    at_edge = dataclasses.replace(measured, touches_border=True, components=1)
    for key, codes in (("IVC", []), ("CS", ["touches_border", "too_large"]), ("PA", ["touches_border"])):
        assert [one.code for one in structure_warnings(BY_KEY[key], at_edge, limits)] == codes


def test_options_cross_processes_as_plain_values():
    for wanted in (WHOLE_HEART, IN_DETAIL, ("LV", "SVC"), None):
        options = mkd_core.SegmentationOptions(structures=wanted)
        assert mkd_core.SegmentationOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    assert mkd_core.SegmentationOptions().keys_wanted(("LV", "LAA"), DETAILED) == ["LV", "LAA"]
    every = mkd_core.SegmentationOptions(structures=IN_DETAIL).keys_wanted(("LV", "LAA"), DETAILED)
    assert every == ["LV", "LAA", "PV", "SVC", "IVC", "DAo", "CS"]


def test_a_box_cuts_vessels_by_convention_at_their_ends_and_else_with_a_warning():
    volume = OrientedVolume(sitk.Image([60, 60, 60], sitk.sitkInt16))
    grid = Grid((10, 10, 10), (20.0, 20.0, 20.0), 2.0)
    structures = labelled(DETAILED)
    label = {structure.key: structure.label for structure in structures}
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[-1, 4, 4], labels[0, 5, 5], labels[4, 4, 0] = label["SVC"], label["IVC"], label["PV"]
    labels[0, 8, 8] = labels[-1, 8, 8] = label["DAo"]
    assert details.cut_findings(labels, structures, grid, volume) == {}
    labels[5, -1, 8], labels[0, 1, 1], labels[5, 0, 1] = label["DAo"], label["SVC"], label["LAA"]
    found = details.cut_findings(labels, structures, grid, volume)
    assert {key: [one.code for one in of] for key, of in found.items()} == {
        key: ["cut_by_box"] for key in ("DAo", "SVC", "LAA")
    }
    assert details.cut_findings(labels, structures, Grid((30, 30, 30), (0.5, 0.5, 0.5), 2.0), volume) == {}


def test_weights_come_back_as_they_were_saved_and_boxes_of_any_size_fit(weights, tmp_path):
    saved = tiny_network().state_dict()
    for name, tensor in weights.network().state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(tensor, saved[name].float(), rtol=2e-3, atol=1e-3)
    assert not weights.network().training and [s.key for s in weights.structures] == list(DETAILED)
    views = [torch.rand(1, 1, 9, 10, 13)]
    found = details.predict(views, np.zeros((9, 10, 13), np.uint8), weights.structures, 4, weights.network())
    assert found.probabilities.shape == (7, 9, 10, 13)
    assert torch.allclose(found.probabilities.sum(dim=0), torch.ones(9, 10, 13), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"format": 2}, "bundle_newer_format"),
        ({"name": " "}, "bundle_no_name"),
        ({"structures": ["LAA", "LAA"]}, "bundle_structure_twice"),
        ({"structures": ["LAA", "spleen"]}, "bundle_unknown_structure"),
        ({"structures": ["LAA", "LV"]}, "details_seven"),
        ({"structures": ["LAA", "PV"]}, "bundle_network_channels"),
        ({"network": NETWORK | {"channels": [2000]}}, "bundle_network_absurd"),
        ({"network": NETWORK | {"in_channels": 1}}, "bundle_network_broken"),
        ({"network": NETWORK | {"channels": [512, 512]}}, "bundle_layer_memory"),
        ({"network": NETWORK | {"channels": [4, 8, 16]}}, "bundle_tensor_other_shape"),
        ({"network": "segmentor"}, "bundle_network_type"),
        ({"normalisation": {}}, "bundle_no_normalisation"),
        ({"spacing_mm": 0.01}, "bundle_number"),
        ({"training": 3}, "bundle_no_table"),
        ({"name": "a\x1bb"}, "bundle_description_characters"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_reason(weights, tmp_path, changes, code):
    path = tmp_path / "odd.safetensors"
    network = tiny_network()
    detail_weights.save_details(path, description(), network)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"][detail_weights.KEY] = json.dumps(
        json.loads(header["__metadata__"][detail_weights.KEY]) | changes
    )
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(mkd_core.BundleError) as caught:
        detail_weights.load_details(path)
    assert caught.value.finding.code == code and path.name in str(caught.value)


def test_a_bundle_is_no_file_of_detailed_weights_nor_the_other_way_round(weights, tmp_path):
    detail_weights.save_details(tmp_path / "d.safetensors", description(), tiny_network())
    with pytest.raises(mkd_core.BundleError) as caught:
        mkd_core.load_bundle(tmp_path / "d.safetensors")
    assert caught.value.finding.code == "bundle_no_description"
    with pytest.raises(mkd_core.BundleError) as caught:
        detail_weights.load_details(mkd_core.default_bundle_path())
    assert caught.value.finding.code == "details_no_description"


# ---- evaluation and archives ----


@pytest.fixture
def volume(tmp_path, bundle, monkeypatch):
    """A volume in a file, for commands that are given known weights."""
    image, _ = known_volume((56, 48, 52), (4.0, 4.0, 4.0))
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "heart.nrrd"
    sitk.WriteImage(image, str(path))
    monkeypatch.setattr("mkd_core.io.bundle.load_bundle", lambda *_, **__: bundle)
    return path


def test_an_evaluation_scores_what_the_labels_have_within_the_box(volume, bundle, weights, tmp_path, monkeypatch):
    image = sitk.ReadImage(str(volume))
    result = run(bundle, image, IN_DETAIL)
    found, label = sitk.GetArrayFromImage(result.labels), result.report["labels"]
    seven = np.array(labels_of_the_seven(labelled(label)), np.uint8)[found]
    beyond = found.copy()
    assert not (found[-1] == label["DAo"]).any()
    beyond[-1, :3] = label["DAo"]  # a vessel goes on beyond the box
    mmwhs = np.array([0, *(structure.mmwhs[0] for structure in STRUCTURES)], np.int16)
    truths = {
        "all": beyond,
        "some": np.where(found == label["SVC"], 0, found),
        "named": np.where(found == label["SVC"], 0, found),
        "mmwhs": mmwhs[seven],
    }
    rows = ["image,label,modality,structures"]
    for name, voxels in truths.items():
        sitk.WriteImage(image, str(tmp_path / f"{name}_image.nrrd"))
        truth = sitk.GetImageFromArray(voxels)
        truth.CopyInformation(image)
        sitk.WriteImage(truth, str(tmp_path / f"{name}_label.nrrd"))
        rows.append(f"{name}_image.nrrd,{name}_label.nrrd,CT,{' '.join(label) if name == 'named' else ''}")
    table, out = tmp_path / "cases.csv", tmp_path / "out"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    command = ["evaluate", "any", str(table), "--out", str(out), "--device", "cpu", "--threads", "1", "--no-figure"]
    command += ["--structures", "detailed"]
    segmented, segment = [], evaluation.segment
    monkeypatch.setattr(evaluation, "segment", lambda *a, **b: segmented.append(1) or segment(*a, **b))
    assert main(command) == 0
    with (out / "cases.csv").open(encoding="utf-8", newline="") as file:
        dice = {(row["case"], row["structure"]): row["dice"] for row in csv.DictReader(file)}
    there = [key for key in DETAILED if (found == label[key]).any()]
    assert {"LAA", "SVC", "DAo"} < set(there)
    for key in there:
        assert float(dice["all", key]) == 1, key
        assert dice["mmwhs", key] == ""
        assert dice["some", key] == ("" if key == "SVC" else "1")
        assert float(dice["named", key]) == (0 if key == "SVC" else 1)
    assert {dice[name, structure.key] for name in truths for structure in STRUCTURES} == {"1"}, "the atrium too"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["detail_weights"] == weights.identity and summary["bundle"]["sha256"] == bundle.sha256
    assert list(summary["modalities"]["CT"]["structures"]) == list(label)
    assert weights.sha256 in (out / "summary.md").read_text(encoding="utf-8")
    assert main(command) == 0 and len(segmented) == 4, "all were kept"
    other = seeing_slabs(tiny_weights(tmp_path, version="2"))
    monkeypatch.setattr(pipeline, "default_details", lambda: other)
    assert main(command) == 0 and len(segmented) == 8, "other weights for structures in detail are tried anew"
    assert main(command[:-2]) == 1, "labels in detail mean nothing where the seven are compared"


def test_an_archive_in_detail_has_their_columns_and_mixes_no_other_weights_or_sets(
    volume, bundle, weights, tmp_path, monkeypatch, capsys
):
    from mkd_core.archive import study
    from mkd_core.archive.ledger import Ledger

    folder = tmp_path / "run"
    sitk.WriteImage(sitk.ReadImage(str(volume)) + 1, str(volume.with_name("second.nrrd")))
    assert main(["archive", "index", str(volume.parent), "--out", str(folder), "--key", str(tmp_path / "key")]) == 0
    command = ["archive", "run", str(folder), "--here", "--device", "cpu", "--threads", "1"]
    assert main([*command, "--structures", "detailed", "--shard", "1/2"]) == 0
    other = seeing_slabs(tiny_weights(tmp_path, version="2"))
    monkeypatch.setattr(pipeline, "default_details", lambda: other)
    assert main(command) == 1
    assert "other settings (detail_sha256)" in capsys.readouterr().err
    seeing = seeing_slabs(weights)
    monkeypatch.setattr(pipeline, "default_details", lambda: seeing)
    assert main([*command, "--structures", "whole-heart-7"]) == 1
    assert "other settings (structures, detail_sha256)" in capsys.readouterr().err
    assert main(command) == 0, "the set need not be named again"
    every = [*(structure.key for structure in STRUCTURES), *DETAILED]
    assert main(["archive", "export", str(folder)]) == 0
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [name for name in rows[0] if name.endswith("_volume_ml")] == [f"{key}_volume_ml" for key in every]
    assert {row["weights"] for row in rows} == {"tiny 0.0.1 + tiny 0.0.1"} and len(rows) == 2
    with Ledger(folder) as ledger:
        for row in ledger.rows(states=("done",)):
            written = study.result_folder(folder, row["id"])
            labels = sitk.GetArrayFromImage(sitk.ReadImage(str(written / "labels.nrrd")))
            report = json.loads((written / "report.json").read_text(encoding="utf-8"))
            found = {key for key, entry in report["structures"].items() if entry["volume_ml"]}
            assert {key for key, label in report["labels"].items() if (labels == label).any()} == found
            assert {"LAA", "SVC", "DAo"} < found and list(report["structures"]) == every
    assert main(["archive", "report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(BY_KEY[key].name in page for key in DETAILED)


def test_which_weights_found_a_structure_is_told_by_the_report(bundle, weights):
    known = {"bundle": bundle.identity}
    detailed = known | {"detail_weights": weights.identity | {"structures": ["SVC"]}}
    assert [one.sha256 for one in protocol.weights_of(detailed)] == [bundle.sha256, weights.sha256]
    assert protocol.titles_of_weights(detailed).split(" + ")[0] == protocol.titles_of_weights(known)
    for report, key, file in ((known, "SVC", bundle), (detailed, "SVC", weights), (detailed, "LAA", bundle)):
        assert protocol.weights_of_structure(report, key).sha256 == file.sha256, "a bundle may know appendages itself"
    silent = known | {"detail_weights": weights.identity}
    assert protocol.weights_of_structure(silent, "LAA").sha256 == weights.sha256
    with pytest.raises(ProtocolError, match="which structures are in detail"):
        mkd_core.parse_report(known | {"detail_weights": weights.identity | {"structures": 3}})
