"""A received message that came with more than data: a view, handles, memory of the sender, the wish for a receipt.

Belongs here: `RichMessage`, and what the user can do with what came. Never here: checking what came (`_arrivals`).

The data of such a message looks like that of any other. When it travelled as a view it is copied out of the shared
section the first time that somebody asks for it, and the range goes back to its sender at once. Who asks for the view
first reads it where it lies, until the message is released.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ..handles import Handle, dispose
from ..limits import PortLimits
from ..memory import copy_out, make_bytes
from ..memory_errors import UnsuitableHandle
from ..wire import Status
from ._arrived import Arrived
from ._direct import carries_data, read_now
from ._message import Transfer

if TYPE_CHECKING:
    from collections.abc import Sequence  # msgspec reads annotations only to find class variables

    from ..memory import View
    from ..wire import SecurityRecord  # likewise
    from ._communication import CommunicationPort
    from ._direct import DirectAccess  # msgspec reads annotations only to find class variables
    from ._sharing import PortView  # likewise

__all__ = ["RichMessage"]


SHARED_SHARE: Final = 4
"""Bytes in shared memory that count as one: nothing carries them through the connection, but somebody reads them."""


class RichMessage(Arrived, eq=False, kw_only=True):
    """A message that came with attributes. Public attributes like `Message`."""

    own_view: PortView | None = None
    view_is_data: bool = False
    view_asked: bool = False
    own_handles: Sequence[Handle] = ()
    own_states: Sequence[bytes] = ()
    own_direct: DirectAccess | None = None
    own_data: bytes | None = None
    wire_size: int = 0
    wants_receipt: bool = False
    own_permission: SecurityRecord | None = None

    @property  # type: ignore[misc]  # a field of the base class, which costs nothing there
    def data(self) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # same
        """The payload, however it travelled."""
        if self.own_data is None:
            self.own_data = self._take_data()
        return self.own_data

    def _take_data(self) -> bytes:
        direct, view = self.own_direct, self.own_view
        if direct is not None and carries_data(direct):
            return make_bytes(direct.length, partial(read_now, direct))
        if view is None or not self.view_is_data:
            return b""
        copy = copy_out(view.data)
        if not self.view_asked:
            self.own_view = None
            view.release()
        return copy

    def peek(self, size: int) -> bytes:
        """Return a copy of the beginning of the data without copying the rest; nothing of what is read directly.

        Args:
            size: most bytes to copy.
        """
        if self.own_data is not None:
            return self.own_data[:size]
        return bytes(self.own_view.data[:size]) if self.view_is_data and self.own_view is not None else b""

    @property
    def size(self) -> int:
        if self.own_data is None:
            if self.own_direct is not None and carries_data(self.own_direct):
                return self.own_direct.length
            if self.view_is_data and self.own_view is not None:
                return self.own_view.length
        return len(self.data)

    @property
    def charge(self) -> int:
        return self.wire_size

    @property
    def effort(self) -> int:
        view = self.own_view
        return self.wire_size + (view.length // SHARED_SHARE if view is not None else 0)

    @property
    def counted(self) -> bool:
        return self.wants_receipt or super().counted

    def note_taken(self) -> None:
        if self.wants_receipt:
            self.channel.give_receipt(self.id)

    @property
    def permission(self) -> SecurityRecord | None:
        return self.own_permission

    @property
    def view(self) -> View | None:
        self.view_asked = True
        return self.own_view

    @property
    def transfer(self) -> Transfer:
        if self.own_direct is not None:
            return self.own_direct.transfer
        return Transfer.VIEW if self.view_is_data or self.own_view is not None else Transfer.INLINE

    @property
    def direct(self) -> DirectAccess | None:
        return self.own_direct if self.own_direct is not None and not carries_data(self.own_direct) else None

    @property
    def handles(self) -> tuple[Handle, ...]:
        return tuple(self.own_handles)

    def take_handle(self, index: int = 0) -> Handle:
        try:
            handle = self.own_handles[index]
        except IndexError:
            raise UnsuitableHandle(
                kind="none", reason=f"the message came with {len(self.own_handles)} handles, not with number {index}"
            ) from None
        return Handle(handle.detach())

    def take_given_view(self) -> View | None:
        if self.view_is_data:
            return None
        view, self.own_view = self.own_view, None
        return view

    def take_port(self, index: int = 0, *, limits: PortLimits | None = None) -> CommunicationPort:
        from ._passing import go_on

        handle = self.take_handle(index)
        return go_on(handle, self.own_states[index], limits if limits is not None else PortLimits())

    def release(self) -> None:
        if not self.answered:
            super().release()
        self.let_go()

    def let_go(self) -> None:
        """Give back what came with the message, but for what was taken from it."""
        if self.own_handles:
            dispose(self.own_handles)
        if self.wants_receipt:
            self.channel.refuse_receipt(self.id, Status.ABANDONED)
        view = self.own_view
        if view is not None:
            self.own_view = None
            view.release()
