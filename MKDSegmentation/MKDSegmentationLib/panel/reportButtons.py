"""Take the figures away: a report of one page, as PDF or web page, and a row in the table of a study."""

import os
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate

from mkd_core.errors import MKDError
from mkd_core.io.atomic import write_file, write_text
from mkd_core.measure.messages import TRANSLATION_CONTEXT
from mkd_core.measure.report_page import report_html
from mkd_core.measure.report_print import report_rich_text
from mkd_core.measure.study_table import append_row, study_row
from mkd_core.structures import BY_KEY

from ..parameters import MachineSettings
from ..scene.findingTexts import errorText
from ..scene.frameSequence import FrameSequence
from ..scene.functionNodes import functionOfReports
from ..scene.heartGeometry import imagesOf
from ..scene.patientFacts import patientOf, phaseOf, studyDateOf
from ..scene.segmentMeasurement import currentReport
from .reportPdf import canDrawSvg, writePdf


class ReportButtons:
    """Saves the report and rows of the segmentation that is shown, under the name or pseudonym that the user typed.

    :param ui: the panel's widgets: personLineEdit, reportButton, studyButton and savedLabel.
    :param clinical: section whose figures go into the row.
    """

    def __init__(self, ui, clinical) -> None:
        self._ui, self._clinical = ui, clinical
        self._settings = MachineSettings()
        self._segmentation, self._volume = None, None
        ui.reportButton.connect("clicked(bool)", self._onReport)
        ui.studyButton.connect("clicked(bool)", self._onStudy)

    def show(self, state) -> None:
        """Follow the volume in the state of the panel: another patient gets no name of the one before."""
        if state.volume is not self._volume or state.segmentation is not self._segmentation:
            self._ui.savedLabel.text = ""
        if state.volume is not self._volume:
            self._ui.personLineEdit.text = ""
        self._segmentation, self._volume = state.segmentation, state.volume

    def _onReport(self) -> None:
        kinds = _("PDF") + " (*.pdf);;" + _("Web page") + " (*.html)"
        path = self._pathFor(_("Save the report"), ".pdf", kinds)
        if path:
            self._write(path, self._writeReport)

    def _onStudy(self) -> None:
        path = self._pathFor(_("Add to the table of a study"), "", _("Table") + " (*.csv)", isAdded=True)
        if path:
            self._write(path, self._writeRow)

    def _write(self, path: str, write) -> None:
        try:
            self._ui.savedLabel.text = write(Path(path))
        except (MKDError, OSError) as error:
            reason = errorText(error) if isinstance(error, MKDError) else error.strerror or error
            slicer.util.warningDisplay(_("The file could not be written ({reason}).").format(reason=reason))
            return
        self._settings.exportFolder = os.path.dirname(path)

    def _writeReport(self, path: Path) -> str:
        from mkd_core.measure.heart_page import heart_page  # here, for it loads SimpleITK

        with slicer.util.WaitCursor():
            image, labels, structures = imagesOf(self._segmentation, self._volume)
            function, curves = self._function()
            report = currentReport(self._segmentation, self._volume)
            study = {
                "Volume": self._volume.GetName(),
                "Date": studyDateOf(self._volume),
                "Modality": report.get("modality", ""),
                "Voxel": " × ".join(f"{step:.2f}" for step in image.GetSpacing()) + " mm",
            }
            page = heart_page(
                image,
                labels,
                report,
                structures,
                person=self._ui.personLineEdit.text.strip(),
                study={name: text for name, text in study.items() if text},
                patient=patientOf(self._volume),
                phase=phaseOf(self._volume),
                function=function,
                curves=curves,
            )
            if path.suffix.lower() == ".pdf":
                text = report_rich_text(page, _translated, draws_svg=canDrawSvg())
                write_file(path, lambda draft: writePdf(str(draft), text))
            else:
                write_text(path, report_html(page, _translated))
        return _("Saved “{file}”.").format(file=path.name)

    def _writeRow(self, path: Path) -> str:
        row = study_row(
            currentReport(self._segmentation, self._volume),
            self._clinical.figures,
            person=self._ui.personLineEdit.text.strip(),
            volume=self._volume.GetName(),
            date=studyDateOf(self._volume),
            patient=patientOf(self._volume),
            phase=phaseOf(self._volume),
            function=self._function()[0],
        )
        count = append_row(path, row)
        return _("Added to “{file}”, which has {count} rows now.").format(file=path.name, count=count)

    def _function(self) -> tuple:
        """Return the function of the sequence behind the volume and its curves; None and nothing for a volume alone."""
        frames = FrameSequence.of(self._volume)
        if frames is None or frames.segmentations() is None:
            return None, {}
        reports = frames.reports()
        curves = {
            BY_KEY[key].name: [((one or {}).get("structures", {}).get(key) or {}).get("volume_ml") for one in reports]
            for key in ("LV", "RV")
        }
        return functionOfReports(reports, frames.isUnfinished), curves

    def _pathFor(self, title: str, suffix: str, kinds: str, isAdded: bool = False) -> str:
        name = self._segmentation.GetName() if suffix else _("study.csv")
        proposed = self._settings.exportPath(name, suffix)
        arguments = [self._ui.reportButton, title, proposed, kinds]
        if isAdded:  # nothing is replaced: no question whether to
            arguments += ["", qt.QFileDialog.DontConfirmOverwrite]
        return qt.QFileDialog.getSaveFileName(*arguments)


def _translated(text: str) -> str:
    return translate(TRANSLATION_CONTEXT, text)
