"""A mask given alone means what it means in its data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.formats.legend import Values
from eyeline.data.map_lookup import map_of
from eyeline.data.maps import open_maps
from eyeline.errors import EyelineError

INDEX = np.array([[0, 1, 1], [2, 2, 0]])
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)


def data_set(root: Path, listed: str, masks: np.ndarray, name: str = "masks/val/a.png") -> Path:
    for file, array in (("images/val/a.png", COLOURS[INDEX]), (name, masks)):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / file)
    (root / "classes.txt").write_text(listed)
    return root


@pytest.mark.parametrize(
    ("listed", "masks", "background"),
    [
        ("void\na\nb\n", INDEX.astype(np.uint8), None),
        ("_background_\na\nb\n", INDEX.astype(np.uint8), "ground"),
        ("0 0 0 _background_\n255 0 0 a\n0 255 0 b\n", COLOURS[INDEX], "ground"),
        ("b\n_background_\na\n", INDEX.astype(np.uint8), "ignore"),
    ],
)
def test_its_list_is_that_of_its_data_set(
    tmp_path: Path, listed: str, masks: np.ndarray, background: str | None
) -> None:
    root = data_set(tmp_path / "data", listed, masks)
    data = open_maps(root, "val", background=background)
    wanted = data[0][1]["map"].long().tolist()
    mask, picture = root / "masks/val/a.png", root / "images/val/a.png"
    for source in (root, mask):
        found = map_of(source, picture, data.classes, background=background)
        assert found.tolist() == wanted
    # Elsewhere it is read as the data that the model learnt from, unless it has a list beside it.
    other = tmp_path / "other.png"
    other.write_bytes(mask.read_bytes())
    found = map_of(other, picture, data.classes, background=background, learnt=root)
    assert found.tolist() == wanted
    with pytest.raises(
        EyelineError, match=r"gone, which the model learnt from, is not there; list"
    ):
        map_of(other, picture, data.classes, background=background, learnt=tmp_path / "gone")
    (tmp_path / "classes.txt").write_text(listed)
    found = map_of(other, picture, data.classes, background=background, learnt=tmp_path / "gone")
    assert found.tolist() == wanted


def test_without_any_list_its_values_are_the_classes(tmp_path: Path) -> None:
    mask = tmp_path / "a.tif"
    Image.fromarray(INDEX.astype(np.uint8)).save(mask)
    assert map_of(mask, "a.jpg", ["x", "y", "z"]).tolist() == INDEX.tolist()
    found = map_of(mask, "a.jpg", ["x"], values=Values(ignore="others"), learnt=tmp_path)
    assert found.tolist() == np.where(INDEX == 0, 0, 255).tolist()
    Image.fromarray((INDEX > 0).astype(np.uint8) * 255).save(mask)
    with pytest.raises(EyelineError, match="no other value than 0 and 255"):
        map_of(mask, "a.jpg", ["x", "y"])
    found = map_of(mask, "a.jpg", ["x", "y"], values=Values(ids={0: 0, 255: 1}))
    assert found.tolist() == (INDEX > 0).astype(int).tolist()
    Image.fromarray(np.full((2, 3), 1.7, np.float32)).save(mask)
    with pytest.raises(EyelineError, match="floats"):
        map_of(mask, "a.jpg", ["x", "y"])
