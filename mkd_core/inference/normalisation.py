"""Intensities to the range that the networks know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mkd_core.arrays import as_array

if TYPE_CHECKING:
    import torch


def normalise(values: torch.Tensor, rule: dict[str, Any], reference: torch.Tensor | None = None) -> torch.Tensor:
    """Bring intensities to [-1, 1]; what lies outside the range is clipped.

    Args:
        values: intensities of a whole image or box, any shape, HU for CT.
        rule: ``{"kind": "window", "low", "high"}`` in intensities, or ``{"kind": "percentile", "low", "high"}`` in
            percent of the reference.
        reference: the values of which percentiles are taken, without padding for example; None for all of ``values``.
    """
    low, high = _range(values if reference is None else reference, rule)
    return ((values - low) * (2.0 / max(high - low, 1e-6)) - 1.0).clamp_(-1.0, 1.0)


def denormalise(values: torch.Tensor, rule: dict[str, Any]) -> torch.Tensor:
    """Intensities from the networks' range, for rules of kind "window"; others have no intensities of their own and
    stay in [-1, 1].
    """
    if rule["kind"] != "window":
        return values
    low, high = float(rule["low"]), float(rule["high"])
    return (values + 1.0) * (0.5 * (high - low)) + low


def _range(values: torch.Tensor, rule: dict[str, Any]) -> tuple[float, float]:
    if rule["kind"] == "window":
        return rule["low"], rule["high"]
    low, high = np.percentile(as_array(values), (rule["low"], rule["high"]))
    return float(low), float(high)
