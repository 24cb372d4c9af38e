"""Requests of bare data, for the layers above that make one after the other on the same connection.

Belongs here: `starter`, the first half of `CommunicationPort.request` without what such requests never have. Never
here: waiting, and anything that travels beside the data (`_requesting`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link import Waiter
    from ._communication import CommunicationPort
    from ._sent import SentRequest

__all__ = ["starter"]


def starter(port: CommunicationPort) -> Callable[[bytes, float | None], tuple[SentRequest, Waiter]]:
    """Return a function that sends bytes as a request, and gives the request and where to wait for its outcome.

    It takes the bytes and a timeout in seconds, ``None`` for no end. Its caller awaits the second, lets the channel of
    the request ``abandon`` it when that raises, and takes the outcome. Where `CommunicationPort.request` waits for room
    or lends memory, it raises `QuotaExceeded` or `MessageTooLong` and has sent nothing.

    Args:
        port: the connection.
    """
    channel = port._channel  # pyright: ignore[reportPrivateUsage]  # the way in for the layers
    start, create_waiter = channel.start, channel.loop.create_waiter

    def start_request(data: bytes, timeout: float | None) -> tuple[SentRequest, Waiter]:
        waiter = create_waiter()
        return start(data, timeout, None, waiter), waiter

    return start_request
