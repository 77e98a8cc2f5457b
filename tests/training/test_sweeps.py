"""Sweeps: trials, their ends, and going on after any of them."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from sweeping import Scored, Toy, plan_of, sweep

from eyeline.errors import EyelineError
from eyeline.training import load_recipe
from eyeline.training.logs import Log
from eyeline.training.sweeps.ranges import Range
from eyeline.training.sweeps.results import best_first, differing
from eyeline.training.sweeps.study import Study, open_study
from eyeline.training.sweeps.wandb import wandb_config


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second a trial, of all that the other tests have left in memory."""
    monkeypatch.setattr("eyeline.training.sweeps.study._free_memory", lambda: None)


def test_trials_are_runs_and_the_best_is_told(tmp_path, capsys):
    train = Toy()
    plan = plan_of(trials=6)
    results = Study(tmp_path / "s", plan, train).run()
    assert [r.state for r in results] == ["complete"] * 6
    assert train.calls == [(str(n), False) for n in range(6)]
    lrs = [r.values["optimizer.lr"] for r in results]
    assert len(set(lrs)) == 6 and all(1e-4 <= lr <= 0.1 for lr in lrs)
    for one in results:  # a normal run, with its recipe
        recipe = load_recipe(Path(one.folder) / "recipe.yaml")
        assert recipe.optimizer.lr == one.values["optimizer.lr"]
        assert recipe.optimizer.momentum == one.values["optimizer.momentum"]
        assert (Path(one.folder) / "best.safetensors").is_file()
        assert one.per_epoch == {e: pytest.approx(recipe.optimizer.lr * e) for e in (1, 2, 3)}
    best = max(results, key=lambda r: r.values["optimizer.lr"])
    told = json.loads((tmp_path / "s/sweep.json").read_text())
    assert (told["best"], told["trials"][0]["number"]) == (best.number, best.number)
    assert told["importance"]["optimizer.lr"] > 0.5
    rows = list(csv.DictReader((tmp_path / "s/sweep.csv").open()))
    assert [float(row["AP"]) for row in rows] == sorted((r.value for r in results), reverse=True)
    recipe = load_recipe(tmp_path / "s/recipe-best.yaml")
    assert recipe.optimizer.lr == max(lrs) and recipe.out is None
    assert f"best so far {best.value:.4g} of trial {best.number}" in capsys.readouterr().out
    page = (tmp_path / "s/sweep.html").read_text()
    assert page.count('class="run') == 6 and page.count("<circle") == 12
    assert page.count('class="run first') == 1 and "optimizer.momentum" in page


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_drawn_does_not_depend_on_interruptions(tmp_path, sampler):
    def plan(**options):
        return plan_of(sampler=sampler, fixed={"epochs": 1}, **options)

    straight = Study(tmp_path / "a", plan(trials=5), Scored()).run()
    Study(tmp_path / "b", plan(trials=2), Scored()).run()
    found = open_study(tmp_path / "b", 5, Scored()).run()
    if sampler == "random":  # the other's start is as long as a third of all trials
        assert [r.values for r in found] == [r.values for r in straight]
    assert len({r.values["optimizer.lr"] for r in found}) == 5  # nothing is drawn again
    other = Study(tmp_path / "c", plan(trials=1, seed=1), Scored()).run()
    assert other[0].values != straight[0].values


def test_a_grid_tries_each_once(tmp_path):
    search = {"optimizer.lr": [0.1, 0.01], "data.transforms": "choice([], [hflip])"}
    results = Study(tmp_path / "s", plan_of(search, sampler="grid"), Scored()).run()
    assert [tuple(r.values.values()) for r in results] == [
        (0.1, []), (0.1, ["hflip"]), (0.01, []), (0.01, ["hflip"]),
    ]  # fmt: skip
    assert differing(results, plan_of(search)) == ["optimizer.lr", "data.transforms"]
    assert differing(results[:2], plan_of(search)) == ["data.transforms"]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_bad_trials_end_early(tmp_path, pruner):
    search = {"optimizer.lr": [0.08, 0.07, 0.06, 0.01, 0.005, 0.002]}
    plan = plan_of(search, sampler="grid", pruner=pruner, fixed={"epochs": 9}, warmup=1)
    results = Study(tmp_path / "s", plan, Scored()).run()
    pruned = [r for r in results if r.state == "pruned"]
    assert pruned and results[0].state == "complete"
    assert all(1 < len(r.per_epoch) < 9 for r in pruned)  # not in the first epoch: warmup
    assert all(r.values["optimizer.lr"] < 0.08 for r in pruned)
    if pruner == "median":
        assert [r.number for r in pruned] == [3, 4, 5] and len(pruned[0].per_epoch) == 2
    assert best_first(results, lower=False)[0].number == 0
    assert best_first(results, lower=False)[-1].state == "pruned"


def test_a_trial_that_fails_does_not_end_the_sweep(tmp_path, capsys):
    def score(recipe, epoch):
        if recipe.optimizer.lr == 0.02:
            raise RuntimeError("a combination\nthat does not work")
        return math.nan if recipe.optimizer.lr == 0.03 else 0.5

    search = {"optimizer.lr": [0.01, 0.02, 0.03, 1e30]}
    found = Study(tmp_path / "s", plan_of(search, sampler="grid"), Toy(score)).run()
    assert [r.state for r in found] == ["complete", "failed", "failed", "failed"]
    assert found[1].error == "RuntimeError: a combination that does not work"
    assert "that does not work" in (tmp_path / "s/trials/1/error.txt").read_text()
    assert found[2].error == "AP was never a number"
    assert re.search("epoch 1, step 2: .* is (nan|inf) on pictures", found[3].error)
    assert "trial 1 failed: RuntimeError" in capsys.readouterr().out
    assert "RuntimeError: a combination" in (tmp_path / "s/sweep.html").read_text()


def test_an_infinite_value_is_none(tmp_path):
    def score(recipe, epoch):
        return math.inf if recipe.optimizer.lr == 0.02 or epoch == 1 else 0.5

    search = {"optimizer.lr": [0.01, 0.02]}
    plan = plan_of(search, sampler="grid", metric="loss")
    found = Study(tmp_path / "s", plan, Scored(score)).run()
    assert [(r.state, r.value) for r in found] == [("complete", 0.5), ("failed", None)]
    assert list(found[0].per_epoch) == [2, 3] and found[1].error == "loss was never a number"
    assert "Infinity" not in (tmp_path / "s/sweep.json").read_text()


def test_a_sweep_in_which_nothing_works_ends(tmp_path):
    def train(recipe, resume, on_epoch):
        raise EyelineError("no such data")

    with pytest.raises(EyelineError, match=r"the first 3 trials have all failed.*no such data"):
        Study(tmp_path / "s", plan_of(trials=9), train).run()
    assert json.loads((tmp_path / "s/sweep.json").read_text())["best"] is None


def test_ctrl_c_and_going_on(tmp_path, capsys):
    straight = Study(tmp_path / "a", plan_of(trials=3), Toy()).run()

    def score(recipe, epoch):
        if Path(recipe.out).name == "1" and epoch == 2 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return recipe.optimizer.lr * epoch

    stopped = []
    with pytest.raises(KeyboardInterrupt):
        Study(tmp_path / "b", plan_of(trials=3), Toy(score)).run()
    out = capsys.readouterr().out
    assert f"eyeline sweep --resume {tmp_path / 'b'}" in out
    again = Toy(lambda recipe, epoch: recipe.optimizer.lr * epoch)
    study = open_study(tmp_path / "b", train=again)
    assert [r.state for r in study.results()] == ["complete", "running"]
    found = study.run()
    assert again.calls == [("1", True), ("2", False)]  # the first is not repeated
    assert "trial 1 goes on, 2 of 3" in capsys.readouterr().out
    assert [(r.number, r.state, r.values) for r in found] == [
        (r.number, r.state, r.values) for r in straight
    ]
    assert list(found[1].per_epoch) == [1, 2, 3]
    lines = (tmp_path / "b/trials/1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["epoch"] for x in lines if '"epoch", "step"' in x] == [1, 2, 3]
    assert open_study(tmp_path / "b", train=again).run() == study.results()  # nothing is left
    assert len(again.calls) == 2


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_killed_and_helped_by_another_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["sweeping"])  # so that torch is imported once
    folder, told = tmp_path / "s", [tmp_path / f"{i}.txt" for i in range(3)]
    first, *two = (processes.Process(target=sweep, args=(folder, 5, 0.2, one)) for one in told)
    first.start()
    deadline = time.monotonic() + 60
    while not (folder / "trials/1/state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.join()
    for one in two:
        one.start()
    for one in two:
        one.join(120)
    outputs = [path.read_text() for path in told[1:]]
    assert [one.exitcode for one in (first, *two)] == [-signal.SIGKILL, 0, 0], outputs
    begun = [
        int(n) for out in outputs for n in re.findall(r"^trial (\d+)(?: goes on)?,", out, re.M)
    ]
    assert sorted(begun) == [1, 2, 3, 4]  # the first was done; each of the others once
    assert all(re.search(r"^trial \d+ complete", out, re.M) for out in outputs)
    assert "trial 1 goes on, 2 of 5" in "".join(outputs)
    results = open_study(folder).results()
    assert [r.state for r in results] == ["complete"] * 5
    assert all(list(r.per_epoch) == [1, 2, 3] for r in results)


def test_a_trial_that_kills_its_process_is_given_up(tmp_path, capsys):
    plan = plan_of(trials=2)

    class Killed(BaseException):
        """As if the process were gone: nobody handles it."""

    def die(recipe, resume, on_epoch):
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            Study(tmp_path / "s", plan, die).run()
    found = Study(tmp_path / "s", plan, Toy()).run()
    assert [r.state for r in found] == ["failed", "complete"]
    assert "trial 0 has ended its process twice in the same epoch" in capsys.readouterr().out
    for _ in range(2):
        with pytest.raises(Killed):
            Study(tmp_path / "s", plan_of(trials=3), die).run()
    Study(tmp_path / "s", plan_of(trials=3), die).run()  # the last: nothing follows it
    told = json.loads((tmp_path / "s/sweep.json").read_text())["trials"]
    assert [t["state"] for t in told] == ["complete", "failed", "failed"]


def test_a_trial_that_gets_on_between_its_kills_is_not_given_up(tmp_path):
    """Also where it is never evaluated in between."""
    plan = plan_of(trials=1, fixed={"eval.every": 3})

    class Killed(BaseException):
        pass

    class Dies:
        calls = 0

        def __call__(self, recipe, resume, on_epoch):
            self.calls += 1
            with pytest.MonkeyPatch.context() as patch:
                if self.calls < 3:
                    patch.setattr(Log, "epoch", lambda log, *_: self.die(log))
                return Toy()(recipe, resume, on_epoch)

        def die(self, log):
            if log.at.epoch == self.calls:  # once more in each epoch but the first
                raise Killed

    train = Dies()
    for _ in range(2):
        with pytest.raises(Killed):
            Study(tmp_path / "s", plan, train).run()
    found = Study(tmp_path / "s", plan, train).run()
    assert train.calls == 3 and [r.state for r in found] == ["complete"]


def test_a_grid_killed_while_a_trial_was_drawn(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    plan = plan_of({"optimizer.lr": [0.1, 0.01, 0.001]}, sampler="grid")
    study = Study(tmp_path / "s", plan, Scored())
    with monkeypatch.context() as patch:
        patch.setattr(study.study, "ask", die)
        with pytest.raises(Killed):
            study.run()
    study = Study(tmp_path / "s", plan, Scored())
    with monkeypatch.context() as patch:
        patch.setattr(Range, "suggest", die)
        with pytest.raises(Killed):
            study.run()
    found = Study(tmp_path / "s", plan, Scored()).run()
    assert [r.values["optimizer.lr"] for r in found] == [0.1, 0.01, 0.001]
    assert [r.state for r in found] == ["complete"] * 3


def test_a_trial_that_ended_just_before_the_kill_is_not_trained_again(tmp_path):
    class Killed(BaseException):
        pass

    def train(recipe, resume, on_epoch):
        toy(recipe, resume, on_epoch)
        raise Killed

    toy = Toy()
    with pytest.raises(Killed):
        Study(tmp_path / "s", plan_of(trials=1), train).run()
    found = Study(tmp_path / "s", plan_of(trials=1), toy).run()
    assert len(toy.calls) == 1
    assert (found[0].state, list(found[0].per_epoch)) == ("complete", [1, 2, 3])
    assert found[0].value == pytest.approx(3 * found[0].values["optimizer.lr"])


def test_a_half_written_line_of_the_journal_is_dropped(tmp_path):
    Study(tmp_path / "s", plan_of(trials=1), Scored()).run()
    with (tmp_path / "s/journal.jsonl").open("a") as file:
        file.write('{"op_code": 5, "wor')
    found = open_study(tmp_path / "s", 2, Scored()).run()
    assert [r.state for r in found] == ["complete"] * 2


def test_only_the_best_weights_are_kept(tmp_path):
    found = Study(tmp_path / "s", plan_of(trials=3, keep="best"), Toy()).run()
    best = max(found, key=lambda r: r.value)
    for one in found:
        folder = Path(one.folder)
        assert (folder / "metrics.jsonl").is_file()
        assert (folder / "best.safetensors").is_file() == (one is best)
        assert (folder / "state.pt").is_file() == (one is best)


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EyelineError, match=r"there is no optuna: install eyeline\[sweep\]"):
        Study(tmp_path / "s", plan_of(trials=1), Toy())
    assert not (tmp_path / "s").exists()


def test_no_sweep_to_resume_and_torchrun(tmp_path, monkeypatch):
    with pytest.raises(EyelineError, match="no sweep to resume"):
        open_study(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EyelineError, match="a trial is trained by one process"):
        Study(tmp_path / "s", plan_of(trials=1), Toy())


def test_what_agents_of_wandb_start_is_read(tmp_path):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    search = {
        "optimizer.lr": "log(1e-5, 1e-2)", "batch_size": "int(2, 8)",
        "accumulate": "int(1, 5, step=2)", "data.aspect_grouping": "choice(true, false)",
        "data.transforms": "choice([], [hflip, {mosaic: {size: 64}}])",
        "clip_norm": "choice(null, 10.0)", "schedule.warmup_steps": [0, 5],
    }  # fmt: skip
    config = wandb_config(plan_of(search, pruner="median", trials=9), "r.yaml", "me/cells")
    assert (config["method"], config["entity"], config["project"]) == ("bayes", "me", "cells")
    assert config["metric"] == {"name": "epoch/metrics/AP", "goal": "maximize"}
    assert config["early_terminate"]["type"] == "hyperband" and config["run_cap"] == 9
    assert config["parameters"]["optimizer.lr"] == {
        "distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2,
    }  # fmt: skip
    assert config["parameters"]["accumulate"] == {"values": [1, 3, 5]}
    picked = [
        {k: p["values"][i] if "values" in p else p["min"] for k, p in config["parameters"].items()}
        for i in (0, 1)
    ]
    recipes = []
    for values in picked:
        given = {"args": {key: {"value": value} for key, value in values.items()}}
        overrides = utils.create_sweep_command_args(given)["args_no_hyphens"]
        recipes.append(load_recipe(plan_of(search).recipe.model_dump(), overrides))
    one, two = recipes
    assert (one.optimizer.lr, one.batch_size, one.accumulate) == (1e-5, 2, 1)
    assert (one.data.aspect_grouping, two.data.aspect_grouping) == (True, False)
    assert two.data.transforms == ["hflip", {"mosaic": {"size": 64}}]
    assert (one.clip_norm, two.clip_norm, two.schedule.warmup_steps) == (None, 10.0, 5)
    assert config["program"] == "eyeline"
    assert config["command"] == [
        "${env}", "${program}", "train", "r.yaml", "log.wandb=me/cells", "${args_no_hyphens}",
    ]  # fmt: skip


def test_wandb_counts_evaluations(tmp_path):
    plan = plan_of(pruner="median", warmup=6, fixed={"epochs": 20, "eval.every": 2})
    assert wandb_config(plan, "r.yaml", "cells")["early_terminate"]["min_iter"] == 3
    assert "entity" not in wandb_config(plan, "r.yaml", "cells")
    wide = wandb_config(plan_of({"seed": "int(0, 4000000000)"}), "r.yaml", "cells")
    assert wide["parameters"]["seed"] == {
        "distribution": "int_uniform", "min": 0, "max": 4_000_000_000,
    }  # fmt: skip
