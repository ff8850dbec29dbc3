"""Segmentor: a 3-D U-Net with batch normalisation, used for S_real, S_syn and the heart localiser.

Batch normalisation folds into the convolutions at inference and keeps the fast channels-last memory layout on CPU.
Ronneberger et al., "U-Net", MICCAI 2015; Cicek et al., "3D U-Net", MICCAI 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3x3 convolution, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(out_channels),
        nn.LeakyReLU(0.01, inplace=True),
    )


class Segmentor(nn.Module):
    """U-Net: one convolution at full resolution, two at every deeper level, one per decoder level.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes, background included.
        channels: features per level; each level after the first halves the resolution.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(
        self, in_channels: int = 1, out_channels: int = 8, channels: Sequence[int] = (16, 32, 64, 128, 160)
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.encoder = nn.ModuleList([_block(in_channels, channels[0])])
        for previous, current in itertools.pairwise(channels):
            self.encoder.append(nn.Sequential(_block(previous, current, stride=2), _block(current, current)))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for deep, shallow in zip(reversed(channels[1:]), reversed(channels[:-1])):
            self.up.append(nn.ConvTranspose3d(deep, shallow, 2, stride=2, bias=False))
            self.decoder.append(_block(2 * shallow, shallow))
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    @property
    def stride(self) -> int:
        """Every side of the input must be a multiple of this."""
        return 1 << len(self.channels) - 1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class scores before softmax.

        Args:
            image: normalised image, ``(N, in_channels, D, H, W)``, sides multiples of :attr:`stride`.

        Returns:
            Logits, ``(N, out_channels, D, H, W)``.
        """
        skips = []
        x = image
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        skips.pop()
        for up, decode in zip(self.up, self.decoder):
            x = decode(torch.cat([up(x), skips.pop()], dim=1))
        logits: torch.Tensor = self.head(x)
        return logits
