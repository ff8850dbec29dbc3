"""The pipeline as a long-lived process: requests and replies as JSON lines on stdin and stdout.

    python -m mkd_core.worker

One JSON object per line, UTF-8; :mod:`mkd_core.protocol` says what requests and replies hold.  Anything that is not
such a line, on stdout or stderr, is log.

Requests are worked on one after the other; "cancel" is heard while one runs.  Only while "warm" loads PyTorch and the
weights, a volume to segment is read and checked already.  Weights stay loaded between requests and are read anew when
the file changes.
"""

from __future__ import annotations

if __name__ == "__main__":  # before any other import
    from mkd_core.isolation import forget_current_folder

    forget_current_folder()

import dataclasses
import functools
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mkd_core import __version__
from mkd_core.errors import Cancelled, MKDError, ProtocolError
from mkd_core.inference.memory import importing, let_waiting_threads_sleep, retain_memory
from mkd_core.isolation import take_stdin
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import (
    ALIGNED,
    DISAGREEMENT,
    CancelledReply,
    CancelRequest,
    DescribeRequest,
    DownloadRequest,
    EnvironmentRequest,
    ErrorReply,
    ProgressReply,
    ReadyReply,
    ReleasesRequest,
    Reply,
    RequestId,
    ResultReply,
    SegmentRequest,
    ShutdownRequest,
    WarmRequest,
    Work,
    parse_request,
    request_id,
    to_message,
)

if TYPE_CHECKING:
    from mkd_core.io.bundle import Bundle

# Only light imports up here: the worker says "ready" at once, and imports numpy, SimpleITK and torch when a request
# needs them.

#: Seconds that a request may take to notice the end of stdin before the process ends under it.
_LEAVE_AFTER = 1.0

#: Longest request that is read, bytes.
_LONGEST_REQUEST = 1 << 20


class Worker:
    """Serves requests until the stream of requests ends.

    Args:
        requests: binary stream of JSON lines.
        replies: binary stream for JSON lines.
        bundles: gives the bundle of a path; by default one that keeps the last.
        end_process: called with 0 if a request does not notice in time that the requests ended, or if nobody reads the
            replies.
    """

    def __init__(
        self,
        requests: BinaryIO,
        replies: BinaryIO,
        bundles: BundleStore | None = None,
        end_process: Callable[[int], None] = os._exit,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._end_process = end_process
        self._reply_lock = threading.Lock()
        self._waiting: queue.Queue[Work | None] = queue.Queue()
        self._cancels: dict[RequestId, threading.Event] = {}
        self._leaving = threading.Event()
        self._warming: threading.Thread | None = None
        self._bundles = bundles or BundleStore()

    def serve(self) -> None:
        """Say that we are ready, then work until the requests end."""
        self._reply(ReadyReply(os.getpid(), __version__))
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while (request := self._waiting.get()) is not None and not self._leaving.is_set():
            if not isinstance(request, SegmentRequest):  # which reads and checks its volume, then waits for the weights
                self._finish_warming()
            if isinstance(request, WarmRequest):
                self._warming = threading.Thread(target=self._work, args=(request,), name="warming", daemon=True)
                self._warming.start()
            else:
                self._work(request)
        self._finish_warming()

    def _finish_warming(self) -> None:
        if self._warming is not None:
            self._warming.join()
            self._warming = None

    # ---- the reading thread: cancel and shutdown must be heard while a request runs ----

    def _read(self) -> None:
        try:
            while line := self._requests.readline(_LONGEST_REQUEST):
                if line.strip() and not self._hear(line):
                    break
        except (OSError, ValueError):  # the stream broke or was closed
            pass
        finally:
            self._leave()  # whatever happens to this thread, no process without ears stays behind

    def _hear(self, line: bytes) -> bool:
        """Take one request; False if it is to leave."""
        try:
            message = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            message = None
        try:
            request = parse_request(message)
        except MKDError as error:
            self._reply(_error(request_id(message), type(error).__name__, error))
            return True
        if isinstance(request, ShutdownRequest):
            return False
        if isinstance(request, CancelRequest):
            if (cancel := self._cancels.get(request.id)) is not None:
                cancel.set()
        else:
            self._accept(request)
        return True

    def _accept(self, request: Work) -> None:
        if request.id in self._cancels:
            error = ProtocolError("A request with this id is already waiting.")
            self._reply(_error(request.id, type(error).__name__, error))
        else:
            self._cancels[request.id] = threading.Event()
            self._waiting.put(request)

    def _leave(self) -> None:
        self._leaving.set()
        for cancel in list(self._cancels.values()):
            cancel.set()
        self._waiting.put(None)
        timer = threading.Timer(_LEAVE_AFTER, self._end_process, (0,))
        timer.daemon = True
        timer.start()

    # ---- the main thread ----

    def _work(self, request: Work) -> None:
        reply: Reply
        try:
            if self._cancels[request.id].is_set():
                raise Cancelled()
            reply = ResultReply(request.id, self._perform(request))
        except Cancelled:
            reply = CancelledReply(request.id)
        except MKDError as error:
            reply = _error(request.id, type(error).__name__, error)
        except ImportError as error:
            traceback.print_exc()
            reply = _error(request.id, "ImportProblem", refusal(finding("package_missing", reason=str(error))))
        except MemoryError:
            traceback.print_exc()
            reply = _error(request.id, "DeviceError", refusal(finding("memory")))
        except Exception:  # whatever it is, the worker goes on and the user gets a sentence
            traceback.print_exc()
            reply = _error(request.id, "InternalError", refusal(finding("program_error")))
        del self._cancels[request.id]
        self._reply(reply)

    def _perform(self, request: Work) -> dict[str, Any]:
        if isinstance(request, SegmentRequest):
            return self._segment(request)
        if isinstance(request, WarmRequest):
            return self._warm(request)
        if isinstance(request, DescribeRequest):
            return self._describe(request)
        if isinstance(request, EnvironmentRequest):
            return self._environment()
        if isinstance(request, ReleasesRequest):
            return self._releases(request)
        return self._download(request)

    def _segment(self, request: SegmentRequest) -> dict[str, Any]:
        def progress(stage: str, fraction: float, message: str) -> None:
            self._reply_progress(request.id, stage, fraction, message)

        progress("check", 0.0, "Reading the volume")  # before imports that take a while
        with importing("mkd_core.inference.pipeline"):
            from mkd_core.inference import pipeline
            from mkd_core.io.atomic import OutputFiles
            from mkd_core.io.volumes import check_writable, input_files, read_with_doubts, store_volume

        source, target, bundle = Path(request.input), Path(request.output), _bundle_path(request.bundle)
        wanted = {DISAGREEMENT: request.disagreement, ALIGNED: request.aligned}
        extras = {name: Path(path) for name, path in wanted.items() if path is not None}
        for path in (target, *extras.values()):
            check_writable(path)
        outputs = OutputFiles(inputs=[*input_files(source), bundle], private=True)
        outputs.check(target, *extras.values())
        image, doubts = read_with_doubts(source)
        result = pipeline.segment(
            image,
            functools.partial(self._bundles.get, bundle),
            modality=request.modality,
            options=dataclasses.replace(
                request.options, with_disagreement=DISAGREEMENT in extras, with_aligned=ALIGNED in extras
            ),
            progress=progress,
            cancelled=self._cancels[request.id].is_set,
        )
        images = {path: getattr(result, name) for name, path in extras.items()} | {target: result.labels}
        with outputs:
            for path, written in images.items():
                if written is not None:
                    outputs.write(path, functools.partial(store_volume, written, compress=False))
        result.report["warnings"][:0] = [doubt.to_dict() for doubt in doubts]
        return dict(result.report)

    def _warm(self, request: WarmRequest) -> dict[str, Any]:
        with importing("mkd_core.inference.pipeline"):
            from mkd_core.inference import pipeline

        return pipeline.warm(self._bundles.get(_bundle_path(request.bundle)), request.options)

    def _describe(self, request: DescribeRequest) -> dict[str, Any]:
        from mkd_core.io.bundle import read_description

        path = _bundle_path(request.bundle)
        description = read_description(path)
        return {"path": str(path), "size_bytes": path.stat().st_size, "metadata": description}

    def _environment(self) -> dict[str, Any]:
        from mkd_core.environment import describe_environment

        return describe_environment()

    def _download(self, request: DownloadRequest) -> dict[str, Any]:
        from mkd_core.io.download import download_bundle

        def progress(fraction: float, message: str) -> None:
            self._reply_progress(request.id, "download", fraction, message)

        path = download_bundle(
            request.url,
            request.sha256,
            Path(request.folder),
            part=Path(request.part),
            progress=progress,
            cancelled=self._cancels[request.id].is_set,
        )
        return {"path": str(path)}

    def _releases(self, request: ReleasesRequest) -> dict[str, Any]:
        from mkd_core.io.releases import fetch_releases

        releases = fetch_releases(request.url, cancelled=self._cancels[request.id].is_set)
        return {"releases": [dataclasses.asdict(release) for release in releases]}

    def _reply_progress(self, number: RequestId, stage: str, fraction: float, message: str) -> None:
        self._reply(ProgressReply(number, stage, round(fraction, 4), message))

    def _reply(self, reply: Reply) -> None:
        line = json.dumps(to_message(reply), allow_nan=False).encode("ascii") + b"\n"
        with self._reply_lock:
            try:
                self._replies.write(line)
                self._replies.flush()
            except (OSError, ValueError):  # nobody reads any more
                self._end_process(0)


class BundleStore:
    """The bundle of the last request, read anew when another one is wanted or its file changed; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[object, ...] | None = None
        self._bundle: Bundle | None = None

    def get(self, path: Path) -> Bundle:
        """The bundle in a file.

        Raises:
            BundleError: it cannot be used.
            DeviceError: torch is missing.
        """
        with self._lock:
            with importing("torch"):
                from mkd_core.inference.pipeline import require_torch
                from mkd_core.io.bundle import load_bundle

                require_torch()
            status = path.stat() if path.is_file() else None
            # The number tells files apart of which one took the other's place within a tick of the disk's clock.
            key = (path, status and (status.st_ino, status.st_size, status.st_mtime_ns))
            if self._bundle is None or key != self._key:
                self._bundle = self._key = None  # frees the old one before the new one comes
                self._bundle = load_bundle(path)
                self._key = key
            return self._bundle


def _error(number: RequestId | None, kind: str, error: MKDError) -> ErrorReply:
    return ErrorReply(number, kind, error.message, error.advice, error.finding)


def _bundle_path(path: str | None) -> Path:
    from mkd_core.io.bundle import default_bundle_path

    return default_bundle_path() if path is None else Path(path)


def protocol_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol: libraries find nothing on stdin, and what they print goes to stderr."""
    requests, replies = os.fdopen(take_stdin(), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def main() -> int:
    """Serve requests on stdin."""
    retain_memory()
    let_waiting_threads_sleep()
    Worker(*protocol_streams()).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
