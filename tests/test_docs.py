"""What the documentation says is so.

Belongs here: that examples run, that printed code is the code, that names and tables are those of the package. Never
here: docstrings (`test_docstrings`), links to Python objects (the build of the documentation checks them).
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import alpc_async
from alpc_async import contract_errors, errors, memory_errors

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts]
# Seconds until a process that should have acted counts as failed.
WAIT = 30.0

# Lines that each example prints, among others.
PRINTED = {
    "access_list": {
        "printed",
        "no entry gives control",
        f"refused send: deny user:{os.geteuid()} send",
        f"refused connect: deny user:{os.geteuid()} all",
    },
    "cancellation": {
        "1: DeadlineExceeded after 0.05 s",
        "2: the scope around the request ended it",
        "3: CANCELLED",
        "   the handler of request 1 was cancelled",
        "   the handler of request 2 was cancelled",
        "   the handler of request 3 was cancelled",
        "4: TOO_LATE, the reply was 'done'",
    },
    "completion_port": {"{'left': 1, 'right': 2}"},
    "concurrent_requests": {"100 of 100 answers are correct"},
    "datagrams": {"10008 bytes of log lines; then: the other side closed the connection"},
    "drain": {"the one that was received: finished early", "a new client: NameNotFound"},
    "full_duplex": {"the server asks: which case?", "the reply: FULL DUPLEX"},
    "greeter": {f"hello world, you are uid {os.geteuid()}"},
    "impersonation": {
        "made by uid 0"
        if os.geteuid() == 0
        else "setgroups failed with Operation not permitted; a server that impersonates needs the capabilities "
        "CAP_SETUID and CAP_SETGID, which root has",
        "the sender allows identify only; it has to connect with qos=alpc.SecurityQos('impersonate')",
    },
    "large_data": {"view 9b7cb1ed", "direct 9b7cb1ed", "handle 9b7cb1ed"},
    "limits": {
        "agreed: 16384 bytes, 8 messages",
        "too long: 1049600 bytes of 1048576 (max_view_size)",
        "quota used up: 8 (max_outstanding_messages)",
        "no room within 0.05 s",
        "room again",
    },
    "manual_accept": {
        "the server said: v2 it is",
        "hello alice",
        "refused with status 1000: only v2 is spoken here",
    },
    "served": {"cpla"},
    "testing_a_service": {"passed: test_it_answers", "passed: test_its_client_notices_the_end"},
    "service_files": {"b'hello'", "1000"},
    "service_objects": {"33 %", "66 %", "100 %", "written: 300", "report: 300 bytes, and nobody holds it any more"},
    "service_operations": {"['hello (uid 1234)']", "ACCESS_DENIED", "calling read", "[]"},
    "typed_service": {
        "sha256: 2cf24dba5fb0a30e",
        "first words: alpha beta gamma",
        "no such book: Ulysses",
        "TypeMismatch: Library.find, argument 'title': Expected `str`, got `int`",
    },
    "thread_and_process_pools": {"read block 19", "bf63d024514567f0", "handled in threads: 20"},
    "type_check_fixed": {"first", "second", "gone: the other side closed the connection"},
    "who_is_calling": {
        f"{'root' if os.geteuid() == 0 else 'a user'}: uid {os.geteuid()}, gid {os.getegid()}",
        f"not the server we wanted: uid {os.geteuid() + 1}",
    },
    "worker_pool": {"demo.upper ALPHA BETA GAMMA", "demo.reverse ahpla ateb ammag", "posted: timer tick"},
}
# These have a test of their own.
# Examples short enough for the README have no command line.
SHORT = {"echo_client", "echo_server", "greeter"}

OTHERS = {"echo_client", "echo_server", "type_check_broken"}

NT_ALPC_CALLS = [
    "CreatePort",
    "ConnectPort",
    "ConnectPortEx",
    "AcceptConnectPort",
    "SendWaitReceivePort",
    "CancelMessage",
    "DisconnectPort",
    "CreatePortSection",
    "DeletePortSection",
    "CreateSectionView",
    "DeleteSectionView",
    "CreateResourceReserve",
    "DeleteResourceReserve",
    "CreateSecurityContext",
    "DeleteSecurityContext",
    "RevokeSecurityContext",
    "QueryInformation",
    "SetInformation",
    "QueryInformationMessage",
    "ImpersonateClientOfPort",
    "ImpersonateClientContainerOfPort",
    "OpenSenderProcess",
    "OpenSenderThread",
]

# Runs the ``main`` of an example on a loop that its own command line does not offer.
LAUNCHER = """
import anyio, json, os, runpy, sys
path, backend, options = sys.argv[1:]
sys.path.insert(0, os.path.dirname(path))
anyio.run(runpy.run_path(path)["main"], backend=backend, backend_options=json.loads(options))
"""


def command(name: str, loop: tuple[str, dict[str, Any]]) -> list[str]:
    """Return the command that runs an example, as a user would type it where that is possible."""
    path = str(EXAMPLES / f"{name}.py")
    python = [sys.executable, "-W", "error"]
    backend, options = loop
    if options.get("use_uvloop") or (name in SHORT and backend != "asyncio"):
        return [*python, "-c", LAUNCHER, path, backend, "{}" if backend == "trio" else '{"use_uvloop": true}']
    return [*python, path] if name in SHORT else [*python, path, "--backend", backend]


def environment() -> dict[str, str]:
    """Return the environment of an example: this one, in which the package is found without being installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_example(name: str, loop: tuple[str, dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(
        command(name, loop), capture_output=True, text=True, timeout=WAIT, env=environment(), check=False
    )


# ------------------------------------------------------------------------------------------------------------- examples


def test_every_example_is_run() -> None:
    """No example is left out of the tests below."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == PRINTED.keys() | OTHERS


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_an_example_prints_what_it_promises(
    name: str, anyio_backend: tuple[str, dict[str, Any]], runtime_directory: Path
) -> None:
    """Each example runs as a process, prints what it is about, ends well, and leaves no name behind."""
    ended = run_example(name, anyio_backend)
    assert ended.stderr == ""
    assert ended.returncode == 0
    assert PRINTED[name] - set(ended.stdout.splitlines()) == set()
    assert list(runtime_directory.iterdir()) == []


def test_the_broken_example_breaks_as_described(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """The server that does not look at the type serves one client, and ends when it answers the closing notice."""
    ended = run_example("type_check_broken", anyio_backend)
    assert ended.returncode != 0
    assert ended.stdout.splitlines()[:1] == ["first"]
    assert "second" not in ended.stdout
    assert "ReplyMismatch: cannot reply to message 0" in ended.stderr


def test_the_server_and_the_client_of_the_readme_talk(
    anyio_backend: tuple[str, dict[str, Any]], runtime_directory: Path
) -> None:
    """The two programs of the README, each a process, work as printed; an interrupted server leaves nothing behind."""
    with subprocess.Popen(
        command("echo_server", anyio_backend), stderr=subprocess.PIPE, env=environment(), text=True
    ) as server:
        deadline = time.monotonic() + WAIT
        while not (runtime_directory / "demo.echo").exists():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        clients = [run_example("echo_client", anyio_backend) for _ in range(2)]
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=WAIT)
    for client in clients:
        assert client.stderr == ""
        assert client.stdout == f"'hello' from uid {os.geteuid()} gid {os.getegid()} (pid {server.pid})\n"
    assert list(runtime_directory.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- README


@pytest.mark.parametrize(
    ("position", "name", "most"),
    [(0, "greeter", 17), (1, "echo_server", 12), (2, "echo_client", 12)],
    ids=["service", "server", "client"],
)
def test_the_readme_prints_the_examples(position: int, name: str, most: int) -> None:
    """The code in the README is that of the files, and short: at most twelve lines that say something for a side."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    assert blocks[position] == (EXAMPLES / f"{name}.py").read_text()
    assert len([line for line in blocks[position].splitlines() if line.strip()]) <= most


def test_the_readme_tells_the_two_commands() -> None:
    """The two commands stand in the README letter by letter."""
    assert "python3 -m pip install '.[all]' && alpc demo          # the main job\n" in README
    assert (
        "python3 -m pip install nox && nox                     "
        "# lint, types, layer rules, all tests on all three event loops\n"
    ) in README


def test_relative_links_lead_somewhere() -> None:
    """Each link of the README, and each one between pages, names a file that exists."""
    links = [(ROOT / "README.md", target) for target in re.findall(r"\]\(([^)]+)\)", README)]
    links += [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    relative = [(page, target.split("#")[0]) for page, target in links if "://" not in target]
    assert len(relative) > 20
    assert [f"{page.name}: {target}" for page, target in relative if not (page.parent / target).exists()] == []


# ---------------------------------------------------------------------------------------------------------------- pages


def load_generator() -> ModuleType:
    """Load the script that makes parts of the pages."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_fresh() -> None:
    """Drawings, catalogues and tables say what the code says now; ``python docs/generate.py`` makes them anew."""
    generator = load_generator()
    written = {path.name: path.read_text() for path in generator.OUTPUT.iterdir()}
    assert written == generator.generated()
    assert generator.readme() == README
    assert generator.limits_table(full=False) in README


def test_the_state_drawings_show_every_transition() -> None:
    """Each frame of the transition tables and each state appears in the drawing of its side."""
    generator = load_generator()
    for role, table in generator.SENDABLE.items():
        drawing = generator.state_drawing(role)
        frames = {kind for tables in (table, generator.RECEIVABLE[role]) for row in tables.values() for kind in row}
        assert [kind for kind in frames if generator.FrameType(kind).name not in drawing] == []
        assert [state for state in generator.State if f">{state.name}<" not in drawing] == []


def test_pages_contain_no_code_that_nothing_runs() -> None:
    """Python code in the pages comes out of the examples."""
    assert [str(page) for page in PAGES if re.search(r"^```(py|python|pycon)\b", page.read_text(), re.MULTILINE)] == []


def test_pages_include_existing_parts_of_examples() -> None:
    """Each included function or class is in the example that the page names."""
    pattern = r"```\{literalinclude\} (\S+)\n(?::pyobject: (\S+)\n)?"
    included = [(page, *found) for page in PAGES for found in re.findall(pattern, page.read_text())]
    assert len(included) > 10
    for page, target, name in included:
        code = (page.parent / target).read_text()
        assert re.search(rf"^ *(async def|def|class) {name.rpartition('.')[2]}\b", code, re.MULTILINE), (page, name)


def test_the_errors_page_has_an_entry_for_each_error() -> None:
    """Each error class has an entry in fixed form, in order, that names what else the error is."""
    text = (DOCS / "reference" / "errors.md").read_text()
    form = r"^## `(\w+)`\n\n- \*\*Also a\*\*: (?:`([\w.]+)`|nothing else)[^-]*- \*\*When\*\*: .*?- \*\*Do\*\*: "
    entries = re.findall(form, text, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in entries] == sorted(
        {*errors.__all__, *contract_errors.__all__, *memory_errors.__all__} - {"AlpcError"}
    )
    for name, other in entries:
        bases = [base for base in getattr(alpc_async, name).__bases__ if base is not errors.AlpcError]
        expected = [f"{'anyio.' if base.__module__.startswith('anyio') else ''}{base.__name__}" for base in bases]
        assert ([other] if other else []) == expected, name


def test_each_call_of_windows_is_answered() -> None:
    """The page for people from Windows has one row for each call of the family."""
    page = (DOCS / "explanation" / "coming-from-windows.md").read_text()
    assert sorted(re.findall(r"^\| `NtAlpc(\w+)` \| \S", page, re.MULTILINE)) == sorted(NT_ALPC_CALLS)


def test_decision_records_are_numbered_without_gaps() -> None:
    """Records are numbered from 1, and each title repeats its number."""
    records = sorted(DOCS.glob("decisions/[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    assert [path.name for path in records if not path.read_text().startswith(f"# {int(path.name[:4])}. ")] == []


def test_the_names_that_pages_print_exist() -> None:
    """What a page or the README calls ``alpc.something`` is a public name of the package."""
    texts = {str(page): page.read_text() for page in [*PAGES, ROOT / "README.md"]}
    missing = {
        (page, name)
        for page, text in texts.items()
        for name in re.findall(r"(?<![\w.])alpc\.([A-Za-z_]\w*)", text)
        if not hasattr(alpc_async, name)
    }
    assert missing == set()
