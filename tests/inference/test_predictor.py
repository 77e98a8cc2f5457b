"""Pictures of every kind through a detector, and what is said of those that cannot be read."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
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
from eyeline.inference.sources import find, read_picture, stem_of
from eyeline.inference.video import Frame, Video
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
        scores = torch.tensor([0.9, 0.6, 0.3]).expand(len(found), -1)
        labels = torch.tensor([1, 0, 0]).expand(len(found), -1)
        return Padded(found, scores, labels, torch.ones_like(labels, dtype=torch.bool))

    def finish(self, padded: Padded, batch: Batch) -> list[Prediction]:
        columns = {"boxes": padded.boxes, "scores": padded.scores, "labels": padded.labels}
        return [
            {key: column[i][valid] for key, column in columns.items()}
            for i, valid in enumerate(padded.valid)
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


def test_stream_gives_what_comes_before_an_error(folder: Path) -> None:
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
    with pytest.raises(EyelineError, match="takes a detector or a segmenter, not Linear"):
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
    with pytest.raises(EyelineError, match=r"cannot download http://127.*/nothing\.png: 404"):
        predict(f"{server}/nothing.png")
    with pytest.raises(EyelineError, match=r"127.*/notes\.txt: not a picture"):
        predict(f"{server}/notes.txt")
    with pytest.raises(EyelineError, match=r"cannot download http://127\.0\.0\.1:1/a\.png: "):
        predict("http://127.0.0.1:1/a.png")
    with pytest.raises(EyelineError, match=r"cannot download http://\[1/a\.png: "):
        predict("http://[1/a.png")


@pytest.mark.parametrize("name", ["two words.png", "schön 東.png", "a%20b.png", "100%.png"])
def test_urls_of_any_name(folder: Path, server: str, name: str) -> None:
    (folder / name.replace("%20", " ")).write_bytes((folder / "0.png").read_bytes())
    check(Predictor(BrightBox())(f"{server}/{name}"))


def test_a_server_that_speaks_something_else() -> None:
    """Which the standard library answers with an error that is no OSError."""

    class Odd(Quiet):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 -- no number\r\n\r\n")

    servers = serve(Odd)
    with pytest.raises(EyelineError, match=r"cannot download .*no number") as error:
        Predictor(BrightBox())(f"{next(servers)}/a.png")
    assert "\n" not in str(error.value) and next(servers, None) is None


def test_a_password_is_sent_and_never_told(folder: Path) -> None:
    sent = []

    class Locked(Quiet):
        def do_GET(self) -> None:
            sent.append(self.headers.get("Authorization"))
            super().do_GET()

    servers = serve(partial(Locked, directory=str(folder)))
    url = next(servers)
    secret = url.replace("://", "://me:s%20crt@")
    result = Predictor(BrightBox())(f"{secret}/0.png")
    check(result)
    assert result.path == f"{url}/0.png"
    assert b64decode(sent[0].removeprefix("Basic ")) == b"me:s crt"
    with pytest.raises(EyelineError, match="404") as error:
        Predictor(BrightBox())(f"{secret}/nothing.png")
    assert "crt" not in str(error.value) and next(servers, None) is None


def test_a_url_without_an_ending_is_asked_once(folder: Path) -> None:
    asked = []

    class Counting(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    (folder / "shot").write_bytes((folder / "0.png").read_bytes())
    servers = serve(partial(Counting, directory=str(folder)))
    url = next(servers)
    assert find(f"{url}/shot") == ([f"{url}/shot"], True) and asked == []
    predict = Predictor(BrightBox())
    check(predict(f"{url}/shot"))
    assert asked == ["/shot"]
    # In a list a dead one is an error at its place only.
    items, _ = find([f"{url}/shot", f"{url}/dead", f"{url}/shot"])
    results = predict.stream(items)
    check(next(results))
    with pytest.raises(EyelineError, match="/dead: 404"):
        next(results)
    assert asked[1:3] == ["/shot", "/dead"] and next(servers, None) is None


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("rtsp://admin:secret@10.0.0.5:554", "10.0.0.5"),
        ("rtsp://admin:secret@10.0.0.5:554/live%201/a.sdp?x=1", "a"),
        ("http://camera.example/", "camera.example"),
        ("some where/b c.mp4", "b-c"),
        ("camera 0", "camera-0"),
    ],
)
def test_names_of_outputs(path: str, stem: str) -> None:
    assert stem_of(path) == stem
    assert Video("rtsp://admin:s@crt@10.0.0.5/a", "stream").name == "rtsp://10.0.0.5/a"


def test_a_live_source_has_no_list_of_results(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(self: Video, every: int = 1) -> Iterator[Frame]:
        image = torch.from_numpy(picture()).permute(2, 0, 1)
        yield from (Frame(image, i, i / 25) for i in count())

    monkeypatch.setattr(Video, "frames", endless)
    with pytest.raises(EyelineError, match=r"camera 0: it has no end; .*stream\(\)"):
        Predictor(BrightBox())(0)
    few = list(islice(Predictor(BrightBox()).stream(0), 3))
    assert len(few) == 3 and all(one.video is few[0].video for one in few)


def test_pictures_beside_a_camera_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: Video, every: int = 1) -> Iterator[Frame]:
        image = torch.from_numpy(picture()).permute(2, 0, 1)
        yield from (Frame(image, i, i / 25) for i in range(30))

    monkeypatch.setattr(Video, "frames", short)
    sources = [*(picture(i) for i in range(20)), Video("0", "camera"), picture(7)]
    results = list(Predictor(BrightBox()).stream(sources))
    stills = [result for result in results if result.video is None]
    assert len(stills) == 21 and len(results) > 21
    for i, result in enumerate([*stills[:20]]):
        check(result, i)
    check(stills[20], 7)


WIDE = np.array([[0, 300, 30_000, 65_535]] * 4, np.uint16)


def test_sixteen_bits_mean_the_same_from_a_file_and_in_memory(tmp_path: Path) -> None:
    Image.fromarray(WIDE).save(tmp_path / "wide.png")
    file = read_picture(tmp_path / "wide.png")
    assert file[0, 0].tolist() == [0, 1, 117, 255]
    with Image.open(tmp_path / "wide.png") as opened:
        assert torch.equal(read_picture(opened), file)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.uint16), "values of torch.uint16; give uint8, or float from 0"),
        (np.full((4, 4, 3), 200.0), "values from 200 to 200, not 0 to 1"),
        (torch.full((3, 4, 4), 200.0), "values from 200 to 200, not 0 to 1"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "values of torch.int64; give uint8, or float"),
        (Image.fromarray(np.full((4, 4), 7.0, np.float32)), "pixels from 7.0 to 7.0, not 0 to 1"),
    ],
)
def test_pixels_that_cannot_be_meant(source: Any, message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        Predictor(BrightBox())(source)


def test_a_list_with_an_endless_line(folder: Path) -> None:
    (folder / "list.txt").write_text("0.png\n" + "x" * 5000)
    with pytest.raises(EyelineError, match=r"list\.txt:2: no such file: xxx"):
        Predictor(BrightBox())(folder / "list.txt")


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
