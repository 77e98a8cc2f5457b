"""Memory of a loader and its workers over epochs, in MiB.

    python benchmarks/loader_memory.py DATA [--split train] [--epochs 10] [--copies 1] [--masks]

PSS counts a page that n processes share as 1/n of a page in each, so that it can be added up. "own"
is what a process shares with no other: what grows there are copies of the annotations, or a leak.
`--copies 1000` repeats the annotations so often, as objects of their own: 50 pictures of tiny COCO
become a data set of 50,000, of which each epoch reads `--pictures`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eyeline.data.datasets import DetectionDataset, open_dataset
from eyeline.data.loader import build_loader
from eyeline.data.transforms import from_names
from eyeline.nn.detector import Preprocess


def memory(pid: int) -> tuple[float, float, float]:
    """(RSS, PSS, private) of a process, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return sizes["Rss"], sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def measure(dataset: DetectionDataset, workers: int, epochs: int, pictures: int | None) -> None:
    prepare = Preprocess(
        len(dataset.classes), 256, 426, (0.5,) * 3, (0.25,) * 3,
        masks="nearest" if dataset.masks else None,
    )  # fmt: skip
    loader: Any = build_loader(dataset, 4, prepare, workers=workers)
    batches = len(loader) if pictures is None else min(len(loader), -(-pictures // 4))
    for epoch in range(epochs):
        loader.set_epoch(epoch, start=len(loader) - batches)
        for step, _ in enumerate(loader):
            if step == 0:
                children = [w.pid for w in getattr(loader._iterator, "_workers", [])]
            if (epoch == step == 0) or step == batches - 1:
                main, own = memory(os.getpid()), [memory(pid) for pid in children]
                total = main[1] + sum(pss for _, pss, _ in own)
                print(
                    f"{workers:7d} {epoch + 1 if step else 0:6d} {main[0]:9.0f} {total:10.0f}   "
                    + " ".join(f"{private:7.1f}" for _, _, private in (main, *own)),
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--split", default="train")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2, 4])
    options = parser.parse_args()
    if len(options.workers) > 1:  # each in a process of its own, which begins from nothing
        for workers in options.workers:
            subprocess.run([sys.executable, *sys.argv, "--workers", str(workers)], check=True)
        return
    print("workers  epoch  main RSS  PSS of all   own of main and of each worker")
    torch.set_num_threads(1)
    dataset = open_dataset(
        options.data, options.split, bad_boxes="drop", masks=options.masks,
        transforms=from_names(["hflip", "photometric"]),
    )  # fmt: skip
    given = dataset.annotations.records
    many = [deepcopy(record) for _ in range(options.copies) for record in given]
    dataset.annotations = replace(dataset.annotations, records=many)
    del given, many
    measure(dataset, options.workers[0], options.epochs, options.pictures)


if __name__ == "__main__":
    main()
