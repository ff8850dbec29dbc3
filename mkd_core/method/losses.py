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
    labelled: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy plus soft Dice loss.

    Where only some structures of an image are labelled, its background may hold the others.  The cross-entropy is then
    the marginal one, in which the probabilities of unlabelled structures join the background's, and the Dice part of a
    structure leaves out the images in which it is unlabelled: Shi, Xiao, Chen and Zhou, "Marginal loss and exclusion
    loss for partially supervised multi-organ segmentation", Medical Image Analysis 70 (2021).

    Args:
        logits: ``(N, C, D, H, W)``.
        target: ``(N, D, H, W)`` integer classes; :data:`mkd_core.structures.IGNORE` voxels count nowhere.
        class_weights: ``(C,)`` weights of the cross-entropy; None weighs all alike.
        total: completes sums over voxels of this batch where it is part of a larger one, see
            :func:`mkd_core.training.across_processes.sum_over_processes`.
        labelled: ``(N, C)`` bool, which classes the target of each image knows, background always; None for all.  Its
            voxels must hold no other ones.

    Returns:
        Scalar.  The cross-entropy is the weighted mean over voxels; 0 where no voxel counts.  The Dice part averages
        over the foreground classes present in the batch's targets: ``1 - 2 sum(p g) / (sum p + sum g)``, Milletari et
        al., "V-Net", 2016.
    """
    counted = target != IGNORE
    classes = torch.where(counted, target, 0).long()
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], dtype=logits.dtype, device=logits.device)
    log_probability = logits.log_softmax(dim=1)
    if labelled is not None:
        log_probability = _join_background(log_probability, labelled)
    cross_entropy = F.nll_loss(
        log_probability, target.long(), weight=class_weights, ignore_index=IGNORE, reduction="sum"
    )
    probability = log_probability.exp() * counted.unsqueeze(1)
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


def _join_background(log_probability: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """Log probabilities ``(N, C, D, H, W)`` in which the background takes in the classes that are not labelled, which
    are left without any.
    """
    known = labelled[:, :, None, None, None].clone()
    known[:, 0] = False
    background = log_probability.masked_fill(known, -torch.inf).logsumexp(dim=1, keepdim=True)
    # Finite, so that a weight of 0 makes 0 of it.
    structures = log_probability[:, 1:].masked_fill(~known[:, 1:], -1e4)
    return torch.cat([background, structures], dim=1)


def distillation_loss(
    teacher_logits: torch.Tensor,
    student_logits: torch.Tensor,
    temperature: float = 2.0,
    *,
    dice_weight: float = 0.0,
    foreground_weight: float = 1.0,
    least_confidence: float = 0.0,
    total: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
) -> torch.Tensor:
    """One-way distillation: the student learns the teacher's softened class probabilities; no gradient reaches the
    teacher.

    Args:
        teacher_logits, student_logits: ``(N, C, D, H, W)`` on the same images.
        temperature: softening T.
        dice_weight: of a Dice term between both segmentors' probabilities p and q (T = 1), the mean over structures of
            ``1 - (2 sum(p q) + 1) / (sum(p^2) + sum(q^2) + 1)``, which is 0 where they agree (Milletari et al.,
            "V-Net", 2016).
        foreground_weight: weight of a voxel that the teacher is sure is no background, where one that it is sure is
            background has 1; in between it is linear in the teacher's probability (T = 1).
        least_confidence: voxels whose largest probability the teacher puts lower (T = 1) do not count.
        total: as for :func:`segmentation_loss`.

    Returns:
        Scalar ``T^2 * mean over voxels of KL(softmax(teacher / T) || softmax(student / T))``, the mean weighted, plus
        the Dice term; 0 where no voxel counts.
    """
    teacher_logits = teacher_logits.detach()
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    student = F.log_softmax(student_logits / temperature, dim=1)
    divergence = temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    p = teacher_logits.softmax(dim=1)
    counted = (p.amax(dim=1) >= least_confidence).to(p.dtype)
    weights = counted * (1 + (foreground_weight - 1) * (1 - p[:, 0]))
    if not dice_weight:
        sums = total(torch.stack([(weights * divergence).sum(), weights.sum()]))
        return sums[0] / sums[1].clamp(min=1e-6)
    p, q = p[:, 1:] * counted.unsqueeze(1), student_logits.softmax(dim=1)[:, 1:] * counted.unsqueeze(1)
    axes = (0, 2, 3, 4)
    overlap, sizes = (p * q).sum(axes), p.square().sum(axes) + q.square().sum(axes)
    sums = total(torch.cat([(weights * divergence).sum().view(1), weights.sum().view(1), overlap, sizes]))
    overlap, sizes = sums[2:].view(2, -1).unbind()
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    return sums[0] / sums[1].clamp(min=1e-6) + dice_weight * dice.mean()


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


def discriminator_accuracy(
    real_score: torch.Tensor, fake_score: torch.Tensor, form: str = "least-squares"
) -> torch.Tensor:
    """Share of scores on the right side, of real and of made images alike: 0.5 is chance, 1 perfect.

    ``form`` as for :func:`generator_loss`; returns a scalar without gradient.
    """
    border = 0.0 if form == "cross-entropy" else 0.5
    right = (real_score > border).float().mean() + (fake_score <= border).float().mean()
    return 0.5 * right.detach()


def cycle_loss(image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of an image and itself after both translations.  Returns a scalar."""
    return (image - reconstruction).abs().mean()
