"""Take the figures away: a report of one page, as PDF or web page, and a row in the table of a study."""

import os
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate

from mkd_core.errors import InputError, MKDError
from mkd_core.io.atomic import write_file, write_text
from mkd_core.measure.messages import TRANSLATION_CONTEXT
from mkd_core.measure.report_page import report_html
from mkd_core.measure.report_print import report_rich_text
from mkd_core.measure.study_table import append_row, study_row
from mkd_core.structures import BY_KEY

from ..parameters import MachineSettings
from ..run.incrementalTask import IncrementalTask
from ..scene.findingTexts import notWrittenText
from ..scene.frameSequence import FrameSequence
from ..scene.functionNodes import functionOfReports
from ..scene.heartGeometry import imageSteps, stateOfHeart
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
        self._task = None  # of writing a report, under way
        ui.reportButton.connect("clicked(bool)", self._onReport)
        ui.studyButton.connect("clicked(bool)", self._onStudy)

    def show(self, state) -> None:
        """Follow the volume in the state of the panel: another patient gets no name of the one before."""
        if state.volume is not self._volume or state.segmentation is not self._segmentation:
            self._ui.savedLabel.text = ""
        if state.volume is not self._volume:
            self._ui.personLineEdit.text = ""
        self._segmentation, self._volume = state.segmentation, state.volume

    def close(self) -> None:
        """Leave a report that is being written."""
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _onReport(self) -> None:
        if self._task is not None:
            return
        kinds = _("PDF") + " (*.pdf);;" + _("Web page") + " (*.html)"
        path = self._pathFor(_("Save the report"), ".pdf", kinds)
        if path:
            self._ui.savedLabel.text = _("Writing the report ...")
            self._task = IncrementalTask(
                self._reportSteps(Path(path), stateOfHeart(self._segmentation)),
                lambda text: self._onReportWritten(path, text),
                self._onReportError,
            )

    def _onReportWritten(self, path: str, text: str) -> None:
        self._task = None
        self._ui.savedLabel.text = text
        self._settings.exportFolder = os.path.dirname(path)

    def _onReportError(self, error: Exception) -> None:
        self._task = None
        self._ui.savedLabel.text = ""
        if not isinstance(error, (MKDError, OSError)):
            raise error
        slicer.util.warningDisplay(notWrittenText(error))

    def _onStudy(self) -> None:
        path = self._pathFor(_("Add to the table of a study"), "", _("Table") + " (*.csv)", isAdded=True)
        if not path:
            return
        try:
            self._ui.savedLabel.text = self._writeRow(Path(path))
        except (MKDError, OSError) as error:
            slicer.util.warningDisplay(notWrittenText(error))
            return
        self._settings.exportFolder = os.path.dirname(path)

    def _reportSteps(self, path: Path, state: tuple):
        """Write the report; a generator of short steps that returns what to say.

        :param state: of the segments that the report is on (see heartGeometry.stateOfHeart).
        """
        from mkd_core.measure.heart_page import page_steps  # here, for it loads SimpleITK

        segmentation, volume, geometry = self._segmentation, self._volume, self._clinical.geometry
        person = self._ui.personLineEdit.text.strip()
        report, (function, curves) = currentReport(segmentation, volume), self._function()
        yield
        image, labels, structures = yield from imageSteps(segmentation, volume)
        study = {
            "Volume": volume.GetName(),
            "Date": studyDateOf(volume),
            "Modality": report.get("modality", ""),
            "Voxel": " × ".join(f"{step:.2f}" for step in image.GetSpacing()) + " mm",
        }
        page = yield from page_steps(
            image,
            labels,
            report,
            structures,
            person=person,
            study={name: text for name, text in study.items() if text},
            patient=patientOf(volume),
            phase=phaseOf(volume),
            function=function,
            curves=curves,
            geometry=geometry,
        )
        if stateOfHeart(segmentation) != state:
            raise InputError(_("The segments were edited meanwhile. Save the report again."))
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
