"""The page of an attack, in pieces: one HTML file without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from libs.cli.drawing import style_sheet

_SHOWN_PIXELS = 224


def build_page(*, title: str, lead: str, created_at: str, command: str, body: Iterable[str]) -> str:
    """The whole page. `body` is markup from the functions below; the rest is escaped here."""
    template = resources.files("libs.cli.attack").joinpath("page.html").read_text(encoding="utf-8")
    texts = {"title": title, "lead": lead, "created_at": created_at, "command": command}
    return Template(template).substitute(
        {name: escape(text) for name, text in texts.items()}
        | {"style": style_sheet(), "body": "\n".join(body)}
    )


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """A table as the screen shows it; the `>` in front of a column is for the screen."""
    head = "".join(f'<th scope="col">{escape(name.lstrip(">!"))}</th>' for name in columns)
    lines = []
    for first, *cells in rows:
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{data}</tr>')
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def chart(svg: str, *, caption: str) -> str:
    """A figure from `to_svg`."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def strip(name: str, images: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str], *, remark: str) -> str:
    """A row of images (H, W) with a line under each, what they are above, and a sentence about them."""
    figures = "".join(
        f'<figure><img alt="{escape(name)}, image {i}" src="{_data_url(image)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for i, (image, caption) in enumerate(zip(images, captions, strict=True), start=1)
    )
    return f'<h3>{escape(name)}</h3><p>{escape(remark)}</p><div class="strip">{figures}</div>'


def to_pixels(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """8-bit gray of an image in [0, 1]."""
    pixels: npt.NDArray[np.uint8] = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels


def enlarged(image: npt.NDArray[np.uint8]) -> Image.Image:
    """As large as a page shows it, pixels as squares: nothing is drawn that is not there."""
    picture = Image.fromarray(image)
    factor = max(1, -(-_SHOWN_PIXELS // picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    enlarged(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
