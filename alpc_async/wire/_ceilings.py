"""The ceilings of the protocol: what no peer can exceed, whatever the limits say.

Belongs here: named constants, each with its source, the attack that it stops and the slack that it leaves. Never here:
limits that a user may set; those are `alpc_async.PortLimits`.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_ATTRIBUTES",
    "MAX_DIRECT_RANGES",
    "MAX_GREETING_OVERHEAD",
    "MAX_HANDLE_STATE",
    "MAX_LEVEL",
    "MAX_REASON_LENGTH",
    "MAX_SECTIONS",
    "MAX_TIMEOUT_MS",
]

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

MAX_ATTRIBUTES: Final = 64 * 1024
"""Bytes that the attributes of one message may have in front of its data.

Source: 512 handles of which each is a connected port take some 60 KiB; everything else takes a few hundred bytes.
Attack: attributes must not be a way around ``max_message_length``. Slack: none needed.
"""

MAX_HANDLE_STATE: Final = 1024
"""Bytes that travel with one descriptor. Source: the state of a connection takes about 200. Slack: five times."""

MAX_DIRECT_RANGES: Final = 64
"""Direct ranges of one message. Source: a gather list of a few parts. Attack: each is checked for every access."""

MAX_SECTIONS: Final = 256
"""Sections of one side that exist at the same time.

Source: a pool needs one to ten, one-shot views one each. Attack: every section is a descriptor and a mapping of the
receiver. Slack: two hundred one-shot views under way at once.
"""

MAX_LEVEL: Final = 3
"""Highest number of what a side may allow with its identity: anonymous, identify, impersonate, delegate."""
