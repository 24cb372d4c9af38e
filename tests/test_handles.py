"""Handles own a descriptor once; event flags show one bit to whoever waits."""

from __future__ import annotations

import os
import select

import pytest

from alpc_async.handles import EventFlag, Handle


def is_open(descriptor: int) -> bool:
    """Return whether the process has the descriptor."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def opened() -> int:
    """Return a descriptor."""
    return os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)


def test_closing_closes_once() -> None:
    """The descriptor is closed by the first call; a number that was taken again since is left alone."""
    handle = Handle(opened())
    number = handle.fileno()
    assert (handle.closed, repr(handle)) == (False, f"<Handle {number}>")
    handle.close()
    assert (handle.closed, handle.fileno(), repr(handle)) == (True, -1, "<Handle closed>")
    again = opened()
    assert again == number
    handle.close()
    assert is_open(again)
    os.close(again)


def test_the_end_of_the_block_closes() -> None:
    """A handle is closed with its block, also when the block fails."""
    with Handle(opened()) as handle:
        number = handle.fileno()
        assert is_open(number)
    assert not is_open(number)
    with pytest.raises(KeyError), Handle(opened()) as handle:
        raise KeyError
    assert handle.closed


def test_detaching_gives_the_descriptor_away() -> None:
    """A detached descriptor stays open and is not the handle's any more."""
    handle = Handle(opened())
    number = handle.detach()
    handle.close()
    assert is_open(number)
    assert handle.closed
    with pytest.raises(ValueError, match="already closed"):
        handle.detach()
    os.close(number)


def test_a_forgotten_handle_is_closed_and_said() -> None:
    """A handle that nobody closed is closed when it goes, with a warning that names it."""
    number = opened()
    handle = Handle(number)
    forget = [handle].clear
    del handle
    with pytest.warns(ResourceWarning, match=f"unclosed <Handle {number}>"):
        forget()
    assert not is_open(number)


def test_a_handle_that_was_never_made_is_no_leak() -> None:
    """Something that has no descriptor yet disappears silently."""
    handle = Handle.__new__(Handle)
    del handle


def readable(flag: EventFlag) -> bool:
    """Return whether somebody who waits for the flag would go on."""
    return bool(select.select([flag], [], [], 0)[0])


def test_the_flag_is_readable_while_it_is_up() -> None:
    """Putting it up or down twice changes nothing."""
    flag = EventFlag()
    assert not readable(flag)
    for up in (True, True, False, False, True):
        flag.set(up)
        assert readable(flag) is up
    flag.close()
    flag.close()
    assert flag.fileno() == -1
    flag.set(False)


def test_the_flag_is_not_inherited() -> None:
    """Programs that are started do not get the descriptor."""
    flag = EventFlag()
    assert not os.get_inheritable(flag.fileno())
    flag.close()
