"""What became of one bad thing that was done to the software."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkd_core.io.atomic import write_text
from mkd_core.io.bundle import default_bundle_path, load_bundle


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        group: "bad volumes", "hostile bundles", "faults", "geometry", "orientations" or "doubtful results".
        name: what was done, in a few words.
        survived: it ended as it must: told or borne, in time, with nothing left behind.
        tried: how many times.
        message: exact sentence that the user sees; empty where there is none.
        note: why it was lost, or what was counted.
    """

    group: str
    name: str
    survived: bool
    tried: int = 1
    message: str = ""
    note: str = ""


def stored(path: Path | None) -> dict[str, Any]:
    """What a run that was broken off had found of each volume with these weights; nothing of others."""
    if path is None or not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["volumes"] if content.get("weights") == _weights() else {}


def store(path: Path | None, command: str, volumes: Mapping[str, Any], **more: Any) -> None:
    """Write what was found of each volume; nothing if there is no path."""
    if path is not None:
        content = {"command": command, "weights": _weights(), **more, "volumes": volumes}
        write_text(path, json.dumps(content, indent=1) + "\n")


def _weights() -> str:
    return str(load_bundle(default_bundle_path()).identity["sha256"])
