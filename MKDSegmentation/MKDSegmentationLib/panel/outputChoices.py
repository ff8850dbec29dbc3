"""What a run gives: which structures, and from which segmentor. Choices that are saved with the scene."""

import qt
from slicer.i18n import tr as _

from mkd_core.protocol import SEGMENTORS


class OutputChoices:
    """Keeps the tick list of structures and the choice of the segmentor in agreement with the parameter node.

    :param ui: the panel's widgets: structuresList, filled by :meth:`offer` with one item to tick per structure, and
        segmentorComboBox, filled with the segmentors.
    """

    def __init__(self, ui) -> None:
        structuresList, segmentorComboBox = ui.structuresList, ui.segmentorComboBox
        self._list, self._comboBox = structuresList, segmentorComboBox
        self._parameterNode = None
        self._structures = ()
        texts = {
            "ensemble": _("Both segmentors together"),
            "real": _("S_real alone (trained on images as they are)"),
            "synthetic": _("S_syn alone (trained on translated images)"),
        }
        for segmentor in SEGMENTORS:
            segmentorComboBox.addItem(texts[segmentor])
        structuresList.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)
        segmentorComboBox.connect("currentIndexChanged(int)", self._onSegmentor)

    def offer(self, structures) -> None:
        """Offer the structures that the weights know, in the order of their labels."""
        if structures == self._structures:
            return
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
        if self._parameterNode is not None:
            self.show(self._parameterNode)

    @property
    def structures(self) -> tuple | None:
        """Keys of the structures wanted; None for all."""
        ticked = tuple(structure.key for row, structure in enumerate(self._structures) if self._isTicked(row))
        return None if len(ticked) == len(self._structures) else ticked

    @property
    def problem(self) -> str:
        """Why nothing can be segmented with these choices, or an empty string."""
        return "" if self.structures is None or self.structures else _("Tick at least one structure under Advanced.")

    def setParameterNode(self, parameterNode) -> None:
        """Follow a parameter node, or none."""
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self.show(parameterNode)

    def show(self, parameterNode) -> None:
        """Show what a parameter node says."""
        followed, self._parameterNode = self._parameterNode, None  # what is shown now must not be written back
        excludedStructures = parameterNode.excludedStructures.split()
        for row, structure in enumerate(self._structures):
            state = qt.Qt.Unchecked if structure.key in excludedStructures else qt.Qt.Checked
            if self._list.item(row).checkState() != state:
                self._list.item(row).setCheckState(state)
        self._comboBox.currentIndex = SEGMENTORS.index(parameterNode.segmentor)
        self._parameterNode = followed

    def _isTicked(self, row: int) -> bool:
        return self._list.item(row).checkState() == qt.Qt.Checked

    def _onItemChanged(self, _item) -> None:
        if self._parameterNode is not None:
            offered = [structure.key for structure in self._structures]
            others = [key for key in self._parameterNode.excludedStructures.split() if key not in offered]
            unticked = [key for row, key in enumerate(offered) if not self._isTicked(row)]
            self._parameterNode.excludedStructures = " ".join(unticked + others)

    def _onSegmentor(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.segmentor = SEGMENTORS[index]
