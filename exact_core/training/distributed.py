"""Training by several processes with the result of one: torchrun starts them, DistributedDataParallel joins them.

`training.batch` is the joint batch. Every process reads its share of each batch, divides its losses by the counts of
the joint batch, and adds its gradients to those of the others. The sum is the gradient that one process would compute.
So parameters and prototypes change equally in all processes, and only the first process writes.

    torchrun --nproc-per-node 4 -m exact_kubeflow.cli train-classifier DATASET OUT

Rounding depends on the number of processes, and so does dropout where a model has it.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed as dist, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from exact_core.data.windows.batches import Batch
from exact_core.errors import ConfigError, TrainingError
from exact_core.training.ranks import rank_variable

__all__ = ["ALONE", "Processes", "join"]

PATIENCE = dt.timedelta(minutes=10)
"""How long a process waits for the others: longer than any of them writes a checkpoint or compiles a model."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them: its rank, from 0, and their count."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """What `BatchLoader.epoch` asks for: which share, of how many."""
        return self.rank, self.count

    def own(self, batch: Batch) -> range:
        """Positions of this process's windows in the joint batch.

        Empty where the batch has fewer windows than there are processes. The batch then has a window of another
        process, so that the backward pass has an input, and no loss may count it.
        """
        if self.count == 1:
            return range(len(batch.index))
        start = sum(batch.shares[: self.rank])
        return range(start, start + batch.shares[self.rank])

    def windows(self, batch: Batch) -> int:
        """How many windows the joint batch has."""
        return len(batch.index) if self.count == 1 else sum(batch.shares)

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of windows that need no batch in common, such as those to validate on."""
        return np.array_split(indices, self.count)[self.rank]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the processes, on each of them."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def smallest(self, value: Tensor) -> Tensor:
        """The smallest over the processes, on each of them."""
        return self._reduce(value, dist.ReduceOp.MIN)

    def largest(self, value: Tensor) -> Tensor:
        """The largest over the processes, on each of them."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.count == 1:
            return value
        reduced = value.detach().clone()
        dist.all_reduce(reduced, operation)
        return reduced

    def gather(self, rows: Tensor, shares: Sequence[int] | None = None) -> Tensor:
        """The rows (first axis) of all processes, in the order of their ranks. No gradient flows back.

        Args:
            rows: this process's.
            shares: how many each has. If None, the processes exchange the numbers first, which waits for the device.
        """
        if self.count == 1:
            return rows.detach()
        if shares is None:
            counts = torch.zeros(self.count, dtype=torch.int64, device=rows.device)
            counts[self.rank] = len(rows)
            shares = self.sum(counts).tolist()
        # Collectives want equal shapes: shares are padded to the longest and cut again.
        padded = rows.new_zeros(max(shares), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        received = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(received, padded)
        return torch.cat([part[:share] for part, share in zip(received, shares, strict=True)])

    def agree(self, value: int, *, on: str, otherwise: str) -> None:
        """Make sure that all processes hold the same number.

        Raises:
            TrainingError: they do not. It names what they should agree `on`, and `otherwise` is the way out.
        """
        ends = torch.tensor([value, -value], device=self._device())
        low, high = self.smallest(ends).tolist()
        if low != -high:
            raise TrainingError(
                f"the processes disagree on {on}: process {self.rank} of {self.count} has {value}, the values range "
                f"from {low} to {-high}; {otherwise}"
            )

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, for forward passes whose gradients are averaged over the processes while they are computed.

        Its buffers are left alone, because prototypes move equally in all processes.

        Raises:
            TrainingError: the model has batch normalisation, whose statistics would be those of a share of the batch.
        """
        if self.count == 1:
            return model
        for name, layer in model.named_modules():
            if isinstance(layer, _BatchNorm):
                raise TrainingError(
                    f"{type(model).__name__}.{name} is a {type(layer).__name__}: its statistics would be those of a "
                    f"process's share of the batch. Train this model with one process"
                )
        device = next(model.parameters()).device
        with warnings.catch_warnings():
            # Newer releases have another name for it, which the oldest that we support does not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def _device(self) -> torch.device:
        """The device that NCCL, or gloo, needs for its tensors."""
        on_gpu = self.count > 1 and dist.get_backend() == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


ALONE = Processes()
"""One process that has every batch to itself."""


@contextmanager
def join(device: torch.device, *, patience: dt.timedelta = PATIENCE) -> Iterator[tuple[Processes, torch.device]]:
    """Meet the processes that torchrun started with this one, by gloo on a CPU and NCCL on GPUs.

    Args:
        device: as configured. With several GPUs, each process gets the one of its local rank.
        patience: how long one process waits for the others before it fails.

    Raises:
        ConfigError: torchrun's variables make no sense, or there are fewer GPUs than processes.
    """
    processes = Processes(rank_variable("RANK", 0), rank_variable("WORLD_SIZE", 1))
    if processes.count == 1:
        yield processes, device
        return
    if device.type == "cuda":
        device = _own_gpu(device)
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=processes.rank,
        world_size=processes.count,
        timeout=patience,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield processes, device
    except Exception as error:
        error.add_note(
            f"Process {processes.rank} of {processes.count}: where another process stopped first, its message is the "
            f"cause."
        )
        # The group is left as it is: others may stand in a collective, and leaving in order would wait for them.
        raise
    dist.destroy_process_group()


def _own_gpu(device: torch.device) -> torch.device:
    local, gpus = rank_variable("LOCAL_RANK", 0), torch.cuda.device_count()
    if device.index is not None:
        raise ConfigError(
            f"device = '{device}' is one GPU for {rank_variable('WORLD_SIZE', 1)} processes. Use device=cuda"
        )
    if local >= gpus:
        raise ConfigError(f"process {local} on this machine has no GPU: there are {gpus}. Start {gpus} processes")
    return torch.device("cuda", local)
