"""Generic faults, made from the syntax tree: other operators and constants, negated conditions, removed statements."""

from __future__ import annotations

import ast
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from Testing.mutants.described import FOLDER, ROOT

_OPERATORS: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}


@dataclass(frozen=True)
class Edit:
    """One generic fault: bytes ``start`` to ``end`` of the UTF-8 source replaced by a text.

    Attributes:
        file: the source file, relative to the project.
        line: of the fault.
        start, end: in bytes.
        replace: what stands there instead.
        tests: pytest's names of the files that ought to notice it.
        name: place and change.
    """

    file: str
    line: int
    start: int
    end: int
    replace: str
    tests: tuple[str, ...]
    name: str

    def applied_to(self, source: str) -> str:
        """The source with the fault in it."""
        text = source.encode()
        return (text[: self.start] + self.replace.encode() + text[self.end :]).decode()


def edits(path: Path, tests: Sequence[str], root: Path = ROOT) -> Iterator[Edit]:
    """All faults of one file that still parse and mean something else."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    original = ast.dump(tree)
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    whole, file = source.encode(), path.relative_to(root).as_posix()

    def begin(node: ast.AST) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def finish(node: ast.AST) -> int:
        return starts[node.end_lineno - 1] + node.end_col_offset

    for node in _computing_nodes(tree):
        for start, end, new in _changes(node, begin, finish, whole):
            old = whole[start:end].decode()
            shown = " ".join(old.split())
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            edit = Edit(file, node.lineno, start, end, new, tuple(tests), f"{file}:{node.lineno}: {shown} -> {new}")
            try:
                changed = ast.parse(edit.applied_to(source))
            except SyntaxError:
                continue
            if ast.dump(changed) != original:
                yield edit


def _computing_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that decide what is computed: not annotations, texts, imports or what only a type checker reads."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        left_out: set[ast.AST | None] = set()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            left_out = {node.returns, *node.decorator_list}
        elif isinstance(node, (ast.AnnAssign, ast.arg)):
            left_out = {node.annotation}
        elif isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        ):
            continue
        waiting += [child for child in ast.iter_child_nodes(node) if child not in left_out]


def _changes(node, begin, finish, whole: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, end and new text of every fault in a node itself, its children apart."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        yield from _swapped(node.op, finish(left), begin(right), whole)
    elif isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands[:-1], operands[1:]):
            yield from _swapped(operator, finish(left), begin(right), whole)
    elif isinstance(node, ast.BoolOp):
        for left, right in zip(node.values[:-1], node.values[1:]):
            yield from _swapped(node.op, finish(left), begin(right), whole)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield begin(node), begin(node.operand), ""
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield begin(node), finish(node), str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield begin(node), finish(node), repr(node.value + 1 if isinstance(node.value, int) else node.value * 2 or 1.0)
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        test = whole[begin(node.test) : finish(node.test)].decode()
        yield begin(node.test), finish(node.test), f"not ({test})"
    elif isinstance(node, (ast.Raise, ast.Continue, ast.Break)) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom, ast.Await))
    ):
        yield begin(node), finish(node), "pass"
    if isinstance(node, ast.AugAssign):
        yield begin(node), finish(node), "pass"


def _swapped(operator: ast.AST, start: int, end: int, whole: bytes) -> Iterator[tuple[int, int, str]]:
    if type(operator) not in _OPERATORS:
        return
    old, new = _OPERATORS[type(operator)]
    found = whole.find(old.encode(), start, end)
    if found >= 0:
        yield found, found + len(old), new


def mapped_tests(file: str, folder: Path = FOLDER) -> tuple[str, ...]:
    """The test files that look at a source file, by the longest entry of ``tests-of-sources.toml`` that its path
    starts with.

    Raises:
        ValueError: no entry.
    """
    table = tomllib.loads((folder / "tests-of-sources.toml").read_text(encoding="utf-8"))
    fitting = [start for start in table if file.startswith(start)]
    if not fitting:
        raise ValueError(f"{folder.name}/tests-of-sources.toml does not say which tests look at {file}")
    return tuple(table[max(fitting, key=len)])


def generate(places: Sequence[str], limit: int, seed: int, root: Path = ROOT) -> list[Edit]:
    """A random choice of at most ``limit`` faults from the Python files of the places, in the order of the files.

    Raises:
        ValueError: a place without Python files, or a file without tests.
    """
    found: list[Edit] = []
    for place in places:
        path = (root / place).resolve()
        files = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
        if not all(file.is_file() for file in files) or not files:
            raise ValueError(f"There are no Python files in “{place}”")
        for file in files:
            found += edits(file, mapped_tests(file.relative_to(root).as_posix()), root)
    kept = random.Random(seed).sample(found, limit) if limit < len(found) else found
    return sorted(kept, key=lambda edit: (edit.file, edit.line, edit.start))
