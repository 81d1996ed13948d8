"""Publishing a file (written under a temporary name, then renamed, so that nobody ever reads half of it); checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["publish_text", "sha256_of"]


def publish_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
