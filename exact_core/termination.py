"""The end of a process that is asked to end: nodes that are taken back, drained or deleted give it 30 seconds."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from exact_core.errors import ExactError

__all__ = ["TerminatedError", "at_failure", "ending_in_order"]

log = logging.getLogger(__name__)

_actions: list[Callable[[], None]] | None = None
"""What to do before a failed stage ends. None while none is open."""


class TerminatedError(BaseException):
    """The process was asked to end. No Exception: nothing that goes on after an error may go on after this."""


def at_failure(action: Callable[[], None]) -> None:
    """Have something done before the open stage ends in any other way than well. Nothing where no stage is open.

    It may be called although it is needless, and has a few seconds.
    """
    if _actions is not None:
        _actions.append(action)


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Turn SIGTERM into a `TerminatedError`, and do what `at_failure` was given before any failure goes on.

    Off the main thread, where Python lets nobody handle signals, failures alone.
    """
    global _actions
    before, _actions = _actions, []
    ending = False
    asked: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None
    main = threading.current_thread() is threading.main_thread()

    def end(number: int, _: FrameType | None) -> None:
        # Once the end has begun, another signal must not break off what it is for. Until then each raises: one that
        # arrives in a finaliser is lost, because Python ignores what these raise.
        if not ending:
            raise TerminatedError(
                f"ended by signal {number} ({signal.Signals(number).name}): its node, pod or job was taken away; the "
                f"same command goes on from the last checkpoint"
            )

    if main:
        asked = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        ending = True
        for action in reversed(_actions):
            try:
                action()
            except (ExactError, OSError) as problem:
                # The first error is the one that the user needs.
                log.warning("%s", problem)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if asked is None else asked)
        _actions = before
