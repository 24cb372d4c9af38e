"""The objects of this side that the other side may call, and those of the other side that we may call.

Belongs here: numbers, the two tables of a connection, how often an object is held, running down. Never here: sending
(`_session`), handlers.

Every crossing of an object gets a number of its own, so each number is released exactly once and nothing is counted.
Numbers belong to one connection and one direction, and are not used again. On the wire a positive number is an object
of the sender, a negative one an object of the receiver, which gets its own object back.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..security import Policy
    from ._contract import Contract, Method

__all__ = ["Export", "Exports", "Held", "Imports", "PlainCall", "Root", "Stream"]


class Stream(Protocol):
    """What an exported stream must be able to do."""

    def close(self) -> None:
        """Stop: the other side does not want more."""
        ...


class Export:
    """One number that was given to the other side.

    Attributes:
        id: the number.
        target: the object or the stream.
        contract: what can be called; ``None`` for a stream.
        message_id: the request whose answer carried it, or 0.
        root: where it is served, if it was not made by a call.
        guarded: whether some of its methods may not be called by everybody.
        headers: those of calls of it for which a `PlainCall` is kept.
    """

    __slots__ = ("contract", "guarded", "headers", "id", "message_id", "root", "target")

    def __init__(
        self, id: int, target: Any, contract: Contract | None, message_id: int, *, root: Root | None = None
    ) -> None:
        self.id = id
        self.target = target
        self.contract = contract
        self.message_id = message_id
        self.root = root
        self.guarded = root is not None and bool(root.policies)
        self.headers: list[bytes] = []


class PlainCall:
    """What is needed to handle a call of a simple method that everybody may call, found by the header of the call.

    Attributes:
        target: the object.
        method: the method.
        name: of the method.
        take_arguments: bytes to arguments.
        encode: result to bytes.
        check_result: like the taking of a result, of what this side encoded.
    """

    __slots__ = ("check_result", "encode", "method", "name", "take_arguments", "target")

    def __init__(self, target: Any, method: Method) -> None:
        codec = method.codec
        self.target = target
        self.method = method
        self.name = method.name
        self.take_arguments = codec.take_arguments
        self.encode = codec.encode
        self.check_result = codec.check_result


class Held:
    """Counts over all connections of a service how often an object is held, to know when it is not any more."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, target: object) -> None:
        """Note one more holder; the object must stay alive until `remove`."""
        self._counts[id(target)] = self._counts.get(id(target), 0) + 1

    def remove(self, target: object) -> bool:
        """Note one holder less; return whether it was the last."""
        count = self._counts[id(target)] - 1
        if count:
            self._counts[id(target)] = count
            return False
        del self._counts[id(target)]
        return True

    def __len__(self) -> int:
        return len(self._counts)


class Exports:
    """What the other side of one connection may call.

    Args:
        held: shared by all connections of a service.
        maximum: most numbers that the other side may hold.
        label: what the connection calls itself.
    """

    def __init__(self, held: Held, maximum: int, label: str) -> None:
        self._held = held
        self._maximum = maximum
        self._label = label
        self._next = 1
        self.table: dict[int, Export] = {}
        self.plain: dict[bytes, PlainCall] = {}

    def add(self, target: Any, contract: Contract | None, *, message_id: int = 0, root: Root | None = None) -> Export:
        """Give an object or a stream a number.

        Raises:
            QuotaExceeded: the other side holds as many as it may.
        """
        if len(self.table) >= self._maximum:
            raise QuotaExceeded(port=self._label, setting="max_objects", limit=self._maximum)
        export = self.table[self._next] = Export(self._next, target, contract, message_id, root=root)
        self._next += 1
        if contract is not None and root is None:
            self._held.add(target)
        return export

    def keep_plain(self, export: Export, method: Method, header: bytes) -> None:
        """Find calls of a method by their header from now on, as long as the number is given.

        Args:
            export: whose method it is.
            method: the method, which is simple.
            header: of its calls without context.
        """
        if header not in self.plain:
            self.plain[header] = PlainCall(export.target, method)
            export.headers.append(header)

    def remove(self, number: int) -> Export | None:
        """Take a number back; return the export when its object has to be run down now."""
        export = self.table.pop(number, None)
        if export is not None:
            for header in export.headers:
                del self.plain[header]
        if export is None or export.root is not None:
            return None
        if export.contract is None:
            export.target.close()
            return None
        return export if self._held.remove(export.target) else None


class Imports:
    """What we may call at the other side of one connection.

    Args:
        dropped: called with a number when its proxy was collected without having been closed; may be called anywhere.
    """

    def __init__(self, dropped: Callable[[int], None]) -> None:
        self._dropped = dropped
        self._table: dict[int, weakref.ref[Any]] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, number: int) -> bool:
        return number in self._table

    def add(self, number: int, proxy: Any) -> None:
        """Note the proxy of a number."""

        def collected(_reference: object) -> None:
            if self._table.pop(number, None) is not None:
                self._dropped(number)

        self._table[number] = weakref.ref(proxy, collected)

    def remove(self, number: int) -> bool:
        """Forget a number that is released on purpose; return whether it was known."""
        return self._table.pop(number, None) is not None

    def unknown(self, numbers: Iterable[int]) -> list[int]:
        """Return those that no proxy stands for."""
        return [number for number in numbers if number not in self._table]

    def clear(self) -> None:
        """Forget everything, because the connection is over."""
        self._table.clear()


class Root:
    """An object that is served under its interface.

    Attributes:
        target: the object.
        contract: what can be called.
        policy: who may bind to it, or ``None`` for everybody who is connected.
        policies: who may call single methods, by number.
    """

    __slots__ = ("contract", "policies", "policy", "target")

    def __init__(
        self, target: Any, contract: Contract, policy: Policy | None = None, policies: dict[int, Policy] | None = None
    ) -> None:
        self.target = target
        self.contract = contract
        self.policy = policy
        self.policies = policies or {}
