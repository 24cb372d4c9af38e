"""From values to bytes and back, for the methods of a contract.

Belongs here: encoders and decoders of one method, and the sentences about values that do not fit. Never here: headers
(`_layout`), what a reference stands for (`_objects`).

Everything is msgpack, decoded strictly into the declared types. Both sides check what they give as well as what they
get: encoded arguments and results are decoded once on the side that made them, which costs a tenth of a microsecond for
a small record and shows the mistake where it was made. Objects and streams are whole numbers on the wire; a codec that
knows them belongs to one connection and has three hooks, the others are shared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..contract_errors import TypeMismatch
from ._annotations import holds_references

if TYPE_CHECKING:
    from collections.abc import Callable  # noqa: TC004  # msgspec reads annotations only to find class variables

    from ._contract import Method

__all__ = ["Codec", "Hooks", "ItemCodec", "argument_error", "result_error"]

_FIRST_INDEX: Final = re.compile(r"\$\[(\d+)\]")


class Hooks(msgspec.Struct, frozen=True):
    """How objects and streams become numbers and back.

    Attributes:
        export: gives the number of an object of this side.
        adopt: gives the object for a number of the other side; called with the declared type.
        confirm: is told the declared type of a number that `export` gave.
    """

    export: Callable[[Any], int]
    adopt: Callable[[type, Any], Any]
    confirm: Callable[[type, Any], Any]


class Codec:
    """Encodes and decodes what one method takes and gives.

    Args:
        arguments: the record of the arguments.
        result: the type of the result, as msgpack takes it.
        hooks: needed when objects or streams may be among it.

    Attributes:
        encode: value to bytes.
        take_arguments: bytes to arguments.
        check_arguments: like it, of what this side encoded.
        take_result: bytes to a result, or to one item of a stream.
        check_result: like it, of what this side encoded.
    """

    __slots__ = ("check_arguments", "check_result", "encode", "take_arguments", "take_result")

    def __init__(self, arguments: type[msgspec.Struct], result: Any, hooks: Hooks | None = None) -> None:
        export, adopt, confirm = (hooks.export, hooks.adopt, hooks.confirm) if hooks else (None, None, None)
        decoder = msgspec.msgpack.Decoder
        self.encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=export).encode
        self.take_arguments: Callable[[Any], Any] = decoder(arguments, dec_hook=adopt).decode
        self.check_arguments: Callable[[Any], Any] = decoder(arguments, dec_hook=confirm).decode
        self.take_result: Callable[[Any], Any] = decoder(result, dec_hook=adopt).decode
        self.check_result: Callable[[Any], Any] = decoder(result, dec_hook=confirm).decode


class ItemCodec:
    """Encodes and decodes the items of a stream.

    Args:
        item: their type, as msgpack takes it.
        hooks: those of the connection.

    Attributes:
        encode: item to bytes.
        check: bytes to an item, of what this side encoded.
        take_batch: bytes to (items, whether they are the last).
        take_opening: bytes to (number of the stream, items, whether they are the last).
        plain: whether no item holds an object, so that nothing has to be noted while one is encoded.
    """

    __slots__ = ("check", "encode", "plain", "take_batch", "take_opening")

    def __init__(self, item: Any, hooks: Hooks) -> None:
        decoder = msgspec.msgpack.Decoder
        items = list[item]
        self.plain = not holds_references(item)
        self.encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=hooks.export).encode
        self.check: Callable[[Any], Any] = decoder(item, dec_hook=hooks.confirm).decode
        self.take_batch: Callable[[Any], tuple[list[Any], bool]] = decoder(
            tuple[items, bool], dec_hook=hooks.adopt
        ).decode
        self.take_opening: Callable[[Any], tuple[int, list[Any], bool]] = decoder(
            tuple[int, items, bool], dec_hook=hooks.adopt
        ).decode


def argument_error(method: Method, error: Exception) -> TypeMismatch:
    """Return the error that says which argument does not fit, and where in it."""
    text = str(error)
    match = _FIRST_INDEX.search(text)
    names = method.arguments.__struct_fields__
    if match is None or int(match[1]) >= len(names):
        return TypeMismatch(where=f"{method.label}, arguments", detail=text)
    place = f"{method.label}, argument {names[int(match[1])]!r}"
    # The path goes on inside the argument; at its top there is nothing left to say.
    return TypeMismatch(where=place, detail=_FIRST_INDEX.sub("$", text, count=1).removesuffix(" - at `$`"))


def result_error(method: Method, error: Exception) -> TypeMismatch:
    """Return the error that says how a result does not fit."""
    return TypeMismatch(where=f"{method.label}, result", detail=str(error))
