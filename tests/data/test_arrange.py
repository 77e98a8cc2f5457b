"""Splits dealt out anew, data sets put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.arrange import merge, open_splits, renamed, split
from eyeline.data.formats import REGION, Annotations, Record
from eyeline.errors import EyelineError


def record(path: Path, labels: list[int], number: int = 0) -> Record:
    boxes = np.tile(np.array([1, 1, 5, 4], np.float32), (len(labels), 1))
    where = [f"{path}:{i}" for i in range(len(labels))]
    crowd = np.zeros(len(labels), bool)
    return Record(path, 8, 6, boxes, np.array(labels, int), crowd, None, number, where)


def data(names: list[str], classes: list[str], labels: list[list[int]]) -> Annotations:
    pairs = zip(names, labels, strict=True)
    records = [record(Path(name), own, i) for i, (name, own) in enumerate(pairs)]
    return Annotations(classes, records, "here")


def patients(count: int = 40, each: int = 5) -> Annotations:
    """Pictures p03-2.png, with a common class, a rarer one and one in a tenth of the patients."""
    rng = np.random.default_rng(0)
    names = [f"in/p{p:02d}-{i}.png" for p in range(count) for i in range(each)]
    labels = [
        [0] * int(rng.integers(1, 9)) + [1] * int(rng.random() < 0.3) + [2] * (i // each % 10 == 0)
        for i in range(count * each)
    ]
    return data(names, ["common", "rare", "seldom"], labels)


def names_of(splits: dict[str, Annotations]) -> dict[str, list[str]]:
    return {name: [r.path.name for r in own.records] for name, own in splits.items()}


THREE = {"train": 0.7, "val": 0.2, "test": 0.1}


def counts(splits: dict[str, Annotations], classes: int = 3) -> np.ndarray:
    return np.array(
        [np.bincount(np.concatenate([r.labels for r in own.records]), minlength=classes)
         for own in splits.values()]
    )  # fmt: skip


def test_a_split_is_whole_exact_and_the_same_again() -> None:
    given = patients()
    dealt = split({"all": given}, THREE, seed=3)
    assert [len(own.records) for own in dealt.values()] == [140, 40, 20]
    every = [name for own in names_of(dealt).values() for name in own]
    assert sorted(every) == sorted(r.path.name for r in given.records)
    assert names_of(split({"all": given}, THREE, seed=3)) == names_of(dealt)
    assert names_of(split({"all": given}, THREE, seed=4)) != names_of(dealt)
    turned = Annotations(given.classes, given.records[::-1], "here")  # whatever the order
    assert names_of(split({"x": turned}, THREE, seed=3)) == names_of(dealt)


@pytest.mark.parametrize("stratify", [False, True])
def test_groups_stay_together(stratify: bool) -> None:
    dealt = split({"all": patients()}, THREE, group=r"(p\d+)-", stratify=stratify)
    groups = [{name[:3] for name in own} for own in names_of(dealt).values()]
    assert sum(map(len, groups)) == 40 and len(set.union(*groups)) == 40
    sizes = [len(own.records) for own in dealt.values()]
    assert np.abs(np.array(sizes) - [140, 40, 20]).max() <= 10


def test_stratified_counts_are_near_the_fractions() -> None:
    """Rare classes, too: by chance alone they are much further away."""
    shares = np.array(list(THREE.values()))
    worst = {}
    for stratify in (False, True):
        off = []
        for seed in range(5):
            own = counts(split({"all": patients()}, THREE, seed, stratify=stratify))
            off.append(np.abs(own / own.sum(0) - shares[:, None]).max())
        worst[stratify] = max(off)
    assert worst[True] < 0.03 < 0.08 < worst[False]


def test_wrong_splits_are_explained() -> None:
    given = {"all": patients(2)}
    for fractions, said in (
        ({"a": 0.5, "b": 0.4}, "the sum 1"),
        ({"a": 1.5, "b": -0.5}, "above 0"),
    ):
        with pytest.raises(EyelineError, match=said):
            split(given, fractions)
    with pytest.raises(EyelineError, match=r"p00-0.png: its name has nothing of --group 'q'"):
        split(given, THREE, group="q")
    with pytest.raises(EyelineError, match="no regular expression"):
        split(given, THREE, group="(")
    with pytest.raises(EyelineError, match="val would have no picture: there are 10 in 2 groups"):
        split(given, THREE, group=r"p\d+")


def test_a_picture_that_is_listed_twice() -> None:
    first, second = (
        data(["a.png", "b.png"], ["x", "y"], [[0], [1]]),
        data(["b.png"], ["x", "y"], [[1]]),
    )
    halves = {"one": 0.5, "two": 0.5}
    dealt = split({"train": first, "val": second}, halves)
    assert sorted(names_of(dealt)["one"] + names_of(dealt)["two"]) == ["a.png", "b.png"]
    other = data(["b.png"], ["x", "y"], [[0]])
    with pytest.raises(EyelineError, match=r"b\.png: it is listed twice, with different objects"):
        split({"train": first, "val": other}, halves)


def put(path: Path, colour: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (colour, 0, 0)).save(path)
    return path


def test_merge_tells_classes_by_name(tmp_path: Path) -> None:
    first, second = put(tmp_path / "a/x.png", 1), put(tmp_path / "b/x.png", 2)
    a = Annotations(["cat", "dog"], [record(first, [0, 1], 7)], "a", [5, 9])
    b = Annotations(["dog", "bird", "cat"], [record(second, [0, 1, 2, REGION], 7)], "b", [1, 2, 3])
    merged, words = merge({"a": {"train": a}, "b": {"train": b, "val": b}})
    assert merged["train"].classes == merged["val"].classes == ["cat", "dog", "bird"]
    assert [r.labels.tolist() for r in merged["train"].records] == [[0, 1], [1, 2, 0, REGION]]
    assert [r.image_id for r in merged["train"].records] == [0, 1]  # both were 7
    assert merged["train"].category_ids == merged["val"].category_ids == [5, 9, 10]
    assert words == []


def test_merge_tells_what_ought_to_be_looked_at(tmp_path: Path) -> None:
    first, second = put(tmp_path / "a/x.png", 1), put(tmp_path / "b/y.png", 1)
    third = put(tmp_path / "b/z.png", 1)
    a = Annotations(["Platelets", "car"], [record(first, [0])], "a")
    b = Annotations(["platlets", "cart", "car"], [record(second, [0]), record(third, [])], "b")
    _, words = merge({"A": {"train": a}, "B": {"val": b}})
    assert words == [
        "B: the class 'platlets' is almost 'Platelets' of A; to make them one: "
        "--rename 'platlets=Platelets'",
        f"{second} is the same picture as {first}, in val and in train: keep one",
        f"{third} is the same picture as {first}, in val and in train: keep one",
    ]


def test_renamed_classes_become_one() -> None:
    given = Annotations(["a", "b", "c"], [record(Path("x"), [0, 1, 2, REGION])], "x", [4, 5, 6])
    found = renamed(given, {"c": "a", "b": "B"})
    assert found.classes == ["a", "B"] and found.category_ids == [4, 5]
    assert found.records[0].labels.tolist() == [0, 1, 0, REGION]
    assert renamed(given, {"x": "y"}) is given


def test_real_splits(shared_data: Path) -> None:
    found, splits, left_out = open_splits(shared_data / "bccd")
    assert found.NAME == "voc" and left_out == ["trainval"]
    assert {name: len(own.records) for name, own in splits.items()} == {
        "train": 205, "val": 87, "test": 72,
    }  # fmt: skip
    dealt = split(splits, {"train": 0.8, "val": 0.2}, stratify=True)
    shares = counts(dealt)[0] / counts(dealt).sum(0)
    assert sum(len(own.records) for own in dealt.values()) == 364
    assert np.abs(shares - 0.8).max() < 0.01
    assert list(open_splits(shared_data / "tiny_coco")[1]) == ["train", "val"]
