"""What a weights bundle says about itself, and the check that it makes sense.

The description is JSON text under the key ``mkd`` of the file's header:

``format``
    version of this description, see :data:`FORMATS`
``name``, ``version``, ``created``
    of the weights; ``created`` is an ISO date
``target``, ``assistant``
    modality that the segmentors work on, and the one that lent its knowledge of shape: "CT" or "MR"
``structures``
    keys of the catalogue (:mod:`mkd_core.structures`) in the order of the labels, from 1 on; in format 1 always the
    seven of whole-heart segmentation
``networks``
    description of each network, see :func:`mkd_core.method.networks.build`
``localiser``
    ``spacing_mm`` of its grid, ``min_heart_ml`` below which nothing counts as a heart, ``margin_mm`` around the heart;
    ``structures`` may be missing: keys of those that it tells apart, else the bundle's
``segmentor``
    ``spacing_mm`` of the segmentors' grid, a number or (x, y, z) where voxels are not cubic, ``max_box_mm`` (x, y, z):
    largest box they are used on
``normalisation``
    per modality ``{"kind": "window" | "percentile", "low", "high"}``
``alignment``
    ``target``: what S_syn sees of a target volume, one of :data:`mkd_core.protocol.TARGET_POLICIES`; ``assistant``: one
    of :data:`mkd_core.protocol.ASSISTANT_POLICIES`
``ensemble``
    may be missing: S_real's weight in the ensemble, 0 to 1, for ``target`` and ``assistant`` volumes; else both count
    half
``training``, ``quality``
    free: provenance, measured figures
``licence``, ``intended_use``
    texts
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from mkd_core.io.bundle_refusals import refused
from mkd_core.protocol import ASSISTANT_POLICIES, BOX_SIDE_RANGE, GRID_SPACING_RANGE, MODALITIES, TARGET_POLICIES
from mkd_core.structures import BY_KEY, MAX_STRUCTURES, STRUCTURES

#: Version of the description that is written.
FORMAT = 2

#: Versions that are read.  Version 1 differs only in that its structures are always the same seven.
FORMATS = (1, 2)

#: Key of the description in the header's free text entries.
KEY = "mkd"

#: Networks that every bundle holds.
PARTS = ("localiser", "generator_a2t", "generator_t2a", "segmentor_real", "segmentor_syn")

#: Name of the one network in a file of weights for structures in detail.
PART_DETAILED = "detailed"

#: Most levels of tables and lists within each other, most characters of a text.
_DEEPEST, _LONGEST_TEXT = 12, 10_000

#: Largest intensity that a modality can have.
_LARGEST_INTENSITY = 1e6

_TEXT_KEYS = ("name", "version", "created", "licence", "intended_use")


def parse_metadata(text: str) -> dict[str, Any]:
    """Read and check a description.

    Args:
        text: JSON.

    Raises:
        BundleError: not JSON, another format version, something missing or nonsense.
    """
    metadata = _from_json(text)
    check_metadata(metadata)
    return metadata


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refused("bundle_description_json") from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def check_metadata(metadata: Any) -> None:
    """Check a description.

    Raises:
        BundleError: another format version, something missing or nonsense.
    """
    _require(isinstance(metadata, dict), "bundle_description_table")
    _check_values(metadata)
    _check_format(metadata, FORMATS)
    _check_texts(metadata)
    _check_modalities(metadata)
    version = metadata["format"]
    _check_structures(metadata.get("structures"), version)
    _check_structures(localiser_structures(metadata), version)
    _check_networks(metadata.get("networks"))
    localiser, segmentor = _table(metadata, "localiser"), _table(metadata, "segmentor")
    _check_number(localiser, "localiser", "spacing_mm", 1.0, 20.0)
    _check_number(localiser, "localiser", "min_heart_ml", 1.0, 2000.0)
    _check_number(localiser, "localiser", "margin_mm", 0.0, 100.0)
    sides = segmentor.get("spacing_mm")
    for side in sides if isinstance(sides, list) and len(sides) == 3 else [sides]:
        _check_number({"spacing_mm": side}, "segmentor", "spacing_mm", *GRID_SPACING_RANGE)
    box = segmentor.get("max_box_mm")
    _require(
        isinstance(box, list)
        and len(box) == 3
        and all(_is_number(side) and BOX_SIDE_RANGE[0] <= side <= BOX_SIDE_RANGE[1] for side in box),
        "bundle_box",
        low=BOX_SIDE_RANGE[0],
        high=BOX_SIDE_RANGE[1],
    )
    shares = metadata.get("ensemble", {})
    _require(isinstance(shares, dict), "bundle_no_table", key="ensemble")
    for key in shares:
        _require(key in ("target", "assistant"), "bundle_unknown_entry", table="ensemble", key=key)
        _check_number(shares, "ensemble", key, 0.0, 1.0)
    for key in ("training", "quality"):
        _table(metadata, key)


def parse_details(text: str) -> dict[str, Any]:
    """Read and check the description of a network for structures in detail, see :mod:`mkd_core.io.detail_weights`.

    Args:
        text: JSON.

    Raises:
        BundleError: as :func:`parse_metadata`.
    """
    metadata = _from_json(text)
    check_details(metadata)
    return metadata


def check_details(metadata: Any) -> None:
    """Check the description of a network for structures in detail.

    Raises:
        BundleError: another format version, something missing or nonsense.
    """
    _require(isinstance(metadata, dict), "bundle_description_table")
    _check_values(metadata)
    _check_format(metadata, (1,))
    _check_texts(metadata)
    _check_structures(metadata.get("structures"), FORMAT)
    seven = {structure.key for structure in STRUCTURES}
    for key in metadata["structures"]:
        _require(key not in seven, "details_seven", key=key)
    _check_normalisation(metadata)
    _check_network(PART_DETAILED, metadata.get("network"))
    _check_number(metadata, "mkd-detailed", "spacing_mm", *GRID_SPACING_RANGE)
    for key in ("training", "quality"):
        _table(metadata, key)


def localiser_structures(metadata: Mapping[str, Any]) -> Any:
    """Keys of the structures that the localiser tells apart."""
    return _table(metadata, "localiser").get("structures", metadata["structures"])


def _check_format(metadata: Mapping[str, Any], known: tuple[int, ...]) -> None:
    version = metadata.get("format")
    _require(_is_whole(version), "bundle_no_format")
    if version not in known:
        assert isinstance(version, int)
        code = "bundle_newer_format" if version > known[-1] else "bundle_unknown_format"
        raise refused(code, version=version, choices=", ".join(map(str, known)))


def _check_texts(metadata: Mapping[str, Any]) -> None:
    for key in _TEXT_KEYS:
        _require(isinstance(metadata.get(key), str), "bundle_no_text", key=key)
    _require(
        metadata["name"].strip() != "" and metadata["version"].strip() != "",
        "bundle_no_name",
    )


def _check_structures(keys: Any, version: int) -> None:
    if version == 1:
        seven = [structure.key for structure in STRUCTURES]
        _require(keys == seven, "bundle_other_structures", choices=", ".join(seven))
        return
    _require(isinstance(keys, list) and 1 <= len(keys) <= MAX_STRUCTURES, "bundle_no_structures")
    for key in keys:
        _require(isinstance(key, str) and key in BY_KEY, "bundle_unknown_structure", key=str(key))
    _require(len(set(keys)) == len(keys), "bundle_structure_twice")


def _check_values(value: Any, depth: int = 0) -> None:
    """Refuse what cannot be shown, or not be written as JSON again: deep nesting, endless texts, control characters,
    numbers without end.
    """
    _require(depth <= _DEEPEST, "bundle_description_deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(key, depth)
            _check_values(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, depth + 1)
    elif isinstance(value, str):
        _require(len(value) <= _LONGEST_TEXT, "bundle_description_long")
        # Category C: control characters, which could change a terminal, invisible ones, and halves of characters.
        _require(
            not any(unicodedata.category(letter).startswith("C") for letter in value if letter != "\n"),
            "bundle_description_characters",
        )
    elif value is not None and not isinstance(value, bool):
        _require(_is_number(value), "bundle_description_number")


def _check_modalities(metadata: dict[str, Any]) -> None:
    target, assistant = metadata.get("target"), metadata.get("assistant")
    _require(
        target in MODALITIES and assistant in MODALITIES and target != assistant,
        "bundle_modalities",
    )
    _check_normalisation(metadata)
    alignment = _table(metadata, "alignment")
    _require(
        alignment.get("target") in TARGET_POLICIES,
        "bundle_alignment_target",
        choices=", ".join(TARGET_POLICIES),
    )
    _require(
        alignment.get("assistant") in ASSISTANT_POLICIES,
        "bundle_alignment_assistant",
        choices=", ".join(ASSISTANT_POLICIES),
    )


def _check_normalisation(metadata: Mapping[str, Any]) -> None:
    rules = _table(metadata, "normalisation")
    for modality in MODALITIES:
        stated = rules.get(modality)
        rule: dict[str, Any] = stated if isinstance(stated, dict) else {}
        _require(
            rule.get("kind") in ("window", "percentile"),
            "bundle_no_normalisation",
            modality=modality,
        )
        low: Any = rule.get("low")
        high: Any = rule.get("high")
        _require(_is_number(low) and _is_number(high) and low < high, "bundle_no_range", modality=modality)
        _require(
            max(abs(low), abs(high)) <= _LARGEST_INTENSITY and high - low >= 1e-3,
            "bundle_absurd_range",
            modality=modality,
        )
        _require(
            rule["kind"] == "window" or (low >= 0 and high <= 100),
            "bundle_percentiles",
            modality=modality,
        )


def _check_networks(networks: Any) -> None:
    _require(isinstance(networks, dict), "bundle_no_table", key="networks")
    for part in PARTS:
        _require(part in networks, "bundle_no_network", part=part)
    unknown = sorted(set(networks) - set(PARTS))
    if unknown:
        raise refused("bundle_unknown_network", key=unknown[0])
    for part, architecture in networks.items():
        _check_network(part, architecture)


def _check_network(part: str, architecture: Any) -> None:
    _require(
        isinstance(architecture, dict) and isinstance(architecture.get("type"), str),
        "bundle_network_type",
        part=part,
    )
    # Bounds on every number, so that a description cannot make us build something absurd.
    _require(
        all(_is_modest(value) for value in architecture.values()),
        "bundle_network_absurd",
        part=part,
    )


def _is_modest(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list):
        return depth < 2 and len(value) <= 16 and all(_is_modest(item, depth + 1) for item in value)
    if isinstance(value, str):
        return len(value) <= 40
    # Lists give channels per level; single numbers channels or how many blocks, and a thousand blocks take seconds to
    # build.
    return isinstance(value, bool) or value is None or (_is_number(value) and 0 <= value <= (1024 if depth else 128))


def _require(condition: bool, code: str, **figures: Any) -> None:
    if not condition:
        raise refused(code, **figures)


def _table(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    _require(isinstance(metadata.get(key), dict), "bundle_no_table", key=key)
    return metadata[key]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # Comparing is exact for whole numbers of any length; only then are they short enough to be made floating-point
    # numbers.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _check_number(table: dict[str, Any], name: str, key: str, low: float, high: float) -> None:
    _require(
        _is_number(table.get(key)) and low <= table[key] <= high,
        "bundle_number",
        key=key,
        table=name,
        low=low,
        high=high,
    )
