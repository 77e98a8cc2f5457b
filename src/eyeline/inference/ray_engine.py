"""Very many pictures on Ray Data: workers with a Predictor each, on one machine or many.

Ray Data hands each worker one part of the `plan` at a time and starts workers anew that die; their
parts are done again. Only numbers of parts and counts travel: a worker reads its pictures itself
and writes its part's file itself, so that memory does not depend on how many pictures there are.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inference.parts import (
    Counts,
    import_parquet,
    read_counts,
    row_of,
    row_of_unread,
    write_part,
)
from eyeline.inference.pipeline import ahead
from eyeline.inference.plan import Entry, Plan, read_rows
from eyeline.inference.predictor import AHEAD, Predictor
from eyeline.inference.sources import groups, read_bytes, read_picture

TRIES = 4  # times that a part is begun whose workers die
STORE = 128 * 2**20  # bytes of Ray's memory that is shared; what travels is small
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_worker_niceness": "0",  # as any other program
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Worker:
    """What Ray runs in each of its processes."""

    def __init__(
        self, folder: Path, device: str, threads: int, batch_size: int, options: dict[str, Any]
    ) -> None:
        self.plan, self.batch_size = Plan(folder), batch_size
        os.chdir(self.plan.settings["directory"])  # from where the paths count
        torch.set_num_threads(threads)
        self.predictor = Predictor(device=device, **options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        part = int(batch["part"][0])
        if not self.plan.result(part).is_file():  # else a worker died after it, before it said so
            entries = self.plan.entries(part)
            with self.plan.tries(part).open("ab") as tries:  # a byte each
                if tries.tell() == TRIES:
                    between = f"{entries[0].name} and {entries[-1].name}"
                    raise EyelineError(f"{TRIES} workers died over the pictures between {between}")
                tries.write(b".")
            write_part(self.plan.result(part), self.rows(entries))
            self.plan.tries(part).unlink()
        return {"part": [part]}

    def rows(self, entries: list[Entry]) -> list[dict[str, Any]]:
        """The rows of these pictures. While the network computes, a thread reads ahead."""
        rows: list[Any] = [None] * len(entries)

        def readable() -> Iterator[tuple[int, Tensor]]:
            for i, found in enumerate(self.read(entries)):
                if isinstance(found, EyelineError):
                    rows[i] = row_of_unread(entries[i].name, found)
                else:
                    yield i, found

        with closing(ahead(groups(readable(), self.batch_size), AHEAD)) as batches:
            for group in batches:
                results = self.predictor([image for _, image in group], self.batch_size)
                for (i, _), result in zip(group, results, strict=True):
                    rows[i] = row_of(entries[i].name, result)
        return rows

    def read(self, entries: list[Entry]) -> Iterator[Tensor | EyelineError]:
        """The pictures in their order, or why they cannot be read."""
        channels = self.predictor.channels
        for (path, inside), group in groupby(entries, lambda e: (e.path, e.row is not None)):
            if not inside:
                for _ in group:
                    yield _tried(read_picture, path, channels)
                continue
            held = list(group)  # rows that follow one another
            files = read_rows(path, self.plan.settings["column"], held[0].row, held[-1].row + 1)
            for entry, data in zip(held, files, strict=True):
                yield _tried(read_bytes, data or b"", entry.name, channels)


def _tried(read: Any, *arguments: Any) -> Tensor | EyelineError:
    try:
        return read(*arguments)
    except EyelineError as error:
        return error


@contextmanager
def started(workers: int | None, device: str | None) -> Iterator[tuple[str, int, int]]:
    """Ray, started on this machine, or the cluster that RAY_ADDRESS names: device, number of
    workers, threads of each.

    Args:
        workers: by default one for each GPU, or without any one for each machine.
        device: "cpu" or "cuda"; by default the GPUs if there are some.
    """
    if device not in (None, "cpu", "cuda"):
        raise EyelineError(f"--device is cpu or cuda with --engine ray, not {device}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {}
    if address == "local":
        local = {"num_cpus": max(torch.get_num_threads(), workers or 1)}
        local |= {"object_store_memory": STORE, "include_dashboard": False}
    ray = import_ray()
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **local)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EyelineError(f"Ray does not start: {reason}") from error
    try:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield (
            device,
            *share_out([n["Resources"] for n in ray.nodes() if n["Alive"]], device, workers),
        )
    finally:
        ray.shutdown()


def share_out(
    machines: list[dict[str, float]], device: str, workers: int | None
) -> tuple[int, int]:
    """The number of workers, and threads of each, which fit on machines with such resources.

    Raises:
        EyelineError: more workers than GPUs, or without them than CPUs.
    """
    cores = [int(one.get("CPU", 0)) for one in machines]  # 0: of a cluster's head, that has none
    devices = sum(int(one.get("GPU", 0)) for one in machines) if device == "cuda" else sum(cores)
    if workers is None:
        workers = devices if device == "cuda" else sum(count > 0 for count in cores)
    if not 1 <= workers <= devices:
        kind = "GPU(s)" if device == "cuda" else "CPU(s)"
        raise EyelineError(f"{workers} workers, but Ray has {devices} {kind} here")
    threads = max(1, sum(cores) // workers)
    while threads > 1 and sum(count // threads for count in cores) < workers:
        threads -= 1
    return workers, threads


@contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing that Ray or its compiled parts write comes to the terminal; what we write to
    sys.stderr does."""
    sys.stderr.flush()
    own, ours = os.dup(2), sys.stderr
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        os.fdopen(os.dup(2), "w", buffering=1) as kept,
    ):
        try:
            if ours is sys.__stderr__:
                sys.stderr = kept
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(own, 2)
            os.close(own)
            sys.stderr = ours


def import_ray() -> Any:
    """Ray, told to be quiet."""
    os.environ.update(QUIET)
    import_parquet()
    try:
        import ray.data
    except ImportError as error:
        raise EyelineError(
            f"--engine ray needs Ray ({error}); install it: pip install 'eyeline[ray]'"
        ) from None
    return ray


def predict_parts(
    plan: Plan,
    parts: list[int],
    options: dict[str, Any],
    device: str,
    workers: int,
    threads: int,
    batch_size: int = 1,
) -> Iterator[Counts]:
    """Predict these parts of the plan on the Ray that is started; what each holds, as it is done.

    Args:
        options: of `Predictor`, the model among them.

    Raises:
        EyelineError: a worker failed, or `TRIES` of them died over the same part.
    """
    ray = import_ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # One task a part: what a task gives is heard of when the whole task is done.
    done = ray.data.from_items([{"part": p} for p in parts], override_num_blocks=len(parts))
    done = done.map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        fn_constructor_args=(plan.folder.resolve(), device, threads, batch_size, options),
        num_cpus=1 if device == "cuda" else threads,
        num_gpus=1 if device == "cuda" else None,
    )
    try:
        for row in done.iter_rows():
            yield read_counts(plan.result(row["part"]))
    except ray.exceptions.RayError as error:
        raise EyelineError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """The first cause of what Ray raises, in a line."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    if isinstance(error, EyelineError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"a worker of Ray failed: {lines[-1] if lines else type(error).__name__}"
