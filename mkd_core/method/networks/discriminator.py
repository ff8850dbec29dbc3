"""Discriminator of the image alignment module: is a patch of this modality, or was it made by a generator?

PatchGAN with leaky ReLU: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
    in 3-D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Discriminator(nn.Module):
    """PatchGAN: a map of scores, one per overlapping patch, not one score per image.

    A score sees 12 voxels with one halving and 26 with two: a small receptive field judges texture, a large one
    anatomy, which translation must not change.  Several scales judge the image and copies of half the resolution each:
    Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018.

    Args:
        channels: features after the first convolution; doubled by each further one but the last.
        halvings: convolutions of stride 2.
        scales: networks, each at half the resolution of the one before.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(self, channels: int = 16, halvings: int = 2, scales: int = 1) -> None:
        super().__init__()
        self.scales = nn.ModuleList([_body(channels, halvings) for _ in range(scales)])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Realness of each patch: least-squares GAN trains it towards 1 for real, 0 for made.

        Args:
            image: ``(N, 1, D, H, W)`` in [-1, 1].

        Returns:
            Scores, ``(N, scales, D/s, H/s, W/s)`` with s = 2 to the power of ``halvings``; those of coarser scales are
            repeated, so that every scale counts alike in a mean.
        """
        scores: list[torch.Tensor] = []
        for number, body in enumerate(self.scales):
            score = body(functional.avg_pool3d(image, 1 << number) if number else image)
            scores.append(functional.interpolate(score, scores[0].shape[2:]) if scores else score)
        return torch.cat(scores, dim=1)


def _body(channels: int, halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv3d(1, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
    for number in range(halvings):
        side, stride = (4, 2) if number + 1 < halvings else (3, 1)
        layers += [
            nn.Conv3d(channels, 2 * channels, side, stride=stride, padding=1, bias=False),
            nn.InstanceNorm3d(2 * channels, affine=True),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        channels *= 2
    return nn.Sequential(*layers, nn.Conv3d(channels, 1, 3, padding=1))
