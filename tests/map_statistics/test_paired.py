"""Which of two maps is better: published figures, plain enumeration, peeking, and the commands."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from exact_core.errors import DataError
from exact_core.map_statistics.every_look import difference_at_every_look, share_at_every_look
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.paired import Differences, paired_difference
from tests.mapping.maps import VOID, write_map

ENDLESS = 10**9


@pytest.mark.parametrize("seen", [(5, 1, 14), (1, 3, 40), (0, 4, 6), (9, 9, 2)])
def test_tangos_interval_by_a_search(seen):
    """Its ends lie z standard errors away, by the likeliest shares of a fine grid that have the difference."""
    first, second, _neither = seen
    count = sum(seen)
    for end in paired_difference(*seen, size=ENDLESS, confidence=0.95):
        other = np.linspace(max(0, -end), (1 - end) / 2, 400_001)[1:-1]
        shares = np.array([other + end, other, 1 - 2 * other - end])
        chance = sum(number * np.log(share) for number, share in zip(seen, shares, strict=True) if number)
        likely = other[chance.argmax()]
        error = math.sqrt(count * (2 * likely + end * (1 - end)))
        assert abs(first - second - count * end) / error == pytest.approx(1.959964, abs=2e-3)


def test_the_score_at_no_difference_is_mcnemars():
    """An end of the interval lies at 0 where (b - c)^2 / (b + c) is z^2."""
    z = abs(25 - 13) / math.sqrt(38)
    confidence = math.erf(z / math.sqrt(2))
    low, _ = paired_difference(25, 13, 12, size=ENDLESS, confidence=confidence)
    assert low == pytest.approx(0, abs=1e-6)


def test_intervals_of_pairs_hold_what_they_say_and_are_mirrored():
    """Every outcome of 20 pairs: shares 0.3 and 0.15, and 0.05 and 0.02."""
    count = 20
    for one, other in ((0.3, 0.15), (0.05, 0.02)):
        held = 0.0
        for first, second in itertools.product(range(count + 1), repeat=2):
            neither = count - first - second
            if neither < 0:
                continue
            chance = math.factorial(count) / math.prod(map(math.factorial, (first, second, neither)))
            chance *= one**first * other**second * (1 - one - other) ** neither
            if chance < 1e-7:
                continue
            low, high = paired_difference(first, second, neither, size=ENDLESS, confidence=0.95)
            held += chance * (low <= one - other <= high)
        assert 0.93 < held < 0.999
    low, high = paired_difference(7, 2, 11, size=300, confidence=0.9)
    assert paired_difference(2, 7, 11, size=300, confidence=0.9) == (pytest.approx(-high), pytest.approx(-low))
    assert paired_difference(3, 1, 6, size=10, confidence=0.9) == (0.2, 0.2)


def ratio_of(composition, seen):
    """Chance of draws in order under a composition over that under a uniform prior, by plain products."""
    size, drawn, chance = sum(composition), sum(seen), 1.0
    for number, times in zip(composition, seen, strict=True):
        chance *= math.perm(number, times)
    chance /= math.perm(size, drawn)
    kinds = len(seen)
    prior = math.prod(map(math.factorial, seen)) * math.factorial(kinds - 1) / math.factorial(drawn + kinds - 1)
    return chance / prior


def test_intervals_at_every_look_by_enumeration():
    """All compositions of 24 units in three kinds, and of two strata in two."""
    size, seen = 24, (6, 1, 2)
    kept = [
        first - second
        for first, second in itertools.product(range(size + 1), repeat=2)
        if first + second <= size
        and all(have >= got for have, got in zip((first, second, size - first - second), seen, strict=True))
        and ratio_of((first, second, size - first - second), seen) >= 0.05
    ]
    low, high = difference_at_every_look(size, *seen, confidence=0.95)
    # Real numbers reach a little further than whole ones.
    assert min(kept) / size - 1 / size < low <= min(kept) / size
    assert max(kept) / size <= high < max(kept) / size + 1 / size
    sizes, counts, hits = (15, 9), (6, 4), (5, 1)
    shares = [
        (one + other) / 24
        for one, other in itertools.product(range(5, 15), range(1, 7))
        if ratio_of((one, 15 - one), (5, 1)) * ratio_of((other, 9 - other), (1, 3)) >= 0.05
    ]
    low, high = share_at_every_look(np.array(sizes), np.array(counts), np.array(hits), confidence=0.95)
    assert min(shares) - 1 / 24 < low <= min(shares) + 1e-9
    assert max(shares) - 1e-9 <= high < max(shares) + 1 / 24
    assert difference_at_every_look(9, 6, 1, 2, confidence=0.95) == (pytest.approx(5 / 9), pytest.approx(5 / 9))


def test_peeking_misleads_the_test_and_not_the_interval():
    """No difference in truth, 20 looks at a growing sample of 200 of 400, 60 times; the interval at 4 of them."""
    rng = np.random.default_rng(0)
    misled = missed = 0
    for number in range(60):
        order = rng.permutation(np.repeat([0, 1, 2], [160, 160, 80]))
        looks = [np.bincount(order[:count], minlength=3).tolist() for count in range(10, 201, 10)]
        misled += any(binomtest(first, first + second).pvalue < 0.05 for first, second, _ in looks)
        if number % 3:
            continue
        intervals = [difference_at_every_look(400, *look, confidence=0.95) for look in looks[4::5]]
        missed += any(not low <= 0 <= high for low, high in intervals)
    assert misled >= 6
    assert missed <= 2


@pytest.fixture
def maps(tmp_path):
    """60 x 50 pixels; the second map has its classes in another order, another one, and differs in 5 rows."""
    one = np.repeat([0, 1, 2], [600, 1200, 1200]).reshape(50, 60)
    other = one.copy()
    other[25:30] = 2
    other[0, :7] = VOID
    translated = np.array([0, 2, 1] + [VOID] * 253)[other]
    names = ("background", "maize", "wheat", "rye")
    return write_map(tmp_path / "a", one), write_map(tmp_path / "b", translated, classes=names)


def filled(path, truth, *, until=None):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["reference"] = truth(number) if until is None or number < until else ""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_from_two_maps_to_the_better_one(exact, maps, tmp_path):
    one, other = maps
    differing = int((np.arange(50) < 30).sum() - 25) * 60
    pairs = tmp_path / "pairs.csv"
    code, said, _ = exact("sample", one, "--other", other, "--size", 80, "--out", tmp_path / "pairs.gpkg")
    assert code == 0
    assert f"80 of {differing} pixels that differ" in said
    # The first map shows wheat (1) there, the second maize.
    filled(pairs, lambda number: "wheat" if number % 5 else "maize", until=50)
    out = tmp_path / "better.json"
    code, said, _ = exact("compare-maps", one, other, "--reference", pairs, "--out", out)
    assert code == 0
    assert f"the maps differ at {differing} of 2,993 pixels (10.0 %)" in said
    assert f"of 50 samples there, {one} is right at 40, {other} at 10, none at 0" in said
    assert f"{one} is better" in said
    found = json.loads(out.read_text())
    assert found["better"] == str(one)
    assert found["difference"] == pytest.approx(0.6 * differing / 2993)
    assert found["p_value"] == pytest.approx(binomtest(40, 50).pvalue)
    assert found["always_low"] < found["low"] < found["difference"] < found["high"] < found["always_high"]
    assert found["always_low"] > 0
    filled(pairs, lambda number: "" if number == 3 else "rye")
    code, _, complaint = exact("compare-maps", one, other, "--reference", pairs)
    assert code == 1
    assert "reference is empty, and later ones are not. Fill in places in the order of `id`" in complaint
    filled(pairs, lambda _: "barley")
    assert "reference 'barley' is no class of these maps" in exact("compare-maps", one, other, "--reference", pairs)[2]
    code, _, complaint = exact("sample", one, "--other", one, "--size", 9, "--out", tmp_path / "none.csv")
    assert "show the same class at every pixel that both have: neither is better" in complaint
    assert "give --size" in exact("sample", one, "--other", other, "--out", tmp_path / "none.csv")[2]


def test_maps_of_other_pixels_are_refused(maps, tmp_path):
    small = open_map(write_map(tmp_path / "small", np.ones((20, 20))))
    with pytest.raises(DataError, match="other pixels than .* Map the same images"):
        Differences(open_map(maps[0]), small)
