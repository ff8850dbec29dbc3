"""What the worker needs besides Slicer: PyTorch through the PyTorch extension, and the packages of Resources/requirements.txt.

Both are looked for when the user clicks Segment, never at start-up, and only by their metadata: PyTorch is not imported into Slicer.
"""

import importlib.metadata
import subprocess
import sys

from packaging.version import InvalidVersion, Version
from slicer.i18n import tr as _

MINIMUM_TORCH = "2.4"  # the first that supports NumPy 2 and bfloat16 convolutions well enough
#: PyTorch 2.13 does not install on Windows with its default limit of 260 characters for paths.
_TORCH_TO_INSTALL = f">={MINIMUM_TORCH}" + (",<2.13" if sys.platform == "win32" else "")


class EnvironmentProblem(RuntimeError):
    """Something that the worker needs is missing; the message tells the user what to do."""


def torchVersion() -> str:
    """Return the version of the installed PyTorch, or an empty string."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def ensureEnvironment(requirementsPath: str) -> None:
    """Make sure that the worker can run; asks the user before anything is installed.

    :param requirementsPath: the module's requirements.txt.
    :raises EnvironmentProblem: if something is still missing afterwards.
    """
    if not torchVersion():
        _installTorch()
    _checkTorch()
    _ensurePackages(requirementsPath)


def _installTorch() -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise EnvironmentProblem(
            _("PyTorch is needed. Install the extension 'PyTorch' in the Extensions Manager, restart Slicer and click Segment again."),
        ) from error
    # A declined installation gives None, and a failed one may still look like success: what counts is the check that follows.
    PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=_TORCH_TO_INSTALL)


def _checkTorch() -> None:
    version = torchVersion()
    if not version:
        raise EnvironmentProblem(
            _("PyTorch is not installed. Click Segment again to install it; the log tells why an installation failed."))
    try:
        tooOld = Version(version) < Version(MINIMUM_TORCH)
    except InvalidVersion:
        tooOld = False  # a build with a version of its own: the worker will tell
    if tooOld:
        raise EnvironmentProblem(
            _("PyTorch {version} is installed, but {minimum} or newer is needed. Uninstall it in the module PyTorch Utils, "
              "restart Slicer and click Segment again.").format(version=version, minimum=MINIMUM_TORCH))


def _ensurePackages(requirementsPath: str) -> None:
    from slicer.packaging import load_requirements, pip_check, pip_ensure

    requirements = load_requirements(requirementsPath)
    try:
        pip_ensure(requirements, requester="MKDSegmentation")
    except (RuntimeError, subprocess.CalledProcessError) as error:  # declined by the user, or failed
        raise EnvironmentProblem(_("Python packages could not be installed: {reason}").format(reason=error)) from error
    missing = [str(requirement) for requirement in requirements if not pip_check(requirement)]
    if missing:
        raise EnvironmentProblem(_("These Python packages are needed and could not be installed: {packages}.").format(
            packages=", ".join(missing)))
