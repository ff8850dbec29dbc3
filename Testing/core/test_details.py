"""Structures in detail: they lie within what the seven leave them, and the seven stay what they are."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import SimpleITK as sitk

import mkd_core
from mkd_core.inference import details, pipeline
from mkd_core.inference.geometry import Grid, OrientedVolume
from mkd_core.io import detail_weights
from mkd_core.measure.agreement import AgreementLimits
from mkd_core.measure.quantify import Measurement, structure_warnings
from mkd_core.method import networks
from mkd_core.protocol import IN_DETAIL, WHOLE_HEART
from mkd_core.structures import BY_KEY, DETAILED, STRUCTURES, labelled, labels_of_the_seven
from Testing.support.known_heart import KnownBundle, Unchanged, known_volume
from Testing.support.tiny_bundles import tiny_description

NETWORK = {"type": "segmentor", "in_channels": 8, "out_channels": 7, "channels": [4, 8, 8]}


def description(spacing_mm: float = 3.0, **changes) -> dict:
    own = tiny_description()
    kept = {key: own[key] for key in ("name", "version", "licence", "intended_use", "normalisation")}
    return (
        kept
        | {
            "structures": list(DETAILED),
            "network": NETWORK,
            "spacing_mm": spacing_mm,
            "training": {},
            "quality": {},
        }
        | changes
    )


def tiny_network() -> torch.nn.Module:
    torch.manual_seed(3)
    return networks.build(NETWORK)


class Slabs(torch.nn.Module):
    """Sees the structures as slabs side by side, wherever the seven are; the appendage's crosses the left atrium."""

    stride = 4
    order = (0, 2, 3, 4, 1, 5, 6)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        side = given.shape[-1]
        logits = torch.full((1, 7, *given.shape[2:]), -5.0)
        for place, label in enumerate(self.order):
            logits[:, label, ..., side * place // 7 : side * (place + 1) // 7] = 5.0
        return logits


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return detail_weights.save_details(
        tmp_path_factory.mktemp("d") / "detailed.safetensors", description(), tiny_network()
    )


@pytest.fixture
def bundle(weights, monkeypatch):
    seeing = dataclasses.replace(weights, _networks={detail_weights.PART: Slabs()})
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
    assert report["detail_weights"] == weights.identity and "detail_weights" not in plain.report
    assert "ends_at_box" in [one["code"] for one in report["warnings"]]
    voxels = sitk.GetArrayViewFromImage(result.labels)
    for key, label in report["labels"].items():
        counted = np.count_nonzero(voxels == label) * np.prod(image.GetSpacing()) / 1000
        assert report["structures"][key]["volume_ml"] == pytest.approx(counted, abs=1e-3)
        assert report["structures"][key]["agreement"] is not None or counted == 0
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


def test_one_view_has_no_agreement_and_equal_views_agree_wholly(bundle):
    image, _ = known_volume((70, 62, 66), (3.0, 3.2, 3.1))
    alike = KnownBundle(generator_a2t=Unchanged(), generator_t2a=Unchanged())
    both = run(alike, image, IN_DETAIL).report["structures"]
    single = run(alike, image, IN_DETAIL, alignment="none").report["structures"]
    found = [key for key in DETAILED if both[key]["volume_ml"] > 0]
    assert found and {both[key]["agreement"] for key in found} == {1.0}
    assert {single[key]["agreement"] for key in DETAILED} == {None}
    assert {key: both[key]["volume_ml"] for key in found} == {key: single[key]["volume_ml"] for key in found}


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
