"""The contract that an interface class declares, worked out once.

Belongs here: `Contract`, `Method`, and building them from annotations, with the checks. Never here: calls, objects,
connections; how types are written down for comparison (`_schema`).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from ..contract_errors import InvalidInterface
from ._annotations import find_foreign, holds_carried, holds_objects, holds_references, stream_item, wire_type
from ._codec import Codec
from ._fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Contract", "Marks", "Method", "build_contract", "marks_of"]

MAX_NUMBER: Final = 0xFFFF
"""Largest method number; the width of its field in a call."""

_EMPTY: Final = inspect.Parameter.empty
_MARKS: Final = "__alpc_marks__"


class Marks(msgspec.Struct):
    """What decorators say about a method."""

    oneway: bool = False
    idempotent: bool = False
    number: int = 0
    faults: tuple[type[Fault], ...] = ()


def marks_of(function: Callable[..., object]) -> Marks:
    """Return the marks of a function, new and empty ones when it has none."""
    marks = getattr(function, _MARKS, None)
    if not isinstance(marks, Marks):
        marks = Marks()
        setattr(function, _MARKS, marks)
    return marks


class Method(msgspec.Struct, eq=False, frozen=True):
    """One method of a contract.

    Attributes:
        number: how it is called on the wire.
        name: what it is called here.
        kind: ``"unary"``, ``"stream"`` for a stream of results, or ``"oneway"``.
        signature: its parameters, without ``self``.
        hints: their annotations and that of the result, as the source has them.
        arguments: the record of the arguments, an array on the wire.
        result: the annotation of the result, or of the items of a stream, as msgpack takes it.
        faults: the exceptions that cross, by name.
        idempotent: whether a call may be repeated when it is unknown whether it was carried out.
        keywords: the parameters that are given by keyword only.
        references_in: whether the arguments hold objects, streams, handles or a view.
        references_out: whether the result does.
        carries_in: whether the arguments hold handles or a view.
        carries_out: whether the result does.
        doc: its docstring.
        label: interface and method, for messages.
        codec: for values without objects and streams.
        simple: whether it is unary, has no objects or streams, and no parameters that are given by keyword only.
    """

    number: int
    name: str
    kind: Literal["unary", "stream", "oneway"]
    signature: inspect.Signature
    hints: Mapping[str, Any]
    arguments: type[msgspec.Struct]
    result: Any
    faults: Mapping[str, type[Fault]]
    idempotent: bool
    keywords: tuple[str, ...]
    references_in: bool
    references_out: bool
    carries_in: bool
    carries_out: bool
    doc: str
    label: str
    codec: Codec
    simple: bool


class Contract(msgspec.Struct, eq=False, frozen=True):
    """What an interface class declares.

    Attributes:
        name: of the class.
        uuid: its identity, lower case.
        version: major and minor.
        doc: its docstring.
        methods: by number.
        fingerprint: its digest, which `_fingerprint` works out and keeps here; ``None`` until somebody asks.
    """

    name: str
    uuid: str
    version: tuple[int, int]
    doc: str
    methods: Mapping[int, Method]
    fingerprint: str | None = None


def build_contract(
    cls: type,
    *,
    uuid: str,
    version: tuple[int, int],
    inherited: Contract | None,
    reserved: frozenset[str],
    is_interface: Callable[[Any], bool],
    names: Mapping[str, Any],
) -> Contract:
    """Work the contract of a class out.

    Args:
        cls: the interface class.
        uuid: its identity.
        version: major and minor.
        inherited: the contract of the interface that it extends.
        reserved: names that cannot be methods.
        is_interface: tells whether a class is an interface.
        names: what annotations may refer to beside the module of the class.

    Raises:
        InvalidInterface: the class breaks a rule.
        NameError: an annotation names something that does not exist (yet).
    """
    methods: dict[int, Method] = dict(inherited.methods) if inherited is not None else {}
    known = {method.name: number for number, method in methods.items()}
    following = max(methods, default=0) + 1
    for name, function in _declared(cls, reserved):
        marks = marks_of(function)
        number = known.get(name) or marks.number or following
        if not 0 < number <= MAX_NUMBER:
            raise InvalidInterface(
                interface=cls.__name__, method=name, reason=f"{number} is not from 1 to {MAX_NUMBER}"
            )
        if number in methods and methods[number].name != name:
            reason = f"it has the number {number}, which {methods[number].name} has already"
            raise InvalidInterface(interface=cls.__name__, method=name, reason=reason)
        following = number + 1
        methods[number] = _Builder(cls, name, function, is_interface, names).build(number, marks)
    if not methods:
        raise InvalidInterface(interface=cls.__name__, reason="it declares no method")
    ordered = {number: methods[number] for number in sorted(methods)}
    return Contract(cls.__name__, uuid, version, inspect.cleandoc(cls.__doc__ or ""), ordered)


def _declared(cls: type, reserved: frozenset[str]) -> Iterator[tuple[str, Callable[..., object]]]:
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if name in reserved:
            raise InvalidInterface(
                interface=cls.__name__, method=name, reason="the name belongs to alpc.Interface; choose another one"
            )
        if not inspect.isfunction(value):
            raise InvalidInterface(
                interface=cls.__name__,
                method=name,
                reason="an interface declares methods only; begin it with _ to keep it",
            )
        yield name, value


class _Builder:
    """Builds one method."""

    def __init__(
        self,
        cls: type,
        name: str,
        function: Callable[..., object],
        is_interface: Callable[[Any], bool],
        names: Mapping[str, Any],
    ) -> None:
        self._interface = cls.__name__
        self._name = name
        self._function = function
        self._is_interface = is_interface
        self._hints = typing.get_type_hints(function, localns={**names, cls.__name__: cls}, include_extras=True)

    def _refuse(self, parameter: str, reason: str) -> InvalidInterface:
        return InvalidInterface(interface=self._interface, method=self._name, parameter=parameter, reason=reason)

    def build(self, number: int, marks: Marks) -> Method:
        kind, result = self._kind(marks)
        signature = inspect.signature(self._function)
        parameters = list(signature.parameters.values())
        if not parameters or parameters.pop(0).name != "self":
            raise self._refuse("", "it is a method, so its first parameter is self")
        arguments = self._arguments(parameters)
        if result is not None:
            reason = find_foreign(result, self._is_interface, items=kind == "stream")
            if reason is not None:
                raise self._refuse("return", reason)
        for fault in marks.faults:
            self._check_fault(fault)
        keywords = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        if kind == "oneway":
            self._check_oneway(arguments)
        references_in = holds_references(arguments)
        references_out = kind == "stream" or holds_references(result)
        carries_in = holds_carried(arguments)
        if carries_in and marks.idempotent:
            raise self._refuse(self._carrier(arguments), "a call that is repeated does not have its handle or view")
        return Method(
            number=number,
            name=self._name,
            kind=kind,
            signature=signature.replace(parameters=parameters),
            hints=self._hints,
            arguments=arguments,
            result=result,
            faults={fault.fault_name(): fault for fault in marks.faults},
            idempotent=marks.idempotent,
            keywords=keywords,
            references_in=references_in,
            references_out=references_out,
            carries_in=carries_in,
            carries_out=holds_carried(result),
            doc=inspect.cleandoc(self._function.__doc__ or ""),
            label=f"{self._interface}.{self._name}",
            codec=Codec(arguments, result),
            simple=kind == "unary" and not (keywords or references_in or references_out),
        )

    def _check_fault(self, fault: type[Fault]) -> None:
        for field in msgspec.structs.fields(fault.struct()):
            where = f"the field {field.name!r} of the fault {fault.__name__}"
            reason = find_foreign(field.type, self._is_interface)
            if reason is not None:
                raise self._refuse("", f"{where}: {reason}")
            if holds_references(field.type):
                raise self._refuse(
                    "", f"{where}: an object, a stream, a handle or a view does not cross with an exception; return it"
                )

    def _check_oneway(self, arguments: type[msgspec.Struct]) -> None:
        for field in msgspec.structs.fields(arguments):
            if holds_objects(field.type):
                raise self._refuse(
                    field.name,
                    "an object or a stream does not cross with a one-way call, since nobody would hear that it did not "
                    "arrive; declare the method without @oneway",
                )

    @staticmethod
    def _carrier(arguments: type[msgspec.Struct]) -> str:
        return next(field.name for field in msgspec.structs.fields(arguments) if holds_carried(field.type))

    def _kind(self, marks: Marks) -> tuple[Literal["unary", "stream", "oneway"], Any]:
        if "return" not in self._hints:
            raise self._refuse("return", "it has no annotation; write -> None when there is no result")
        annotation = self._hints["return"]
        item = stream_item(annotation)
        if inspect.iscoroutinefunction(self._function):
            if item is not None:
                raise self._refuse("return", "a stream of results is declared with def, not with async def")
            if not marks.oneway:
                return "unary", wire_type(annotation)
            if annotation is not type(None):
                raise self._refuse("return", "a one-way method has no result: write -> None")
            if marks.faults:
                raise self._refuse("", "nobody would see the faults of a one-way method")
            return "oneway", None
        if item is None:
            raise self._refuse("return", "it must be async def, or def with a result of AsyncIterator[...]")
        if marks.oneway:
            raise self._refuse("return", "a one-way method has no results")
        return "stream", wire_type(item)

    def _arguments(self, parameters: list[inspect.Parameter]) -> type[msgspec.Struct]:
        fields: list[Any] = []
        optional = ""
        for parameter in parameters:
            name = parameter.name
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise self._refuse(name, "a contract names each of its parameters; * and ** cannot cross")
            if name not in self._hints:
                raise self._refuse(name, "it has no annotation")
            annotation = wire_type(self._hints[name])
            reason = find_foreign(annotation, self._is_interface)
            if reason is not None:
                raise self._refuse(name, reason)
            if parameter.default is not _EMPTY:
                optional = name
                fields.append((name, annotation, parameter.default))
            elif optional:
                raise self._refuse(name, f"it has no default and stands behind {optional!r}, which has one")
            else:
                fields.append((name, annotation))
            self._try_default(parameter, annotation)
        return msgspec.defstruct(f"{self._interface}.{self._name}", fields, array_like=True)

    def _try_default(self, parameter: inspect.Parameter, annotation: Any) -> None:
        default = parameter.default
        if default is _EMPTY or default is None:
            return
        try:
            msgspec.defstruct("Default", [(parameter.name, annotation, default)])
            msgspec.msgpack.decode(msgspec.msgpack.encode(default), type=annotation)
        except (TypeError, msgspec.ValidationError) as error:
            raise self._refuse(parameter.name, f"its default does not fit: {error}") from None
