"""Freed memory is kept where the system can, and given back when asked for."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from mkd_core.inference import memory

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import resource
from mkd_core.inference import memory

block = b"x"

def resident():  # or swapped out
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(("VmRSS:", "VmSwap:")))

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block * (24 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
assert memory.retain_memory()
faults()
kept = faults()
held = resident()
memory.release_memory()
print(usual, kept, held - resident())
"""


@pytest.mark.skipif(memory._glibc() is None, reason="this system has no glibc")
def test_memory_is_used_again_without_page_faults_and_given_back_on_request():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    usual, kept, given_back_kib = map(int, done.stdout.split())
    assert kept < usual / 4
    assert given_back_kib > 20 * 1024


def test_imports_are_not_searched_for_garbage_and_everything_else_is():
    with memory.importing("a_module_that_is_not_there"):
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() > 0
    gc.unfreeze()
    with pytest.raises(ImportError), memory.importing("a_module_that_is_not_there"):
        import a_module_that_is_not_there  # noqa: F401
    assert gc.isenabled()
    gc.unfreeze()
    with memory.importing("subprocess"):  # there already
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0
