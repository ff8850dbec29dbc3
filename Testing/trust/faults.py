"""Failing machines, failing processes and hasty users: each really done to the panel and its worker process in the
stand-in GUI.

What is borne: the run ends as it must, exactly one sentence tells it, the scene is as before, no process and no file is
left, nothing was logged as an error that was not told, and the next click segments exactly. Linux only: limits, signals
and /proc do the harm and the looking.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from Testing.trust import TESTING
from Testing.trust.outcome import Outcome

GROUP = "faults"
RUNS = 200

#: By so much may the memory of the application differ between two moments of a long session.
MOST_MEGABYTES = 20

#: Seconds after which a click on Cancel counts as not heard, and after which a run counts as stuck; computers may be
#: busy.
PROMPT_S, PATIENCE_S = 60.0, 300.0

_UNFIT_FOR_USERS = re.compile(r"Traceback|Errno|Error\b|None|\{|\}|secret")


@dataclass(frozen=True)
class Seen:
    """What the user saw of a fault that changes the scene itself.

    Attributes:
        message: right after the fault.
        before: content of the scene to which the next run is compared.
    """

    message: str
    before: list


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: what is done, in a few words.
        strike: does it, from the click to the end of the run.
        told: regular expression that the whole sentence must match.
        is_borne: the run must end with the result all the same.
        is_quick: part of the quick tests.
    """

    name: str
    strike: Callable[[Bench], Seen | None]
    told: str
    is_borne: bool = False
    is_quick: bool = True


class Bench:
    """The panel with a volume named after a patient, and a worker into which a fault can be built.

    Args:
        folder: an empty folder; temporary folder and launcher lie in it, under a name with a blank and an accent.
    """

    def __init__(self, folder: Path) -> None:
        import slicer

        from Testing.harness import bootstrap
        from Testing.support import panel_driving

        self.driving, self.scene_content = panel_driving.driving, panel_driving.sceneContent
        self.folder = folder / "poste de travail été"
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir(parents=True)
        (self.folder / "bin").mkdir()
        self._path, os.environ["PATH"] = os.environ["PATH"], f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self._temporary_before, slicer.app.temporaryPath = slicer.app.temporaryPath, str(self.temporary)
        bootstrap.clear()
        _module, self.panel = bootstrap.loadModule(panel_driving.MODULE)
        self.panel._runButtons.doubleClickTimer.setInterval(1)  # nobody here clicks twice by mistake
        panel_driving.stayCold(self.panel)  # a worker that warms itself would meet the fault before the click
        from MKDSegmentationLib.run import volumeTransfer

        self._transfer, self._piece_bytes = volumeTransfer, volumeTransfer.PIECE_BYTES
        volumeTransfer.PIECE_BYTES = 1000  # many steps even for a small volume
        self.add_volume()

    def close(self) -> None:
        """Leave the application as it was."""
        import slicer

        from Testing.harness import bootstrap

        bootstrap.clear()
        self._transfer.PIECE_BYTES = self._piece_bytes
        os.environ["PATH"] = self._path
        slicer.app.temporaryPath = self._temporary_before

    def add_volume(self) -> None:
        """Load the volume, or load it again."""
        from Testing.support import panel_driving

        self.volume = panel_driving.addVolume("DOE^JANE 1970-01-01")
        self.driving.processEvents()

    def arm(self, fault: str = "", *options: str) -> None:
        """Build this fault into the next worker; see faulty_worker."""
        self.is_real = "--real" in options
        self.panel.logic.close()
        for name in ("struck", "go"):
            (self.folder / name).unlink(missing_ok=True)
        launcher = self.folder / "bin" / "PythonSlicer"
        words = [sys.executable, str(TESTING / "trust" / "faulty_worker.py"), str(self.folder), fault, *options]
        launcher.write_text(f"#!/bin/sh\n{shlex.join(words)}\nexit $?\n", encoding="utf-8")
        launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)

    def click(self) -> None:
        """Click Segment or Cancel."""
        self.driving.click(self.panel.ui.segmentButton)

    def wait(self, seconds: float = PATIENCE_S) -> None:
        """Wait for the end of the run."""
        self.driving.waitUntil(lambda: self.panel.ui.segmentButton.text == "Segment", seconds, "the end of the run")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Let the application work until something has come true."""
        self.driving.waitUntil(condition, PATIENCE_S, what)

    def wait_for_strike(self) -> None:
        """Wait until the worker is where its fault strikes."""
        self.wait_for((self.folder / "struck").exists, "the fault")

    def run(self) -> None:
        """Click Segment and wait for the end."""
        self.click()
        self.wait()

    @property
    def message(self) -> str:
        """What the panel says below its button."""
        return self.panel.ui.statusLabel.text

    def made_nodes(self, before: list) -> list:
        """Nodes of the scene that were not there before."""
        import slicer

        return [
            slicer.mrmlScene.GetNodeByID(name)
            for name, *_ in self.scene_content()
            if name not in {name for name, *_ in before}
        ]

    def is_exactly_segmented(self) -> bool:
        """Whether the volume has one segmentation, voxel for voxel what the worker made of it."""
        from mkd_core.structures import STRUCTURES
        from Testing.support import panel_driving
        from Testing.support.fake_worker import blocks

        found, expected = panel_driving.segmentations(), blocks(self.volume.GetImageData().GetDimensions()[::-1])
        return len(found) == 1 and all(
            np.array_equal(panel_driving.voxelsOf(found[0], structure.key, self.volume), expected == structure.label)
            for structure in STRUCTURES
        )

    def workers(self) -> list[int]:
        """Process ids of workers and launchers that are alive."""
        alive = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_ours = (
                    str(self.folder).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid()
                )
                if is_ours and (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z":
                    alive.append(int(entry.name))
        return alive


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """Do it all and tell what came of it.

    Args:
        quick: leave out what needs the real networks, and do fewer runs in a row.
    """
    from Testing.harness import bootstrap, failures

    bootstrap.start()
    if "MKDSegmentation" in bootstrap.slicer.app.moduleManager().modulesNames():
        bootstrap.clear()
    failures.take()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            for fault in FAULTS:
                if fault.is_quick or not quick:
                    yield _try(bench, fault)
            yield _try_endurance(bench, 40 if quick else RUNS)
        finally:
            bench.close()


def _try(bench: Bench, fault: Fault) -> Outcome:
    from Testing.harness import failures

    before, message = bench.scene_content(), ""
    bench.panel.ui.logTextEdit.clear()
    try:
        with _expected_errors():
            seen = fault.strike(bench) or Seen(bench.message, before)
            message = seen.message
            _judge(bench, fault, seen)
            _recover(bench, seen.before)
    except Exception as error:  # whatever is wrong, the other faults have their turn
        bench.panel.logic.close()
        failures.take()
        return Outcome(GROUP, fault.name, False, message=message, note=_note(error))
    return Outcome(GROUP, fault.name, True, message=message)


def _note(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:400]


@contextlib.contextmanager
def _expected_errors():
    """What the application log says of a fault at its end is no error of ours; anything else is."""
    from Testing.harness import failures

    with failures.expectedErrors(r"logging\.ERROR: The (result|volume)\b.* could not be", atLeast=0):
        yield
    unexpected = failures.take()
    if unexpected:
        raise AssertionError("; ".join(unexpected))


def _judge(bench: Bench, fault: Fault, seen: Seen) -> None:
    """Raise AssertionError with what is not as it must be right after the run."""
    message = seen.message
    if not re.fullmatch(fault.told, message):
        raise AssertionError(f"the user is told: {message!r}")
    if _UNFIT_FOR_USERS.search(message) or not message.endswith("."):
        raise AssertionError(f"no sentence for a user: {message!r}")
    if bench.driving.openDialogs():
        raise AssertionError("a dialog is open")
    if bench.panel.ui.logTextEdit.toPlainText().count(message) > 1:
        raise AssertionError("the sentence was told more than once")
    if fault.is_borne and not bench.is_real and not bench.is_exactly_segmented():
        raise AssertionError("the result is not exact")
    if not fault.is_borne and bench.scene_content() != seen.before:
        raise AssertionError("the scene is not as it was")
    bench.wait_for(lambda: not list(bench.temporary.iterdir()), "an empty temporary folder")
    bench.wait_for(lambda: bench.panel.logic.isWarm or not bench.workers(), "the end of the worker")


def _recover(bench: Bench, before: list) -> None:
    """Click once more: it must work. Then clear away what it made."""
    import slicer

    bench.run()
    if "is segmented" not in bench.message or len(bench.made_nodes(before)) < 2:
        raise AssertionError(f"the next click does not succeed: {bench.message!r}")
    if not bench.is_real and not bench.is_exactly_segmented():
        raise AssertionError("the next click gives a wrong result")
    for node in bench.made_nodes(before):
        slicer.mrmlScene.RemoveNode(node)
    bench.driving.processEvents()
    if bench.scene_content() != before:
        raise AssertionError("nodes are left")
    if list(bench.temporary.iterdir()):
        raise AssertionError("files are left")


# ---- what the worker does ----


def _worker(fault: str) -> Callable[[Bench], None]:
    def strike(bench: Bench) -> None:
        bench.arm(fault)
        bench.run()
        _check_strike(bench)

    return strike


def _check_strike(bench: Bench) -> None:
    if not (bench.folder / "struck").exists():
        raise AssertionError("the fault did not strike")


def _real_worker(fault: str) -> Callable[[Bench], None]:
    def strike(bench: Bench) -> None:
        from MKDSegmentationLib.run.volumeTransfer import setVolumeFromImage

        from Testing.support.known_heart import known_volume

        bench.arm(fault, "--real")
        setVolumeFromImage(bench.volume, known_volume((44, 36, 40), (5, 5, 5))[0])
        bench.driving.processEvents()
        bench.run()
        if "@" in fault:
            _check_strike(bench)

    return strike


def _graphics_card_full(bench: Bench) -> None:
    _real_worker("no_graphics_memory")(bench)
    if "graphics card had too little memory" not in bench.panel.ui.warningsLabel.text:
        raise AssertionError(f"no word of the graphics card: {bench.panel.ui.warningsLabel.text!r}")


def _cancelled(fault: str) -> Callable[[Bench], None]:
    def strike(bench: Bench) -> None:
        bench.arm(fault)
        bench.click()
        bench.wait_for_strike()
        bench.click()
        bench.wait(PROMPT_S)
        bench.driving.waitUntil(lambda: not bench.workers(), PROMPT_S, "the end of the worker")

    return strike


# ---- what the computer does ----


def _full_disk(bench: Bench) -> None:
    """No file may become larger than a few kilobytes while the panel writes the volume."""
    bench.arm()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        bench.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        bench.panel.logic.close()  # the worker inherited the limit


def _with_temporary_path(path: str) -> Callable[[Bench], None]:
    def strike(bench: Bench) -> None:
        import slicer

        bench.arm()
        slicer.app.temporaryPath = path
        try:
            bench.run()
        finally:
            slicer.app.temporaryPath = str(bench.temporary)

    return strike


def _read_only_settings(bench: Bench) -> None:
    """The file of the settings cannot be written: a folder has its name."""
    import slicer

    path = Path(slicer.app.slicerUserSettingsFilePath)
    slicer.app.userSettings().sync()
    path.unlink(missing_ok=True)
    path.mkdir()
    try:
        bench.arm()
        bench.run()
        slicer.app.userSettings().sync()
    finally:
        path.rmdir()


def _clock_jumps(bench: Bench) -> None:
    """In the middle of a run somebody sets the clock, to last century and then to the next one; files get such times
    too.
    """
    from MKDSegmentationLib.run.privateFolder import removeLeftovers

    real = time.time
    bench.arm("waits@segment")
    bench.click()
    bench.wait_for_strike()
    try:
        for jump in (-2e9, 2e9):
            time.time = lambda jump=jump: real() + jump
            for path in bench.temporary.rglob("*"):
                os.utime(path, (max(0.0, real() + jump),) * 2)
            removeLeftovers(str(bench.temporary))
            bench.driving.processEvents(0.6)  # in which the times are shown anew
            if not re.match(r"\d:\d\d elapsed", bench.panel.ui.timeLabel.text):
                raise AssertionError(f"the time is shown as {bench.panel.ui.timeLabel.text!r}")
        (bench.folder / "go").touch()
        bench.wait()
    finally:
        time.time = real


def _two_windows(bench: Bench) -> None:
    """A second Slicer starts, sweeps the temporary folder and segments while the run of the first is under way."""
    from MKDSegmentation import MKDSegmentationLogic, removeLeftoversOfCrashes

    from Testing.support import panel_driving

    bench.arm("waits@segment")
    bench.click()
    bench.wait_for_strike()
    removeLeftoversOfCrashes()
    other, ended = MKDSegmentationLogic(), []
    other.start(bench.volume, onFinished=ended.append)
    bench.wait_for(lambda: ended, "the run in the other window")
    made = [ended[0].segmentation, ended[0].table]
    other.close()
    for node in made:
        panel_driving.slicer.mrmlScene.RemoveNode(node)
    (bench.folder / "go").touch()
    bench.wait()


def _crash_of_slicer(bench: Bench) -> None:
    """A Slicer that was killed in the middle of a run left its volume; the next start removes it."""
    from MKDSegmentation import removeLeftoversOfCrashes

    program = (
        "import os, signal, sys; sys.path.append(sys.argv[1])\n"
        "from MKDSegmentationLib.run.privateFolder import PrivateFolder, openPrivate\n"
        "openPrivate(PrivateFolder(sys.argv[2]).path + '/volume.nrrd').close(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(TESTING.parent / "MKDSegmentation"), str(bench.temporary)], check=False
    )
    if not list(bench.temporary.rglob("volume.nrrd")):
        raise AssertionError("there is nothing to remove")
    removeLeftoversOfCrashes()
    bench.arm()
    bench.run()


def _installed_elsewhere(bench: Bench) -> None:
    """The extension lies in a folder with blanks and letters that are not ASCII; a Slicer of its own segments with
    it.
    """
    place = bench.folder / "Œuvre de l'été 心臓"
    for name in ("MKDSegmentation", "mkd_core", "Testing"):
        shutil.copytree(
            TESTING.parent / name,
            place / name,
            ignore=shutil.ignore_patterns("__pycache__", "weights", "results", "training"),
        )
    (place / "mkd_core" / "weights").symlink_to(TESTING.parent / "mkd_core" / "weights")
    program = (
        "import sys; sys.path.insert(0, '.'); from Testing.trust import faults; from Testing.harness import "
        "bootstrap; bootstrap.start()\n"
        "from pathlib import Path; bench = faults.Bench(Path('elsewhere')); bench.arm(); bench.run()\n"
        "import mkd_core; print(mkd_core.__file__, bench.is_exactly_segmented(), bench.message); bench.close()"
    )
    (place / "elsewhere").mkdir()
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=False)
    if f"{place / 'mkd_core' / '__init__.py'} True" not in done.stdout:
        raise AssertionError(f"there: {done.stdout[-200:]} {done.stderr[-200:]}")
    shutil.rmtree(place)
    bench.arm()
    bench.run()


# ---- what the user does ----


def _closes_scene(place: str) -> Callable[[Bench], Seen]:
    def strike(bench: Bench) -> Seen:
        import slicer

        _reach(bench, place)
        slicer.mrmlScene.Clear(0)
        return _after_the_volume_is_gone(bench)

    return strike


def _removes_volume(place: str) -> Callable[[Bench], Seen]:
    def strike(bench: Bench) -> Seen:
        import slicer

        _reach(bench, place)
        slicer.mrmlScene.RemoveNode(bench.volume)
        return _after_the_volume_is_gone(bench)

    return strike


def _after_the_volume_is_gone(bench: Bench) -> Seen:
    message = bench.message
    (bench.folder / "go").touch()
    bench.wait(PROMPT_S)
    bench.add_volume()
    return Seen(message, bench.scene_content())


def _removes_output(place: str) -> Callable[[Bench], None]:
    def strike(bench: Bench) -> None:
        import slicer

        mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        bench.panel._parameterNode.outputSegmentation = mine
        bench.driving.processEvents()
        _reach(bench, place)
        slicer.mrmlScene.RemoveNode(mine)
        (bench.folder / "go").touch()
        bench.wait(PROMPT_S)

    return strike


def _reach(bench: Bench, place: str) -> None:
    """Start a run and go to a place in it: "hand over", "start", a stage, "write", or "take" where the panel reads the
    label map.
    """
    bench.arm("waits@write" if place == "take" else f"waits@{place}")
    bench.click()
    if place == "hand over":
        return
    bench.wait_for_strike()
    if place == "take":
        (bench.folder / "go").touch()
        bench.wait_for(lambda: bench.panel.logic._run._steps is not None, "the first piece of the result")


CRASH = (
    r"The segmentation process ended unexpectedly, perhaps for lack of memory\. Nothing was changed\. "
    r".* click Segment again; .*\."
)
NO_RESULT = r"The result could not be put into the scene\. Click Segment again; details are in the application log\."
LOAD = r"Load a CT or MR volume of the heart, or select one\."
CANCELLED = r"Cancelled\. The scene is as it was\."
DONE = r"The heart is segmented \(\d+ s on CPU\)\."
NO_FOLDER = r"The temporary folder .* cannot be written \(.+\)\. Choose another in the application settings\."
CLEARED = r"The temporary folder .* was cleared during the segmentation\. Click Segment again\."
NO_TORCH = r"PyTorch.* is not installed or does not start\. Install it through the PyTorch extension .*\."

STAGES = ("check", "localise", "align", "segment", "restore", "measure")
PLACES = ("hand over", "start", "read", "localise", "measure", "write", "take")

FAULTS = (
    *(
        Fault(
            f"worker killed: {place}",
            _worker(f"killed@{place}"),
            CRASH,
            is_quick=place in ("start", "read", "segment", "write"),
        )
        for place in ("start", "read", *STAGES, "write", "reply")
    ),
    *(
        Fault(f"worker killed in the real pipeline: {place}", _real_worker(f"killed@{place}"), CRASH, is_quick=False)
        for place in ("start", "read", *STAGES, "write", "reply")
    ),
    *(
        Fault(
            f"worker hangs deaf and is cancelled: {place}",
            _cancelled(f"stopped@{place}"),
            CANCELLED,
            is_quick=place == "segment",
        )
        for place in ("read", *STAGES, "write", "reply")
    ),
    Fault("worker never ends and is cancelled", _cancelled("waits@segment"), CANCELLED),
    Fault("worker writes nonsense to its output", _worker("garbage@localise"), DONE, is_borne=True),
    Fault("worker writes a line without end and dies", _worker("endless@localise"), CRASH),
    Fault("worker logs what is no UTF-8", _worker("bad_log@localise"), DONE, is_borne=True),
    Fault(
        "worker runs out of memory",
        _worker("out_of_memory@segment"),
        r"This computer ran out of memory\. Close other programs, or crop .*\.",
    ),
    Fault(
        "worker has an error in the program",
        _worker("broken@segment"),
        r"The segmentation failed because of an error in the program\. .*\.",
    ),
    Fault("torch is missing", _worker("torch_missing@weights"), NO_TORCH),
    Fault("torch is broken", _worker("torch_broken@weights"), NO_TORCH),
    Fault("torch is an empty folder", _worker("torch_halved@weights"), NO_TORCH),
    Fault("graphics card out of memory", _graphics_card_full, DONE, is_borne=True, is_quick=False),
    Fault("label map is missing", _worker("no_file@reply"), NO_RESULT),
    Fault("label map is cut off", _worker("cut_file@reply"), NO_RESULT),
    Fault("label map has another size", _worker("other_size@reply"), NO_RESULT),
    Fault("label map has a label of nothing", _worker("impossible_label@reply"), NO_RESULT),
    Fault("report is empty", _worker("no_report@reply"), NO_RESULT),
    Fault(
        "report is a list",
        _worker("listed_report@reply"),
        r"The result of the segmentation process cannot be understood\. Click Segment again; .*",
    ),
    Fault("report is nonsense", _worker("report_of_nonsense@reply"), NO_RESULT),
    Fault("disk is full: volume", _full_disk, NO_FOLDER),
    Fault(
        "disk is full: result",
        _worker("full@write"),
        r".*cannot be written\. Check the folder and the space on the disk\.",
    ),
    Fault("temporary folder cannot be written", _with_temporary_path("/proc"), NO_FOLDER),
    Fault("temporary folder is gone", _with_temporary_path("/nowhere"), NO_FOLDER),
    Fault("temporary files are cleared: before reading", _worker("swept@read"), CLEARED),
    Fault("temporary files are cleared: after writing", _worker("swept@reply"), CLEARED),
    Fault("settings cannot be written", _read_only_settings, DONE, is_borne=True),
    Fault("clock is set back and forth", _clock_jumps, DONE, is_borne=True),
    Fault("two windows at once", _two_windows, DONE, is_borne=True),
    Fault(
        "extension in a folder with blanks and foreign letters",
        _installed_elsewhere,
        DONE,
        is_borne=True,
        is_quick=False,
    ),
    Fault("Slicer was killed in its last run", _crash_of_slicer, DONE, is_borne=True),
    *(
        Fault(
            f"scene is closed: {place}",
            _closes_scene(place),
            rf"Cancelled, because the scene was closed\. {LOAD}",
            is_quick=place in ("hand over", "localise", "take"),
        )
        for place in PLACES
    ),
    *(
        Fault(
            f"volume is removed: {place}",
            _removes_volume(place),
            rf"Cancelled, because the volume was removed\. {LOAD}",
            is_quick=place in ("start", "take"),
        )
        for place in PLACES
    ),
    *(
        Fault(
            f"output is removed: {place}",
            _removes_output(place),
            r"Cancelled, because the output segmentation was removed\.",
            is_quick=place == "localise",
        )
        for place in PLACES
    ),
)


# ---- many runs ----


def _try_endurance(bench: Bench, runs: int) -> Outcome:
    """Run after run in one session, one of ten cancelled and one with a worker that is killed; nothing may grow."""
    name, before = "runs in a row, of ten one cancelled and one with a worker killed", bench.scene_content()
    try:
        with _expected_errors():
            bench.arm("killed@segment")
            (bench.folder / "struck").touch()
            _run_often(bench, runs // 4)  # what is made once is made by then
            first, first_megabytes = _usage(bench), _megabytes()
            _run_often(bench, runs - runs // 4)
            with contextlib.suppress(TimeoutError):  # threads that Qt keeps for half a minute are no leak
                bench.wait_for(lambda: not _grown(first, _usage(bench)), "the end of what has grown")
            grown = _grown(first, _usage(bench))
            megabytes = _megabytes() - first_megabytes
            _recover(bench, before)
    except Exception as error:
        bench.panel.logic.close()
        return Outcome(GROUP, name, False, runs, note=_note(error))
    if megabytes > MOST_MEGABYTES:
        grown["memory"] = f"by {megabytes:.0f} MB"
    note = f"grown: {grown}; files: {_open_files()}; threads: {_threads()}" if grown else ""
    return Outcome(GROUP, name, not grown, runs, note=note)


def _grown(first: Counter, now: Counter) -> dict[str, str]:
    return {kind: f"{first[kind]} to {count}" for kind, count in now.items() if count > first[kind]}


def _run_often(bench: Bench, runs: int) -> None:
    for number in range(1, runs + 1):
        if number % 10 == 0:
            (bench.folder / "struck").unlink()  # the fault may strike again
        bench.click()
        if number % 10 == 5:
            bench.click()
        bench.wait()
        expected = CRASH if number % 10 == 0 else CANCELLED if number % 10 == 5 else DONE
        if not re.fullmatch(expected, bench.message):
            raise AssertionError(f"run {number} ends with {bench.message!r}")
    bench.run()


def _usage(bench: Bench) -> Counter:
    """How much there is of what could pile up, with a warm worker at rest."""
    bench.driving.processEvents(0.1)
    bench.driving.waitUntil(lambda: not _isBusy(), message="figures and surfaces, which follow a run")
    bench.driving.processEvents(0.1)
    sys.modules["MKDSegmentationLib.scene.segmentMeasurement"]._measured.clear()  # its size is limited
    gc.collect()
    kinds = Counter(
        type(thing).__name__
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith("MKDSegmentationLib")
        or type(thing).__name__ in ("QTimer", "QProcess")
    )
    return kinds + Counter(
        {
            "files open": len(_open_files()),
            "threads": len(_threads()),
            "nodes": len(bench.scene_content()),
            "temporary files": len(list(bench.temporary.iterdir())),
            "processes": len(bench.workers()),
        }
    )


def _open_files() -> list[str]:
    """What this process has open: paths, pipes, sockets."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of this look itself
            found.append(os.readlink(entry))
    return sorted(found)


def _threads() -> list[str]:
    """Names of the threads of this process."""
    found = []
    for entry in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.append((entry / "comm").read_text(encoding="utf-8").strip())
    return sorted(found)


def _isBusy() -> bool:
    """Whether something is done in steps just now."""
    return any(type(thing).__name__ == "IncrementalTask" and not thing.isOver for thing in gc.get_objects())


def _megabytes() -> float:
    """Memory that this process has filled, wherever the system keeps it just now: pages of programs and libraries,
    which come and go as memory is short elsewhere, do not count.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return (kib.get("RssAnon", kib["VmRSS"]) + kib.get("VmSwap", 0)) * 1024 / 1e6  # some containers tell the sum alone
