"""How much disagreement of the two segmentors is a reason to doubt a structure.

Their agreement (Dice overlap of S_real's and S_syn's labels) predicts how well a structure is segmented, but how well
it must agree depends on the structure and on the modality: thin muscle agrees less than a round chamber as good as it.
So there are two thresholds for each, chosen on validation hearts by `python -m Testing.benchmarks.agreement`.  Weights
may bring their own (``agreement`` in the ``quality`` table of their description); else those of `agreement.json` hold,
which were measured with the default weights.

Structures in detail are found by one network.  In the place of the agreement they have the overlap with the truth that
it expects of itself (:func:`mkd_core.inference.details.expected_dice`).  Its thresholds are those of `confidence.json`,
chosen by `python -m Testing.benchmarks.details --calibrate`, unless the weights bring their own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Thresholds below this would silence every doubt: two segmentors that overlap less do not see the same thing.
_LEAST = 0.3

_TABLE = Path(__file__).with_name("agreement.json")
_TABLE_IN_DETAIL = Path(__file__).with_name("confidence.json")


@dataclass(frozen=True)
class AgreementLimits:
    """Thresholds of one structure in one modality, Dice overlap from 0 to 1.

    Attributes:
        low: below it the outline should be checked; of all structures, one good one in twenty lies below its limit,
            those of distorted volumes included.
        very_low: below it the outline is wrong; one good structure in fifty lies below it.
    """

    low: float
    very_low: float


def agreement_limits(modality: str, key: str, quality: Mapping[str, Any] | None = None) -> AgreementLimits:
    """Thresholds of a structure.

    Args:
        modality: "CT" or "MR".
        key: of the structure.
        quality: the table ``quality`` of the weights' description, which may bring thresholds of its own.
    """
    own = _entry((quality or {}).get("agreement"), modality, key)
    return own or _entry(_default_table(), modality, key) or AgreementLimits(0.85, 0.7)


def confidence_limits(modality: str, key: str, quality: Mapping[str, Any] | None = None) -> AgreementLimits:
    """Thresholds of a structure in detail; arguments as for :func:`agreement_limits`."""
    own = _entry((quality or {}).get("agreement"), modality, key)
    return own or AgreementLimits(**_table_in_detail()[modality])


def _entry(table: Any, modality: str, key: str) -> AgreementLimits | None:
    """Thresholds in a table of free form, None unless they make sense."""
    for name in (modality, key):
        table = table.get(name) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        return None
    low, very_low = table.get("low"), table.get("very_low")
    if isinstance(low, float) and isinstance(very_low, float) and _LEAST <= very_low <= low <= 1.0:
        return AgreementLimits(low, very_low)
    return None


@functools.lru_cache(maxsize=1)
def _table_in_detail() -> dict[str, dict[str, float]]:
    thresholds: dict[str, dict[str, float]] = json.loads(_TABLE_IN_DETAIL.read_text(encoding="utf-8"))["thresholds"]
    return thresholds


@functools.lru_cache(maxsize=1)
def _default_table() -> dict[str, Any]:
    return json.loads(_TABLE.read_text(encoding="utf-8"))["thresholds"]
