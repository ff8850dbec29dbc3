"""Stand-ins for Slicer's MRML widgets."""

import weakref

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal
import shiboken6

from .api import standIn
from .ctk import ctkMenuButton

CLOSED_SURFACE = "Closed surface"
BINARY_LABELMAP = "Binary labelmap"


class _Observations:
    """VTK observations of one widget; they end with the widget."""

    def __init__(self, widget):
        self._widget = weakref.ref(widget)
        self._tags = []
        # a bound method would keep the widget alive
        tags = self._tags
        widget.destroyed.connect(lambda *_: [source.RemoveObserver(tag) for source, tag in tags])

    def add(self, source, event, method):
        name, widget = method.__name__, self._widget

        def observer(_caller, _event, callData=None):
            alive = widget()
            if alive is not None and shiboken6.isValid(alive):
                getattr(alive, name)()

        self._tags.append((source, source.AddObserver(event, observer)))

    def removeAll(self):
        for source, tag in self._tags:
            source.RemoveObserver(tag)
        self._tags.clear()


@standIn
class qMRMLWidget(QtWidgets.QWidget):
    """A widget that hands the scene on through a signal."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@standIn
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """A selector of nodes of the scene.

    As in Slicer: disabled without a scene; without "None" the first suitable node is selected by itself; when the selected node goes,
    the next one (or the last) is selected.
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
        self._scene, self._requested, self._ids = None, None, []
        self._nodeTypes, self._hiddenTypes, self._attributes, self._baseNames, self._labels = [], [], [], {}, {}
        self._noneEnabled, self._noneDisplay, self._showHidden, self._showChildTypes = False, "None", False, True
        self._addEnabled, self._removeEnabled, self._editEnabled, self._renameEnabled = True, True, False, False
        self._selectUponCreation = True
        self._currentId = ""
        self._sceneObservations, self._nodeObservations = _Observations(self), _Observations(self)
        self._comboBox = QtWidgets.QComboBox(self)
        self._comboBox.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._comboBox)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Fixed)
        self._comboBox.activated.connect(self._onActivated)
        self.setEnabled(False)

    # --- scene and list of nodes

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is self._scene:
            return
        self._sceneObservations.removeAll()
        self._scene = scene
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
                self._sceneObservations.add(scene, event, self._refresh)
        requested = self._requested() if callable(self._requested) else self._requested
        self._requested = None
        self.setEnabled(scene is not None)
        self._refresh()
        if requested is not None and scene is not None:
            self.setCurrentNodeID(requested if isinstance(requested, str) else requested.GetID() or "")

    def _isListed(self, node):
        if node.GetHideFromEditors() and not self._showHidden or node.GetClassName() in self._hiddenTypes:
            return False
        if self._showChildTypes:
            suitable = any(node.IsA(nodeType) for nodeType in self._nodeTypes)
        else:
            suitable = node.GetClassName() in self._nodeTypes
        for nodeType, name, value in self._attributes:
            if node.IsA(nodeType) and (node.GetAttribute(name) is None or value is not None and node.GetAttribute(name) != value):
                return False
        return suitable

    def _listed(self):
        if self._scene is None:
            return []
        everything = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in everything if self._isListed(node)]

    def _refresh(self):
        listed = self._listed()
        before, self._ids = self._ids, [node.GetID() for node in listed]
        self._nodeObservations.removeAll()
        for node in listed:
            self._nodeObservations.add(node, vtk.vtkCommand.ModifiedEvent, self._onNodeModified)
        self._fill(listed)
        for node in listed:
            if node.GetID() not in before:
                self.nodeAdded.emit(node)
        self._select(self._currentId if self._currentId in self._ids else self._substitute(before))

    def _substitute(self, before):
        """Return the id to select when the current one is not listed (any more)."""
        if self._currentId in before and self._ids:
            return self._ids[min(before.index(self._currentId), len(self._ids) - 1)]
        return self._ids[0] if self._ids and not self._noneEnabled else ""

    def _onNodeModified(self):
        listed = self._listed()
        if [node.GetID() for node in listed] != self._ids:
            self._refresh()
        else:
            self._fill(listed)

    def _fill(self, listed):
        label = self.nodeTypeLabel(self._nodeTypes[0]) if len(self._nodeTypes) == 1 else "node"
        blocker = QtCore.QSignalBlocker(self._comboBox)
        self._comboBox.clear()
        self._comboBox.setPlaceholderText(f"Select a {self.nodeTypeLabel(self._nodeTypes[0]) if self._nodeTypes else 'node'}")
        if self._noneEnabled:
            self._comboBox.addItem(self._noneDisplay, ("NODE", ""))
        for node in listed:
            self._comboBox.addItem(node.GetName() or "", ("NODE", node.GetID()))
        actions = [(f"Rename current {label}", "RENAME", "")] if self._renameEnabled else []
        actions += [(f"Edit current {label}", "EDIT", "")] if self._editEnabled else []
        actions += [(f"Create new {self.nodeTypeLabel(t)}", "CREATE", t) for t in self._nodeTypes] if self._addEnabled else []
        actions += [(f"Delete current {label}", "DELETE", "")] if self._removeEnabled else []
        if self._scene is not None and actions:
            self._comboBox.insertSeparator(self._comboBox.count())
            for text, action, argument in actions:
                self._comboBox.addItem(text, (action, argument))
        self._showCurrent()
        del blocker

    def _showCurrent(self):
        index = next((i for i in range(self._comboBox.count()) if self._data(i) == ("NODE", self._currentId)), -1)
        self._comboBox.setCurrentIndex(index)

    def _data(self, index):
        data = self._comboBox.itemData(index)
        return tuple(data) if data is not None else None

    def _onActivated(self, index):
        """The user chose an item: a node, "None" or an action."""
        action, argument = self._data(index)
        if action == "NODE":
            self._select(argument)
            self.nodeActivated.emit(self.currentNode())
            return
        self._showCurrent()
        if action == "CREATE":
            node = self.addNode(argument)
            self.setCurrentNode(node)
            self.nodeAddedByUserAction.emit(node)
        elif action == "DELETE":
            self.removeCurrentNode()
        else:
            raise NotImplementedError(f"the stand-in GUI does not make the selector's {action} action")

    # --- the current node

    def _select(self, nodeId):
        changed = nodeId != self._currentId
        self._currentId = nodeId
        self._showCurrent()
        if changed:
            node = self.currentNode()
            self.currentNodeChanged[object].emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentNodeIDChanged.emit(nodeId)

    def currentNode(self):
        return self._scene.GetNodeByID(self._currentId) if self._scene is not None and self._currentId else None

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
        else:
            self._select(nodeId if nodeId in self._ids else "")

    def setCurrentNodeIndex(self, index):
        self._select(self._ids[index] if 0 <= index < len(self._ids) else "")

    def nodeCount(self):
        return len(self._ids)

    def nodeFromIndex(self, index):
        return self._scene.GetNodeByID(self._ids[index]) if 0 <= index < len(self._ids) else None

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
        self._refresh()

    def removeAttribute(self, nodeType, name):
        self._attributes = [entry for entry in self._attributes if entry[:2] != (nodeType, name)]
        self._refresh()

    def nodeTypeLabel(self, nodeType):
        label = self._labels.get(nodeType)
        return label or (self._scene.GetTypeDisplayNameByClassName(nodeType) if self._scene is not None else "") or "node"

    def setNodeTypeLabel(self, label, nodeType):
        self._labels[nodeType] = label
        self._refresh()

    # --- properties

    def _setNodeTypes(self, nodeTypes):
        self._nodeTypes = [nodeType for nodeType in nodeTypes if nodeType]
        self._refresh()

    def _setBaseName(self, name):
        self._baseNames.update({nodeType: name for nodeType in self._nodeTypes})

    def _refreshing(name):
        def setValue(self, value):
            setattr(self, name, value)
            self._refresh()

        return lambda self: getattr(self, name), setValue

    currentNodeID = Property(str, lambda self: self._currentId, setCurrentNodeID)
    nodeTypes = Property("QStringList", lambda self: self._nodeTypes, _setNodeTypes)
    baseName = Property(str, lambda self: self._baseNames.get(self._nodeTypes[0], "") if self._nodeTypes else "", _setBaseName)
    hideChildNodeTypes = Property("QStringList", *_refreshing("_hiddenTypes"))
    noneEnabled = Property(bool, *_refreshing("_noneEnabled"))
    noneDisplay = Property(str, *_refreshing("_noneDisplay"))
    addEnabled = Property(bool, *_refreshing("_addEnabled"))
    removeEnabled = Property(bool, *_refreshing("_removeEnabled"))
    editEnabled = Property(bool, *_refreshing("_editEnabled"))
    renameEnabled = Property(bool, *_refreshing("_renameEnabled"))
    showHidden = Property(bool, *_refreshing("_showHidden"))
    showChildNodeTypes = Property(bool, *_refreshing("_showChildTypes"))
    selectNodeUponCreation = Property(bool, *_refreshing("_selectUponCreation"))
    del _refreshing


@standIn
class qMRMLSegmentationShow3DButton(ctkMenuButton):
    """A check button that makes and removes the closed surfaces of a segmentation; its menu of smoothing settings is not made."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node, self._locked = None, False
        self._observations = _Observations(self)
        self.setText("Show 3D")
        self.setCheckable(True)
        self.setEnabled(False)
        self.toggled.connect(self._onToggled)

    def segmentationNode(self):
        return self._node

    def setSegmentationNode(self, node):
        self._observations.removeAll()
        self._node = node
        if node is not None:
            segmentation = slicer.vtkSegmentation
            events = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.ContainedRepresentationNamesModified)
            for event in (vtk.vtkCommand.ModifiedEvent, *events):
                self._observations.add(node, event, self._update)
        self._update()

    def _update(self):
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        sourceIsSurface = segmentation is not None and segmentation.GetSourceRepresentationName() == CLOSED_SURFACE
        self.setEnabled(segmentation is not None and not self._locked and segmentation.GetNumberOfSegments() > 0 and not sourceIsSurface)
        if segmentation is not None:
            blocker = QtCore.QSignalBlocker(self)
            self.setChecked(segmentation.ContainsRepresentation(CLOSED_SURFACE))
            del blocker

    def _onToggled(self, on):
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        if segmentation is None:
            return
        if not on:
            segmentation.RemoveRepresentation(CLOSED_SURFACE)
        elif segmentation.CreateRepresentation(CLOSED_SURFACE) and self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
            self._node.GetDisplayNode().SetPreferredDisplayRepresentationName2D(BINARY_LABELMAP)

    def setLocked(self, locked):
        self._locked = locked
        self._update()

    locked = Property(bool, lambda self: self._locked, setLocked)
