"""Online mutual knowledge distillation: generators, discriminators and both segmentors trained together.

One step, in the paper's terms (``t`` target, ``a`` assistant):

    x_a2t = G_a2t(x_a),  x_t2a = G_t2a(x_t),  cycles back
    L_G    = adversarial + cycle                                    -> both generators
    L_syn  = CE + Dice on (x_a2t, y_a) + w KD(S_real -> S_syn)      -> S_syn, and its supervised part also G_a2t
    L_real = CE + Dice on (x_t, y_t)   + w KD(S_syn -> S_real)      -> S_real
    L_D    on real and (pooled) made images                         -> discriminators

Li, Yu, Wang, Heng, AAAI 2020.
"""

from __future__ import annotations

import torch
from torch import nn

from mkd_core.method.losses import cycle_loss, discriminator_loss, distillation_loss, generator_loss, segmentation_loss
from mkd_core.method.networks import build
from mkd_core.training.across_processes import running_statistics, share_batch_norm, sum_over_processes
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.image_pool import ImagePool
from mkd_core.training.updates import update


class MutualDistillation(nn.Module):
    """All networks of the method and one training step of each.

    Args:
        config: switches.
        networks: sizes.
        device: where the networks live.
        precision: number format of the networks' arithmetic; losses and weights stay float32.
        seed: of the pools' draws.
    """

    def __init__(
        self,
        config: MethodConfig,
        networks: NetworksConfig,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.bfloat16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.precision = precision
        (
            self.generator_a2t,
            self.generator_t2a,
            self.discriminator_t,
            self.discriminator_a,
            self.segmentor_real,
            self.segmentor_syn,
        ) = (
            build(networks.architecture(kind, len(config.class_weights)))
            for kind in ("generator",) * 2 + ("discriminator",) * 2 + ("segmentor",) * 2
        )
        share_batch_norm(self)
        self.to(device)
        self.to(memory_format=torch.channels_last_3d)
        self.device = torch.device(device)
        self.class_weights = torch.tensor(config.class_weights, device=device)
        self.pool_t, self.pool_a = ImagePool(config.pool, seed=2 * seed + 1), ImagePool(config.pool, seed=2 * seed + 2)
        self.steps_done = 0
        parts = {
            "generators": (self.generator_a2t, self.generator_t2a),
            "segmentors": (self.segmentor_real, self.segmentor_syn),
            "discriminators": (self.discriminator_t, self.discriminator_a),
        }
        self._parameters_of = {
            name: [p for network in group for p in network.parameters()] for name, group in parts.items()
        }
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "segmentors": torch.optim.AdamW(self._parameters_of["segmentors"], config.segmentor_lr, weight_decay=1e-3)
        }
        if config.alignment:
            for name in ("generators", "discriminators"):
                self.optimisers[name] = torch.optim.Adam(
                    self._parameters_of[name], config.generator_lr, betas=(config.generator_beta1, 0.999)
                )

    def set_lr(self, factor: float) -> None:
        """Scale all learning rates to ``factor`` times their peak."""
        for name, optimiser in self.optimisers.items():
            peak = self.config.segmentor_lr if name == "segmentors" else self.config.generator_lr
            for group in optimiser.param_groups:
                group["lr"] = peak * factor

    def set_class_weight_power(self, power: float) -> None:
        """Raise the class weights of the cross-entropy to a power."""
        self.class_weights = torch.tensor(self.config.class_weights, device=self.device) ** power

    def losses(
        self, x_t: torch.Tensor, y_t: torch.Tensor, x_a: torch.Tensor, y_a: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Losses of generators and segmentors.

        Args:
            x_t, x_a: unpaired normalised images, ``(N, 1, D, H, W)``.
            y_t, y_a: their targets, ``(N, D, H, W)``.

        Returns:
            (terms to minimise by name, images by name: "t", "a2t" and, where the generators learn, "t2a").
        """
        images = {"t": x_t, "a2t": x_a}
        terms = {}
        if self._generators_learn:
            images |= {"a2t": self.generator_a2t(x_a), "t2a": self.generator_t2a(x_t)}
            terms = self._alignment_losses(x_t, x_a, images)
        elif self.aligns:
            with torch.no_grad():
                images["a2t"] = self.generator_a2t(x_a)
        return terms | self._segmentor_losses(images, {"real": y_t, "syn": y_a}), images

    def _alignment_losses(
        self, x_t: torch.Tensor, x_a: torch.Tensor, images: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        config = self.config
        made = ((self.discriminator_t, images["a2t"]), (self.discriminator_a, images["t2a"]))
        terms = {
            "adversarial": config.adversarial_weight
            * sum(generator_loss(discriminator(image).float(), config.gan) for discriminator, image in made),
            "cycle": config.cycle_weight
            * (
                cycle_loss(x_a, self.generator_t2a(images["a2t"]).float())
                + cycle_loss(x_t, self.generator_a2t(images["t2a"]).float())
            ),
        }
        if config.identity_weight:
            unchanged = cycle_loss(x_t, self.generator_a2t(x_t).float()) + cycle_loss(
                x_a, self.generator_t2a(x_a).float()
            )
            terms["identity"] = config.identity_weight * unchanged
        return terms

    def _segmentor_losses(
        self, images: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        own = {"real": "t", "syn": "a2t"}
        distillations = [
            (teacher, student, stream)
            for teacher, student in (("syn", "real"), ("real", "syn"))
            if self._together
            and self.config.distillation in ("both", f"{teacher}-to-{student}")
            and self.config.distillation_weight
            for stream in {"teacher-stream": (own[teacher],), "student-stream": (own[student],)}.get(
                self.config.distillation_images, ("t", "a2t")
            )
        ]
        logits = {}
        for name, network in (("real", self.segmentor_real), ("syn", self.segmentor_syn)):
            streams = dict.fromkeys([own[name], *(stream for *pair, stream in distillations if name in pair)])
            for stream in streams:
                # Only S_syn's own stream carries gradient on to G_a2t.
                image = images[stream] if (name, stream) == ("syn", "a2t") else images[stream].detach()
                # Every stream is normalised by itself; what is kept for inference is how target images look, where the
                # segmentor sees any.
                with running_statistics(network, kept=stream == "t" or "t" not in streams):
                    logits[name, stream] = network(image.float()).float()
        terms = {
            name: segmentation_loss(logits[name, own[name]], targets[name], self.class_weights, sum_over_processes)
            for name in own
        }
        for teacher, student, stream in distillations:
            name = f"{teacher} to {student}"
            loss = distillation_loss(logits[teacher, stream], logits[student, stream], self.config.temperature)
            terms[name] = terms.get(name, 0.0) + self._distillation_weight() * loss / sum(
                (teacher, student) == one[:2] for one in distillations
            )
        return terms

    def _distillation_weight(self) -> float:
        ramp, steps = self.config.distillation_ramp, self.steps_done - self.config.pretrain_steps
        return self.config.distillation_weight * (min(1.0, steps / ramp) if ramp else 1.0)

    def step(
        self, x_t: torch.Tensor, y_t: torch.Tensor, x_a: torch.Tensor, y_a: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """One update of every part, in turn.  Arguments as for :meth:`losses`; returns the value of each term."""
        discriminators = (self.discriminator_t, self.discriminator_a)
        for network in discriminators:
            network.requires_grad_(False)
        with self._autocast():
            terms, images = self.losses(x_t, y_t, x_a, y_a)
        update(
            sum(terms.values()),
            {self.optimisers[name]: self._parameters_of[name] for name in self.optimisers if name != "discriminators"},
        )
        for network in discriminators:
            network.requires_grad_(True)
        if self._generators_learn:
            terms["discriminators"] = self._discriminator_loss(x_t, x_a, images)
            update(
                terms["discriminators"],
                {self.optimisers["discriminators"]: self._parameters_of["discriminators"]},
                None,
            )
        self.steps_done += 1
        return {name: value.detach() for name, value in terms.items()}

    def _discriminator_loss(
        self, x_t: torch.Tensor, x_a: torch.Tensor, images: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        shown = (
            (self.discriminator_t, x_t, self.pool_t.exchange(images["a2t"])),
            (self.discriminator_a, x_a, self.pool_a.exchange(images["t2a"])),
        )
        with self._autocast():
            return sum(
                discriminator_loss(discriminator(real).float(), discriminator(made.float()).float(), self.config.gan)
                for discriminator, real, made in shown
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def parts(self) -> dict[str, nn.Module]:
        """Networks that a bundle holds, by the bundle's part names."""
        return {
            name: getattr(self, name) for name in ("generator_a2t", "generator_t2a", "segmentor_real", "segmentor_syn")
        }

    @property
    def aligns(self) -> bool:
        """Whether S_syn sees translated images."""
        return self.config.alignment and (self._together or self.config.pretrain_alignment)

    @property
    def _generators_learn(self) -> bool:
        return self.config.alignment and self._together and not self.config.freeze_generators

    @property
    def _together(self) -> bool:
        return self.steps_done >= self.config.pretrain_steps

    def state(self) -> dict:
        """Everything that a resumed run needs, but for the data and the pools."""
        return {
            "networks": self.state_dict(),
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            "steps_done": self.steps_done,
        }

    def restore(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.load_state_dict(state["networks"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.steps_done = state["steps_done"]

    def pools(self) -> dict:
        """What the pools hold; every process has its own."""
        return {"t": self.pool_t.state(), "a": self.pool_a.state()}

    def restore_pools(self, state: dict) -> None:
        """Continue from :meth:`pools`."""
        self.pool_t.restore(state["t"], self.device)
        self.pool_a.restore(state["a"], self.device)
