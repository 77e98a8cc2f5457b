"""YOLOv2, YOLOv3 and their tiny sisters against OpenCV's DNN module, which read the same numbers.

Of YOLOv2's it gives scores that its own NMS has set to 0; those of all are computed here from what
its last convolution gave.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from darknet import CFGS, REGION, model_of, write_weights
from make_darknet import CLASSES, SIDE, arrays
from references import stored
from torch import Tensor, nn

from eyeline.checkpoints.darknet import convolutions
from eyeline.nn.cells import moved
from eyeline.ops.iou import box_iou
from eyeline.registry import create_model

LEAST = 0.3  # score of a detection; yolov2's, of a softmax, are lower


def least(name: str) -> float:
    return LEAST / 3 if name == "yolov2" else LEAST


def built(name: str, **options: object) -> nn.Module:
    ours, more = model_of(name)
    with torch.device("meta"):
        model = create_model(
            ours, num_classes=CLASSES, convention="darknet", size=SIDE, score_threshold=least(name),
            **more, **options,
        )  # fmt: skip
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    priors = model.shapes.shape
    model = model.to_empty(device="cpu").eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in arrays(shapes).items()})
    model.shapes = torch.tensor(model.config.priors, dtype=torch.float32).reshape(priors)
    return model


@pytest.fixture
def crop(pictures: list[Tensor], request: pytest.FixtureRequest) -> Tensor:
    crop = pictures[1][:, 100 : 100 + SIDE, 40 : 40 + SIDE]
    seen = torch.from_numpy(stored("yolov3_tiny")["pixels"]).permute(2, 0, 1)
    if not torch.equal(crop[:, ::16, ::16], seen):
        pytest.skip("this machine decodes the JPEG otherwise")
    return crop


def cells(raw: np.ndarray) -> Tensor:
    """A map (A (5 + K), H, W) as one row (5 + K) for each prior of each cell."""
    return torch.from_numpy(raw).permute(1, 2, 0).reshape(-1, 5 + CLASSES)


def rows(name: str) -> Tensor:
    """OpenCV's boxes, objectness and scores, finest scale first."""
    found = stored(name)
    scales = sum(key.startswith("boxes.") for key in found)
    all_rows = torch.from_numpy(np.concatenate([found[f"boxes.{i}"] for i in range(scales)][::-1]))
    if name.startswith("yolov2"):
        raw = cells(found["raw.0"]).double()
        scores = (raw[:, 4:5].sigmoid() * raw[:, 5:].softmax(1)).float()
        left = all_rows[:, 5:] > 0
        assert 0.2 < left.float().mean() < 0.8
        torch.testing.assert_close(all_rows[:, 5:][left], scores[left], atol=1e-5, rtol=0)
        all_rows[:, 5:] = scores
    return all_rows


def seen(model: nn.Module, crop: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Of each scale what the network says (N_l, 5 + K); of all priors boxes and scores."""
    batch = model.prepare([crop])
    with torch.no_grad():
        outputs, anchors = model.heads(batch.images)
    if isinstance(outputs, Tensor):
        boxes = moved(outputs[0, :, :4], anchors, 32.0)
        classes = outputs[0, :, 5:].softmax(1)
        return [outputs[0]], boxes, outputs[0, :, 4:5].sigmoid() * classes
    output = torch.cat(outputs, 1)[0]
    boxes = moved(output[:, :4], torch.cat(anchors), model.strides_of(anchors))
    return [o[0] for o in outputs], boxes, output[:, 4:5].sigmoid() * output[:, 5:].sigmoid()


@pytest.mark.parametrize("name", CFGS)
def test_outputs_and_boxes_are_opencvs(name: str, crop: Tensor) -> None:
    outputs, boxes, scores = seen(built(name), crop)
    found = stored(name)
    assert len(outputs) == sum(key.startswith("raw.") for key in found)
    for i, output in enumerate(outputs[::-1]):
        theirs = cells(found[f"raw.{i}"])
        assert theirs.std() > 0.2
        torch.testing.assert_close(output, theirs, atol=1e-4, rtol=1e-4)
    expected = rows(name)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(
        torch.cat([centre, size], 1), expected[:, :4] * SIDE, atol=1e-2, rtol=1e-4
    )
    torch.testing.assert_close(scores, expected[:, 5:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CFGS)
def test_detections_are_those_of_a_plain_loop_over_opencvs_boxes(name: str, crop: Tensor) -> None:
    model = built(name, max_detections=1000, candidates=5000)
    with torch.no_grad():
        ours = model([crop])[0]
    expected = rows(name)
    half = expected[:, 2:4] / 2
    boxes = (torch.cat([expected[:, :2] - half, expected[:, :2] + half], 1) * SIDE).clamp(0, SIDE)
    found, overlap = [], box_iou(boxes, boxes).tolist()
    for label in range(CLASSES):
        kept: list[int] = []
        scores = expected[:, 5 + label]
        for i in scores.argsort(descending=True).tolist():
            if scores[i] > least(name) and all(overlap[i][j] <= 0.45 for j in kept):
                kept.append(i)
        found += [(float(scores[i]), label, boxes[i]) for i in kept]
    found.sort(key=lambda entry: -entry[0])
    assert len(found) == len(ours["boxes"]) > 10
    torch.testing.assert_close(
        ours["scores"], torch.tensor([f[0] for f in found]), atol=1e-4, rtol=0
    )
    theirs = torch.stack([f[2] for f in found])
    apart = (ours["boxes"][:, None] - theirs).abs().amax(-1) <= 0.02
    apart &= ours["labels"][:, None] == torch.tensor([f[1] for f in found])
    assert apart.any(0).all() and apart.any(1).all()


@pytest.mark.parametrize("name", ["yolov3_tiny", "yolov2_tiny"])
def test_a_file_of_weights_and_its_cfg_make_the_same_model(
    name: str, tmp_path: Path, crop: Tensor
) -> None:
    priors = dict(priors=tuple(32 * side for side in REGION)) if name == "yolov2_tiny" else {}
    model = built(name, **priors)
    order = [(conv, norm) for conv, norm, _ in convolutions(model)]
    write_weights(tmp_path / "own.weights", model.state_dict(), order)
    (tmp_path / "own.cfg").write_text(CFGS[name](CLASSES, SIDE))
    loaded = create_model(weights=tmp_path / "own.weights", score_threshold=LEAST).eval()
    assert loaded.name == model_of(name)[0] and loaded.config.min_size == SIDE
    assert loaded.config.priors == pytest.approx(model.config.priors)
    with torch.no_grad():
        assert torch.equal(loaded([crop])[0]["boxes"], model([crop])[0]["boxes"])


def difference(model: nn.Module, name: str, crop: Tensor) -> float:
    outputs, _, _ = seen(model, crop)
    return float((outputs[-1] - cells(stored(name)["raw.0"])).abs().max())


@pytest.mark.parametrize("wrong", ["epsilon", "slope", "pool"])
def test_a_wrong_detail_shows(wrong: str, crop: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built("yolov3_tiny", **({"norm_epsilon": 1e-5} if wrong == "epsilon" else {}))
    if wrong == "slope":
        monkeypatch.setattr("eyeline.nn.backbones.darknet.SLOPE", 0.11)
    if wrong == "pool":  # at the left and the top
        pad = torch.nn.functional.pad
        monkeypatch.setattr(
            "eyeline.nn.backbones.darknet.F.pad", lambda x, sides, how: pad(x, (1, 0, 1, 0), how)
        )
    assert difference(model, "yolov3_tiny", crop) > 1e-3


def test_what_passes_through_as_the_paper_says_is_not_darknets(crop: Tensor) -> None:
    assert difference(built("yolov2", passthrough="adjacent"), "yolov2", crop) > 0.02
