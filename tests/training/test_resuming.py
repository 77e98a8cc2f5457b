"""What may be another when a run is resumed, and states that are damaged."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killing import Shaken, lines, same
from safetensors.torch import load_file
from torch.utils.data import Subset
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import train
from eyeline.training.recipe import Schedule
from eyeline.training.schedules import build_schedule
from eyeline.training.states import PREVIOUS, STATE, read_state
from eyeline.training.step import seed_generators

QUICK = {
    "batch_size": 3,
    "epochs": 3,
    "optimizer": {"lr": 1e-2},
    "data": {"workers": 0},
    "eval": {"metric": "loss"},
    "log": {"every": 1, "tensorboard": False},
}


class Seen(ToyDetector):
    """Notes the pictures of each step; a signal comes at one of them, counted from 1."""

    def __init__(self, stop: int = 0, number: signal.Signals = signal.SIGINT) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.stop, self.number, self.seen = stop, number, []

    def forward(self, images, targets=None):
        if self.training:
            self.seen.append([int(target["image_id"]) for target in targets])
            if len(self.seen) == self.stop:
                signal.raise_signal(self.number)
        return super().forward(images, targets)


def run(out: Path, model: ToyDetector | None = None, data: object = None, **fields) -> ToyDetector:
    model = model or Seen()
    train(model, data or ToyData(), out=str(out), **{**QUICK, **fields})
    return model


def broken_off(out: Path, step: int, **fields) -> list[list[int]]:
    """A run that ends after a step; gives the pictures of each."""
    model = Seen(step)
    with pytest.raises(KeyboardInterrupt):
        run(out, model, **fields)
    return model.seen


def rates(out: Path) -> list[float]:
    return [line["lr"] for line in lines(out) if line["event"] == "step"]


def test_states_within_an_epoch(tmp_path):
    """Every two steps, and at the ends of epochs."""
    saved = []

    class Watched(Seen):
        def forward(self, images, targets=None):
            path = tmp_path / "r" / STATE
            if path.exists():
                step = torch.load(path, weights_only=True)["position"]["step"]
                saved.append((len(self.seen) + 1, step))
            return super().forward(images, targets)

    run(tmp_path / "r", Watched(), ToyData(15), epochs=2, save={"steps": 2})
    assert dict(saved) == {3: 2, 4: 2, 5: 4, 6: 5, 7: 6, 8: 6, 9: 8, 10: 8}
    run(tmp_path / "s", Watched(), epochs=1, save={"minutes": 1e-9})
    assert (tmp_path / "s" / PREVIOUS).exists()
    run(tmp_path / "t", Watched(), epochs=1, save={"minutes": None})
    assert not (tmp_path / "t" / PREVIOUS).exists()


def test_sigterm_saves_and_gives_its_status(tmp_path):
    straight = run(tmp_path / "a")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "b", Seen(6, signal.SIGTERM))
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert torch.load(tmp_path / "b" / STATE, weights_only=True)["position"]["step"] == 6
    assert same(run(tmp_path / "b", resume=True).state_dict(), straight.state_dict())


@pytest.mark.slow
def test_the_command_ends_with_the_status_of_sigterm(tmp_path):
    """As `docker stop` and Slurm end it, with workers."""
    data = ["data", "sample", str(tmp_path / "data"), "--train", "6", "--val", "2"]
    subprocess.run([sys.executable, "-m", "eyeline", *data], check=True, capture_output=True)
    command = [
        sys.executable, "-m", "eyeline", "train", "retinanet", "--data", str(tmp_path / "data"),
        "--out", str(tmp_path / "r"), "model.backbone=resnet18", "model.size=64", "epochs=500",
        "data.workers=1", "log.tensorboard=false", "log.every=1",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while "step 4/" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGTERM)
        assert "stopped; to go on from what is saved (step " in process.stdout.read()
    assert process.returncode == 143
    state = torch.load(tmp_path / "r" / STATE, weights_only=True)
    assert state["position"]["step"] >= 4


def test_nothing_saved_yet(tmp_path, capsys):
    """A run that was killed before its first state begins anew."""
    straight = run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.yaml").write_bytes((tmp_path / "a" / "recipe.yaml").read_bytes())
    (tmp_path / "b" / "metrics.jsonl").write_text('{"event": "step", "step": 1, "epoch": 1}\n{"ev')
    (tmp_path / "b" / ".state.pt.123.partial").write_text("half")
    assert same(run(tmp_path / "b", resume=True).state_dict(), straight.state_dict())
    assert "nothing had been saved, so the run begins anew" in capsys.readouterr().out
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert not list((tmp_path / "b").glob(".*"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".recipe.yaml.123.partial").write_text("half")
    run(tmp_path / "c", epochs=1)
    assert not list((tmp_path / "c").glob(".*"))


def flip(path: Path, place: float) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, capsys, harm):
    straight = run(tmp_path / "a")
    broken_off(tmp_path / "r", 7, save={"steps": 1})
    newest, former = tmp_path / "r" / STATE, tmp_path / "r" / PREVIOUS
    good = former.read_bytes()
    if harm == "flipped":
        weight = torch.load(newest, weights_only=True)["model"]["backbone.weight"]
        data = bytearray(newest.read_bytes())
        data[data.index(weight.numpy().tobytes()) + 2] ^= 4  # still a number, another one
        newest.write_bytes(data)
        read = torch.load(newest, weights_only=True)["model"]["backbone.weight"]
        assert not torch.equal(read, weight)  # torch does not see it
    elif harm == "gone":  # killed between two names
        newest.unlink()
    else:
        newest.write_bytes(newest.read_bytes()[: 2000 if harm == "cut" else 0])
    capsys.readouterr()
    resumed = run(tmp_path / "r", resume=True)
    out = capsys.readouterr().out
    assert (f"{newest} cannot be read (" in out) is (harm != "gone")
    assert ("going on from state-previous.pt, which is of step 6" in out) is (harm != "gone")
    assert same(resumed.state_dict(), straight.state_dict())
    assert lines(tmp_path / "a") == lines(tmp_path / "r")
    newest.write_bytes(b"")
    former.write_bytes(good[:2000])
    with pytest.raises(EyelineError, match=r"state\.pt cannot .*state-previous\.pt cannot .*copy"):
        run(tmp_path / "r", resume=True, epochs=4)


def test_no_flipped_bit_is_resumed_from(tmp_path):
    """Wherever it is: the state is refused, or it is the same."""
    broken_off(tmp_path / "r", 6)
    path = tmp_path / "r" / STATE
    good, draw = path.read_bytes(), random.Random(0)
    expected = torch.load(path, weights_only=True)
    refused = 0
    for _ in range(200):
        path.write_bytes(good)
        flip(path, draw.random())
        try:
            read = read_state(path)
        except Exception:  # whatever a reader stumbles over; it is told and the former state taken
            refused += 1
            continue
        assert same(read, expected)
    assert refused > 20


def test_another_batch_size_within_an_epoch(tmp_path, capsys):
    """Each picture of the epoch once, also when it is broken off and changed again."""
    seen = broken_off(tmp_path / "r", 6, data=ToyData(23))  # epoch 1: 8 steps
    assert sum(map(len, seen)) == 18
    model = Seen(1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "r", model, ToyData(23), batch_size=2, resume=True)
    out = capsys.readouterr().out
    assert "changed: batch_size 3 -> 2: optimizer.lr stays as it is" in out
    assert "epoch 1: the pictures not yet seen come in 3 batches of 2 (were of 3)" in out
    again = run(tmp_path / "r", None, ToyData(23), batch_size=4, accumulate=2, resume=True)
    out = capsys.readouterr().out
    assert "changed: accumulate 1 -> 2" in out and "come in 1 batches of 4 (were of 2)" in out
    epoch = [picture for step in [*seen, *model.seen, *again.seen[:1]] for picture in step]
    assert sorted(epoch) == list(range(100, 123))
    later = [picture for step in again.seen[1:] for picture in step]
    assert sorted(later) == sorted(2 * list(range(100, 123)))  # 2 epochs of 3 steps
    steps = [line["step"] for line in lines(tmp_path / "r") if line["event"] == "step"]
    assert steps == list(range(1, 6 + 1 + 1 + 3 + 3 + 1))


def test_a_changed_run_is_resumed_exactly(tmp_path):
    for name in "ab":
        broken_off(tmp_path / name, 4, data=ToyData(24))
    a = run(tmp_path / "a", None, ToyData(24), batch_size=2, resume=True)
    seen = []
    for _ in range(3):  # broken off after every 4 steps
        model = Seen(4)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b", model, ToyData(24), batch_size=2, resume=True)
        seen += model.seen
    b = run(tmp_path / "b", None, ToyData(24), batch_size=2, resume=True)
    assert seen + b.seen == a.seen
    assert same(a.state_dict(), b.state_dict())
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_the_schedule_goes_by_epochs(tmp_path, capsys):
    """At the same place of the run the rate is the same, whatever the batch size."""
    cosine = {"name": "cosine"}
    run(tmp_path / "a", data=ToyData(24), schedule=cosine)
    broken_off(tmp_path / "b", 12, data=ToyData(24), schedule=cosine)  # half of 24
    run(tmp_path / "b", None, ToyData(24), schedule=cosine, batch_size=6, resume=True)
    a, b = rates(tmp_path / "a"), rates(tmp_path / "b")
    assert len(b) == 12 + 6
    assert b[:12] == a[:12] and b[12:] == pytest.approx(a[12::2])
    assert "learning rate" not in capsys.readouterr().out


def test_more_epochs_lay_the_schedule_out_anew(tmp_path, capsys):
    run(tmp_path / "r", epochs=1)
    run(tmp_path / "r", epochs=2, resume=True)
    out = capsys.readouterr().out
    assert "changed: epochs 1 -> 2: the schedule is laid out over all of them" in out
    assert "changed: the next step's learning rate 0 -> 0.005" in out
    parameter = torch.nn.Parameter(torch.zeros(1))
    schedule = build_schedule(torch.optim.SGD([parameter], lr=1e-2), Schedule(), 2, 4, done=4)
    assert rates(tmp_path / "r")[4] == schedule.get_last_lr()[0] == pytest.approx(0.005)


def test_another_rate_counts_from_the_next_step(tmp_path, capsys):
    constant = {"name": "constant"}
    broken_off(tmp_path / "r", 6, schedule=constant)
    fields = {"optimizer": {"lr": 2e-3, "weight_decay": 0.5}, "schedule": constant}
    run(tmp_path / "r", resume=True, **fields)
    out = capsys.readouterr().out
    assert "changed: optimizer.lr 0.01 -> 0.002" in out
    assert "changed: optimizer.weight_decay 0.01 -> 0.5" in out
    assert "changed: the next step's learning rate 0.01 -> 0.002" in out
    assert rates(tmp_path / "r") == [1e-2] * 6 + [2e-3] * 6
    state = torch.load(tmp_path / "r" / STATE, weights_only=True)["optimizer"]
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.5, 0.0}


def test_nothing_is_said_where_nothing_changed(tmp_path, capsys):
    broken_off(tmp_path / "r", 6)
    run(tmp_path / "r", resume=True, data=None)
    out = capsys.readouterr().out
    assert "changed" not in out and "come in" not in out
    broken = tmp_path / "s"
    broken_off(broken, 6)
    capsys.readouterr()
    train(Seen(), ToyData(), out=str(broken), resume=True, **{**QUICK, "data": {"workers": 1}})
    assert "changed: data.workers 0 -> 1\n" in capsys.readouterr().out


def test_processes_and_devices_are_told(tmp_path, capsys):
    """A state of two processes, whose batches were twice as large, goes on in one."""
    seen = broken_off(tmp_path / "r", 2, data=ToyData(24), batch_size=4)
    state = torch.load(tmp_path / "r" / STATE, weights_only=True)
    state["around"] |= {"processes": 2, "device": "cuda:0"}
    state["recipe"]["batch_size"] = 2
    torch.save(state, tmp_path / "r" / STATE)
    model = run(tmp_path / "r", None, ToyData(24), batch_size=2, epochs=1, resume=True)
    out = capsys.readouterr().out
    assert "changed: processes 2 -> 1" in out and "changed: device cuda:0 -> cpu" in out
    assert "epoch 1: the pictures not yet seen come in 8 batches of 2 (were of 4)" in out
    epoch = [picture for step in seen + model.seen for picture in step]
    assert sorted(epoch) == list(range(100, 124))


def test_other_pictures_are_refused(tmp_path, shared_data):
    from eyeline.data.datasets import open_dataset

    dataset = open_dataset(shared_data / "tiny_coco", "val")
    dataset.classes = ["a", "b"]
    for record in dataset.annotations.records:
        record.labels[:] = 0
    few, same_few, others = (Subset(dataset, ids) for ids in ([1, 2, 3], [1, 2, 3], [1, 2, 4]))
    model = {"norm": torch.nn.LayerNorm, "dropout": 0.0}
    run(tmp_path / "r", ToyDetector(**model), few, epochs=1)
    with pytest.raises(EyelineError, match="have other names, or another order"):
        run(tmp_path / "r", ToyDetector(**model), others, epochs=2, resume=True)
    run(tmp_path / "r", ToyDetector(**model), same_few, epochs=2, resume=True)


def test_dropout_and_changes_of_pictures_in_workers_return(tmp_path):
    """The random numbers of the step and of the workers, by kill and by Ctrl-C alike."""
    fields = {"data": {"workers": 2}, "ema": 0.9, "save": {"steps": 1}}
    results = []
    for name, step in (("a", 0), ("b", 6)):
        if step:
            with pytest.raises(KeyboardInterrupt):
                train(Seen(step), Shaken(), out=str(tmp_path / name), **{**QUICK, **fields})
        model = Seen()
        train(model, Shaken(), out=str(tmp_path / name), resume=bool(step), **{**QUICK, **fields})
        results.append(load_file(tmp_path / name / "last.safetensors"))
    assert same(*results)


def test_a_gpus_generator_is_seeded_too(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    for key in ((0, 1, 2), (0, 1, 2), (0, 1, 3)):
        seed_generators(*key)
    assert seeds[0] == seeds[1] != seeds[2]


def test_workers_end_though_a_signal_found_them(tmp_path):
    """They outlast it, but not the process that they work for."""
    began = time.monotonic()
    with pytest.raises(SystemExit):
        train(
            Seen(4, signal.SIGTERM), ToyData(), out=str(tmp_path / "r"),
            **{**QUICK, "data": {"workers": 2}},
        )  # fmt: skip
    assert time.monotonic() - began < 20
    assert json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4
