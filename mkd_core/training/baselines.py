"""One segmentor trained without the method, to compare the method with: on the target alone, on both modalities, or on
one after the other.

Updates, losses, augmentation and schedule are those of the method's segmentors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mkd_core.method.losses import segmentation_loss
from mkd_core.method.networks import build
from mkd_core.training.across_processes import share_batch_norm, sum_over_processes
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.mkd import SEGMENTOR_WEIGHT_DECAY, Terms
from mkd_core.training.schedule import StepPlan
from mkd_core.training.updates import update

#: Fraction of a fine-tuned run that is spent on the assistant modality.
_PRETRAINING = 0.5


class SingleSegmentor(nn.Module):
    """A segmentor of either modality's images.

    Args:
        config: ``scheme`` is ``"target-only"``, ``"joint"`` or ``"fine-tune"``.
        networks: sizes.
        steps: of the run.
        device, precision: as for :class:`mkd_core.training.mkd.MutualDistillation`.
    """

    def __init__(
        self,
        config: MethodConfig,
        networks: NetworksConfig,
        steps: int,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__()
        self.config = config
        self.precision = precision
        self.device = torch.device(device)
        self.segmentor = share_batch_norm(build(networks.architecture("segmentor", len(config.class_weights))))
        self.unused_generator = build(networks.architecture("generator"))  # a bundle holds one
        self.to(device)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from torch's stubs
        self.class_weights = torch.tensor(config.class_weights, device=device)
        self._pretraining = round(_PRETRAINING * steps) if config.scheme == "fine-tune" else 0
        self._trained = list(self.segmentor.parameters())
        self._optimiser = torch.optim.AdamW(self._trained, config.segmentor_lr, weight_decay=SEGMENTOR_WEIGHT_DECAY)

    def set_lr(self, factor: float) -> None:
        """Scale the learning rate to ``factor`` times its peak."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.segmentor_lr * factor

    def step(
        self,
        x_t: torch.Tensor,
        y_t: torch.Tensor,
        x_a: torch.Tensor,
        y_a: torch.Tensor,
        plan: StepPlan = StepPlan(),  # noqa: B008  (frozen)
    ) -> Terms:
        """One update.

        Arguments as for :meth:`mkd_core.training.mkd.MutualDistillation.step`; returns the loss by name.
        """
        self.set_lr(plan.lr)
        if self.config.scheme == "joint":
            image, target = torch.cat([x_t, x_a]), torch.cat([y_t, y_a])
        elif plan.step < self._pretraining:
            image, target = x_a, y_a
        else:
            image, target = x_t, y_t
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.segmentor(image)
        weights = self.class_weights**plan.class_weight_power
        loss = segmentation_loss(logits.float(), target, weights, sum_over_processes)
        update(loss, {self._optimiser: self._trained})
        return {"real": loss.detach()}

    def parts(self) -> dict[str, nn.Module]:
        """Networks by the bundle's part names: one segmentor in both places, and a generator that nothing asks for."""
        return {
            "generator_a2t": self.unused_generator,
            "generator_t2a": self.unused_generator,
            "segmentor_real": self.segmentor,
            "segmentor_syn": self.segmentor,
        }

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, but for the data."""
        return {"networks": self.state_dict(), "optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.load_state_dict(state["networks"])
        self._optimiser.load_state_dict(state["optimiser"])

    def pools(self) -> dict[str, Any]:
        """Nothing: there are no pools."""
        return {}

    def restore_pools(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
