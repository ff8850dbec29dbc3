"""The picture of a plot shows what its nodes say, and refuses what Slicer would leave empty."""

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


@pytest.fixture
def chart(slicerApp):
    """A chart with one red series of a rising line."""
    import slicer

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.array([[0.0, 0.0], [1.0, 1.0]]), ["x", "y"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "line")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetPlotType(series.PlotTypeScatter)
    series.SetColor(1.0, 0.0, 0.0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    node.AddAndObservePlotSeriesNodeID(series.GetID())
    node.SetLegendVisibility(False)
    return node


def redPixels(image):
    """Return the pixels (x, y) of a QImage that are red."""
    colors = [(x, y, image.pixelColor(x, y)) for x in range(image.width()) for y in range(image.height())]
    return np.array(
        [(x, y) for x, y, color in colors if color.red() > 200 and color.green() < 80 and color.blue() < 80]
    )


def test_a_rising_series_is_a_rising_line_in_its_colour(chart):
    from Testing.harness import plot_view

    points = redPixels(plot_view.plotImage(chart, (200, 200)))
    assert len(points) > 50
    left, right = points[points[:, 0].argmin()], points[points[:, 0].argmax()]
    assert right[0] - left[0] > 80 and left[1] - right[1] > 80, "rows are counted from the top"


def test_a_series_of_a_column_that_is_not_there_is_refused(chart):
    from Testing.harness import plot_view

    chart.GetNthPlotSeriesNode(0).SetYColumnName("volume")
    with pytest.raises(KeyError, match="no column 'volume'"):
        plot_view.plotImage(chart, (200, 200))
