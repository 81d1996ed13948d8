"""Checkpoints and models on disk: safetensors and JSON, no pickle; the file that names the rest is written last.

A state folder belongs to one training (its name holds a digest of configuration and data), so whatever complete
checkpoint it holds may be continued:

    state.json               names the files below; progress, best figure, history
    NNNN.safetensors         model and optimiser after epoch NNNN
    best.safetensors         model of the best epoch so far

There is no random state to keep: every epoch draws from (seed, epoch). So a training may be continued by another number
of processes than began it; all of them read the folder, the first alone writes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exact_core.errors import CorruptError
from exact_core.files import publish_text

__all__ = ["Checkpoints", "Progress", "load_weights", "save_weights"]


@dataclass
class Progress:
    """How far a training has come: epochs finished, updates made, best figure and its epoch (from 1), rows.

    cost: windows a second and peak memory of this process's own epochs, once they are over.
    """

    epoch: int = 0
    update: int = 0
    best: float | None = None
    best_epoch: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)


class Checkpoints:
    """The state folder of one training; None keeps nothing, so a killed run starts again."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._best: dict[str, Tensor] | None = None

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, *, best: bool, write: bool = True
    ) -> None:
        """Record the end of an epoch; `best` also keeps the model as the one to deliver.

        Of several processes all keep it in memory, and one is told to write.
        """
        if best:
            self._best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if self.folder is None or not write:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if best:
            _publish(model.state_dict(), self.folder / "best.safetensors")
        name = f"{progress.epoch:04d}.safetensors"
        tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
        _publish(tensors, self.folder / name)
        publish_text(self.folder / "state.json", json.dumps({"checkpoint": name, **asdict(progress)}))
        for old in self.folder.glob("[0-9]*.safetensors"):
            if old.name != name:
                old.unlink()

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Put model and optimiser where the last complete epoch left them; a new Progress if there is none."""
        if self.folder is None or not (self.folder / "state.json").is_file():
            return Progress()
        try:
            record = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise CorruptError(
                f"{self.folder}/state.json: {error}; delete {self.folder} to train from the start"
            ) from error
        tensors = _load(self.folder / record.pop("checkpoint"))
        model.load_state_dict(_under("model.", tensors))
        state = optimizer.state_dict()
        for key, value in _under("optimizer.", tensors).items():
            number, _, name = key.partition(".")
            state["state"].setdefault(int(number), {})[name] = value
        optimizer.load_state_dict(state)
        progress = Progress(**record)
        if progress.best_epoch is not None:
            self._best = _load(self.folder / "best.safetensors")
        return progress

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
        raise CorruptError(f"{path}: these weights belong to another model: {error}; train again") from error


def _publish(tensors: dict[str, Tensor], path: Path) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, path)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CorruptError(f"{path}: not a readable weights file: {error}; delete it and train again") from error
    return tensors


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
