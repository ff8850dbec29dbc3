"""Fetch a weights bundle from an address that the user names, and let it in only if it is the file that the user
expects.

Encrypted connections only, to the end of every redirection; a known SHA-256; limits of size and time.  Until all is
checked the file has a temporary name, and whatever goes wrong, that file is removed.  What a server says is shown as
plain words, without any character that could mark up a text.  Nothing else in this package ever uses a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import os
import queue
import re
import secrets
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkd_core.errors import BundleError, Cancelled, DownloadError
from mkd_core.io.atomic import replace
from mkd_core.io.bundle import read_description
from mkd_core.io.bundle_refusals import named
from mkd_core.measure.messages import finding, refusal

#: Largest file that is fetched, bytes.
MAX_BYTES = 2 * 1024**3

ENDING = ".safetensors"

#: Longest time that a download may take, s.
MAX_SECONDS = 3600.0

_CHUNK = 1 << 18
_TIMEOUT_S = 30.0

#: Characters of a server's words that are shown, and how many at most.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 .,:;_'()/-]")
_LONGEST_WORDS = 120

#: Longest line between the pieces of a response that comes in pieces.
_LONGEST_LINE = 256


def check_address(url: str) -> None:
    """Refuse an address from which nothing is fetched.

    Raises:
        DownloadError: it is without encryption or host.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        fits = parts.scheme == "https" and bool(parts.hostname) and not re.search(r"[\s\x00-\x1f]", url.strip())
    except ValueError:
        fits = False
    if not fits:
        raise _refused("download_address")


def check_request(url: str, sha256: str) -> None:
    """Refuse what cannot be fetched, before anything is done.

    Raises:
        DownloadError: an address without encryption or host, or no SHA-256.
    """
    check_address(url)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256.strip()):
        raise _refused("download_sha256")


def file_name(url: str) -> str:
    """Name under which the file of an address is kept: the last part of its path, without anything a file system could
    take amiss.
    """
    last = urllib.parse.unquote(urllib.parse.urlsplit(url.strip()).path).rstrip("/").rpartition("/")[2]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", last.removesuffix(ENDING)).strip("._-")[:80]
    return (stem or "weights") + ENDING


def download_bundle(
    url: str,
    sha256: str,
    folder: Path | str,
    *,
    part: Path | str | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
    open_url: Callable[[str], Any] | None = None,
) -> Path:
    """Fetch a bundle.

    Args:
        url: address, https only.
        sha256: of the file, 64 hexadecimal digits.
        folder: where to keep it; made if it is not there.
        part: temporary file to write to, on the same disk as the folder; a new one if None.
        progress: called as ``progress(fraction, message)``, 0 to 1; the fraction stays 0 if the server does not tell
            the size.
        cancelled: polled between pieces of a quarter of a mebibyte.
        max_bytes: larger files are refused.
        max_seconds: longer downloads are broken off.
        open_url: opens an address and returns a response with ``headers`` and ``read(n)``; by default with urllib.

    Returns:
        The file.  If it was there already, nothing is fetched.

    Raises:
        DownloadError: an unsuitable address, no connection, too large, broken off, another SHA-256, not a bundle, or no
            place to keep it.
        Cancelled: ``cancelled`` said so.
    """
    check_request(url, sha256)
    wanted = sha256.strip().lower()
    target = Path(folder) / file_name(url)
    if _is_there(target, wanted):
        return target
    part = _make_part(Path(folder), part)
    try:
        found = _fetch(
            url.strip(),
            part,
            progress or (lambda fraction, message: None),
            _Limits(cancelled or (lambda: False), max_bytes, max_seconds),
            open_url or _open,
        )
        if not hmac.compare_digest(found, wanted):
            raise _refused("download_other_sha256", found=found[:12], wanted=wanted[:12])
        _check_bundle(part, target)
        if _is_there(target, wanted):  # it came while this one was fetched
            return target
        replace(part, target)
    except OSError as error:
        raise _cannot_keep(part.parent, error) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _check_bundle(part: Path, target: Path) -> None:
    try:
        read_description(part)
    except BundleError as error:
        raise named(error, target) from error  # the user knows nothing of the draft


def fetch_bytes(
    url: str,
    *,
    max_bytes: int,
    max_seconds: float,
    cancelled: Callable[[], bool] | None = None,
    open_url: Callable[[str], Any] | None = None,
) -> bytes:
    """Fetch a small file into memory.

    Args:
        url: address, https only.
        max_bytes: larger files are refused.
        max_seconds: longer downloads are broken off.
        cancelled: polled between pieces.
        open_url: as in :func:`download_bundle`.

    Raises:
        DownloadError: an unsuitable address, no connection, too large or broken off.
        Cancelled: ``cancelled`` said so.
    """
    check_address(url)
    limits = _Limits(cancelled or (lambda: False), max_bytes, max_seconds)
    whole = bytearray()
    with _receiving(url.strip(), open_url or _open, limits) as (expected, pieces):
        limits.check(max(expected, 0))
        for chunk in pieces:
            whole += chunk
            limits.check(len(whole))
    return bytes(whole)


def _is_there(target: Path, wanted: str) -> bool:
    if not target.exists():
        return False
    digest = hashlib.sha256()
    try:
        with target.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _cannot_keep(target.parent, error) from error
    if digest.hexdigest() != wanted:
        raise _refused("download_name_taken", file=target.name)
    return True


def _make_part(folder: Path, part: Path | str | None) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if part is not None:
            Path(part).touch(exist_ok=False)
            return Path(part)
        new = folder / f"mkd-{secrets.token_hex(8)}.part"
        new.touch(exist_ok=False)
        return new
    except OSError as error:
        raise _cannot_keep(folder, error) from error


def _cannot_keep(folder: Path, error: OSError) -> DownloadError:
    return _refused("download_not_kept", folder=str(folder), reason=str(error.strerror or error))


class _Limits:
    """When to stop."""

    def __init__(self, cancelled: Callable[[], bool], max_bytes: int, max_seconds: float) -> None:
        self._cancelled = cancelled
        self._max_bytes = max_bytes
        self._seconds = max_seconds
        self._end = time.monotonic() + max_seconds

    def check(self, size: int = 0) -> None:
        """Raise what is to be raised when so many bytes have come, or are said to come."""
        if self._cancelled():
            raise Cancelled()
        if size > self._max_bytes:
            raise _refused("download_too_large", gb=self._max_bytes / 1e9)
        if time.monotonic() > self._end:
            raise _refused("download_slow", minutes=self._seconds / 60)


def _fetch(url: str, part: Path, progress: Callable, limits: _Limits, open_url: Callable) -> str:
    """Write what comes to ``part`` and return its SHA-256."""
    progress(0.0, "Connecting")
    digest, done = hashlib.sha256(), 0
    with _receiving(url, open_url, limits) as (expected, pieces), part.open("wb") as file:
        limits.check(max(expected, 0))
        if shutil.disk_usage(part.parent).free < expected + (64 << 20):
            raise _refused("download_no_space")
        for chunk in pieces:
            done += len(chunk)
            limits.check(done)
            file.write(chunk)
            digest.update(chunk)
            progress(min(1.0, done / expected) if expected > 0 else 0.0, f"{done / 1e6:.1f} MB")
        file.flush()
        os.fsync(file.fileno())  # what gets the final name must be on the disk even if the power fails next
    limits.check()
    if 0 <= expected != done:
        raise _refused("download_cut")
    return digest.hexdigest()


@contextlib.contextmanager
def _receiving(url: str, open_url: Callable, limits: _Limits) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The length of what an address holds, -1 where it is untold, and its bytes as they come.

    A thread waits for the server, so that a cancel and the limit of time are heard whatever the server does.
    """
    came: queue.Queue = queue.Queue(maxsize=1)
    is_over = threading.Event()

    def give(item: object) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                came.put(item, timeout=0.1)
                return
        raise Cancelled()

    def receive() -> None:
        try:
            with _opened(url, open_url) as response:
                give(_length(response))
                for piece in _pieces(response):
                    give(piece)
            give(None)
        except BaseException as error:
            with contextlib.suppress(Cancelled):
                give(error)

    def take() -> Any:
        while True:
            limits.check()
            with contextlib.suppress(queue.Empty):
                item = came.get(timeout=0.1)
                if isinstance(item, BaseException):
                    raise item
                return item

    threading.Thread(target=receive, name="download", daemon=True).start()
    try:
        yield take(), iter(take, None)
    finally:
        is_over.set()


def _opened(url: str, open_url: Callable) -> Any:
    try:
        return open_url(url)
    except urllib.error.HTTPError as error:
        raise _refused("download_refused", status=error.code, reason=_plain(error.reason)) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = _plain(getattr(error, "reason", None) or error)
        raise _refused("download_no_connection", reason=reason) from error


def _pieces(response) -> Iterator[bytes]:
    """The bytes of a response as they come, at most :data:`_CHUNK` at a time."""
    try:
        if getattr(response, "chunked", False):
            yield from _chunks(response.fp)
            return
        read = getattr(response, "read1", response.read)  # returns what is there instead of waiting for all
        while piece := read(_CHUNK):
            yield piece
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _refused("download_broken", reason=_plain(error)) from error


def _chunks(stream) -> Iterator[bytes]:
    """The bytes of a body in chunks (RFC 9112, 7.1).  http.client takes “-5” for a size, and reads on for ever."""
    while True:
        line = stream.readline(_LONGEST_LINE)
        found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[^\r\n]*)?\r?\n", line)
        if found is None:
            raise ValueError("a piece without a proper size")
        missing = int(found.group(1), 16)
        if missing == 0:
            return
        while missing:
            piece = stream.read1(min(_CHUNK, missing))
            if not piece:
                raise _refused("download_cut")
            missing -= len(piece)
            yield piece
        if stream.readline(_LONGEST_LINE).strip():
            raise ValueError("a piece of another length than said")


def _plain(words: object) -> str:
    """A server's words without anything that a text field could take for mark-up or a link."""
    return _NOT_PLAIN.sub("", str(words)).replace("//", "/")[:_LONGEST_WORDS]


def _refused(code: str, **figures: Any) -> DownloadError:
    return refusal(finding(code, **figures), DownloadError)


def _length(response) -> int:
    text = str(response.headers.get("Content-Length") or "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1


class _EncryptedRedirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections to encrypted addresses only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise _refused("download_unencrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str):
    opener = urllib.request.build_opener(_EncryptedRedirections())
    return opener.open(urllib.request.Request(url, headers={"User-Agent": "mkd_core"}), timeout=_TIMEOUT_S)
