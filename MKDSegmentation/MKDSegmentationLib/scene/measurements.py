"""The numbers to take away: one row per structure, as a MRML table, as CSV and for the clipboard."""

import csv
import io
import math

import slicer
import vtk
from slicer.i18n import tr as _

from mkd_core.protocol import Report
from mkd_core.structures import BY_KEY

from .findingTexts import researchUse, warningTexts
from .segmentMeasurement import DELETED, EDITED

#: Role under which a segmentation refers to the table of its measurements.
TABLE_ROLE = "MKDSegmentation.Measurements"


def columnTitles(modality: str) -> list:
    """Return the titles of the columns; an MR has no Hounsfield units."""
    mean = _("Mean (HU)") if modality == "CT" else _("Mean signal")
    return [
        _("Structure"),
        _("Volume (ml)"),
        _("Mass (g)"),
        mean,
        _("Agreement (%)"),
        _("Warnings"),
        _("Status"),
    ]


def measurementRows(report: Report) -> list:
    """Return one row per structure of a current report (see segmentMeasurement): name, volume in ml, mass in g, mean,
    agreement of the segmentors in %, warnings, status.

    Numbers are float, rounded to what they are worth; None where there is no value.
    """
    rows = []
    for key, entry in report["structures"].items():
        agreement = entry.get("agreement")
        rows.append(
            [
                entry.get("name") or BY_KEY[key].name,
                _rounded(entry.get("volume_ml"), 1),
                _rounded(entry.get("mass_g"), 1),
                _rounded(entry.get("mean_intensity"), 0),
                None if agreement is None else round(100.0 * agreement, 0),
                " ".join(warningTexts(entry)),
                statusText(entry),
            ]
        )
    return rows


def statusText(entry: dict) -> str:
    """Return in a word what became of a structure since the run, or of the run's search for it; "" if nothing."""
    texts = {EDITED: _("edited"), DELETED: _("deleted")}
    return texts.get(entry.get("state")) or ("" if entry.get("volume_ml") else _("not found"))


def _rounded(value, digits: int):
    return None if value is None else round(value, digits)


def measurementsAsText(report: Report, separator: str) -> str:
    """Return the rows under their titles, with a last column that says what they may be used for: separator "," for
    CSV, a tabulator for a spreadsheet's clipboard.
    """
    use = researchUse()
    target = io.StringIO()
    writer = csv.writer(target, delimiter=separator, lineterminator="\n")
    writer.writerow([*columnTitles(report.get("modality", "CT")), _("Use")])
    for row in measurementRows(report):
        cells = ["" if value is None else f"{value:g}" if isinstance(value, float) else value for value in row]
        writer.writerow([*cells, use])
    for warning in warningTexts(report):
        writer.writerow([_("Whole heart"), "", "", "", "", warning, "", use])
    return target.getvalue()


def measurementsTable(segmentationNode):
    """Return the table node of a segmentation's measurements, or None."""
    return segmentationNode.GetNodeReference(TABLE_ROLE) if segmentationNode is not None else None


def writeMeasurementsTable(report: Report, segmentationNode):
    """Put the rows into the table node of a segmentation, which is made if there is none, and return it."""
    table = measurementsTable(segmentationNode)
    if table is None:
        name = slicer.mrmlScene.GenerateUniqueName(
            _("{segmentation} measurements").format(segmentation=segmentationNode.GetName())
        )
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        segmentationNode.SetNodeReferenceID(TABLE_ROLE, table.GetID())
    rows = measurementRows(report)
    with slicer.util.NodeModify(table):
        table.RemoveAllColumns()
        table.SetUseColumnTitleAsColumnHeader(True)
        for index, title in enumerate(columnTitles(report.get("modality", "CT"))):
            table.AddColumn(_column(title, [row[index] for row in rows]))
    return table


def removeMeasurementsTable(segmentationNode) -> None:
    """Remove the table node of a segmentation that has no segments of ours any more."""
    table = measurementsTable(segmentationNode)
    if table is not None:
        slicer.mrmlScene.RemoveNode(table)


def _column(title: str, values: list):
    """Return a column of numbers if most rows have one, else of texts: an empty cell reads better than "nan"."""
    isNumeric = sum(isinstance(value, float) for value in values) > len(values) / 2
    column = vtk.vtkDoubleArray() if isNumeric else vtk.vtkStringArray()
    column.SetName(title)
    for value in values:
        if isNumeric:
            column.InsertNextValue(math.nan if value is None else value)
        else:
            column.InsertNextValue("" if value is None else str(value))
    return column
