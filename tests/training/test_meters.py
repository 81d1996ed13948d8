import statistics

import pytest
import torch

from exact_core.errors import TrainingError
from exact_core.training.distributed import ALONE
from exact_core.training.meters import CHECK_EVERY, CostMeter, LossTally

CPU = torch.device("cpu")


def tally():
    return LossTally(CPU, ALONE, name="toy", epoch=2)


def test_means_are_over_windows_not_batches():
    """Batches of 3 and 1 windows; a part that joins late counts 0 before."""
    sums = tally()
    sums.add({"loss": torch.tensor(1.0), "loss_tags": torch.tensor(2.0)}, windows=3, update=0)
    sums.add(
        {"loss": torch.tensor(5.0), "loss_tags": torch.tensor(4.0), "late": torch.tensor(8.0)}, windows=1, update=1
    )
    assert sums.means(4) == {"loss": 2.0, "loss_tags": 2.5, "late": 2.0}


def test_sums_keep_what_float32_would_lose():
    sums = tally()
    for update, value in enumerate([1e8, 1.0, 1.0]):
        sums.add({"loss": torch.tensor(value)}, windows=1, update=update)
    assert sums.means(1)["loss"] == 1e8 + 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_update_where_a_loss_stopped_being_finite_is_named(value):
    sums = tally()
    for update in range(8, 12):
        sums.add({"loss": torch.tensor(value if update >= 9 else 1.0)}, windows=1, update=update)
    with pytest.raises(TrainingError, match=rf"toy: the loss is {value} at update 9 \(epoch 2\).*learning_rate"):
        sums.means(4)


def test_a_long_epoch_is_not_waited_for():
    sums = tally()
    with pytest.raises(TrainingError, match="at update 0"):
        for update in range(CHECK_EVERY):
            sums.add({"loss": torch.tensor(float("nan"))}, windows=1, update=update)
    assert update == CHECK_EVERY - 1


def test_losses_are_not_read_before_the_epoch_ends(monkeypatch):
    """Reading waits for a GPU; here, reading fails."""

    def read(self):
        raise AssertionError("read")

    sums = tally()
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
            patch.setattr(torch.Tensor, name, read)
        for update in range(CHECK_EVERY - 1):
            sums.add({"loss": torch.tensor(1.0)}, windows=2, update=update)
    assert sums.means(2 * (CHECK_EVERY - 1)) == {"loss": 1.0}


def test_cost_is_the_median_speed_and_the_largest_memory():
    meter = CostMeter(CPU)
    for speeds in ([4.0], [4.0, 1.0], [4.0, 1.0, 9.0]):
        cost = meter.cost(speeds[-1], ALONE)
        assert cost["windows_per_second"] == statistics.median(speeds)
    # Resident memory only grows: a large array shows in it, in GB.
    array = torch.ones(100_000_000)
    grown = meter.cost(1.0, ALONE)["peak_memory_gb"]
    assert grown >= array.numel() * 4 / 1e9
    assert grown >= cost["peak_memory_gb"]
