"""What a run gives: which structures, and from which segmentor. Choices that are saved with the scene."""

import qt
from slicer.i18n import tr as _

from mkd_core.protocol import SEGMENTORS
from mkd_core.structures import STRUCTURES


class OutputChoices:
    """Keeps the tick list of structures and the choice of the segmentor in agreement with the parameter node.

    :param ui: the panel's widgets: structuresList, filled with one item to tick per structure, and segmentorComboBox,
        filled with the segmentors.
    """

    def __init__(self, ui) -> None:
        structuresList, segmentorComboBox = ui.structuresList, ui.segmentorComboBox
        self._list, self._comboBox = structuresList, segmentorComboBox
        self._parameterNode = None
        for structure in STRUCTURES:
            item = qt.QListWidgetItem(structure.name)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
            item.setCheckState(qt.Qt.Checked)
            structuresList.addItem(item)
        structuresList.setFixedHeight(
            len(STRUCTURES) * structuresList.sizeHintForRow(0) + 2 * structuresList.frameWidth + 4
        )
        texts = {
            "ensemble": _("Both segmentors together"),
            "real": _("S_real alone (trained on images as they are)"),
            "synthetic": _("S_syn alone (trained on translated images)"),
        }
        for segmentor in SEGMENTORS:
            segmentorComboBox.addItem(texts[segmentor])
        structuresList.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)
        segmentorComboBox.connect("currentIndexChanged(int)", self._onSegmentor)

    @property
    def structures(self) -> tuple | None:
        """Keys of the structures wanted; None for all."""
        ticked = tuple(structure.key for row, structure in enumerate(STRUCTURES) if self._isTicked(row))
        return None if len(ticked) == len(STRUCTURES) else ticked

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
        for row, structure in enumerate(STRUCTURES):
            state = qt.Qt.Unchecked if structure.key in excludedStructures else qt.Qt.Checked
            if self._list.item(row).checkState() != state:
                self._list.item(row).setCheckState(state)
        self._comboBox.currentIndex = SEGMENTORS.index(parameterNode.segmentor)
        self._parameterNode = followed

    def _isTicked(self, row: int) -> bool:
        return self._list.item(row).checkState() == qt.Qt.Checked

    def _onItemChanged(self, _item) -> None:
        if self._parameterNode is not None:
            self._parameterNode.excludedStructures = " ".join(
                structure.key for row, structure in enumerate(STRUCTURES) if not self._isTicked(row)
            )

    def _onSegmentor(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.segmentor = SEGMENTORS[index]
