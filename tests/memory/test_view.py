"""Views: what they let see and write, when they are given back, and that this happens exactly once."""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from alpc_async.handles import Handle
from alpc_async.memory import Section, View
from alpc_async.memory_errors import UnsafeSection, ViewInUse, ViewReleased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 4096


class Releases:
    """Counts how often a view was given back."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        """Count one."""
        self.count += 1


@pytest.fixture
def section() -> Iterator[Section]:
    """A live section of our own."""
    section = Section.create(SIZE)
    section.memory[:] = bytes(range(256)) * 16
    yield section
    section.close()


@pytest.fixture
def releases() -> Releases:
    """What a view is given back to."""
    return Releases()


def test_a_view_is_a_range(section: Section, releases: Releases) -> None:
    """A view shows its range, tells what it is, and can only be read unless it is made for writing."""
    with View(section, 10, 20, on_release=releases.add) as view:
        assert (view.offset, view.length, len(view), view.writable, view.sealed) == (10, 20, 20, False, False)
        assert view.data == bytes(range(10, 30))
        assert (view.data.readonly, view.data.format) == (True, "B")
        assert "20 bytes at 10, live" in repr(view)
        with pytest.raises(TypeError):
            view.data[0] = 0
    with View(section, 10, 20, writable=True, on_release=releases.add) as view:
        view.data[:2] = b"!!"
    assert bytes(section.memory[9:13]) == b"\x09!!\x0c"
    assert releases.count == 2


def test_a_sealed_view() -> None:
    """A view of a one-shot section says that it is sealed, and cannot be made for writing."""
    section = Section.from_bytes(b"data")
    with View(section, 0, 4, on_release=lambda: None) as view:
        assert (view.sealed, bytes(view.data)) == (True, b"data")
        assert repr(view) == "<View of 4 bytes at 0, sealed>"
    with View(section, 0, 4, sealed=False, on_release=lambda: None) as view:
        assert not view.sealed
    with pytest.raises(ValueError, match="can write"):
        View(section, 0, 4, writable=True, on_release=lambda: None)
    section.close()


def test_a_view_lies_inside_its_section(section: Section, releases: Releases) -> None:
    """A range outside of the section makes no view and gives nothing back."""
    with pytest.raises(UnsafeSection):
        View(section, SIZE, 1, on_release=releases.add)
    gc.collect()
    assert releases.count == 0


def test_releasing(section: Section, releases: Releases) -> None:
    """A view is given back once, however often it is released, and cannot be used afterwards."""
    view = View(section, 0, 9, on_release=releases.add)
    view.release()
    view.release()
    assert (releases.count, view.released, len(view)) == (1, True, 9)
    assert "released" in repr(view)
    for use in (lambda: view.data, lambda: np.asarray(view), lambda: view.__array_interface__):
        with pytest.raises(ViewReleased, match="view of 9 bytes was released"):
            use()


USES: dict[str, Callable[[View], object]] = {
    "slice": lambda view: view.data[1:],
    "slice of a slice": lambda view: view.data[1:][:2],
    "memoryview": lambda view: memoryview(view.data),
    "array": lambda view: np.asarray(view),
    "array of data": lambda view: np.asarray(view.data),
    "part of an array": lambda view: np.asarray(view)[1:3],
    "buffer": lambda view: np.frombuffer(view.data, dtype=np.uint16, count=2),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("writable", [False, True], ids=["read", "write"])
def test_a_view_in_use(section: Section, releases: Releases, use: Callable[[View], object], writable: bool) -> None:
    """While anything that was made of a view lives, it is not given back and stays valid; afterwards it can be."""
    view = View(section, 0, 9, writable=writable, on_release=releases.add)
    held = use(view)
    for _ in range(2):
        with pytest.raises(ViewInUse, match="view of 9 bytes is still used"):
            view.release()
        assert (view.released, releases.count) == (False, 0)
        assert view.data[:3] == bytes(range(3))
        assert view.data.readonly is not writable
    del held
    view.release()
    assert releases.count == 1


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_forgotten_view_in_use(section: Section, releases: Releases, use: Callable[[View], object]) -> None:
    """A view that nobody released is given back when the last thing made of it goes, with a warning."""
    view = View(section, 0, 9, on_release=releases.add)
    held = {"made of it": use(view), "view": view}
    del view

    def forget() -> None:
        del held["view"]
        assert releases.count == 0
        held.clear()

    with pytest.warns(ResourceWarning, match="unreleased <View of 9 bytes at 0, live>"):
        forget()
    assert releases.count == 1


def test_a_forgotten_view(section: Section, releases: Releases) -> None:
    """A view that nobody released or used is given back at once when it goes, with a warning."""
    view = View(section, 0, 9, on_release=releases.add)
    with pytest.warns(ResourceWarning, match="unreleased"):
        del view
    assert releases.count == 1


def test_the_end_of_a_block_that_failed(section: Section, releases: Releases) -> None:
    """An error in the block is not hidden by buffers that its traceback holds; the view goes with them."""
    view = View(section, 0, 9, on_release=releases.add)
    held = view.data[:3]
    with pytest.raises(KeyError), view:
        raise KeyError
    assert (view.released, releases.count) == (True, 0)
    assert held == bytes(range(3))
    del held
    assert releases.count == 1


def test_letting_go(section: Section, releases: Releases) -> None:
    """A view that is let go is given back with the last of its buffers, without a complaint."""
    view = View(section, 0, 9, on_release=releases.add)
    held = view.data[:3]
    view.let_go()
    view.release()
    assert (view.released, releases.count) == (True, 0)
    del held
    assert releases.count == 1


def test_arrays_share_the_memory(section: Section, releases: Releases) -> None:
    """An array on a view is no copy: it can write what the view can write, and nothing else."""
    with View(section, 0, 8, writable=True, on_release=releases.add) as view:
        array = np.asarray(view)
        assert (array.dtype.name, array.shape, array.flags.writeable) == ("uint8", (8,), True)
        array.view(np.uint32)[0] = 0x01020304
        assert bytes(section.memory[:4]) == b"\x04\x03\x02\x01"
        section.memory[7] = 99
        assert array[7] == 99
        del array
    with View(section, 0, 8, on_release=releases.add) as view:
        array = np.asarray(view)
        assert not array.flags.writeable
        del array


@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes cannot export buffers before Python 3.12")
def test_a_view_is_a_buffer(section: Section, releases: Releases) -> None:
    """A view is taken by everything that takes a buffer."""
    with View(section, 0, 8, on_release=releases.add) as view:
        assert bytes(view) == bytes(range(8))
        held = memoryview(view)
        with pytest.raises(ViewInUse):
            view.release()
        del held


def test_views_outlive_their_section(releases: Releases) -> None:
    """Closing a section leaves its views valid; the mapping goes with the last of them, in any order."""
    section = Section.from_bytes(b"0123456789")
    reader = Section.adopt(Handle(os.dup(section.fileno())), max_size=10)
    section.close()
    first, second = (View(reader, offset, 5, on_release=releases.add) for offset in (0, 5))
    reader.close()
    assert (bytes(first.data), bytes(second.data)) == (b"01234", b"56789")
    first.release()
    assert bytes(second.data) == b"56789"
    second.release()
    assert releases.count == 2


def test_released_in_another_thread(section: Section, releases: Releases) -> None:
    """The last buffer of a view may go in any thread."""
    view = View(section, 0, 9, on_release=releases.add)
    thread = threading.Thread(target=view.release)
    thread.start()
    thread.join()
    assert releases.count == 1


def test_views_in_a_cycle(section: Section, releases: Releases) -> None:
    """A view that only a cycle of references holds is given back by the collector."""
    holder: list[object] = []
    holder.append(View(section, 0, 9, on_release=releases.add))
    holder.append(holder)
    del holder
    with pytest.warns(ResourceWarning, match="unreleased"):
        gc.collect()
    assert releases.count == 1


def test_a_forked_child_ends_without_harm(section: Section, releases: Releases) -> None:
    """A child reads the views that it inherited, drops them, and leaves those of its parent as they are."""
    view = View(section, 0, 9, writable=True, on_release=releases.add)
    child = os.fork()
    if child == 0:
        good = view.data[:3] == bytes(range(3))
        view.release()
        section.close()
        os._exit(0 if good and releases.count == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert releases.count == 0
    view.data[:3] = b"abc"
    view.release()
    assert bytes(section.memory[:3]) == b"abc"
