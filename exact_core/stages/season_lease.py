"""One run at a time makes the map of a season: leases in the store, EXACT_STORE/leases/REGION/SEASON/RUN.json.

A run's first step takes the lease, every other one renews it when it begins, and `record_status` gives it back, however
the run ended. It ends by itself where no step has begun for as long as one may take, and a day. Without EXACT_STORE
nothing is published, so there is nothing to be held.
"""

from __future__ import annotations

from exact_core.artifacts.stage_files import STORE_VARIABLE
from exact_core.claims import take
from exact_core.environment import variable
from exact_core.errors import ServiceError
from exact_core.stages.run import Run
from exact_core.stages.stage import Stage
from exact_core.storage import Store, open_store
from exact_core.storage.leases import StoreBoard, release
from exact_core.tracking.runs import run_identity

__all__ = ["give_back", "hold", "renew"]

LEASES = "leases"
WAIT = 24 * 3600
"""Seconds that a run may wait for a node between two of its steps."""


def hold(run: Run, stage: Stage) -> str:
    """Take the lease of a run's season, or renew it.

    Args:
        run: that publishes.
        stage: which begins. The lease counts for as long as it may take, and a day.

    Returns:
        Empty, or, if another run has it, a sentence that names the run and how to release the lease.
    """
    leases = _leases()
    if leases is None or not run.map_place:
        return ""
    board = StoreBoard(leases, run.map_place.rstrip("/"))
    other = take(board, run_identity(run.pipeline_run), seconds=60 * stage.minutes + WAIT)
    if not other:
        return ""
    return (
        f"run {other} is making the map {run.map_place.rstrip('/')}. It releases the season at its end. Delete "
        f"{board.uri_of(other)} if that run no longer exists"
    )


def renew(run: Run, stage: Stage) -> None:
    """`hold`, for a run that has already started.

    Raises:
        ServiceError: another run has taken the season since.
    """
    if other := hold(run, stage):
        raise ServiceError(f"{other}. Repeat this step then")


def give_back(pipeline_run: str) -> None:
    """Release all leases of a run."""
    leases = _leases()
    if leases is not None:
        release(leases, run_identity(pipeline_run))


def _leases() -> Store | None:
    uri = variable(STORE_VARIABLE)
    return open_store(uri).below(LEASES) if uri else None
