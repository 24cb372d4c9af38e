"""What services decode: arguments, contexts, results, faults, and the state of a connection that is passed on.

Belongs here: one sentence of invariant, and inputs to begin with. Never here: how inputs are made (`mutation`), running
services (tests/service/test_hostile.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

import alpc_async as alpc
from alpc_async.service._handler import _decode_bind as decode_bind  # pyright: ignore[reportPrivateUsage]  # it is fuzzed
from alpc_async.service._handler import _decode_context as decode_context  # pyright: ignore[reportPrivateUsage]
from alpc_async.service._handler import _decode_maximum as decode_maximum  # pyright: ignore[reportPrivateUsage]
from alpc_async.service._handler import _decode_numbers as decode_numbers  # pyright: ignore[reportPrivateUsage]
from alpc_async.service._interface import contract_of
from alpc_async.service._layout import UNREADABLE, decode_special
from alpc_async.wire import PassedState
from tests.service.contracts import Files

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CALL_SEEDS", "check_calls"]


class Loose(alpc.Interface, uuid="0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c77"):
    """Methods whose types say little about what may come."""

    async def any(self, value: Any, numbers: dict[int, float] | None = None) -> set[Any]:
        """Take anything."""
        raise NotImplementedError


_METHODS: Final = [
    method
    for interface in (Files, Loose)
    for method in contract_of(interface).methods.values()
    if not (method.references_in or method.references_out)
]
_DECODERS: Final[list[Callable[[Any], Any]]] = [
    decode_context,
    decode_bind,
    decode_numbers,
    decode_maximum,
    PassedState.decode,
    *(method.codec.take_arguments for method in _METHODS),
    *(method.codec.take_result for method in _METHODS),
]
_FAULTS: Final = {name: fault for method in _METHODS for name, fault in method.faults.items()}


def check_calls(data: bytes) -> None:
    """Any bytes are a value of the declared type, a fault, or an error that its callers expect."""
    number, body = (data[0] if data else 0), data[1:]
    if number % 8 == 7:
        assert isinstance(decode_special(b"\xc1" + body, _FAULTS, 1), alpc.RemoteFault | alpc.Fault)
        return
    decode = _DECODERS[number % len(_DECODERS)]
    try:
        value = decode(memoryview(body))
    except UNREADABLE:
        return
    # What was taken can be said again; sets of anything may hold what has no encoding.
    assert msgspec.msgpack.encode(value, enc_hook=repr)


_encode: Final = msgspec.msgpack.encode

CALL_SEEDS: Final[tuple[bytes, ...]] = (
    *(bytes([number]) + body for number in range(24) for body in (_encode([b"x", 1]), _encode(["x", {}, 2.5]))),
    bytes([0]) + _encode({"d": 2, "trace": "00-aa", "causality": b"c" * 16}),
    bytes([1]) + _encode(["0b6f6a52-9e7c-4f2f-8a0f-0d6d3a6b7c01", 1, 2]),
    bytes([7, 1]) + _encode(["NoSuchEntry", {"path": "x", "tried": 2}]),
    bytes([7, 2]) + _encode([1, "reason", "incident"]),
    bytes([4]) + _encode(["server", {"max_handles": 1}, 3, [1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], 1, False, "name"]),
    bytes([16, 0x91]) + b"\x91" * 1500,
    bytes([16]) + b"\x91\xd6\xff\x00\x00\x00\x01" + b"\xc7\x03\x05abc",
)
"""Inputs to begin with."""
