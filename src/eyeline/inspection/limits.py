"""How fast this machine can be at all: products of matrices, and copies in memory, measured."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inspection.meters import PRECISIONS, Amounts, TimeMeter

SIZES = (512, 1024, 2048, 4096, 8192)  # sides of the matrices; a device is at its best with one
COPIED = 2**28  # bytes, more than a cache holds


@dataclass(frozen=True)
class Limits:
    """A machine's limits, with the number of threads that was set; None: it has no such product.

    An operation is a multiplication or an addition: of n x n matrices 2 n^3.
    """

    machine: str
    threads: int
    float32: float  # operations a second
    bf16: float | None
    fp16: float | None
    int8: float | None  # int8 x int8 -> int32
    bandwidth: float  # bytes a second, read plus written

    def rate(self, precision: str) -> float:
        """Operations a second; where there is no such product, those of float32."""
        rate: float | None = getattr(self, precision)
        return self.float32 if rate is None else rate

    def floor(self, work: Amounts) -> tuple[float, str]:
        """The least seconds that work can take, and what sets them: "compute" or "memory"."""
        names = set(PRECISIONS.values())
        compute = sum(work[name] / self.rate(name) for name in names if work[name])
        memory = work["bytes"] / self.bandwidth
        return (compute, "compute") if compute >= memory else (memory, "memory")

    def __str__(self) -> str:
        def show(rate: float | None) -> str:
            return "none" if rate is None else f"{rate / 1e9:,.0f}"

        return (
            f"{show(self.float32)} GFLOP/s float32, {show(self.bf16)} bf16, {show(self.fp16)} fp16,"
            f" {show(self.int8)} GOP/s int8, {self.bandwidth / 1e9:,.1f} GB/s"
        )

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def measure_limits(device: torch.device, seconds: float = 3.0) -> Limits:
    """Measure for about so many seconds; the machine should have nothing else to do."""
    share = seconds / 5
    float32 = matrix_rate(device, torch.float32, share)
    if float32 is None:
        raise EyelineError(f"{device} cannot multiply matrices in float32")
    return Limits(
        machine_name(device),
        torch.get_num_threads(),
        float32,
        matrix_rate(device, torch.bfloat16, share),
        matrix_rate(device, torch.float16, share),
        matrix_rate(device, torch.int8, share),
        bandwidth(device, share),
    )


def read_limits(path: str | Path, device: torch.device) -> Limits:
    """Limits that were saved; `device` and the threads set must be the same as then.

    Raises:
        EyelineError: no such limits in the file, or those of another machine.
    """
    try:
        limits = Limits(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EyelineError(f"{path}: no limits can be read from it: {error}") from error
    here = (machine_name(device), torch.get_num_threads())
    if (limits.machine, limits.threads) != here:
        raise EyelineError(
            f"{path} has the limits of {limits.machine} with {limits.threads} threads, this is "
            f"{here[0]} with {here[1]}; name another file to measure anew"
        )
    return limits


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float | None:
    """Operations a second of the best of several sizes, within about so many seconds; None where
    the device has no product of that type."""
    meter, rates = TimeMeter(device), []
    spent = 0.0
    with _as_convolutions(device):
        for n in SIZES:
            try:
                call = _product(device, dtype, n)
                call()  # to warm up
                first = meter.time(call)
            except RuntimeError:  # torch's word for "not implemented", and for "out of memory"
                break
            times = [first] + [meter.time(call) for _ in range(_repeats(first, seconds / 6))]
            rates.append(2 * n**3 / min(times))
            spent += sum(times)
            if spent + 8 * min(times) > seconds:  # twice the size is eight times the work
                break
    return max(rates, default=None)


def _product(device: torch.device, dtype: torch.dtype, n: int) -> Callable[[], Tensor]:
    a, b = (torch.randint(-8, 8, (n, n), device=device, dtype=dtype) for _ in range(2))
    if dtype == torch.int8:
        return lambda: torch._int_mm(a, b.t())  # as a layer's weights lie
    return lambda: a @ b.t()


def _repeats(first: float, seconds: float) -> int:
    return min(100, max(2, int(seconds / max(first, 1e-6))))


def _as_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """On CUDA, float32 products as convolutions compute them: in TF32 where that is allowed."""
    return _tf32(torch.backends.cudnn.allow_tf32) if device.type == "cuda" else nullcontext()


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def bandwidth(device: torch.device, seconds: float) -> float:
    """Bytes a second, read plus written, of the best copy of a large tensor."""
    meter = TimeMeter(device)
    source, target = (torch.ones(COPIED, dtype=torch.uint8, device=device) for _ in range(2))

    def copy() -> Tensor:
        return target.copy_(source)

    copy()  # to warm up
    first = meter.time(copy)
    times = [meter.time(copy) for _ in range(_repeats(first, seconds / 2))]
    return 2 * COPIED / min(first, *times)


def machine_name(device: torch.device) -> str:
    """What computes: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return name if device.type == "cpu" else f"{name}, {device.type}"
