"""Random changes of patches of labelled volumes, on the device that trains.

The transforms are MONAI's (Cardoso et al., "MONAI: An open-source framework for deep learning in healthcare", 2022).  A
change is a function of the settings and a seed alone, so that a resumed run and one of several processes sees the same
patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mkd_core.errors import InputError
from mkd_core.inference.geometry import Spacing, steps_of
from mkd_core.training.config import AugmentationConfig

#: Standard deviation of the smoothing that makes an elastic displacement, mm.
_BENDING_MM = 16.0

#: The largest of a smooth random displacement is about three standard deviations.
_LARGEST_OF_NORMAL = 3.0

#: A patch is cut this much larger than needed, so that turning and shrinking it brings in image and not padding.
_MARGIN = 1.3

_KEYS = ("image", "target")


class Augmentation:
    """Random affine, elastic and intensity changes.

    Args:
        config: how much.
        patch: voxels per side, or along (z, y, x), after the change.
        spacing: of the voxels.  Where they are not cubic, patches turn only in planes of square pixels and do not bend.
        device: where to compute.

    Raises:
        InputError: MONAI is not installed.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        patch: int | tuple[int, int, int],
        spacing: Spacing,
        device: torch.device | str = "cpu",
    ) -> None:
        try:
            import monai
            from monai import transforms
        except ImportError as error:
            raise InputError(
                "MONAI, which augments labelled volumes, is not installed.",
                "Install it by pip install 'mkd-core[train]'.",
            ) from error
        monai.data.set_track_meta(False)
        self._device = torch.device(device)
        steps = steps_of(spacing)
        cubic = bool(np.ptp(steps) == 0)
        # About each axis (z, y, x): voxels that are longer one way than the other cannot be turned into each other.
        square = [np.ptp(np.delete(steps, axis)) == 0 for axis in range(3)]
        turn = tuple(math.radians(config.rotation_deg) if free else 0.0 for free in square)
        spatial: dict[str, Any] = {
            "prob": 1.0,
            "rotate_range": turn,
            "scale_range": (config.scale,) * 3,
            "spatial_size": tuple(int(side) for side in np.broadcast_to(patch, (3,))),
            "mode": ("bilinear", "nearest"),
            "padding_mode": "border",
            "device": self._device,
        }
        finest = float(steps.min())
        sigma = max(1.0, _BENDING_MM / finest)
        # Rand3DElastic smooths uniform noise by a Gaussian, which leaves this standard deviation, and multiplies it by
        # the magnitude.
        left = (1 / math.sqrt(3)) * (2 * math.sqrt(math.pi) * sigma) ** -1.5
        magnitude = config.elastic_mm / finest / (_LARGEST_OF_NORMAL * left)
        self._bends = config.elastic_probability if config.elastic_mm and cubic else 0.0
        self._affine = transforms.RandAffined(_KEYS, **spatial)
        self._elastic = transforms.Rand3DElasticd(_KEYS, (sigma, sigma), (0.3 * magnitude, magnitude), **spatial)
        some: dict[str, Any] = {"keys": "image", "prob": config.share}
        changes: list[Any] = []
        if config.blur:
            sigmas: dict[str, Any] = {f"sigma_{axis}": (0, config.blur) for axis in "xyz"}
            changes.append(transforms.RandGaussianSmoothd(**sigmas, **some))
        if config.contrast:
            gamma = (1 - config.contrast, 1 / (1 - config.contrast))
            changes.append(transforms.RandAdjustContrastd(gamma=gamma, **some))
        if config.brightness:
            changes.append(transforms.RandScaleIntensityd(factors=config.brightness, **some))
            changes.append(transforms.RandShiftIntensityd(offsets=config.brightness, **some))
        if config.noise:
            changes.append(transforms.RandGaussianNoised(std=config.noise, **some))
        self._intensity = transforms.Compose(changes)

    @staticmethod
    def cut_size(config: AugmentationConfig, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        """Voxels along (z, y, x) that a patch must have before the change."""
        moves = config.rotation_deg or config.scale or (config.elastic_mm and config.elastic_probability)
        z, y, x = (math.ceil(_MARGIN * side) if moves else side for side in patch)
        return z, y, x

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change a batch.

        Args:
            images: in [-1, 1], ``(N, 1, d, d, d)``.
            targets: ``(N, d, d, d)``, uint8.
            seeds: one per patch.

        Returns:
            (images ``(N, 1, patch, patch, patch)``, targets ``(N, patch, patch, patch)``), on the device.
        """
        changed = [self._one(image, target, seed) for image, target, seed in zip(images, targets, seeds)]
        return torch.stack([image for image, _ in changed]), torch.stack([target for _, target in changed])

    def _one(self, image: torch.Tensor, target: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        spatial = self._elastic if rng.random() < self._bends else self._affine
        for transform in (spatial, self._intensity):
            transform.set_random_state(seed=int(rng.integers(2**31)))
        both = spatial({"image": image.to(self._device), "target": target.to(self._device, torch.float32)[None]})
        both = self._intensity(both)
        return both["image"].clamp(-1, 1), both["target"][0].round().to(torch.uint8)
