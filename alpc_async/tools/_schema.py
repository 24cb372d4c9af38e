"""``alpc schema dump`` and ``alpc schema check``: contracts as files, and whether a change keeps old peers working.

Belongs here: finding interface classes and files, the exit status. Never here: the comparison (service).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

import cyclopts
import msgspec

from ..contract_errors import InvalidInterface
from ..service import InterfaceSchema, describe_interface, find_breaks, is_interface

__all__ = ["check_command", "dump_command", "schema_app"]

BREAKS: Final = 1
USAGE: Final = 2


def _load(source: str) -> list[InterfaceSchema]:
    """Return the descriptions of a file, of ``module:Class``, or of all interfaces of ``module``.

    Raises:
        ValueError: there is nothing of the kind.
    """
    if source.endswith(".json"):
        try:
            return msgspec.json.decode(Path(source).read_bytes(), type=list[InterfaceSchema])
        except (OSError, msgspec.MsgspecError) as error:
            raise ValueError(f"{source} cannot be read: {error}") from None
    module_name, _, names = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{module_name} cannot be imported: {error}") from None
    wanted = (
        names.split(",")
        if names
        else [
            name for name, value in vars(module).items() if is_interface(value) and value.__module__ == module.__name__
        ]
    )
    found = [getattr(module, name, None) for name in wanted]
    if not found or None in found:
        raise ValueError(f"{source} names no interface")
    try:
        return [describe_interface(interface) for interface in found if interface is not None]
    except InvalidInterface as error:
        raise ValueError(str(error)) from None


def dump_command(source: str, /, *, output: Path | None = None) -> int:
    """Write the contracts of a module down as JSON, to be kept and compared with later ones.

    Args:
        source: ``module``, or ``module:Class`` or ``module:One,Other`` for some of its interfaces.
        output: the file; by default standard output.

    Returns:
        Exit status: 0, or 2 when there is no such interface.
    """
    try:
        schemas = _load(source)
    except ValueError as error:
        print(f"alpc schema: {error}", file=sys.stderr)
        return USAGE
    text = msgspec.json.format(msgspec.json.encode(schemas, order="deterministic"), indent=2)
    if output is None:
        print(text.decode())
    else:
        output.write_bytes(text + b"\n")
    return 0


def check_command(old: str, new: str, /) -> int:
    """Say whether peers that have the old contract go on working with the new one, or what breaks.

    Args:
        old: a file that ``alpc schema dump`` wrote, or a module like there.
        new: likewise.

    Returns:
        Exit status: 0 when they do, 1 when something breaks, 2 when one of the two cannot be read.
    """
    try:
        before, after = _load(old), {schema.uuid: schema for schema in _load(new)}
    except ValueError as error:
        print(f"alpc schema: {error}", file=sys.stderr)
        return USAGE
    breaks: list[str] = []
    for schema in before:
        successor = after.get(schema.uuid)
        if successor is None:
            breaks.append(f"{schema.name} {schema.uuid} is gone")
        else:
            breaks += find_breaks(schema, successor)
    for text in breaks:
        print(text)
    if not breaks:
        print(f"compatible: {', '.join(schema.name for schema in before)}")
    return BREAKS if breaks else 0


schema_app: Final = cyclopts.App(name="schema", help="Keep contracts as files, and compare them.")
schema_app.command(dump_command, name="dump")
schema_app.command(check_command, name="check")
