"""What every page is made of."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from eyeline.evaluation.style import CSS

LONGEST = 480  # pixels of a picture's longer side on a page


def document(title: str, body: str, style: str = "") -> str:
    """A page that needs no other file; `style` is added to all pages' own."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{CSS}{style}</style>
</head>
<body>
{body}</body>
</html>
"""


ALERTS = (
    '<p id="error" class="reason" role="alert" hidden></p><noscript><p class="reason">The '
    "pictures of this page are drawn by its script; allow it to run.</p></noscript>"
)


def scripts(data: Any, files: Sequence[Path]) -> str:
    """What stands at the end of a page with a script: its data, as `DATA` there, and the files as
    one script. Their errors are told in `ALERTS`."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    return (
        f'<script type="application/json" id="data">{text}</script>\n'
        f"<script>(() => {{\n{source}}})();</script>\n"
    )


def facts(rows: dict[str, str]) -> str:
    """Names and values, one a line."""
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows.items())
    return f'<dl class="facts">{"".join(items)}</dl>'


def picture_uri(image: Image.Image, kind: str = "PNG") -> str:
    """A picture that the page carries; JPEG for photographs."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def bar(value: float | None) -> str:
    if value is None or value < 0:
        return '<i class="bar"></i>'
    return f'<i class="bar"><b style="width:{100 * value:.1f}%"></b></i>'


def counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def matrix_table(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    upright: bool,
    kind: str = "",
) -> str:
    """A table of `<td>` cells with a name before each row and above each column; `kind`: another
    class of the table's, `upright`: the columns' names stand on end."""
    kinds = " ".join(["matrix", *([kind] if kind else []), *(["upright"] if upright else [])])
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(row)}</tr>'
        for name, row in zip(rows, cells, strict=True)
    )
    return (
        f'<div class="scroll"><table class="{kinds}"><thead><tr><td></td>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
