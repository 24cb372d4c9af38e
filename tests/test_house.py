"""Rules of the house that no linter knows. Rules about imports stand in pyproject.toml."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
HARD_CAP = 500
# What asserts beside the statement and what is called `assert_...`.
CHECKS = {"raises", "warns", "RaisesGroup", "check_link", "check_port"}


def test_no_module_is_longer_than_the_cap() -> None:
    """Every module fits the hard cap of lines."""
    modules = [path for folder in ("alpc_async", "examples", "tests") for path in ROOT.joinpath(folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert lengths
    assert {path: length for path, length in lengths.items() if length > HARD_CAP} == {}


def test_every_test_shows_what_it_expects() -> None:
    """Every test function has an assertion, or calls something that is known to assert."""
    silent: list[str] = []
    for path in sorted(ROOT.joinpath("tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            if not any(map(expects, ast.walk(node))):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert silent == []


def expects(node: ast.AST) -> bool:
    """Return whether a piece of code is an assertion, or a call of something that asserts."""
    if not isinstance(node, ast.Call):
        return isinstance(node, ast.Assert)
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in CHECKS or name.startswith("assert_")
