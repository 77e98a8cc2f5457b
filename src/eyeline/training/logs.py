"""What a run tells: a progress bar or plain lines, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eyeline.errors import EyelineError
from eyeline.files import Lines, write_whole
from eyeline.training.recipe import Recipe
from eyeline.training.saving import Position, RunFolder

Numbers = Mapping[str, float | None]


class Log:
    """Writes a run's records to its folder and shows them; silent where it does not write.

    A line of metrics.jsonl has "event" ("step" or "epoch"), "step" and "epoch" from 1, and losses,
    speed and the like; null stands for a number that does not exist.

    Args:
        total: steps of the whole run.
        at: where it begins; records of an earlier attempt that lie beyond are dropped.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, total: int, at: Position) -> None:
        self.run, self.folder = folder, folder.path if folder.writes else None
        self.recipe, self.total, self.at = recipe, total, at
        self.bar: Progress | None = None
        self.writer: Any = None

    def __enter__(self) -> Log:
        self.stack = ExitStack()
        if self.folder is None:
            return self
        path = self.folder / "metrics.jsonl"
        kept = _lines_until(path, self.at)
        write_whole(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
        self.lines = Lines(path)
        self.stack.callback(self.lines.close)
        self.run.before_saving = self.lines.sync  # a state has no line missing before it
        if make := _summary_writer(self.recipe.log.tensorboard):
            self.writer = make(str(self.folder / "tensorboard"), purge_step=self.at.step + 1)
            self.stack.callback(self._close_writer)
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

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def start_epoch(self) -> None:
        """Start the clocks."""
        self._mark()
        self.epoch_began = self.began

    def _mark(self) -> None:
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
        self._mark()
        self._write(
            event="step",
            lr=lr,
            losses=losses,
            gradient_norm=norm,
            seconds=seconds,
            pictures_per_second=speed,
            memory_mb=memory_mb(device),
            **({} if scale is None else {"loss_scale": scale}),
            **({} if scale is None and not at.skipped else {"skipped": at.skipped}),
        )
        if not self.bar:
            remaining = timedelta(seconds=round(left))
            self.say(
                f"{epoch}  step {at.step}/{self.total}  {_text(losses)}  lr {lr:.2e}  "
                f"{speed:.1f} pictures/s  {remaining} left"
            )

    def epoch(self, val_losses: dict[str, float], metrics: Numbers) -> None:
        """After each epoch; both empty where it was not evaluated."""
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
        told = dict.fromkeys(("AP", "AP50", "AP75", self.recipe.eval.metric))  # each once
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
        try:
            for name, value in _flat(values, f"{event}/") if self.writer else ():
                self.writer.add_scalar(name, value, self.at.step)
        except OSError as error:  # which its writer does not survive
            self._close_writer()
            self.say(f"no more is written for TensorBoard ({error}); metrics.jsonl has it all")

    def _close_writer(self) -> None:
        if self.writer:
            with suppress(OSError):
                self.writer.close()
        self.writer = None


def memory_mb(device: torch.device) -> float:
    """Peak memory so far, in MB: the GPU's, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _text(values: Numbers) -> str:
    return "  ".join(f"{k} {'-' if v is None else format(v, '.3f')}" for k, v in values.items())


def _lines_until(path: Path, at: Position) -> list[str]:
    """The whole lines of an earlier part of the run, up to where it is resumed from. (The record
    of an epoch is written before the epoch is saved as done.)"""
    if not path.exists():
        return []

    def counts(line: str) -> bool:
        record = json.loads(line)
        is_later = record["event"] == "epoch" and record["epoch"] > at.epoch
        return record["step"] <= at.step and not is_later

    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n") and counts(line)]


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


def _summary_writer(wanted: bool | Literal["auto"]) -> Any:
    """TensorBoard's writer; None where it is not wanted, or not installed and only "auto"."""
    if not wanted:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wanted == "auto":
            return None
        hint = "install eyeline[log], or set log.tensorboard=auto"
        raise EyelineError(
            f"log.tensorboard is true, but there is no tensorboard: {hint}"
        ) from error
    return SummaryWriter
