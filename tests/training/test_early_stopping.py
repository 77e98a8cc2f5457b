"""stop_after: epochs without a better metric."""

from __future__ import annotations

import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import train
from eyeline.training.states import STATE

QUICK = {"batch_size": 6, "epochs": 12, "data": {"workers": 0}, "log": {"tensorboard": False}}


def run(folder, scores, seen, **fields):
    """Epoch n, from 1, gets the n-th score."""

    def measure(model):
        seen.append(scores[len(seen)])
        return {"score": seen[-1]}

    options = {"eval": {"metric": "score"}, **QUICK, **fields}
    return train(
        ToyDetector(), ToyData(), ToyData(2), out=str(folder), measure=measure, **options
    )  # fmt: skip


def position(folder) -> dict:
    return torch.load(folder / STATE, weights_only=True)["position"]


def test_stops_after_so_many_epochs(tmp_path, capsys):
    seen = []
    scores = [0.1, 0.3, 0.2, 0.4, 0.4, 0.3, 0.1, 0.9, 1.0]
    found = run(tmp_path / "r", scores, seen, stop_after=3)
    assert len(seen) == 7 and found.best == 0.4
    at = position(tmp_path / "r")
    assert (at["epoch"], at["best_epoch"], at["stopped"]) == (7, 4, True)
    assert "stopped: score was best after epoch 4" in capsys.readouterr().out


def test_goes_on_where_it_gets_better_or_is_not_asked(tmp_path):
    seen = []
    run(tmp_path / "a", list(range(12)), seen, stop_after=1)
    assert len(seen) == 12
    seen = []
    run(tmp_path / "b", [1.0] * 12, seen)
    assert len(seen) == 12


def test_resuming(tmp_path):
    seen = []
    scores = [0.5, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1]
    run(tmp_path / "r", scores, seen, epochs=2, stop_after=2)
    run(tmp_path / "r", scores, seen, epochs=12, stop_after=2, resume=True)
    assert len(seen) == 3  # the epoch without gain before the break counts
    with pytest.raises(EyelineError, match="has stopped after 2 epochs without a better score"):
        run(tmp_path / "r", scores, seen, epochs=12, stop_after=2, resume=True)
    run(tmp_path / "r", scores, seen, epochs=12, stop_after=3, resume=True)
    assert len(seen) == 7 and position(tmp_path / "r")["best_epoch"] == 4
    with pytest.raises(EyelineError, match=r"eval\.metric was score and is now loss"):
        run(tmp_path / "r", scores, seen, stop_after=9, resume=True, eval={"metric": "loss"})


def test_epochs_between_evaluations_count_and_do_not_stop(tmp_path):
    seen = []
    options = {"stop_after": 3, "eval": {"metric": "score", "every": 2}}
    run(tmp_path / "r", [0.5, 0.4, 0.3, 0.2], seen, **options)
    assert position(tmp_path / "r")["epoch"] == 6  # best after 2; 5 is not evaluated


def test_needs_an_evaluation(tmp_path):
    for fields, val in (({}, None), ({"eval": {"every": 0}}, ToyData(2))):
        with pytest.raises(EyelineError, match=r"stop_after waits for a better eval\.metric"):
            train(
                ToyDetector(), ToyData(), val, out=str(tmp_path / "r"), stop_after=1,
                **{**QUICK, **fields},
            )  # fmt: skip
    assert not (tmp_path / "r").exists()


def test_a_hook_ends_the_run(tmp_path, capsys):
    told, seen = [], []

    def on_epoch(epoch, metrics):
        told.append((epoch, metrics["score"], metrics["loss"] > 0))
        return epoch == 4

    found = run(tmp_path / "r", [0.1, 0.2, 0.3, 0.4, 0.5], seen, on_epoch=on_epoch, epochs=5)
    assert told == [(1, 0.1, True), (2, 0.2, True), (3, 0.3, True), (4, 0.4, True)]
    assert (found.best, len(seen)) == (0.4, 4)
    assert position(tmp_path / "r")["stopped"] and (tmp_path / "r/best.safetensors").is_file()
    assert "stopped: it was told to" in capsys.readouterr().out
    run(tmp_path / "r", [0, 0, 0, 0, 0.5], seen, epochs=5, resume=True)  # without it, on it goes
    assert position(tmp_path / "r")["epoch"] == 5


def test_a_hook_is_told_only_of_epochs_that_are_evaluated(tmp_path):
    told = []
    fields = {"epochs": 5, "eval": {"metric": "score", "every": 2}}
    run(tmp_path / "r", [1, 2, 3], [], on_epoch=lambda n, _: told.append(n), **fields)
    assert told == [2, 4, 5]
