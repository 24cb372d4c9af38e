"""Where a buffer lies in the memory of this process, and keeping it there.

Belongs here: the C structure of the buffer protocol. Never here: reading or writing through an address.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

__all__ = ["PinnedBuffer", "address_of"]

_PyBUF_SIMPLE: Final = 0


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` of the stable part of CPython's C interface."""

    _fields_: ClassVar = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


class PinnedBuffer:
    """A buffer that stays where it is for as long as this object lives or until `release`.

    A ``bytearray`` cannot be resized and a mapping not be closed meanwhile.

    Args:
        buffer: a contiguous buffer.

    Attributes:
        address: where it begins in the memory of this process.
        length: its length in bytes.

    Raises:
        BufferError: the buffer is not contiguous.
    """

    __slots__ = ("_memory", "address", "length")

    def __init__(self, buffer: Buffer) -> None:
        self._memory = memoryview(buffer)
        self.length = self._memory.nbytes
        raw = _PyBuffer()
        ctypes.pythonapi.PyObject_GetBuffer(
            ctypes.py_object(self._memory), ctypes.byref(raw), ctypes.c_int(_PyBUF_SIMPLE)
        )
        # The memoryview holds the buffer; this second hold has told the address.
        self.address: int = raw.buf or 0
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))

    def release(self) -> None:
        """Let the buffer go; its address means nothing from now on. Releasing again does nothing."""
        self._memory.release()

    def __enter__(self) -> PinnedBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def address_of(buffer: Buffer) -> PinnedBuffer:
    """Tell where a buffer lies, and keep it there.

    Args:
        buffer: a contiguous buffer, read-only ones included.

    Returns:
        The pin, with ``address`` and ``length``; the address holds only while the pin does.

    Raises:
        BufferError: the buffer is not contiguous.
    """
    return PinnedBuffer(buffer)
