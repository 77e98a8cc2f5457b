"""Several processes: equal to one, and ended together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from processes import Discs, Dying, tiny, train_tiny
from torch import distributed, nn
from toys import ToyData, ToyDetector, in_two_processes

from eyeline.errors import EyelineError
from eyeline.evaluation import evaluate
from eyeline.losses.normaliser import batch_total
from eyeline.nn.heads.sampling import random_order
from eyeline.registry import list_models
from eyeline.training import train
from eyeline.training.parallel import share_gradients, sync_norms
from eyeline.training.step import backward, loss_scaler

CPU = torch.device("cpu")


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group, whose one process takes itself for one of two."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    for module in ("losses.normaliser", "training.parallel", "training.step", "processes"):
        monkeypatch.setattr(f"eyeline.{module}.count_processes", lambda: 2)
    yield
    distributed.destroy_process_group()


def test_a_total_is_the_share_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mine: 6 things on 3 pictures; the other's: 10 on 1."""
    mine, others = torch.tensor(6), torch.tensor([10.0, 1.0])
    assert batch_total(mine, 3) == 6 and batch_total(torch.tensor(0), 3) == 1
    monkeypatch.setattr("eyeline.losses.normaliser.count_processes", lambda: 2)
    monkeypatch.setattr("eyeline.losses.normaliser.sum_over_processes", lambda own: own + others)
    assert batch_total(mine, 3) == 16 * 3 / 4
    with torch.no_grad():
        assert batch_total(mine, 3) == 6
    monkeypatch.setattr("eyeline.losses.normaliser.sum_over_processes", lambda own: own * 2)
    assert batch_total(torch.tensor(0), 3) == 0.5  # 1 of 2 processes


def test_processes_that_do_not_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where something other than torchrun has set WORLD_SIZE."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EyelineError, match=r"do not find each other \(.*start them with torchrun"):
        train(ToyDetector(), ToyData())


def test_what_is_drawn_is_the_picture_s_own() -> None:
    targets = [{"boxes": torch.zeros(0, 4), "seed": torch.tensor(seed)} for seed in (7, 2**32 - 1)]
    module = nn.Identity().train()
    both = random_order(module, targets, 1000)
    assert torch.equal(random_order(module, targets[1:], 1000)[0], both[1])
    assert torch.equal(random_order(module, targets, 10), both[:, :10])
    assert both.dtype == torch.float32 and 0 <= both.min() and both.max() < 1
    assert both[0].unique().numel() > 990 and not torch.equal(both[0], both[1])
    assert both.mean().item() == pytest.approx(0.5, abs=0.03)
    assert both.histc(10, 0, 1) == pytest.approx(200, abs=60)
    assert abs(torch.corrcoef(torch.stack([both[0], both[1]]))[0, 1]) < 0.1
    assert abs(torch.corrcoef(torch.stack([both[0, 1:], both[0, :-1]]))[0, 1]) < 0.1


@pytest.mark.parametrize("name", list_models("detection"))
@pytest.mark.usefixtures("group_of_one")
def test_every_parameter_is_used_in_every_batch(name: str) -> None:
    """Without objects too, and without frozen parts; else torch would wait for their gradients."""
    model = tiny(name).train()
    model.backbone.requires_grad_(False)
    shared = share_gradients(model, CPU)
    for indices in ([0, 5], [1, 2], [0]):  # the first and the last have no object
        images, targets = zip(*(Discs(6)[i] for i in indices), strict=True)
        sum(shared(list(images), list(targets)).values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert len(gradients) >= 4 and all(g is not None for g in gradients.values())


@pytest.mark.usefixtures("group_of_one")
def test_accumulated_batches_exchange_gradients_once() -> None:
    shared = share_gradients(ToyDetector(nn.LayerNorm), CPU)
    exchanged = []

    def count(state, bucket):
        exchanged.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    shared.register_comm_hook(None, count)
    data = [ToyData()[i] for i in range(6)]
    group = [tuple(map(list, zip(*data[i : i + 2], strict=True))) for i in (0, 2, 4)]
    scaler = loss_scaler(CPU, "float32")
    for steps in (1, 2):
        backward(shared, group, [1 / 3] * 3, CPU, "float32", scaler)
        assert exchanged == [0] * steps


def test_batch_norms_are_told_of(group_of_one: None) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert sync_norms(model, CPU, True) == (
        "1 batch norms see the pictures of their own process alone: synchronising them takes GPUs"
    )
    assert type(model[1]) is nn.BatchNorm2d
    weight, cuda = model[1].weight, torch.device("cuda")
    assert "sync_norms is false" in sync_norms(model, cuda, False)
    assert sync_norms(model, cuda, True) == "1 batch norms are synchronised over 2 processes"
    assert type(model[1]) is nn.SyncBatchNorm and model[1].weight is weight
    assert sync_norms(nn.Linear(2, 2), CPU, True) == ""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """In every detector, with accumulated batches, the last of which is uneven; and in what they
    measure, of 7 pictures in batches of two, to the last digit."""
    in_two_processes("detectors", tmp_path, processes.__file__)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in list_models("detection"):
            before, after = tiny(name).state_dict(), train_tiny(name, f"{tmp_path}/{name}-one")
            found = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1)]
            weights = [one["weights"] for one in found]
            moved = 0.0
            for key, value in after.state_dict().items():
                assert torch.equal(weights[0][key], weights[1][key])
                torch.testing.assert_close(value, weights[0][key], rtol=1e-5, atol=1e-6)
                moved = max(moved, (value - before[key]).abs().max().item())
            assert moved > 0.02
            a, b = (
                [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
                for folder in (tmp_path / name, tmp_path / f"{name}-one")
            )
            assert len(a) == len(b) == 6
            for one, other in zip(a, b, strict=True):
                assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)
                theirs = other.get("val_losses") or {}
                assert (one.get("val_losses") or {}) == pytest.approx(theirs, rel=1e-4)
            after.load_state_dict(weights[0])
            report = evaluate(after, Discs(7), batch_size=2, progress=False)
            for one in found:
                assert (one["coco"], one["voc"]) == (report.coco, report.voc)
                assert len(one["predictions"]) == 7
                for mine, theirs in zip(one["predictions"], report.predictions, strict=True):
                    assert torch.equal(mine["boxes"], theirs["boxes"]) and len(mine["boxes"])
                    assert torch.equal(mine["scores"], theirs["scores"])
                    assert mine.get("rle") == theirs.get("rle")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_commands_share_the_work(tmp_path: Path) -> None:
    """eyeline train and eyeline eval, of 3 pictures."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def eyeline(*words: str, several: bool = False) -> str:
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
        command = [sys.executable, "-m", *(torchrun if several else ()), "eyeline", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    eyeline("data", "sample", "data", "--train", "4", "--val", "3")
    options = "model.backbone=resnet18 model.size=64 model.fpn_channels=32 model.tower_depth=0"
    out = eyeline(
        "train", "retinanet", "--data", "data", *options.split(), "epochs=1", "data.workers=0",
        several=True,
    )  # fmt: skip
    assert out.count("epoch 1/1 done") == 1
    assert out.count("batch norms see the pictures of their own process alone") == 1
    run = "runs/retinanet"
    out = eyeline("eval", run, "--out", "two", "--batch-size", "2", several=True)
    assert out.count("report: two/report.html") == 1
    eyeline("eval", run, "--out", "one", "--batch-size", "2")
    a, b = (json.loads((tmp_path / f"{name}/results.json").read_text()) for name in ("two", "one"))
    assert a["facts"].pop("processes") == "2" and a["pictures"] == 3
    for found in (a, b):
        del found["pictures_per_second"], found["facts"]
    assert a == b
    names = [tmp_path / f"{name}/detections.json" for name in ("two", "one")]
    assert names[0].read_bytes() == names[1].read_bytes()


class Node:
    """torchrun's agent on a machine, or on what stands in for one."""

    def __init__(
        self, rank: int, address: str, port: int, how: str, folder: Path, inside: tuple[str, ...]
    ) -> None:
        torchrun = (
            "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}",
            f"--master-addr={address}", f"--master-port={port}",
        )  # fmt: skip
        self.log = folder.with_name(f"log-{rank}-{time.monotonic_ns()}.txt")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-m", *torchrun, processes.__file__, how, str(folder)],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def wait(self) -> None:
        self.status = self.process.wait(timeout=150)

    @property
    def said(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith("error: ")]


def start_nodes(
    how: str,
    folder: Path,
    address: str = "127.0.0.1",
    insides: tuple[tuple[str, ...], ...] = ((), ()),
) -> list[Node]:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    return [Node(i, address, port, how, folder, inside) for i, inside in enumerate(insides)]


def on_two_nodes(*args: Any, **kwargs: Any) -> list[Node]:
    """Started, and ended."""
    nodes = start_nodes(*args, **kwargs)
    for node in nodes:
        node.wait()
    return nodes


def check_end_and_resumption(nodes: list[Node], reason: str, folder: Path, **how) -> None:
    """All nodes ended soon after the death of a process, which all of them tell; and go on."""
    died = float(folder.with_name("died").read_text().split()[0])
    for node in nodes:
        assert node.status == 1
        assert node.log.stat().st_mtime - died < 30
    alive = nodes[0]
    assert len(alive.said) == 1 and reason in alive.said[0], alive.log.read_text()
    assert "process 1 on " in alive.said[0]
    state = torch.load(folder / "state.pt", weights_only=True)["position"]
    assert (state["epoch"], state["step"]) == (2, 6)
    assert [node.status for node in on_two_nodes("live", folder, **how)] == [0, 0]
    alone = Dying("live", folder)
    train(
        alone, ToyData(12), epochs=4, batch_size=4, data={"workers": 0}, out=f"{folder}-alone",
        optimizer={"name": "sgd", "lr": 0.1}, log={"tensorboard": False},
    )  # fmt: skip
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["position"]["step"] == 12
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(state["model"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("kill", "ended without a word: killed, out of memory, or its machine is lost"),
        ("raise", ": street.jpg: cannot be read"),
    ],
)
def test_a_process_that_dies_ends_the_run_on_every_node(
    tmp_path: Path, how: str, reason: str
) -> None:
    """Two agents on one machine."""
    folder = tmp_path / "run"
    nodes = on_two_nodes(how, folder)
    check_end_and_resumption(nodes, reason, folder)


@pytest.mark.slow
def test_a_process_that_no_longer_answers_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    alive, stopped = start_nodes("stop", folder)
    alive.wait()
    died, number = folder.with_name("died").read_text().split()
    os.kill(int(number), signal.SIGKILL)
    stopped.wait()
    assert alive.status == 1 and alive.log.stat().st_mtime - float(died) < 30
    assert any("process 1 on " in line and "no sign of life" in line for line in alive.said)


@pytest.fixture
def two_machines() -> Iterator[tuple[tuple[str, ...], ...]]:
    """Two network namespaces, 10.77.7.1 and 10.77.7.2, joined by a cable; how to begin a command
    in each."""
    ip = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    names = [f"eyeline{os.getpid()}{end}" for end in "ab"]

    def run(*words: str) -> bool:
        return subprocess.run([str(ip), *words], capture_output=True).returncode == 0

    if ip is None or not run("netns", "add", names[0]):
        pytest.skip("network namespaces need Linux, the command ip, and root")
    try:
        assert run("netns", "add", names[1])
        cable = ("link", "add", "cable", "netns", names[0], "type", "veth", "peer")
        if not run(*cable, "name", "cable", "netns", names[1]):
            pytest.skip("this system makes no virtual network cables (veth)")
        for i, name in enumerate(names, 1):
            assert run("-n", name, "address", "add", f"10.77.7.{i}/24", "dev", "cable")
            assert run("-n", name, "link", "set", "cable", "up")
            assert run("-n", name, "link", "set", "lo", "up")
        variable = ("env", "GLOO_SOCKET_IFNAME=cable")
        yield tuple((ip, "netns", "exec", name, *variable) for name in names)
    finally:
        for name in names:
            run("netns", "delete", name)


@pytest.mark.slow
def test_two_machines(tmp_path: Path, two_machines: tuple[tuple[str, ...], ...]) -> None:
    """Network namespaces, which reach each other by their addresses alone."""
    folder, how = tmp_path / "run", {"address": "10.77.7.1", "insides": two_machines}
    nodes = on_two_nodes("kill", folder, **how)
    check_end_and_resumption(nodes, "ended without a word", folder, **how)
