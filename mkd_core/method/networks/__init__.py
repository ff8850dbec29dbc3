"""Networks of the method, built from plain dictionaries so that a bundle can describe them.

All networks are 3-D and take and give tensors of shape ``(N, C, D, H, W)``; D, H, W run along z (to the head), y (to
the back) and x (to the left) of a volume in LPS orientation.
"""

from __future__ import annotations

from typing import Any

import torch

from mkd_core.method.networks.discriminator import Discriminator
from mkd_core.method.networks.generator import Generator
from mkd_core.method.networks.segmentor import Segmentor, Stream, StreamNorm, select_stream
from mkd_core.method.strides import Strides

_TYPES: dict[str, type[Discriminator | Generator | Segmentor]] = {
    "segmentor": Segmentor,
    "generator": Generator,
    "discriminator": Discriminator,
}


def build(architecture: dict[str, Any]) -> torch.nn.Module:
    """Build a network from its description.

    Args:
        architecture: ``{"type": "segmentor" | "generator" | "discriminator", **arguments of the class}``.

    Returns:
        The network with random weights; its ``architecture`` attribute holds a dictionary that builds it again.

    Raises:
        ValueError: unknown type or arguments the class does not take.
    """
    arguments = dict(architecture)
    kind = arguments.pop("type", None)
    if kind not in _TYPES:
        raise ValueError(f"unknown network type {kind!r}; known are {sorted(_TYPES)}")
    try:
        network = _TYPES[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"{kind}: {error}") from error
    network.architecture = dict(architecture)
    return network


def strides_of(network: torch.nn.Module) -> Strides:
    """The sides (D, H, W) of the network's input must be multiples of these."""
    z, y, x = network.strides  # type: ignore[misc]
    return z, y, x


def stride_of(network: torch.nn.Module) -> int:
    """Every side of the network's input may be a multiple of this, whatever the axis."""
    return max(strides_of(network))


#: Weights that only training needs, by the beginning of their names; no bundle holds them.
TRAINING_ONLY = "auxiliary."


def deployed(architecture: dict[str, Any]) -> dict[str, Any]:
    """Description of a network without what only training needs."""
    return {name: value for name, value in architecture.items() if name != "deep_supervision"}


__all__ = [
    "TRAINING_ONLY",
    "Discriminator",
    "Generator",
    "Segmentor",
    "Stream",
    "StreamNorm",
    "build",
    "deployed",
    "select_stream",
    "stride_of",
    "strides_of",
]
