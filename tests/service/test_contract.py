"""What can be an interface, and what an implementation of it.

Belongs here: checks when a class is made or served. Never here: calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator  # contracts are read at run time
from typing import Any

import msgspec
import pytest

import alpc_async as alpc
from alpc_async.service._interface import contract_of
from tests.service.contracts import NAME, Counter, CounterServer, Files, FilesServer

UUID = "0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7cff"


def refused(body: str) -> alpc.InvalidInterface:
    """Return the error of a class with that body."""
    source = f"class Broken(alpc.Interface, uuid={UUID!r}):\n    {body}"
    with pytest.raises(alpc.InvalidInterface) as caught:
        exec(source, {"alpc": alpc, "AsyncIterator": AsyncIterator, "Any": Any, "Counter": Counter})  # noqa: S102  # classes as data
    return caught.value


@pytest.mark.parametrize(
    ("body", "method", "parameter", "reason"),
    [
        ("async def f(self, a) -> None: ...", "f", "a", "it has no annotation"),
        ("async def f(self, a: int): ...", "f", "return", "it has no annotation"),
        ("async def f(self, a: complex) -> None: ...", "f", "a", "complex cannot cross"),
        ("async def f(self, a: list[complex]) -> None: ...", "f", "a", "complex cannot cross"),
        ("async def f(self) -> complex: ...", "f", "return", "complex cannot cross"),
        ("async def f(self, *a: int) -> None: ...", "f", "a", "* and **"),
        ("async def f(self, **a: int) -> None: ...", "f", "a", "* and **"),
        ("async def f(self, a: int = 'x') -> None: ...", "f", "a", "its default does not fit"),
        ("async def f(self, a: int = 1, *, b: int) -> None: ...", "f", "b", "no default and stands behind 'a'"),
        ("def f(self) -> int: ...", "f", "return", "it must be async def"),
        ("async def f(self) -> AsyncIterator[int]: ...", "f", "return", "declared with def"),
        ("def f(self) -> AsyncIterator[complex]: ...", "f", "return", "complex cannot cross"),
        ("async def f(self, a: list[AsyncIterator[int]]) -> None: ...", "f", "a", "a whole parameter"),
        ("async def f(self, a: int | str | bytes) -> None: ...", "f", "a", "more than one str-like"),
        ("async def rundown(self) -> None: ...", "rundown", "", "belongs to alpc.Interface"),
        ("async def f() -> None: ...", "f", "", "first parameter is self"),
        ("f: int = 1", "f", "", "declares methods only"),
        ("pass", "", "", "it declares no method"),
        ("@alpc.oneway\n    async def f(self) -> int: ...", "f", "return", "has no result"),
        ("@alpc.oneway\n    def f(self) -> AsyncIterator[int]: ...", "f", "return", "has no results"),
        ("@alpc.method(0x10000)\n    async def f(self) -> None: ...", "f", "", "is not from 1"),
        (
            (
                "@alpc.method(2)\n    async def f(self) -> None: ...\n"
                "    @alpc.method(2)\n    async def g(self) -> None: ..."
            ),
            "g",
            "",
            "which f has already",
        ),
    ],
)
def test_a_broken_contract_names_the_place(body: str, method: str, parameter: str, reason: str) -> None:
    """The error of a class that cannot be a contract names the method, the parameter and the rule."""
    error = refused(body)
    assert (error.interface, error.method, error.parameter) == ("Broken", method, parameter)
    assert reason in error.reason
    assert str(error).startswith(f"Broken.{method}" if method else "Broken")


@pytest.mark.parametrize("annotation", ["Counter", "Counter | None", "dict[str, Counter]", "AsyncIterator[int]"])
def test_a_one_way_call_takes_no_objects_and_streams(annotation: str) -> None:
    """What needs an answer to be taken back is refused in a one-way call, with the name of the parameter."""
    error = refused(f"@alpc.oneway\n    async def f(self, a: int, b: {annotation}) -> None: ...")
    assert (error.interface, error.method, error.parameter) == ("Broken", "f", "b")
    assert "does not cross with a one-way call" in error.reason
    assert "without @oneway" in error.reason


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Counter, "does not cross with an exception"),
        (list[alpc.Handle], "does not cross with an exception"),
        (alpc.View | None, "does not cross with an exception"),
        (AsyncIterator[int], "does not cross with an exception"),
        (complex, "complex cannot cross"),
    ],
)
def test_a_fault_holds_values_only(annotation: Any, reason: str) -> None:
    """A declared fault with a field that is no value is refused with the method, the fault and the field."""
    fault: Any = type("Lost", (alpc.Fault,), {"__annotations__": {"why": str, "what": annotation}})

    async def f(self: object) -> None: ...

    f.__annotations__["return"] = None
    with pytest.raises(alpc.InvalidInterface) as caught:
        type("Broken", (alpc.Interface,), {"f": alpc.raises(fault)(f)}, uuid=UUID)
    assert (caught.value.interface, caught.value.method) == ("Broken", "f")
    assert caught.value.reason.startswith("the field 'what' of the fault Lost: ")
    assert reason in caught.value.reason


def test_uuid_and_version_are_checked() -> None:
    """An interface has a well-formed uuid and a version of two numbers."""
    with pytest.raises(alpc.InvalidInterface, match="not a uuid"):
        type("Broken", (alpc.Interface,), {}, uuid="4711")
    for version in ((1, -1), (1,), (1, 0, 0), "1.0", 1, ("1", "0"), None):
        with pytest.raises(alpc.InvalidInterface, match=r"not \(major, minor\)"):
            type("Broken", (alpc.Interface,), {}, uuid=UUID, version=version)


@pytest.mark.parametrize("declared", [ValueError, alpc.Fault(), "Lost"], ids=repr)
def test_what_a_method_raises_is_a_fault(declared: Any) -> None:
    """Declaring an exception that cannot cross names it."""
    with pytest.raises(TypeError, match=r"@alpc.raises takes subclasses of alpc.Fault, and .* is none"):
        alpc.raises(declared)


def test_methods_have_stable_numbers() -> None:
    """Methods are numbered from 1 in the order of the class, unless they say otherwise."""

    class Numbered(alpc.Interface, uuid=UUID):
        async def one(self) -> None: ...
        @alpc.method(10)
        async def ten(self) -> None: ...
        async def eleven(self) -> None: ...
        @alpc.method(2)
        async def two(self) -> None: ...

    methods = contract_of(Numbered).methods
    assert {number: method.name for number, method in methods.items()} == {1: "one", 2: "two", 10: "ten", 11: "eleven"}


def test_an_interface_can_extend_another_one() -> None:
    """An interface that extends another one keeps its methods and their numbers."""

    class More(Counter, uuid=UUID):
        async def reset(self) -> None: ...

    methods = contract_of(More).methods
    assert [(number, method.name) for number, method in methods.items()] == [(1, "add"), (2, "reset")]


def test_annotations_may_name_what_comes_later() -> None:
    """A contract is worked out at first use when its annotations name what does not exist yet."""

    async def second(self: object) -> None: ...

    second.__annotations__["return"] = "Second"
    first: Any = type("First", (alpc.Interface,), {"second": second}, uuid=UUID)
    with pytest.raises(alpc.InvalidInterface, match="name 'Second' is not defined"):
        contract_of(first)
    globals()["Second"] = Counter
    try:
        assert contract_of(first).methods[1].result is Counter
    finally:
        del globals()["Second"]


def test_a_buffer_stands_for_any_bytes() -> None:
    """A parameter of type Buffer takes bytes in any form, also inside of containers."""

    class Buffers(alpc.Interface, uuid=UUID):
        async def f(self, a: alpc.Buffer, b: list[alpc.Buffer], c: alpc.Buffer | None = None) -> alpc.Buffer: ...

    types = [field.type for field in msgspec.structs.fields(contract_of(Buffers).methods[1].arguments)]
    assert types == [memoryview, list[memoryview], memoryview | None]


class Lacking(Files):
    """Implements one of many methods."""

    async def size(self, data: alpc.Buffer) -> int:
        return len(data)


class WrongKind(Counter):
    """Implements a coroutine by a plain function."""

    def add(self, number: int) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # the mistake
        return number


class WrongParameters(Counter):
    """Implements a method with other parameters."""

    async def add(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # the mistake
        return 0


class Plain:
    """Has the methods of a counter and is derived from nothing."""

    async def add(self, number: int) -> int:
        return number + 1


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Lacking(), "Lacking.echo: it is not implemented"),
        (WrongKind(), "WrongKind.add: it has to be async def"),
        (WrongParameters(), "it cannot be called with the parameters number"),
        (Plain(), "it implements no interface"),
        (CounterServer, "CounterServer: it is a class; give an object of it"),
        (Files(), "it is not implemented"),
    ],
)
def test_a_server_is_checked_when_it_is_served(server: object, reason: str) -> None:
    """An object that does not implement its interface is refused before anything is opened."""
    with pytest.raises(alpc.InvalidInterface, match=reason):
        alpc.serve(NAME, server)


def test_what_is_served_is_checked() -> None:
    """Serving nothing, an interface twice, or with policies for something else is refused at once."""
    with pytest.raises(ValueError, match="nothing to serve"):
        alpc.serve(NAME)
    with pytest.raises(alpc.InvalidInterface, match="two objects"):
        alpc.serve(NAME, FilesServer(), FilesServer())
    with pytest.raises(ValueError, match="is not served here"):
        alpc.serve(NAME, FilesServer(), authorize={Counter: alpc.ANYONE})
    with pytest.raises(TypeError, match="takes policies"):
        alpc.serve(NAME, FilesServer(), authorize={Files: "root"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]  # so
    with pytest.raises(ValueError, match="at least 1"):
        alpc.serve(NAME, FilesServer(), maximum=0)
    with pytest.raises(alpc.InvalidInterface, match="it is not an interface"):
        alpc.connect(NAME, CounterServer)


async def test_any_object_with_the_methods_serves() -> None:
    """An object of a class that is derived from nothing serves an interface that is named beside it."""
    async with alpc.serve(NAME, Plain(), interface=Counter), alpc.connect(NAME, Counter) as counter:
        assert await counter.add(4) == 5
    with pytest.raises(alpc.InvalidInterface, match="it is not implemented"):
        alpc.implement(Files, Plain())
