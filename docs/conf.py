"""How Sphinx builds the documentation. Prose belongs in the pages, never here.

Every name in single backquotes is a reference to a Python object, and one that leads nowhere fails the build, so that
prose cannot outlive the code it speaks of. Names of other projects are exempt: looking them up would need the network.
"""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING

from alpc_async._version import __version__

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement, reference
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

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
]


def find_public_object(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: TextElement
) -> Element | reference | None:
    """Resolve a name that lacks its module, or that names the private module where a public object is defined."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    parts = node["reftarget"].removeprefix("alpc_async.").split(".")
    for start in range(len(parts)):
        target = ".".join(["alpc_async", *parts[start:]])
        # Only modules may be left out in front: a class that is gone must not resolve to some other class's method.
        if target in domain.objects and all(part.islower() for part in parts[:start]):
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)
    return None


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", find_public_object)
