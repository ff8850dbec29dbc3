"""Where mkd_core lies: beside the module once built or installed, beside the module's folder in the source tree."""

import importlib.util
import os
import sys


def makeCoreImportable() -> None:
    """Let ``import mkd_core`` work in the source tree too.

    A built or installed extension has mkd_core in the folder of the scripted modules, which Slicer already searches. In
    the source tree it is the neighbour of the module's folder; that folder is then appended to the search path, last,
    so that it can shadow nothing.

    :raises ImportError: if mkd_core is in neither place.
    """
    if importlib.util.find_spec("mkd_core") is not None:
        return
    sourceTree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not os.path.isfile(os.path.join(sourceTree, "mkd_core", "__init__.py")):
        raise ImportError("MKDSegmentation is not completely installed: the package mkd_core is missing.")
    sys.path.append(sourceTree)


def coreSearchPath() -> str:
    """Return the folder that holds mkd_core, for the search path of a child process."""
    import mkd_core

    return os.path.dirname(os.path.dirname(os.path.abspath(mkd_core.__file__)))
