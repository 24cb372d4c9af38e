"""How Sphinx builds the documentation. Prose belongs in the pages, never here.

Every name in single backquotes is a reference to a Python object, and one that leads nowhere fails the build, so that
prose cannot outlive the code it speaks of. Names of other projects are exempt: looking them up would need the network.
"""

from __future__ import annotations

import builtins
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from sphinx.util.logging import getLogger

import alpc_async
from alpc_async._version import __version__

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement, reference
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = getLogger(__name__)

project = "alpc-async"
author = "The alpc-async maintainers"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = True

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"alpc-async {release}"

OTHERS = "|".join(
    [*sorted(sys.stdlib_module_names), "anyio", "cyclopts", "msgspec", "pytest", "rich", "trio", "uvloop"]
)
BUILTINS = "|".join(name for name in dir(builtins) if not name.startswith("_"))
nitpick_ignore_regex = [
    # Annotations hold type variables, aliases and names that only the type checker imports.
    ("py:class", r"(?!alpc_async\.).*"),
    ("py:.*", rf"({OTHERS})(\..+)?"),
    ("py:.*", rf"({BUILTINS})(\..+)?"),
    # What classes of the API are made of, and no part of it.
    ("py:.*", r"alpc_async\..+\._\w+\.(Blocked|CallContext|Crew|Method|PacketQueue|Root|SendingLink|Subject|Ticket)"),
    ("py:.*", r"alpc_async\.port\._\w+\.(Default|_Half)"),
    ("py:.*", r"alpc_async\.service\._\w+\.(Arriving|HandledCall|PortOptions|Service|ServiceOptions)"),
    ("py:.*", r"alpc_async\..+\._\w+\.\w+T"),
    # Inherited from anyio.
    ("py:obj", r"(CommunicationPort\.)?extra"),
    # Attributes stand in the field list of their class, and fields are nothing that can be referred to.
    ("py:obj", r"cancelled|prompt"),
]


def find_public_object(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: TextElement
) -> Element | reference | None:
    """Resolve a name that lacks its module or its class, or that names the private module of a public object."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    target = _full_name(node["reftarget"], set(domain.objects))
    if not target:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def _full_name(name: str, known: set[str]) -> str:
    parts = name.removeprefix("alpc_async.").split(".")
    for start in range(len(parts)):
        target = ".".join(["alpc_async", *parts[start:]])
        # Only modules may be left out in front: a class that is gone must not resolve to some other class's method.
        if target in known and all(part.islower() for part in parts[:start]):
            return target
    # A bare method name is clear while one class of the API has it.
    owners = [found for found in known if len(parts) == 1 and found.endswith(f".{name}") and found.count(".") == 2]
    return owners[0] if len(owners) == 1 else _inherited(parts, known)


def _inherited(parts: list[str], known: set[str]) -> str:
    kind = getattr(alpc_async, parts[0], None)
    bases = kind.__mro__ if isinstance(kind, type) and len(parts) == 2 else ()
    ends = [f".{base.__name__}.{parts[1]}" for base in bases]
    return next((found for end in ends for found in sorted(known) if found.endswith(end)), "")


def check_completeness(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every public name that the reference does not hold."""
    known = env.domains.python_domain.objects
    for name, value in vars(alpc_async).items():
        if not name.startswith("_") and not isinstance(value, ModuleType) and f"alpc_async.{name}" not in known:
            logger.warning("alpc_async.%s is missing from the API reference", name)


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", find_public_object)
    app.connect("env-check-consistency", check_completeness)
