"""Segmentor: a 3-D U-Net, used for S_real, S_syn and the heart localiser.

Batch normalisation folds into the convolutions at inference and keeps the fast channels-last memory layout on CPU.
Instance normalisation, and batch normalisation with statistics for either stream of images, suit two appearances.
Ronneberger et al., "U-Net", MICCAI 2015; Cicek et al., "3D U-Net", MICCAI 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from mkd_core.method.strides import CUBIC, Strides, level_strides, total

#: Kinds of normalisation.
Norm = Literal["batch", "instance", "batch-per-stream"]

#: Streams of images that batch normalisation can tell apart: those of the target modality, and those that a generator
#: has made look like it.
Stream = Literal["target", "translated"]
_STREAMS: tuple[Stream, ...] = ("target", "translated")


class StreamNorm(nn.Module):
    """Batch normalisation with statistics, scale and shift of its own for each stream of images: Chang et al.,
    "Domain-Specific Batch Normalization for Unsupervised Domain Adaptation", CVPR 2019.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.streams = nn.ModuleList([nn.BatchNorm3d(channels) for _ in _STREAMS])
        self.stream: Stream = "target"

    @property
    def chosen(self) -> nn.Module:
        """Normalisation of the stream that :func:`select_stream` chose."""
        return self.streams[_STREAMS.index(self.stream)]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise ``(N, C, D, H, W)``."""
        normalised: torch.Tensor = self.chosen(values)
        return normalised


def select_stream(network: nn.Module, stream: Stream) -> None:
    """Say of which stream the images are that a network is to see; without batch normalisation per stream it is all
    the same.
    """
    for module in network.modules():
        if isinstance(module, StreamNorm):
            module.stream = stream


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    if norm == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    if norm == "batch-per-stream":
        return StreamNorm(channels)
    raise ValueError(f"unknown normalisation {norm!r}")


def _block(in_channels: int, out_channels: int, norm: Norm, stride: int | Strides = 1) -> nn.Sequential:
    """3x3x3 convolution, normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        _normalisation(norm, out_channels),
        nn.LeakyReLU(0.01, inplace=True),
    )


class Segmentor(nn.Module):
    """U-Net: one convolution at full resolution, two at every deeper level, one per decoder level.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes, background included.
        channels: features per level; each level after the first halves the resolution, see :func:`level_strides`.
        norm: normalisation after every convolution.
        deep_supervision: coarser levels of the decoder that classify too while training, see :meth:`levels`.
        voxel: sides (z, y, x) of the image's voxels, in any unit; says which axes a level halves.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 8,
        channels: Sequence[int] = (16, 32, 64, 128, 160),
        norm: Norm = "batch",
        deep_supervision: int = 0,
        voxel: Sequence[float] = CUBIC,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.level_strides = level_strides(voxel, len(channels) - 1)
        self.encoder = nn.ModuleList([_block(in_channels, channels[0], norm)])
        for (previous, current), stride in zip(itertools.pairwise(channels), self.level_strides):
            self.encoder.append(nn.Sequential(_block(previous, current, norm, stride), _block(current, current, norm)))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for deep, shallow, stride in zip(reversed(channels[1:]), reversed(channels[:-1]), reversed(self.level_strides)):
            self.up.append(nn.ConvTranspose3d(deep, shallow, stride, stride=stride, bias=False))
            self.decoder.append(_block(2 * shallow, shallow, norm))
        self.head = nn.Conv3d(channels[0], out_channels, 1)
        if deep_supervision:
            coarser = channels[1 : 1 + min(deep_supervision, len(channels) - 2)]
            self.auxiliary = nn.ModuleList([nn.Conv3d(features, out_channels, 1) for features in coarser])

    @property
    def strides(self) -> Strides:
        """The input's sides (D, H, W) must be multiples of these."""
        return total(self.level_strides)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class scores before softmax.

        Args:
            image: normalised image, ``(N, in_channels, D, H, W)``, sides multiples of :attr:`strides`.

        Returns:
            Logits, ``(N, out_channels, D, H, W)``.
        """
        logits: torch.Tensor = self.head(self._decoded(image)[0])
        return logits

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Logits of the whole resolution, and of half of it and so on for each level of deep supervision: Dou et al.,
        "3D Deeply Supervised Network for Automatic Liver Segmentation from CT Volumes", MICCAI 2016.
        """
        heads = [self.head, *getattr(self, "auxiliary", [])]
        return [head(features) for head, features in zip(heads, self._decoded(image))]

    def _decoded(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of the decoder's levels, the finest first."""
        skips = []
        x = image
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        skips.pop()
        decoded = []
        for up, decode in zip(self.up, self.decoder):
            x = decode(torch.cat([up(x), skips.pop()], dim=1))
            decoded.append(x)
        return decoded[::-1] or [x]
