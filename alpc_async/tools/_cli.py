"""The command line: which commands there are.

Belongs here: their names. Never here: what they do; each is loaded only when it is called.
"""

from __future__ import annotations

from typing import Final

import cyclopts

from .._version import __version__

__all__ = ["app"]

app: Final = cyclopts.App(
    name="alpc",
    version=__version__,
    help="Local inter-process communication for asyncio, uvloop and trio, in the model of Windows ALPC.",
)
app.command(
    "alpc_async.tools._demo:demo_command",
    name="demo",
    help="Have a server hash every file of a tree from content sent in messages, and check every digest.",
)
app.command(
    "alpc_async.tools._bench_cli:bench_app",
    name="bench",
    help="Measure round trips and requests per second beside a bare loop that does the same work.",
)
app.command(
    "alpc_async.tools._serve:serve_command",
    name="serve",
    help="Run a service in several processes behind its names: supervised, replaced one by one, drained.",
)
app.command(
    "alpc_async.tools._services:list_command",
    name="list",
    help="List live port names and the interfaces that are served there.",
)
app.command(
    "alpc_async.tools._services:describe_command",
    name="describe",
    help="Show the methods of a service with their signatures and docstrings.",
)
app.command(
    "alpc_async.tools._services:call_command",
    name="call",
    help="Call a method of a service with arguments as JSON.",
)
app.command(
    "alpc_async.tools._schema:schema_app",
    name="schema",
    help="Keep contracts as files, and compare them.",
)
app.command(
    "alpc_async.tools._services:completion_command",
    name="completion",
    help="Print a script for bash that completes commands, live names and methods.",
)
app.command(
    "alpc_async.tools._services:complete_command",
    name="complete",
    help="Print completions; for the completion script.",
    show=False,
)
app.command(
    "alpc_async.tools._mapper:mapper_command",
    name="mapper",
    help="Run the endpoint mapper, which tells clients who serves an interface and starts servers on demand.",
)
