"""Evaluated runs side by side: a table, and a page with speed against accuracy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyeline.errors import EyelineError
from eyeline.evaluation.charts import (
    Points,
    colour,
    legend,
    line_styles,
    lines_svg,
    scatter_svg,
)
from eyeline.evaluation.html import document
from eyeline.evaluation.running import rate, show
from eyeline.files import json_lines

if TYPE_CHECKING:
    from rich.table import Table


# Of segmenters, and what their columns are called.
OF_MAPS = ("mIoU", "pixel_accuracy", "boundary_F1")
NARROWEST = 6  # letters of a line of a run's or a model's name, on a narrow terminal
TITLES = {"pixel_accuracy": "pixels", "boundary_F1": "boundaries"}


@dataclass
class Evaluated:
    """What a run's evaluation says of it."""

    name: str  # what it is called beside the others
    path: Path  # of its results.json
    # Its numbers of merit: COCO's (of masks, where it was measured on some, "mask AP"), or those
    # of a segmenter
    coco: dict[str, float]
    pictures_per_second: float
    parameters: int
    facts: dict[str, str]
    # The first of its numbers on the validation pictures, after each epoch
    epochs: list[tuple[int, float]] = field(default_factory=list)
    classes: list[str] | None = None  # None: the file does not tell

    @property
    def measured_on(self) -> str:
        """Data and split, as far as they are known."""
        data, split = (self.facts.get(key, "?") for key in ("data", "split"))
        return data if data.endswith(split) else f"{data}, {split}"

    def row(self, numbers: Sequence[str]) -> list[str]:
        """Model, the numbers of merit asked for, pictures a second, parameters, precision."""
        return [
            self.facts.get("model", "?"),
            *(show(self.coco.get(key)) for key in numbers),
            rate(self.pictures_per_second),
            f"{self.parameters / 1e6:.1f} M",
            self.facts.get("precision", "?"),
        ]


def numbers_of(runs: Sequence[Evaluated]) -> list[str]:
    """The numbers of merit that are compared, the first of which decides: those of masks too,
    where a run has them.

    Raises EyelineError where detectors and segmenters are among the runs.
    """
    maps = [run for run in runs if "mIoU" in run.coco]
    if maps and len(maps) < len(runs):
        other = next(run for run in runs if run not in maps)
        raise EyelineError(
            f"{maps[0].name} gives pixels a class and {other.name} finds boxes; compare them apart"
        )
    if maps:
        return list(OF_MAPS)
    masks = ["mask AP"] if any("mask AP" in run.coco for run in runs) else []
    return ["AP", "AP50", "AP75", *masks]


def header(numbers: Sequence[str]) -> list[str]:
    """The columns of `Evaluated.row`; all but the first and the last hold numbers."""
    named = [TITLES.get(name, name) for name in numbers]
    return ["model", *named, "pictures/s", "parameters", "precision"]


def read_runs(sources: Sequence[str | Path]) -> list[Evaluated]:
    """The evaluations of run folders (of each the newest), of eval folders or results.json files.

    Raises:
        EyelineError: naming what holds no evaluation, and the command that makes one.
    """
    paths = [_results(Path(source)) for source in sources]
    names = [_run_folder(path).name for path in paths]
    if len(set(names)) < len(names):
        names = [str(source) for source in sources]
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _results(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise EyelineError(f"{source}: no such run; give run folders, or results.json files")
    found = [source / "results.json", *source.glob("eval-*/results.json")]
    found = [path for path in found if path.is_file()]
    if not found:
        raise EyelineError(f"{source}: not evaluated yet; run first: eyeline eval {source}")
    return max(found, key=lambda path: path.stat().st_mtime)


def _run_folder(results: Path) -> Path:
    folder = results.resolve().parent
    return folder.parent if folder.name.startswith("eval-") else folder


def _read(path: Path, name: str) -> Evaluated:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        facts = {str(key): str(value) for key, value in content.get("facts", {}).items()}
        if "metrics" in content:
            numbers, first = content["metrics"], OF_MAPS[0]
        else:
            masks = {"mask AP": content["segm"]["AP"]} if content.get("segm") else {}
            numbers, first = content["coco"] | masks, "AP"
        known = {key: -1.0 if value is None else value for key, value in numbers.items()}
        return Evaluated(
            name, path, known, float(content["pictures_per_second"]),
            int(content["parameters"]), facts, _epochs(_run_folder(path) / "metrics.jsonl", first),
            None if content.get("classes") is None else list(map(str, content["classes"])),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EyelineError(f"{path}: not the results of `eyeline eval` ({error!r})") from None


def _epochs(path: Path, name: str) -> list[tuple[int, float]]:
    """A number after each epoch that was evaluated, from a run's log; empty without one."""
    found = []
    for record in json_lines(path):
        value = (record.get("metrics") or {}).get(name)
        if record.get("event") == "epoch" and value is not None and value >= 0:
            found.append((int(record["epoch"]), float(value)))
    return found


def doubts(runs: Sequence[Evaluated]) -> list[str]:
    """Why the numbers may not be comparable; empty where nothing speaks against it."""
    found = []
    data = {run.measured_on for run in runs}
    if len(data) > 1:
        told = "; ".join(f"{run.name} on {run.measured_on}" for run in runs)
        found.append(f"the runs were measured on different pictures: {told}")
    known = {tuple(run.classes) for run in runs if run.classes is not None}
    if len(known) > 1:
        told = "; ".join(f"{run.name} {_in_short(run.classes)}" for run in runs)
        found.append(f"the runs tell different classes apart: {told}")
    for keys, what in (
        (("device", "batch size"), "speeds"),
        (("test-time augmentation", "tiles"), "numbers and speeds"),
    ):
        for key in keys:
            if len({run.facts.get(key, "") for run in runs}) > 1:
                told = "; ".join(f"{run.name} {run.facts.get(key, 'none')}" for run in runs)
                found.append(f"{what} differ by {key} too: {told}")
    return found


def _in_short(classes: Sequence[str] | None) -> str:
    if classes is None:
        return "unknown ones"
    return f"{len(classes)} ({', '.join(classes[:3])}{' ...' if len(classes) > 3 else ''})"


def table(runs: Sequence[Evaluated]) -> Table:
    """For a terminal: one line a run, the best first."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    result.add_column("run", overflow="fold", min_width=NARROWEST)
    numbers = numbers_of(runs)
    columns = header(numbers)
    for name in columns:
        words, narrow = name in (columns[0], columns[-1]), name == columns[0]
        result.add_column(
            name, justify="left" if words else "right", no_wrap=not narrow, overflow="fold",
            min_width=NARROWEST if narrow else None,
        )  # fmt: skip
    for run in _best_first(runs):
        result.add_row(plain(run.name), *map(plain, run.row(numbers)))
    return result


def _best_first(runs: Sequence[Evaluated]) -> list[Evaluated]:
    first = numbers_of(runs)[0]
    return sorted(runs, key=lambda run: -run.coco.get(first, -1.0))


def page(runs: Sequence[Evaluated], title: str = "Comparison") -> str:
    """The same as HTML, with accuracy against speed, and against epochs where logs tell it."""
    runs = _best_first(runs)
    numbers = numbers_of(runs)
    first = numbers[0]
    top = {key: max(run.coco.get(key, -1.0) for run in runs) for key in numbers}
    fastest = max(run.pictures_per_second for run in runs)
    columns = header(numbers)
    kinds = ["", *["num"] * (len(columns) - 2), ""]
    rows = []
    for i, run in enumerate(runs):
        best = [0 <= run.coco.get(key, -1.0) == top[key] for key in numbers]
        best = [False, *best, run.pictures_per_second == fastest, False, False]
        cells = "".join(
            f'<td class="{kind}{" best" if strong else ""}">{escape(value)}</td>'
            for kind, value, strong in zip(kinds, run.row(numbers), best, strict=True)
        )
        name = re.sub(r"([-_/])", r"\1<wbr>", escape(run.name))  # where a long one may break
        rows.append(f'<tr><th scope="row">{_dot(i)}{name}</th>{cells}</tr>')
    head = "".join(
        f'<th scope="col" class="{kind}">{name}</th>'
        for kind, name in zip(kinds, columns, strict=True)
    )
    warned = "".join(f"<li>{escape(doubt)}</li>" for doubt in doubts(runs))
    points = {
        run.name: (run.pictures_per_second, run.coco[first])
        for run in runs
        if run.coco.get(first, -1.0) >= 0 and math.isfinite(run.pictures_per_second)
    }
    lines = {run.name: run.epochs for run in runs}
    learnt = ""
    if any(len(points) > 1 for points in lines.values()):
        learnt = f"""<section>
<h2>{first} against epochs</h2>
<p>On the validation pictures, after each epoch of training.</p>
<figure class="chart">{lines_svg(lines, "epoch", first)}{_keys(lines)}</figure>
</section>"""
    measured = ", ".join(sorted({run.measured_on for run in runs}))
    return document(
        title,
        f"""<header>
<h1>{escape(title)}</h1>
<p>{len(runs)} runs, measured on {escape(measured)}. Scores lie between 0 and 1; the best of each
column is underlined.</p>
{f'<ul class="doubts">{warned}</ul>' if warned else ""}
</header>
<main>
<section>
<h2>Numbers</h2>
<div class="scroll"><table class="classes"><thead><tr><th scope="col">run</th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
</section>
<section>
<h2>Speed and accuracy</h2>
<p>Up is more accurate, right is faster.</p>
<figure class="chart one">{scatter_svg(points, "pictures a second", first)}</figure>
</section>
{learnt}
</main>
""",
    )


def _dot(i: int) -> str:
    return f'<i class="dot" style="background:{colour(i)}"></i>'


def _keys(lines: Mapping[str, Points]) -> str:
    told = {}
    for name, points in lines.items():
        if points:
            epoch, value = max(points, key=lambda point: point[1])
            told[name] = f"best {value:.3f} after epoch {epoch}"
    return legend(line_styles(lines), told)
