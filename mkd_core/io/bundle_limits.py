"""How much work a bundle's networks may make, judged from their description before any of it is done.

The description of a small file can ask for endless work: a voxel size of 0.3 mm, or a network of twelve levels that
needs boxes of two thousand voxels.  Nothing of that is wrong in itself, so it is bounded here, where it can still be
said that the weights are the reason.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mkd_core.io.bundle_metadata import PARTS
from mkd_core.io.bundle_refusals import refused

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Voxels of the largest box: 256 x 256 x 320 mm at 1 mm, and a few more.  Each needs about 100 bytes of probabilities.
_MAX_VOXELS = 24_000_000

#: Bytes of the largest layer's input and output.
_MAX_LAYER_BYTES = 6 << 30

#: Multiply-adds of the generators and segmentors on the largest box, about twenty times those of the default weights;
#: a processor of four cores needs some minutes for them.
_MAX_MULTIPLY_ADDS = 5e12

#: Voxels of the localiser's grid on a cubic metre, and the side in mm to which it must round up.
_MAX_COARSE_VOXELS = 16_000_000
_MAX_COARSE_STEP = 400.0


@dataclass(frozen=True)
class Outline:
    """What a network's description says about it.

    Attributes:
        output: (images, channels) that it gives for one image.
        shapes: shape of every weight.
        stride: every side of its input is a multiple of this.
        multiply_adds: per voxel of the input.
        layer_floats: numbers in the largest layer's input and output, per voxel of the input.
    """

    output: tuple[int, int]
    shapes: dict[str, tuple[int, ...]]
    stride: int
    multiply_adds: float
    layer_floats: float


@functools.lru_cache(maxsize=16)
def outline(architecture: str) -> Outline:
    """Build a network without memory for its weights and send an image through it that is nothing but a size.

    Args:
        architecture: JSON of its description, see `mkd_core.method.networks.build`.

    Raises:
        Exception: whatever goes wrong with this description.
    """
    import torch

    from mkd_core.method import networks

    multiply_adds = layer_floats = 0

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        nonlocal multiply_adds, layer_floats
        layer_floats = max(layer_floats, given[0].numel() + result.numel())
        if isinstance(layer, torch.nn.ConvTranspose3d):
            multiply_adds += given[0].numel() * int(layer.weight.numel()) // layer.in_channels
        elif isinstance(layer, torch.nn.Conv3d):
            multiply_adds += result.numel() * int(layer.weight.numel()) // layer.out_channels

    with torch.device("meta"):
        network = networks.build(json.loads(architecture)).eval()
        for layer in network.modules():
            if not any(layer.children()):
                layer.register_forward_hook(count)
        stride: int = network.stride  # type: ignore[assignment]
        side = 2 * stride
        output = tuple(network(torch.zeros(1, 1, side, side, side)).shape)
    if output[2:] != (side,) * 3:
        raise ValueError("its output has another size than its input")
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if is_weight(name)}
    return Outline(output[:2], shapes, stride, multiply_adds / side**3, layer_floats / side**3)


def is_weight(name: str) -> bool:
    """Whether a bundle stores this entry of a state dictionary."""
    # Batch normalisation counts its training batches in an integer that inference never reads.
    return not name.endswith("num_batches_tracked")


def check_work(metadata: Mapping[str, Any], outlines: Mapping[str, Outline]) -> None:
    """Refuse weights that no computer could use.

    Args:
        metadata: description of the bundle, already checked by itself.
        outlines: of every network, by part.

    Raises:
        BundleError: with the reason.
    """
    _check_localiser(float(metadata["localiser"]["spacing_mm"]), outlines["localiser"])
    stated = metadata["segmentor"]["spacing_mm"]
    spacing = [float(side) for side in (stated if isinstance(stated, list) else [stated] * 3)]
    largest_box = [float(side) for side in metadata["segmentor"]["max_box_mm"]]
    stride = math.lcm(*(outlines[part].stride for part in PARTS if part != "localiser"))
    for side, step in zip(largest_box, spacing):
        if stride * step > side:
            raise refused("bundle_box_small", needed_mm=stride * step, mm=side)
    voxels = math.prod(side / step for side, step in zip(largest_box, spacing))
    if voxels > _MAX_VOXELS:
        raise refused("bundle_box_voxels", millions=voxels / 1e6, mm=min(spacing), most_millions=_MAX_VOXELS / 1e6)
    largest_layer = 4.0 * voxels * max(network.layer_floats for network in outlines.values())
    if largest_layer > _MAX_LAYER_BYTES:
        raise refused("bundle_layer_memory", gb=largest_layer / 2**30)
    multiply_adds = voxels * sum(outlines[part].multiply_adds for part in PARTS if part != "localiser")
    if multiply_adds > _MAX_MULTIPLY_ADDS:
        raise refused("bundle_work", trillions=multiply_adds / 1e12, most_trillions=_MAX_MULTIPLY_ADDS / 1e12)


def _check_localiser(spacing: float, network: Outline) -> None:
    if network.stride * spacing > _MAX_COARSE_STEP:
        raise refused("bundle_localiser_steps", mm=network.stride * spacing)
    voxels = 1e9 / spacing**3
    if voxels > _MAX_COARSE_VOXELS:
        raise refused("bundle_localiser_voxels", mm=spacing)
    if 4.0 * voxels * network.layer_floats > _MAX_LAYER_BYTES:
        raise refused("bundle_localiser_memory")
    if voxels * network.multiply_adds > _MAX_MULTIPLY_ADDS:
        raise refused("bundle_localiser_work")
