"""Publishing a file: written under a temporary name, then renamed, so that nobody ever reads half of it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["publish_text"]


def publish_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
