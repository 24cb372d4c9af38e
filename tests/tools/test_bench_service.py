"""The benchmark of services: that it runs, and what it says.

Belongs here: the command with as little work as possible. Never here: targets; they depend on the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from alpc_async.tools import _backends, _bench_service
from alpc_async.tools._bench_service import Result, run_service_bench, service_command

if TYPE_CHECKING:
    from pathlib import Path


def test_it_measures_one_event_loop() -> None:
    """One short round gives every number."""
    result = run_service_bench("asyncio", 1, 2000)
    values = msgspec.structs.asdict(result)
    assert {name for name, value in values.items() if name != "growth" and not value > 0} == set()


GOOD = Result(1000.0, 0.6, 50.0, 1.2, 6000.0, 6.0, 1.0, 90.5, 40.0, 0.8)
BAD = Result(1000.0, 0.5, 50.0, 1.4, 4000.0, 4.0, 99.0, 90.5, 60.0, 1.2)


@pytest.mark.parametrize(("result", "word"), [(GOOD, "pass"), (BAD, "FAIL")])
def test_targets_are_judged(
    result: Result, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each target is printed with its verdict, and everything measured is written on request."""

    def pretend(_backend: str, _rounds: int) -> Result:
        return result

    monkeypatch.setattr(_bench_service, "run_service_bench", pretend)
    monkeypatch.setattr(_backends, "installed", lambda: ["asyncio", "trio"])
    output = tmp_path / "result.json"
    assert service_command(json=output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("load average before: ")
    assert len(lines) == 13
    assert sum("peak memory of client and server 90.5 MiB" in line for line in lines) == 2
    assert sum(line.startswith(f"  {word}  ") for line in lines) == 10
    assert msgspec.json.decode(output.read_bytes(), type=dict[str, Result]) == {"asyncio": result, "trio": result}


def test_a_failure_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that fails ends the benchmark with a status and a sentence."""

    def fail(_backend: str, _rounds: int) -> Result:
        raise RuntimeError("the server of the benchmark did not start")

    monkeypatch.setattr(_bench_service, "run_service_bench", fail)
    assert service_command(backend=["asyncio"]) == 1
    assert "did not start" in capsys.readouterr().err
