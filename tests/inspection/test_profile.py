"""Profiles of detectors: planted sleeps are found where they are, and work is what it must be."""

from __future__ import annotations

from statistics import median

import pytest
import torch
from slow_toy import Toy

import eyeline
from eyeline.errors import EyelineError
from eyeline.inspection import Limits, Profile, Stage, profile_inference, profile_training
from eyeline.inspection.profile import fixed_size, objects, picture, wake
from eyeline.inspection.report import Subject, rows, to_json, to_markdown
from eyeline.training import load_recipe

LIMITS = Limits("abacus", 1, 1e9, 2e9, None, 4e9, 1e9)
SIZE = (32, 32)
SMALL = {"backbone": "resnet18", "fpn_channels": 16, "num_classes": 3}


def found(profile: Profile, *path: str) -> Stage:
    stages = profile.stages
    for name in path:
        (stage,) = [one for one in stages if one.name == name]
        stages = stage.parts
    return stage


def test_a_sleep_is_seen_where_it_is() -> None:
    profile = profile_inference(Toy(0.03, forward=0.05), LIMITS, SIZE, as_is=True, rounds=3)
    assert 0.05 <= found(profile, "backbone").seconds < 0.09
    assert 0.05 <= found(profile, "backbone.decide").seconds < 0.09
    assert 0.01 <= found(profile, "head").seconds < 0.04
    assert 0.03 <= found(profile, "between the stages: compute").seconds < 0.05
    assert found(profile, "finish").seconds < 0.01


def test_stages_make_up_the_whole() -> None:
    profile = profile_inference(Toy(0.03, forward=0.05), LIMITS, SIZE, as_is=True, rounds=3)
    assert sum(stage.seconds for stage in profile.stages) == pytest.approx(profile.sum.seconds)
    assert profile.sum.seconds == pytest.approx(median(profile.whole), rel=0.15)
    assert len(profile.whole) == 3 and min(profile.whole) >= 0.14


def test_a_sleep_of_the_backward_pass() -> None:
    profile = profile_training(Toy(backward=0.06), LIMITS, SIZE, load_recipe({}), rounds=3)
    assert 0.06 <= found(profile, "backward", "backbone").seconds < 0.1
    assert 0.02 <= found(profile, "backward", "head").seconds < 0.05
    assert found(profile, "forward", "backbone").seconds < 0.02
    assert profile.sum.seconds == pytest.approx(median(profile.whole), rel=0.15)
    names = [stage.name for stage in profile.stages]
    assert names[:4] == ["forward", "backward", "clip gradients", "optimizer step"]


def test_work_of_the_toy() -> None:
    """3 x 3 weights, 32 x 32 places, two pictures, multiplied and added."""
    profile = profile_inference(Toy(), LIMITS, SIZE, batch=2, as_is=True, rounds=1)
    operations = 2 * 2 * 3 * 3 * 32 * 32
    head = found(profile, "head")
    assert head.operations == {"float32": operations}
    floats = 2 * 3 * 32 * 32
    assert head.bytes == 4 * (2 * floats + 9 + 3) + 4 * 2 * floats  # the convolution, the copy
    assert head.floor == pytest.approx(max(operations / 1e9, head.bytes / 1e9))
    training = profile_training(Toy(), LIMITS, SIZE, load_recipe({}), batch=2, rounds=1)
    # The gradient of the weights, and that of the input: the first convolution needs none.
    assert found(training, "backward", "head").operations == {"float32": 2 * operations}
    assert found(training, "backward", "backbone").operations == {"float32": operations}


def test_precisions() -> None:
    model = eyeline.create_model("retinanet", tower_depth=1, **SMALL)
    half = profile_inference(model, LIMITS, (64, 96), precision="bf16", trained=False, rounds=1)
    backbone = found(half, "backbone")
    assert set(backbone.operations) == {"bf16"}
    # ResNet-18 without its last layer, at 64 x 96 for 224 x 224
    assert backbone.operations["bf16"] == 2 * 1_813_561_344 * 64 * 96 // 224**2
    if torch.cpu._is_vnni_supported():
        eight = profile_inference(model, LIMITS, (64, 96), precision="int8", trained=False)
        assert found(eight, "backbone").operations == {"int8": backbone.operations["bf16"]}
        assert not eight.uncounted
    recipe = load_recipe({"precision": "bf16"})
    step = profile_training(model, LIMITS, (64, 96), recipe, rounds=1)
    assert set(found(step, "backward", "backbone").operations) == {"bf16"}
    with pytest.raises(EyelineError, match="as it is computes in float32"):
        profile_inference(model, LIMITS, SIZE, precision="bf16", as_is=True)
    with pytest.raises(EyelineError, match="no precision 'int3'"):
        profile_inference(model, LIMITS, SIZE, precision="int3")


def test_the_model_is_left_alone() -> None:
    model = eyeline.create_model("faster_rcnn", **SMALL).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config, size = model.config, model.preprocess.min_size
    profile_inference(model, LIMITS, (64, 64), trained=False, rounds=1)
    profile_training(model, LIMITS, (64, 64), load_recipe({}), rounds=1)
    assert model.config is config and model.preprocess.min_size == size and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["faster_rcnn", "retinanet"])
def test_an_untrained_model_is_woken(name: str) -> None:
    model = eyeline.create_model(name, max_detections=20, **SMALL)
    fixed_size(model, (128, 128))
    images, targets = (
        [picture((128, 128), 0)],
        [objects((128, 128), 0, len(model.classes), model.needs_masks)],
    )
    with torch.inference_mode():
        assert len(model.eval()(images)[0]["boxes"]) == 0 or name == "faster_rcnn"
        wake(model, images, targets)
        assert len(model(images)[0]["boxes"]) == 20
        (features,) = model.backbone(model.prepare(images).images)[-1:]
    assert 0.1 < features.std() < 10 and not model.training
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def stage(name: str, seconds: float, parts: list[Stage] | None = None) -> Stage:
    return Stage(name, 2, seconds, {"float32": 3 * 10**9}, 5 * 10**9, 6.0, "memory", parts or [])


def example() -> Profile:
    parts = [stage("conv", 8.0), stage("bn", 0.01), stage("relu", 0.01),
             stage("between the parts", 1.0)]  # fmt: skip
    stages = [stage("backbone", 60.0, parts), stage("take", 0.1), stage("nms", 39.8),
              stage("clip", 0.1), stage("between the stages", 0.05)]  # fmt: skip
    return Profile([99.0, 101.0], stage("sum", 100.05, stages), LIMITS, ["stranger.twice"])


def test_small_stages_share_a_row_and_none_is_lost() -> None:
    shown = [(level, one.name, one.seconds) for level, one in rows(example())]
    assert shown == [
        (0, "backbone", 60.0), (1, "conv", 8.0), (1, "2 smaller", pytest.approx(0.02)),
        (1, "between the parts", 1.0), (0, "nms", 39.8),
        (0, "2 smaller", pytest.approx(0.2)), (0, "between the stages", 0.05),
    ]  # fmt: skip
    assert sum(seconds for level, _, seconds in shown if level == 0) == pytest.approx(100.05)


def test_markdown() -> None:
    text = to_markdown(Subject("toy", "inference", "float32", 2, (32, 48)), example())
    lines = text.splitlines()
    assert lines[0] == "## toy, inference, float32, 2 pictures of 32x48"
    assert (
        "| backbone ×2 | 60,000.0 | 60.0% | ███████ | 3.0 | 5.00 | 6,000.0 | 10% | memory |"
        in lines
    )
    assert {line.count("|") for line in lines if line.startswith("|")} == {10}
    assert "the stages' sum is 100.0% of it" in text
    assert "whole, without watching: 100,000.0 ms [99,000.0, 101,000.0] in 2 rounds" in text
    assert "GFLOP without those of stranger.twice" in text


def test_json() -> None:
    told = to_json(Subject("toy", "inference", "float32", 2, (32, 48)), example())
    assert told.keys() == {
        "schema", "date", "eyeline", "torch", "subject", "limits", "whole", "uncounted", "sum",
    }  # fmt: skip
    assert told["sum"]["parts"][0]["parts"][1] == {
        "name": "bn", "calls": 2, "seconds": 0.01, "operations": {"float32": 3 * 10**9},
        "bytes": 5 * 10**9, "floor": 6.0, "limit": "memory", "parts": [], "fraction": 600.0,
    }  # fmt: skip
