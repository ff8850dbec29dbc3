"""The section "Clinical figures" of the panel: indexed volumes, ratios, diameters and wall thickness, with normal
ranges, of the segments as they are now.
"""

import html

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate

from mkd_core.measure.clinical_figures import (
    TRANSLATION_CONTEXT,
    ClinicalFigure,
    HeartGeometry,
    clinical_figures,
    name_of,
    phase_text,
    untrusted,
)
from mkd_core.measure.patient import BSA_FORMULA
from mkd_core.measure.svg import bullseye_svg
from mkd_core.measure.vessel_diameter import VesselDiameter
from mkd_core.measure.wall_thickness import WallThickness
from mkd_core.protocol import findings

from ..run.incrementalTask import IncrementalTask
from ..scene.findingTexts import findingText, researchUse
from ..scene.heartGeometry import (
    MeasuredHeart,
    diametersOf,
    geometrySteps,
    linesOf,
    removeLines,
    showLines,
    stateOfHeart,
)
from ..scene.heartView import jumpTo
from ..scene.patientFacts import keepTyped, patientOf, phaseOf
from .fittedTable import FittedTable

_SEXES = ("", "F", "M")  # in the order of the combo box
_BULLSEYE_PX = 250


class ClinicalSection:
    """Asks for body size and sex, and shows the figures that they and the segments give.

    :param ui: the panel's widgets: clinicalCollapsibleButton and those in it.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._segmentation, self._volume = None, None
        self._measured, self._heart = (), None  # state of the heart that was measured last, and what was found
        self._task, self._asked = None, ()
        self._figures, self._phase, self._report = [], None, {}
        self._fitted = FittedTable(ui.clinicalTable)
        self._isShowing = False
        self._drawn, self._isDrawn = (), False  # wall and ink of the bull's-eye, and whether Qt could draw it
        ui.sexComboBox.addItems([_("unknown"), _("female"), _("male")])
        ui.heightSpinBox.connect("valueChanged(int)", self._onHeight)
        ui.weightSpinBox.connect("valueChanged(int)", self._onWeight)
        ui.sexComboBox.connect("currentIndexChanged(int)", self._onSex)
        ui.linesCheckBox.connect("toggled(bool)", self._onLines)
        ui.clinicalTable.connect("cellClicked(int,int)", self._onRowClicked)

    @property
    def figures(self) -> list[ClinicalFigure]:
        """The figures that are shown."""
        return self._figures

    @property
    def geometry(self) -> HeartGeometry | None:
        """Diameters and wall, None as long as they are not measured."""
        return self._heart.geometry if self._heart is not None and self._measured == self._asked else None

    def close(self) -> None:
        """End measuring."""
        if self._task is not None:
            self._task.stop()
            self._task = None

    def show(self, state) -> None:
        """Show the figures of the segmentation in the state of the panel; what changed is measured first."""
        isShown = bool(state.report) and not state.isRunning and state.volume is not None
        self._ui.clinicalCollapsibleButton.visible = isShown
        if not isShown:
            self.close()
            self._asked = self._measured = ()
            return
        self._segmentation, self._volume = state.segmentation, state.volume
        self._report = state.report
        self._showPatient()
        asked = (state.segmentation.GetID(), *stateOfHeart(state.segmentation))
        if asked != self._asked:
            self.close()
            self._asked = asked
            self._task = IncrementalTask(
                geometrySteps(state.segmentation, self._atEdge(), self._heart),
                self._onMeasured,
                self._onError,
                restsWhileDrawing=True,
            )
        self._showFigures()

    def _atEdge(self) -> frozenset:
        structures = self._report.get("structures", {})
        return frozenset(key for key, entry in structures.items() if entry.get("touches_border"))

    def _onMeasured(self, heart: MeasuredHeart) -> None:
        self._task, self._heart, self._measured = None, heart, self._asked
        if slicer.mrmlScene.IsNodePresent(self._segmentation):
            self._showFigures()
            if linesOf(self._segmentation):
                showLines(self._segmentation, heart.geometry)

    def _onError(self, error: Exception) -> None:
        self._task = None
        raise error

    def _showPatient(self) -> None:
        ui, patient = self._ui, patientOf(self._volume)
        self._isShowing = True
        ui.heightSpinBox.value = round(100.0 * (patient.height_m or 0.0))
        ui.weightSpinBox.value = round(patient.weight_kg or 0.0)
        ui.sexComboBox.currentIndex = _SEXES.index(patient.sex or "")
        self._isShowing = False

    def _onHeight(self, centimetres: int) -> None:
        self._keep("height_m", centimetres / 100.0 if centimetres else None)

    def _onWeight(self, kilograms: int) -> None:
        self._keep("weight_kg", float(kilograms) if kilograms else None)

    def _onSex(self, index: int) -> None:
        self._keep("sex", _SEXES[index] or None)

    def _keep(self, name: str, value) -> None:
        if not self._isShowing and self._volume is not None:
            keepTyped(self._volume, name, value)
            self._showFigures()

    def _onLines(self, isWanted: bool) -> None:
        if isWanted and self.geometry is not None:
            showLines(self._segmentation, self.geometry)
        elif not isWanted and self._segmentation is not None:
            removeLines(self._segmentation)

    def _onRowClicked(self, row: int, column: int) -> None:
        """Bring the slice views to the diameter in this row."""
        key = self._figures[row].key.removesuffix("_diameter") if row < len(self._figures) else None
        diameter = diametersOf(self.geometry).get(key) if self.geometry is not None else None
        if isinstance(diameter, VesselDiameter):
            first, second = diameter.line
            middle = [(a + b) / 2.0 for a, b in zip(first, second)]
            jumpTo(middle)

    def _showFigures(self) -> None:
        ui, geometry = self._ui, self.geometry
        isOther = not self._measured or not self._asked or self._measured[0] != self._asked[0]
        for button in (ui.reportButton, ui.studyButton):
            button.enabled = geometry is not None
        for widget in (ui.clinicalTable, ui.clinicalNotesLabel, ui.linesCheckBox):
            widget.visible = geometry is not None or not isOther
        if geometry is None:
            self._showWaiting(isOther)
            return
        patient, self._phase = patientOf(self._volume), phaseOf(self._volume)
        structures = self._report.get("structures", {})
        warnings = {key: findings(entry.get("warnings")) for key, entry in structures.items()}
        self._figures = clinical_figures(
            {key: entry.get("volume_ml") or 0.0 for key, entry in structures.items()},
            geometry,
            patient,
            self._report.get("modality", "CT"),
            self._phase,
            self._atEdge(),
            untrusted({None: findings(self._report.get("warnings")), **warnings}),
        )
        self._fillTable()
        self._showNotes(patient)
        ui.linesCheckBox.enabled = any(isinstance(one, VesselDiameter) for one in diametersOf(geometry).values())
        wasBlocked = ui.linesCheckBox.blockSignals(True)
        ui.linesCheckBox.checked = bool(linesOf(self._segmentation))
        ui.linesCheckBox.blockSignals(wasBlocked)
        self._showBullseye()

    def _showWaiting(self, isOther: bool) -> None:
        """Show no figure of what changed and is not measured yet; the rows stay, so that nothing jumps."""
        self._figures = []
        if isOther:
            self._ui.bullseyeLabel.visible = False
        for row in range(self._ui.clinicalTable.rowCount):
            item = self._ui.clinicalTable.item(row, 1)
            if item is not None:
                item.setText("…")

    def _fillTable(self) -> None:
        table = self._ui.clinicalTable
        table.setRowCount(len(self._figures))
        for row, figure in enumerate(self._figures):
            arrow = {"high": " \N{UPWARDS ARROW}", "low": " \N{DOWNWARDS ARROW}"}.get(figure.verdict, "")
            reference = figure.reference
            tip = findingText(figure.reason) if figure.reason is not None else ""
            if reference is not None:
                tip = f"{reference.source}. {reference.method}."
            texts = (
                translate(TRANSLATION_CONTEXT, name_of(figure, self._phase)),
                (figure.text or "–") + arrow,
                reference.text(figure.digits) if reference is not None else "",
            )
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                item.setToolTip(tip or text)
                table.setItem(row, column, item)
        self._fitted.fit()

    def _showNotes(self, patient) -> None:
        lines = [html.escape(f"{phase_text(self._phase)}.")]
        if patient.bsa_m2 is not None:
            area = _("Body surface area {area} m² ({formula}).").format(
                area=f"{patient.bsa_m2:.2f}", formula=BSA_FORMULA
            )
            lines.append(html.escape(area))
        reasons: dict = {}
        for figure in self._figures:
            if figure.reason is not None:
                name = translate(TRANSLATION_CONTEXT, name_of(figure, self._phase))
                reasons.setdefault(findingText(figure.reason), []).append(name)
        for reason, names in reasons.items():
            lines.append(f"<b>{html.escape(', '.join(names))}:</b> {html.escape(reason)}")
        sources = [figure.reference.source for figure in self._figures if figure.reference is not None]
        if sources:
            lines.append(html.escape(_("Normal ranges: {sources}.").format(sources="; ".join(dict.fromkeys(sources)))))
        lines.append(f"<b>{html.escape(researchUse())}</b>")
        self._ui.clinicalNotesLabel.text = "<br>".join(lines)

    def _showBullseye(self) -> None:
        wall, label = self.geometry.wall, self._ui.bullseyeLabel
        isGiven = isinstance(wall, WallThickness) and wall.segments
        isGiven = isGiven and any(one.key == "wall_mean" and one.value is not None for one in self._figures)
        ink = label.palette.color(qt.QPalette.WindowText).name()  # of the theme, dark or light
        if isGiven and (wall, ink) != self._drawn:
            self._drawn = (wall, ink)
            pixmap = qt.QPixmap()
            pixmap.loadFromData(bullseye_svg(wall.segments, _BULLSEYE_PX, ink).encode())
            self._isDrawn = not pixmap.isNull()
            label.setPixmap(pixmap)
            label.setToolTip(_("Mean wall thickness in mm in the 17 segments of the American Heart Association."))
        label.visible = bool(isGiven) and self._isDrawn
