"""Do to the software whatever is bad, and print what it bore.

    python -m Testing.trust [--quick | --only SECTION ...]

Writes Testing/benchmarks/results/faults.json, and for each refusal the sentence that the user sees to
Testing/trust/messages.md.  ``--only`` runs some sections and keeps what the last run of the others found.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence

from Testing.trust import TESTING, bundles, doubts, geometry, orientations, volumes
from Testing.trust.outcome import Outcome

SECTIONS = {
    "volumes": volumes,
    "bundles": bundles,
    "geometry": geometry,
    "orientations": orientations,
    "doubts": doubts,
}
if sys.platform.startswith("linux"):  # by whose means the harm is done
    from Testing.trust import faults

    SECTIONS["faults"] = faults

RESULTS, MESSAGES = TESTING / "benchmarks" / "results" / "faults.json", TESTING / "trust" / "messages.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m Testing.trust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, in less than a minute; writes no files"
    )
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="run these sections")
    chosen = parser.parse_args()
    known = _earlier() if set(chosen.only) < set(SECTIONS) else {}
    for name in chosen.only:
        start, found = time.process_time(), []
        for outcome in SECTIONS[name].outcomes(quick=chosen.quick):
            found.append(outcome)
            print(
                f"{'ok  ' if outcome.survived else 'LOST'} {outcome.group}: "
                f"{outcome.name}{f' ({outcome.tried})' if outcome.tried > 1 else ''}"
                f"{f': {outcome.note}' if outcome.note else ''}",
                flush=True,
            )
        known[name] = Section(round(time.process_time() - start), time.strftime("%Y-%m-%d"), found)
        if not chosen.quick:
            _write({section: known[section] for section in SECTIONS if section in known})
    everything = [outcome for name in SECTIONS if name in known for outcome in known[name].outcomes]
    print(*_table(everything), sep="\n")
    return 0 if all(outcome.survived for outcome in everything) else 1


@dataclasses.dataclass(frozen=True)
class Section:
    """What a section found, and the seconds of a processor that it took, those of processes it started not counted;
    None where that was not noted.  ``day`` is that of the run.
    """

    cpu_seconds: int | None
    day: str
    outcomes: list[Outcome]


def _earlier() -> dict[str, Section]:
    """What the last run of each section found."""
    if not RESULTS.exists():
        return {}
    stored = json.loads(RESULTS.read_text(encoding="utf-8")).get("sections", {})
    return {
        name: Section(section["cpu_seconds"], section["day"], [Outcome(**outcome) for outcome in section["outcomes"]])
        for name, section in stored.items()
        if name in SECTIONS
    }


def _write(known: Mapping[str, Section]) -> None:
    found = [outcome for section in known.values() for outcome in section.outcomes]
    summary = {
        "command": "python -m Testing.trust",
        "python": platform.python_version(),
        "system": platform.system(),
        "counts": _counts(found),
        "sections": {name: dataclasses.asdict(section) for name, section in known.items()},
    }
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    MESSAGES.write_text("\n".join(_messages(found)) + "\n", encoding="utf-8")


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
