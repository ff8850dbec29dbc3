"""Weights by address: only the expected file is let in, and nothing is left when it does not come.

Servers are on this computer only.
"""

from __future__ import annotations

import hashlib
import io
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from mkd_core.errors import BundleError, Cancelled, DownloadError
from mkd_core.io.bundle import save_bundle
from mkd_core.io.download import check_request, download_bundle, file_name
from Testing.support.loopback_server import certificate, serving
from Testing.support.tiny_bundles import random_state_dicts, tiny_description

URL = "https://weights.example/heart.safetensors"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> bytes:
    """A bundle with tiny networks."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
    return path.read_bytes()


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def response(content: bytes, length: int | None = -1):
    """What opening an address gives; a length of None is not told, -1 is the true one."""
    stream = io.BytesIO(content)
    stream.headers = Message()
    if length is not None:
        stream.headers["Content-Length"] = str(len(content) if length == -1 else length)
    return stream


def files(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("length", [-1, None])
def test_the_expected_file_is_kept_under_its_name_with_progress(bundle, tmp_path, length):
    seen = []
    path = download_bundle(
        URL,
        sha256(bundle).upper(),
        tmp_path / "new folder",
        progress=lambda *step: seen.append(step),
        open_url=lambda url: response(bundle, length),
    )
    assert path.read_bytes() == bundle and files(tmp_path / "new folder") == ["heart.safetensors"]
    assert seen[0] == (0.0, "Connecting") and seen[-1] == (1.0 if length else 0.0, f"{len(bundle) / 1e6:.1f} MB")


def test_a_file_that_is_there_already_is_not_fetched_again(bundle, tmp_path):
    (tmp_path / "heart.safetensors").write_bytes(bundle)
    assert download_bundle(URL, sha256(bundle), tmp_path, open_url=None) == tmp_path / "heart.safetensors"


def test_another_file_of_that_name_is_not_overwritten(bundle, tmp_path):
    (tmp_path / "heart.safetensors").write_bytes(b"precious")
    with pytest.raises(DownloadError, match="already holds another file “heart.safetensors”"):
        download_bundle(URL, sha256(bundle), tmp_path, open_url=lambda url: response(bundle))
    assert (tmp_path / "heart.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("content", "length", "expected", "error", "sentence"),
    [
        (b"something else", -1, None, DownloadError, "another SHA-256"),
        (b"no bundle", -1, sha256(b"no bundle"), BundleError, "“heart.safetensors”: This is not a .safetensors file"),
        (b"short", 900, sha256(b"short"), DownloadError, "ended too early"),
        (b"x", 10**10, sha256(b"x"), DownloadError, "larger than 2.1 GB"),
    ],
)
def test_what_is_not_expected_is_refused_and_leaves_nothing(
    bundle, tmp_path, content, length, expected, error, sentence
):
    with pytest.raises(error, match=sentence):
        download_bundle(URL, expected or sha256(bundle), tmp_path, open_url=lambda url: response(content, length))
    assert files(tmp_path) == []


def test_a_file_that_grows_beyond_the_limit_is_dropped_though_the_server_told_no_size(tmp_path):
    with pytest.raises(DownloadError, match="larger than"):
        download_bundle(URL, "0" * 64, tmp_path, max_bytes=10**6, open_url=lambda url: response(bytes(2 * 10**6), None))
    assert files(tmp_path) == []


def test_a_cancel_leaves_nothing(bundle, tmp_path):
    with pytest.raises(Cancelled):
        download_bundle(URL, sha256(bundle), tmp_path, cancelled=lambda: True, open_url=lambda url: response(bundle))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (urllib.error.URLError("name or service not known"), "No connection .name or service not known"),
        (urllib.error.HTTPError(URL, 404, "Not Found", Message(), None), "refused the file .404 Not Found"),
        (TimeoutError("timed out"), "No connection .timed out"),
    ],
)
def test_a_server_that_does_not_answer_is_told_in_a_sentence(tmp_path, failure, sentence):
    def fail(url):
        raise failure

    with pytest.raises(DownloadError, match=sentence):
        download_bundle(URL, "0" * 64, tmp_path, open_url=fail)
    assert files(tmp_path) == []


def test_a_connection_that_breaks_is_told_in_a_sentence(tmp_path):
    stream = response(b"", 100)
    stream.read1 = lambda count: (_ for _ in ()).throw(ConnectionResetError("reset by peer"))
    with pytest.raises(DownloadError, match="broke off .reset by peer"):
        download_bundle(URL, "0" * 64, tmp_path, open_url=lambda url: stream)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_fetched(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be kept"):
        download_bundle(URL, "0" * 64, tmp_path / "file" / "folder", open_url=None)


@pytest.mark.parametrize(
    "url",
    [
        "http://weights.example/a.safetensors",
        "file:///etc/passwd",
        "ftp://a/b",
        "https://",
        "heart",
        "",
        "https://a b/c",
        "https://[broken/x",
    ],
)
def test_addresses_without_encryption_or_host_are_refused(url):
    with pytest.raises(DownloadError, match="https://"):
        check_request(url, "0" * 64)


@pytest.mark.parametrize("digits", ["", "abc", "g" * 64, "0" * 63, "0" * 65])
def test_a_download_without_a_sha256_is_refused(digits):
    with pytest.raises(DownloadError, match="64 hexadecimal digits"):
        check_request(URL, digits)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a/b/heart.safetensors?download=1", "heart.safetensors"),
        ("https://a/b/Heart%20v2", "Heart_v2.safetensors"),
        ("https://a/..%2F..%2Fetc%2Fpasswd", "passwd.safetensors"),
        ("https://a/", "weights.safetensors"),
        ("https://a/%2e%2e.safetensors", "weights.safetensors"),
    ],
)
def test_names_are_made_harmless(url, name):
    assert file_name(url) == name


def test_over_a_real_encrypted_connection_the_file_comes_and_a_way_out_of_encryption_is_not_taken(
    bundle, tmp_path, monkeypatch
):
    key = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(key))
    with serving({"/heart.safetensors": bundle}, key) as address, serving({"/heart.safetensors": bundle}) as plain:
        with serving({}, key, redirect=plain + "/heart.safetensors") as misleading:
            path = download_bundle(address + "/heart.safetensors", sha256(bundle), tmp_path / "kept")
            assert path.read_bytes() == bundle
            with pytest.raises(DownloadError, match="without encryption"):
                download_bundle(misleading + "/heart.safetensors", sha256(bundle), tmp_path / "other")
    assert files(tmp_path / "other") == []


def test_a_server_whose_certificate_is_not_trusted_is_refused(bundle, tmp_path):
    with (
        serving({"/heart.safetensors": bundle}, certificate(tmp_path)) as address,
        pytest.raises(DownloadError, match="certificate"),
    ):
        download_bundle(address + "/heart.safetensors", sha256(bundle), tmp_path / "kept")
    assert files(tmp_path / "kept") == []


@pytest.mark.parametrize("text", ["²", "٣", "-5", "+7", "1_0", "0x10", "9" * 5000, "twelve", "1 2", " "])
def test_a_length_that_is_no_number_is_taken_for_untold(bundle, tmp_path, text):
    answer = response(bundle, None)
    answer.headers.get = lambda name: text
    assert download_bundle(URL, sha256(bundle), tmp_path, open_url=lambda url: answer).read_bytes() == bundle


def in_chunks(*lines: bytes):
    """A response in chunks, as http.client has it: with the undecoded stream behind it."""
    answer = response(b"", None)
    answer.chunked, answer.fp = True, io.BytesIO(b"".join(lines))
    return answer


def test_a_file_that_comes_in_chunks_is_put_together(bundle, tmp_path):
    half = len(bundle) // 2
    answer = in_chunks(
        b"%x\r\n" % half,
        bundle[:half],
        b"\r\n%X;name=value\r\n" % (len(bundle) - half),
        bundle[half:],
        b"\r\n0\r\n\r\n",
    )
    assert download_bundle(URL, sha256(bundle), tmp_path, open_url=lambda url: answer).read_bytes() == bundle


@pytest.mark.parametrize("size", [b"-5", b"", b"5x", b"0x5", b"1_0", b" 5", b"F" * 9, b"5" * 3000, "٣".encode()])
def test_a_chunk_of_an_impossible_size_is_told_in_a_sentence(tmp_path, size):
    answer = in_chunks(size + b"\r\n", b"hello" * 1000, b"\r\n0\r\n\r\n")
    with pytest.raises(DownloadError, match="broke off"):
        download_bundle(URL, "0" * 64, tmp_path, open_url=lambda url: answer)
    assert files(tmp_path) == []


def test_a_chunk_that_is_shorter_or_longer_than_said_is_told(tmp_path):
    for lines in ((b"a\r\n", b"short"), (b"2\r\n", b"longer\r\n0\r\n\r\n")):
        with pytest.raises(DownloadError, match="broke off"):
            download_bundle(URL, "0" * 64, tmp_path, open_url=lambda url, lines=lines: in_chunks(*lines))


class Dripping:
    """A response of a byte now and then, for ever."""

    def __init__(self, clock: list[float]) -> None:
        self.headers = Message()
        self._clock = clock

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, count: int) -> bytes:
        raise AssertionError("waits until all of it has come")

    def read1(self, count: int) -> bytes:
        self._clock[0] += 20
        return b"x"


def test_a_download_that_takes_too_long_in_all_is_broken_off(tmp_path, monkeypatch):
    from mkd_core.io import download

    clock = [0.0]
    monkeypatch.setattr(download.time, "monotonic", lambda: clock[0])
    with pytest.raises(DownloadError, match="it took more than 60 minutes"):
        download_bundle(URL, "0" * 64, tmp_path, open_url=lambda url: Dripping(clock))
    assert 3600 <= clock[0] <= 3700 and files(tmp_path) == []


def test_a_cancel_is_heard_while_the_server_does_not_answer(tmp_path):
    import threading

    never = threading.Event()
    with pytest.raises(Cancelled):
        download_bundle(URL, "0" * 64, tmp_path, cancelled=lambda: True, open_url=lambda url: never.wait(600))
    never.set()
    assert files(tmp_path) == []


@pytest.mark.parametrize("place", ["body", "line"])
def test_a_cancel_is_heard_while_the_server_falls_silent_in_the_middle(tmp_path, place):
    import threading

    is_silent, never = threading.Event(), threading.Event()

    def fall_silent(count: int) -> bytes:
        is_silent.set()
        never.wait(600)
        return b""

    answer = response(b"", 100) if place == "body" else in_chunks()
    if place == "body":
        answer.read1 = fall_silent
    else:
        answer.fp.readline = fall_silent
    with pytest.raises(Cancelled):
        download_bundle(URL, "0" * 64, tmp_path, cancelled=is_silent.is_set, open_url=lambda url: answer)
    never.set()
    assert files(tmp_path) == []


def test_a_servers_words_are_shown_without_mark_up(tmp_path):
    words = (
        '<b>Not</b> <img src="https://spy.example/x.png"> &amp; [link](https://evil.example)\r\n\x1b[31m' + "x" * 500
    )
    for failure in (urllib.error.HTTPError(URL, 404, words, Message(), None), urllib.error.URLError(words)):

        def fail(url, failure=failure):
            raise failure

        with pytest.raises(DownloadError) as caught:
            download_bundle(URL, "0" * 64, tmp_path, open_url=fail)
        text = str(caught.value)
        assert not set('<>&"[]\r\n\x1b') & set(text) and "https://" not in text and len(text) < 300


def test_a_disk_that_is_too_full_is_told_before_the_file_is_fetched(bundle, tmp_path, monkeypatch):
    from mkd_core.io import download

    class Usage:
        free = len(bundle) + (64 << 20) - 1

    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: Usage)
    answer = response(bundle)
    answer.read1 = None
    with pytest.raises(DownloadError, match="not enough free space"):
        download_bundle(URL, sha256(bundle), tmp_path, open_url=lambda url: answer)
    assert files(tmp_path) == []


def test_a_file_that_appears_while_another_is_fetched_is_kept(bundle, tmp_path):
    answer = response(bundle)
    read = answer.read1

    def read_and_disturb(count):
        (tmp_path / "heart.safetensors").write_bytes(b"precious")
        return read(count)

    answer.read1 = read_and_disturb
    with pytest.raises(DownloadError, match="already holds another file"):
        download_bundle(URL, sha256(bundle), tmp_path, open_url=lambda url: answer)
    assert files(tmp_path) == ["heart.safetensors"] and (tmp_path / "heart.safetensors").read_bytes() == b"precious"
