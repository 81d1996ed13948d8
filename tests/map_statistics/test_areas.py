"""Areas and accuracies from a sample: published examples, plain loops of the equations, and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from exact_core.errors import ConfigError, DataError
from exact_core.map_statistics.areas import ProbabilitySample, estimate_areas

ENDLESS = 1_000_000
"""Times as many pixels: the finite population correction, which Olofsson et al. leave out, then vanishes."""


def sample(sizes, stratum, mapped, reference):
    names = tuple(f"s{number}" for number in range(len(sizes)))
    arrays = (np.asarray(values, np.int64) for values in (stratum, mapped, reference))
    return ProbabilitySample(names, tuple(int(size) for size in sizes), *arrays)


def olofsson(times=1):
    """Olofsson et al. (2014), table 8: counts of samples, rows as mapped, and pixels mapped (of 30 m, 0.09 ha)."""
    counts = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
    mapped, reference = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices((4, 4)))
    pixels = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * times
    return sample(pixels, mapped, mapped, reference)


def stehman(times=1):
    """Stehman (2014), table 2: 40 samples in 4 strata that are not the map's classes A to D."""
    stratum = np.repeat(range(4), 10)
    mapped = ["ABCD".index(name) for name in "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD"]
    reference = ["ABCD".index(name) for name in "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"]
    return sample(np.array([40_000, 30_000, 20_000, 10_000]) * times, stratum, mapped, reference)


def test_olofsson_2014_as_published():
    """Areas (ha) with 95 % margins of section 5.2.2, accuracies of 5.2.1, error matrix of table 9.

    Two printed margins of producer's accuracies (forest gain 0.23, stable non-forest 0.01) do not follow from the
    paper's equation 7, which gives 0.254 and 0.018; the plain loop below asserts these.
    """
    found = estimate_areas(olofsson(ENDLESS), tuple("abcd"))
    hectares, margin = 900_000, 1.96
    areas = [round(each.share.value * hectares) for each in found.classes]
    assert areas == [21_158, 11_686, 285_770, 581_386]
    assert [round(margin * each.share.error * hectares) for each in found.classes] == [6_158, 3_756, 15_510, 16_282]
    assert round(found.classes[0].share.value * 10_000_000) == 235_086
    assert round(margin * found.classes[0].share.error * 10_000_000) == 68_418
    assert [round(each.users.value, 2) for each in found.classes] == [0.88, 0.73, 0.93, 0.96]
    assert [round(margin * each.users.error, 2) for each in found.classes] == [0.07, 0.10, 0.04, 0.02]
    assert [round(each.producers.value, 2) for each in found.classes] == [0.75, 0.85, 0.93, 0.96]
    assert round(margin * found.classes[0].producers.error, 2) == 0.21
    assert round(margin * found.classes[2].producers.error, 2) == 0.03
    assert round(found.overall.value, 2) == 0.95
    assert round(margin * found.overall.error, 2) == 0.02
    expected = [[176, 0, 13, 11], [0, 110, 16, 24], [19, 0, 2967, 213], [40, 20, 179, 6212]]
    np.testing.assert_array_equal(np.round(found.matrix * 10_000), expected)


def test_the_finite_map_is_hardly_surer():
    """640 of 10 million pixels: the correction takes less than 0.03 % off an error."""
    one, other = (estimate_areas(olofsson(times), tuple("abcd")) for times in (1, ENDLESS))
    for small, large in zip(one.classes, other.classes, strict=True):
        assert 0.9997 < small.share.error / large.share.error < 1
        assert small.share.value == pytest.approx(large.share.value)


def test_stehman_2014_as_published():
    """Pages 4932 to 4936.

    The printed error of B's producer's accuracy, 0.114, takes a variance as 0 in stratum 4 that is 0.1: one of its ten
    samples is B.
    """
    found = estimate_areas(stehman(), tuple("ABCD"))
    a, b, c, _ = found.classes
    assert (round(a.share.value, 3), round(a.share.error, 3)) == (0.35, 0.082)
    assert (round(c.share.value, 3), round(c.share.error, 3)) == (0.20, 0.064)
    assert (round(found.overall.value, 3), round(found.overall.error, 3)) == (0.63, 0.085)
    assert (round(b.users.value, 3), round(b.users.error, 3)) == (0.574, 0.125)
    assert round(b.producers.value, 3) == 0.794
    forgotten = b.producers.value**2 * 10_000**2 * 0.1 / 10 / (0.34 * 100_000) ** 2
    assert round(math.sqrt(b.producers.error**2 - forgotten), 3) == 0.114
    assert round(b.producers.error, 3) == 0.117
    assert found.matrix[1, 2] == pytest.approx(0.08)


def test_strata_that_are_the_classes_by_plain_loops():
    """Olofsson et al. (2014), equations 4 to 7, 9 and 10, without vectors."""
    given = olofsson(ENDLESS)
    found = estimate_areas(given, tuple("abcd"))
    n = [[int(((given.mapped == i) & (given.reference == j)).sum()) for j in range(4)] for i in range(4)]
    size = given.sizes
    total = sum(size)
    drawn = [sum(row) for row in n]
    users = [n[i][i] / drawn[i] for i in range(4)]
    overall = sum((size[i] / total) ** 2 * users[i] * (1 - users[i]) / (drawn[i] - 1) for i in range(4))
    assert found.overall.error == pytest.approx(math.sqrt(overall))
    for j, each in enumerate(found.classes):
        assert each.users.error == pytest.approx(math.sqrt(users[j] * (1 - users[j]) / (drawn[j] - 1)))
        spread = [size[i] ** 2 * n[i][j] / drawn[i] * (1 - n[i][j] / drawn[i]) / (drawn[i] - 1) for i in range(4)]
        assert each.share.error == pytest.approx(math.sqrt(sum(spread)) / total)
        true = sum(size[i] * n[i][j] / drawn[i] for i in range(4))
        producers = size[j] * users[j] / true
        own = size[j] ** 2 * (1 - producers) ** 2 * users[j] * (1 - users[j]) / (drawn[j] - 1)
        others = producers**2 * sum(spread[i] for i in range(4) if i != j)
        assert each.producers.value == pytest.approx(producers)
        assert each.producers.error == pytest.approx(math.sqrt(own + others) / true)


def test_one_stratum_is_a_simple_random_sample():
    """By hand: 3 of 10 are maize, among 100 pixels: 0.3, error sqrt(0.9 x 0.3 x 0.7 / 9)."""
    given = sample([100], [0] * 10, [0] * 6 + [1] * 4, [0] * 6 + [1] * 3 + [0])
    found = estimate_areas(given, ("background", "maize"))
    assert found.classes[1].share.value == pytest.approx(0.3)
    assert found.classes[1].share.error == pytest.approx(math.sqrt(0.9 * 0.3 * 0.7 / 9))
    assert found.classes[1].users.value == pytest.approx(0.75)
    assert found.classes[1].producers.value == pytest.approx(1)
    assert found.overall.value == pytest.approx(0.9)
    low, high = found.overall.low, found.overall.high
    # Wilson's interval of 9 of 10; nine tenths of the map are not in the sample, and a variance has n - 1 below it.
    n, z = 0.9 * 0.1 / (0.9 * 0.9 * 0.1 / 9), 1.959964
    middle, reach = 0.9 + z**2 / (2 * n), z * math.sqrt(0.9 * 0.1 / n + z**2 / (4 * n**2))
    assert low == pytest.approx((middle - reach) / (1 + z**2 / n))
    assert high == pytest.approx((middle + reach) / (1 + z**2 / n))
    wider = estimate_areas(given, ("background", "maize"), confidence=0.99)
    assert wider.overall.low < low


def test_what_is_visited_whole_is_known():
    """Every pixel of both strata: the truth, without error, even where a stratum is one pixel."""
    found = estimate_areas(sample([3, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1]), ("background", "maize"))
    assert (found.classes[1].share.value, found.classes[1].share.error) == (0.5, 0)
    assert found.classes[1].producers.value == pytest.approx(0.5)
    assert found.notes == ()


def test_simulation():
    """An independent oracle: 1500 samples of a map whose truth is known, from strata that are not its classes.

    Estimates hit the truth on average, errors are the spread of the estimates, and intervals hold it 95 times of 100.
    One stratum of three is drawn in large part, so that the finite population correction shows.
    """
    generator = np.random.default_rng(3)
    sizes, drawn, rounds = [400, 4_000, 1_600], [250, 800, 300], 1500
    stratum = np.repeat(range(3), sizes)
    truth = np.concatenate([generator.choice(3, size, p=share) for size, share in zip(sizes, SHARES, strict=True)])
    mapped = np.where(generator.random(len(truth)) < 0.8, truth, generator.integers(0, 3, len(truth)))
    expected = {"overall": (mapped == truth).mean()}
    for label in range(3):
        expected[f"share {label}"] = (truth == label).mean()
        expected[f"users {label}"] = (truth == label)[mapped == label].mean()
        expected[f"producers {label}"] = (mapped == label)[truth == label].mean()
    starts = np.concatenate([[0], np.cumsum(sizes)])
    values, errors, inside = ({name: [] for name in expected} for _ in range(3))
    for _ in range(rounds):
        chosen = np.concatenate(
            [starts[h] + generator.choice(sizes[h], drawn[h], replace=False) for h in range(len(sizes))]
        )
        found = estimate_areas(sample(sizes, stratum[chosen], mapped[chosen], truth[chosen]), ("a", "b", "c"))
        each = {"overall": found.overall}
        for label, one in enumerate(found.classes):
            each |= {f"share {label}": one.share, f"users {label}": one.users, f"producers {label}": one.producers}
        for name, estimate in each.items():
            values[name].append(estimate.value)
            errors[name].append(estimate.error)
            inside[name].append(estimate.low <= expected[name] <= estimate.high)
    for name, true in expected.items():
        spread = np.std(values[name])
        # Ratios are biased by a part of their error that falls with the sample.
        assert abs(np.mean(values[name]) - true) < 4 * spread / math.sqrt(rounds) + 0.02 * spread, name
        assert np.mean(errors[name]) == pytest.approx(spread, rel=0.08), name
        assert 0.93 < np.mean(inside[name]) < 0.99, name


@pytest.mark.parametrize(("count", "true"), [(20, 0.95), (30, 0.02), (50, 0.9)])
def test_intervals_of_few_samples_hold_what_they_say(count, true):
    """By the binomial itself, not by simulation: normal intervals hold 0.95 of 20 in 64 of 100 samples."""
    held, normal = 0.0, 0.0
    for seen in range(count + 1):
        chance = math.comb(count, seen) * true**seen * (1 - true) ** (count - seen)
        given = sample([ENDLESS], [0] * count, [0] * count, [0] * seen + [1] * (count - seen))
        overall = estimate_areas(given, ("right", "wrong")).overall
        held += chance * (overall.low <= true <= overall.high)
        normal += chance * (abs(overall.value - true) <= 1.959964 * overall.error)
    assert 0.92 < held < 0.985
    assert normal < held


def test_a_class_without_an_error_has_an_interval():
    """10 of 10 right: Wilson's lower end is 10 / (10 + z^2), of a population without end."""
    given = sample([ENDLESS, ENDLESS], [0] * 10 + [1] * 10, [0] * 10 + [1] * 10, [0] * 10 + [1] * 5 + [0] * 5)
    users = estimate_areas(given, ("a", "b")).classes[0].users
    assert (users.value, users.error, users.high) == (1, 0, 1)
    assert users.low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-5)


@pytest.mark.parametrize(
    ("counts", "sizes", "true"), [((12, 20), (9, 1), (0.02, 0.3)), ((15, 15), (1, 1), (0.01, 0.5))]
)
def test_strata_without_an_error_count(counts, sizes, true):
    """Every outcome of two strata, of which the large one mostly shows no error, weighted by its chance.

    A standard error sees only the other stratum. Wilson's interval of the whole sample, with the effective sample size
    by that error, held the truth in 79 % and 92 % of these cases.
    """
    stratum = np.repeat([0, 1], counts)
    population = [size * ENDLESS for size in sizes]
    share = np.array(sizes) / sum(sizes) @ np.array(true)
    held = both = 0.0
    for seen in itertools.product(*(range(count + 1) for count in counts)):
        wrong = np.concatenate([np.arange(count) < each for count, each in zip(counts, seen, strict=True)])
        chance = math.prod(
            math.comb(count, each) * p**each * (1 - p) ** (count - each)
            for count, each, p in zip(counts, seen, true, strict=True)
        )
        # All is mapped as the class 0, so the producer's accuracy of 0 is known, and the user's is the share right.
        found = estimate_areas(sample(population, stratum, np.zeros(len(wrong)), wrong), ("right", "wrong"))
        held += chance * (found.overall.low <= 1 - share <= found.overall.high)
        both += chance * (found.classes[0].users.low <= 1 - share <= found.classes[0].users.high)
    assert held > 0.93
    assert both == pytest.approx(held)


def test_an_omission_that_no_sample_shows_widens_a_producers_accuracy():
    """By hand: strata are the map's classes; of class a all 10 samples are right, and none of 30 of b is a.

    With weights 1/10 and 9/10, a is between 0.1 x l and 0.1, l Wilson's lower limit of 10 of 10, and what is a though
    mapped as b is at most 0.9 x u. The ratio's lower limit R solves 0.1 - 0.1 R = sqrt of the squares of both.
    """
    given = sample([ENDLESS, 9 * ENDLESS], [0] * 10 + [1] * 30, [0] * 10 + [1] * 30, [0] * 10 + [1] * 30)
    producers = estimate_areas(given, ("a", "b")).classes[0].producers
    z2 = 1.959964**2
    down, up = 0.1 * z2 / (10 + z2), 0.9 * z2 / (30 + z2)
    low = producers.low
    assert 0.1 * (1 - low) == pytest.approx(math.hypot((1 - low) * down, low * up), abs=1e-5)
    assert (producers.value, producers.error, producers.high) == (1, 0, 1)
    assert 0.4 < low < 0.6


def test_the_interval_of_scipy():
    """An independent oracle: scipy's Wilson interval, for 400 pixels of a million."""
    given = sample([ENDLESS], [0] * 400, [0] * 400, [0] * 372 + [1] * 28)
    found = estimate_areas(given, ("a", "b"), confidence=0.9).overall
    expected = binomtest(372, 400).proportion_ci(0.9, method="wilson")
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=2e-4), pytest.approx(expected.high, abs=2e-4))


SHARES = ([0.1, 0.2, 0.7], [0.7, 0.25, 0.05], [0.3, 0.6, 0.1])


def test_the_order_of_samples_does_not_matter():
    given = stehman()
    order = np.random.default_rng(0).permutation(40)
    turned = ProbabilitySample(
        given.strata, given.sizes, given.stratum[order], given.mapped[order], given.reference[order]
    )
    one, other = (estimate_areas(each, tuple("ABCD")) for each in (given, turned))
    for mine, yours in zip(one.classes, other.classes, strict=True):
        assert mine.share.error == pytest.approx(yours.share.error)
        assert mine.producers.value == pytest.approx(yours.producers.value)
    np.testing.assert_allclose(one.matrix, other.matrix)


def test_the_parts_make_the_whole():
    """Areas add up to the map, rows of the matrix to what is mapped, and the diagonal to overall accuracy."""
    for given, names in ((olofsson(), "abcd"), (stehman(), "ABCD")):
        found = estimate_areas(given, tuple(names))
        assert sum(each.share.value for each in found.classes) == pytest.approx(1)
        assert found.matrix.sum() == pytest.approx(1)
        assert np.trace(found.matrix) == pytest.approx(found.overall.value)
        np.testing.assert_allclose(found.matrix.sum(0), [each.share.value for each in found.classes])
    shares = np.array(olofsson().sizes) / sum(olofsson().sizes)
    np.testing.assert_allclose(estimate_areas(olofsson(), tuple("abcd")).matrix.sum(1), shares)


def test_what_the_sample_cannot_say_is_said():
    given = sample([100, 100], [0] * 5 + [1] * 5, [0] * 5 + [1] * 5, [0] * 5 + [1, 1, 1, 0, 0])
    found = estimate_areas(given, ("background", "wheat", "maize"))
    maize = found.classes[2]
    assert maize.users is None
    assert maize.producers is None
    assert maize.share.value == 0
    first, second = found.notes
    assert first.startswith("stratum s0: the map is right at all 5 samples")
    assert "60.0%" in first
    assert second.startswith("maize: at no sample")


@pytest.mark.parametrize(
    ("sizes", "stratum", "words"),
    [
        ([50, 50], [0, 0, 1], "stratum 's1': 1 samples of 50 pixels, and its error cannot be known"),
        ([50, 50], [0, 0, 0], "stratum 's1': 0 samples of 50"),
        ([2, 50], [0, 0, 0, 1, 1], "stratum 's0': 3 samples of 2 pixels; each pixel counts once"),
        ([0, 50], [1, 1], "stratum 's0': size 0"),
    ],
)
def test_strata_that_say_nothing_are_refused(sizes, stratum, words):
    zeros = [0] * len(stratum)
    with pytest.raises(DataError) as told:
        estimate_areas(sample(sizes, stratum, zeros, zeros), ("background",))
    assert words in str(told.value)


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(ConfigError, match="expected a share between 0 and 1"):
        estimate_areas(stehman(), tuple("ABCD"), confidence=confidence)


def test_classes_that_swap_names_swap_results():
    given = stehman()
    for order in itertools.islice(itertools.permutations(range(4)), 1, 4):
        places = np.argsort(order)
        turned = ProbabilitySample(
            given.strata, given.sizes, given.stratum, places[given.mapped], places[given.reference]
        )
        one = estimate_areas(given, tuple("ABCD")).classes
        other = estimate_areas(turned, tuple("ABCD"[place] for place in order)).classes
        for each in other:
            twin = one["ABCD".index(each.name)]
            assert each.users.error == pytest.approx(twin.users.error)
            assert each.share.value == pytest.approx(twin.share.value)
