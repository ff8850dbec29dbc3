"""A volume whose segmentation is known, and networks that classify by intensity: what the pipeline does to geometry can
then be judged exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from mkd_core.evaluation import measures
from mkd_core.io.bundle import Bundle
from Testing.support.tiny_bundles import tiny_description

#: Centre (x, y, z), mm from the heart's middle in LPS directions, and radius of the ball that stands for each
#: structure, by label.
BALLS = {
    1: ((24, -6, -18), 20),
    2: ((-10, -34, -16), 20),
    3: ((16, 34, 14), 19),
    4: ((-32, 8, -6), 20),
    5: ((56, -20, -38), 17),
    6: ((-14, 0, 44), 17),
    7: ((26, -22, 40), 16),
}

#: HU of air, of the body that holds the balls, and of each ball.
AIR, BODY = -1000.0, -150.0
LEVELS = {label: -50.0 + 100.0 * label for label in BALLS}


def known_volume(
    size: Sequence[int],
    spacing: Sequence[float],
    direction: np.ndarray | None = None,
    middle: Sequence[float] = (0, 0, 0),
    heart_at: Sequence[float] = (0, 0, 0),
) -> tuple[sitk.Image, sitk.Image]:
    """Draw the known heart.

    Args:
        size: voxels along x, y, z.
        spacing: mm.
        direction: (3, 3) direction matrix; identity if None.
        middle: LPS position of the middle of the volume, mm.
        heart_at: LPS position of the middle of the heart, mm.

    Returns:
        The CT (int16) and its truth (uint8).
    """
    direction = np.eye(3) if direction is None else direction
    index = np.stack(np.meshgrid(*[np.arange(count) for count in size], indexing="ij"), axis=-1)  # (x, y, z, 3)
    offset = np.asarray(middle) - direction @ ((np.array(size) - 1) * spacing / 2)
    position = (index * spacing) @ direction.T + offset - heart_at
    grain = (index @ [7, 13, 29]) % 7.0  # what a scanner shows is never quite constant, as padding is
    values = AIR + grain
    body = np.linalg.norm(position / (92, 72, 78), axis=-1) < 1
    values[body] = BODY - 3.0 + grain[body]
    truth = np.zeros(size, np.uint8)
    for label, (centre, radius) in BALLS.items():
        ball = np.linalg.norm(position - centre, axis=-1) < radius
        values[ball], truth[ball] = LEVELS[label] - 3.0 + grain[ball], label
    images = []
    for array in (values.astype(np.int16), truth):
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        image.SetSpacing([float(step) for step in spacing])
        image.SetDirection(direction.ravel().tolist())
        image.SetOrigin(offset.tolist())
        images.append(image)
    return images[0], images[1]


def _of_neighbours(image: torch.Tensor, pick: Callable[..., torch.Tensor]) -> torch.Tensor:
    """The extreme of the 27 voxels round each, one axis after the other: ten times as fast as pooling."""
    for axis in (2, 3, 4):
        steps = image.shape[axis] - 1
        pairs = pick(image.narrow(axis, 0, steps), image.narrow(axis, 1, steps))
        image = image.clone()
        image.narrow(axis, 1, steps).copy_(pairs)
        start = image.narrow(axis, 0, steps)
        start.copy_(pick(start, pairs))
    return image


class ByIntensity(nn.Module):
    """Classifies by the nearest of some levels in the window -300 to 700 HU.

    Voxels that hold a bit of two things would look like a third.  So each voxel first becomes the darkest or the
    brightest of its neighbours, whichever is closer, which puts edges where they are half way (Kramer and Bruckner,
    "Iterations of a non-linear transformation for enhancement of digital images", Pattern Recognition 7, 1975).
    """

    def __init__(self, levels: dict[float, int], stride: int = 4, classes: int = 8) -> None:
        super().__init__()
        self.classes = classes
        self.strides = (stride, stride, stride)
        self.levels = [(level / 500 - 0.4, label) for level, label in levels.items()]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            brightest, darkest = _of_neighbours(image, torch.maximum), _of_neighbours(image, torch.minimum)
            image = torch.where(brightest - image < image - darkest, brightest, darkest)
        logits = torch.full((1, self.classes, *image.shape[2:]), -1e4, dtype=image.dtype)
        for level, label in self.levels:
            logits[:, label] = torch.maximum(logits[:, label], -2000 * (image[:, 0] - level) ** 2)
        return logits


class Negative(nn.Module):
    """Stands for a generator: bright becomes dark; doing it twice changes nothing."""

    strides = (2, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -image


class Unchanged(Negative):
    """Stands for a generator that leaves an image as it is."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


class KnownBundle(Bundle):
    """A bundle whose networks classify by intensity, or are given."""

    def __init__(self, **replaced: nn.Module) -> None:
        balls = {level: label for label, level in LEVELS.items()}
        networks = {
            "localiser": ByIntensity(balls | {-300.0: 0, BODY: 5}),
            "generator_a2t": Negative(),
            "generator_t2a": Negative(),
            "segmentor_real": ByIntensity(balls | {-300.0: 0, BODY: 0}),
            "segmentor_syn": ByIntensity(balls | {-300.0: 0, BODY: 0}),
        } | replaced
        description = tiny_description()
        description["segmentor"]["spacing_mm"] = 3.0
        super().__init__(Path("known.safetensors"), "0" * 64, description, {}, networks)


def dice(first: sitk.Image, second: sitk.Image, label: int) -> float:
    """Dice overlap of one label."""
    overlap = measures.dice(*(sitk.GetArrayViewFromImage(image) == label for image in (first, second)))
    assert overlap is not None, "neither has this label"
    return overlap
