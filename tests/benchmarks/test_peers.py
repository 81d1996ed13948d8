"""Peers of the map and of the masks: what is compared is equal, or the size that it is said to be."""

import argparse

import numpy as np
import pytest
import torch

from benchmarks.masks import fit_plainly, relearn
from benchmarks.peers import BANDS, PrestoSized, main, side_of, strip
from benchmarks.plain import nothing_shared
from benchmarks.sides import Side
from exact_core.clues.pixels import fit_pixels
from exact_core.models import tsvit


@pytest.mark.parametrize("cloud", [0.0, 0.4])
def test_plain_windows_make_the_same_map_to_the_last_bit(cloud):
    land = strip(dates=5, rows=36, columns=48, classes=6, cloud=cloud)
    options = argparse.Namespace(recipe="season", ask=1)
    plain, half, usual = (side_of(name, land, options)()["sha256"] for name in ("plain", "half", "float32"))
    assert plain == half != usual


def test_nothing_is_shared_only_within():
    shared = tsvit.shared_patches
    with nothing_shared():
        assert tsvit.shared_patches(None, None) is None
    assert tsvit.shared_patches is shared


def test_presto_has_its_published_size():
    """0.40 million parameters; a token a date and each of six groups, and one for the place."""
    model = PrestoSized(np.arange(12) * 30 + 1, classes=4)
    assert 395_000 < model.parameters_of_encoder() < 410_000
    lengths = []
    model.blocks[0].register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    assert model(torch.rand(3, 12, BANDS)).shape == (3, 5)
    assert lengths == [1 + 6 * 12]


def test_both_solvers_find_the_same():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(400, 5)), rng.integers(0, 3, 400)
    features[:, 0] += labels
    ours, theirs = (
        fit(features, labels, classes=4, ridge=0.1, balance=0.5)(features) for fit in (fit_pixels, fit_plainly)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(ours[:, 0]) > 0.1


def test_masks_by_either_solver(config, dataset_folder, tmp_path):
    for plain in (False, True):
        assert relearn(config, dataset_folder, tmp_path / f"{plain}.npy", plain=plain)()["windows"] > 0
    ours, theirs = (np.load(tmp_path / f"{plain}.npy") for plain in (False, True))
    assert (ours == theirs).mean() > 0.999
    assert len(np.unique(ours)) > 2


def test_a_ratio_is_the_median_over_pairs():
    one, other = ([{"cpu": cpu, "wall": 1, "peak": 9} for cpu in times] for times in ((4, 6, 90), (2, 6, 10)))
    assert Side(one).cpu == 6
    assert Side(one).ratio(Side(other)) == 2


def test_the_command_prints_the_table(capsys):
    main(["--rows=24", "--columns=24", "--dates=3", "--runs=1", "--sides", "plain", "half", "trees"])
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 4
    assert "equal to the last bit: yes" in printed
