"""What stands behind a service port: where its messages go, what its clients hold, how it stops.

Belongs here: `Service`. Never here: what users see of it (`_serve`), handling a call (`_handler`), tasks
(`_dispatcher`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from ..completion import core_of
from ..errors import DeadlineExceeded
from ..link import current_loop
from ..port import Arrived, MessageType
from ._dispatcher import Dispatcher
from ._handler import handle_any, make_handler
from ._management import BUILT_IN, IntrospectionServer, ManagementServer
from ._session import RUNDOWN_TIMEOUT, Services, Session
from ._statistics import ServiceStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..completion import CompletionPort
    from ..port import Channel, CommunicationPort, ConnectionPort
    from ._call import Call
    from ._dispatcher import Worker
    from ._objects import Root

__all__ = ["Service"]

_logger = logging.getLogger("alpc_async.service")


class Service:
    """Serves objects at a connection port.

    Args:
        port: the connection port; owned from now on.
        completion_port: where its messages wait; likewise.
        services: what is served.
        maximum: most handlers in flight at the same time.
        left: called with the port of a client that is gone, after everything it held was run down.

    Attributes:
        port: the connection port.
        opened_at: when it was opened, on the clock of ``anyio.current_time``, in seconds.
        stopping: whether it takes no new calls.
        stopped: set when it was asked to stop and its calls have ended, or had their time.
    """

    def __init__(
        self,
        port: ConnectionPort,
        completion_port: CompletionPort,
        services: Services,
        *,
        maximum: int,
        left: Callable[[CommunicationPort], Awaitable[object]] | None,
    ) -> None:
        self.port = port
        self._services = services
        self._completion_port = completion_port
        self._left = left
        self._loop = current_loop()
        self._sessions: dict[Channel, Session] = {}
        handle = make_handler(self._sessions, self._handle_other)
        self._dispatcher = Dispatcher(self._loop, core_of(completion_port).queue, handle, maximum=maximum)
        self._dispatcher.start()
        self.opened_at = self._loop.time()
        self.stopping = False
        self.stopped = anyio.Event()
        for root in services.roots.values():
            if isinstance(root.target, IntrospectionServer | ManagementServer):
                root.target.service = self

    def statistics(self) -> ServiceStatistics:
        """Return what was done so far, and what is held now."""
        return ServiceStatistics(
            connections=len(self._sessions),
            handled=self._dispatcher.handled,
            failed=self._services.failed,
            running=self._dispatcher.running,
            workers=self._dispatcher.size,
            objects=len(self._services.held),
            references=sum(len(session.exports.table) for session in self._sessions.values()),
        )

    def now(self) -> float:
        """Return the time on the clock of ``anyio.current_time``, in seconds."""
        return self._loop.time()

    def served(self) -> list[Root]:
        """Return what is served, apart from the interfaces that every port has."""
        return [root for uuid, root in self._services.roots.items() if uuid not in BUILT_IN]

    def calls(self) -> list[tuple[Call, float]]:
        """Return the calls that are being handled, each with the time when its handler started.

        The times are on the clock of ``anyio.current_time``, in seconds.
        """
        return self._dispatcher.calls()

    def stop_soon(self, grace: float) -> None:
        """Take no new calls, give those that run some time, then set `stopped`.

        Args:
            grace: how long, in seconds.
        """
        self.stopping = True

        async def stop() -> None:
            try:
                await self.drain(grace)
            except DeadlineExceeded:
                _logger.warning("%r stops while calls are running", self)
            finally:
                self.stopped.set()

        self._dispatcher.spawn(stop, "alpc_async service stop")

    def __repr__(self) -> str:
        names = ", ".join(sorted(root.contract.name for root in self.served()))
        return f"<ServicePort {self.port.name!r}: {names}>"

    # -- messages ----------------------------------------------------------------------------------------------------

    async def _handle_other(self, message: Arrived, worker: Worker) -> None:
        kind = message.type
        if kind is MessageType.REQUEST or kind is MessageType.DATAGRAM:
            session = self._sessions.get(message.channel)
            if session is None:
                session = Session(message.port, self._loop, self._services, self._dispatcher)
                self._sessions[message.channel] = session
            await handle_any(session, message, worker)
        else:
            await self._notice(message)

    async def _notice(self, message: Arrived) -> None:
        if message.type is MessageType.CANCELED:
            return
        if message.type is MessageType.LOST_REPLY:
            session = self._sessions.get(message.channel)
            if session is not None:
                session.reply_lost(message.id)
            return
        session = self._sessions.pop(message.channel, None)
        if session is not None:
            await session.end()
        if self._left is not None:
            try:
                await self._left(message.port)
            except Exception:
                _logger.exception("what was called because %s has left failed", message.port)

    # -- ending ------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float | None) -> None:
        """Take no new calls and wait for those that run; arguments and errors like `ServicePort.drain`."""
        self.stopping = True
        await self.port.drain(timeout)

    async def aclose(self) -> None:
        """Cancel the handlers, run down every object, close all connections; see `ServicePort.aclose`."""
        try:
            await self._dispatcher.stop(RUNDOWN_TIMEOUT)
        finally:
            sessions = list(self._sessions.values())
            self._sessions.clear()
            for session in sessions:
                self._dispatcher.spawn(session.end, "alpc_async service end")
            try:
                await self.port.aclose()
                await self._dispatcher.wait_spawned(RUNDOWN_TIMEOUT)
            finally:
                self._completion_port.close()
