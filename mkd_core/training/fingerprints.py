"""SHA-256 of the images that a run reads, so that a run is never continued on other ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import SimpleITK as sitk

from mkd_core.io.atomic import write_text
from mkd_core.io.volumes import read_volume

#: File in the folder of prepared volumes that keeps what was computed: ``{path: [size, mtime in ns, SHA-256]}``.
_CACHE = "image-hashes.json"

#: Headers whose voxels lie in another file, which the header's own size and time say nothing of.
_DETACHED = (".nhdr", ".mhd")


class Fingerprints:
    """Hashes of volumes, computed once a file and kept in a folder until its size or time changes.

    Args:
        folder: for the cache.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _CACHE
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            self._known: dict[str, list] = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            self._known = {}
        self._new = False

    def of(self, path: Path) -> str:
        """Hash of a volume: a file, or a folder with one DICOM series."""
        if path.is_dir():
            return _joined(self._of_file(one) for one in sorted(path.rglob("*")) if one.is_file())
        if path.suffix.lower() in _DETACHED:
            return _of_voxels(path)
        return self._of_file(path)

    def save(self) -> None:
        """Keep what is new."""
        if self._new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file, json.dumps(self._known))
            self._new = False

    def _of_file(self, path: Path) -> str:
        status, name = path.stat(), str(path.resolve())
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._known.get(name)
        if not (isinstance(known, list) and known[:2] == stamp):
            with path.open("rb") as file:
                known = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
            self._known[name], self._new = known, True
        return str(known[2])


def _joined(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _of_voxels(path: Path) -> str:
    image = read_volume(path)
    place = [image.GetSpacing(), image.GetOrigin(), image.GetDirection(), image.GetSize()]
    return hashlib.sha256(json.dumps(place).encode() + sitk.GetArrayViewFromImage(image).tobytes()).hexdigest()
