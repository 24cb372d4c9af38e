"""Makes the parts of the documentation that state what the code states: drawings, catalogues, tables.

Belongs here: how tables of the code are drawn and written down. Never here: facts that are not in the code, apart from
the meaning of header fields, which only prose can give.

``python docs/generate.py`` writes the files; a test compares them with what the code says now.
"""

from __future__ import annotations

import inspect
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from alpc_async.handles import HandleKind
from alpc_async.limits import NEGOTIATED, PortLimits
from alpc_async.wire import RECEIVABLE, SENDABLE, FrameType, Role, State, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OUTPUT", "README", "generated", "limits_table", "readme", "write"]

OUTPUT: Final = Path(__file__).parent / "reference" / "generated"
README: Final = Path(__file__).parent.parent / "README.md"
_SOURCES: Final = Path(__file__).parent.parent / "alpc_async"

# ------------------------------------------------------------------------------------------------------- state drawings

BOX_WIDTH: Final = 104
BOX_HEIGHT: Final = 40
GAP: Final = 150
MARGIN: Final = 24
LINE: Final = 16
LANE: Final = 44
INK: Final = "#1b2a3a"
SENT: Final = "#0b5cad"
RECEIVED: Final = "#9a3b00"
BROKEN: Final = "#a1122d"


class _Arrow(NamedTuple):
    """What takes a connection from one state to another, as lines of text."""

    start: State
    end: State
    sent: list[str]
    received: list[str]

    @property
    def lines(self) -> list[tuple[str, str]]:
        return [("sends " + name, SENT) for name in self.sent] + [
            ("receives " + name, RECEIVED) for name in self.received
        ]


def _arrows(role: Role) -> list[_Arrow]:
    found: dict[tuple[State, State], _Arrow] = {}
    for table, is_sent in ((SENDABLE, True), (RECEIVABLE, False)):
        for start, frames in table[role].items():
            for kind, end in frames.items():
                arrow = found.setdefault((start, end), _Arrow(start, end, [], []))
                (arrow.sent if is_sent else arrow.received).append(FrameType(kind).name)
    return [found[ends] for ends in sorted(found)]


def _x(state: State) -> int:
    return MARGIN + list(State).index(state) * (BOX_WIDTH + GAP)


def _text(x: float, y: float, text: str, colour: str, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Iterable[tuple[float, float]], colour: str, *, dashed: bool = False, head: bool = True) -> str:
    steps = " L ".join(f"{x:g} {y:g}" for x, y in points)
    style = ' stroke-dasharray="5 4"' if dashed else ""
    marker = f' marker-end="url(#head-{colour[1:]})"' if head else ""
    return f'<path d="M {steps}" fill="none" stroke="{colour}" stroke-width="1.5"{style}{marker}/>'


def _stacked(x: float, bottom: float, lines: list[tuple[str, str]], anchor: str = "middle") -> list[str]:
    return [_text(x, bottom - LINE * (len(lines) - 1 - row), *line, anchor) for row, line in enumerate(lines)]


def _straight(arrow: _Arrow, top: int) -> list[str]:
    left, right = _x(arrow.start) + BOX_WIDTH, _x(arrow.end)
    middle = top + BOX_HEIGHT / 2
    return [
        _path([(left, middle), (right - 2, middle)], INK),
        *_stacked((left + right) / 2, middle - 8, arrow.lines),
    ]


def _loop(arrow: _Arrow, top: int) -> list[str]:
    middle = _x(arrow.start) + BOX_WIDTH / 2
    names = sorted(set(arrow.sent) | set(arrow.received), key=lambda name: FrameType[name])
    if set(arrow.sent) != set(arrow.received):
        lines = arrow.lines
    else:
        lines = [("sends and receives", INK)] + [
            (", ".join(names[at : at + 2]) + ("," if at + 2 < len(names) else ""), INK)
            for at in range(0, len(names), 2)
        ]
    corners = [(middle + 22, top), (middle + 22, top - 22), (middle - 22, top - 22), (middle - 22, top - 2)]
    return [_path(corners, INK), *_stacked(middle, top - 30, lines)]


def _detour(arrow: _Arrow, top: int, lane: int) -> list[str]:
    left, right = _x(arrow.start) + BOX_WIDTH / 2, _x(arrow.end) + BOX_WIDTH / 2 - 14 + 14 * (lane - 1)
    below = top + BOX_HEIGHT
    depth = below + LANE * lane
    lines: list[tuple[str, str]] = []
    if arrow.sent:
        lines.append(("sends " + ", ".join(arrow.sent), SENT))
    if arrow.received:
        lines.append(("receives " + ", ".join(arrow.received), RECEIVED))
    return [
        _path([(left, below), (left, depth), (right, depth), (right, below + 2)], INK),
        *_stacked(left + 8, depth - 6, lines, "start"),
    ]


def _violations(role: Role, top: int, lane: int) -> list[str]:
    """Draw what happens to frames that are in no table; a state whose table is empty ignores what arrives."""
    listening = [state for state, frames in RECEIVABLE[role].items() if frames]
    below = top + BOX_HEIGHT
    depth = below + LANE * lane
    right = _x(State.FAILED) + BOX_WIDTH / 2
    starts = [_x(state) + BOX_WIDTH / 2 - 30 for state in listening]
    parts = [_path([(x, below), (x, depth)], BROKEN, dashed=True, head=False) for x in starts]
    parts.append(_path([(starts[0], depth), (right, depth), (right, below + 2)], BROKEN, dashed=True))
    sentence = "receives any other frame, or breaks a rule of a legal one; answers CLOSE with status VIOLATION"
    parts.append(_text(starts[0] + 8, depth + 18, sentence, BROKEN, "start"))
    return parts


def _boxes(role: Role, top: int) -> list[str]:
    parts: list[str] = []
    for state in State:
        final = not SENDABLE[role][state] and not RECEIVABLE[role][state]
        width = 3 if final else 1.5
        parts.append(
            f'<rect x="{_x(state)}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8" fill="#eef3f8" '
            f'stroke="{INK}" stroke-width="{width:g}"/>'
        )
        parts.append(_text(_x(state) + BOX_WIDTH / 2, top + 25, state.name, INK, size=14))
    return parts


def state_drawing(role: Role) -> str:
    """Return the states of one side and what leads from one to the next, as SVG.

    Args:
        role: which side.
    """
    arrows = _arrows(role)
    top = 150
    parts = _boxes(role, top)
    for arrow in arrows:
        if arrow.start == arrow.end:
            parts += _loop(arrow, top)
        elif arrow.end - arrow.start == 1:
            parts += _straight(arrow, top)
    # The shorter way takes the upper lane, so that no way crosses the words of another.
    detours = sorted((arrow for arrow in arrows if arrow.end - arrow.start > 1), key=lambda way: way.end - way.start)
    for lane, arrow in enumerate(detours, 1):
        parts += _detour(arrow, top, lane)
    lanes = len(detours) + 1
    parts += _violations(role, top, lanes)
    width = _x(State.FAILED) + BOX_WIDTH + MARGIN
    height = top + BOX_HEIGHT + LANE * lanes + MARGIN + LINE
    heads = "".join(
        f'<marker id="head-{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        f'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="{colour}"/></marker>'
        for colour in (INK, BROKEN)
    )
    title = f"States of a connection, seen from the {role.value}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
            f"<title>{title}</title>",
            f"<defs>{heads}</defs>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            _text(MARGIN, 32, title, INK, "start", 16),
            _text(MARGIN, 52, "A thick frame marks a final state.", INK, "start"),
            *parts,
            "</svg>",
            "",
        ]
    )


# ------------------------------------------------------------------------------------------------------------ catalogue

_GREETING: Final = "id: the magic number; value: the version; payload: a greeting"
_FIELDS: Final = {
    FrameType.HELLO: _GREETING,
    FrameType.WELCOME: _GREETING,
    FrameType.REFUSE: "value: a status; payload: reply data",
    FrameType.REQUEST: "id: the next number; value: remaining time in ms, 0 for no end; payload: the data",
    FrameType.REPLY: "id: that of the request; payload: the data",
    FrameType.FAULT: "id: that of the request; value: a status; payload: a reason, UTF-8",
    FrameType.DATAGRAM: "id: the next number; payload: the data",
    FrameType.CANCEL: "id: that of the request; no payload",
    FrameType.CREDIT: "id: bytes given back; value: messages given back; no payload",
    FrameType.SECTION: "id: number of the section; value: its kind; one descriptor; no payload",
    FrameType.SECTION_GONE: "id: number of the section; no payload",
    FrameType.RELEASE: "id: number of the lease; no payload",
    FrameType.HANDLES: "1 to 253 descriptors; no payload",
    FrameType.TAKEN: "id: number of the message; no payload",
    FrameType.REVOKED: "id: number of the security context; no payload",
    FrameType.CLOSE: "value: a status; payload: a reason, UTF-8",
}


def catalogue() -> str:
    """Return every frame with its number, who may send it in which state, and what its fields hold, as a table."""
    rows = [
        "| id | frame | client may send it in | server may send it in | fields |",
        "| --: | --- | --- | --- | --- |",
    ]
    for kind in FrameType:
        states = [
            ", ".join(state.name for state, frames in SENDABLE[role].items() if kind in frames) or "never"
            for role in (Role.CLIENT, Role.SERVER)
        ]
        rows.append(f"| {kind.value} | `{kind.name}` | {states[0]} | {states[1]} | {_FIELDS[kind]} |")
    return "\n".join(rows) + "\n"


def statuses() -> str:
    """Return every status number with its name and meaning, as a table."""
    meanings = _meanings((_SOURCES / "wire" / "_frames.py").read_text(), "Status")
    rows = ["| number | name | meaning |", "| --: | --- | --- |"]
    rows += [f"| {status.value} | `{status.name}` | {meanings[status.name]} |" for status in Status]
    return "\n".join(rows) + "\n"


def _meanings(source: str, name: str) -> dict[str, str]:
    body = source.split(f"class {name}(", 1)[1].split("\n\n\n", 1)[0]
    return {
        member: " ".join(text.split())
        for member, text in re.findall(r'^    (\w+) = [^\n]+\n    """(.*?)"""', body, re.DOTALL | re.MULTILINE)
    }


# --------------------------------------------------------------------------------------------------------------- limits


class _Limit(NamedTuple):
    name: str
    default: str
    unit: str
    negotiated: bool
    meaning: str


def _limits() -> list[_Limit]:
    # CPython 3.13 takes the common indentation out of docstrings by itself.
    text = inspect.cleandoc(PortLimits.__doc__ or "").split("Attributes:", 1)[1].split("Raises:", 1)[0]
    meanings = {name: " ".join(rest.split()) for name, rest in re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)", text, re.M)}
    found: list[_Limit] = []
    for field in msgspec.structs.fields(PortLimits):
        meaning = meanings[field.name].removesuffix(".")
        seconds = isinstance(field.default, float)
        unit = "s" if seconds else "bytes" if re.search(r", in bytes$", meaning) else ""
        default = (
            f"{field.default:g}" if seconds else f"{field.default:,}" if field.type is int else _word(field.default)
        )
        found.append(_Limit(field.name, default, unit, field.name in NEGOTIATED, meaning))
    return found


def _word(value: int | HandleKind) -> str:
    return "none" if value == HandleKind(0) else "no" if value is False else f"{value:,}"


def limits_table(*, full: bool) -> str:
    """Return the fields of `PortLimits` with their defaults, as a table.

    Args:
        full: with the meaning of each field, and whether it is negotiated.
    """
    if not full:
        rows = ["| `PortLimits` field | default |", "| --- | --: |"]
        rows += [f"| `{limit.name}` | {limit.default} {limit.unit}".rstrip() + " |" for limit in _limits()]
        return "\n".join(rows) + "\n"
    rows = ["| field | default | negotiated | meaning |", "| --- | --: | --- | --- |"]
    rows += [
        f"| `{limit.name}` | {limit.default} {limit.unit}".rstrip()
        + f" | {'yes' if limit.negotiated else 'no'} | {limit.meaning} |"
        for limit in _limits()
    ]
    return "\n".join(rows) + "\n"


def generated() -> dict[str, str]:
    """Return the text of every generated file by its name."""
    return {
        "states-client.svg": state_drawing(Role.CLIENT),
        "states-server.svg": state_drawing(Role.SERVER),
        "catalogue.inc": catalogue(),
        "statuses.inc": statuses(),
        "limits.inc": limits_table(full=True),
    }


def readme() -> str:
    """Return the README with the table of limits as it is now."""
    head, rest = re.split(r"(?:^\| .*\n)+", README.read_text(), maxsplit=1, flags=re.MULTILINE)
    return head + limits_table(full=False) + rest


def write() -> None:
    """Write every generated file, and the table of the README."""
    OUTPUT.mkdir(exist_ok=True)
    for name, text in generated().items():
        (OUTPUT / name).write_text(text)
    README.write_text(readme())


if __name__ == "__main__":
    write()
