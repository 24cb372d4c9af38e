"""The ceilings of the protocol: what no peer can exceed, whatever the limits say.

Belongs here: named constants, each with its source, the attack that it stops and the slack that it leaves. Never here:
limits that a user may set; those are `alpc_async.PortLimits`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_GREETING_OVERHEAD", "MAX_REASON_LENGTH", "MAX_TIMEOUT_MS"]

MAX_GREETING_OVERHEAD: Final = 4 * 1024
"""Bytes that a HELLO or WELCOME may have beside its connect data.

Source: the negotiated fields take about 120 bytes today. Attack: everybody who may connect reaches this parser, so a
greeting must not make the receiver reserve memory. Slack: some 30 times, for fields of later versions.
"""

MAX_REASON_LENGTH: Final = 4 * 1024
"""Bytes of text in a FAULT or a CLOSE.

Source: a sentence. Attack: reasons are logged and shown, and a log must not be flooded through them. Slack: a long
paragraph. Longer text is cut by the sender.
"""

MAX_TIMEOUT_MS: Final = 0xFFFF_FFFF
"""Largest remaining time that fits a frame, in milliseconds: 49 days. Source: the width of the field."""
