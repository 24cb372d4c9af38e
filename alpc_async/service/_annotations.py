"""Which annotations can cross, and as what.

Belongs here: `Buffer`, telling streams and references from values, finding what cannot cross. Never here: encoding.
"""

from __future__ import annotations

import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, cast

import msgspec

from ._carried import CARRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "Buffer",
    "find_foreign",
    "holds_carried",
    "holds_objects",
    "holds_references",
    "stream_item",
    "wire_type",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes in any form. A parameter or a result of this type is received as a `memoryview` of what arrived, not copied."""

_STREAMS: Final = (AsyncIterator, AsyncIterable, AsyncGenerator)


def stream_item(annotation: Any) -> Any | None:
    """Return the type of the items when the annotation is a stream, else ``None``."""
    if typing.get_origin(annotation) in _STREAMS:
        return typing.get_args(annotation)[0]
    return None


def wire_type(annotation: Any) -> Any:
    """Return the annotation as msgspec takes it: `Buffer`, wherever it stands, becomes ``memoryview``."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is None or origin in _STREAMS or origin is typing.Literal:
        return annotation
    if origin in (Union, types.UnionType):
        members = [wire_type(member) for member in arguments]
        if {bytes, bytearray, memoryview} <= set(members):
            members = [member for member in members if member not in (bytes, bytearray)]
        return Union[tuple(members)]  # noqa: UP007  # the members are known at run time only
    if origin is typing.Annotated:
        return typing.Annotated[(wire_type(arguments[0]), *annotation.__metadata__)]
    changed = tuple(map(wire_type, arguments))
    return annotation if changed == arguments else origin[changed]


def _walk(info: msgspec.inspect.Type, seen: set[int]) -> Iterator[msgspec.inspect.Type]:
    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    for name in getattr(info, "__struct_fields__", ()):
        value: Any = getattr(info, name)
        for part in cast("Iterable[Any]", value if isinstance(value, tuple) else (value,)):
            if isinstance(part, msgspec.inspect.Field):
                yield from _walk(part.type, seen)
            elif isinstance(part, msgspec.inspect.Type):
                yield from _walk(part, seen)


def _custom_types(annotation: Any) -> list[Any]:
    return [
        found.cls
        for found in _walk(msgspec.inspect.type_info(annotation), set())
        if isinstance(found, msgspec.inspect.CustomType)
    ]


def find_foreign(annotation: Any, is_interface: Callable[[Any], bool], *, items: bool = False) -> str | None:
    """Return why a type cannot cross, in words, or ``None`` when it can.

    Args:
        annotation: the type, as `wire_type` gives it.
        is_interface: tells whether a class is an interface.
        items: whether it is the type of the items of a stream.
    """
    item = stream_item(annotation)
    if item is not None:
        return find_foreign(wire_type(item), is_interface, items=True)
    try:
        customs = _custom_types(annotation)
        msgspec.msgpack.Decoder(annotation)
    except (TypeError, ValueError, AttributeError) as error:
        return f"the type {_name(annotation)} cannot cross: {error}"
    for custom in customs:
        if custom in _STREAMS:
            return "a stream is a whole parameter or a whole result, not a part of one"
        if custom in CARRIED:
            if items:
                return (
                    f"a {_name(custom)} travels with the message of a call or of its answer, not with items of a "
                    "stream; take or give it with a method of its own"
                )
        elif not is_interface(custom):
            return (
                f"the type {_name(custom)} cannot cross; use the built-in types, msgspec structs, dataclasses, "
                "enumerations, unions of them, other interfaces, alpc.Handle, alpc.View, or an AsyncIterator"
            )
    return None


def holds_references(annotation: Any) -> bool:
    """Return whether a type that can cross has an interface, a stream, a handle or a view anywhere in it."""
    return bool(_custom_types(annotation))


def holds_objects(annotation: Any) -> bool:
    """Return whether a type that can cross has an interface or a stream anywhere in it."""
    return any(custom not in CARRIED for custom in _custom_types(annotation))


def holds_carried(annotation: Any) -> bool:
    """Return whether a type that can cross has a handle or a view anywhere in it."""
    return any(custom in CARRIED for custom in _custom_types(annotation))


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
