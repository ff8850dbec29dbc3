"""Segment a heart by a click in the real panel, in the stand-in GUI, and show what came out.

Usage: python -m Testing.demo [--ct VOLUME] [--modality CT|MR] [--seed N] [--spacing MM] [--weights BUNDLE] [--out
    FOLDER]

Without --ct a synthetic heart is made, whose true labels are known. Written to FOLDER: volume.nrrd (if synthetic),
heart.seg.nrrd, heart.png (panel, slices with overlay, surfaces) and report.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

TESTING = Path(__file__).resolve().parents[1]

MODULE = TESTING.parent / "MKDSegmentation" / "MKDSegmentation.py"
LONGEST_RUN_S = 1800


def main() -> int:
    """Run the demo; returns the exit status."""
    arguments = parseArguments()
    from Testing.harness import bootstrap, driving, failures

    bootstrap.start()
    import slicer

    arguments.out.mkdir(parents=True, exist_ok=True)
    _module, panel = bootstrap.loadModule(MODULE)
    volume, truth = loadVolume(arguments)
    segmentation = clickAndWait(panel, volume, arguments, driving)
    if segmentation is None:
        return 1
    driving.waitUntil(
        lambda: segmentation.GetSegmentation().ContainsRepresentation("Closed surface"), message="the surfaces"
    )
    if not slicer.util.saveNode(segmentation, str(arguments.out / "heart.seg.nrrd")):
        print("The segmentation could not be saved.", file=sys.stderr)
        return 1
    report = json.loads(segmentation.GetAttribute("MKDSegmentation.Report"))
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    takePicture(panel, volume, segmentation, arguments.out / "heart.png")
    printVolumes(report, segmentation, volume, truth)
    bootstrap.unloadModule("MKDSegmentation")
    problems = failures.take()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def parseArguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m Testing.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--ct", type=Path, help="volume file to segment instead of a synthetic heart")
    parser.add_argument("--modality", choices=["CT", "MR"], default="CT")
    parser.add_argument("--seed", type=int, default=1, help="chooses the synthetic heart")
    parser.add_argument("--spacing", type=float, default=1.0, help="voxel size of the synthetic volume, mm")
    parser.add_argument("--weights", type=Path, help="weights bundle instead of the one that comes with the extension")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results")
    arguments = parser.parse_args()
    if arguments.ct is not None and not arguments.ct.exists():
        parser.error(f"there is no file {arguments.ct}")
    return arguments


def loadVolume(arguments: argparse.Namespace) -> tuple:
    """Return the volume node and its true labels (k, j, i), or None if they are unknown."""
    import slicer

    from MKDSegmentationLib.scene.phantom import addHeartPhantom

    if arguments.ct is not None:
        return slicer.util.loadVolume(str(arguments.ct)), None
    print(f"Making a synthetic heart {arguments.modality} (seed {arguments.seed}) ...", flush=True)
    volume, truth = addHeartPhantom(arguments.seed, arguments.modality, arguments.spacing)
    slicer.util.saveNode(volume, str(arguments.out / "volume.nrrd"))
    return volume, truth


def clickAndWait(panel, volume, arguments: argparse.Namespace, driving):
    """Do what a user does; returns the segmentation node, or None after telling why there is none."""
    driving.choose(panel.ui.inputSelector, volume.GetName())
    driving.choose(panel.ui.modalityComboBox, arguments.modality)
    if arguments.weights is not None:
        driving.click(panel.ui.weightsCollapsibleButton)
        driving.typeText(panel.ui.weightsPathLineEdit, str(arguments.weights.resolve()))
        driving.click(panel.ui.weightsCollapsibleButton)
    if not panel.ui.segmentButton.enabled:
        print(f"Segment cannot be clicked: {panel.ui.statusLabel.text}", file=sys.stderr)
        return None
    start = time.monotonic()
    driving.click(panel.ui.segmentButton)
    shown = ""
    while panel.ui.segmentButton.text == "Cancel":
        driving.processEvents(0.02)
        if panel.ui.statusLabel.text != shown:
            shown = panel.ui.statusLabel.text
            print(f"{time.monotonic() - start:6.1f} s  {panel.ui.progressBar.value:3d} %  {shown}", flush=True)
        if time.monotonic() - start > LONGEST_RUN_S:
            driving.click(panel.ui.segmentButton)
    if not panel.ui.resultsTable.visible:
        print(f"Not segmented: {panel.ui.statusLabel.text}", file=sys.stderr)
        return None
    return panel.ui.outputSelector.currentNode()


def takePicture(panel, volume, segmentation, path: Path) -> None:
    """Write one picture of the panel, three slices through the middle of the heart and the surfaces."""
    import slicer

    from mkd_core.protocol import SHOWN_HU
    from Testing.harness import views

    display = volume.GetDisplayNode()
    if display is not None and slicer.util.arrayFromVolume(volume).min() < -500:  # CT: show blood, muscle and fat
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*SHOWN_HU)
    slicer.util.setSliceViewerLayers(background=volume)
    bounds = np.zeros(6)
    segmentation.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    views.screenshot(path, panel, point=tuple((low + high) / 2), field=float((high - low).max()) * 1.6)
    print(f"Picture: {path}")


def printVolumes(report: dict, segmentation, volume, truth) -> None:
    """Print the measured volumes, next to the true ones and the overlap with them if they are known."""
    import slicer

    from MKDSegmentationLib.scene.findingTexts import warningTexts

    from mkd_core.evaluation.measures import dice
    from mkd_core.structures import STRUCTURES

    voxelMl = float(np.prod(volume.GetSpacing())) / 1000.0
    print(f"\n{'structure':30}{'ml':>8}" + (f"{'true ml':>10}{'Dice':>8}" if truth is not None else ""))
    found = segmentation.GetSegmentation().GetSegmentIDs()
    for structure in STRUCTURES:
        measured = (report["structures"].get(structure.key) or {}).get("volume_ml") or 0.0
        line = f"{structure.name:30}{measured:8.1f}"
        if truth is not None:
            true = truth == structure.label
            mask = np.zeros_like(true)
            if structure.key in found:
                mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, structure.key, volume) > 0
            line += f"{np.count_nonzero(true) * voxelMl:10.1f}{dice(mask, true) or 0.0:8.3f}"
        print(line)
    warnings = warningTexts(report)
    for structure in STRUCTURES:
        warnings += [
            f"{structure.name}: {warning}" for warning in warningTexts(report["structures"].get(structure.key) or {})
        ]
    print("\nWarnings:" if warnings else "\nNo warnings.", *warnings, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
