"""Outgoing calls: from the method of a proxy to a message, and from its answer to a result.

Belongs here: the functions that are the methods of proxies. Never here: making proxies and their classes (`_proxy`),
what a proxy knows (`_proxy_state`), reading streams (`_stream`), tables of objects (`_objects`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..contract_errors import TypeMismatch
from ..errors import MessageTooLong, QuotaExceeded, RemoteFault
from ..port import Message, arrived, slot_here
from ..wire import Status
from ._call import get_current
from ._carried import Arriving, close_carried, give_up_carried
from ._codec import argument_error
from ._interceptor import run_chain
from ._layout import SPECIAL, UNREADABLE, decode_special, pack_call
from ._stream import StreamReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._carried import Leaving
    from ._codec import Codec
    from ._contract import Method
    from ._objects import Export
    from ._proxy_state import ProxyState
    from ._session import Session

__all__ = ["FACTORIES", "OutgoingCall"]

_SPECIAL: Final = bytes((SPECIAL,))

_NOT_TAKEN: Final = frozenset(
    {
        Status.UNKNOWN_OBJECT,
        Status.UNKNOWN_METHOD,
        Status.BAD_ARGUMENTS,
        Status.TOO_DEEP,
        Status.ACCESS_DENIED,
        Status.DRAINING,
    }
)
"""With these the other side says that it did not look at the arguments, so it holds no object that was among them."""


class OutgoingCall(msgspec.Struct, frozen=True):
    """What an interceptor of a client is told.

    Attributes:
        interface: name of the interface.
        method: name of the method.
        kind: ``"unary"``, ``"stream"`` or ``"oneway"``.
        idempotent: whether the method is declared so.
        arguments: the arguments, as a record.
    """

    interface: str
    method: str
    kind: str
    idempotent: bool
    arguments: Any


def _make_values(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return method.arguments(*args, **kwargs)
    except TypeError as error:
        raise TypeMismatch(where=method.label, detail=str(error)) from None


def _encode(method: Method, codec: Codec, values: Any) -> bytes:
    try:
        body = codec.encode(values)
        codec.check_arguments(body)
    except (TypeError, ValueError) as error:
        raise argument_error(method, error) from None
    return body


def _unary(method: Method) -> Callable[..., Awaitable[Any]]:
    if method.references_in or method.references_out:
        return _unary_with_references(method)
    arguments, number, codec = method.arguments, method.number, method.codec
    encode, check, take_result = codec.encode, codec.check_arguments, codec.take_result

    async def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        state: ProxyState = self.__alpc_state__
        if not state.simple or get_current() is not None or slot_here() is not None:
            return await _call(state, method, _make_values(method, args, kwargs))
        try:
            body = encode(arguments(*args, **kwargs))
            check(body)
        except (TypeError, ValueError):
            # Once more, to find out what is wrong with them.
            body = _encode(method, codec, _make_values(method, args, kwargs))
        # What `CommunicationPort.request` does: a further coroutine costs more than all the rest of this function.
        try:
            pending, waiter = state.start(pack_call(state.id, number, 0) + body, state.timeout)
        except (QuotaExceeded, MessageTooLong):
            answer = await _send(state, method, body, None)
        else:
            try:
                await waiter
            except BaseException:
                pending.channel.abandon(pending)
                raise
            outcome = pending.outcome
            answer = outcome if isinstance(outcome, Message) else pending.result()
        try:
            return take_result(answer.data)
        except UNREADABLE as error:
            # No value begins like the special answers, so looking for them can wait until now.
            raise _failure(method, answer, error) from None

    return call


def _unary_with_references(method: Method) -> Callable[..., Awaitable[Any]]:
    async def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        state: ProxyState = self.__alpc_state__
        if method.carries_in:
            return await _consume(state, method, args, kwargs)
        return await _call(state, method, _make_values(method, args, kwargs))

    return call


def _failure(method: Method, answer: Message, error: Exception) -> Exception:
    """Return what an answer tells that cannot be read as a result."""
    if answer.data[:1] == _SPECIAL:
        return decode_special(answer.data, method.faults, answer.id)
    return _wrong_answer(method, error)


def _result(session: Session, method: Method, take: Callable[[Any], Any], answer: Message) -> Any:
    data = answer.data
    if data[:1] == _SPECIAL:
        raise decode_special(data, method.faults, answer.id)
    try:
        return _take(session, method, take, answer)
    except UNREADABLE as error:
        raise _wrong_answer(method, error) from None


def _take(session: Session, method: Method, take: Callable[[Any], Any], answer: Message) -> Any:
    if not method.carries_out:
        return take(answer.data)
    try:
        return session.decode(take, answer.data, Arriving(answer))
    finally:
        # What the result does not name.
        arrived(answer).let_go()


def _wrong_answer(method: Method, error: Exception) -> TypeMismatch:
    return TypeMismatch(where=f"{method.label}, answer of the other side", detail=str(error))


async def _call(state: ProxyState, method: Method, values: Any) -> Any:
    interceptors = state.session.interceptors
    if not interceptors:
        return await _invoke(state, method, values)
    call = OutgoingCall(state.contract.name, method.name, method.kind, method.idempotent, values)
    return await run_chain(interceptors, call, lambda: _invoke(state, method, values))


async def _invoke(state: ProxyState, method: Method, values: Any) -> Any:
    if state.reconnector is not None and state.original is not None:
        state.follow(state.reconnector.current())
    if method.kind == "oneway":
        await _post(state, method, values)
        return None
    if method.kind == "stream":
        return _open_stream(state, method, values)
    session = state.session
    references = method.references_in or method.references_out
    codec = session.codec(method) if references else method.codec

    def drop(answer: Message) -> None:
        # Taken and forgotten: what it holds is released.
        if answer.data[:1] != _SPECIAL:
            give_up_carried(_take(session, method, codec.take_result, answer))

    answer = await _request(state, method, codec, values, drop if method.references_out else None)
    return _result(session, method, codec.take_result, answer)


async def _post(state: ProxyState, method: Method, values: Any) -> None:
    way = state.options.transfer
    if not method.carries_in:
        data, timeout = state.frame(method, _encode(method, method.codec, values))
        await state.session.port.post(data, timeout=timeout, transfer=way)
        return
    session = state.session
    body, exports, leaving = session.encode_arguments(method, session.codec(method), values)
    data, timeout = state.frame(method, body)
    handles, view = (leaving.handles, leaving.view) if leaving is not None else ((), None)
    try:
        await session.port.post(data, timeout=timeout, view=view, handles=handles, transfer=way)
    except BaseException:
        session.withdraw(exports)
        raise


async def _consume(state: ProxyState, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a call whose handles are consumed, whatever becomes of it."""
    try:
        return await _call(state, method, _make_values(method, args, kwargs))
    finally:
        close_carried((args, kwargs))


async def _request(
    state: ProxyState,
    method: Method,
    codec: Codec,
    values: Any,
    drop: Callable[[Message], object] | None,
    kept: list[Export] | None = None,
) -> Message:
    """Send a call and return its answer.

    Args:
        state: of the proxy.
        method: the method.
        codec: of the method.
        values: the arguments.
        drop: takes an answer that nobody waits for any more; ``None`` when answers hold no objects.
        kept: where streams among the arguments are put that outlive the call; ``None`` when none does.
    """
    session = state.session
    if not method.references_in:
        return await _send(state, method, _encode(method, codec, values), drop)
    body, exports, leaving = session.encode_arguments(method, codec, values)
    streams = [export for export in exports if export.contract is None]
    objects = [export for export in exports if export.contract is not None]
    try:
        answer = await _send(state, method, body, drop, leaving)
    except BaseException as error:
        session.withdraw(streams)
        if isinstance(error, RemoteFault) and error.status in _NOT_TAKEN:
            session.withdraw(objects)
        else:
            session.ask_whether_known(objects)
        raise
    # Streams among the arguments live as long as the call, or as the stream of its results.
    if kept is not None:
        kept.extend(streams)
    else:
        session.withdraw(streams)
    return answer


async def _send(
    state: ProxyState,
    method: Method,
    body: bytes,
    drop: Callable[[Message], object] | None,
    leaving: Leaving | None = None,
) -> Message:
    data, timeout = state.frame(method, body)
    way = state.options.transfer
    if drop is not None or way != "auto":
        return await state.session.request(data, timeout, drop, leaving, way)
    if leaving is None:
        return await state.session.port.request(data, timeout=timeout)
    return await state.session.port.request(data, timeout=timeout, view=leaving.view, handles=leaving.handles)


def _oneway(method: Method) -> Callable[..., Awaitable[None]]:
    async def call(self: Any, /, *args: Any, **kwargs: Any) -> None:
        if method.carries_in:
            await _consume(self.__alpc_state__, method, args, kwargs)
        else:
            await _call(self.__alpc_state__, method, _make_values(method, args, kwargs))

    return call


def _stream(method: Method) -> Callable[..., Any]:
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        state: ProxyState = self.__alpc_state__
        try:
            values = _make_values(method, args, kwargs)
        except TypeMismatch:
            close_carried((args, kwargs))
            raise
        if state.session.interceptors:
            return _InterceptedStream(lambda: _call_stream(state, method, values))
        return _open_stream(state, method, values)

    return call


async def _call_stream(state: ProxyState, method: Method, values: Any) -> Any:
    try:
        return await _call(state, method, values)
    except BaseException:
        close_carried(values)
        raise


def _open_stream(state: ProxyState, method: Method, values: Any) -> StreamReader:
    session = state.session
    codec = session.codec(method) if method.references_in else method.codec
    items = session.item_codec(method.result)
    streams: list[Export] = []

    def drop(answer: Message) -> None:
        if answer.data[:1] != _SPECIAL:
            number, _, last = items.take_opening(answer.data)
            if not last:
                session.release_number(number)

    def ended() -> None:
        session.withdraw(streams)
        if method.carries_in:
            close_carried(values)

    return StreamReader(
        session,
        0,
        items,
        timeout=state.timeout,
        faults=method.faults,
        opening=lambda: _request(state, method, codec, values, drop, streams),
        ended=ended,
    )


class _InterceptedStream:
    """A stream whose interceptors run when its first item is asked for.

    Args:
        open: gives the stream.
    """

    def __init__(self, open: Callable[[], Awaitable[Any]]) -> None:
        self._open = open
        self._inner: Any = None

    def __aiter__(self) -> _InterceptedStream:
        return self

    async def __anext__(self) -> Any:
        if self._inner is None:
            self._inner = (await self._open()).__aiter__()
        return await self._inner.__anext__()

    async def aclose(self) -> None:
        """End the stream, like that inside."""
        if self._inner is not None:
            await self._inner.aclose()

    async def __aenter__(self) -> _InterceptedStream:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()


FACTORIES: Final[dict[str, Callable[[Method], Callable[..., Any]]]] = {
    "unary": _unary,
    "oneway": _oneway,
    "stream": _stream,
}
"""What makes the function of a method, by its kind."""
