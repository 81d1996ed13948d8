import math

import pytest
from hypothesis import given, strategies as st

from exact_core.config import TrainingConfig
from exact_core.training.schedule import learning_rate


def test_by_hand():
    config = TrainingConfig(epochs=10, warmup_epochs=2, learning_rate=1.0, minimum_rate=0.2, start_rate=0.1)
    rates = [learning_rate(update, steps_per_epoch=5, config=config) for update in range(51)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.55)
    assert rates[10] == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 2)) / 2)
    assert rates[50] == pytest.approx(0.2)


def test_the_published_schedule_moves_once_an_epoch():
    config = TrainingConfig(
        epochs=4, warmup_epochs=1, learning_rate=1.0, minimum_rate=0.0, start_rate=0.01, schedule="published"
    )
    rates = [learning_rate(update, steps_per_epoch=3, config=config) for update in range(12)]
    assert rates[:3] == [0.01] * 3
    assert rates[3] == rates[4] == rates[5] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@given(st.integers(1, 30), st.floats(0, 40), st.integers(1, 20))
def test_it_stays_between_its_bounds_and_falls_after_the_warmup(epochs, warmup, steps):
    config = TrainingConfig(epochs=epochs, warmup_epochs=warmup)
    rates = [learning_rate(update, steps_per_epoch=steps, config=config) for update in range(epochs * steps + 1)]
    assert all(config.minimum_rate * 0.999 <= rate <= config.learning_rate * 1.001 for rate in rates)
    after = [rate for update, rate in enumerate(rates) if update >= warmup * steps]
    assert after == sorted(after, reverse=True)
