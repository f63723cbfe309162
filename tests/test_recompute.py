"""`recompute`: the same gradients in less memory."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from tests.test_modeling import GOLDEN_GRAPHS, HERE, arrays, run_golden
from tests.test_plain_gradients import DIALECTS, SETTINGS, pretraining_loss

NUMERICS = {
    "float32": {},
    "bfloat16": {"compute_dtype": tf.bfloat16},
    "xla": {"use_xla": True},
}


@pytest.mark.parametrize("name", GOLDEN_GRAPHS)
def test_recomputed_layers_give_the_published_numbers_too(name):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    results = run_golden(golden, recompute=True)
    expected = arrays(golden, "output/")
    norm = expected.pop("grad_norm")
    assert results.pop("grad_norm") == pytest.approx(norm, rel=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(results[key], value, rtol=0, atol=1e-5, err_msg=key)


def load_random_weights(variables, session):
    random = np.random.RandomState(3)
    for variable in variables:
        variable.load(random.normal(0, 0.5, variable.shape.as_list()), session)


def gradients_with_dropout(dialect, monkeypatch, **settings):
    """Loss and gradients of a model whose layers draw dropout from known seeds."""
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS[dialect])
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.3
    seeds = iter(range(100))

    def known_seed(shape, **unused):
        assert shape == [2]
        return tf.constant([next(seeds), 5])

    with tf.Graph().as_default(), tf.Session() as session:
        with monkeypatch.context() as patch:
            patch.setattr(tf, "random_uniform", known_seed)
            # Of the embeddings, which belong to no layer.
            patch.setattr(modeling, "dropout", lambda x, rate: x)
            loss = pretraining_loss(config, **settings)
        variables = sorted(tf.trainable_variables(), key=lambda v: v.name)
        gradients = tf.gradients(loss, variables)
        load_random_weights(variables, session)
        return session.run([loss] + [tf.convert_to_tensor(g) for g in gradients])


@pytest.mark.parametrize(
    "dialect, numerics",
    [(dialect, "float32") for dialect in DIALECTS]
    + [("postln", numerics) for numerics in NUMERICS if numerics != "float32"],
)
def test_gradients_with_dropout_are_those_of_kept_activations(
    dialect, numerics, monkeypatch
):
    settings = NUMERICS[numerics]
    recomputed = gradients_with_dropout(
        dialect, monkeypatch, recompute=True, **settings
    )

    def kept(self, run, x, given):
        seed = tf.random_uniform([2])
        return run(modeling._Kernels(self._numerics, modeling._Draws(seed)), x, given)

    monkeypatch.setattr(modeling._Kernels, "layer", kept)
    expected = gradients_with_dropout(dialect, monkeypatch, **settings)
    assert len(recomputed) == len(expected)
    for received, wanted in zip(recomputed, expected):
        np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_layer_and_step_has_masks_of_its_own(dialect):
    config = modeling.AlbertConfig(**SETTINGS, **DIALECTS[dialect])
    config.hidden_dropout_prob = 0.5
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.constant([[1, 2, 3]])
        modeling.AlbertModel(config, True, ids, recompute=True)
        draws = [
            op.outputs[0]
            for op in tf.get_default_graph().get_operations()
            if "stateless_random_uniform" in op.name and op.outputs[0].dtype.is_floating
        ]
        draws = [draw for draw in draws if draw.shape.as_list() == [3, 8]]
        values = [draw for _ in range(2) for draw in session.run(draws)]
    masks = {value.tobytes() for value in values}
    # After attention and feed-forward network of every layer, in two steps.
    num_layers = config.num_hidden_layers * config.inner_group_num
    assert len(masks) == 2 * 2 * num_layers


@pytest.mark.parametrize(
    "sharing, dtype",
    [("all", tf.float32), ("all", tf.bfloat16), ("attention", tf.float32)],
)
def test_chained_sums_of_shared_gradients_are_the_sums(sharing, dtype, monkeypatch):
    def gradients():
        config = modeling.AlbertConfig(
            **dict(SETTINGS, num_hidden_layers=3),
            **DIALECTS["postln"],
            cross_layer_sharing=sharing,
        )
        with tf.Graph().as_default(), tf.Session() as session:
            loss = pretraining_loss(config, compute_dtype=dtype)
            variables = sorted(tf.trainable_variables(), key=lambda v: v.name)
            values = tf.gradients(loss, variables)
            load_random_weights(variables, session)
            return session.run([tf.convert_to_tensor(value) for value in values])

    at_once = gradients()
    monkeypatch.setattr(modeling, "_MAX_HELD_GRADIENT_BYTES", 0)
    for received, wanted in zip(gradients(), at_once):
        np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-5)


def test_large_gradients_do_not_wait_for_each_other(monkeypatch):
    """TensorFlow's optimizer would join a chain of equal sums into one sum of all."""

    def count_sums_of_all_layers():
        config = modeling.AlbertConfig(
            **dict(SETTINGS, num_hidden_layers=5),
            **DIALECTS["postln"],
            cross_layer_sharing="all",
        )
        with tf.Graph().as_default(), tf.Session() as session:
            loss = pretraining_loss(config)
            kernels = [v for v in tf.trainable_variables() if v.shape.rank == 2]
            slopes = [g for g in tf.gradients(loss, kernels) if g is not None]
            session.run(tf.global_variables_initializer())
            metadata = tf.RunMetadata()
            options = tf.RunOptions(output_partition_graphs=True)
            session.run(slopes, options=options, run_metadata=metadata)
        nodes = [node for graph in metadata.partition_graphs for node in graph.node]
        return sum(node.op == "AddN" and node.attr["N"].i >= 4 for node in nodes)

    at_once = count_sums_of_all_layers()
    monkeypatch.setattr(modeling, "_MAX_HELD_GRADIENT_BYTES", 0)
    # Attention's [query, key, value] and output, both layers of the feed-forward net.
    assert at_once == 4
    assert count_sums_of_all_layers() == 0


def test_a_soft_mask_gets_its_gradient():
    slopes = []
    for recompute in (False, True):
        config = modeling.AlbertConfig(**SETTINGS)
        with tf.Graph().as_default(), tf.Session() as session:
            # Nearly 1: scores change by 10000 times the difference.
            logits = tf.constant([[9.0, 10.0, 11.0, 9.5], [12.0, 9.0, 10.5, 9.8]])
            ids = tf.ones([2, 4], tf.int32) * tf.range(4)
            model = modeling.AlbertModel(
                config, True, ids, tf.sigmoid(logits), recompute=recompute
            )
            (slope,) = tf.gradients(model.get_sequence_output()[:, :, 0], logits)
            session.run(tf.global_variables_initializer())
            load_random_weights(
                sorted(tf.trainable_variables(), key=lambda v: v.name), session
            )
            slopes.append(session.run(slope))
    assert np.abs(slopes[0]).max() > 0
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-4, atol=1e-6)


def test_recompute_and_plain_gradients_exclude_each_other():
    config = modeling.AlbertConfig(**SETTINGS)
    ids = tf.ones([1, 2], tf.int32)
    with tf.Graph().as_default(), pytest.raises(ValueError, match="plain_gradients"):
        modeling.AlbertModel(config, True, ids, recompute=True, plain_gradients=True)


def print_peak(recompute):
    """Prints the peak memory, in MB, of a training step of 16 layers."""
    config = modeling.AlbertConfig(
        **dict(SETTINGS, num_hidden_layers=16, max_position_embeddings=512)
    )
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.ones([8, 512], tf.int32)
        model = modeling.AlbertModel(config, True, ids, recompute=recompute)
        loss = tf.reduce_sum(model.get_pooled_output())
        gradients = tf.gradients(loss, model.get_embedding_table())
        session.run(tf.global_variables_initializer())
        session.run(gradients[0].values)
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
    sys.stdout.write("{}\n".format(peak // 1024))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_activations_take_the_memory_of_one_layer(repository):
    def peak(recompute):
        code = "from tests import test_recompute as t; t.print_peak({})"
        result = subprocess.run(
            [sys.executable, "-c", code.format(recompute)],
            cwd=str(repository),
            env=dict(os.environ, PYTHONPATH=str(repository)),
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        return int(result.stdout)

    # A layer's probabilities alone, 8 x 2 x 512 x 512, take 16 MB: 240 MB for all but
    # the one at work. Half of it leaves room for what differs between TensorFlows.
    assert peak(False) - peak(True) > 120
