"""The errors of typed services: contracts that are none, values that do not fit them, calls whose outcome is open.

Belongs here: exception classes like those of `alpc_async.errors`, for what only the service layer raises. Never here:
decisions about when to raise; faults that services declare.

::

    AlpcError
    ├── InvalidInterface        a class cannot be the contract of a service
    ├── UnknownInterface        the other side does not serve the interface
    ├── TypeMismatch            a value is not of the type that an interface declares
    └── OutcomeUnknown          the connection was lost before a call was answered
"""

from __future__ import annotations

import anyio

from .errors import AlpcError

__all__ = ["InvalidInterface", "OutcomeUnknown", "TypeMismatch", "UnknownInterface"]


class InvalidInterface(AlpcError, TypeError):
    """A class cannot be the contract of a service, or an object does not fulfil it.

    Attributes:
        interface: name of the class.
        method: name of the method, or empty when the class as a whole is meant.
        parameter: name of the parameter, ``"return"`` for the result, or empty.
        reason: which rule is broken.
    """

    def __init__(self, *, interface: str, method: str = "", parameter: str = "", reason: str) -> None:
        self.interface = interface
        self.method = method
        self.parameter = parameter
        self.reason = reason
        where = f"{interface}.{method}" if method else interface
        what = {"": "", "return": ", result"}.get(parameter, f", parameter {parameter!r}")
        super().__init__(f"{where}{what}: {reason}")


class UnknownInterface(AlpcError, LookupError):
    """The other side does not serve the interface, or not in a version that fits.

    Attributes:
        interface: name of the interface on this side.
        uuid: its identity; empty when only a name was asked for.
        version: the major and minor version that this side has.
        offered: what the other side said, untrusted text.
    """

    def __init__(self, *, interface: str, uuid: str, version: tuple[int, int], offered: str) -> None:
        self.interface = interface
        self.uuid = uuid
        self.version = version
        self.offered = offered
        if not uuid:
            super().__init__(f"the other side does not serve {interface}: {offered}")
            return
        super().__init__(
            f"the other side does not serve {interface} {version[0]}.{version[1]} ({uuid}): {offered}; "
            "the major versions must be equal, and the server's minor version at least the client's"
        )


class TypeMismatch(AlpcError, TypeError):
    """A value is not of the type that the interface declares; nothing was sent, or nothing of it was used.

    Attributes:
        where: the method, and whether an argument, the result or an item of a stream is meant.
        detail: what was expected, what was found, and the path to it.
    """

    def __init__(self, *, where: str, detail: str) -> None:
        self.where = where
        self.detail = detail
        super().__init__(f"{where}: {detail}")


class OutcomeUnknown(AlpcError, anyio.BrokenResourceError):
    """A client that connects again lost its server before a call was answered; whether it was carried out is unknown.

    Attributes:
        method: interface and method.
        reason: how the connection ended.
    """

    def __init__(self, *, method: str, reason: str) -> None:
        self.method = method
        self.reason = reason
        super().__init__(
            f"{method} may or may not have been carried out: {reason}; ask the service, or declare the method "
            "with @alpc.idempotent if calling it again does no harm"
        )
