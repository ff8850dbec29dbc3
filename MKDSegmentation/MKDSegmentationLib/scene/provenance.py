"""Where a result comes from: kept with the segmentation, saved with the scene, readable in the panel."""

import datetime
import json

from slicer.i18n import tr as _

from mkd_core.structures import BY_KEY

#: Attribute of a segmentation node that keeps the report of the run which made it, as JSON.
REPORT_ATTRIBUTE = "MKDSegmentation.Report"


def reportOf(segmentationNode) -> dict:
    """Return the report that a run left on its segmentation node; empty for other nodes, for None, and where a file was
    tampered with.
    """
    text = segmentationNode.GetAttribute(REPORT_ATTRIBUTE) if segmentationNode is not None else None
    try:
        report = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return report if isReport(report) else {}


def isReport(value) -> bool:
    """Tell whether a value is a report that can be shown: what comes from a file or a process may be anything."""
    if not isinstance(value, dict):
        return False
    structures = value.get("structures", {})
    return (
        isinstance(structures, dict)
        and all(key in BY_KEY and _isStructureReport(entry) for key, entry in structures.items())
        and _areTexts(value.get("warnings"))
        and all(_isFlat(value.get(part)) for part in ("bundle", "options", "timings_s", "input"))
        and _areNumbers((value.get("timings_s") or {}).values())
        and _isSize((value.get("input") or {}).get("size"))
    )


def _isStructureReport(entry) -> bool:
    figures = ("volume_ml", "mass_g", "mean_intensity", "agreement")
    return (
        isinstance(entry, dict)
        and _areNumbers(entry.get(figure) for figure in figures)
        and _areTexts(entry.get("warnings"))
    )


def _areNumbers(values) -> bool:
    return all(value is None or (isinstance(value, (int, float)) and abs(value) < 1e15) for value in values)


def _isSize(value) -> bool:
    return value is None or (isinstance(value, list) and None not in value and _areNumbers(value))


def _areTexts(values) -> bool:
    return values is None or (isinstance(values, list) and all(isinstance(value, str) for value in values))


def _isFlat(table) -> bool:
    """Tell whether a value is a table of plain values and lists of them, or nothing."""
    return table is None or (isinstance(table, dict) and not any(isinstance(value, dict) for value in table.values()))


def keepReport(segmentationNode, report: dict) -> dict:
    """Store a report, with the present date added, on the segmentation node and return it."""
    report = {**report, "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    segmentationNode.SetAttribute(REPORT_ATTRIBUTE, json.dumps(report))
    return report


def provenanceText(report: dict) -> str:
    """Return in two lines what made the result: weights, software, device, which segmentor, when."""
    bundle = report.get("bundle") or {}
    options = report.get("options") or {}
    segmentors = {"real": _("S_real alone"), "synthetic": _("S_syn alone")}
    made = [
        _("Weights {name} {version}").format(name=bundle.get("name", "?"), version=bundle.get("version", "?")),
        "SHA-256 " + str(bundle.get("sha256", "?"))[:12],
        _("program {version}").format(version=report.get("version", "?")),
    ]
    how = [
        str(report.get("modality", "")),
        " ".join(str(report.get(part) or "") for part in ("device", "precision")).strip(),
        segmentors.get(str(options.get("segmentor")), _("both segmentors")),
        str(report.get("date", ""))[:16].replace("T", " "),
    ]
    return ", ".join(made) + "\n" + ", ".join(part for part in how if part)
