"""eyeline data show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from eyeline.cli import main
from eyeline.data.samples import write_samples

Run = Callable[..., tuple[int, str, str]]
SMALL = ("model.backbone=resnet18", "model.size=64", "data.workers=0")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("set") / "digits", train=6, val=3, size=64)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.run(["data", "show", *(str(a) for a in arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_a_page_and_nothing_is_overwritten(cli: Run, digits: Path, tmp_path: Path) -> None:
    assert cli(digits) == (0, "digits-show.html\n", "")
    before = (tmp_path / "digits-show.html").read_bytes()
    status, out, _ = cli(digits, "--split", "val", "--limit", "2")
    lines = out.splitlines()
    assert status == 0 and lines[0] == "2 of 3 pictures, drawn by chance (--seed)"
    assert lines[-1] == "digits-show-2.html"
    assert all("no picture has an object of the class" in line for line in lines[1:-1])
    assert (tmp_path / "digits-show.html").read_bytes() == before
    assert "1 picture more" in (tmp_path / "digits-show-2.html").read_text()
    status, _, err = cli(digits, "--out", "digits-show.html")
    assert status == 1 and "exists already; choose another --out" in err
    status, out, _ = cli(digits, "--out", "folder")
    assert (status, out) == (0, "folder/index.html\n")
    assert len(list((tmp_path / "folder" / "thumbnails").iterdir())) == 9


def test_a_sheet(cli: Run, digits: Path, tmp_path: Path) -> None:
    status, out, err = cli(digits, "--sheet", "s.jpg", "--count", "5", "--columns", "2")
    assert (status, err) == (0, "")
    assert out == "5 of 9 pictures, drawn by chance (--seed)\ns.jpg\n"
    with Image.open(tmp_path / "s.jpg") as image:
        assert image.format == "JPEG" and image.width == 2 * 480 + 2 * 32 + 24
    assert "choose another --sheet" in cli(digits, "--sheet", "s.jpg")[2]
    assert "a sheet is a .png or a .jpg" in cli(digits, "--sheet", "s.bmp")[2]
    assert "exclude each other" in cli(digits, "--sheet", "t.png", "--out", "x.html")[2]
    assert not (tmp_path / "t.png").exists()


def test_only_what_is_wrong(cli: Run, digits: Path, tmp_path: Path) -> None:
    status, out, _ = cli(digits, "--defects")
    assert status == 0 and "there is no such picture, and nothing to write" in out
    assert not list(tmp_path.glob("*.html"))
    file = digits / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] = -1
    broken = tmp_path / "broken.json"
    content["images"] = [
        {**image, "file_name": str(digits / "val" / image["file_name"])}
        for image in content["images"]
    ]
    broken.write_text(json.dumps(content))
    status, out, err = cli(broken, "--defects", "--out", "p.html")
    assert (status, err) == (0, "") and out.endswith("p.html\n")
    page = (tmp_path / "p.html").read_text()
    assert page.count('"name":') == 1 and "annotations[0]" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such file or folder"),
        (["DIGITS", "--class", "11"], "no class '11'; there are: 0, 1"),
        (["DIGITS", "--split", "test"], "no split 'test'"),
        (["DIGITS", "epochs=3"], "keys of a recipe need --augmented"),
        (["DIGITS", "--augmented", "retinanett"], "retinanet"),
        (["DIGITS", "--augmented", "retinanet", "--defects"], "leave out --class, --defects"),
        (["DIGITS", "--augmented", "retinanet", "model.sizes=3"], "sizes"),
        (["DIGITS", "--augmented", ".", *SMALL], "there is no recipe.yaml in it"),
        (["DIGITS", "--augmented", "retinanet", "--out", "x", *SMALL], "call it .html"),
    ],
)
def test_mistakes_are_one_line(cli: Run, digits: Path, arguments: list[str], words: str) -> None:
    status, out, err = cli(*(str(digits) if a == "DIGITS" else a for a in arguments))
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1 and out == ""
    assert words in err


def test_augmented(cli: Run, digits: Path, tmp_path: Path) -> None:
    status, out, err = cli(digits, "--augmented", "retinanet", *SMALL, "--count", "2", "seed=3")
    assert (status, err) == (0, "")
    assert out == "2 of 6 pictures, drawn by chance (--seed)\ndigits-show.html\n"
    page = (tmp_path / "digits-show.html").read_text()
    assert page.count("<img") == 2 * 4 + 2 * 2
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {name: retinanet, backbone: resnet18, size: 64}\nseed: 3\n")
    status, out, _ = cli(digits, "--augmented", "r.yaml", "--count", "2", "--sheet", "s.png")
    assert status == 0 and out.endswith("s.png\n")
    with Image.open(tmp_path / "s.png") as image:
        assert image.width == 4 * 480 + 2 * 32 + 3 * 24  # the original and three draws
    run = tmp_path / "run"  # as training leaves one
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe.read_text() + "data: {path: elsewhere}\n")
    status, out, _ = cli(digits, "--augmented", "run", "--count", "2", "--out", "run.html")
    assert status == 0 and out.endswith("run.html\n")
    same = (tmp_path / "run.html").read_text().replace("fed to run", "fed to retinanet")
    assert same == page


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--count", "3"], "--count is for --sheet and --augmented; a page takes --limit"),
        (["--columns", "3"], "--columns is for --sheet"),
        (["--draws", "3"], "--draws is for --augmented"),
        (["--batches", "0"], "--batches is for --augmented"),
    ],
)
def test_options_that_would_do_nothing(
    cli: Run, digits: Path, option: list[str], said: str
) -> None:
    status, out, err = cli(digits, *option)
    assert (status, out) == (1, "") and err.startswith(f"error: {said}")


def test_help_names_the_format(cli: Run) -> None:
    assert "--format" in cli("--help")[1] and "FORMAT" in cli("--help")[1]
