"""Progress, timings and the wish to stop, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable

from mkd_core.errors import Cancelled
from mkd_core.protocol import STAGES


class Clock:
    """Follows a run through its stages.

    Args:
        progress: called as ``progress(stage, fraction, message)``; ``fraction`` of the whole, 0 to 1, never falls.
        cancelled: polled; True stops the run.
    """

    def __init__(
        self, progress: Callable[[str, float, str], None] | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._progress = progress or (lambda stage, fraction, message: None)
        self._cancelled = cancelled or (lambda: False)
        self._began: list[tuple[str, float]] = []
        self._start = time.perf_counter()
        self._furthest = 0.0

    def poll(self) -> None:
        """Raise :class:`Cancelled` if the user asked to stop."""
        if self._cancelled():
            raise Cancelled()

    def enter(self, stage: str, message: str) -> None:
        """Begin a stage."""
        self._began.append((stage, time.perf_counter()))
        self.advance(0.0, message)

    def advance(self, done: float, message: str) -> None:
        """Report how much of the present stage is done, 0 to 1."""
        self.poll()
        stage = self._began[-1][0]
        begin = STAGES[stage]
        end = min((other for other in STAGES.values() if other > begin), default=1.0)
        self._furthest = max(self._furthest, begin + done * (end - begin))  # a stage may come a second time
        self._progress(stage, self._furthest, message)

    def timings(self) -> dict[str, float]:
        """Seconds per stage, and in all."""
        now = time.perf_counter()
        ends = [when for _, when in self._began[1:]] + [now]
        seconds = dict.fromkeys(STAGES, 0.0)
        for (stage, begin), end in zip(self._began, ends):
            seconds[stage] += end - begin
        return {stage: round(value, 3) for stage, value in seconds.items()} | {"total": round(now - self._start, 3)}
