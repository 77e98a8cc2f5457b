"""Pictures of every kind through a detector, and what is said of those that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

from eyeline.checkpoints import save_weights
from eyeline.errors import EyelineError
from eyeline.inference import Predictor, sources
from eyeline.inference.predictor import load_model
from eyeline.inference.sources import find
from eyeline.nn.detector import as_float
from eyeline.registry import create_model
from eyeline.structures import Batch, Padded, Prediction


class BrightBox(nn.Module):
    """Finds the box of the pixels brighter than half, once sure and once less so."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = ["lamp", "sun"]
        self.conv = nn.Conv2d(1, 1, 1)
        self.batches: list[int] = []

    def prepare(self, images: list[torch.Tensor]) -> Batch:
        height, width = (max(i.shape[d] for i in images) for d in (1, 2))
        padded = torch.zeros(len(images), 3, height, width)
        for slot, image in zip(padded, images, strict=True):
            slot[:, : image.shape[1], : image.shape[2]] = as_float(image)
        sizes = torch.tensor([i.shape[1:] for i in images])
        return Batch(padded, sizes, sizes)

    def compute(self, batch: Batch) -> Padded:
        self.batches.append(len(batch))
        boxes = []
        for image in batch.images:
            y, x = (image.mean(0) > 0.5).nonzero().T
            boxes.append(torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float())
        found = torch.stack(boxes)[:, None].expand(-1, 3, -1)
        scores = torch.tensor([0.3, 0.9, 0.6]).expand(len(found), -1)
        labels = torch.tensor([0, 1, 0]).expand(len(found), -1)
        return Padded(found, scores, labels, torch.ones_like(labels, dtype=torch.bool))

    def finish(self, padded: Padded, batch: Batch) -> list[Prediction]:
        boxes, scores, labels, *_ = padded
        return [
            {"boxes": boxes[i], "scores": scores[i], "labels": labels[i]} for i in range(len(boxes))
        ]


BOX = [30, 20, 50, 44]


def picture(offset: int = 0) -> np.ndarray:
    array = np.zeros((60, 80, 3), np.uint8)
    x1, y1, x2, y2 = BOX
    array[y1:y2, x1 + offset : x2 + offset] = 255
    return array


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(5):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    yield from serve(partial(Quiet, directory=str(folder)))


def serve(handler: Any) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def check(result: Any, offset: int = 0) -> None:
    x1, y1, x2, y2 = BOX
    wanted = [x1 + offset, y1, x2 + offset, y2]
    assert result.boxes.tolist() == [wanted, wanted]
    assert result.scores.tolist() == pytest.approx([0.9, 0.6])  # best first, 0.3 left out
    assert result.names == ["sun", "lamp"]
    assert result.image.shape == (3, 60, 80) and result.image.dtype == torch.uint8


def test_single_pictures_of_every_kind(folder: Path, server: str) -> None:
    predict = Predictor(BrightBox())
    array = picture()
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    kinds: list[Any] = [
        folder / "0.png", str(folder / "0.png"), f"{server}/0.png", array, tensor,
        tensor.float() / 255, array / 255, Image.fromarray(array),
        Image.fromarray(array).convert("L"),
    ]  # fmt: skip
    for kind in kinds:
        check(predict(kind))
    assert predict(folder / "0.png").path == str(folder / "0.png")
    assert predict(f"{server}/0.png").path == f"{server}/0.png"
    assert predict(array).path is None


def test_folders_patterns_and_lists(folder: Path) -> None:
    predict = Predictor(BrightBox())
    for source in (folder, str(folder), f"{folder}/*.png", sorted(folder.glob("*.png"))):
        results = predict(source)
        assert len(results) == 5
        for i, result in enumerate(results):
            check(result, i)
    mixed = predict([folder / "1.png", picture(2), Image.fromarray(picture(3))])
    for i, result in enumerate(mixed):
        check(result, i + 1)
    assert predict([]) == []


def test_batches(folder: Path) -> None:
    predict = Predictor(BrightBox())
    predict(folder, batch_size=2)
    assert predict.model.batches == [2, 2, 1]
    with pytest.raises(EyelineError, match="at least 1"):
        predict(folder, batch_size=0)


def test_stream_reads_no_further_than_asked(folder: Path) -> None:
    (folder / "4.png").write_bytes(b"no picture")
    predict = Predictor(BrightBox())
    results = predict.stream(folder)
    for i in range(4):
        check(next(results), i)
    with pytest.raises(EyelineError, match=r"4\.png"):
        next(results)


def test_a_model_is_copied() -> None:
    model = BrightBox().train()
    predict = Predictor(model)
    assert model.training and not predict.model.training
    predict(picture())
    assert model.batches == []


def test_threshold() -> None:
    assert len(Predictor(BrightBox(), score_threshold=0)(picture())) == 3
    assert len(Predictor(BrightBox(), score_threshold=1)(picture())) == 0
    with pytest.raises(EyelineError, match="0 to 1"):
        Predictor(BrightBox(), score_threshold=50)


def test_a_low_threshold_reaches_the_model() -> None:
    model = create_model("retinanet", num_classes=1, backbone="resnet18", size=64)
    assert len(Predictor(model, score_threshold=0.5)(picture())) == 0
    assert model.config.score_threshold == 0.05
    low = Predictor(model, score_threshold=0.001)(picture())  # it starts at about 0.01
    assert len(low) > 0 and max(low.scores.tolist()) < 0.05


def test_pictures_are_turned_upright() -> None:
    turned = Image.fromarray(picture()).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ExifTags.Base.Orientation] = 6
    check(Predictor(BrightBox())(turned))


def test_classes_can_be_renamed() -> None:
    assert Predictor(BrightBox(), classes=["Lampe", "Sonne"])(picture()).names == ["Sonne", "Lampe"]
    with pytest.raises(EyelineError, match="3 class names given, but the model has 2"):
        Predictor(BrightBox(), classes=["a", "b", "c"])


def test_only_detectors() -> None:
    with pytest.raises(EyelineError, match="takes a detector, not Linear"):
        Predictor(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "missing.png: no such picture"),
        ("*.gif", "no file matches"),
        ("notes.txt", r"notes\.txt:1: no such file: no picture"),
        ("notes.md", "notes.md: not a picture"),
        ("empty", "no picture in this folder"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, source: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "notes.md").write_text("no picture")
    with pytest.raises(EyelineError, match=message.replace("*", r"\*")) as error:
        Predictor(BrightBox())(str(folder / source))
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_the_unreadable_picture_of_a_folder_is_named(folder: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    with pytest.raises(EyelineError, match=r"2\.png"):
        Predictor(BrightBox())(folder)


def test_urls_that_give_no_picture(server: str) -> None:
    predict = Predictor(BrightBox())
    with pytest.raises(EyelineError, match=r"/nothing\.png: cannot be fetched .*404"):
        predict(f"{server}/nothing.png")
    with pytest.raises(EyelineError, match=r"127.*/notes\.txt: not a picture"):
        predict(f"{server}/notes.txt")
    with pytest.raises(EyelineError, match="cannot be fetched"):
        predict("http://127.0.0.1:1/a.png")


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            waiting.wait(10)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    monkeypatch.setattr(sources, "URL_TIMEOUT", 0.2)
    servers = serve(Silent)
    url = next(servers)
    with pytest.raises(EyelineError, match="timed out"):
        Predictor(BrightBox())(url)
    waiting.set()
    assert next(servers, None) is None


def test_a_url_that_gives_too_much(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "URL_LIMIT", 50)
    with pytest.raises(EyelineError, match="larger than"):
        Predictor(BrightBox())(f"{server}/0.png")


def test_find_keeps_a_name_with_brackets(folder: Path) -> None:
    path = folder / "a[1].png"
    path.write_bytes((folder / "0.png").read_bytes())
    assert find(str(path)) == ([path], True)


SMALL = {"backbone": "resnet18", "fpn_channels": 16, "tower_depth": 1, "size": 64}


def test_a_run_folder_and_its_weights_give_the_same(tmp_path: Path) -> None:
    model = create_model("retinanet", classes=["a", "b"], **SMALL)
    nn.init.normal_(model.class_head.output.weight, std=0.3)
    run = tmp_path / "run"
    save_weights(model, run / "last.safetensors")
    loaded = load_model(run)
    assert loaded.name == "retinanet" and loaded.classes == ["a", "b"]
    save_weights(model, run / "best.safetensors")
    (run / "last.safetensors").write_bytes(b"not read where there is a best")
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    results = [
        Predictor(source, device="cpu", score_threshold=0.1)(image)
        for source in (run, str(run / "best.safetensors"), model)
    ]
    assert len(results[0]) > 0
    for result in results[1:]:
        assert torch.equal(result.boxes, results[0].boxes)
        assert torch.equal(result.scores, results[0].scores)


def test_bf16_finds_the_same(tmp_path: Path) -> None:
    model = create_model("retinanet", classes=["a"], **SMALL)
    nn.init.normal_(model.class_head.output.weight, std=0.3)
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    exact = Predictor(model, score_threshold=0.06)(image)
    rounded = Predictor(model, precision="bf16", score_threshold=0.06)(image)
    assert rounded.boxes.dtype == rounded.scores.dtype == torch.float32
    assert len(exact) > 0
    near = (exact.boxes[0] - rounded.boxes).abs().amax(1) < 1
    assert near.any()
    assert rounded.scores[near].max() == pytest.approx(exact.scores[0].item(), abs=0.05)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("empty", "no best.safetensors in it"),
        ("nothing", "nothing"),
        ("retinanet", "a model without weights"),
    ],
)
def test_what_holds_no_model(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EyelineError, match=message):
        load_model(source if source == "retinanet" else tmp_path / source)
