"""Classification head, loss and the form of predictions."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st

import modeling
from albert_zh.tasks import classification, fine_tuning, get_task, kind, model_files
from tests.small_models import CONFIG

pytestmark = pytest.mark.skipif(
    not hasattr(tf, "estimator"), reason="this TensorFlow has no Estimator"
)


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "字"]


class Encoder:
    """Stands in for `modeling.AlbertModel`."""

    def __init__(self, pooled):
        self._pooled = tf.convert_to_tensor(pooled)

    def get_pooled_output(self):
        return self._pooled


@pytest.fixture
def build_kind(tmp_path):
    """Function of a config and of the number of labels that builds the kind."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")

    def build(config, num_labels):
        labels = tuple(map(str, range(num_labels)))
        return classification.Classification(
            model_files.TaskFiles(
                modeling.AlbertConfig.from_dict(config),
                get_task("single"),
                labels,
                str(path),
                None,
                True,
                False,
                8,
            )
        )

    return build


def test_head_is_a_linear_layer_with_the_published_names(build_kind):
    pooled = np.random.RandomState(0).normal(size=(5, 16)).astype(np.float32)
    classifier = build_kind(dict(CONFIG.to_dict(), hidden_size=16), 3)
    with tf.Graph().as_default(), tf.Session() as session:
        logits = classifier.outputs(Encoder(pooled))["logits"]
        weights, bias = tf.trainable_variables()
        assert [v.op.name for v in (weights, bias)] == ["output_weights", "output_bias"]
        session.run(tf.global_variables_initializer())
        session.run(bias.assign([1.0, 2.0, 3.0]))
        actual, matrix, offset = session.run([logits, weights, bias])
    assert matrix.shape == (3, 16)
    np.testing.assert_allclose(actual, pooled @ matrix.T + offset, atol=1e-6)


def test_training_drops_a_tenth_of_the_pooled_output(build_kind):
    size = 100
    config = dict(CONFIG.to_dict(), hidden_size=size, num_attention_heads=10)
    classifier = build_kind(config, 2)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        encoder = Encoder(tf.ones([200, size]))
        logits = classifier.outputs(encoder, kind.HeadDropout(1))["logits"]
        weights = tf.trainable_variables()[0]
        session.run(tf.global_variables_initializer())
        # With weights of 1 / 100 a logit is the share kept, scaled by 1 / 0.9.
        session.run(weights.assign(tf.fill([2, size], 0.01)))
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


@pytest.fixture
def run_model_fn(build_kind):
    """Function: log-probabilities or the mean loss without dropout, seed fixed."""
    config = CONFIG.to_dict()
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

    def run(mode, features=FEATURES):
        model_fn = fine_tuning.model_fn_builder(
            build_kind(config, 3), False, modeling.FLOAT32, training_spec=lambda x: x
        )
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(1)
            tensors = {name: tf.constant(value) for name, value in features.items()}
            result = model_fn(tensors, None, mode, {})
            session.run(tf.global_variables_initializer())
            if mode == tf.estimator.ModeKeys.TRAIN:
                return session.run(result)
            return session.run(result.predictions)["log_probabilities"]

    return run


def test_training_minimizes_the_mean_cross_entropy_of_its_predictions(
    monkeypatch, run_model_fn
):
    monkeypatch.setattr(kind, "HEAD_DROPOUT", 0.0)
    loss = run_model_fn(tf.estimator.ModeKeys.TRAIN)
    log_probabilities = run_model_fn(tf.estimator.ModeKeys.PREDICT)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1.0, atol=1e-6)
    expected = -(log_probabilities[0, 2] + log_probabilities[1, 0]) / 2
    np.testing.assert_allclose(loss, expected, atol=1e-6)


def test_padding_does_not_change_a_prediction(run_model_fn):
    padded = dict(FEATURES)
    for name in ("input_ids", "input_mask", "segment_ids"):
        padded[name] = [row + [0, 0] for row in FEATURES[name]]
    mode = tf.estimator.ModeKeys.PREDICT
    np.testing.assert_allclose(
        run_model_fn(mode, padded), run_model_fn(mode), atol=1e-6
    )


@given(st.floats(0, 1))
def test_a_prediction_is_one_line(share):
    probabilities = np.array([share, 1 - share])
    line = classification.format_prediction(("否", "是"), probabilities)
    assert line.endswith("\n") and line.count("\n") == 1
    label, *values = line.rstrip("\n").split("\t")
    assert label == ("否", "是")[probabilities.argmax()]
    np.testing.assert_allclose(np.array(values, float), probabilities, atol=1e-6)
