"""Networks of any of darknet's layers, from a `.cfg` and its weights: what they compute, what is
refused and how, and that no cfg ends in anything but a line."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eyeline.checkpoints import darknet, save_weights
from eyeline.checkpoints.darknet_cfg import model_of, network_of
from eyeline.errors import EyelineError
from eyeline.nn.darknet_net import DarknetNet
from eyeline.note import watch
from eyeline.registry import create_model

# In the manner of yolov1-tiny.cfg: [local] and [connected] know the map's size.
YOLOV1 = """[net]
width=64
height=64
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=3
size=3
stride=4
pad=1
activation=relu
[local]
size=3
stride=1
pad=1
filters=6
activation=leaky
[dropout]
probability=.5
[connected]
output=44
activation=linear
[detection]
classes=1
coords=4
side=2
num=2
sqrt=1
"""
YOLOV3 = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[maxpool]
size=2
stride=2
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=2,3
anchors=4,5, 8,9, 20,21, 30,31
classes=2
num=4
jitter=.3
[route]
layers=-3
[upsample]
stride=2
[route]
layers=-1,2
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=4,5, 8,9, 20,21, 30,31
classes=2
num=4
"""
REGION = YOLOV3[: YOLOV3.index("[yolo]")] + (
    "[region]\nanchors=1,1.5,2,3\nclasses=2\nnum=2\nsoftmax=1\ncoords=4\nrescore=1\n"
)


def write(folder: Path, cfg: str, more: int = 0, bias: float = 0.0) -> Path:
    """A cfg and as many numbers as it needs, or some more."""
    (folder / "own.cfg").write_text(cfg)
    _, _, network = network_of(folder / "own.cfg")
    count = sum(layer.count for _, _, layer in darknet.convolutions(network)) + more
    values = 0.3 * np.random.default_rng(0).random(count, np.float32) + np.float32(bias)
    content = np.array((0, 2, 0), "<i4").tobytes() + np.zeros(1, "<i8").tobytes()
    (folder / "own.weights").write_bytes(content + values.tobytes())
    return folder / "own.weights"


def plain_conv(x, weight, bias, stride, pad):
    outputs, _, size, _ = weight.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    side = (x.shape[1] - size) // stride + 1
    out = np.zeros((outputs, side, side))
    for f in range(outputs):
        for i in range(side):
            for j in range(side):
                window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
                out[f, i, j] = (window * weight[f]).sum() + bias[f]
    return out


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def test_a_network_of_the_first_version_against_a_plain_loop(tmp_path):
    """Straight from the numbers in the file, in its order."""
    path = write(tmp_path, YOLOV1, bias=-0.15)
    model = create_model(weights=path).eval()
    assert (model.name, model.config.grid, model.config.boxes) == ("yolov1", 2, 2)
    values, place = darknet.read_values(path).astype(float), 0

    def take(*shape):
        nonlocal place
        count = int(np.prod(shape))
        place += count
        return values[place - count : place].reshape(shape)

    torch.manual_seed(0)
    picture = torch.rand(3, 64, 64)
    beta, gamma, mean, variance, kernel = take(4), take(4), take(4), take(4), take(4, 3, 3, 3)
    variance = np.abs(variance)
    model.layers.get_submodule("0.norm").running_var.abs_()
    x = plain_conv(picture.double().numpy(), kernel, np.zeros(4), 2, 1)
    scale = (gamma / np.sqrt(variance + 1e-6))[:, None, None]
    x = leaky((x - mean[:, None, None]) * scale + beta[:, None, None])
    x = x.reshape(4, 16, 2, 16, 2).max((2, 4))
    bias, kernel = take(3), take(3, 4, 3, 3)
    x = np.maximum(plain_conv(x, kernel, bias, 4, 1), 0)  # (3, 4, 4)
    bias, kernel = take(6, 4, 4), take(4, 4, 6, 3, 3, 3)
    padded, out = np.pad(x, ((0, 0), (1, 1), (1, 1))), np.zeros((6, 4, 4))
    for i in range(4):
        for j in range(4):
            window = padded[:, i : i + 3, j : j + 3]
            out[:, i, j] = (kernel[i, j] * window).sum((1, 2, 3)) + bias[:, i, j]
    bias, kernel = take(44), take(44, 96)
    expected = kernel @ leaky(out).reshape(-1) + bias
    assert place == len(values)
    with torch.no_grad():
        found = model.outputs(model.prepare([picture]).images)[0]
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_published_yolov1_tiny_has_as_many_numbers(tmp_path):
    """Its file is 108399816 bytes long, a header of 16 and the numbers."""
    conv = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\npad=1\nactivation=leaky\n"
    pool = "[maxpool]\nsize=2\nstride=2\n"
    parts = [conv.format(width) + pool for width in (16, 32, 64, 128, 256, 512)]
    parts += [conv.format(1024), conv.format(256), "[connected]\noutput=1470\nactivation=linear\n"]
    head = "[detection]\nclasses=20\ncoords=4\nside=7\nnum=2\nsqrt=1\nnoobject_scale=.5\n"
    (tmp_path / "a.cfg").write_text("[net]\nheight=448\nwidth=448\n" + "".join(parts) + head)
    found = network_of(tmp_path / "a.cfg")
    count = sum(layer.count for _, _, layer in darknet.convolutions(found[2]))
    assert count == (108399816 - 16) // 4
    name, options = model_of(*found)
    assert (name, len(options["layers"]), options["boxes"]) == ("yolov1", 16, 2)


@pytest.mark.parametrize("cfg", [YOLOV1, YOLOV3, REGION])
def test_it_learns_is_saved_and_takes_other_classes(tmp_path, cfg):
    path = write(tmp_path, cfg, bias=-0.1)
    model = create_model(weights=path)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_()
    picture = torch.rand(3, 50, 60)
    target = {"boxes": torch.tensor([[5.0, 8, 30, 40]]), "labels": torch.tensor([0])}
    sum(model([picture], [target]).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    save_weights(model.eval(), tmp_path / "own.safetensors")
    again = create_model(weights=tmp_path / "own.safetensors").eval()
    assert again.config == model.config and again.config.layers
    with torch.no_grad():
        for one, other in zip(
            again([picture])[0].values(), model([picture])[0].values(), strict=True
        ):
            assert torch.equal(one, other)
    more = create_model(weights=tmp_path / "own.safetensors", classes=list("abcde"))
    assert len(more.load_report.replaced) == 2 * len(more.layers.ends)
    assert sum(more([picture], [target]).values()).isfinite()


def test_features_and_outputs_are_noted(tmp_path):
    model, seen = create_model(weights=write(tmp_path, YOLOV3)).eval(), {}
    with torch.no_grad(), watch(seen.__setitem__):
        model([torch.rand(3, 50, 60)])
    assert [len(v) for v in seen["outputs of the scales, sec. 2.3"]] == [1, 1]
    assert "detections" in seen
    # The last map of stride 4 before the first output: the pooled one.
    assert [v.shape[1:] for v in seen["features C2 to C2"]] == [(8, 16, 16)]


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [YOLOV1, YOLOV3, REGION])
def test_tools_take_such_a_model(tmp_path, cfg):
    from eyeline.export import export_model, optimize
    from eyeline.inspection import trace, xray

    path = write(tmp_path, cfg, bias=-0.1)
    model = create_model(weights=path, score_threshold=1e-4).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_()
    picture = torch.rand(3, 50, 60)
    with torch.no_grad():
        expected = model([picture])[0]
        fast = optimize(model)([picture])[0]
        compiled = torch.compile(model.compute, fullgraph=True, backend="eager")
        again = model.finish(compiled(model.prepare([picture])), model.prepare([picture]))[0]
    assert len(expected["boxes"]) > 3
    for other in (fast, again):
        torch.testing.assert_close(other["boxes"], expected["boxes"], atol=1e-3, rtol=1e-4)
    assert trace(model, picture) and xray(model, picture)
    export_model(model, tmp_path / "own.onnx")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[maxpool]", "[lstm]", r"own.cfg, line 22, \[lstm\]: no such layer is read"),
        ("from=-2", "from=-9", r"line 19, \[shortcut\]: from=-9 is no layer before it, which is 2"),
        ("from=-2", "", r"line 19, \[shortcut\]: from= is no whole number"),
        ("layers=-1,2", "layers=-1,44", r"line 39, \[route\]: layers=44 is no layer before it"),
        ("layers=-1,2", "layers=-1,3", r"\[route\]: its layers give 8 x 32 x 32 and 8 x 16 x 16"),
        ("layers=-3", "layers=-1", r"line 35, \[route\]: it reads layer 5, \[yolo\], an end"),
        ("from=-2", "from=0\nalpha=2", r"alpha=2, and 1 alone is read"),
        ("filters=8\nsize=3\nstride=1", "filters=9\nsize=3\nstride=1",
         r"line 19, \[shortcut\]: it adds 8 x 32 x 32 to 9 x 32 x 32"),
        ("size=3", "size=x", r"line 5, \[convolutional\]: size=x is no whole number"),
        ("size=3", "size=3\ndilation=2", "dilation=2, and 1 alone is read"),
        ("size=3", "siez=3", "siez=3: no such option is known"),
        ("size=3\nstride=2\npad=1", "size=70\nstride=2", r"of 3 x 64 x 64 it makes 8 x -2 x -2"),
        ("activation=leaky", "activation=gelu", "activation=gelu is none of linear, leaky"),
        ("size=2\nstride=2", "size=2\nstride=2\npadding=3", "padding=3 is too much for size=2"),
        ("filters=14", "filters=15",
         r"line 29, \[yolo\]: it reads 15 channels, and 2 priors of 2 classes make 14"),
        ("mask=2,3", "mask=2,4", "mask=4 is not from 0 to 3"),
        ("mask=2,3\nanchors=4,5, 8,9, 20,21, 30,31\nclasses=2",
         "mask=2\nanchors=4,5, 8,9, 20,21\nclasses=9", "classes=9, in .* line 45 2"),
        ("anchors=4,5", "anchors=4", "anchors= are widths and heights"),
        ("classes=2\nnum=4\njitter", "classes=2\nscale_x_y=1.05\njitter", "scale_x_y=1.05, and 1"),
        ("width=64", "width 64", "line 2: 'width 64' is no option of a section"),
        ("[net]", "[maxpool]", r"does not begin with \[net\]"),
        ("stride=2\n", "stride=1024\n", "cells of 2048 pixels; 1024 is the most"),
    ],
)  # fmt: skip
def test_a_bad_cfg_is_named(tmp_path, old, new, message):
    assert old in YOLOV3
    count = 2 if old == "anchors=4,5" else 1
    refused(tmp_path, YOLOV3.replace(old, new, count), message)


def refused(folder: Path, cfg: str, message: str) -> None:
    (folder / "own.cfg").write_text(cfg)
    with pytest.raises(EyelineError, match=message) as caught:
        model_of(*network_of(folder / "own.cfg"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sqrt=1", "sqrt=0", "sqrt=0, and 1 alone is read"),
        ("[detection]", "[region]\n[detection]", r"line 32, \[detection\]: it reads layer 6"),
        ("output=44", "output=45", "it reads 45 channels, and side=2, num=2, classes=1 make 44"),
        ("width=64", "width=96", "64 x 96 pixels; a network with .detection. sees squares"),
        ("[connected]\noutput=44", "[convolutional]\nfilters=44", "reads a map, 44 x 4 x 4"),
        ("size=3\nstride=1", "size=5\nstride=1", "size=5; with pad=1 it is read with size=3"),
        ("probability=.5", "probability=2", "probability=2 is not from 0 to 1"),
    ],
)
def test_heads_that_mean_something_else_are_refused(tmp_path, old, new, message):
    assert old in YOLOV1
    refused(tmp_path, YOLOV1.replace(old, new), message)


def test_heads_of_unequal_numbers_of_priors_are_refused(tmp_path):
    first = YOLOV3.index("mask=0,1")  # the finer head: three priors, then one
    coarse, fine = YOLOV3[:first], YOLOV3[first:].replace("mask=0,1", "mask=0,1,2")
    start, end = coarse.rsplit("filters=14", 1)
    cfg = start.replace("filters=14", "filters=7") + "filters=21" + end + fine
    refused(tmp_path, cfg.replace("mask=2,3", "mask=3"), r"1 priors, in .*, line 45 3")


@pytest.mark.parametrize("classes", [20, 80])
def test_classes_of_a_network_of_ones_own_have_no_names(tmp_path, classes):
    cfg = REGION.replace("classes=2", f"classes={classes}")
    path = write(tmp_path, cfg.replace("filters=14", f"filters={2 * (5 + classes)}"))
    assert darknet.read(path).classes is None


def test_a_region_layer_without_softmax_is_refused(tmp_path):
    refused(tmp_path, REGION.replace("softmax=1", ""), "softmax=0, and 1 alone is read")


def test_cells_that_do_not_fill_the_picture_are_refused(tmp_path):
    message = r"line 30, \[region\]: its 15 x 15 cells do not make 64 x 64 pixels"
    refused(tmp_path, REGION.replace("size=2\nstride=2", "size=4\nstride=2\npadding=0"), message)


def test_numbers_that_do_not_fit_and_a_cfg_that_is_missing(tmp_path):
    path = write(tmp_path, YOLOV3, more=3)
    with pytest.raises(
        EyelineError, match=r"own.weights has \d+ numbers, .*own.cfg \d+: 3 too many"
    ):
        create_model(weights=path)
    path = write(tmp_path, YOLOV3, more=-2)
    with pytest.raises(EyelineError, match="2 too few"):
        create_model(weights=path)
    (tmp_path / "own.cfg").unlink()
    with pytest.raises(EyelineError, match=r"needs its \.cfg beside it"):
        create_model(weights=path)


def test_lines_of_a_config_are_checked_too():
    with pytest.raises(EyelineError, match=r"layers, number 1, \[route\]: layers=7 is no layer"):
        DarknetNet(["convolutional filters=2", "route layers=7"], None, None, 3, 64)
    with pytest.raises(EyelineError, match=r"no layer \[yolo\]"):
        create_model("yolov3", num_classes=2, layers=["convolutional filters=2"])
    with pytest.raises(EyelineError, match=r"heads have to be \[region\]"):
        create_model("yolov2", num_classes=2, layers=["convolutional filters=2", "yolo"])


def mutated(cfg: str, rng: random.Random) -> str:
    """A cfg with one to three lines or sections changed."""
    lines = cfg.splitlines()
    odd = ["-1", "0", "1", "3", "7", "64", "100000", "99999999999", "x", "", ".5", "nan", "1,,2"]
    odd.append("²")
    for _ in range(rng.randint(1, 3)):
        i, how = rng.randrange(len(lines)), rng.randrange(6)
        key, equals, _ = lines[i].partition("=")
        if how <= 1 and equals:
            lines[i] = f"{key}={rng.choice(odd)}"
        elif how == 2 and equals:
            number = re.sub(r"\d+", lambda m: str(rng.randint(0, 9)), lines[i].partition("=")[2])
            lines[i] = f"{key}={number}"
        elif how == 3:
            lines[i] = rng.choice(lines)
        elif how == 4 and len(lines) > 2:
            del lines[i]
        else:
            kinds = ("convolutional", "maxpool", "route", "shortcut", "upsample", "reorg", "local",
                     "connected", "avgpool", "softmax", "crop", "dropout", "yolo", "region",
                     "detection", "net", "gru")  # fmt: skip
            lines.insert(i, f"[{rng.choice(kinds)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("cfg", [YOLOV1, YOLOV3, REGION])
def test_no_cfg_ends_in_a_traceback(tmp_path, cfg):
    rng, path, bad, good = random.Random(1), tmp_path / "own.cfg", 0, 0
    for _ in range(70):
        path.write_text(mutated(cfg, rng))
        try:
            found = model_of(*network_of(path))
            if found is not None:
                assert isinstance(darknet.network(*found), nn.Module)
            good += 1
        except EyelineError as error:
            assert "\n" not in str(error) and "own.cfg" in str(error)
            bad += 1
    assert bad > 20 and good > 5
