"""eyeline eval and compare with segmenters: numbers, report, table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.inference.toy_segmenter import command_line, save_toy, toy, write_data

from eyeline.cli.eval import data_of
from eyeline.data.maps import open_maps
from eyeline.evaluation import SegmentationReport, evaluate
from eyeline.metrics.segmentation import SegmentationMetrics

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in a folder with weights and data."""
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "a.safetensors")
    write_data(tmp_path / "data")
    return command_line(capsys)


def test_eval_measures_maps(cli: Run) -> None:
    status, out, err = cli("eval", "a.safetensors", "--data", "data", "--split", "test")
    assert status == 0, err
    assert "mIoU" in out and out.endswith("report: eval-test/report.html\n")
    found = json.loads(Path("eval-test/results.json").read_text())
    model, metrics = toy(), SegmentationMetrics(found["classes"])
    dataset = open_maps("data", "test")
    for image, target in dataset:
        metrics.update(model(image[None])[0], target["map"])
    wanted = metrics.numbers()
    assert found["metrics"]["mIoU"] == wanted["mIoU"] and 0.7 < wanted["mIoU"] < 0.97
    assert found["confusion"] == wanted["confusion"].tolist()
    bands = found["boundaries"]
    assert sum(band["pixels"] for band in bands) == wanted["pixels"]
    errors = wanted["confusion"].sum() - wanted["confusion"].diagonal().sum()
    assert sum(band["errors"] for band in bands) == int(errors)
    assert found["facts"]["split"] == "test" and found["pictures"] == 4
    assert found["facts"]["model"] == "toy_segmenter"
    # Those that were trained, the norm's among them, which inference folds.
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    page = Path("eval-test/report.html").read_text()
    for told in ("At boundaries and inside", "Worst pictures", "What is taken for what", "3.png"):
        assert told in page
    assert page.index("3.png") < page.index("0.png")  # the more errors, the sooner
    assert sorted(p.name for p in Path("eval-test").iterdir()) == ["report.html", "results.json"]


def test_the_command_measures_the_same_again(cli: Run) -> None:
    more = ["--scales", "1,1.5", "--flip", "--precision", "bf16", "--batch-size", "2"]
    command = ["eval", "a.safetensors", "--data", "data", "--split", "val", *more]
    status, _, err = cli(*command, "--out", "one")
    assert status == 0, err
    one = json.loads(Path("one/results.json").read_text())
    assert one["facts"]["test-time augmentation"] == "scales 1, 1.5, flipped"
    _, *words = shlex.split(one["facts"]["command"])
    assert all(word in words for word in more)
    assert cli(*words, "--out", "two")[0] == 0
    two = json.loads(Path("two/results.json").read_text())
    assert two["metrics"] == one["metrics"] and two["facts"] == one["facts"]
    status, _, err = cli(*command[:4], "--split", "val", "--tta")
    assert status == 1 and "tta is for detectors" in err


def test_tiles_are_told_and_measured_as_predict_cuts_them(cli: Run) -> None:
    command = ["eval", "a.safetensors", "--data", "data", "--split", "val"]
    tiles = ["--tile", "64", "--overlap", "0.5", "--margin", "2"]
    status, _, err = cli(*command, *tiles, "--out", "one")
    assert status == 0, err
    one = json.loads(Path("one/results.json").read_text())
    told = "64 pixels, overlapping by 32, of which 2 at each end do not count"
    assert one["facts"]["tiles"] == told
    _, *words = shlex.split(one["facts"]["command"])
    assert all(word in words for word in tiles)
    for wrong, line in (
        (["--margin", "2"], "margin is that of tiles; give tile, too"),
        (["--tile", "64", "--overlap", "0.5", "--margin", "17"], "half the overlap"),
    ):
        status, _, err = cli(*command, *wrong, "--out", "two")
        assert status == 1 and line in err and not Path("two").exists()


def test_settings_say_what_the_data_means(cli: Run) -> None:
    """Of weights alone, and of other data than the run's."""
    command = ["eval", "a.safetensors", "--data", "data", "--split", "val"]
    assert cli(*command, "--out", "plain")[0] == 0
    Path("data/classes.txt").write_text("red\ngreen\n_background_\n")  # blue is where nothing is
    status, _, err = cli(*command, "--out", "one")
    assert status == 1 and "set data.background=ignore" in err
    status, _, err = cli(*command, "data.background=blue", "--out", "one")
    assert status == 0, err
    Path("recipe.yaml").write_text("data: {background: blue, transforms: [hflip]}\n")
    status, _, err = cli(*command, "--recipe", "recipe.yaml", "--out", "two")
    assert status == 0, err
    plain, *found = (
        json.loads(Path(name, "results.json").read_text()) for name in ("plain", "one", "two")
    )
    assert all(one["metrics"] == plain["metrics"] for one in found)
    words = [shlex.split(one["facts"]["command"]) for one in found]
    assert "data.background=blue" in words[0] and words[1].count("recipe.yaml") == 1
    for setting in ("epochs=3", "data.transforms=[]", "background=blue"):
        status, _, err = cli(*command, setting, "--out", "three")
        assert status == 1 and f"{setting}: eval takes what data means" in err


def test_other_data_may_be_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {path: a, format: semantic, ignore: [3]}\n")
    found = [data_of(tmp_path, [], None, path) for path in (None, "a", "b")]
    assert [data.format for data in found] == ["semantic", "semantic", None]
    assert [data.ignore for data in found] == [[3]] * 3
    chosen = data_of(tmp_path, ["data.format=voc", "data.ignore=[]"], None, "b")
    assert (chosen.format, chosen.ignore) == ("voc", [])


def test_a_model_is_measured_at_the_size_of_the_maps(cli: Run) -> None:
    """The network sees pictures of half the size."""
    model = toy(min_size=12, max_size=99)
    report = evaluate(model, open_maps("data", "test"), progress=False)
    assert isinstance(report, SegmentationReport)
    assert int(report.confusion.sum()) == 4 * 22 * 36
    assert report.metrics["mIoU"] > 0.6


def test_runs_are_compared(cli: Run) -> None:
    for name, seeing in {"sees": True, "blind": False}.items():
        Path(name).mkdir()
        save_toy(f"{name}/best.safetensors", seeing=seeing)
        status, _, err = cli("eval", name, "--data", "data", "--split", "test")
        assert status == 0, err
    log = {"event": "epoch", "epoch": 1, "metrics": {"mIoU": 0.25}}
    Path("sees/metrics.jsonl").write_text(
        "".join(json.dumps(log | {"epoch": i}) + "\n" for i in (1, 2))
    )
    status, out, err = cli("compare", "blind", "sees")
    assert status == 0, err
    assert out.index("sees") < out.index("blind") and "boundaries" in out
    page = Path("comparison.html").read_text()
    assert "mIoU against epochs" in page and "Speed and accuracy" in page
    # What is not of one kind.
    Path("boxes").mkdir()
    boxes = {"coco": {"AP": 0.5}, "pictures_per_second": 1, "parameters": 1, "facts": {}}
    Path("boxes/results.json").write_text(json.dumps(boxes))
    status, _, err = cli("compare", "sees", "boxes", "--out", "other.html")
    assert status == 1 and "sees gives pixels a class and boxes finds boxes" in err


def test_worst_pictures_are_seen_once_more() -> None:
    """Pictures without any known pixel are none of them."""

    class Data(torch.utils.data.Dataset):
        classes = ("red", "green", "blue")

        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int):
            image = torch.full((3, 8, 8), 10, dtype=torch.uint8)
            image[0] = 200
            truth = torch.full((8, 8), [0, 255, 1][i])
            truth[:, :4] = 255 if i == 1 else 0
            return image, {"map": truth}

    from eyeline.evaluation import evaluate_segmentation

    report = evaluate_segmentation(toy(), Data(), progress=False, closely=True)
    assert [one.index for one in report.worst] == [2, 0]
    assert report.worst[0].classes.eq(0).all() and report.edges is not None
    assert evaluate_segmentation(toy(), Data(), progress=False).edges is None
