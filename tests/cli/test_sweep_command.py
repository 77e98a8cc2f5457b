"""eyeline sweep, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    out = tmp_path / "s"
    arguments = ["sweep", "retinanet", "--data", digits, *QUICK, "optimizer.lr=log(1e-5, 1e-3)"]
    assert run([*arguments, "--wandb", "me/cells", "--out", str(out)]) == 0
    assert f"wandb sweep {out / 'wandb.yaml'}" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["recipe.yaml", "wandb.yaml"]
    assert load_recipe(out / "recipe.yaml").eval.metric == "loss"
    config = yaml.safe_load((out / "wandb.yaml").read_text())  # as W&B reads it: YAML 1.1
    assert config["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3}
    }
    assert config["command"][1:4] == ["eyeline", "train", str(out / "recipe.yaml")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["retinanet"], "which pictures?"),
        (["retinanet", "--data", "x"], "nothing to search"),
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
