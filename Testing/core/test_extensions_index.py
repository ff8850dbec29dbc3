"""The entry for Slicer's Extensions Index keeps the rules that the index checks, as they are described in its check of
entries and in its checklist for new extensions.

What can be checked on the server only is not: that addresses answer, and that the repository has the topic
`3d-slicer-extension` on GitHub. CONTRIBUTING.md lists what remains to be done by hand.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mkd_core.protocol import MODALITIES

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "Resources" / "ExtensionsIndex" / "MKDSegmentation.json"
NAME = ENTRY.stem

#: Fields of version 1.0.2 of the schema and the types of their values.
FIELDS = {
    "$schema": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "category": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "scm_revision": str,
    "scm_type": str,
    "scm_url": str,
    "tier": int,
}
REQUIRED = {"$schema", "category", "scm_url"}
SIZE_LIMIT = 100 * 2**20  # bytes, of a whole clone


def entry() -> dict:
    return json.loads(ENTRY.read_text(encoding="utf-8"))


def cmake_text() -> str:
    return (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def cmake_variable(name: str) -> str:
    """Value of ``set(NAME "value")``, which the index looks for on one line in double quotes."""
    found = re.search(rf'^set\({name} "([^"\n]+)"\)', cmake_text(), re.MULTILINE)
    assert found, f"CMakeLists.txt does not set {name} to one quoted text on one line"
    return found.group(1)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, in pixels."""
    start = path.read_bytes()[:24]
    assert start[:8] == b"\x89PNG\r\n\x1a\n", f"{path.name} is no PNG"
    return struct.unpack(">II", start[16:24])


def in_the_repository(url: str) -> Path:
    """The file that an address of the repository's branch shows."""
    repository = entry()["scm_url"].removesuffix(".git").removeprefix("https://github.com/")
    start = f"https://raw.githubusercontent.com/{repository}/{entry()['scm_revision']}/"
    assert url.startswith(start), url
    return ROOT / url.removeprefix(start)


def test_the_entry_has_the_fields_of_the_schema_and_no_others():
    found = entry()
    assert found.keys() >= REQUIRED
    for field, value in found.items():
        assert type(value) is FIELDS[field], field
    assert found["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert 1 <= found["tier"] <= 5
    assert found.get("scm_type", "git") in ("git", "local")
    assert all(isinstance(name, str) for name in found["build_dependencies"])


def test_the_file_of_the_entry_has_the_line_endings_of_unix():
    data = ENTRY.read_bytes()
    assert b"\r" not in data
    assert data.endswith(b"}\n")


def test_extension_and_repository_are_named_as_the_index_wants():
    assert not NAME.lower().startswith("slicer")
    address = urlsplit(entry()["scm_url"])
    assert address.scheme in ("https", "git")
    assert Path(address.path).stem == f"Slicer{NAME}"
    assert re.search(r"project\s*\(\s*([^\s)]+)", cmake_text()).group(1) == NAME


def test_the_category_is_one_of_the_index_and_that_of_the_module():
    assert entry()["category"] in ("Segmentation", "Cardiac")
    source = (ROOT / "MKDSegmentation" / "MKDSegmentation.py").read_text(encoding="utf-8")
    assert f'translate("qSlicerAbstractCoreModule", "{entry()["category"]}")' in source


def test_the_entry_and_cmake_name_the_same_dependencies():
    assert entry()["build_dependencies"] == cmake_variable("EXTENSION_DEPENDS").split()


def test_the_rule_for_dicom_names_modalities_of_the_module():
    rule = entry()["dicom_support_rule"]
    terms = rule.split(" or ")
    assert all(re.fullmatch(r"Modality == '[A-Z]{2}'", term) for term in terms), rule
    assert {term[-3:-1] for term in terms} <= set(MODALITIES)


def test_icon_and_screenshots_are_pictures_of_the_repository():
    assert picture_size(in_the_repository(cmake_variable("EXTENSION_ICONURL"))) == (128, 128)
    screenshots = cmake_variable("EXTENSION_SCREENSHOTURLS").split()
    assert screenshots
    for url in screenshots:
        assert min(picture_size(in_the_repository(url))) >= 300


def test_the_description_is_one_or_two_sentences_without_line_breaks():
    description = cmake_variable("EXTENSION_DESCRIPTION")
    assert 1 <= len(re.findall(r"[.!](?= |$)", description)) <= 2, description
    assert len(description) < 400


def test_keywords_are_separated_by_spaces():
    keywords = cmake_variable("EXTENSION_KEYWORDS").split(" ")
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", keyword) for keyword in keywords), keywords
    assert len(keywords) == len(set(keywords)) >= 4


def test_the_licence_lies_where_the_index_looks_and_the_readme_names_it():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "[Apache-2.0](LICENSE)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert '"${CMAKE_CURRENT_SOURCE_DIR}/LICENSE"' in cmake_text()


def test_cmake_follows_the_order_of_the_template():
    steps = (
        "cmake_minimum_required(",
        f"project({NAME})",
        "set(EXTENSION_HOMEPAGE ",
        "set(EXTENSION_CONTRIBUTORS ",
        "set(EXTENSION_DESCRIPTION ",
        "set(EXTENSION_ICONURL ",
        "set(EXTENSION_SCREENSHOTURLS ",
        "set(EXTENSION_DEPENDS ",
        "find_package(Slicer REQUIRED)",
        "include(${Slicer_USE_FILE})",
        "add_subdirectory(MKDSegmentation)",
        "## NEXT_MODULE",
        "include(${Slicer_EXTENSION_GENERATE_CONFIG})",
        "include(${Slicer_EXTENSION_CPACK})",
    )
    places = [cmake_text().find(step) for step in steps]
    assert -1 not in places, dict(zip(steps, places))
    assert places == sorted(places)


def test_contributors_and_contact_are_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    own = citation.split("preferred-citation:")[0]
    [author] = re.findall(r'^authors:\n  - name: "([^"]+)"', own, re.MULTILINE)
    [contact] = re.findall(r'^contact:\n  - name: "([^"]+)"\n    website: "[^"]+/issues"', own, re.MULTILINE)
    assert author == contact == cmake_variable("EXTENSION_CONTRIBUTORS")
    source = (ROOT / "MKDSegmentation" / "MKDSegmentation.py").read_text(encoding="utf-8")
    assert f'self.parent.contributors = ["{author}"]' in source
    homepage = cmake_variable("EXTENSION_HOMEPAGE")
    assert f'website: "{homepage}/issues"' in own
    assert f'repository-code: "{homepage}"' in own


def test_the_homepage_says_what_the_index_wants():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("![") >= 1
    for wanted in (
        "# MKDSegmentation",
        "**Heart Segmentation (MKD)**",
        "## Citation",
        "arXiv:2010.01532",
        "docs/tutorial.md",
    ):
        assert wanted in readme, wanted


def test_the_tutorial_goes_step_by_step_with_pictures_and_sample_data():
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    steps = [int(number) for number in re.findall(r"^## (\d+)\. ", tutorial, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 4
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", tutorial)
    assert len(pictures) >= 3
    for picture in pictures:
        assert (ROOT / "docs" / picture).is_file(), picture
    samples = (ROOT / "MKDSegmentation" / "MKDSegmentationLib" / "scene" / "sampleData.py").read_text(encoding="utf-8")
    for name in re.findall(r"\*(MKD [^*]+)\*", tutorial):
        assert f'"{name}"' in samples, name
    assert "Sample Data" in tutorial


def test_nothing_is_done_when_the_module_is_imported():
    # The index asks whether code runs at file scope; beyond definitions there is none.
    tree = ast.parse((ROOT / "MKDSegmentation" / "MKDSegmentation.py").read_text(encoding="utf-8"))
    for statement in tree.body:
        assert isinstance(statement, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign)), (
            f"line {statement.lineno}"
        )


def test_a_clone_of_the_repository_is_as_small_as_the_index_allows():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    history = int(git("rev-list", "--disk-usage", "--objects", "HEAD"))
    files = sum((ROOT / name).stat().st_size for name in git("ls-files", "-z").split("\0") if (ROOT / name).is_file())
    assert history + files < SIZE_LIMIT, f"{history / 2**20:.0f} MiB of history and {files / 2**20:.0f} MiB of files"
