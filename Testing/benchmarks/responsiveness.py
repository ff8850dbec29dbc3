"""How long the application's thread works without looking at its events: the real panel in the stand-in GUI, on heart
CTs of 512 x 512 x 300 voxels.

    python -m Testing.benchmarks.responsiveness [--size 512 512 300] [--json FILE]

Prints for each thing that a user does the longest pause in ms of the processor's time, so that other programs do not
count, from the click to the last figure: a run, edits of a segment while figures follow, a report as PDF and as web
page, a row for a study, a batch over two volumes, a click on a finished row, a batch over a folder, a click on a row
whose volume is then loaded, and a run over the two frames of a sequence.  Exits with 1 if one is longer than 200 ms.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from Testing.benchmarks.click import MODULE, heart_ct

#: Longest pause that is allowed, ms.
LIMIT_MS = 200


class Watch:
    """Notes how long the event loop was away at most."""

    def __init__(self) -> None:
        import qt

        self._turns: list[float] = []
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", lambda: self._turns.append(time.thread_time()))
        self._timer.start(1)
        self.pauses: dict[str, int] = {}

    def measure(self, name: str, action: Callable[[], Any], is_over: Callable[[], bool]) -> None:
        """Do something, wait until it is over, and note the longest pause under a name."""
        from Testing.harness import driving

        driving.processEvents(0.05)
        self._turns.clear()
        driving.processEvents(0.05)
        action()
        driving.waitUntil(is_over, 600, name)
        driving.processEvents(0.5)  # what follows in later turns counts too
        longest = max(after - before for before, after in itertools.pairwise(self._turns))
        self.pauses[name] = max(self.pauses.get(name, 0), round(1000 * longest))
        print(f"{name:28} {self.pauses[name]:5} ms", flush=True)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.stop()


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from Testing.harness import bootstrap, driving

    bootstrap.start()
    _, panel = bootstrap.loadModule(MODULE)
    import qt
    import slicer

    from MKDSegmentationLib.scene.phantom import addVolume

    ui, size, watch = panel.ui, tuple(options.size), None
    image = heart_ct(size)
    first = addVolume(image, "Heart CT")
    driving.choose(ui.inputSelector, first.GetName())
    watch = Watch()

    def is_ready() -> bool:
        return ui.segmentButton.text == "Segment" and not panel.logic.measurements.isBusy

    def has_figures() -> bool:
        return is_ready() and panel._clinical.geometry is not None

    watch.measure("run", lambda: driving.click(ui.segmentButton), has_figures)
    segmentation = ui.outputSelector.currentNode()
    if segmentation is None:
        sys.exit(f"Not segmented: {ui.statusLabel.text}")
    for key in ("LV", "Myo", "PA"):
        array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, key, first)
        planes = np.flatnonzero(array.any(axis=(1, 2)))
        array[planes[: len(planes) // 4]] = 0  # a quarter of the structure is erased
        # The editor writes the voxels; what follows is ours.
        segmentation.DisableModifiedEventOn()
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, key, first)
        segmentation.DisableModifiedEventOff()

        def tell(name: str = key) -> None:
            segmentation.GetSegmentation().GetSegment(name).Modified()
            segmentation.Modified()

        watch.measure("figures after an edit", tell, has_figures)
    with tempfile.TemporaryDirectory() as folder:
        for name, button, file in (
            ("report as PDF", ui.reportButton, "heart.pdf"),
            ("report as web page", ui.reportButton, "heart.html"),
            ("row for a study", ui.studyButton, "study.csv"),
        ):
            path = Path(folder) / file
            setattr(qt.QFileDialog, "getSaveFileName", lambda *_, path=path: str(path))  # noqa: B010

            def is_written(path: Path = path) -> bool:
                return path.is_file() and panel._reportButtons._task is None

            watch.measure(name, lambda button=button: driving.click(button), is_written)
    for number in (2, 3):
        addVolume(image, f"Heart CT {number}")
    watch.measure("batch section opens", lambda: driving.click(ui.batchCollapsibleButton), lambda: True)
    driving.waitUntil(lambda: ui.batchButton.enabled, 60, "the button of the batch")
    driving.click(ui.batchButton)
    watch.measure("batch", lambda: None, is_ready)
    watch.measure("click on a finished row", lambda: _show(panel, 1), has_figures)
    with tempfile.TemporaryDirectory() as folder:
        _measure_folder(panel, image, Path(folder), watch, has_figures)
    volume = _sequence_of(image, 2)
    driving.choose(ui.inputSelector, volume.GetName())
    watch.measure("run over a sequence", lambda: driving.click(ui.segmentSequenceButton), has_figures)
    if not ui.functionTable.visible:
        sys.exit(f"Not segmented: {ui.statusLabel.text}")
    watch.close()
    figures = {"size": list(size), "longest pause ms": watch.pauses, "limit ms": LIMIT_MS}
    if options.json:
        from mkd_core.io.atomic import write_text

        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.json, json.dumps(figures, indent=1) + "\n")
    bootstrap.unloadModule("MKDSegmentation")
    over = {name: pause for name, pause in watch.pauses.items() if pause > LIMIT_MS}
    print("longer than the limit: " + ", ".join(over) if over else f"nothing takes longer than {LIMIT_MS} ms")
    return 1 if over else 0


def _measure_folder(panel: Any, image: Any, folder: Path, watch: Watch, has_figures: Callable[[], bool]) -> None:
    """Segment the volumes of a folder and load one of them."""
    from mkd_core.io.volumes import write_volume
    from Testing.harness import driving

    ui, source = panel.ui, folder / "volumes"
    source.mkdir()
    write_volume(image, source / "Heart.nrrd", compress=False)
    driving.choose(ui.batchSourceComboBox, "Volumes in a folder")
    driving.typeText(ui.batchFolderLineEdit, str(source))

    def is_ready() -> bool:
        return bool(ui.segmentButton.text == "Segment")

    watch.measure("batch over a folder", lambda: driving.click(ui.batchButton), is_ready)
    before = panel._parameterNode.inputVolume

    def is_shown() -> bool:
        return panel._parameterNode.inputVolume is not before and has_figures()

    watch.measure("click on a row of a folder", lambda: _show(panel, 0), is_shown)


def _sequence_of(image: Any, frames: int) -> Any:
    """A sequence in the scene, all of whose frames are the same volume; the node that shows the selected frame."""
    import slicer

    from MKDSegmentationLib.run.volumeTransfer import setVolumeFromImage

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Beat")
    volume = slicer.vtkMRMLScalarVolumeNode()
    setVolumeFromImage(volume, image)
    for frame in range(frames):
        sequence.SetDataNodeAtValue(volume, str(frame))
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Beat browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser.GetProxyNode(sequence)


def _show(panel: Any, row: int) -> None:
    """Click a row of the batch."""
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    from Testing.harness.pythonqt import unwrap

    table = unwrap(panel.ui.batchTable)
    place = table.visualItemRect(table.item(row, 0)).center()
    QTest.mouseClick(table.viewport(), QtCore.Qt.MouseButton.LeftButton, pos=place)


if __name__ == "__main__":
    sys.exit(main())
