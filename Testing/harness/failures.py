"""Collect the failures that Slicer would only print: exceptions in slots and observers, VTK errors, logged errors.

Qt and VTK carry on after an exception in a Python callback, and in testing mode slicer.util.errorDisplay only logs. A
test that looks at the outcome alone can therefore pass over a broken callback. Everything is collected here and fails
the test.
"""

import logging
import re
import sys
import threading
import traceback
from contextlib import contextmanager

import vtk
from PySide6 import QtCore

_collected = []
_allowed = []


def record(kind, text):
    """Note one failure, unless an `expectedErrors` block now open allows it."""
    entry = f"{kind}: {text.strip()}"
    for allowance in _allowed:
        if allowance["pattern"].search(entry):
            allowance["seen"].append(entry)
            return
    _collected.append(entry)


def recordException(kind, error=None):
    """Note the exception being handled (or `error`) with its traceback, and print it as the application would."""
    error = error if error is not None else sys.exc_info()[1]
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(text)
    record(kind, text)


def take():
    """Return what was collected since the last call, and forget it."""
    taken = list(_collected)
    _collected.clear()
    return taken


def pending():
    """Return what was collected since the last `take`, without forgetting it."""
    return list(_collected)


@contextmanager
def expectedErrors(pattern, atLeast=1):
    """Allow failures whose kind and text ("logging.ERROR: ...") match the regular expression `pattern` inside the
    block.

    Raises AssertionError at the end if fewer than `atLeast` such failures came. Yields the list of the texts seen.
    """
    allowance = {"pattern": re.compile(pattern), "seen": []}
    _allowed.append(allowance)
    try:
        yield allowance["seen"]
    finally:
        _allowed.remove(allowance)
    if len(allowance["seen"]) < atLeast:
        raise AssertionError(f"expected at least {atLeast} error(s) matching {pattern!r}, saw {len(allowance['seen'])}")


class _LogHandler(logging.Handler):
    def emit(self, entry):
        record(f"logging.{entry.levelname}", entry.getMessage() + (f"\n{entry.exc_text}" if entry.exc_text else ""))


class _VtkOutput:
    """Observer of VTK's output window, which prints by itself: errors and warnings are collected."""

    def __init__(self):
        self.window = vtk.vtkOutputWindow()
        self.window.SetDisplayModeToNever()
        for event, kind in ((vtk.vtkCommand.ErrorEvent, "VTK error"), (vtk.vtkCommand.WarningEvent, "VTK warning")):
            self.window.AddObserver(event, self._makeObserver(kind))
        vtk.vtkOutputWindow.SetInstance(self.window)

    def _makeObserver(self, kind):
        def onText(_caller, _event, text):
            record(kind, text)

        onText.CallDataType = vtk.VTK_STRING
        return onText


_HARMLESS_IN_QT = ("This plugin does not support",)  # said by the off-screen platform


def _onQtMessage(kind, _context, text):
    """Qt says there what a slot or property is missing, which no test should pass over."""
    if not text.startswith(_HARMLESS_IN_QT):
        sys.stderr.write(text + "\n")
        if kind in (QtCore.QtMsgType.QtWarningMsg, QtCore.QtMsgType.QtCriticalMsg):
            record("Qt message", text)


_vtkOutput = None


def install():
    """Start collecting: VTK and Qt output, logging at ERROR and above, uncaught exceptions of callbacks and threads."""
    global _vtkOutput
    if _vtkOutput is not None:
        return
    _vtkOutput = _VtkOutput()
    QtCore.qInstallMessageHandler(_onQtMessage)
    logging.getLogger().addHandler(_LogHandler(logging.ERROR))
    sys.excepthook = lambda _type, error, _traceback: recordException("uncaught exception", error)
    sys.unraisablehook = lambda unraisable: recordException("unraisable exception", unraisable.exc_value)
    threading.excepthook = lambda args: recordException(f"exception in thread {args.thread.name}", args.exc_value)
