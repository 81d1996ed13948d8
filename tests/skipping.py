"""Skipping for want of data or a service: with a reason for a user, not at all where EXACT_NO_SKIP is set."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip(reason: str) -> NoReturn:
    """Skip the test, or fail it where skipping would hide that it never runs."""
    if os.environ.get("EXACT_NO_SKIP"):
        pytest.fail(f"would skip: {reason}")
    pytest.skip(reason)
