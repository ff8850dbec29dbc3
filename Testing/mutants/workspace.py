"""A copy of the project in which faults are tried out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

_NOTHING_COLLECTED_OR_MISUSED = (3, 4, 5)  # pytest's exit status


class Fault(Protocol):
    """What can be tried out: :class:`~Testing.mutants.described.Mutant` or a generated edit."""

    name: str
    file: str
    tests: tuple[str, ...]

    def applied_to(self, source: str) -> str: ...


class Workspace:
    """A copy of the files that git knows or would add; the project itself is never touched.

    Example::

        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(ROOT, Path(folder))
            workspace.run(["Testing/core/test_losses.py"])   # "passed"
            workspace.try_out(mutant)                        # "killed"
    """

    def __init__(self, root: Path, folder: Path, limit_s: float = 3600.0) -> None:
        self._folder = folder
        self._limit_s = limit_s
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(folder),  # before an installed or editable copy
            "PYTHONDONTWRITEBYTECODE": "1",  # a change within the same second must not meet old bytecode
        }
        data = root.parent / "shared" / "data"
        if data.is_dir():
            self._environment.setdefault("MKD_DATA", str(data))
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        )
        for name in listing.stdout.decode().split("\0"):
            if name and (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)

    def run(self, tests: Sequence[str]) -> str:
        """Run tests until the first failure: "passed", "failed", "timed out", or "broken" if none could be run."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=self._environment, capture_output=True, timeout=self._limit_s
            )
        except subprocess.TimeoutExpired:
            return "timed out"
        if done.returncode in _NOTHING_COLLECTED_OR_MISUSED:
            return "broken"
        return "failed" if done.returncode else "passed"

    def try_out(self, fault: Fault) -> str:
        """Put a fault in, run its tests (which pass without it), take it out again: "killed" or "survived"."""
        path = self._folder / fault.file
        original = path.read_bytes()
        path.write_bytes(fault.applied_to(original.decode()).encode())
        try:
            return "survived" if self.run(fault.tests) == "passed" else "killed"
        finally:
            path.write_bytes(original)
