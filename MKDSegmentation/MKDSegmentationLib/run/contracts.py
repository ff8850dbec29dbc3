"""What the parts of a run need of each other. Tests put other objects in their place."""

from collections.abc import Callable
from typing import Protocol

from mkd_core.protocol import Request, WarmRequest


class Worker(Protocol):
    """A process that works on one request at a time; see workerProcess.WorkerProcess."""

    @property
    def isBusy(self) -> bool:
        """True between a request and its reply."""

    @property
    def isAlive(self) -> bool:
        """True while there is a process."""

    def start(self) -> None:
        """Start the process if it is not there yet, ahead of a request; returns at once."""

    def warm(self, message: WarmRequest) -> None:
        """Let the process load in the background what a coming request needs."""

    def request(self, message: Request, onReply: Callable, onProgress: Callable | None = None) -> None:
        """Send a request; the callbacks come from the event loop."""

    def cancel(self, whenGone: Callable | None = None) -> None:
        """Give up the request: no reply comes."""

    def stop(self) -> None:
        """End the process now."""


class Logic(Protocol):
    """What the panel needs of the module's logic; see MKDSegmentationLogic."""

    @property
    def isRunning(self) -> bool:
        """True from a successful start to the outcome."""

    @property
    def isWarm(self) -> bool:
        """True while a worker process is there."""

    def getParameterNode(self):
        """Return the choices that are saved with the scene."""

    def warm(self, options=None) -> None:
        """Let the worker get ready in the background."""

    def start(self, inputVolume, outputSegmentation=None, options=None, onProgress=None, onFinished=None, onLog=None):
        """Segment a volume in the background."""

    def startSequence(self, inputVolume, options=None, onProgress=None, onFinished=None, onLog=None):
        """Segment every frame of a sequence in the background."""

    def startBatch(self, rows, options=None, onProgress=None, onFinished=None, onRow=None, onLog=None):
        """Segment many volumes of the scene in the background."""

    def startArchive(self, folder, results, options=None, onProgress=None, onFinished=None, onRows=None, onLog=None):
        """Segment the volumes of a folder in the background."""

    def leaveOut(self, row) -> None:
        """Leave a volume out of the batch that is under way."""

    def cancel(self) -> None:
        """End the run, if there is one."""

    def close(self) -> None:
        """End the run and the worker."""
