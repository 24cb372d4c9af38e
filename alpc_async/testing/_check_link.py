"""What every link must do, as checks that anybody can run against a link of his own.

Belongs here: the contract of `alpc_async.link.Link`, one function per clause. Never here: sockets, or anything that
only one kind of link does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..link import current_loop
from ._recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Link
    from ._memory import LinkPair

__all__ = ["check_link"]

PATIENCE_BYTES: Final = 64 * 1024 * 1024
"""Bytes after which a link that nobody reads must be clogged."""

LARGE: Final = 1024 * 1024
"""Bytes of a frame that leaves in several sends."""


async def check_link(make: Callable[[], LinkPair]) -> None:
    """Check that links keep the contract that ports rely on.

    Cancelling stops the check and closes the links.

    Args:
        make: makes two connected links, not started yet, each with water marks of at most a few MiB.

    Raises:
        AssertionError: they do not; the text is the clause that is broken.
    """
    for check in CHECKS:
        left, right = make()
        try:
            await check(left, right)
        finally:
            left.close()
            right.close()


def _claim(condition: bool, clause: str) -> None:
    if not condition:
        raise AssertionError(clause)


async def _bytes_arrive_in_order(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    left.start(near)
    right.start(far)
    await _transfer(left, near, far)
    await _transfer(right, far, near)


async def _transfer(link: Link, near: Recorder, far: Recorder) -> None:
    sent = b"".join(near.queue(bytes([size % 251]) * size) for size in (0, 1, 5000, LARGE, 3))
    link.request_flush()
    await far.until(lambda: len(far.received) >= len(sent), "everything arrived")
    _claim(far.received == sent, "bytes arrive as they were sent, in both directions")
    _claim(link.unsent() == 0, "what has left is not unsent")
    frames, taken = link.unsent_frames()
    _claim(taken == len(frames), "of frames that have left nothing remains to be sent")


async def _one_flush_per_turn(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    left.start(near)
    right.start(far)
    await current_loop().checkpoint()
    sends = left.statistics().sends
    expected = b""
    for number in range(16):
        expected += near.queue(bytes([number]))
        left.request_flush()
    _claim(left.statistics().sends == sends, "nothing is sent before the turn ends")
    _claim(left.unsent() == len(expected), "what waits for the turn's end is unsent")
    await far.until(lambda: far.received == expected, "sixteen small frames arrived")
    statistics = left.statistics()
    _claim(statistics.sends == sends + 1, "everything that is queued in one turn leaves in one send")
    _claim(statistics.bytes_sent == len(expected), "bytes that were sent are counted")
    _claim(right.statistics().bytes_received == len(expected), "bytes that were received are counted")
    _claim(right.statistics().receives >= 1, "receive calls are counted")


async def _a_prompt_frame_leaves_at_once(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    left.start(near)
    right.start(far)
    left.prompt = True
    frame = near.queue(b"prompt")
    left.request_flush()
    _claim(left.unsent() == 0, "a prompt frame leaves at once")
    _claim(not left.prompt, "prompt holds for one frame")
    second = near.queue(b"second")
    left.request_flush()
    _claim(left.unsent() == len(second), "the frame after a prompt one waits for the turn's end")
    await far.until(lambda: far.received == frame + second, "both frames arrived")


async def _a_link_that_nobody_reads_clogs(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    left.start(near)
    sent = bytearray()
    while not left.clogged():
        sent += near.queue(bytes(16 * 1024))
        left.request_flush()
        await current_loop().checkpoint()
        _claim(len(sent) < PATIENCE_BYTES, "a link that nobody reads clogs")
    _claim(left.unsent() > 0, "a clogged link has unsent bytes")
    frames, taken = left.unsent_frames()
    _claim(0 <= taken <= len(frames), "no more of a run of frames has left than there is")
    _claim("drained" not in near.calls, "a clogged link has not drained")
    right.start(far)
    await near.until(lambda: "drained" in near.calls, "the link drained")
    _claim(not left.clogged(), "a link that drained is not clogged")
    await far.until(lambda: len(far.received) == len(sent), "everything arrived")
    _claim(far.received == sent, "bytes arrive as they were sent, also over a link that was clogged")
    await near.until(lambda: "flushed" in near.calls, "the link flushed")
    _claim(near.calls.count("drained") == 1, "a link drains once for each time that it clogged")
    _claim(left.unsent() == 0, "what has left is not unsent")


async def _closing_ends_the_other_side_once(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    left.start(near)
    right.start(far)
    last = near.queue(b"last words")
    left.flush()
    left.close()
    left.close()
    _claim(left.fileno() == -1, "a closed link has no descriptor")
    await far.until(lambda: far.ended, "the other side ended")
    _claim(far.received == last, "what was sent before closing arrives before the end")
    _claim(far.calls[-1] == "ended" and far.calls.count("ended") == 1, "a link ends once, after everything else")
    _claim(far.error is None, "a link that the other side closed ends without an error")
    near.queue(b"too late")
    left.request_flush()
    left.flush()
    left.receive_rest()
    _claim(not left.clogged(), "a closed link is not clogged")
    for _ in range(3):
        await current_loop().checkpoint()
    _claim(near.calls == [], "an owner that closes its link hears nothing more from it")
    _claim(right.fileno() == -1, "a link that ended has no descriptor")


async def _sending_to_a_closed_side_ends_the_link(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    right.start(far)
    last = far.queue(b"farewell")
    right.flush()
    right.close()
    left.start(near)
    near.queue(b"to nobody")
    left.flush()
    await near.until(lambda: near.ended, "the link ended")
    _claim(near.received == last, "what the other side had sent is received although sending failed")
    for _ in range(3):
        await current_loop().checkpoint()
    _claim(near.calls.count("ended") == 1, "a link ends once")


async def _the_rest_is_received_at_once(left: Link, right: Link) -> None:
    near, far = Recorder(), Recorder()
    left.start(near)
    right.start(far)
    last = far.queue(b"the rest")
    right.flush()
    left.receive_rest()
    _claim(near.received == last, "receive_rest receives what has arrived before it returns")
    _claim(near.calls[-1] == "ended" and near.calls.count("ended") == 1, "receive_rest ends the link, once")
    await far.until(lambda: far.ended, "the other side ended")


CHECKS: Final = (
    _bytes_arrive_in_order,
    _one_flush_per_turn,
    _a_prompt_frame_leaves_at_once,
    _a_link_that_nobody_reads_clogs,
    _closing_ends_the_other_side_once,
    _sending_to_a_closed_side_ends_the_link,
    _the_rest_is_received_at_once,
)
