"""Binding of one widget to one typed parameter; widgets are matched by their exact class, as in Slicer."""

import enum
import pathlib

import ctk
import qt
import slicer

from .storage import Choice, Maximum, Minimum, WithinRange, isNodeClass, optionalOf, splitAnnotations


class Decimals:
    """Annotation: number of decimals of a spin box."""

    def __init__(self, value):
        self.value = value


class SingleStep:
    """Annotation: step of a spin box."""

    def __init__(self, value):
        self.value = value


class GuiConnector:
    """Reads and writes a widget's value and tells when the user changes it."""

    signal = None

    def __init__(self, widget, kind, annotations):
        self._widget, self._kind, self._callback = widget, kind, None
        self._annotations = {type(annotation): annotation for annotation in annotations}

    def widget(self):
        return self._widget

    def onChanged(self, callback):
        """Call `callback` after every change of the widget; None ends that."""
        connect = callback is not None
        self._callback = callback
        signal = getattr(self._widget, self.signal)
        (signal.connect if connect else signal.disconnect)(self.changed)

    def changed(self):
        if self._callback:
            self._callback()

    def read(self):
        raise NotImplementedError

    def write(self, value):
        raise NotImplementedError


class _CheckBox(GuiConnector):
    signal = "stateChanged"

    def read(self):
        return self._widget.checked

    def write(self, value):
        self._widget.checked = value


class _CheckableButton(_CheckBox):
    signal = "toggled"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._widget.checkable = True


class _SpinBox(GuiConnector):
    signal = "valueChanged"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        limits = self._annotations.get(WithinRange) or self._annotations.get(Minimum)
        lowest, highest = (-(2**31), 2**31 - 1) if type(self._widget) == qt.QSpinBox else (float("-inf"), float("inf"))
        self._widget.minimum = limits.minimum if limits else lowest
        limits = self._annotations.get(WithinRange) or self._annotations.get(Maximum)
        self._widget.maximum = limits.maximum if limits else highest
        if SingleStep in self._annotations:
            self._widget.singleStep = self._annotations[SingleStep].value
        if Decimals in self._annotations:
            self._widget.decimals = self._annotations[Decimals].value

    def read(self):
        return self._kind(self._widget.value)

    def write(self, value):
        self._widget.value = value


class _ComboBox(GuiConnector):
    signal = "currentIndexChanged"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        if isinstance(self._kind, enum.EnumMeta):
            self._values = list(self._kind)
            labels = [getattr(self._kind, "label", lambda value: value.name)(value) for value in self._values]
        elif Choice in self._annotations:
            self._values = self._annotations[Choice].choices
            labels = [str(value) for value in self._values]
        else:
            raise RuntimeError("a combo box needs the Choice annotation")
        self._widget.clear()
        for label in labels:
            self._widget.addItem(label)

    def read(self):
        return self._values[self._widget.currentIndex]

    def write(self, value):
        if value not in self._values:
            raise ValueError(f"{value!r} is not among the choices {self._values}")
        self._widget.currentIndex = list(self._values).index(value)


class _LineEdit(GuiConnector):
    signal = "textChanged"

    def read(self):
        return self._widget.text

    def write(self, value):
        if value != self._widget.text:
            self._widget.text = value


class _TextEdit(GuiConnector):
    signal = "textChanged"

    def read(self):
        return self._widget.toPlainText()

    def write(self, value):
        self._widget.setPlainText(value)


class _PathLineEdit(GuiConnector):
    signal = "currentPathChanged"

    def read(self):
        return self._kind(self._widget.currentPath)

    def write(self, value):
        self._widget.currentPath = str(value)


class _NodeComboBox(GuiConnector):
    signal = "currentNodeChanged"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        # the class name is that of the node, which the Python name of the class repeats
        self._widget.nodeTypes = (self._kind().GetClassName(),)

    def read(self):
        return self._widget.currentNode()

    def write(self, value):
        self._widget.setCurrentNode(value)


def createGuiConnector(widget, datatype):
    """Return the connector of a widget to a type that may be Annotated; raises RuntimeError if there is none."""
    kind, annotations = splitAnnotations(datatype)
    inner = optionalOf(kind)
    if isNodeClass(inner):
        kind = inner
    choosable = kind in (int, float, str, bool) or isinstance(kind, enum.EnumMeta)
    table = (
        (qt.QCheckBox, kind is bool, _CheckBox),
        (qt.QPushButton, kind is bool, _CheckableButton),
        (qt.QSpinBox, kind is int, _SpinBox),
        (qt.QDoubleSpinBox, kind in (int, float), _SpinBox),
        (qt.QComboBox, choosable, _ComboBox),
        (ctk.ctkComboBox, choosable, _ComboBox),
        (qt.QLineEdit, kind is str, _LineEdit),
        (qt.QTextEdit, kind is str, _TextEdit),
        (ctk.ctkPathLineEdit, kind is pathlib.Path, _PathLineEdit),
        (slicer.qMRMLNodeComboBox, isNodeClass(kind), _NodeComboBox),
    )
    for widgetClass, suitable, connector in table:
        if type(widget) == widgetClass and suitable:
            return connector(widget, kind, annotations)
    raise RuntimeError(f"unable to connect a parameter of type {datatype} to a widget of type {type(widget)}")
