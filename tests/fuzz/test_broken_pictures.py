"""Broken pictures through check, train and predict, by the commands: what cannot be read is named
and counted, the rest is used; never a traceback, or a hang."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.test_pictures import mutated, specimens
from tests.fuzz.limits import within_seconds

import eyeline
from eyeline.checkpoints import save_weights
from eyeline.cli import main
from eyeline.data.images import image_size
from eyeline.errors import EyelineError
from eyeline.inference import Predictor

TINY = {
    "backbone": "resnet18",
    "norm": "group",
    "fpn_channels": 8,
    "tower_depth": 1,
    "size": 32,
}  # fmt: skip; group: of one picture that is left, the last map has a single cell
PICTURES = 4
TRAINED = 25  # every so manieth folder is trained on
COMMANDS = 10  # and predicted on by the command, the others by the same model in this process


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_weights(eyeline.create_model("retinanet", classes=["disc"], **TINY), path)
    return path


def data_set(folder: Path, contents: list[bytes], suffixes: list[str]) -> list[Path]:
    """A COCO data set of pictures of these contents, an object each."""
    (folder / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    paths = [folder / "train" / f"{i}{suffix}" for i, suffix in enumerate(suffixes)]
    for i, (path, content) in enumerate(zip(paths, contents, strict=True)):
        path.write_bytes(content)
        height, width = image_size(path)
        images.append({"id": i, "file_name": path.name, "width": width, "height": height})
        box = [1, 1, width - 2, height - 2]
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0})
    categories = [{"id": 1, "name": "disc"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return paths


def spoil(paths: list[Path], rng: np.random.Generator) -> Path:
    """One of the pictures cut, zeroed, with bits turned, under another name, or another's."""
    path, other = (paths[i] for i in rng.permutation(len(paths))[:2])
    kind = rng.integers(6)
    if kind == 4:
        path.rename(path.with_suffix(str(rng.choice([".png", ".jpg", ".gif", ".dat"]))))
    elif kind == 5:
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
    else:
        path.write_bytes(mutated(path.read_bytes(), rng))
    return path


def command(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capfd.readouterr()
    status = main.run([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err, err
    assert status in (0, 1), status
    if status == 1 and arguments[0] != "data":
        assert err.count("error: ") == 1, err
    return status, out, err


def journeys(folder: Path, weights: Path, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "kinds").mkdir()
    specimens(folder / "kinds")
    kinds = [p for p in sorted((folder / "kinds").iterdir()) if p.suffix not in (".npy", ".jp2")]
    predictor = Predictor(str(weights))
    faulty = unread = trained = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        chosen = [kinds[i] for i in rng.permutation(len(kinds))[:PICTURES]]
        root = folder / f"set{seed}"
        paths = data_set(root, [p.read_bytes() for p in chosen], [p.suffix for p in chosen])
        spoil(paths, rng)
        with within_seconds(60, f"{root}, seed {seed}"):
            status, out, _ = command(capfd, "data", "check", root, "--json", root / "report.json")
            report = json.loads((root / "report.json").read_text())
            errors = [fault for fault in report["faults"] if fault["severity"] == "error"]
            assert status == bool(errors), (seed, out)
            bad = {fault["picture"] for fault in errors}
            assert None not in bad and bad <= set(map(str, paths)), (seed, errors)
            faulty += bool(errors)

            there = [p for p in (root / "train").iterdir() if p.suffix != ".dat"]
            told: list[EyelineError] = []
            results = list(predictor.stream(root / "train", unread=told.append))
            assert len(results) + len(told) == len(there), seed
            unread += len(told)
            if seed % COMMANDS == 0:
                status, out, err = command(
                    capfd, "predict", weights, root / "train", "--out", root / "found", "--no-draw"
                )
                assert status == bool(told), (seed, err)
                assert all(f"left out: {error}" in err for error in told), (seed, err)
                assert f" {len(results)} picture" in out, (seed, out, err)

            if seed % TRAINED == 0:
                train(capfd, root, errors, bad)
                trained += 1
        for path in sorted(root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert faulty > count / 4 and unread > count / 5 and trained


def train(capfd: pytest.CaptureFixture[str], root: Path, errors: list[dict], bad: set[str]) -> None:
    """Refused, or with --tolerant trained on the pictures that are left."""
    options = [f"model.{key}={value}" for key, value in TINY.items()]
    options += ["epochs=1", "data.val=null", "data.workers=0", "log.tensorboard=false"]
    recipe = ["train", "retinanet", "--data", root, *options]
    status, _, err = command(capfd, *recipe, "--out", root / "strict")
    assert not errors or status == 1
    assert status == 0 or any(path in err for path in bad), err
    status, out, err = command(capfd, *recipe, "--out", root / "tolerant", "--tolerant")
    assert status == 0, err
    if errors:
        told = json.loads((root / "tolerant" / "left_out.json").read_text())
        assert "left out of the data" in out
        assert {fault["where"] for fault in told["left_out"]} == {f["where"] for f in errors}


def test_fifty_broken_pictures(
    tmp_path: Path, weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journeys(tmp_path, weights, 50, capfd)


@pytest.mark.slow
def test_two_thousand_broken_pictures(
    tmp_path: Path, weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journeys(tmp_path, weights, 2000, capfd)
