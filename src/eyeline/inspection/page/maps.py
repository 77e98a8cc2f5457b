"""The page of a segmenter's x-ray."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyeline.evaluation.html import ALERTS, document, facts, picture_uri, scripts
from eyeline.inference.draw_map import class_colours, coloured, draw_errors, draw_map
from eyeline.inspection.heat import heat
from eyeline.inspection.map_xray import MapXRay
from eyeline.inspection.page.pictures import components, in_colours, photograph, strongest
from eyeline.inspection.page.source import source_of

HERE = Path(__file__).parent
SCRIPTS = ("common.js", "maps.js")
SIDE = 480  # pixels of the longer side of what is hovered over
SMALL = 220  # and of a small picture
SHOWN = 24  # classes with a map of their own; the page holds the numbers of as many
CHANNELS = 6  # of a stage


def map_page(x: MapXRay, title: str, picture: str, subtitle: str = "") -> str:
    """The page, as HTML that needs no other file; see `eyeline.inspection.explain.explain`."""
    names = names_of(x)
    order = x.probabilities.flatten(1).mean(1).argsort(descending=True, stable=True)
    shown = sorted(order[:SHOWN].tolist())
    sections = [
        ("pixels", "Pixels", _pixels(x, names, shown)),
        ("classes", "Classes", _classes(x, names, shown)),
        ("stages", "Stages", _stages(x)),
    ]
    nav = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in sections)
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(picture)}. {escape(subtitle)}</p>"
        f'{ALERTS}</header>\n<nav aria-label="Sections"><ul>{nav}</ul></nav>\n<main>'
        + "".join(
            f'<section id="{key}"><h2>{name}</h2>{inner}</section>\n'
            for key, name, inner in sections
        )
        + "</main>\n"
        + scripts(_data(x, names, shown), [HERE / name for name in SCRIPTS])
    )
    style = "".join((HERE / name).read_text("utf-8") for name in ("explain.css", "maps.css"))
    return document(f"{title}: {picture}", body, style)


def names_of(x: MapXRay) -> list[str]:
    return list(getattr(x.model, "classes", None) or map(str, range(len(x.logits))))


def _data(x: MapXRay, names: list[str], shown: list[int]) -> dict[str, Any]:
    """Grey pictures of the numbers, no larger than is looked at, and names."""
    size = fitted(x.logits.shape[1:], SIDE)
    probabilities = x.probabilities[shown]
    return {
        "width": size[1],
        "height": size[0],
        "original": list(x.logits.shape[1:]),
        "names": [names[k] for k in shown],
        "colours": [f"rgb({r} {g} {b})" for r, g, b in class_colours(names)[shown].tolist()],
        "rest": len(names) - len(shown),
        "probabilities": [picture_uri(grey(plane, size)) for plane in probabilities],
        "entropy": picture_uri(grey(x.entropy, size)),
        "truth": None
        if x.target is None
        else picture_uri(
            Image.fromarray(x.target.to(torch.uint8).numpy()).resize(
                size[::-1], Image.Resampling.NEAREST
            )
        ),
        "all": names,
    }


def _pixels(x: MapXRay, names: list[str], shown: list[int]) -> str:
    """What a script shows one layer of; without it they all stand there."""
    photo = photograph(x.image)
    size = fitted(x.logits.shape[1:], SIDE)
    large = photo.resize(size[::-1], Image.Resampling.BICUBIC)
    said = small_map(x.classes, size)
    layers = {
        "classes": ("Classes", draw_map(large, said, names, legend=False)),
        "entropy": ("Entropy", heated(large, x.entropy, size)),
        "photo": ("Picture", large),
    }
    if x.target is not None and x.wrong is not None:
        layers["truth"] = ("Annotation", coloured(small_map(x.target, size), names))
        layers["wrong"] = ("Errors", draw_errors(large, small_map(x.wrong, size).bool().numpy()))
    figures = "".join(
        f'<img class="layer" data-layer="{key}" data-name="{name}" alt="{name}" '
        f'width="{size[1]}" height="{size[0]}" src="{picture_uri(shot, "JPEG")}">'
        for key, (name, shot) in layers.items()
    )
    wrong = x.wrong
    known = None if x.target is None else int((x.target != 255).sum())
    told = {
        "given": f"{x.image.shape[2]} × {x.image.shape[1]} pixels",
        "the network sees": f"{x.batch.images.shape[3]} × {x.batch.images.shape[2]}; "
        f"{x.model.preprocess.told()}",  # type: ignore[union-attr]
        "entropy": f"{float(x.entropy.mean()):.3f} in the mean, of at most 1",
    }
    if wrong is not None and known:
        told["wrong"] = f"{int(wrong.sum()) / known:.1%} of the annotated pixels"
    told |= {f"loss, {name}": f"{value:.4f}" for name, value in (x.losses or {}).items()}
    return (
        "<p>Point at a pixel, or move with the arrow keys, to see what the model makes of it. "
        "Entropy is how undecided it is: dark where one class is certain, light where all are as "
        f'likely.</p><div class="columns"><div class="look" id="look">{figures}</div>'
        f'<div class="said" id="said"></div></div>{facts(told)}'
    )


def _classes(x: MapXRay, names: list[str], shown: list[int]) -> str:
    size = fitted(x.logits.shape[1:], SMALL)
    probabilities = x.probabilities
    share = torch.bincount(x.classes.flatten(), minlength=len(names)) / x.classes.numel()
    figures = "".join(
        f'<figure><img src="{picture_uri(in_heat(probabilities[k], size))}" '
        f'alt="probability of {escape(names[k])}"><figcaption><b>{escape(names[k])}</b> '
        f"{float(share[k]):.1%} of the pixels, {float(probabilities[k].max()):.2f} at most"
        "</figcaption></figure>"
        for k in shown
    )
    rest = len(names) - len(shown)
    left = f"<p>The other {rest} classes are less likely.</p>" if rest else ""
    return (
        "<p>The probability of each class at each pixel, from dark, 0, to light, 1.</p>"
        f'<div class="planes">{figures}</div>{left}'
    )


def _stages(x: MapXRay) -> str:
    if not x.stages:
        return '<p class="reason">This model gives no maps between its ends.</p>'
    parts = []
    for name, features in x.stages:
        depth, height, width = features.shape
        features = F.adaptive_avg_pool2d(features, fitted((height, width), SMALL))
        shown, explained = components(features)
        index, energy = strongest(features, CHANNELS)
        channels = "".join(
            f'<figure><img src="{picture_uri(in_colours(features[i]))}" alt="channel {i}">'
            f"<figcaption>channel {i}, {share:.0%}</figcaption></figure>"
            for i, share in zip(index, energy, strict=True)
        )
        told = ", ".join(f"{part:.0%}" for part in explained)
        source = source_of([name], x.lines) if name in x.lines else ""
        parts.append(
            f'<div class="stage"><h3>{escape(name)}</h3><p>{width} × {height} cells, {depth} '
            f"channels; red, green and blue explain {told} of what differs.</p>"
            f'<div class="of-stage"><figure><img src="{picture_uri(shown)}" '
            f'alt="{escape(name)}"></figure><div class="planes">{channels}</div></div>'
            f"{source}</div>"
        )
    return (
        "<p>The maps between the picture and the classes, in their order. Large, the three "
        "directions in which a map's cells differ most, as red, green and blue: cells of one "
        "colour are alike to the network. Small, the channels with the highest energy and their "
        f"share of it, each from dark to light.</p>{''.join(parts)}"
    )


def fitted(size: Any, longest: int) -> tuple[int, int]:
    """Height and width, the aspect kept, the longer at most so long."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def area_means(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) -> (h, w), the mean of what a new pixel covers."""
    if tuple(plane.shape) == size:
        return plane.float()
    return F.interpolate(plane.float()[None, None], size, mode="area")[0, 0]


def small_map(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (H, W) of fewer pixels, the nearest of each."""
    return F.interpolate(classes[None, None].float(), size, mode="nearest-exact")[0, 0].long()


def grey(plane: Tensor, size: tuple[int, int]) -> Image.Image:
    """Values in 0 .. 1 as grey, 255 for 1."""
    values = area_means(plane, size).clamp(0, 1)
    return Image.fromarray((values * 255).round().to(torch.uint8).numpy())


def in_heat(plane: Tensor, size: tuple[int, int]) -> Image.Image:
    """Values in 0 .. 1 from dark to light."""
    image = grey(plane, size)
    palette = Image.fromarray(
        (heat(torch.linspace(0, 1, 256)).T * 255).round().to(torch.uint8).numpy()[None]
    )
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(palette.tobytes())
    return image


def heated(picture: Image.Image, plane: Tensor, size: tuple[int, int]) -> Image.Image:
    """The picture in grey under values in 0 .. 1: the higher, the more of their colour."""
    values = area_means(plane, size)
    base = torch.frombuffer(bytearray(picture.convert("L").tobytes()), dtype=torch.uint8)
    base = base.view(1, *size).expand(3, -1, -1).float() / 255 * 0.5
    mixed = torch.lerp(base, heat(values), (0.25 + 0.75 * values).clamp(0, 1))
    return Image.fromarray((mixed * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
