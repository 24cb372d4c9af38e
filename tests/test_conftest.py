"""The suite's own fixtures: each event loop is the one it is called, and leaks are found on all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.lowlevel
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester"]


@pytest.fixture
def run_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run the text of a test module, under the real conftest, in a process of its own."""
    # The real conftest uses the package, which need not be installed for the tests to run.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess(
            "-p", "no:asyncio", "-p", "no:trio", "-p", "no:cacheprovider", "-v", "--anyio-mode=auto", *options
        )

    return run


LOOP_CLASSES = {
    ("asyncio", False): "asyncio.",
    ("asyncio", True): "uvloop",
    ("trio", False): "trio.",
}


async def test_the_loop_is_the_one_that_was_asked_for(anyio_backend: tuple[str, dict[str, bool]]) -> None:
    """An asynchronous test runs on the library and on the implementation of the loop that its fixture names."""
    library, options = anyio_backend
    token = anyio.lowlevel.current_token().native_token
    assert type(token).__module__.startswith(LOOP_CLASSES[library, options.get("use_uvloop", False)])


def test_ports_of_a_test_have_a_directory_of_their_own(runtime_directory: Path) -> None:
    """The directory of port names is private, empty, and short enough for a socket address."""
    assert os.environ["ALPC_RUNTIME_DIR"] == str(runtime_directory)
    assert runtime_directory.stat().st_mode & 0o777 == 0o700
    assert list(runtime_directory.iterdir()) == []


def test_what_a_test_leaves_open_fails_it(run_suite: Callable[..., pytest.RunResult]) -> None:
    """A descriptor or a mapping left behind fails the test on every loop and is named; a failed test fails once."""
    result = run_suite("""
        import mmap, os
        kept = []

        async def test_leaves_a_descriptor():
            kept.append(os.open("/dev/zero", os.O_RDONLY))

        async def test_leaves_a_mapping():
            section = os.memfd_create("of-a-test")
            os.ftruncate(section, 4096)
            mapping = mmap.mmap(section, 4096)
            os.close(section)
            kept.append(mapping)

        def test_fails_and_leaves_a_descriptor():
            kept.append(os.open("/dev/zero", os.O_RDONLY))
            assert kept == []
    """)
    result.assert_outcomes(passed=6, errors=6, failed=1)
    result.stdout.fnmatch_lines(["*the test left open: descriptor * -> /dev/zero"])
    result.stdout.fnmatch_lines(["*the test left open: *mapping * of /memfd:of-a-test*"])


def test_loops_and_fixtures_are_no_leaks(run_suite: Callable[..., pytest.RunResult]) -> None:
    """Descriptors of the loop, and those that an asynchronous fixture closes, are not reported."""
    result = run_suite("""
        import os
        import anyio, pytest

        @pytest.fixture(scope="module")
        async def wide():
            reading, writing = os.pipe()
            yield reading
            os.close(reading)
            os.close(writing)

        @pytest.fixture
        async def narrow():
            descriptor = os.open("/dev/zero", os.O_RDONLY)
            yield descriptor
            os.close(descriptor)

        async def test_uses_none():
            await anyio.sleep(0)

        async def test_uses_one(narrow):
            await anyio.run_process(["true"])

        async def test_uses_both(wide, narrow):
            await anyio.to_thread.run_sync(os.getpid)
    """)
    result.assert_outcomes(passed=9)


def test_the_suite_can_be_restricted_to_some_loops(run_suite: Callable[..., pytest.RunResult]) -> None:
    """With ``--loop`` asynchronous tests of other loops are deselected; tests without a loop stay."""
    text = """
        async def test_waits():
            pass

        def test_does_not_wait():
            pass
    """
    result = run_suite(text, "--loop", "trio", "--loop", "asyncio+uvloop")
    result.assert_outcomes(passed=3, deselected=1)
    result.stdout.fnmatch_lines(["*test_waits?asyncio+uvloop? PASSED*", "*test_waits?trio? PASSED*"])


def test_each_test_can_have_one_loop_in_turn(run_suite: Callable[..., pytest.RunResult]) -> None:
    """With ``--loops-in-turn`` each asynchronous test runs on one loop, different tests on different ones."""
    text = """
        import pytest

        @pytest.mark.parametrize("number", range(30))
        async def test_waits(number):
            pass

        def test_does_not_wait():
            pass
    """
    result = run_suite(text, "--loops-in-turn")
    result.assert_outcomes(passed=31, deselected=60)
    passed = [line for line in result.outlines if " PASSED" in line]
    for loop in ("[asyncio-", "[asyncio+uvloop-", "[trio-"):
        assert any(loop in line for line in passed)
