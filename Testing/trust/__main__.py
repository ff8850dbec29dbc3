"""Do to the software whatever is bad, and print what it bore.

    python -m Testing.trust [--quick]

Writes Testing/benchmarks/results/faults.json, and for each refusal the sentence that the user sees to
Testing/trust/messages.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Sequence

from Testing.trust import TESTING, bundles, doubts, geometry, orientations, volumes
from Testing.trust.outcome import Outcome

SECTIONS = [volumes, bundles, geometry, orientations, doubts]
if sys.platform.startswith("linux"):  # by whose means the harm is done
    from Testing.trust import faults

    SECTIONS.append(faults)

RESULTS, MESSAGES = TESTING / "benchmarks" / "results" / "faults.json", TESTING / "trust" / "messages.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m Testing.trust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, in less than a minute; writes no files"
    )
    chosen = parser.parse_args()
    start = time.perf_counter()
    found = []
    for section in SECTIONS:
        for outcome in section.outcomes(quick=chosen.quick):
            found.append(outcome)
            print(
                f"{'ok  ' if outcome.survived else 'LOST'} {outcome.group}: "
                f"{outcome.name}{f' ({outcome.tried})' if outcome.tried > 1 else ''}"
                f"{f': {outcome.note}' if outcome.note else ''}",
                flush=True,
            )
    print(*_table(found), sep="\n")
    if not chosen.quick:
        RESULTS.write_text(json.dumps(_summary(found, time.perf_counter() - start), indent=2) + "\n", encoding="utf-8")
        MESSAGES.write_text("\n".join(_messages(found)) + "\n", encoding="utf-8")
    return 0 if all(outcome.survived for outcome in found) else 1


def _counts(found: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Per group, and in all: how many kinds, how many times tried, kinds survived and lost."""
    groups = {
        group: [outcome for outcome in found if outcome.group == group]
        for group in dict.fromkeys(outcome.group for outcome in found)
    }
    return {
        name: {
            "kinds": len(some),
            "tried": sum(outcome.tried for outcome in some),
            "survived": sum(outcome.survived for outcome in some),
            "lost": sum(not outcome.survived for outcome in some),
        }
        for name, some in (groups | {"all": list(found)}).items()
    }


def _table(found: Sequence[Outcome]) -> list[str]:
    rows = ["", f"{'':<18}{'kinds':>8}{'tried':>10}{'survived':>10}{'lost':>6}"]
    return rows + [
        f"{name:<18}{row['kinds']:>8}{row['tried']:>10}{row['survived']:>10}{row['lost']:>6}"
        for name, row in _counts(found).items()
    ]


def _summary(found: Sequence[Outcome], seconds: float) -> dict:
    return {
        "command": "python -m Testing.trust",
        "seconds": round(seconds),
        "python": platform.python_version(),
        "system": platform.system(),
        "counts": _counts(found),
        "lost": [
            {"group": outcome.group, "name": outcome.name, "note": outcome.note}
            for outcome in found
            if not outcome.survived
        ],
        "kinds": [{"group": outcome.group, "name": outcome.name, "tried": outcome.tried} for outcome in found],
    }


def _messages(found: Sequence[Outcome]) -> list[str]:
    lines = ["# What the user is told", "", "Written by `python -m Testing.trust`."]
    for group in dict.fromkeys(outcome.group for outcome in found if outcome.message):
        lines += ["", f"## {group.capitalize()}", "", "| what was wrong | what the user is told |", "| --- | --- |"]
        lines += [
            f"| {outcome.name} | {_cell(outcome.message)} |"
            for outcome in found
            if outcome.group == group and outcome.message
        ]
    return lines


def _cell(text: str) -> str:
    return re.sub(r"(.)\1{30,}", r"\1\1\1...", text).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
