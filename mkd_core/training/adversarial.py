"""The adversarial half of the image alignment module (IAM): least-squares GAN, cycle consistency, a pool of past images.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017; Mao et al., "Least Squares Generative
Adversarial Networks", ICCV 2017; the pool is Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training", CVPR 2017.
"""

from __future__ import annotations

import random

import torch


def generator_loss(score_of_made: torch.Tensor) -> torch.Tensor:
    """Least-squares loss of a generator: its images should score 1.  ``score_of_made``: any shape; returns a scalar."""
    return (score_of_made - 1).square().mean()


def discriminator_loss(score_of_real: torch.Tensor, score_of_made: torch.Tensor) -> torch.Tensor:
    """Least-squares loss of a discriminator: real scores 1, made scores 0; halved as in CycleGAN.  Returns a scalar."""
    return 0.5 * ((score_of_real - 1).square().mean() + score_of_made.square().mean())


def cycle_loss(image: torch.Tensor, there_and_back: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of an image and itself after both translations.  Returns a scalar."""
    return (image - there_and_back).abs().mean()


class ImagePool:
    """Past translated images, so that a discriminator does not forget what generators did before.

    Args:
        size: images kept; 0 hands every image straight through.
        seed: of the draws.
    """

    def __init__(self, size: int = 50, seed: int = 0) -> None:
        self.size = size
        self.images: list[torch.Tensor] = []
        self._random = random.Random(seed)

    def exchange(self, images: torch.Tensor) -> torch.Tensor:
        """Hand in new images ``(N, 1, D, H, W)``, get as many back: each new one, or with even chance an old one that it replaces."""
        images = images.detach()
        if self.size == 0:
            return images
        out = []
        for image in images.unbind(0):
            if len(self.images) < self.size:
                self.images.append(image.clone())
                out.append(image)
            elif self._random.random() < 0.5:
                slot = self._random.randrange(self.size)
                out.append(self.images[slot])
                self.images[slot] = image.clone()
            else:
                out.append(image)
        return torch.stack(out)
