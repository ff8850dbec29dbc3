"""Faults written down in ``*.toml`` files: each was once missed by the tests and must not be again.

[[mutant]]
name = "the two generators swapped in the cycle"
file = "mkd_core/training/mkd.py"
find = "..."        # must occur exactly once in the file
replace = "..."
tests = ["Testing/core/test_mutual_distillation.py"]        # pytest's names of files or tests
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: what is wrong, in a few words.
        file: the source file that it changes, relative to the project.
        find: text that the fault replaces; it occurs exactly once in the file.
        replace: what stands there instead.
        tests: pytest's names of the files or tests that notice it.
    """

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def applied_to(self, source: str) -> str:
        """The source with the fault in it.

        Raises:
            ValueError: the text to replace is not there exactly once, or nothing would change.
        """
        count = source.count(self.find)
        if count != 1:
            raise ValueError(f"“{self.name}”: the text to replace occurs {count} times in {self.file}, not once")
        if self.find == self.replace:
            raise ValueError(f"“{self.name}” changes nothing")
        return source.replace(self.find, self.replace)


def read(path: Path) -> list[Mutant]:
    """The mutants of one file.

    Raises:
        ValueError: an entry lacks a key or has one that is unknown.
    """
    known = {field.name for field in fields(Mutant)}
    mutants = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []):
        if set(entry) != known or not entry["tests"]:
            raise ValueError(f"{path.name}: “{entry.get('name')}” must have exactly {', '.join(sorted(known))}")
        mutants.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
    return mutants


def chosen(words: Sequence[str], folder: Path = FOLDER) -> list[Mutant]:
    """Mutants of the files that are named, and those whose name holds one of the words; all without words.

    Raises:
        ValueError: a word that chooses nothing, or an entry that :func:`read` refuses.
    """
    by_file = {path.stem: read(path) for path in sorted(folder.glob("*.toml"))}
    every = [mutant for mutants in by_file.values() for mutant in mutants]
    found = []
    for word in words:
        matching = by_file.get(Path(word).stem) or [m for m in every if word.lower() in m.name.lower()]
        if not matching:
            raise ValueError(f"“{word}” is neither a file of {folder.name} nor part of a mutant's name")
        found += matching
    return list(dict.fromkeys(found)) if words else every
