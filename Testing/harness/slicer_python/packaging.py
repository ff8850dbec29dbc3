"""Stand-in for slicer.packaging: reads and checks requirements; it never installs anything."""

import importlib.metadata
import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def load_requirements(path):
    """Return the Requirement objects of a requirements file; comments, empty lines and pip options are skipped."""
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def load_pyproject_dependencies(path):
    """Return the Requirement objects of [project.dependencies]; raises KeyError without a [project] table."""
    return [Requirement(text) for text in tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"].get("dependencies", [])]


def pip_check(req):
    """Tell whether the requirement, or all of a list, are met by installed packages and the extras that they ask for."""
    requirements = [req] if isinstance(req, (str, Requirement)) else req
    return all(_isMet(Requirement(str(requirement)), set()) for requirement in requirements)


def _isMet(requirement, seen):
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(version, prereleases=True):
        return False
    for text in importlib.metadata.requires(requirement.name) or () if requirement.extras else ():
        needed = Requirement(text)
        wanted = needed.marker is not None and any(needed.marker.evaluate({"extra": extra}) for extra in requirement.extras)
        if wanted and needed.name not in seen:
            needed.marker = None
            if not _isMet(needed, seen | {requirement.name}):
                return False
    return True


def pip_ensure(requirements, constraints=None, skip_packages=None, prompt_install=True, prompt_restart=True, requester=None,
               skip_in_testing=True, show_progress=True):
    """Do nothing if the requirements are met, or in testing mode (which the stand-in application always is in)."""
    if not skip_in_testing and not pip_check(requirements):
        raise NotImplementedError("the stand-in GUI does not install packages")


def pip_install(requirements, **_options):
    """Installing is refused."""
    raise NotImplementedError(f"the stand-in GUI does not install packages: {requirements}")
