"""One batch over several processes: sums, batch normalisation and gradients as if a single process held all of it.

Every process holds the same number of patches.  With no process group, or one of a single process, all of this costs
nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def process_count() -> int:
    """Training processes, on all machines."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    """Sum over processes.

    What each process does with it depends on the values of all, so gradients are summed as well.
    """

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        return _Sum.apply(gradient.contiguous())


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Element-wise sum over processes, any shape; gradients flow back to every process."""
    total: torch.Tensor = _Sum.apply(values) if process_count() > 1 else values
    return total


class SharedBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation with the statistics of all processes' patches, on any device.

    Parameters and buffers are those of ``torch.nn.BatchNorm3d``; ``torch.nn.SyncBatchNorm`` does the same on GPUs only.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise ``(N, C, D, H, W)``."""
        if not self.training or process_count() == 1:
            return super().forward(values)
        wide = values.float()
        count = wide.numel() // wide.shape[1] * process_count()
        axes = (0, 2, 3, 4)
        mean = sum_over_processes(wide.sum(axes)) / count
        variance = sum_over_processes((wide - mean.view(1, -1, 1, 1, 1)).square().sum(axes)) / count
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        normalised = (wide - mean.view(1, -1, 1, 1, 1)) * torch.rsqrt(variance + self.eps).view(1, -1, 1, 1, 1)
        return (normalised * self.weight.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)).to(values.dtype)


def share_batch_norm(network: nn.Module) -> nn.Module:
    """Give every batch normalisation of a network the statistics of all processes, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = SharedBatchNorm3d
    return network


@contextlib.contextmanager
def running_statistics(network: nn.Module, kept: bool) -> Iterator[None]:
    """Batch normalisation inside the ``with`` block adds to its running statistics only if ``kept``."""
    modules = [] if kept else [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [module.momentum for module in modules]
    for module in modules:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in zip(modules, momenta):
            module.momentum = momentum


def freeze_batch_norm(network: nn.Module, fixed: bool) -> None:
    """Let batch normalisation take its running statistics, as it does at inference, and leave them as they are; or let
    it measure those of each batch.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.train(not fixed)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over processes, in one message."""
    if process_count() == 1:
        return
    gradients = [p.grad if p.grad is not None else p.new_zeros(p.shape) for p in parameters if p.requires_grad]
    if not gradients:
        return
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(together)
    together /= process_count()
    for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; all get the same answer."""
    if process_count() == 1:
        return flag
    votes = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes)
    return bool(votes > 0)


def gather_bytes(data: bytes, device: torch.device) -> list[bytes]:
    """What every process gave, in order of the processes; all get the same list."""
    if process_count() == 1:
        return [data]
    own_length = torch.tensor([len(data)], device=device)
    lengths = [torch.zeros_like(own_length) for _ in range(process_count())]
    dist.all_gather(lengths, own_length)
    longest = max(int(length) for length in lengths)
    own = torch.zeros(longest, dtype=torch.uint8, device=device)
    own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
    gathered = [torch.empty_like(own) for _ in lengths]
    dist.all_gather(gathered, own)
    return [one[: int(length)].cpu().numpy().tobytes() for one, length in zip(gathered, lengths)]
