"""The one way in which files are written: whole or not at all, under the eyes of one rule.

A file is written under a draft name that nobody can guess, brought to the disk, and only then given its own name.
Several files of one piece of work appear together.  Nothing here needs the right to change modes: a new file gets the
mode that the umask leaves, or 0600 where it is made of a patient's volume and meant for this user alone.

The rule: no output may be an input, a part of one, or an existing file that this package did not make, unless the user
said ``--overwrite`` (which never covers inputs).  What this package made is known by a mark in the file, a SHA-256 of
all its other bytes; a result that was changed since, for example corrected by hand, no longer carries a true one.

Example:
    >>> outputs = OutputFiles(inputs=[Path("ct.nrrd")])                             # doctest: +SKIP
    >>> outputs.check(Path("heart.nrrd"), Path("report.json"))                      # doctest: +SKIP
    >>> with outputs:                                                               # doctest: +SKIP
    ...     outputs.write(Path("report.json"), lambda draft: draft.write_text("{}"))
    >>> write_text(Path("notes.txt"), "replaced as a whole")                        # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mkd_core.errors import InputError
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import DRAFT_NAME

_TAG = b"mkd sha256:"

#: Put into a file where its mark shall be, within the first or the last bytes; becomes the mark when the file is
#: complete.
MARK_PLACEHOLDER = _TAG + b"0" * 64

_MARK = re.compile(re.escape(_TAG) + rb"([0-9a-f]{64})")

#: Bytes at either end of a file in which its mark is looked for.
_MARK_REACH = 1 << 16

#: Seconds for which other programs hold a new file on Windows at most, as those do that look for viruses.
_HELD_S = 3.0

_BLOCK_BYTES = 1 << 22
_LONGEST_ENDING = 16

_ON_A_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass
class _Draft:
    """A file on its way: ``path`` is where it will be, ``draft`` where it is; ``identity`` as :func:`_identity`."""

    path: Path
    draft: Path
    identity: tuple[int, int]


class OutputFiles:
    """Output files of one piece of work: they get their names together when the ``with`` block ends without an error,
    and none is left otherwise.

    Args:
        inputs: files that are read, and folders all of whose files are; none of them is ever written over.
        overwrite: whether files that this package did not make may be replaced.
        private: whether only this user may read the files.
    """

    def __init__(self, *, inputs: Iterable[Path] = (), overwrite: bool = False, private: bool = False) -> None:
        self._inputs = list(inputs)
        self._overwrite = overwrite
        self._mode = 0o600 if private else 0o666
        self._drafts: list[_Draft] = []
        self._known: dict[tuple, bool] = {}

    def check(self, *paths: Path) -> None:
        """Refuse outputs before the work is done for them.

        Raises:
            InputError: two have one name, one is an input or part of one, one exists and is not ours, or its folder is
                missing or closed to us.
        """
        seen: set[str] = set()
        for path in paths:
            check_folder(path)
            place = os.path.normcase(path.resolve())
            if place in seen:
                raise refusal(finding("output_twice", file=path.name))
            seen.add(place)
            self._check_one(path)

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Call ``write(draft)``; ``draft`` is an empty file beside ``path`` that ends like it.

        Raises:
            InputError: it cannot be written, or :meth:`check` would refuse it.
        """
        self._check_one(path)
        try:
            draft = self._new_draft(path)
            write(draft)
        except (OSError, RuntimeError) as error:
            raise _cannot_be_written(path) from error

    def __enter__(self) -> OutputFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        finally:
            self._discard()

    def _new_draft(self, path: Path) -> Path:
        draft = path.with_name(f".mkd-{secrets.token_hex(8)}{_ending(path)}")
        entry = _Draft(path, draft, (0, 0))
        self._drafts.append(entry)  # before the file is there, so that a signal in between leaves none behind
        descriptor = os.open(draft, _ON_A_NEW_FILE, self._mode)
        try:
            entry.identity = _identity(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        return draft

    def _check_one(self, path: Path) -> None:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise _cannot_be_written(path) from error
        is_ours = self._is_ours(path, status)
        for source in self._inputs:
            if _is_part(path, source) and not (is_ours and source.is_dir()):
                raise refusal(finding("output_is_input", file=path.name))
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise refusal(finding("output_not_regular", file=str(path)))
        if not (self._overwrite or is_ours):
            raise refusal(finding("output_exists", file=path.name))

    def _is_ours(self, path: Path, status: os.stat_result) -> bool:
        """:func:`made_here`, which reads the whole file, once for every state that the file is found in."""
        key = (path, *_identity(status), status.st_size, status.st_mtime_ns)
        if key not in self._known:
            self._known[key] = made_here(path)
        return self._known[key]

    def _commit(self) -> None:
        placed: list[tuple[_Draft, Path | None, bool]] = []
        try:
            for entry in self._drafts:
                self._check_one(entry.path)  # it may have come in the meantime
                with _told_of(entry.path):
                    _complete(entry)
            for entry in self._drafts:
                with _told_of(entry.path):
                    existed = os.path.lexists(entry.path)
                    placed.append((entry, _kept(entry.path) if existed else None, existed))
                    replace(entry.draft, entry.path)
        except BaseException:
            for entry, backup, existed in reversed(placed):
                with contextlib.suppress(OSError):
                    if backup is not None:
                        if not _is_one_file(backup, entry.path):
                            replace(backup, entry.path)
                        backup.unlink(missing_ok=True)
                    elif not existed:
                        entry.path.unlink(missing_ok=True)
            raise
        for _, backup, _ in placed:
            if backup is not None:
                with contextlib.suppress(OSError):
                    backup.unlink()
        for folder in {entry.path.parent for entry in self._drafts}:
            _sync_folder(folder)

    def _discard(self) -> None:
        for entry in self._drafts:
            with contextlib.suppress(OSError):
                entry.draft.unlink(missing_ok=True)
        self._drafts = []


def write_file(path: Path | str, write: Callable[[Path], object], *, private: bool = False) -> None:
    """Write one file of our own; an earlier one is replaced as a whole.

    Args:
        path: the file.
        write: called with the path of an empty draft to fill.
        private: whether only this user may read it.

    Raises:
        OSError: it cannot be written; nothing is left of it then.
        Exception: whatever ``write`` raises.
    """
    path = Path(path)
    outputs = OutputFiles(overwrite=True, private=private)
    try:
        with outputs:
            write(outputs._new_draft(path))
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise OSError(errno.EINVAL, error.message, str(path)) from error


def write_new(path: Path | str, content: bytes, *, private: bool = False) -> bool:
    """Write one file of our own unless there is one: of several processes that do so at once, the first one wins.

    Returns:
        Whether it was written.

    Raises:
        OSError: it cannot be written; nothing is left of it then.
    """
    path = Path(path)
    outputs = OutputFiles(private=private)
    try:
        draft = outputs._new_draft(path)
        draft.write_bytes(content)
        _complete(outputs._drafts[0])
        try:
            os.link(draft, path)  # which, unlike os.replace, never takes the place of another file
        except FileExistsError:
            return False
        except (OSError, NotImplementedError):  # a disk that knows no second names
            if os.path.lexists(path):
                return False
            replace(draft, path)
        _sync_folder(path.parent)
        return True
    finally:
        outputs._discard()


def write_output(
    path: Path,
    write: Callable[[Path], object],
    *,
    inputs: Iterable[Path] = (),
    overwrite: bool = False,
    earlier: str | None = None,
) -> str:
    """Write one file that a user has named, in a format that has no place for our mark.

    Args:
        path: the file.
        write: called with the path of an empty draft to fill.
        inputs: files that are read; none of them is ever written over.
        overwrite: whether a file that this package did not make may be replaced.
        earlier: SHA-256 of what an earlier run has written there, which may be replaced; None if none has.

    Returns:
        SHA-256 of the file, for ``earlier`` of the next run.

    Raises:
        InputError: it cannot be written, with the reason.
    """
    is_ours = earlier is not None and path.is_file() and _whole_digest(path) == earlier
    outputs = OutputFiles(inputs=inputs, overwrite=overwrite or is_ours)
    outputs.check(path)
    with outputs:
        outputs.write(path, write)
    return _whole_digest(path)


def write_bytes(path: Path | str, content: bytes, *, private: bool = False) -> None:
    """:func:`write_file` with these bytes."""
    write_file(path, lambda draft: draft.write_bytes(content), private=private)


def write_text(path: Path | str, text: str, *, private: bool = False) -> None:
    """:func:`write_file` with this text in UTF-8, lines ending as they do in it."""
    write_bytes(path, text.encode("utf-8"), private=private)


def replace(source: Path | str, target: Path | str) -> None:
    """``os.replace``, tried again for a while on Windows, where nothing can be moved that another program has open.

    Raises:
        OSError: it cannot be moved.
    """
    limit = time.monotonic() + _HELD_S
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > limit:
                raise
        time.sleep(0.05)


def remove_drafts(folder: Path) -> None:
    """Remove what a process that was killed left half written in a folder that is ours."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if DRAFT_NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def made_here(path: Path) -> bool:
    """Whether this package wrote a file and nobody has changed a byte of it since."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        found = _find_mark(path)
        return found is not None and _digest(path, found[0]) == found[1]
    except (OSError, ValueError):
        return False


def check_folder(path: Path | str) -> None:
    """Refuse an output path in a folder that is not there or closed to us, or with a name that no file can have.

    Raises:
        InputError: with the folder's name.
    """
    path = Path(path)
    folder = path.absolute().parent
    try:
        if not folder.is_dir():
            raise refusal(finding("folder_missing", file=str(folder)))
        if path.is_dir() or not os.access(folder, os.W_OK):
            raise refusal(finding("output_not_written", file=str(path)))
        os.path.lexists(path)
        _refuse_name(path)
    except (OSError, ValueError) as error:
        raise refusal(finding("file_name", file=shortened(path))) from error


def _refuse_name(path: Path) -> None:
    """Raise OSError if no file can have this name."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)


def shortened(path: Path) -> str:
    """A path in a length that a sentence can hold."""
    text = str(path)
    return text if len(text) <= 120 else text[:60] + "…" + text[-40:]


def _ending(path: Path) -> str:
    ending = path.name[-7:] if path.name.lower().endswith(".nii.gz") else path.suffix
    return ending if len(ending) <= _LONGEST_ENDING else ""


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _complete(entry: _Draft) -> None:
    """Mark a draft and bring it to the disk.

    Raises:
        OSError: it is gone, or another file has been put in its place.
    """
    status = os.lstat(entry.draft)
    if not stat.S_ISREG(status.st_mode) or _identity(status) != entry.identity:
        raise OSError(errno.ESTALE, "another file was put in its place", str(entry.draft))
    found = _find_mark(entry.draft)
    if found is not None and found[1] == "0" * 64:
        digest = _digest(entry.draft, found[0])
        with entry.draft.open("r+b") as file:
            file.seek(found[0])
            file.write(digest.encode("ascii"))
    with entry.draft.open("r+b") as file:
        _sync(file.fileno())


def _find_mark(path: Path) -> tuple[int, str] | None:
    """Position and digits of the mark of a file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start in sorted({0, max(0, size - _MARK_REACH)}):
            file.seek(start)
            found = _MARK.search(file.read(_MARK_REACH))
            if found:
                return start + found.start(1), found.group(1).decode("ascii")
    return None


def _digest(path: Path, mark: int) -> str:
    """SHA-256 of a file in which the digits of the mark are zeros."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(mark))
        digest.update(b"0" * len(file.read(64)))
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _whole_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_part(path: Path, source: Path) -> bool:
    """Whether an existing output is an input, or lies in an input folder."""
    try:
        if source.is_dir():
            return path.resolve().is_relative_to(source.resolve())
        return path.resolve() == source.resolve() or (path.exists() and path.samefile(source))
    except OSError:
        return False


def _kept(path: Path) -> Path | None:
    """A second name for a file that is about to be replaced; None where the disk knows no second names."""
    backup = path.with_name(f".mkd-{secrets.token_hex(8)}.old")
    try:
        # Where the choice is not given, as on Windows, a link is not followed.
        os.link(path, backup, **({"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}))
    except (OSError, NotImplementedError):
        return None
    return backup


def _is_one_file(path: Path, other: Path) -> bool:
    """Whether two names, neither of them followed where it is a link, belong to one file."""
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except FileNotFoundError:
        return False


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that has no such thing
            raise


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _told_of(path: Path):
    try:
        yield
    except OSError as error:
        raise _cannot_be_written(path) from error


def _cannot_be_written(path: Path) -> InputError:
    return refusal(finding("output_not_written", file=shortened(path)))
