"""Public classes have the names that are for users, and no other.

Belongs here: which names those are. Never here: how they are explained (`test_docstrings`).
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

import pytest

from tests.test_docstrings import public_classes, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIVING = "receive receive_batch fileno"
SENDING = "request start_request post post_batch allocate allocated reserve create_security_context"
# What users see of the classes that also carry much for the layers: a new name here is a decision.
NAMES = {
    "Message": "type id data deadline cancelled answered key message value port sender sequence transfer view direct "
    "handles take_handle take_port size context reply fail impersonate release accept refuse",
    "PendingRequest": "id size deadline context timeout done cancel result",
    "BlockingMessage": "type id data deadline cancelled answered key message value sender sequence size context "
    "transfer view direct handles reply fail release",
    "Completion": "key message value port",
    "CompletionPort": "concurrency associate post get_batch blocked fileno close aclose statistics",
    "ReceivePoint": RECEIVING,
    "RequestingPort": f"{RECEIVING} {SENDING}",
    "ConnectionPort": f"{RECEIVING} name limits connections statistics stop_listening drain aclose",
    "CommunicationPort": f"{RECEIVING} {SENDING} peer peer_qos limits connect_data connected is_connected_to weight "
    "extra extra_attributes context statistics complete object_stream byte_stream check_open drain hand_over "
    "disconnect aclose",
    "WorkerPool": "shut_down statistics wait_idle",
    "SecurityContext": "qos usable delete revoke",
    "Receipt": "message_id taken",
    "Reserve": "size held close",
    "Caller": "identity run",
    "Impersonation": "",
    "DirectAccess": "length writable transfer read_into read write",
    "View": "offset length writable sealed released data release let_go",
    "ServicePort": "name connections statistics wait_stopped drain aclose",
    "Call": "message arguments keep_view peer port deadline cancelled interface method kind idempotent depth priority "
    "trace transfer causality",
    "Registrations": "registrations aclose",
    "Handle": "state open fileno kind duplicate read_only closed detach moved close",
}
# How a docstring says that a name is none for users.
SMELL = re.compile(
    r"(the framework|iterators|worker pools?|a completion port|the layers?) (calls?|asks?|reads?|does|uses?)\b"
)


def documented(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of a class and its public members, with where they stand."""
    yield kind.__name__, inspect.getdoc(kind) or ""
    for name in public_names(kind):
        yield f"{kind.__name__}.{name}", inspect.getdoc(getattr(kind, name, None)) or ""


def public_names(kind: type) -> set[str]:
    """Return the public attributes of a class, those included that its instances get when they are made."""
    return {name for name in {*dir(kind), *assigned(kind)} if not name.startswith("_")}


def assigned(kind: type) -> Iterator[str]:
    """Yield the attributes that the own ``__init__`` methods of a class assign."""
    for base in kind.__mro__:
        made = vars(base).get("__init__")
        # Records have one that was made at run time.
        if isinstance(made, FunctionType) and Path(made.__code__.co_filename).is_file():
            for node in ast.walk(tree(made)):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    # Only what is assigned to the object itself.
                    yield from [node.attr] if ast.unparse(node.value) == "self" else []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_class_has_the_names_that_are_for_users(name: str) -> None:
    """The public attributes of a class are those that users have something of."""
    assert public_names(public_classes()[name]) == set(NAMES[name].split())


@pytest.mark.parametrize("name", sorted(public_classes()))
def test_no_name_is_for_the_layers(name: str) -> None:
    """No docstring of a public class says that somebody else than a user needs the name."""
    assert [where for where, text in documented(public_classes()[name]) if SMELL.search(text)] == []
