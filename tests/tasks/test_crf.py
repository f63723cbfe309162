"""The conditional random field against all tag sequences, one by one."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st

from albert_zh.tasks import crf


def all_scores(logits, transitions):
    """Dict tags -> score of every sequence of tags for logits [n, N]."""
    scores = {}
    for tags in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        score = sum(logits[t, tag] for t, tag in enumerate(tags))
        score += sum(transitions[pair] for pair in zip(tags, tags[1:]))
        scores[tags] = score
    return scores


def draw(seed, lengths, num_steps, num_tags):
    random = np.random.RandomState(seed)
    logits = random.normal(size=[len(lengths), num_steps, num_tags], scale=2.0)
    tags = random.randint(num_tags, size=[len(lengths), num_steps])
    transitions = random.normal(size=[num_tags, num_tags], scale=2.0)
    return logits.astype(np.float32), tags, transitions.astype(np.float32)


@functools.lru_cache(maxsize=None)
def graph(num_tags):
    """Function (logits, tags, lengths, transitions) -> likelihood, tags, score."""
    with tf.Graph().as_default() as built:
        inputs = [
            tf.placeholder(tf.float32, [None, None, num_tags]),
            tf.placeholder(tf.int32, [None, None]),
            tf.placeholder(tf.int32, [None]),
            tf.placeholder(tf.float32, [num_tags, num_tags]),
        ]
        likelihood = crf.log_likelihood(*inputs)
        decoded = crf.decode(inputs[0], inputs[2], inputs[3])
    session = tf.Session(graph=built)

    def run(*values):
        return session.run((likelihood,) + decoded, dict(zip(inputs, values)))

    return run


@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    num_tags=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_equals_brute_force(seed, lengths, num_tags, padding):
    num_steps = max(max(lengths) + padding, 1)
    logits, tags, transitions = draw(seed, lengths, num_steps, num_tags)
    run = graph(num_tags)
    likelihood, found, score = run(logits, tags, lengths, transitions)
    assert found.shape == tags.shape
    for i, length in enumerate(lengths):
        if length == 0:
            assert likelihood[i] == 0
            continue
        scores = all_scores(logits[i, :length].astype(np.float64), transitions)
        total = np.logaddexp.reduce(list(scores.values()))
        expected = scores[tuple(tags[i, :length])] - total
        assert likelihood[i] == pytest.approx(expected, abs=1e-4)
        best = max(scores, key=scores.get)
        assert tuple(found[i, :length]) == best
        assert score[i] == pytest.approx(scores[best], abs=1e-4)
        assert not found[i, length:].any()


def test_gradients_are_the_differences_to_the_expected_counts():
    """The derivative by a logit is 1 for the tag, less its marginal probability."""
    logits, tags, transitions = draw(1, [3, 2], 4, 3)
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = [tf.constant(logits), tf.constant(transitions)]
        likelihood = crf.log_likelihood(
            tensors[0], tf.constant(tags, tf.int32), tf.constant([3, 2]), tensors[1]
        )
        gradients = tf.gradients(tf.reduce_sum(likelihood), tensors)
        by_logit, by_transition = session.run(gradients)
    expected, expected_steps = np.zeros_like(logits), np.zeros_like(transitions)
    for i, length in enumerate([3, 2]):
        scores = all_scores(logits[i, :length].astype(np.float64), transitions)
        total = np.logaddexp.reduce(list(scores.values()))
        terms = [(tuple(tags[i, :length]), 1.0)]
        terms += [(path, -np.exp(score - total)) for path, score in scores.items()]
        for path, weight in terms:
            for t, tag in enumerate(path):
                expected[i, t, tag] += weight
            for pair in zip(path, path[1:]):
                expected_steps[pair] += weight
    np.testing.assert_allclose(by_logit, expected, atol=1e-5)
    np.testing.assert_allclose(by_transition, expected_steps, atol=1e-5)
