"""NMS and RoIAlign as ONNX's own operators: alone, in onnxruntime, beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from eyeline.export.onnx import translations
from eyeline.ops.nms import nms_padded
from eyeline.ops.roi_align import roi_align
from eyeline.ops.whole import keep_whole

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def session(module: nn.Module, examples: tuple[Any, ...], shapes: Any, path: Path) -> Any:
    with keep_whole():
        captured = torch.export.export(
            module,
            examples,
            dynamic_shapes=shapes,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    torch.onnx.export(
        captured, f=path, verbose=False, external_data=False,
        input_names=[f"in{i}" for i in range(len(torch.utils._pytree.tree_leaves(examples)))],
        custom_translation_table=translations(),
    )  # fmt: skip
    return onnxruntime.InferenceSession(path)


def run(of: Any, *inputs: Tensor) -> list[np.ndarray]:
    return of.run(None, {f"in{i}": value.numpy() for i, value in enumerate(inputs)})


def operators(path: Path) -> set[tuple[str, str]]:
    graph = onnx.load(path)
    assert not graph.functions
    return {(node.domain, node.op_type) for node in graph.graph.node}


class Nms(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> Any:
        return (
            *nms_padded(boxes, scores, 0.5, 20, groups, valid),
            *nms_padded(boxes, scores, 0.3, 20, None, valid),
        )


def boxes_of(rows: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crowded, with equal boxes, equal scores, boxes without area and rows of padding."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(rows, count, 2, generator=generator) * 40
    side = torch.rand(rows, count, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + side], -1)
    boxes[:, ::7] = boxes[:, :1]
    boxes[:, 3::11, 2:] = boxes[:, 3::11, :2]
    scores = (torch.rand(rows, count, generator=generator) * 20).round() / 20 - 0.2
    groups = torch.randint(0, 4, (rows, count), generator=generator)
    return boxes, scores, groups, torch.rand(rows, count, generator=generator) < 0.8


def test_nms_finds_the_same(tmp_path: Path) -> None:
    rows, count = Dim("rows", min=1), Dim("count", min=1)
    shapes = [{0: rows, 1: count}] * 4
    path = tmp_path / "nms.onnx"
    of = session(Nms(), boxes_of(2, 30, 0), tuple(shapes), path)
    assert ("", "NonMaxSuppression") in operators(path)
    assert {domain for domain, _ in operators(path)} == {""}
    suppressed = 0
    for rows_, count_, seed in ((1, 300, 1), (3, 100, 2), (2, 7, 3), (4, 25, 4)):
        inputs = boxes_of(rows_, count_, seed)
        found, wanted = run(of, *inputs), Nms()(*inputs)
        for ours, theirs in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(theirs, ours.numpy())
        suppressed += int((inputs[3].sum(1) - wanted[3].sum(1)).sum())
        assert wanted[1].any() and wanted[1].shape == (rows_, 20)
    assert suppressed > 100
    nothing = [*boxes_of(2, 30, 5)[:3], torch.zeros(2, 30, dtype=torch.bool)]
    index, found, *_ = run(of, *nothing)
    assert not index.any() and not found.any()


class Align(nn.Module):
    def __init__(self, sampling_ratio: int, aligned: bool) -> None:
        super().__init__()
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, levels: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor) -> Tensor:
        scales = (1 / 4, 1 / 8)
        return roi_align(
            levels, boxes, image, level, (3, 2), scales, self.sampling_ratio, self.aligned
        )


def regions(count: int, seed: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.rand(2, 5, 12, 16, generator=generator) for _ in range(2)]
    levels[1] = levels[1][..., ::2, ::2].contiguous()
    corner = torch.rand(count, 2, generator=generator) * 60 - 10
    side = torch.rand(count, 2, generator=generator) * 30
    image, level = (torch.randint(0, 2, (count,), generator=generator) for _ in range(2))
    return levels, torch.cat([corner, corner + side], 1), image, level


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_roi_align_gives_the_same(tmp_path: Path, sampling_ratio: int, aligned: bool) -> None:
    module, path = Align(sampling_ratio, aligned), tmp_path / "align.onnx"
    count = Dim("count")
    of = session(module, regions(9, 0), ([{}, {}], {0: count}, {0: count}, {0: count}), path)
    assert ("", "RoiAlign") in operators(path)
    assert {domain for domain, _ in operators(path)} == {""}
    for number, seed in ((1, 1), (50, 2)):  # of one region, a level has none
        levels, *where = regions(number, seed)
        wanted = module(levels, *where)
        [found] = run(of, *levels, *where)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
        assert wanted.std() > 0.01
