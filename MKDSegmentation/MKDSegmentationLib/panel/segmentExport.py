"""Takes the structures of a result away: as surfaces and as label map."""

import os
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from mkd_core.errors import MKDError

from ..parameters import MachineSettings
from ..scene.findingTexts import notWrittenText
from ..scene.ourSegments import ourSegments


class SegmentExport:
    """Writes surfaces and label maps of the segments as they are now.

    :param ui: the panel's widgets: exportButton, and exportedLabel for what was written.
    :param menu: ExportMenu that gets the entries.
    """

    def __init__(self, ui, menu) -> None:
        self._button, self._label = ui.exportButton, ui.exportedLabel
        self._settings = MachineSettings()
        self._segmentation, self._volume = None, None
        self._ofSegments = [
            menu.add(
                _("Surfaces as STL ..."),
                _("Save each structure as a surface in its own file (mm, LPS)."),
                lambda: self._onSurfaces(".stl"),
            ),
            menu.add(
                _("Surfaces as OBJ ..."),
                _("Save each structure as a surface in its own file (mm, LPS)."),
                lambda: self._onSurfaces(".obj"),
            ),
        ]
        self._ofVolume = menu.add(
            _("Label map as NIfTI ..."),
            _("Save the structures as labels on the voxels of the volume."),
            self._onLabels,
        )

    def show(self, state) -> None:
        """Follow the segmentation in the state of the panel."""
        if state.segmentation is not self._segmentation:
            self._say("")
        self._segmentation, self._volume = state.segmentation, state.volume
        hasSegments = bool(ourSegments(state.segmentation))
        for action in self._ofSegments:
            action.enabled = hasSegments
        self._ofVolume.enabled = hasSegments and state.volume is not None

    def _onSurfaces(self, ending: str) -> None:
        from ..scene.segmentFiles import saveSurfaces, surfaceFiles

        folder = qt.QFileDialog.getExistingDirectory(
            self._button, _("Folder for the surfaces"), os.path.dirname(self._settings.exportPath(""))
        )
        if not folder:
            return
        files = surfaceFiles(self._segmentation, Path(folder), ending, self._settings.fileName)
        there = [path.name for path in files.values() if os.path.lexists(path)]
        if there and not slicer.util.confirmYesNoDisplay(
            _("Replace the files that are there: {files}?").format(files=", ".join(there))
        ):
            return
        if self._do(lambda: saveSurfaces(self._segmentation, files)) is not None:
            self._settings.exportFolder = folder
            count = sum(path.exists() for path in files.values())
            text = _("Saved {count} surfaces in “{folder}” ({kind}, mm, LPS).")
            self._say(
                text.format(count=count, folder=os.path.basename(folder) or folder, kind=ending[1:].upper()),
                "\n".join(path.name for path in files.values()),
            )

    def _onLabels(self) -> None:
        from ..scene.segmentFiles import saveLabels

        proposed = self._settings.exportPath(self._segmentation.GetName(), ".nii.gz")
        path = qt.QFileDialog.getSaveFileName(
            self._button, _("Save the label map"), proposed, _("NIfTI") + " (*.nii.gz *.nii)"
        )
        if not path:
            return
        names = self._do(lambda: saveLabels(self._segmentation, self._volume, Path(path)))
        if names is not None:
            self._settings.exportFolder = os.path.dirname(path)
            text = _("Saved “{file}” on the voxels of “{volume}”.").format(
                file=os.path.basename(path), volume=self._volume.GetName()
            )
            if self._volume.GetParentTransformNode() is not None:
                text += " " + _("The transform of the volume is not applied.")
            self._say(text, "\n".join(f"{label}: {name}" for label, name in names.items()))

    def _do(self, write):
        """Write; return what was written, None where a sentence says why it was not."""
        try:
            with slicer.util.WaitCursor():
                return write() or ()
        except (MKDError, OSError) as error:
            slicer.util.warningDisplay(notWrittenText(error))
            return None

    def _say(self, text: str, toolTip: str = "") -> None:
        self._label.text, self._label.toolTip = text, toolTip
        self._label.visible = bool(text)
