"""Classification head, loss, epochs and the form of predictions."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st

import modeling
from albert_zh.base.errors import UserError
from albert_zh.tasks import classification, classification_model
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)


@given(
    num_examples=st.integers(1, 500),
    batch_size=st.integers(1, 64),
    num_epochs=st.floats(0.1, 4.0),
)
def test_epochs_cover_the_steps_without_gap(num_examples, batch_size, num_epochs):
    plan = classification.EpochPlan(num_examples, batch_size, num_epochs, False)
    per_epoch = math.ceil(num_examples / batch_size)
    assert plan.epochs[0][0] == 0
    assert plan.epochs[-1][1] == plan.num_steps >= 1
    assert abs(plan.num_steps - per_epoch * num_epochs) < 1
    for (_, end), (next_first, _) in zip(plan.epochs, plan.epochs[1:]):
        assert end == next_first
    assert all(end - first == per_epoch for first, end in plan.epochs[:-1])
    assert 0 < plan.epochs[-1][1] - plan.epochs[-1][0] <= per_epoch


def test_whole_epochs_are_whole():
    plan = classification.EpochPlan(200, 16, 3.0, full_batches_only=False)
    assert plan.epochs == [(0, 13), (13, 26), (26, 39)]


def test_a_tpu_takes_full_batches_only():
    plan = classification.EpochPlan(200, 16, 2.0, full_batches_only=True)
    assert plan.epochs == [(0, 12), (12, 24)]
    with pytest.raises(UserError, match="--train_batch_size=256.*200"):
        classification.EpochPlan(200, 256, 2.0, full_batches_only=True)


def test_head_is_a_linear_layer_with_the_published_names():
    pooled = np.random.RandomState(0).normal(size=(5, 16)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        logits = classification_model.logits_of(tf.constant(pooled), 3, False)
        weights, bias = tf.trainable_variables()
        assert [v.op.name for v in (weights, bias)] == ["output_weights", "output_bias"]
        session.run(tf.global_variables_initializer())
        session.run(bias.assign([1.0, 2.0, 3.0]))
        actual, matrix, offset = session.run([logits, weights, bias])
    assert matrix.shape == (3, 16)
    np.testing.assert_allclose(actual, pooled @ matrix.T + offset, atol=1e-6)


def test_training_drops_a_tenth_of_the_pooled_output():
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        pooled = tf.ones([200, 100])
        logits = classification_model.logits_of(pooled, 2, is_training=True)
        weights = tf.trainable_variables()[0]
        session.run(tf.global_variables_initializer())
        # With weights of 1 / 100 a logit is the share kept, scaled by 1 / 0.9.
        session.run(weights.assign(tf.fill([2, 100], 0.01)))
        kept = session.run(logits) * 0.9
    # 20,000 draws: the standard error of the share is 0.0021.
    assert kept.mean() == pytest.approx(0.9, abs=0.01)
    assert kept.std() > 0.01


FEATURES = {
    "input_ids": [[2, 5, 3, 0], [2, 6, 7, 3]],
    "input_mask": [[1, 1, 1, 0], [1, 1, 1, 1]],
    "segment_ids": [[0, 0, 0, 0], [0, 0, 1, 1]],
    "label_ids": [2, 0],
    "is_real_example": [1, 1],
}


def run_model_fn(mode, features=FEATURES):
    """Log-probabilities or the mean loss of a model without dropout, seed fixed."""
    config = CONFIG.to_dict()
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model_fn = classification_model.model_fn_builder(
        modeling.AlbertConfig.from_dict(config),
        3,
        False,
        modeling.FLOAT32,
        training_spec=lambda x: x,
    )
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        tensors = {name: tf.constant(value) for name, value in features.items()}
        result = model_fn(tensors, None, mode, {})
        session.run(tf.global_variables_initializer())
        if mode == tf.estimator.ModeKeys.TRAIN:
            return session.run(result)
        return session.run(result.predictions)["log_probabilities"]


def test_training_minimizes_the_mean_cross_entropy_of_its_predictions(monkeypatch):
    monkeypatch.setattr(classification_model, "CLASSIFIER_DROPOUT", 0.0)
    loss = run_model_fn(tf.estimator.ModeKeys.TRAIN)
    log_probabilities = run_model_fn(tf.estimator.ModeKeys.PREDICT)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1.0, atol=1e-6)
    expected = -(log_probabilities[0, 2] + log_probabilities[1, 0]) / 2
    np.testing.assert_allclose(loss, expected, atol=1e-6)


def test_padding_does_not_change_a_prediction():
    padded = dict(FEATURES)
    for name in ("input_ids", "input_mask", "segment_ids"):
        padded[name] = [row + [0, 0] for row in FEATURES[name]]
    mode = tf.estimator.ModeKeys.PREDICT
    np.testing.assert_allclose(
        run_model_fn(mode, padded), run_model_fn(mode), atol=1e-6
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_predictions_are_one_line_an_example(shares):
    probabilities = np.array([[share, 1 - share] for share in shares])
    text = classification.format_predictions(("否", "是"), probabilities)
    lines = text.splitlines()
    assert len(lines) == len(shares)
    for line, row in zip(lines, probabilities):
        label, *values = line.split("\t")
        assert label == ("否", "是")[row.argmax()]
        np.testing.assert_allclose(np.array(values, float), row, atol=1e-6)
