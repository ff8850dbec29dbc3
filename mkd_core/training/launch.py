"""How a run starts on its device and processes, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from mkd_core.errors import InputError
from mkd_core.inference.execution import choose_device
from mkd_core.training.config import TrainingConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launch(config: TrainingConfig) -> Fabric:
    """Lightning Fabric with this run's device and processes; under torchrun it takes torchrun's.

    Raises:
        InputError: it is not installed, or a batch cannot be shared evenly.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "Lightning Fabric, which runs the training, is not installed.",
            "Install it by pip install 'mkd-core[train]'.",
        ) from error
    device = choose_device(config.run.device)
    processes, nodes = config.run.processes, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    several = processes * nodes > 1
    for stage in config.stages:
        if stage.batch % (processes * nodes):
            raise InputError(f"A batch of {stage.batch} cannot be shared evenly by {processes * nodes} processes.")
    devices = [device.index] if device.index is not None and not several else processes
    fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp" if several else "auto")
    fabric.launch()
    torch.set_num_threads(config.run.threads or max(1, (os.cpu_count() or 1) // processes))
    return fabric


def leave_signals_to_the_run(_: int) -> None:
    """For processes that read patches: Ctrl-C reaches every process of a terminal, and a job scheduler's SIGTERM every
    process of a job; the training process decides, and its readers end with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _handling(handlers: dict[int, Callable[[int, FrameType | None], Any]]) -> Iterator[None]:
    usual: dict[int, Any] = {}
    try:
        for number, handler in handlers.items():
            usual[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        pass
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the ``with`` block as Ctrl-C does, by KeyboardInterrupt."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling({signal.SIGTERM: interrupt}):
        yield


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a flag, which the ``with`` block gets a function to ask for.  A second Ctrl-C does
    what it usually does; SIGTERM may come more than once, as launchers pass it on to processes that got it themselves.
    """
    asked: list[int] = []
    usual = signal.getsignal(signal.SIGINT)

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, usual)

    with _handling({signal.SIGINT: ask, signal.SIGTERM: ask}):
        yield lambda: bool(asked)
