"""The records of a run, on disk until MLflow has accepted them. A stage neither waits for MLflow nor fails with it.

    records.jsonl    one record a line, in order
    0001/NAME        a file that a record names

A thread sends the records one after another. After a kill, all of them may be sent a second time. Metrics keep their
times, so MLflow recognises duplicates. Steps of a loop share a run and its folder of state: a folder that another
process holds is left to it, and the next name is taken. What nobody holds is sent, whatever its folder is called.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from exact_core.errors import ServiceError
from exact_core.json_values import read_json
from exact_core.locks import open_locked
from exact_core.tracking.errors import AwayError, explained, refused

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
HURRIED_PAUSE = 2.0
"""Seconds at most, while somebody waits for the queue to be empty."""
RECORDS = "records.jsonl"


class Outbox:
    """A queue of records in a folder.

    Args:
        folder: where they wait. What an earlier process of the same run left there is sent first.
        send: sends one record, or raises.
    """

    def __init__(self, folder: Path, send: Callable[[dict[str, Any]], None]) -> None:
        self._held = _hold(folder)
        self._folder, _ = self._held[0]
        self._send = send
        self._waiting = deque(record for each, _ in self._held for record in _records(each))
        self._changed = threading.Condition()
        self._closed, self._hurry, self._count = False, False, len(self._waiting)
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-outbox")
        self._thread.start()

    def add(self, record: dict[str, Any], *, file: Path | None = None) -> None:
        """Keep a record, with a copy of the file that it is about, and have it sent."""
        with self._changed:
            self._count += 1
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                if file is not None:
                    copy = self._folder / f"{self._count:04d}" / file.name
                    copy.parent.mkdir(exist_ok=True)
                    shutil.copyfile(file, copy)
                    record = {**record, "path": str(copy)}
                with (self._folder / RECORDS).open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(record) + "\n")
            except OSError as error:
                # In memory, it is sent all the same; what is lost is lost only by a kill.
                log.warning("%s: cannot save records for MLflow: %s", self._folder, error)
                if file is not None:
                    record = {**record, "path": str(file)}
            self._waiting.append(record)
            self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Wait until all is sent.

        Raises:
            AwayError: some records are not sent after this many seconds.
        """
        end = time.monotonic() + seconds
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            while self._waiting:
                left = end - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    raise AwayError(
                        f"{self._problem or 'MLflow is slow'}. {len(self._waiting)} records are not sent yet"
                    )
                self._changed.wait(left)

    def close(self) -> None:
        """End the thread, as soon as it is not sending."""
        with self._changed:
            self._closed = True
            while self._held:
                folder, lock = self._held.pop()
                if lock is not None:
                    _lock_of(folder).unlink(missing_ok=True)
                    os.close(lock)
            self._changed.notify_all()

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                record = self._waiting[0]
            try:
                self._deliver(record)
            except Exception as error:  # noqa: BLE001 - kept for `drain`: a thread that dies says nothing
                with self._changed:
                    if self._problem is None:
                        log.warning("%s. Until MLflow answers, metrics are stored in %s", error, self._folder)
                    self._problem = error
                    if self._hurry:
                        self._changed.wait_for(lambda: self._closed, min(pause, HURRIED_PAUSE))
                    else:
                        self._changed.wait_for(lambda: self._closed or self._hurry, pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                continue
            with self._changed:
                if self._problem is not None:
                    log.info("MLflow answers again. Sending %d records", len(self._waiting))
                self._problem, pause = None, FIRST_PAUSE
                self._waiting.popleft()
                if not self._waiting:
                    for folder, _ in self._held:
                        shutil.rmtree(folder, ignore_errors=True)
                self._changed.notify_all()

    def _deliver(self, record: dict[str, Any]) -> None:
        if "path" in record and not Path(record["path"]).is_file():
            # As nobody brings it back, it must not keep back what follows.
            log.warning("not recorded: %s is gone", record["path"])
            return
        try:
            with explained("record"):
                self._send(record)
        except ServiceError as error:
            if isinstance(error, AwayError) or not refused(error.__cause__ or error):
                raise
            # What it will never take must not keep back what follows.
            log.warning("not recorded (%s): %s", record["kind"], error)


def _records(folder: Path) -> list[dict[str, Any]]:
    """What an earlier process left there to be sent."""
    try:
        text = (folder / RECORDS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        log.warning("%s: cannot read the records of an earlier try for MLflow: %s", folder, error)
        return []
    found = []
    for line in text.splitlines():
        try:
            record = read_json(line)
        except ValueError:  # the line that a kill broke off
            continue
        # How that try ended is no news of this one.
        if isinstance(record, dict) and record.get("kind") not in (None, "end"):
            found.append(record)
    return found


def _hold(folder: Path) -> list[tuple[Path, int | None]]:
    """The folder, or the next name that no other process holds, then all others that are there and not held.

    With each goes the descriptor of its lock. None without a lock.
    """
    path, number = folder, 1
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held = [(path, _locked(path))]
            break
        except BlockingIOError:
            number += 1
            path = folder.with_name(f"{folder.name}-{number}")
        except OSError:
            # Nothing can be written there: records are in memory alone.
            return [(path, None)]
    for other in sorted(folder.parent.glob(f"{folder.name}*/")):
        with suppress(OSError):  # held by another process, or not ours
            held.append((other, _locked(other)))
    return held


def _locked(folder: Path) -> int | None:
    return open_locked(_lock_of(folder), lock=fcntl.LOCK_EX | fcntl.LOCK_NB, create=True)


def _lock_of(folder: Path) -> Path:
    """Beside the folder, which comes and goes with its records."""
    return folder.with_name(f"{folder.name}.lock")
