"""Pages that need no network: a filled template, pictures inside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave

from exact_core.evaluation.palette import Image

__all__ = ["data_uri", "embed", "png_of", "render"]

UNKNOWN = "–"


def render(template: str, content: Mapping[str, Any]) -> str:
    """A template below this folder, filled. A name that it misses is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "count": _count}
    return environment.get_template(template).render(content)


def embed(columns: list[tuple[str, Image]]) -> list[tuple[str, str]]:
    """Captions with data URIs. The browser enlarges the pixels."""
    embedded = []
    for caption, image in columns:
        buffer = io.BytesIO()
        imsave(buffer, np.ascontiguousarray(np.clip(image, 0, 1)), format="png")
        embedded.append((caption, data_uri(buffer.getvalue())))
    return embedded


def png_of(figure: Figure) -> bytes:
    """A matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as it stands in HTML."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _percent(value: float | None, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\u00a0%" if value is not None and _is_number(value) else UNKNOWN


def _count(value: int | None) -> str:
    """An integer with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f") if value is not None else UNKNOWN
