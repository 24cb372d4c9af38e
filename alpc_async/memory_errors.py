"""Errors of shared memory, of direct access and of handles.

Belongs here: exception classes and the sentences they print, as in `errors`. Never here: when to raise.

::

    AlpcError
    ├── UnsafeSection           shared memory that the other side could change under the reader
    ├── OutOfSharedMemory       the system has no room for another section
    ├── ViewReleased            a view or section was used after its release
    ├── ViewInUse               a buffer of the view or section is still held
    ├── DirectDenied            the system does not let us reach the memory of the other process
    ├── DirectFailed            the memory of the other process is not what it declared
    ├── DirectRange             outside of the memory that a request declares
    ├── DirectOver              the request that declared the memory is over
    ├── UnsuitableHandle        the descriptor is of a kind that does not do here
    └── HandleRefused           handles of a message do not go through
"""

from __future__ import annotations

import errno

from .errors import AlpcError

__all__ = [
    "DirectDenied",
    "DirectFailed",
    "DirectOver",
    "DirectRange",
    "HandleRefused",
    "OutOfSharedMemory",
    "UnsafeSection",
    "UnsuitableHandle",
    "ViewInUse",
    "ViewReleased",
]


class UnsafeSection(AlpcError):
    """The other side offered shared memory that it could change, shrink or leave empty under the reader.

    Attributes:
        rule: the rule that was broken.
        detail: the offending values.
    """

    def __init__(self, *, rule: str, detail: str = "") -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"unsafe section: {rule}" + (f" ({detail})" if detail else "") + "; it was not mapped")


class OutOfSharedMemory(AlpcError, MemoryError):
    """The system has no room for another section.

    Attributes:
        size: the size asked for, in bytes.
        reason: what the kernel said.
    """

    def __init__(self, *, size: int, reason: str) -> None:
        self.size = size
        self.reason = reason
        super().__init__(
            f"no shared memory of {size} bytes: {reason}; release views, lower PortLimits.max_total_section_size, "
            "or give the process more memory and descriptors"
        )


class ViewReleased(AlpcError, ValueError):
    """A view or a section was used after it had been released.

    Attributes:
        what: what it calls itself.
    """

    def __init__(self, *, what: str) -> None:
        self.what = what
        super().__init__(f"{what} was released; copy what you keep before the end of its message or block")


class ViewInUse(AlpcError, BufferError):
    """A view or a section cannot be given up while buffers or slices of it are held; it stays valid.

    Attributes:
        what: what it calls itself.
    """

    def __init__(self, *, what: str) -> None:
        self.what = what
        super().__init__(f"{what} is still used by arrays, slices or other buffers made of it; delete those first")


class DirectDenied(AlpcError, PermissionError):
    """The system does not let this process reach the memory of the other one; data can travel as a view instead.

    Attributes:
        pid: the other process.
        reason: what the kernel said.
    """

    def __init__(self, *, pid: int, reason: str) -> None:
        self.pid = pid
        self.reason = reason
        super().__init__(errno.EPERM, f"the memory of process {pid} may not be reached: {reason}; send a view instead")


class DirectFailed(AlpcError, OSError):
    """The memory of the other process is not there, or it is not the process that declared it.

    Attributes:
        pid: the other process.
        reason: what was found.
        copied: bytes that had been copied before; they are not to be trusted.
    """

    def __init__(self, *, pid: int, reason: str, copied: int = 0) -> None:
        self.pid = pid
        self.reason = reason
        self.copied = copied
        super().__init__(errno.EFAULT, f"direct copy of the memory of process {pid} failed: {reason}")


class DirectRange(AlpcError, ValueError):
    """The bytes are not inside the memory that the request declares.

    Attributes:
        offset: the first byte asked for.
        size: how many bytes were asked for.
        length: how many bytes are declared.
        reason: which rule is broken.
    """

    def __init__(self, *, offset: int, size: int, length: int, reason: str) -> None:
        self.offset = offset
        self.size = size
        self.length = length
        self.reason = reason
        super().__init__(
            f"{size} bytes at {offset} of the {length} bytes of direct memory: {reason}; ask the client to declare them"
        )


class DirectOver(AlpcError):
    """The request that declared the memory was answered or cancelled, or its connection ended; copies do not count.

    Attributes:
        port: what the port calls itself.
        message_id: the id of the request.
    """

    def __init__(self, *, port: str, message_id: int) -> None:
        self.port = port
        self.message_id = message_id
        super().__init__(
            f"request {message_id} of {port} is over, and with it the access to the memory that it declared; "
            "copy before you reply"
        )


class UnsuitableHandle(AlpcError, ValueError):
    """The descriptor is of a kind that does not do here.

    Attributes:
        kind: its kind, in words.
        reason: why it does not do, and what would.
    """

    def __init__(self, *, kind: str, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(f"a handle of kind {kind} does not do: {reason}")


class HandleRefused(AlpcError, PermissionError):
    """Handles do not go through: the other side takes none, not so many or not of this kind, or they were lost.

    Attributes:
        port: what the port calls itself.
        reason: which rule decided, and which setting changes it.
    """

    def __init__(self, *, port: str, reason: str) -> None:
        self.port = port
        self.reason = reason
        super().__init__(errno.EPERM, f"handles do not go through {port}: {reason}")
