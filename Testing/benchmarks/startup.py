"""What Slicer's start costs with this extension: the imports of the module file, and of what follows the start.

    python -m Testing.benchmarks.startup [--repeats 5] [--limit-ms 15]

A fresh interpreter gets empty stand-ins for Slicer's own packages and the standard library that Slicer has loaded by
then. It imports the module file and makes the module object, as Slicer does for every module; then the application says
that it has started. Prints each module that was imported meanwhile, in the best of the repeats, with its own time as
``python -X importtime`` measures it. Exits with 1 above the limit, or if something heavy was imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "MKDSegmentation"

#: Packages that a session which never segments a heart does not need.
HEAVY = ("numpy", "scipy", "SimpleITK", "torch", "vtk.util")

#: Runs in the fresh interpreter. Slicer 5.13 loads VTK's classes when they are first asked for, so asking is noted.
PROGRAM = """
import dataclasses, importlib, inspect, json, logging, os, pathlib, re, shutil, sys, tempfile, time, types, typing
import unittest, uuid

asked = set()


class Package(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "vtk" or name.startswith("vtk"):
            asked.add(f"{self.__name__}.{name}")
        return Anything()


class Anything:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *arguments, **options):
        return arguments[0] if arguments and callable(arguments[0]) else Anything()

    def __fspath__(self):
        return os.devnull


for name in ("slicer", "slicer.i18n", "slicer.util", "slicer.ScriptedLoadableModule", "qt", "ctk", "vtk", "SampleData"):
    sys.modules[name] = Package(name)
base = sys.modules["slicer.ScriptedLoadableModule"]
for name in ("", "Widget", "Logic", "Test"):
    name = f"ScriptedLoadableModule{name}"
    setattr(base, name, type(name, (), {"__init__": lambda self, parent: setattr(self, "parent", parent)}))
sys.modules["slicer.util"].VTKObservationMixin = type("VTKObservationMixin", (), {})
sys.modules["slicer.i18n"].tr = lambda text: text
sys.modules["slicer.i18n"].translate = lambda context, text: text
started = []
sys.modules["slicer"].app = types.SimpleNamespace(
    connect=lambda signal, slot: started.append(slot), cachePath=os.path.abspath(os.sep), temporaryPath=os.devnull
)
sys.modules["slicer"].i18n, sys.modules["slicer"].util = sys.modules["slicer.i18n"], sys.modules["slicer.util"]
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
print("REGISTERING", file=sys.stderr, flush=True)
begun = time.perf_counter()
import MKDSegmentation

MKDSegmentation.MKDSegmentation(types.SimpleNamespace())
registered, asked_then = set(sys.modules) - before, sorted(asked)
there = time.perf_counter()
for slot in started:
    slot()
times = [1000.0 * (there - begun), 1000.0 * (time.perf_counter() - there)]
print(json.dumps([sorted(registered), sorted(set(sys.modules) - before - registered), asked_then, times]))
"""


@dataclass(frozen=True)
class Start:
    """What one start imported.

    registering - names of the modules that importing the module file and making the module object imported.
    after - those that came when the application said that it had started.
    vtk - what was asked of VTK and of Slicer's VTK classes while registering.
    import_ms - own time of each import that Python measured.
    registering_ms - wall time of the registration, which all imports are part of.
    after_ms - wall time of what follows the start.
    """

    registering: list[str]
    after: list[str]
    vtk: list[str]
    import_ms: dict[str, float]
    registering_ms: float
    after_ms: float

    @property
    def heavy(self) -> list[str]:
        """Packages that should not be there."""
        return sorted({name for name in (*self.registering, *self.after) if name.startswith(HEAVY)})


def start() -> Start:
    """Start once, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", PROGRAM, str(MODULE_FOLDER)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    registering, after, vtk, (registering_ms, after_ms) = json.loads(done.stdout)
    times = {}
    for line in done.stderr.partition("REGISTERING")[2].splitlines():
        if line.startswith("import time:"):
            own, _total, name = line.removeprefix("import time:").split("|")
            times[name.strip()] = int(own) / 1000.0
    return Start(registering, after, vtk, times, registering_ms, after_ms)


def main() -> int:
    """Print the best of some starts; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Testing.benchmarks.startup", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit-ms", type=float, default=15.0, help="for what Slicer waits for at its start")
    arguments = parser.parse_args()
    best = min((start() for _ in range(arguments.repeats)), key=lambda found: found.registering_ms)
    for title, ms, names in (
        ("Registering the module", best.registering_ms, best.registering),
        ("After the start", best.after_ms, best.after),
    ):
        print(f"{title}: {ms:.1f} ms")
        for name in names:
            print(f"  {best.import_ms[name]:7.2f} ms  {name}" if name in best.import_ms else f"              {name}")
    if best.heavy:
        print("Too heavy:", *best.heavy)
    return 1 if best.heavy or best.registering_ms > arguments.limit_ms else 0


if __name__ == "__main__":
    sys.exit(main())
