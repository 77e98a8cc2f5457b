"""A sweep's folder, and the loop over its trials, each of which is a run in trials/N.

What each trial is and how it goes stands in Optuna's journal: a file to which every process that
works on the sweep appends. A process holds a lock on the trial it trains, which the system frees
when the process dies: a trial that is running and not locked is broken, and is gone on with.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from eyeline.checkpoints.eyeline import MODEL_FILE
from eyeline.errors import EyelineError
from eyeline.evaluation.html import counted
from eyeline.files import write_whole
from eyeline.training.loop import Metrics, train_recipe
from eyeline.training.position import Position
from eyeline.training.recipe import Recipe
from eyeline.training.saving import last_position
from eyeline.training.states import PREVIOUS, STATE
from eyeline.training.sweeps.plan import Plan, load_sweep, make_plan
from eyeline.training.sweeps.ranges import label
from eyeline.training.sweeps.results import Result, best_of, save_results, text

SWEEP, JOURNAL, TRIALS, LOCKS = "sweep.yaml", "journal.jsonl", "trials", "locks"
ROOM = 50e6  # bytes on the disk: with less the sweep stops
FAILURES = 3  # that end a sweep in which nothing has succeeded
Train = Callable[..., Any]  # as `train_recipe`


@dataclass
class Claimed:
    """A trial that this process trains."""

    trial: Any  # of Optuna
    lock: Any
    values: dict[str, Any]  # by the recipe's keys
    broken: bool  # begun by a process that has ended since
    at: Position | None  # of one that is broken: what it had saved

    @property
    def number(self) -> int:
        return int(self.trial.number)


class Study:
    """A sweep in a folder: a new one where the folder is none yet.

    Args:
        train: trains a recipe, as `train_recipe` does.

    Raises:
        EyelineError: Optuna is not installed; the folder holds no sweep.
    """

    def __init__(self, folder: Path, plan: Plan, train: Train = train_recipe) -> None:
        optuna, filelock = _packages()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise EyelineError(
                "a trial is trained by one process; for several GPUs start `eyeline sweep "
                "--resume FOLDER` once on each, with CUDA_VISIBLE_DEVICES, instead of torchrun"
            )
        self.folder, self.plan, self.train, self.optuna = folder, plan, train, optuna
        for part in (TRIALS, LOCKS):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.new_lock = filelock.FileLock
        self.lock = filelock.FileLock(folder / LOCKS / "sweep.lock")
        self.held = filelock.Timeout
        journal = optuna.storages.journal
        path = folder / JOURNAL
        kind = journal.JournalFileOpenLock if os.name == "nt" else journal.JournalFileSymlinkLock
        lock = kind(str(path))
        lock.acquire()
        try:
            _mend(path)
            write_whole(folder / SWEEP, plan.save)
        finally:
            lock.release()
        backend = journal.JournalFileBackend(str(path), lock)
        with _quiet():
            self.study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="sweep",
                pruner=self._pruner(),
                direction="minimize" if plan.lower_is_better else "maximize",
                load_if_exists=True,
            )

    def run(self) -> list[Result]:
        """Train trials until all are done, or those that are not are trained by others.

        Raises:
            EyelineError: the first trials have all failed.
            KeyboardInterrupt, SystemExit: of the trial that was being trained, which is saved.
        """
        while (claimed := self._claim()) is not None:
            try:
                self._run(claimed)
            finally:
                claimed.lock.release()
            self._check_some_succeed(self._save())
        return self._save()  # of trials that were given up, too

    def _save(self) -> list[Result]:
        with self.lock:
            results = self.results()
            save_results(self.folder, self.plan, results, self.importance())
            self._drop_weights(results)
        return results

    def results(self) -> list[Result]:
        """Of all trials so far, by their numbers."""
        return [self._result(trial) for trial in self.study.get_trials(deepcopy=False)]

    def importance(self) -> dict[str, float]:
        """How much each key decides whether a trial is among the best, as shares of 1; empty where
        too few trials are complete to tell."""
        complete = self.study.get_trials(
            deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,)
        )
        if len(complete) < 5 or len({t.value for t in complete}) < 2:
            return {}
        evaluator = self.optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        with _quiet():
            found = self.optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {key: float(share) for key, share in found.items() if math.isfinite(share)}

    # Which trial is next

    def _claim(self) -> Claimed | None:
        """A broken trial, or else a new one; None: there is nothing left to do here."""
        with self.lock, _quiet():
            trials = self.study.get_trials(deepcopy=False)
            running = self.optuna.trial.TrialState.RUNNING
            for frozen in (t for t in trials if t.state == running):
                lock = self._lock_of(frozen.number)
                if lock is None:  # another process trains it
                    continue
                at = last_position(self._out(frozen.number))
                if self._gave_up(frozen, at):
                    lock.release()
                    continue
                self.study.sampler = self._sampler(frozen.number)
                trial = self._again(frozen)
                return Claimed(trial, lock, self._values(trial), broken=True, at=at)
            number = len(trials)
            if number >= self.plan.trials:
                return None
            self.study.sampler = self._sampler(number)
            lock = self._lock_of(number)
            trial = self.study.ask()
            return Claimed(trial, lock, self._values(trial), broken=False, at=None)

    def _values(self, trial: Any) -> dict[str, Any]:
        return {r.key: r.suggest(trial) for r in self.plan.ranges}

    def _out(self, number: int) -> Path:
        return self.folder / TRIALS / str(number)

    def _again(self, frozen: Any) -> Any:
        """A trial of a process that has ended, as Optuna gave it out."""
        return self.optuna.trial.Trial(self.study, frozen._trial_id)

    def _lock_of(self, number: int) -> Any:
        """The lock of a trial, held; None: another process has it."""
        lock = self.new_lock(self.folder / LOCKS / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except self.held:
            return None
        return lock

    def _gave_up(self, frozen: Any, at: Position | None) -> bool:
        """Counts a trial as failed that has ended its process twice in the same epoch."""
        begun = frozen.user_attrs.get("begun", [])
        if begun[-2:] != [_epochs_done(at)] * 2:
            return False
        error = "has ended its process twice in the same epoch (no memory left?)"
        self._again(frozen).set_user_attr("error", error)
        self.study.tell(frozen.number, state=self.optuna.trial.TrialState.FAIL)
        print(f"trial {frozen.number} {error}: it counts as failed", flush=True)
        return True

    def _sampler(self, number: int) -> Any:
        """Seeded by the sweep's seed and the trial's number: what it draws does not depend on
        which process asks, nor on interruptions."""
        samplers, seed = self.optuna.samplers, self.plan.sweep.seed * 1_000_003 + number
        if self.plan.sweep.sampler == "tpe":  # which draws at random at first
            startup = max(2, min(10, self.plan.trials // 3))
            return samplers.TPESampler(seed=seed % 2**32, n_startup_trials=startup)
        drawn = samplers.RandomSampler(seed=seed % 2**32)
        if self.plan.sweep.sampler == "random":
            return drawn
        values = self.plan.grid(number)
        fixed = {
            r.key: label(values[r.key]) if r.choices else values[r.key] for r in self.plan.ranges
        }
        return samplers.PartialFixedSampler(fixed, drawn)

    def _pruner(self) -> Any:
        pruners, plan = self.optuna.pruners, self.plan
        if plan.sweep.pruner == "median":
            startup = max(3, min(5, plan.trials // 4))
            return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=plan.warmup + 1)
        if plan.sweep.pruner == "hyperband":
            first = min(plan.warmup + 1, plan.epochs)
            return pruners.HyperbandPruner(first, max_resource=plan.epochs)
        return pruners.NopPruner()

    # One trial

    def _run(self, claimed: Claimed) -> None:
        trial, number = claimed.trial, claimed.number
        out = self._out(number)
        resume = claimed.broken and (out / "recipe.yaml").is_file()
        told = "  ".join(f"{key}={text(value)}" for key, value in claimed.values.items())
        again = " goes on" if resume else " begins anew" if claimed.broken else ""
        print(f"trial {number}{again}, {number + 1} of {self.plan.trials}: {told}", flush=True)
        begun = trial.user_attrs.get("begun", [])
        before = trial.user_attrs.get("seconds", 0.0)
        trial.set_user_attr("begun", [*begun, _epochs_done(claimed.at)])
        started, error = time.monotonic(), ""
        state = self.optuna.trial.TrialState
        best: float | None = None
        try:
            best = self._best(claimed, self.plan.recipe_of(claimed.values, out), resume)
            if not (_is_pruned(trial) or _is_number(best)):
                error = f"{self.plan.metric} was never a number"
        except (KeyboardInterrupt, SystemExit):
            trial.set_user_attr("begun", begun)  # it was asked to stop
            print(f"the sweep goes on with: eyeline sweep --resume {self.folder}", flush=True)
            raise
        except EyelineError as problem:
            if shutil.disk_usage(self.folder).free < ROOM:  # no fault of the trial's
                trial.set_user_attr("begun", begun)
                raise
            error = " ".join(str(problem).split())
        except Exception as problem:  # whatever a combination of values makes a library say
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            out.mkdir(exist_ok=True)
            (out / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            trial.set_user_attr("seconds", before + time.monotonic() - started)
        _free_memory()
        with _quiet():
            if error:
                trial.set_user_attr("error", error)
                self.study.tell(number, state=state.FAIL)
            elif _is_pruned(trial):
                self.study.tell(number, state=state.PRUNED)
            else:
                self.study.tell(number, best)
        print(self._told(number), flush=True)

    def _best(self, claimed: Claimed, recipe: Recipe, resume: bool) -> float | None:
        """Train the trial, or what is left of it; the best value of the metric."""
        folder, at = Path(str(recipe.out)), claimed.at
        if at is not None and (at.stopped or at.epoch >= recipe.epochs):
            return at.best  # it had ended, only nobody was told
        if recipe.model and (folder / MODEL_FILE).is_file():  # the file may be another by now
            own = recipe.model.model_copy(update={"name": str(folder / MODEL_FILE)})
            recipe = recipe.model_copy(update={"model": own})
        on_epoch = partial(self._on_epoch, claimed.trial, recipe.epochs)
        best: float | None = self.train(recipe, resume=resume, on_epoch=on_epoch).best
        return best

    def _on_epoch(self, trial: Any, epochs: int, epoch: int, metrics: Metrics) -> bool:
        """Tell the value of an epoch; True: the trial is not worth going on with."""
        value = metrics.get(self.plan.metric)
        if not _is_number(value):
            return False
        now = self.study.get_trials(deepcopy=False)[trial.number]
        if epoch not in now.intermediate_values:  # as it is where the epoch is done once more
            trial.report(value, epoch)
        pruned = epoch < epochs and (_is_pruned(trial) or trial.should_prune())
        if pruned:
            trial.set_user_attr("pruned", True)
        return bool(pruned)

    def _result(self, trial: Any) -> Result:
        values = {
            r.key: r.labels[trial.params[r.key]] if r.choices else trial.params[r.key]
            for r in self.plan.ranges
            if r.key in trial.params
        }
        per_epoch = {int(k): float(v) for k, v in sorted(trial.intermediate_values.items())}
        best = min if self.plan.lower_is_better else max
        value = trial.value if trial.state.name == "COMPLETE" else None
        if value is None and per_epoch:
            value = best(per_epoch.values())
        return Result(
            number=trial.number, state=trial.state.name.lower().replace("fail", "failed"),
            value=value, values=values, per_epoch=per_epoch,
            seconds=float(trial.user_attrs.get("seconds", 0.0)),
            folder=str(self._out(trial.number)),
            error=trial.user_attrs.get("error", ""),
        )  # fmt: skip

    def _told(self, number: int) -> str:
        results = self.results()
        one, metric = results[number], self.plan.metric
        done = [r for r in results if r.state != "running"]
        left = self.plan.trials - len(done)
        seconds = left * sum(r.seconds for r in done) / len(done)
        if one.state == "failed":
            return f"trial {number} failed: {one.error}"
        line = f"trial {number} {one.state}: {metric} {text(one.value)} in {one.seconds:.0f} s"
        if best := best_of(results, self.plan.lower_is_better):
            line += f"; best so far {text(best.value)} of trial {best.number}"
        if left < 1:
            return line
        return f"{line}; {counted(left, 'trial')} left, about {seconds / 60:.0f} min in one process"

    def _drop_weights(self, results: list[Result]) -> None:
        """With `keep: best`, of all that have ended but the best."""
        best = best_of(results, self.plan.lower_is_better)
        for one in results if self.plan.sweep.keep == "best" else []:
            if one.state == "running" or one is best:
                continue
            for name in ("best.safetensors", "last.safetensors", STATE, PREVIOUS):
                Path(one.folder, name).unlink(missing_ok=True)

    def _check_some_succeed(self, results: list[Result]) -> None:
        done = [r for r in results if r.state != "running"]
        if len(done) >= FAILURES and all(r.state == "failed" for r in done):
            raise EyelineError(
                f"{self.folder}: the first {len(done)} trials have all failed, the last with: "
                f"{done[-1].error}"
            )


def open_study(folder: Path, trials: int | None = None, train: Train = train_recipe) -> Study:
    """A sweep's folder to go on with; `trials` is another number of them."""
    path = folder / SWEEP
    if not path.is_file():
        raise EyelineError(f"{folder}: no sweep to resume, there is no {SWEEP} in it")
    return Study(folder, make_plan(load_sweep(path, trials=trials)), train)


def _packages() -> tuple[Any, Any]:
    try:
        import filelock
        import optuna
    except ImportError as error:
        raise EyelineError(
            f"sweeps need Optuna, and there is no {error.name}: install eyeline[sweep]"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna, filelock


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings of what is experimental in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _mend(journal: Path) -> None:
    """Drop a last line that a power cut has left half written."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_whole(journal, partial(Path.write_bytes, data=whole))


def _epochs_done(at: Position | None) -> int:
    return 0 if at is None else at.epoch


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _is_pruned(trial: Any) -> bool:
    return bool(trial.user_attrs.get("pruned"))


def _free_memory() -> None:
    """Of a trial that has ended."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
