"""eyeline sweep, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import eyeline
from eyeline.cli import main
from eyeline.cli.main import run
from eyeline.data.samples import write_samples
from eyeline.training import load_recipe

QUICK = [
    "model.backbone=resnet18", "model.size=64", "epochs=1", "data.workers=0",
    "log.tensorboard=false", "eval.metric=loss", "eval.batch_size=4",
]  # fmt: skip


@pytest.fixture
def digits(tmp_path: Path) -> str:
    write_samples(tmp_path / "digits", train=3, val=2)
    return str(tmp_path / "digits")


def test_two_trials_of_a_model(digits, tmp_path, capsys):
    out = tmp_path / "s"
    arguments = ["sweep", "retinanet", "--data", digits, *QUICK, "optimizer.lr=log(1e-4, 1e-3)"]
    assert run([*arguments, "--trials", "2", "--out", str(out)]) == 0
    told = json.loads((out / "sweep.json").read_text())
    assert [t["state"] for t in told["trials"]] == ["complete"] * 2
    assert told["goal"] == "minimize"
    assert told["trials"][0]["value"] <= told["trials"][1]["value"]
    recipe = load_recipe(out / "recipe-best.yaml")
    assert recipe.optimizer.lr == told["trials"][0]["values"]["optimizer.lr"]
    shown = capsys.readouterr().out
    assert f"eyeline train {out / 'recipe-best.yaml'} epochs=3" in shown
    assert run(["sweep", "--resume", str(out)]) == 0  # nothing is left to do
    assert "run folder" not in capsys.readouterr().out


def test_wandb_gets_a_file_and_nothing_is_trained(digits, tmp_path, capsys):
    yaml = pytest.importorskip("yaml")
    out = tmp_path / "a sweep"
    arguments = ["sweep", "retinanet", "--data", digits, *QUICK, "optimizer.lr=log(1e-5, 1e-3)"]
    assert run([*arguments, "--wandb", "me/cells", "--out", str(out)]) == 0
    assert f"wandb sweep '{out / 'wandb.yaml'}'" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["recipe.yaml", "wandb.yaml"]
    assert load_recipe(out / "recipe.yaml").eval.metric == "loss"
    config = yaml.safe_load((out / "wandb.yaml").read_text())  # as W&B reads it: YAML 1.1
    assert config["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3}
    }
    assert config["command"][1:4] == ["${program}", "train", str(out / "recipe.yaml")]


@pytest.mark.parametrize(
    ("status", "sweep", "ended"),
    [(143, True, 15), (130, True, 2), (1, True, None), (143, False, None)],
)
def test_under_an_agent_a_signal_ends_the_process(monkeypatch, status, sweep, ended):
    killed = []
    monkeypatch.setattr(main, "run", lambda _: status)
    monkeypatch.setattr("os.kill", lambda _, number: killed.append(int(number)))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    if sweep:
        monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    else:
        monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert (end.value.code, killed) == (status, [] if ended is None else [ended])


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="ends processes as POSIX does")
def test_an_agent_of_wandb_trains_with_it(digits, tmp_path, monkeypatch, capfd):
    """W&B's own agent, as if its server had told it to start a run; nothing leaves the machine."""
    agents = pytest.importorskip("wandb.wandb_agent")
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    monkeypatch.chdir(tmp_path)
    found = [
        "optimizer.lr=log(1e-5, 1e-3)", "clip_norm=choice(null, 10.0)",
        "data.transforms=choice([], [hflip, {rotate: {p: 1}}])",
    ]  # fmt: skip
    arguments = ["sweep", "retinanet", "--data", digits, *QUICK, *found, "epochs=500"]
    assert run([*arguments, "--wandb", "me/cells", "--out", "my sweep"]) == 0
    config = utils.load_sweep_config("my sweep/wandb.yaml")
    for key, value in (
        ("MODE", "offline"), ("SWEEP_ID", "s"), ("ENTITY", "me"), ("PROJECT", "cells"),
        ("DIR", str(tmp_path)),
    ):  # fmt: skip
        monkeypatch.setenv(f"WANDB_{key}", value)
    monkeypatch.setenv("WANDB_RUN_ID", "")  # which the agent sets
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(eyeline.__file__).parents[1]))
    agent = agents.Agent(None, None, sweep_id="s")
    agent._sweep_command = config["command"]
    values = {
        key: {"value": p["values"][1] if "values" in p else p["min"]}
        for key, p in config["parameters"].items()
    }
    told = {"type": "run", "run_id": "r1", "program": config["program"], "args": values}
    assert "exception" not in agent._process_command(told)
    process = agent._run_processes["r1"]
    folder, until = tmp_path / "runs/retinanet", time.monotonic() + 120
    while not (folder / "best.safetensors").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    agent._process_command({"type": "stop", "run_id": "r1"})
    assert process.wait(60) == -signal.SIGTERM  # above 0 it would count as failed
    recipe = load_recipe(folder / "recipe.yaml")
    assert (recipe.optimizer.lr, recipe.clip_norm) == (1e-5, 10.0)
    assert recipe.data.transforms == ["hflip", {"rotate": {"p": 1}}]
    assert json.loads((folder / "tracking.json").read_text())["wandb"]["id"] == "r1"
    assert "locked by" not in capfd.readouterr().err  # what the agent has chosen
    [file] = folder.glob("wandb/offline-run-*-r1/run-r1.wandb")
    assert b"epoch/metrics/loss" in file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["retinanet"], "which pictures?"),
        (["retinanet", "--data", "x"], "nothing to search"),
        (["retinanett", "--data", "x", "seed=int(0, 9)"], "did you mean retinanet?"),
        (["retinanet", "--data", "x", "optimizer.lrr=log(1e-5, 1)"], "did you mean optimizer.lr?"),
        (["retinanet", "--data", "x", "optimizer.lr=log(1, 1e-5)"], "the range is empty"),
        (["retinanet", "--data", "x", "optimizer.lr=lgo(1e-5, 1)"], "did you mean log?"),
        (
            ["retinanet", "--data", "x", "seed=int(0, 9)", "--metric", "mAP"],
            "'mAP' is never measured",
        ),
        (["retinanet", "--data", "x", "seed=int(0, 9)", "data.val=null"], "data.val is null"),
        (["none.yaml"], "none.yaml: cannot be read"),
        (["--resume", "."], "no sweep to resume"),
        (["--resume", ".", "epochs=3"], "only --trials may be another"),
        (["."], "is a folder; to go on with the sweep in it: --resume"),
    ],
)
def test_bad_input_gets_one_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sweep", *arguments]) == 1
    error = capsys.readouterr().err
    assert told in error and error.startswith("error: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
