"""Web servers on this computer, for tests of downloads."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest


def certificate(folder: Path) -> Path:
    """A file with a new key and its self-signed certificate for this computer; skips the test where openssl is
    missing.
    """
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate of the test server, is not installed")
    path, key = folder / "server.pem", folder / "server.key"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(path),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text(encoding="utf-8") + key.read_text(encoding="utf-8"))
    return path


@contextlib.contextmanager
def serving(
    contents: Mapping[str, bytes], key: Path | None = None, redirect: str = "", sends_half: bool = False
) -> Iterator[str]:
    """A server for the time of the block; gives its address.

    Args:
        contents: what is under each path.
        key: certificate with key for an encrypted server, None for a plain one.
        redirect: where every path leads to instead.
        sends_half: send no more than the first half of a content, and wait.
    """
    is_over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if redirect:
                self.send_response(302)
                self.send_header("Location", redirect)
                self.end_headers()
                return
            content = contents.get(self.path.partition("?")[0])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may leave
                self.wfile.write(content[: len(content) // 2] if sends_half else content)
                if sends_half:
                    is_over.wait()

        def log_message(self, *_):
            """Tests are quiet."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that does not trust the certificate leaves in the middle of the handshake."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if key is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(key)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"{'http' if key is None else 'https'}://localhost:{server.server_port}"
        finally:
            is_over.set()
            server.shutdown()
