"""What a run tells: a progress bar or plain lines, metrics.jsonl, its page, and other writers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eyeline.files import Lines, json_lines, write_whole
from eyeline.training.page import RunPage
from eyeline.training.position import Position
from eyeline.training.recipe import Recipe
from eyeline.training.resuming import flat
from eyeline.training.saving import RunFolder
from eyeline.training.status import Status
from eyeline.training.system import memory_mb, system_figures
from eyeline.training.writers import Writer, open_writers

if TYPE_CHECKING:
    from eyeline.evaluation.evaluate import Report

T = TypeVar("T")
SHOWN = ("AP", "AP50", "AP75", "mIoU", "pixel_accuracy")  # metrics in an epoch's line

Numbers = Mapping[str, float | None]


class Log:
    """Writes a run's records to its folder and shows them; silent where it does not write.

    A line of metrics.jsonl has "event" ("step" or "epoch"), "step" and "epoch" from 1, and losses,
    speed and the like; null stands for a number that does not exist. data_wait is the share of the
    time in which nothing was done but wait for pictures.

    Args:
        total: steps of the whole run.
        at: where it begins; records of an earlier attempt that lie beyond are dropped.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, total: int, at: Position) -> None:
        self.run = folder
        self.folder: Path | None = None  # until it is there
        self.recipe, self.total, self.at = recipe, total, at
        self.bar: Progress | None = None
        self.writers: list[Writer] = []
        self.page: RunPage | None = None
        self.waited = 0.0  # seconds for the loader

    def __enter__(self) -> Log:
        self.stack = ExitStack()
        if not self.run.writes:
            return self
        self.folder = self.run.path
        path = self.folder / "metrics.jsonl"
        kept = _lines_until(path, self.at)
        write_whole(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
        self.lines = Lines(path)
        self.stack.callback(self.lines.close)
        self.run.before_saving = self.lines.sync  # a state has no line missing before it
        self.writers = open_writers(self.recipe, self.folder, self.at.step, self.say)
        self.status = self.stack.enter_context(Status(self.folder))
        self.page = RunPage(self.run, self.total)
        values = {"run": self.folder.resolve().name, **flat(self.recipe.model_dump(mode="json"))}
        for writer in self.writers:
            writer.config(values)
        console = Console()
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}"),
            )
            self.bar = self.stack.enter_context(Progress(*columns, console=console))
            self.task = self.bar.add_task("", total=self.total, completed=self.at.step, losses="")
        self.say(f"run folder {self.folder}, {self.total} steps")
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)
        if self.folder is not None:
            for writer in self.writers:
                writer.close(self.status.values["state"])
            self._on_page(RunPage.write)

    def start_epoch(self) -> None:
        """Start the clocks."""
        self._mark()
        self.epoch_began = self.began

    def timed(self, groups: Iterable[T]) -> Iterator[T]:
        """The same groups; the time is taken that each has to be waited for."""
        iterator = iter(groups)
        while True:
            began = time.perf_counter()
            group = next(iterator, None)
            self.waited += time.perf_counter() - began
            if group is None:
                return
            yield group

    def _mark(self) -> None:
        self.waited = 0.0
        self.began = time.perf_counter()
        self.step_before, self.pictures_before = self.at.step, self.at.pictures

    def step(
        self,
        losses: dict[str, float],
        lr: float,
        norm: float,
        device: torch.device,
        scale: float | None = None,
    ) -> None:
        """After each step; every `log.every`-th is written down, and the last of an epoch.

        `scale` is that of the loss in half precision. Steps skipped so far are told too.
        """
        if self.folder is None:
            return
        at, losses = self.at, {"loss": sum(losses.values()), **losses}
        epoch = f"epoch {at.epoch + 1}/{self.recipe.epochs}"
        if self.bar:
            self.bar.update(self.task, completed=at.step, description=epoch, losses=_text(losses))
        if at.step % self.recipe.log.every and at.batch < at.batches:
            return
        seconds = time.perf_counter() - self.began
        speed = (at.pictures - self.pictures_before) / seconds
        left = (self.total - at.step) * seconds / (at.step - self.step_before)
        waited = self.waited
        self._mark()
        self._write(
            event="step",
            lr=lr,
            losses=losses,
            gradient_norm=norm,
            seconds=seconds,
            pictures_per_second=speed,
            data_wait=waited / seconds,
            memory_mb=memory_mb(device),
            system=system_figures(device, self.folder),
            **({} if scale is None else {"loss_scale": scale}),
            **({} if scale is None and not at.skipped else {"skipped": at.skipped}),
        )
        self._on_page(RunPage.write_if_due)
        if not self.bar:
            remaining = timedelta(seconds=round(left))
            self.say(
                f"{epoch}  step {at.step}/{self.total}  {_text(losses)}  lr {lr:.2e}  "
                f"{speed:.1f} pictures/s  {remaining} left"
            )

    def epoch(
        self, val_losses: dict[str, float], metrics: Numbers, report: Report | None = None
    ) -> None:
        """After each epoch; both empty, and no report, where it was not evaluated."""
        if self.folder is None:
            return
        losses = self.at.mean_losses()
        seconds = time.perf_counter() - self.epoch_began
        self._write(
            event="epoch",
            losses={"loss": sum(losses.values()), **losses},
            val_losses=val_losses,
            metrics=metrics,
            train_seconds=self.began - self.epoch_began,  # the last step was logged
            seconds=seconds,
        )
        if report is not None:
            self._on_page(partial(RunPage.evaluated, report=report, epoch=self.at.epoch + 1))
        self._on_page(RunPage.write)
        told = dict.fromkeys((*SHOWN, self.recipe.eval.metric))  # each once
        shown = {name: metrics[name] for name in told if name in metrics and name != "loss"}
        shown = {"val loss": metrics["loss"], **shown} if metrics else {}
        why = "overflow" if self.recipe.precision == "fp16" else "not finite"
        skipped = f"  {self.at.skipped} steps skipped ({why})" if self.at.skipped else ""
        self.say(
            f"epoch {self.at.epoch + 1}/{self.recipe.epochs} done in {seconds:.0f} s  "
            f"{_text({'train loss': sum(losses.values()), **shown})}{skipped}"
        )

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        elif self.folder:
            print(text, flush=True)

    def _write(self, event: str, **values: Any) -> None:
        record = {"event": event, "step": self.at.step, "epoch": self.at.epoch + 1, **values}
        with suppress(OSError):  # a full disk: lines wait, and the next state says it
            self.lines.add(json.dumps(_finite(record), allow_nan=False))
        numbers = dict(_flat({"epoch": self.at.epoch + 1.0, **values}, f"{event}/"))
        for writer in self.writers:
            writer.scalars(self.at.step, numbers)

    def _on_page(self, act: Callable[[RunPage], None]) -> None:
        try:
            if self.page:
                act(self.page)
        except Exception as error:  # a picture that cannot be drawn ends no run
            self.say(f"{self.folder}: no more of its page ({' '.join(str(error).split())[:200]})")
            self.page = None


def _text(values: Numbers) -> str:
    return "  ".join(f"{k} {'-' if v is None else format(v, '.3f')}" for k, v in values.items())


def _lines_until(path: Path, at: Position) -> list[str]:
    """The records of an earlier part of the run, up to where it is resumed from. (That of an epoch
    is written before the epoch is saved as done.) What a power cut made unreadable is left out."""

    def counts(record: Mapping[str, Any]) -> bool:
        is_later = record["event"] == "epoch" and record["epoch"] > at.epoch
        return record["step"] <= at.step and not is_later

    return [f"{json.dumps(record)}\n" for record in json_lines(path) if counts(record)]


def _finite(value: Any) -> Any:
    """The same with None for every NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of nested dictionaries, named "outer/inner"."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif value is not None:
            yield prefix + key, value
