"""The line that a map of classes gets, and how Ctrl-C ends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.inference.test_scene import TILING, Toy

from eyeline.cli.predict_scene import predict_scene, shares
from eyeline.inference import scene


def test_stopped_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, source, target = Toy().eval(), tmp_path / "a.png", tmp_path / "map.png"
    values = np.random.default_rng(0).integers(0, 256, (150, 90, 3), np.uint8)
    Image.fromarray(values).save(source)
    plain, calls = scene.State.add, []

    def add(state: scene.State, rows: np.ndarray) -> None:
        calls.append(len(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        plain(state, rows)

    monkeypatch.setattr(scene.State, "add", add)
    with pytest.raises(KeyboardInterrupt):
        predict_scene(model, source, target, TILING)
    done = sum(calls[:3])
    assert capsys.readouterr().err == (
        f"stopped: {done} of 150 rows are done; the same command goes on\n"
    )
    predict_scene(model, source, target, TILING)
    told = capsys.readouterr()
    assert told.err == f"{target}: {done} of 150 rows are done\n"
    assert told.out.startswith("90x150, ") and told.out.endswith(f"%: {target}\n")
    assert "water" in told.out and target.exists()


def test_shares() -> None:
    assert shares([1, 3, *[0] * 253, 4], ["a", "b"]) == "b 75.0%, a 25.0%, no data 50.0% of all"
    assert shares([0] * 255 + [4], []) == "no data 100.0% of all"
    assert shares([1] * 20 + [0] * 236, []).endswith("9 5.0%, 10 more")
