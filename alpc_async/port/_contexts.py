"""Security contexts: what the other side may do with our identity, message by message.

Belongs here: `SecurityContext`, its life, and how it goes with a message. Never here: what the other side does about it
(`_impersonation`), the bytes (wire).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import AccessDenied
from ..wire import SecurityRecord

if TYPE_CHECKING:
    from ..security import SecurityQos
    from ._channel import Channel
    from ._sending import SendingChannel

__all__ = ["DO_NOT_IMPERSONATE", "SecurityContext", "record_of"]


class SecurityContext:
    """What the other side may do with our identity for the messages that go with it; made by a port.

    Give it to ``request``, ``start_request`` and ``post`` as ``security=``. It counts instead of what ``connect`` said.

    Args:
        channel: the connection it belongs to, or ``None`` when it goes with messages of every connection.
        number: its number there; 0 for none.
        qos: what it allows, or ``None`` for what the connection allows.
        impersonate: ``False`` forbids impersonation whatever the level.
    """

    __slots__ = ("_channel", "_end", "_impersonate", "_number", "_qos")

    def __init__(
        self, channel: Channel | None, number: int, qos: SecurityQos | None, *, impersonate: bool = True
    ) -> None:
        self._channel = channel
        self._number = number
        self._qos = qos
        self._impersonate = impersonate
        self._end = ""

    @property
    def qos(self) -> SecurityQos | None:
        """What it allows, or ``None`` for what the connection allows."""
        return self._qos

    @property
    def usable(self) -> bool:
        """Whether it can still go with messages: it was neither deleted nor revoked."""
        return not self._end

    def delete(self) -> None:
        """Use it no more. Messages that went with it keep what it allows. Doing it again does nothing."""
        if self._channel is not None and not self._end:
            self._end = "deleted"

    def revoke(self) -> None:
        """Take it back, also for messages that went with it: the other side is told, and may do nothing under it.

        A function that runs as us at that moment runs to its end. Doing it again does nothing.

        Raises:
            ForkedPort: called from another process, thread or event loop.
        """
        channel = self._channel
        if channel is None or self._end == "revoked":
            return
        if channel.ending is None:
            channel.loop.check(channel.label)
            channel.endpoint.revoke(self._number)
            channel.link.request_flush()
        self._end = "revoked"

    def _record(self, channel: SendingChannel) -> SecurityRecord:
        reason = f"it was {self._end}" if self._end else ""
        if self._channel is not None and self._channel is not channel:
            reason = f"it belongs to {self._channel.label}"
        if reason:
            raise AccessDenied(what=f"send with security context {self._number} on {channel.label}", reason=reason)
        level = self._qos.level if self._qos is not None else None
        return SecurityRecord.of(self._number, level, impersonate=self._impersonate)

    def __repr__(self) -> str:
        allows = str(self._qos) if self._qos is not None else "do not impersonate"
        return f"<SecurityContext {self._number}, {allows}{', ' + self._end if self._end else ''}>"


def record_of(context: SecurityContext, channel: SendingChannel) -> SecurityRecord:
    """Return what goes with a message.

    Args:
        context: the security context that the message is sent with.
        channel: the connection that the message takes.

    Raises:
        AccessDenied: it was deleted or revoked, or belongs to another port.
    """
    return context._record(channel)  # pyright: ignore[reportPrivateUsage]  # the way in for the layers


DO_NOT_IMPERSONATE: Final = SecurityContext(None, 0, None, impersonate=False)
"""Goes with a message as ``security=`` to forbid that the receiver acts as us for it, whatever the level."""
