"""Windows at a time: from the memory that is free, and fewer where it was not."""

import numpy as np
import pytest
import torch

from exact_core.mapping.capacity import MARGIN, PROBE, Careful, choose_batch, window_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


def test_batches_worked_by_hand():
    # A quarter of 6 GiB, at 1.5 x 100 MiB a window: 10.2, so 8.
    assert choose_batch(100 * 2**20, 6 * GIB, CPU) == 8
    # Four fifths of 80 GiB at the same: 436, so 256.
    assert choose_batch(100 * 2**20, 80 * GIB, GPU) == 256
    assert choose_batch(GIB, 10 * 2**20, CPU) == 1
    assert choose_batch(1, 10**15, CPU) == 64
    assert choose_batch(0, 10**15, GPU) == 512


def test_a_window_takes_what_its_tensors_take():
    """Two of 1,000 floats a window live together, then three; one that is gone does not count."""

    def predict(pixels, clear):
        count = len(pixels)
        one = torch.ones(count, 1000)
        two = one + 1
        three = two[:, :500] * 2  # one and a half of them, with the others
        del one, two
        four = three.view(count, 500)  # no memory of its own
        return four.repeat(1, 4).numpy()

    size = window_bytes(predict, dates=3, bands=2, side=8, clear=True, device=CPU)
    assert size == 4 * 2500
    assert PROBE > 1
    assert MARGIN > 1


def short_of_memory(limit, calls):
    def predict(pixels, clear):
        calls.append(len(pixels))
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return np.array(
            [window.sum() + (0 if seen is None else seen.sum()) for window, seen in zip(pixels, clear, strict=True)]
        )

    return predict


def test_fewer_windows_at_a_time_once_memory_was_short(caplog):
    windows = [np.full((1, 2), number, np.int16) for number in range(11)]
    clear = [np.ones((1, number), bool) for number in range(11)]
    calls = []
    careful = Careful(short_of_memory(3, calls))
    expected = [3 * number for number in range(11)]
    assert careful(windows, clear).tolist() == expected
    assert calls == [11, 5, 2, 2, 2, 2, 2, 1]
    assert careful(windows, clear).tolist() == expected
    assert calls[8:] == [2, 2, 2, 2, 2, 1]
    assert careful.windows == 22
    assert "does not hold 11 windows" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        Careful(short_of_memory(0, calls))(windows, clear)
