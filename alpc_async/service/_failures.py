"""Telling the other side that a call failed, without telling it what it must not see.

Belongs here: which answer an error becomes, incidents. Never here: the bytes of an answer (`_layout`).
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from ..contract_errors import TypeMismatch
from ..errors import AccessDenied, MessageTooLong, QuotaExceeded, RemoteFault
from ..memory_errors import HandleRefused
from ..wire import APPLICATION_STATUS, Status
from ._fault import Fault
from ._layout import encode_failure, encode_fault

if TYPE_CHECKING:
    from ..security import Identity
    from ._contract import Method
    from ._session import Services

__all__ = ["Refused", "failure_answer"]

_logger = logging.getLogger("alpc_async.service")


class Refused(Exception):
    """The call is turned away before its method runs.

    Args:
        status: a `Status`.
        reason: a sentence for the caller.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def failure_answer(services: Services, method: Method | None, error: Exception, caller: Identity | None) -> bytes:
    """Return the answer that tells about an error, and log what the other side must not see.

    Args:
        services: counts it.
        method: which method raised it; ``None`` for a stream that this side gave.
        error: what was raised.
        caller: who is told, if that is known.
    """
    if isinstance(error, Fault) and (method is None or method.faults.get(error.fault_name()) is type(error)):
        return encode_fault(error)
    if isinstance(error, AccessDenied):
        return encode_failure(Status.ACCESS_DENIED, str(error), "")
    if isinstance(error, RemoteFault) and error.status >= APPLICATION_STATUS and not error.message_id:
        return encode_failure(error.status, error.reason, error.incident)
    services.failed += 1
    incident = secrets.token_hex(6)
    label = method.label if method is not None else "a stream"
    who = f" called by {caller}" if caller is not None else ""
    _logger.error("%s%s failed, incident %s", label, who, incident, exc_info=error)
    status, reason = Status.HANDLER_FAILED, "the handler failed"
    if isinstance(error, TypeMismatch):
        status, reason = Status.BAD_RESULT, "the handler gave something else than it declares"
    elif isinstance(error, QuotaExceeded) and error.setting == "max_objects":
        status, reason = Status.TOO_MANY_OBJECTS, "you hold as many objects as you may (PortLimits.max_objects)"
    elif isinstance(error, HandleRefused):
        status, reason = Status.HANDLES_REFUSED, "the answer has more handles than you take (PortLimits.max_handles)"
    elif isinstance(error, MessageTooLong):
        status, reason = Status.REPLY_TOO_LONG, "the answer is longer than the connection takes"
    return encode_failure(status, f"{reason}; incident {incident} in the log of the other side has more", incident)
