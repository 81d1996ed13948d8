"""The fan-out by hand, against plain loops, and docs/scale.md against what the script prints."""

import heapq
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
from exact_kubeflow.pipelines.steps import ClusterSettings

from benchmarks.fanout import (
    BACKOFF,
    LAYOUTS,
    MINUTES,
    RETRIES,
    Cluster,
    Costs,
    Layout,
    Work,
    draw,
    main,
    parser,
    part_seconds,
    simulate,
)
from exact_core.stages.stage import stage_table

NEVER = np.inf
PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def work(seconds, *, runs=None, fails=None):
    seconds = np.array(seconds, float)
    return Work(
        np.zeros(len(seconds), int) if runs is None else np.array(runs),
        seconds,
        np.full((len(seconds), 3), NEVER) if fails is None else np.array(fails, float),
    )


def test_one_worker_takes_the_sum_and_many_take_the_longest():
    parts = work([5, 1, 3, 2])
    assert simulate(parts, Cluster(workers=1)).wall == 11
    many = simulate(parts, Cluster(workers=4))
    assert many.wall == 5
    # Four workers, each paid until its own part is done.
    assert many.paid == many.busy == 11


def test_two_workers_by_hand():
    """3 | 2 then 2: the second worker takes the last part when it is done with its first."""
    found = simulate(work([3, 2, 2]), Cluster(workers=2))
    assert (found.wall, found.paid, found.busy) == (4, 7, 7)


def test_starts_by_hand():
    """A worker starts once, a pod for each part: 100 + (1 + 10) + (1 + 10)."""
    found = simulate(work([10, 10]), Cluster(workers=1, worker_start=100, pod_start=1))
    assert (found.wall, found.paid, found.busy) == (122, 122, 20)


def test_the_controller_creates_one_part_at_a_time():
    """Three parts at 2, 4 and 6, each 5 later on its way: the last one ends at 6 + 5 + 10."""
    assert simulate(work([10, 10, 10]), Cluster(workers=3, controller=2)).wall == 16
    assert simulate(work([10, 10, 10]), Cluster(workers=3, controller=2, driver=5)).wall == 21
    # Two runs share it.
    assert simulate(work([10, 10, 10], runs=[0, 1, 2]), Cluster(workers=3, controller=2)).wall == 16


def test_limits_of_runs_and_parts_by_hand():
    four = work([10] * 4)
    assert simulate(four, Cluster(workers=9, parallelism=2)).wall == 20
    assert simulate(four, Cluster(workers=9, parallelism=3)).wall == 20
    two = work([10] * 4, runs=[0, 0, 1, 1])
    steps = {"before": 5, "after": 1}
    assert simulate(two, Cluster(workers=9, **steps)).wall == 16
    assert simulate(two, Cluster(workers=9, runs=1, **steps)).wall == 32
    # A run's first steps go on while the workers have the parts of another.
    assert simulate(two, Cluster(workers=1, **steps)).wall == 5 + 40 + 1
    assert simulate(two, Cluster(workers=9, parallelism=1, **steps)).wall == 26


def test_failures_by_hand():
    """Fails at 4, waits 30, fails at 4, waits 60, takes 10."""
    found = simulate(work([10], fails=[[4, 4, NEVER]]), Cluster(workers=1))
    assert (found.wall, found.again, found.lost, found.busy) == (4 + 30 + 4 + 60 + 10, 2, 0, 10)
    given_up = simulate(work([10], fails=[[4, 4, 4]]), Cluster(workers=1))
    assert (given_up.wall, given_up.again, given_up.lost, given_up.busy) == (4 + 30 + 4 + 60 + 4, 2, 1, 0)
    assert simulate(work([10], fails=[[4, 4, 4]]), Cluster(workers=1, backoff_max=40)).wall == 4 + 30 + 4 + 40 + 4
    # The worker does another part while this one waits.
    both = simulate(work([10, 20], fails=[[4, NEVER, NEVER], [NEVER] * 3]), Cluster(workers=1))
    assert both.wall == max(4 + 20, 4 + 30) + 10
    # Killed at the limit, each time.
    long = simulate(work([100]), Cluster(workers=1, limit=50))
    assert (long.lost, long.wall) == (1, 50 + 30 + 50 + 60 + 50)


def test_one_worker_without_pauses_takes_the_sum_of_all_tries():
    """With a fixed seed, against a plain loop."""
    parts = draw(runs=40, parts=2, mean=3600, spread=0.3, hours_to_failure=2, retries=2, seed=2)
    expected, again, lost = 0.0, 0, 0
    for seconds, fails in zip(parts.seconds, parts.fails, strict=True):
        for number, fail in enumerate(fails):
            expected += min(seconds, fail)
            again += number > 0
            if seconds <= fail:
                break
        else:
            lost += 1
    found = simulate(parts, Cluster(workers=1, backoff=0))
    assert found.wall == pytest.approx(expected, rel=1e-12)
    assert (found.again, found.lost) == (again, lost)
    assert again > 10
    assert lost > 0


@pytest.mark.parametrize("workers", [2, 7])
def test_who_is_free_first_takes_the_next(workers):
    """Against a heap of the times at which workers are free."""
    parts = draw(runs=1, parts=50, mean=10, spread=1, hours_to_failure=NEVER, retries=0, seed=1)
    free = [0.0] * workers
    for seconds in parts.seconds:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    assert simulate(parts, Cluster(workers=workers)).wall == pytest.approx(max(free), rel=1e-12)


def test_what_is_drawn():
    parts = draw(runs=100, parts=100, mean=50, spread=0.2, hours_to_failure=0.05, retries=2, seed=0)
    assert parts.seconds.mean() == pytest.approx(50, rel=0.02)
    assert parts.seconds.std() / 50 == pytest.approx(0.2, rel=0.05)
    # The share that fails within the mean time to failure, 180 s, is 1 - 1/e.
    assert (parts.fails < 180).mean() == pytest.approx(1 - np.exp(-1), rel=0.02)
    again = draw(runs=100, parts=100, mean=50, spread=0.2, hours_to_failure=0.05, retries=2, seed=0)
    np.testing.assert_array_equal(again.fails, parts.fails)


def test_more_workers_are_never_slower_and_more_failures_never_faster():
    def wall(workers, hours):
        parts = draw(runs=30, parts=3, mean=3600, spread=0.2, hours_to_failure=hours, retries=9, seed=5)
        return simulate(parts, Cluster(workers=workers, worker_start=240, controller=1, retries=9)).wall

    assert all(one >= other for one, other in pairwise(wall(workers, 20) for workers in (1, 4, 16, 90)))
    assert all(one <= other for one, other in pairwise(wall(1, hours) for hours in (1000, 10, 3)))


def test_seconds_of_a_part_by_hand():
    costs = Costs(opening=2, reading=8, model=60, blending=1, writing=0.5)
    layout = Layout("", 1000, 10_000, 1)
    assert part_seconds(costs, layout, speedup=3, gpu=False) == 2 + (60 / 3 + 1) + 0.5
    # Reading is slower than a fast GPU.
    assert part_seconds(costs, layout, speedup=20, gpu=True) == 2 + 8 + 0.5
    assert part_seconds(costs, layout, speedup=5, gpu=True) == 2 + 12 + 0.5
    assert part_seconds(costs, Layout("", 2000, 1, 4), speedup=3, gpu=False) == 4 * (2 + 21.5 / 4)


def test_squares_that_a_hexagon_touches():
    """Against hexagons put down at random."""
    area, side = 1000.0, 10.0
    rng = np.random.default_rng(0)
    radius = np.sqrt(2 * area / (3 * np.sqrt(3)))
    corners = np.arange(-3, 3) * side
    squares = shapely.box(
        *(each.ravel() for each in np.meshgrid(corners, corners)),
        *(each.ravel() + side for each in np.meshgrid(corners, corners)),
    )
    counts = []
    for _ in range(400):
        turn, place = rng.uniform(0, np.pi), rng.uniform(-side / 2, side / 2, 2)
        angles = turn + np.arange(6) * np.pi / 3
        hexagon = shapely.polygons(radius * np.stack([np.cos(angles), np.sin(angles)], 1) + place)
        counts.append(shapely.intersects(squares, hexagon).sum())
    layout = Layout("", 1000, side * 1000, 1)
    assert layout.count(area) == round(np.mean(counts))


def test_retries_are_those_of_the_pipelines():
    stage = stage_table()["map_season"]
    assert (stage.retries, stage.minutes) == (RETRIES, MINUTES)
    assert ClusterSettings().backoff == f"{BACKOFF:g}s"


def test_the_page_shows_what_the_script_prints(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fanout"])
    main()
    assert capsys.readouterr().out.strip() in PAGE
    monkeypatch.setattr("sys.argv", ["fanout", "--sensitivity"])
    main()
    assert capsys.readouterr().out.strip() in PAGE


def test_what_the_page_says_of_the_options():
    """Every row of its table of options is an option with that value, and none that was not measured is missing."""
    rows = dict(re.findall(r"^\| `--([\w-]+)` \| ([\d,.]+) ", PAGE, re.MULTILINE))
    defaults = vars(parser().parse_args([]))
    for name, text in rows.items():
        assert float(text.replace(",", "")) == defaults[name.replace("-", "_")], name
    of_the_simulation = {"workers", "runs", "parallelism", "seeds", "sensitivity"}
    assert set(rows) == {name.replace("_", "-") for name in defaults} - of_the_simulation
    for layout in LAYOUTS:
        assert f"{layout.count(550_000)} {layout.name.split(',')[0]}" in PAGE
