"""The pipeline as a long-lived process: requests and replies as JSON lines on stdin and stdout.

    python -m mkd_core.worker

One JSON object per line, UTF-8.  Anything that is not such a line, on stdout or stderr, is log.

Requests::

    {"op": "segment", "id": 1, "input": PATH, "output": PATH, "bundle": PATH or null, "modality": "CT", "options":
     {...}, "disagreement": PATH, "aligned": PATH}                       the last two if wanted
    {"op": "cancel", "id": 1}                                     of a request that runs or waits
    {"op": "warm", "id": 2, "bundle": PATH or null}               load torch and weights before they are needed
    {"op": "describe", "id": 3, "bundle": PATH or null}           what a bundle says about itself; works without torch
    {"op": "environment", "id": 4}                                versions and devices
    {"op": "download", "id": 5, "url": URL, "sha256": DIGITS, "folder": PATH, "part": PATH}    fetch a bundle; "part" is
    the temporary file {"op": "shutdown"}                                            same as the end of stdin: leave at
    once

Replies::

    {"event": "ready", "pid": 123, "version": "0.1.0"}            once
    {"event": "progress", "id": 1, "stage": "localise", "fraction": 0.1, "message": "Looking for the heart"}
    {"event": "result", "id": 1, "report": {...}}                 files are complete before this
    {"event": "error", "id": 1, "kind": "NoHeartError", "message": "...", "advice": "..."}
    {"event": "cancelled", "id": 1}

Requests are worked on one after the other.  Weights stay loaded between them and are read anew when the file changes.
"""

from __future__ import annotations

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
from mkd_core.errors import Cancelled, MKDError
from mkd_core.inference.memory import retain_memory

if TYPE_CHECKING:
    from mkd_core.io.bundle import Bundle

# Only light imports up here: the worker says "ready" at once, and imports numpy, SimpleITK and torch when a request
# needs them.

#: Seconds that a request may take to notice the end of stdin before the process ends under it.
_LEAVE_AFTER = 1.0

#: Mode of the files that are written: they are made of a patient's volume.
_FOR_THIS_USER = 0o600


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
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancels: dict[Any, threading.Event] = {}
        self._leaving = threading.Event()
        self._bundles = bundles or BundleStore()

    def serve(self) -> None:
        """Say that we are ready, then work until the requests end."""
        self._reply({"event": "ready", "pid": os.getpid(), "version": __version__})
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while (request := self._waiting.get()) is not None and not self._leaving.is_set():
            self._work(request)

    # ---- the reading thread: cancel and shutdown must be heard while a request runs ----

    def _read(self) -> None:
        for line in self._requests:
            if not line.strip():
                continue
            try:
                request = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError):
                request = None
            if not isinstance(request, dict):
                self._refuse(None, "A request is not a JSON object.")
            elif request.get("op") == "shutdown":
                break
            elif request.get("op") == "cancel":
                if _is_id(request.get("id")) and (cancel := self._cancels.get(request["id"])) is not None:
                    cancel.set()
            else:
                self._accept(request)
        self._leave()

    def _accept(self, request: dict[str, Any]) -> None:
        number = request.get("id")
        if not _is_id(number):
            self._refuse(None, "A request has no proper id.")
        elif number in self._cancels:
            self._refuse(number, "A request with this id is already waiting.")
        elif request.get("op") not in self._OPERATIONS:
            self._refuse(number, f"There is no operation “{request.get('op')}”.")
        else:
            self._cancels[number] = threading.Event()
            self._waiting.put(request)

    def _leave(self) -> None:
        self._leaving.set()
        for cancel in list(self._cancels.values()):
            cancel.set()
        self._waiting.put(None)
        timer = threading.Timer(_LEAVE_AFTER, self._end_process, (0,))
        timer.daemon = True
        timer.start()

    def _refuse(self, number: Any, message: str) -> None:
        self._reply({"event": "error", "id": number, "kind": "ProtocolError", "message": message, "advice": ""})

    # ---- the main thread ----

    def _work(self, request: dict[str, Any]) -> None:
        number = request["id"]
        try:
            if self._cancels[number].is_set():
                raise Cancelled()
            report = self._OPERATIONS[request["op"]](self, request)
            reply = {"event": "result", "id": number, "report": report}
        except Cancelled:
            reply = {"event": "cancelled", "id": number}
        except MKDError as error:
            reply = _error(number, type(error).__name__, error.message, error.advice)
        except MemoryError:
            traceback.print_exc()
            reply = _error(
                number,
                "DeviceError",
                "This computer ran out of memory.",
                "Close other programs, or crop the volume to the chest.",
            )
        except Exception:  # whatever it is, the worker goes on and the user gets a sentence
            traceback.print_exc()
            reply = _error(
                number,
                "InternalError",
                "The segmentation failed because of an error in the program.",
                "Details are in the application log.",
            )
        del self._cancels[number]
        self._reply(reply)

    def _segment(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request["id"]

        def progress(stage: str, fraction: float, message: str) -> None:
            self._reply_progress(number, stage, fraction, message)

        progress("check", 0.0, "Reading the volume")  # before imports that take a while
        from mkd_core.inference import pipeline
        from mkd_core.io.volumes import check_writable, read_volume, write_volume

        source, target = _path(request, "input"), _path(request, "output")
        extras = {name: _path(request, name) for name in ("disagreement", "aligned") if request.get(name) is not None}
        for path in (target, *extras.values()):
            check_writable(path)
        options = pipeline.SegmentationOptions.from_dict(
            _table(request, "options") | {f"with_{name}": True for name in extras}
        )

        image = read_volume(source)
        result = pipeline.segment(
            image,
            self._bundles.get(_bundle_path(request)),
            modality=request.get("modality", "CT"),
            options=options,
            progress=progress,
            cancelled=self._cancels[number].is_set,
        )
        for name, path in extras.items():
            extra = getattr(result, name)
            if extra is not None:
                write_volume(extra, path, compress=False)
                path.chmod(_FOR_THIS_USER)
        write_volume(result.labels, target, compress=False)
        target.chmod(_FOR_THIS_USER)
        return result.report

    def _warm(self, request: dict[str, Any]) -> dict[str, Any]:
        from mkd_core.inference import pipeline

        return pipeline.warm(
            self._bundles.get(_bundle_path(request)), pipeline.SegmentationOptions.from_dict(_table(request, "options"))
        )

    def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        from mkd_core.io.bundle import read_description

        path = _bundle_path(request)
        description = read_description(path)
        return {"path": str(path), "size_bytes": path.stat().st_size, "metadata": description}

    def _environment(self, request: dict[str, Any]) -> dict[str, Any]:
        from mkd_core.environment import describe_environment

        return describe_environment()

    def _download(self, request: dict[str, Any]) -> dict[str, Any]:
        from mkd_core.io.download import download_bundle

        def progress(fraction: float, message: str) -> None:
            self._reply_progress(request["id"], "download", fraction, message)

        path = download_bundle(
            str(request.get("url") or ""),
            str(request.get("sha256") or ""),
            _path(request, "folder"),
            part=_path(request, "part"),
            progress=progress,
            cancelled=self._cancels[request["id"]].is_set,
        )
        return {"path": str(path)}

    _OPERATIONS = {
        "segment": _segment,
        "warm": _warm,
        "describe": _describe,
        "environment": _environment,
        "download": _download,
    }

    def _reply_progress(self, number: Any, stage: str, fraction: float, message: str) -> None:
        self._reply(
            {"event": "progress", "id": number, "stage": stage, "fraction": round(fraction, 4), "message": message}
        )

    def _reply(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, allow_nan=False).encode("ascii") + b"\n"
        with self._reply_lock:
            try:
                self._replies.write(line)
                self._replies.flush()
            except (OSError, ValueError):  # nobody reads any more
                self._end_process(0)


class BundleStore:
    """The bundle of the last request, read anew when another one is wanted or its file changed."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._bundle: Bundle | None = None

    def get(self, path: Path) -> Bundle:
        """The bundle in a file.

        Raises:
            BundleError: it cannot be used.
            DeviceError: torch is missing.
        """
        from mkd_core.inference.pipeline import require_torch
        from mkd_core.io.bundle import load_bundle

        require_torch()
        status = path.stat() if path.is_file() else None
        key = (path, status and status.st_size, status and status.st_mtime_ns)
        if key != self._key:
            self._bundle = self._key = None  # frees the old one before the new one comes
            self._bundle = load_bundle(path)
            self._key = key
        return self._bundle


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _error(number: Any, kind: str, message: str, advice: str) -> dict[str, Any]:
    return {"event": "error", "id": number, "kind": kind, "message": message, "advice": advice}


class ProtocolError(MKDError):
    """A request lacks something."""


def _path(request: dict[str, Any], key: str) -> Path:
    value = request.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ProtocolError(f"The request names no proper path for “{key}”.")
    return Path(value)


def _table(request: dict[str, Any], key: str) -> dict[str, Any]:
    value = request.get(key) or {}
    if not isinstance(value, dict):
        raise ProtocolError(f"“{key}” of the request is not a table.")
    return value


def _bundle_path(request: dict[str, Any]) -> Path:
    from mkd_core.io.bundle import default_bundle_path

    return default_bundle_path() if request.get("bundle") is None else _path(request, "bundle")


def protocol_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol: libraries find nothing on stdin, and what they print goes to stderr.

    On Windows a library that looks at stdin while another thread reads from it waits for that read: importing numpy
        would hang.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def main() -> int:
    """Serve requests on stdin."""
    retain_memory()
    Worker(*protocol_streams()).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
