"""The nodes of a run, as Argo has them behind KFP's answer: which step is where, and whose log says why it failed.

KFP lists drivers, executors, groups and each try as tasks of equal rank, under display names that repeat. The only
trace of the structure are the identities of each task's children. Argo makes an identity of a node's full name
(workflow.GROUP.STEP(try).executor(try)) by FNV-1a, so that the names can be found from the identities, and with them
which executor belongs to which step. Seen with Argo v4.0.5 under KFP 2.17.0.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Failure", "Nodes", "node_id"]

OVER = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "CACHED"}
TRIES = 10
"""More tries than this of one node are not looked for."""
EARLY = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Failure:
    """A container that failed."""

    step: str
    """Step or group whose it is."""
    driver: bool
    """Whether it prepared the step, and did not do it."""
    node: str
    """Argo's identity of it, which its log goes by."""
    tries: int
    """How often it was tried."""


class Nodes:
    """The tasks of one run under the names that Argo gives them."""

    def __init__(self, run: Any) -> None:
        tasks = (run.run_details.task_details or []) if run.run_details else []
        self.tasks = [task for task in tasks if task.display_name]
        self._by_display: dict[str, list[Any]] = defaultdict(list)
        for task in self.tasks:
            self._by_display[task.display_name].append(task)
        self.named: dict[str, Any] = {}
        self._name()

    @property
    def frozen(self) -> bool:
        """Whether some task has not ended: of a run that is over, KFP then no longer reads what Argo says of it."""
        return any(task.state in ("RUNNING", "PENDING") for task in self.tasks)

    def steps(self, names: Iterable[str]) -> dict[str, Counter[str]]:
        """Step -> how many of its iterations are in which state, in the order in which they started."""
        wanted = set(names)
        found: dict[str, Counter[str]] = {}
        for name, task in sorted(self._last_tries(), key=lambda entry: _started(entry[1])):
            display = task.display_name
            if display in wanted and (state := self._state(name, task)):
                found.setdefault(display, Counter())[state] += 1
            elif display.endswith("-driver") and display[:-7] in wanted and task.state == "FAILED":
                found.setdefault(display[:-7], Counter())["FAILED"] += 1
        return found

    def failures(self) -> list[Failure]:
        """Every container whose last try failed, the earliest first."""
        found = []
        for name, task in sorted(self._last_tries(), key=lambda entry: _started(entry[1])):
            display, driver = task.display_name, task.display_name.endswith("-driver")
            if task.state != "FAILED" or not (driver or display == "executor"):
                continue
            tries = [n for n in range(TRIES) if f"{name}({n})" in self.named]
            # Without tries of its own the node is the container.
            node = f"{name}({tries[-1]})" if tries else name
            step = display[:-7] if driver else re.sub(r"(\(\d+\))*\.executor$", "", name).rpartition(".")[2]
            workflow = name.partition(".")[0].partition("(")[0]
            found.append(Failure(step, driver, node_id(workflow, node), max(1, len(tries))))
        return found

    def _state(self, name: str, task: Any) -> str | None:
        """A step's state. PENDING while its container waits for a node, an image or a volume."""
        if task.state != "RUNNING":
            return str(task.state) if task.state else None
        executors = [each for each in self.named if re.fullmatch(rf"{re.escape(name)}(\(\d+\))?\.executor", each)]
        tries = [f"{executors[-1]}({n})" for n in range(TRIES)] if executors else []
        last = next((self.named[each] for each in reversed(tries) if each in self.named), None)
        return "PENDING" if last is not None and last.state == "PENDING" else "RUNNING"

    def _last_tries(self) -> Iterator[tuple[str, Any]]:
        """The nodes that are in no try after which there was another."""
        for name, task in self.named.items():
            tries = re.finditer(r"\((\d+)\)(?=\.|$)", name)
            if not any(f"{name[: t.start()]}({int(t[1]) + 1})" in self.named for t in tries):
                yield name, task

    def _name(self) -> None:
        """Give each task its node's name, from the workflow down."""
        identities = [child.pod_name for task in self.tasks for child in task.child_tasks or []]
        workflow = identities[0].rpartition("-")[0] if identities else ""
        for task in self._by_display.get(workflow, [])[:1]:
            self._take(workflow, task)
        todo = list(self.named)
        for parent in todo:
            children = {child.pod_name for child in self.named[parent].child_tasks or []}
            for name in list(self._candidates(parent)):
                if name in self.named or node_id(workflow, name) not in children:
                    continue
                if (task := self._task_of(workflow, name, parent)) is not None:
                    self._take(name, task)
                    todo.append(name)
        # Whose names were not found, as on a KFP that makes its identities otherwise: steps, without their executors.
        for number, task in enumerate([task for rest in self._by_display.values() for task in rest]):
            self.named[f"?{number}.{task.display_name}"] = task

    def _take(self, name: str, task: Any) -> None:
        self.named[name] = task
        self._by_display[task.display_name].remove(task)

    def _candidates(self, parent: str) -> Iterator[str]:
        """Names that a child of a node may have: a try of it, a node in it, or one after it in a group around it."""
        yield from (f"{parent}({number})" for number in range(TRIES))
        parts = parent.split(".")
        for depth in range(len(parts), 0, -1):
            scope = ".".join(parts[:depth])
            yield from (f"{scope}.{display}" for display, left in self._by_display.items() if left)

    def _task_of(self, workflow: str, name: str, parent: str) -> Any:
        """The task of a node: of several with its display name, the one that has children which that node has."""
        displays = (each for each, left in self._by_display.items() if left and name.endswith((f".{each}", each)))
        left = self._by_display.get(max(displays, key=len, default=""), [])
        if len(left) <= 1:
            return left[0] if left else None
        possible = {node_id(workflow, child) for child in self._candidates(name)}
        ours = [task for task in left if possible & {child.pod_name for child in task.child_tasks or []}]
        if not ours:
            begun = _started(self.named[parent])
            ours = sorted((task for task in left if not task.child_tasks), key=lambda task: abs(_started(task) - begun))
        return ours[0] if ours else None


def node_id(workflow: str, name: str) -> str:
    """Argo's identity of a node: FNV-1a, 32 bits, of its full name. For the workflow itself, its name."""
    return workflow if name == workflow else f"{workflow}-{_fnv(name)}"


@functools.lru_cache(maxsize=100_000)
def _fnv(text: str) -> int:
    """FNV-1a, 32 bits. Names share their beginnings, whose values are kept."""
    head, dot, tail = text.rpartition(".")
    hashed = _fnv(head) if dot else 0x811C9DC5
    for byte in f"{dot}{tail}".encode():
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    return hashed


def _started(task: Any) -> dt.datetime:
    return task.start_time or EARLY
