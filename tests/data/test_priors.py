"""Priors by k-means, and their command."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from eyeline.cli.app import app
from eyeline.data.priors import find_priors, shape_iou, shapes_of
from eyeline.data.samples import write_samples
from eyeline.errors import EyelineError

CENTRES = np.array([[8.0, 10], [30, 20], [90, 140]])


def clouds():
    random = np.random.default_rng(1)
    return np.concatenate([c * random.uniform(0.9, 1.1, (50, 2)) for c in CENTRES])


def test_clusters_are_found_smallest_first():
    found, iou = find_priors(clouds(), 3)
    assert np.abs(found / CENTRES - 1).max() < 0.05
    best = [
        max(min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b)) for a, b in found)
        for w, h in clouds()
    ]
    assert iou == pytest.approx(np.mean(best)) and iou > 0.85
    assert (find_priors(clouds(), 3)[0] == found).all()


def test_more_priors_fit_better_and_as_many_as_boxes_fit_wholly():
    ious = [find_priors(clouds(), count)[1] for count in (1, 3, 9)]
    assert ious == sorted(ious) and ious[0] < 0.6
    assert find_priors(CENTRES, 3)[1] == pytest.approx(1)


@pytest.mark.parametrize("shapes", [np.zeros((0, 2)), [[1.0, 0]], [[2.0, 3], [2, 3]]])
def test_too_few_boxes_are_an_error(shapes):
    with pytest.raises(EyelineError, match="priors need"):
        find_priors(np.array(shapes), 2)


def test_shapes_are_those_of_the_resized_picture():
    boxes = [np.array([[10.0, 20, 30, 60]]), np.zeros((0, 4))]
    assert shapes_of(boxes, [(100, 200), (50, 50)], 400).tolist() == [[40, 80]]
    assert shape_iou(np.array([[2.0, 2]]), np.array([[1.0, 4], [2, 2]])).tolist() == [[1 / 3, 1]]


def test_the_command_prints_a_recipes_key(tmp_path):
    write_samples(tmp_path / "data", train=5, val=1, size=96, seed=0)
    arguments = ["data", "priors", str(tmp_path / "data"), "--count", "3", "--size", "96"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    text = result.output
    priors = yaml.safe_load(text)["model"]["priors"]
    assert len(priors) == 6 and priors[0] * priors[1] <= priors[4] * priors[5] <= 96 * 96
    assert "mean best IoU 0." in text
