"""How far a run is, what it was begun with, and what processes that are gone have left: the same for every way to run
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mkd_core.archive import study
from mkd_core.archive.ledger import Ledger, Shard, State
from mkd_core.archive.study import Settings
from mkd_core.measure.messages import finding, refusal


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        total: rows of this shard that are to be segmented in all.
        done, failed: of these, now.
        finished: in this run.
        seconds: since the first study was handed out.
        workers: that are there.
        loads: how often weights were loaded, by process.
        dashboard: address of Dask's pages, empty if they are not shown.
    """

    total: int
    done: int = 0
    failed: int = 0
    finished: int = 0
    seconds: float = 0.0
    workers: int = 0
    loads: dict[str, int] = field(default_factory=dict)
    dashboard: str = ""

    @property
    def per_hour(self) -> float:
        """Studies an hour in this run."""
        return 3600.0 * self.finished / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None as long as there is none."""
        left = self.total - self.done - self.failed
        return left / self.finished * self.seconds if self.finished else None


def progress_of(ledger: Ledger, shard: Shard | None = None) -> Progress:
    """How far the rows of a ledger, or of a part of it, are."""
    counts = ledger.state_counts(shard)
    wanted: tuple[State, ...] = ("waiting", "running", "done", "failed")
    return Progress(sum(counts[state] for state in wanted), counts["done"], counts["failed"])


def fix_settings(ledger: Ledger, settings: Settings) -> None:
    """Keep the settings of the first start.

    Raises:
        InputError: these are others.
    """
    first = Settings(**ledger.put_once("settings", settings.to_dict()))
    if first.digest != settings.digest:
        begun = first.to_dict()
        changed = [name for name, value in settings.to_dict().items() if begun[name] != value and name != "weights"]
        raise refusal(finding("archive_other_settings", changed=", ".join(changed)))


def enter_if_complete(ledger: Ledger, settings: Settings, identifier: str, owner: str) -> bool:
    """Whether a row came to its end although nobody heard of it; then its outcome is entered."""
    outcome = study.complete(ledger.folder, identifier, settings)
    if outcome is not None:
        ledger.commit(owner, [outcome])
    return outcome is not None


def take_over_abandoned(ledger: Ledger, settings: Settings) -> None:
    """Enter what processes that are gone have finished, and let the rest of their rows wait."""
    for identifier, owner in ledger.abandoned():
        if not enter_if_complete(ledger, settings, identifier, owner):
            ledger.take_over(identifier, owner, was_started=study.was_started(ledger.folder, identifier))
        study.sweep(ledger.folder, identifier)
