"""Where a run's numbers go besides metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

A writer has three methods: `config(values)` once at the beginning, `scalars(step, numbers)`, and
`close(state)`. What fails in one of them never ends the run: it is told in a line, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from eyeline.errors import EyelineError
from eyeline.training.recipe import Recipe
from eyeline.training.tracking import MLflow, Say, WandB


class Writer(Protocol):
    def config(self, values: Mapping[str, Any]) -> None:
        """What decides the run, by dotted keys."""

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers by name, "step/losses/box", after a step of the optimizer."""

    def close(self, state: str) -> None:
        """The end: "finished", "interrupted" or "failed"."""


def open_writers(recipe: Recipe, folder: Path, begins: int, say: Say) -> list[Writer]:
    """Those that the recipe asks for; `begins` is the step before the first.

    Raises:
        EyelineError: a package that is asked for is not installed.
    """
    writers: list[Writer] = []
    if make := _summary_writer(recipe.log.tensorboard):
        told = "no more is written for TensorBoard ({}); metrics.jsonl has it all"
        board = partial(TensorBoard, make, folder / "tensorboard", begins)
        writers.append(Careful(board, told, say))
    if recipe.log.wandb:
        _need("wandb")
        told = "no more is sent to W&B ({}); metrics.jsonl has it all"
        writers.append(Careful(partial(WandB, recipe.log.wandb, folder, say), told, say))
    if recipe.log.mlflow:
        _need("mlflow")
        writers.append(MLflow(recipe.log.mlflow, folder, say))
    return writers


class Careful:
    """A writer that ends quietly at its first failure."""

    def __init__(self, make: Callable[[], Writer], told: str, say: Say) -> None:
        self.told, self.say = told, say
        self.writer: Writer | None = None
        self._try(lambda: setattr(self, "writer", make()))

    def config(self, values: Mapping[str, Any]) -> None:
        if self.writer:
            self._try(partial(self.writer.config, values))

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        if self.writer:
            self._try(partial(self.writer.scalars, step, numbers))

    def close(self, state: str) -> None:
        if self.writer:
            self._try(partial(self.writer.close, state))
        self.writer = None

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a full disk or a service far away makes of it
            writer, self.writer = self.writer, None
            self.say(self.told.format(" ".join(str(error).split())[:200] or type(error).__name__))
            if writer:
                with suppress(Exception):  # nothing more to tell of it
                    writer.close("failed")


class TensorBoard:
    def __init__(self, make: Callable[..., Any], folder: Path, begins: int) -> None:
        self.writer = make(str(folder), purge_step=begins + 1)

    def config(self, values: Mapping[str, Any]) -> None:
        lines = "\n".join(f"    {key}: {value}" for key, value in values.items())
        self.writer.add_text("recipe", lines)

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self, state: str) -> None:
        self.writer.close()


def _need(package: Literal["wandb", "mlflow"]) -> None:
    try:
        import_module(package)
    except ImportError as error:
        hint = f"install eyeline[{package}], or leave log.{package} out"
        raise EyelineError(f"log.{package} is set, but there is no {package}: {hint}") from error


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
