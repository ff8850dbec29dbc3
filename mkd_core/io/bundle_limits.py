"""How much work a bundle's networks may make, judged from their description before any of it is done.

The description of a small file can ask for endless work: a voxel size of 0.3 mm, or a network of twelve levels that
needs boxes of two thousand voxels.  Nothing of that is wrong in itself, so it is bounded here, where it can still be
said that the weights are the reason.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mkd_core.io.bundle_metadata import PARTS
from mkd_core.io.bundle_refusals import refused
from mkd_core.method.strides import Strides, common

if TYPE_CHECKING:
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
        strides: the sides (z, y, x) of its input are multiples of these.
        multiply_adds: per voxel of the input.
        layer_floats: numbers in the largest layer's input and output, per voxel of the input.
    """

    output: tuple[int, int]
    shapes: dict[str, tuple[int, ...]]
    strides: Strides
    multiply_adds: float
    layer_floats: float


@functools.lru_cache(maxsize=16)
def outline(architecture: str, channels: int = 1) -> Outline:
    """Build a network without memory for its weights and send an image through it that is nothing but a size.

    What a layer would give is reckoned here: PyTorch would do it too, but loads its compiler for that, which takes
    most of a second.

    Args:
        architecture: JSON of its description, see `mkd_core.method.networks.build`.
        channels: of the image.

    Raises:
        Exception: whatever goes wrong with this description.
    """
    import torch

    from mkd_core.method import networks

    multiply_adds = layer_floats = 0

    def count(layer: nn.Module, given: tuple[_Sizes, ...], result: _Sizes) -> None:
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
            layer.forward = functools.partial(_sizes_through, layer)
            layer.register_forward_hook(count)
    strides = networks.strides_of(network)
    side = 2 * max(strides)
    output = network(_Sizes(1, channels, side, side, side)).shape
    if output[2:] != (side,) * 3:
        raise ValueError("its output has another size than its input")
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if is_weight(name)}
    return Outline((output[0], output[1]), shapes, strides, multiply_adds / side**3, layer_floats / side**3)


class _Sizes:
    """Stands in for images of which only the size matters, in the functions that our networks call."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def numel(self) -> int:
        return math.prod(self.shape)

    def __add__(self, other: _Sizes) -> _Sizes:
        if other.shape != self.shape:
            raise ValueError("images of two sizes are added")
        return self

    @classmethod
    def __torch_function__(
        cls, function: Callable, _types: object, arguments: tuple = (), options: dict[str, Any] | None = None
    ) -> _Sizes:
        import torch

        if function is torch.tanh:
            return cast(_Sizes, arguments[0])
        if function is torch.cat and options == {"dim": 1}:
            first, *others = arguments[0]
            if any(other.shape[2:] != first.shape[2:] for other in others):
                raise ValueError("images of two sizes are joined")
            return _Sizes(first.shape[0], sum(part.shape[1] for part in arguments[0]), *first.shape[2:])
        raise TypeError(f"what {function} does to a size is not known here")


def _sizes_through(layer: nn.Module, given: _Sizes) -> _Sizes:
    """What a layer gives for an image of this size."""
    import torch

    channels, sides = given.shape[1], list(given.shape[2:])
    wanted = getattr(layer, "in_channels", getattr(layer, "num_features", channels))
    if wanted != channels:
        raise ValueError(f"a layer for {wanted} channels is given {channels}")
    if isinstance(layer, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
        if isinstance(layer.padding, str):
            raise ValueError("a padding that is no number")
        channels = layer.out_channels
        for axis, side in enumerate(sides):
            kernel = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
            stride, padding = layer.stride[axis], 2 * layer.padding[axis]
            if isinstance(layer, torch.nn.ConvTranspose3d):
                sides[axis] = (side - 1) * stride - padding + kernel + layer.output_padding[axis]
            else:
                sides[axis] = (side + padding - kernel) // stride + 1
            if sides[axis] < 1:
                raise ValueError("a layer leaves nothing of the image")
    return _Sizes(given.shape[0], channels, *sides)


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
    strides = common(outlines[part].strides for part in PARTS if part != "localiser")
    for side, step, stride in zip(largest_box, spacing, reversed(strides)):
        if stride * step > side:
            raise refused("bundle_box_small", needed_mm=stride * step, mm=side)
    voxels = math.prod(side / step for side, step in zip(largest_box, spacing))
    if voxels > _MAX_VOXELS:
        raise refused("bundle_box_voxels", millions=voxels / 1e6, mm=min(spacing), most_millions=_MAX_VOXELS / 1e6)
    _check_box(
        voxels,
        max(network.layer_floats for network in outlines.values()),
        sum(outlines[part].multiply_adds for part in PARTS if part != "localiser"),
    )


def check_work_in_box(network: Outline) -> None:
    """Refuse a single network that no computer could use on the largest box that a bundle may have.

    Raises:
        BundleError: with the reason.
    """
    _check_box(_MAX_VOXELS, network.layer_floats, network.multiply_adds)


def _check_box(voxels: float, layer_floats: float, multiply_adds: float) -> None:
    """Refuse what a box of so many voxels costs in the largest layer and in all; both are given per voxel."""
    largest_layer = 4.0 * voxels * layer_floats
    if largest_layer > _MAX_LAYER_BYTES:
        raise refused("bundle_layer_memory", gb=largest_layer / 2**30)
    work = voxels * multiply_adds
    if work > _MAX_MULTIPLY_ADDS:
        raise refused("bundle_work", trillions=work / 1e12, most_trillions=_MAX_MULTIPLY_ADDS / 1e12)


def _check_localiser(spacing: float, network: Outline) -> None:
    if max(network.strides) * spacing > _MAX_COARSE_STEP:
        raise refused("bundle_localiser_steps", mm=max(network.strides) * spacing)
    voxels = 1e9 / spacing**3
    if voxels > _MAX_COARSE_VOXELS:
        raise refused("bundle_localiser_voxels", mm=spacing)
    if 4.0 * voxels * network.layer_floats > _MAX_LAYER_BYTES:
        raise refused("bundle_localiser_memory")
    if voxels * network.multiply_adds > _MAX_MULTIPLY_ADDS:
        raise refused("bundle_localiser_work")
