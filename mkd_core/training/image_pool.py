"""Past translated images, shown to a discriminator again.

Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training", CVPR 2017.
"""

from __future__ import annotations

import random
from typing import Any

import torch


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

    def state(self) -> dict[str, Any]:
        """What it holds and where its draws are."""
        return {"images": list(self.images), "random": self._random.getstate()}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from :meth:`state`, images on ``device``."""
        self.images = [image.to(device) for image in state["images"]]
        self._random.setstate(state["random"])
