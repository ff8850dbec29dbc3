"""Freed memory is kept where the system can, and given back when asked for."""

from __future__ import annotations

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

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

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
