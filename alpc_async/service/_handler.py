"""Handling what arrives on a connection: calls of objects, pulls of streams, and the methods of the connection itself.

Belongs here: from a message to the method of an object, and from its result or error to the answer. Never here: tasks
(`_dispatcher`), tables (`_objects`), values (`_codec`).
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import msgspec

from ..contract_errors import TypeMismatch
from ..errors import QuotaExceeded
from ..port import Arrived, MessageType, arrived
from ..wire import Status
from ._call import NO_CONTEXT, HandledCall, set_current
from ._carried import Arriving, Leaving, give_up_carried
from ._codec import argument_error, result_error
from ._failures import Refused, failure_answer
from ._fingerprint import contract_fingerprint
from ._interceptor import run_chain
from ._layout import (
    BIND,
    CHECK,
    CONNECTION,
    HEADER_SIZE,
    MAX_CONTEXT,
    PULL,
    RELEASE,
    UNREADABLE,
    Bind,
    Bound,
    CallContext,
    encode,
    unpack_call,
)
from ._producer import Producer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from ..port import Channel, Message
    from ._codec import Codec
    from ._contract import Method
    from ._dispatcher import Worker
    from ._objects import Export, Root
    from ._session import Session

__all__ = ["handle_any", "make_handler"]

_logger = logging.getLogger("alpc_async.service")

_REQUEST: Final = MessageType.REQUEST
_DATAGRAM: Final = MessageType.DATAGRAM
_decode_context = msgspec.msgpack.Decoder(CallContext).decode
_decode_bind = msgspec.msgpack.Decoder(Bind).decode
_decode_numbers = msgspec.msgpack.Decoder(tuple[list[int]]).decode
_decode_maximum = msgspec.msgpack.Decoder(tuple[int]).decode
_astuple = msgspec.structs.astuple
T = TypeVar("T")
_HEADER: Final = slice(0, HEADER_SIZE)
_BODY: Final = slice(HEADER_SIZE, None)
COPIED: Final = 4096
"""Bytes below which the arguments are copied out of a message, which is quicker than looking at them in place."""


def make_handler(
    sessions: Mapping[Channel, Session], handle_other: Callable[[Arrived, Worker], Coroutine[Any, Any, None]]
) -> Callable[[Arrived, Worker], Coroutine[Any, Any, None]]:
    """Return what handles one message. Cancelling it cancels the handler; the request fails unless its owner did it.

    Calls in the way of most calls are handled in one piece: each further coroutine costs as much as decoding does.

    Args:
        sessions: the connections on which something was handled, by their channels.
        handle_other: handles what comes through none of these, and all that is no request of bare data.
    """
    find_session = sessions.get

    async def handle(message: Arrived, worker: Worker) -> None:
        session = find_session(message.channel)
        # What came with more than data goes the long way, which gives back what came.
        if session is None or type(message) is not Arrived or message.type is not _REQUEST:
            await handle_other(message, worker)
            return
        data = message.data
        plain = session.plain.get(data[_HEADER])
        if plain is None:
            await handle_any(session, message, worker)
            return
        try:
            try:
                values = plain.take_arguments(data[_BODY] if len(data) < COPIED else memoryview(data)[_BODY])
            except UNREADABLE as error:
                message.fail(Status.BAD_ARGUMENTS, str(argument_error(plain.method, error)))
                return
            worker.call = call = HandledCall(message, values, plain.method)
            set_current(call)
            try:
                result = await getattr(plain.target, plain.name)(*_astuple(values))
                try:
                    answer = plain.encode(result)
                    plain.check_result(answer)
                except (TypeError, ValueError) as error:
                    raise result_error(plain.method, error) from None
            except Exception as error:
                answer = failure_answer(session.services, plain.method, error, message.sender)
            if message.answered:
                # Says so.
                message.reply(answer)
            message.channel.reply(message, answer)
        except anyio.get_cancelled_exc_class():
            _answer_cancelled(message, worker)
            raise
        except Exception:
            _logger.exception("%s: the answer to message %d failed", message.port, message.id)
            _answer_broken(message)

    return handle


async def handle_any(session: Session, message: Arrived, worker: Worker) -> None:
    """Handle a request or datagram of any kind.

    Args:
        session: the connection that it came through.
        message: the message.
        worker: who handles it.
    """
    try:
        data = message.data
        if len(data) < HEADER_SIZE:
            raise Refused(Status.BAD_ARGUMENTS, "a call has a header of 8 bytes")
        object_id, number, length = unpack_call(data)
        if object_id == CONNECTION:
            _call_connection(session, message, number, data[HEADER_SIZE + length :])
        else:
            await _call_export(session, message, worker, object_id, number, length)
    except Refused as refusal:
        _refuse(message, refusal)
    except anyio.get_cancelled_exc_class():
        _answer_cancelled(message, worker)
        raise
    except Exception:
        _logger.exception("%s: the answer to message %d failed", message.port, message.id)
        _answer_broken(message)


def _answer_broken(message: Arrived) -> None:
    if message.type is _REQUEST and not message.answered:
        message.fail(Status.HANDLER_FAILED, "the answer could not be sent")


def encode_result(method: Method, result: Any) -> bytes:
    """Encode a result without objects.

    Raises:
        TypeMismatch: it is not of the declared type.
    """
    codec = method.codec
    try:
        answer = codec.encode(result)
        codec.check_result(answer)
    except (TypeError, ValueError) as error:
        raise result_error(method, error) from None
    return answer


async def _call_export(
    session: Session, message: Arrived, worker: Worker, object_id: int, number: int, length: int
) -> None:
    data = message.data
    export = session.exports.table.get(object_id)
    if export is None:
        raise Refused(Status.UNKNOWN_OBJECT, f"there is no object {object_id} on this connection (any more)")
    contract = export.contract
    if contract is None:
        _pull(export, message, number, data[HEADER_SIZE + length :])
        return
    method = contract.methods.get(number)
    if method is None:
        raise Refused(Status.UNKNOWN_METHOD, f"{contract.name} has no method {number} here")
    if (method.kind == "oneway") is (message.type is _REQUEST):
        raise Refused(Status.UNKNOWN_METHOD, f"{method.label} is called as if it were of another kind")
    if method.simple and not (length or export.guarded or session.guarded):
        session.exports.keep_plain(export, method, data[:HEADER_SIZE])
    brought = _context(session, data, length) if length else NO_CONTEXT
    call = HandledCall(message, None, method, brought)
    try:
        await _call_object(session, export, call, memoryview(data)[HEADER_SIZE + length :], worker)
    finally:
        # What came with the message and was not named among the arguments.
        message.let_go()


def _context(session: Session, data: Any, length: int) -> CallContext:
    if length > MAX_CONTEXT:
        raise Refused(Status.BAD_ARGUMENTS, f"the context of a call has at most {MAX_CONTEXT} bytes")
    context = _read(_decode_context, memoryview(data)[HEADER_SIZE : HEADER_SIZE + length])
    if context.depth > session.services.max_depth:
        limit = session.services.max_depth
        raise Refused(Status.TOO_DEEP, f"calls are nested more than {limit} deep (PortLimits.max_call_depth)")
    return context


def _read(decode: Callable[[Any], T], data: Any) -> T:
    try:
        return decode(data)
    except UNREADABLE as error:
        raise Refused(Status.BAD_ARGUMENTS, f"the call cannot be read: {error}") from None


def _refuse(message: Arrived, refusal: Refused) -> None:
    if message.type is _REQUEST:
        message.fail(refusal.status, refusal.reason)
    else:
        _logger.warning("%s: a one-way call was dropped: %s", message.port, refusal.reason)


def _answer_cancelled(message: Arrived, worker: Worker) -> None:
    if message.type is not _REQUEST or message.answered:
        return
    if worker.cancelled and message.deadline <= worker.deadline < float("inf"):
        message.fail(Status.DEADLINE_PASSED, "the handler was stopped at the deadline")
    else:
        message.fail(Status.ABANDONED, "the handler was cancelled, or the service was closed")


# -- objects ---------------------------------------------------------------------------------------------------------


async def _call_object(session: Session, export: Export, call: HandledCall, body: memoryview, worker: Worker) -> None:
    method = call.contract_method
    message = call.message
    codec = method.codec if not method.references_in and not method.references_out else session.codec(method)
    if export.root is not None and export.root.policies:
        _authorize(export.root, method, message)
    call.arriving = arriving = Arriving(message) if method.carries_in else None
    try:
        if arriving is None:
            call.arguments = values = codec.take_arguments(body)
        else:
            call.arguments = values = session.decode(codec.take_arguments, body, arriving)
    except UNREADABLE as error:
        raise Refused(Status.BAD_ARGUMENTS, str(argument_error(method, error))) from None
    worker.call = call
    set_current(call)
    try:
        if method.kind == "stream":
            await _stream(session, export.target, call, worker)
            return
        function = getattr(export.target, method.name)
        if session.services.interceptors or method.keywords:
            result = await _intercepted(session, function, call)
        else:
            result = await function(*_astuple(values))
        if method.kind == "oneway":
            return
        if method.references_out:
            _answer(session, call, codec, result)
        else:
            _reply(call, encode_result(method, result))
    except Exception as error:
        answer = failure_answer(session.services, method, error, message.sender)
        if message.type is _REQUEST and not message.answered:
            message.reply(answer)
    finally:
        # Timers of asyncio keep the context in which they were made, and with it the call: let go of objects now.
        call.arguments = None
        if arriving is not None:
            arriving.release_view()


def _reply(call: HandledCall, answer: bytes) -> None:
    if call.brought.transfer:
        arrived(call.message).reply_by(call.transfer, answer)
    else:
        call.message.reply(answer)


def _answer(session: Session, call: HandledCall, codec: Codec, result: Any) -> None:
    """Answer with a result that may hold objects, handles or a view; the last two are used up."""
    method, message = call.contract_method, call.message
    if not method.carries_out:
        answer = session.encode_result(method, codec, result, message.id, None)
        if message.cancelled:
            # Nobody takes the answer, so nobody would ever release what is in it.
            session.reply_lost(message.id)
        _reply(call, answer)
        return
    try:
        leaving = Leaving(message.port, call.arriving.view if call.arriving is not None else None)
        answer = session.encode_result(method, codec, result, message.id, leaving)
        if message.cancelled:
            session.reply_lost(message.id)
        else:
            arrived(message).reply_by(call.transfer, answer, view=leaving.view, handles=leaving.handles)
    finally:
        give_up_carried(result)


def _authorize(root: Root, method: Method, message: Message) -> None:
    policy = root.policies.get(method.number)
    reason = policy.judge(message.sender) if policy is not None else None
    if reason is not None:
        raise Refused(Status.ACCESS_DENIED, f"{method.label} may not be called: {reason}")


async def _intercepted(session: Session, function: Any, call: HandledCall) -> Any:
    positional, keywords = _arguments(call)

    async def innermost() -> Any:
        return await function(*positional, **keywords)

    return await run_chain(session.services.interceptors, call, innermost)


def _arguments(call: HandledCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
    method = call.contract_method
    if not method.keywords:
        return _astuple(call.arguments), {}
    values = msgspec.structs.asdict(call.arguments)
    keywords = {name: values.pop(name) for name in method.keywords}
    return tuple(values.values()), keywords


async def _stream(session: Session, target: Any, call: HandledCall, worker: Worker) -> None:
    positional, keywords = _arguments(call)
    function = getattr(target, call.contract_method.name)

    async def innermost() -> Any:
        source = function(*positional, **keywords)
        return await source if inspect.isawaitable(source) else source

    source = await run_chain(session.services.interceptors, call, innermost)
    if not hasattr(source, "__aiter__"):
        detail = f"expected an async iterator, got `{type(source).__name__}`"
        raise TypeMismatch(where=f"{call.contract_method.label}, result", detail=detail)
    method = call.contract_method
    producer = Producer(session, source, method, call.transfer)
    producer.set_codec(session.item_codec(method.result))
    producer.open(call.message, worker)
    await producer.run()


# -- streams and the connection itself ---------------------------------------------------------------------------------


def _pull(export: Export, message: Arrived, number: int, body: Any) -> None:
    if number != PULL or message.type is not _REQUEST:
        raise Refused(Status.UNKNOWN_METHOD, "a stream can be pulled, nothing else")
    (maximum,) = _read(_decode_maximum, body)
    export.target.pull(message, maximum, export.id)


def _call_connection(session: Session, message: Arrived, number: int, body: Any) -> None:
    if number == BIND and message.type is _REQUEST:
        message.reply(encode(_bind(session, message, _read(_decode_bind, body))))
    elif number == RELEASE and message.type is _DATAGRAM:
        for released in _read(_decode_numbers, body)[0]:
            session.release_export(released)
    elif number == CHECK and message.type is _DATAGRAM:
        session.release_unknown(_read(_decode_numbers, body)[0])
    else:
        raise Refused(Status.UNKNOWN_METHOD, f"the connection has no method {number} of that kind")


def _bind(session: Session, message: Arrived, wanted: Bind) -> Bound:
    root = session.services.roots.get(wanted.uuid)
    if root is None:
        raise Refused(Status.UNKNOWN_INTERFACE, "it serves no interface of that uuid")
    major, minor = root.contract.version
    if major != wanted.major or minor < wanted.minor:
        raise Refused(Status.UNKNOWN_INTERFACE, f"it serves version {major}.{minor}")
    reason = root.policy.judge(message.sender) if root.policy is not None else None
    if reason is not None:
        raise Refused(Status.ACCESS_DENIED, f"{root.contract.name} may not be used: {reason}")
    try:
        export = session.exports.add(root.target, root.contract, message_id=message.id, root=root)
    except QuotaExceeded as error:
        raise Refused(Status.TOO_MANY_OBJECTS, str(error)) from None
    return Bound(export.id, minor, contract_fingerprint(root.contract))
