"""Discriminator of the image alignment module: is a patch of this modality, or was it made by a generator?

PatchGAN with leaky ReLU: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
    in 3-D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Discriminator(nn.Module):
    """PatchGAN: a map of scores, one per overlapping patch, not one score per image.

    Args:
        channels: features after the first convolution; doubled by each of the two next.
    """

    architecture: dict[str, Any]  # set by mkd_core.method.networks.build

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv3d(channels, 2 * channels, 4, stride=2, padding=1, bias=False),
            nn.InstanceNorm3d(2 * channels, affine=True),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv3d(2 * channels, 4 * channels, 3, padding=1, bias=False),
            nn.InstanceNorm3d(4 * channels, affine=True),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv3d(4 * channels, 1, 3, padding=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Realness of each patch: least-squares GAN trains it towards 1 for real, 0 for made.

        Args:
            image: ``(N, 1, D, H, W)`` in [-1, 1].

        Returns:
            Scores, ``(N, 1, D/4, H/4, W/4)``.
        """
        scores: torch.Tensor = self.body(image)
        return scores
