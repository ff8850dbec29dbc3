"""What a run gives: which structures, and from which segmentor. Choices that are saved with the scene."""

import html

import qt
from slicer.i18n import tr as _

from mkd_core.protocol import IN_DETAIL, SEGMENTORS, STRUCTURE_SETS, WHOLE_HEART

from ..scene.patientFacts import patientIdOf

_SEGMENTOR_NAMES = {"real": "S_real", "synthetic": "S_syn"}


class OutputChoices:
    """Keeps the set of structures, their tick list and the choice of the segmentor in agreement with the parameter
    node.

    What is not the default is told in a sentence beside the button that segments, for these widgets may be folded away,
    and ends with the patient that it was chosen for.

    :param ui: the panel's widgets: structureSetComboBox, filled by :meth:`offer` with the sets of structures and shown
        if there are two, structuresList, filled with one item to tick per structure, segmentorComboBox, filled with the
        segmentors, and choicesLabel for the sentence.
    """

    def __init__(self, ui) -> None:
        structuresList, segmentorComboBox = ui.structuresList, ui.segmentorComboBox
        self._list, self._comboBox, self._label = structuresList, segmentorComboBox, ui.choicesLabel
        self._sets = ui.structureSetComboBox
        self._parameterNode = None
        self._known, self._inDetail = (), ()  # what each set adds
        self._structures = ()  # in the list
        self._volume = None  # for which the choices were made
        texts = {
            "ensemble": _("Both segmentors together"),
            "real": _("S_real alone (trained on images as they are)"),
            "synthetic": _("S_syn alone (trained on translated images)"),
        }
        for segmentor in SEGMENTORS:
            segmentorComboBox.addItem(texts[segmentor])
        self._sets.addItems(["", ""])
        self._sets.connect("currentIndexChanged(int)", self._onSet)
        structuresList.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)
        segmentorComboBox.connect("currentIndexChanged(int)", self._onSegmentor)
        self._label.connect("linkActivated(QString)", self._onReset)

    def offer(self, structures: tuple, inDetail: tuple = ()) -> None:
        """Offer structures, in the order of their labels.

        :param structures: those that the weights know.
        :param inDetail: those that can be segmented besides.
        """
        inDetail = tuple(one for one in inDetail if one.key not in {known.key for known in structures})
        if (structures, inDetail) == (self._known, self._inDetail):
            return
        self._known, self._inDetail = structures, inDetail
        self._sets.setItemText(0, _("Whole heart ({count})").format(count=len(structures)))
        self._sets.setItemText(1, _("In detail ({count})").format(count=len(structures) + len(inDetail)))
        self._sets.visible = bool(inDetail)
        self._fill(structures)
        if self._parameterNode is not None:
            self.show(self._parameterNode)

    def _fill(self, structures: tuple) -> None:
        self._structures = structures
        wasBlocked = self._list.blockSignals(True)
        self._list.clear()
        for structure in structures:
            item = qt.QListWidgetItem(structure.name)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
            item.setCheckState(qt.Qt.Checked)
            self._list.addItem(item)
        self._list.setFixedHeight(len(structures) * self._list.sizeHintForRow(0) + 2 * self._list.frameWidth + 4)
        self._list.blockSignals(wasBlocked)

    @property
    def _isInDetail(self) -> bool:
        """True if more is wanted than what the weights know."""
        return len(self._structures) > len(self._known)

    @property
    def structures(self) -> tuple | str | None:
        """Keys of the structures wanted, or the name of a set of them; None for those that the weights know."""
        ticked = tuple(structure.key for row, structure in enumerate(self._structures) if self._isTicked(row))
        if len(ticked) < len(self._structures):
            return ticked
        return IN_DETAIL if self._isInDetail else None

    @property
    def problem(self) -> str:
        """Why nothing can be segmented with these choices, or an empty string."""
        return "" if self.structures is None or self.structures else _("Tick at least one structure under Advanced.")

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node, or none."""
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self.show(parameterNode)

    def forgetPatient(self) -> None:
        """Let the choices that come with a scene hold for its volume."""
        self._volume = None

    def followVolume(self, volumeNode) -> None:
        """Take the choices back if the selected volume is not known to show the patient of the one before."""
        if volumeNode is None or volumeNode is self._volume:
            return
        before, self._volume = self._volume, volumeNode
        patient = patientIdOf(volumeNode)
        isOther = before is not None and (patient is None or patient != patientIdOf(before))
        if isOther and self._parameterNode is not None:
            self._onReset()

    def keepFor(self, volumeNode) -> None:
        """Keep the choices for a volume made of the selected one."""
        self._volume = volumeNode

    def show(self, parameterNode) -> None:
        """Show what a parameter node says."""
        followed, self._parameterNode = self._parameterNode, None  # what is shown now must not be written back
        isInDetail = parameterNode.structureSet == IN_DETAIL and bool(self._inDetail)
        self._sets.currentIndex = STRUCTURE_SETS.index(IN_DETAIL if isInDetail else WHOLE_HEART)
        if isInDetail != self._isInDetail:
            self._fill(self._known + self._inDetail if isInDetail else self._known)
        excludedStructures = parameterNode.excludedStructures.split()
        for row, structure in enumerate(self._structures):
            state = qt.Qt.Unchecked if structure.key in excludedStructures else qt.Qt.Checked
            if self._list.item(row).checkState() != state:
                self._list.item(row).setCheckState(state)
        self._comboBox.currentIndex = SEGMENTORS.index(parameterNode.segmentor)
        self._parameterNode = followed
        self._tell(parameterNode.segmentor)

    def _tell(self, segmentor: str) -> None:
        """Say what a run gives other than the whole heart."""
        chosen, sentences = self.structures, []
        if chosen == IN_DETAIL:
            names = [structure.name for structure in self._inDetail]
            sentences.append(_("Besides the whole heart: {names}.").format(names=", ".join(names)))
        elif chosen:
            names = [structure.name for structure in self._structures if structure.key in chosen]
            sentences.append(_("Only these structures: {names}.").format(names=", ".join(names)))
        if segmentor != "ensemble":
            sentences.append(_("Only the output of {segmentor}.").format(segmentor=_SEGMENTOR_NAMES[segmentor]))
        text = html.escape(" ".join(sentences))
        text += f' <a href="reset">{_("Reset")}</a>' if text else ""
        if self._label.text != text:
            self._label.text = text
        self._label.visible = bool(text)

    def _onReset(self, _link: str = "") -> None:
        """Take the whole heart and the output of both segmentors."""
        self._parameterNode.structureSet = WHOLE_HEART
        self._parameterNode.excludedStructures = ""
        self._parameterNode.segmentor = "ensemble"

    def _isTicked(self, row: int) -> bool:
        return self._list.item(row).checkState() == qt.Qt.Checked

    def _onItemChanged(self, _item) -> None:
        if self._parameterNode is not None:
            offered = [structure.key for structure in self._structures]
            others = [key for key in self._parameterNode.excludedStructures.split() if key not in offered]
            unticked = [key for row, key in enumerate(offered) if not self._isTicked(row)]
            self._parameterNode.excludedStructures = " ".join(unticked + others)

    def _onSet(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.structureSet = STRUCTURE_SETS[index]

    def _onSegmentor(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.segmentor = SEGMENTORS[index]
