"""One segmentor trained without the method, to compare the method with: on the target alone, on both modalities, or on
one after the other.

Updates, losses, augmentation and schedule are those of the method's segmentors.
"""

from __future__ import annotations

import torch
from torch import nn

from mkd_core.method.losses import segmentation_loss
from mkd_core.method.networks import build
from mkd_core.training.across_processes import share_batch_norm, sum_over_processes
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.updates import update

#: Share of a fine-tuned run that is spent on the assistant modality.
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
        self.to(memory_format=torch.channels_last_3d)
        self.set_class_weight_power(1.0)
        self.steps_done = 0
        self._pretraining = round(_PRETRAINING * steps) if config.scheme == "fine-tune" else 0
        self._trained = list(self.segmentor.parameters())
        self._optimiser = torch.optim.AdamW(self._trained, config.segmentor_lr, weight_decay=1e-3)

    def set_lr(self, factor: float) -> None:
        """Scale the learning rate to ``factor`` times its peak."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.segmentor_lr * factor

    def set_class_weight_power(self, power: float) -> None:
        """Raise the class weights of the cross-entropy to a power."""
        self.class_weights = torch.tensor(self.config.class_weights, device=self.device) ** power

    def step(
        self, x_t: torch.Tensor, y_t: torch.Tensor, x_a: torch.Tensor, y_a: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """One update.

        Arguments as for :meth:`mkd_core.training.mkd.MutualDistillation.losses`; returns the loss by name.
        """
        if self.config.scheme == "joint":
            image, target = torch.cat([x_t, x_a]), torch.cat([y_t, y_a])
        elif self.steps_done < self._pretraining:
            image, target = x_a, y_a
        else:
            image, target = x_t, y_t
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.segmentor(image)
        loss = segmentation_loss(logits.float(), target, self.class_weights, sum_over_processes)
        update(loss, {self._optimiser: self._trained})
        self.steps_done += 1
        return {"real": loss.detach()}

    def parts(self) -> dict[str, nn.Module]:
        """Networks by the bundle's part names: one segmentor in both places, and a generator that nothing asks for."""
        return {
            "generator_a2t": self.unused_generator,
            "generator_t2a": self.unused_generator,
            "segmentor_real": self.segmentor,
            "segmentor_syn": self.segmentor,
        }

    @property
    def aligns(self) -> bool:
        """Whether the generators were trained."""
        return False

    def state(self) -> dict:
        """Everything that a resumed run needs, but for the data."""
        return {"networks": self.state_dict(), "optimiser": self._optimiser.state_dict(), "steps_done": self.steps_done}

    def restore(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.load_state_dict(state["networks"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps_done = state["steps_done"]

    def pools(self) -> dict:
        """Nothing: there are no pools."""
        return {}

    def restore_pools(self, state: dict) -> None:
        """Nothing to do."""
