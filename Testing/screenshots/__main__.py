"""Pictures of the panel in each of its states, made by clicking through it in the stand-in GUI with the real worker.

Usage: python -m Testing.screenshots [--out FOLDER] [--only STATE ...] [--width 380] [--height 800]

Writes one PNG per state: no volume, ready, a warning, running, done, not found, what is folded away, the dark theme,
and a beating heart. Synthetic hearts are segmented with the weights that come with the extension, so nothing is needed
from anywhere; it takes a few minutes. With a height, what Slicer's window of that height shows of the panel is drawn
instead of all of it, scroll bar included.
"""

import argparse
import hashlib
import sys
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]

MODULE = TESTING.parent / "MKDSegmentation" / "MKDSegmentation.py"
#: Of the panel, as a user has it; without a height, all of it is drawn.
size = {"width": 380, "height": None}
LONGEST_RUN_S = 600


def main() -> int:
    """Make the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Testing.screenshots", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=TESTING.parent / "Resources" / "Screenshots", help="folder for the pictures"
    )
    parser.add_argument("--only", nargs="+", choices=list(STATES), help="only these states")
    parser.add_argument("--width", type=int, default=size["width"], help="of the panel, in pixels")
    parser.add_argument("--height", type=int, help="of the area that shows the panel; by default as high as the panel")
    arguments = parser.parse_args()
    size.update(width=arguments.width, height=arguments.height)
    from Testing.harness import bootstrap, failures

    bootstrap.start()
    import slicer

    from Testing.harness import views

    for name, makeState in STATES.items():
        if arguments.only and name not in arguments.only:
            continue
        bootstrap.clear()
        slicer.app.userSettings().clear()  # what one run took must not change the estimate in the next picture
        _module, panel = bootstrap.loadModule(MODULE)
        views.save(makeState(panel), arguments.out / f"{name}.png")
        shrink(arguments.out / f"{name}.png")
        bootstrap.unloadModule("MKDSegmentation")
        problems = failures.take()
        if problems:
            print(f"{name}:", *problems, sep="\n", file=sys.stderr)
            return 1
        print(arguments.out / f"{name}.png", flush=True)
    return 0


def shrink(path: Path) -> None:
    """Give a picture 256 colours, which halves its file: noise in a CT takes most of it. The colours of the structures,
    of the disagreement map and of the bull's-eye are among them, though few pixels have them.
    """
    from PIL import Image

    from MKDSegmentationLib.scene.overlayVolumes import GRADES

    from mkd_core.measure.svg import SCALE_MM, colour_of
    from mkd_core.structures import CATALOGUE

    kept = [structure.color for structure in CATALOGUE] + [color for _start, color in GRADES]
    kept += [tuple(channel // 2 for channel in color) for color in kept]  # in shadow, or over black
    thin, thick = SCALE_MM
    kept += [colour_of(thin + 0.25 * step) for step in range(round(4 * (thick - thin)) + 1)]
    with Image.open(path) as image:
        colors = image.convert("RGB")
    own = colors.quantize(256 - len(kept)).getpalette()[: 3 * (256 - len(kept))]
    palette = Image.new("P", (1, 1))
    palette.putpalette(own + [channel for color in kept for channel in color])
    colors.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def noVolume(panel):
    """Nothing is loaded: the panel says what to do."""
    return panelImage(panel)


def ready(panel):
    """A CT is loaded: one click is enough."""
    addHeart("CT", "Heart CT")
    return panelImage(panel)


def warning(panel):
    """An MR is taken for a CT: the panel asks."""
    addHeart("MR", "Heart MR")
    return panelImage(panel)


def choices(panel):
    """What a run would leave out is told beside the button, and that the views show another volume."""
    import slicer

    from Testing.harness import driving

    addHeart("MR", "Heart MR of March")
    volume = addHeart("CT", "Heart CT")
    driving.choose(panel.ui.inputSelector, "Heart CT")
    driving.click(panel.ui.advancedCollapsibleButton)
    for name in ("Right ventricle", "Left atrium", "Right atrium", "Left ventricular myocardium", "Pulmonary artery"):
        driving.tick(panel.ui.structuresList, name, on=False)
    driving.choose(panel.ui.segmentorComboBox, "S_real alone (trained on images as they are)")
    driving.click(panel.ui.advancedCollapsibleButton)
    slicer.util.setSliceViewerLayers(background=slicer.util.getNode("Heart MR of March"))
    assert panel.ui.inputSelector.currentNode() is volume
    return panelImage(panel)


def running(panel):
    """A run is under way, its log is open."""
    from Testing.harness import driving

    addHeart("CT", "Heart CT")
    driving.click(panel.ui.logCollapsibleButton)
    driving.click(panel.ui.segmentButton)
    driving.waitUntil(lambda: panel.ui.progressBar.value >= 20, LONGEST_RUN_S, "the middle of the run")
    image = panelImage(panel)
    driving.click(panel.ui.segmentButton)
    return image


def done(panel):
    """A heart is segmented: numbers, warnings, slices and surfaces."""
    volume = addHeart("CT", "Heart CT")
    segment(panel)
    ui = panel.ui
    ui.heightSpinBox.value, ui.weightSpinBox.value, ui.sexComboBox.currentText = 178, 81, "male"
    return withViews(panel, volume)


def detailed(panel):
    """A heart is segmented with structures in detail."""
    from Testing.harness import driving

    volume = addHeart("CT", "Heart CT")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.structureSetComboBox, "In detail (13)")
    driving.click(panel.ui.advancedCollapsibleButton)
    segment(panel)
    driving.click(panel.ui.clinicalCollapsibleButton)
    return withViews(panel, volume)


def edited(panel):
    """A quarter of the left ventricle was erased: the figures have followed, and the table says so."""
    import numpy as np
    import slicer

    from Testing.support.panel_driving import waitForClinicalFigures

    volume = addHeart("CT", "Heart CT")
    segment(panel)
    segmentation = panel.ui.outputSelector.currentNode()
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "LV", volume)
    planes = np.flatnonzero(voxels.any(axis=(1, 2)))
    voxels[planes[: len(planes) // 4]] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, segmentation, "LV", volume)
    waitForClinicalFigures(panel, LONGEST_RUN_S)
    return panelImage(panel)


def disagreement(panel):
    """The disagreement map lies over the slices."""
    from Testing.harness import driving

    volume = addHeart("MR", "Heart MR")
    driving.click(panel.ui.switchModalityButton)
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    driving.click(panel.ui.alignedCheckBox)
    driving.click(panel.ui.advancedCollapsibleButton)
    segment(panel)
    driving.click(panel.ui.clinicalCollapsibleButton)
    return withViews(panel, volume)


def failed(panel):
    """A volume without a heart is refused with a sentence."""
    addHeart("CT", "Upper abdomen", part=slice(0, 30))
    segment(panel)
    return panelImage(panel)


def advanced(panel):
    """What is folded away: choices of output and device."""
    from Testing.harness import driving

    addHeart("CT", "Heart CT")
    driving.click(panel.ui.advancedCollapsibleButton)
    return panelImage(panel)


def weights(panel):
    """What is folded away: weights, their model card and the download."""
    from Testing.harness import driving

    driving.click(panel.ui.weightsCollapsibleButton)
    driving.click(panel.ui.downloadCollapsibleButton)
    driving.typeText(panel.ui.urlLineEdit, "https://example.org/heart-1.0.safetensors")
    driving.typeText(panel.ui.sha256LineEdit, hashlib.sha256(b"heart").hexdigest())
    driving.typeText(panel.ui.folderLineEdit, "/home/me/MKDSegmentation")
    panel.ui.sha256LineEdit.cursorPosition = 0
    return panelImage(panel)


def dark(panel):
    """The panel in a dark theme."""
    from Testing.harness import driving
    from Testing.harness.pythonqt import unwrap

    unwrap(panel.parent).setPalette(darkPalette())
    unwrap(panel.parent).setAutoFillBackground(True)
    addHeart("MR", "Heart MR")
    driving.click(panel.ui.switchModalityButton)
    segment(panel)
    return panelImage(panel)


def beatingHeart(panel):
    """All frames of a sequence are segmented: volume-time curves and ejection fraction."""
    from Testing.demo import beat

    volume = beat.loadBeat()
    beat.segmentAllFrames(panel)
    return beat.picture(panel, volume, **size)


def batch(panel):
    """A batch over the volumes of the scene: some are done, one is refused, one runs."""
    import slicer

    from Testing.harness import driving

    first = addHeart("CT", "Heart CT, patient 1")
    addHeart("MR", "Heart MR, patient 2")
    addHeart("CT", "Upper abdomen", part=slice(0, 30))
    addHeart("CT", "Heart CT, patient 3")
    slicer.util.setSliceViewerLayers(background=first)
    driving.click(panel.ui.batchCollapsibleButton)
    driving.click(panel.ui.batchButton)
    states = panel.ui.batchTable
    driving.waitUntil(lambda: states.item(3, 1).text().startswith("running"), LONGEST_RUN_S, "the last volume")
    image = panelImage(panel)
    driving.click(panel.ui.batchButton)
    return image


STATES = {
    "disabled": noVolume,
    "idle": ready,
    "warning": warning,
    "choices": choices,
    "running": running,
    "done": done,
    "detailed": detailed,
    "edited": edited,
    "disagreement": disagreement,
    "failed": failed,
    "advanced": advanced,
    "weights": weights,
    "dark": dark,
    "sequence": beatingHeart,
    "batch": batch,
}


def addHeart(modality: str, name: str, part: slice = slice(None)):
    """Add a synthetic heart, or a part of its slices, and show it; returns the volume node."""
    import slicer

    from MKDSegmentationLib.scene.phantom import addVolume

    from mkd_core.protocol import SHOWN_HU
    from mkd_core.synthesis import synthesize
    from Testing.harness import driving

    image, _truth = synthesize(None, modality, 1, spacing=1.5)
    volume = addVolume(image[:, :, part], name)
    if modality == "CT":
        volume.GetDisplayNode().SetAutoWindowLevel(False)
        volume.GetDisplayNode().SetWindowLevelMinMax(*SHOWN_HU)
    slicer.util.setSliceViewerLayers(background=volume)
    driving.processEvents()
    return volume


def segment(panel) -> None:
    """Click Segment and wait for the end."""
    from Testing.harness import driving
    from Testing.support.panel_driving import waitForClinicalFigures

    driving.click(panel.ui.segmentButton)
    driving.waitUntil(lambda: panel.ui.segmentButton.text == "Segment", LONGEST_RUN_S, "the end of the run")
    if panel.ui.clinicalCollapsibleButton.visible:
        waitForClinicalFigures(panel, LONGEST_RUN_S)


def panelImage(panel):
    """Return a picture of the panel."""
    from Testing.harness import views

    return views.panelImage(panel, **size)


def withViews(panel, volume):
    """Return a picture of panel, three slices and the surfaces."""
    import numpy as np

    from Testing.harness import driving, views

    segmentation = panel.ui.outputSelector.currentNode()
    driving.waitUntil(
        lambda: segmentation.GetSegmentation().ContainsRepresentation("Closed surface"), message="the surfaces"
    )
    bounds = np.zeros(6)
    segmentation.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    return views.windowImage(panel, point=tuple((low + high) / 2), field=float((high - low).max()) * 1.6, **size)


def darkPalette():
    """Return the colours of a dark theme."""
    from PySide6.QtGui import QColor, QPalette

    palette = QPalette()
    roles = QPalette.ColorRole
    for role, color in (
        (roles.Window, "#323232"),
        (roles.Base, "#242424"),
        (roles.AlternateBase, "#323232"),
        (roles.Button, "#3c3c3c"),
        (roles.WindowText, "#eeeeee"),
        (roles.Text, "#eeeeee"),
        (roles.ButtonText, "#eeeeee"),
        (roles.PlaceholderText, "#999999"),
        (roles.Highlight, "#3d7ab5"),
        (roles.HighlightedText, "#ffffff"),
        (roles.Light, "#505050"),
        (roles.Mid, "#282828"),
        (roles.Dark, "#1e1e1e"),
        (roles.ToolTipBase, "#242424"),
        (roles.ToolTipText, "#eeeeee"),
    ):
        palette.setColor(role, QColor(color))
    for role in (roles.WindowText, roles.Text, roles.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor("#9a9a9a"))
    return palette


if __name__ == "__main__":
    sys.exit(main())
