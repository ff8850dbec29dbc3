"""Where a result comes from: kept with the segmentation, saved with the scene, readable in the panel."""

import datetime
import functools
import json

from slicer.i18n import tr as _

from mkd_core.errors import ProtocolError
from mkd_core.protocol import Report, parse_report, titles_of_weights, weights_of

#: Attribute of a segmentation node that keeps the report of the run which made it, as JSON.
REPORT_ATTRIBUTE = "MKDSegmentation.Report"


def reportOf(segmentationNode) -> Report | None:
    """Return the report that a run left on its segmentation node; None for other nodes, for None, and where a file was
    tampered with. It is shared: do not change it.
    """
    text = segmentationNode.GetAttribute(REPORT_ATTRIBUTE) if segmentationNode is not None else None
    return _parsed(text) if text else None


@functools.lru_cache(maxsize=256)  # a sequence has a report for each frame, and all are asked for when one changes
def _parsed(text: str) -> Report | None:
    try:
        return parse_report(json.loads(text))
    except (ValueError, RecursionError, ProtocolError):
        return None


def hasReport(node) -> bool:
    """Tell whether a run left a report on a node, without reading it."""
    return bool(node.GetAttribute(REPORT_ATTRIBUTE))


def keepReport(segmentationNode, report: Report) -> Report:
    """Store a report, with the present date added, on the segmentation node and return it."""
    report = {**report, "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    segmentationNode.SetAttribute(REPORT_ATTRIBUTE, json.dumps(report))
    return report


def provenanceText(report: Report) -> str:
    """Return in one line what made the result: weights, modality, which segmentor, when."""
    options = report.get("options") or {}
    segmentors = {"real": _("S_real alone"), "synthetic": _("S_syn alone")}
    parts = [
        _("Weights {names}").format(names=titles_of_weights(report)),
        str(report.get("modality", "")),
        segmentors.get(str(options.get("segmentor")), _("both segmentors")),
        str(report.get("date", ""))[:16].replace("T", " "),
    ]
    return ", ".join(part for part in parts if part)


def provenanceDetails(report: Report) -> str:
    """Return in lines what identifies weights, program and computing device."""
    lines = [
        *(_("SHA-256 of the weights: {sha256}").format(sha256=one.sha256) for one in weights_of(report)),
        _("Program {version}").format(version=report.get("version", "?")),
        " ".join(str(report.get(part) or "") for part in ("device", "precision")).strip(),
    ]
    return "\n".join(line for line in lines if line)
