"""The loop with a real model on the tiny dataset: repeat, exact resume, best epoch, clipping, bf16, errors."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from exact_core.data.windows.batches import BatchLoader
from exact_core.environment import TERMINAL_VARIABLE
from exact_core.errors import ConfigError, CorruptError, TrainingError
from exact_core.models.attention import Block
from exact_core.models.classifier import TagClassifier
from exact_core.training import loop
from exact_core.training.checkpoint import Checkpoints, load_weights, save_weights
from exact_core.training.classifier import ClassifierTask, classifier_losses
from exact_core.training.loop import choose_device, fit, seed_everything

CPU = torch.device("cpu")


class Log:
    """Keeps rows, and stops like a killed process after some of them."""

    def __init__(self, killed_after=None):
        self.rows, self.killed_after = [], killed_after

    def log_metrics(self, metrics, *, step, **_):
        self.rows.append((step, metrics))


class KilledCheckpoints(Checkpoints):
    def __init__(self, folder, epochs):
        super().__init__(folder)
        self.epochs = epochs

    def save(self, model, optimizer, progress, *, best, write=True):
        super().save(model, optimizer, progress, best=best, write=write)
        if progress.epoch == self.epochs:
            raise KeyboardInterrupt


def train(dataset, config, *, checkpoints=None, log=None, **changes):
    settings = config.classifier
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=changes)})
    seed_everything(3)
    model = TagClassifier(settings, bands=10, classes=dataset.classes, window=24)

    def loader(split):
        return BatchLoader(dataset, dataset.indices(split), batch=4, encoder=settings.encoder, device=CPU)

    log = log or Log()
    progress = fit(
        ClassifierTask(model, settings, loader("validation")),
        loader("train"),
        settings.training,
        seed=3,
        device=CPU,
        checkpoints=checkpoints or Checkpoints(None),
        metrics=log,
        name="classifier",
    )
    return model, progress, log


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def without_speed(history):
    return [{name: value for name, value in row.items() if name != "windows_per_second"} for row in history]


def test_a_repeat_is_equal_to_the_last_bit(dataset, config):
    one, two = (train(dataset, config, epochs=2) for _ in range(2))
    assert same(one[0], two[0])
    assert without_speed(one[1].history) == without_speed(two[1].history)
    assert [step for step, _ in one[2].rows] == [1, 2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_thread_gives_the_weights_of_two(precision, dataset, config, of_threads):
    models = []
    for threads in (1, 2):
        of_threads(threads)
        models.append(train(dataset, config, epochs=2, precision=precision)[0])
        assert torch.get_num_threads() == threads
    assert same(*models)


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_run_continues_as_if_it_had_not_been(dataset, config, tmp_path, killed_after):
    whole = train(dataset, config, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, config, epochs=4, checkpoints=KilledCheckpoints(tmp_path / "s", killed_after))
    resumed = train(dataset, config, epochs=4, checkpoints=Checkpoints(tmp_path / "s"))
    # What the killed one had not sent yet is sent by the next.
    assert [step for step, _ in resumed[2].rows] == [1, 2, 3, 4]
    assert without_speed(resumed[1].history) == without_speed(whole[1].history)
    assert resumed[1].best_epoch == whole[1].best_epoch
    assert same(resumed[0], whole[0])
    # Once finished, another start has nothing left to do and delivers the same.
    again = train(dataset, config, epochs=4, checkpoints=Checkpoints(tmp_path / "s"))
    assert again[2].rows == resumed[2].rows
    assert same(again[0], whole[0])
    assert not list((tmp_path / "s").glob("*.partial"))


def test_a_half_written_checkpoint_is_ignored(dataset, config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(dataset, config, epochs=3, checkpoints=KilledCheckpoints(tmp_path, 1))
    (tmp_path / "0002.safetensors").write_bytes(b"half")
    (tmp_path / "state.json.partial").write_text("{")
    resumed = train(dataset, config, epochs=3, checkpoints=Checkpoints(tmp_path))
    assert same(resumed[0], train(dataset, config, epochs=3)[0])


def test_no_epoch_before_the_prototypes_moved_is_delivered(dataset, config):
    """CAMs are made of prototypes: a good epoch without them is no use."""
    _, progress, _ = train(dataset, config, epochs=8, keep_best=True)
    # They start after 8 * 4/15 = 2.1 epochs, so the fourth is the first that had them from its beginning.
    assert progress.best_epoch >= 4
    settings = config.classifier.model_copy(
        update={"loss": config.classifier.loss.model_copy(update={"contrast_start": 0.99})}
    )
    _, late, _ = train(dataset, config.model_copy(update={"classifier": settings}), epochs=2, keep_best=True)
    assert late.best_epoch is None


def test_the_best_epoch_is_delivered(dataset, config):
    model, progress, log = train(dataset, config, epochs=4, keep_best=True)
    # The first two epochs began before the prototypes did; epochs are counted from 1.
    figures = {step: row["validation_tag_map"] for step, row in log.rows if step > 2}
    assert progress.best == max(figures.values())
    assert figures[progress.best_epoch] == progress.best
    last, other, _ = train(dataset, config, epochs=4, keep_best=False)
    assert other.best_epoch is None
    assert same(model, last) == (progress.best_epoch == 4)


def test_the_contrast_starts_at_its_share_of_the_steps(dataset, config):
    rows = [row for _, row in train(dataset, config, epochs=4)[2].rows]
    # 4/15 of four epochs: in the second one.
    assert ["loss_contrast" in row for row in rows] == [False, True, True, True]
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_it_learns(dataset, config):
    _, _, log = train(dataset, config, epochs=12, learning_rate=5e-3)
    tags = [row["loss_tags"] for _, row in log.rows]
    assert tags[-1] < 0.8 * tags[0]


def test_clipping_and_bf16_change_the_weights_but_not_the_path(dataset, config):
    plain = train(dataset, config, epochs=1)[0]
    assert not same(plain, train(dataset, config, epochs=1, clip_norm=1e-3)[0])
    model, _, log = train(dataset, config, epochs=1, precision="bf16")
    assert next(model.parameters()).dtype == torch.float32
    assert math.isfinite(log.rows[0][1]["loss"])


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_goes_by_the_processor(native, precision, dataset, config, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    auto, given = (train(dataset, config, epochs=1, precision=each)[0] for each in ("auto", precision))
    assert same(auto, given)


def test_under_bf16_losses_and_clues_stay_in_float32_and_it_learns(dataset, config):
    settings = config.classifier
    model = TagClassifier(settings, bands=10, classes=dataset.classes, window=24)
    source = BatchLoader(dataset, dataset.indices("train"), batch=4, encoder=settings.encoder, device=CPU)
    task = ClassifierTask(model, settings, source)
    with torch.autocast("cpu", torch.bfloat16):
        parts = task.losses(next(iter(source)), progress=1.0, update=0)
    assert {value.dtype for value in parts.values()} == {torch.float32}
    assert "loss_contrast" in parts
    before = model.prototypes.foreground.clone()
    task.after_update()
    assert model.prototypes.foreground.dtype == torch.float32
    assert not torch.equal(before, model.prototypes.foreground)
    _, _, log = train(dataset, config, epochs=12, learning_rate=5e-3, precision="bf16")
    tags = [row["loss_tags"] for _, row in log.rows]
    assert tags[-1] < 0.8 * tags[0]


class Waits(TorchDispatchMode):
    """Records the operations that make the host wait for a GPU: reading a number, and indexing by a mask."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = "index" in name and any(i is not None and i.dtype == torch.bool for i in args[1])
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("assignment", ["argmax", "gumbel"])
def test_losses_and_clues_wait_for_the_device_once_a_step(dataset, config, assignment):
    prototypes = config.classifier.prototypes.model_copy(update={"assignment": assignment})
    settings = config.classifier.model_copy(update={"prototypes": prototypes})
    model = TagClassifier(settings, bands=10, classes=dataset.classes, window=24)
    source = BatchLoader(dataset, dataset.indices("train"), batch=4, encoder=settings.encoder, device=CPU)
    batch = next(iter(source))
    assert batch.tagged == batch.tags.sum()
    output = model(batch.series)
    with Waits() as waits:
        losses, clues = classifier_losses(output, batch, model, settings, contrast=True)
        torch.autograd.grad(losses.total, (output.logits, output.class_tokens, output.date_tokens))
        clues.move(model.prototypes)
    # Where the tagged pairs are; a mask would ask again in the backward pass.
    assert waits.found == ["nonzero"]


def test_the_cost_of_training_is_told(dataset, config, caplog):
    with caplog.at_level("INFO"):
        _, progress, log = train(dataset, config, epochs=3)
    speeds = sorted(row["windows_per_second"] for _, row in log.rows)
    assert progress.cost["windows_per_second"] == speeds[1]
    assert 0.05 < progress.cost["peak_memory_gb"] < 100
    assert "windows/s (median of epochs, training alone), peak memory" in caplog.messages[-1]


@pytest.mark.parametrize(("terminal", "lines"), [("1", 2), ("", 0)])
def test_progress_within_an_epoch_every_second_for_a_terminal_and_every_minute_in_a_log(
    terminal, lines, monkeypatch, caplog
):
    """A look at the clock shows 0.8 s more: the first look is at the start of the epoch, the others at a batch each."""
    monkeypatch.setenv(TERMINAL_VARIABLE, terminal)
    clock = iter(0.8 * number for number in range(10))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO"):
        assert list(loop._bar(iter("abcde"), 5, "classifier 1/3", shown=True)) == list("abcde")
    said = [
        "classifier 1/3: 1 of 5 batches, about 6 s of this epoch left",
        "classifier 1/3: 3 of 5 batches, about 2 s of this epoch left",
    ]
    assert caplog.messages == said[:lines]


def test_dropout_repeats_and_resumes_without_a_stored_random_state(dataset, config, tmp_path):
    encoder = config.classifier.encoder.model_copy(update={"dropout": 0.3})
    dropping = config.model_copy(update={"classifier": config.classifier.model_copy(update={"encoder": encoder})})
    whole = train(dataset, dropping, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, dropping, epochs=2, checkpoints=KilledCheckpoints(tmp_path, 1))
    torch.rand(7)
    resumed = train(dataset, dropping, epochs=2, checkpoints=Checkpoints(tmp_path))
    assert same(resumed[0], whole[0])
    assert not same(whole[0], train(dataset, config, epochs=2)[0])


def test_a_diverging_run_says_so_and_names_the_way_out(dataset, config):
    with pytest.raises(TrainingError, match=r"loss is (nan|inf).*learning_rate.*clip_norm"):
        train(dataset, config, epochs=3, learning_rate=1e30, warmup_epochs=0.0)


def test_weights_of_another_model_are_refused(dataset, config, tmp_path):
    model, _, _ = train(dataset, config, epochs=1)
    save_weights(model, tmp_path / "weights.safetensors")
    other = TagClassifier(config.classifier, bands=9, classes=dataset.classes, window=24)
    with pytest.raises(CorruptError, match="weights.safetensors: these weights belong to another model"):
        load_weights(other, tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(CorruptError, match="not a readable weights file"):
        load_weights(model, tmp_path / "weights.safetensors")


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cpu", "cuda"}
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            choose_device("cuda")


def test_blocks_are_compiled_where_the_setting_asks_for_it(dataset, config):
    """With compilation itself held back, so that only the way there is tested: the result is that of modules."""
    with torch.compiler.set_stance("force_eager"):
        model, progress, _ = train(dataset, config, epochs=1, compile=True)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    assert blocks
    assert all(block._compiled_call_impl is not None for block in blocks)
    plain, expected, _ = train(dataset, config, epochs=1)
    assert all(module._compiled_call_impl is None for module in plain.modules())
    assert progress.history[-1]["loss"] == pytest.approx(expected.history[-1]["loss"], rel=1e-3)
