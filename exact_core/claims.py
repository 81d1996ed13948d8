"""Claims: of several processes that would do the same work, on any machines, one does it.

A claim is a short text that a process puts on a board: the objects under a prefix of a store, or the tags of a model in
MLflow. A board must show a claim to everybody who reads after it was put. Conditional writes are not used, because not
every S3 server has them, and a server without them still accepts the write (docs/decisions/0010).

The rule: put your claim, then read the board, and withdraw yours if another one counts. Of two processes, at least one
reads after both have put, so both never continue. Both may withdraw. Each then tries again after a random pause, unless
the other states that it has made sure. A claim has an expiry time, so a killed process does not block others for ever.
"""

from __future__ import annotations

import json
import logging
import random
import time
from contextlib import suppress
from typing import Protocol

from exact_core.json_values import read_json

__all__ = ["Board", "take"]

log = logging.getLogger(__name__)

TRIES = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds, before chance shortens them."""


class Board(Protocol):
    """Where claims are put, each under the name of its owner."""

    def put(self, owner: str, text: str) -> None:
        """Put a claim, replacing the owner's earlier one."""

    def claims(self) -> dict[str, str]:
        """All claims, by owner."""

    def remove(self, owner: str) -> None:
        """Take a claim back, if it is there."""


def take(board: Board, owner: str, *, seconds: float) -> str:
    """Claim a board's matter, or renew the claim.

    Args:
        board: shared by all who might claim it.
        owner: name of the claim. Claims with one name have one owner.
        seconds: validity, from now on.

    Returns:
        Empty if the owner has it now. Otherwise the other owner whose claim counts, and this one is withdrawn.
    """
    # Who has it does not give way: whoever else looks sees that, and does.
    if _counting(board).get(owner):
        board.put(owner, _text(seconds, sure=True))
        return ""
    other = ""
    for attempt in range(TRIES):
        board.put(owner, _text(seconds, sure=False))
        others = {name: sure for name, sure in _counting(board).items() if name != owner}
        if not others:
            board.put(owner, _text(seconds, sure=True))
            return ""
        board.remove(owner)
        other = next((name for name, sure in others.items() if sure), next(iter(others)))
        if others[other]:
            return other
        # It may have seen ours, and given way too.
        time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.2, 1))  # noqa: S311 - to part two
    return other


def _text(seconds: float, *, sure: bool) -> str:
    return json.dumps({"until": time.time() + seconds, "sure": sure})


def _counting(board: Board) -> dict[str, bool]:
    """Owners whose claims count, and whether each has made sure that it is alone."""
    found = {}
    for owner, text in board.claims().items():
        with suppress(ValueError, KeyError, TypeError):
            claim = read_json(text)
            if claim["until"] > time.time():
                found[owner] = bool(claim["sure"])
    return found
