"""Many asynchronous callers, one network."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eyeline.errors import EyelineError
from eyeline.inference import Predictor
from eyeline.inference.batches import Batches
from eyeline.registry import create_model

SMALL = {"backbone": "resnet18", "fpn_channels": 16, "tower_depth": 1, "size": 64}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("retinanet", classes=["a", "b"], **SMALL)
    nn.init.normal_(model.class_head.output.weight, std=0.3)
    return model.eval()


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, 48, 64, 3), np.uint8))


def counted(predictor: Predictor) -> list[int]:
    """The sizes of the batches that will be computed."""
    sizes: list[int] = []
    compute = predictor.batches.compute

    def counting(batch: list) -> object:  # type: ignore[type-arg]
        sizes.append(len(batch))
        return compute(batch)

    predictor.batches.compute = counting  # type: ignore[assignment]
    return sizes


def test_callers_share_batches_and_get_their_own(model: nn.Module) -> None:
    many = pictures(10)
    predictor = Predictor(model, score_threshold=0.1, max_batch=4, max_wait=1.0)
    alone = [predictor(one) for one in many]
    sizes = counted(predictor)

    async def main() -> list:  # type: ignore[type-arg]
        async with predictor:
            return await asyncio.gather(*map(predictor.apredict, many))

    together = asyncio.run(main())
    assert sum(sizes) == 10 and max(sizes) == 4 and len(sizes) <= 5
    for one, other in zip(alone, together, strict=True):
        assert len(one) > 0
        assert torch.allclose(one.boxes, other.boxes, atol=0.01)
        assert torch.allclose(one.scores, other.scores, atol=1e-4)
    with pytest.raises(EyelineError, match="closed"):
        asyncio.run(predictor.apredict(many[0]))


def test_one_bad_picture_fails_its_caller_only(model: nn.Module, tmp_path: Path) -> None:
    predictor = Predictor(model, max_batch=8, max_wait=0.3)
    grey = torch.zeros(1, 40, 40)  # the network wants three channels
    asked = [*pictures(2), tmp_path / "nothing.png", grey, *pictures(1)]

    async def main() -> list:  # type: ignore[type-arg]
        async with predictor:
            return await asyncio.gather(*map(predictor.apredict, asked), return_exceptions=True)

    found = asyncio.run(main())
    kinds = [type(one).__name__ for one in found]
    assert kinds == ["Result", "Result", "EyelineError", "EyelineError", "Result"]
    assert "nothing.png: no such picture" in str(found[2]) and "(1, 40, 40)" in str(found[3])


def test_a_cancelled_caller_leaves(model: nn.Module) -> None:
    """While the first batch computes the others wait, and one of these gives up."""
    predictor = Predictor(model, max_batch=3, max_wait=0)
    sizes = counted(predictor)
    begun, go = threading.Event(), threading.Event()
    compute = predictor.batches.compute

    def held(batch: list) -> object:  # type: ignore[type-arg]
        begun.set()
        assert go.wait(30)
        return compute(batch)

    predictor.batches.compute = held  # type: ignore[assignment]

    async def main() -> list:  # type: ignore[type-arg]
        first, *others = pictures(4)
        async with predictor:
            tasks = [asyncio.create_task(predictor.apredict(first))]
            assert await asyncio.to_thread(begun.wait, 30)
            tasks += [asyncio.create_task(predictor.apredict(one)) for one in others]
            while predictor.batches.waiting.qsize() < 3:
                await asyncio.sleep(0.001)
            tasks[2].cancel()
            await asyncio.sleep(0)  # the cancellation goes its way
            go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    names = [type(one).__name__ for one in found]
    assert names == ["Result", "Result", "CancelledError", "Result"]
    assert sizes == [1, 2]


def test_a_lone_caller_does_not_wait_long() -> None:
    batches: Batches[int, int] = Batches(lambda items: items, max_batch=100, max_wait=0.05)
    start = time.monotonic()
    assert batches.submit(7).result(timeout=5) == 7
    assert time.monotonic() - start < 2
    batches.close()


def test_close_finishes_what_was_taken() -> None:
    begun = threading.Event()

    def slow(items: list[int]) -> list[int]:
        begun.set()
        time.sleep(0.1)
        return [i * 10 for i in items]

    batches: Batches[int, int] = Batches(slow, max_batch=2, max_wait=0.01)
    futures: list[Future[int]] = [batches.submit(i) for i in range(5)]
    assert begun.wait(5)
    batches.close()
    assert [future.result(timeout=0) for future in futures] == [0, 10, 20, 30, 40]
    batches.close()  # twice does no harm
    with pytest.raises(EyelineError, match="closed"):
        batches.submit(1)


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"max_wait": -1.0}])
def test_limits_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(EyelineError, match="max_batch is at least 1"):
        Batches(lambda items: items, **options)  # type: ignore[arg-type]
