"""What became of one bad thing that was done to the software."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        group: "bad volumes", "hostile bundles", "faults", "geometry", "orientations" or "doubtful results".
        name: what was done, in a few words.
        survived: it ended as it must: told or borne, in time, with nothing left behind.
        tried: how many times.
        message: exact sentence that the user sees; empty where there is none.
        note: why it was lost, or what was counted.
    """

    group: str
    name: str
    survived: bool
    tried: int = 1
    message: str = ""
    note: str = ""
