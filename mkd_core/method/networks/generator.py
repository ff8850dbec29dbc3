"""Generator of the image alignment module: translates an image of one modality into the look of the other.

Convolutions, residual blocks at low resolution, up-convolutions, instance normalisation, as in
Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017, in 3-D.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mkd_core.method.strides import CUBIC, Strides, level_strides, total


def _normalised(in_channels: int, out_channels: int, stride: int | Strides = 1) -> list[nn.Module]:
    return [
        nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, padding_mode="replicate", bias=False),
        nn.InstanceNorm3d(out_channels, affine=True),
    ]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normalised(channels, channels), nn.ReLU(inplace=True), *_normalised(channels, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.body(x)
        return x + changed


class Generator(nn.Module):
    """Image-to-image translator between modalities; geometry stays, intensities change.

    Args:
        channels: features at full resolution; each level has twice as many as the one above it.
        blocks: residual blocks at the lowest resolution.
        levels: how often the resolution is halved.  Blocks are cheapest and see farthest at low resolution.
        voxel: as for :class:`mkd_core.method.networks.segmentor.Segmentor`.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(self, channels: int = 12, blocks: int = 3, levels: int = 1, voxel: Sequence[float] = CUBIC) -> None:
        super().__init__()
        self.level_strides = level_strides(voxel, levels)
        widths = [channels << level for level in range(levels + 1)]
        layers: list[nn.Module] = [*_normalised(1, channels), nn.ReLU(inplace=True)]
        for (wide, deep), stride in zip(itertools.pairwise(widths), self.level_strides):
            layers += [*_normalised(wide, deep, stride), nn.ReLU(inplace=True)]
        layers += [_Residual(widths[-1]) for _ in range(blocks)]
        for (deep, wide), stride in zip(itertools.pairwise(reversed(widths)), reversed(self.level_strides)):
            layers += [
                nn.ConvTranspose3d(deep, wide, stride, stride=stride, bias=False),
                nn.InstanceNorm3d(wide, affine=True),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers)
        # The last convolution also sees the image itself, so that edges need not survive the bottleneck.
        self.head = nn.Conv3d(channels + 1, 1, 3, padding=1, padding_mode="replicate")
        # Training starts from (nearly) the image as it is: what segments translated images has something to learn from
        # the first step, and the cycle is short before it is long.
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.weight *= 0.1
            self.head.weight[:, -1, 1, 1, 1] = 1.2
            self.head.bias.zero_()

    @property
    def stride(self) -> int:
        """Every side of the input must be a multiple of this."""
        return max(total(self.level_strides))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Render the image in the other modality.

        Args:
            image: normalised image in [-1, 1], ``(N, 1, D, H, W)``, sides multiples of :attr:`stride`.

        Returns:
            Image in [-1, 1], ``(N, 1, D, H, W)``.
        """
        return torch.tanh(self.head(torch.cat([self.body(image), image], dim=1)))
