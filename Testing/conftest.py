"""Fixtures of the stand-in GUI, for the tests that ask for them. Tests of mkd_core alone import nothing of it."""

import importlib.util
import os
import sys
from pathlib import Path

# Processes that test side by side share the processors: threads that wait for one another would take twice the time.
# Before any library is loaded that asks for it.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import pytest
from hypothesis import HealthCheck, settings

import Testing.harness  # noqa: F401  (the package alone: it tells PySide6 how to be imported, before any test file imports it)

# No test fails because the machine is slow, neither in an example nor while examples are made up.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

HAS_STAND_IN = all(importlib.util.find_spec(name) for name in ("slicer", "PySide6", "vtk"))

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Mark the tests that Testing/slow_tests.txt lists."""
    lines = (ROOT / "Testing" / "slow_tests.txt").read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    collected = set()
    for item in items:
        file = item.path.relative_to(ROOT).as_posix()
        names = {file, f"{file}::{getattr(item, 'originalname', item.name)}", f"{file}::{item.name}"}
        collected |= names
        if listed & names:
            item.add_marker(pytest.mark.slow)
    # A test that was renamed would be fast again unnoticed; a part of the tests may be all that was asked for.
    gone = [name for name in listed - collected if "::" in name and name.split("::")[0] in collected]
    gone += [name for name in listed if not (ROOT / name.split("::")[0]).is_file()]
    if gone and not any("::" in argument for argument in sys.argv):
        raise pytest.UsageError(f"Testing/slow_tests.txt lists tests that are not there: {', '.join(sorted(gone))}")


@pytest.fixture(scope="session")
def runningApplication():
    """slicer.app of the stand-in GUI, started once."""
    if not HAS_STAND_IN:
        pytest.skip("slicer-core and PySide6-Essentials are not installed (the extra `test`)")
    from Testing.harness import bootstrap

    return bootstrap.start()


@pytest.fixture
def expectedErrors():
    """Context manager expectedErrors(pattern, atLeast=1): errors whose text matches are allowed inside, and must
    come.
    """
    from Testing.harness import failures

    return failures.expectedErrors


@pytest.fixture
def slicerApp(runningApplication, tmp_path):
    """slicer.app with an empty scene, empty settings and an empty temporary folder.

    The test fails on any exception in a slot or VTK observer, VTK error or warning, or logging.ERROR that it did not
    expect.
    """
    from Testing.harness import bootstrap, driving, failures

    app = runningApplication
    app.userSettings().clear()
    app.temporaryPath = str(tmp_path / "slicer-tmp")
    Path(app.temporaryPath).mkdir()
    bootstrap.clear()
    failures.take()
    yield app
    driving.processEvents()
    bootstrap.clear()
    driving.processEvents()
    collected = failures.take()
    assert not collected, "unexpected errors in the stand-in GUI:\n" + "\n".join(collected)


@pytest.fixture
def loadModule(slicerApp):
    """loadModule(path) -> (module, widget): a scripted module, loaded and shown; it is unloaded after the test."""
    from Testing.harness import bootstrap

    return bootstrap.loadModule
