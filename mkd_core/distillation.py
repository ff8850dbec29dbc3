"""Losses of the two segmentors: supervised cross-entropy + Dice, and mutual knowledge distillation.

    L_real = CE + Dice on (x_t, y_t)       + w * L_kd(S_syn  -> S_real)
    L_syn  = CE + Dice on (x_a2t, y_a)     + w * L_kd(S_real -> S_syn)

Li, Yu, Wang, Heng, "Towards Cross-modality Medical Image Segmentation with Online Mutual Knowledge Distillation", AAAI 2020.  The softened
Kullback-Leibler term is Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mkd_core.structures import IGNORE


def segmentation_loss(logits: torch.Tensor, target: torch.Tensor, class_weights: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy plus soft Dice loss.

    Args:
        logits: ``(N, C, D, H, W)``.
        target: ``(N, D, H, W)`` integer classes; :data:`mkd_core.structures.IGNORE` voxels count nowhere.
        class_weights: ``(C,)`` weights of the cross-entropy; None weighs all alike.

    Returns:
        Scalar.  The Dice part averages over the foreground classes present in the batch's targets:
        ``1 - 2 sum(p g) / (sum p + sum g)``, Milletari et al., "V-Net", 2016.
    """
    counted = target != IGNORE
    cross_entropy = F.cross_entropy(logits, target.long(), weight=class_weights, ignore_index=IGNORE)
    probability = logits.softmax(dim=1) * counted.unsqueeze(1)
    truth = F.one_hot(torch.where(counted, target, 0).long(), logits.shape[1]).movedim(-1, 1) * counted.unsqueeze(1)
    axes = (0, 2, 3, 4)
    overlap = (probability * truth).sum(axes)[1:]
    size = (probability.sum(axes) + truth.sum(axes))[1:]
    present = truth.sum(axes)[1:] > 0
    if not present.any():
        return cross_entropy
    dice = 1 - (2 * overlap + 1) / (size + 1)
    return cross_entropy + dice[present].mean()


def distillation_loss(teacher_logits: torch.Tensor, student_logits: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """One-way distillation: the student learns the teacher's softened class probabilities; no gradient reaches the teacher.

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
