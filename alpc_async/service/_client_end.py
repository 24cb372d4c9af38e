"""The client's end of a connection, and binding to the interfaces of the other side.

Belongs here: `ClientEnd`, asking for the object that serves an interface, comparing contracts. Never here: how a
connection comes about (`_connect`), calls (`_calling`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..completion import CompletionPort, core_of
from ..contract_errors import TypeMismatch, UnknownInterface
from ..errors import AccessDenied, RemoteFault
from ..link import current_loop
from ..port import MessageType, PacketQueue
from ..wire import Status
from ._dispatcher import Dispatcher
from ._fingerprint import contract_fingerprint
from ._handler import handle_any, make_handler
from ._interface import Interface, contract_of
from ._layout import BIND, CONNECTION, UNREADABLE, Bind, Bound, encode, pack_call
from ._proxy import make_proxy
from ._session import Services, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..link import Loop
    from ..port import Arrived, Channel, CommunicationPort, Message
    from ._contract import Contract
    from ._dispatcher import Worker
    from ._interceptor import Interceptor
    from ._schema import InterfaceSchema

__all__ = ["ClientEnd", "bind_session", "lone_session"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)

_logger = logging.getLogger("alpc_async.service")
_decode_bound = msgspec.msgpack.Decoder(Bound).decode

MAX_CALLBACKS = 256
"""Calls of the server that a client handles at the same time."""


class ClientEnd:
    """The client's end of a connection: handles what the server sends, and knows the objects of both sides.

    Args:
        port: the connection; owned from now on.
        interceptors: what stands around each call, the outermost first.
        services: what the client itself serves, if it does.
    """

    def __init__(
        self, port: CommunicationPort, interceptors: Sequence[Interceptor] = (), services: Services | None = None
    ) -> None:
        loop = current_loop()
        self._port = port
        self._completion_port = CompletionPort()
        self._completion_port.associate(port)
        if services is None:
            limits = port.limits
            services = Services({}, max_objects=limits.max_objects, max_depth=limits.max_call_depth)
        self._sessions: dict[Channel, Session] = {}
        handle = make_handler(self._sessions, self._handle_other)
        self._dispatcher = Dispatcher(loop, core_of(self._completion_port).queue, handle, maximum=MAX_CALLBACKS)
        self.session = Session(port, loop, services, self._dispatcher, interceptors)
        self._dispatcher.start()

    async def _handle_other(self, message: Arrived, worker: Worker) -> None:
        if message.type is MessageType.REQUEST or message.type is MessageType.DATAGRAM:
            self._sessions[message.channel] = self.session
            await handle_any(self.session, message, worker)
        else:
            await self._notice(message)

    async def _notice(self, message: Message) -> None:
        if message.type is MessageType.LOST_REPLY:
            self.session.reply_lost(message.id)
        elif message.type is not MessageType.CANCELED:
            await self.session.end()

    @property
    def connected(self) -> bool:
        """Whether the connection is still there, as far as is known."""
        return self._port.connected

    async def aclose(self) -> None:
        """Close the connection, and run down what the server held. Completes also when cancelled; may be repeated."""
        self._dispatcher.cancel()
        try:
            await self._port.aclose()
        finally:
            self._completion_port.close()
            # What the server held is run down in the background: closing must not wait for the user's own code.
            if not self.session.over:
                self._dispatcher.spawn(self.session.end, "alpc_async client end")

    async def bind(self, interface: type[InterfaceT], timeout: float | None = None) -> InterfaceT:
        """Return a proxy for another interface that the server serves on this connection.

        Raises like `bind`. Cancelling leaves the connection as it is.

        Args:
            interface: the interface.
            timeout: time for the answer, in seconds; by default that of requests.
        """
        return await bind_session(self.session, interface, timeout)

    async def bind_number(self, schema: InterfaceSchema) -> int:
        """Return the number of the object that serves an interface of which only the description is known.

        Raises like `bind`. Cancelling leaves the connection as it is.

        Args:
            schema: the description.
        """
        return (await _ask(self.session, schema.name, schema.uuid, schema.version)).object


async def bind_session(session: Session, interface: type[InterfaceT], timeout: float | None = None) -> InterfaceT:
    """Ask the other side of a connection for the object that serves an interface; raises like `bind`."""
    contract = contract_of(interface)
    bound = await _ask(session, contract.name, contract.uuid, contract.version, timeout)
    _compare(session, contract, bound)
    proxy = make_proxy(session, interface, bound.object)
    session.imports.add(bound.object, proxy)
    return proxy


def _compare(session: Session, contract: Contract, bound: Bound) -> None:
    """Tell in the log when both sides have the same version of a contract and not the same contract."""
    if bound.minor != contract.version[1] or not bound.fingerprint:
        return
    ours = contract_fingerprint(contract)
    if ours and ours != bound.fingerprint:
        _logger.warning(
            "%s: both sides have version %d.%d of %s, and their contracts differ (here %s, there %.16s): one of them "
            "was changed without a new version; raise it there, and look with 'alpc schema check'",
            session.port,
            *contract.version,
            contract.name,
            ours,
            bound.fingerprint,
        )


async def _ask(session: Session, name: str, uuid: str, version: tuple[int, int], timeout: float | None = None) -> Bound:
    most = session.port.limits.request_timeout
    data = pack_call(CONNECTION, BIND, 0) + encode(Bind(uuid, *version))

    def drop(answer: Message) -> None:
        session.release_number(_decode_bound(answer.data).object)

    try:
        answer = await session.request(data, most if timeout is None else min(most, timeout), drop)
    except RemoteFault as fault:
        if fault.status == Status.UNKNOWN_INTERFACE:
            raise UnknownInterface(interface=name, uuid=uuid, version=version, offered=fault.reason) from None
        if fault.status == Status.ACCESS_DENIED:
            raise AccessDenied(what=f"use {name}", reason=fault.reason) from None
        raise
    try:
        return _decode_bound(answer.data)
    except UNREADABLE as error:
        raise TypeMismatch(
            where=f"binding {name}, answer of the other side", detail=f"{error}; is that a typed service?"
        ) from None


class _NoDispatcher(Dispatcher):
    """Handles nothing, and runs what would run in the background in the foreground."""

    def spawn(self, function: Callable[[], Any], name: str) -> None:
        self._loop.spawn(function, name=name, context=self._context)


def lone_session(port: CommunicationPort, loop: Loop) -> Session:
    """Return a session that can call and cannot be called, for loops on which no tasks run.

    Args:
        port: the connection.
        loop: its loop.
    """
    services = Services({}, max_objects=1, max_depth=0)
    queue = PacketQueue(loop)
    dispatcher = _NoDispatcher(loop, queue, lambda _message, _worker: _nothing(), maximum=1)
    return Session(port, loop, services, dispatcher, can_serve=False)


async def _nothing() -> None:
    return None
