"""Which weights are offered for download: ``weights.json`` of the project's repository, read when the user asks.

The file is a JSON object: ``{"format": 1, "weights": [{"name", "version", "sha256", "url", "size_bytes"}, ...]}``. Its
entries are release files; whoever publishes a bundle adds one (``python -m Testing.weights_release`` writes it).
Nothing in it is trusted further than that: what is downloaded must have the SHA-256, must come from an encrypted
address and must be a bundle (:mod:`mkd_core.io.download`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mkd_core.errors import DownloadError
from mkd_core.io import download
from mkd_core.measure.messages import finding, refusal

FORMAT = 1

#: Where the project keeps its list.
ADDRESS = "https://raw.githubusercontent.com/MKDSegmentation/SlicerMKDSegmentation/main/weights.json"

#: Largest list that is read, bytes, and longest time for it, s.
_MAX_BYTES = 1 << 20
_MAX_SECONDS = 60.0


@dataclass(frozen=True)
class Release:
    """A bundle that is offered.

    Attributes:
        name, version: as in the bundle's description; the version is numbers with points, such as "0.3".
        sha256: of the file, 64 hexadecimal digits.
        url: address, https only.
        size_bytes: of the file.
    """

    name: str
    version: str
    sha256: str
    url: str
    size_bytes: int

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DownloadError: one of them cannot be.
        """
        download.check_request(self.url, self.sha256)
        fits = (
            re.fullmatch(r"[^\x00-\x1f<>&]{1,80}", self.name)
            and version_numbers(self.version)
            and 0 < self.size_bytes <= download.MAX_BYTES
        )
        if not fits:
            raise refusal(finding("weights_list_unreadable"), DownloadError)


def version_numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, (0, 10) for "0.10"; empty for what is none."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}", version):
        return ()
    return tuple(int(part) for part in version.split("."))


def parse_releases(data: bytes) -> list[Release]:
    """The entries of a list.

    Raises:
        DownloadError: it is no such list, or of a format that only a newer version knows.
    """
    try:
        values = json.loads(data)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}")
        return [_release(entry) for entry in values["weights"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise refusal(finding("weights_list_unreadable"), DownloadError) from error


def _release(entry: dict[str, Any]) -> Release:
    texts = {field: entry[field] for field in ("name", "version", "sha256", "url")}
    if not all(isinstance(text, str) for text in texts.values()) or type(entry["size_bytes"]) is not int:
        raise TypeError("a field of another type")
    return Release(**texts, size_bytes=entry["size_bytes"])


def newest(releases: Iterable[Release], name: str, version: str) -> Release | None:
    """The newest release of a bundle of this name, if it is newer than this version; None else."""
    newer = [
        release
        for release in releases
        if release.name == name and version_numbers(release.version) > version_numbers(version)
    ]
    return max(newer, key=lambda release: version_numbers(release.version), default=None)


def fetch_releases(
    url: str = ADDRESS,
    *,
    cancelled: Callable[[], bool] | None = None,
    open_url: Callable[[str], Any] | None = None,
) -> list[Release]:
    """Fetch the list from its address; sends nothing but the request for it.

    Args:
        url: address, https only.
        cancelled: polled while the server is waited for.
        open_url: opens an address, as in :func:`mkd_core.io.download.download_bundle`.

    Raises:
        DownloadError: an unsuitable address, no connection, or no such list.
        Cancelled: ``cancelled`` said so.
    """
    return parse_releases(
        download.fetch_bytes(
            url, max_bytes=_MAX_BYTES, max_seconds=_MAX_SECONDS, cancelled=cancelled, open_url=open_url
        )
    )


def to_json(releases: Iterable[Release]) -> str:
    """The text of a list, as :func:`parse_releases` reads it."""
    return json.dumps({"format": FORMAT, "weights": [asdict(release) for release in releases]}, indent=2) + "\n"
