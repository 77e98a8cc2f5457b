"""The commands, and the one line that every mistake of the user's gets."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import eyeline
from eyeline.checkpoints import save_weights
from eyeline.cli import main, models
from eyeline.cli.app import app
from eyeline.cli.output import free_path, new_folder
from eyeline.registry import find

CLASSES = ["disc", "square"]
SMALL = {"backbone": "resnet18", "fpn_channels": 16, "tower_depth": 1, "size": 64}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: exit status, standard output, standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def write_split(folder: Path, split: str, count: int, names: list[str] = CLASSES) -> None:
    """A COCO split of bright squares on dark ground."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        array = np.zeros((48, 64, 3), np.uint8)
        array[10:30, 5 + i : 25 + i] = 255
        Image.fromarray(array).save(folder / split / f"{i}.png")
        images.append({"id": i + 10, "file_name": f"{i}.png", "width": 64, "height": 48})
        annotations.append(
            {
                "id": i + 1, "image_id": i + 10, "category_id": 3 + i % len(names),
                "bbox": [5 + i, 10, 20, 20], "area": 400, "iscrowd": 0,
            }
        )  # fmt: skip
    categories = [{"id": 3 + k, "name": name} for k, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    write_split(folder, "train", 4)
    write_split(folder, "val", 3)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = eyeline.create_model("retinanet", classes=CLASSES, **SMALL)
    nn.init.normal_(model.class_head.output.weight, std=0.3)  # so that it detects something
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_weights(model, path)
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command writes beside itself goes to an empty folder."""
    monkeypatch.chdir(tmp_path)


def told(result: tuple[int, str, str]) -> str:
    """The one line on standard error of a command that failed as it should."""
    status, _, err = result
    assert status == 1
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


# -- the commands


def test_eval_counts_pixels_as_the_run_did(cli: Run, weights: Path, tmp_path: Path) -> None:
    """A column of pixels is an object where VOC's pixels count from 1, else a box without area."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main/val.txt").write_text("a\n")
    Image.new("RGB", (64, 48)).save(tmp_path / "voc/JPEGImages/a.png")
    corners = "<xmin>5</xmin><ymin>2</ymin><xmax>5</xmax><ymax>9</ymax>"
    (tmp_path / "voc/Annotations/a.xml").write_text(
        f"<annotation><object><name>disc</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(weights.read_bytes())
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text("data: {path: voc, one_based: true}\n")
    status, _, err = cli("eval", "run")
    assert status == 0, err
    recipe.write_text("data: {path: voc}\n")
    assert "has no area" in told(cli("eval", "run"))


def test_train_eval_predict(cli: Run, data: Path, tmp_path: Path) -> None:
    options = [f"model.{key}={value}" for key, value in SMALL.items()]
    status, _, err = cli(
        "train", "retinanet", "--data", data, "--out", "run", "epochs=1", "batch_size=4",
        "data.workers=0", "log.tensorboard=false", *options,
    )  # fmt: skip
    assert status == 0, err
    assert (tmp_path / "run" / "best.safetensors").is_file()

    status, out, err = cli("train", "--resume", "run", "epochs=2")
    assert status == 0, err
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert max(row["epoch"] for row in log if "epoch" in row) == 2

    status, out, err = cli("eval", "run")  # on the run's own data
    assert status == 0, err
    assert "AP50" in out and str(Path("run", "eval-val", "report.html")) in out
    folder = tmp_path / "run" / "eval-val"
    assert sorted(path.name for path in folder.iterdir()) == [
        "detections.json", "report.html", "results.json",
    ]  # fmt: skip
    assert json.loads((folder / "results.json").read_text())["pictures"] == 3

    assert cli("eval", "run", "--data", data, "--split", "train")[0] == 0
    assert cli("eval", "run")[0] == 0
    folders = {path.name for path in (tmp_path / "run").glob("eval-*")}
    assert folders == {"eval-val", "eval-val-2", "eval-train"}


def test_eval_tells_its_command(cli: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    """It can be typed again as it stands, and measures the same."""
    (tmp_path / "my data").symlink_to(data)
    more = ["--bad-boxes", "drop", "--precision", "bf16", "--batch-size", "2", "--nms-iou", "0.4"]
    assert cli("eval", weights, "--data", "my data", "--out", "e", *more)[0] == 0
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    program, *words = shlex.split(results["facts"]["command"])
    assert program == "eyeline" and words[:4] == ["eval", str(weights), "--data", "my data"]
    assert all(word in words for word in more)
    assert cli(*words, "--out", "again")[0] == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["facts"] == results["facts"] and again["coco"] == results["coco"]


def test_eval_writes_the_source_ids(cli: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    status, _, err = cli("eval", weights, "--data", data, "--out", "e", "--precision", "bf16")
    assert status == 0, err
    found = json.loads((tmp_path / "e" / "detections.json").read_text())
    assert {row["image_id"] for row in found} == {10, 11, 12}
    assert {row["category_id"] for row in found} <= {3, 4}
    assert json.loads((tmp_path / "e" / "results.json").read_text())["facts"]["precision"] == "bf16"


def test_predict_folder(cli: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    status, out, err = cli("predict", weights, data / "val", "--threshold", 0.1, "--batch-size", 2)
    assert status == 0, err
    folder = tmp_path / "predictions"
    assert out.strip().endswith("3 pictures: predictions")
    for i in range(3):
        with Image.open(folder / f"{i}.jpg") as drawn:
            assert drawn.size == (64 * 8, 48 * 8)
    coco = json.loads((folder / "detections.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [
        str(data / "val" / f"{i}.png") for i in range(3)
    ]
    assert [c["name"] for c in coco["categories"]] == CLASSES
    rows = list(csv.DictReader((folder / "detections.csv").open()))
    assert len(rows) == len(coco["annotations"]) > 0
    assert min(float(row["score"]) for row in rows) >= 0.1
    for row, annotation in zip(rows, coco["annotations"], strict=True):
        x, y, w, h = annotation["bbox"]
        corners = [float(row[key]) for key in ("x1", "y1", "x2", "y2")]
        assert corners == pytest.approx([x, y, x + w, y + h], abs=2e-3)
        assert row["class"] == CLASSES[annotation["category_id"]]


def test_predict_never_overwrites(cli: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    one = data / "val" / "0.png"
    assert cli("predict", weights, one)[0] == 0
    assert cli("predict", weights, one)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"predictions", "predictions-2"}
    assert "exists already" in told(cli("predict", weights, one, "--out", "predictions"))


def test_a_place_that_is_taken_is_named_before_the_work(
    cli: Run, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("all the work for nothing")

    monkeypatch.setattr("eyeline.evaluation.evaluate", work)
    monkeypatch.setattr("eyeline.training.lr_finder.lr_find", work)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    for command in (["eval", weights, "--data", data], ["lr-find", "retinanet", "--data", data]):
        assert "taken exists already" in told(cli(*command, "--out", "taken"))


def test_numbered_places(tmp_path: Path) -> None:
    """The empty folder itself, then those beside it, whatever it is called."""
    (tmp_path / "here").mkdir()
    assert free_path(None, tmp_path / "here") == tmp_path / "here"
    (tmp_path / "here" / "file").write_text("")
    assert free_path(None, tmp_path / "here") == tmp_path / "here-2"
    assert free_path(None, tmp_path / "here" / "..") == tmp_path.parent / f"{tmp_path.name}-2"
    assert free_path(None, Path(".")) == tmp_path.parent / f"{tmp_path.name}-2"
    assert free_path(None, Path("/")) == Path("/-2")
    assert new_folder(None, tmp_path / "here").is_dir() and (tmp_path / "here-2").is_dir()


def test_predict_pictures_of_one_name(cli: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    assert cli("predict", weights, f"{data}/*/0.png")[0] == 0
    assert {p.name for p in (tmp_path / "predictions").glob("*.jpg")} == {"0.jpg", "0-2.jpg"}


def test_predict_a_file_whose_name_is_no_text(
    cli: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes((data / "val" / "0.png").read_bytes())
    source = [weights, tmp_path, "--out", "o", "--threshold", 0.1, "--json-lines"]
    status, out, err = cli("predict", *source)
    assert status == 0, err
    assert json.loads(out)["source"] == str(tmp_path / name)
    rows = list(csv.DictReader((tmp_path / "o" / "detections.csv").open(encoding="utf-8")))
    assert rows and rows[0]["picture"] == f"{tmp_path}/caf\\udce9.png"


def test_lr_find_and_batch_find(cli: Run, data: Path, tmp_path: Path) -> None:
    settings = [f"model.{key}={value}" for key, value in SMALL.items()]
    model = ["retinanet", "--data", data, "data.workers=0", *settings]
    status, out, err = cli("lr-find", *model, "--steps", 10, "--out", "rates")
    assert status == 0, err
    assert f"plot: {Path('rates', 'lr.html')}" in out
    page = (tmp_path / "rates" / "lr.html").read_text()
    assert page.count("<svg viewBox") == 1 and "loss lowest at" in page
    assert page.startswith("<!DOCTYPE html>") and "Learning rates of retinanet</h1>" in page
    rows = list(csv.DictReader((tmp_path / "rates" / "lr.csv").open()))
    assert 1 < len(rows) <= 10 and float(rows[0]["lr"]) == pytest.approx(1e-6)
    assert "exists already" in told(cli("lr-find", *model, "--steps", 10, "--out", "rates"))
    status, out, err = cli("batch-find", *model, "--largest", 2)
    assert status == 0, err
    sizes = [int(line.split()[0].split("=")[1]) for line in out.splitlines()[:-2]]
    assert sizes == [1, 2] and "suggestion: batch_size=" in out


def test_models(cli: Run) -> None:
    status, out, _ = cli("models", "--task", "detection")
    assert status == 0
    assert "faster_rcnn" in out and "arXiv:1708.02002" in out and "800x1066" in out
    assert "resnet50" not in out


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),  # as torchvision's documentation states them
    [("resnet18", 11689512, 1.814e9), ("resnet50", 25557032, 4.089e9)],
)
def test_cost(name: str, parameters: int, flops: float) -> None:
    found = models.cost(find(name))
    assert found[0] == parameters
    assert found[1] == pytest.approx(flops, rel=1e-3)


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_cost_of_a_detector_against_a_real_pass(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    options = {"backbone": "resnet18", "fpn_channels": 32, "size": 64}
    torch.manual_seed(0)
    model = find(name).build(num_classes=80, **options).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model.compute(model.prepare([torch.zeros(3, 800, 1066)]))
    real = counter.get_total_flops() // 2
    _, counted = models.cost(find(name), **options)
    if name == "retinanet":
        assert counted == real
    else:  # more proposals, each of which costs the head 32 x 7 x 7 -> 1024 -> 1024 -> 81 + 320
        a_region = 32 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320)
        assert counted > real and (counted - real) % a_region == 0


def test_data_sample_and_check(cli: Run, tmp_path: Path) -> None:
    status, out, err = cli("data", "sample", "s", "--train", 20, "--val", 8, "--size", 64)
    assert status == 0, err
    assert len(list((tmp_path / "s" / "train").glob("*.png"))) == 20
    status, out, err = cli("data", "check", "s")
    assert status == 0, err
    counts = next(line for line in out.splitlines() if "pictures " in line and "COCO" not in line)
    assert counts.split() == ["pictures", "20", "8"] and out.endswith("\nno fault found\n")
    line = told(cli("data", "sample", "s"))
    assert "exists already" in line and "--out" not in line  # an option that it lacks


def test_version_and_help(cli: Run) -> None:
    assert cli("--version") == (0, f"{eyeline.__version__}\n", "")
    commands = {str(command.name) for command in app.registered_commands} | {"data"}
    assert len(commands) >= 10 and {"lr-find", "batch-find", "compare", "cp"} <= commands
    for command in commands:
        status, out, _ = cli(command, "--help")
        assert status == 0 and f"eyeline {command}" in out


# -- the user's mistakes


def test_wrong_usage(cli: Run) -> None:
    status, _, err = cli("train", "retinanet", "--dta", "x")
    assert status == 2 and "--dta" in err


def test_unknown_model(cli: Run, data: Path) -> None:
    line = told(cli("train", "retinanett", "--data", data))
    assert "'retinanett'" in line and "did you mean retinanet" in line


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("epoch=3", "did you mean epochs"),
        ("optimizer.lrr=1", "did you mean optimizer.lr"),
        ("model.backbon=resnet18", "did you mean backbone"),
        ("epochs=many", "epochs"),
        ("epochs", "'epochs' is not of the form key"),
    ],
)
def test_misspelt_keys(cli: Run, data: Path, setting: str, named: str) -> None:
    assert named in told(cli("train", "retinanet", "--data", data, setting))


def test_a_folder_called_like_a_model_is_not_taken_for_a_run(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "retinanet").mkdir()
    assert "give --data" in told(cli("train", "retinanet"))
    assert "no recipe.yaml" in told(cli("train", "--resume", "retinanet"))


def test_misspelt_key_in_a_recipe(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model:\n  name: retinanet\ndata:\n  pth: x\n")
    line = told(cli("train", "r.yaml"))
    assert "r.yaml:4" in line and "data.path" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "retinanet"], "give --data"),
        (["train", "missing.yaml"], "missing.yaml"),
        (["train", "--resume", "runs/missing"], "runs/missing: no such run folder"),
        (["train", "DATA"], "--resume"),
        (["train", "--resume", "DATA"], "no recipe.yaml"),
        (["train", "retinanet", "--data", "missing"], "missing: no such"),
        (["eval", "WEIGHTS"], "give --data"),
        (["eval", "DATA"], "no best.safetensors"),
        (["train", "resnet18", "--data", "DATA"], "only detectors"),
        (["train", "retinanet", "--data", "DATA", "model.min_size=abc"], "min_size must be int"),
        (["train", "retinanet", "--data", "DATA", "model.anchor_sizes=[8]"], "anchor_sizes are 5"),
        (["eval", "WEIGHTS", "--data", "DATA", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["predict", "WEIGHTS", "x.png", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["eval", "WEIGHTS", "--data", "DATA", "--split", "vall"], "'vall'; there are: train, val"),
        (["eval", "WEIGHTS", "--data", "DATA", "--precision", "fp8"], "float32, bf16"),
        (["eval", "WEIGHTS", "--data", "missing"], "missing: no such"),
        (["eval", "missing", "--data", "DATA"], "missing"),
        (["eval", "retinanet", "--data", "DATA"], "a model without weights"),
        (["predict", "WEIGHTS", "missing.png"], "missing.png: no such picture"),
        (["predict", "WEIGHTS", "DATA"], "no picture in this folder"),
        (["predict", "WEIGHTS", "x.png", "--threshold", "50"], "0 to 1"),
        (["models", "--task", "detecting"], "detection"),
        (["data", "check", "missing"], "missing: no such"),
    ],
)
def test_mistakes(cli: Run, data: Path, weights: Path, arguments: list[str], named: str) -> None:
    place = {"DATA": str(data), "WEIGHTS": str(weights)}
    assert named in told(cli(*(place.get(a, a) for a in arguments)))


def test_unreadable_picture_in_a_folder(
    cli: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((data / "val" / "0.png").read_bytes())
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    status, out, err = cli("predict", weights, tmp_path, "--out", "p")
    assert (status, "2 pictures: p" in out) == (1, True)
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["left out", "error"]
    assert "b.png" in err and "1 of 3 could not be read" in err
    assert sorted(path.name for path in Path("p").glob("*.jpg")) == ["a.jpg", "c.jpg"]
    # Of one picture alone there is nothing else to tell.
    assert "b.png" in told(cli("predict", weights, tmp_path / "b.png"))


def test_class_that_train_never_saw(cli: Run, tmp_path: Path, weights: Path) -> None:
    write_split(tmp_path / "d", "train", 2)
    write_split(tmp_path / "d", "val", 3, names=["disc", "square", "star"])
    line = told(cli("train", "retinanet", "--data", "d", "--out", "run"))
    assert "'star'" in line and "instances_val.json" in line
    assert "'star'" in told(cli("eval", weights, "--data", "d"))
    assert not (tmp_path / "run").exists()


class Touch:
    """Pickled, it is a program: unpickling creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_checkpoint_with_code_is_not_run(cli: Run, data: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"model": Touch(str(ran))}, tmp_path / "zip.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Touch(str(ran)), protocol=2))
    for name in ("zip.pth", "plain.pkl"):
        assert name in told(cli("predict", name, data / "val"))
        assert not ran.exists()
    torch.load("zip.pth", weights_only=False)
    assert ran.exists()  # the trap does work


def test_checkpoints_of_unknown_kind(cli: Run, data: Path, tmp_path: Path) -> None:
    torch.save({"encoder.w": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    assert "unknown kind" in told(cli("predict", "other.pth", data / "val"))
    assert "text.pth" in told(cli("predict", "text.pth", data / "val"))


def test_a_folder_that_cannot_be_written(
    cli: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    line = told(cli("predict", weights, data / "val", "--out", "file/out"))
    assert "file" in line


def test_debug_shows_the_traceback(cli: Run) -> None:
    with pytest.raises(eyeline.EyelineError):
        cli("predict", "missing", "x.png", "--debug")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interruption_and_full_disk(
    cli: Run, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: str | None) -> None:
        raise error

    monkeypatch.setattr("eyeline.registry.entries", fail)
    status, _, err = cli("models")
    if error is KeyboardInterrupt:
        assert status == 130
    else:
        assert status == 1 and "No space left on device" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory(cli: Run, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task: str | None) -> None:
        raise error

    monkeypatch.setattr("eyeline.registry.entries", fail)
    assert "out of memory; take a smaller batch size" in told(cli("models"))


def test_a_worker_that_was_killed(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch tells of it."""

    def fail(task: str | None) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr("eyeline.registry.entries", fail)
    message = told(cli("models"))
    assert "a process that loads pictures is gone (DataLoader worker (pid 7) is killed" in message
    assert message.endswith("take fewer workers, or a smaller batch size\n")


def test_other_errors_are_ours_to_mend(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task: str | None) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("eyeline.registry.entries", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        cli("models")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ([sys.executable, "-m", "eyeline"], ["predict", "missing", "x.png"]),
        ([Path(sys.executable).with_name("eyeline")], ["models", "--task", "missing"]),
    ],
)
def test_as_a_process(command: list[str], arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and "missing" in done.stderr
    assert done.stderr.count("\n") == 1


def test_demo(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its steps, far too short to learn anything."""
    for name, value in {"TRAIN": 4, "VAL": 3, "SIZE": 64, "DRAWN": 2}.items():
        monkeypatch.setattr(f"eyeline.cli.demo.{name}", value)
    asked = []

    def device(wanted: object) -> torch.device:
        asked.append(wanted)
        return torch.device("cpu")

    monkeypatch.setattr("eyeline.inference.predictor.find_device", device)
    settings = [f"model.{key}={value}" for key, value in SMALL.items() if key != "tower_depth"]
    status, out, err = cli("demo", "--minutes", 0.1, "data.workers=0", *settings)
    assert status == 0, err
    assert asked == [None]  # evaluated on the best there is, as it was trained
    folder = tmp_path / "demo"
    *_, score, place = out.splitlines()
    assert place == f"report: {Path('demo', 'report.html')}"
    name, value = score.split(" ")
    coco = json.loads((folder / "results.json").read_text())["coco"]
    assert name == "AP50" and value == f"{coco['AP50']:.4f}"
    truth = json.loads((folder / "data/annotations/instances_val.json").read_text())
    found = json.loads((folder / "detections.json").read_text())
    assert found and all(set(row) >= {"bbox", "score", "category_id"} for row in found)
    assert {row["image_id"] for row in found} <= {image["id"] for image in truth["images"]}
    assert (folder / "data" / "annotations" / "instances_val.json").is_file()
    with Image.open(folder / "predictions.png") as page:
        assert page.size == (4 * (512 + 8) - 8, 512)


def test_eval_and_predict_with_suppression_and_augmentation(
    cli: Run, weights: Path, data: Path, tmp_path: Path
) -> None:
    how = ["--nms", "soft_gaussian", "--vote-iou", "0.6", "--class-agnostic"]
    out = tmp_path / "eval"
    status, shown, err = cli(
        "eval", weights, "--data", data, "--split", "val", "--out", out, *how, "--nms-iou", "0.4",
        "--tta", "--tta-size", "1",
    )  # fmt: skip
    assert status == 0, err
    results = json.loads((out / "results.json").read_text())
    facts = results["facts"]
    assert facts["nms"] == "soft_gaussian" and facts["vote iou"] == "0.6"
    assert (
        facts["test-time augmentation"] == "size 1, plain and mirrored" and facts["split"] == "val"
    )
    assert facts["class agnostic nms"] == "True" and facts["model"] == "retinanet"
    how_all = "--nms soft_gaussian --nms-iou 0.4 --vote-iou 0.6 --class-agnostic --tta"
    how_all += " --tta-size 1.0"
    assert facts["command"] == f"eyeline eval {weights} --data {data} --split val {how_all}"
    assert results["parameters"] > 1e6 and "confusion" in results
    status, shown, err = cli(
        "predict", weights, data / "val" / "0.png", "--out", tmp_path / "found", "--threshold",
        "0.1", *how, "--tta",
    )  # fmt: skip
    assert status == 0, err
    assert "detections on 1 pictures" in shown
    status, _, err = cli("eval", weights, "--data", data, "--split", "val", "--nms", "softer")
    assert status == 1 and "nms must be one of hard, soft_linear, soft_gaussian" in err
    status, _, err = cli("eval", weights, "--data", data, "--split", "val", "--tta-size", "1")
    assert status == 1 and "--tta-size says at which sizes --tta looks" in err
    status, _, err = cli("eval", weights, "--data", tmp_path / "none", "--tta", "--tta-size", "1.3")
    assert status == 1 and "no pass is made at 1.3" in err  # before anything is opened
    status, _, err = cli("predict", weights, data / "val", "--vote-iou", "2")
    assert status == 2 and "vote-iou" in err
