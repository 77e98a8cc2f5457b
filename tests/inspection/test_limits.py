"""The machine's limits, and what they allow."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.inspection.limits import Limits, bandwidth, matrix_rate, measure_limits, read_limits

CPU = torch.device("cpu")
LIMITS = Limits("abacus", 1, float32=100.0, bf16=400.0, fp16=None, int8=800.0, bandwidth=10.0)


@pytest.mark.parametrize(
    ("work", "floor"),
    [
        (Counter(float32=50), (0.5, "compute")),
        (Counter(float32=50, bytes=20), (2.0, "memory")),
        (Counter(bf16=50, bytes=1), (0.125, "compute")),
        (Counter(float32=50, bf16=200, int8=800, bytes=19), (2.0, "compute")),
        (Counter(fp16=50), (0.5, "compute")),  # none of its own: as in float32
        (Counter(), (0.0, "compute")),
    ],
)
def test_floor(work: Counter[str], floor: tuple[float, str]) -> None:
    seconds, limit = LIMITS.floor(work)
    assert (seconds, limit) == (pytest.approx(floor[0]), floor[1])


def test_limits_are_measured() -> None:
    limits = measure_limits(CPU, seconds=0.5)
    assert 1e8 < limits.float32 < 1e14 and 1e8 < limits.bandwidth < 1e13
    assert limits.int8 is not None and limits.bf16 is not None
    assert limits.threads == torch.get_num_threads() and limits.machine


def test_a_rate_is_that_of_the_best_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that says what each size takes: half a second for the work of 2 x 512^3, and of
    larger ones half as long for as much work."""
    sizes = []

    def seconds(self: object, call: object) -> float:
        n = len(call().T)  # type: ignore[operator]
        sizes.append(n)
        return 0.5 * (n / 512) ** 3 / (1 if n == 512 else 2)

    monkeypatch.setattr("eyeline.inspection.meters.TimeMeter.time", seconds)
    assert matrix_rate(CPU, torch.float32, 1.0) == pytest.approx(2 * 512**3 / 0.5)
    assert set(sizes) == {512}  # the next would take too long
    assert matrix_rate(CPU, torch.float32, 10.0) == pytest.approx(2 * 512**3 / 0.25)
    assert max(sizes) == 1024


def test_bandwidth_counts_reads_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.inspection.meters.TimeMeter.time", lambda self, call: 0.5)
    assert bandwidth(CPU, 1.0) == 4 * 2**28


def test_a_product_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise NotImplementedError("no such product")

    monkeypatch.setattr(torch, "_int_mm", missing)
    assert matrix_rate(CPU, torch.int8, 0.1) is None
    assert "none bf16" in str(Limits("abacus", 1, 1e9, None, None, 2e9, 3e9))


def test_kept_limits(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    limits = measure_limits(CPU, seconds=0.05)
    limits.save(path)
    assert read_limits(path, CPU) == limits
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"machine": "abacus"}))
    with pytest.raises(EyelineError, match="abacus"):
        read_limits(path, CPU)
    path.write_text("{}")
    with pytest.raises(EyelineError, match="no limits can be read"):
        read_limits(path, CPU)
