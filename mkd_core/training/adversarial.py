"""The adversarial half of the image alignment module (IAM): least-squares GAN, cycle consistency, a pool of past
images.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017; Mao et al.,
"Least Squares Generative Adversarial Networks", ICCV 2017; the pool is Shrivastava et al., "Learning from Simulated and
Unsupervised Images through Adversarial Training", CVPR 2017.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F


def generator_loss(score_of_made: torch.Tensor, form: str = "least-squares") -> torch.Tensor:
    """Loss of a generator: its images should score 1, or be taken for real.

    Args:
        score_of_made: the discriminator's scores, any shape.
        form: ``"least-squares"``, or ``"cross-entropy"``, which takes scores for logits (Goodfellow et al., 2014,
            non-saturating).

    Returns:
        Scalar.
    """
    if form == "cross-entropy":
        return F.softplus(-score_of_made).mean()
    return (score_of_made - 1).square().mean()


def discriminator_loss(
    score_of_real: torch.Tensor, score_of_made: torch.Tensor, form: str = "least-squares"
) -> torch.Tensor:
    """Loss of a discriminator: real scores 1, made scores 0; halved as in CycleGAN.

    ``form`` as for :func:`generator_loss`; returns a scalar.
    """
    if form == "cross-entropy":
        return 0.5 * (F.softplus(-score_of_real).mean() + F.softplus(score_of_made).mean())
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
        """Hand in new images ``(N, 1, D, H, W)``, get as many back: each new one, or with even chance an old one that
        it replaces.

        Images of another size than those before begin a new pool.
        """
        images = images.detach()
        if self.size == 0:
            return images
        if self.images and self.images[0].shape != images[0].shape:
            self.images.clear()
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

    def state(self) -> dict:
        """What it holds and where its draws are; images in half precision."""
        images = torch.stack(self.images).half() if self.images else torch.empty(0)
        return {"images": images, "random": self._random.getstate()}

    def restore(self, state: dict, device: torch.device) -> None:
        """Continue from :meth:`state`."""
        self.images = list(state["images"].to(device, torch.float32).unbind(0))
        version, numbers, gauss = state["random"]
        self._random.setstate((version, tuple(numbers), gauss))
