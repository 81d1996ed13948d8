import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

from exact_core.data.windows.dataset import VOID
from exact_core.metrics import Scores, average_precision, confusion_matrix


def test_by_hand():
    # Truth: 3 background, 3 of crop 1, 1 of crop 2, 1 void; crop 3 is nowhere.
    truth = np.array([0, 0, 0, 1, 1, 1, 2, VOID], np.uint8)
    predicted = np.array([0, 0, 1, 1, 1, 2, 0, 2], np.uint8)
    matrix = confusion_matrix(truth, predicted, classes=3)
    np.testing.assert_array_equal(matrix, [[2, 1, 0, 0], [0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    scores = Scores(matrix)
    assert scores.pixels == 7
    assert scores.oa_micro == pytest.approx(4 / 7)
    np.testing.assert_allclose(scores.iou, [2 / 4, 2 / 4, 0, np.nan])
    # The absent crop 3 does not count as 0: three classes share the mean.
    assert scores.miou_macro == pytest.approx(1 / 3)
    # The published sweep counts it as 0 among four.
    assert scores.miou_published == pytest.approx(1 / 4)
    np.testing.assert_allclose(scores.f1, [4 / 6, 4 / 6, 0, np.nan])
    assert scores.f1_macro == pytest.approx(4 / 9)
    summary = scores.summary(("wheat", "maize", "beet"))
    assert summary["per_class"]["beet"]["iou"] is None
    assert summary["per_class"]["wheat"]["pixels"] == 3


def test_the_published_mean_iou_needs_pixels_and_equals_ours_where_every_class_occurs():
    assert np.isnan(Scores(np.zeros((3, 3), np.int64)).miou_published)
    full = Scores(np.array([[5, 1], [2, 7]]))
    assert full.miou_published == pytest.approx(full.miou_macro) == pytest.approx((5 / 8 + 7 / 10) / 2)


labels = arrays(np.uint8, st.integers(1, 200), elements=st.sampled_from([0, 1, 2, 3, VOID]))


@given(st.data())
def test_against_scikit_learn(data):
    truth = data.draw(labels)
    predicted = data.draw(arrays(np.uint8, len(truth), elements=st.sampled_from([0, 1, 2, 3])))
    known = truth != VOID
    scores = Scores(confusion_matrix(truth, predicted, classes=3))
    if not known.any():
        assert scores.pixels == 0
        assert np.isnan(scores.oa_micro)
        return
    t, p = truth[known], predicted[known]
    present = np.union1d(t, p)
    assert scores.oa_micro == pytest.approx(oracle.accuracy_score(t, p))
    assert scores.miou_macro == pytest.approx(
        oracle.jaccard_score(t, p, labels=present, average="macro", zero_division=0)
    )
    assert scores.f1_macro == pytest.approx(oracle.f1_score(t, p, labels=present, average="macro", zero_division=0))


@given(st.permutations([1, 2, 3]), st.integers(0, 2**31))
def test_renaming_crops_changes_no_mean(order, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 4, (2, 100)).astype(np.uint8)
    table = np.array([0, *order], np.uint8)
    one = Scores(confusion_matrix(truth, predicted, classes=3))
    other = Scores(confusion_matrix(table[truth], table[predicted], classes=3))
    assert one.miou_macro == pytest.approx(other.miou_macro)
    assert one.oa_micro == other.oa_micro


def test_average_precision_by_hand_and_against_scikit_learn():
    # Ranked 1, 0, 1: precision at the hits is 1 and 2/3.
    ap = average_precision(np.array([[0.9], [0.5], [0.1]]), np.array([[1], [0], [1]], np.uint8))
    assert ap[0] == pytest.approx((1 + 2 / 3) / 2)
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 10, (80, 4)) / 10
    tags = rng.integers(0, 2, (80, 4)).astype(np.uint8)
    tags[:, 3] = 0
    ours = average_precision(scores, tags)
    for k in range(3):
        assert ours[k] == pytest.approx(oracle.average_precision_score(tags[:, k], scores[:, k]))
    assert np.isnan(ours[3])


def test_average_precision_where_tags_say_nothing():
    """As if the silent windows of a class were not there, class by class."""
    rng = np.random.default_rng(4)
    scores, tags = rng.random((30, 3)), (rng.random((30, 3)) < 0.4).astype(np.uint8)
    known = (rng.random((30, 3)) < 0.7) | (tags > 0)
    found = average_precision(scores, tags, known=known)
    for k in range(3):
        rows = known[:, k]
        assert found[k] == average_precision(scores[rows, k : k + 1], tags[rows, k : k + 1])[0]
    np.testing.assert_array_equal(
        average_precision(scores, tags, known=np.ones((30, 3), bool)), average_precision(scores, tags)
    )
