"""Digests of contracts: what two sides compare to see whether they mean the same.

Belongs here: `fingerprint`, and that of a contract, worked out once. Never here: descriptions (`_schema`), comparing
two of them in detail (`_evolution`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ..contract_errors import InvalidInterface
from ._schema import describe_contract

if TYPE_CHECKING:
    from ._contract import Contract
    from ._schema import InterfaceSchema

__all__ = ["contract_fingerprint", "fingerprint"]

_SAID_ONLY: Final = frozenset({"title", "description", "examples", "default"})
_NAMED: Final = frozenset({"properties", "mapping"})
"""Words of JSON Schema whose keys are names of fields and tags, which may be words of JSON Schema as well."""
_REFERENCE: Final = "#/definitions/"


def fingerprint(schema: InterfaceSchema) -> str:
    """Return a digest of everything that two sides must agree on: 16 hexadecimal digits.

    Names of types, docstrings, defaults and the minor version do not count.

    Args:
        schema: the description of the interface.
    """
    bare = msgspec.structs.replace(
        schema,
        name="",
        doc="",
        version=(schema.version[0], 0),
        methods=[msgspec.structs.replace(method, doc="", signature="") for method in schema.methods],
        definitions={},
    )
    plain = _Bare(schema.definitions).strip(msgspec.to_builtins(bare))
    return hashlib.blake2b(msgspec.json.encode(plain, order="sorted"), digest_size=8).hexdigest()


class _Bare:
    """Leaves out what is said only, and puts each type where it is first referred to, with a number for its name."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._numbers: dict[str, int] = {}

    def strip(self, value: Any) -> Any:
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value).items()
            return {
                key: self._strip_named(part) if key in _NAMED else self.strip(part)
                for key, part in items
                if key not in _SAID_ONLY
            }
        if isinstance(value, list | tuple):
            return list(map(self.strip, cast("list[Any]", value)))
        if isinstance(value, str) and value.startswith(_REFERENCE):
            return self._refer(value.removeprefix(_REFERENCE))
        return value

    def _strip_named(self, part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        return {name: self.strip(inner) for name, inner in cast("dict[str, Any]", part).items()}

    def _refer(self, name: str) -> list[Any]:
        number = self._numbers.get(name)
        if number is not None:
            return [number]
        number = self._numbers[name] = len(self._numbers)
        return [number, self.strip(self._definitions.get(name))]


def contract_fingerprint(contract: Contract) -> str:
    """Return the fingerprint of a contract, which is worked out once; empty when a type of it cannot be described.

    Args:
        contract: the contract.
    """
    if contract.fingerprint is None:
        try:
            found = fingerprint(describe_contract(contract))
        except (TypeError, NotImplementedError, InvalidInterface):
            # What msgpack takes and JSON cannot say, such as a dict whose keys are tuples.
            found = ""
        msgspec.structs.force_setattr(contract, "fingerprint", found)
    return contract.fingerprint or ""
