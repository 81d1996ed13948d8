"""How folders pass from stage to stage: directly or, with a store, by reference.

`EXACT_STORE` names a location in an object store. A stage then writes its folder to a local disk, publishes it there
under the digests of its files, and passes on the small pointer to it. The next stage fetches what it needs through the
cache. Without a store, the runner's own artifact folders are used, and nothing is copied.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from exact_core.environment import patience, variable
from exact_core.storage import StoreOptions, default_cache, fetch_folder, manifest_of, publish_folder, read_pointer
from exact_core.tracking.runs import Tracker

__all__ = ["STORE_VARIABLE", "Artifact", "StageFiles", "stage_files"]

log = logging.getLogger(__name__)

STORE_VARIABLE = "EXACT_STORE"
"""Where folders are published: s3://bucket/prefix, file:///folder or a path. Unset or empty: they are not."""


class Artifact(Protocol):
    """What a pipeline gives for an input or output, as far as it matters here."""

    path: str
    metadata: dict[str, Any]


class StageFiles:
    """The input and output folders of one stage."""

    def __init__(self, stack: ExitStack, tracker: Tracker, writes: Mapping[str, Iterable[str]]) -> None:
        self._stack, self._tracker, self._writes = stack, tracker, writes
        self._outputs: dict[str, tuple[Artifact, Path]] = {}
        self._optional: set[str] = set()

    @functools.cached_property
    def _scratch(self) -> Path:
        return self._stack.enter_context(default_cache().scratch())

    def read(self, source: Artifact | Path | str) -> Path:
        """The folder of an input: a folder, or a pointer to a published one, in a file or at a URI.

        Raises:
            DataError, CorruptError, ServiceError: it cannot be fetched.
        """
        place = str(source) if isinstance(source, Path | str) else source.path
        if "://" not in place and not Path(place).is_file():
            return Path(place)
        pointer = read_pointer(place)
        log.info("reading %s (%.1f MB)", pointer.uri, pointer.size / 1e6)
        folder = fetch_folder(pointer, self._scratch / pointer.digest)
        self._tracker.place(folder, pointer.uri)
        return folder

    def holds(self, artifact: Artifact) -> bool:
        """Whether the stage before has written an output that it may leave out."""
        path = Path(artifact.path)
        return path.is_dir() or (path.is_file() and path.stat().st_size > 0)

    def write(self, artifact: Artifact, *, optional: bool = False) -> Path:
        """The folder that a stage is to write for an output. `optional`: or not to write at all."""
        if optional:
            self._optional.add(artifact.path)
        if not variable(STORE_VARIABLE):
            return Path(artifact.path)
        name = Path(artifact.path).name
        folder = self._outputs.setdefault(name, (artifact, self._scratch / f"new-{name}"))[1]
        self._tracker.place(folder, "")
        return folder

    def file(self, artifact: Artifact) -> Path:
        """The single file that a stage is to write for an output. It is handed on as it is."""
        return Path(artifact.path)

    def publish(self) -> None:
        """Send what was written to the store, and put the pointers where the outputs are expected."""
        # Here, at the end of a stage, all that it did is at stake.
        options = StoreOptions(patience=patience())
        for name, (artifact, folder) in self._outputs.items():
            if artifact.path in self._optional and not folder.exists():
                continue
            pointer = publish_folder(
                folder, manifest_of(folder, self._writes[name]), variable(STORE_VARIABLE), options=options
            )
            Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
            pointer.save(Path(artifact.path))
            artifact.metadata.update(store_uri=pointer.uri, digest=pointer.digest)
            self._tracker.place(folder, pointer.uri)
            self._tracker.set_tags({f"exact.stored.{name}": pointer.uri})
            log.info("%s: stored as %s", name, pointer.uri)
        for path in self._optional:
            if not Path(path).exists():
                # A runner expects something wherever an output may be.
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text("")


@contextmanager
def stage_files(tracker: Tracker, writes: Mapping[str, Iterable[str]] | None = None) -> Iterator[StageFiles]:
    """Inputs and outputs of a stage. Its outputs are published when it has succeeded.

    Args:
        tracker: gets the URIs of what was fetched and published.
        writes: names of the outputs that are folders, and the manifests that each may have.
    """
    with ExitStack() as stack:
        files = StageFiles(stack, tracker, writes or {})
        yield files
        files.publish()
