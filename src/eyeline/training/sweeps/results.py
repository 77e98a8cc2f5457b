"""What a sweep has found so far: sweep.json, sweep.csv, recipe-best.yaml, sweep.html, a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyeline.files import write_whole
from eyeline.training.recipe import save_recipe
from eyeline.training.sweeps.plan import Plan
from eyeline.training.sweeps.ranges import label

if TYPE_CHECKING:
    from rich.table import Table

BEST = "recipe-best.yaml"
STATES = ("complete", "pruned", "failed", "running")


@dataclass(frozen=True)
class Result:
    """A trial."""

    number: int
    state: str  # one of STATES
    value: float | None  # of the metric: the best of its epochs
    values: dict[str, Any]  # by the recipe's keys
    per_epoch: dict[int, float]  # the metric by epoch, from 1
    seconds: float
    folder: str
    error: str  # of one that failed


def best_first(results: Sequence[Result], lower: bool) -> list[Result]:
    """Complete ones, then those that were ended early, each by value, then the others."""

    def rank(one: Result) -> tuple[int, float]:
        value = float("inf") if one.value is None else one.value if lower else -one.value
        return STATES.index(one.state), value

    return sorted(results, key=rank)


def best_of(results: Sequence[Result], lower: bool) -> Result | None:
    """The best of those that are complete."""
    complete = [r for r in best_first(results, lower) if r.state == "complete"]
    return complete[0] if complete else None


def differing(results: Sequence[Result], plan: Plan) -> list[str]:
    """The searched keys whose values are not the same in all trials."""
    keys = [r.key for r in plan.ranges]
    return [k for k in keys if len({label(r.values[k]) for r in results if k in r.values}) > 1]


def table(results: Sequence[Result], plan: Plan) -> Table:
    """For a terminal: a line a trial, best first."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    keys = differing(results, plan)
    ends = [key.rpartition(".")[2] for key in keys]
    heads = [end if ends.count(end) == 1 else key for end, key in zip(ends, keys, strict=True)]
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("trial", justify="right")
    for name in (plan.metric, "epochs", "s", *heads):
        made.add_column(plain(name), justify="right", overflow="fold")
    made.add_column("")
    for one in best_first(results, plan.lower_is_better):
        cells = [text(one.values[key]) if key in one.values else "-" for key in keys]
        state = "" if one.state == "complete" else one.state
        made.add_row(
            str(one.number), text(one.value), str(max(one.per_epoch, default=0)),
            f"{one.seconds:.0f}", *map(plain, cells), state,
        )  # fmt: skip
    return made


def save_results(
    folder: Path, plan: Plan, results: Sequence[Result], importance: Mapping[str, float]
) -> None:
    """Write all files anew; each is whole at any time."""
    from eyeline.training.sweeps.page import page

    ordered = best_first(results, plan.lower_is_better)
    best = best_of(results, plan.lower_is_better)
    content = {
        "metric": plan.metric,
        "goal": "minimize" if plan.lower_is_better else "maximize",
        "search": {r.key: str(r) for r in plan.ranges},
        "wanted": plan.trials,
        "best": None if best is None else best.number,
        "importance": dict(importance),
        "trials": [asdict(one) for one in ordered],
    }
    _write(folder / "sweep.json", json.dumps(content, indent=1) + "\n")
    write_whole(folder / "sweep.csv", partial(_write_csv, plan=plan, results=ordered))
    _write(folder / "sweep.html", page(folder.name, plan, ordered, importance))
    if best is not None:
        recipe = plan.recipe_of(best.values)
        write_whole(folder / BEST, partial(save_recipe, recipe))


def text(value: Any) -> str:
    """A value for people."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else label(value)


def _write(path: Path, content: str) -> None:
    write_whole(path, partial(Path.write_text, data=content, encoding="utf-8"))


def _write_csv(path: Path, plan: Plan, results: Sequence[Result]) -> None:
    keys = [r.key for r in plan.ranges]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("trial", "state", plan.metric, "epochs", "seconds", *keys, "error"))
        for one in results:
            values = [one.values.get(key) for key in keys]
            cells = ["" if v is None else v if isinstance(v, float) else label(v) for v in values]
            epochs = max(one.per_epoch, default=0)
            value = "" if one.value is None else one.value
            rows.writerow(
                (one.number, one.state, value, epochs, round(one.seconds, 1), *cells, one.error)
            )
