"""Parts of a batch side by side, forward and backward."""

import threading

import pytest
import torch
from torch import nn

from exact_core.models.threads import each_part, equal_parts, learned_parts, one_thread, side_by_side
from tests.models.test_utae import model as utae

CPU = torch.device("cpu")


def test_within_parts_have_the_threads_and_everything_else_one(of_threads):
    of_threads(3)
    with side_by_side(CPU):
        assert torch.get_num_threads() == 1
        assert equal_parts(7, CPU) == [slice(0, 2), slice(2, 4), slice(4, 7)]
        meet = threading.Barrier(3)

        def work(part: int) -> tuple[int, int]:
            # Passed only if all three are there at once.
            meet.wait(timeout=60)
            return part, torch.get_num_threads()

        with torch.no_grad():
            assert each_part(work, range(3), CPU) == [(0, 1), (1, 1), (2, 1)]
    assert torch.get_num_threads() == 3


def test_threads_come_back_after_a_failure(of_threads):
    def fail(part: int) -> None:
        raise ValueError(part)

    of_threads(2)
    with pytest.raises(ValueError, match="0"), torch.no_grad():
        each_part(fail, range(2), CPU)
    assert torch.get_num_threads() == 2


def test_a_model_that_is_not_computed_in_parts_keeps_its_threads(of_threads):
    of_threads(2)
    with side_by_side(CPU, utae()):
        assert torch.get_num_threads() == 2


def test_who_counts_memory_has_parts_in_the_own_thread(of_threads):
    of_threads(2)
    with side_by_side(CPU), one_thread(), torch.no_grad():
        assert each_part(lambda _: threading.get_ident(), range(3), CPU) == [threading.get_ident()] * 3
    assert torch.get_num_threads() == 2


def test_modes_go_with_the_work(of_threads):
    of_threads(2)

    def modes(_: int) -> tuple[bool, bool, torch.dtype]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    with torch.no_grad():
        assert each_part(modes, range(2), CPU) == [(False, False, torch.float32)] * 2
        with torch.autocast("cpu", torch.bfloat16):
            assert each_part(modes, range(2), CPU) == [(False, False, torch.bfloat16)] * 2
    with torch.inference_mode():
        assert each_part(modes, range(2), CPU) == [(True, False, torch.float32)] * 2
    assert each_part(modes, range(2), CPU) == [(False, True, torch.float32)] * 2


def test_gradients_by_hand(of_threads):
    """y = w x of x = 1 to 5, in parts 1, 2 and 3, 4, 5. Of the sum of y squared, dw = 2 w (1 + 4 + 9 + 16 + 25)."""
    of_threads(2)
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(3)
    x, seen = torch.arange(1.0, 6)[:, None], []

    def work(part: slice) -> dict[str, torch.Tensor]:
        seen.append((part.start, part.stop))
        return {"y": model(x[part]), "x": x[part]}

    found = learned_parts(work, 5, model)
    assert sorted(seen) == [(0, 2), (2, 5)]
    assert found["y"].flatten().tolist() == [3, 6, 9, 12, 15]
    assert torch.equal(found["x"], x)
    assert not found["x"].requires_grad
    found["y"].square().sum().backward()
    assert model.weight.grad.item() == 2 * 3 * 55


def network():
    torch.manual_seed(0)
    used = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    model = nn.ModuleDict({"used": used, "unused": nn.Linear(2, 2)})
    used[0].bias.requires_grad_(requires_grad=False)
    return model


def gradients(model):
    return [each.grad for each in model.parameters()]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_gradients_against_those_of_the_batch_as_one(threads, of_threads):
    of_threads(threads)
    x, weights = torch.randn(11, 4, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 2, 33).view(11, 3)
    one, parts = network(), network()
    (one["used"](x) * weights).sum().backward()

    def work(part: slice) -> dict[str, torch.Tensor]:
        return {"of no use": parts["used"][0](x[part]), "logits": parts["used"](x[part])}

    (learned_parts(work, 11, parts)["logits"] * weights).sum().backward()
    for mine, plain in zip(gradients(parts), gradients(one), strict=True):
        assert (mine is None) == (plain is None)
        if plain is not None:
            torch.testing.assert_close(mine, plain)
    assert parts["used"][0].bias.grad is None
    assert parts["unused"].weight.grad is None


def test_one_thread_has_the_gradients_of_two(of_threads):
    x, found = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)), []
    for threads in (1, 2):
        of_threads(threads)
        model = network()
        with side_by_side(CPU), torch.autocast("cpu", torch.bfloat16):
            made = learned_parts(lambda part, model=model: {"y": model["used"](x[part])}, 64, model)
            made["y"].float().square().sum().backward()
        found.append([each for each in gradients(model) if each is not None])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
