"""The volumes of a folder, segmented by a process of its own through the ledger of an archive, without the scene.

The process ends with this one, and whatever ends at any moment, the next start goes on.
"""

import logging
import os
import time
from pathlib import Path

import qt
from slicer.i18n import tr as _

from mkd_core.archive.ledger import LEDGER_NAME, rows_seen
from mkd_core.errors import InputError

from ..parameters import RunOptions
from .batchRun import DONE, REFUSED, RUNNING, WAITING, BatchRow, doubtOf
from .lineBuffer import LineBuffer
from .segmentationRun import RunOutcome
from .workerProcess import GRACE_MS, prepare, pythonCommand

_LOOK_MS = 1000  # time between two looks at the ledger
_MOST_ROWS = 300
_STATES = {"waiting": WAITING, "running": RUNNING, "done": DONE, "failed": REFUSED}


def rowsOfArchive(results: str, most: int = _MOST_ROWS) -> list:
    """Return a row for each of the first volumes of an archive run; none where there is no such run yet.

    :param results: folder of the run.
    :raises BlockingIOError: if the process is writing just now.
    """
    if not results or not os.path.isfile(os.path.join(results, LEDGER_NAME)):
        return []
    try:
        return [_row(values) for values in rows_seen(Path(results), most)]
    except InputError:
        return []


def _row(values: dict) -> BatchRow:
    row = BatchRow(_nameOf(values["source"]), state=_STATES[values["state"]], source=values)
    row.modality = (values["summary"] or {}).get("modality") or values["modality"]
    if row.state == DONE:
        row.light, row.text = doubtOf([{**values["summary"], "structures": {}}])
        row.light = {"red": "red", "amber": "amber"}.get(values["severity"], "green")
    elif row.state == REFUSED:
        row.text = values["reason_text"] or ""
    return row


def _nameOf(source: dict) -> str:
    if source["kind"] == "file":
        return os.path.basename(source["path"])
    if source["kind"] == "member":
        return os.path.basename(source["path"]) + ": " + source["member"]
    from mkd_core.io.dicom import Series

    series = Series.from_dict(source["series"])
    return ", ".join(text for text in (series.patient, series.title) if text)


class ArchiveRun:
    """Find the volumes of a folder and segment them one after the other, in a process of its own.

    :param folder: with the volumes.
    :param results: folder of the results; made if it is not there.
    :param options: device, threads, weights and set of structures; None for the defaults.
    :param onProgress: called with a text for the user and the fraction done (0 to 1).
    :param onFinished: called once with a RunOutcome without segmentation.
    :param onRows: called with all rows when one of them changed.
    :param onLog: called with each line that the process writes.
    """

    _ending = set()  # processes told to end, kept as objects until they are gone

    def __init__(
        self,
        folder: str,
        results: str,
        options: RunOptions | None = None,
        onProgress=None,
        onFinished=None,
        onRows=None,
        onLog=None,
    ) -> None:
        self._folder, self._results = folder, results
        self._options = options or RunOptions()
        self._onProgress, self._onFinished = onProgress, onFinished
        self._onRows, self._onLog = onRows, onLog
        self._rows, self._lastWords, self._isIndexed = [], "", False
        self._process, self._lines = None, LineBuffer()
        self._startTime = 0.0
        self._timer = qt.QTimer()
        self._timer.setInterval(_LOOK_MS)
        self._timer.connect("timeout()", self._look)

    def begin(self) -> None:
        """Begin to look for volumes.

        :raises ValueError: if there is no such folder.
        """
        if not os.path.isdir(self._folder):
            raise ValueError(_("There is no folder “{folder}”.").format(folder=self._folder))
        self._startTime = time.monotonic()
        self._start("index", self._folder, "--out", self._results, "--with-parent")

    def cancel(self, message: str = "") -> None:
        """End the process. What is finished is kept."""
        self._end("cancelled", message or _("Cancelled. What is finished is kept; a new start goes on from there."))

    def _start(self, *arguments: str) -> None:
        self._process = qt.QProcess()
        prepare(self._process)
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._process.connect("readyReadStandardOutput()", self._onOutput)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onProcessFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onError)
        command = pythonCommand("-m", "mkd_core", "archive", *arguments)
        self._process.start(command[0], command[1:])

    def _segment(self) -> None:
        self._isIndexed = True
        arguments = ["run", self._results, "--here", "--with-parent", "--device", self._options.device]
        arguments += ["--structures", self._options.structureSet]
        if self._options.threads:
            arguments += ["--threads", str(self._options.threads)]
        if self._options.bundlePath:
            arguments += ["--weights", self._options.bundlePath]
        self._timer.start()
        self._start(*arguments)

    def _onOutput(self) -> None:
        for line in self._lines.feed(self._process.readAllStandardOutput().data()):
            self._onLine(line)

    def _onLine(self, line: str) -> None:
        if not line.strip():
            return
        self._lastWords = line.strip()
        logging.debug("Batch: %s", line)
        if self._onLog is not None:
            self._onLog(line)

    def _onError(self, error) -> None:
        if error == qt.QProcess.FailedToStart:
            self._end("failed", _("The segmentation process could not be started."))

    def _onProcessFinished(self, exitCode: int, exitStatus) -> None:
        self._onOutput()
        self._onLine(self._lines.flush())
        self._look()
        if exitStatus != qt.QProcess.NormalExit or exitCode != 0:
            self._end("failed", _("The batch stopped: {reason}").format(reason=self._lastWords.removeprefix("mkd: ")))
        elif not self._isIndexed:
            self._process.deleteLater()
            if self._rows:
                self._segment()
            else:
                self._end("failed", _("There are no volumes in “{folder}”.").format(folder=self._folder))
        else:
            self._complete()

    def _look(self) -> None:
        """Show what the ledger says now, if it can be read."""
        try:
            rows = rowsOfArchive(self._results)
        except BlockingIOError:
            return
        for row in rows:  # what was loaded into the scene stays so
            known = next((one for one in self._rows if one.source["id"] == row.source["id"]), None)
            if known is not None:
                row.volume, row.segmentation = known.volume, known.segmentation
        if rows != self._rows:
            self._rows = rows
            if self._onRows is not None:
                self._onRows(rows)
        running = next((row.name for row in rows if row.state == RUNNING), "")
        finished = sum(row.state in (DONE, REFUSED) for row in rows)
        if rows and self._isIndexed:
            text = _("{volume}: {stage}").format(volume=running, stage=_("Segmenting the heart")) if running else ""
            self._tell(text or _("Reading the weights"), finished / len(rows))

    def _tell(self, text: str, fraction: float) -> None:
        if self._onProgress is not None:
            self._onProgress(text, fraction)

    def _complete(self) -> None:
        done, refused = (sum(row.state == state for row in self._rows) for state in (DONE, REFUSED))
        message = _("{done} finished ({seconds} s).").format(
            done=done, seconds=max(1, round(time.monotonic() - self._startTime))
        )
        if refused:
            message += " " + _("{refused} refused; the reasons are in the table.").format(refused=refused)
        self._end("done", message)

    def _end(self, status: str, message: str) -> None:
        if self._timer is None:
            return  # it has ended already
        self._timer.stop()
        self._timer.deleteLater()  # drops its connection to this object, which would keep both alive
        self._timer = None
        if self._process is not None:
            _letEnd(self._process, self)
        onFinished, self._onFinished, self._onProgress = self._onFinished, None, None
        self._onRows = self._onLog = None
        if onFinished is not None:
            onFinished(RunOutcome(status, message))


def _letEnd(process, run: ArchiveRun) -> None:
    """Tell a process to end by the end of its input, and kill it if it has not ended after the grace time."""
    process.disconnect("readyReadStandardOutput()", run._onOutput)
    process.disconnect("finished(int,QProcess::ExitStatus)", run._onProcessFinished)
    process.disconnect("errorOccurred(QProcess::ProcessError)", run._onError)
    if process.state() == qt.QProcess.NotRunning:
        process.deleteLater()
        return
    ArchiveRun._ending.add(process)

    def gone(_exitCode, _exitStatus) -> None:
        ArchiveRun._ending.discard(process)
        process.deleteLater()

    process.connect("finished(int,QProcess::ExitStatus)", gone)
    process.closeWriteChannel()
    qt.QTimer.singleShot(GRACE_MS, lambda: process.kill() if process in ArchiveRun._ending else None)
