"""Folders for what no other user may read, deleted after use, or by the next start where a crash came between.

A folder is in use as long as its maker holds a lock of the operating system on a file in it. Such a lock ends with the
process, however it ends, and asks neither for process ids, which are given out again, nor for the time of day, which
may be set.

On Windows the bits of a file mode mean little: Python 3.12.4 and newer, hence Slicer's, make the folder so that this
user and administrators alone can enter it.
"""

import contextlib
import os
import shutil
import stat
import sys
import tempfile

PREFIX = "MKDSegmentation-"
_LOCK_NAME = "in-use"
_ATTEMPTS = 3


class PrivateFolder:
    """A new folder that only this user can enter; call :meth:`remove` when it is done with.

    :param parent: folder to make it in; None for that of the system.
    :raises OSError: if it cannot be made.
    """

    def __init__(self, parent: str | None) -> None:
        for _attempt in range(_ATTEMPTS):  # a start of another Slicer may take one from us before it is locked
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            os.chmod(self.path, stat.S_IRWXU)  # also where the user's umask takes rights from the user
            self._lock = _lock(self.path)
            if self._lock is not None:
                return
            shutil.rmtree(self.path, ignore_errors=True)
        os.mkdir(
            self.path, stat.S_IRWXU
        )  # a disk without locks, as some networks have: no start removes it, not even after a crash

    def remove(self) -> None:
        """Delete the folder with all that is in it. What cannot be deleted now is deleted by the next start."""
        lock, self._lock = self._lock, None
        if lock is None:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            _removeLocked(self.path, lock)


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
    """Delete the folders that a crash left behind; those in use, links and what belongs to others are spared."""
    try:
        entries = [entry for entry in os.scandir(parent) if entry.name.startswith(PREFIX)]
    except OSError:
        return  # a folder that is not there or is closed to us holds nothing of ours
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False) and _isOurs(entry.stat(follow_symlinks=False)):
                lock = _lock(entry.path)
                if lock is not None:
                    _removeLocked(entry.path, lock)


def _isOurs(status: os.stat_result) -> bool:
    return sys.platform == "win32" or status.st_uid == os.getuid()


def _lock(folder: str) -> int | None:
    """Return the handle of a lock that this process alone holds, or None if another one uses or deletes the folder."""
    path = os.path.join(folder, _LOCK_NAME)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR)
    except OSError:
        return None
    try:
        _lockHandle(handle)
        if os.path.samestat(os.fstat(handle), os.stat(path)):  # else somebody deleted it between our two steps
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


def _removeLocked(folder: str, lock: int) -> None:
    """Delete a folder while nobody else can take it, and let go of the lock."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
    if sys.platform == "win32":  # where the locked file cannot be deleted as long as it is open
        shutil.rmtree(folder, ignore_errors=True)
