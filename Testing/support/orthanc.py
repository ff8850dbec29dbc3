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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
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
                "Plugins": [plugins[0]],
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            }
        )
    )
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen([program, str(settings)], stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait(f"http://127.0.0.1:{port}/system", process, log)
        yield f"http://tester:secret@127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        try:
            process.wait(600)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"Orthanc has ended:\n{log.read_text(errors='replace')}")
        try:
            urllib.request.urlopen(address, timeout=5)
        except urllib.error.HTTPError:  # it asks for the password
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"Orthanc does not answer:\n{log.read_text(errors='replace')}")
