"""Makes docs/performance.md: detectors profiled by stage, in inference and training.

    PYTHONPATH=src python benchmarks/make_performance.py [--threads N] [--size HxW] [CASE ...]

A case is MODEL:MODE:PRECISION, such as faster_rcnn:inference:bf16. The machine must be idle.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import torch

from eyeline.cli.profile import open_model, picture_size
from eyeline.device import find_device
from eyeline.inspection import measure_limits, profile_inference, profile_training
from eyeline.inspection.report import NOTES, Subject, to_markdown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
CASES = [
    f"{model}:{mode}"
    for model in ("faster_rcnn", "mask_rcnn", "retinanet")
    for mode in ("inference:float32", "inference:bf16", "inference:int8", "training:float32")
]
HEAD = """# Where the time goes

Made by `{command}` at commit {commit}: detectors with a ResNet-50, stage by stage, each beside
what the machine could do at best. `eyeline profile MODEL` gives such a table of any model, on any
machine ([Commands](commands.md#profile)). The weights are random, but as busy as trained ones.

{notes}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", default="800x1066")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = find_device()
    limits = measure_limits(device)
    how = {"rounds": args.rounds, "depth": args.depth}
    sections = []
    for case in args.cases:
        name, mode, precision = case.split(":")
        model, recipe, _ = open_model(name, [], precision if mode == "training" else None)
        model.to(device)
        size = picture_size(args.size, model)
        subject = Subject(name, mode, precision, 1, size)
        if mode == "training":
            profile = profile_training(model, limits, size, recipe, **how)
        else:
            profile = profile_inference(
                model, limits, size, precision=precision, trained=False, **how
            )
        sections.append(to_markdown(subject, profile))
        print(sections[-1], flush=True)
    head = HEAD.format(command=command(args), commit=commit(), notes="\n\n".join(NOTES))
    args.out.write_text("\n".join([head, *sections]), encoding="utf-8")


def command(args: argparse.Namespace) -> str:
    cases = [] if args.cases == CASES else args.cases
    options = [f"--{key} {vars(args)[key]}" for key in ("threads", "size", "rounds", "depth")]
    return " ".join(["python benchmarks/make_performance.py", *options, *cases])


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=PAGE.parent, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
