"""The loop: exact resumption, accumulation, what it writes, and how it stops."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys
from torch import nn
from torch.utils.data import Subset
from toys import ToyData, ToyDetector, in_two_processes

from eyeline.errors import EyelineError
from eyeline.training import Run, load_recipe, load_run, train
from eyeline.training.saving import RunFolder
from eyeline.training.states import STATE
from eyeline.training.step import backward, loss_scaler

QUICK = {**toys.QUICK, "epochs": 3}


def toy(**options) -> ToyDetector:
    torch.manual_seed(0)
    return ToyDetector(**options)


def quick(out: Path, model: nn.Module | None = None, val: bool = False, **fields) -> Run:
    """Train a toy for 3 epochs of 4 batches, the last of two pictures."""
    fields = {**QUICK, **fields}
    resume, measure = fields.pop("resume", False), fields.pop("measure", None)
    fields["model"] = fields.pop("model_key", None)  # the recipe's
    val_data = ToyData(4) if val else None
    recipe = load_recipe({**fields, "out": str(out)})
    return train(model or toy(), ToyData(), val_data, recipe, resume=resume, measure=measure)


def records(folder: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def failure(*args, **fields) -> str:
    with pytest.raises(EyelineError) as caught:
        quick(*args, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class At(ToyDetector):
    """Does something at its n-th training step, counted from 1."""

    def __init__(self, call: int, act) -> None:
        super().__init__()
        self.call, self.act, self.calls = call, act, 0

    def forward(self, images, targets=None):
        losses = super().forward(images, targets)
        self.calls += self.training
        return self.act(losses) if self.training and self.calls == self.call else losses


def at(call: int, act) -> At:
    torch.manual_seed(0)
    return At(call, act)


def interrupt(losses):
    signal.raise_signal(signal.SIGINT)
    return losses


def refuse(losses):
    raise EyelineError("no")


def nan_label(losses):
    return {**losses, "label": losses["label"] * math.nan}


@pytest.mark.parametrize(
    ("call", "accumulate", "where"),
    [(6, 1, (1, 2, 6)), (5, 2, (1, 2, 3)), (4, 1, (0, 4, 4)), (1, 1, (0, 1, 1))],
)
def test_resumed_equals_uninterrupted(tmp_path, capsys, call, accumulate, where):
    straight = toy()
    quick(tmp_path / "a", straight, val=True, accumulate=accumulate)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "b", at(call, interrupt), val=True, accumulate=accumulate)
    assert f"eyeline train --resume {tmp_path / 'b'}" in capsys.readouterr().out
    position = torch.load(tmp_path / "b" / STATE, weights_only=True)["position"]
    assert (position["epoch"], position["batch"], position["step"]) == where

    resumed = ToyDetector()
    quick(tmp_path / "b", resumed, val=True, accumulate=accumulate, resume=True)
    for (name, a), b in zip(
        straight.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    a, b = (records(tmp_path / run, "epoch") for run in "ab")
    for key in ("step", "losses", "val_losses", "metrics"):
        assert [line[key] for line in a] == [line[key] for line in b]
    assert [line["epoch"] for line in a] == [1, 2, 3]


def test_resumed_with_workers_equals_uninterrupted(tmp_path):
    """Batches that the workers had ready by then are loaded again."""
    straight, resumed, data = toy(), ToyDetector(), {"workers": 2}
    quick(tmp_path / "a", straight, data=data)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "b", at(6, interrupt), data=data)
    assert torch.load(tmp_path / "b" / STATE, weights_only=True)["position"]["batch"] == 2
    quick(tmp_path / "b", resumed, data=data, resume=True)
    for (name, a), b in zip(
        straight.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_batches_of_one_shape(tmp_path):
    """data.aspect_grouping reaches the loader."""
    seen = []

    class Watched(ToyDetector):
        def forward(self, images, targets=None):
            seen.append([int(target["image_id"]) % 2 for target in targets])
            return super().forward(images, targets)

    pictures = ToyData(16)
    records = [SimpleNamespace(width=2 + i % 2, height=2) for i in range(16)]
    pictures.annotations = SimpleNamespace(records=records)
    for record in records:  # what is checked of them before the first epoch
        record.boxes, record.labels, record.where = torch.zeros(0, 4), torch.zeros(0), []
    fields = {**QUICK, "batch_size": 4, "epochs": 2, "out": str(tmp_path / "r")}
    fields["data"] = {"workers": 0, "aspect_grouping": True}
    train(Watched(), pictures, **fields)
    assert len(seen) == 8 and all(len(set(batch)) == 1 for batch in seen)
    with pytest.raises(EyelineError, match=r"data\.aspect_grouping needs the pictures' sizes"):
        quick(tmp_path / "s", data={"workers": 0, "aspect_grouping": True})
    assert not (tmp_path / "s").exists()


def test_randomness_comes_from_the_recipe_alone(tmp_path):
    heads = []
    for i, seed in enumerate((1, 1, 2)):
        model = toy()
        random.seed(i)
        np.random.seed(i)
        torch.manual_seed(i)
        quick(tmp_path / str(i), model, seed=seed)
        heads.append(model.head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_accumulation_equals_one_large_batch(tmp_path):
    plain = {"norm": nn.LayerNorm, "dropout": 0.0}
    sgd = {"name": "sgd", "lr": 0.1}
    large, small = toy(**plain), toy(**plain)
    start = large.head.weight.clone()
    quick(tmp_path / "large", large, batch_size=6, optimizer=sgd)
    quick(tmp_path / "small", small, batch_size=3, accumulate=2, optimizer=sgd)
    assert not torch.allclose(start, large.head.weight, atol=1e-3)
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    a, b = (records(tmp_path / run, "epoch")[-1]["losses"] for run in ("large", "small"))
    assert a == pytest.approx(b, rel=1e-5)


def test_it_learns_and_keeps_the_best(tmp_path):
    model = toy(dropout=0.0)
    run = quick(tmp_path / "r", model, val=True, epochs=15, eval={"metric": "loss"})
    epochs = records(run.folder, "epoch")
    assert epochs[-1]["losses"]["loss"] < 0.8 * epochs[0]["losses"]["loss"]
    assert run.best == min(line["metrics"]["loss"] for line in epochs)
    assert run.metrics["loss"] == pytest.approx(sum(epochs[-1]["val_losses"].values()))
    assert {"AP", "AP50", "AP_every_point", "loss"} <= run.metrics.keys()


def test_best_weights_are_those_of_the_best_epoch(tmp_path):
    from safetensors.torch import load_file

    seen = []

    def measure(model: nn.Module) -> dict[str, float]:
        seen.append(model.head.weight.detach().clone())
        return {"score": [0.1, 0.3, 0.2][len(seen) - 1]}

    run = quick(tmp_path / "r", val=True, measure=measure, eval={"metric": "score"})
    assert run.best == 0.3
    assert torch.equal(load_file(run.folder / "best.safetensors")["head.weight"], seen[1])
    assert torch.equal(load_file(run.folder / "last.safetensors")["head.weight"], seen[2])
    recipe, weights = load_run(run.folder)
    assert weights == run.folder / "best.safetensors"
    assert (recipe.epochs, recipe.out) == (3, str(run.folder))


def test_evaluates_every_so_often_and_at_the_end(tmp_path):
    run = quick(tmp_path / "r", val=True, eval={"every": 2})
    assert [bool(line["metrics"]) for line in records(run.folder, "epoch")] == [False, True, True]
    run = quick(tmp_path / "never", val=True, eval={"every": 0})
    assert (run.metrics, run.best) == ({}, None)
    assert load_run(run.folder)[1].name == "last.safetensors"


def test_validation_leaves_the_model_as_it_was(tmp_path):
    with_val, without = toy(), toy()
    quick(tmp_path / "a", with_val, val=True)
    quick(tmp_path / "b", without)
    assert torch.equal(with_val.norm.running_mean, without.norm.running_mean)
    assert torch.equal(with_val.head.weight, without.head.weight)


def test_not_finite_loss_names_step_pictures_and_loss(tmp_path):
    message = failure(tmp_path / "r", at(6, nan_label))
    assert message.startswith("epoch 2, step 6: label is nan on pictures 1")
    *ids, saved = message.split("pictures ")[1].split(";")[0].split(", ")
    assert len(ids) == 3 and all(100 <= int(i) < 111 for i in ids)
    assert saved == f"saved in {tmp_path / 'r' / 'bad_batches' / 'step-6'}"
    state = torch.load(tmp_path / "r" / STATE, weights_only=True)
    assert state["position"]["step"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())


def test_not_finite_gradient_stops_before_the_step(tmp_path):
    def steep(losses):  # finite, with an infinite slope
        return {**losses, "box": (losses["box"] * 0).sqrt()}

    model = at(2, steep)
    assert "step 2: the gradients' norm is nan" in failure(tmp_path / "r", model)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("tensorboard", [False, "auto"])
def test_failure_before_the_first_save_leaves_no_folder(tmp_path, tensorboard):
    failure(tmp_path / "r", at(1, refuse), log={"tensorboard": tensorboard})
    assert not (tmp_path / "r").exists()


def test_a_bad_batch_before_the_first_save_does_not_take_the_folder(tmp_path):
    failure(tmp_path / "r", at(1, nan_label))
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["bad_batches"]
    assert quick(tmp_path / "r", epochs=1).folder == tmp_path / "r"


@pytest.mark.parametrize("made_before", [True, False])
def test_failure_deletes_nothing_but_the_runs_own_files(tmp_path, made_before):
    folder = tmp_path / "r"
    if made_before:
        folder.mkdir()

    def fail(losses):  # with a file of the user's in the folder by now
        (folder / "notes.txt").write_text("mine")
        return refuse(losses)

    failure(folder, at(1, fail), log={"tensorboard": "auto"})
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    failure(folder, at(1, refuse))
    assert folder.is_dir() and not any(folder.iterdir())  # it was there before


def test_failure_after_a_save_says_how_to_go_on(tmp_path, capsys):
    failure(tmp_path / "r", at(6, nan_label))
    assert f"eyeline train --resume {tmp_path / 'r'}" in capsys.readouterr().out


def test_second_interrupt_does_not_wait(tmp_path):
    def twice(losses):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one must not come back")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "r", at(6, twice))
    assert torch.load(tmp_path / "r" / STATE, weights_only=True)["position"]["step"] == 4
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_while_evaluating_is_heard_at_once(tmp_path):
    def measure(model: nn.Module) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("must not come back")

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "r", val=True, measure=measure)
    position = torch.load(tmp_path / "r" / STATE, weights_only=True)["position"]
    assert (position["epoch"], position["batch"]) == (0, 4)


def test_interrupt_between_the_last_step_and_the_evaluation(tmp_path, monkeypatch):
    """It does not wait for the evaluation, which may take an hour."""
    saved = RunFolder.save_state

    def interrupted(self, parts, position):
        saved(self, parts, position)
        signal.raise_signal(signal.SIGINT)

    def measure(model: nn.Module) -> dict[str, float]:
        raise AssertionError("must not come so far")

    monkeypatch.setattr(RunFolder, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "r", val=True, measure=measure)
    position = torch.load(tmp_path / "r" / STATE, weights_only=True)["position"]
    assert (position["epoch"], position["batch"]) == (0, 4)


def test_folder_is_never_overwritten(tmp_path):
    run = quick(tmp_path / "r", epochs=1)
    before = {p: p.read_bytes() for p in run.folder.iterdir()}
    assert "exists already: choose another out=, or --resume" in failure(run.folder)
    assert {p: p.read_bytes() for p in run.folder.iterdir()} == before
    (tmp_path / "file").write_text("")
    assert "exists already" in failure(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert quick(tmp_path / "empty", epochs=1).folder == tmp_path / "empty"


def test_default_folders_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [str(train(toy(), ToyData(), **{**QUICK, "epochs": 1}).folder) for _ in range(2)]
    assert folders == ["runs/model", "runs/model-2"]


def test_resuming_what_cannot_be(tmp_path):
    assert "nothing to resume" in failure(tmp_path / "none", resume=True)
    run = quick(tmp_path / "r", epochs=1)
    assert "has finished its 1 epochs" in failure(run.folder, resume=True, epochs=1)
    with pytest.raises(EyelineError, match="had 11 pictures to train on and now has 13"):
        recipe = load_recipe({**QUICK, "out": str(run.folder)})
        train(toy(), ToyData(13), recipe=recipe, resume=True)
    other = toy(norm=nn.LayerNorm)
    assert "no state of this model" in failure(run.folder, other, resume=True)
    for broken in (b"nonsense", b""):
        (run.folder / STATE).write_bytes(broken)
        told = failure(run.folder, resume=True)
        assert f"{run.folder / STATE} cannot be read (" in told and "put back a copy" in told
    with pytest.raises(EyelineError, match="name its folder"):
        train(toy(), ToyData(), resume=True, **QUICK)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimizer.name=sgd", "optimizer.name was adamw and is now sgd"),
        ("model.size=96", "model.size was 64 and is now 96"),
        ("model.norm=group", "model.norm was None and is now group"),
        ("seed=1", "seed was 0 and is now 1"),
        ("classes=[a, b]", "classes was None and is now ['a', 'b']"),
        ("data.train=other", "data.train was train and is now other"),
        ("data.transforms=[]", "data.transforms was ['hflip'] and is now []"),
        ("data.bad_boxes=drop", "data.bad_boxes was error and is now drop"),
        ("data.one_based=true", "data.one_based was False and is now True"),
        ("data.masks=true", "data.masks was False and is now True"),
    ],
)
def test_resuming_refuses_what_alters_the_course(tmp_path, change, told):
    model = {"name": "m", "size": 64, "anchors": (1, 2)}  # a file knows no tuples
    quick(tmp_path / "r", epochs=1, model_key=model)
    text = (tmp_path / "r" / "recipe.yaml").read_text()
    recipe = load_recipe({**QUICK, "model": model, "out": str(tmp_path / "r")}, [change])
    with pytest.raises(EyelineError) as caught:
        train(toy(), ToyData(), recipe=recipe, resume=True)
    assert told in str(caught.value)
    assert (tmp_path / "r" / "recipe.yaml").read_text() == text
    harmless = ["model.name=r/model.py", "data.path=moved", "eval.every=2", "data.workers=0"]
    recipe = load_recipe({**QUICK, "model": model, "out": str(tmp_path / "r")}, harmless)
    assert train(toy(), ToyData(), recipe=recipe, resume=True).folder == tmp_path / "r"


def test_a_failure_between_the_record_and_the_save_of_an_epoch(tmp_path, monkeypatch):
    """What is resumed writes the epoch's record anew, not a second one."""
    straight = toy()
    quick(tmp_path / "a", straight, val=True)
    saved, written = RunFolder.save_state, []

    def full_disk(self, parts, position):
        written.append(position.epoch)
        if written == [0, 1, 1, 2]:  # before and after each evaluation: the second epoch's end
            raise OSError("no space left on device")
        saved(self, parts, position)

    monkeypatch.setattr(RunFolder, "save_state", full_disk)
    with pytest.raises(OSError, match="no space"):
        quick(tmp_path / "b", val=True)
    assert [line["epoch"] for line in records(tmp_path / "b", "epoch")] == [1, 2]
    resumed = toy()
    quick(tmp_path / "b", resumed, val=True, resume=True)
    assert [line["epoch"] for line in records(tmp_path / "b", "epoch")] == [1, 2, 3]
    assert torch.equal(resumed.head.weight, straight.head.weight)


def test_weights_that_two_parts_share_are_kept(tmp_path):
    from safetensors.torch import load_file

    model = toy()
    model.twin = nn.Linear(8, 5)
    model.twin.weight = model.head.weight
    run = quick(tmp_path / "r", model, epochs=1)
    weights = load_file(run.folder / "last.safetensors")
    assert torch.equal(weights["twin.weight"], weights["head.weight"])
    assert torch.equal(weights["head.weight"], model.head.weight)


def test_measure_without_pictures_to_measure_on(tmp_path):
    assert "needs val_dataset=" in failure(tmp_path / "r", measure=lambda model: {"score": 1.0})
    assert not (tmp_path / "r").exists()


def test_masks_are_a_metric_of_models_that_have_some(tmp_path):
    """Whatever the data set is, a torch Subset of one of ours or the user's own."""

    class Masks(ToyDetector):
        needs_masks = True

        def forward(self, images, targets=None):
            found = super().forward(images, targets)
            if targets is not None:
                return found
            return [one | {"masks": torch.ones(1, 32, 32, dtype=torch.bool)} for one in found]

    class Masked(ToyData):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return image, target | {"masks": torch.ones(1, 32, 32, dtype=torch.bool)}

    recipe = load_recipe({**QUICK, "eval": {"metric": "mask_AP50"}, "out": str(tmp_path / "a")})
    torch.manual_seed(0)
    run = train(Masks(), ToyData(), Subset(Masked(4), [0, 1]), recipe, epochs=1)
    assert run.metrics["mask_AP50"] == run.best is not None
    told = failure(
        tmp_path / "b", val=True, data={"workers": 0, "masks": True}, eval={"metric": "mask_AP"}
    )
    assert told.startswith("eval.metric: there is no 'mask_AP'; choose one of AP, ")


def test_resuming_goes_on_to_more_epochs(tmp_path):
    quick(tmp_path / "r", epochs=1)
    run = quick(tmp_path / "r", epochs=2, resume=True)
    assert [line["epoch"] for line in records(run.folder, "epoch")] == [1, 2]
    assert load_run(run.folder)[0].epochs == 2


def test_state_holds_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    run = quick(tmp_path / "r", epochs=1)
    torch.save({"position": Bomb()}, run.folder / STATE)
    assert "cannot be read" in failure(run.folder, resume=True)
    assert not (tmp_path / "exploded").exists()


def test_wrong_metric(tmp_path):
    assert "there is no 'AP51'" in failure(tmp_path / "r", val=True, eval={"metric": "AP51"})
    assert not (tmp_path / "r").exists()
    fields = {"val": True, "measure": lambda model: {"score": 1.0}}
    assert "no 'AP' among score, loss" in failure(tmp_path / "s", **fields)


def test_bf16_runs_the_forward_pass_in_autocast(tmp_path):
    seen = []

    def look(losses):
        seen.append(torch.is_autocast_enabled("cpu"))
        return losses

    quick(tmp_path / "a", at(1, look), precision="bf16", epochs=1)
    quick(tmp_path / "b", at(1, look), epochs=1)
    assert seen == [True, False]


def test_clipping_bounds_the_step(tmp_path):
    options = {"optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}}
    options |= {"epochs": 1, "batch_size": 11, "schedule": {"name": "constant"}}
    moved, norms = [], []
    for name, clip in (("free", None), ("clipped", 0.01)):
        model = toy()
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        run = quick(tmp_path / name, model, clip_norm=clip, **options)
        after = nn.utils.parameters_to_vector(model.parameters()).detach()
        moved.append((after - before).norm().item())
        norms.append(records(run.folder, "step")[0]["gradient_norm"])
    assert norms[0] == norms[1] == pytest.approx(moved[0], rel=1e-4)
    assert moved[1] == pytest.approx(0.01, rel=1e-3) and norms[0] > 0.1


def test_fields_go_over_the_recipe(tmp_path):
    recipe = load_recipe({**QUICK, "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.5}})
    run = train(
        toy(), ToyData(), recipe=recipe, epochs=1, optimizer={"lr": 2e-3}, out=str(tmp_path / "r")
    )
    used = load_run(run.folder)[0]
    assert (used.epochs, used.optimizer.name) == (1, "sgd")
    assert (used.optimizer.lr, used.optimizer.momentum) == (2e-3, 0.5)
    with pytest.raises(EyelineError, match="unknown key epoch; did you mean epochs"):
        train(toy(), ToyData(), epoch=1)


@pytest.mark.slow
def test_two_processes_train_one_detector(tmp_path):
    in_two_processes("faster_rcnn", tmp_path / "r")
    before, after = (
        [torch.load(tmp_path / f"r-{when}-{rank}.pt") for rank in (0, 1)]
        for when in ("before", "after")
    )
    weight = "head.fc1.weight"
    assert not torch.equal(before[0][weight], before[1][weight])
    for name, value in after[0].items():
        assert torch.equal(value, after[1][name]), name
    assert not torch.equal(before[0][weight], after[0][weight])
    epochs = records(tmp_path / "r", "epoch")
    assert [line["step"] for line in epochs] == [2, 4]
    assert all(math.isfinite(line["metrics"]["loss"]) for line in epochs)
    state = torch.load(tmp_path / "r" / STATE, weights_only=True)
    assert state["around"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    in_two_processes("toy", tmp_path / "two")
    alone = toy(norm=nn.LayerNorm, dropout=0.0)
    train(
        alone,
        ToyData(12),
        epochs=2,
        batch_size=6,
        optimizer={"name": "sgd", "lr": 0.1},
        data={"workers": 0},
        out=str(tmp_path / "one"),
    )
    state = torch.load(tmp_path / "two" / STATE, weights_only=True)
    assert state["position"]["step"] == 4
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(state["model"][name], value, rtol=1e-5, atol=1e-6)


class Moody(nn.Module):
    """Its losses come in another order, or under other names, from one batch to the next."""

    def __init__(self, *names):
        super().__init__()
        self.weight, self.names = nn.Parameter(torch.zeros(())), list(names)

    def forward(self, images, targets):
        return {name: self.weight + ord(name) for name in self.names.pop(0)}


def test_losses_of_accumulated_batches_go_by_their_names():
    group = [([torch.zeros(3, 4, 4)], [{}])] * 2
    scaler = loss_scaler(torch.device("cpu"), "float32")
    names, values = backward(
        Moody("ab", "ba"), group, [0.5, 0.5], torch.device("cpu"), "float32", scaler
    )
    assert names == ["a", "b"]
    assert [row.tolist() for row in values] == [[97, 98], [97, 98]]
    with pytest.raises(EyelineError, match="losses are a, b for one batch and a, c for another"):
        backward(Moody("ab", "ac"), group, [0.5, 0.5], torch.device("cpu"), "float32", scaler)
