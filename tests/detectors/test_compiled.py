"""`compute` through the compiler's own backend, which generates C++ and so needs a compiler."""

from __future__ import annotations

import pytest
import torch

from eyeline.export import optimize
from eyeline.registry import create_model, list_models


@pytest.mark.slow
@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("name", list_models("detection"))
def test_compiled_compute_finds_the_same(name: str, optimized: bool) -> None:
    torch.manual_seed(0)
    model = create_model(
        name, num_classes=3, backbone="resnet18", min_size=96, max_size=128,
        score_threshold=0.01, max_detections=20,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 90, 120, generator=generator) for _ in range(2)]
    batch = model.prepare(images)
    torch._dynamo.reset()
    if optimized:
        compiled = optimize(model, compile=True).compute
    else:
        compiled = torch.compile(model.compute, fullgraph=True)
    with torch.inference_mode():
        expected, found = model.compute(batch), compiled(batch)
    assert expected.valid.any() and torch.equal(expected.valid, found.valid)
    for a, b in zip(model.finish(expected, batch), model.finish(found, batch), strict=True):
        torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-2, rtol=0)
        torch.testing.assert_close(a["scores"], b["scores"], atol=1e-5, rtol=0)
        assert torch.equal(a["labels"], b["labels"])
