"""Keep the folder in which somebody happens to work out of the search for modules.

``python -m mkd_core.worker`` puts the current folder first on the search path: a file ``numpy.py`` or ``queue.py`` in a
folder of data would be run instead of the real one.  ``python -P`` prevents it from the start; where that was left out,
this takes the folder away before anything else is imported.
"""

import os
import sys


def forget_current_folder() -> None:
    """Remove what ``python -m`` put first on the search path, unless Python was told to leave it out.

    Modules of this package are found all the same: Python looks for them where the package lies.
    """
    if not getattr(sys.flags, "safe_path", False) and sys.path and (sys.path[0] or os.getcwd()) == os.getcwd():
        del sys.path[0]
