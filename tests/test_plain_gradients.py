"""`plain_gradients`: graphs that can be imported, and differentiated again."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from tests.test_modeling import GOLDEN_GRAPHS, HERE, arrays, build, run_golden

SETTINGS = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 6,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.5,
}
DIALECTS = {
    "postln": {"embedding_size": 4, "ln_type": "postln"},
    "preln": {"embedding_size": 4, "ln_type": "preln", "hidden_act": "gelu_exact"},
    "google": {"embedding_size": 4, "num_hidden_groups": 1, "inner_group_num": 2},
    "bert": {},
}
# Imports a meta graph, as a program of the user's own does, without this code.
_IMPORT = """
import sys
import tensorflow.compat.v1 as tf
tf.disable_eager_execution()
saver = tf.train.import_meta_graph(sys.argv[1] + ".meta")
(loss,) = tf.get_collection("losses")
try:
    gradients = tf.gradients(loss, tf.trainable_variables())
except LookupError as error:
    sys.exit("LookupError: {}".format(error))
with tf.Session() as session:
    saver.restore(session, sys.argv[1])
    norm = session.run(tf.global_norm([tf.convert_to_tensor(g) for g in gradients]))
sys.stdout.write("norm {!r}\\n".format(float(norm)))
"""


def pretraining_loss(config, **settings):
    """MLM plus SOP loss of two fixed sequences, the model built in training mode."""
    features = {
        "input_ids": tf.constant([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]),
        "input_mask": tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
        "segment_ids": tf.constant([[0, 0, 1, 1, 1], [0, 0, 0, 1, 0]]),
        "masked_lm_positions": tf.constant([[1, 3], [2, 2]]),
        "masked_lm_ids": tf.constant([[11, 12], [13, 14]]),
        "masked_lm_weights": tf.constant([[1.0, 1.0], [1.0, 0.0]]),
        "next_sentence_labels": tf.constant([[0], [1]]),
    }
    outputs = build(config, features, is_training=True, **settings)
    return outputs["masked_lm_loss"] + outputs["sop_loss"]


@pytest.mark.parametrize("name", GOLDEN_GRAPHS)
def test_plain_gradients_give_the_published_numbers_too(name):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    results = run_golden(golden, plain_gradients=True)
    expected = arrays(golden, "output/")
    norm = expected.pop("grad_norm")
    assert results.pop("grad_norm") == pytest.approx(norm, rel=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(results[key], value, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("plain_gradients", [True, False])
def test_an_imported_meta_graph_can_be_differentiated(plain_gradients, tmp_path):
    """The whole of it: encoder with dropout, both heads, a head of the user's own."""
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS["postln"])
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
    prefix = str(tmp_path / "model.ckpt")
    with tf.Graph().as_default(), tf.Session() as session:
        loss = pretraining_loss(config, plain_gradients=plain_gradients)
        own = modeling.gelu(tf.get_variable("own", [3, 8]))
        loss += tf.reduce_sum(modeling.layer_norm(own) ** 3)
        tf.add_to_collection("losses", loss)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, prefix)
    result = subprocess.run(
        [sys.executable, "-c", _IMPORT, prefix],
        capture_output=True,
        encoding="utf-8",
    )
    if plain_gradients:
        assert result.returncode == 0, result.stderr
        assert 0.1 < float(result.stdout.split()[-1]) < np.inf
    else:
        # What the argument is for; should this stop failing, it can go.
        assert result.returncode == 1
        assert "LookupError" in result.stderr


@pytest.mark.parametrize(
    "dialect,plain_gradients",
    [(dialect, True) for dialect in sorted(DIALECTS)] + [("postln", False)],
)
def test_second_derivatives_equal_differences_of_the_first(dialect, plain_gradients):
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS[dialect])
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        loss = pretraining_loss(config, plain_gradients=plain_gradients)
        variables = [v for v in tf.trainable_variables() if "gamma" in v.name]
        variables += [v for v in tf.trainable_variables() if "query/bias" in v.name]
        slopes = tf.gradients(loss, variables)
        random = np.random.RandomState(0)
        direction = [
            random.normal(size=v.shape.as_list()).astype(np.float32) for v in variables
        ]
        # The Hessian times the direction is the slope of their product.
        product = tf.add_n([tf.reduce_sum(s * d) for s, d in zip(slopes, direction)])
        products = tf.gradients(product, variables)
        session.run(tf.global_variables_initializer())
        result, start = session.run([products, variables])
        differences = []
        for step in (2e-3, 1e-3):
            shifted = []
            for sign in (1.0, -1.0):
                for variable, value, d in zip(variables, start, direction):
                    variable.load(value + sign * step * d, session)
                shifted.append(session.run(slopes))
            differences.append([(a - b) / (2 * step) for a, b in zip(*shifted)])
    # Richardson: their error falls with the square of the step.
    expected = [(4 * half - whole) / 3 for whole, half in zip(*differences)]
    result, expected = (np.concatenate(values) for values in (result, expected))
    assert np.linalg.norm(expected) > 0.1
    assert np.linalg.norm(result - expected) < 0.01 * np.linalg.norm(expected)


def test_hessians_are_symmetric():
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS["bert"])
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        loss = pretraining_loss(config, plain_gradients=True)
        (bias,) = tf.trainable_variables("bert/encoder/layer_0/intermediate/dense/bias")
        (hessian,) = tf.hessians(loss, [bias])
        session.run(tf.global_variables_initializer())
        hessian = session.run(hessian)
    assert hessian.shape == (16, 16)
    assert np.abs(hessian).max() > 1e-3
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-6)


def test_a_gradient_penalty_reaches_every_weight():
    """As adversarial training has it: a loss of the embeddings' gradient."""
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS["google"])
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.constant([[1, 2, 3]])
        model = modeling.AlbertModel(config, True, ids, plain_gradients=True)
        loss = tf.reduce_sum(model.get_pooled_output()[:, 0])
        (slope,) = tf.gradients(loss, [model.get_embedding_output()])
        penalty = tf.reduce_sum(tf.square(slope))
        variables = tf.trainable_variables()
        second = tf.gradients(penalty, variables)
        assert [v.name for v, g in zip(variables, second) if g is None] == []
        session.run(tf.global_variables_initializer())
        values = session.run([tf.convert_to_tensor(g) for g in second])
    assert all(np.isfinite(value).all() for value in values)
    assert sum(np.abs(value).max() > 0 for value in values) > len(values) / 2


def test_in_bfloat16_they_are_as_exact_as_those_by_hand():
    """Also with XLA, whose kernels TensorFlow then differentiates."""
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS["postln"])
    results = []
    for numerics in (
        modeling.FLOAT32,
        modeling.Numerics(tf.bfloat16),
        modeling.Numerics(tf.bfloat16, use_xla=True, plain_gradients=True),
    ):
        with tf.Graph().as_default(), tf.Session() as session:
            loss = pretraining_loss(config, **numerics._asdict())
            variables = tf.trainable_variables()
            slopes = tf.gradients(loss, variables)
            slopes = [tf.reshape(tf.convert_to_tensor(g), [-1]) for g in slopes]
            session.run(tf.global_variables_initializer())
            random = np.random.RandomState(0)
            for variable in variables:
                variable.load(random.normal(0, 0.3, variable.shape.as_list()), session)
            results.append(session.run(tf.concat(slopes, axis=0)))
    exact, by_hand, plain = results
    error = np.linalg.norm(plain - exact)
    assert 0 < error < 1.2 * np.linalg.norm(by_hand - exact)
    assert error < 0.1 * np.linalg.norm(exact)
