"""Every check of the project as a nox session: thin commands, configured in pyproject.toml.

Belongs here: which command runs where, and what it needs installed. Never here: settings of the tools themselves.

``nox`` alone runs all that a change must pass. Arguments after ``--`` go to pytest, for example
``nox -s tests-3.13 -- --loop trio -k cancel``.

The Python that runs nox runs every test on every event loop. On each further Python a test that awaits runs on one of
the loops, which differs from test to test and from Python to Python; with arguments after ``--`` it runs on all there
too, so ``nox -s tests-3.13 -- -n logical`` runs everything on that one.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TYPED = ["alpc_async", "examples", "tests", "noxfile.py"]
MEASURED = "--measured"
PARALLEL = ["-n", "logical", "--maxprocesses", "8", "--dist", "worksteal"]
PROJECT = nox.project.load_toml("pyproject.toml")

nox.options.default_venv_backend = "uv|virtualenv"
# What is not installed is skipped and said so, also where a CI variable would make nox treat it as an error.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
# A measured run of `tests` queues `coverage` by itself; on a Python outside the list nothing else would.
nox.options.sessions = [
    "lint",
    "types",
    "arch",
    "tests",
    "docs",
    "package",
    *([] if THIS_PYTHON in PYTHONS else ["coverage"]),
]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group in pyproject.toml."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and likely mistakes with ruff, and that the formatting is ruff's."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy and basedpyright, both strict."""
    session.install("-e", ".[all]", *group("types"))
    session.run("mypy", *TYPED)
    session.run("basedpyright", *TYPED)


@nox.session
def arch(session: nox.Session) -> None:
    """Check the import contracts between the layers."""
    session.install(*group("arch"))
    session.run("lint-imports", "--no-cache")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on one Python; on the Python that runs nox on every event loop, and measure coverage too."""
    session.install("-e", ".[all]", *group("tests"))
    keep_bytecode(session)
    if session.posargs:
        session.run("pytest", *session.posargs)
    elif session.python == THIS_PYTHON:
        measure(session)
        session.notify("coverage", posargs=[MEASURED])
    else:
        session.run("pytest", *PARALLEL, "--loops-in-turn", "-m", "not alone")


@nox.session
def coverage(session: nox.Session) -> None:
    """Hold the branch coverage of the tests, over all three event loops, against the gate in pyproject.toml."""
    if MEASURED in session.posargs:
        session.install("coverage")
    else:
        session.install("-e", ".[all]", *group("tests"))
        keep_bytecode(session)
        measure(session)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


def keep_bytecode(session: nox.Session) -> None:
    """Have compiled modules kept, outside of the tree, whatever the environment says.

    Tests start many processes that import the package; each one that has to compile it takes a fifth of a second more,
    which was half of the processor time of the tests that start processes.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    # Not below `session.create_tmp`, which would also become the TMPDIR of the tests: too long a path for sockets.
    session.env["PYTHONPYCACHEPREFIX"] = str(Path(session.bin).absolute().parent / "bytecode")


def measure(session: nox.Session) -> None:
    """Run all tests under coverage, from a clean slate; those that measure a latency by themselves, and without it."""
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, "-m", "not alone")
    session.run("pytest", "-m", "alone")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a name or a link that leads nowhere is an error. Also draft the changelog."""
    session.install("-e", ".[all]", *group("docs"))
    session.run("towncrier", "build", "--draft", "--version", "next")
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-E", "-b", "html", "docs", "docs/_build/html")


@nox.session
def package(session: nox.Session) -> None:
    """Build the source archive and the wheel, install each by itself, and run the main job on a small tree."""
    session.install("build")
    built = Path(session.create_tmp()).absolute()
    session.run("python", "-m", "build", "--outdir", str(built / "dist"), silent=True)
    for archive in sorted((built / "dist").iterdir()):
        session.run("python", "-m", "pip", "install", "--force-reinstall", "--quiet", f"{archive}[all]")
        with session.chdir(built):
            session.run("alpc", "demo", str(Path(__file__).with_name("examples")), env={"HOME": str(built / "home")})
    shutil.rmtree(built)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Feed the parsers generated bytes for as long as the arguments after ``--`` say."""
    session.install("-e", ".[all]", *group("tests"))
    session.run("python", str(Path("tests", "fuzz", "run.py")), *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the benchmark beside its floor; arguments after ``--`` go to ``alpc bench``."""
    session.install(".[all]")
    session.run("alpc", "bench", *session.posargs)
