"""The self-test of weights: swapped classes and generators that were never trained are refused, unknown weights are
not.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mkd_core.errors import BundleError
from mkd_core.inference import execution, self_test
from mkd_core.io.bundle import default_bundle_path, load_bundle, save_bundle
from mkd_core.measure.plausibility import weights_findings
from mkd_core.method import networks
from mkd_core.structures import BY_KEY, STRUCTURES
from Testing.support.tiny_bundles import random_state_dicts, tiny_description

HEADS = ("localiser", "segmentor_real", "segmentor_syn")


@pytest.fixture(scope="module")
def shipped():
    """The weights that come with the package, and a function that gives copies of their state dictionaries."""
    bundle = load_bundle(default_bundle_path(), self_test=False)

    def states():
        return {
            part: {name: tensor.clone() for name, tensor in bundle.network(part).state_dict().items()}
            for part in bundle.metadata["networks"]
        }

    return bundle, states


def swap(states: dict, first: str, second: str, parts=HEADS) -> None:
    """Swap two classes in the last layer of some networks."""
    order = list(range(8))
    a, b = BY_KEY[first].label, BY_KEY[second].label
    order[a], order[b] = b, a
    for part in parts:
        for name in ("head.weight", "head.bias"):
            states[part][name] = states[part][name][order]


def test_the_phantom_shows_all_structures_and_is_the_same_every_time():
    values, labels = self_test.draw_phantom("CT", 2.0, (64, 48, 64))
    volumes = np.bincount(labels.ravel(), minlength=8) * 0.008
    assert all(volumes[structure.label] > 15 for structure in STRUCTURES)
    assert values.mean() < np.median(values[labels == BY_KEY["Myo"].label]) < np.median(values[labels == 1])
    self_test.draw_phantom.cache_clear()
    again, _ = self_test.draw_phantom("CT", 2.0, (64, 48, 64))
    assert np.array_equal(values, again)


def test_the_shipped_weights_find_every_structure_as_it_is_written_down_for_them(shipped, monkeypatch):
    written = self_test._results.get(shipped[0].sha256)
    assert written is not None, "write the result of other weights down in mkd_core/inference/self_test.py"
    assert self_test.examine_weights(shipped[0]) == written
    monkeypatch.setattr(self_test, "_results", {})
    found = self_test.examine_weights(shipped[0])
    assert found.passed and found.found == written.found == len(STRUCTURES) == written.known == found.known
    assert found.cycle_error == pytest.approx(written.cycle_error, abs=0.002)


@pytest.mark.parametrize(("first", "second"), [("LV", "RV"), ("LA", "RA"), ("AA", "PA"), ("LV", "Myo")])
def test_swapped_classes_are_refused_by_name(shipped, tmp_path, first, second):
    bundle, states = shipped
    wrong = states()
    swap(wrong, first, second)
    path = tmp_path / "swapped.safetensors"
    save_bundle(path, bundle.metadata, wrong)
    name, other = (BY_KEY[key].name.lower() for key in (first, second))
    with pytest.raises(BundleError, match=f"takes the {name} of the built-in phantom for the {other}"):
        load_bundle(path)


@pytest.mark.parametrize("part", HEADS)
def test_a_structure_swapped_with_what_is_none_is_refused(shipped, tmp_path, part):
    bundle, states = shipped
    wrong = states()
    order = [BY_KEY["LV"].label, 0, *range(2, 8)]
    for name in ("head.weight", "head.bias"):
        wrong[part][name] = wrong[part][name][order]
    path = tmp_path / "inverted.safetensors"
    save_bundle(path, bundle.metadata, wrong)
    with pytest.raises(BundleError, match="left ventricle of the built-in phantom for what lies round the heart"):
        load_bundle(path)


def test_weights_with_one_segmentor_under_two_names_say_that_its_agreement_means_nothing(shipped, tmp_path):
    bundle, states = shipped
    wrong = states()
    wrong["segmentor_syn"] = wrong["segmentor_real"]
    path = tmp_path / "one.safetensors"
    save_bundle(path, bundle.metadata, wrong)
    found = weights_findings(load_bundle(path).self_test)
    assert [one.code for one in found] == ["one_segmentor"]
    assert weights_findings(self_test.examine_weights(bundle)) == []


@pytest.mark.parametrize("part", HEADS)
def test_classes_swapped_in_one_network_are_refused(shipped, tmp_path, part):
    bundle, states = shipped
    wrong = states()
    swap(wrong, "LV", "RV", [part])
    path = tmp_path / "swapped.safetensors"
    save_bundle(path, bundle.metadata, wrong)
    with pytest.raises(BundleError, match="left ventricle"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (("generator_a2t", "generator_t2a"), "the generators"),
        (("generator_t2a",), "one of the generators leaves"),
        (("segmentor_real",), "the segmentor of real images"),
        (("segmentor_syn",), "the generators"),
        (("localiser",), "the localiser"),
    ],
)
def test_networks_that_were_never_trained_are_refused_beside_trained_ones(shipped, tmp_path, parts, reason):
    bundle, states = shipped
    wrong = states()
    torch.manual_seed(3)
    for part in parts:
        wrong[part] = networks.build(bundle.metadata["networks"][part]).state_dict()
    path = tmp_path / "random.safetensors"
    save_bundle(path, bundle.metadata, wrong)
    with pytest.raises(BundleError, match=f"self-test: {reason}"):
        load_bundle(path)


def test_generators_in_the_wrong_order_are_refused(shipped, tmp_path):
    bundle, states = shipped
    wrong = states()
    wrong["generator_a2t"], wrong["generator_t2a"] = wrong["generator_t2a"], wrong["generator_a2t"]
    path = tmp_path / "order.safetensors"
    save_bundle(path, bundle.metadata, wrong)
    with pytest.raises(BundleError, match="generators"):
        load_bundle(path)


def test_weights_that_know_no_phantom_are_loaded_with_a_doubt(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
    bundle = load_bundle(path)
    assert bundle.self_test is not None and not bundle.self_test.passed


def test_the_same_file_is_tested_once(tmp_path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    save_bundle(path, tiny_description() | {"version": "once"}, random_state_dicts(tiny_description(), seed=5))
    runs = []
    run = execution.Executor.run
    monkeypatch.setattr(
        execution.Executor,
        "run",
        lambda self, part, *rest, **named: runs.append(part) or run(self, part, *rest, **named),
    )
    load_bundle(path, self_test=False)
    assert runs == []
    load_bundle(path)
    first = len(runs)
    assert first > 0
    load_bundle(path)
    assert len(runs) == first


def test_a_refusal_is_remembered_too(shipped, tmp_path):
    bundle, states = shipped
    wrong = states()
    swap(wrong, "LA", "RA")
    path = tmp_path / "swapped.safetensors"
    save_bundle(path, bundle.metadata | {"version": "refused"}, wrong)
    for _ in range(2):
        with pytest.raises(BundleError, match="left atrium"):
            load_bundle(path)


def test_classes_have_the_names_of_the_list_that_their_network_was_trained_with():
    left, right = BY_KEY["LV"], BY_KEY["RV"]
    truth = np.array([[[left.label, right.label]]], np.uint8)
    logits = torch.zeros((1, 3, 1, 1, 2))
    logits[0, 1, 0, 0, 0] = logits[0, 2, 0, 0, 1] = 9.0  # the first class here, the second there
    structures = {"localiser": (left, right), "segmentor_real": (right, left)}
    executor = SimpleNamespace(run=lambda part, view, stream: logits)
    at = np.ix_(*[[left.label, right.label]] * 2)
    for part, expected in (("localiser", [[1, 0], [0, 1]]), ("segmentor_real", [[0, 1], [1, 0]])):
        assert self_test._overlaps(structures[part], executor, part, [logits], truth)[at].tolist() == expected, part
