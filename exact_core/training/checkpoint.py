"""Checkpoints and models on disk: safetensors and JSON, no pickle. The file that names the rest is written last.

A state folder belongs to one training, because its name contains a digest of configuration and data. So training can
continue from any complete checkpoint in it:

    state.json               names the files below with their SHA-256. Progress, best metric, history. Its own checksum
    NNNN.safetensors         model and optimiser after epoch NNNN
    best-NNNN.safetensors    model of the best epoch so far

There is no random state to save, because every epoch draws from (seed, epoch). So another number of processes can
continue a training. All of them read the folder, and only the first writes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exact_core.errors import CorruptError, ServiceError
from exact_core.files import checked_text, publish_checked, publishing_tensors, sha256_of
from exact_core.json_values import read_json

STATE, BEST, LAST = "state.json", "best", "last"

__all__ = ["Checkpoints", "Progress", "load_weights", "save_weights"]


@dataclass
class Progress:
    """Progress of a training: epochs finished, updates made, best metric and its epoch (from 1), rows.

    times: when each row was complete, milliseconds since 1970.
    cost: windows a second and peak memory of this process's own epochs, once they are over.
    """

    epoch: int = 0
    update: int = 0
    best: float | None = None
    best_epoch: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)


class Checkpoints:
    """The state folder of one training. None keeps nothing, so a killed run starts again."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._best: dict[str, Tensor] | None = None
        self._files: dict[str, dict[str, str]] = {}

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, *, best: bool, write: bool = True
    ) -> None:
        """Record the end of an epoch. `best` also keeps the model as the one to deliver.

        With several processes, all keep it in memory and one writes.
        """
        if best:
            self._best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if self.folder is None or not write:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"{self.folder}: cannot write a checkpoint: {error.strerror}") from error
        if best:
            name = f"best-{progress.epoch:04d}.safetensors"
            self._files[BEST] = _publish(model.state_dict(), self.folder / name)
        name = f"{progress.epoch:04d}.safetensors"
        tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
        self._files[LAST] = _publish(tensors, self.folder / name)
        state = {"checksum": "", "files": self._files, **asdict(progress)}
        publish_checked(self.folder / STATE, json.dumps(state, indent=1))
        kept = {file["name"] for file in self._files.values()}
        for old in self.folder.glob("*.safetensors"):
            if old.name not in kept:
                old.unlink()

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Put model and optimiser where the last complete epoch left them. A new Progress if there is none."""
        if self.folder is None or not (self.folder / STATE).is_file():
            return Progress()
        try:
            record = read_json(checked_text(self.folder / STATE))
            del record["checksum"]
            self._files = record.pop("files")
            progress = Progress(**record)
            tensors = self._load(LAST)
            best = None if progress.best_epoch is None else self._load(BEST)
        except (CorruptError, KeyError, OSError, TypeError, ValueError) as error:
            raise CorruptError(
                f"{self.folder}: this checkpoint is damaged: {error}. Delete the folder to train from the start"
            ) from error
        model.load_state_dict(_under("model.", tensors))
        state = optimizer.state_dict()
        for key, value in _under("optimizer.", tensors).items():
            number, _, name = key.partition(".")
            state["state"].setdefault(int(number), {})[name] = value
        optimizer.load_state_dict(state)
        self._best = best
        return progress

    def _load(self, which: str) -> dict[str, Tensor]:
        assert self.folder is not None
        file = self._files[which]
        path = self.folder / file["name"]
        if not path.is_file() or sha256_of(path) != file["sha256"]:
            raise CorruptError(f"{path.name} is missing or not what was written")
        return _load(path)

    def deliver(self, model: nn.Module) -> None:
        """Load the best model, if one was recorded, into `model`."""
        if self._best is not None:
            model.load_state_dict(self._best)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's tensors as safetensors, by way of a temporary name."""
    _publish(model.state_dict(), path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a model's tensors.

    Raises:
        CorruptError: the file is missing, unreadable, or of another model.
    """
    try:
        model.load_state_dict(_load(path))
    except RuntimeError as error:
        raise CorruptError(f"{path}: these weights belong to another model: {error}. Train again") from error


def _publish(tensors: dict[str, Tensor], path: Path) -> dict[str, str]:
    """Write tensors under a name once they are whole. The name and the SHA-256."""
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    with publishing_tensors(path, size=size) as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
        return {"name": path.name, "sha256": sha256_of(partial)}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CorruptError(f"{path}: not a readable weights file: {error}. Delete it and train again") from error
    return tensors


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
