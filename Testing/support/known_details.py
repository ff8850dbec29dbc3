"""Weights for structures in detail that fit :class:`Testing.support.known_heart.KnownBundle`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from mkd_core.io import detail_weights
from mkd_core.method import networks
from mkd_core.structures import DETAILED
from Testing.support.tiny_bundles import tiny_description

NETWORK = {"type": "segmentor", "in_channels": 8, "out_channels": 7, "channels": [4, 8, 8]}


def description(spacing_mm: float = 3.0, **changes: Any) -> dict[str, Any]:
    """Of the weights in their file."""
    own = tiny_description()
    kept = {key: own[key] for key in ("name", "version", "licence", "intended_use", "normalisation")}
    fixed = {"structures": list(DETAILED), "network": NETWORK, "spacing_mm": spacing_mm, "training": {}, "quality": {}}
    return kept | fixed | changes


def tiny_network() -> torch.nn.Module:
    """A network of the right shape that has learnt nothing."""
    torch.manual_seed(3)
    return networks.build(NETWORK)


class Slabs(torch.nn.Module):
    """Sees the structures as slabs side by side, wherever the seven are; the appendage's crosses the left atrium."""

    strides = (4, 4, 4)
    order = (0, 2, 3, 4, 1, 5, 6)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Logits of ``(1, 8, D, H, W)``."""
        side = given.shape[-1]
        logits = torch.full((1, 7, *given.shape[2:]), -5.0)
        for place, label in enumerate(self.order):
            logits[:, label, ..., side * place // 7 : side * (place + 1) // 7] = 5.0
        return logits


def tiny_weights(folder: Path, **changes: Any) -> detail_weights.DetailWeights:
    """Weights of :func:`tiny_network`; of other ``changes`` of their description they are other ones."""
    return detail_weights.save_details(folder / "detailed.safetensors", description(**changes), tiny_network())


def seeing_slabs(weights: detail_weights.DetailWeights) -> detail_weights.DetailWeights:
    """The same with :class:`Slabs` for their network."""
    return dataclasses.replace(weights, _networks={detail_weights.PART: Slabs()})
