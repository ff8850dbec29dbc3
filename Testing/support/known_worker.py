"""The worker with the known bundle in place of weights, as a program: python known_worker.py [slow | stuck]."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn

from mkd_core.worker import BundleStore, Worker, protocol_streams
from Testing.support.known_heart import KnownBundle


class Pause(nn.Module):
    """A layer that takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return image


class Slow(nn.Module):
    """A generator of many layers, ten minutes in all."""

    strides = (2, 2, 2)

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*[Pause(600 / layers) for _ in range(layers)])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)


class KnownStore(BundleStore):
    """Gives the known bundle for every path."""

    def __init__(self, speed: str) -> None:
        super().__init__()
        layers = {"slow": 6_000, "stuck": 1}.get(speed)
        self.bundle = KnownBundle() if layers is None else KnownBundle(generator_t2a=Slow(layers))

    def get(self, path: Path) -> KnownBundle:
        return self.bundle


if __name__ == "__main__":
    streams = protocol_streams()
    print("a library that prints")
    Worker(*streams, KnownStore(sys.argv[1] if len(sys.argv) > 1 else "")).serve()
