"""What travels beside the bytes of a call: handles, and one view.

Belongs here: collecting them while arguments or results are encoded, and taking them out of a message while they are
decoded. Never here: bytes (`_codec`), objects (`_objects`), sending.

On the wire a handle is its index among the handles of the message, and the view is 0. Nothing of that is believed: an
index that is not there, or that is used twice, does not fit. What the values do not name is closed with the message.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ..handles import Handle, ReceivedHandle, close_all
from ..memory import View
from ..memory_errors import UnsuitableHandle, ViewInUse
from ..port import arrived

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..port import CommunicationPort, Message

__all__ = ["CARRIED", "Arriving", "Leaving", "carried_in", "close_carried", "give_up_carried"]

CARRIED: Final[tuple[type, ...]] = (Handle, View)
"""What can travel beside the bytes of a call, as it is declared."""

_PLAIN: Final = (str, bytes, bytearray, memoryview, int, float, type(None))


class Leaving:
    """Handles and the view of a call or an answer that is being encoded.

    Args:
        port: the connection.
        given: the view that came with the call, which may go back with its answer.

    Attributes:
        handles: the handles, in the order in which they were met.
        view: the view, or ``None``.
    """

    __slots__ = ("_declared", "_given", "_port", "_views", "handles", "view")

    def __init__(self, port: CommunicationPort, given: View | None = None) -> None:
        self._port = port
        self._given = given
        self.handles: list[Handle] = []
        self.view: View | None = None
        self._views = 0
        self._declared: set[tuple[type, int]] = set()

    def add(self, value: Handle | View) -> int:
        """Note a value; return what stands for it. Whether it can be sent is looked at by `confirm`."""
        if isinstance(value, Handle):
            self.handles.append(value)
            return len(self.handles) - 1
        self.view = value
        self._views += 1
        return self._views - 1

    def confirm(self, declared: type, index: Any) -> Handle | View:
        """Return the value that an index stands for, where that type is declared.

        Raises:
            ValueError: there is none, or it cannot be sent.
        """
        kind = Handle if declared is Handle else View
        if not isinstance(index, int) or not 0 <= index < (len(self.handles) if kind is Handle else self._views):
            raise ValueError(f"expected `{kind.__name__}`")
        self._declared.add((kind, index))
        if kind is Handle:
            return self._confirm_handle(self.handles[index])
        if index:
            raise ValueError("one view travels with a call or an answer, not two")
        view = self.view
        if view is None or view.released:
            raise ValueError("the view was released; allocate another one")
        if view is not self._given and not self._port.allocated(view):
            raise ValueError("the view was not allocated on this connection; see alpc.port_of() and port.allocate()")
        return view

    def _confirm_handle(self, handle: Handle) -> Handle:
        if handle.closed:
            raise ValueError("the handle is closed: whatever it was passed to consumed it; pass handle.duplicate()")
        if sum(other is handle for other in self.handles) > 1:
            raise ValueError("the same handle is given twice; pass handle.duplicate()")
        if handle.state:
            raise ValueError("a connection is passed on with a message of its own, not with a call")
        return handle

    def check(self) -> None:
        """Raise when something was met where nothing of its kind is declared.

        Raises:
            ValueError: that is so.
        """
        if len(self._declared) != len(self.handles) + self._views:
            raise ValueError("a handle or a view stands where none is declared")


class Arriving:
    """Handles and the view of a message whose values are being decoded.

    Args:
        message: the message.

    Attributes:
        view: the view that was named, until somebody keeps it.
    """

    __slots__ = ("_message", "_taken", "view")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._taken: list[Handle] = []
        self.view: View | None = None

    def take(self, declared: type, index: Any) -> Handle | View:
        """Return what an index stands for; the handle is the caller's from now on.

        Raises:
            ValueError: there is nothing of that index, or it was named before.
        """
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ValueError(f"expected the index of a `{declared.__name__}`")
        return self._take_handle(index) if declared is Handle else self._take_view(index)

    def _take_handle(self, index: int) -> Handle:
        try:
            # Whoever is given it may forget it: it is closed without a word then.
            handle = ReceivedHandle(self._message.take_handle(index).detach())
        except UnsuitableHandle as error:
            raise ValueError(error.reason) from None
        except ValueError:
            raise ValueError(f"handle {index} is named twice") from None
        self._taken.append(handle)
        return handle

    def _take_view(self, index: int) -> View:
        if index:
            raise ValueError("one view travels with a call or an answer; its index is 0")
        if self.view is not None:
            raise ValueError("the view is named twice")
        self.view = arrived(self._message).take_given_view()
        if self.view is None:
            raise ValueError("the message came without a view")
        return self.view

    def keep_view(self, view: View) -> bool:
        """Leave the view to whoever uses it; return whether it is the one that came with the message."""
        if view is not self.view:
            return False
        self.view = None
        return True

    def release_view(self) -> None:
        """Give the view back, unless it was kept: now, or with the last buffer of it that is alive."""
        view, self.view = self.view, None
        if view is not None:
            try:
                view.release()
            except ViewInUse:
                view.let_go()

    def close(self) -> None:
        """Close what was taken, because the values do not fit."""
        close_all(self._taken)
        self.release_view()


def carried_in(value: Any) -> Iterator[Handle | View]:
    """Return the handles and views anywhere inside of a value that crosses.

    Args:
        value: arguments or a result, whether they fit or not.
    """
    pending: list[Any] = [value]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if isinstance(part, Handle | View):
            yield part
        elif not isinstance(part, _PLAIN) and id(part) not in seen:
            seen.add(id(part))
            pending.extend(_parts_of(part))


def _parts_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        mapping = cast("dict[Any, Any]", value)  # type: ignore[redundant-cast]  # for pyright
        return [*mapping.keys(), *mapping.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(cast("list[Any]", value))
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return []


def close_carried(value: Any) -> None:
    """Close the handles anywhere inside of a value; those that were sent are closed already."""
    close_all(found for found in carried_in(value) if isinstance(found, Handle))


def give_up_carried(value: Any) -> None:
    """Close the handles and release the views anywhere inside of a value that nobody takes."""
    close_carried(value)
    for found in carried_in(value):
        if isinstance(found, View):
            found.let_go()
