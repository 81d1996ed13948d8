"""Run a component as a step with `python3 -m exact_kubeflow.components NAME INPUT`. INPUT is KFP's executor input."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys

from kfp.dsl.executor import Executor

from exact_core.cgroup import cores
from exact_core.environment import load_environment
from exact_core.errors import ConfigError

__all__ = ["main", "use_own_cores"]

log = logging.getLogger(__name__)

THREADS_VARIABLE = "OMP_NUM_THREADS"


def main() -> None:
    """Run the component and write its outputs where KFP expects them."""
    name, given = sys.argv[1:3]
    logging.basicConfig(level=logging.INFO, format="[exact %(asctime)s %(levelname)s]: %(message)s", stream=sys.stdout)
    log.info("executor_input of %s: %s", name, given)
    try:
        load_environment()
    except ConfigError as error:
        log.error("%s: %s", name, error)
        sys.exit(1)
    use_own_cores()
    component = getattr(importlib.import_module(f"exact_kubeflow.components.{name}"), name)
    Executor(executor_input=json.loads(given), function_to_execute=component).execute()


def use_own_cores() -> None:
    """Limit libraries to one thread for each core of this process. Call it before numpy or torch is imported.

    By default they count the cores of the node, and threads without a core wait for each other.
    """
    if (most := cores()) is not None:
        os.environ.setdefault(THREADS_VARIABLE, str(most))


if __name__ == "__main__":
    main()
