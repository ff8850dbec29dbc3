"""Installs PyTorch by a process of its own, in the build that Slicer's PyTorch extension would take.

The extension installs with its package light-the-torch, which picks the build for this computer's graphics card, and
lets the application wait for it. Here light-the-torch runs the same way in a child process: Slicer stays usable, there
is progress, and a download can be cancelled.
"""

import collections
import importlib
import importlib.util
import logging
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from .environment import TORCH_TO_INSTALL, EnvironmentProblem, torchProblem
from .lineBuffer import LineBuffer
from .workerProcess import prepare, pythonCommand

_GB = 1e9
_LOG_LINES = 1000  # pip first says what is wrong, and then where in its code it noticed
_GRACE_MS = 3000  # what has not ended by itself then is killed
_LONGEST_INSTALLATION_MS = 5 * 60 * 1000  # files of a build with CUDA on a slow disk


@dataclass(frozen=True)
class InstallationPlan:
    """What an installation takes, roughly: it depends on the version that is the newest at the time.

    downloadGb, diskGb - how much is downloaded, and how much it is once it is unpacked.
    folder - where to.
    forGraphicsCard - it is a build with CUDA.
    """

    downloadGb: float
    diskGb: float
    folder: str
    forGraphicsCard: bool

    @property
    def lackGb(self) -> float:
        """How much more free space the disk would need; 0 if there is enough."""
        try:
            free = shutil.disk_usage(self.folder).free / _GB
        except OSError:  # pip will tell
            return 0.0
        return max(0.0, self.downloadGb + self.diskGb - free)


def installationPlan() -> InstallationPlan:
    """Return what the installation of PyTorch takes on this computer; asks no server."""
    folder = sysconfig.get_paths()["purelib"]
    if sys.platform != "darwin" and _hasNvidiaDriver():
        return InstallationPlan(3.0, 6.0, folder, True)
    return InstallationPlan(0.2, 1.0, folder, False)


def _hasNvidiaDriver() -> bool:
    if sys.platform == "win32":
        return os.path.isfile(os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"))
    return os.path.exists("/proc/driver/nvidia/version")


class TorchInstaller:
    """One installation at a time.

    :param onProgress: called with a text for the user, the fraction of the present download (None if nobody knows) and
        whether it can be cancelled now.
    :param onFinished: called once with a text for the user that says why it failed; empty if it did not.
    """

    def __init__(self, onProgress: Callable, onFinished: Callable) -> None:
        self._onProgress, self._onFinished = onProgress, onFinished
        self._process = None
        self._temporaryFolder = ""
        self._lines, self._log = LineBuffer(), collections.deque(maxlen=_LOG_LINES)
        self._text, self._canCancel = "", True

    @property
    def isRunning(self) -> bool:
        """True from the start to the end."""
        return self._process is not None

    def start(self) -> None:
        """Start; returns as soon as the process has been started.

        :raises EnvironmentProblem: if the extension PyTorch is missing; the message says what to do.
        """
        self._prepareLightTheTorch()
        self._lines, self._log = LineBuffer(), collections.deque(maxlen=_LOG_LINES)
        self._text, self._canCancel = _("Looking for the build for this computer ..."), True
        self._temporaryFolder = tempfile.mkdtemp(prefix="MKDSegmentation-torch-")
        command = pythonCommand(
            *("-m", "mkd_core.tether", "light_the_torch", "install", "--progress-bar", "raw", "--no-input"),
            *("--disable-pip-version-check", f"torch{TORCH_TO_INSTALL}", "torchvision"),
        )
        self._process = qt.QProcess()
        prepare(self._process)
        environment = self._process.processEnvironment()
        for name in ("TMPDIR", "TEMP", "TMP"):  # where pip downloads to, so that a cancelled one leaves nothing
            environment.insert(name, self._temporaryFolder)
        self._process.setProcessEnvironment(environment)
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._process.connect("readyReadStandardOutput()", self._onOutput)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onProcessFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onError)
        logging.info("Installing PyTorch: %s", " ".join(command))
        self._onProgress(self._text, None, True)
        self._process.start(command[0], command[1:])

    def cancel(self) -> None:
        """Stop a download; nothing has been installed then. Files are being put in their places afterwards, which must
        not be interrupted: then nothing happens.
        """
        if self.isRunning and self._canCancel:
            self._end(_("The installation of PyTorch was cancelled."))

    def close(self) -> None:
        """End without a word, when the application closes: a download at once, an installation when it is complete."""
        self._onFinished = self._onProgress = lambda *_arguments: None
        if self.isRunning and not self._canCancel:
            logging.info("Waiting until the files of PyTorch are in their places.")
            self._process.waitForFinished(_LONGEST_INSTALLATION_MS)
        if self.isRunning:
            self._end("")

    def _prepareLightTheTorch(self) -> None:
        """Let the extension bring light-the-torch, which is small, in the version that it wants."""
        try:
            from PyTorchUtils import PyTorchUtilsLogic
        except ImportError as error:
            raise EnvironmentProblem(
                _(
                    "PyTorch is needed. Install the extension 'PyTorch' in the Extensions Manager, restart Slicer and "
                    "click Segment again."
                ),
            ) from error
        if importlib.util.find_spec("light_the_torch") is None:
            try:
                PyTorchUtilsLogic.getCompatibleComputationBackends(torchVersionRequirement=TORCH_TO_INSTALL)
            except Exception as error:  # whatever the extension raises, what counts is whether it is there now
                logging.warning("The extension PyTorch could not prepare the installation: %s", error)
            importlib.invalidate_caches()
        if importlib.util.find_spec("light_the_torch") is None:
            raise EnvironmentProblem(
                _(
                    "The installation of PyTorch could not be prepared, often because there is no connection to the "
                    "internet; details are in the application log. The module PyTorch Utils can install it as well."
                )
            )

    def _onOutput(self) -> None:
        for line in self._lines.feed(self._process.readAllStandardOutput().data()):
            self._onLine(line)

    def _onLine(self, line: str) -> None:
        progress = re.fullmatch(r"Progress (\d+) of (\d+)", line)
        if progress:
            done, whole = map(int, progress.groups())
            self._onProgress(self._text, done / whole if whole else None, True)
            return
        if not line:
            return
        logging.debug("Installing PyTorch: %s", line)
        self._log.append(line)
        download = re.match(r"Downloading (?:\S*/)?([A-Za-z0-9_.]+-[^-+%\s]+)\S* (\(.*\))$", line)
        if download:
            self._text = _("Downloading {name} {size}").format(name=download[1], size=download[2])
        elif line.startswith("Installing collected packages"):
            self._text, self._canCancel = _("Installing; this cannot be interrupted ..."), False
        else:
            return
        self._onProgress(self._text, None, self._canCancel)

    def _onError(self, error) -> None:
        if error == qt.QProcess.FailedToStart:
            self._log.append(self._process.errorString())
            self._end(reasonInWords(self._log))

    def _onProcessFinished(self, _exitCode: int, exitStatus) -> None:
        self._onOutput()
        self._onLine(self._lines.flush())
        importlib.invalidate_caches()
        # light-the-torch ends with exit code 0 whatever pip says, so what counts is whether PyTorch is there.
        failed = exitStatus != qt.QProcess.NormalExit or bool(torchProblem())
        if failed:
            logging.warning("PyTorch could not be installed:\n%s", "\n".join(self._log))
        self._end(reasonInWords(self._log) if failed else "")

    def _end(self, message: str) -> None:
        process, self._process = self._process, None
        process.disconnect("readyReadStandardOutput()", self._onOutput)
        process.disconnect("finished(int,QProcess::ExitStatus)", self._onProcessFinished)
        process.disconnect("errorOccurred(QProcess::ProcessError)", self._onError)
        if process.state() != qt.QProcess.NotRunning:
            process.closeWriteChannel()  # mkd_core.tether ends then, and the launcher after it
            if not process.waitForFinished(_GRACE_MS):
                process.kill()
                process.waitForFinished(_GRACE_MS)
        process.deleteLater()
        shutil.rmtree(self._temporaryFolder, ignore_errors=True)
        self._onFinished(message)


#: Words of pip, in lower case, and what they mean. The first that is found counts.
_REASONS = (
    (
        ("proxyerror", "cannot connect to proxy", "407 proxy", "tunnel connection failed"),
        _(
            "The proxy server does not let the download through. Ask your IT department for the address of the proxy, "
            "set the environment variable HTTPS_PROXY to it, restart Slicer and click Segment again."
        ),
    ),
    (
        ("certificate_verify_failed", "sslerror", "certificate verify failed"),
        _(
            "The secure connection was refused, as happens where a company's firewall opens encrypted connections. Ask "
            "your IT department for its certificate, set the environment variable PIP_CERT to that file, restart "
            "Slicer and click Segment again."
        ),
    ),
    (
        ("no space left", "errno 28", "not enough space"),
        _("The disk is full. Free some space and click Segment again."),
    ),
    (
        ("permissionerror", "errno 13", "access is denied", "permission denied", "read-only file system"),
        _(
            "Slicer's folder cannot be written. Install Slicer for yourself instead of for all users, or ask whoever "
            "installed it to install PyTorch, and click Segment again."
        ),
    ),
    (
        ("enable long paths", "long path support", "winerror 206", "filename or extension is too long"),
        _(
            "A path is longer than Windows allows. Install Slicer in a folder with a short path, or enable long paths "
            "in Windows, and click Segment again."
        ),
    ),
    (
        (
            "newconnectionerror",
            "nameresolutionerror",
            "failed to establish a new connection",
            "getaddrinfo failed",
            "network is unreachable",
            "timed out",
            "connection broken",
            "connectionreseterror",
            "incompleteread",
        ),
        _(
            "The server of PyTorch cannot be reached. Check the connection to the internet. Behind a firewall, ask "
            "your IT department to allow download.pytorch.org and pypi.org, and click Segment again."
        ),
    ),
    (
        ("no matching distribution", "could not find a version"),
        _(
            "There is no PyTorch for this computer and this version of Slicer. Update Slicer and its extensions, and "
            "click Segment again."
        ),
    ),
)


def reasonInWords(log: Iterable) -> str:
    """Return what the last lines of pip mean for the user, and what to do."""
    log = list(log)
    text = "\n".join(log).lower()
    for words, meaning in _REASONS:
        if any(word in text for word in words):
            return _("PyTorch was not installed.") + " " + meaning
    error = next((line for line in reversed(log) if line.lower().startswith("error")), "")
    if not error:
        return _("PyTorch was not installed; details are in the application log.")
    return _("PyTorch was not installed: {reason} Details are in the application log.").format(
        reason=error.removeprefix("ERROR: ")[:200]
    )
