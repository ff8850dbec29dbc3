"""Discriminator of the image alignment module: is a patch of this modality, or was it made by a generator?

PatchGAN with leaky ReLU: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
    in 3-D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mkd_core.method.strides import CUBIC, Strides, level_strides, total


class Discriminator(nn.Module):
    """PatchGAN: a map of scores, one per overlapping patch, not one score per image.

    A score sees 12 voxels with one halving and 26 with two: a small receptive field judges texture, a large one
    anatomy, which translation must not change.  Several scales judge the image and copies of half the resolution each:
    Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018.

    Args:
        channels: features after the first convolution; doubled by each further one but the last.
        halvings: convolutions of stride 2.
        scales: networks, each at half the resolution of the one before.
        voxel: as for :class:`mkd_core.method.networks.segmentor.Segmentor`.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(self, channels: int = 16, halvings: int = 2, scales: int = 1, voxel: Sequence[float] = CUBIC) -> None:
        super().__init__()
        strides = level_strides(voxel, halvings + scales - 1)
        self.reductions = [total(strides[:number]) for number in range(scales)]
        self.scales = nn.ModuleList([_body(channels, strides[number : number + halvings]) for number in range(scales)])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Realness of each patch: least-squares GAN trains it towards 1 for real, 0 for made.

        Args:
            image: ``(N, 1, D, H, W)`` in [-1, 1].

        Returns:
            Scores, ``(N, scales, D/s, H/s, W/s)``, s the strides of ``halvings`` levels; those of coarser scales are
            repeated, so that every scale counts alike in a mean.
        """
        scores: list[torch.Tensor] = []
        for reduction, body in zip(self.reductions, self.scales):
            score = body(functional.avg_pool3d(image, reduction) if scores else image)
            scores.append(functional.interpolate(score, scores[0].shape[2:]) if scores else score)
        return torch.cat(scores, dim=1)


def _body(channels: int, strides: Sequence[Strides]) -> nn.Sequential:
    first, *others = [(_kernel(stride), stride) for stride in strides]
    layers: list[nn.Module] = [
        nn.Conv3d(1, channels, first[0], stride=first[1], padding=1),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for side, stride in [*others, ((3, 3, 3), (1, 1, 1))]:
        layers += [
            nn.Conv3d(channels, 2 * channels, side, stride=stride, padding=1, bias=False),
            nn.InstanceNorm3d(2 * channels, affine=True),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        channels *= 2
    return nn.Sequential(*layers, nn.Conv3d(channels, 1, 3, padding=1))


def _kernel(stride: Strides) -> Strides:
    """Sides of a convolution: 4 where it halves, 3 elsewhere."""
    z, y, x = (2 + step for step in stride)
    return z, y, x
