"""Save the result as DICOM, to be sent to where the images are."""

import os

import qt
import slicer
from slicer.i18n import tr as _

from mkd_core.errors import MKDError

from ..parameters import MachineSettings
from ..scene.findingTexts import errorText


class DicomSaving:
    """Writes DICOM Segmentation and report of the segments as they are now.

    :param ui: the panel's widgets: exportButton.
    :param menu: ExportMenu that gets an entry for it.
    """

    def __init__(self, ui, menu) -> None:
        self._button = ui.exportButton
        self._action = menu.add(
            _("DICOM Segmentation ..."),
            _(
                "Save the segments as they are now as DICOM Segmentation, and the measurements beside it as DICOM "
                "report (.sr.dcm). Both are also added to Slicer's DICOM database. The volume must have been loaded "
                "from there."
            ),
            self._onSave,
        )
        self._settings = MachineSettings()
        self._state = None

    def show(self, state) -> None:
        """Remember what would be saved; without its volume there are no slices that it could lie on."""
        self._state = state
        self._action.enabled = state.volume is not None

    def _onSave(self) -> None:
        from ..scene.dicomExport import saveAsDicom, sourceFiles  # here, for it loads SimpleITK

        segmentation, volume = self._state.segmentation, self._state.volume
        try:
            sourceFiles(volume)  # before anyone thinks of a name
        except MKDError as error:
            slicer.util.warningDisplay(errorText(error))
            return
        proposed = self._settings.exportPath(segmentation.GetName(), ".dcm")
        path = qt.QFileDialog.getSaveFileName(
            self._button, _("Save as DICOM"), proposed, _("DICOM Segmentation") + " (*.dcm)"
        )
        if not path:
            return
        try:
            with slicer.util.WaitCursor():
                saveAsDicom(segmentation, volume, path)
        except MKDError as error:
            slicer.util.warningDisplay(errorText(error))
            return
        self._settings.exportFolder = os.path.dirname(path)
