"""The run folder: recipe.yaml, best and last weights, metrics.jsonl, and the state to resume from.

Every file appears under its name only when it is complete: whatever stops a run, the last good
state stays readable.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial, reduce
from itertools import chain, count
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eyeline.checkpoints.eyeline import MODEL_FILE, run_weights, save_weights
from eyeline.data.checking.usable import write_left_out
from eyeline.data.faults import Fault
from eyeline.errors import EyelineError
from eyeline.files import write_whole
from eyeline.training.recipe import Recipe, load_recipe, save_recipe

STATE = "state.pt"
LEFT_OUT = "left_out.json"
# Keys of the recipe that a resumed run must have as they were.
UNCHANGED = (
    "model", "classes", "data.train", "data.transforms", "data.single_epochs", "data.tolerant",
    "data.bad_boxes", "data.one_based", "data.unknown", "data.draft", "data.aspect_grouping",
    "optimizer", "schedule", "batch_size", "accumulate", "clip_norm", "seed", "precision", "freeze",
    "ema", "eval.metric",
)  # fmt: skip
# What a run writes into its folder before it has saved a state.
EARLY = (
    "recipe.yaml", MODEL_FILE, "metrics.jsonl", "best.safetensors", "last.safetensors",
    LEFT_OUT, "tensorboard/events.*",
)  # fmt: skip


@dataclass
class Position:
    """How far a run has come."""

    batches: int = 0  # of one epoch
    processes: int = 1  # that share them
    epoch: int = 0  # the one being worked on, from 0
    batch: int = 0  # batches of it that are done
    step: int = 0  # the optimizer's steps so far
    pictures: int = 0  # of this epoch, so far
    sums: dict[str, float] = field(default_factory=dict)  # of its losses, over these pictures
    best: float | None = None  # the best value so far of the metric that decides
    best_epoch: int = 0  # after which, from 1; 0: none yet
    stopped: bool = False  # before its last epoch, by stop_after
    skipped: int = 0  # steps not taken, as numbers of half precision overflowed
    skipped_running: int = 0  # the last of them, in a row

    def advance(
        self, batches: int, pictures: int, losses: dict[str, float], taken: bool = True
    ) -> None:
        """One step done: its batches, its pictures and their mean losses; if it was not taken,
        these count only where they are numbers."""
        self.batch += batches
        self.step += 1
        self.skipped += not taken
        self.skipped_running = 0 if taken else self.skipped_running + 1
        if not taken and not all(map(math.isfinite, losses.values())):
            return
        self.pictures += pictures
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * pictures

    def mean_losses(self) -> dict[str, float]:
        """Over the pictures of this epoch so far."""
        return {name: total / self.pictures for name, total in self.sums.items()}

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.pictures, self.sums = self.epoch + 1, 0, 0, {}


class RunFolder:
    """A run's folder; as a context it appears, and goes again if the run fails before it has
    saved anything.

    Args:
        recipe: `out` names the folder, which must be empty or missing, or, to resume, a run's.
            None: the first that is free of runs/NAME, runs/NAME-2 ...
        writes: False for all processes of a run but the first, whose methods do nothing.
    """

    def __init__(self, recipe: Recipe, name: str, resume: bool, writes: bool) -> None:
        self.recipe, self.resume, self.writes = recipe, resume, writes
        if recipe.out is not None:
            self.path = Path(recipe.out)
        elif resume:
            raise EyelineError("which run is to be resumed? name its folder with out=")
        else:
            paths = (Path("runs", name if i == 1 else f"{name}-{i}") for i in count(1))
            self.path = next(path for path in paths if not path.exists())
        if resume and not (self.path / STATE).is_file():
            raise EyelineError(f"{self.path}: nothing to resume, there is no {STATE} in it")
        taken = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        if writes and not resume and taken:
            raise EyelineError(
                f"{self.path} exists already: choose another out=, or --resume {self.path}"
            )

    def __enter__(self) -> RunFolder:
        if self.writes:
            self.made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / "recipe.yaml", partial(save_recipe, self.recipe))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.writes or kind is None:
            return
        if (self.path / STATE).exists():
            print(
                f"stopped; to go on from what is saved: eyeline train --resume {self.path}",
                flush=True,
            )
            return
        for file in chain.from_iterable(map(self.path.glob, EARLY)):
            file.unlink()
        for folder, made in ((self.path / "tensorboard", True), (self.path, self.made)):
            if made and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def save_model_file(self, model: nn.Module) -> None:
        """model.py, where the model comes from a file of the user's: the run needs no other."""
        source, path = getattr(model, "source", None), self.path / MODEL_FILE
        if self.writes and source is not None and not path.exists():
            write_whole(path, partial(Path.write_text, data=source, encoding="utf-8", newline=""))

    def save_left_out(self, left_out: Sequence[Fault]) -> None:
        """left_out.json, where something of the data was."""
        if self.writes and left_out:
            write_left_out(self.path / LEFT_OUT, left_out)

    def save_weights(self, model: nn.Module, name: str) -> None:
        """NAME.safetensors, with what `create_model(weights=)` needs if the model is one of its."""
        if self.writes:
            save_weights(model, self.path / f"{name}.safetensors")

    def save_state(self, parts: Mapping[str, Any], at: Position) -> None:
        """Everything that decides how the run goes on, readable with weights_only=True: the state
        of each of `parts` (model, optimizer ...). (No state of the random generators: every
        picture and every step seeds them.)"""
        if not self.writes:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        write_whole(self.path / STATE, partial(torch.save, {"position": asdict(at), **state}))

    def load_state(self, parts: Mapping[str, Any], now: Position) -> Position:
        """Restore what `save_state` wrote, for a run that would begin at `now`."""
        self._check_unchanged()
        path = self.path / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            at = Position(**state["position"])
            for name, part in parts.items():
                part.load_state_dict(state[name])
        except (
            RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError
        ) as error:  # fmt: skip
            reason = " ".join(str(error).split())[:200]
            raise EyelineError(f"{path}: no state of this model and recipe: {reason}") from error
        if at.epoch >= self.recipe.epochs:
            raise EyelineError(
                f"{self.path}: the run has finished its {at.epoch} epochs; set epochs= to go on"
            )
        if at.stopped:
            without, patience = at.epoch - at.best_epoch, self.recipe.stop_after
            if patience is not None and without >= patience:
                raise EyelineError(
                    f"{self.path}: the run has stopped after {without} epochs without a better "
                    f"{self.recipe.eval.metric}; raise stop_after= to go on"
                )
        for what in ("processes", "batches"):
            before, wanted = getattr(at, what), getattr(now, what)
            if before != wanted:
                raise EyelineError(
                    f"{self.path}: had {before} {what} and now has {wanted}; resume with the data "
                    "and the number of processes of the run"
                )
        return at

    def _check_unchanged(self) -> None:
        """A run goes on as it began: only what cannot change its steps may be another."""
        if not (self.path / "recipe.yaml").is_file():
            return
        before, now = _deciding(load_recipe(self.path / "recipe.yaml")), _deciding(self.recipe)
        for key in UNCHANGED:
            if before[key] != now[key]:
                raise EyelineError(
                    f"{self.path}: {key} was {_short(before[key], now[key])} and is now "
                    f"{_short(now[key], before[key])}; resume with the run's own, or start another "
                    f"from its weights with weights={self.path / 'last.safetensors'}"
                )


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """The values of UNCHANGED, as a file would hold them."""
    values = recipe.model_dump(mode="json")
    if values["model"]:
        del values["model"]["name"]  # of a file of the user's the run has its own copy
    return {key: reduce(getitem, key.split("."), values) for key in UNCHANGED}


def _short(value: Any, other: Any) -> Any:
    """A value, of a section only the entries in which it differs from the other."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {k: v for k, v in value.items() if v != other.get(k)}
    return value


def load_run(path: str | Path) -> tuple[Recipe, Path]:
    """The recipe of a run folder, with `out` naming the folder, and its best weights (the last
    where nothing was evaluated).

    Raises:
        EyelineError: the folder is missing or holds no recipe or no weights.
    """
    folder = Path(path)
    if not (folder / "recipe.yaml").is_file():
        raise EyelineError(f"{folder}: no run folder, there is no recipe.yaml in it")
    recipe = load_recipe(folder / "recipe.yaml").model_copy(update={"out": str(folder)})
    if weights := run_weights(folder):
        return recipe, weights
    raise EyelineError(f"{folder}: no weights in it yet, the run has not finished an epoch")
