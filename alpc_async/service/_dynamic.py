"""Calling a service without having its interface: by description, with values as JSON has them.

Belongs here: `DynamicClient`, and turning JSON values into what goes over the wire. Never here: the command line.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ..contract_errors import TypeMismatch, UnknownInterface
from ._client_end import ClientEnd
from ._fault import Fault
from ._layout import SPECIAL, decode_special, encode, pack_call
from ._management import Introspection, Management
from ._schema import describe_interface
from ._stream import StreamReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

    from typing_extensions import Buffer

    from ..port import CommunicationPort, Message
    from ._management import InterfaceSummary
    from ._schema import InterfaceSchema, MethodSchema

__all__ = ["DeclaredFault", "DynamicClient", "to_wire"]

_SPECIAL: Final = bytes((SPECIAL,))
_EVERYWHERE: Final = (Introspection, Management)


class DeclaredFault(Fault):
    """A fault that the service declares and this side has no class for."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fault = type(self).fault_name()
        self.fields = fields
        self.args = (fields,)

    @classmethod
    def decode_fields(cls, data: Buffer) -> Self:
        """Make the fault from its fields, whatever they are."""
        return cls(msgspec.msgpack.decode(data, type=dict[str, Any]))

    def __str__(self) -> str:
        return f"{self.fault}: {msgspec.json.encode(self.fields).decode()}"


class DynamicClient:
    """A client that asks the service what it offers, and calls it by names.

    Args:
        port: a connection to the service; owned from now on.
    """

    def __init__(self, port: CommunicationPort) -> None:
        self._end = ClientEnd(port)
        self._introspection: Introspection | None = None
        self._schemas: dict[str, InterfaceSchema] = {}
        self._objects: dict[str, int] = {}

    async def interfaces(self) -> list[InterfaceSummary]:
        """Return what the service offers. Cancelling changes nothing.

        Raises:
            UnknownInterface: it does not tell.
            AccessDenied: it does not tell us.
        """
        if self._introspection is None:
            self._introspection = await self._end.bind(Introspection)
        return await self._introspection.interfaces()

    async def describe(self, name: str) -> InterfaceSchema:
        """Return the description of an interface. Cancelling changes nothing.

        `Introspection` and `Management`, which every service has and does not list, are described as this side knows
        them, unless the service has something of its own under that name.

        Args:
            name: its name or its uuid.

        Raises:
            UnknownInterface: the service does not serve it, or does not tell.
            AccessDenied: it does not tell us.
        """
        if name not in self._schemas:
            found = [summary for summary in await self.interfaces() if name in (summary.name, summary.uuid)]
            schema = None
            if found and self._introspection is not None:
                schema = await self._introspection.describe(found[0].uuid)
            if schema is None:
                schema = next(
                    (each for each in map(describe_interface, _EVERYWHERE) if name in (each.name, each.uuid)), None
                )
            if schema is None:
                offered = ", ".join(summary.name for summary in await self.interfaces())
                raise UnknownInterface(interface=name, uuid="", version=(0, 0), offered=f"it serves {offered}")
            self._schemas[name] = schema
        return self._schemas[name]

    async def call(self, interface: str, method: str, arguments: dict[str, Any]) -> Any:
        """Call a unary or a one-way method. Cancelling cancels the handler.

        Args:
            interface: name or uuid of the interface.
            method: name of the method.
            arguments: values as JSON has them, by name; bytes as base64.

        Returns:
            The result as built-in values.

        Raises:
            TypeMismatch: there is no such method, or the arguments do not fit.
            DeclaredFault: the method raised what it declares.
            RemoteFault: the call failed.
        """
        schema, found = await self._find(interface, method)
        data = await self._frame(schema, found, arguments)
        if found.kind == "oneway":
            await self._end.session.port.post(data)
            return None
        answer = await self._end.session.port.request(data)
        if answer.data[:1] == _SPECIAL:
            raise decode_special(answer.data, _faults(found), answer.id)
        return msgspec.msgpack.decode(answer.data)

    async def stream(self, interface: str, method: str, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        """Call a method that gives a stream; arguments and errors like `call`, which come with the items."""
        schema, found = await self._find(interface, method)
        data = await self._frame(schema, found, arguments)
        session = self._end.session

        async def opening() -> Message:
            return await session.port.request(data)

        return StreamReader(session, 0, session.item_codec(Any), timeout=None, faults=_faults(found), opening=opening)

    async def kind_of(self, interface: str, method: str) -> str:
        """Return the kind of a method; arguments and errors like `call`."""
        return (await self._find(interface, method))[1].kind

    async def _find(self, interface: str, method: str) -> tuple[InterfaceSchema, MethodSchema]:
        schema = await self.describe(interface)
        found = schema.find(method)
        if found is None:
            known = ", ".join(known.name for known in schema.methods)
            raise TypeMismatch(where=f"{interface}.{method}", detail=f"there is no such method, only {known}")
        return schema, found

    async def _frame(self, schema: InterfaceSchema, method: MethodSchema, arguments: dict[str, Any]) -> bytes:
        where = f"{schema.name}.{method.name}"
        unknown = arguments.keys() - {parameter.name for parameter in method.parameters}
        if unknown:
            raise TypeMismatch(where=where, detail=f"it has no parameter {sorted(unknown)[0]!r}")
        values: list[Any] = []
        for parameter in method.parameters:
            if parameter.name in arguments:
                try:
                    values.append(to_wire(parameter.schema, arguments[parameter.name], schema.definitions))
                except ValueError as error:
                    raise TypeMismatch(where=f"{where}, argument {parameter.name!r}", detail=str(error)) from None
            elif parameter.required:
                raise TypeMismatch(where=where, detail=f"missing required argument {parameter.name!r}")
            else:
                values.append(to_wire(parameter.schema, parameter.default, schema.definitions))
        if schema.uuid not in self._objects:
            self._objects[schema.uuid] = await self._end.bind_number(schema)
        return pack_call(self._objects[schema.uuid], method.number, 0) + encode(values)

    async def aclose(self) -> None:
        """Close the connection. Completes also when cancelled; may be repeated."""
        await self._end.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()


def _faults(method: MethodSchema) -> dict[str, type[Fault]]:
    return {fault.name: _declare(fault.name) for fault in method.faults}


def _declare(name: str) -> type[Fault]:
    class Declared(DeclaredFault, name=name):
        """One that goes by the name that the service gives it."""

    return Declared


def to_wire(schema: dict[str, Any], value: Any, definitions: dict[str, Any]) -> object:
    """Turn a value as JSON has it into what msgpack has to hold for a type: base64 text becomes bytes.

    Args:
        schema: the type, as JSON Schema.
        value: the value.
        definitions: the types that the schema refers to.

    Raises:
        ValueError: the value has no form that JSON can give, or is no base64 text where bytes are wanted.
    """
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return to_wire(definitions[reference.rpartition("/")[2]], value, definitions)
    if not schema.keys().isdisjoint({"x-alpc-stream", "x-alpc-interface", "x-alpc-beside"}):
        raise ValueError("streams, objects, handles and views cannot be given as JSON")
    if schema.get("contentEncoding") == "base64" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"bytes are given as base64 text: {error}") from None
    if "anyOf" in schema:
        options: list[dict[str, Any]] = schema["anyOf"]
        texts = [option for option in options if option.get("type") == "string"]
        if isinstance(value, str) and len(texts) == 1:
            return to_wire(texts[0], value, definitions)
        kind = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else ""
        resolved = [_resolve(option, definitions) for option in options]
        fitting = [option for option in resolved if option.get("type") == kind]
        if len(fitting) == 1:
            return to_wire(fitting[0], value, definitions)
        return cast("object", value)
    if isinstance(value, dict):
        return _object_to_wire(schema, cast("dict[str, Any]", value), definitions)
    if isinstance(value, list):
        return _array_to_wire(schema, cast("list[Any]", value), definitions)  # type: ignore[redundant-cast]  # for pyright
    return cast("object", value)


def _object_to_wire(schema: dict[str, Any], value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    rest: dict[str, Any] = cast("dict[str, Any]", others) if isinstance(others, dict) else {}
    return {key: to_wire(properties.get(key, rest), part, definitions) for key, part in value.items()}


def _array_to_wire(schema: dict[str, Any], value: list[Any], definitions: dict[str, Any]) -> list[Any]:
    fixed: list[dict[str, Any]] = schema.get("prefixItems", [])
    others = schema.get("items")
    rest: dict[str, Any] = cast("dict[str, Any]", others) if isinstance(others, dict) else {}
    kinds = [*fixed, *([rest] * max(0, len(value) - len(fixed)))]
    return [to_wire(kind, part, definitions) for kind, part in zip(kinds, value, strict=False)]


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if isinstance(reference, str) else schema
