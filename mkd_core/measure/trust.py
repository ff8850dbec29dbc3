"""How far to trust the outline of each structure: a light with one sentence, from what was found about it.

Imports neither numpy nor SimpleITK nor torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mkd_core.measure.messages import finding
from mkd_core.protocol import SEVERITIES, Finding, Severity, findings

#: "green": nothing speaks against it; "amber": look at it; "red": it is likely to be wrong; "none": nothing is known,
#: as of what a person outlined.
Light = Literal["green", "amber", "red", "none"]

#: Marks of the lights, which differ in shape for those who do not see the colours; "none" has none of its own.
MARKS = {
    "green": "\N{BLACK CIRCLE}",
    "amber": "\N{BLACK UP-POINTING TRIANGLE}",
    "red": "\N{BLACK SQUARE}",
}


def light_of(severity: Severity) -> Light:
    """The light that a finding of this severity turns on; "none" where it turns on none."""
    if severity == "info":
        return "none"
    return "amber" if severity == "amber" else "red"


@dataclass(frozen=True)
class Trust:
    """What to say of a structure.

    Attributes:
        light: see :data:`Light`.
        reason: the finding that decides, None where there is none.
    """

    light: Light
    reason: Finding | None = None


def trust_of(entry: Mapping[str, Any], whole: Sequence[Finding] = ()) -> Trust:
    """The light of a structure.

    The limits of agreement below which a structure is doubted were calibrated for each structure, see
    :mod:`mkd_core.measure.agreement`; here counts which of them was passed.

    Args:
        entry: of the structure in a report; with "state" if it was edited or deleted since.
        whole: what was found about the heart as a whole: a red finding there makes every light red.
    """
    if entry.get("state") or not entry.get("volume_ml"):
        return Trust("none")
    worst = _worst([*findings(entry.get("warnings")), *(one for one in whole if one.severity == "red")])
    if worst is not None and light_of(worst.severity) != "none":
        return Trust(light_of(worst.severity), worst)
    return Trust("none" if entry.get("agreement") is None else "green")


def worst_light(reports: Iterable[Mapping[str, Any]]) -> Light:
    """The light of whole results: the worst of all findings; "green" where structures were judged and nothing speaks
    against any, "none" where none was.

    Args:
        reports: of the results, see :class:`mkd_core.protocol.Report`.
    """
    lights: set[Light] = set()
    for report in reports:
        whole = findings(report.get("warnings"))
        lights |= {light_of(one.severity) for one in whole}
        for entry in (report.get("structures") or {}).values():
            lights.add(trust_of(entry, whole).light)
            if not entry.get("state"):
                lights |= {light_of(one.severity) for one in findings(entry.get("warnings"))}
    order: tuple[Light, ...] = ("red", "amber", "green")
    return next((light for light in order if light in lights), "none")


def _worst(found: Iterable[Finding]) -> Finding | None:
    return max(found, key=lambda one: SEVERITIES.index(one.severity), default=None)


@dataclass(frozen=True)
class SharedFinding:
    """A finding that is the same for several structures.

    Attributes:
        keys: of the structures, in the order of the report; empty for the whole.
        finding: to be described.
    """

    keys: tuple[str, ...]
    finding: Finding


def shared_findings(report: Mapping[str, Any]) -> list[SharedFinding]:
    """The warnings of a report, those that say the same of several structures put together, worst first.

    Args:
        report: see :class:`mkd_core.protocol.Report`.
    """
    groups: dict[tuple, list[tuple[str, Finding]]] = {}
    for key, entry in (report.get("structures") or {}).items():
        if entry.get("state"):
            continue
        for one in findings(entry.get("warnings")):
            same = () if one.code in _AGREEMENT else tuple(sorted(one.figures.items()))
            groups.setdefault((one.code, one.severity, same), []).append((key, one))
    shared = [SharedFinding((), one) for one in findings(report.get("warnings"))]
    for members in groups.values():
        keys, first = tuple(key for key, _ in members), members[0][1]
        shared.append(SharedFinding(keys, first if len(members) == 1 else _of_several([one for _, one in members])))
    return sorted(shared, key=lambda one: -SEVERITIES.index(one.finding.severity))


_AGREEMENT = {
    f"{what}_{grade}": f"{what}_{grade}_several"
    for what in ("agreement", "confidence")
    for grade in ("low", "very_low")
}


def _of_several(members: Sequence[Finding]) -> Finding:
    first = members[0]
    if first.code not in _AGREEMENT:
        return first
    values = [float(one.figures["agreement"]) for one in members if "agreement" in one.figures]
    return finding(_AGREEMENT[first.code], lowest=min(values), highest=max(values))
