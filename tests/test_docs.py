"""Every code block of the README and the documentation runs, page by page, as it stands.

A comment right below a block may say how the tests shorten it, `<!-- in tests: OLD -> NEW -->`, or
why it is not run, `<!-- not run: WHY -->`. Blocks of a page share one folder, in their order;
Python blocks of a page share their names.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.warm import warm

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"^```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^```\n(?:<!-- (?P<note>.*?) -->\n)?",
    re.MULTILINE | re.DOTALL,
)
# torch takes a minute to trace a detector for every size; tests/cli call what the other page calls
SLOW = {"export", "commands"}
RUN = {"bash", "python"}
SHOWN = {"text", "yaml", "json", ""}  # what is there to be looked at


def blocks(page: Path) -> list[tuple[str, str]]:
    """(kind, code) of each block that runs."""
    found = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        kind, code, note = block["kind"], block["code"], block["note"] or ""
        assert kind in RUN | SHOWN, f"{page}: what is a {kind!r} block?"
        if kind in SHOWN or note.startswith("not run: "):
            continue
        if note.startswith("in tests: "):
            for change in note.removeprefix("in tests: ").split("; "):
                old, new = change.split(" -> ")
                assert code.count(old) == 1, f"{page}: {old!r} is not once in the block"
                code = code.replace(old, new)
        found.append((kind, code))
    return found


def joined(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Python blocks that follow one another as one, so that torch is imported once."""
    groups = [(kind, [code for _, code in group]) for kind, group in groupby(found, itemgetter(0))]
    return [
        (kind, code)
        for kind, codes in groups
        for code in (["".join(codes)] if kind == "python" else codes)
    ]


def test_there_are_pages_and_blocks() -> None:
    count = {page.stem: len(blocks(page)) for page in PAGES}
    assert count["README"] == count["README.ko"] == 2
    for name in ("architecture", "commands", "faster_rcnn", "mask_rcnn", "retinanet"):
        assert count[name] >= 1, name
    assert count["start"] >= 6 and count["training"] >= 4
    assert count["questions"] >= 20
    assert sum(count.values()) >= 45


def text_of(page: Path) -> str:
    return html.unescape(re.sub("<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_the_site_is_built_and_shows_the_files(tmp_path: Path) -> None:
    """As `make docs` does it: no warning is borne."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name, kind in {
        "retinanet": "RetinaNet", "faster_rcnn": "FasterRCNN", "mask_rcnn": "MaskRCNN",
        "ssd": "SSD", "refinedet": "RefineDet", "yolov1": "YOLOv1", "yolov2": "YOLOv2",
        "yolov3": "YOLOv3",
    }.items():  # fmt: skip
        shown = text_of(tmp_path / "models" / name / "index.html")
        assert f"class {kind}(Detector):" in shown and "@register(" in shown
    for path in (ROOT / "src/eyeline/segmenters").glob("[a-z]*.py"):
        shown = text_of(tmp_path / "models" / path.stem / "index.html")
        assert "(Segmenter):" in shown and "@register(" in shown
    assert "find_batch_size(" in text_of(tmp_path / "api" / "index.html")


RUNNING = [
    pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else [], id=page.stem)
    for page in PAGES
    if blocks(page) and page.stem != "README.ko"
]


def test_the_korean_readme_runs_what_the_english_one_does() -> None:
    assert blocks(ROOT / "README.ko.md") == blocks(ROOT / "README.md")


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scripts() -> Iterator[Path]:
    """`eyeline` and `code`; a socket's path must be short."""
    with TemporaryDirectory() as folder, warm(Path(folder), ENVIRONMENT):
        yield Path(folder)


@pytest.mark.parametrize("page", RUNNING)
def test_blocks_run(page: Path, tmp_path: Path, scripts: Path) -> None:
    path = [str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = ENVIRONMENT | {
        "PATH": os.pathsep.join(path),
        "EYELINE_HOME": str(tmp_path / "home"),
    }
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    before = ""
    for kind, code in joined(blocks(page)):
        if kind == "bash":
            command = ["bash", "-e", "-o", "pipefail", "-c", code]
        else:
            command, before = [str(scripts / "code"), before + code], before + code
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
