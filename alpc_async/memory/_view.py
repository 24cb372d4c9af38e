"""Views: leases on a range of a section.

Belongs here: how a range is used, given back, and noticed when it is not. Never here: what giving back means to the
other side; the port hangs that on `on_release`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

from alpc_async.memory_errors import ViewInUse, ViewReleased

from ._section import lent_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._section import Section

__all__ = ["View"]


class View:
    """A lease on a range of shared memory, given back by `release` or at the end of its ``with`` block.

    ``memoryview(view)`` (from Python 3.12), ``numpy.asarray(view)`` and `data` reach the memory without a copy. What
    they make counts as use: while any of it is alive, the range is not given back. A view that is forgotten is given
    back when the last of it is gone, with a ``ResourceWarning``.

    Args:
        section: the section that holds the range.
        offset: where the range begins in it, in bytes.
        length: length of the range, in bytes.
        writable: whether the holder of the view may write.
        sealed: whether nobody can write; by default what the section says.
        on_release: called once when the range is not used any more: by `release`, or in whichever thread drops the
            last buffer.

    Raises:
        UnsafeSection: the range is not inside the section.
        ValueError: ``writable`` is asked of a section that this side cannot write.
    """

    _warns: ClassVar[bool] = True
    """Whether a view that is forgotten says so; where forgetting is a way of giving back it does not."""

    __slots__ = ("__weakref__", "_data", "_length", "_lent", "_offset", "_sealed", "_writable")

    def __init__(
        self,
        section: Section,
        offset: int,
        length: int,
        *,
        writable: bool = False,
        sealed: bool | None = None,
        on_release: Callable[[], None],
    ) -> None:
        self._offset = offset
        self._length = length
        self._writable = writable
        self._sealed = section.sealed if sealed is None else sealed
        memory, self._lent = section.lend(offset, length, writable=writable, ended=on_release)
        self._data: memoryview | None = memory

    @property
    def offset(self) -> int:
        """Where the range begins in its section, in bytes."""
        return self._offset

    @property
    def length(self) -> int:
        """Length of the range, in bytes."""
        return self._length

    @property
    def writable(self) -> bool:
        """Whether the holder of this view may write."""
        return self._writable

    @property
    def sealed(self) -> bool:
        """Whether nobody can write any more. Otherwise copy the content before you judge it: it may change."""
        return self._sealed

    @property
    def released(self) -> bool:
        """Whether the view was given back."""
        return self._data is None

    @property
    def data(self) -> memoryview:
        """The memory, read-only unless the view is writable.

        Raises:
            ViewReleased: the view was given back.
        """
        if self._data is None:
            raise ViewReleased(what=f"a view of {self._length} bytes")
        return self._data

    def release(self) -> None:
        """Give the range back. Doing so again does nothing.

        Raises:
            ViewInUse: an array, a slice or another buffer of it is alive; the view stays valid.
        """
        data = self._data
        if data is None:
            return
        self._data = None
        try:
            data.release()
        except BufferError:
            self._data = data
            raise ViewInUse(what=f"a view of {self._length} bytes") from None
        # A slice is a memoryview of its own: it keeps the loan alive although ours was let go.
        loan = self._lent()
        if loan is not None:
            self._data = lent_memory(loan, self._length, writable=self._writable)
            raise ViewInUse(what=f"a view of {self._length} bytes")

    def let_go(self) -> None:
        """Give the view up without insisting: the range is given back now or with the last buffer of it."""
        self._data = None

    def __len__(self) -> int:
        return self._length

    def __buffer__(self, flags: int, /) -> memoryview:
        # A view of its own, so that the consumer holds the loan even where it lets go of the buffer itself.
        return memoryview(self.data)

    @property
    def __array_interface__(self) -> dict[str, object]:
        # The way to numpy on Python 3.11, where classes cannot export buffers. The array keeps "data" alive.
        return {"version": 3, "shape": (self._length,), "typestr": "|u1", "data": memoryview(self.data)}

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.release()
        else:
            # The traceback may hold buffers of the view; that must not hide what went wrong.
            self.let_go()

    def __repr__(self) -> str:
        state = "released" if self._data is None else "sealed" if self._sealed else "live"
        return f"<View of {self._length} bytes at {self._offset}, {state}>"

    def __del__(self) -> None:
        if getattr(self, "_data", None) is not None:
            if self._warns:
                warnings.warn(f"unreleased {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._data = None
