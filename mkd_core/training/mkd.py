"""Online mutual knowledge distillation: generators, discriminators and both segmentors trained together.

One step, in the paper's terms (``t`` target, ``a`` assistant):

    x_a2t = G_a2t(x_a),  x_t2a = G_t2a(x_t),  cycles back
    L_G    = adversarial + cycle                          -> both generators
    L_syn  = CE + Dice on (x_a2t, y_a) + w KD(S_real -> S_syn)      -> S_syn, and its supervised part also G_a2t
    L_real = CE + Dice on (x_t, y_t)   + w KD(S_syn -> S_real)      -> S_real
    L_D    on real and (pooled) made images               -> discriminators

Li, Yu, Wang, Heng, AAAI 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from mkd_core.distillation import distillation_loss, segmentation_loss
from mkd_core.networks import build
from mkd_core.training.adversarial import ImagePool, cycle_loss, discriminator_loss, generator_loss


@dataclass
class MKDConfig:
    """Switches of the method; defaults are the paper's where known, CycleGAN's elsewhere.

    Attributes:
        segmentor, generator, discriminator: architectures, see :func:`mkd_core.networks.build`.
        cycle_weight: of the L1 cycle term, both ways.
        adversarial_weight: of the generators' GAN term.
        distillation_weight: w.
        temperature: T of the softened probabilities.
        distillation_images: which images a distillation term sees: those the teacher is supervised on (``"teacher-stream"``), those the student
            is supervised on (``"student-stream"``), or ``"both"``.
        pool: past translated images each discriminator is shown.
        class_weights: weights of the cross-entropy, background first.
        segmentor_rate, generator_rate: peak learning rates (AdamW; Adam with beta1 0.5).
    """

    segmentor: dict = field(default_factory=lambda: {"type": "segmentor", "channels": [16, 32, 64, 128, 160]})
    generator: dict = field(default_factory=lambda: {"type": "generator", "channels": 8, "blocks": 3})
    discriminator: dict = field(default_factory=lambda: {"type": "discriminator", "channels": 16})
    cycle_weight: float = 10.0
    adversarial_weight: float = 1.0
    distillation_weight: float = 0.5
    temperature: float = 2.0
    distillation_images: Literal["teacher-stream", "student-stream", "both"] = "teacher-stream"
    pool: int = 50
    class_weights: tuple[float, ...] = (0.6, 1.0, 1.2, 1.5, 1.5, 1.2, 2.2, 2.5)
    segmentor_rate: float = 2e-3
    generator_rate: float = 4e-4


class MutualDistillation(nn.Module):
    """All networks of the method and one training step of each.

    Args:
        config: switches.
        device: where the networks live.
    """

    def __init__(self, config: MKDConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.config = config
        self.generator_a2t, self.generator_t2a = build(config.generator), build(config.generator)
        self.discriminator_t, self.discriminator_a = build(config.discriminator), build(config.discriminator)
        self.segmentor_real, self.segmentor_syn = build(config.segmentor), build(config.segmentor)
        self.to(device)
        self.to(memory_format=torch.channels_last_3d)
        self.device = torch.device(device)
        self.class_weights = torch.tensor(config.class_weights, dtype=torch.float32, device=device)
        self.pool_t, self.pool_a = ImagePool(config.pool, seed=1), ImagePool(config.pool, seed=2)
        self.optimisers = {
            "generators": torch.optim.Adam(
                [*self.generator_a2t.parameters(), *self.generator_t2a.parameters()], config.generator_rate, betas=(0.5, 0.999)
            ),
            "discriminators": torch.optim.Adam(
                [*self.discriminator_t.parameters(), *self.discriminator_a.parameters()], config.generator_rate, betas=(0.5, 0.999)
            ),
            "segmentors": torch.optim.AdamW(
                [*self.segmentor_real.parameters(), *self.segmentor_syn.parameters()], config.segmentor_rate, weight_decay=1e-3
            ),
        }

    def set_rate(self, factor: float) -> None:
        """Scale all learning rates to ``factor`` times their peak."""
        for name, optimiser in self.optimisers.items():
            peak = self.config.segmentor_rate if name == "segmentors" else self.config.generator_rate
            for group in optimiser.param_groups:
                group["lr"] = peak * factor

    def losses(
        self, x_t: torch.Tensor, y_t: torch.Tensor, x_a: torch.Tensor, y_a: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Losses of generators and segmentors.

        Args:
            x_t, x_a: unpaired normalised images, ``(N, 1, D, H, W)``.
            y_t, y_a: their targets, ``(N, D, H, W)``.

        Returns:
            (terms to minimise by name, x_a2t, x_t2a).
        """
        config = self.config
        x_a2t, x_t2a = self.generator_a2t(x_a), self.generator_t2a(x_t)
        terms = {
            "adversarial": config.adversarial_weight
            * (generator_loss(self.discriminator_t(x_a2t).float()) + generator_loss(self.discriminator_a(x_t2a).float())),
            "cycle": config.cycle_weight
            * (cycle_loss(x_a, self.generator_t2a(x_a2t).float()) + cycle_loss(x_t, self.generator_a2t(x_t2a).float())),
        }
        count = len(x_t)
        # Each segmentor meets its own stream (supervised) and the other's (as pupil) in one batch, so that batch normalisation has one set of
        # statistics.  Only S_syn's own stream carries gradient on to G_a2t.
        real_on_t, real_on_a2t = self.segmentor_real(torch.cat([x_t, x_a2t.detach().float()])).float().split([count, len(x_a)])
        syn_on_a2t, syn_on_t = self.segmentor_syn(torch.cat([x_a2t.float(), x_t])).float().split([len(x_a), count])
        terms["real"] = segmentation_loss(real_on_t, y_t, self.class_weights)
        terms["syn"] = segmentation_loss(syn_on_a2t, y_a, self.class_weights)
        if config.distillation_weight:
            weight, temperature = config.distillation_weight, config.temperature
            to_real, to_syn = [], []
            if config.distillation_images in ("teacher-stream", "both"):
                to_real.append(distillation_loss(syn_on_a2t, real_on_a2t, temperature))
                to_syn.append(distillation_loss(real_on_t, syn_on_t, temperature))
            if config.distillation_images in ("student-stream", "both"):
                to_real.append(distillation_loss(syn_on_t, real_on_t, temperature))
                to_syn.append(distillation_loss(real_on_a2t, syn_on_a2t, temperature))
            terms["syn to real"] = weight * sum(to_real) / len(to_real)
            terms["real to syn"] = weight * sum(to_syn) / len(to_syn)
        return terms, x_a2t, x_t2a

    def step(self, x_t: torch.Tensor, y_t: torch.Tensor, x_a: torch.Tensor, y_a: torch.Tensor) -> dict[str, float]:
        """One update of every part, in turn.  Arguments as for :meth:`losses`; returns the value of each term."""
        for network in (self.discriminator_t, self.discriminator_a):
            network.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16):
            terms, x_a2t, x_t2a = self.losses(x_t, y_t, x_a, y_a)
        for name in ("generators", "segmentors"):
            self.optimisers[name].zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_([*self.segmentor_real.parameters(), *self.segmentor_syn.parameters()], 5.0)
        nn.utils.clip_grad_norm_([*self.generator_a2t.parameters(), *self.generator_t2a.parameters()], 5.0)
        for name in ("generators", "segmentors"):
            self.optimisers[name].step()

        for network in (self.discriminator_t, self.discriminator_a):
            network.requires_grad_(True)
        self.optimisers["discriminators"].zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = discriminator_loss(self.discriminator_t(x_t).float(), self.discriminator_t(self.pool_t.exchange(x_a2t).float()).float())
            loss = loss + discriminator_loss(
                self.discriminator_a(x_a).float(), self.discriminator_a(self.pool_a.exchange(x_t2a).float()).float()
            )
        loss.backward()
        self.optimisers["discriminators"].step()
        return {name: float(value.detach()) for name, value in {**terms, "discriminators": loss}.items()}

    def state(self) -> dict:
        """Everything a resumed run needs but the data stream."""
        return {"networks": self.state_dict(), "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()}}

    def restore(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.load_state_dict(state["networks"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])

    def bundle_parts(self) -> dict[str, nn.Module]:
        """Networks that a bundle holds, by the bundle's part names."""
        return {
            "generator_a2t": self.generator_a2t,
            "generator_t2a": self.generator_t2a,
            "segmentor_real": self.segmentor_real,
            "segmentor_syn": self.segmentor_syn,
        }
