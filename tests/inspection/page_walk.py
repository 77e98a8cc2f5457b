"""What tests of `eyeline explain`'s page need: small models, the page's data, a walk through it."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training import toys

# The threshold lies below what a fresh network says, so that there is something to look at.
OPTIONS = {"backbone": "resnet18", "min_size": 128, "max_size": 192, "score_threshold": 0.005,
           "fpn_channels": 32, "head_width": 64, "mask_width": 16, "proposals": (100, 60),
           "proposals_before_nms": (200, 100), "candidates": 100}  # fmt: skip


def known(name: str) -> dict[str, Any]:
    """Of `OPTIONS` those that the detector has."""
    return toys.known(name, OPTIONS)


def data_of(page: str) -> dict[str, Any]:
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    return json.loads(text[1])


def array(packed: dict[str, Any]) -> np.ndarray:
    kind = packed["array"].removesuffix("Array").lower()
    values = np.frombuffer(base64.b64decode(packed["data"]), kind)
    return values * packed["scale"] if "scale" in packed else values


WALK = """<script>
(async () => {
  const wait = () => new Promise((done) => setTimeout(done, 0));
  for (let i = 0; i < 400 && document.documentElement.dataset.ready !== "true"; i++) {
    await new Promise((done) => setTimeout(done, 25));
  }
  let count = 0;
  for (const input of document.querySelectorAll("input")) {
    if (input.type === "radio") input.click();
    else for (const value of [input.min, input.max]) {
      input.value = value;
      input.dispatchEvent(new Event("input"));
    }
    count++;
    if (count % 50 === 0) await wait();
  }
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const canvas of document.querySelectorAll("canvas")) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    for (const part of [0.1, 0.5, 0.9]) {
      const [clientX, clientY] = [left + part * width, top + part * height];
      canvas.dispatchEvent(new MouseEvent("click", { clientX, clientY, bubbles: true }));
    }
    for (const key of ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown", "Tab"]) {
      canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    }
    count++;
    await wait();
  }
  location.hash = "#boxes:detection=1,object=0,level=1";
  await new Promise((done) => setTimeout(done, 50));
  document.documentElement.dataset.walked = count;
})();
</script>"""


def walked(
    page: str, tmp_path: Path, script: str = WALK, address: str = ""
) -> tuple[list[str], int, str]:
    """Errors of the page's script on a walk through all its controls, how many there were, and
    what stands there in the end; or with another `script` instead of the walk."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not on the PATH")
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=60000", "--window-size=1280,900", "--dump-dom",
            path.as_uri() + address,
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    top = re.search(r"<html[^>]*>", done.stdout)
    assert top is not None, done.stderr[-2000:]
    given = dict(re.findall(r'data-(\w+)="(.*?)"', top[0]))
    return json.loads(html.unescape(given["errors"])), int(given.get("walked", 0)), done.stdout
