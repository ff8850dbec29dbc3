"""What a finished run's bundle chooses on validation volumes: how S_syn is shown a target volume, and how much each
segmentor counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mkd_core.evaluation.cases import Case
from mkd_core.io.bundle import Bundle, update_metadata
from mkd_core.protocol import TARGET_POLICIES, SegmentationOptions
from mkd_core.training.validation import validate

#: The method's own way to show S_syn a target volume, kept unless another one gains so much Dice: less may be chance.
_USUAL_POLICY, _NO_DIFFERENCE = "cycle", 0.001

#: Weights of S_real in the ensemble that are tried.
_ENSEMBLE_WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)

#: Called with a line for the user.
Say = Callable[[str], None]


def choose_alignment(bundle: Bundle, cases: Sequence[Case], options: SegmentationOptions, say: Say) -> Bundle:
    """Give a bundle the alignment of target volumes that validates best; returns it as it was read back."""
    dice = {
        policy: validate(bundle, cases, dataclasses.replace(options, alignment=policy)) for policy in TARGET_POLICIES
    }
    best = max(TARGET_POLICIES, key=lambda policy: dice[policy]["mean"])
    if dice[best]["mean"] - dice[_USUAL_POLICY]["mean"] < _NO_DIFFERENCE:
        best = _USUAL_POLICY
    shown = ", ".join(f"{policy} {dice[policy]['mean']:.4f}" for policy in TARGET_POLICIES)
    say(f"Alignment: {shown}; {best} is kept")
    return update_metadata(
        bundle,
        alignment=bundle.metadata["alignment"] | {"target": best},
        quality={
            "validation Dice": dice[best],
            "validation Dice by alignment": {policy: dice[policy]["mean"] for policy in TARGET_POLICIES},
        },
    )


def choose_ensemble_weights(
    bundle: Bundle, cases: dict[str, list[Case]], options: SegmentationOptions, say: Say
) -> Bundle:
    """Give S_real the weight in the ensemble that validates best, for either modality of which there are volumes.

    Args:
        bundle: weights.
        cases: labelled volumes by role, ``"target"`` and ``"assistant"``.
        options: how to segment.
        say: called with a line for the user.

    Returns:
        The bundle as it was read back.
    """
    weights: dict[str, float] = {}
    quality: dict[str, Any] = dict(bundle.metadata["quality"])
    for role, volumes in cases.items():
        if not volumes:
            continue
        dice = {
            weight: validate(_with_ensemble_weight(bundle, role, weight), volumes, options)["mean"]
            for weight in _ENSEMBLE_WEIGHTS
        }
        # Of equals the one next to half.
        weights[role] = max(_ENSEMBLE_WEIGHTS, key=lambda weight: (dice[weight], -abs(weight - 0.5)))
        say(
            f"S_real's weight in the ensemble, {role}: "
            + ", ".join(f"{weight:g} {value:.4f}" for weight, value in dice.items())
        )
        quality[f"validation Dice by S_real's ensemble weight, {role}"] = {
            f"{weight:g}": value for weight, value in dice.items()
        }
    return update_metadata(bundle, ensemble=weights, quality=quality)


def _with_ensemble_weight(bundle: Bundle, role: str, weight: float) -> Bundle:
    return dataclasses.replace(bundle, metadata=bundle.metadata | {"ensemble": {role: weight}})
