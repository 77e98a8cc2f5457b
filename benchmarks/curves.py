"""The course of a number over the epochs of several runs, as one SVG picture.

python benchmarks/curves.py runs/bccd_transfer runs/bccd_scratch --metric AP50 --out curves.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyeline.evaluation.charts import lines_svg, standalone
from eyeline.files import json_lines


def read_curve(folder: Path, metric: str) -> list[tuple[float, float]]:
    """(epoch, value) of each evaluation in a run's metrics.jsonl."""
    rows = json_lines(folder / "metrics.jsonl")
    rows = [row for row in rows if row["event"] == "epoch" and metric in row["metrics"]]
    points = [(row["epoch"], row["metrics"][metric]) for row in rows]
    points = [(epoch, value) for epoch, value in points if value is not None]
    if not points:
        raise SystemExit(f"{folder}: no epoch in metrics.jsonl has {metric!r}")
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metric", default="AP50")
    parser.add_argument("--out", type=Path, default=Path("curves.svg"))
    options = parser.parse_args()
    curves = {run.name: read_curve(run, options.metric) for run in options.runs}
    values = [value for points in curves.values() for _, value in points]
    chart = lines_svg(
        curves, "epoch", options.metric, merit=False, y_range=(min(0.0, *values), max(values))
    )
    picture = standalone(chart, curves)
    options.out.write_text(picture, encoding="utf-8")
    for name, points in curves.items():
        print(f"{name:24} " + " ".join(f"{value:.3f}" for _, value in points))
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
