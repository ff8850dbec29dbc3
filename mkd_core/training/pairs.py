"""The stream of training pairs: a patch of the target modality and a patch of the assistant modality, of different
hearts.

A pair is a function of the run's seed and its number alone.  So a resumed run goes on with the pairs that it has not
seen, and several processes share the very pairs that one would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch


class Patch(NamedTuple):
    """A piece of a volume: image ``(1, d, d, d)`` in [-1, 1], float32; target ``(d, d, d)``, uint8; which classes the
    target knows, ``(C,)`` bool, see :func:`mkd_core.method.losses.segmentation_loss`.
    """

    image: np.ndarray
    target: np.ndarray
    labelled: np.ndarray


class PatchSource(Protocol):
    """Where patches of one modality come from."""

    def draw(self, rng: np.random.Generator) -> Patch:
        """A patch."""


class Pairs(NamedTuple):
    """A batch of unpaired patches; images ``(N, 1, d, d, d)``, targets ``(N, d, d, d)``, the classes that they
    know ``(N, C)``, and the pairs' numbers in the run ``(N,)``.
    """

    x_t: torch.Tensor
    y_t: torch.Tensor
    labelled_t: torch.Tensor
    x_a: torch.Tensor
    y_a: torch.Tensor
    labelled_a: torch.Tensor
    numbers: torch.Tensor


@dataclass(frozen=True)
class PairStream(torch.utils.data.IterableDataset):
    """Batches of pairs, in order, without end.

    Attributes:
        target, assistant: sources; no assistant means that its patches are not needed, and repeats the target's.
        batch: pairs of all processes together.
        seed: of the run.
        first: number of the first pair.
        process, processes: this training process, and how many share the stream.
    """

    target: PatchSource
    assistant: PatchSource | None
    batch: int
    seed: int
    first: int = 0
    process: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[Pairs]:
        info = torch.utils.data.get_worker_info()
        reader, num_workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            torch.set_num_threads(1)
        # Batches go round the num_workers, and so does DataLoader: order is kept.
        start = self.first + reader * self.batch
        while True:
            numbers = range(start + self.process, start + self.batch, self.processes)
            yield self._pairs(numbers)
            start += num_workers * self.batch

    def _pairs(self, numbers: range) -> Pairs:
        columns: list[list[np.ndarray]] = [[], [], [], [], [], []]
        for number in numbers:
            pair: list[np.ndarray] = []
            for stream, source in enumerate((self.target, self.assistant)):
                # Each modality has a stream of its own: runs that differ in one of them see the same patches of the
                # other.
                pair += source.draw(np.random.default_rng((self.seed, number, stream))) if source else pair
            for column, array in zip(columns, pair):
                column.append(array)
        t, y_t, labelled_t, a, y_a, labelled_a = (torch.from_numpy(np.stack(column)) for column in columns)
        return Pairs(t, y_t, labelled_t, a, y_a, labelled_a, torch.tensor(list(numbers)))


def seed_of(run_seed: int, number: int, stream: int) -> int:
    """Seed of the augmentation of one patch of a pair; ``stream`` 0 is the target's, 1 the assistant's."""
    return int(np.random.SeedSequence((run_seed, number, stream, 1)).generate_state(1)[0])
