"""Recomputed activations: the same gradients and statistics from less memory."""

from __future__ import annotations

import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.registry import create_model
from eyeline.training import freeze, train
from eyeline.training.recompute import recomputing, stage_blocks

SMALL = {"backbone": "resnet18", "norm": "batch", "fpn_channels": 16, "tower_depth": 1, "size": 64}


def model_and_batch():
    torch.manual_seed(0)
    model = create_model("retinanet", classes=["a", "b"], **SMALL)
    data = [ToyData(2)[i] for i in range(2)]
    return model, model.prepare([image for image, _ in data], [target for _, target in data])


def one_step(wanted: bool, parts: tuple[str, ...] = ()):
    """Gradients, buffers, and the bytes kept between forward and backward."""
    model, batch = model_and_batch()
    freeze(model, parts)
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with recomputing(model, wanted), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        losses = model(batch)
        held = sum(kept.values())
        sum(losses.values()).backward()
    return dict(model.named_parameters()), dict(model.named_buffers()), held


@pytest.mark.parametrize("parts", [(), ("backbone.conv1", "backbone.bn1", "backbone.layer1")])
def test_equal_gradients_and_statistics_from_less_memory(parts):
    plain, plain_buffers, plain_bytes = one_step(False, parts)
    again, again_buffers, again_bytes = one_step(True, parts)
    assert sum(p.grad is not None for p in plain.values()) > 30
    for name, parameter in plain.items():
        if parameter.grad is None:
            assert again[name].grad is None, name
        else:
            torch.testing.assert_close(
                parameter.grad, again[name].grad, rtol=1e-5, atol=1e-5, msg=name
            )
    for name, buffer in plain_buffers.items():
        torch.testing.assert_close(buffer, again_buffers[name], rtol=1e-6, atol=1e-7, msg=name)
    counts = {int(b) for name, b in again_buffers.items() if name.endswith("num_batches_tracked")}
    assert counts == ({0, 1} if parts else {1})
    assert again_bytes < 0.85 * plain_bytes


def test_blocks_are_as_before_afterwards():
    model, _ = model_and_batch()
    blocks = stage_blocks(model)
    assert len(blocks) == 8
    with pytest.raises(KeyError), recomputing(model):
        assert all("forward" in vars(block) for block in blocks)
        raise KeyError
    assert not any("forward" in vars(block) for block in blocks)


def test_in_a_run(tmp_path):
    heads = []
    for wanted in (False, True):
        model, _ = model_and_batch()
        train(
            model, ToyData(4), out=str(tmp_path / str(wanted)), checkpoint_activations=wanted,
            batch_size=2, epochs=1, optimizer={"name": "sgd", "lr": 1e-3},
            data={"workers": 0}, log={"tensorboard": False},
        )  # fmt: skip
        heads.append(model.backbone.layer1[0].conv1.weight)
    torch.testing.assert_close(*heads, rtol=1e-5, atol=1e-6)


def test_a_model_without_stages_is_told(tmp_path):
    with pytest.raises(EyelineError, match="ToyDetector has no backbone of stages; set it to fal"):
        train(ToyDetector(), ToyData(), out=str(tmp_path / "r"), checkpoint_activations=True)
    assert not (tmp_path / "r").exists()
