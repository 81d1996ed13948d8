"""Texts of others within our Markdown."""

from __future__ import annotations

import html
import re

__all__ = ["as_markdown"]

SIGNS = re.compile(r"([\\`*_\[\]|~$#])")


def as_markdown(text: str) -> str:
    """A text that Markdown shows as it is, in one line: no table cell, emphasis, link or HTML begins or ends in it."""
    return SIGNS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
