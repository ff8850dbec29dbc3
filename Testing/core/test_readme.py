"""What the README says of the project is so."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def sources() -> str:
    """All product code with the pieces of wrapped string literals joined."""
    files = [path for folder in ("MKDSegmentation", "mkd_core") for path in sorted((ROOT / folder).rglob("*.py"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_message_under_troubleshooting_is_one_the_software_gives():
    section = README.split("## Troubleshooting")[1].split("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)`", section, flags=re.MULTILINE)
    assert len(messages) >= 8
    code = sources()
    assert [message for message in messages if message not in code] == []


def test_every_file_and_picture_that_is_linked_is_there():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README) + re.findall(r'<img src="([^"]+)"', README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_that_is_named_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)", README))
    assert targets >= {"demo", "test"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []


def test_readers_are_told_what_the_software_is_not_for():
    assert "Research use only. Not for clinical decisions." in README


@pytest.mark.parametrize("path", ["Resources/MKDSegmentation.png"])
def test_the_icon_for_the_catalogue_has_128_pixels(path):
    header = (ROOT / path).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)
