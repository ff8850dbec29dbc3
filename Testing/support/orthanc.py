"""Orthanc, a PACS, with its DICOMweb plugin on this computer, for tests (Debian: orthanc, orthanc-dicomweb)."""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

#: How long it may take to start, s: longer than any computer needs.
_PATIENCE = 300.0

#: How often it is started with another port.
_STARTS = 5


@contextlib.contextmanager
def running_orthanc(folder: Path) -> Iterator[str]:
    """Start Orthanc with its database in a folder, and end it; gives the address of its DICOMweb services, with name
    and password.  Skips the test where Orthanc or its plugin is not installed.
    """
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin") or shutil.which("Orthanc")
    plugins = sorted(glob.glob("/usr/lib/orthanc/libOrthancDicomWeb.so*"))
    plugins += sorted(glob.glob("/usr/share/orthanc/plugins/libOrthancDicomWeb.so*"))
    if program is None or not plugins:
        pytest.skip("Orthanc is not installed (apt-get install orthanc orthanc-dicomweb)")
    folder.mkdir()
    for _ in range(_STARTS):
        process, port = _started(program, plugins[0], folder)
        try:
            if _answers(f"http://127.0.0.1:{port}/system", process):
                yield f"http://tester:secret@127.0.0.1:{port}/dicom-web"
                return
        finally:
            process.terminate()
            try:
                process.wait(600)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    pytest.fail(f"Orthanc does not answer:\n{(folder / 'log.txt').read_text(errors='replace')}")


def _started(program: str, plugin: str, folder: Path) -> tuple[subprocess.Popen, int]:
    """Orthanc and its port, which is free now and may be another program's when Orthanc asks for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "HttpPort": port,
                "HttpBindAddresses": ["127.0.0.1"],
                "RemoteAccessAllowed": True,
                "AuthenticationEnabled": True,
                "RegisteredUsers": {"tester": "secret"},
                "DicomServerEnabled": False,
                "Plugins": [plugin],
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            }
        )
    )
    with (folder / "log.txt").open("wb") as output:
        return subprocess.Popen([program, str(settings)], stdout=output, stderr=subprocess.STDOUT, cwd=folder), port


def _answers(address: str, process: subprocess.Popen) -> bool:
    """Wait until it answers; False if it ends before, or never does."""
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(address, timeout=60)
        except urllib.error.HTTPError:  # it asks for the password
            return process.poll() is None
        except OSError:
            time.sleep(0.1)
        else:
            return process.poll() is None
    return False
