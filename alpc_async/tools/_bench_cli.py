"""``alpc bench`` and the commands below it.

Belongs here: their names. Never here: what they do; those below are loaded only when they are called.
"""

from __future__ import annotations

from typing import Final

import cyclopts

from ._bench import bench_command

__all__ = ["bench_app"]

bench_app: Final = cyclopts.App(
    name="bench",
    help="Measure round trips and requests per second beside a bare loop that does the same work.",
)
bench_app.default(bench_command)
bench_app.command(
    "alpc_async.tools._workers:workers_command",
    name="workers",
    help="Measure worker pools, or judge their sizing with a virtual clock.",
)
bench_app.command(
    "alpc_async.tools._bench_service:service_command",
    name="service",
    help="Measure typed calls, streams and the blocking client.",
)
bench_app.command(
    "alpc_async.tools._bench_transfer:transfer_command",
    name="transfer",
    help="Measure each way of moving a message, by size, beside a plain socket and a pipe.",
)
