"""The worker: a child process that runs mkd_core, speaks JSON lines, stays warm between clicks and never takes Slicer
down with it.
"""

import collections
import dataclasses
import json
import logging
import os
import shutil
import signal
import sys
from dataclasses import dataclass, field

import qt
from slicer.i18n import tr as _

from mkd_core.errors import ProtocolError
from mkd_core.protocol import (
    CancelRequest,
    ErrorReply,
    ProgressReply,
    ReadyReply,
    Reply,
    Request,
    ResultReply,
    WarmRequest,
    Work,
    parse_reply,
    to_message,
)

from ..corePackage import coreSearchPath
from ..scene.findingTexts import findingText
from .lineBuffer import LineBuffer

GRACE_MS = 1500  # a worker told to end is killed after this
IDLE_MS = 10 * 60 * 1000  # a worker without work gives its memory back after this
_LOG_LINES = 40
_LOG_COLUMNS = 1000  # what is longer is no text for people
_HARMLESS = ("PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED")  # can only forbid, or change no code

_EXIT_OF_AN_EXCEPTION = 1  # of a Python program that nothing caught

#: How a process ended by itself: it could not be started; an exception ended it before it was ready, in its imports; or
#: else.
NOT_STARTED, NEVER_READY, DIED = "not started", "never ready", "died"


def pythonCommand(*arguments: str) -> list:
    """Return a command line of Python. In Slicer, PythonSlicer starts it with Slicer's own environment.

    The option -P keeps the folder in which a user happened to start the application off the search path: a file
    numpy.py or queue.py in it must never be run.
    """
    return [_pythonSlicer() or sys.executable, "-P", *arguments]


def _pythonSlicer() -> str | None:
    """Return the path of PythonSlicer. On Windows, a search by its name alone would begin in the current folder."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)]
    found = (shutil.which(os.path.join(folder, "PythonSlicer")) for folder in folders)
    return next((path for path in found if path), None)


def workerCommand() -> list:
    """Return the command line of the worker."""
    return pythonCommand("-m", "mkd_core.worker")


@dataclass(frozen=True)
class WorkerReply:
    """How a request ended.

    outcome - "result", "error" (the worker explains), or "crashed" (it ended without a word).
    report - what the worker reports with a result.
    message - for the user, one or two sentences, if there is no result.
    """

    outcome: str
    report: dict = field(default_factory=dict)
    message: str = ""


class WorkerProcess:
    """One request at a time to a worker that is started when first needed.

    Example::

        worker = WorkerProcess()
        worker.request(SegmentRequest(...), onReply=lambda reply: print(reply.outcome))

    :param command: command line; by default :func:`workerCommand`, asked at each start.
    :param onLog: called with each line of text that the process writes besides its messages.
    """

    def __init__(self, command: list | None = None, onLog=None) -> None:
        self._command = command
        self._onLog = onLog
        self._child = None
        self._requestId = 0
        self._warmedFor = None
        self._onReply = None
        self._onProgress = None
        self._idleTimer = qt.QTimer()
        self._idleTimer.setSingleShot(True)
        self._idleTimer.connect("timeout()", self.stop)

    @property
    def isBusy(self) -> bool:
        """True between a request and its reply."""
        return self._onReply is not None

    @property
    def isAlive(self) -> bool:
        """True while there is a process."""
        return self._child is not None

    def start(self) -> None:
        """Start the process if it is not there yet, ahead of a request; returns at once."""
        self._idleTimer.start(IDLE_MS)
        if self._child is None:
            self._child = _Child(self._onMessage, self._onEnd, self._onLog)
            self._warmedFor = None
            self._child.start(self._command or workerCommand())

    def warm(self, message: WarmRequest) -> None:
        """Let the process load in the background what a coming request needs; returns at once, and nothing tells when
        it is done.

        A request that comes meanwhile waits for it in the process, and gains what is done already. Asking twice for the
        same costs nothing.

        :param message: what to load.
        """
        if self.isBusy:
            return
        self.start()
        if self._child is not None and self._warmedFor != message:
            self._warmedFor = message
            self._child.send(dataclasses.replace(message, id=json.dumps(to_message(message))))

    def request(self, message: Work, onReply, onProgress=None) -> None:
        """Send a request. Nothing blocks; the callbacks come from the event loop.

        :param message: one request of mkd_core.protocol; it gets its id here.
        :param onReply: called once with a :class:`WorkerReply`, unless :meth:`cancel` or :meth:`stop` come first.
        :param onProgress: called with stage, fraction (0 to 1) and message.
        :raises RuntimeError: if a request is under way.
        """
        if self.isBusy:
            raise RuntimeError("The worker is busy.")
        self._requestId += 1
        self._onReply, self._onProgress = onReply, onProgress
        self.start()
        self._idleTimer.stop()
        if self._child is not None:  # it may have failed to start at once, and said so
            self._child.send(dataclasses.replace(message, id=self._requestId))

    def cancel(self, whenGone=None) -> None:
        """Give up the request: no reply comes, and the process ends by itself or is killed after a moment.

        :param whenGone: called when the process is gone, so that files it used can be deleted.
        """
        child, self._child = self._child, None
        self._onReply = self._onProgress = None
        if child is not None:
            child.end(cancelId=self._requestId, whenGone=whenGone)
        elif whenGone is not None:
            whenGone()

    def stop(self) -> None:
        """End the process now, and those that a cancel left ending.

        No reply comes. The next request starts a new process.
        """
        self._idleTimer.stop()
        child, self._child = self._child, None
        self._onReply = self._onProgress = None
        for ending in [child, *_Child.ending]:
            if ending is not None:
                ending.kill()

    def _onMessage(self, message: Reply) -> None:
        if getattr(message, "id", None) != self._requestId or not self.isBusy:
            return
        if isinstance(message, ProgressReply) and self._onProgress is not None:
            self._onProgress(message.stage, message.fraction, message.message)
        elif isinstance(message, ResultReply):
            self._reply(WorkerReply("result", report=message.report))
        elif isinstance(message, ErrorReply):
            text = findingText(message.finding) if message.finding else f"{message.message} {message.advice}".strip()
            self._reply(
                WorkerReply("error", message=text or _("The segmentation failed; details are in the application log."))
            )

    def _onEnd(self, end: str, lastLine: str) -> None:
        self._child = None
        if not self.isBusy:
            return
        texts = {
            NOT_STARTED: _("The segmentation process could not be started; details are in the application log."),
            NEVER_READY: _(
                "The segmentation process could not load what it needs ({reason}). The installation of the extension "
                "or of Slicer's Python packages is incomplete; details are in the application log."
            ),
            DIED: _(
                "The segmentation process ended unexpectedly, perhaps for lack of memory. Nothing was changed. "
                "Close other programs and click Segment again; details are in the application log."
            ),
        }
        self._reply(WorkerReply("crashed", message=texts[end].format(reason=lastLine)))

    def _reply(self, reply: WorkerReply) -> None:
        onReply, self._onReply, self._onProgress = self._onReply, None, None
        self._idleTimer.start(IDLE_MS)
        onReply(reply)


def _understood(values: dict) -> Reply | None:
    """Return the reply that a JSON object stands for, or None if it is none. A result that cannot be understood is a
    failure: nothing else comes for its request.
    """
    try:
        return parse_reply(values)
    except ProtocolError as error:
        if values.get("event") != "result":
            return None
        logging.warning("The reply of the segmentation process cannot be understood: %s", error)
        return ErrorReply(
            values.get("id"),
            "ProtocolError",
            _("The result of the segmentation process cannot be understood."),
            _("Click Segment again; details are in the application log."),
        )


def _childPid(value) -> int | None:
    """Return a process id that may be killed; 0, negative ones and our own would take Slicer along."""
    return value if type(value) is int and value > 1 and value not in (os.getpid(), os.getppid()) else None


class _Child:
    """One started process, from start to death."""

    ending = set()  # those told to end, kept as objects until their process is gone

    def __init__(self, onMessage, onEnd, onLog=None) -> None:
        self._onMessage, self._onEnd, self._onLog = onMessage, onEnd, onLog
        self._whenGone = None
        self._pid = None  # of the Python process; PythonSlicer is a launcher with a pid of its own
        self._isReady = False
        self._output, self._errors = LineBuffer(), LineBuffer()
        self._log = collections.deque(maxlen=_LOG_LINES)
        self._lastWords = _("it ended without a word")
        self._killTimer = qt.QTimer()
        self._killTimer.setSingleShot(True)
        self._killTimer.connect("timeout()", self.kill)
        self._process = qt.QProcess()
        prepare(self._process)
        self._process.connect("readyReadStandardOutput()", self._onStandardOutput)
        self._process.connect("readyReadStandardError()", self._onStandardError)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onError)

    def start(self, command: list) -> None:
        """Start the process; returns at once."""
        logging.debug("Starting the segmentation process: %s", command)
        self._process.start(command[0], command[1:])

    def send(self, message: Request) -> None:
        """Write one line. A process that is still starting gets it as soon as it reads."""
        self._process.write((json.dumps(to_message(message)) + "\n").encode("utf-8"))

    def end(self, cancelId: int, whenGone=None) -> None:
        """Ask the process to end, and kill it if it has not ended after the grace time."""
        self._whenGone = whenGone
        self._onMessage = self._onEnd = self._onLog = None
        _Child.ending.add(self)
        self.send(CancelRequest(id=cancelId))
        self._process.closeWriteChannel()  # a worker whose input ends, ends
        self._killTimer.start(GRACE_MS)

    def kill(self) -> None:
        """End the process and its launcher now."""
        self._onMessage = self._onEnd = self._onLog = None
        if self._process.state() != qt.QProcess.NotRunning:
            _Child.ending.add(self)
            if self._pid is not None:
                try:
                    os.kill(
                        self._pid, getattr(signal, "SIGKILL", signal.SIGTERM)
                    )  # Windows knows only the latter, and it is as hard
                except OSError:
                    logging.debug("The segmentation process %d was already gone.", self._pid)
            self._process.kill()
            self._process.waitForFinished(1000)

    def _onStandardOutput(self) -> None:
        for line in self._output.feed(self._process.readAllStandardOutput().data()):
            self._onLine(line)

    def _onLine(self, line: str) -> None:
        try:
            values = json.loads(line) if line.startswith("{") else None
        except (ValueError, RecursionError):
            values = None
        message = _understood(values) if isinstance(values, dict) else None
        if message is None:
            self._logLine(line)
        elif isinstance(message, ReadyReply):
            self._isReady = True
            self._pid = self._pid or _childPid(message.pid)
        elif self._onMessage is not None:
            self._onMessage(message)

    def _onStandardError(self) -> None:
        for line in self._errors.feed(self._process.readAllStandardError().data()):
            self._logLine(line)

    def _logLine(self, line: str) -> None:
        line = line[:_LOG_COLUMNS]
        if not line:
            return
        self._log.append(line)
        self._lastWords = line
        logging.debug("Segmentation process: %s", line)
        if self._onLog is not None:
            self._onLog(line)

    def _onError(self, error) -> None:
        if error == qt.QProcess.FailedToStart:  # every other error is followed by the end of the process
            self._log.append(self._process.errorString())
            self._over(NOT_STARTED)

    def _onFinished(self, exitCode: int, exitStatus) -> None:
        self._onStandardOutput()
        self._onStandardError()
        self._logLine(self._errors.flush())
        self._log.append(f"exit code {exitCode}")
        isException = exitStatus == qt.QProcess.NormalExit and exitCode == _EXIT_OF_AN_EXCEPTION
        self._over(NEVER_READY if isException and not self._isReady else DIED)

    def _over(self, end: str) -> None:
        self._killTimer.stop()
        _Child.ending.discard(self)
        if self._onEnd is not None:
            logging.warning("The segmentation process ended by itself. Its last words:\n%s", "\n".join(self._log))
            self._onEnd(end, self._lastWords)
        if self._whenGone is not None:
            self._whenGone()
        for sender in (self._process, self._killTimer):
            sender.deleteLater()  # drops its connections to this object, which would keep both alive


def prepare(process) -> None:
    """Let a Python process (QProcess) find mkd_core and run nothing but our own and installed code.

    Its working folder is the one that holds mkd_core, which is on its search path anyway.
    """
    process.setProcessEnvironment(coreEnvironment())
    process.setWorkingDirectory(coreSearchPath())


def coreEnvironment():
    """Return the environment (QProcessEnvironment) in which a Python process finds mkd_core.

    What a shell or another program says about Python is left out, for it lets foreign code in: its PYTHONPATH,
    PYTHONHOME, PYTHONSTARTUP and the like. PythonSlicer sets anew what Slicer's Python needs. Without PythonSlicer the
    child is the Python that runs here, which may need its own PYTHONHOME.
    """
    environment = qt.QProcessEnvironment.systemEnvironment()
    for name in environment.keys():  # noqa: SIM118 (no dict: QProcessEnvironment)
        isOurHome = name == "PYTHONHOME" and _isSameFolder(environment.value(name, ""), sys.base_prefix)
        if name.upper().startswith("PYTHON") and name not in _HARMLESS and not isOurHome:
            environment.remove(name)
    environment.insert("PYTHONPATH", coreSearchPath())
    environment.insert("PYTHONSAFEPATH", "1")
    environment.insert("PYTHONUTF8", "1")
    return environment


def _isSameFolder(path: str, other: str) -> bool:
    return os.path.normcase(os.path.realpath(path)) == os.path.normcase(os.path.realpath(other))
