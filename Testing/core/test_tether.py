"""A process on a tether ends with whoever started it, and takes along what it has started itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mkd_core import tether

ROOT = Path(__file__).resolve().parents[2]

#: Starts another process, which would live for ever, and waits for it; prints both process ids and its arguments.
PROGRAM = """
import os, subprocess, sys
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
print(os.getpid(), other.pid, sys.stdin.read() == "", *sys.argv[1:], flush=True)
other.wait()
"""


def start(folder: Path, program: str, *arguments: str, command: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start a program as a module on a tether, through another command if wanted."""
    (folder / "tied.py").write_text(program, encoding="utf-8")
    return subprocess.Popen(
        [*command, sys.executable, "-P", "-m", "mkd_core.tether", "tied", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("way", ["its pipe is closed", "its launcher is killed"])
def test_a_tied_process_ends_with_all_that_it_started_when(way, tmp_path):
    # As in Slicer, whose launcher waits for Python and does not take it along when it is killed.
    process = start(tmp_path, PROGRAM, "one", "two", command=("/bin/sh", "-c", '"$@"; exit $?', "launcher"))
    pid, other, found_nothing, *arguments = process.stdout.readline().split()
    assert found_nothing == "True" and arguments == ["one", "two"]
    assert is_alive(int(pid)) and is_alive(int(other))
    if way == "its launcher is killed":
        process.kill()
    process.stdin.close()
    limit = time.monotonic() + 600
    while is_alive(int(pid)) or is_alive(int(other)):
        assert time.monotonic() < limit, "it goes on"
        time.sleep(0.02)
    process.wait(600)


@pytest.mark.parametrize(("program", "code"), [("print('done')", 0), ("raise SystemExit(3)", 3), ("1 / 0", 1)])
def test_a_tied_module_ends_as_it_would_by_itself(program, code, tmp_path):
    process = start(tmp_path, f"if __name__ == '__main__':\n    {program}\n")
    printed, errors = process.stdout.read(), process.stderr.read()  # with its stdin open
    assert process.wait(600) == code, errors
    process.stdin.close()
    assert printed.split() == (["done"] if code == 0 else [])


def test_on_windows_the_tree_is_ended_by_taskkill_of_the_system(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", r"D:\Windows")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: said.append(command))
    monkeypatch.setattr(os, "_exit", lambda code: said.append(code))
    tether.end_tree()
    command, code = said
    assert command[0].startswith(r"D:\Windows") and command[0].endswith("taskkill.exe")
    assert command[1:] == ["/T", "/F", "/PID", str(os.getpid())]
    assert code != 0
