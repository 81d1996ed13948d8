"""Following a run to its end: what its steps do, why it failed, and what MLflow knows where KFP has stopped to say."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from typing import Any

from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.connection import LoggedOutError, MissingError, UnansweredError
from exact_kubeflow.pipelines.run_nodes import Failure, Nodes
from tqdm import tqdm

from exact_core.errors import ServiceError
from exact_core.tracking.lookups import stage_states

__all__ = ["EXIT_CODES", "LOGGED_OUT", "follow"]

EXIT_CODES = {"succeeded": 0, "failed": 1, "terminated": 3}
"""Exit code of a command that followed a run to its end. 2 is a wrong command line."""
LOGGED_OUT = 4
INTERRUPTED = 130
ENDS = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELED": "terminated"}
"""States of a run that is over. KFP 2.17 calls a terminated run FAILED, after CANCELING."""
POLL_SECONDS = 5.0
WAIT_SECONDS = 45.0
"""A starting container is PENDING for some ten seconds. After this time, a message says so."""
FROZEN_SECONDS = 120.0
"""MLflow is queried if KFP reports no change for this long."""
FOLLOW_ATTEMPTS = 12
"""A server that restarts is waited for about three minutes."""
LOG_LINES = 12
KLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (.*)")
SAID = re.compile(r"\[KFP Executor [^\]]*\]: ")
ERROR = re.compile(r"exact_core\.errors\.\w+: ")


def follow(
    run_id: str, *, cluster: Cluster | None = None, host: str | None = None, namespace: str | None = None
) -> int:
    """Show the progress of a run until it ends. Ctrl-C ends the output, not the run.

    Returns:
        Exit code: see EXIT_CODES. 4 where the token has ended. 130 after Ctrl-C.

    Raises:
        ServiceError: there is no such run, or the server is gone for longer than a restart takes.
    """
    try:
        cluster = cluster or Cluster(host, namespace=namespace)
        return _Follower(cluster, run_id).to_the_end()
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nno longer following. The run continues. To follow it again: exact follow {run_id}\n"
            f"(to stop the run itself, use Terminate on its page)\n"
        )
        return INTERRUPTED
    except LoggedOutError as error:
        sys.stderr.write(f"{error}\nthe run continues. With a new token: KFP_TOKEN=... exact follow {run_id}\n")
        return LOGGED_OUT
    except UnansweredError as error:
        raise ServiceError(f"{error}\nthe run may well go on: exact follow {run_id}") from error


class _Follower:
    """What has been shown of a run so far."""

    def __init__(self, cluster: Cluster, run_id: str) -> None:
        self.cluster, self.run_id = cluster, run_id
        self.run = cluster.run(run_id, attempts=FOLLOW_ATTEMPTS)
        self.names = cluster.steps(self.run)
        self.shown: dict[str, str] = {}
        self.recorded: dict[str, str] = {}
        self.waiting: dict[str, float] = {}
        self.changed = time.monotonic()

    def to_the_end(self) -> int:
        started = time.monotonic()
        # On a terminal only; elsewhere the lines say enough.
        with tqdm(total=len(self.names) or None, disable=None, unit="step", leave=False, file=sys.stderr) as bar:
            while True:
                nodes = Nodes(self.run)
                steps = nodes.steps(self.names)
                self._tell(steps)
                bar.n = sum(not {"RUNNING", "PENDING"} & set(states) for states in steps.values())
                running = [step for step, states in steps.items() if states["RUNNING"]]
                bar.set_postfix_str(", ".join(running) or str(self.run.state or "pending").lower())
                if self.run.state in ENDS:
                    break
                sys.stdout.flush()
                time.sleep(POLL_SECONDS)
                self.run = self.cluster.run(self.run_id, attempts=FOLLOW_ATTEMPTS)
        end = _end(self.run)
        seconds = time.monotonic() - started
        sys.stdout.write(f"run {self.run.display_name}: {end} (followed for {seconds:.0f} s)\n")
        if nodes.frozen:
            self._tell_frozen()
        if end == "failed":
            for failure in nodes.failures():
                sys.stderr.write(self._reason(failure))
        if end != "succeeded":
            sys.stderr.write(f"see {self.cluster.link(self.run_id)}\n")
        return EXIT_CODES[end]

    def _tell(self, steps: dict[str, Counter[str]]) -> None:
        """Print what has changed."""
        for step, states in steps.items():
            told = _words(states)
            if states["PENDING"]:
                since = self.waiting.setdefault(step, time.monotonic())
                if time.monotonic() - since < WAIT_SECONDS:
                    continue
            else:
                self.waiting.pop(step, None)
            if self.shown.get(step) != told:
                self._print(f"{step}: {told}")
                self.shown[step], self.changed = told, time.monotonic()
        if time.monotonic() - self.changed > FROZEN_SECONDS and os.environ.get("MLFLOW_TRACKING_URI"):
            self.changed = time.monotonic()
            recorded = stage_states(self.run_id)
            for stage, state in recorded.items():
                # What KFP shows is known; of the rest, what is new.
                if stage.replace("_", "-") not in self.shown and self.recorded.get(stage) != state:
                    self._print(f"{stage.replace('_', '-')}: {state} (by MLflow; KFP does not show it)")
            self.recorded = recorded

    def _tell_frozen(self) -> None:
        sys.stdout.write(
            "KFP no longer updated the states of single steps (its Workflow grew over 1 MB). The end above is the "
            "run's own state\n"
        )
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            sys.stdout.write("set MLFLOW_TRACKING_URI to see the records of the stages\n")
            return
        for stage, state in stage_states(self.run_id).items():
            sys.stdout.write(f"  {stage.replace('_', '-')}: {state} (by MLflow)\n")

    def _reason(self, failure: Failure) -> str:
        """The end of a failed container's log, under a line that says whose it is."""
        whose = f"driver of {failure.step}" if failure.driver else failure.step
        tried = f" ({failure.tries} tries)" if failure.tries > 1 else ""
        try:
            said = _tail(self.cluster.log(self.run_id, failure.node))
        except (MissingError, UnansweredError) as error:
            said = [f"no log: {error}"]
        except LoggedOutError:
            raise
        except ServiceError as error:
            said = [f"no log: {error}. The pod may be gone, or the store with the logs unavailable"]
        return "".join([f"failed: {whose}{tried}\n", *(f"  {line}\n" for line in said)])

    @staticmethod
    def _print(line: str) -> None:
        tqdm.write(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stdout)


def _end(run: Any) -> str:
    """How a run that is over has ended."""
    history = [each.state for each in run.state_history or [] if each.state]
    # Of one that was repeated only what came after it had ended before.
    before = [number for number, state in enumerate(history[:-1]) if state in ENDS]
    if run.state == "FAILED" and "CANCELING" in history[before[-1] + 1 if before else 0 :]:
        return "terminated"
    return ENDS[run.state]


def _words(states: Counter[str]) -> str:
    """States of a step's iterations. A single one gives only its state."""
    words = {"PENDING": "waiting for a node, an image or a volume"}
    if sum(states.values()) == 1:
        (state,) = states
        return words.get(state, state.lower())
    return ", ".join(f"{count} {words.get(state, state.lower())}" for state, count in sorted(states.items()))


def _tail(log: str) -> list[str]:
    """What a failed container said last: its error without traceback and without the lines of KFP's launcher."""
    lines = log.splitlines()
    own = [SAID.sub("", line) for line in lines if line.strip() and not KLOG.match(line)]
    if "Traceback (most recent call last):" in own:
        last = len(own) - 1 - own[::-1].index("Traceback (most recent call last):")
        # The frames are indented; what is not is the error, over as many lines as it has.
        said = [ERROR.sub("", line) for line in own[last + 1 :] if not line.startswith(" ")]
        return said[-LOG_LINES:]
    launcher = [match[1] for line in lines if (match := KLOG.match(line)) and line[0] in "EF"]
    if not own:
        return launcher[-LOG_LINES:] or ["its log is empty"]
    if not any("failed to execute component" in line for line in launcher) or "signal: killed" in log:
        own.append("(its log ends here: it was killed, most likely out of memory)")
    return own[-LOG_LINES:]
