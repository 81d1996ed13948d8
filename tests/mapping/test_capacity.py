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


class ShortOfMemory:
    """Decodes a window to its sum, and encodes a place to its pixels' sum over dates and bands, a few at a time."""

    cell, agreement = 2, False

    def __init__(self, limit, calls):
        self.limit, self.calls = limit, calls

    def encode(self, pixels, clear):
        self._ask(pixels.shape[-1] // self.cell)
        assert clear.shape[-1] == pixels.shape[-1] // self.cell
        return torch.from_numpy(pixels).sum((0, 1))[::2, ::2]

    def decode(self, windows):
        self._ask(len(windows))
        return np.array([float(window.sum()) for window in windows])

    def _ask(self, count):
        self.calls.append(count)
        if count > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_less_at_a_time_once_memory_was_short(caplog):
    windows = [torch.full((1, 2), number) for number in range(11)]
    calls = []
    careful = Careful(ShortOfMemory(3, calls))
    expected = [2 * number for number in range(11)]
    assert careful.decode(windows).tolist() == expected
    assert calls == [11, 5, 2, 2, 2, 2, 2, 1]
    assert careful.decode(windows).tolist() == expected
    assert calls[8:] == [2, 2, 2, 2, 2, 1]
    assert careful.windows == 22
    assert "does not hold 11 windows" in caplog.text
    # Places have a limit of their own.
    calls.clear()
    pixels = np.arange(10, dtype=np.int16).reshape(1, 1, 1, 10).repeat(2, 2)
    assert careful.encode(pixels, np.ones((1, 1, 5), bool)).tolist() == [[0, 2, 4, 6, 8]]
    assert calls == [5, 2, 2, 1]
    with pytest.raises(torch.OutOfMemoryError):
        Careful(ShortOfMemory(0, calls)).decode(windows)
