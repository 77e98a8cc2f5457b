"""The run folder: recipe.yaml, best and last weights, metrics.jsonl, and the state to resume from.

Every file appears under its name only when it is complete and on the disk, and the state before
the last is kept beside it: whatever stops a run, a good state stays readable.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from eyeline.checkpoints.eyeline import MODEL_FILE, run_weights, weights_now
from eyeline.data.checking.usable import write_left_out
from eyeline.data.faults import Fault
from eyeline.data.loader import Loader
from eyeline.errors import EyelineError
from eyeline.files import PARTIAL, PARTIAL_TENSORS, write_whole
from eyeline.locking import FileLock
from eyeline.processes import of_first
from eyeline.training.position import Position
from eyeline.training.recipe import Recipe, load_recipe, save_recipe
from eyeline.training.resuming import changes, check_same, values_of
from eyeline.training.states import PREVIOUS, STATE, read_state, write_state

BAD_BATCHES = "bad_batches"
LOCK = ".lock"  # tells who writes the folder
RETRY = 60.0  # seconds after a state could not be saved
LEFT_OUT = "left_out.json"
# What a run writes into its folder before it has saved a state.
EARLY = (
    "recipe.yaml", MODEL_FILE, "metrics.jsonl", "best.safetensors", "last.safetensors",
    LEFT_OUT, "tensorboard/events.*", "status.json", "report.html",
    "tracking.json",
)  # fmt: skip


class RunFolder:
    """A run's folder; as a context it appears, and goes again if the run fails before it has
    saved anything. Within, no other process can write to it.

    A disk that is full does not end the run: what could not be saved is said, the last good state
    stays, and it is tried again. (But where there is none yet, nothing would come of the run.)

    Args:
        recipe: `out` names the folder, which must be empty or missing, or, to resume, a run's.
            None: the first that is free of runs/NAME, runs/NAME-2 ...
        writes: False for all processes of a run but the first, whose methods do nothing.
        around: the run's `surroundings`, to be saved and compared.
    """

    def __init__(
        self,
        recipe: Recipe,
        name: str,
        resume: bool,
        writes: bool,
        around: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.resume, self.writes, self.around = recipe, resume, writes, around or {}
        self.name = name
        if recipe.out is not None:
            self.path = Path(recipe.out)
        elif resume:
            raise EyelineError("which run is to be resumed? name its folder with out=")
        else:
            self.path = of_first(self._free())
        if resume and not any((self.path / name).is_file() for name in (STATE, "recipe.yaml")):
            raise EyelineError(f"{self.path}: nothing to resume, there is no {STATE} in it")
        if writes and not resume and self._is_taken():
            raise self._exists()
        self.lock = folder_lock(self.path)
        self.before_saving: Callable[[], None] = lambda: None  # raises OSError: nothing is saved
        self.waiting: dict[str, Callable[[Path], None]] = {}  # weights, until the next state
        self.failure = ""  # why the last state could not be saved
        self.saved_step: int | None = None  # of the last good state
        self.found = self._states()  # on the disk
        self.used: Path | None = None  # the state that was loaded
        self.rate: float | None = None  # the next step's, as it says

    def _free(self) -> Path:
        """The first free of runs/NAME, runs/NAME-2 ..."""
        paths = (Path("runs", self.name if i == 1 else f"{self.name}-{i}") for i in count(1))
        return next(path for path in paths if not path.exists())

    def _make(self) -> None:
        if self.recipe.out is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            return
        while True:
            try:
                self.path.mkdir(parents=True)
                return
            except FileExistsError:  # of another run that has begun meanwhile
                self.path = self._free()

    def _is_taken(self) -> bool:
        """Is there anything but what a run that came to nothing leaves behind?"""
        if not self.path.is_dir():
            return self.path.exists()
        left = (BAD_BATCHES, LOCK, PARTIAL, PARTIAL_TENSORS)
        return any(not any(map(path.match, left)) for path in self.path.iterdir())

    def _exists(self) -> EyelineError:
        return EyelineError(
            f"{self.path} exists already: choose another out=, or --resume {self.path}"
        )

    def _states(self) -> list[tuple[int, int]]:
        """What tells one state from another, of those that are there."""
        found = []
        for name in (STATE, PREVIOUS):
            with suppress(FileNotFoundError):
                state = (self.path / name).stat()
                found.append((state.st_ino, state.st_mtime_ns))
        return found

    def __enter__(self) -> RunFolder:
        if self.writes:
            self.made = self.recipe.out is None or not self.path.exists()
            self._make()
            self.lock = folder_lock(self.path)
            self.lock.acquire()
            try:
                self._begin()
            except BaseException:
                self.lock.release()
                raise
        self.path = of_first(self.path)
        self._next_in(self._pause())
        return self

    def _begin(self) -> None:
        # Another process may have come and gone while this one made ready.
        if not self.resume and self._is_taken():
            raise self._exists()
        if self.resume and self._states() != self.found:
            raise EyelineError(f"{self.path}: another process has gone on with it; resume it again")
        killed = (PARTIAL, PARTIAL_TENSORS)  # what a process leaves that was
        for file in chain.from_iterable(map(self.path.glob, killed)):
            file.unlink()
        if self.used is not None and self.used.name != STATE:
            os.replace(self.used, self.path / STATE)  # which was damaged, or is missing
        write_whole(self.path / "recipe.yaml", partial(save_recipe, self.recipe))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.writes:
            return
        saved = (self.path / STATE).exists()
        if kind is not None and saved:
            step = "" if self.saved_step is None else f" (step {self.saved_step})"
            print(
                f"stopped; to go on from what is saved{step}: eyeline train --resume {self.path}",
                flush=True,
            )
        elif kind is not None:
            for file in chain.from_iterable(map(self.path.glob, EARLY)):
                file.unlink()
            shutil.rmtree(self.path / "wandb", ignore_errors=True)
        self.lock.release()
        if kind is not None and not saved:
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
        """NAME.safetensors, with what `create_model(weights=)` needs if the model is one of its.
        It is of now, and written before the next state, which tells of it."""
        if self.writes:
            self.waiting[f"{name}.safetensors"] = weights_now(model)

    def save_state(self, parts: Mapping[str, Any], at: Position) -> None:
        """Everything that decides how the run goes on, readable with weights_only=True: the state
        of each of `parts` (model, optimizer ...). (No state of the random generators: every
        picture and every step seeds them.)

        Where it cannot be written, that is said and the last one stays.
        """
        if not self.writes:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"position": asdict(at), "recipe": values_of(self.recipe), "around": self.around}
        try:
            self.before_saving()
            for name, write in list(self.waiting.items()):
                write(self.path / name)
                del self.waiting[name]
            write_whole(self.path / STATE, partial(write_state, state), former=PREVIOUS)
        except OSError as error:
            self.failure = " ".join(str(error).split())[:200]
            free = f"{shutil.disk_usage(self.path).free / 1e6:.0f} MB are free"
            if self.saved_step is None:
                raise EyelineError(
                    f"{self.path}: its first state cannot be saved: {self.failure}; {free}: make "
                    "room, or choose another out="
                ) from error
            print(
                f"could not save the state of step {at.step}: {self.failure}; {free}; the last "
                f"good state is of step {self.saved_step}; the run goes on, and tries again",
                flush=True,
            )
            self._next_in(min(RETRY, self._pause()))
            return
        if self.failure:
            print(f"saved again: the state of step {at.step}", flush=True)
        self.failure, self.saved_step = "", at.step
        self._next_in(self._pause())

    def is_due(self, at: Position) -> bool:
        """Is a state to be saved after this step? After the last of an epoch one is anyway."""
        every = self.recipe.save.steps
        by_step = every is not None and at.step % every == 0
        within = self.writes and at.batch < at.batches
        return within and (by_step or time.monotonic() >= self.next_save)

    def _pause(self) -> float:
        """Seconds from one state to the next."""
        minutes = self.recipe.save.minutes
        return math.inf if minutes is None else 60 * minutes

    def _next_in(self, seconds: float) -> None:
        self.next_save = time.monotonic() + seconds

    def check_saved(self) -> None:
        """At the end of a run: raises EyelineError where its last state could not be saved."""
        if self.failure:
            raise EyelineError(
                f"{self.path}: the run is done, and its end could not be saved: {self.failure}; "
                "make room, then resume it"
            )

    def load_state(self, parts: Mapping[str, Any], loader: Loader) -> Position:
        """Restore what `save_state` wrote, and set the loader to where it was; what is another
        than then is said. Where nothing had been saved, the run begins anew.

        Raises:
            EyelineError: what may not be another is; the run has ended; no state can be read.
        """
        at = Position(batches=len(loader))
        state = self._newest()
        if state is None:
            self._say(f"{self.path}: nothing had been saved, so the run begins anew")
            return at
        try:
            before, then = state["recipe"], state["around"]
            check_same(self.path, before, self.recipe, then, self.around)
            for name, part in parts.items():
                if name == "scaler" and name not in state:
                    continue  # the precision was another
                part.load_state_dict(_with_options(part, state[name]))
            at = Position(**state["position"])
            self.rate = state["optimizer"]["param_groups"][-1]["lr"]
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, EyelineError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise EyelineError(
                f"{self.path / STATE}: no state of this model and recipe: {reason}"
            ) from error
        self._check_goes_on(at)
        self.saved_step = at.step
        for line in changes(before, self.recipe, then, self.around):
            self._say(line)
        whole = self.around["whole"]
        if whole != then["whole"] and at.batch:
            at.dealt.append((then["whole"], at.batch))
            at.batch = 0
        loader.set_epoch(at.epoch, at.batch, at.dealt)
        at.batches = len(loader)
        if whole != then["whole"]:
            self._say(
                f"epoch {at.epoch + 1}: the pictures not yet seen come in {at.batches} batches of "
                f"{whole} (were of {then['whole']})"
            )
        return at

    def tell_rate(self, rate: float) -> None:
        """Say it where the next step's learning rate is not the one that the state foresaw."""
        if self.rate is not None and rate != self.rate:
            self._say(f"changed: the next step's learning rate {self.rate:.3g} -> {rate:.3g}")

    def _newest(self) -> dict[str, Any] | None:
        """The newest state that can be read; None: none was saved yet."""
        broken = []
        for path in (self.path / STATE, self.path / PREVIOUS):
            if not path.exists():
                continue
            try:
                state = read_state(path)
            except Exception as error:  # whatever a flipped bit makes a reader stumble over
                broken.append(f"{path} cannot be read ({' '.join(str(error).split())[:200]})")
                continue
            self.used = path
            for one in broken:
                step = state["position"]["step"]
                self._say(f"{one}: going on from {path.name}, which is of step {step}")
            return state
        if broken:
            raise EyelineError(
                f"{'; '.join(broken)}: put back a copy of it, or start another run from the "
                f"weights with weights={self.path / 'last.safetensors'}"
            )
        return None

    def _check_goes_on(self, at: Position) -> None:
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

    def _say(self, text: str) -> None:
        if self.writes:
            print(text, flush=True)


def folder_lock(folder: Path) -> FileLock:
    """Of a run's folder; the workers of its holder, which may outlive it, hold nothing."""
    return FileLock(
        folder / LOCK,
        f"{folder}: {{holder}} is training in this folder; wait for its end, stop it, or choose "
        f"another out= (if its machine is lost, delete {folder / LOCK})",
    )


def last_position(folder: Path) -> Position | None:
    """Where the newest state of a run that can be read stands; None: there is none."""
    for path in (folder / STATE, folder / PREVIOUS):
        with suppress(Exception):  # whatever a flipped bit makes a reader stumble over
            return Position(**read_state(path)["position"])
    return None


def _with_options(part: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Of an optimizer the rates and so on are those of the recipe, which may be others by now."""
    if not isinstance(part, Optimizer):
        return state
    groups = zip(part.state_dict()["param_groups"], state["param_groups"], strict=True)
    return {**state, "param_groups": [{**now, "params": then["params"]} for now, then in groups]}


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
