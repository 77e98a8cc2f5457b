"""Darknet's files of weights: how they are told, what does not fit, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eyeline.checkpoints import darknet, load_weights
from eyeline.checkpoints.darknet_cfg import network_of
from eyeline.errors import EyelineError
from eyeline.registry import create_model

TINY = 8858734  # numbers of yolov3-tiny.weights: 35434956 bytes less a header of 20, by 4
CFG = """[net]
width=64
height=32
# comment
[convolutional]
batch_normalize=1
filters=16
size=3
pad=1
[maxpool]
size=2
stride=1
[convolutional]
filters=8
size=1
[route]
layers=-1,0
[convolutional]
filters=2
size=3
"""


def write(path, count, header=(0, 2, 0), seen="<i8"):
    values = np.random.default_rng(0).random(count, np.float32)
    content = np.array(header, "<i4").tobytes() + np.zeros(1, seen).tobytes()
    path.write_bytes(content + values.tobytes())
    return values


def test_the_published_tiny_is_recognised_by_its_length(tmp_path):
    values = write(tmp_path / "a.weights", TINY)
    model = create_model(weights=tmp_path / "a.weights")
    assert (model.name, model.config.num_classes) == ("yolov3_tiny", 80)
    assert model.classes[0] == "person" and model.config.convention == "darknet"
    norm, conv = model.backbone.conv1.norm, model.backbone.conv1.conv
    for i, tensor in enumerate((norm.bias, norm.weight, norm.running_mean, norm.running_var)):
        assert np.array_equal(tensor.detach().numpy(), values[16 * i : 16 * (i + 1)])
    assert np.array_equal(conv.weight.detach().numpy().ravel(), values[64 : 64 + 432])
    assert float(model.scales[1].output.weight.detach().flatten()[-1]) == values[-1]
    assert len(model.load_report.missing) == 0


@pytest.mark.parametrize(("more", "text"), [(5, "5 too many"), (-3, "3 too few")])
def test_a_file_that_does_not_fit_says_by_how_much(tmp_path, more, text):
    write(tmp_path / "a.weights", TINY + more)
    with pytest.raises(EyelineError, match=text):
        create_model(weights=tmp_path / "a.weights")


def test_a_file_that_does_not_fit_its_cfg_says_by_how_much(tmp_path):
    wanted = 16 * (4 + 27) + 8 * (1 + 16) + 2 * (1 + 24 * 9)
    write(tmp_path / "a.weights", wanted + 2)
    (tmp_path / "a.cfg").write_text(CFG)
    with pytest.raises(EyelineError, match=f"a.cfg {wanted}: 2 too many"):
        darknet.read(tmp_path / "a.weights")
    write(tmp_path / "a.weights", wanted)
    with pytest.raises(EyelineError, match=r"no layer .*, and is none of the backbones darknet53"):
        darknet.read(tmp_path / "a.weights")


# What the published files are long, in bytes: a header, and four for each number.
@pytest.mark.parametrize(
    ("size", "header", "name", "classes", "options"),
    [
        (248007048, 20, "yolov3", 80, {}),
        (203934260, 16, "yolov2", 80, {"priors": (18.32736, 21.67632)}),
        (44948596, 16, "yolov2", 80, {"backbone": "darknet_tiny", "neck_width": 512}),
        (63471556, 16, "yolov2", 20, {"backbone": "darknet_tiny", "priors": (34.56, 38.08)}),
        (789312988, 16, "yolov1", 20, {}),
    ],
)
def test_published_files_are_known_by_their_length(size, header, name, classes, options):
    found, told = darknet._by_count((size - header) // 4, "a.weights")
    assert (found, told["num_classes"], told["convention"]) == (name, classes, "darknet")
    for key, value in options.items():
        start = told[key][: len(value)] if isinstance(value, tuple) else told[key]
        assert start == (pytest.approx(value) if isinstance(value, tuple) else value)


def test_priors_that_nobody_knows_are_asked_for():
    seven = 50983561 - 73 * 5125  # of seven classes
    with pytest.raises(EyelineError, match=r"yolov2 of 7 classes, .* its priors are in its .cfg"):
        darknet._by_count(seven, "a.weights")


def test_a_small_yolov1_pours_in_its_files_order(tmp_path):
    model = create_model(
        "yolov1", num_classes=1, size=64, neck_width=4, head_width=3, grid=2, convention="darknet",
        backbone="extraction",
    )  # fmt: skip
    order = [name for name, _, _ in darknet.convolutions(model)]
    assert order[-2:] == ["hidden", "output"] and len(order) == 26
    count = sum(layer.count for _, _, layer in darknet.convolutions(model))
    values = np.arange(count, dtype=np.float32)
    state = darknet.pour(values, model, "here")
    assert float(state["output.weight"].flatten()[-1]) == count - 1
    hidden = state["hidden.bias"].numel() + state["hidden.weight"].numel()
    after = state["output.bias"].numel() + state["output.weight"].numel()
    assert float(state["hidden.bias"].flatten()[0]) == count - after - hidden
    assert state.keys() == {
        key for key in model.state_dict() if not key.endswith("num_batches_tracked")
    }
    with pytest.raises(EyelineError, match="1 too many"):
        darknet.pour(np.zeros(count + 1, np.float32), model, "here")


def test_headers_of_both_versions(tmp_path):
    new, old = tmp_path / "a.weights", tmp_path / "b.conv.7"
    values = write(new, 9)
    assert np.array_equal(darknet.read_values(new), values)
    write(old, 9, (0, 1, 0), "<i4")
    assert np.array_equal(darknet.read_values(old), values)
    assert darknet.recognise(old)
    torch.save({"a": torch.zeros(3)}, tmp_path / "c.pth")
    assert not darknet.recognise(tmp_path / "c.pth")
    new.write_bytes(new.read_bytes()[:-1])
    with pytest.raises(EyelineError, match="cut off"):
        darknet.read_values(new)


def test_what_cannot_be_opened_and_what_is_torchs_are_named(tmp_path):
    for call in (darknet.recognise, darknet.read_values, darknet.first_files):
        with pytest.raises(EyelineError, match=r"cannot read .*: Is a directory"):
            call(tmp_path)
    torch.save({"a": torch.zeros(300)}, tmp_path / "best.weights")
    with pytest.raises(EyelineError, match=r"is a torch file, not .*; rename it to \.pth"):
        create_model(weights=tmp_path / "best.weights")


def test_a_model_whose_config_names_no_backbone(tmp_path):
    write(tmp_path / "a.weights", 9)
    with pytest.raises(EyelineError, match="the model's backbone is none that its config names"):
        darknet.read_start(tmp_path / "a.weights", torch.nn.Module())


@pytest.mark.parametrize(
    "layers",
    [
        "[convolutional]\nfilters=65536\nsize=65535\npad=1\n" * 2,
        "[local]\nfilters=65536\nsize=3\npad=1\n",
        "[connected]\noutput=65536\n",
    ],
)
def test_layers_of_too_many_numbers_are_refused(tmp_path, layers):
    cfg = f"[net]\nheight=65536\nwidth=65536\n{layers}[yolo]\n"
    (tmp_path / "a.cfg").write_text(cfg)
    with pytest.raises(EyelineError, match=r"line 4, .*: \d+ numbers; 1099511627776 is the most"):
        network_of(tmp_path / "a.cfg")


def test_weights_of_one_model_do_not_go_into_another(tmp_path):
    write(tmp_path / "a.weights", TINY)
    with pytest.raises(EyelineError, match="has 80 classes, the model 3"):
        load_weights(
            create_model("yolov3_tiny", num_classes=3, convention="darknet"), tmp_path / "a.weights"
        )
    with pytest.raises(EyelineError, match="holds a yolov3_tiny"):
        create_model("retinanet", weights=tmp_path / "a.weights")


# -- files that end behind some layer, for a backbone

BODY = 6298480  # numbers of the small network's seven convolutions
FIRST = 1024 * 256 + 4 * 256 + 256 * 512 * 9 + 4 * 512  # of the two behind it
SMALL = {"num_classes": 2, "size": 64, "norm_epsilon": 1e-6}


@pytest.mark.parametrize(
    ("count", "loaded", "missing"),
    [
        (BODY, 35, 0),
        (BODY + FIRST, 45, None),  # yolov3-tiny.conv.15
        (BODY - 512 * 1024 * 9 - 4 * 1024, 30, 5),  # yolov3-tiny.conv.11
        (BODY + 1025000, 35, 0),
    ],
)
def test_first_layers(tmp_path, count, loaded, missing):
    values = write(tmp_path / "tiny.conv", count)
    model = create_model("yolov3_tiny", **SMALL, pretrained=tmp_path / "tiny.conv")
    report = model.load_report
    assert len(report.loaded) == loaded and not report.brought
    assert np.array_equal(model.backbone.conv1.norm.bias.detach().numpy(), values[:16])
    if count == BODY + FIRST:
        last = model.scales[0].last.conv.weight.detach().flatten()
        assert np.array_equal(last[-5:].numpy(), values[-5:])
        assert "scales.1.output.bias" in report.missing and "scales.0.tower" not in str(report)
    else:
        assert len(report.missing) == missing
    assert bool(report.unused) == (count == BODY + 1025000)


def test_first_layers_in_a_detector_of_another_kind(tmp_path):
    write(tmp_path / "tiny.conv.13", BODY)
    model = create_model(
        "retinanet", num_classes=2, backbone="darknet_tiny", fpn_channels=8, size=64,
        pretrained=tmp_path / "tiny.conv.13",
    )  # fmt: skip
    assert len(model.load_report.loaded) == 35 and model.preprocess.mean == (0, 0, 0)
    assert model.config.norm_epsilon == 1e-6
    assert str(model.load_report).endswith("with the weights' image_mean, image_std, norm_epsilon")
    grey = {"in_channels": 1, "image_mean": (0.0,), "image_std": (1.0,)}
    model = create_model("yolov3_tiny", **SMALL, **grey, pretrained=tmp_path / "tiny.conv.13")
    assert model.load_report.widened == ("conv1.conv.weight",)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (BODY + 5, f"{BODY + 5} numbers, the first 7 layers of our yolov3_tiny {BODY}: 5 too many"),
        (BODY - 3, "the first 7 layers of our yolov3_tiny .*: 3 too few"),
        (19831776, "holds a darknet19, the model's backbone is a darknet_tiny"),
        (6292384, "norm='none' in its backbone, the model 'batch'; give norm='none'"),
    ],
)
def test_numbers_that_end_within_a_layer(tmp_path, count, message):
    write(tmp_path / "a.conv.15", count)
    with pytest.raises(EyelineError, match=message):
        create_model("yolov3_tiny", **SMALL, pretrained=tmp_path / "a.conv.15")


def test_first_files_of_all(tmp_path):
    """Three float32 in place of a version, connected layers the other way round."""
    path, model = tmp_path / "extraction.conv.weights", torch.nn.Linear(2, 3)
    values = write(path, 9, np.array([0.001, 0.9, 0.0005], "<f4").view("<i4"), "<i4")
    assert np.array_equal(darknet.read_values(path), values) and darknet.first_files(path)
    weight = darknet.pour(values, torch.nn.Sequential(model), "here", first=True)["0.weight"]
    assert np.array_equal(weight.numpy(), values[3:].reshape(2, 3).T)


# Bytes of the published files: a header, and four for each number.
@pytest.mark.parametrize(
    ("name", "backbone", "size", "norm"),
    [
        ("darknet53.conv.74", "darknet53", 162482580, "batch"),
        ("darknet19_448.conv.23", "darknet19", 79327120, "batch"),
    ],
)
def test_published_files_end_behind_a_backbone(name, backbone, size, norm):
    layers = darknet.convolutions(darknet._bare(backbone, norm))
    header = 20 if size % 8 == 4 else 16
    assert sum(layer.count for *_, layer in layers) == (size - header) // 4
