"""The weights bundle: what is written is read back, and whatever does not fit is refused with a reason."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings, strategies

from mkd_core.errors import BundleError
from mkd_core.io import bundle as bundles
from mkd_core.io import tensor_file
from mkd_core.io.bundle_metadata import PARTS
from mkd_core.measure.messages import describe
from Testing.support.tiny_bundles import random_state_dicts, tiny_description


def contents(path: Path) -> tuple[dict, bytes]:
    """Header table and data of a .safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rewrite(path: Path, header: dict, data: bytes) -> None:
    """Write a .safetensors file without any check."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refusal(path: Path) -> str:
    """Message of the refusal of a file."""
    with pytest.raises(BundleError) as caught:
        bundles.load_bundle(path)
    assert path.name in caught.value.message
    assert caught.value.advice
    assert caught.value.finding.code.startswith("bundle_") and describe(caught.value.finding) == str(caught.value)
    return caught.value.message


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 5e-4), ("bfloat16", 4e-3)])
def test_weights_come_back_as_they_were_saved(tmp_path, dtype, tolerance):
    description = tiny_description()
    state_dicts = random_state_dicts(description)
    bundles.save_bundle(tmp_path / "b.safetensors", description, state_dicts, dtype)
    bundle = bundles.load_bundle(tmp_path / "b.safetensors")
    for part in PARTS:
        network = bundle.network(part)
        assert not network.training
        for name, saved in state_dicts[part].items():
            loaded = network.state_dict()[name]
            assert loaded.dtype == saved.dtype
            tolerated = tolerance if saved.ndim > 1 else 0.0
            assert torch.allclose(loaded.float(), saved.float(), rtol=tolerated, atol=tolerated / 10), (part, name)
    assert bundle.network("localiser") is bundle.network("localiser")


def test_whole_numbers_of_one_byte_are_within_half_a_step_of_the_weights(tmp_path):
    description = tiny_description()
    state_dicts = random_state_dicts(description)
    state_dicts["localiser"]["head.weight"][1] = 0.0  # a channel without a step
    bundle = bundles.save_bundle(tmp_path / "b.safetensors", description, state_dicts, "int8")
    half = bundles.save_bundle(tmp_path / "half.safetensors", description, state_dicts)
    assert bundle.path.stat().st_size < 0.75 * half.path.stat().st_size
    for part in PARTS:
        for name, saved in state_dicts[part].items():
            loaded, saved = bundle.network(part).state_dict()[name].float(), saved.float()
            step = saved.abs().flatten(1).amax(1) / 127 if saved.ndim > 1 else torch.zeros(saved.shape)
            assert ((loaded - saved).abs() <= 0.501 * step.reshape(-1, *[1] * (saved.ndim - 1))).all(), (part, name)
    assert (bundle.network("localiser").head.weight[1] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_another_description_leaves_every_number_as_it_was(tmp_path, dtype):
    path = tmp_path / "b.safetensors"
    bundle = bundles.save_bundle(path, tiny_description(), random_state_dicts(tiny_description()), dtype)
    _, data = contents(path)
    changed = bundles.update_metadata(bundle, version="2.0")
    header, same = contents(path)
    assert (changed.version, changed.path) == ("2.0", path) and same == data
    assert json.loads(header["__metadata__"]["mkd"]) == bundle.metadata | {"version": "2.0"}
    assert bundles.load_bundle(path).sha256 == changed.sha256 != bundle.sha256
    with pytest.raises(BundleError, match="empty name or version"):
        bundles.update_metadata(changed, version=" ")
    assert bundles.load_bundle(path).version == "2.0"


def test_whole_numbers_whose_steps_are_missing_or_absurd_are_refused(tmp_path):
    path = tmp_path / "b.safetensors"
    bundles.save_bundle(path, tiny_description(), random_state_dicts(tiny_description()), "int8")
    header, data = contents(path)
    name = "localiser/head.weight:step"
    begin, end = header[name]["data_offsets"]
    rewrite(path, header, data[:begin] + b"\xff\xff\x7f\x7f" * ((end - begin) // 4) + data[end:])
    assert "“localiser/head.weight” holds numbers that are not finite" in refusal(path)
    rewrite(path, header, data[:begin] + b"\x00\x00\xc0\x7f" * ((end - begin) // 4) + data[end:])
    assert "“localiser/head.weight” holds numbers that are not finite" in refusal(path)
    rewrite(path, header | {name: header[name] | {"shape": [1, (end - begin) // 4]}}, data)
    assert "“localiser/head.weight:step” has shape" in refusal(path)
    rewrite(path, {"localiser/other" if key == name else key: entry for key, entry in header.items()}, data)
    assert "“localiser/head.weight:step” is missing" in refusal(path)


def test_the_file_is_what_the_safetensors_library_reads(tiny_bundle_path):
    tensors = safetensors.torch.load_file(tiny_bundle_path)
    network = bundles.load_bundle(tiny_bundle_path).network("segmentor_syn")
    assert torch.equal(tensors["segmentor_syn/head.weight"].float(), network.head.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_file_of_the_safetensors_library_is_read(tiny_bundle_path, dtype):
    # Copies: the library may map the file, which is then written over.
    tensors = {n: tensor.to(dtype, copy=True) for n, tensor in safetensors.torch.load_file(tiny_bundle_path).items()}
    safetensors.torch.save_file(tensors, tiny_bundle_path, {"mkd": json.dumps(tiny_description())})
    head = bundles.load_bundle(tiny_bundle_path).network("localiser").head.weight
    assert torch.equal(head, tensors["localiser/head.weight"].float())


def test_the_description_is_read_without_the_weights_and_knows_its_settings(tiny_bundle_path):
    assert bundles.read_description(tiny_bundle_path) == tiny_description()
    bundle = bundles.load_bundle(tiny_bundle_path)
    assert (bundle.name, bundle.version, bundle.target) == ("tiny", "0.0.1", "CT")
    assert (bundle.localiser_spacing, bundle.min_heart_ml, bundle.margin, bundle.spacing) == (5.0, 150.0, 15.0, 2.0)
    assert bundle.max_box == (256.0, 256.0, 288.0)
    assert (bundle.alignment("CT"), bundle.alignment("MR")) == ("cycle", "translate")
    assert bundle.normalisation("MR")["kind"] == "percentile"
    assert len(bundle.sha256) == 64


def test_both_segmentors_count_half_unless_the_description_says_otherwise(tiny_bundle_path, tmp_path):
    description = tiny_description()
    assert [bundles.load_bundle(tiny_bundle_path).ensemble_weight(modality) for modality in ("CT", "MR")] == [0.5, 0.5]
    saved = bundles.save_bundle(
        tmp_path / "b.safetensors", description | {"ensemble": {"target": 0.8}}, random_state_dicts(description)
    )
    assert [saved.ensemble_weight(modality) for modality in ("CT", "MR")] == [0.8, 0.5]


def test_nothing_is_left_behind_and_the_old_file_stays_when_saving_fails(tiny_bundle_path):
    before = tiny_bundle_path.read_bytes()
    state_dicts = random_state_dicts(tiny_description())
    del state_dicts["segmentor_syn"]["head.bias"]
    with pytest.raises(BundleError, match="“segmentor_syn/head.bias” is missing") as caught:
        bundles.save_bundle(tiny_bundle_path, tiny_description(), state_dicts)
    assert ".part" not in str(caught.value)
    assert tiny_bundle_path.read_bytes() == before
    assert list(tiny_bundle_path.parent.iterdir()) == [tiny_bundle_path]


@pytest.mark.parametrize(
    ("dtype", "number", "refused_format"),
    [("float16", 1e6, "F16"), ("int8", np.inf, "F32"), ("int8", np.nan, "F32"), ("float32", np.inf, "F32")],
)
def test_numbers_too_big_for_the_format_are_not_saved(tmp_path, dtype, number, refused_format):
    state_dicts = random_state_dicts(tiny_description())
    state_dicts["localiser"]["head.weight"][0] = number
    with pytest.raises(BundleError, match=f"does not fit into {refused_format}"):
        bundles.save_bundle(tmp_path / "b.safetensors", tiny_description(), state_dicts, dtype)
    assert not list(tmp_path.iterdir())


def test_what_is_no_safetensors_file_is_refused_with_what_it_is(tmp_path):
    path = tmp_path / "weights.safetensors"
    assert "no such file" in refusal(path)
    path.mkdir()
    assert "not a file" in refusal(path)
    path.rmdir()
    torch.save({"a": torch.zeros(3)}, path)
    assert "pickle" in refusal(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "pickle" in refusal(path)
    path.write_bytes(b"abc")
    assert "too short" in refusal(path)
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    assert "longer than 1 MB" in refusal(path)
    path.write_bytes(struct.pack("<Q", 100) + b"{}")
    assert "ends in the middle" in refusal(path)
    path.write_bytes(struct.pack("<Q", 4) + b"[1]]")
    assert "not JSON" in refusal(path)
    path.write_bytes(struct.pack("<Q", 3) + b"[1]")
    assert "not a table" in refusal(path)


def test_a_cut_or_lengthened_file_is_refused(tiny_bundle_path):
    raw = tiny_bundle_path.read_bytes()
    tiny_bundle_path.write_bytes(raw[:-10])
    assert "incomplete" in refusal(tiny_bundle_path)
    tiny_bundle_path.write_bytes(raw + b"\0")
    assert "where its header describes" in refusal(tiny_bundle_path)


def break_missing(header):
    """Take one tensor away."""
    name = max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][1])
    lost = header.pop(name)["data_offsets"]
    return lost[0] - lost[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e.update(dtype="I64"), "number format “I64”"),
        (lambda e: e.update(shape=[1]), "does not fit its shape"),
        (lambda e: e.update(shape=[-1, 3]), "no proper shape"),
        (lambda e: e.update(shape=list(reversed(e["shape"]))), "is needed"),
        (lambda e: e.update(data_offsets=[0]), "no proper place"),
        (
            lambda e: e.update(data_offsets=[e["data_offsets"][0] + 2, e["data_offsets"][1] + 2]),
            "overlap or leave a gap",
        ),
        (lambda e: e.update(more=1), "properly"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(tiny_bundle_path, change, reason):
    header, data = contents(tiny_bundle_path)
    change(header["segmentor_real/up.0.weight"])
    rewrite(tiny_bundle_path, header, data)
    assert reason in refusal(tiny_bundle_path)


def test_header_and_tensors_are_those_of_one_file_though_another_takes_its_place_meanwhile(tmp_path, monkeypatch):
    path, other = tmp_path / "weights.safetensors", tmp_path / "other.safetensors"
    bundles.save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
    whole = bundles.load_bundle(path, self_test=False)
    bundles.save_bundle(other, tiny_description(), random_state_dicts(tiny_description(), seed=9))
    read_header = tensor_file._read_header

    def read_and_disturb(file):
        found = read_header(file)
        other.replace(path)
        return found

    monkeypatch.setattr(tensor_file, "_read_header", read_and_disturb)
    bundle = bundles.load_bundle(path, self_test=False)
    assert bundle.sha256 == whole.sha256 != hashlib.sha256(path.read_bytes()).hexdigest()
    for part in PARTS:
        found, expected = (one.network(part).state_dict() for one in (bundle, whole))
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_file_that_gets_shorter_while_it_is_read_is_refused(tiny_bundle_path, tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(tiny_bundle_path.read_bytes())
    read_header = tensor_file._read_header

    def read_and_cut(file):
        found = read_header(file)
        os.truncate(path, path.stat().st_size - 100)
        return found

    monkeypatch.setattr(tensor_file, "_read_header", read_and_cut)
    with pytest.raises(BundleError) as caught:
        bundles.load_bundle(path, self_test=False)
    assert caught.value.finding.code == "bundle_changed"


def test_missing_and_surplus_tensors_are_refused(tiny_bundle_path):
    header, data = contents(tiny_bundle_path)
    fewer = copy.deepcopy(header)
    cut = break_missing(fewer)
    rewrite(tiny_bundle_path, fewer, data[:cut])
    assert "is missing" in refusal(tiny_bundle_path)
    header["stranger/weight"] = {"dtype": "F16", "shape": [2], "data_offsets": [len(data), len(data) + 4]}
    rewrite(tiny_bundle_path, header, data + b"\0\0\0\0")
    assert "“stranger/weight” belongs to none" in refusal(tiny_bundle_path)


def test_a_number_that_is_not_finite_is_refused(tiny_bundle_path):
    header, data = contents(tiny_bundle_path)
    begin = header["localiser/head.weight"]["data_offsets"][0]
    rewrite(tiny_bundle_path, header, data[:begin] + np.float16("nan").tobytes() + data[begin + 2 :])
    assert "not finite" in refusal(tiny_bundle_path)


def without(*keys):
    """A change that takes an entry out of a nested table."""

    def change(description):
        for key in keys[:-1]:
            description = description[key]
        del description[keys[-1]]

    return change


def setting(value, *keys):
    """A change that sets an entry of a nested table."""

    def change(description):
        for key in keys[:-1]:
            description = description[key]
        description[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (setting(3, "format"), "newer format (3)"),
        (setting(0, "format"), "unknown format (0)"),
        (without("format"), "names no format version"),
        (setting("1", "format"), "names no format version"),
        (without("name"), "“name”"),
        (setting(" ", "name"), "empty name"),
        (without("licence"), "“licence”"),
        (setting("CT", "assistant"), "CT and MR"),
        (setting("PET", "target"), "CT and MR"),
        (setting(["LV", "RV"], "structures"), "structures are not"),
        (without("networks", "generator_t2a"), "no generator to the assistant modality"),
        (without("networks"), "networks"),
        (setting({"type": "segmentor"}, "networks", "extra"), "unknown network “extra”"),
        (setting({}, "networks", "localiser"), "no type"),
        (setting({"type": "transformer"}, "networks", "localiser"), "unknown network type"),
        (setting({"type": "segmentor", "depth": 3}, "networks", "localiser"), "cannot be built"),
        (setting({"type": "segmentor", "channels": []}, "networks", "localiser"), "cannot be built"),
        (setting({"type": "segmentor", "channels": [4, "x"]}, "networks", "localiser"), "cannot be built"),
        (setting({"type": "segmentor", "channels": [10**9]}, "networks", "localiser"), "absurd"),
        (setting({"type": "segmentor", "channels": [4] * 17}, "networks", "localiser"), "absurd"),
        (
            setting({"type": "segmentor", "out_channels": 3, "channels": [4, 8, 8]}, "networks", "localiser"),
            "3 channels where 8",
        ),
        (setting({"type": "generator", "channels": 2, "blocks": 1}, "networks", "localiser"), "1 channels where 8"),
        (setting({"type": "segmentor", "channels": [4, 8, 16]}, "networks", "localiser"), "is needed"),
        (setting(0, "localiser", "spacing_mm"), "“spacing_mm” of “localiser”"),
        (setting("5", "localiser", "spacing_mm"), "“spacing_mm” of “localiser”"),
        (setting(True, "localiser", "margin_mm"), "“margin_mm” of “localiser”"),
        (without("localiser", "min_heart_ml"), "“min_heart_ml”"),
        (setting([1, 2], "segmentor", "max_box_mm"), "max_box_mm"),
        (setting([1, 2, 3], "segmentor", "max_box_mm"), "max_box_mm"),
        (without("segmentor"), "“segmentor”"),
        (without("normalisation", "MR"), "normalise MR"),
        (setting(800, "normalisation", "CT", "low"), "intensity range of CT"),
        (setting(101, "normalisation", "MR", "high"), "percentiles of MR"),
        (setting("maybe", "alignment", "target"), "alignment of target"),
        (setting("cycle", "alignment", "assistant"), "alignment of assistant"),
        (setting("good", "quality"), "“quality”"),
        (setting([0.5], "ensemble"), "no table “ensemble”"),
        (setting({"CT": 0.5}, "ensemble"), "unknown entry “CT”"),
        (setting({"target": 1.5}, "ensemble"), "“target” of “ensemble”"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tiny_bundle_path, change, reason):
    description = tiny_description()
    change(description)
    header, data = contents(tiny_bundle_path)
    header["__metadata__"] = {"mkd": json.dumps(description)}
    rewrite(tiny_bundle_path, header, data)
    assert reason in refusal(tiny_bundle_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", '{"format": NaN}', "[" * 100_000])
def test_a_description_that_is_no_table_is_refused(tiny_bundle_path, text):
    header, data = contents(tiny_bundle_path)
    header["__metadata__"] = {"mkd": text}
    rewrite(tiny_bundle_path, header, data)
    assert "The description is not" in refusal(tiny_bundle_path)


def test_someone_elses_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    assert "without the description of a weights bundle" in refusal(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_a_damaged_file_is_refused_or_read_but_never_crashes(tiny_bundle_path, data):
    raw = bytearray(tiny_bundle_path.read_bytes())
    header_end = 8 + struct.unpack("<Q", raw[:8])[0]
    for _ in range(data.draw(strategies.integers(1, 4))):
        raw[data.draw(strategies.integers(0, header_end - 1))] = data.draw(strategies.integers(0, 255))
    damaged = tiny_bundle_path.with_name("damaged.safetensors")
    damaged.write_bytes(raw)
    try:
        bundle = bundles.load_bundle(damaged)
    except BundleError as error:
        assert error.finding.code.startswith("bundle_")
    else:
        assert set(bundle.metadata["networks"]) == set(PARTS)


@given(
    value=strategies.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**127, min_value=-(2.0**127))
)
def test_bfloat16_rounds_as_torch_does(value):
    numbers = np.array([value], np.float32)
    entry = tensor_file.TensorEntry("BF16", (1,), 0, 2)
    decoded = tensor_file.decode(entry, tensor_file.encode(numbers, "BF16"))
    assert decoded[0] == torch.tensor(numbers).to(torch.bfloat16).float()[0]


def deep_description(levels: int) -> dict:
    """The tiny bundle with segmentors of many levels."""
    description = copy.deepcopy(tiny_description())
    for part in ("segmentor_real", "segmentor_syn"):
        description["networks"][part] = {"type": "segmentor", "channels": [4] * levels}
    return description


@pytest.mark.parametrize("levels", [9, 12])
def test_networks_deeper_than_the_largest_box_are_refused_before_they_run(tmp_path, levels):
    description = deep_description(levels)
    with pytest.raises(BundleError, match="The networks need boxes of at least"):
        bundles.save_bundle(tmp_path / "deep.safetensors", description, random_state_dicts(description))


def test_deep_networks_of_thick_slices_need_no_larger_box_than_they_halve_each_axis(tmp_path):
    description = deep_description(7)
    for part in ("segmentor_real", "segmentor_syn"):
        description["networks"][part]["voxel"] = [8.0, 1.5, 1.5]
    description["segmentor"]["spacing_mm"] = [1.5, 1.5, 8.0]
    saved = bundles.save_bundle(tmp_path / "deep.safetensors", description, random_state_dicts(description))
    assert saved.strides == (16, 64, 64)  # 64 slices would be longer than any box


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one["segmentor"].update(spacing_mm=0.3), "million voxels of 0.3 mm"),
        (lambda one: one["segmentor"].update(max_box_mm=[1000, 1000, 1000]), "million voxels of 2 mm"),
        (lambda one: one["localiser"].update(spacing_mm=1.0), "localiser's voxels of 1 mm are too small"),
        (
            lambda one: one["networks"].update(localiser={"type": "segmentor", "channels": [4] * 8}),
            "in steps of 640 mm",
        ),
        (
            lambda one: one["networks"].update(generator_a2t={"type": "generator", "channels": 128, "blocks": 8}),
            "trillion multiplications",
        ),
    ],
)
def test_weights_that_would_exhaust_the_machine_are_refused_before_they_run(tmp_path, change, reason):
    description = copy.deepcopy(tiny_description())
    change(description)
    with pytest.raises(BundleError, match=reason):
        bundles.save_bundle(tmp_path / "heavy.safetensors", description, random_state_dicts(description))


def test_voxels_of_one_millimetre_are_not_too_much(tmp_path):
    description = copy.deepcopy(tiny_description())
    description["segmentor"].update(spacing_mm=1.0)
    bundles.save_bundle(tmp_path / "fine.safetensors", description, random_state_dicts(description))
