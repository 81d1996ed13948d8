"""Environment variables as this package reads them, and addresses as it prints them."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from exact_core.errors import ConfigError

__all__ = ["PATIENCE_VARIABLE", "STATE_VARIABLE", "number", "patience", "readable_file", "shown", "variable"]

STATE_VARIABLE = "EXACT_STATE_DIR"
"""Folder in which training keeps checkpoints, so that a killed run continues; unset: it starts again."""
PATIENCE_VARIABLE = "EXACT_PATIENCE_MINUTES"
"""Minutes that the end of a stage waits for MLflow and the store to come back; unset: 10."""
LOGIN = re.compile(r"(?<=://)([^/@\s:]*)(:[^/\s]*)?@")
SECRET = re.compile(r"(?i)([?&](?:password|passwd|pwd|token|sig|signature|secret|api_?key)=)[^&\s]*")


def variable(name: str, default: str = "") -> str:
    """A variable without white space around it, which secrets made with `echo` have; `default` where nothing is left.

    Raises:
        ConfigError: it holds a line break or another control character.
    """
    text = os.environ.get(name, "").strip()
    for place, character in enumerate(text):
        if not character.isprintable():
            raise ConfigError(
                f"{name} has the character {character!r} at position {place + 1} of {len(text)}; make the secret anew, "
                f"with printf or `echo -n`"
            )
    return text or default


def number(name: str, default: float, *, unit: str) -> float:
    """A variable that is a number from 0 on.

    Raises:
        ConfigError: it is none.
    """
    text = variable(name)
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} = {text!r}; give a number of {unit}, such as {default:g} or 0.5")
    return value


def patience() -> float:
    """Seconds that the end of a stage waits for a service to come back; see `PATIENCE_VARIABLE`."""
    return 60 * number(PATIENCE_VARIABLE, 10.0, unit="minutes")


def readable_file(name: str) -> str:
    """A variable that names a file; empty where it is not set.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    path = variable(name)
    if path:
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except OSError as error:
            raise ConfigError(f"{name} = {path}: cannot be read: {error.strerror}; name a file, or unset it") from error
    return path


def shown(text: str) -> str:
    """A text with the logins in its addresses hidden: `http://user:***@host`."""
    hidden = LOGIN.sub(lambda found: f"{found[1]}:***@" if found[2] else "***@", text)
    return SECRET.sub(r"\1***", hidden)
