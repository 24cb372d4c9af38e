"""Exceptions that cross: the base class of declared faults.

Belongs here: `Fault`, the making of its fields, their encoding. Never here: which method declares which.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

import msgspec

from ..contract_errors import InvalidInterface
from ..errors import AlpcError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Fault"]


@dataclass_transform(kw_only_default=True)
class Fault(AlpcError):
    """Base class of the exceptions that a method declares. They cross with their fields and come out as what they were.

    ::

        class NotADirectory(alpc.Fault):
            path: str
            hint: str = ""

        raise NotADirectory(path="/etc/passwd")

    The annotations are the fields: msgspec types, given by keyword and checked where the fault is raised. The class
    argument ``name`` is what the fault is called on the wire, by default the name of the class.
    """

    _struct: ClassVar[type[msgspec.Struct] | None] = None
    _wire_name: ClassVar[str] = "Fault"

    def __init_subclass__(cls, *, name: str = "") -> None:
        super().__init_subclass__()
        cls._struct = None
        cls._wire_name = name or cls.__name__
        # The values live in the instance; a default that stayed in the class would be found there instead of missing.

    def __init__(self, **fields: Any) -> None:
        struct = type(self).struct()
        try:
            values = struct(**fields)
            # Checked here, so that the traceback shows who raised it with wrong fields.
            msgspec.msgpack.decode(msgspec.msgpack.encode(values), type=struct)
        except (TypeError, msgspec.ValidationError) as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        self._take(values)

    def _take(self, values: msgspec.Struct) -> None:
        fields = msgspec.structs.asdict(values)
        self.__dict__.update(fields)
        self.args = tuple(fields.values())

    @classmethod
    def struct(cls) -> type[msgspec.Struct]:
        """Return the record of the fields.

        Raises:
            InvalidInterface: a field is not of a type that can cross.
        """
        if cls._struct is None:
            try:
                hints = typing.get_type_hints(cls, include_extras=True)
                fields = [
                    (name, hint, getattr(cls, name)) if hasattr(cls, name) else (name, hint)
                    for name, hint in hints.items()
                    if typing.get_origin(hint) is not ClassVar
                ]
                cls._struct = msgspec.defstruct(cls.__name__, fields, kw_only=True)
                msgspec.msgpack.Decoder(cls._struct)
            except (NameError, TypeError) as error:
                cls._struct = None
                raise InvalidInterface(interface=cls.__name__, reason=f"its fields cannot cross: {error}") from None
        return cls._struct

    @classmethod
    def fault_name(cls) -> str:
        """Return what the fault is called on the wire."""
        return cls._wire_name

    def encode_fields(self) -> bytes:
        """Return the fields as msgpack."""
        struct = type(self).struct()
        return msgspec.msgpack.encode(struct(**{name: getattr(self, name) for name in struct.__struct_fields__}))

    @classmethod
    def decode_fields(cls, data: Buffer) -> Self:
        """Make the fault from its fields.

        Args:
            data: the fields as msgpack; untrusted.

        Raises:
            msgspec.ValidationError: they are not what the class declares.
        """
        values = msgspec.msgpack.decode(data, type=cls.struct())
        fault = cls.__new__(cls)
        fault._take(values)
        return fault

    def __str__(self) -> str:
        struct = type(self).struct()
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in struct.__struct_fields__)
