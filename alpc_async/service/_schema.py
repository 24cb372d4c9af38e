"""Contracts written down: as values that can be sent, stored and compared.

Belongs here: `InterfaceSchema`, making it from a contract. Never here: comparing two (`_evolution`), digests
(`_fingerprint`).

Types are JSON Schema, as msgspec makes it, with three words of our own: ``x-alpc-interface`` holds the uuid of what
crosses by reference, ``x-alpc-stream`` the type of the items of a stream, and ``x-alpc-beside`` says that a ``handle``
or a ``view`` travels beside the values.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ._annotations import stream_item, wire_type
from ._carried import CARRIED
from ._interface import contract_of, is_interface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._contract import Contract, Method

__all__ = [
    "FaultSchema",
    "InterfaceSchema",
    "MethodSchema",
    "ParameterSchema",
    "describe_contract",
    "describe_interface",
]

JsonSchema = dict[str, Any]
INTERFACE: Final = "x-alpc-interface"
BESIDE: Final = "x-alpc-beside"
STREAM: Final = "x-alpc-stream"


class ParameterSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter of a method.

    Attributes:
        name: its name.
        schema: its type.
        required: whether it has no default.
        default: its default, as built-in values.
    """

    name: str
    schema: JsonSchema
    required: bool = True
    default: Any = None


class FaultSchema(msgspec.Struct, frozen=True):
    """One exception that a method declares.

    Attributes:
        name: what it is called on the wire.
        schema: the type of its fields.
    """

    name: str
    schema: JsonSchema


class MethodSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """One method of an interface.

    Attributes:
        number: how it is called on the wire.
        name: its name.
        kind: ``"unary"``, ``"stream"`` for a stream of results, or ``"oneway"``.
        parameters: what it takes, in order.
        result: the type of its result, or of the items of its stream.
        faults: the exceptions that cross.
        idempotent: whether a call may be repeated.
        signature: how it is written in Python.
        doc: its docstring.
    """

    number: int
    name: str
    kind: str
    parameters: list[ParameterSchema] = []
    result: JsonSchema | None = None
    faults: list[FaultSchema] = []
    idempotent: bool = False
    signature: str = ""
    doc: str = ""


class InterfaceSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """An interface, as it is described to others.

    Attributes:
        name: name of the class.
        uuid: its identity.
        version: major and minor.
        methods: in the order of their numbers.
        definitions: the types that are referred to by name.
        doc: its docstring.
    """

    name: str
    uuid: str
    version: tuple[int, int]
    methods: list[MethodSchema]
    definitions: dict[str, JsonSchema] = {}
    doc: str = ""

    def find(self, name: str) -> MethodSchema | None:
        """Return the method of that name, or ``None``.

        Args:
            name: its name.
        """
        return next((method for method in self.methods if method.name == name), None)


def describe_interface(interface: type) -> InterfaceSchema:
    """Return the description of an interface class.

    Args:
        interface: a subclass of `Interface` that has a uuid.

    Raises:
        InvalidInterface: it is no interface.
    """
    return describe_contract(contract_of(interface))


def describe_contract(contract: Contract) -> InterfaceSchema:
    """Return the description of a contract."""
    types: list[Any] = []
    for method in contract.methods.values():
        types.extend(_types_of(method))
    schemas, definitions = msgspec.json.schema_components(
        [stream_item(kind) or kind for kind in types],
        schema_hook=_describe_custom,
        ref_template="#/definitions/{name}",
    )
    wrapped = iter(
        {STREAM: schema} if stream_item(kind) is not None else schema
        for kind, schema in zip(types, schemas, strict=True)
    )
    methods = [_describe_method(method, wrapped) for method in contract.methods.values()]
    return InterfaceSchema(contract.name, contract.uuid, contract.version, methods, definitions, contract.doc)


def _types_of(method: Method) -> list[Any]:
    """Return the types of the parameters, of the result, and of the faults, in the order of `_describe_method`."""
    fields = [field.type for field in msgspec.structs.fields(method.arguments)]
    result = [] if method.kind == "oneway" else [method.result]
    return [wire_type(kind) for kind in [*fields, *result]] + [fault.struct() for fault in method.faults.values()]


def _describe_method(method: Method, schemas: Iterable[JsonSchema]) -> MethodSchema:
    following = iter(schemas)
    parameters = [
        ParameterSchema(field.encode_name, next(following), field.required, _default(field))
        for field in msgspec.structs.fields(method.arguments)
    ]
    result = None if method.kind == "oneway" else next(following)
    faults = [FaultSchema(name, next(following)) for name in method.faults]
    return MethodSchema(
        number=method.number,
        name=method.name,
        kind=method.kind,
        parameters=parameters,
        result=result,
        faults=faults,
        idempotent=method.idempotent,
        signature=_signature(method),
        doc=method.doc,
    )


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.required:
        return None
    factory = field.default_factory
    return msgspec.to_builtins(field.default if factory is msgspec.NODEFAULT else factory())


def _signature(method: Method) -> str:
    keyword = "def" if method.kind == "stream" else "async def"
    parameters = [
        parameter.replace(annotation=method.hints.get(name, inspect.Parameter.empty))
        for name, parameter in method.signature.parameters.items()
    ]
    signature = inspect.Signature(parameters, return_annotation=method.hints["return"])
    return f"{keyword} {method.name}{signature}".replace("NoneType", "None")


def _describe_custom(kind: type) -> JsonSchema:
    if is_interface(kind):
        contract = contract_of(kind)
        return {INTERFACE: contract.uuid, "title": contract.name}
    if kind in CARRIED:
        return {BESIDE: kind.__name__.lower()}
    raise NotImplementedError
