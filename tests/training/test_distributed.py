"""Two processes on the CPU do what one does: gradients, losses, prototypes, checkpoints, errors."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from exact_core.data.windows.batches import Augmentation
from exact_core.errors import ConfigError, TrainingError
from exact_core.stages.lifecycle import open_stage
from exact_core.tracking.runs import NoTracker
from exact_core.training.checkpoint import Checkpoints
from exact_core.training.distributed import ALONE, Processes, join
from exact_core.training.ranks import is_first_process
from tests.training import worker

ROOT = Path(__file__).parents[2]


def start(case, dataset_folder, folder, count=2):
    """Processes as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.worker", case, str(dataset_folder), str(folder)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


@pytest.fixture(scope="module")
def together(dataset_folder, tmp_path_factory):
    """The folder in which two processes left what they got."""
    folder = tmp_path_factory.mktemp("together")
    for process in start("equal", dataset_folder, folder):
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
    return folder


def test_the_last_batch_leaves_a_process_without_windows(dataset):
    """What the other tests rely on."""
    assert len(dataset.indices("train")) % worker.BATCH == 1


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_gradients_add_up_to_those_of_one_process(together, dataset, kind, number):
    alone = worker.gradients(kind, dataset, number)
    ranks = [load_file(together / f"{kind}-{number}-{rank}.st") for rank in range(2)]
    scale = max(value.abs().max() for name, value in alone.items() if name.startswith("gradient."))
    assert scale > 1e-3
    for name, expected in alone.items():
        one, two = (values[name] for values in ranks)
        assert torch.equal(one, two), name
        torch.testing.assert_close(one, expected, atol=2e-6 * float(scale), rtol=2e-4, msg=name)


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_the_loss_curve_and_the_figures_are_those_of_one_process(together, dataset, kind):
    _, alone, _ = worker.train(kind, dataset)
    one, two = (json.loads((together / f"{kind}-{rank}.json").read_text()) for rank in range(2))
    rows = [{**row, "windows_per_second": 0.0} for row in one["history"]]
    assert rows == [{**row, "windows_per_second": 0.0} for row in two["history"]]
    assert len(rows) == len(alone.history) == 3
    for row, expected in zip(rows, alone.history, strict=True):
        assert row.keys() == expected.keys()
        for name in row.keys() - {"windows_per_second"}:
            assert row[name] == pytest.approx(expected[name], rel=2e-4, abs=1e-6), name
    # The first process alone logs; what the training cost is the same on both but for its clock.
    assert (one["logged"], two["logged"]) == (3, 0)
    assert one["cost"]["peak_memory_gb"] == two["cost"]["peak_memory_gb"] > 0.05


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_all_processes_end_with_the_same_model_to_the_last_bit(together, kind):
    one, two = (load_file(together / f"{kind}-{rank}.st") for rank in range(2))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    if kind == "classifier":
        assert one["prototypes.foreground_moves"].sum() > 0


def test_one_process_continues_what_two_began(together, dataset):
    folder = together / "state"
    assert sorted(path.name for path in folder.glob("[0-9]*")) == ["0002.safetensors"]
    log_before = json.loads((together / "classifier-0.json").read_text())["history"]
    _, resumed, log = worker.train("classifier", dataset, checkpoints=Checkpoints(folder))
    # All of them once more: the machine that trained the first two may be lost.
    assert [step for step, _ in log.rows] == [1, 2, 3]
    for name, value in log_before[-1].items():
        if name != "windows_per_second":
            assert resumed.history[-1][name] == pytest.approx(value, rel=2e-4, abs=1e-6), name


def test_rows_are_gathered_in_the_order_of_the_ranks(together):
    expected = [[0, 1], [2, 3], [4, 5], [2, 3], [4, 5]]
    for rank in range(2):
        assert json.loads((together / f"gathered{rank}.json").read_text()) == expected


def test_a_loss_that_is_no_number_on_one_process_stops_all_and_names_the_update(dataset_folder, tmp_path):
    for process in start("diverging", dataset_folder, tmp_path):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    for rank in range(2):
        assert "the loss is nan at update 1 (epoch 1)" in (tmp_path / f"diverged{rank}").read_text()
        said = f"disagree on their ranks: process {rank} of 2 has {rank}, the values range from 0 to 1; of course"
        assert said in (tmp_path / f"disagreed{rank}").read_text()
    assert not (tmp_path / "state").exists()


def test_no_process_waits_for_ever(dataset_folder, tmp_path):
    failing = start("failing", dataset_folder, tmp_path)
    hanging = start("hanging", dataset_folder, tmp_path)
    said = [process.communicate(timeout=200)[1] for process in failing]
    assert all(process.returncode for process in failing)
    assert "where another process stopped first, its message is the cause" in said[0]
    assert "the second process has stopped" in said[1]
    assert "Process 0 of 2" in hanging[0].communicate(timeout=200)[1]
    assert hanging[0].returncode
    (tmp_path / "over").touch()
    hanging[1].communicate(timeout=200)


def test_torchrun_trains_by_the_command_line(dataset_folder, tmp_path):
    settings = [part for setting in worker.SETTINGS for part in ("--set", setting)]
    short = ["--set", "segmenter.training.epochs=1", "--recipe", "demo", "--seed", "1", "--no-tracking"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "exact_kubeflow.cli"]
    results = []
    for name, command in (("two", launch), ("one", ["-m", "exact_kubeflow.cli"])):
        done = subprocess.run(
            [sys.executable, *command, "train-segmenter", dataset_folder, tmp_path / name, *settings, *short],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        # One of the processes speaks, and says what the training cost.
        assert done.stdout.count("segmenter: epoch 1/1") == 1
        assert done.stdout.count("peak memory") == 1
        results.append(json.loads((tmp_path / name / "metrics.json").read_text())["history"][0])
    two, one = results
    for figure in one.keys() - {"windows_per_second"}:
        assert two[figure] == pytest.approx(one[figure], rel=2e-4, abs=1e-6), figure


@pytest.mark.parametrize("parts", [2, 3])
def test_the_parts_of_every_batch_are_the_batch_that_one_process_reads(dataset, parts):
    """Same order, same dates dropped, same turns."""
    source = worker.loader(dataset, worker.CONFIG.segmenter, dataset.indices("train"), dataset.labels)
    augmentation = Augmentation(flips=True, keep_dates=0.5)
    whole = list(source.epoch(1, seed=5, augmentation=augmentation))
    pieces = [list(source.epoch(1, seed=5, augmentation=augmentation, part=(rank, parts))) for rank in range(parts)]
    for position, batch in enumerate(whole):
        seen = []
        for rank in range(parts):
            piece = pieces[rank][position]
            own = Processes(rank, parts).own(piece)
            assert Processes(rank, parts).windows(piece) == len(batch.index)
            assert piece.tagged == int(piece.tags.sum())
            for row, where in enumerate(own):
                seen.append(where)
                assert piece.index[row] == batch.index[where]
                assert torch.equal(piece.target[row], batch.target[where])
                dates = piece.series.pixels.shape[1]
                assert torch.equal(piece.series.pixels[row], batch.series.pixels[where, :dates])
                assert not batch.series.pixels[where, dates:].any()
                assert torch.equal(piece.series.dates[row], batch.series.dates[where, :dates])
        assert seen == list(range(len(batch.index)))
    assert len(whole) == 2


def test_padding_that_is_attended_to_does_not_depend_on_the_part(dataset):
    encoder = worker.CONFIG.classifier.encoder.model_copy(update={"mask_padding": False})
    settings = worker.CONFIG.classifier.model_copy(update={"encoder": encoder})
    source = worker.loader(dataset, settings, dataset.indices("train"))
    augmentation = Augmentation(keep_dates=0.4)
    padding = [
        {
            int(index): int(count)
            for batch in source.epoch(0, seed=1, augmentation=augmentation, part=part)
            for index, count in zip(batch.index, batch.series.padding, strict=True)
        }
        for part in ((0, 1), (0, 2), (1, 2))
    ]
    assert len(set(padding[0].values())) > 1
    assert padding[0] == padding[1] | padding[2]


def test_alone_it_is_as_if_there_were_no_processes(dataset):
    rows = torch.ones(3, 2, requires_grad=True)
    assert ALONE.gather(rows).shape == (3, 2)
    assert not ALONE.gather(rows).requires_grad
    assert ALONE.sum(rows) is rows
    model = nn.Linear(2, 2)
    assert ALONE.parallel(model) is model
    ALONE.agree(3, on="it", otherwise="never")
    np.testing.assert_array_equal(ALONE.share(np.arange(5)), np.arange(5))


def test_batch_normalisation_is_refused():
    with pytest.raises(TrainingError, match=r"Sequential\.1 is a BatchNorm2d.*Train this model with one process"):
        Processes(0, 2).parallel(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))


def test_variables_that_make_no_sense(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE = 'two'"), join(worker.CPU):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with join(worker.CPU) as (processes, device):
        assert (processes, device) == (ALONE, worker.CPU)


def test_one_process_is_tracked(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()
    with open_stage("train_classifier", worker.CONFIG) as tracker:
        assert isinstance(tracker, NoTracker)
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()
