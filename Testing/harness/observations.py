"""VTK observations of Qt objects, which end with the object."""

import weakref

import shiboken6
import vtk


class Observations:
    """VTK observations of one widget; they end with the widget."""

    def __init__(self, widget):
        self._widget = weakref.ref(widget)
        self._tags = []
        # a bound method would keep the widget alive
        tags = self._tags
        widget.destroyed.connect(lambda *_: [source.RemoveObserver(tag) for source, tag in tags])

    def add(self, source, event, method):
        """Call a method of the widget with the node that a scene tells of, None for every other event: what those give
        may be no VTK object.
        """
        name, widget = method.__name__, self._widget

        def observer(_caller, _event, data=None):
            alive = widget()
            if alive is not None and shiboken6.isValid(alive):
                getattr(alive, name)(data)

        if source.IsA("vtkMRMLScene"):
            observer = vtk.calldata_type(vtk.VTK_OBJECT)(observer)
        self._tags.append((source, source.AddObserver(event, observer)))

    def removeAll(self):
        for source, tag in self._tags:
            source.RemoveObserver(tag)
        self._tags.clear()
