"""What the sequence of segmentations tells, as nodes to take away: volumes over time, their plot, and the pump
function.
"""

import dataclasses
import math

import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from mkd_core.measure.cardiac_function import CardiacFunction, cardiac_function, volume_curve
from mkd_core.structures import BY_KEY

from .findingTexts import findingText
from .frameSequence import FrameSequence

#: Roles by which a sequence of segmentations refers to its nodes here.
_VOLUMES_ROLE, _FUNCTION_ROLE, _CHART_ROLE = (
    "MKDSegmentation.VolumeTable",
    "MKDSegmentation.FunctionTable",
    "MKDSegmentation.VolumeChart",
)

_IN_TABLE = ("LV", "RV", "LA", "RA", "Myo")
_IN_PLOT = ("LV", "RV", "LA", "RA")

#: So many neighbouring frames without a left ventricle hide the end of a diastole or systole.
_LONGEST_GAP = 1

#: The axis of the plot ends at so many times the largest volume, for the legend lies over the upper right corner.
_HEADROOM = 1.4


def functionOfReports(reports: list, isUnfinished: bool = False) -> CardiacFunction:
    """Return the function that the current reports of all frames tell.

    Figures of the beat are left out where neighbouring frames are missing, and after a run that was cancelled: the
    largest and the smallest volume of what is there are not those of the beat.

    :param isUnfinished: True if frames are missing because a run was cancelled.
    """
    function = cardiac_function(reports)
    if not isUnfinished and _longestGap(volume_curve(reports, "LV")) <= _LONGEST_GAP:
        return function
    return dataclasses.replace(
        function, end_diastole=None, end_systole=None, left=None, right=None, myocardial_mass_g=None
    )


def _longestGap(curve: list) -> int:
    longest = current = 0
    for volume in curve:
        current = current + 1 if volume is None else 0
        longest = max(longest, current)
    return longest


def functionNotes(reports: list, isUnfinished: bool = False) -> list:
    """Return sentences on what became of the frames since the run, and on figures that are not shown.

    :param isUnfinished: True if frames are missing because a run was cancelled.
    """
    notes = []
    edited = [
        str(frame + 1)
        for frame, report in enumerate(reports)
        if report and any("state" in entry for entry in report["structures"].values())
    ]
    if edited:
        notes.append(_("Edited after the run: frame {frames}.").format(frames=", ".join(edited)))
    if any(reports) and isUnfinished:
        notes.append(_("The ejection fraction is not shown: the run was cancelled before all frames were segmented."))
    elif any(reports) and _longestGap(volume_curve(reports, "LV")) > _LONGEST_GAP:
        notes.append(_("The ejection fraction is not shown: too many frames have no left ventricle."))
    return notes


def functionRows(function: CardiacFunction) -> list:
    """Return the figures as rows of text: measure with its unit, left ventricle, right ventricle; "" where there is
    none.
    """

    def row(title: str, attribute: str, factor: float = 1.0) -> list:
        sides = [getattr(ventricle, attribute, None) for ventricle in (function.left, function.right)]
        return [title] + ["" if value is None else f"{factor * value:.0f}" for value in sides]

    return [
        row(_("End-diastolic volume (ml)"), "end_diastolic_ml"),
        row(_("End-systolic volume (ml)"), "end_systolic_ml"),
        row(_("Stroke volume (ml)"), "stroke_volume_ml"),
        row(_("Ejection fraction (%)"), "ejection_fraction", 100.0),
        [
            _("Myocardial mass (g)"),
            "" if function.myocardial_mass_g is None else f"{function.myocardial_mass_g:.0f}",
            "",
        ],
    ]


def nodesOfFunction(segmentations) -> list:
    """Return the table, chart and plot series nodes that were made of a sequence of segmentations."""
    nodes = [segmentations.GetNodeReference(role) for role in (_VOLUMES_ROLE, _FUNCTION_ROLE, _CHART_ROLE)]
    chart = nodes[-1]
    if chart is not None:
        nodes += [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]
    return [node for node in nodes if node is not None]


def removeFunctionNodes(segmentations) -> None:
    """Remove the nodes that were made of a sequence of segmentations, of which none is left."""
    for node in nodesOfFunction(segmentations):
        slicer.mrmlScene.RemoveNode(node)


def chartOf(frames: FrameSequence):
    """Return the chart node of volumes over time, or None."""
    segmentations = frames.segmentations()
    return segmentations.GetNodeReference(_CHART_ROLE) if segmentations is not None else None


def writeFunctionNodes(frames: FrameSequence) -> CardiacFunction:
    """Measure the function and put it, and the volumes over time, into table and chart nodes; those of an earlier run
    are used again.
    """
    segmentations, reports = frames.segmentations(), frames.reports()
    function = functionOfReports(reports, frames.isUnfinished)
    with frames.volumeAtRest(), slicer.util.NodeModify(segmentations):
        volumes = _node(segmentations, _VOLUMES_ROLE, "vtkMRMLTableNode", _("{name} volumes"))
        table = _node(segmentations, _FUNCTION_ROLE, "vtkMRMLTableNode", _("{name} function"))
        chart = _node(segmentations, _CHART_ROLE, "vtkMRMLPlotChartNode", _("{name} volume-time curves"))
    _fillVolumes(volumes, frames, reports)
    _fillFunction(table, function, functionNotes(reports, frames.isUnfinished))
    _fillChart(chart, volumes, segmentations.GetName())
    return function


def _node(segmentations, role: str, className: str, name: str):
    node = segmentations.GetNodeReference(role)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass(
            className, slicer.mrmlScene.GenerateUniqueName(name.format(name=segmentations.GetName()))
        )
        segmentations.SetNodeReferenceID(role, node.GetID())
    return node


def _timeTitle(frames: FrameSequence) -> str:
    name, unit = frames.volumes.GetIndexName() or _("frame"), frames.volumes.GetIndexUnit()
    return f"{name} ({unit})" if unit else name


def _times(frames: FrameSequence) -> list:
    """Return the index values as numbers, or the frames' numbers where the index is no number."""
    try:
        return [float(value) for value in frames.indexValues()]
    except ValueError:
        return [float(frame + 1) for frame in range(frames.count)]


def _column(table, name: str, values: list) -> None:
    column = vtk.vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(math.nan if value is None else value)
    table.AddColumn(column)


def _fillVolumes(node, frames: FrameSequence, reports: list) -> None:
    table = vtk.vtkTable()
    _column(table, _timeTitle(frames), _times(frames))
    for key in _IN_TABLE:
        _column(table, _seriesTitle(key), volume_curve(reports, key))
    node.SetUseFirstColumnAsRowHeader(False)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetAndObserveTable(table)


def _seriesTitle(key: str) -> str:
    return _("{structure} (ml)").format(structure=BY_KEY[key].name)


def _fillFunction(node, function: CardiacFunction, notes: list) -> None:
    rows = functionRows(function)
    if function.end_diastole is not None:
        rows += [
            [_("End-diastole (frame)"), str(function.end_diastole + 1), ""],
            [_("End-systole (frame)"), str(function.end_systole + 1), ""],
        ]
    rows += [[_("Warning"), findingText(warning), ""] for warning in function.warnings]
    rows += [[_("Note"), note, ""] for note in notes]
    table = vtk.vtkTable()
    for index, title in enumerate((_("Measure"), BY_KEY["LV"].name, BY_KEY["RV"].name)):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for row in rows:
            column.InsertNextValue(row[index])
        table.AddColumn(column)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetAndObserveTable(table)


def _fillChart(chart, volumes, name: str) -> None:
    timeTitle = volumes.GetTable().GetColumn(0).GetName()
    for index, key in enumerate(_IN_PLOT):
        series = chart.GetNthPlotSeriesNode(index) if index < chart.GetNumberOfPlotSeriesNodes() else None
        if series is None:
            series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", BY_KEY[key].name)
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        series.SetAndObserveTableNodeID(volumes.GetID())
        series.SetXColumnName(timeTitle)
        series.SetYColumnName(_seriesTitle(key))
        series.SetPlotType(series.PlotTypeScatter)
        series.SetLineStyle(series.LineStyleSolid)
        series.SetMarkerStyle(series.MarkerStyleCircle)
        series.SetColor(*(channel / 255.0 for channel in BY_KEY[key].color))
    chart.SetTitle(name)
    chart.SetXAxisTitle(timeTitle)
    chart.SetYAxisTitle(_("Volume (ml)"))
    chart.SetLegendVisibility(True)
    values = [one for key in _IN_PLOT for one in vtk_to_numpy(volumes.GetTable().GetColumnByName(_seriesTitle(key)))]
    largest = max((one for one in values if not math.isnan(one)), default=0.0)
    chart.SetYAxisRangeAuto(not largest)
    if largest:
        chart.SetYAxisRange(0.0, _HEADROOM * float(largest))
    chart.Modified()  # a chart that is shown notices changed tables by this
