"""Folders for what no other user may read, deleted after use, or by the next start where a crash came between.

A folder is in use as long as its maker holds a lock of the operating system on a file in it. Such a lock ends with the
process, however it ends, and asks neither for process ids, which are given out again, nor for the time of day, which
may be set. The same file holds a token that names the folder: only a folder with its own token, and with nothing in it
but files that a run makes, is ever deleted. Whatever else has a similar name belongs to somebody else.

On Windows the bits of a file mode mean little: Python 3.12.4 and newer, hence Slicer's, make the folder so that this
user and administrators alone can enter it.
"""

import contextlib
import os
import re
import stat
import sys
import tempfile

PREFIX = "MKDSegmentation-"
_FOLDER_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")  # as tempfile.mkdtemp makes it
_LOCK_NAME = "in-use"
_ATTEMPTS = 3

#: Names of the files that a run or a download makes.
FILE_NAMES = ("volume.nrrd", "labels.nrrd", "disagreement.nrrd", "aligned.nrrd", "weights.part")


class PrivateFolder:
    """A new folder that only this user can enter; call :meth:`remove` when it is done with.

    :param parent: folder to make it in; None for that of the system.
    :raises OSError: if it cannot be made.
    """

    def __init__(self, parent: str | None) -> None:
        for _attempt in range(_ATTEMPTS):  # the start of another Slicer may look into one before we have locked it
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            os.chmod(self.path, stat.S_IRWXU)  # also where the user's umask takes rights from the user
            self._lock = _newLock(self.path)
            if self._lock is not None:
                return
            _removeFiles(self.path)
        os.mkdir(
            self.path, stat.S_IRWXU
        )  # a disk without locks, as some networks have: no start removes it, not even after a crash

    def remove(self) -> None:
        """Delete the folder and the files that we made in it. What cannot be deleted now is deleted by the next start;
        what somebody else put there stays.
        """
        lock, self._lock = self._lock, None
        _removeFiles(self.path)
        if lock is not None:
            os.close(lock)
            if sys.platform == "win32":  # where the locked file cannot be deleted as long as it is open
                _removeFiles(self.path)


def openPrivate(path: str):
    """Open a file anew to write bytes that only this user can read, whatever the umask.

    :raises OSError: if it cannot be made.
    """
    handle = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), stat.S_IRUSR | stat.S_IWUSR
    )
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    return os.fdopen(handle, "wb")


def removeLeftovers(parent: str) -> None:
    """Delete the folders that a crash left behind in a folder for temporary files. Never call it for a folder that the
    user chose for something else.
    """
    try:
        names = [entry.name for entry in os.scandir(parent)]
    except OSError:
        return  # a folder that is not there or is closed to us holds nothing of ours
    for name in names:
        removeLeftover(os.path.join(parent, name))


def removeLeftover(path: str) -> None:
    """Delete one folder that a crash left behind; a folder in use, a link, and what is not ours are spared."""
    with contextlib.suppress(OSError):
        if not (_FOLDER_NAME.fullmatch(os.path.basename(path)) and _belongsToThisUser(os.lstat(path))):
            return
        lock = _lockOfLeftover(path)
        if lock is None:
            return
        try:
            if all(_isOurs(entry) for entry in os.scandir(path)):
                _removeFiles(path)
        finally:
            os.close(lock)
            if sys.platform == "win32" and os.listdir(path) == [_LOCK_NAME]:
                _removeFiles(path)


def _token(folder: str) -> bytes:
    """Return what the lock file of a folder holds; in a copy or under another name it is no longer true."""
    return f"{os.path.basename(folder)}\nA folder of MKDSegmentation for temporary files.\n".encode("ascii")


def _belongsToThisUser(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and (sys.platform == "win32" or status.st_uid == os.getuid())


def _isOurs(entry: os.DirEntry) -> bool:
    return entry.is_file(follow_symlinks=False) and _isOurName(entry.name)


def _isOurName(name: str) -> bool:
    from mkd_core.protocol import DRAFT_NAME  # here, because Slicer loads this file at its start

    return name in (_LOCK_NAME, *FILE_NAMES) or DRAFT_NAME.fullmatch(name) is not None


def _newLock(folder: str) -> int | None:
    """Return the handle of a lock on a new folder, which then has its token; None if there can be no lock."""
    try:
        handle = os.open(
            os.path.join(folder, _LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR
        )
    except OSError:
        return None
    try:
        _lockHandle(handle)
        os.write(handle, _token(folder))
        return handle
    except OSError:
        os.close(handle)
        return None


def _lockOfLeftover(folder: str) -> int | None:
    """Return the handle of the lock on a folder that has its own token and that nobody uses or deletes, else None."""
    path = os.path.join(folder, _LOCK_NAME)
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        _lockHandle(handle)
        isThere = os.path.samestat(os.fstat(handle), os.stat(path))  # else somebody deleted it between our two steps
        if isThere and os.read(handle, 1024) == _token(folder):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _lockHandle(handle: int) -> None:
    """Lock an open file at once; OSError if somebody else has."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _removeFiles(folder: str) -> None:
    """Delete our files in a folder, the one with the token last, and the folder if nothing is left in it."""
    with contextlib.suppress(OSError):
        names = sorted((name for name in os.listdir(folder) if _isOurName(name)), key=lambda name: name == _LOCK_NAME)
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
