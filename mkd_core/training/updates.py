"""One update of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mkd_core.training.across_processes import average_gradients


def update(
    loss: torch.Tensor,
    parameters_of: Mapping[torch.optim.Optimizer, Sequence[nn.Parameter]],
    largest_gradient: float | None = 5.0,
) -> None:
    """Follow the gradient of a loss, averaged over processes.

    Args:
        loss: scalar.
        parameters_of: parameters of each optimiser that steps.
        largest_gradient: the gradients of an optimiser are scaled down to this norm; None leaves them as they are.
    """
    for optimiser in parameters_of:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser, parameters in parameters_of.items():
        average_gradients(parameters)
        if largest_gradient is not None:
            nn.utils.clip_grad_norm_(parameters, largest_gradient)
        optimiser.step()
