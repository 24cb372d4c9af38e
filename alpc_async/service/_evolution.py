"""Whether clients and servers of an older contract go on working with a newer one.

Belongs here: comparing two descriptions. Never here: making them (`_schema`).

Arguments go from old clients to new servers, so the new type must take whatever the old one took. Results go the other
way, so the old type must take whatever the new one gives. Both are one question, asked with the sides exchanged: does
the wider type cover the narrower one?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._schema import InterfaceSchema, MethodSchema

__all__ = ["find_breaks"]

Json = dict[str, Any]

_LOWER_BOUNDS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME: Final = ("pattern", "format", "contentEncoding", "multipleOf", "x-alpc-interface")


def find_breaks(old: InterfaceSchema, new: InterfaceSchema) -> list[str]:
    """Return a sentence for everything that breaks peers which have the old contract; empty when nothing does.

    Args:
        old: the contract that peers have.
        new: the contract that shall replace it.
    """
    if old.uuid != new.uuid:
        return [f"the uuid changed from {old.uuid} to {new.uuid}: it is another interface"]
    if new.version[0] != old.version[0]:
        return [f"the major version changed from {old.version[0]} to {new.version[0]}: old peers are turned away"]
    found: list[str] = []
    if new.version[1] < old.version[1]:
        found.append(f"the minor version went back from {old.version[1]} to {new.version[1]}")
    numbers = {method.number: method for method in new.methods}
    for method in old.methods:
        successor = numbers.get(method.number)
        if successor is None:
            found.append(f"{old.name}.{method.name}: method {method.number} was removed")
        else:
            found.extend(f"{old.name}.{method.name}: {text}" for text in _method_breaks(method, successor, old, new))
    known = {method.number for method in old.methods}
    if found == [] and any(number not in known for number in numbers) and new.version == old.version:
        found.append(
            f"methods were added but the version is still {new.version[0]}.{new.version[1]}: raise the minor one"
        )
    return found


def _method_breaks(
    old: MethodSchema, new: MethodSchema, old_interface: InterfaceSchema, new_interface: InterfaceSchema
) -> Iterator[str]:
    if old.kind != new.kind:
        yield f"it was {old.kind} and is {new.kind}"
        return
    if old.name != new.name:
        yield f"its number {old.number} now belongs to {new.name}"
        return
    yield from _parameter_breaks(old, new, _Comparison(new_interface.definitions, old_interface.definitions))
    if old.result is not None and new.result is not None:
        results = _Comparison(old_interface.definitions, new_interface.definitions)
        for text in results.uncovered(old.result, new.result):
            yield f"result{text}"
    declared = {fault.name for fault in old.faults}
    for fault in new.faults:
        if fault.name not in declared:
            yield f"fault {fault.name!r} was added, which old clients see as a RemoteFault"


def _parameter_breaks(old: MethodSchema, new: MethodSchema, arguments: _Comparison) -> Iterator[str]:
    for position, parameter in enumerate(old.parameters):
        if position >= len(new.parameters):
            yield f"parameter {parameter.name!r} was removed"
            continue
        successor = new.parameters[position]
        if successor.name != parameter.name:
            yield f"parameter {position + 1} was {parameter.name!r} and is {successor.name!r}"
            continue
        if successor.required and not parameter.required:
            yield f"parameter {parameter.name!r} lost its default"
        for text in arguments.uncovered(successor.schema, parameter.schema):
            yield f"parameter {parameter.name!r}{text}"
    for added in new.parameters[len(old.parameters) :]:
        if added.required:
            yield f"parameter {added.name!r} was added without a default"


class _Comparison:
    """Compares types of two descriptions.

    Args:
        wider: the definitions of the side that takes.
        narrower: the definitions of the side that gives.
    """

    def __init__(self, wider: dict[str, Json], narrower: dict[str, Json]) -> None:
        self._wider = wider
        self._narrower = narrower
        self._assumed: set[tuple[str, str]] = set()

    def uncovered(self, wider: Json, narrower: Json) -> list[str]:
        """Return what the narrower type may give and the wider one does not take, each with the path to it."""
        pair = (str(wider.get("$ref", "")), str(narrower.get("$ref", "")))
        if all(pair):
            # A type that contains itself is covered if everything else in it is.
            if pair in self._assumed:
                return []
            self._assumed.add(pair)
        wider, narrower = _resolve(wider, self._wider), _resolve(narrower, self._narrower)
        if not wider:
            return []
        if "anyOf" in narrower:
            return [text for part in narrower["anyOf"] for text in self.uncovered(wider, part)]
        if "anyOf" in wider:
            tries = [self.uncovered(part, narrower) for part in wider["anyOf"]]
            return [] if [] in tries else [f": {_name(narrower)} is not among what is taken"]
        return self._uncovered_plain(wider, narrower)

    def _uncovered_plain(self, wider: Json, narrower: Json) -> list[str]:
        if "x-alpc-stream" in wider or "x-alpc-stream" in narrower:
            if not ("x-alpc-stream" in wider and "x-alpc-stream" in narrower):
                return [f": it was {_name(narrower)} and is {_name(wider)}"]
            return self.uncovered(wider["x-alpc-stream"], narrower["x-alpc-stream"])
        if wider.get("x-alpc-beside") != narrower.get("x-alpc-beside"):
            return [f": it was {_name(narrower)} and is {_name(wider)}"]
        if "enum" in narrower or "const" in narrower:
            return _uncovered_values(wider, narrower)
        if not _type_covers(wider.get("type"), narrower.get("type")) or "enum" in wider or "const" in wider:
            return [f": {_name(narrower)} is not taken as {_name(wider)}"]
        found = [f": {key} differs" for key in _SAME if wider.get(key) != narrower.get(key)]
        found += [f": {key} is stricter" for key in _LOWER_BOUNDS if wider.get(key, -1e400) > narrower.get(key, -1e400)]
        found += [f": {key} is stricter" for key in _UPPER_BOUNDS if wider.get(key, 1e400) < narrower.get(key, 1e400)]
        return found + self._uncovered_parts(wider, narrower)

    def _uncovered_parts(self, wider: Json, narrower: Json) -> list[str]:
        found: list[str] = []
        theirs: Json = narrower.get("properties", {})
        for name, schema in wider.get("properties", {}).items():
            if name in theirs:
                found += [f".{name}{text}" for text in self.uncovered(schema, theirs[name])]
            if name in wider.get("required", ()) and name not in narrower.get("required", ()):
                found.append(f".{name}: it is required and may be missing")
        if wider.get("additionalProperties") is False:
            found += [f".{name}: it is not expected" for name in theirs if name not in wider.get("properties", {})]
        for key in ("items", "additionalProperties"):
            if isinstance(wider.get(key), dict) and isinstance(narrower.get(key), dict):
                found += [f"[]{text}" for text in self.uncovered(wider[key], narrower[key])]
        pairs = zip(wider.get("prefixItems", ()), narrower.get("prefixItems", ()), strict=False)
        for position, (ours, other) in enumerate(pairs):
            found += [f"[{position}]{text}" for text in self.uncovered(ours, other)]
        return found


def _resolve(schema: Json, definitions: dict[str, Json]) -> Json:
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if isinstance(reference, str) else schema


def _type_covers(wider: object, narrower: object) -> bool:
    return wider is None or wider == narrower or (wider == "number" and narrower == "integer")


def _uncovered_values(wider: Json, narrower: Json) -> list[str]:
    values: list[Any] = narrower.get("enum", [narrower.get("const")])
    taken = wider.get("enum", [wider["const"]] if "const" in wider else None)
    if taken is None:
        kinds: dict[Any, str] = {str: "string", int: "integer", type(None): "null"}
        wrong = [value for value in values if not _type_covers(wider.get("type"), kinds.get(type(value)))]
    else:
        wrong = [value for value in values if value not in taken]
    return [f": the value {value!r} is not taken" for value in wrong]


def _name(schema: Json) -> str:
    if "x-alpc-stream" in schema:
        return "a stream"
    if "x-alpc-beside" in schema:
        return f"a {schema['x-alpc-beside']}"
    return str(schema.get("title") or schema.get("type") or schema.get("enum") or "something else")
