"""Who is who, without saying it: keyed hashes in the place of names, and texts without names of files.

An id is HMAC-SHA256 (RFC 2104) of an identifier under a key that only the user has.  Whoever has the key can find the
row of a known patient; nobody else can, not even by trying all identifiers that there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from mkd_core.io.atomic import write_new
from mkd_core.measure.messages import MESSAGES, describe, figures_of, finding, refusal
from mkd_core.protocol import MODALITIES, Finding
from mkd_core.structures import BY_KEY

_KEY_BYTES = 32
_ID_DIGITS = 32

_QUOTED = re.compile(r"“[^”]*”")

#: What a figure of a finding may be, beside a number: a structure, a modality, a size in voxels, or directions such as
#: "R P S".  Nothing else can be told from a name.
_HARMLESS = re.compile(
    "|".join([*map(re.escape, (*BY_KEY, *MODALITIES)), r"\d{1,5}( x \d{1,5}){1,2}", r"[LRPASI]( [LRPASI]){2}"])
)


def default_key_path() -> Path:
    """Where a user's key is kept."""
    if os.name == "nt":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "mkd" / "archive.key"


def read_key(path: Path) -> bytes:
    """The key in a file; a new one is made if there is no file, for this user's eyes only.

    Raises:
        InputError: it cannot be read or made, others may read it, or it holds no key.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_new(path, (secrets.token_hex(_KEY_BYTES) + "\n").encode("ascii"), private=True)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise refusal(finding("key_open", file=str(path)))
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise refusal(finding("key_unusable", file=str(path), reason=str(error.strerror or error))) from error
    except ValueError as error:
        raise refusal(finding("key_none", file=str(path))) from error
    if len(key) != _KEY_BYTES:
        raise refusal(finding("key_none", file=str(path)))
    return key


class Pseudonyms:
    """Ids of patients, studies and series under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, identifier: str) -> str:
        """The id of an identifier, 32 hexadecimal digits; empty for an empty one.

        Args:
            kind: "patient", "study" or "series"; equal identifiers of different kinds have different ids.
            identifier: what is not to be seen.
        """
        if not identifier:
            return ""
        text = f"{kind}\0{identifier}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:_ID_DIGITS]

    @property
    def check(self) -> str:
        """Tells one key from another, and says nothing of either."""
        return self.of("check", "mkd archive")


def without_names(text: str) -> str:
    """A sentence of ours in which whatever stands in quotes is left out: our messages quote names of files, and only
    names.
    """
    return _QUOTED.sub("“…”", text)


def public_text(finding: Finding) -> str:
    """The sentence of a finding, without what could name a file, a series or a person."""
    return without_names(describe(anonymous(finding)))


def anonymous(finding: Finding) -> Finding:
    """A finding without figures that could name a file, a series or a person; where its sentence has a place for one,
    there is an ellipsis.
    """
    message = MESSAGES.get(finding.code)
    is_file_said = message is not None and "file" in figures_of(message)
    figures: Mapping[str, float | str] = {
        name: value if not isinstance(value, str) or (_HARMLESS.fullmatch(value) and name != "file") else "…"
        for name, value in finding.figures.items()
        if name != "file" or is_file_said
    }
    return dataclasses.replace(finding, figures=figures)
