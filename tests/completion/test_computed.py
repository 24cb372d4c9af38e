"""Clocks of the handlers: what they compute counts, what they wait does not."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

import alpc_async as alpc
from alpc_async.completion._computed import ProcessMeter, ThreadMeter
from alpc_async.completion._sized import SizedCrew
from alpc_async.link import processor_time_of_process, processor_time_of_thread
from tests.port.support import WAIT, until


def compute(seconds: float) -> None:
    """Compute for so much processor time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_handler_in_a_thread_is_counted_while_it_runs_and_afterwards() -> None:
    """Nothing is counted twice, and nothing of the time in which a handler waits."""
    meter = ThreadMeter()
    computed, free = threading.Event(), threading.Event()

    def handle(_target: object) -> None:
        compute(0.02)
        computed.set()
        free.wait(WAIT)
        compute(0.01)

    thread = threading.Thread(target=meter.call, args=(handle, None))
    thread.start()
    assert computed.wait(WAIT)
    first = meter.take().handlers
    assert 0.02 <= first < 0.03
    assert meter.take().handlers < 0.005
    free.set()
    thread.join()
    assert 0.01 <= meter.take().handlers < 0.02
    assert meter.take().handlers == 0.0


def test_what_others_in_this_process_compute_is_told_apart() -> None:
    """Time between handlers is that of others."""
    meter = ThreadMeter()
    meter.take()
    meter.call(compute, 0.02)
    compute(0.03)
    computed = meter.take()
    assert computed.handlers == pytest.approx(0.02, abs=0.01)
    assert 0.03 <= computed.others < 0.045


def test_a_process_is_counted_from_when_it_is_first_seen() -> None:
    """What it computed before is not counted; one that is gone counts nothing."""
    meter = ProcessMeter()
    assert meter.take([os.getpid()]).handlers == 0.0
    compute(0.02)
    assert meter.take([os.getpid()]).handlers >= 0.02
    assert meter.take([]).handlers == 0.0
    assert meter.take([2**22 + 1]).handlers == 0.0


def test_clocks_of_what_is_gone_tell_nothing() -> None:
    """A thread that has ended has no clock, and a process neither."""
    thread = threading.Thread(target=compute, args=(0.0,))
    thread.start()
    assert thread.native_id is not None
    # The kernel's part of a thread may outlive the other by a moment.
    end = time.monotonic() + WAIT
    while processor_time_of_thread(thread.native_id) is not None:
        assert time.monotonic() < end
    assert processor_time_of_process(2**22 + 1) is None
    assert (processor_time_of_thread(threading.get_native_id()) or 0.0) > 0.0


async def test_pools_know_what_their_handlers_compute() -> None:
    """A pool of threads reports the processor time of its handlers to its sizing, also while they run."""
    stop = threading.Event()

    def handle(message: Any) -> None:
        while not stop.is_set():
            compute(0.001)
        message.reply(b"")

    options: dict[str, Any] = {"kind": "thread", "minimum": 1, "maximum": 1, "notices": False}
    options |= {"grace": 0.0, "cancel_grace": 1.0}
    async with (
        alpc.port_pair() as (left, right),
        alpc.CompletionPort() as completion_port,
        SizedCrew(completion_port, handle, **options) as crew,
    ):
        completion_port.associate(right)
        pending = left.start_request(b"")
        try:
            await until(lambda: crew.kind.take_computed().handlers > 0)
            assert not pending.done
        finally:
            stop.set()
        assert (await pending).data == b""
