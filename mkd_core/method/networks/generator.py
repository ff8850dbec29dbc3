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

#: Layers of a convolution: itself, its normalisation, its activation.
_LAYERS = 3


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
        skips: add the features of each level on the way down to those on the way up, as a U-Net does, and convolve the
            sum at full resolution once more.  Grey values can then change from voxel to voxel; without, what is not
            linear in them has to pass the lowest resolution.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(
        self,
        channels: int = 12,
        blocks: int = 3,
        levels: int = 1,
        voxel: Sequence[float] = CUBIC,
        skips: bool = False,
    ) -> None:
        super().__init__()
        self.skips = skips
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
        if skips:
            layers += [*_normalised(channels, channels), nn.ReLU(inplace=True)]
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
    def strides(self) -> Strides:
        """The input's sides (D, H, W) must be multiples of these."""
        return total(self.level_strides)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Render the image in the other modality.

        Args:
            image: normalised image in [-1, 1], ``(N, 1, D, H, W)``, sides multiples of :attr:`strides`.

        Returns:
            Image in [-1, 1], ``(N, 1, D, H, W)``.
        """
        features = self._with_skips(image) if self.skips else self.body(image)
        return torch.tanh(self.head(torch.cat([features, image], dim=1)))

    def _with_skips(self, image: torch.Tensor) -> torch.Tensor:
        """What the body makes of the image, the features of each level added where its resolution is reached again."""
        levels = len(self.level_strides)
        last_up = len(self.body) - _LAYERS - 1  # the layers of a convolution at full resolution follow
        down = {_LAYERS * level + _LAYERS - 1 for level in range(levels)}
        up = {last_up - _LAYERS * level for level in range(levels)}
        kept: list[torch.Tensor] = []
        features = image
        for number, layer in enumerate(self.body):
            features = layer(features)
            if number in down:
                kept.append(features)
            elif number in up:
                features = features + kept.pop()
        return features
