"""Frames a second of the segmenters on the CPU, from a frame in memory to its map of classes.

    python benchmarks/frame_rate.py [--size 360 480] [--threads 2] [--rounds 20] [NETWORK ...]

Every network as recipes/camvid.yaml has it with `model={name: NETWORK, ...}` (OPTIONS), 11 classes,
random weights; frames are as large as the network sees them. Each is measured in a process of its
own, whose memory above that before the model was made is told too: the highest, weights included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

RESNET: dict[str, Any] = dict(backbone="resnet18")
OPTIONS: dict[str, dict[str, Any]] = {
    "enet": {},
    "unet": RESNET | dict(convention="smp"),
    "unetplusplus": RESNET | dict(convention="smp"),
    "linknet": RESNET,
    "fpn": RESNET,
    "pspnet": RESNET,
    "pan": RESNET,
    "deeplabv3": RESNET,
    "deeplabv3plus": RESNET,
    "fcn": RESNET,
    "fcn8s": {},
    "fcn16s": {},
    "fcn32s": {},
    "segnet": {},
    "hrnet": dict(width=18),
}
CLASSES = 11


def peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, size: tuple[int, int], precision: str, rounds: int, threads: int) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from eyeline import Predictor, calibrate, create_model

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    frame = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    before = peak()
    model = create_model(name, num_classes=CLASSES, **OPTIONS[name]).eval()
    ranges = calibrate(model, [[frame]]) if precision == "int8" else None
    predict = Predictor(model, precision=precision, ranges=ranges)
    predict(frame)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        predict(frame)
        seconds.append(time.perf_counter() - start)
    highest = peak()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:  # of the model as it is: it does not know packed kernels
        model([frame])
    found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop": counter.get_total_flops() / 1e9,
        "ms": 1000 * statistics.median(seconds),
        "mib": highest - before,
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(OPTIONS))
    parser.add_argument("--size", nargs=2, type=int, default=(360, 480), metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16", "int8"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one:
        measure(told.networks[0], tuple(told.size), told.one, told.rounds, told.threads)
        return
    height, width = told.size
    print(f"frames of {width} x {height}, {told.threads} threads; ms a frame (frames a second)\n")
    print("| network | parameters | GFLOP | " + " | ".join(told.precisions) + " | memory |")
    print("|---|" + "---:|" * (3 + len(told.precisions)))
    for name in told.networks:
        rows = {}
        for precision in told.precisions:
            command = [sys.executable, __file__, name, "--one", precision, "--size"]
            command += [str(height), str(width), "--threads", str(told.threads)]
            command += ["--rounds", str(told.rounds)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows[precision] = json.loads(said.splitlines()[-1])
        first = next(iter(rows.values()))
        times = " | ".join(f"{r['ms']:.0f} ({1000 / r['ms']:.1f})" for r in rows.values())
        print(
            f"| `{name}` | {first['parameters'] / 1e6:.2f} M | {first['gflop']:.1f} | {times} "
            f"| {first['mib']:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
