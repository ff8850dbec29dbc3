"""All losses of the method: segmentation, mutual knowledge distillation, adversarial and cycle-consistency terms.

    L_real = CE + Dice on (x_t, y_t)       + w * L_kd(S_syn  -> S_real)
    L_syn  = CE + Dice on (x_a2t, y_a)     + w * L_kd(S_real -> S_syn)
    L_G    = L_adv(G_a2t, D_t) + L_adv(G_t2a, D_a) + lambda * (L_cyc(x_a) + L_cyc(x_t))

Li, Yu, Wang, Heng, "Towards Cross-modality Medical Image Segmentation with Online Mutual Knowledge Distillation", AAAI
2020.  The softened Kullback-Leibler term is Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
2015.  Adversarial terms are those of Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, or of
Goodfellow et al., "Generative Adversarial Nets", 2014; cycle consistency is Zhu et al., "Unpaired Image-to-Image
Translation using Cycle-Consistent Adversarial Networks", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mkd_core.structures import IGNORE


def segmentation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    total: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
) -> torch.Tensor:
    """Cross-entropy plus soft Dice loss.

    Args:
        logits: ``(N, C, D, H, W)``.
        target: ``(N, D, H, W)`` integer classes; :data:`mkd_core.structures.IGNORE` voxels count nowhere.
        class_weights: ``(C,)`` weights of the cross-entropy; None weighs all alike.
        total: completes sums over voxels of this batch where it is part of a larger one, see
            :func:`mkd_core.training.across_processes.sum_over_processes`.

    Returns:
        Scalar.  The cross-entropy is the weighted mean over voxels; 0 where no voxel counts.  The Dice part averages
        over the foreground classes present in the batch's targets: ``1 - 2 sum(p g) / (sum p + sum g)``, Milletari et
        al., "V-Net", 2016.
    """
    counted = target != IGNORE
    classes = torch.where(counted, target, 0).long()
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], dtype=logits.dtype, device=logits.device)
    cross_entropy = F.cross_entropy(logits, target.long(), weight=class_weights, ignore_index=IGNORE, reduction="sum")
    probability = logits.softmax(dim=1) * counted.unsqueeze(1)
    truth = F.one_hot(classes, logits.shape[1]).movedim(-1, 1) * counted.unsqueeze(1)
    axes = (0, 2, 3, 4)
    overlap, predicted, true = (probability * truth).sum(axes), probability.sum(axes), truth.sum(axes).to(logits.dtype)
    sums = total(torch.cat([cross_entropy.view(1), overlap, predicted, true]))
    overlap, predicted, true = sums[1:].view(3, -1).unbind()
    cross_entropy = sums[0] / (true * class_weights).sum().clamp(min=1e-6)
    present = true[1:] > 0
    if not present.any():
        return cross_entropy
    dice = 1 - (2 * overlap[1:] + 1) / (predicted[1:] + true[1:] + 1)
    return cross_entropy + dice[present].mean()


def distillation_loss(
    teacher_logits: torch.Tensor, student_logits: torch.Tensor, temperature: float = 2.0
) -> torch.Tensor:
    """One-way distillation: the student learns the teacher's softened class probabilities; no gradient reaches the
    teacher.

    Args:
        teacher_logits, student_logits: ``(N, C, D, H, W)`` on the same images.
        temperature: softening T.

    Returns:
        Scalar ``T^2 * mean over voxels of KL(softmax(teacher / T) || softmax(student / T))``.
    """
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    student = F.log_softmax(student_logits / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * divergence.mean()


def generator_loss(fake_score: torch.Tensor, form: str = "least-squares") -> torch.Tensor:
    """Loss of a generator: its images should score 1, or be taken for real.

    Args:
        fake_score: the discriminator's scores, any shape.
        form: ``"least-squares"``, or ``"cross-entropy"``, which takes scores for logits (Goodfellow et al., 2014,
            non-saturating).

    Returns:
        Scalar.
    """
    if form == "cross-entropy":
        return F.softplus(-fake_score).mean()
    return (fake_score - 1).square().mean()


def discriminator_loss(real_score: torch.Tensor, fake_score: torch.Tensor, form: str = "least-squares") -> torch.Tensor:
    """Loss of a discriminator: real scores 1, made scores 0; halved as in CycleGAN.

    ``form`` as for :func:`generator_loss`; returns a scalar.
    """
    if form == "cross-entropy":
        return 0.5 * (F.softplus(-real_score).mean() + F.softplus(fake_score).mean())
    return 0.5 * ((real_score - 1).square().mean() + fake_score.square().mean())


def cycle_loss(image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of an image and itself after both translations.  Returns a scalar."""
    return (image - reconstruction).abs().mean()
