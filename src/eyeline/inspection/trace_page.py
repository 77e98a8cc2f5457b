"""A trace as one page: a tree that folds, without any script."""

from __future__ import annotations

from html import escape
from statistics import median

from eyeline import __version__
from eyeline.evaluation.html import document, facts
from eyeline.inspection.trace import Call, Shapes, Step, Trace
from eyeline.inspection.trace_text import (
    NOTE_MARK,
    WOKEN,
    count,
    dimensions,
    first_shape,
    label,
    leaves,
    megabytes,
    milliseconds,
    place,
)

OPEN = 2  # levels of which what has parts is unfolded at first
CALLS = 12  # that are listed with their shapes
COLUMNS = ("step", "in", "out", "parameters", "mult-adds", "ms", "out MB", "peak MB", "where")

STYLE = """
body { max-width: 86rem; }
.row { display: grid; gap: 0 .9rem; align-items: baseline; padding: .28rem 0;
  grid-template-columns: minmax(12rem, 1fr) 9.5rem 9.5rem 4.9rem 4.9rem 4.4rem 4rem 4.2rem 11rem;
  border-top: 1px solid var(--rule); font-size: .88rem; line-height: 1.4; }
.row span { overflow-wrap: anywhere; position: relative; }
.row .n { text-align: right; white-space: nowrap; }
.row, .about { font-variant-numeric: tabular-nums; }
.row .where, .row .shape { color: var(--soft); }
.header { color: var(--soft); position: sticky; top: 0; background: var(--paper); border: 0; }
summary { cursor: pointer; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary:hover { background: var(--track); }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
.row .name { padding-left: calc(var(--level) * 1.1rem + 1.1rem); text-indent: -1.1rem;
  font-weight: 600; }
.row .name::before { content: "▸"; content: "▸" / ""; display: inline-block; width: 1.1rem;
  text-indent: 0; color: var(--soft); font-weight: 400; }
details[open] > .row .name::before { content: "▾"; content: "▾" / ""; }
.note > .row { color: var(--accent); }
.note > .row .name { font-weight: 400; }
.function > .row .name { font-weight: 400; }
.row b { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
pre:focus-visible { outline: 2px solid var(--accent); }
.about { margin: .1rem 0 .7rem calc(var(--level) * 1.1rem + 1.1rem); font-size: .85rem;
  line-height: 1.45; color: var(--soft); overflow-wrap: anywhere; }
.about p { margin: 0 0 .2rem; max-width: 60rem; }
.about summary { color: var(--accent); width: fit-content; }
.about ol { margin: 0 0 .3rem; padding-left: 1.6rem; }
pre { margin: .3rem 0; padding: .6rem .8rem; overflow-x: auto; background: var(--track);
  color: var(--ink); border-radius: .25rem; font: .8rem/1.5 ui-monospace, "SF Mono", Menlo,
  Consolas, "DejaVu Sans Mono", monospace; }
pre i { color: var(--soft); font-style: normal; user-select: none; }
@media (max-width: 70rem) {
  .row { display: flex; flex-wrap: wrap; gap: 0 .8rem;
    padding-left: calc(var(--level) * .7rem + 1.1rem); }
  .row .name { width: 100%; padding-left: 0; margin-left: 0; }
  .row.header, .row span:empty, .row .given { display: none; }
  .row .n b { position: static; clip-path: none; font-weight: 400; color: var(--soft); }
  .row .out::before { content: "→ "; content: "→ " / ""; }
  .about { margin-left: calc(var(--level) * .7rem + 1.1rem); } }
"""


def page(trace: Trace) -> str:
    """See `Trace.html`."""
    root = trace.root
    head = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>"
        for name, value in (
            ("parameters", count(root.parameters)),
            ("multiply-adds", count(root.multiply_adds)),
            ("milliseconds", milliseconds(median(trace.whole))),
            ("MB at the worst moment", megabytes(root.peak_bytes)),
        )
    )
    header = "".join(
        f'<span class="{"n" if i in range(3, 8) else ""}">{name}</span>'
        for i, name in enumerate(COLUMNS)
    )
    body = f"""<header>
<h1>{escape(trace.model)}, step by step</h1>
<p>{escape(trace.paper)}</p>
<dl class="head">{head}</dl>
</header>
<main>
<section>
<h2>The path of a picture</h2>
<p>In the order in which it happens. A line unfolds: what the step is, its parts, and the lines
of the file that compute it. {NOTE_MARK} is a value that the model's file names.</p>
<div role="group" aria-label="Steps">
<div class="row header" aria-hidden="true">{header}</div>
{_step(root, 0)}
</div>
</section>
<section>
<h2>How it was measured</h2>
{facts(_facts(trace))}
</section>
</main>
"""
    return document(f"{trace.model}, step by step", body, STYLE)


def _facts(trace: Trace) -> dict[str, str]:
    runs = "one call" if trace.rounds == 1 else f"medians of {trace.rounds} calls"
    whole = median(trace.whole)
    told = {
        "Picture": f"{dimensions(trace.image)}, on {trace.device}",
        "ms": f"{runs}, watched; with the parts. The steps' sum is "
        f"{trace.root.seconds / whole:.1%} of what the whole takes unwatched.",
        "parameters": "with the parts'; those that several share count once.",
        "mult-adds": "of convolutions and products of matrices; all else is free.",
        "out MB": "of the tensors that a step gives, of all its calls.",
        "peak MB": "of the tensors that operators made: at the worst moment, beyond what was held "
        "before the step began. What a kernel takes for itself is not seen.",
        "eyeline": __version__,
    }
    if trace.woken:
        told["Weights"] = WOKEN
    if trace.uncounted:
        told["not counted"] = f"the multiply-adds of {', '.join(trace.uncounted)}"
    return told


def _step(step: Step, level: int) -> str:
    parts = "\n".join(_step(part, level + 1) for part in step.parts)
    opened = " open" if step.parts and level < OPEN else ""
    return (
        f'<details class="{step.kind}" style="--level:{level}"{opened}>'
        f"<summary{_row(step)}{_about(step)}{parts}</details>"
    )


def _row(step: Step) -> str:
    """The line of a step. What a number is stands before it: for those who hear the line, and in a
    narrow window, which has no columns, for all."""
    numbers = {
        "parameters": count(step.parameters),
        "mult-adds": count(step.multiply_adds),
        "ms": "" if step.kind == "note" else milliseconds(step.seconds),
        "out MB": megabytes(step.output_bytes),
        "peak MB": "" if step.kind == "note" else megabytes(step.peak_bytes),
    }
    cells = [
        _cell("shape", "in", first_shape([call.inputs for call in step.calls])),
        _cell("shape out", "out", first_shape([call.outputs for call in step.calls])),
        *(_cell("n given" if key == "out MB" else "n", key, numbers[key]) for key in numbers),
        _cell("where", "where", escape(place(step))),
    ]
    name = f'<span class="name">{escape(label(step))}</span>'
    return f' class="row">{" ".join((name, *cells))}</summary>'


def _cell(kind: str, name: str, value: str) -> str:
    return f'<span class="{kind}">' + (f"<b>{name}</b> {value}" if value else "") + "</span>"


def _about(step: Step) -> str:
    """What a step is, each call's shapes, and the lines that compute it."""
    origin = step.origin
    settings = f"({origin.settings})" if origin.settings else ""
    where = f"{origin.file}:{origin.line}" if origin.file else ""
    told = [f"<code>{escape(origin.type + settings)}</code>", escape(where)]
    if step.parameters:
        own = step.own_parameters
        some = f", {own:,} of them its own" if 0 < own < step.parameters else ""
        told.append(f"{step.parameters:,} parameters{some}")
    calls = [_call(call) for call in step.calls]
    if len(set(calls)) == 1:
        told.append(calls[0])
    lines = [f"<p>{escape(origin.about)}</p>"] if origin.about else []
    lines.append(f"<p>{' · '.join(filter(None, told))}</p>")
    if len(set(calls)) > 1:
        items = "".join(f"<li>{call}</li>" for call in calls[:CALLS])
        more = f"<p>and {len(calls) - CALLS} calls more</p>" if len(calls) > CALLS else ""
        lines.append(f"<ol>{items}</ol>{more}")
    if origin.source:
        numbered = "\n".join(
            f"<i>{origin.source_line + i:>4}</i>  {escape(line)}"
            for i, line in enumerate(origin.source.splitlines())
        )
        lines.append(
            f"<details><summary>{escape(origin.file)}, from line {origin.source_line}</summary>"
            f'<pre tabindex="0" role="group" aria-label="{escape(origin.type)}, its lines">'
            f"{numbered}</pre></details>"
        )
    return f'<div class="about">{"".join(lines)}</div>'


def _call(call: Call) -> str:
    outputs = all_shapes(call.outputs)
    return f"{all_shapes(call.inputs)} → {outputs}" if call.inputs is not None else outputs


def all_shapes(shapes: Shapes) -> str:
    """Every tensor's shape, as they are nested; equal neighbours told once."""
    if shapes is None:
        return "no tensor"
    if isinstance(shapes, tuple):
        return dimensions(shapes)
    if isinstance(shapes, dict):
        return ", ".join(f"{escape(key)} {all_shapes(part)}" for key, part in shapes.items())
    if len(leaves(shapes)) > 1 and all(part == shapes[0] for part in shapes):
        return f"{len(shapes)} of [{all_shapes(shapes[0])}]"
    return f"[{', '.join(map(all_shapes, shapes))}]"
