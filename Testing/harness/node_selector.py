"""Stand-in for qMRMLNodeComboBox."""

import weakref

import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from . import failures
from .api import standIn
from .ctk import ctkComboBox
from .observations import Observations

KEY_ROLE = QtCore.Qt.ItemDataRole.UserRole
SEPARATOR, NONE, NODE = "SEPARATOR", "NONE", "NODE"


@standIn
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """A selector of nodes of the scene.

    The rows are kept in a real QComboBox by single insertions and removals, as in Slicer, so that Qt decides in the
    same way what is
    selected when rows come and go: without None and without actions in the list, the first node that comes is selected;
    with them it is not; when the selected node goes, a neighbour is selected (which one differs between Qt versions).
    Without None, the first node is selected when the scene is set.
    """

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._requested, self._switchingScene = None, None, False
        self._nodeTypes, self._hiddenTypes, self._attributes, self._baseNames, self._labels = [], [], [], {}, {}
        self._noneEnabled, self._noneDisplay, self._showHidden, self._showChildTypes = False, "None", False, True
        self._addEnabled, self._removeEnabled, self._editEnabled, self._renameEnabled = True, True, False, False
        self._selectUponCreation = True
        self._sceneObservations, self._nodeObservations = Observations(self), Observations(self)
        self._comboBox = ctkComboBox(self)
        self._model = QtGui.QStandardItemModel(self)
        self._comboBox.setModel(self._model)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._comboBox)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)
        self._comboBox.currentTextChanged.connect(self._onCurrentTextChanged)
        self._comboBox.activated.connect(self._onActivated)
        self.setEnabled(False)

    # --- scene and rows

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is self._scene:
            return
        self._sceneObservations.removeAll()
        self._scene = scene
        if scene is not None:
            self._sceneObservations.add(scene, scene.NodeAddedEvent, self._onSceneChanged)
            self._sceneObservations.add(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)
            self._sceneObservations.add(scene, scene.EndCloseEvent, self._onSceneChanged)
            self._sceneObservations.add(scene, scene.EndImportEvent, self._onSceneChanged)
        self._switchingScene = True
        self._synchronize()
        self._comboBox.setCurrentIndex(-1)
        self._switchingScene = False
        wanted = self._requested() if isinstance(self._requested, weakref.ref) else self._requested
        wanted = wanted.GetID() if isinstance(wanted, vtk.vtkObject) else wanted
        self._requested = None
        self.setCurrentNodeID(wanted or self._idAt(0))
        self.setEnabled(scene is not None)

    def _onSceneChanged(self, _data):
        if not self._scene.IsImporting():
            self._synchronize()

    def _onNodeAboutToBeRemoved(self, node):
        if not self._scene.IsClosing():
            self._synchronize(going=node)

    def _isListed(self, node):
        if (node.GetHideFromEditors() and not self._showHidden) or node.GetClassName() in self._hiddenTypes:
            return False
        if self._showChildTypes:
            suitable = not self._nodeTypes or any(node.IsA(nodeType) for nodeType in self._nodeTypes)
        else:
            suitable = not self._nodeTypes or node.GetClassName() in self._nodeTypes
        for nodeType, name, value in self._attributes:
            if node.IsA(nodeType) and (
                node.GetAttribute(name) is None or (value is not None and node.GetAttribute(name) != value)
            ):
                return False
        return suitable

    def _wantedRows(self, going):
        """Return [(key, text)] of all rows."""
        if self._scene is None:
            return []
        nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        rows = [((NONE,), self._noneDisplay)] if self._noneEnabled else []
        rows += [
            ((NODE, node.GetID()), node.GetName() or "") for node in nodes if node is not going and self._isListed(node)
        ]
        label = self.nodeTypeLabel(self._nodeTypes[0] if len(self._nodeTypes) == 1 else "")
        actions = [(("RENAME",), f"Rename current {label}")] if self._renameEnabled else []
        actions += [(("EDIT",), f"Edit current {label}")] if self._editEnabled else []
        for kind in self._nodeTypes if self._addEnabled else ():
            actions.append((("CREATE", kind), f"Create new {self.nodeTypeLabel(kind)}"))
            if self._renameEnabled:
                actions.append((("CREATE_AS", kind), f"Create new {self.nodeTypeLabel(kind)} as..."))
        actions += [(("DELETE",), f"Delete current {label}")] if self._removeEnabled else []
        return rows + ([((SEPARATOR,), ""), *actions] if actions else [])

    def _synchronize(self, going=None):
        """Insert and remove single rows until the list is as it should be."""
        rows = self._wantedRows(going)
        wanted = {key for key, _text in rows}
        removed = False
        for row in reversed(range(self._model.rowCount())):
            if self._keyAt(row) not in wanted:
                if self._nodeAt(row) is not None:
                    self.nodeAboutToBeRemoved.emit(self._nodeAt(row))
                self._model.removeRow(row)
                removed = True
        for row, (key, text) in enumerate(rows):
            if self._keyAt(row) != key:
                self._insert(row, key, text)
            elif self._model.item(row).text() != text:
                self._model.item(row).setText(text)
        if removed and self.currentNode() is None:
            self.setCurrentNodeID("")
        self._observeNodes()
        self._comboBox.defaultText = f"Select a {self.nodeTypeLabel(self._nodeTypes[0] if self._nodeTypes else '')}"

    def _insert(self, row, key, text):
        item = QtGui.QStandardItem(text)
        item.setData(key, KEY_ROLE)
        if key == (SEPARATOR,):
            item.setData("separator", QtCore.Qt.ItemDataRole.AccessibleDescriptionRole)
            item.setFlags(QtCore.Qt.ItemFlag.NoItemFlags)
        current = self._comboBox.currentIndex()
        self._model.insertRow(row, item)
        if key[0] == NODE:
            self.nodeAdded.emit(self._nodeAt(row))
        elif key[0] != NONE:
            self._comboBox.setCurrentIndex(current)  # an action is never selected by being inserted

    def _observeNodes(self):
        self._nodeObservations.removeAll()
        for index in range(self._scene.GetNumberOfNodes() if self._scene is not None else 0):
            node = self._scene.GetNthNode(index)
            if any(node.IsA(nodeType) for nodeType in self._nodeTypes):
                self._nodeObservations.add(node, vtk.vtkCommand.ModifiedEvent, self._onNodeModified)

    def _onNodeModified(self, _data):
        shown = [(self._keyAt(row), self._model.item(row).text()) for row in range(self._model.rowCount())]
        if not self._scene.IsClosing() and shown != self._wantedRows(None):
            self._synchronize()

    def _keyAt(self, row):
        item = self._model.item(row) if row >= 0 else None
        return tuple(item.data(KEY_ROLE)) if item is not None else None

    def _idAt(self, row):
        key = self._keyAt(row)
        return key[1] if key is not None and key[0] == NODE else ""

    def _nodeAt(self, row):
        return self._scene.GetNodeByID(self._idAt(row)) if self._idAt(row) else None

    def _nodeRows(self):
        return [row for row in range(self._model.rowCount()) if self._idAt(row)]

    # --- the current node

    def _onCurrentTextChanged(self, _text):
        if self._switchingScene:
            return
        index, node = self._comboBox.currentIndex(), self.currentNode()
        if node is None and index != (0 if self._noneEnabled else -1):
            if self._nodeRows():  # an action became current
                self.setCurrentNode(self._nodeAt(self._nodeRows()[-1]))
            return
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def _onActivated(self, index):
        """The user chose a row: a node, "None" or an action."""
        key = self._keyAt(index)
        if key[0] in (NODE, NONE):
            self.nodeActivated.emit(self._nodeAt(index))
        elif key[0] == "CREATE":
            node = self.addNode(key[1])
            self.setCurrentNode(node)
            self.nodeAddedByUserAction.emit(node)
        elif key[0] == "DELETE":
            self.removeCurrentNode()
        else:
            raise NotImplementedError(f"the stand-in GUI does not make the selector's {key[0]} action")

    def currentNode(self):
        return self._nodeAt(self._comboBox.currentIndex())

    def setCurrentNode(self, node):
        if isinstance(node, str):
            self.setCurrentNodeID(node)
        elif self._scene is None:
            self._requested = weakref.ref(node) if node is not None else None
        else:
            self.setCurrentNodeID(node.GetID() or "" if node is not None else "")

    def setCurrentNodeID(self, nodeId):
        if self._scene is None:
            self._requested = nodeId
        row = next((row for row in self._nodeRows() if self._idAt(row) == nodeId), None)
        self._comboBox.setCurrentIndex(row if row is not None else 0 if self._noneEnabled else -1)

    def setCurrentNodeIndex(self, index):
        rows = self._nodeRows()
        self.setCurrentNode(self._nodeAt(rows[index]) if 0 <= index < len(rows) else None)

    def nodeCount(self):
        return len(self._nodeRows())

    def nodeFromIndex(self, index):
        rows = self._nodeRows()
        return self._nodeAt(rows[index]) if 0 <= index < len(rows) else None

    # --- making and removing nodes

    def addNode(self, nodeType=None):
        nodeType = nodeType or (self._nodeTypes[0] if self._nodeTypes else None)
        if self._scene is None or nodeType not in self._nodeTypes:
            return None
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        name = self._baseNames.get(nodeType) or (node.GetDefaultNodeNamePrefix() if not node.GetName() else "")
        if name:
            node.SetName(self._scene.GetUniqueNameByString(name))
        for _type, attribute, value in self._attributes:
            node.SetAttribute(attribute, value or "")
        node = self._scene.AddNode(node)
        if self._selectUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self):
        self._scene.RemoveNode(self.currentNode())

    def addAttribute(self, nodeType, name, value=None):
        self._attributes.append((nodeType, name, value))
        self._synchronize()

    def removeAttribute(self, nodeType, name):
        self._attributes = [entry for entry in self._attributes if entry[:2] != (nodeType, name)]
        self._synchronize()

    def nodeTypeLabel(self, nodeType):
        label = self._labels.get(nodeType)
        return (
            label
            or (self._scene.GetTypeDisplayNameByClassName(nodeType) if self._scene is not None and nodeType else "")
            or "node"
        )

    def setNodeTypeLabel(self, label, nodeType):
        self._labels[nodeType] = label
        self._synchronize()

    # --- properties

    def _setNodeTypes(self, nodeTypes):
        self._nodeTypes = [nodeType for nodeType in nodeTypes if nodeType]
        self._synchronize()

    def _setBaseName(self, name):
        if not self._nodeTypes:
            failures.record("Qt message", "qMRMLNodeComboBox::setBaseName failed: no node types have been set yet")
        self._baseNames.update(dict.fromkeys(self._nodeTypes, name))

    def _synchronizing(name):
        def setValue(self, value):
            setattr(self, name, value)
            self._synchronize()

        return lambda self: getattr(self, name), setValue

    currentNodeID = Property(str, lambda self: self._idAt(self._comboBox.currentIndex()), setCurrentNodeID)
    nodeTypes = Property("QStringList", lambda self: self._nodeTypes, _setNodeTypes)
    baseName = Property(
        str, lambda self: self._baseNames.get(self._nodeTypes[0], "") if self._nodeTypes else "", _setBaseName
    )
    hideChildNodeTypes = Property("QStringList", *_synchronizing("_hiddenTypes"))
    noneEnabled = Property(bool, *_synchronizing("_noneEnabled"))
    noneDisplay = Property(str, *_synchronizing("_noneDisplay"))
    addEnabled = Property(bool, *_synchronizing("_addEnabled"))
    removeEnabled = Property(bool, *_synchronizing("_removeEnabled"))
    editEnabled = Property(bool, *_synchronizing("_editEnabled"))
    renameEnabled = Property(bool, *_synchronizing("_renameEnabled"))
    showHidden = Property(bool, *_synchronizing("_showHidden"))
    showChildNodeTypes = Property(bool, *_synchronizing("_showChildTypes"))
    selectNodeUponCreation = Property(bool, *_synchronizing("_selectUponCreation"))
    del _synchronizing
