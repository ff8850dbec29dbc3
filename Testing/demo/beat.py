"""Segment a beating heart by one click in the real panel, in the stand-in GUI, and show what came out.

Usage: python -m Testing.demo.beat [--spacing MM] [--frames N] [--out FILE]

The picture shows the panel, the volumes over time as a plot, and end-diastole and end-systole in a slice. The measured
function is printed beside the phantom's true one.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]

MODULE = TESTING.parent / "MKDSegmentation" / "MKDSegmentation.py"
LONGEST_RUN_S = 1800
VIEW = 430


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Testing.demo.beat", description=__doc__.split("\n")[0])
    parser.add_argument("--spacing", type=float, default=1.5, help="voxel size of the phantom, mm")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("out/demo/beat.png"), help="picture to write")
    arguments = parser.parse_args()
    from Testing.harness import bootstrap, failures

    bootstrap.start()
    from Testing.harness import views

    _module, panel = bootstrap.loadModule(MODULE)
    start = time.monotonic()
    volume = loadBeat(arguments.spacing, arguments.frames)
    print(f"phantom made in {time.monotonic() - start:.1f} s")
    start = time.monotonic()
    segmentAllFrames(panel)
    print(f"{panel.ui.statusLabel.text} ({time.monotonic() - start:.1f} s by the clock)")
    if not panel.ui.functionTable.visible:
        return 1
    printFunction(panel, volume)
    views.save(picture(panel, volume), arguments.out)
    print(f"Picture: {arguments.out}")
    bootstrap.unloadModule("MKDSegmentation")
    problems = failures.take()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def loadBeat(spacing: float = 1.5, frames: int = 10):
    """Make the sample heart beat and load it; return its volume node."""
    from MKDSegmentationLib.scene.sampleData import BEAT, loadSample

    from Testing.harness import driving

    volume = loadSample(dataclasses.replace(BEAT, spacing=spacing, frames=frames))
    driving.processEvents()
    return volume


def segmentAllFrames(panel) -> None:
    """Click on the button for all frames, wait for the end, and show the curves."""
    from Testing.harness import driving

    driving.click(panel.ui.segmentSequenceButton)
    driving.waitUntil(lambda: panel.ui.segmentButton.text == "Segment", LONGEST_RUN_S, "the end of the run")
    if panel.ui.functionTable.visible:
        driving.click(panel.ui.showPlotButton)


def printFunction(panel, volume) -> None:
    """Print the figures that the panel shows beside those of the phantom's truth."""
    from MKDSegmentationLib.scene.frameSequence import FrameSequence
    from MKDSegmentationLib.scene.functionNodes import functionRows

    from mkd_core.measure.cardiac_function import cardiac_function
    from Testing.harness import driving

    truth = json.loads(FrameSequence.of(volume).volumes.GetAttribute("MKDSegmentation.Truth"))
    true = functionRows(
        cardiac_function([{"structures": {key: {"volume_ml": ml} for key, ml in frame.items()}} for frame in truth])
    )
    print(f"{'':28}{'LV':>6}{'true':>6}{'RV':>6}{'true':>6}")
    for measured, (_title, *expected) in zip(driving.tableTexts(panel.ui.functionTable), true):
        print(f"{measured[0]:28}{measured[1]:>6}{expected[0]:>6}{measured[2]:>6}{expected[1]:>6}")


def picture(panel, volume, width: int = 440, height=None):
    """Return a picture of the panel, the plot, and one slice at end-diastole and at end-systole."""
    import slicer
    from PySide6 import QtGui

    from MKDSegmentationLib.scene.frameSequence import FrameSequence

    from Testing.harness import driving, plot_view, views
    from Testing.support.panel_driving import waitForClinicalFigures

    frames = FrameSequence.of(volume)
    centre = frames.segmentationNode().GetSegmentCenterRAS("LV")
    chart = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID())
    slices = {}
    for row, title in ((1, "End-systole"), (0, "End-diastole")):
        panel.ui.functionTable.cellClicked.emit(row, 0)
        waitForClinicalFigures(panel, LONGEST_RUN_S)
        slices[title] = views.sliceImage("Red", centre, (VIEW, VIEW), 190.0)
    if not panel.ui.clinicalCollapsibleButton.collapsed:
        driving.click(panel.ui.clinicalCollapsibleButton)  # the picture is about the beat
    panelImage = views.panelImage(panel, width, height)
    canvas = QtGui.QImage(
        panelImage.width() + 8 + 2 * VIEW + 4, max(panelImage.height(), 2 * VIEW + 4), QtGui.QImage.Format.Format_RGB32
    )
    canvas.fill(QtGui.QColor(60, 60, 60))
    painter = QtGui.QPainter(canvas)
    painter.drawImage(0, 0, panelImage)
    left, top = panelImage.width() + 8, canvas.height() - VIEW
    painter.drawImage(left, 0, plot_view.plotImage(chart, (2 * VIEW + 4, top - 4)))
    painter.setPen(QtGui.QColor(255, 220, 90))
    for column, title in enumerate(("End-diastole", "End-systole")):
        painter.drawImage(left + column * (VIEW + 4), top, slices[title])
        painter.drawText(left + column * (VIEW + 4) + 10, top + 20, title)
    painter.end()
    return canvas


if __name__ == "__main__":
    sys.exit(main())
