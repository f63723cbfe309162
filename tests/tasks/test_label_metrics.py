"""Scores of several labels and of numbers, against cases worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.tasks import metrics

TRUE = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
PROBABILITIES = np.array(
    [[0.9, 0.6, 0.4], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.1, 0.55, 0.35]]
)


def test_f1_of_several_labels():
    # Predicted at 0.5: [a b -], [- b -], [a - -], [- b -].
    # a: 2 hits of 2 and 2, F1 1. b: 1 hit, 3 predicted, 2 true, F1 2 / 5. c: F1 0.
    # Together: 3 hits, 5 predicted, 5 true. All right: the second example alone.
    scores = metrics.score_labels(TRUE, PROBABILITIES, 0.5, ("a", "b", "c"))
    assert scores["micro_f1"] == pytest.approx(6 / 10)
    assert scores["micro_precision"] == pytest.approx(3 / 5)
    assert scores["micro_recall"] == pytest.approx(3 / 5)
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 5 + 0) / 3)
    assert scores["accuracy"] == pytest.approx(1 / 4)
    assert scores["per_class"]["b"]["precision"] == pytest.approx(1 / 3)
    assert scores["per_class"]["b"]["num_examples"] == 2


def test_loss_is_the_mean_binary_cross_entropy():
    scores = metrics.score_labels([[True, False]], [[0.25, 0.5]], 0.5, ("a", "b"))
    assert scores["loss"] == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_threshold_of_the_highest_micro_f1():
    # From 0.36 to 0.4: 4 hits (a, c; b; a), 6 predicted (and b twice), 5 true: 8 / 11.
    # At 0.3: 5 hits, 8 predicted: 10 / 13, the highest.
    assert metrics.best_threshold(TRUE, PROBABILITIES) == pytest.approx(0.3)


def test_threshold_of_the_highest_macro_f1():
    # Perfect for a from 0.21 to 0.5; b: 4 / 6 at 0.3 at the most, as 2 / 5 at 0.31 to
    # 0.55; c: 1 from 0.36 to 0.4, 2 / 3 from 0.21 to 0.35.
    # At 0.3: (1 + 2 / 3 + 2 / 3) / 3 = 0.778; at 0.4: (1 + 2 / 5 + 1) / 3 = 0.8.
    threshold = metrics.best_threshold(TRUE, PROBABILITIES, "macro")
    assert threshold == pytest.approx(0.4)


def test_of_thresholds_alike_the_middle_one_is_taken():
    true = np.array([[1, 0]], bool)
    assert metrics.best_threshold(true, np.array([[0.9, 0.1]])) == 0.5


def test_nothing_true_and_nothing_predicted_is_0():
    none = np.zeros([2, 2])
    scores = metrics.score_labels(none.astype(bool), none, 0.5, ("a", "b"))
    assert scores["micro_f1"] == scores["macro_f1"] == 0
    assert scores["accuracy"] == 1


def test_ranks_of_ties_are_shared():
    assert metrics.average_ranks([3, 1, 3, 2, 3]).tolist() == [4, 1, 4, 2, 4]


def test_correlations_by_hand():
    # Means 2 and 4; deviations -1 0 1 0 and -3 -1 1 3: 4 / sqrt(2 * 20).
    scores = metrics.score_numbers([1, 2, 3, 2], [1, 3, 5, 7])
    assert scores["pearson"] == pytest.approx(4 / math.sqrt(40))
    # Ranks 1 2.5 4 2.5 and 1 2 3 4: 3 / sqrt(4.5 * 5).
    assert scores["spearman"] == pytest.approx(3 / math.sqrt(22.5))
    assert scores["loss"] == pytest.approx((0 + 1 + 4 + 25) / 4)


def test_a_constant_correlates_with_nothing():
    scores = metrics.score_numbers([1, 2, 3], [5, 5, 5])
    assert scores["pearson"] == scores["spearman"] == 0


NUMBERS = st.lists(st.integers(0, 5), min_size=2, max_size=30)


@given(NUMBERS, st.randoms())
def test_spearman_depends_on_the_order_alone(numbers, random):
    other = [random.random() for _ in numbers]
    expected = metrics.score_numbers(numbers, other)["spearman"]
    stretched = [math.exp(n) for n in numbers]
    actual = metrics.score_numbers(stretched, other)["spearman"]
    assert actual == pytest.approx(expected)
    assert -1 <= actual <= 1
