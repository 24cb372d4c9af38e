"""A client that connects again by itself.

Belongs here: the policy, connecting again, what becomes of calls that were under way. Never here: single connections
(`_connect`).

Nothing is repeated silently: a call that may have reached the old server ends with `OutcomeUnknown`, unless its method
is declared idempotent; a call that certainly did not reach it is made on the new connection. Objects and streams belong
to the connection that they came through and end with it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from ..contract_errors import OutcomeUnknown
from ..errors import ConnectionRefused, DeadlineExceeded, Disconnected, NameNotFound, PortClosed, RemoteFault
from ..wire import Status
from ._client_end import ClientEnd
from ._interface import contract_of
from ._proxy import state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..port import CommunicationPort
    from ._interceptor import Intercepted, Interceptor
    from ._interface import Interface
    from ._proxy import ProxyState

__all__ = ["Reconnect", "Reconnector", "open_reconnecting"]


class Reconnect(msgspec.Struct, frozen=True, kw_only=True):
    """How a client connects again after its server went away.

    Attributes:
        timeout: how long it tries each time, in seconds; ``None`` for no end. Then calls fail with the last error.
        pause: before the second attempt, in seconds; doubled each time, and shortened by up to a half at random.
        longest: longest pause between attempts, in seconds.
    """

    timeout: float | None = 30.0
    pause: float = 0.02
    longest: float = 1.0


_PASSING = (NameNotFound, ConnectionRefused, Disconnected, DeadlineExceeded)


class Reconnector:
    """Stands around every call of a client, and keeps it connected.

    Args:
        policy: how to connect again.
        open_port: opens a connection.
        interface: what the server has to serve.
        interceptors: what stands around each call inside of this one.
    """

    def __init__(
        self,
        policy: Reconnect,
        open_port: Callable[[], Awaitable[CommunicationPort]],
        interface: type[Interface],
        interceptors: Sequence[Interceptor],
    ) -> None:
        self._policy = policy
        self._open_port = open_port
        self._interface = interface
        self._contract = contract_of(interface)
        self._interceptors = (self, *interceptors)
        self._end: ClientEnd | None = None
        self._state: ProxyState | None = None
        self._lock = anyio.Lock()
        self._closed = False
        self.connections = 0

    async def __call__(self, call: Intercepted, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """Make one call on a connection that works. Cancelling ends it."""
        while True:
            await self._ensure()
            try:
                return await proceed()
            except Disconnected as error:
                if error.sent and not call.idempotent:
                    raise OutcomeUnknown(method=f"{call.interface}.{call.method}", reason=error.reason) from error

    async def _ensure(self) -> None:
        if self._closed:
            raise PortClosed(port=f"this proxy of {self._contract.name}")
        if self._end is not None and self._end.connected:
            return
        async with self._lock:
            if self._end is None or not self._end.connected:
                await self._connect_again()

    async def _connect_again(self) -> None:
        pause = self._policy.pause
        error: Exception | None = None
        with anyio.move_on_after(self._policy.timeout):
            while True:
                try:
                    await self.connect()
                    return
                except _PASSING as failure:
                    error = failure
                except RemoteFault as failure:
                    if failure.status != Status.DRAINING:
                        raise
                    error = failure
                await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, keeps no secret
                pause = min(2 * pause, self._policy.longest)
        raise (
            error
            if error is not None
            else DeadlineExceeded(
                what="connecting again", timeout=self._policy.timeout or 0.0, setting="Reconnect.timeout"
            )
        )

    async def connect(self) -> Interface:
        """Connect, and let the proxy speak through the new connection from now on.

        Returns:
            A proxy of the new connection; the first one stays valid, the others are forgotten.
        """
        end = ClientEnd(await self._open_port(), self._interceptors)
        try:
            proxy = await end.bind(self._interface)
        except BaseException:
            await end.aclose()
            raise
        old, self._end = self._end, end
        self.connections += 1
        if self._state is None:
            self._state = state_of(proxy)
            self._state.reconnector = self
        else:
            self._state.move(end.session, state_of(proxy).id, proxy)
        if old is not None:
            await old.aclose()
        return proxy

    def current(self) -> ProxyState:
        """Return what the proxy knows that `connect` gave first."""
        if self._state is None:
            raise PortClosed(port=f"this proxy of {self._contract.name}")
        return self._state

    async def aclose(self) -> None:
        """Close the connection for good. Completes also when cancelled; may be repeated."""
        self._closed = True
        if self._end is not None:
            await self._end.aclose()


async def open_reconnecting(
    policy: Reconnect,
    open_port: Callable[[], Awaitable[CommunicationPort]],
    interface: type[Any],
    interceptors: Sequence[Interceptor],
) -> Any:
    """Make a proxy that connects again by itself; the first connection must succeed at once.

    Args:
        policy: how to connect again.
        open_port: opens a connection.
        interface: what the server has to serve.
        interceptors: what stands around each call, the outermost first.
    """
    reconnector = Reconnector(policy, open_port, interface, interceptors)
    proxy = await reconnector.connect()
    state_of(proxy).close = reconnector.aclose
    return proxy
