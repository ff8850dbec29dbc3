"""Online mutual knowledge distillation: generators, discriminators and both segmentors trained together.

One step, in the paper's terms (``t`` target, ``a`` assistant); :meth:`MutualDistillation.step` reads in this order:

    x_a2t = G_a2t(x_a),  x_t2a = G_t2a(x_t)
    L_G    = adversarial + cycle                                    -> both generators
    L_real = CE + Dice on (x_t, y_t)   + w KD(S_syn -> S_real)      -> S_real
    L_syn  = CE + Dice on (x_a2t, y_a) + w KD(S_real -> S_syn)      -> S_syn, and its supervised part also G_a2t
    L_D    on real and on (pooled) translated images                -> discriminators

Where the settings ask for cross supervision, each segmentor is also supervised on the other one's stream.

Li, Yu, Wang, Heng, AAAI 2020; the losses are in :mod:`mkd_core.method.losses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import nn

from mkd_core.method.losses import (
    cycle_loss,
    discriminator_accuracy,
    discriminator_loss,
    distillation_loss,
    generator_loss,
    segmentation_loss,
)
from mkd_core.method.networks import Stream, build, select_stream
from mkd_core.training.across_processes import running_statistics, share_batch_norm, sum_over_processes
from mkd_core.training.config import Generators, MethodConfig, NetworksConfig
from mkd_core.training.image_pool import ImagePool
from mkd_core.training.schedule import StepPlan
from mkd_core.training.updates import LARGEST_GRADIENT, update

#: Weight decay of the segmentors (AdamW), a tenth of PyTorch's default; chosen by hand.
SEGMENTOR_WEIGHT_DECAY = 1e-3

#: Decay of the second moments of generators and discriminators (Adam), as in CycleGAN.
_GENERATOR_BETA2 = 0.999

#: Loss terms by name, each a scalar.
Terms = dict[str, torch.Tensor]

#: Beginning of the names of terms that are no losses: how often a discriminator is right.
ACCURACY = "accuracy of "


@dataclass(frozen=True)
class Images:
    """Images of one step, each ``(N, 1, D, H, W)`` in [-1, 1].

    Attributes:
        t, a: real images of target and assistant.
        a2t: the assistant's images as S_syn sees them: translated by G_a2t, or as they are without image alignment.
        t2a: the target's images translated by G_t2a; None where the generators do not train.
    """

    t: torch.Tensor
    a: torch.Tensor
    a2t: torch.Tensor
    t2a: torch.Tensor | None = None

    def stream(self, name: str) -> torch.Tensor:
        """Images that segmentors see: ``"t"`` the target's, ``"a2t"`` the translated ones."""
        return {"t": self.t, "a2t": self.a2t}[name]


class _Distillation(NamedTuple):
    """One distillation term: who teaches whom on which stream of images."""

    teacher: str
    student: str
    stream: str


#: Stream of images on which each segmentor is supervised, and the other one.
_OWN_STREAM = {"real": "t", "syn": "a2t"}
_OTHER_STREAM = {"real": "a2t", "syn": "t"}

#: What normalisation per stream calls the streams.
_NORM_STREAM: dict[str, Stream] = {"t": "target", "a2t": "translated"}


@dataclass(frozen=True)
class Labelled:
    """Classes that the targets of a step know, each ``(N, C)`` bool, see :func:`segmentation_loss`; None for all."""

    t: torch.Tensor | None = None
    a: torch.Tensor | None = None


class MutualDistillation(nn.Module):
    """All networks of the method and one training step of each.

    Args:
        config: switches; with the scheme ``"translated-joint"`` both segmentors are one network, which has nothing to
            teach itself.
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
        classes = len(config.class_weights)
        self.generator_a2t = build(networks.architecture("generator"))
        self.generator_t2a = build(networks.architecture("generator"))
        self.discriminator_t = build(networks.architecture("discriminator"))
        self.discriminator_a = build(networks.architecture("discriminator"))
        self.segmentor_real = build(networks.architecture("segmentor_real", classes))
        one_segmentor = config.scheme == "translated-joint"
        self.segmentor_syn = (
            self.segmentor_real if one_segmentor else build(networks.architecture("segmentor_syn", classes))
        )
        self._deep_supervision = networks.deep_supervision > 0
        self._norm_per_stream = networks.segmentor_norm == "batch-per-stream"
        share_batch_norm(self)
        self.to(device)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from torch's stubs
        self.device = torch.device(device)
        self.class_weights = torch.tensor(config.class_weights, device=device)
        self.pool_t, self.pool_a = ImagePool(config.pool, seed=2 * seed + 1), ImagePool(config.pool, seed=2 * seed + 2)
        self._networks_of = {
            "generators": (self.generator_a2t, self.generator_t2a),
            "segmentors": tuple(dict.fromkeys((self.segmentor_real, self.segmentor_syn))),
            "discriminators": (self.discriminator_t, self.discriminator_a),
        }
        self._parameters_of = {part: _parameters(*networks) for part, networks in self._networks_of.items()}
        betas = (config.generator_beta1, _GENERATOR_BETA2)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "segmentors": torch.optim.AdamW(
                self._parameters_of["segmentors"], config.segmentor_lr, weight_decay=SEGMENTOR_WEIGHT_DECAY
            ),
            "generators": torch.optim.Adam(self._parameters_of["generators"], config.generator_lr, betas=betas),
            "discriminators": torch.optim.Adam(self._parameters_of["discriminators"], config.generator_lr, betas=betas),
        }

    def step(
        self,
        x_t: torch.Tensor,
        y_t: torch.Tensor,
        x_a: torch.Tensor,
        y_a: torch.Tensor,
        plan: StepPlan = StepPlan(),  # noqa: B008  (frozen)
        labelled: Labelled = Labelled(),
    ) -> Terms:
        """One update of every part that learns.

        Args:
            x_t, x_a: unpaired normalised images, ``(N, 1, D, H, W)``.
            y_t, y_a: their targets, ``(N, D, H, W)``.
            plan: what learns, and how fast.
            labelled: classes that the targets know.

        Returns:
            The value of each term, detached, and the accuracies of discriminators that learn.
        """
        self.set_lr(plan.lr)
        with _without_gradient(self.discriminator_t, self.discriminator_a):
            with self._autocast():
                terms, images = self.losses(x_t, y_t, x_a, y_a, plan, labelled)
            self._update(terms.values(), ["segmentors", *(["generators"] if plan.generators == "train" else [])])
        if plan.generators == "train":
            with self._autocast():
                terms["discriminators"], accuracies = self.discriminator_loss(images)
            self._update([terms["discriminators"]], ["discriminators"], clip=False)
            terms |= accuracies
        return {name: value.detach() for name, value in terms.items()}

    def losses(
        self,
        x_t: torch.Tensor,
        y_t: torch.Tensor,
        x_a: torch.Tensor,
        y_a: torch.Tensor,
        plan: StepPlan = StepPlan(),  # noqa: B008
        labelled: Labelled = Labelled(),
    ) -> tuple[Terms, Images]:
        """Losses of generators and segmentors.  Arguments as for :meth:`step`; returns (terms to minimise, images)."""
        images = self.translate(x_t, x_a, plan.generators)
        terms = self.generator_losses(images) if plan.generators == "train" else {}
        return terms | self.segmentor_losses(images, y_t, y_a, plan, labelled), images

    def translate(self, x_t: torch.Tensor, x_a: torch.Tensor, generators: Generators) -> Images:
        """Image alignment of a step: x_a2t and, where the generators train, x_t2a."""
        if generators == "off":
            return Images(x_t, x_a, x_a)
        if generators == "frozen":
            with torch.no_grad():
                return Images(x_t, x_a, self.generator_a2t(x_a))
        return Images(x_t, x_a, self.generator_a2t(x_a), self.generator_t2a(x_t))

    def generator_losses(self, images: Images) -> Terms:
        """L_G: adversarial, cycle and, where it has a weight, identity loss; ``images`` hold both translations."""
        assert images.t2a is not None
        config = self.config
        adversarial = generator_loss(self.discriminator_t(images.a2t).float(), config.gan) + generator_loss(
            self.discriminator_a(images.t2a).float(), config.gan
        )
        cycle = cycle_loss(images.a, self.generator_t2a(images.a2t).float()) + cycle_loss(
            images.t, self.generator_a2t(images.t2a).float()
        )
        terms = {"adversarial": config.adversarial_weight * adversarial, "cycle": config.cycle_weight * cycle}
        if config.identity_weight:
            identity = cycle_loss(images.t, self.generator_a2t(images.t).float()) + cycle_loss(
                images.a, self.generator_t2a(images.a).float()
            )
            terms["identity"] = config.identity_weight * identity
        return terms

    def segmentor_losses(
        self,
        images: Images,
        y_t: torch.Tensor,
        y_a: torch.Tensor,
        plan: StepPlan,
        labelled: Labelled = Labelled(),
    ) -> Terms:
        """L_real and L_syn: supervision of each segmentor on its own stream, and what they teach each other."""
        config = self.config
        distillations = self._distillations() if plan.distillation is not None else []
        logits = self._segment(images, distillations, both_streams=plan.cross_supervision > 0)
        weights = self.class_weights**plan.class_weight_power
        truth = {"t": (y_t, labelled.t), "a2t": (y_a, labelled.a)}

        def supervised(name: str, stream: str) -> torch.Tensor:
            return supervision_loss(logits[name, stream], *truth[stream], weights)

        terms = {name: supervised(name, stream) for name, stream in _OWN_STREAM.items()}
        if config.semantic_weight and plan.generators == "train":
            judges = [network for name, network in self._segmentors() if (name, "t") in logits]
            found = [self._semantic_loss(judge, images, y_a, labelled.a, weights) for judge in judges]
            terms["semantic"] = config.semantic_weight * torch.stack(found).mean()
        if plan.cross_supervision:
            for name, stream in _OTHER_STREAM.items():
                terms[f"{name} on {stream}"] = plan.cross_supervision * supervised(name, stream)
        learn = partial(
            distillation_loss,
            temperature=config.temperature,
            dice_weight=config.distillation_dice,
            foreground_weight=config.distillation_foreground,
            least_confidence=config.distillation_confidence,
            total=sum_over_processes,
        )
        distillation_weight = config.distillation_weight * (plan.distillation or 0.0)
        for teacher, student, stream in distillations:
            name = f"{teacher} to {student}"
            loss = learn(logits[teacher, stream][0], logits[student, stream][0])
            count = sum((teacher, student) == one[:2] for one in distillations)
            terms[name] = terms.get(name, 0.0) + distillation_weight * loss / count
        return terms

    def _semantic_loss(
        self,
        judge: nn.Module,
        images: Images,
        y_a: torch.Tensor,
        labelled: torch.Tensor | None,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """Whether a segmentor, as it is at inference on target images, finds the assistant's labels in translated ones;
        only G_a2t learns from it: Hoffman et al., "CyCADA: Cycle-Consistent Adversarial Domain Adaptation", ICML 2018,
        with labels in the place of the pretrained network's answers.
        """
        learning = judge.training
        select_stream(judge, "target")
        judge.eval()
        with _without_gradient(judge):
            logits = segment(judge, images.a2t.float(), deep_supervision=False)
        judge.train(learning)
        return supervision_loss(logits, y_a, labelled, weights)

    def _segmentors(self) -> tuple[tuple[str, nn.Module], ...]:
        return ("real", self.segmentor_real), ("syn", self.segmentor_syn)

    def discriminator_loss(self, images: Images) -> tuple[torch.Tensor, Terms]:
        """L_D of both discriminators on real images and on translated ones of this and earlier steps, and how often
        each is right.
        """
        assert images.t2a is not None
        gan = self.config.gan
        fake_t, fake_a = self.pool_t.exchange(images.a2t), self.pool_a.exchange(images.t2a)
        scores_t = self.discriminator_t(images.t).float(), self.discriminator_t(fake_t.float()).float()
        scores_a = self.discriminator_a(images.a).float(), self.discriminator_a(fake_a.float()).float()
        accuracies = {
            f"{ACCURACY}D_t": discriminator_accuracy(*scores_t, gan),
            f"{ACCURACY}D_a": discriminator_accuracy(*scores_a, gan),
        }
        return discriminator_loss(*scores_t, gan) + discriminator_loss(*scores_a, gan), accuracies

    def _distillations(self) -> list[_Distillation]:
        """Distillation terms that the settings ask for."""
        if not self.config.distillation_weight or self.segmentor_real is self.segmentor_syn:
            return []
        distillations = []
        for teacher, student in (("syn", "real"), ("real", "syn")):
            streams = {
                "teacher-stream": (_OWN_STREAM[teacher],),
                "student-stream": (_OWN_STREAM[student],),
                "both": ("t", "a2t"),
            }[self.config.distillation_images]
            if self.config.distillation in ("both", f"{teacher}-to-{student}"):
                distillations += [_Distillation(teacher, student, stream) for stream in streams]
        return distillations

    def _segment(
        self, images: Images, distillations: list[_Distillation], both_streams: bool = False
    ) -> dict[tuple[str, str], list[torch.Tensor]]:
        """Logits ``(N, C, D, H, W)`` by (segmentor, stream), of every segmentor on its own stream and on those of the
        distillation terms that it takes part in, or on both; those of coarser levels follow them.
        """
        logits = {}
        for name, network in self._segmentors():
            others = [one.stream for one in distillations if name in (one.teacher, one.student)]
            streams = dict.fromkeys([_OWN_STREAM[name], *others, *(_NORM_STREAM if both_streams else ())])
            for stream in streams:
                image = images.stream(stream)
                # Only S_syn's own stream carries gradient on to G_a2t.
                if (name, stream) != ("syn", "a2t") or not self.config.segmentation_trains_generator:
                    image = image.detach()
                select_stream(network, _NORM_STREAM[stream])
                # Every stream is normalised by itself; what is kept for inference is how target images look, where the
                # segmentor sees any, unless it keeps both.
                with running_statistics(network, kept=self._norm_per_stream or stream == "t" or "t" not in streams):
                    logits[name, stream] = segment(network, image.float(), self._deep_supervision)
        return logits

    def _update(self, losses: Iterable[torch.Tensor], parts: list[str], clip: bool = True) -> None:
        parameters = {self.optimisers[part]: self._parameters_of[part] for part in parts}
        clipped = None
        if self.config.clip == "network":
            clipped = [_parameters(network) for part in parts for network in self._networks_of[part]]
        update(reduce(torch.add, losses), parameters, LARGEST_GRADIENT if clip else None, clipped)

    def set_lr(self, factor: float) -> None:
        """Scale all learning rates to ``factor`` times their peak."""
        for name, optimiser in self.optimisers.items():
            peak = self.config.segmentor_lr if name == "segmentors" else self.config.generator_lr
            for group in optimiser.param_groups:
                group["lr"] = peak * factor

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def parts(self) -> dict[str, nn.Module]:
        """Networks that a bundle holds, by the bundle's part names."""
        return {
            name: getattr(self, name) for name in ("generator_a2t", "generator_t2a", "segmentor_real", "segmentor_syn")
        }

    def state(self) -> dict[str, Any]:
        """Networks and optimisers: what a resumed run needs and all processes share."""
        return {
            "networks": self.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.load_state_dict(state["networks"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])

    def pools(self) -> dict[str, Any]:
        """What the pools hold; every process has its own."""
        return {"t": self.pool_t.state(), "a": self.pool_a.state()}

    def restore_pools(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`pools`."""
        self.pool_t.restore(state["t"], self.device)
        self.pool_a.restore(state["a"], self.device)


def segment(network: nn.Module, image: torch.Tensor, deep_supervision: bool) -> list[torch.Tensor]:
    """Logits of a segmentor, float32, those of coarser levels after them if they are supervised too."""
    found = network.levels(image) if deep_supervision else [network(image)]  # type: ignore[operator]
    return [logits.float() for logits in found]


def supervision_loss(
    levels: list[torch.Tensor], target: torch.Tensor, labelled: torch.Tensor | None, weights: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy + Dice, the mean over levels of which each counts half as much as the finer one before it, as in
    Isensee et al., "nnU-Net", Nature Methods 18 (2021).

    Args:
        levels: logits, of the target's resolution first and of half the resolution each time, but for axes that the
            network does not halve.
        target: ``(N, D, H, W)``; coarser levels see every second voxel of the finer one's along the halved axes.
        labelled: as for :func:`segmentation_loss`.
        weights: of the classes, ``(C,)``.
    """
    losses = []
    for number, logits in enumerate(levels):
        z, y, x = (fine // coarse for fine, coarse in zip(target.shape[1:], logits.shape[2:]))
        seen = target[:, ::z, ::y, ::x]
        losses.append(segmentation_loss(logits, seen, weights, sum_over_processes, labelled) * 0.5**number)
    return reduce(torch.add, losses) / sum(0.5**number for number in range(len(losses)))


def _parameters(*networks: nn.Module) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters()]


@contextmanager
def _without_gradient(*networks: nn.Module) -> Iterator[None]:
    """The networks judge, but do not learn, inside the ``with`` block."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
