"""Segment what waits in a ledger, by a cluster of Dask workers that keep the weights loaded.

This process alone writes the ledger.  It leases a few rows more than there are workers, hands them out one by one, and
enters what comes back; so a few rows are at stake at any moment, whatever ends.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import psutil
from distributed import (
    Client,
    Future,
    KilledWorker,
    Nanny,
    Scheduler,
    Security,
    SpecCluster,
    Worker,
    WorkerPlugin,
    get_worker,
)
from distributed.system import MEMORY_LIMIT

from mkd_core.archive import study
from mkd_core.archive.ledger import Ledger, Outcome, Shard, Task, process_name
from mkd_core.archive.progress import Progress, enter_if_complete, fix_settings, progress_of, take_over_abandoned
from mkd_core.archive.study import Settings
from mkd_core.errors import DeviceError, MKDError
from mkd_core.protocol import SegmentationOptions

#: Tasks that are handed out, per worker: one to work on, one to begin with at once.
_WINDOW_PER_WORKER = 2

#: Seconds between two looks at leases: ours are renewed, those of the dead are taken over.
_LOOK_AFTER_LEASES_S = 60.0

#: Seconds after which the workers of a cluster are counted again, which may get more.
_COUNT_WORKERS_EVERY_S = 5.0

#: Seconds without news after which the progress is shown again.
_TICK_S = 1.0

#: Memory that a worker needs for volumes of the usual size, bytes; there are no more workers by default than fit.
_USUAL_BYTES = 3 << 30

#: Studies after which a worker gives back what it keeps, which costs the next one a fifth of a second of page faults.
_GIVE_BACK_EVERY = 15

#: Share of its limit that a worker keeps between two studies at most.
_KEPT_SHARE = 0.75

#: Seconds in which Dask replaces a dead worker, if it does; we start anew after that.
_COMES_BACK_WITHIN_S = 20.0

#: So many starts of all workers without any result are enough.
_STARTS_IN_VAIN = 3

#: Seconds in which a scheduler that is running already answers.
_ANSWERS_WITHIN_S = 60

#: Seconds that new workers may take to answer.
_STARTS_WITHIN_S = 900

_PLUGIN = "mkd-archive"


@dataclass(frozen=True)
class Engine:
    """Where the work is done.

    Attributes:
        workers: processes on this computer, each with one thread; None for as many as processors and memory allow.
        gpus: "all" or a number of graphics cards of this computer, one process each; empty for none.
        scheduler: address of a running Dask scheduler; empty for processes of our own.
        memory: of a worker, bytes, beyond which it is ended and the study counts as one that kills workers; None for an
            even share of this computer's.
        dashboard: show Dask's pages on the loopback.
    """

    workers: int | None = None
    gpus: str = ""
    scheduler: str = ""
    memory: int | None = None
    dashboard: bool = False


def run(
    ledger: Ledger,
    settings: Settings,
    engine: Engine,
    *,
    shard: Shard | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Segment all that waits.  Whatever happens to this process or to its workers, the next call goes on.

    Args:
        ledger: what there is to do.
        settings: what results depend on; those of the first run hold.
        engine: where.
        shard: do only this part.
        progress: called about once a second.

    Raises:
        InputError: the settings are not those of the first run.
        MKDError: no worker can work: no device, no memory, no disk; the rows wait.
    """
    if not engine.scheduler:
        _environments(engine)  # a card that is not there is told before the settings are fixed
    fix_settings(ledger, settings)
    this = _Run(ledger, settings, engine, shard or Shard(), progress)
    try:
        return this.work()
    finally:
        this.let_go()


class _Run:
    """One call of :func:`run`."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        engine: Engine,
        shard: Shard,
        show: Callable[[Progress], None] | None,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._engine = engine
        self._shard = shard
        self._show = show
        self._owner = process_name()
        self._handed_out: dict[Future, Task] = {}
        self._finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._looked = -math.inf

    def work(self) -> Progress:
        self._look_after_leases()
        progress = self._progress()
        if self._ledger.state_counts(self._shard)["waiting"] == 0:
            return progress
        in_vain = 0
        is_done = False
        while not is_done:
            before = progress.finished
            with _cluster(self._engine, self._settings, self._ledger.folder) as client:
                progress.dashboard = client.dashboard_link if self._engine.dashboard else ""
                is_done = self._work_with(client, progress)
            in_vain = in_vain + 1 if progress.finished == before else 0
            if not is_done:
                self.let_go()
                self._handed_out = {}
                self._finished = queue.SimpleQueue()
            if in_vain >= _STARTS_IN_VAIN:
                raise MKDError(
                    "The workers die before they have segmented anything.", "Give them more memory: --memory."
                )
        final = self._progress()
        final.finished, final.seconds, final.loads = progress.finished, progress.seconds, progress.loads
        return final

    def _work_with(self, client: Client, progress: Progress) -> bool:
        """Segment what waits; False if workers have died for good before that was done."""
        start = time.monotonic() - progress.seconds
        complete_at = time.monotonic()
        counted_at = -math.inf
        while True:
            if time.monotonic() - counted_at > _COUNT_WORKERS_EVERY_S:
                counted_at = time.monotonic()
                progress.workers = len(client.nthreads())
            self._hand_out(client, max(1, progress.workers) * _WINDOW_PER_WORKER)
            if not self._handed_out:
                return True
            outcomes = self._collect(progress)
            progress.finished += self._ledger.commit(self._owner, outcomes)
            for one in outcomes:
                progress.done += one.state == "done"
                progress.failed += one.state == "failed"
            progress.seconds = time.monotonic() - start
            if self._show is not None:
                self._show(progress)
            self._look_after_leases()
            if not _has_dead_workers(client):
                complete_at = time.monotonic()
            elif time.monotonic() - complete_at > _COMES_BACK_WITHIN_S:
                return False

    def let_go(self) -> None:
        """Enter what came to its end although we did not hear of it any more, and let the rest of our rows wait."""
        for identifier in self._ledger.leased(self._owner):
            enter_if_complete(self._ledger, self._settings, identifier, self._owner)
        self._ledger.release(self._owner)

    def _progress(self) -> Progress:
        return progress_of(self._ledger, self._shard)

    def _hand_out(self, client: Client, window: int) -> None:
        room = window - len(self._handed_out)
        if room <= 0:
            return
        for task in self._ledger.claim(self._owner, room, self._shard):
            future = client.submit(
                _process,
                task,
                key=("segment", task.number, task.attempt, self._owner),
                pure=False,
                retries=0,
            )
            self._handed_out[future] = task
            future.add_done_callback(self._finished.put)

    def _collect(self, progress: Progress) -> list[Outcome]:
        """What has come back since the last call, waiting a moment for it."""
        outcomes = []
        try:
            future = self._finished.get(timeout=_TICK_S)
            while True:
                outcome = self._take(future, progress)
                if outcome is not None:
                    outcomes.append(outcome)
                future = self._finished.get_nowait()
        except queue.Empty:
            return outcomes

    def _take(self, future: Future, progress: Progress) -> Outcome | None:
        """The outcome of a task; None if it will be tried again."""
        task = self._handed_out.pop(future)
        try:
            if future.status == "finished":
                outcome, worker, loads = future.result()
                progress.loads[worker] = loads
                return outcome
            if future.status == "cancelled":
                raise MKDError(
                    "The connection to the Dask scheduler was lost.", "Start the same command again: it goes on."
                )
            error = future.exception()
        finally:
            future.release()
        if isinstance(error, KilledWorker):
            self._worker_died(task)
            return None
        if isinstance(error, MKDError):  # of the worker or the disk: the next study would fare no better
            raise error
        raise MKDError(f"A worker failed before it began to segment ({type(error).__name__}: {error}).") from error

    def _worker_died(self, task: Task) -> None:
        """It is the study's fault only if the worker had begun with it, and not come to its end."""
        folder = self._ledger.folder
        if not enter_if_complete(self._ledger, self._settings, task.id, self._owner):
            if study.was_started(folder, task.id):
                self._ledger.count_crash(self._owner, task.id)
            else:
                self._ledger.release(self._owner, [task.id])
        study.sweep(folder, task.id)

    def _look_after_leases(self) -> None:
        if time.monotonic() - self._looked < _LOOK_AFTER_LEASES_S:
            return
        self._looked = time.monotonic()
        self._ledger.renew(self._owner)
        take_over_abandoned(self._ledger, self._settings)


# ---- in the workers ----


def _process(task: Task) -> tuple[Outcome, str, int]:
    """Segment one series in a worker; returns the outcome, the worker's process and how often it has loaded weights."""
    prepared: _Prepared = get_worker().plugins[_PLUGIN]
    outcome = study.process(prepared.folder, task, prepared.settings, prepared.bundle, prepared.options)
    prepared.give_back()
    if outcome.reason == "internal_error" and prepared.uses_gpu:
        os._exit(1)  # an error may leave a graphics card unusable for this process: try again in a new one
    return outcome, f"{platform.node()}:{os.getpid()}", prepared.loads


class _Prepared(WorkerPlugin):
    """What a worker keeps between studies: the weights, loaded once.

    Args:
        settings: of the run.
        folder: of the run, where the worker sees it too.
        uses_gpu: None for what the worker finds.

    Attributes:
        most_kept: memory that the worker keeps between two studies at most, bytes.
    """

    name = _PLUGIN
    loads = 0
    studies = 0
    most_kept = 0

    def __init__(self, settings: Settings, folder: Path, uses_gpu: bool | None) -> None:
        self.settings = settings
        self.folder = folder
        self.uses_gpu = uses_gpu

    def setup(self, worker: Worker) -> None:
        """Called once in every worker, before its first task."""
        import SimpleITK as sitk
        import torch

        from mkd_core.inference.memory import retain_memory

        retain_memory()
        torch.set_num_threads(1)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        has_gpu = torch.cuda.is_available()
        if self.uses_gpu and not has_gpu:
            raise DeviceError("The worker sees no graphics card.")
        self.uses_gpu = has_gpu if self.uses_gpu is None else self.uses_gpu
        options = SegmentationOptions(device="auto" if self.uses_gpu else "cpu", threads=1)
        self.bundle, self.options = study.prepare(self.settings, options)
        self.loads += 1
        self.most_kept = _resident() + _USUAL_BYTES
        if limit := worker.memory_manager.memory_limit:
            self.most_kept = min(self.most_kept, int(_KEPT_SHARE * limit))

    def give_back(self) -> None:
        """Give back what studies have left, now and then, and at once what an unusually large one has.

        The next study uses again what the last one left.  But memory that is freed breaks into pieces of which not all
        fit, so that a little more is kept from study to study.
        """
        from mkd_core.inference.memory import release_memory

        self.studies += 1
        if self.studies % _GIVE_BACK_EVERY == 0 or _resident() > self.most_kept:
            release_memory()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


# ---- the cluster ----


@contextlib.contextmanager
def _cluster(engine: Engine, settings: Settings, folder: Path) -> Iterator[Client]:
    """A client of a cluster whose workers are ready.

    Raises:
        MKDError: no scheduler, or no worker that can work.
    """
    with contextlib.ExitStack() as stack:
        if engine.scheduler:
            client = stack.enter_context(_connected(engine.scheduler))
        else:
            stack.enter_context(dask.config.set(_OWN_CLUSTER))
            specification = _specification(engine)
            try:
                cluster = stack.enter_context(
                    SpecCluster(silence_logs=logging.CRITICAL, scheduler_sync_interval=60, **specification)
                )
            except RuntimeError as error:  # one of them died on the way
                raise MKDError("The workers do not start.", "Start the same command again.") from error
            client = stack.enter_context(Client(cluster))
            try:
                client.wait_for_workers(len(specification["workers"]), timeout=_STARTS_WITHIN_S)
            except TimeoutError as error:
                raise MKDError("The workers do not start.", "Try fewer of them: --workers 1.") from error
        uses_gpu = None if engine.scheduler else bool(engine.gpus)
        client.register_plugin(_Prepared(settings, folder.absolute(), uses_gpu))
        yield client


def _has_dead_workers(client: Client) -> bool:
    """Whether processes of our own cluster are gone.  Dask starts them again, but not those that died while they were
    starting, and it forgets those that it has given up.
    """
    if client.cluster is None:
        return False
    nannies = client.cluster.workers.values()
    return len(nannies) < len(client.cluster.worker_spec) or not all(nanny.is_alive() for nanny in nannies)


#: A dead worker fails its tasks at once: whether a study is tried again is for the ledger to say.  Tasks are few, long
#: and independent, and their results are small: what Dask does to place them well, to look into them, and to move
#: results out of the way would cost more than it gives.
#:
#: Memory comes from one arena, because those that glibc gives to threads cannot hold the features of a network: each
#: would be asked of the system anew.
_OWN_CLUSTER = {
    "distributed.deploy.lost-worker-timeout": "10 minutes",  # a busy computer takes its time to start one again
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "3600s",
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.client.scheduler-info-interval": "60s",
    "distributed.comm.timeouts.connect": "120s",
}


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=_ANSWERS_WITHIN_S)
    except (OSError, ValueError) as error:
        raise MKDError(f"No Dask scheduler answers at {address}.", "Start one with: dask scheduler") from error
    with client:
        yield client


def _specification(engine: Engine) -> dict[str, Any]:
    """Arguments of a SpecCluster on this computer that nobody else can talk to."""
    environments = _environments(engine)
    options: dict[str, Any] = {
        "nthreads": 1,
        "memory_limit": engine.memory or _memory() // len(environments),
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "dashboard": False,
        "silence_logs": logging.CRITICAL,
    }
    security = Security.temporary()  # whoever reached the port could run code as this user
    pages = {
        "dashboard": engine.dashboard,
        "dashboard_address": "127.0.0.1:8787" if engine.dashboard else "127.0.0.1:0",
    }
    return {
        "workers": {
            number: {"cls": Nanny, "options": {**options, "env": environment, "security": security}}
            for number, environment in enumerate(environments)
        },
        "scheduler": {"cls": Scheduler, "options": {"host": "127.0.0.1", "security": security, **pages}},
        "security": security,
    }


def _environments(engine: Engine) -> list[dict[str, str]]:
    """Environment of every worker."""
    if engine.gpus:
        return [{"CUDA_VISIBLE_DEVICES": card} for card in _graphics_cards(engine.gpus)]
    fitting = max(1, min(_processors(), _memory() // (engine.memory or _USUAL_BYTES)))
    return [{"CUDA_VISIBLE_DEVICES": ""} for _ in range(engine.workers or fitting)]


def _graphics_cards(wanted: str) -> list[str]:
    """Names of cards as CUDA_VISIBLE_DEVICES takes them.

    Raises:
        DeviceError: there are not so many.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    count = len(cards) if wanted == "all" else int(wanted)
    if not 1 <= count <= len(cards):
        there = "1 graphics card" if len(cards) == 1 else f"{len(cards) or 'no'} graphics cards"
        raise DeviceError(f"This computer has {there} that PyTorch can use.", "Leave out --gpus, or ask for fewer.")
    return cards[:count]


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Bytes that this process and its children may use."""
    return int(MEMORY_LIMIT)
