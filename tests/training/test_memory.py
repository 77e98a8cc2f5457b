"""Memory that ends: the message names the batch, its sizes, and what to try."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
import toys
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import load_recipe, train
from eyeline.training.memory import out_of_memory

HERE = os.path.dirname(__file__)
QUICK = toys.QUICK


class Fails(ToyDetector):
    def __init__(self, step: int, error: Exception) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.step, self.error, self.calls = step, error, 0

    def forward(self, images, targets=None):
        self.calls += self.training
        if self.training and self.calls == self.step:
            raise self.error
        return super().forward(images, targets)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_the_batch_is_named_and_the_state_kept(tmp_path, capsys, error):
    with pytest.raises(EyelineError) as caught:
        train(Fails(6, error), ToyData(), out=str(tmp_path / "r"), **QUICK)
    message = str(caught.value)
    assert message.startswith("epoch 2, step 6: out of memory on cpu, of which ")
    assert " MB were in use at most, with batch_size=3, pictures of 32x32 (1" in message
    assert "; try batch_size=2 accumulate=2, smaller pictures (model.size, " in message
    assert message.endswith("or checkpoint_activations=true or precision=bf16")
    assert "\n" not in message
    assert f"eyeline train --resume {tmp_path / 'r'}" in capsys.readouterr().out
    state = torch.load(tmp_path / "r" / "state.pt", weights_only=True)
    assert state["position"]["step"] == 4
    fields = {**QUICK, "batch_size": 2, "accumulate": 2}  # what was to be tried
    train(Fails(0, error), ToyData(12), out=str(tmp_path / "s"), **QUICK)
    train(
        Fails(0, error), ToyData(12), out=str(tmp_path / "s"), resume=True, **fields | {"epochs": 3}
    )


@pytest.mark.parametrize(
    ("fields", "first", "last"),
    [
        ({}, "optimizer.name=sgd, ", "or checkpoint_activations=true or precision=bf16"),
        ({"compile": True}, "optimizer.name=sgd, ", "or precision=bf16"),
        (
            {"optimizer": {"name": "sgd"}, "precision": "bf16", "checkpoint_activations": True},
            "a smaller model.backbone, ",
            "or freeze=[backbone]",
        ),
    ],
)
def test_nothing_is_to_be_tried_that_is_so_already(fields, first, last):
    recipe = load_recipe({"batch_size": 1, **fields})
    told = str(out_of_memory("step 1", recipe, torch.device("cpu"), ["9x9"], "a.jpg"))
    assert f"try {first}" in told and told.endswith(f"model.max_size), {last}")


def test_an_evaluation_that_does_not_fit(tmp_path, capsys):
    def measure(model):
        raise torch.OutOfMemoryError("CUDA out of memory")

    fields = {**QUICK, "eval": {"batch_size": 7}, "measure": measure}
    with pytest.raises(EyelineError, match=r"^epoch 1: .* evaluating, .* with eval\.batch_size=7;"):
        train(Fails(0, MemoryError()), ToyData(), ToyData(3), out=str(tmp_path / "r"), **fields)
    assert "to go on from what is saved (step 4)" in capsys.readouterr().out


def test_other_errors_pass(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        train(Fails(2, RuntimeError("shapes")), ToyData(), out=str(tmp_path / "r"), **QUICK)


SCRIPT = """
    import resource, sys
    sys.path.insert(0, sys.argv[2])
    import torch
    from toys import ToyData, ToyDetector
    from eyeline.training import train

    class Grows(ToyDetector):
        def forward(self, images, targets=None):
            torch.empty(40_000_000_000)  # 160 GB
            return super().forward(images, targets)

    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
    train(Grows(), ToyData(), batch_size=4, data={"workers": 0}, out=sys.argv[1],
          precision="bf16", checkpoint_activations=False)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_memory_that_really_ends(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "r"), HERE],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "OutOfMemory: epoch 1, step 1: out of memory on cpu" in last
    assert "try batch_size=2 accumulate=2" in last
    assert last.endswith("checkpoint_activations=true or freeze=[backbone]")
    assert not (tmp_path / "r").exists()
