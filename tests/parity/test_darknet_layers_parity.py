"""Networks that are no paper's, read from a `.cfg` and its weights, against OpenCV's DNN module,
which read the same files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from darknet_layers import LAYERS
from make_darknet import SIDE, write_layers
from references import stored
from test_darknet_parity import cells, crop  # noqa: F401
from torch import Tensor, nn

from eyeline.nn.cells import LOG_CLAMP, moved, reorg
from eyeline.nn.darknet_layers import Pool
from eyeline.registry import create_model


def built(name: str, folder: Path) -> nn.Module:
    write_layers(folder, name)
    return create_model(weights=folder / f"{name}.weights").eval()


def seen(model: nn.Module, crop: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # noqa: F811
    """Of each head, in the file's order: what it reads, all boxes as OpenCV has them, scores."""
    batch = model.prepare([crop])
    assert batch.images.shape[2:] == (SIDE, SIDE)
    with torch.no_grad():
        outputs, anchors = model.heads(batch.images)
    classes = torch.sigmoid
    if isinstance(outputs, Tensor):
        outputs, anchors, classes = [outputs], [anchors], partial(torch.softmax, dim=1)
    heads = model.layers.heads
    raw, boxes, scores = [], [], []
    for i in sorted(range(len(heads)), key=heads.__getitem__):
        raw.append(outputs[i][0])
        xyxy = moved(raw[-1][:, :4], anchors[i], float(model.layers.strides[i]))
        centre, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
        boxes.append(torch.cat([centre, size], 1))
        scores.append(raw[-1][:, 4:5].sigmoid() * classes(raw[-1][:, 5:]))
    return raw, boxes, scores


HEADS = {"spp": 3, "two_heads": 2, "five_heads": 5, "region": 1}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_boxes_and_scores_are_opencvs(name: str, tmp_path: Path, crop: Tensor) -> None:  # noqa: F811
    model, found = built(name, tmp_path), stored(f"darknet_{name}")
    assert model.name == ("yolov2" if name == "region" else "yolov3")
    assert len(model.config.layers) == len(model.layers.reads)
    outputs, boxes, scores = seen(model, crop)
    assert len(outputs) == HEADS[name]
    for i, (output, box, score) in enumerate(zip(outputs, boxes, scores, strict=True)):
        raw, theirs = found[f"raw.{i}"], torch.from_numpy(found[f"boxes.{i}"])
        assert raw.std() > 0.2
        torch.testing.assert_close(output, cells(raw), atol=1e-4, rtol=1e-4)
        small = output[:, 2:4].amax(1) < LOG_CLAMP  # others we let grow less
        assert small.float().mean() > 0.9
        torch.testing.assert_close(box[small], theirs[:, :4][small] * SIDE, atol=1e-2, rtol=1e-4)
        kept = theirs[:, 5:] > 0  # the region layer's own NMS sets the others to 0
        assert kept.float().mean() > 0.2
        torch.testing.assert_close(score[kept], theirs[:, 5:][kept], atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrong", ["pool", "reorg", "activation"])
def test_a_wrong_detail_shows(
    wrong: str,
    tmp_path: Path,
    crop: Tensor,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "region" if wrong == "reorg" else "two_heads"
    model, found = built(name, tmp_path), stored(f"darknet_{name}")
    if wrong == "pool":  # the uneven padding at the left and the top
        odd = next(m for m in model.modules() if isinstance(m, Pool) and m.padding == 1)
        odd.forward = lambda x: nn.functional.max_pool2d(
            nn.functional.pad(x, (1, 0, 1, 0), value=-1e9), 2, 1
        )
    elif wrong == "reorg":
        monkeypatch.setattr(
            "eyeline.nn.darknet_layers.reorg", lambda x, kind, s: reorg(x, "adjacent", s)
        )
    else:
        monkeypatch.setitem(
            __import__("eyeline.nn.darknet_layers", fromlist=["ACTIVATIONS"]).ACTIVATIONS,
            "mish", nn.functional.silu,
        )  # fmt: skip
    outputs, _, _ = seen(model, crop)
    apart = max(
        float((output - cells(found[f"raw.{i}"])).abs().max()) for i, output in enumerate(outputs)
    )
    assert apart > 1e-3
