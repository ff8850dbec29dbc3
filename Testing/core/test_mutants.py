"""The mutation runs: their entries fit the sources, faults that tests miss are told, and the project stays as it is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess

import pytest

from Testing.mutants.__main__ import try_out_all
from Testing.mutants.described import ROOT, Mutant, chosen, read
from Testing.mutants.generated import edits, generate, mapped_tests
from Testing.mutants.workspace import Workspace

EVERY = chosen([])


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.name)
def test_every_described_fault_still_fits_its_source(mutant):
    ast.parse(mutant.applied_to((ROOT / mutant.file).read_text(encoding="utf-8")))


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.name)
def test_the_tests_of_every_described_fault_are_there(mutant):
    for test in mutant.tests:
        file, *names = re.sub(r"\[.*", "", test).split("::")
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        assert set(names) <= defined


def test_no_two_described_faults_have_the_same_name():
    names = [mutant.name for mutant in EVERY]
    assert sorted(set(names)) == sorted(names)


def test_generic_faults_know_their_tests():
    for folder in ("mkd_core/method", "mkd_core/inference", "MKDSegmentation/MKDSegmentationLib/run"):
        for path in (ROOT / folder).rglob("*.py"):
            tests = mapped_tests(path.relative_to(ROOT).as_posix())
            assert tests and all((ROOT / test).exists() for test in tests)


def test_a_fault_that_fits_twice_or_not_at_all_is_refused():
    mutant = Mutant("twice", "a.py", "x", "y", ("t.py",))
    assert mutant.applied_to("a x b") == "a y b"
    for source in ("x x", "nothing"):
        with pytest.raises(ValueError, match="not once"):
            mutant.applied_to(source)


def test_an_incomplete_entry_is_refused(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text('[[mutant]]\nname = "no tests"\nfile = "a.py"\nfind = "x"\nreplace = "y"\n')
    with pytest.raises(ValueError, match="no tests"):
        read(path)


def test_words_choose_files_or_names_and_must_choose_something(tmp_path):
    entry = '[[mutant]]\nname = "{}"\nfile = "a.py"\nfind = "x"\nreplace = "y"\ntests = ["t.py"]\n'
    (tmp_path / "first.toml").write_text(entry.format("Wrong side") + entry.format("wrong sign"))
    (tmp_path / "second.toml").write_text(entry.format("no limit"))

    def names(*words):
        return [mutant.name for mutant in chosen(words, tmp_path)]

    assert names() == ["Wrong side", "wrong sign", "no limit"]
    assert names("first") == names("Testing/mutants/first.toml") == ["Wrong side", "wrong sign"]
    assert names("SIGN") == ["wrong sign"] and names("wrong", "first") == ["Wrong side", "wrong sign"]
    with pytest.raises(ValueError, match="elsewhere"):
        names("first", "elsewhere")


SOURCE = '''"""Text - of the module."""
from typing import Literal

def total(values: list[Literal[3]], limit=2) -> int | None:
    """Sum - of the values."""
    found = 0
    for value in values:
        if value < limit and not value == 7:
            found += value * 2
            print(f"{found - 1}")
    return found
'''


def test_generic_faults_change_what_is_computed_and_nothing_else(tmp_path):
    (tmp_path / "total.py").write_text(SOURCE)
    found = [edit.name.removeprefix("total.py:") for edit in edits(tmp_path / "total.py", ["t.py"], tmp_path)]
    assert sorted(found) == sorted(
        [
            "4: 2 -> 3",
            "6: 0 -> 1",
            "8: value < limit and not value == 7 -> not (value < limit and not value == 7)",
            "8: and -> or",
            "8: < -> <=",
            "8: not  -> ".replace("  ", " "),
            "8: == -> !=",
            "8: 7 -> 8",
            "9: + -> -",
            "9: found += value * 2 -> pass",
            "9: * -> /",
            "9: 2 -> 3",
            '10: print(f"{found - 1}") -> pass',
        ]
    )


def test_generic_faults_find_their_place_behind_letters_beyond_ascii(tmp_path):
    (tmp_path / "unit.py").write_text('unit = "µm"; size = 1 + 2\n', encoding="utf-8")
    changed = {
        edit.applied_to((tmp_path / "unit.py").read_text(encoding="utf-8"))
        for edit in edits(tmp_path / "unit.py", ["t.py"], tmp_path)
    }
    assert changed == {f'unit = "µm"; size = {sum}\n' for sum in ("1 - 2", "2 + 2", "1 + 3")}


def test_generic_faults_are_chosen_alike_every_time():
    first, again, other = (generate(["mkd_core/method/losses.py"], 20, seed) for seed in (0, 0, 1))
    assert first == again != other and len(set(first)) == 20
    with pytest.raises(ValueError, match="no Python files"):
        generate(["mkd_core/nowhere.py"], 20, 0)
    with pytest.raises(ValueError, match="does not say which tests"):
        generate(["Testing/support"], 20, 0)


@pytest.fixture
def project(tmp_path):
    """A small project under git: a function, and a test that looks at one of its two branches."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "limits.py").write_text("def clamp(x):\n    if x < 0:\n        return 0\n    return min(x, 9)\n")
    (folder / "test_limits.py").write_text(
        "from limits import clamp\n\n"
        "def test_low():\n    assert clamp(-1) == 0\n\n"
        "def test_broken():\n    assert False\n"
    )
    (folder / ".gitignore").write_text("private.txt\n__pycache__\n")
    (folder / "private.txt").write_text("stays here")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def _fault(name, find, replace, *tests):
    return Mutant(name, "limits.py", find, replace, tests)


def test_a_killed_and_a_surviving_fault_are_told_apart_and_the_project_is_left_alone(project, capsys):
    before = {path: path.read_bytes() for path in project.iterdir() if path.is_file()}
    low = "test_limits.py::test_low"
    faults = [_fault("low", "x < 0", "x > 0", low), _fault("high", "9", "8", low), _fault("crash", "def", "del", low)]
    assert try_out_all(faults, 2, project) == 1
    assert capsys.readouterr().out.splitlines()[:3] == ["killed    low", "survived  high", "killed    crash"]
    assert try_out_all(faults[::2], 1, project) == 0
    assert {path: path.read_bytes() for path in project.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("test", ["test_limits.py::test_broken", "test_limits.py::test_absent", "absent.py"])
def test_a_fault_is_not_called_killed_by_a_test_that_fails_anyway(project, capsys, test):
    assert try_out_all([_fault("low", "x < 0", "x > 0", test)], 1, project) == 1
    said = capsys.readouterr().out
    assert f"without any fault: {test}" in said and "not tried low" in said and "killed" not in said


def test_the_copy_holds_what_git_knows_or_would_add(project, tmp_path):
    (tmp_path / "copy").mkdir()
    Workspace(project, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {".gitignore", "limits.py", "test_limits.py"}
