"""Stand-ins for the CTK widgets that the panel uses, and the module `ctk`."""

import re
import sys
import types

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from . import api
from .api import standIn
from .pythonqt import wrapperClass


@standIn
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that hides and shows its child widgets; checked means not collapsed.

    As in CTK, a child that was hidden on its own account (its property visibilityToParent then says so) stays hidden
    when the button opens, and one that is shown while the button is closed appears when it opens.
    """

    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments):
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(next((argument for argument in arguments if isinstance(argument, QtWidgets.QWidget)), None))
        self._collapsed, self._forcing, self._collapsedHeight = False, False, 14
        self._openMaximumHeight = self.maximumHeight()
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self._headerHeight(), 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Minimum, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(lambda checked: self._collapse(not checked))

    def _headerSize(self):
        """Of a push button with the indicator before its text."""
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        style, metric = self.style(), QtWidgets.QStyle.PixelMetric
        width = style.pixelMetric(metric.PM_IndicatorWidth, option, self)
        width += style.pixelMetric(metric.PM_CheckBoxLabelSpacing, option, self)
        height = style.pixelMetric(metric.PM_IndicatorHeight, option, self)
        text = self.fontMetrics().size(QtCore.Qt.TextFlag.TextShowMnemonic.value, self.text() or "XXXX")
        contents = QtCore.QSize(width + (text.width() if self.text() else 0), max(height, text.height()))
        return style.sizeFromContents(QtWidgets.QStyle.ContentsType.CT_PushButton, option, contents, self)

    def _headerHeight(self):
        return self._headerSize().height()

    def _collapse(self, collapsed):
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            self._openMaximumHeight = self.maximumHeight()
            self.setMaximumHeight(self.sizeHint().height())
        else:
            self.setMaximumHeight(self._openMaximumHeight)
        self._showContents()
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def _showContents(self):
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            if child.property("visibilityToParent") is None:
                child.installEventFilter(self)
                explicit = child.testAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide)
                child.setProperty("visibilityToParent", not (explicit and child.isHidden()))
            self._setChildVisibility(child)

    def _setChildVisibility(self, child):
        wanted = child.property("visibilityToParent")
        self._forcing = True
        child.setVisible(wanted and not self._collapsed)
        if wanted:  # what was done here is no wish of the child's own
            child.setAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)
        self._forcing = False

    def eventFilter(self, child, event):
        if not self._forcing and event.type() in (QtCore.QEvent.Type.ShowToParent, QtCore.QEvent.Type.HideToParent):
            child.setProperty("visibilityToParent", event.type() == QtCore.QEvent.Type.ShowToParent)
            if event.type() == QtCore.QEvent.Type.ShowToParent:
                self._setChildVisibility(child)
        return super().eventFilter(child, event)

    def _getCollapsed(self):
        return self._collapsed

    def _setCollapsed(self, collapsed):
        self.setChecked(not collapsed)

    collapsed = Property(bool, _getCollapsed, _setCollapsed)

    def showEvent(self, event):
        self._showContents()
        super().showEvent(event)

    def sizeHint(self):
        header, below = self._headerSize(), QtCore.QSize(0, self._collapsedHeight)
        if self._collapsed or self.layout() is None:
            return header + below
        return self.layout().totalSizeHint().expandedTo(header + below)

    def minimumSizeHint(self):
        header = self._headerSize()
        if self._collapsed:
            return header + QtCore.QSize(0, self._collapsedHeight)
        return header if self.layout() is None else self.layout().totalMinimumSize().expandedTo(header)

    def hitButton(self, position):
        """Only the header can be clicked."""
        return position.y() < self._headerHeight() and self.rect().contains(position)

    def _setCollapsedHeight(self, height):
        self._collapsedHeight = height
        self.updateGeometry()

    collapsedHeight = Property(int, lambda self: self._collapsedHeight, _setCollapsedHeight)

    def paintEvent(self, _event):
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._headerHeight())
        triangle = (
            "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}" if self._collapsed else "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
        )
        option.text = f"{triangle} {self.text()}"
        QtWidgets.QStylePainter(self).drawControl(QtWidgets.QStyle.ControlElement.CE_PushButton, option)


@standIn
class ctkMenuButton(QtWidgets.QPushButton):
    """A button with a menu; the menu is not made."""


@standIn
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that shows a default text while nothing is selected.

    As in CTK, it is as wide as its longest text, also at its smallest, and keeps the sizes that it had when it was
    first asked.
    """

    def __init__(self, parent=None):
        super().__init__(parent)
        self._defaultText, self._sizes = "", {}

    def _keptSize(self, name):
        if name not in self._sizes:
            size = super().sizeHint()
            policy = QtWidgets.QComboBox.SizeAdjustPolicy
            if self.sizeAdjustPolicy() in (policy.AdjustToContents, policy.AdjustToContentsOnFirstShow):
                metrics = self.fontMetrics()
                texts = [self.itemText(index) for index in range(self.count())] or [self._defaultText or 7 * "x"]
                option = QtWidgets.QStyleOptionComboBox()
                self.initStyleOption(option)
                width = max(metrics.boundingRect(text).width() for text in texts)
                contents = QtCore.QSize(width, max(metrics.height(), 14) + 2)
                size = self.style().sizeFromContents(QtWidgets.QStyle.ContentsType.CT_ComboBox, option, contents, self)
            self._sizes[name] = size
        return self._sizes[name]

    def sizeHint(self):
        return self._keptSize("size")

    def minimumSizeHint(self):
        return self._keptSize("minimum")

    def changeEvent(self, event):
        if event.type() in (QtCore.QEvent.Type.StyleChange, QtCore.QEvent.Type.FontChange):
            self._sizes.clear()
        super().changeEvent(event)

    def _getDefaultText(self):
        return self._defaultText

    def _setDefaultText(self, text):
        self._defaultText = text
        self._sizes.pop("size", None)
        self.update()

    def paintEvent(self, _event):
        # not by placeholderText: with one, Qt would not select the first item that comes
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        if self.currentIndex() < 0:
            option.currentText = self._defaultText
        painter = QtWidgets.QStylePainter(self)
        painter.drawComplexControl(QtWidgets.QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_ComboBoxLabel, option)

    defaultText = Property(str, _getDefaultText, _setDefaultText)

    def _getCurrentUserData(self):
        data = self.currentData()
        return data if isinstance(data, str) else ""

    def setCurrentUserDataAsString(self, text):
        index = next((i for i in range(self.count()) if self.itemData(i) == text), None)
        if index is not None:
            self.setCurrentIndex(index)

    currentUserDataAsString = Property(str, _getCurrentUserData, setCurrentUserDataAsString)


@standIn
class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with history and a button that opens a file dialog."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    # the values of QDir.Filter, which the real class repeats
    Dirs, Files, Drives, NoSymLinks, AllEntries = 0x1, 0x2, 0x4, 0x8, 0x7
    Readable, Writable, Executable, Hidden, NoDotAndDotDot = 0x10, 0x20, 0x40, 0x100, 0x6000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._label, self._settingKey, self._nameFilters = "", "", []
        self._filters = self.AllEntries | self.NoDotAndDotDot | self.Readable | self.Executable
        self._comboBox = QtWidgets.QComboBox(self)
        self._comboBox.setEditable(True)
        self._comboBox.setInsertPolicy(QtWidgets.QComboBox.InsertPolicy.NoInsert)
        self._comboBox.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._browseButton = QtWidgets.QToolButton(self, text="...")
        self._browseButton.clicked.connect(self.browse)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._comboBox, 1)
        layout.addWidget(self._browseButton)
        self._validator = QtGui.QRegularExpressionValidator(self)
        self._comboBox.lineEdit().setValidator(self._validator)
        self._updateValidator()
        self._valid = False
        self._comboBox.lineEdit().textChanged.connect(self._onTextChanged)

    def _updateValidator(self):
        """As in CTK: an empty text is never valid, and with name filters only a path that ends like one of them is.
        CTK takes the last letter of an ending for optional.
        """
        filters = re.findall(r"\(([^()]*)\)$", "\n".join(self._nameFilters), re.MULTILINE)
        endings = re.findall(r"\*\.(\w+)", " ".join(filters))
        pattern = "|".join(rf".*\.{ending}?$" for ending in endings)
        self._validator.setRegularExpression(QtCore.QRegularExpression(f"({pattern})" if pattern else ".+"))

    def _onTextChanged(self, path):
        """As in CTK: a text that is not valid is shown, and nobody is told that the path is another one."""
        wasValid, self._valid = self._valid, self._comboBox.lineEdit().hasAcceptableInput()
        if self._valid:
            self.currentPathChanged.emit(path)
        if self._valid != wasValid:
            self.validInputChanged.emit(self._valid)

    def _setNameFilters(self, filters):
        self._nameFilters = filters
        self._updateValidator()

    def _getCurrentPath(self):
        return self._comboBox.lineEdit().text()

    def setCurrentPath(self, path):
        self._comboBox.lineEdit().setText(path)

    def comboBox(self):
        return self._comboBox

    def browse(self):
        if not self._filters & self.Files:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, "Select a directory...", self.currentPath)
        elif self._filters & self.Writable:
            path = QtWidgets.QFileDialog.getSaveFileName(
                self, "Select a file to save ", self.currentPath, ";;".join(self._nameFilters)
            )[0]
        else:
            path = QtWidgets.QFileDialog.getOpenFileName(
                self, "Open a file", self.currentPath, ";;".join(self._nameFilters)
            )[0]
        if path:
            self.setCurrentPath(path)

    def _historyKey(self):
        return "ctkPathLineEdit/" + (self._settingKey or self.objectName())

    def _history(self):
        value = QtCore.QSettings().value(self._historyKey(), [])
        return [value] if isinstance(value, str) else list(value or [])

    def retrieveHistory(self):
        path = self.currentPath
        wasBlocked = self.blockSignals(True)
        self._comboBox.clear()
        self._comboBox.addItems(self._history()[:5])
        if path:
            self.setCurrentPath(path)
        self.blockSignals(wasBlocked)
        if not path:
            self._comboBox.setCurrentIndex(0)

    def addCurrentPathToHistory(self):
        if self.currentPath:
            history = [self.currentPath, *[path for path in self._history() if path != self.currentPath]]
            QtCore.QSettings().setValue(self._historyKey(), history)
            self.retrieveHistory()

    def _setSettingKey(self, key):
        self._settingKey = key
        self.retrieveHistory()

    def _assign(name):
        return lambda self: getattr(self, name), lambda self, value: setattr(self, name, value)

    currentPath = Property(str, _getCurrentPath, setCurrentPath)
    filters = Property(int, *_assign("_filters"))
    label = Property(str, *_assign("_label"))
    nameFilters = Property("QStringList", lambda self: self._nameFilters, _setNameFilters)
    settingKey = Property(str, lambda self: self._settingKey, _setSettingKey)
    showBrowseButton = Property(
        bool, lambda self: not self._browseButton.isHidden(), lambda self, on: self._browseButton.setVisible(on)
    )
    del _assign


@standIn
class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box; "Don't show again" is not made."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setIcon(QtWidgets.QMessageBox.Icon.NoIcon)
        self.setWindowIcon(QtGui.QIcon())


def unmade(name):
    """Return a class with the name of a real class that is not made: it can be compared with, not instantiated."""

    def refuse(_self, *_arguments):
        raise NotImplementedError(f"the stand-in GUI does not make {name}")

    return type(name, (), {"__init__": refuse})


class _CtkModule(types.ModuleType):
    def __getattr__(self, name):
        if name in api.standIns and name.startswith("ctk"):
            value = wrapperClass(api.standIns[name])
        elif name in api.CLASS_NAMES and name.startswith("ctk"):
            value = unmade(name)
        else:
            raise AttributeError(f"ctk has no attribute {name!r}")
        setattr(self, name, value)
        return value


def install():
    """Put the module `ctk` in place."""
    sys.modules["ctk"] = _CtkModule("ctk", __doc__)
    return sys.modules["ctk"]
