"""Run folders as they lie on the disk: what each is, how far it came, how several differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyeline.errors import EyelineError
from eyeline.evaluation.html import document
from eyeline.evaluation.running import show
from eyeline.files import json_lines
from eyeline.training.measures import DECIDES
from eyeline.training.page import Record, chart, duration, points_of
from eyeline.training.recipe import AUTO, Recipe, load_recipe
from eyeline.training.resuming import flat
from eyeline.training.status import read_status, seconds_of

if TYPE_CHECKING:
    from rich.table import Table

SORTS = ("begun", "name", "model", "data", "state", "metric", "loss", "duration", "size")
# Metrics that are compared.
KEPT = ("AP", "AP50", "AP75", "mask_AP", "mIoU", "pixel_accuracy", "loss")


@dataclass
class RunFacts:
    """What a run folder tells of its run; None where it does not."""

    name: str
    path: str
    model: str | None
    data: str | None
    begun: float | None  # seconds since 1970
    state: str  # of `read_status`; "unknown" of a folder without one
    ended: float | None  # seconds since 1970; of one that crashed its last sign of life
    epoch: int  # finished so far
    epochs: int
    metric: str  # that decides which weights are best
    best: float | None
    best_epoch: int | None
    loss: float | None  # the last one in training: of an epoch, or of a step within the first
    duration: float | None  # seconds
    size: int  # bytes on the disk


def read_run(folder: Path) -> RunFacts:
    """What a run folder tells.

    Raises:
        EyelineError: it is none, or its recipe or its records cannot be read.
    """
    recipe, records = _recipe(folder), _records(folder)
    status = read_status(folder)
    epochs = [record for record in records if record["event"] == "epoch"]
    metric = _metric(recipe, records)
    values = points_of(epochs, "epoch", "metrics", metric)
    best = (min if metric == "loss" else max)(values, key=lambda p: p[1]) if values else None
    losses = points_of(epochs or records, "step", "losses", "loss")
    first = folder / "recipe.yaml"
    return RunFacts(
        name=folder.resolve().name,
        path=str(folder),
        model=recipe.model.name if recipe.model else None,
        data=recipe.data.path,
        begun=status.get("begun", first.stat().st_mtime),
        state=status.get("state", "unknown"),
        ended=status.get("ended"),
        epoch=max((record["epoch"] for record in epochs), default=0),
        epochs=recipe.epochs,
        metric=metric,
        best=best[1] if best else None,
        best_epoch=int(best[0]) if best else None,
        loss=losses[-1][1] if losses else None,
        duration=seconds_of(status) if status else None,
        size=_size_of(folder),
    )


def find_runs(folder: Path) -> tuple[list[RunFacts], list[str]]:
    """The runs in a folder, or the folder itself if it is one; and in a line each, what looks like
    a run and cannot be read.

    Raises:
        EyelineError: there is no such folder.
    """
    if not folder.is_dir():
        raise EyelineError(f"{folder}: no such folder; give one that holds runs, such as runs")
    signs = ("recipe.yaml", "metrics.jsonl", "status.json", "state.pt")
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    runs, broken = [], []
    for path in folders:
        if any((path / sign).exists() for sign in signs):
            try:
                runs.append(read_run(path))
            except (EyelineError, OSError) as error:
                broken.append(" ".join(str(error).split()))
    return runs, broken


def sort_runs(runs: Sequence[RunFacts], by: str) -> list[RunFacts]:
    """In the order of one of SORTS: words from a on, of numbers the largest first; of losses, and
    of runs that are judged by them, the smallest. What does not tell comes last."""

    def key(run: RunFacts) -> tuple[bool, Any]:
        low_is_best = by == "loss" or (by == "metric" and run.metric == "loss")
        value = run.best if by == "metric" else getattr(run, by)
        if isinstance(value, str) or value is None:
            return value is None, value or ""
        return False, value if low_is_best else -value

    if by not in SORTS:
        raise EyelineError(f"cannot sort by {by!r}; choose one of {', '.join(SORTS)}")
    return sorted(runs, key=key)


def runs_table(runs: Sequence[RunFacts]) -> Table:
    """For a terminal: one line a run."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("run", "model", "data"):
        table.add_column(name, overflow="fold")
    for name in ("begun", "state"):
        table.add_column(name)
    for name in ("best", "loss", "time", "size"):
        table.add_column(name, justify="right")
    for run in runs:
        begun = _minute(run.begun) if run.begun else "-"
        best = "-" if run.best is None else f"{run.metric} {show(run.best)} @{run.best_epoch}"
        cells = (
            run.name, run.model or "-", Path(run.data).name if run.data else "-", begun,
            state_in_words(run), best, show(run.loss),
            "-" if run.duration is None else duration(run.duration), _size(run.size),
        )  # fmt: skip
        table.add_row(*map(plain, cells))
    return table


def state_in_words(run: RunFacts) -> str:
    """As "finished", or "crashed, epoch 3/25, no sign since 11-22 03:10" (UTC)."""
    if run.state == "finished" and run.epoch == run.epochs:
        return run.state
    since = f", no sign since {_minute(run.ended)}" if run.state == "crashed" and run.ended else ""
    return f"{run.state}, epoch {run.epoch}/{run.epochs}{since}"


def _minute(seconds: float) -> str:
    """As "11-22 03:10", UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%m-%d %H:%M}"


def as_json(runs: Sequence[RunFacts]) -> str:
    return json.dumps([asdict(run) for run in runs], indent=1)


def differing_keys(folders: Sequence[Path]) -> dict[str, list[Any]]:
    """Of the recipes: the dotted keys that are not the same in all, with the value of each."""
    values = [flat(_recipe(folder).model_dump(mode="json", exclude={"out"})) for folder in folders]
    keys = list(dict.fromkeys(key for one in values for key in one))
    rows = {key: [one.get(key) for one in values] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def side_by_side(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Of each run, how it stands and its best metrics: rows of a table."""
    runs = [read_run(folder) for folder in folders]
    rows = {
        "state": [state_in_words(run) for run in runs],
        "time": ["-" if run.duration is None else duration(run.duration) for run in runs],
        "last training loss": [show(run.loss) for run in runs],
    }
    curves = [curves_of(folder) for folder in folders]
    for name in dict.fromkeys(name for one in curves for name in one if name != "training loss"):
        cells = []
        for one in curves:
            points = one.get(name, [])
            best = (min if name == "loss" else max)(points, key=lambda p: p[1], default=None)
            cells.append("-" if best is None else f"{show(best[1])} @{best[0]:.0f}")
        rows[f"best {'validation loss' if name == 'loss' else name}"] = cells
    return rows


def _metric(recipe: Recipe, records: Sequence[Record]) -> str:
    """The one that decides; a run that was asked to choose it wrote what it took."""
    if recipe.eval.metric != AUTO:
        return recipe.eval.metric
    maps = any("mIoU" in (record.get("metrics") or {}) for record in records)
    return DECIDES["segmentation"] if maps else "AP"


def curves_of(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Over the epochs: the training loss, and metrics as far as they were measured."""
    epochs = [record for record in _records(folder) if record["event"] == "epoch"]
    metrics = dict.fromkeys((_metric(_recipe(folder), epochs), *KEPT))
    found = {name: points_of(epochs, "epoch", "metrics", name) for name in metrics}
    found = {name: [p for p in points if p[1] >= 0] for name, points in found.items()}
    found = {"training loss": points_of(epochs, "epoch", "losses", "loss"), **found}
    return {name: points for name, points in found.items() if points}


def comparison_table(names: Sequence[str], rows: dict[str, list[Any]], first: str) -> Table:
    """For a terminal: a column a run."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (first, *names):
        table.add_column(plain(name), overflow="fold")
    for key, values in rows.items():
        table.add_row(plain(key), *(plain(_value(value)) for value in values))
    return table


def names_of(folders: Sequence[Path]) -> list[str]:
    """What the runs are called beside one another: their folders' names, or where these are not
    different, their paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def comparison_page(folders: Sequence[Path]) -> str:
    """The same as HTML, with the curves of each metric."""
    names = names_of(folders)
    every = dict(zip(names, map(curves_of, folders), strict=True))
    merits = dict.fromkeys(name for one in every.values() for name in one)
    charts = "".join(
        chart(
            "validation loss" if merit == "loss" else merit,
            {name: one.get(merit, []) for name, one in every.items()},
            "epoch",
            "loss" if merit.endswith("loss") else "score",
            merit=not merit.endswith("loss"),
        )
        for merit in merits
    )
    recipes = differing_keys(folders)
    same = "<p>The recipes are the same.</p>"
    body = f"""<header><h1>{escape(" and ".join(names))}</h1></header>
<main>
<section><h2>How they stand</h2>
<p>Behind the @ stands the epoch.</p>
{_html_table(names, side_by_side(folders))}</section>
<section><h2>Keys that differ</h2>{_html_table(names, recipes) if recipes else same}</section>
<section><h2>Curves</h2><div class="halves">{charts}</div></section>
</main>
"""
    return document("Runs", body)


def _html_table(names: Sequence[str], rows: dict[str, list[Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = "".join(
        f'<tr><th scope="row">{escape(key)}</th>'
        + "".join(f"<td>{escape(_value(value))}</td>" for value in values)
        + "</tr>"
        for key, values in rows.items()
    )
    return (
        '<div class="scroll"><table class="classes"><thead><tr><th scope="col"></th>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _value(value: Any) -> str:
    return "-" if value is None else str(value)


def _size_of(folder: Path) -> int:
    """Bytes on the disk, while a run may be writing there."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it has its own name by now, or is gone
            size += path.lstat().st_size if path.is_file() else 0
    return size


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _recipe(folder: Path) -> Recipe:
    if not (folder / "recipe.yaml").is_file():
        raise EyelineError(f"{folder}: no run folder, there is no recipe.yaml in it")
    return load_recipe(folder / "recipe.yaml")


def _records(folder: Path) -> list[Record]:
    """Those of metrics.jsonl that are what a run writes."""
    records: list[Record] = list(json_lines(folder / "metrics.jsonl"))
    for i, record in enumerate(records):
        whole = all(isinstance(record.get(key), int) for key in ("step", "epoch"))
        if record.get("event") not in ("step", "epoch") or not whole:
            raise EyelineError(f"{folder / 'metrics.jsonl'}: record {i + 1} is none of a run's")
    return records
