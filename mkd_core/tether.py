"""Run a Python module that ends, with everything it has started, as soon as stdin ends.

    python -P -m mkd_core.tether MODULE [ARGUMENT ...]

For programs that know nothing of their starter, such as pip.  Slicer starts Python through a launcher: whoever kills
the process that was started kills the launcher alone, and whoever crashes kills nothing.  Both close the pipe.
"""

from __future__ import annotations

if __name__ == "__main__":  # before any other import
    from mkd_core.isolation import forget_current_folder

    forget_current_folder()

import contextlib
import os
import runpy
import signal
import subprocess
import sys

from mkd_core.isolation import when_stdin_ends


def main() -> None:
    """Run the module that the command line names, as ``python -m`` would."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -P -m mkd_core.tether MODULE [ARGUMENT ...]")
    if sys.platform != "win32" and os.getpgrp() != os.getpid():
        os.setpgrp()  # so that a signal to the group reaches what the module starts, and nobody else
    when_stdin_ends(end_tree)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def end_tree() -> None:
    """End this process and everything that it has started, now."""
    if sys.platform == "win32":
        # By its full path: a search by name alone would begin in the current folder.
        taskkill = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [taskkill, "/T", "/F", "/PID", str(os.getpid())],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=5,
                check=False,
            )
    else:
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
