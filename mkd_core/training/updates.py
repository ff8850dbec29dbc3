"""One update of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mkd_core.method.losses import segmentation_loss
from mkd_core.training.across_processes import average_gradients

#: Norm to which gradients are scaled down.
LARGEST_GRADIENT = 5.0


def update(
    loss: torch.Tensor,
    parameters_of: Mapping[torch.optim.Optimizer, Sequence[nn.Parameter]],
    largest_gradient: float | None = LARGEST_GRADIENT,
    clipped: Iterable[Sequence[nn.Parameter]] | None = None,
) -> None:
    """Follow the gradient of a loss, averaged over processes.

    Args:
        loss: scalar.
        parameters_of: parameters of each optimiser that steps.
        largest_gradient: gradients are scaled down to this norm; None leaves them as they are.
        clipped: parameters whose gradients have that norm together; None for those of each optimiser.
    """
    for optimiser in parameters_of:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for parameters in parameters_of.values():
        average_gradients(parameters)
    if largest_gradient is not None:
        for together in parameters_of.values() if clipped is None else clipped:
            nn.utils.clip_grad_norm_(together, largest_gradient)
    for optimiser in parameters_of:
        optimiser.step()


def supervised_step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    lr: float,
    image: torch.Tensor,
    target: torch.Tensor,
    class_weights: torch.Tensor,
) -> float:
    """One step of a network that learns alone, from labels, in bfloat16; returns its loss.

    Args:
        network: that learns.
        optimiser: of all its parameters.
        lr: learning rate of this step.
        image: what the network is given, ``(N, C, D, H, W)``.
        target: labels, ``(N, D, H, W)``.
        class_weights: of the cross-entropy, ``(C,)``.
    """
    for group in optimiser.param_groups:
        group["lr"] = lr
    with torch.autocast(image.device.type, torch.bfloat16):
        logits = network(image)
    loss = segmentation_loss(logits.float(), target, class_weights)
    update(loss, {optimiser: list(network.parameters())}, largest_gradient=None)
    return float(loss.detach())


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average for :class:`torch.optim.swa_utils.AveragedModel`, which follows quickly at first;
    counters are copied.

    Args:
        decay: in the long run, 0 to 1.
    """

    def update_averages(averages: Any, currents: Any, count: Any) -> None:
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        for average, current in zip(averages, currents):
            if average.is_floating_point():
                average.lerp_(current.to(average.dtype), weight)
            else:
                average.copy_(current)

    return update_averages
