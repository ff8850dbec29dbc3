"""A picture of what Slicer's plot view would show of a chart node, drawn by the same VTK chart that qMRMLPlotView
uses.
"""

import slicer
import vtk

from . import views

_LINES = {
    slicer.vtkMRMLPlotSeriesNode.LineStyleNone: vtk.vtkPen.NO_PEN,
    slicer.vtkMRMLPlotSeriesNode.LineStyleSolid: vtk.vtkPen.SOLID_LINE,
}
_MARKERS = {
    slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone: vtk.vtkPlotPoints.NONE,
    slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle: vtk.vtkPlotPoints.CIRCLE,
}


def plotImage(chartNode, size=(480, 480)):
    """Return a QImage of a chart node. Made: scatter series with solid lines and circles, titles, legend.

    Raises NotImplementedError for a series of another kind, and KeyError for a column that its table lacks: Slicer
        would show an empty plot.
    """
    chart = vtk.vtkChartXY()
    chart.SetTitle(chartNode.GetTitle() or "")
    chart.SetShowLegend(chartNode.GetLegendVisibility())
    chart.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(chartNode.GetXAxisTitle() or "")
    chart.GetAxis(vtk.vtkAxis.LEFT).SetTitle(chartNode.GetYAxisTitle() or "")
    if not chartNode.GetYAxisRangeAuto():
        chart.GetAxis(vtk.vtkAxis.LEFT).SetBehavior(vtk.vtkAxis.FIXED)
        chart.GetAxis(vtk.vtkAxis.LEFT).SetRange(*chartNode.GetYAxisRange())
    for index in range(chartNode.GetNumberOfPlotSeriesNodes()):
        _addSeries(chart, chartNode.GetNthPlotSeriesNode(index))
    renderer, window = views._window(size)
    renderer.SetBackground(1.0, 1.0, 1.0)
    actor = vtk.vtkContextActor()
    actor.GetScene().AddItem(chart)
    renderer.AddActor(actor)
    actor.GetScene().SetRenderer(renderer)
    return views._render(window)


def _addSeries(chart, series):
    if series.GetPlotType() != series.PlotTypeScatter:
        raise NotImplementedError(f"plots of type {series.GetPlotTypeAsString(series.GetPlotType())} are not made")
    table = series.GetTableNode().GetTable()
    columns = [series.GetXColumnName(), series.GetYColumnName()]
    for name in columns:
        if table.GetColumnByName(name) is None:
            raise KeyError(f"the table of {series.GetName()} has no column {name!r}")
    plot = chart.AddPlot(vtk.vtkChart.LINE)
    plot.SetInputData(table, *columns)
    plot.SetLabel(series.GetName())
    plot.SetColorF(*series.GetColor())
    plot.SetWidth(series.GetLineWidth())
    plot.GetPen().SetLineType(_LINES[series.GetLineStyle()])
    plot.SetMarkerStyle(_MARKERS[series.GetMarkerStyle()])
    plot.SetMarkerSize(series.GetMarkerSize())
