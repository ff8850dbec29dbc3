"""What is compared of two runs of an archive."""

from __future__ import annotations

from typing import Any

from mkd_core.archive.export import table
from mkd_core.archive.ledger import Ledger

#: Columns of the table that tell of the run and not of the study.
OF_THE_RUN = ("attempts", "seconds", "finished")


def final_table(ledger: Ledger) -> list[dict[str, Any]]:
    """All rows without what depends on the way that a run took."""
    return [{name: row[name] for name in row if name not in OF_THE_RUN} for row in table(ledger)]
