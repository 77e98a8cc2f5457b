"""A run's page, report.html: written again after each epoch and every few minutes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from eyeline.data.faults import KINDS
from eyeline.evaluation import map_report
from eyeline.evaluation.charts import Points, legend, line_styles, lines_svg
from eyeline.evaluation.html import counted, document, facts
from eyeline.evaluation.report import class_table, gallery, numbers
from eyeline.evaluation.running import rate, show
from eyeline.evaluation.segmentation import SegmentationReport
from eyeline.files import json_lines, write_whole
from eyeline.training.measures import DECIDES
from eyeline.training.recipe import Recipe
from eyeline.training.resuming import flat
from eyeline.training.saving import BAD_BATCHES, LEFT_OUT, RunFolder
from eyeline.training.status import read_status, seconds_of

if TYPE_CHECKING:
    from eyeline.evaluation.evaluate import Report

PAGE = "report.html"
PICTURES = 4
DRAWN = 600  # points of a curve
NAMED = 8  # things that were left out
RELOAD = 30  # seconds
# The curves, besides the one that decides.
METRICS = ("AP", "AP50", "AP75", "mask_AP", "mIoU", "pixel_accuracy")

Record = Mapping[str, Any]

# While the run goes on the page asks for itself again, and says how old it is: after a kill -9 the
# last one says "Running" for ever.
SCRIPT = """<script>
const age = document.getElementById("age");
const minutes = Math.floor(Date.now() / 60000 - Number(age.dataset.written) / 60);
if (minutes > 0) age.textContent += ` That was ${minutes} min ago.`;
if (minutes > LATE) age.textContent +=
  " The next is late: unless an evaluation takes so long, the run has ended without a word. " +
  "To be sure: eyeline runs.";
setTimeout(() => location.reload(), RELOAD * 1000);
</script>
"""


class RunPage:
    """Writes the page of a run from its files; with `evaluated`, pictures of the last evaluation.

    Args:
        total: steps of the whole run.
    """

    def __init__(self, folder: RunFolder, total: int) -> None:
        self.path, self.recipe = folder.path, folder.recipe
        self.total = total
        self.looks = ""  # of the last evaluation
        self.last = time.monotonic()

    def evaluated(self, report: Report | SegmentationReport, epoch: int) -> None:
        """Keep what the page shows of an evaluation: classes, and a few pictures."""
        if isinstance(report, SegmentationReport):
            rows, pictures = map_report.class_table(report), map_report.pictures(report)
        else:
            rows, pictures = class_table(report), gallery(report, PICTURES)
        self.looks = (
            f"<section><h2>Class by class, after epoch {epoch}</h2>{rows}</section>{pictures}"
        )

    def write_if_due(self) -> None:
        minutes = self.recipe.log.report
        if minutes is not None and time.monotonic() - self.last >= 60 * minutes:
            self.write()

    def write(self) -> None:
        """In one go: who reads it sees the page before, or this one."""
        minutes = self.recipe.log.report
        if minutes is None:
            return
        text = self._text(late=2 * minutes + 5)
        write = partial(Path.write_text, data=text, encoding="utf-8")
        write_whole(self.path / PAGE, write)
        self.last = time.monotonic()

    def _text(self, late: float) -> str:
        """The page; after so many minutes it says that the next one is late."""
        records = list(json_lines(self.path / "metrics.jsonl"))
        steps = [record for record in records if record["event"] == "step"]
        epochs = [record for record in records if record["event"] == "epoch"]
        status = read_status(self.path)
        running = status.get("state") == "running"
        now, age, script = time.time(), "", ""
        if running:
            age = f'<p id="age" data-written="{now:.0f}">Written {_minute(now)}.</p>'
            script = SCRIPT.replace("RELOAD", str(RELOAD)).replace("LATE", f"{late:.0f}")
        title = self.path.resolve().name
        body = f"""<header>
<h1>{escape(title)}</h1>
<p>{escape(self._state(status, steps, epochs))}</p>{age}
{_head(steps, epochs, self.recipe.eval.metric)}
</header>
<main>
{_learning(steps, epochs, self.recipe.eval.metric)}
{_machine(steps)}
{_latest(epochs)}
{self.looks}
<section><h2>Left out</h2>
<ul class="list">{"".join(f"<li>{escape(x)}</li>" for x in self._left_out(steps))}</ul>
</section>
<section><h2>Recipe</h2>
<p>Keys that are not as they are by default; all of them stand in recipe.yaml.</p>
{facts({key: str(value) for key, value in changed_keys(self.recipe).items()})}
</section>
</main>
{script}"""
        return document(f"{title}, {status.get('state', 'a run')}", body)

    def _state(self, status: Record, steps: Sequence[Record], epochs: Sequence[Record]) -> str:
        last = max((r["step"] for r in (*steps, *epochs)), default=0)
        parts = [
            status.get("state", "running").capitalize(),
            f"{len(epochs)} of {counted(self.recipe.epochs, 'epoch')} done",
            f"step {last:,} of {self.total:,}",
            f"begun {_minute(status.get('begun', time.time()))}",
            f"{duration(seconds_of(dict(status)))} so far",
        ]
        if status.get("state") == "running" and steps and self.total > last:
            recent = steps[-20:]
            one = sum(r["seconds"] for r in recent) / max(1, _steps_in(recent, steps))
            parts.append(f"about {duration(one * (self.total - last))} of steps left")
        why = f" {status['why']}" if status.get("why") else ""
        return ", ".join(parts) + "." + why

    def _left_out(self, steps: Sequence[Record]) -> list[str]:
        """What of the data the weights have not seen."""
        found = []
        if (self.path / LEFT_OUT).is_file():
            content = json.loads((self.path / LEFT_OUT).read_text(encoding="utf-8"))
            found += [f"{n:,}: {KINDS.get(kind, kind)}" for kind, n in content["counts"].items()]
            each = [f"{fault['where']}: {fault['what']}" for fault in content["left_out"]]
            found += each[:NAMED]
            if len(each) > NAMED:
                found.append(f"and {len(each) - NAMED:,} more, see {LEFT_OUT}")
        if skipped := (steps[-1].get("skipped", 0) if steps else 0):
            found.append(f"{counted(skipped, 'step')} without a finite loss, or finite gradients")
        if (self.path / BAD_BATCHES).is_dir():
            kept = sorted(path.name for path in (self.path / BAD_BATCHES).iterdir())
            found.append(f"batches without a finite loss are in {BAD_BATCHES}: {', '.join(kept)}")
        return found or ["Nothing."]


def changed_keys(recipe: Recipe) -> dict[str, Any]:
    """The recipe's dotted keys that are not as by default."""
    usual = flat(Recipe().model_dump(mode="json"))
    now = flat(recipe.model_dump(mode="json", exclude={"out"}))
    if now["eval.metric"] in ("AP", *DECIDES.values()):
        usual["eval.metric"] = now["eval.metric"]  # as auto would choose
    return {key: value for key, value in now.items() if key not in usual or value != usual[key]}


def duration(seconds: float) -> str:
    """As "2 h 05 min", "3 min 20 s" or "8 s"."""
    whole = timedelta(seconds=round(seconds))
    hours, rest = divmod(int(whole.total_seconds()), 3600)
    minutes, left = divmod(rest, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"


def _minute(seconds: float) -> str:
    """A moment, in seconds since 1970, as "2026-11-22 03:10 UTC"."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def points_of(records: Iterable[Record], x: str, *keys: str) -> list[tuple[float, float]]:
    """(x, value) of each record that has a number there, such as at "metrics", "AP"."""
    found = []
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((float(record[x]), float(value)))
    return found


def _steps_in(recent: Sequence[Record], steps: Sequence[Record]) -> int:
    """Steps that these last records tell of."""
    before = steps[-len(recent) - 1]["step"] if len(steps) > len(recent) else 0
    return int(recent[-1]["step"]) - int(before)


def _head(steps: Sequence[Record], epochs: Sequence[Record], metric: str) -> str:
    shown = {}
    values = points_of(epochs, "epoch", "metrics", metric)
    if values:
        best = (min if metric == "loss" else max)(values, key=lambda point: point[1])
        shown[f"best {metric}, after epoch {best[0]:.0f}"] = show(best[1])
    for name, keys in (("training loss", "losses"), ("validation loss", "val_losses")):
        last = [record for record in (epochs or steps) if record.get(keys)]
        if last:
            parts = last[-1][keys]
            value = parts.get("loss", sum(v or 0.0 for v in parts.values()))
            shown[name] = show(value)
    if steps:
        shown["pictures a second"] = rate(steps[-1]["pictures_per_second"])
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in shown.items())
    return f'<dl class="head">{items}</dl>'


def _learning(steps: Sequence[Record], epochs: Sequence[Record], metric: str) -> str:
    each = points_of(steps, "step", "losses", "loss")
    validation = [
        (float(record["step"]), sum(v for v in record["val_losses"].values() if v is not None))
        for record in epochs
        if record.get("val_losses")
    ]
    loss = {
        "one batch": each,
        "training, mean of the epoch": points_of(epochs, "step", "losses", "loss"),
        "validation": validation,
    }
    names = list(dict.fromkeys(name for record in steps for name in record["losses"]))
    parts = {n: points_of(steps, "step", "losses", n) for n in names if n != "loss"}
    merits = [m for m in dict.fromkeys((metric, *METRICS)) if m != "loss"]
    curves = {m: points_of(epochs, "epoch", "metrics", m) for m in merits}
    curves = {name: [p for p in points if p[1] >= 0] for name, points in curves.items()}
    charts = [
        chart("Loss", loss, "step", "loss", pale=("one batch",)),
        chart("Its parts, of single batches", parts, "step", "loss"),
        chart("On the validation pictures", curves, "epoch", "score", merit=True),
        chart("Learning rate", {"lr": points_of(steps, "step", "lr")}, "step", "lr"),
    ]
    return f'<section><h2>Learning</h2><div class="halves">{"".join(charts)}</div></section>'


def _machine(steps: Sequence[Record]) -> str:
    memory = {
        "process": points_of(steps, "step", "system", "process_mb"),
        "GPU, tensors": points_of(steps, "step", "system", "gpu_mb"),
        "GPU, reserved": points_of(steps, "step", "system", "gpu_reserved_mb"),
    }
    shares = {
        "waiting for pictures": points_of(steps, "step", "data_wait"),
        "GPU at work": points_of(steps, "step", "system", "gpu_busy"),
    }
    speed = {"pictures a second": points_of(steps, "step", "pictures_per_second")}
    load = {"processes a core": points_of(steps, "step", "system", "cpu_load")}
    charts = [
        chart("Speed", speed, "step", "pictures a second"),
        chart("Share of the time", shares, "step", "share"),
        chart("Memory", memory, "step", "MB"),
        chart("Processes that want to compute", load, "step", "for each core"),
    ]
    free = points_of(steps, "step", "system", "disk_free_gb")
    left = f"<p>{free[-1][1]:,.1f} GB are free on the disk.</p>" if free else ""
    return (
        f'<section><h2>The machine</h2><div class="halves">{"".join(charts)}</div>{left}</section>'
    )


def chart(
    caption: str,
    lines: Mapping[str, Points],
    x_name: str,
    y_name: str,
    merit: bool = False,
    pale: Sequence[str] = (),
) -> str:
    """A figure with a legend; empty where there are no points. What is far above the rest, as
    first losses may be, is cut off."""
    lines = {name: _thinned(points) for name, points in lines.items() if points}
    if not lines:
        return ""
    values = [value for points in lines.values() for _, value in points]
    top = max(values)
    if len(values) > 20:
        top = min(top, 2.0 * quantiles(values, n=20)[-1])
    y_range = None if merit or top <= 0 else (min(0.0, *values), top)
    svg = lines_svg(lines, x_name, y_name, merit=merit, y_range=y_range, pale=pale)
    told = {name: f"last {points[-1][1]:.3g}" for name, points in lines.items()}
    keys = legend(line_styles(lines, pale), told)
    return f'<figure class="chart one small-keys"><h3>{escape(caption)}</h3>{svg}{keys}</figure>'


def _thinned(points: Points) -> Points:
    every = math.ceil(len(points) / DRAWN)
    return [*points[:-1:every], points[-1]]


def _latest(epochs: Sequence[Record]) -> str:
    """The numbers of the last evaluation."""
    done = [r for r in epochs if {"AP", "mIoU"} & {*(r.get("metrics") or {})}]
    if not done:
        return ""
    metrics = done[-1]["metrics"]
    title = f"The last evaluation, after epoch {done[-1]['epoch']}"
    if "mIoU" in metrics:
        return f"<section><h2>{title}</h2>{map_report.numbers(metrics)}</section>"
    right = tuple(k for k in ("AP", "AP50", "AP75", "APs", "APm", "APl") if k in metrics)
    found = tuple(k for k in ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl") if k in metrics)
    return f"""<section>
<h2>{title}</h2>
<div class="halves">{numbers("Are the boxes right?", metrics, right)}
{numbers("Are the objects found?", metrics, found)}</div>
</section>"""
