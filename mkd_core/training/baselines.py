"""One segmentor trained without the method, to compare the method with: on the target alone, on both modalities, or on
one after the other.

Updates, losses, augmentation and schedule are those of the method's segmentors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mkd_core.method.networks import build, select_stream
from mkd_core.training.across_processes import share_batch_norm
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.mkd import SEGMENTOR_WEIGHT_DECAY, Labelled, Terms, segment, supervision_loss
from mkd_core.training.schedule import StepPlan
from mkd_core.training.updates import update

#: Fraction of a fine-tuned run that is spent on the assistant modality.
_PRETRAINING = 0.5


class SingleSegmentor(nn.Module):
    """A segmentor of either modality's images.

    Args:
        config: ``scheme`` is ``"target-only"``, ``"assistant-only"``, ``"joint"`` or ``"fine-tune"``.
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
        self.segmentor = share_batch_norm(build(networks.architecture("segmentor_real", len(config.class_weights))))
        self._norm_per_stream = networks.segmentor_norm == "batch-per-stream"
        self._deep_supervision = networks.deep_supervision > 0
        self.unused_generator = build(networks.architecture("generator"))  # a bundle holds one
        self.to(device)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from torch's stubs
        self.class_weights = torch.tensor(config.class_weights, device=device)
        self._pretraining = {"fine-tune": round(_PRETRAINING * steps), "assistant-only": steps}.get(config.scheme, 0)
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
        labelled: Labelled = Labelled(),  # noqa: B008  (frozen)
    ) -> Terms:
        """One update.

        Arguments as for :meth:`mkd_core.training.mkd.MutualDistillation.step`; returns the loss by name.
        """
        self.set_lr(plan.lr)
        image, target, known = x_t, y_t, labelled.t
        if self.config.scheme == "joint":
            image, target, known = torch.cat([x_t, x_a]), torch.cat([y_t, y_a]), _joined(labelled, len(x_t), len(x_a))
        elif plan.step < self._pretraining:
            image, target, known = x_a, y_a, labelled.a
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            if self.config.scheme == "joint" and self._norm_per_stream:
                levels = self._each_by_itself(x_t, x_a)
            else:
                levels = segment(self.segmentor, image, self._deep_supervision)
        loss = supervision_loss(levels, target, known, self.class_weights**plan.class_weight_power)
        update(loss, {self._optimiser: self._trained})
        return {"real": loss.detach()}

    def _each_by_itself(self, x_t: torch.Tensor, x_a: torch.Tensor) -> list[torch.Tensor]:
        """Logits of both modalities, each normalised by its own statistics."""
        select_stream(self.segmentor, "translated")
        of_assistant = segment(self.segmentor, x_a, self._deep_supervision)
        select_stream(self.segmentor, "target")
        of_target = segment(self.segmentor, x_t, self._deep_supervision)
        return [torch.cat(pair) for pair in zip(of_target, of_assistant)]

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


def _joined(labelled: Labelled, count_t: int, count_a: int) -> torch.Tensor | None:
    some = labelled.t if labelled.t is not None else labelled.a
    if some is None:
        return None
    t, a = (
        some.new_ones(count, some.shape[1]) if known is None else known
        for known, count in ((labelled.t, count_t), (labelled.a, count_a))
    )
    return torch.cat([t, a])
