"""The fuzz session: run each target for a time, with atheris where it is installed, and say what came out.

Belongs here: arguments, processes and the report. Never here: targets and inputs.

    python tests/fuzz/run.py [--target NAME] [--seconds 120] [--seed 1] [--engine atheris|mutation]

Each target runs in a process of its own. The exit status is 0 only if nothing was found; an input that broke the
invariant is printed as hexadecimal text and kept in a file of the current directory.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_mutation(target: str, seconds: float, seed: int) -> int:
    """Fuzz one target by mutation in this process."""
    from tests.fuzz.mutation import fuzz
    from tests.fuzz.targets import TARGETS, seeds

    count, finding = fuzz(TARGETS[target], seeds(target), seed=seed, seconds=seconds)
    print(f"{target}: {count} executions in {seconds:g} s (mutation, seed {seed})")  # noqa: T201  # it is the report
    if finding is None:
        return 0
    path = Path(f"fuzz-{target}.bin")
    path.write_bytes(finding.data)
    print(f"{target}: {finding.error!r} for {finding.data.hex()}, kept in {path}")  # noqa: T201  # likewise
    return 1


def run_atheris(target: str, seconds: float, seed: int) -> int:
    """Fuzz one target by coverage in this process, which ends here."""
    # Not a dependency: it has wheels for few versions of Python and no types.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["alpc_async"]):
        from tests.fuzz.targets import TARGETS, seeds
    with TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(target)):
            Path(corpus, str(number)).write_bytes(data)
        options = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-max_len=4096", "-verbosity=1"]
        prefix = f"-artifact_prefix=fuzz-{target}-"
        atheris.Setup([sys.argv[0], *options, prefix, corpus], TARGETS[target])
        atheris.Fuzz()
    return 0


def run_all(targets: list[str], arguments: argparse.Namespace) -> int:
    """Fuzz targets one after the other, each in a process of its own."""
    failed = 0
    for target in targets:
        command = [sys.executable, __file__, "--target", target, "--in-process", "--engine", arguments.engine]
        command += ["--seconds", str(arguments.seconds), "--seed", str(arguments.seed)]
        done = subprocess.run(command, check=False)
        failed += done.returncode != 0
        print(f"{target}: {'FAILED' if done.returncode else 'nothing found'}", flush=True)  # noqa: T201  # the report
    return min(failed, 1)


def main() -> int:
    """Read the arguments and run."""
    sys.path.insert(0, str(ROOT))
    has_atheris = importlib.util.find_spec("atheris") is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", action="append", help="only this target; may be repeated")
    parser.add_argument("--seconds", type=float, default=120.0, help="time for each target")
    parser.add_argument("--seed", type=int, default=1, help="decides what is left to chance")
    parser.add_argument("--engine", choices=["atheris", "mutation"], default="atheris" if has_atheris else "mutation")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        run = run_atheris if arguments.engine == "atheris" else run_mutation
        return run(arguments.target[0], arguments.seconds, arguments.seed)
    from tests.fuzz.targets import TARGETS

    unknown = set(arguments.target or ()) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return run_all(arguments.target or list(TARGETS), arguments)


if __name__ == "__main__":
    sys.exit(main())
