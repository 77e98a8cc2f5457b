"""A trace as text: a tree whose branches are the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from textwrap import wrap

from eyeline.inspection.trace import Shapes, Step, Trace

LINES = 40  # of the tree, where no depth is asked for
WIDE = 140  # characters from which on there are more columns
NAME = 16  # characters that a step's name keeps at least
NOTE_MARK = "◇"
WOKEN = (
    "The weights have learned nothing; norms and score threshold are set so that the model finds "
    "something."
)
NOTES = (
    f"+4: and four tensors more. ×5: five calls, whose ms and mult-adds are summed up; shapes are "
    f"the first's, … where others differ. {NOTE_MARK}: a value that the model's file names.",
    "MB: memory at the worst moment beyond what was held before the step began.",
)


def table(trace: Trace, width: int, depth: int | None) -> str:
    """See `Trace.table`."""
    root = trace.root
    shown = list(rows(root, depth if depth is not None else fitting_depth(root)))
    lines = [*wrap(title(trace), width, break_on_hyphens=False), "", *_table(shown, width), ""]
    for fact in (*facts(trace), *NOTES):
        lines += wrap(fact, width)
    return "\n".join(lines)


def rows(step: Step, depth: int, level: int = 0) -> Iterator[tuple[int, Step]]:
    """The steps to be shown, and how deep they lie: modules as deep as `depth`, functions below the
    second level one level less, and what the model's file names always."""
    deepest = {"module": depth, "function": min(depth, max(depth - 1, 2)), "model": 0}
    if step.kind == "note" or level <= deepest[step.kind]:
        yield level, step
    for part in step.parts:
        yield from rows(part, depth, level + 1)


def fitting_depth(root: Step) -> int:
    """The deepest that has no more than `LINES` rows, or 1."""
    depth, count, deeper = 1, 0, len(list(rows(root, 2)))
    while count < deeper <= LINES:
        depth, count = depth + 1, deeper
        deeper = len(list(rows(root, depth + 1)))
    return depth


def title(trace: Trace) -> str:
    return f"{trace.model}: a picture of {dimensions(trace.image)} on {trace.device}. {trace.paper}"


def facts(trace: Trace) -> list[str]:
    """What the times are, and how well they make up the whole."""
    calls = "of one call" if trace.rounds == 1 else f"medians of {trace.rounds} calls"
    lines = [
        f"ms: {calls}; nobody watching, the whole takes {milliseconds(median(trace.whole))}. "
        f"All numbers are with the parts."
    ]
    if trace.woken:
        lines.append(WOKEN)
    if trace.uncounted:
        lines.append(f"mult-adds: without those of {', '.join(trace.uncounted)}.")
    return lines


def _table(shown: list[tuple[int, Step]], width: int) -> list[str]:
    """A header and a line a step, of the columns for which there is room."""
    columns = {
        "in": [first_shape([c.inputs for c in s.calls]) for _, s in shown],
        "out": [first_shape([c.outputs for c in s.calls]) for _, s in shown],
        "params": [count(s.parameters) for _, s in shown],
        "mult-adds": [count(s.multiply_adds) for _, s in shown],
        "ms": [milliseconds(s.seconds) if s.kind != "note" else "" for _, s in shown],
        "MB": [megabytes(s.peak_bytes) if s.kind != "note" else "" for _, s in shown],
        "where": [place(s, width >= WIDE) for _, s in shown],
    }
    names = ["  " * level + label(step) for level, step in shown]
    room = {key: max(map(len, (key, *cells))) for key, cells in columns.items()}
    for key in ("where", "in", "MB"):  # which can be done without, in a narrow terminal
        if key in room and width - sum(room.values()) - len(room) < NAME:
            del room[key]
    rest = width - sum(room.values()) - len(room)
    spare = 1 + room.get("in", -1)  # a note has no inputs: its name takes their place
    needed = max(
        len(n) - spare * (s.kind == "note") for n, (_, s) in zip(names, shown, strict=True)
    )
    name_width = max(NAME, min(rest, needed))
    what_width = width - name_width - sum(room.values()) - len(room) - 2
    what = [cut(s.origin.about or s.origin.settings, max(what_width, 0)) for _, s in shown]
    lines = [f"{'step':<{name_width}}{_cells({key: key for key in room}, room)}"]
    middle = name_width + sum(1 + n for key, n in room.items() if key != "where")
    for i, (_, step) in enumerate(shown):
        cells = {key: columns[key][i] for key in room}
        line = f"{cut(names[i], name_width):<{name_width}}{_cells(cells, room)}"
        if step.kind == "note":  # nothing stands between its value and its place
            line = f"{names[i]:<{name_width + spare}} {cells['out']}"
            where = {key: cell for key, cell in cells.items() if key == "where"}
            line = f"{cut(line, middle):<{middle}}{_cells(where, room)}"
        if width >= WIDE and what_width > NAME:
            line += f"  {what[i]}"
        lines.append(line.rstrip())
    return lines


def _cells(cells: dict[str, str], room: dict[str, int]) -> str:
    left = ("in", "out", "where")
    return "".join(
        f" {cell:<{room[key]}}" if key in left else f" {cell:>{room[key]}}"
        for key, cell in cells.items()
    )


def label(step: Step) -> str:
    calls = f" ×{len(step.calls)}" if len(step.calls) > 1 else ""
    mark = f"{NOTE_MARK} " if step.kind == "note" else ""
    return f"{mark}{step.name}{calls}"


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def place(step: Step, whole: bool = False) -> str:
    """File and line, as a whole or the file's name alone; of torch's own classes the class."""
    origin = step.origin
    if origin.foreign or not origin.file:
        return origin.type
    return f"{origin.file if whole else origin.file.rpartition('/')[2]}:{origin.line}"


def dimensions(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def leaves(shapes: Shapes) -> list[tuple[int, ...]]:
    """The shapes of all tensors, in order."""
    if shapes is None:
        return []
    if isinstance(shapes, tuple):
        return [shapes]
    parts = shapes.values() if isinstance(shapes, dict) else shapes
    return [leaf for part in parts for leaf in leaves(part)]


def first_shape(calls: list[Shapes]) -> str:
    """The first tensor of the first call, and that there are others."""
    first = leaves(calls[0])
    if not first:
        return ""
    others = f" +{len(first) - 1}" if len(first) > 1 else ""
    return dimensions(first[0]) + others + (" …" if any(c != calls[0] for c in calls) else "")


def count(number: int) -> str:
    """ "9.4 k", "44.5 M", "134.2 G"; nothing for none."""
    for unit, name in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return str(number or "")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}"


def megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f}"
