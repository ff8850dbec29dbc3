"""Write `weights.json`, the list of weights that the panel looks at when a user asks for newer ones.

Usage: python -m Testing.weights_release [--bundle FILE] [--url ADDRESS] [--check]

Puts the entry of a bundle (by default of the one that comes with the package) into the list, in place of an entry of
the same name and version, and prints the name under which the file is to be uploaded as a release file. With `--check`
nothing is written; exits with 1 if the entry is not in the list.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

from mkd_core.io.atomic import write_text
from mkd_core.io.bundle import default_bundle_path, read_description
from mkd_core.io.releases import Release, parse_releases, to_json, version_numbers

LIST = Path(__file__).resolve().parents[1] / "weights.json"
RELEASES = "https://github.com/MKDSegmentation/SlicerMKDSegmentation/releases/download"


def release_of(bundle: Path, url: str | None = None) -> Release:
    """The entry of a bundle.

    Args:
        bundle: the file.
        url: where it will be; by default among the release files of the project's repository.
    """
    description, data = read_description(bundle), bundle.read_bytes()
    name, version = str(description["name"]), str(description["version"])
    file = f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{version}.safetensors"
    return Release(
        name=name,
        version=version,
        sha256=hashlib.sha256(data).hexdigest(),
        url=url or f"{RELEASES}/weights-{version}/{file}",
        size_bytes=len(data),
    )


def main() -> int:
    """Write the list; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Testing.weights_release", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path(default_bundle_path()))
    parser.add_argument("--url", help="where the file will be (default: a release file of the repository)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    release = release_of(arguments.bundle, arguments.url)
    known = parse_releases(LIST.read_bytes()) if LIST.exists() else []
    if arguments.check:
        return 0 if release in known else 1
    others = [entry for entry in known if (entry.name, entry.version) != (release.name, release.version)]
    write_text(
        LIST, to_json(sorted([*others, release], key=lambda entry: (entry.name, version_numbers(entry.version))))
    )
    print(f"Upload {arguments.bundle} as {release.url.rpartition('/')[2]} to {release.url.rpartition('/')[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
