"""What a user wants to go with a message.

Belongs here: `Extras`, and taking handles over. Never here: how any of it travels (`_transfers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ..handles import Handle, close_all
from ..wire import SecurityRecord
from ._direct import Declared
from ._sharing import PortView
from ._ways import Way  # msgspec reads annotations

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Extras", "moved_by", "overhead", "take_handles"]


class Extras(msgspec.Struct, kw_only=True):
    """What a user wants to go with a message.

    Attributes:
        view: a range of shared memory.
        direct: memory of this process that the receiver may reach.
        handles: descriptors; they belong to this from now on.
        security: a security context.
        receipt: whether the receiver shall tell when the message is taken.
        system: whether it is a request of the framework itself.
        way: how the data travels.
    """

    view: PortView | None = None
    direct: Declared | None = None
    handles: Sequence[Handle] = ()
    states: Sequence[bytes] = ()
    security: SecurityRecord | None = None
    receipt: bool = False
    system: bool = False
    way: Way = "auto"


def overhead(extras: Extras, *, lent: bool) -> int:
    """Return the most bytes of the quota that attributes take.

    Args:
        extras: what goes with the message.
        lent: its data travels as a view.
    """
    size = 32 if lent or extras.view is not None or extras.way == "view" else 0
    if extras.security is not None:
        size += 8
    if extras.direct is not None:
        size += 28 + 20 * len(extras.direct.buffers)
    if extras.handles:
        size += 16 + sum(len(state) for state in extras.states) + 8 * len(extras.handles)
    return size


def moved_by(data: bytes | memoryview, extras: Extras) -> int:
    """Return how many bytes a message moves, whatever way they take.

    Args:
        data: its payload.
        extras: what goes with it; a view that goes back to its owner moves nothing.
    """
    view = extras.view
    return len(data) + (view.length if view is not None and view.record is None else 0)


def take_handles(handles: Iterable[object]) -> list[Handle]:
    """Take handles over from a user, whose own objects are closed afterwards, whatever happens.

    Raises:
        TypeError: one of them is no handle, or they are no sequence.
        ValueError: one of them is closed.
    """
    if isinstance(handles, Handle):
        handles.close()
        raise TypeError("handles are given as a list, also a single one: handles=[handle]")
    taken: list[Handle] = []
    try:
        for handle in handles:
            if not isinstance(handle, Handle):
                raise TypeError(f"handles are alpc.Handle objects, not {type(handle).__name__}; wrap os.dup(fd) in one")
            taken.append(handle.moved())
    except BaseException:
        close_all(taken)
        close_all(handle for handle in handles if isinstance(handle, Handle))
        raise
    return taken
