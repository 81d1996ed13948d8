"""The rank that torchrun assigns to a process. Without torch, which some images do not have."""

from __future__ import annotations

import os

from exact_core.errors import ConfigError

__all__ = ["is_first_process", "rank_variable"]


def is_first_process() -> bool:
    """Whether torchrun made this process the first, or did not start it at all."""
    return rank_variable("RANK", 0) == 0


def rank_variable(variable: str, default: int) -> int:
    """A number that torchrun has put into the environment.

    Raises:
        ConfigError: something else has put another text there.
    """
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{variable} = {text!r} is no number. Leave it to torchrun, or unset it")
    return int(text)
