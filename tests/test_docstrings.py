"""Every public name has a docstring in the agreed form, and a place in the API reference.

Belongs here: the form of docstrings. Never here: the pages (`test_docs`).
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import re
import textwrap
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import alpc_async
import alpc_async.handles
import alpc_async.link
import alpc_async.port
import alpc_async.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

API = Path(__file__).parent.parent / "docs" / "reference" / "api.md"
PACKAGES = (alpc_async, alpc_async.testing, alpc_async.handles)
OWN = ("self", "cls")
# What a link and its owner say to each other is explained once, where the interfaces are.
INTERFACES = vars(alpc_async.link.Link).keys() | vars(alpc_async.link.LinkOwner).keys()


class Documented(NamedTuple):
    """A public function or method."""

    name: str
    function: Callable[..., object]


def public(package: ModuleType) -> dict[str, Any]:
    """Return the public objects of a package by name, layers excluded."""
    return {
        name: value
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (package is not alpc_async.handles or name in alpc_async.handles.__all__)
    }


def public_classes() -> dict[str, type]:
    """Return the public classes, and those that several of them share."""
    found = {name: value for package in PACKAGES for name, value in public(package).items() if inspect.isclass(value)}
    shared = (alpc_async.port.ReceivePoint, alpc_async.port.RequestingPort)
    return {**found, **{kind.__name__: kind for kind in shared}}


def public_functions() -> Iterator[Documented]:
    """Yield the public functions, and the public methods of public classes."""
    for package in PACKAGES:
        for name, value in public(package).items():
            if isinstance(value, FunctionType):
                yield Documented(name, value)
    for owner, kind in public_classes().items():
        for name, value in vars(kind).items():
            function: object = getattr(value, "__func__", value)  # class methods wrap theirs
            if not isinstance(function, FunctionType) or name.startswith("_"):
                continue
            implements = kind.__module__.startswith("alpc_async.testing.") and name in INTERFACES
            if not implements:
                yield Documented(f"{owner}.{name}", function)


def documentation(documented: Documented) -> str:
    """Return the docstring of a function, or that of the method it overrides."""
    owner, _, name = documented.name.rpartition(".")
    if documented.function.__doc__ or not owner:
        return documented.function.__doc__ or ""
    return inspect.getdoc(getattr(public_classes()[owner], name)) or ""


FUNCTIONS = list(public_functions())
each_function = pytest.mark.parametrize("documented", FUNCTIONS, ids=[documented.name for documented in FUNCTIONS])


@functools.cache
def tree(function: Callable[..., object]) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """Return the syntax tree of a function."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    return node


def raised(function: Callable[..., object]) -> list[str]:
    """Return the names of exceptions that the function itself raises, functions inside it excluded."""
    found: list[str] = []
    waiting: list[ast.AST] = list(tree(function).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            found.append(node.exc.func.id)
        waiting.extend(ast.iter_child_nodes(node))
    return found


def implementations(documented: Documented) -> Iterator[Callable[..., object]]:
    """Yield a function, and what replaces it in the subclasses that a user really gets."""
    yield documented.function
    owner, _, name = documented.name.rpartition(".")
    waiting: list[type] = public_classes()[owner].__subclasses__() if owner else []
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        replaced = vars(kind).get(name)
        if isinstance(replaced, FunctionType) and kind.__module__.startswith("alpc_async."):
            yield replaced


def section(text: str, title: str) -> str:
    """Return one section of a docstring, or nothing."""
    match = re.search(rf"^ *{title}:\n(.*?)(?=^ *[A-Z]\w+:\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return match.group(1) if match else ""


def test_there_is_something_to_check() -> None:
    """The walk over the public names finds the ones that everybody uses."""
    names = {documented.name for documented in public_functions()}
    assert names >= {"listen", "connect", "RequestingPort.request", "ReceivePoint.receive_batch", "Handle.close"}


@pytest.mark.parametrize("name", sorted(public_classes()))
def test_a_class_has_a_docstring_of_its_own(name: str) -> None:
    """Each public class says what it is, and each member of an enumeration what it means."""
    kind = public_classes()[name]
    text = vars(kind).get("__doc__") or ""
    assert re.match(r"[A-Z`][^\n]*[.:]", text), text[:80]
    if issubclass(kind, enum.Enum):
        source = inspect.getsource(kind)
        assert [member for member in kind.__members__ if not re.search(rf' {member} = .*\n +"""[A-Z]', source)] == []


@pytest.mark.parametrize("name", sorted(public_classes()))
def test_the_fields_of_a_record_are_explained(name: str) -> None:
    """Each public field of a public struct stands under Attributes."""
    kind = public_classes()[name]
    fields = [field for field in getattr(kind, "__struct_fields__", ()) if field in vars(kind)]
    explained = section(kind.__doc__ or "", "Attributes")
    assert [field for field in fields if not re.search(rf"^ +{field}: ", explained, re.MULTILINE)] == []


@each_function
def test_a_function_has_a_docstring(documented: Documented) -> None:
    """Each public function and method begins with a sentence."""
    assert re.match(r"[A-Z][^\n]*[.:;,\w]", documentation(documented))


@each_function
def test_arguments_are_explained(documented: Documented) -> None:
    """Each argument of a public function stands under Args."""
    parameters = [name for name in inspect.signature(documented.function).parameters if name not in OWN]
    text = documentation(documented)
    if documented.function.__doc__ is None or (re.search(r"[Aa]rguments and errors like `|[Rr]aises like `", text)):
        return
    explained = section(text, "Args")
    assert [name for name in parameters if not re.search(rf"^ +\*?\*?{name}: ", explained, re.MULTILINE)] == []


@each_function
def test_errors_are_explained(documented: Documented) -> None:
    """Each error that a public function raises by itself stands under Raises."""
    explained = section(documentation(documented), "Raises")
    found = (name for function in implementations(documented) for name in raised(function))
    names = {name for name in found if name[0].isupper() and name != "NotImplementedError"}
    assert [name for name in sorted(names) if not re.search(rf"^ +{name}: ", explained, re.MULTILINE)] == []


@each_function
def test_an_async_function_tells_about_cancellation(documented: Documented) -> None:
    """Each public async function says what a cancellation leaves behind."""
    if inspect.iscoroutinefunction(documented.function):
        assert "ancel" in documentation(documented)


def test_the_api_reference_holds_every_public_name() -> None:
    """The reference takes all functions and classes of the package, and names what is neither."""
    page = API.read_text()
    assert ".. automodule:: alpc_async\n   :imported-members:\n" in page
    assert ".. automodule:: alpc_async.testing\n   :imported-members:\n" in page
    constants = {name for name, value in public(alpc_async).items() if not isinstance(value, FunctionType | type)}
    assert constants
    assert {name for name in constants if f".. autodata:: alpc_async.{name}\n" not in page} == set()
