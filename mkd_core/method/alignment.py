"""Image alignment (IAM) at inference: what each of the two segmentors is shown.

S_real was trained on real images of the target modality, S_syn on images of the assistant modality translated by G_a2t.
Training of the generators is in :mod:`mkd_core.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mkd_core.method.networks import Stream


@dataclass(frozen=True)
class Views:
    """What the segmentors see; several views of one segmentor are averaged after softmax.

    Attributes:
        real: images for S_real, each ``(1, 1, D, H, W)`` in [-1, 1].
        synthetic: images for S_syn.
        rendered: the image as rendered by the generators, or None if none was made.
        is_target: whether the image itself is of the target modality.
    """

    real: list[torch.Tensor]
    synthetic: list[torch.Tensor]
    rendered: torch.Tensor | None
    is_target: bool = True

    def stream(self, view: torch.Tensor) -> Stream:
        """Of which stream of images a view is, for normalisation per stream."""
        return "translated" if view is self.rendered or not self.is_target else "target"

    def segmented(
        self, run: Callable[[str, torch.Tensor], torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What S_real and S_syn make of their views; ``run`` applies the network of that name to a view."""
        return (
            [run("segmentor_real", view) for view in self.real],
            [run("segmentor_syn", view) for view in self.synthetic],
        )


def align_for_segmentors(
    image: torch.Tensor, policy: str, run: Callable[[str, torch.Tensor], torch.Tensor], *, is_target: bool = True
) -> Views:
    """Render an image for the segmentors.

    Args:
        image: normalised image, ``(1, 1, D, H, W)``.
        policy: for a target volume "cycle" (S_syn sees its reconstruction, G_a2t(G_t2a(x))), "none" (both see
            x) or "mean" (S_syn sees both); for an assistant volume "translate" (both see G_a2t(x)) or "none".
        run: applies the network of that name to an image.
        is_target: whether it is a target volume.

    Raises:
        ValueError: unknown policy.
    """
    if policy == "none":
        return Views([image], [image], None, is_target)
    if policy == "translate":
        translated = run("generator_a2t", image)
        return Views([translated], [translated], translated, is_target)
    if policy in ("cycle", "mean"):
        reconstruction = run("generator_a2t", run("generator_t2a", image))
        synthetic = [reconstruction] if policy == "cycle" else [image, reconstruction]
        return Views([image], synthetic, reconstruction, is_target)
    raise ValueError(f"unknown alignment policy {policy!r}")
