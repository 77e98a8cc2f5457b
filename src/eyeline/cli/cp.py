"""eyeline cp: a paper file or a recipe of ours, to make one's own of."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from eyeline.errors import EyelineError


def cp(
    name: Annotated[str, typer.Argument(help="of a model or a recipe")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="made if it is missing")],
) -> None:
    """Copy a model's file or a recipe into a folder, for editing.

    The copy trains by its path: eyeline train DIR/retinanet.py --data cells
    """
    source = find_source(name)
    target = folder / source.name
    if target.exists():
        raise EyelineError(f"{target} exists already; choose another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.write(source.read_bytes())
    extra = "" if source.suffix == ".yaml" else " --data PATH"
    print(f"{target}; to train it: eyeline train {target}{extra}")


def find_source(name: str) -> Path:
    """Our file of a model's or a recipe's name (with or without its ending)."""
    from eyeline.registry import entries

    shipped = Path(str(files("eyeline"))) / "recipes"
    known = {path.stem: path for path in sorted(shipped.glob("*.yaml"))}
    known |= {entry.name: Path(inspect.getfile(entry.build)) for entry in entries()}
    stem = name.removesuffix(".yaml").removesuffix(".py")
    if stem not in known:
        near = get_close_matches(stem, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise EyelineError(f"no model or recipe is called {name!r}; {hint}")
    return known[stem]
