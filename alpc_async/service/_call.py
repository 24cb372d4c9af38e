"""The call that is being handled, and what calls made by its handler inherit.

Belongs here: `Call` and `HandledCall`, `current_call`, the context of an outgoing call. Never here: sending, dispatch.
"""

from __future__ import annotations

import math
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..port import DEFAULT, Default, Message, Way
from ._carried import Arriving  # msgspec reads annotations only to find class variables
from ._contract import Method
from ._layout import CallContext, encode, pack_call

if TYPE_CHECKING:
    from ..memory import View
    from ..port import CommunicationPort
    from ..security import Identity

__all__ = [
    "NO_CONTEXT",
    "Call",
    "CallOptions",
    "HandledCall",
    "current",
    "current_call",
    "get_current",
    "header",
    "outgoing",
    "set_current",
]

_NUMBERS: Final[dict[Way, int]] = {"auto": 0, "inline": 1, "view": 2}
_WAYS: Final[dict[int, Way]] = {number: way for way, number in _NUMBERS.items()}
"""What a caller may ask for; a number that is not known here asks for nothing."""

NO_CONTEXT: Final = CallContext()
"""What a call brings along that brings nothing."""


class CallOptions(msgspec.Struct, frozen=True):
    """What every call of a proxy gets.

    Attributes:
        timeout: time for the answer, in seconds; ``None`` for no end; by default that of the port's limits.
        priority: a hint for the server; 0 takes over that of the call being handled.
        trace: a W3C trace parent; empty takes over that of the call being handled.
        transfer: how arguments and result travel.
    """

    timeout: float | Default | None = DEFAULT
    priority: int = 0
    trace: str = ""
    transfer: Way = "auto"

    @property
    def plain(self) -> bool:
        """Whether nothing but the timeout differs from what every call has."""
        return not (self.priority or self.trace) and self.transfer == "auto"


class Call(msgspec.Struct, eq=False):
    """A call that this process handles. `current_call` gives it to the handler, interceptors get it as well.

    Attributes:
        message: the message that it came in.
        arguments: the arguments, as a record; ``None`` when the handler has ended.
    """

    message: Message
    arguments: Any

    def keep_view(self, view: View) -> View:
        """Keep the view among the arguments beyond the end of the call; release it yourself later.

        Args:
            view: the view that came as an argument.

        Returns:
            The view.

        Raises:
            ValueError: it did not come with this call, or is kept already.
        """
        raise NotImplementedError

    @property
    def peer(self) -> Identity:
        """Who calls, as the kernel says."""
        return self.message.sender

    @property
    def port(self) -> CommunicationPort:
        """The connection that the call came through."""
        return self.message.port

    @property
    def deadline(self) -> float:
        """When the caller stops waiting, on the clock of ``anyio.current_time``, in seconds; infinity for never."""
        return self.message.deadline

    @property
    def cancelled(self) -> bool:
        """Whether the caller gave up, or is gone."""
        return self.message.cancelled

    @property
    def interface(self) -> str:
        """Name of the interface."""
        raise NotImplementedError

    @property
    def method(self) -> str:
        """Name of the method."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """``"unary"``, ``"stream"`` or ``"oneway"``."""
        raise NotImplementedError

    @property
    def idempotent(self) -> bool:
        """Whether the method is declared so."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Calls that this one is nested in."""
        raise NotImplementedError

    @property
    def priority(self) -> int:
        """What the caller wants for it; larger is more urgent."""
        raise NotImplementedError

    @property
    def trace(self) -> str:
        """The W3C trace parent, or empty."""
        raise NotImplementedError

    @property
    def transfer(self) -> Way:
        """How the caller wants the result to travel: ``"auto"`` as its length says, ``"inline"`` or ``"view"``."""
        raise NotImplementedError

    @property
    def causality(self) -> bytes:
        """An id that this call shares with all calls that led to it, and with all that its handler makes."""
        raise NotImplementedError


class HandledCall(Call, eq=False):
    """A call as the layer sees it: with its contract and what came along.

    Attributes:
        contract_method: what the contract says about the method.
        brought: what came along beside the arguments.
        own_causality: the id that was made for calls of this handler, when the caller sent none.
        arriving: what came with the message for the arguments.
    """

    contract_method: Method
    brought: CallContext = NO_CONTEXT
    own_causality: bytes = b""
    arriving: Arriving | None = None

    def keep_view(self, view: View) -> View:
        if self.arriving is None or not self.arriving.keep_view(view):
            raise ValueError(f"{view!r} is no view among the arguments of this call")
        return view

    @property
    def interface(self) -> str:
        return self.contract_method.label.rpartition(".")[0]

    @property
    def method(self) -> str:
        return self.contract_method.name

    @property
    def kind(self) -> str:
        return self.contract_method.kind

    @property
    def idempotent(self) -> bool:
        return self.contract_method.idempotent

    @property
    def depth(self) -> int:
        return self.brought.depth

    @property
    def priority(self) -> int:
        return self.brought.priority

    @property
    def trace(self) -> str:
        return self.brought.trace

    @property
    def transfer(self) -> Way:
        return _WAYS.get(self.brought.transfer, "auto")

    @property
    def causality(self) -> bytes:
        if not self.own_causality:
            self.own_causality = self.brought.causality or uuid.uuid4().bytes
        return self.own_causality


current: Final[ContextVar[Call | None]] = ContextVar("alpc_async.service.call", default=None)


get_current = current.get
set_current = current.set


def current_call() -> Call:
    """Return the call that this task handles: who calls, until when, which method, whether it was cancelled.

    Raises:
        LookupError: no handler of a service runs here.
    """
    call = current.get()
    if call is None:
        raise LookupError("no call is being handled here; current_call() works inside the methods of a served object")
    return call


def outgoing(call: Call | None, options: CallOptions, timeout: float | None, now: float) -> tuple[bytes, float | None]:
    """Return the context and the timeout of a call that is made now.

    Args:
        call: the call that is being handled, which the new one is nested in.
        options: those of the proxy.
        timeout: what the proxy says, in seconds; ``None`` for no end.
        now: the time on the loop's clock.
    """
    if call is None:
        if options.plain:
            return b"", timeout
        context = CallContext(priority=options.priority, trace=options.trace, transfer=_NUMBERS[options.transfer])
        return encode(context), timeout
    if call.deadline < math.inf:
        left = max(0.0, call.deadline - now)
        timeout = left if timeout is None else min(timeout, left)
    context = CallContext(
        depth=call.depth + 1,
        priority=options.priority or call.priority,
        causality=call.causality,
        trace=options.trace or call.trace,
        transfer=_NUMBERS[options.transfer],
    )
    return encode(context), timeout


def header(object_id: int, number: int, context: bytes) -> bytes:
    """Return the header of a call, with its context."""
    return pack_call(object_id, number, len(context)) + context
