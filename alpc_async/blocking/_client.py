"""The blocking client: a proxy that is driven by hand.

Belongs here: `connect`, `BlockingClient`, `BlockingStream`. Never here: loops and sockets (link), calls (service).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, NoReturn, ParamSpec, TypeVar, overload

from ..contract_errors import TypeMismatch
from ..errors import DeadlineExceeded
from ..limits import PortLimits
from ..link import BlockingLoop
from ..port import DEFAULT, open_connection
from ..security import SAME_USER_OR_ROOT, SecurityQos
from ..service import Interface, bind_session, check_is_interface, lone_session, port_of, with_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from ..memory import View
    from ..port import CommunicationPort, Default, Way
    from ..security import Policy

__all__ = ["BlockingClient", "BlockingOpening", "BlockingStream", "connect"]

InterfaceT = TypeVar("InterfaceT", bound=Interface)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
ParametersT = ParamSpec("ParametersT")


class BlockingStream(Generic[ItemT]):
    """A stream of results as an iterator. Use it as ``with stream:`` when you may leave it before its end.

    Args:
        loop: drives it.
        stream: the stream.
    """

    def __init__(self, loop: BlockingLoop, stream: AsyncIterator[ItemT]) -> None:
        self._loop = loop
        self._stream: Any = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        """Return the next item; block until there is one.

        Raises:
            RemoteFault: the other side failed; what it had produced before has been returned.
            Disconnected: the connection ended.
        """
        try:
            item: ItemT = self._loop.run(self._stream.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
        return item

    def close(self) -> None:
        """End the stream on the other side. Closing again does nothing."""
        self._loop.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _blocking_function(loop: BlockingLoop, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a method of a proxy and blocks until it has an answer."""
    if not inspect.iscoroutinefunction(method):
        return lambda *args, **kwargs: BlockingStream(loop, method(*args, **kwargs))
    run = loop.run

    def call(*args: Any, **kwargs: Any) -> Any:
        result: Any = run(method(*args, **kwargs))
        return BlockingClient(loop, result, None) if isinstance(result, Interface) else result

    return call


class BlockingClient(Generic[InterfaceT]):
    """A service, called from a thread that blocks meanwhile. Made by `connect`; used by the thread that made it.

    ``client.call(Digest.sha256, data)`` is typed like the method; ``client.sha256(data)`` does the same and is typed
    as ``Any``. Streams come as iterators. Objects that a method returns come as further clients. The server cannot call
    back: objects and streams among the arguments are refused, because nothing runs here between two calls.

    Args:
        loop: drives the proxy.
        proxy: the proxy.
        port: the connection, when closing the client closes it.
    """

    def __init__(self, loop: BlockingLoop, proxy: InterfaceT, port: CommunicationPort | None) -> None:
        self._loop = loop
        self._proxy = proxy
        self._port = port

    @overload
    def call(
        self,
        method: Callable[Concatenate[InterfaceT, ParametersT], Coroutine[Any, Any, ResultT]],
        /,
        *args: ParametersT.args,
        **kwargs: ParametersT.kwargs,
    ) -> ResultT: ...

    @overload
    def call(
        self,
        method: Callable[Concatenate[InterfaceT, ParametersT], AsyncIterator[ItemT]],
        /,
        *args: ParametersT.args,
        **kwargs: ParametersT.kwargs,
    ) -> BlockingStream[ItemT]: ...

    def call(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the interface, and block until its answer has come.

        An exception such as `KeyboardInterrupt` meanwhile cancels the handler.

        Args:
            method: the method, such as ``Digest.sha256``.
            args: its arguments.
            kwargs: its arguments by name.

        Returns:
            What the method gives; a stream as a `BlockingStream`, an object as a `BlockingClient`.

        Raises:
            TypeMismatch: it is no method, or the arguments do not fit: objects and streams never do.
            RemoteFault: the call failed.
            DeadlineExceeded: no answer came in time.
            Disconnected: the connection ended.
        """
        name = getattr(method, "__name__", None)
        if name is None:
            detail = f"the method is given as {type(self._proxy).__name__.removesuffix('Proxy')}.name, not {method!r}"
            raise TypeMismatch(where="call", detail=detail)
        return getattr(self, name)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = None if name.startswith("_") else getattr(self._proxy, name, None)
        if not callable(method):
            raise AttributeError(f"{type(self._proxy).__name__} has no method {name!r}")
        function = self.__dict__[name] = _blocking_function(self._loop, method)
        return function

    def with_options(
        self,
        *,
        timeout: float | Default | None = DEFAULT,
        priority: int = 0,
        trace: str = "",
        transfer: Way | Default = DEFAULT,
    ) -> BlockingClient[InterfaceT]:
        """Return a copy whose calls have other options; arguments and errors like `alpc_async.with_options`."""
        copy = with_options(self._proxy, timeout=timeout, priority=priority, trace=trace, transfer=transfer)
        return BlockingClient(self._loop, copy, None)

    def allocate(
        self,
        size: int,
        *,
        mode: Literal["live", "sealed", "shared"] = "live",
        timeout: float | Default | None = DEFAULT,
    ) -> View:
        """Return shared memory to fill and to give to a method that takes an `alpc_async.View`, without any copy.

        ::

            with files.allocate(size) as view:
                view.data[:] = content
                files.store(view)

        Arguments and errors like `CommunicationPort.allocate`; blocks until there is room.
        """
        return self._loop.run(port_of(self._proxy).allocate(size, mode=mode, timeout=timeout))

    def close(self) -> None:
        """Close the connection, or release the object that a call returned. Closing again does nothing."""
        if self._port is not None:
            self._loop.run(self._port.aclose())
        else:
            self._loop.run(self._proxy.aclose())
            self._loop.turn(0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BlockingOpening(Generic[InterfaceT]):
    """A client that is about to be opened: ``with opening as client:`` or ``client = opening.open()``. Usable once.

    Args:
        open: opens the client.
    """

    def __init__(self, open: Callable[[], BlockingClient[InterfaceT]]) -> None:
        self._open = open
        self._client: BlockingClient[InterfaceT] | None = None

    def open(self) -> BlockingClient[InterfaceT]:
        """Open the client and leave the closing to the caller; raises like `connect`.

        Raises:
            RuntimeError: it was opened already.
        """
        if self._client is not None:
            raise RuntimeError("this client was opened already; call connect() again for another one")
        self._client = self._open()
        return self._client

    if not TYPE_CHECKING:  # a type checker must not believe that every name is there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"the client is not open yet and has no {name!r}; write 'with connect(...) as client:' or "
                "'client = connect(...).open()'"
            )

    def __enter__(self) -> BlockingClient[InterfaceT]:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()


def connect(
    name: str,
    interface: type[InterfaceT],
    *,
    server: Policy = SAME_USER_OR_ROOT,
    limits: PortLimits | None = None,
    qos: SecurityQos | None = None,
    timeout: float | None = 5.0,
) -> BlockingOpening[InterfaceT]:
    """Connect to a service, and block while doing so.

    Args:
        name: the port name.
        interface: what the server has to serve.
        server: who the server must be, checked before a byte is sent; by default the same user or root.
        limits: quotas; by default those of `PortLimits`.
        qos: what the server may do with our identity.
        timeout: time for connecting, in seconds; ``None`` for no end. Calls have ``limits.request_timeout``.

    Returns:
        The client, to be entered or opened.

    Raises:
        TypeMismatch: the name is no text.
        InvalidInterface: the class is no interface.
        DeadlineExceeded: when opened: the server did not answer in time.
        NameNotFound: when opened: nobody listens under the name; and whatever else `alpc_async.connect` raises.
    """
    check_is_interface(interface)
    if not isinstance(name, str):
        raise TypeMismatch(where="connect", detail=f"the name of a port is a str, not {type(name).__name__}")
    port_limits = limits if limits is not None else PortLimits()

    def open_client() -> BlockingClient[InterfaceT]:
        loop = BlockingLoop()
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            raise TimeoutError

        timer = None if timeout is None else loop.call_at(loop.time() + timeout, expire)
        try:
            port = loop.run(open_connection(loop, name, server, port_limits, b"", qos or SecurityQos()))
            try:
                proxy = loop.run(bind_session(lone_session(port, loop), interface))
            except BaseException:
                loop.run(port.aclose())
                raise
        except TimeoutError:
            if not expired:
                raise
            raise DeadlineExceeded(
                what=f"connecting to port {name!r}", timeout=timeout or 0.0, setting="timeout="
            ) from None
        finally:
            if timer is not None:
                timer.cancel()
        loop.block_in_receiving()
        return BlockingClient(loop, proxy, port)

    return BlockingOpening(open_client)
