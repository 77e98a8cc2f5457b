"""Videos in and out: times, turns and colours kept, damage named, an interruption survived."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eyeline.checkpoints import save_weights
from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.inference import Predictor
from eyeline.inference.sources import find, load
from eyeline.inference.video import Video, VideoWriter
from eyeline.registry import create_model

av = pytest.importorskip("av", reason="PyAV, the extra `video`, is not installed")

SMALL = {"backbone": "resnet18", "fpn_channels": 16, "tower_depth": 1, "size": 64}
COUNT, RATE = 40, 20


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("retinanet", classes=["a", "b"], **SMALL)
    nn.init.normal_(model.class_head.output.weight, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def weights(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_weights(model, path)
    return path


def picture(i: int, width: int = 96, height: int = 64) -> Image.Image:
    """A bright square that moves, on noise, so that the file is of some size."""
    rng = np.random.default_rng(i)
    array = rng.integers(0, 90, (height, width, 3), np.uint8)
    array[20:40, i : i + 20] = (250, 40, 30)
    return Image.fromarray(array)


def write(path: Path, times: list[Fraction], **size: int) -> Path:
    with VideoWriter(path, Fraction(RATE), Fraction(1, 1000)) as writer:
        for i, at in enumerate(times):
            writer.write(picture(i, **size), float(at))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    return write(folder / "moving.mp4", [Fraction(i, RATE) for i in range(COUNT)])


def facts(path: Path) -> dict[str, Any]:
    """What a player sees, read by PyAV itself."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [float(f.pts * stream.time_base) for f in container.decode(stream)]
        return {
            "codec": stream.codec_context.name,
            "pixels": stream.pix_fmt,
            "size": (stream.width, stream.height),
            "rate": stream.average_rate,
            "duration": float(stream.duration * stream.time_base),
            "times": times,
        }


def test_written_videos_are_what_browsers_play(video: Path) -> None:
    seen = facts(video)
    assert (seen["codec"], seen["pixels"], seen["size"]) == ("h264", "yuv420p", (96, 64))
    assert seen["rate"] == RATE and seen["duration"] == pytest.approx(COUNT / RATE)
    assert seen["times"] == pytest.approx([i / RATE for i in range(COUNT)])
    content = video.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")  # the index in front
    assert b"moof" not in content  # no fragments are left


def test_odd_sides_and_uneven_times(tmp_path: Path) -> None:
    times = [Fraction(n, 1000) for n in (0, 50, 51, 400, 1000)]
    path = write(tmp_path / "odd.mp4", times, width=95, height=63)
    seen = facts(path)
    assert seen["size"] == (96, 64)
    assert seen["times"] == pytest.approx([float(t) for t in times])
    frames = list(Video(str(path)).frames())
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([float(t) for t in times])


def test_frames_a_little_larger_or_smaller_than_the_first(tmp_path: Path) -> None:
    sizes = [(96, 64), (97, 64), (96, 65), (95, 63), (97, 65), (40, 90)]
    with VideoWriter(tmp_path / "s.mp4", Fraction(5), Fraction(1, 5)) as writer:
        for i, size in enumerate(sizes):
            writer.write(Image.new("RGB", size, (200, 40, 30)), i / 5)
    frames = list(Video(str(tmp_path / "s.mp4")).frames())
    assert [tuple(frame.image.shape) for frame in frames] == [(3, 64, 96)] * len(sizes)
    assert all(frame.image[:, -1, -1].tolist() == pytest.approx([200, 40, 30], abs=5)
               for frame in frames)  # fmt: skip


def test_colours_survive(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)]
    with VideoWriter(tmp_path / "c.mp4", Fraction(5), Fraction(1, 5)) as writer:
        for i, colour in enumerate(colours):
            writer.write(Image.new("RGB", (64, 48), colour), i / 5)
    frames = list(Video(str(tmp_path / "c.mp4")).frames())
    assert len(frames) == len(colours)
    for frame, colour in zip(frames, colours, strict=True):
        assert frame.image.dtype == torch.uint8 and frame.image.shape == (3, 48, 64)
        assert frame.image[:, 20, 20].tolist() == pytest.approx(colour, abs=4)


def test_turned_videos_come_upright(video: Path, tmp_path: Path) -> None:
    """A phone held upright writes lying frames and says: turn a quarter clockwise."""
    content = bytearray(video.read_bytes())
    matrix = content.find(b"tkhd") + 4 + 40
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    content[matrix : matrix + 36] = turn.tobytes()
    (tmp_path / "turned.mp4").write_bytes(content)
    lying, upright = (next(Video(str(p)).frames()) for p in (video, tmp_path / "turned.mp4"))
    assert upright.image.shape == (3, 96, 64)
    assert torch.equal(upright.image, torch.rot90(lying.image, -1, (1, 2)))


def test_stream_numbers_the_frames(model: nn.Module, video: Path) -> None:
    results = list(Predictor(model, score_threshold=0.1).stream(video, batch_size=3, every=4))
    assert [r.frame for r in results] == list(range(0, COUNT, 4))
    assert [r.time for r in results] == pytest.approx([i / RATE for i in range(0, COUNT, 4)])
    assert {r.path for r in results} == {str(video)}
    alone = Predictor(model, score_threshold=0.1)(results[3].image)
    assert len(alone) > 0 and torch.allclose(alone.boxes, results[3].boxes, atol=0.01)


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_of_a_cut_video_the_rest_is_kept(
    model: nn.Module, video: Path, tmp_path: Path, part: float
) -> None:
    content = video.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: int(len(content) * part)])
    results = []
    with pytest.raises(EyelineError, match=r"cut\.mp4: .*after \d+ frames") as error:
        for result in Predictor(model).stream(cut, batch_size=4):
            results.append(result)
    assert COUNT * part - 8 < len(results) < COUNT
    assert f"after {len(results)} frames" in str(error.value) and "\n" not in str(error.value)


def test_damage_in_the_middle_is_named(video: Path, tmp_path: Path) -> None:
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(range(250)) * 12
    (tmp_path / "hurt.mp4").write_bytes(content)
    frames = []
    with pytest.raises(EyelineError, match=r"hurt\.mp4: .*damaged"):
        for frame in Video(str(tmp_path / "hurt.mp4")).frames():
            frames.append(frame)
    assert COUNT // 2 < len(frames) <= COUNT
    assert frames[-1].time == pytest.approx((COUNT - 1) / RATE)  # what follows the damage too


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.mp4", "nothing.mp4: no such video"),
        ("text.mp4", "text.mp4: cannot be read as a video"),
        ("987", "camera 987: no such camera"),
        (987, "camera 987: no such camera"),
        ("http://127.0.0.1:1/a.mp4", "cannot be opened: Connection refused"),
        ("rtsp://127.0.0.1:1/a", "cannot be opened: Connection refused"),
    ],
)
def test_what_cannot_be_opened(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no video")
    with pytest.raises(EyelineError, match=message) as error:
        list(Predictor(model).stream(source))
    assert "\n" not in str(error.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EyelineError, match=r"pip install 'eyeline\[video\]'"):
        next(Video(str(video)).frames())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(video: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(video.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_video_on_a_server(server: str, video: Path) -> None:
    with av.open(str(video)) as source, av.open(str(video.parent / "a.mjpg"), "w") as target:
        stream = target.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame))
    assert len(list(load(find(f"{server}/a.mjpg")[0]))) == COUNT  # no camera: it ends
    local = list(Video(str(video)).frames())
    [item], single = find(f"{server}/moving.mp4?key=1")
    assert isinstance(item, Video) and not single
    remote = list(item.frames())
    assert len(remote) == COUNT and torch.equal(remote[-1].image, local[-1].image)
    assert isinstance(find("rtsp://camera/1")[0][0], Video)
    assert find(f"{server}/a.png") == ([f"{server}/a.png"], True)


def test_a_camera_that_speaks_http_is_live(model: nn.Module, monkeypatch: Any) -> None:
    """JPEGs one after another in a single answer; its URL tells nothing, or says .mjpg."""

    class Camera(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
            self.end_headers()
            buffer = io.BytesIO()
            picture(0).save(buffer, "JPEG")
            head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {buffer.tell()}\r\n\r\n"
            with suppress(BrokenPipeError, ConnectionResetError):  # who has seen enough hangs up
                for _ in range(12):
                    self.wfile.write(head.encode() + buffer.getvalue() + b"\r\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        for name in ("live", "video.mjpg?user=1"):
            url = f"http://127.0.0.1:{http.server_port}/{name}"
            results = []
            with pytest.raises(EyelineError, match="it broke off after 12 frames"):
                for result in Predictor(model).stream(url):
                    results.append(result)
            assert 0 < len(results) <= 12 and results[0].image.shape == (3, 64, 96)
            assert results[0].video is not None and results[0].video.is_live
            with pytest.raises(EyelineError, match="it has no end"):
                Predictor(model)(url)
        http.shutdown()


def test_lists_and_patterns_mix(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(0).save("a.png")
    picture(1).save("b.png")
    Path("some.txt").write_text(f"# shots\na.png\n\n{video}\nb.png\n")
    items, single = find("some.txt")
    assert [type(i).__name__ for i in items] == ["PosixPath", "Video", "PosixPath"] and not single
    Path("below").mkdir()
    Path("below", "other.txt").write_text("c.png\n")
    picture(2).save("below/c.png")
    assert find("below/other.txt")[0] == [Path("below/c.png")]
    assert [i.address for i in find(f"{video.parent}/*.mp4")[0]] == [str(video)]  # type: ignore[union-attr]
    Path("some.txt").write_text("a.png\nmissing.png\n")
    with pytest.raises(EyelineError, match=r"some\.txt:2: no such file: missing\.png"):
        find("some.txt")


# -- the command


def test_predict_writes_the_video(
    weights: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [str(weights), str(video), "--out", str(out), "--threshold", "0.1", "--json-lines"]
    assert main.run(["predict", *arguments]) == 0
    printed, told = capsys.readouterr()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["frame"] for line in lines] == list(range(COUNT))
    found = sum(len(line["detections"]) for line in lines)
    assert found > 0 and f"{found} detections on {COUNT} frames: {out}" in told
    seen, before = facts(out / "moving.mp4"), facts(video)
    assert seen["size"] == (480, 320)  # small pictures are drawn larger
    for key in ("codec", "pixels", "rate", "duration", "times"):
        same = pytest.approx(before[key]) if key in ("times", "duration") else before[key]
        assert seen[key] == same, key
    coco = json.loads((out / "detections.json").read_text())
    assert len(coco["images"]) == COUNT and len(coco["annotations"]) == found
    assert coco["images"][7]["frame"] == 7
    assert {a["image_id"] for a in coco["annotations"]} <= {i["id"] for i in coco["images"]}


def test_videos_and_pictures_of_one_list_keep_their_names(
    weights: Path, video: Path, tmp_path: Path
) -> None:
    short = write(tmp_path / "short.mp4", [Fraction(i, 5) for i in range(3)])
    picture(0).save(tmp_path / "still.png")
    (tmp_path / "list.txt").write_text(f"{short}\n{tmp_path / 'still.png'}\n{video}\n{short}\n")
    out = tmp_path / "out"
    assert main.run(["predict", str(weights), str(tmp_path / "list.txt"), "--out", str(out)]) == 0
    names = {"short.mp4": 3, "moving.mp4": COUNT, "short-2.mp4": 3}
    assert {path.name for path in out.glob("*.mp4")} == set(names)
    assert {name: len(facts(out / name)["times"]) for name in names} == names
    assert (out / "still.jpg").is_file()


def test_an_error_on_the_way_keeps_what_was_done(
    weights: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert main.run(["predict", str(weights), str(cut), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {cut}: ") and told.count("\n") == 1
    coco = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(facts(tmp_path / "out" / "cut.mp4")["times"]) == len(coco["images"]) > 5


def test_nothing_is_left_of_a_camera_that_is_not_there(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["predict", str(weights), "987", "--out", str(tmp_path / "out")]) == 1
    assert "error: camera 987: no such camera" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()  # but what was there stays
    assert main.run(["predict", str(weights), "987", "--out", str(tmp_path / "mine")]) == 1
    assert list((tmp_path / "mine").iterdir()) == []


def test_stopped_before_the_first_picture(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def stop(self: Video, every: int = 1) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Video, "frames", stop)
    out = tmp_path / "out"
    assert main.run(["predict", str(weights), "0", "--out", str(out)]) == 130
    told = capsys.readouterr().err
    assert "stopped: 0 detections on 0 pictures" in told and str(out) not in told
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_video_plays(weights: Path, tmp_path: Path, number: int) -> None:
    long = write(tmp_path / "long.mp4", [Fraction(i, RATE) for i in range(70)])
    (tmp_path / "list.txt").write_text("long.mp4\n" * 40)
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from eyeline.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["predict", str(weights), str(tmp_path / "list.txt"), "--json-lines"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None and process.stderr is not None
    for _ in range(60):  # of the first video's 70
        assert process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(number)
    rest, told = process.communicate(timeout=60)
    seen = facts(tmp_path / "out" / "long.mp4")
    if number == signal.SIGINT:
        assert process.returncode == 130
        coco = json.loads((tmp_path / "out" / "detections.json").read_text())
        lines = 60 + len(rest.splitlines())
        assert len(coco["images"]) == lines and f"on {lines} frames" in told
        videos = sorted((tmp_path / "out").glob("*.mp4"))
        assert sum(len(facts(path)["times"]) for path in videos) == lines
        assert not list((tmp_path / "out").glob(".*"))
    else:
        assert len(seen["times"]) > 0  # the fragments that were written
    assert seen["times"] == pytest.approx([i / RATE for i in range(len(seen["times"]))])
    assert long.is_file()
