"""Every kind of annotation crosses in both directions, with values that are made from the types.

Belongs here: values. Never here: calls themselves.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

import alpc_async as alpc
from alpc_async.service._interface import contract_of
from tests.service.contracts import NAME, Color, Entry, Point

if TYPE_CHECKING:
    from collections.abc import Callable


class Number(enum.IntEnum):
    """Whole numbers with names."""

    ONE = 1
    TWO = 2


class Shape(TypedDict):
    """A dictionary with known keys."""

    name: str
    sides: int


class Pair(NamedTuple):
    """A tuple with names."""

    left: int
    right: str


class Circle(msgspec.Struct, tag=True, array_like=True):
    """One half of a union."""

    radius: float


class Square(msgspec.Struct, tag=True, array_like=True):
    """The other half."""

    side: float


class Tree(msgspec.Struct):
    """A record that contains itself."""

    value: int
    children: list[Tree] = []


@dataclass
class Nested:
    """A data class of others."""

    point: Point
    entries: dict[str, Entry]


small = st.integers(-(2**63), 2**64 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(allow_nan=False)
entries = st.builds(Entry, text, small)
points = st.builds(Point, floats, floats)
trees = st.recursive(st.builds(Tree, small), lambda child: st.builds(Tree, small, st.lists(child, max_size=3)))

KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "none": (None, st.none()),
    "bool": (bool, st.booleans()),
    "int": (int, small),
    "float": (float, floats),
    "str": (str, text),
    "bytes": (bytes, st.binary(max_size=200)),
    "bytearray": (bytearray, st.binary(max_size=200).map(bytearray)),
    "buffer": (alpc.Buffer, st.binary(max_size=200)),
    "datetime": (datetime.datetime, st.datetimes()),
    "date": (datetime.date, st.dates()),
    "time": (datetime.time, st.times()),
    "uuid": (uuid.UUID, st.uuids()),
    "decimal": (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    "enum": (Color, st.sampled_from(Color)),
    "int enum": (Number, st.sampled_from(Number)),
    "literal": (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    "constrained": (Annotated[int, msgspec.Meta(ge=0, lt=10)], st.integers(0, 9)),
    "list": (list[int], st.lists(small, max_size=20)),
    "tuple": (tuple[int, str], st.tuples(small, text)),
    "any tuple": (tuple[int, ...], st.lists(small, max_size=20).map(tuple)),
    "set": (set[int], st.sets(small, max_size=20)),
    "frozenset": (frozenset[str], st.frozensets(text, max_size=20)),
    "dict": (dict[str, int], st.dictionaries(text, small, max_size=20)),
    "optional": (int | None, st.none() | small),
    "union": (int | str | list[int], small | text | st.lists(small, max_size=3)),
    "tagged union": (Circle | Square, st.builds(Circle, floats) | st.builds(Square, floats)),
    "struct": (Entry, entries),
    "recursive struct": (Tree, trees),
    "dataclass": (Point, points),
    "nested": (Nested, st.builds(Nested, points, st.dictionaries(text, entries, max_size=3))),
    "typed dict": (Shape, st.fixed_dictionaries({"name": text, "sides": small})),
    "named tuple": (Pair, st.builds(Pair, small, text)),
    "list of buffers": (list[alpc.Buffer], st.lists(st.binary(max_size=20), max_size=3)),
}


def echo_of(kind: Any) -> Any:
    """Return an interface with one method that takes and gives a type, and a server of it."""

    async def echo(self: object, value: Any) -> Any:
        return value

    echo.__annotations__ = {"value": kind, "return": kind}
    number = uuid.uuid5(uuid.NAMESPACE_OID, str(kind))
    interface = type("Echo", (alpc.Interface,), {"echo": echo}, uuid=str(number))

    async def answer(self: object, value: Any) -> Any:
        return value

    return interface, type("EchoServer", (interface,), {"echo": answer})()


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=40)
def test_every_kind_of_value_is_encoded_and_taken(kind: str, data: st.DataObject) -> None:
    """A value that fits its annotation comes out equal, of the same type, as argument and as result."""
    annotation, strategy = KINDS[kind]
    method = contract_of(echo_of(annotation)[0]).methods[1]
    value = data.draw(strategy)
    arguments = method.codec.take_arguments(method.codec.encode(method.arguments(value)))
    assert arguments.value == value
    assert method.codec.take_result(method.codec.encode(value)) == value
    if "buffer" not in kind:
        assert type(arguments.value) is type(value)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_value_crosses(kind: str) -> None:
    """A value of each kind goes to a server and back."""
    annotation, strategy = KINDS[kind]
    interface, server = echo_of(annotation)
    examples = examples_of(strategy)
    async with alpc.serve(NAME, server), alpc.connect(NAME, interface) as client:
        for value in examples:
            assert await cast("Any", client).echo(value) == value


def examples_of(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """Return some values of a strategy, the same ones in each run."""
    found: list[Any] = []

    @given(strategy)
    @settings(max_examples=5, database=None, derandomize=True)
    def collect(value: Any) -> None:
        found.append(value)

    cast("Callable[[], None]", collect)()
    return found


WRONG: dict[str, Any] = {
    "bool": 1,
    "int": "1",
    "str": 1,
    "bytes": "x",
    "enum": "red",
    "constrained": 10,
    "list": [1, "2"],
    "dict": {"a": "b"},
    "struct": Point(1.0, 2.0),
    "union": 1.5,
}


@pytest.mark.parametrize("kind", WRONG)
async def test_wrong_values_do_not_leave_either_side(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A value of another type is refused as an argument by the client and as a result by the server."""
    annotation, _ = KINDS[kind]
    interface, server = echo_of(annotation)
    right = examples_of(KINDS[kind][1])[0]

    async def wrong(value: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return WRONG[kind]

    async with alpc.serve(NAME, server), alpc.connect(NAME, interface) as client:
        if kind not in {"enum", "struct"}:  # their wire forms are those of a fitting value
            with pytest.raises(alpc.TypeMismatch, match=r"Echo\.echo, argument 'value'"):
                await cast("Any", client).echo(WRONG[kind])
            server.echo = wrong
            with pytest.raises(alpc.RemoteFault) as caught:
                await cast("Any", client).echo(right)
            assert caught.value.status == alpc.Status.BAD_RESULT
            assert "Echo.echo, result" in caplog.text
            caplog.clear()
