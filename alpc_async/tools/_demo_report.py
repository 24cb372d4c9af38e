"""What the demo found out, for people and for programs.

Belongs here: the figures, the table, and the document that is written as JSON. Never here: how they came about.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Final

import msgspec
from rich.table import Table

from .._version import __version__
from ._demo_files import printable
from ._demo_messages import ServerReport

if TYPE_CHECKING:
    from ._demo_run import Outcome, Plan
    from ._histogram import Histogram

__all__ = ["DemoReport", "Latency", "Machine", "UnreadableFile", "make_report", "make_table"]

MEGABYTE: Final = 1e6
WAYS: Final = ("inline", "view", "direct", "handle")


class Machine(msgspec.Struct):
    """Where the figures were measured.

    Attributes:
        architecture: of the processors.
        processors: how many this process may use.
        kernel: its name and release.
        python: implementation and version.
    """

    architecture: str
    processors: int
    kernel: str
    python: str


class Latency(msgspec.Struct):
    """Times from sending a request until its reply was there, in microseconds.

    Attributes:
        minimum: the shortest.
        mean: the mean.
        p50: half of all requests took no longer.
        p99: 99 % of them.
        p999: 99.9 % of them.
        maximum: the longest.
    """

    minimum: float
    mean: float
    p50: float
    p99: float
    p999: float
    maximum: float


class UnreadableFile(msgspec.Struct):
    """A file, directory or link that could not be read.

    Attributes:
        path: where it is; what is not printable is escaped.
        reason: why, in words.
    """

    path: str
    reason: str


class DemoReport(msgspec.Struct):
    """Everything that is known after a run.

    Attributes:
        version: of this library.
        machine: where it was measured.
        backend: the event loop of every process.
        clients: how many client processes.
        transfer: how content was to travel.
        matched: whether every digest matched.
        found: files that were found.
        files: files whose digests were compared.
        bytes: content that was sent, in bytes.
        requests: requests that were answered.
        messages: messages that the server received, those of the handshakes included.
        messages_per_receive_mean: messages for each receive call of the server, in the mean.
        messages_per_receive_max: most messages that one receive call of the server brought.
        seconds: how long checking all files took.
        requests_per_second: requests divided by seconds.
        megabytes_per_second: content divided by seconds, in millions of bytes.
        latency: of the requests; nothing when there were none.
        server: what the server counted.
        mismatched: files whose digests differed.
        unreadable: what could not be read.
        skipped: entries that are neither files nor directories.
    """

    version: str
    machine: Machine
    backend: str
    clients: int
    transfer: str
    matched: bool
    found: int
    files: int
    bytes: int
    requests: int
    messages: int
    messages_per_receive_mean: float
    messages_per_receive_max: int
    seconds: float
    requests_per_second: float
    megabytes_per_second: float
    latency: Latency | None
    server: ServerReport
    mismatched: list[str]
    unreadable: list[UnreadableFile]
    skipped: int


def make_report(plan: Plan, outcome: Outcome) -> DemoReport:
    """Work out the figures of a run.

    Args:
        plan: what was asked for.
        outcome: what came of it.
    """
    totals, server, found = outcome.totals, outcome.server, outcome.found
    return DemoReport(
        version=__version__,
        machine=_describe_machine(),
        backend=plan.backend,
        clients=plan.clients,
        transfer=plan.transfer,
        matched=not totals.mismatched,
        found=totals.found,
        files=totals.files,
        bytes=totals.size,
        requests=totals.requests,
        messages=server.messages,
        messages_per_receive_mean=_ratio(server.messages, server.receives),
        messages_per_receive_max=server.largest_batch,
        seconds=outcome.elapsed,
        requests_per_second=_ratio(totals.requests, outcome.elapsed),
        megabytes_per_second=_ratio(totals.size / MEGABYTE, outcome.elapsed),
        latency=_latency(outcome.histogram),
        server=server,
        mismatched=[printable(path) for path in totals.mismatched],
        unreadable=[UnreadableFile(printable(trouble.path), trouble.reason) for trouble in found.unreadable],
        skipped=found.skipped,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _latency(histogram: Histogram) -> Latency | None:
    if not histogram.count:
        return None
    return Latency(
        minimum=histogram.minimum,
        mean=histogram.mean,
        p50=histogram.percentile(50),
        p99=histogram.percentile(99),
        p999=histogram.percentile(99.9),
        maximum=histogram.maximum,
    )


def _describe_machine() -> Machine:
    return Machine(
        architecture=platform.machine(),
        processors=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def make_table(report: DemoReport) -> Table:
    """Return the table that the demo ends with.

    Args:
        report: the figures.
    """
    clients = "1 client" if report.clients == 1 else f"{report.clients} clients"
    table = Table(title=f"alpc demo: {clients}, {report.backend}, {report.machine.python}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for measure, value in _rows(report):
        table.add_row(measure, value)
    return table


def _rows(report: DemoReport) -> list[tuple[str, str]]:
    latency = report.latency
    times = "none" if latency is None else f"{latency.p50:,.0f} / {latency.p99:,.0f} / {latency.p999:,.0f}"
    per_receive = f"{report.messages_per_receive_mean:,.2f} / {report.messages_per_receive_max:,}"
    ways = [
        (f"{way}: requests / MB", f"{arrived.requests:,} / {arrived.size / MEGABYTE:,.1f}")
        for way in WAYS
        if (arrived := report.server.ways.get(way)) is not None
    ]
    return [
        ("files", f"{report.files:,}"),
        ("digests that did not match", f"{len(report.mismatched):,}"),
        ("unreadable files", f"{len(report.unreadable):,}"),
        ("bytes", f"{report.bytes:,}"),
        *ways,
        ("messages", f"{report.messages:,}"),
        ("messages per kernel receive, mean / max", per_receive),
        ("requests/s", f"{report.requests_per_second:,.0f}"),
        ("MB/s", f"{report.megabytes_per_second:,.1f}"),
        ("latency p50 / p99 / p99.9, µs", times),
    ]
