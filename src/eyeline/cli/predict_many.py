"""eyeline predict --engine ray: very many pictures, into Parquet files, resumable."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.inference.parts import Counts
    from eyeline.inference.plan import Plan

NAMED = 10  # pictures that cannot be read and are named on the terminal


def predict_many(
    run: str,
    source: str,
    out: Path | None,
    options: dict[str, Any],
    device: str | None,
    workers: int | None,
    batch_size: int,
    column: str | None,
    part_size: int,
) -> None:
    """Predict with workers of Ray; what is done already in the folder stays.

    Args:
        options: of `Predictor`.
    """
    from rich.console import Console

    from eyeline.inference import Predictor
    from eyeline.inference.plan import begin_or_resume
    from eyeline.inference.ray_engine import import_ray
    from eyeline.nn.segmenter import is_segmenter

    import_ray()
    folder = out or Path("predictions")
    run = os.path.abspath(run) if os.path.exists(run) else run
    options = {"model": run} | options
    if is_segmenter(Predictor(device="cpu", **options).model):  # mistakes come before Ray
        raise EyelineError("--engine ray is for detectors; leave it out for a segmenter")
    settings = options | {"weights": _fingerprint(run)}
    with Console(stderr=True).status("listing the pictures"):
        plan = begin_or_resume(folder, source, column, settings, part_size)
    with plan.alone():
        counts = _predict_rest(plan, options, device, workers, batch_size)
    print(f"{counts}: {folder}")
    if counts.unread:
        _tell_unread(plan, counts)


def _predict_rest(
    plan: Plan, options: dict[str, Any], device: str | None, workers: int | None, batch_size: int
) -> Counts:
    """Predict the parts that are not done yet; what all of them hold."""
    from eyeline.inference.parts import Counts, read_counts
    from eyeline.inference.ray_engine import predict_parts, quiet, started

    plan.clear()
    done = plan.done()
    counts = sum((read_counts(plan.result(part)) for part in done), Counts())
    if done:
        told = f"{counts.pictures} of {plan.pictures} pictures are done"
        print(f"{plan.folder}: {told}", file=sys.stderr)
    left = sorted(set(range(plan.parts)) - set(done))
    if not left:
        return counts
    try:
        with (
            quiet(),
            Line(counts.pictures, plan.pictures) as line,
            started(workers, device) as ray,
        ):
            for part in predict_parts(plan, left, options, *ray, batch_size):
                counts += part
                line.show(counts.pictures)
    except KeyboardInterrupt:
        print(
            f"stopped: {counts.pictures} of {plan.pictures} pictures are in {plan.folder}; "
            "the same command goes on",
            file=sys.stderr,
        )
        raise
    plan.clear()
    return counts


class Line:
    """The line of progress."""

    def __init__(self, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(
            *columns, console=console, disable=not console.is_terminal, speed_estimate_period=300
        )
        self.task = self.bar.add_task("starting Ray", total=total, completed=done, rate="")

    def __enter__(self) -> Line:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, done: int) -> None:
        self.bar.update(self.task, completed=done, description="predicting")
        speed = self.bar.tasks[0].speed
        if speed is not None:
            self.bar.update(self.task, rate=f"{speed:.1f} pictures/s")


def _fingerprint(run: str) -> str | None:
    """Of the weights: other weights give other results."""
    from eyeline.checkpoints import run_weights

    file = run_weights(Path(run)) if os.path.isdir(run) else Path(run)
    if file is None or not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _tell_unread(plan: Plan, counts: Counts) -> None:
    from eyeline.inference.parts import read_counts, read_errors

    named: list[str] = []
    for part in range(plan.parts):
        if len(named) < NAMED and read_counts(plan.result(part)).unread:
            named += read_errors(plan.result(part), NAMED - len(named))
    for error in named:
        print(f"left out: {error}", file=sys.stderr)
    raise EyelineError(
        f"{plan.folder}: {counts.unread} of {counts.pictures} pictures could not be read; "
        "the column error says why"
    )
