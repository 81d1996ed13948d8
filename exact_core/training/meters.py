"""What the loop reads off while it trains: the losses, and what they cost in time and memory.

On a GPU the host runs ahead of the device, and reading a number makes it wait. So sums stay on the device and are read
once an epoch, and now and then to see whether training has diverged.
"""

from __future__ import annotations

import resource
import statistics
import sys

import torch
from torch import Tensor

from exact_core.errors import TrainingError
from exact_core.training.distributed import Processes

__all__ = ["CostMeter", "LossTally"]

CHECK_EVERY = 50
"""Updates between two checks that the loss is finite. There is always one before a checkpoint."""


class LossTally:
    """Means of an epoch's losses over all windows of all processes.

    Raises (from `add` and `means`):
        TrainingError: a loss was not finite. It names the update where that began.
    """

    def __init__(self, device: torch.device, processes: Processes, *, name: str, epoch: int) -> None:
        self.processes, self.name, self.epoch = processes, name, epoch
        self._sums: dict[str, Tensor] = {}
        # float64: an epoch adds thousands of terms, and the number of an update must stay exact.
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._began, self._value = torch.full_like(self._zero, torch.inf), self._zero
        self._added = 0

    def add(self, parts: dict[str, Tensor], *, windows: int, update: int) -> None:
        """Add an update's losses, the parts of a joint batch of this many windows."""
        for part, value in parts.items():
            self._sums[part] = self._sums.get(part, self._zero) + value.detach() * windows
        loss = parts["loss"].detach().double()
        first = ~loss.isfinite() & self._began.isinf()
        self._value = torch.where(first, loss, self._value)
        self._began = self._began.masked_fill(first, update)
        self._added += 1
        if self._added % CHECK_EVERY == 0:
            self._check()

    def means(self, windows: int) -> dict[str, float]:
        """Each part's mean over the epoch's windows."""
        self._check()
        sums = self.processes.sum(torch.stack(list(self._sums.values()))).tolist()
        return {part: value / windows for part, value in zip(self._sums, sums, strict=True)}

    def _check(self) -> None:
        """All processes together: one alone would leave the others waiting for its gradients."""
        began, value = self.processes.smallest(self._began), self.processes.sum(self._value)
        update, loss = torch.stack([began, value]).tolist()
        if update != float("inf"):
            raise TrainingError(
                f"{self.name}: the loss is {loss} at update {int(update)} (epoch {self.epoch}). Lower "
                f"training.learning_rate or set training.clip_norm=1. The last good checkpoint is kept"
            )


class CostMeter:
    """Windows a second and peak memory of a training, from the moment it is made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._speeds: list[float] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def cost(self, windows_per_second: float, processes: Processes) -> dict[str, float]:
        """With this epoch's speed: the median over the epochs so far, and the largest peak of any process, in GB.

        On CUDA the peak is that of tensors. On a CPU the whole process's resident memory since it started.
        """
        self._speeds.append(windows_per_second)
        peak = torch.tensor(self._peak() / 1e9, dtype=torch.float64, device=self.device)
        return {
            "windows_per_second": statistics.median(self._speeds),
            "peak_memory_gb": float(processes.largest(peak)),
        }

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        # Kilobytes, except on macOS.
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return resident if sys.platform == "darwin" else resident * 1024
