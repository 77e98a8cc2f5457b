"""Maps of classes: their colours, and how they are laid over a picture."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from math import ceil

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from eyeline.data.formats.legend import BACKGROUND, VOIDS
from eyeline.errors import EyelineError
from eyeline.inference.draw import PALETTE, SHORTEST, to_pil
from eyeline.ops.labels import IGNORE

NOTHING = ("background", BACKGROUND, *VOIDS)  # classes that stay as the picture is
# What everybody expects to be of a colour is of that colour, of `PALETTE`.
CUSTOMARY = {
    "sky": "#5ad1ff", "water": "#2d6bff", "river": "#2d6bff", "sea": "#2d6bff",
    "tree": "#007a3d", "trees": "#007a3d", "vegetation": "#007a3d", "forest": "#007a3d",
    "grass": "#c8f000", "terrain": "#c8f000", "road": "#904385", "pavement": "#de00ff",
    "sidewalk": "#de00ff", "building": "#a66f00", "buildings": "#a66f00", "car": "#2d6bff",
    "pedestrian": "#ff3838", "person": "#ff3838", "bicyclist": "#ff6a13", "rider": "#ff6a13",
}  # fmt: skip
TINT = 0.5  # of a class's colour over the picture
STRIP = 256  # rows that are counted and painted at once
WRONG, FADED = (230, 60, 30), 0.35  # of an error, and how much is left of what is right
LISTED = 24  # classes that a legend names
PAPER, INK, PALE = "#ffffff", "#1c2126", "#a9b0b7"


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class, (K, 3) uint8; black for one that is called background."""
    names = [name.casefold() for name in classes]
    taken: dict[int, str] = {}
    for k, name in enumerate(names):
        colour = CUSTOMARY.get(name)
        if colour is not None and colour not in taken.values():
            taken[k] = colour
    free = iter([colour for colour in PALETTE if colour not in taken.values()])
    for k, name in enumerate(names):
        if k not in taken and not is_nothing(name) and (colour := next(free, None)):
            taken[k] = colour
    found = np.zeros((len(classes), 3), np.uint8)
    for k, name in enumerate(names):
        if not is_nothing(name):
            found[k] = ImageColor.getrgb(taken[k]) if k in taken else _further(k)
    return found


def hex_colours(classes: Sequence[str]) -> list[str]:
    """The same as "#rrggbb"."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in class_colours(classes).tolist()]


def _further(i: int) -> tuple[int, int, int]:
    """Colours beyond the palette: hues that never meet again, in three lightnesses."""
    hue, (strength, value) = i * 0.618034 % 1, ((0.9, 0.95), (0.5, 1.0), (0.9, 0.6))[i % 3]
    red, green, blue = (round(255 * part) for part in hsv_to_rgb(hue, strength, value))
    return red, green, blue


def is_nothing(name: str) -> bool:
    """Is a class called by a word for no class?"""
    return name.casefold() in NOTHING


def indexed(classes_map: Tensor | np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A map (H, W) as a picture whose values are the classes, with their colours as its palette;
    255, which is ignored, is white. It has room for 255 classes.

    Raises EyelineError where a value does not fit.
    """
    values = _numpy(classes_map)
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        raise EyelineError(
            f"an indexed picture holds classes 0 to {IGNORE - 1}, and this map has "
            f"{int(values.max())}"
        )
    picture = Image.fromarray(values.astype(np.uint8))
    picture.putpalette(palette_of(classes).tobytes())
    return picture


def palette_of(classes: Sequence[str]) -> np.ndarray:
    """(256, 3) uint8 by value: the classes' colours, white for what is ignored and for all others;
    where nobody names the classes those of classes without names."""
    palette = np.full((256, 3), 255, np.uint8)
    colours = class_colours(classes or [str(k) for k in range(IGNORE)])[:IGNORE]
    palette[: len(colours)] = colours
    return palette


def coloured(classes_map: Tensor | np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A map (H, W) in its classes' colours alone; what is ignored is white."""
    colours = np.vstack([class_colours(classes), [[255, 255, 255]]]).astype(np.uint8)
    values = _numpy(classes_map).astype(np.int64)
    return Image.fromarray(colours[np.where(values == IGNORE, len(colours) - 1, values)])


def draw_errors(
    picture: Image.Image, wrong: np.ndarray, ignored: np.ndarray | None = None
) -> Image.Image:
    """The picture, faded and grey, with red pixels where (H, W) bool says that they are wrong, and
    white ones where they are ignored."""
    grey = np.asarray(picture.convert("L"), np.float32)
    canvas = (255 - FADED * (255 - grey)).round().astype(np.uint8)[..., None].repeat(3, 2)
    canvas[wrong] = WRONG
    if ignored is not None:
        canvas[ignored] = 255
    return Image.fromarray(canvas)


def draw_map(
    image: Tensor | np.ndarray | Image.Image,
    classes_map: Tensor | np.ndarray,
    classes: Sequence[str],
    legend: bool = True,
    outline: bool = True,
) -> Image.Image:
    """The picture tinted in the colours of its classes, with a legend below.

    Small pictures are enlarged by a whole factor, so the result can be larger than the input. Its
    size depends on the picture's and on `classes` alone: frames of a video stay of one size.

    Args:
        image: tensor (3, H, W), array (H, W, 3) (uint8 or float in [0, 1]), or PIL picture.
        classes_map: (H, W) classes, of the same picture; 255 has no tint.
        classes: their names.
        legend: name the classes, and which share of the picture each has.
        outline: full colour where two classes meet.
    """
    picture, values = to_pil(image), _numpy(classes_map)
    if values.shape != picture.size[::-1]:
        raise EyelineError(
            f"the map is {values.shape[0]} x {values.shape[1]}, the picture "
            f"{picture.height} x {picture.width}"
        )
    factor = max(1, ceil(SHORTEST / max(picture.size)))
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    counts = np.zeros(len(classes), np.int64)
    for top in range(0, len(values), STRIP):
        part = values[top : top + STRIP]
        counts += np.bincount(part[part >= 0], minlength=len(classes))[: len(classes)]
    values = values.repeat(factor, 0).repeat(factor, 1)
    width = max(3, round(max(picture.size) / 400) * 2 + 1)
    drawn = Image.fromarray(tinted(np.asarray(picture), values, classes, width if outline else 1))
    return _with_legend(drawn, classes, counts / values.size) if legend else drawn


def tinted(
    picture: np.ndarray, classes_map: np.ndarray, classes: Sequence[str], width: int
) -> np.ndarray:
    """(H, W, 3) uint8 in the tints of the classes (H, W); what is no class stays as it is.

    Args:
        width: of the line, in full colour, where two classes meet; odd, 1 for none.
    """
    colours = np.vstack([class_colours(classes), np.zeros((1, 3))]).astype(np.float32)
    plain = np.array([*map(is_nothing, classes), True])  # (K + 1,)
    tints = np.where(plain, 0, TINT).astype(np.float32)
    drawn, reach = np.empty_like(picture), width // 2
    for top in range(0, len(picture), STRIP):  # for the sake of memory
        end, above = min(top + STRIP, len(picture)), max(0, top - reach)
        values = classes_map[above : end + reach].astype(np.int64)
        index = np.where((values >= 0) & (values < len(classes)), values, len(classes))
        edge = ndimage.maximum_filter(index, width) != ndimage.minimum_filter(index, width)
        index, edge = index[top - above :][: end - top], edge[top - above :][: end - top]
        strength = np.where(edge & ~plain[index], 1, tints[index])[..., None]  # (h, W, 1)
        part = picture[top:end].astype(np.float32)
        drawn[top:end] = (part + strength * (colours[index] - part)).round()
    return drawn


def _with_legend(picture: Image.Image, classes: Sequence[str], shares: np.ndarray) -> Image.Image:
    """The picture above a list of its classes in columns; those that it lacks are pale."""
    letters = max(12, round(max(picture.size) / 50))
    font = ImageFont.load_default(letters)
    colours = class_colours(classes)
    order = np.argsort(-shares, kind="stable")[:LISTED]
    shown = sorted(order.tolist()) if len(classes) > LISTED else range(len(classes))
    row = round(letters * 1.6)
    widest = max((font.getlength(f"{name} 100 %") for name in classes), default=0)
    column = min(picture.width, round(widest) + 2 * row)
    columns = max(1, picture.width // column)
    column = picture.width // columns
    lines = -(-min(len(classes), LISTED) // columns)
    sheet = Image.new("RGB", (picture.width, picture.height + lines * row + row // 2), PAPER)
    sheet.paste(picture)
    pen = ImageDraw.Draw(sheet)
    for i, k in enumerate(shown):
        left = i // lines * column + row // 3
        middle = picture.height + row // 4 + i % lines * row + row // 2
        side = row // 3
        box = (left, middle - side, left + 2 * side, middle + side)
        absent = shares[k] == 0
        fill = PAPER if absent else tuple(int(v) for v in colours[k])
        pen.rectangle(box, fill=fill, outline=PALE if absent else INK)
        told = classes[k] if absent else f"{classes[k]} {_percent(shares[k])}"
        at = (left + 2 * side + row // 3, middle)
        pen.text(at, told, fill=PALE if absent else INK, font=font, anchor="lm")
    return sheet


def _percent(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def _numpy(classes_map: Tensor | np.ndarray) -> np.ndarray:
    values = classes_map.cpu().numpy() if isinstance(classes_map, Tensor) else classes_map
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        kind = values.dtype if not isinstance(classes_map, Tensor) else classes_map.dtype
        raise EyelineError(f"a map of classes is whole numbers (H, W), not {kind} {values.shape}")
    return values
