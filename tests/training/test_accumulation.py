"""A step in micro-batches is the step of the whole batch, in the memory of one part."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import modeling
from albert_zh.base.errors import UserError
from albert_zh.training import accumulation, pretraining_model
from albert_zh.training import estimator as estimators

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parent.parent
BATCH, LENGTH, PREDICTIONS, VOCABULARY = 8, 12, 4, 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LENGTH,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DIALECTS = {
    "albert_zh": {"embedding_size": 8, "ln_type": "postln"},
    "google": {"embedding_size": 8, "num_hidden_groups": 1},
    "bert": {},
}


def config_of(dialect, **changes):
    settings = dict(SIZES, **DIALECTS[dialect])
    settings.update(changes)
    return modeling.AlbertConfig.from_dict(settings)


def random_features(seed=0):
    """Features with uneven weights; the fourth pair of sequences has none at all."""
    random = np.random.RandomState(seed)
    lengths = random.randint(LENGTH // 2, LENGTH + 1, [BATCH, 1])
    weights = np.arange(PREDICTIONS) < random.randint(1, PREDICTIONS + 1, [BATCH, 1])
    weights[6:8] = 0
    ids = random.randint(0, VOCABULARY, [BATCH, LENGTH])
    return {
        "input_ids": ids.astype(np.int32),
        "input_mask": (np.arange(LENGTH) < lengths).astype(np.int32),
        "segment_ids": np.tile(np.arange(LENGTH) > 5, [BATCH, 1]).astype(np.int32),
        "masked_lm_positions": random.randint(
            0, LENGTH // 2, [BATCH, PREDICTIONS], np.int32
        ),
        "masked_lm_ids": random.randint(0, VOCABULARY, [BATCH, PREDICTIONS], np.int32),
        "masked_lm_weights": weights.astype(np.float32),
        "next_sentence_labels": random.randint(0, 2, [BATCH, 1], np.int32),
    }


def train(config, micro_batch_size, output_dir, num_steps=3, use_resource=None):
    """Runs training steps of the model function; returns what they leave.

    Returns:
      list of dicts of curve name to number, one a step.
      dict of variable name to array, the optimizer's and the step included.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        # The published rate. The keys' biases have no gradient but rounding errors,
        # which Adam's division blows up: a step of them is as large as the rate.
        model_fn = pretraining_model.model_fn_builder(
            config,
            estimators.Start(str(output_dir)),
            estimators.Schedule("lamb", 0.00176, 100, 0, BATCH),
            micro_batch_size=micro_batch_size,
        )
        inputs = random_features()
        features = {k: tf.placeholder(v.dtype, v.shape) for k, v in inputs.items()}
        tf.train.get_or_create_global_step()
        with tf.variable_scope("", use_resource=use_resource):
            spec = model_fn(features, None, tf.estimator.ModeKeys.TRAIN, {})
        random = np.random.RandomState(1)
        weights = sorted(tf.trainable_variables(), key=lambda v: v.name)
        start = [v.assign(random.normal(scale=0.4, size=v.shape)) for v in weights]
        session.run(tf.global_variables_initializer())
        session.run(start)
        names = sorted(
            "loss masked_lm_loss masked_lm_accuracy sentence_order_loss "
            "sentence_order_accuracy learning_rate gradient_norm".split()
        )
        curves = []
        for number in range(num_steps):
            feed = dict(zip(features.values(), random_features(number).values()))
            values, _ = session.run([spec.host_call[1][1:], spec.train_op], feed)
            curves.append({name: v[0] for name, v in zip(names, values)})
        variables = tf.global_variables()
        return curves, dict(zip([v.name for v in variables], session.run(variables)))


@pytest.fixture(scope="module")
def whole_batch(tmp_path_factory):
    """Function of dialect: what `train` gives without micro-batches, made once."""
    made = {}

    def of(dialect):
        if dialect not in made:
            folder = tmp_path_factory.mktemp(dialect)
            made[dialect] = train(config_of(dialect), None, folder)
        return made[dialect]

    return of


@pytest.mark.parametrize(
    "dialect,micro_batch_size,use_resource",
    [
        ("albert_zh", 1, None),
        ("albert_zh", 2, False),
        ("albert_zh", 2, True),
        ("albert_zh", BATCH, None),
        ("google", 2, None),
        ("bert", 4, None),
    ],
)
def test_steps_equal_those_of_the_whole_batch(
    whole_batch, dialect, micro_batch_size, use_resource, tmp_path
):
    expected_curves, expected = whole_batch(dialect)
    curves, variables = train(
        config_of(dialect), micro_batch_size, tmp_path, use_resource=use_resource
    )
    for step, (actual_step, expected_step) in enumerate(zip(curves, expected_curves)):
        assert actual_step["gradient_norm"] > 1.0, "the clipping has to be active"
        for name, value in actual_step.items():
            assert value == pytest.approx(expected_step[name], abs=1e-5), (step, name)
    assert variables["global_step:0"] == 3
    assert set(variables) == set(expected)
    for name, value in variables.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


def test_loss_is_the_weighted_mean_over_the_whole_batch():
    features = random_features()
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = {k: tf.constant(v) for k, v in features.items()}
        outputs = pretraining_model._run_model(
            config_of("albert_zh"), tensors, False, False, modeling.FLOAT32
        )
        totals = pretraining_model._totals(tensors)
        loss, curves = pretraining_model._share_of_loss(outputs, tensors, totals)
        session.run(tf.global_variables_initializer())
        outputs, loss, curves = session.run([outputs, loss, curves])
    weights = features["masked_lm_weights"]
    right = outputs.mlm_predictions == features["masked_lm_ids"]
    mlm_loss = (weights * outputs.mlm_losses).sum() / weights.sum()
    assert loss == pytest.approx(mlm_loss + outputs.sop_losses.mean())
    assert curves["masked_lm_loss"] == pytest.approx(mlm_loss)
    assert curves["masked_lm_accuracy"] == pytest.approx(
        (weights * right).sum() / weights.sum()
    )


def test_batch_without_predictions_has_a_finite_step():
    with tf.Graph().as_default(), tf.Session() as session:
        features = dict(random_features(), masked_lm_weights=np.zeros([BATCH, 4], "f"))
        features = {k: tf.constant(v) for k, v in features.items()}
        config, totals = config_of("albert_zh"), pretraining_model._totals(features)

        def compute(part):
            outputs = pretraining_model._run_model(
                config, part, True, False, modeling.FLOAT32
            )
            return pretraining_model._share_of_loss(outputs, part, totals)

        loss, curves, gradients = accumulation.accumulate(compute, features, 2)
        norm = tf.global_norm(gradients)
        session.run(tf.global_variables_initializer())
        loss, curves, norm = session.run([loss, curves, norm])
    assert loss == pytest.approx(curves["sentence_order_loss"])
    assert curves["masked_lm_loss"] == 0
    assert 0 < norm < np.inf


def squared_error(totals=None):
    """A `compute` with a table, a weight and the weighted mean of squared errors."""

    def compute(features):
        table = tf.get_variable("table", [5], initializer=tf.ones_initializer())
        slope = tf.get_variable("slope", [], initializer=tf.ones_initializer())
        error = tf.gather(table, features["id"]) * slope - features["target"]
        total = tf.reduce_sum(features["weight"] * tf.square(error)) / totals
        return total, {"error": tf.reduce_sum(tf.abs(error))}

    return compute


@settings(max_examples=15)
@given(
    num_parts=st.integers(1, 5),
    micro_batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_division_gives_the_same_sums(num_parts, micro_batch_size, seed):
    random = np.random.RandomState(seed)
    size = num_parts * micro_batch_size
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            "id": tf.constant(random.randint(0, 5, size)),
            "target": tf.constant(random.normal(size=size), tf.float32),
            "weight": tf.constant(random.randint(0, 3, size), tf.float32),
        }
        compute = squared_error(tf.reduce_sum(features["weight"]) + 1.0)
        loss, curves, gradients = accumulation.accumulate(
            compute, features, micro_batch_size
        )
        with tf.variable_scope("", reuse=True):
            expected = compute(features)
        expected += (tf.gradients(expected[0], tf.trainable_variables()),)
        expected = [
            expected[0],
            expected[1],
            [tf.convert_to_tensor(g) for g in expected[2]],
        ]
        session.run(tf.global_variables_initializer())
        actual, expected = session.run([[loss, curves, gradients], expected])
    assert actual[0] == pytest.approx(expected[0], rel=1e-5)
    assert actual[1]["error"] == pytest.approx(expected[1]["error"], rel=1e-5)
    for value, right in zip(actual[2], expected[2]):
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)


def test_every_micro_batch_has_its_own_dropout():
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)

        def compute(features):
            x = tf.get_variable("x", [4000], initializer=tf.ones_initializer())
            return tf.reduce_sum(modeling.dropout(x, 0.5) * features["y"]), {}

        features = {"y": tf.ones([2, 1])}
        _, _, gradients = accumulation.accumulate(compute, features, 1)
        session.run(tf.global_variables_initializer())
        first, second = session.run(gradients), session.run(gradients)
    # An element is kept, doubled, in none, one or both of the micro-batches.
    for gradient in (first[0], second[0]):
        shares = [np.mean(gradient == value) for value in (0.0, 2.0, 4.0)]
        np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.05)
    assert (first[0] != second[0]).any()


def test_variable_beside_the_loss_has_no_gradient():
    with tf.Graph().as_default():
        tf.get_variable("beside", [3])
        features = {
            "id": tf.zeros([4], tf.int32),
            "target": tf.ones([4]),
            "weight": tf.ones([4]),
        }
        _, _, gradients = accumulation.accumulate(squared_error(4.0), features, 2)
        names = [v.op.name for v in tf.trainable_variables()]
    assert [n for n, g in zip(names, gradients) if g is None] == ["beside"]


def test_step_compiles_with_xla():
    config = config_of("albert_zh", hidden_dropout_prob=0.1)
    features = random_features()

    def step(*values):
        tensors = dict(zip(features, values))
        totals = pretraining_model._totals(tensors)

        def compute(part):
            outputs = pretraining_model._run_model(
                config, part, True, True, modeling.FLOAT32
            )
            return pretraining_model._share_of_loss(outputs, part, totals)

        loss, _, gradients = accumulation.accumulate(compute, tensors, 2)
        return [loss, tf.global_norm(gradients)]

    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope("", use_resource=True):
            results = tf.xla.experimental.compile(
                step, [tf.constant(v) for v in features.values()]
            )
        session.run(tf.global_variables_initializer())
        loss, norm = session.run(results)
    assert 0 < loss < 2 * (np.log(VOCABULARY) + np.log(2))
    assert 0 < norm < np.inf


def print_peaks():
    """Prints the process's peak memory after more and more micro-batches, in MB."""

    def compute(features):
        x = tf.get_variable("x", [1 << 16], initializer=tf.zeros_initializer())
        value = features["y"] + x  # [4, 65536], 1 MB, and as much every line
        for _ in range(4):
            value = tf.tanh(value)
        return tf.reduce_sum(value), {}

    for num_parts, micro_batch_size in ((4, 4), (64, 4), (1, 64 * 4)):
        with tf.Graph().as_default(), tf.Session() as session:
            features = {"y": tf.ones([num_parts * micro_batch_size, 1])}
            sums = accumulation.accumulate(compute, features, micro_batch_size)
            session.run(tf.global_variables_initializer())
            session.run(sums[2])
        # Not `getrusage`, whose peak includes the parent's from before the exec.
        status = pathlib.Path("/proc/self/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
        sys.stdout.write("{}\n".format(peak // 1024))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_one_micro_batch():
    result = subprocess.run(
        [sys.executable, "-c", "import test_accumulation as t; t.print_peaks()"],
        cwd=str(HERE),
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    few, many, whole = map(int, result.stdout.split())
    # 60 more micro-batches would keep 240 MB at least, as the whole batch does.
    assert many - few < 60
    assert whole - many > 180


def test_batch_that_is_not_divisible_is_named():
    assert accumulation.count_micro_batches(4096, 32) == 128
    assert accumulation.count_micro_batches(4096, 32, num_devices=8) == 16
    with pytest.raises(UserError, match="--train_batch_size 16 .*micro_batch_size 5$"):
        accumulation.count_micro_batches(16, 5)
    with pytest.raises(UserError, match="_size 64 .*_size 16 on each of 8 devices$"):
        accumulation.count_micro_batches(64, 16, num_devices=8)
