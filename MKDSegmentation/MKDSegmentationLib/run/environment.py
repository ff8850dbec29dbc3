"""What the worker needs besides Slicer: PyTorch, through the PyTorch extension, and nothing else.

It is looked for when the user clicks Segment, never at start-up, and only by its metadata: PyTorch is not imported into
Slicer.
"""

import importlib.metadata
import sys

from packaging.version import InvalidVersion, Version
from slicer.i18n import tr as _

from mkd_core.protocol import MINIMUM_TORCH

#: Version that is asked for. PyTorch 2.13 does not install on Windows with its default limit of 260 characters for
#: paths.
TORCH_TO_INSTALL = f">={MINIMUM_TORCH}" + (",<2.13" if sys.platform == "win32" else "")


class EnvironmentProblem(RuntimeError):
    """Something that the worker needs is missing; the message tells the user what to do."""


def torchVersion() -> str:
    """Return the version of the installed PyTorch, or an empty string."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def torchProblem() -> str:
    """Return what is wrong with the installed PyTorch and what to do, or an empty string."""
    version = torchVersion()
    if not version:
        return _("PyTorch is not installed. Click Segment again to install it.")
    try:
        tooOld = Version(version) < Version(MINIMUM_TORCH)
    except InvalidVersion:
        tooOld = False  # a build with a version of its own: the worker will tell
    if not tooOld:
        return ""
    return _(
        "PyTorch {version} is installed, but {minimum} or newer is needed. Uninstall it in the module PyTorch Utils, "
        "restart Slicer and click Segment again."
    ).format(version=version, minimum=MINIMUM_TORCH)
