"""Exported files find what the model finds, in pictures of any size, without eyeline."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training import toys
from torch import Tensor, nn
from torch.export import Dim

from eyeline.data.images import find_images, read_image
from eyeline.errors import EyelineError
from eyeline.export import export_model, files, optimize
from eyeline.export.files import Comparison, Format, blobs, compare, differences
from eyeline.export.graph import Graph
from eyeline.nn.cells import best_pairs
from eyeline.nn.detector import Detector
from eyeline.nn.heads.roi import BoxHead
from eyeline.ops.masks import paste_masks
from eyeline.ops.select import take
from eyeline.registry import create_model

NAMES = ("retinanet", "faster_rcnn", "mask_rcnn")
SMALL: dict[str, Any] = dict(
    classes=["cat", "dog", "tree"], backbone="resnet18", fpn_channels=32, min_size=96, max_size=128,
    max_detections=30, score_threshold=0.02,
)  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "retinanet": dict(tower_depth=1, candidates=200),
    "faster_rcnn": dict(proposals=(200, 60), head_width=64, convention="torchvision"),
    "mask_rcnn": dict(proposals=(200, 60), head_width=64, mask_width=16, mask_depth=1),
    "cascade_rcnn": dict(proposals=(200, 60), head_width=64),
    "cascade_mask_rcnn": dict(proposals=(200, 60), head_width=64, mask_width=16, mask_depth=1),
    "ssd300": dict(width=16),
    "refinedet320": dict(width=16, tcb_channels=32),
    "yolov1": dict(neck_width=32, head_width=64, score_threshold=0.005),
    "yolov2": dict(neck_width=32),
    "yolov3": dict(neck_width=32),
    "yolov3_tiny": dict(neck_width=32),
}
# Of those that learnt to be exported later: only as files, and one of them quickly.
LATER: dict[str, tuple[str, dict[str, Any]]] = {
    "cascade_rcnn": ("cascade_rcnn", {}),
    "iterative boxes": ("cascade_rcnn", dict(method="iterative_bbox")),
    "integral loss": ("cascade_rcnn", dict(method="integral")),
    "cascade_mask_rcnn": ("cascade_mask_rcnn", {}),
    "ssd300": ("ssd300", {}),
    "refinedet320": ("refinedet320", {}),
    "yolov1": ("yolov1", {}),
    "yolov1 of darknet": ("yolov1", dict(convention="darknet", head_width=16)),
    "yolov2": ("yolov2", {}),
    "yolov2 of darknet": ("yolov2", dict(convention="darknet")),
    "yolov3": ("yolov3", {}),
    "yolov3 of darknet": ("yolov3", dict(convention="darknet")),
    "yolov3_tiny": ("yolov3_tiny", {}),
}
CASES = {name: (name, {}) for name in NAMES} | LATER
ROI_ALIGN = ("faster", "mask", "cascade")
# What a fresh detector says little with -> spread of the weights that make it say something.
LOUD = {
    "class_head.output": 0.6, "box_head.output": 0.05, "rpn.objectness": 0.1, "rpn.deltas": 0.02,
    "head.classes": 0.1, "head.deltas": 0.1, "mask_head.classes": 0.3,
    "output": 0.05, "classes": 0.3, "deltas": 0.03,  # of any other part
}  # fmt: skip


def lively(name: str, **options: Any) -> Any:
    """A detector of random weights that finds many things, of several classes and sizes."""
    torch.manual_seed(0)
    small = toys.known(name, SMALL | MORE[name] | options) | {"classes": SMALL["classes"]}
    model = create_model(name, **small).eval()
    for key, layer in model.named_modules():
        spread = LOUD.get(key, LOUD.get(key.rpartition(".")[2]))
        if spread and isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=spread)
    return model


def wanted(model: Any, images: Tensor) -> list[dict[str, Tensor]]:
    """What the model finds in pictures (B, 3, H, W); masks are small."""
    with torch.inference_mode():
        batch = model.prepare(list(images))
        padded = model.compute(batch)
        found = Detector.finish(model, padded, batch)
    for i, one in enumerate(found):
        assert len(one["scores"]) >= 5
        if padded.masks is not None:
            one["masks"] = padded.masks[i][padded.valid[i]]
    return found


def check(run: Callable[[Tensor], Any], model: Any, *pictures: Tensor) -> None:
    """Of each picture alone and of a batch of two the file finds what the model finds."""
    labels = set()
    for picture in pictures:
        for images in (picture[None], torch.stack([picture, picture.flip(2)])):
            found = run(images)
            assert found["boxes"].shape == (len(images), 30, 4)
            assert found["boxes"].dtype == torch.float32 and found["labels"].dtype == torch.int64
            for i, one in enumerate(wanted(model, images)):
                count = int(found["count"][i])
                assert count == len(one["scores"])
                assert not any(found[key][i, count:].any() for key in one)
                compared = differences({key: found[key][i, :count] for key in one}, one)
                assert compared.boxes <= 0.01 and compared.scores <= 1e-4
                assert (compared.masks or 0) <= 1e-3
                assert ("masks" in found) == ("masks" in one)
                labels |= set(one["labels"].tolist())
                assert one["boxes"].max() > max(images.shape[2:]) / 2
    assert len(labels) > 1


@pytest.fixture(scope="module")
def photograph_path(shared_data: Path) -> Path:
    return find_images(shared_data / "tiny_coco" / "val2017")[0]


@pytest.fixture(scope="module")
def photograph(photograph_path: Path) -> Tensor:
    return read_image(photograph_path)


def documented(word: str) -> str:
    """The Python block of the page that has the word."""
    page = Path(__file__).parents[2] / "docs" / "export.md"
    blocks = [block.partition("```")[0] for block in page.read_text().split("```python\n")[1:]]
    [code] = [block for block in blocks if word in block]
    return code


def check_script(path: Path, picture: Path, expected: dict[str, Tensor]) -> None:
    """Ten lines, without eyeline and torch, find what the model finds."""
    code = documented("InferenceSession")
    assert sum(map(bool, code.splitlines())) == 10
    assert "eyeline" not in code and "torch" not in code
    code = code.replace("model.onnx", str(path)).replace("digits/val/00000.png", str(picture))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["classes"] == ["cat", "dog", "tree"]
    count = len(expected["scores"])
    found = {key: torch.from_numpy(names[key][0][:count]) for key in ("boxes", "scores", "labels")}
    compared = differences(found, {key: expected[key] for key in found})
    assert compared.boxes <= 0.01 and compared.scores <= 1e-4


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


# -- the graph, run by torch as it stands


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_finds_what_the_model_finds(name: str, photograph: Tensor) -> None:
    model = lively(name)
    with torch.inference_mode():
        check(Graph(model), model, photograph, noise(300, 40))


@pytest.mark.parametrize("size", [(96, 96), (49, 1000), (1, 3), (333, 97), (720, 1280)])
def test_the_resized_size_is_the_models(size: tuple[int, int]) -> None:
    """In double precision as Python's own numbers, with the same rounding."""
    model = lively("retinanet")
    for min_size, max_size in ((96, 128), (800, 1333), (101, 103)):
        model.preprocess.min_size, model.preprocess.max_size = min_size, max_size
        expected = model.prepare([torch.zeros(3, *size, dtype=torch.uint8)]).sizes[0]
        assert torch.equal(Graph(model).fitted(torch.tensor(size)), expected)


# -- the files


class Pairs(nn.Module):
    """The parts in which torch once took a size for a number, or could not follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = BoxHead(4, 2, 3, width=8, boxes=0)

    def forward(self, regions: Tensor, cells: Tensor) -> Any:
        """Regions (R, 4, 2, 2); cells (B, H, W, 3), of which the best are taken."""
        scores = cells.flatten(1, 2)
        return *self.head(regions), *best_pairs(scores.amax(-1), partial(take, scores), 40, 0.5)


def test_torch_follows_every_size() -> None:
    """Quickly, in place of the files of whole models; N of few and many rows."""
    parts, any_size = Pairs().eval(), Dim.DYNAMIC
    program = torch.export.export(
        parts, (torch.rand(5, 4, 2, 2), torch.rand(2, 6, 5, 3)),
        dynamic_shapes=({0: any_size}, {0: any_size, 1: any_size, 2: any_size}),
    ).module()  # fmt: skip
    for regions, batch, side in ((3, 1, 9), (7, 3, 2)):
        given = torch.rand(regions, 4, 2, 2), torch.rand(batch, side, 4, 3)
        *found, valid = program(*given)
        *expected, filled = parts(*given)
        assert valid.shape == (batch, 40) and torch.equal(valid.sum(1), filled.sum(1))
        valid[:, filled.shape[1] :] = False
        for mine, theirs in zip(found[:2], expected[:2], strict=True):
            torch.testing.assert_close(mine, theirs)
        for mine, theirs in zip(found[2:], expected[2:], strict=True):
            torch.testing.assert_close(mine[valid], theirs[filled])


@pytest.mark.slow  # half a minute each: torch follows every size through the graph
@pytest.mark.parametrize("case", CASES)
def test_onnx_files(case: str, photograph: Tensor, photograph_path: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    name, options = CASES[case]
    model, path = lively(name, **options).train(), tmp_path / "model.onnx"
    compared = export_model(model, path, picture=photograph)
    assert model.training and compared.detections >= 5
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]

    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert {o.domain for o in graph.opset_import} == {""} and not graph.functions
    kinds = {node.op_type for node in graph.graph.node}
    assert {node.domain for node in graph.graph.node} == {""} and "NonMaxSuppression" in kinds
    assert ("RoiAlign" in kinds) == name.startswith(ROI_ALIGN)
    [image] = graph.graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip

    session = onnxruntime.InferenceSession(path)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == ["cat", "dog", "tree"]
    assert json.loads(known["min_size"]) == 96 and json.loads(known["model"]) == name
    check(files.load_onnx(path), model.eval(), photograph, noise(300, 40), noise(20, 20))
    check_script(path, photograph_path, wanted(model, photograph[None])[0])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_programs_of_torch(case: str, photograph: Tensor, tmp_path: Path) -> None:
    name, options = CASES[case]
    model, path = lively(name, **options), tmp_path / "model.pt2"
    export_model(model, path, format="torch", picture=photograph)
    known = {"classes": "", "max_size": ""}
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=known)
    assert json.loads(known["classes"]) == ["cat", "dog", "tree"] and known["max_size"] == "128"
    with torch.inference_mode():
        check(program.module(), model, photograph, noise(300, 40), noise(20, 20))


# -- what goes wrong


def told(*arguments: Any, **options: Any) -> str:
    with pytest.raises(EyelineError) as caught:
        export_model(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_exported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = lively("faster_rcnn"), tmp_path / "m.onnx"
    assert "'tensorrt'; there are: onnx, torch" in told(model, path, "tensorrt")
    plain = model.config
    for format, options, words in (
        ("onnx", {"nms": "soft_linear"}, "no operator for nms 'soft_linear'"),
        ("torch", {"pooling": "roi_pool"}, "no operator for pooling 'roi_pool'"),
        ("torch", {"sampling_ratio": 0}, "sampling_ratio 0"),
    ):
        model.config = replace(plain, **options)
        assert words in told(model, path, format)
    model.config = plain
    assert "give it, not optimize(model)" in told(optimize(model), path, "torch")
    assert "not Linear" in told(nn.Linear(1, 1), path, "torch")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "onnxscript" else name)
    message = told(model, path)
    assert "needs onnxscript; " in message and "pip install 'eyeline[export]'" in message


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make "torch" a format whose file is run eagerly, its boxes moved by some pixels."""

    def replaced(pixels: float) -> None:
        kept: list[Any] = []

        def write(model: Any, path: Path, facts: Any, size: Any) -> None:
            path.write_text(json.dumps(dict(facts)))
            kept.append(Graph(model))

        def run(images: Tensor) -> dict[str, Tensor]:
            found = kept[-1](images)
            return found | {"boxes": found["boxes"] + pixels}

        monkeypatch.setitem(files.FORMATS, "torch", Format(".pt2", (), write, lambda path: run))

    return replaced


def test_a_file_that_differs_is_not_kept(
    tmp_path: Path, eager: Callable[[float], None], photograph: Tensor
) -> None:
    model, path = lively("mask_rcnn"), tmp_path / "new" / "m.pt2"
    eager(0.02)
    assert "differs from the model, " in told(model, path, "torch", picture=photograph)
    assert not list(path.parent.iterdir())
    eager(0.005)
    compared = export_model(model, path, "torch", picture=photograph)
    assert 0.004 < compared.boxes < 0.006 and compared.scores < 1e-4 and compared.masks is not None
    assert json.loads(path.read_text())["mask_threshold"] == "0.5"
    assert str(compared).startswith(f"{compared.detections} detections: boxes within 0.005 px")


def test_a_file_is_overwritten_only_by_force(
    tmp_path: Path, eager: Callable[[float], None]
) -> None:
    model, path = lively("retinanet"), tmp_path / "m.pt2"
    path.write_text("dear")
    eager(0)
    assert "exists already" in told(model, path, "torch") and path.read_text() == "dear"
    export_model(model, path, "torch", force=True)
    assert path.read_text() != "dear"


def test_comparison_minds_classes_and_counts_not_order() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    theirs = {"boxes": boxes, "scores": torch.tensor([0.9, 0.9]), "labels": torch.tensor([0, 1])}
    turned = {key: value.flip(0) for key, value in theirs.items()}
    assert differences(turned, theirs) == Comparison(2, 0.0, 0.0, None)
    other = theirs | {"labels": torch.tensor([1, 1])}
    assert differences(other, theirs).boxes == np.inf
    twice = {key: value[[0, 0]] for key, value in theirs.items()}
    assert differences(twice, theirs).boxes == np.inf
    model = lively("retinanet")
    image = blobs(model)
    found = Graph(model)(image[None])
    assert compare(lambda _: found, model).detections == found["count"][0]
    found["count"] -= 1
    with pytest.raises(EyelineError, match=r"the file finds \d+ objects, the model \d+"):
        compare(lambda _: found, model)


# -- the documentation


def test_masks_are_pasted_by_the_function_in_the_documentation() -> None:
    tree = ast.parse(documented("def paste"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) == 1
    names: dict[str, Any] = {"np": np}
    exec(compile(ast.Module(functions, []), "export.md", "exec"), names)
    masks = torch.rand(3, 28, 28)
    boxes = torch.tensor([[3.2, 5.1, 40.7, 22.0], [-4.0, -3.5, 12.0, 9.0], [50, 20, 70.5, 52]])
    expected = paste_masks(masks, boxes, (40, 60))
    for mask, box, one in zip(masks, boxes, expected, strict=True):
        assert np.array_equal(names["paste"](mask.numpy(), box.numpy(), 40, 60), one.numpy())
        assert one.any()
