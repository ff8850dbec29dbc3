"""The list of weights that are offered: read strictly, and true of the weights that come with the package."""

from __future__ import annotations

import io
import json
from email.message import Message

import pytest

from mkd_core.errors import DownloadError
from mkd_core.io.bundle import default_bundle_path
from mkd_core.io.download import file_name
from mkd_core.io.releases import ADDRESS, Release, fetch_releases, newest, parse_releases, to_json, version_numbers
from Testing.weights_release import LIST, release_of

ENTRY = {
    "name": "Hearts",
    "version": "0.10",
    "sha256": 64 * "a",
    "url": "https://weights.example/hearts-0.10.safetensors",
    "size_bytes": 15_000_000,
}


def listed(*entries: dict, format: int = 1) -> bytes:
    return json.dumps({"format": format, "weights": entries}).encode()


def response(data: bytes):
    stream = io.BytesIO(data)
    stream.headers = Message()
    return stream


def test_the_list_of_the_repository_holds_the_weights_that_come_with_the_package():
    releases = parse_releases(LIST.read_bytes())
    shipped = release_of(default_bundle_path())
    assert shipped in releases, "run `python -m Testing.weights_release`"
    assert newest(releases, shipped.name, shipped.version) is None
    assert to_json(releases) == LIST.read_text(encoding="utf-8")
    assert file_name(shipped.url) == shipped.url.rpartition("/")[2]
    assert ADDRESS.endswith("/main/" + LIST.name)


def test_versions_are_compared_as_numbers():
    assert version_numbers("0.9") < version_numbers("0.10") < version_numbers("1")
    older, newer, other = (
        Release(**ENTRY | change) for change in ({"version": "0.9"}, {}, {"name": "Lungs", "version": "7"})
    )
    assert newest([newer, older, other], "Hearts", "0.3") == newer
    assert newest([newer, older, other], "Hearts", "0.10") is None
    assert newest([newer, older, other], "Brains", "0.1") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        listed(ENTRY, format=2),
        listed({}),
        listed(ENTRY | {"size_bytes": "1"}),
        listed(ENTRY | {"size_bytes": 0}),
        listed(ENTRY | {"size_bytes": True}),
        listed(ENTRY | {"name": "<b>x</b>"}),
        listed(ENTRY | {"version": "newest"}),
        listed(ENTRY | {"version": 1}),
        listed(ENTRY | {"url": "http://weights.example/hearts.safetensors"}),
        listed(ENTRY | {"sha256": "a"}),
    ],
)
def test_a_list_that_cannot_be_is_refused_with_a_sentence(data):
    with pytest.raises(DownloadError) as caught:
        parse_releases(data)
    assert str(caught.value)


def test_only_the_address_is_asked_and_a_list_without_an_end_is_not_read_to_it():
    asked = []

    def open_url(url):
        asked.append(url)
        return response(listed(ENTRY))

    assert fetch_releases(open_url=open_url) == [Release(**ENTRY)]
    assert asked == [ADDRESS]
    with pytest.raises(DownloadError, match="larger"):
        fetch_releases(open_url=lambda url: response(bytes(3 << 20)))
    with pytest.raises(DownloadError, match="https"):
        fetch_releases("http://weights.example/weights.json")
