"""Keep a process of ours apart from where it was started: from the folder, and from other readers of its stdin.

``python -m mkd_core.worker`` puts the current folder first on the search path: a file ``numpy.py`` or ``queue.py`` in a
folder of data would be run instead of the real one.  ``python -P`` prevents it from the start; where that was left out,
this takes the folder away before anything else is imported.
"""

import os
import sys

TYPE_CHECKING = False  # as typing has it, which is not imported before the current folder is forgotten
if TYPE_CHECKING:
    from collections.abc import Callable


def forget_current_folder() -> None:
    """Remove the current folder from the search path: what ``python -m`` put first, and what a relative PYTHONPATH
    means by "." or nothing.  It stays where PYTHONPATH names it in full, and where this package lies in it.

    Modules of this package are found all the same: Python looks for them where the package lies.
    """
    try:
        here = os.getcwd()
    except OSError:  # the folder was removed: nothing can be found in it
        return
    if not getattr(sys.flags, "safe_path", False) and sys.path and (sys.path[0] or here) == here:
        del sys.path[0]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in named and here != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        sys.path[:] = [folder for folder in sys.path if (folder or here) != here]


def take_stdin() -> int:
    """Return a descriptor of its own for stdin; whoever else looks at stdin finds nothing there.

    On Windows a library that looks at stdin while another thread reads from it waits for that read: importing numpy
    would hang.
    """
    taken = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return taken


def when_stdin_ends(do: "Callable[[], object]") -> None:
    """Call a function, in a thread of its own, as soon as whoever started this process closes its stdin or is gone.

    From now on nobody else finds anything on stdin, see :func:`take_stdin`.
    """
    import threading

    descriptor = take_stdin()

    def wait() -> None:
        try:
            while os.read(descriptor, 4096):  # not sys.stdin, whose lock would stop this process on its way out
                pass
        except OSError:
            pass
        do()

    threading.Thread(target=wait, name="stdin", daemon=True).start()
