"""One connection on which typed calls are made and handled: the objects of both sides and what they need.

Belongs here: `Session`: binding, references, releasing, and the end of a connection. Never here: handling a call
(`_handler`), making one (`_proxy`), streams (`_stream`).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from ..contract_errors import TypeMismatch
from ..errors import AlpcError, QuotaExceeded
from ..handles import close_all
from ..port import CancelOutcome
from ._annotations import stream_item, wire_type
from ._carried import CARRIED, Leaving
from ._codec import Codec, Hooks, ItemCodec, argument_error, result_error
from ._failures import failure_answer
from ._implement import implemented_contracts
from ._interceptor import as_chain
from ._interface import Interface, contract_of
from ._layout import CHECK, CONNECTION, RELEASE, encode, pack_call
from ._objects import Export, Exports, Held, Imports, Root
from ._producer import Producer
from ._proxy import make_proxy
from ._stream import StreamReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..handles import Handle
    from ..link import Loop
    from ..memory import View
    from ..port import CommunicationPort, Message, PendingRequest, Way
    from ._carried import Arriving
    from ._contract import Method
    from ._dispatcher import Dispatcher
    from ._interceptor import Interceptor

__all__ = ["Services", "Session"]

_logger = logging.getLogger("alpc_async.service")

RUNDOWN_TIMEOUT: Final = 5.0
"""Seconds that the end of a connection waits for its cancelled handlers, and for each object that is run down."""


class Services:
    """What one side serves on its connections; shared by all of them.

    Args:
        roots: the served objects by the uuid of their interface.
        max_objects: most objects and streams that one peer may hold.
        max_depth: how deeply calls may be nested.
        interceptors: what stands around each handler, the outermost first.
    """

    def __init__(
        self,
        roots: Mapping[str, Root],
        *,
        max_objects: int,
        max_depth: int,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.roots = dict(roots)
        self.max_objects = max_objects
        self.max_depth = max_depth
        self.interceptors = as_chain(interceptors)
        self.held = Held()
        self.failed = 0


class Session:
    """One connection.

    Args:
        port: its port.
        loop: the running loop.
        services: what this side serves on it.
        dispatcher: runs its handlers.
        interceptors: what stands around each call that this side makes.
        can_serve: whether anything runs here that could handle calls of the other side, or produce items.
    """

    def __init__(
        self,
        port: CommunicationPort,
        loop: Loop,
        services: Services,
        dispatcher: Dispatcher,
        interceptors: Sequence[Interceptor] = (),
        *,
        can_serve: bool = True,
    ) -> None:
        self.port = port
        self._can_serve = can_serve
        self.loop = loop
        self.services = services
        self.dispatcher = dispatcher
        self.interceptors = as_chain(interceptors)
        self.exports = Exports(services.held, services.max_objects, repr(port))
        self.imports = Imports(self._dropped)
        self.plain = self.exports.plain
        self.guarded = bool(services.interceptors)
        self.over = False
        self._hooks = Hooks(self._export, self._adopt, self._confirm)
        self._codecs: dict[Method, Codec] = {}
        self._item_codecs: dict[Any, ItemCodec] = {}
        self._new_exports: list[Export] = []
        self._leaving: Leaving | None = None
        self._arriving: Arriving | None = None
        self._to_release: list[int] = []
        self._releasing = False

    # -- codecs and references -----------------------------------------------------------------------------------------

    def codec(self, method: Method) -> Codec:
        """Return the codec of a method whose values hold objects or streams on this connection."""
        codec = self._codecs.get(method)
        if codec is None:
            codec = self._codecs[method] = Codec(method.arguments, method.result, self._hooks)
        return codec

    def item_codec(self, item: Any) -> ItemCodec:
        """Return the codec of the items of a stream on this connection.

        Args:
            item: their type, as msgpack takes it.
        """
        codec = self._item_codecs.get(item)
        if codec is None:
            codec = self._item_codecs[item] = ItemCodec(item, self._hooks)
        return codec

    def encode_item(self, codec: ItemCodec, value: Any) -> bytes:
        """Encode one item of a stream.

        Raises:
            TypeMismatch: it does not fit; nothing is exported.
            QuotaExceeded: the other side holds too many objects.
        """
        try:
            return self._encode(codec.encode, codec.check, value, 0)[0]
        except (TypeError, ValueError) as error:
            raise TypeMismatch(where="item of a stream", detail=str(error)) from None

    def encode_arguments(self, method: Method, codec: Codec, values: Any) -> tuple[bytes, list[Export], Leaving | None]:
        """Encode arguments with objects and streams; return the bytes, what was exported in them, and what goes along.

        Raises:
            TypeMismatch: an argument does not fit; nothing is exported.
            QuotaExceeded: the other side holds too many objects.
        """
        leaving = Leaving(self.port) if method.carries_in else None
        try:
            return *self._encode(codec.encode, codec.check_arguments, values, 0, leaving), leaving
        except (TypeError, ValueError) as error:
            raise argument_error(method, error) from None

    def encode_result(
        self, method: Method, codec: Codec, value: Any, message_id: int, leaving: Leaving | None
    ) -> bytes:
        """Encode a result with objects; raises like `encode_arguments`."""
        try:
            return self._encode(codec.encode, codec.check_result, value, message_id, leaving)[0]
        except (TypeError, ValueError) as error:
            raise result_error(method, error) from None

    def decode(self, decoder: Callable[[Any], Any], data: Any, arriving: Arriving) -> Any:
        """Decode values that may name handles and the view of their message, which are closed when they do not fit.

        Raises:
            msgspec.ValidationError: the values do not fit.
        """
        self._arriving = arriving
        try:
            return decoder(data)
        except BaseException:
            arriving.close()
            raise
        finally:
            self._arriving = None

    def _encode(
        self,
        encoder: Callable[[Any], bytes],
        check: Callable[[bytes], Any],
        value: Any,
        message_id: int,
        leaving: Leaving | None = None,
    ) -> tuple[bytes, list[Export]]:
        exports = self._new_exports = []
        self._leaving = leaving
        try:
            body = encoder(value)
            check(body)
            if leaving is not None:
                leaving.check()
        except BaseException:
            self.withdraw(exports)
            raise
        finally:
            self._new_exports = []
            self._leaving = None
        for export in exports:
            export.message_id = message_id
        return body, exports

    def _export(self, value: Any) -> int:
        if isinstance(value, Interface):
            state = getattr(value, "__alpc_state__", None)
            if state is not None and state.session is self:
                return -int(state.id)
            self._check_can_serve()
            # The contract is known when `_confirm` is told the declared type.
            export = self.exports.add(value, implemented_contracts(value)[0])
        elif hasattr(value, "__anext__") or hasattr(value, "__aiter__"):
            self._check_can_serve()
            export = self.exports.add(Producer(self, value, None), None)
        elif isinstance(value, CARRIED) and self._leaving is not None:
            return self._leaving.add(cast("Handle | View", value))
        else:
            raise TypeError(f"an object of type {type(value).__name__} cannot cross")
        self._new_exports.append(export)
        return export.id

    def _check_can_serve(self) -> None:
        if not self._can_serve:
            raise TypeError(
                "a blocking client gives no objects and no streams, because nothing runs between its calls that could "
                "serve them; give values, or use alpc.connect() in an event loop"
            )

    def _confirm(self, declared: Any, number: Any) -> Any:
        if declared in CARRIED and self._leaving is not None:
            return self._leaving.confirm(declared, number)
        if isinstance(number, int) and number < 0:
            return object.__new__(declared)
        export = self.exports.table.get(number) if isinstance(number, int) else None
        item = stream_item(declared)
        if export is None or (item is None) != (export.contract is not None):
            raise ValueError(f"expected `{getattr(declared, '__name__', declared)}`")
        if item is not None:
            export.target.set_codec(self.item_codec(wire_type(item)))
            return export.target.source
        if not isinstance(export.target, declared):
            raise ValueError(f"expected `{declared.__name__}`, got `{type(export.target).__name__}`")
        export.contract = contract_of(declared)
        return export.target

    def _adopt(self, declared: Any, number: Any) -> Any:
        if declared in CARRIED:
            if self._arriving is None:
                raise ValueError("handles and views come with a call or its answer only")
            return self._arriving.take(declared, number)
        if not isinstance(number, int) or isinstance(number, bool) or not number:
            raise ValueError("expected the number of an object")
        item = stream_item(declared)
        if number < 0:
            export = self.exports.table.get(-number)
            if export is None or item is not None or not isinstance(export.target, declared):
                raise ValueError(f"there is no `{getattr(declared, '__name__', declared)}` of that number here")
            return export.target
        if number in self.imports:
            raise ValueError("the number of an object is used twice")
        proxy = self._read_stream(number, item) if item is not None else self.make_proxy(declared, number)
        self.imports.add(number, proxy)
        return proxy

    def _read_stream(self, number: int, item: Any) -> StreamReader:
        codec = self.item_codec(wire_type(item))
        return StreamReader(self, number, codec, timeout=self.port.limits.request_timeout)

    def make_proxy(self, interface: type[Any], number: int) -> Any:
        """Return a proxy for an object of the other side that is not released before it is collected or closed."""
        return make_proxy(self, interface, number)

    def describe_failure(self, method: Method | None, error: Exception) -> bytes:
        """Return the answer that tells the other side why a stream ended."""
        return failure_answer(self.services, method, error, self.port.peer)

    # -- requests ------------------------------------------------------------------------------------------------------

    async def request(
        self,
        data: bytes,
        timeout: float | None,
        drop: Callable[[Message], object] | None,
        leaving: Leaving | None = None,
        way: Way = "auto",
    ) -> Message:
        """Send a request whose answer may hold objects; raises like `CommunicationPort.request`.

        Cancelling withdraws the request. An answer that had come by then is dropped with what it holds.

        Args:
            data: the payload.
            timeout: time for the answer, in seconds; ``None`` for no end.
            drop: called with an answer that nobody takes.
            leaving: what goes with it.
            way: how the data travels.
        """
        pending = await self.start_request(data, timeout, leaving, way)
        try:
            return await pending
        except BaseException:
            if pending.cancel() is CancelOutcome.TOO_LATE and drop is not None:
                late = _answer_of(pending)
                if late is not None:
                    drop(late)
            raise

    async def start_request(
        self, data: bytes, timeout: float | None, leaving: Leaving | None = None, way: Way = "auto"
    ) -> PendingRequest:
        """Send a request and return it, after waiting for room when the quota is used up."""
        view, handles = (leaving.view, leaving.handles) if leaving is not None else (None, ())
        deadline = math.inf if timeout is None else self.loop.time() + timeout
        while True:
            left = None if timeout is None else max(0.0, deadline - self.loop.time())
            try:
                # An attempt that finds no room consumes the handles that it is given.
                given = [handle.duplicate() for handle in handles]
                pending = self.port.start_request(data, timeout=left, view=view, handles=given, transfer=way)
                close_all(handles)
                return pending
            except QuotaExceeded:
                if self.loop.time() >= deadline:
                    raise
            await self._pause()

    async def _pause(self) -> None:
        # Without `anyio`, so that it works where there is no event loop.
        waiter = self.loop.create_waiter()
        timer = self.loop.call_at(self.loop.time() + ROOM_INTERVAL, lambda: waiter.set_result(None))
        try:
            await waiter
        finally:
            timer.cancel()

    # -- releasing -----------------------------------------------------------------------------------------------------

    def withdraw(self, exports: Sequence[Export]) -> None:
        """Take exports back that the other side certainly does not have; their objects are not run down."""
        for export in exports:
            self.exports.remove(export.id)

    def release_export(self, number: int) -> None:
        """Take one number back, and run its object down in the background when nobody holds it any more."""
        export = self.exports.remove(number)
        if export is not None:
            target = export.target
            self.dispatcher.spawn(lambda: _run_down(target), f"rundown of {type(target).__name__}")

    def reply_lost(self, message_id: int) -> None:
        """Take back what was exported in an answer that nobody waits for."""
        for export in [found for found in self.exports.table.values() if found.message_id == message_id]:
            self.release_export(export.id)

    def release_unknown(self, numbers: Sequence[int]) -> None:
        """Answer the other side's question which of its objects we never heard of."""
        unknown = self.imports.unknown(numbers)
        if unknown and not self.over:
            self._post(RELEASE, unknown)

    def ask_whether_known(self, exports: Sequence[Export]) -> None:
        """Have the other side release those exports that it never heard of, since their call was given up."""
        numbers = [export.id for export in exports if export.id in self.exports.table]
        if numbers and not self.over:
            self._post(CHECK, numbers)

    def _post(self, number: int, objects: list[int]) -> None:
        data = pack_call(CONNECTION, number, 0) + encode([objects])

        async def post() -> None:
            try:
                await self.port.post(data)
            except AlpcError:
                # The connection is over, and with it everything that could be released on it.
                return

        self.dispatcher.spawn(post, "alpc_async service release")

    def release_import(self, number: int) -> None:
        """Tell the other side that we do not need an object of it any more."""
        if self.imports.remove(number):
            self.release_number(number)

    def release_number(self, number: int) -> None:
        """Tell the other side that we do not need an object of it which we made no proxy for."""
        self._dropped(number)

    def _dropped(self, number: int) -> None:
        # A proxy may be collected by any thread; then the next release takes its number along.
        self._to_release.append(number)
        if self.over or self._releasing:
            return
        try:
            self.loop.check("")
        except AlpcError:
            return
        self._releasing = True
        self.loop.call_soon(self._release)

    def _release(self) -> None:
        self._releasing = False
        numbers, self._to_release = self._to_release, []
        if numbers and not self.over:
            self._post(RELEASE, numbers)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _handling(self) -> bool:
        return any(call.port is self.port for call, _ in self.dispatcher.calls())

    async def end(self) -> None:
        """Run down everything that the other side held, because the connection is over."""
        self.over = True
        self.imports.clear()
        for export in list(self.exports.table.values()):
            if export.contract is None:
                export.target.close()
        with anyio.move_on_after(RUNDOWN_TIMEOUT):
            # The handlers were cancelled; looking keeps the path of a call short.
            while self._handling():  # noqa: ASYNC110  # nobody announces it
                await anyio.sleep(RUNDOWN_INTERVAL)
        for number in list(self.exports.table):
            last = self.exports.remove(number)
            if last is not None:
                await _run_down(last.target)


ROOM_INTERVAL: Final = 0.002
"""Seconds between two looks whether the quota of a connection has room again for a request that may bring objects."""

RUNDOWN_INTERVAL: Final = 0.005
"""Seconds between two looks whether the handlers of a connection that is over have ended."""


async def _run_down(target: Any) -> None:
    try:
        with anyio.move_on_after(RUNDOWN_TIMEOUT) as scope:
            await target.rundown()
        if scope.cancelled_caught:
            _logger.error("the rundown of %r did not end within %g s", target, RUNDOWN_TIMEOUT)
    except Exception:
        _logger.exception("the rundown of %r failed", target)


def _answer_of(pending: PendingRequest) -> Message | None:
    """Return the answer that a request ended with, if it was one."""
    try:
        return pending.result()
    except AlpcError:
        return None
