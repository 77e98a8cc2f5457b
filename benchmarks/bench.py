"""Speed and memory of eyeline beside its peers', as one table, and as JSON.

    PYTHONPATH=src python benchmarks/bench.py [--quick] [--only PART ...] [--model NAME ...]

Both sides of a comparison run in one process and take turns, so that whatever else the machine
does meets both. Needs torchvision, and albumentations and segmentation-models-pytorch for their
rows. The exit status is 1 where outputs differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import bench_detectors
import bench_input
import bench_ops
import bench_segmenters
import bench_yolo
from table import Table

PARTS = ("ops", "input", "detectors", "segmenters")
DETECTORS = (*bench_detectors.MODELS, *bench_yolo.MODELS)
MODELS = (*DETECTORS, *bench_segmenters.MODELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument(
        "--model", nargs="+", choices=MODELS, default=MODELS, help="these detectors and segmenters"
    )  # fmt: skip
    parser.add_argument("--op", default="", help="operators whose case contains this")
    parser.add_argument("--case", default="", help="input: cases whose name contains this")
    parser.add_argument("--pictures", type=Path, help="input: a folder of JPEGs, not made ones")
    parser.add_argument("--weights", help="a checkpoint of torchvision's, for a single --model")
    parser.add_argument("--quick", action="store_true", help="few rounds: a look, not a figure")
    parser.add_argument("--threads", type=int, help="default: 2, with --busy 1")
    parser.add_argument(
        "--busy", action="store_true",
        help="the processor's time, not the wall's: where others use the machine",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write it")
    args = parser.parse_args()
    if args.weights and (len(args.model) != 1 or args.model[0] not in bench_detectors.MODELS):
        parser.error("--weights needs exactly one --model of torchvision's")
    threads = args.threads or (1 if args.busy else 2)
    torch.set_num_threads(threads)
    table = Table(threads, args.busy)
    equal = True
    if "ops" in args.only:
        bench_ops.bench(table, 3 if args.quick else 9, args.op)
    if "input" in args.only:
        bench_input.bench(table, args.pictures, args.quick, args.case)
    if "detectors" in args.only:
        for name in [name for name in args.model if name in DETECTORS]:
            if name in bench_yolo.MODELS:
                equal &= bench_yolo.bench(table, name, args.quick)
            else:
                equal &= bench_detectors.bench(table, name, args.weights, args.quick)
    if "segmenters" in args.only:
        for name in [name for name in args.model if name in bench_segmenters.MODELS]:
            equal &= bench_segmenters.bench(table, name, args.quick)
    table.end(args.json)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
