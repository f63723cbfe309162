"""LAMB and AdamW against published numbers and a NumPy oracle; the schedule."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import optimization
from lamb_optimizer import LAMBOptimizer
from optimization import AdamWeightDecayOptimizer

HERE = pathlib.Path(__file__).parent
EXCLUDED = ["LayerNorm", "layer_norm", "bias"]
GOLDEN_OPTIMIZERS = {
    "google_lamb": (LAMBOptimizer, {}),
    "albert_zh_lamb": (LAMBOptimizer, {"exclude_from_layer_adaptation": []}),
    "adamw": (AdamWeightDecayOptimizer, {}),
}


def settings_of(golden):
    keys = ("learning_rate", "weight_decay_rate", "beta_1", "beta_2", "epsilon")
    # By way of text: the float32 nearest to 0.999 is 1.3e-5 off in 1 - 0.999.
    return {key: float(str(golden[key])) for key in keys}


@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize("name", sorted(GOLDEN_OPTIMIZERS))
def test_optimizer_equals_published_steps(name, use_resource):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    optimizer_class, extra = GOLDEN_OPTIMIZERS[name]
    names = [k[len("initial/") :] for k in golden.files if k.startswith("initial/")]
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [
            tf.get_variable(
                n, initializer=golden["initial/" + n], use_resource=use_resource
            )
            for n in names
        ]
        gradients = [tf.placeholder(tf.float32, v.shape) for v in variables]
        optimizer = optimizer_class(
            exclude_from_weight_decay=EXCLUDED, **dict(settings_of(golden), **extra)
        )
        step = optimizer.apply_gradients(zip(gradients, variables))
        session.run(tf.global_variables_initializer())
        for number in range(6):
            prefix = "step{}/".format(number)
            feed = {g: golden[prefix + "grad/" + n] for g, n in zip(gradients, names)}
            session.run(step, feed)
            for n, value in zip(names, session.run(variables)):
                expected = golden[prefix + "value/" + n]
                np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=n)


def oracle_step(x, g, m, v, t, lr, decay, adapt, bias_correction):
    """One step of arXiv:1904.00962, algorithm 2, in NumPy."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    m_hat, v_hat = m, v
    if bias_correction:
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    u = m_hat / (np.sqrt(v_hat) + 1e-6) + decay * x
    ratio = 1.0
    if adapt and np.linalg.norm(x) > 0 and np.linalg.norm(u) > 0:
        ratio = np.linalg.norm(x) / np.linalg.norm(u)
    return x - lr * ratio * u, m, v


@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize(
    "optimizer_class,adapt", [(LAMBOptimizer, True), (AdamWeightDecayOptimizer, False)]
)
def test_sparse_gradients_take_the_dense_step(
    optimizer_class, adapt, bias_correction, use_resource
):
    random = np.random.RandomState(7)
    x = random.normal(size=(6, 3)).astype(np.float32)
    m, v = np.zeros_like(x), np.zeros_like(x)
    with tf.Graph().as_default(), tf.Session() as session:
        table = tf.get_variable("table", initializer=x, use_resource=use_resource)
        ids = tf.placeholder(tf.int32, [4])
        weights = tf.placeholder(tf.float32, [4, 3])
        loss = tf.reduce_sum(tf.gather(table, ids) * weights)
        optimizer = optimizer_class(
            0.1, weight_decay_rate=0.01, bias_correction=bias_correction
        )
        step = optimizer.minimize(loss)
        session.run(tf.global_variables_initializer())
        for t in range(1, 5):
            id_values = random.randint(0, 6, size=4)  # with repetitions
            weight_values = random.normal(size=(4, 3)).astype(np.float32)
            session.run(step, {ids: id_values, weights: weight_values})
            gradient = np.zeros_like(x)
            np.add.at(gradient, id_values, weight_values)
            x, m, v = oracle_step(
                x, gradient, m, v, t, 0.1, 0.01, adapt, bias_correction
            )
            np.testing.assert_allclose(session.run(table), x, rtol=1e-4, atol=1e-5)


def test_slots_carry_the_published_names():
    with tf.Graph().as_default():
        kernel = tf.get_variable("dense/kernel", [2, 2])
        LAMBOptimizer(0.1).minimize(tf.reduce_sum(kernel))
        names = {v.name for v in tf.global_variables()}
    assert names == {
        "dense/kernel:0",
        "dense/kernel/adam_m:0",
        "dense/kernel/adam_v:0",
    }


def check_mirrored_replicas():
    """Two logical CPU replicas with half the loss each equal one device.

    Runs in a process of its own: the number of logical devices is fixed once any
    other test has touched TensorFlow's context.
    """
    if hasattr(tf.config, "set_logical_device_configuration"):
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )

    def variables_after_three_steps(strategy):
        with tf.Graph().as_default():
            with strategy.scope():
                kernel = tf.get_variable("kernel", initializer=[[1.0, -2.0]])
                optimizer = LAMBOptimizer(0.1, weight_decay_rate=0.01)
                share = 1.0 / strategy.num_replicas_in_sync

                def step():
                    loss = tf.reduce_sum(tf.square(kernel - 3.0)) * share
                    return optimizer.minimize(loss)

                run = getattr(strategy, "run", None) or strategy.experimental_run_v2
                train = strategy.experimental_local_results(run(step))
            with tf.Session(config=tf.ConfigProto(device_count={"CPU": 2})) as session:
                session.run(tf.global_variables_initializer())
                for _ in range(3):
                    session.run(train)
                return session.run(strategy.experimental_local_results(kernel))

    mirrored = variables_after_three_steps(
        tf.distribute.MirroredStrategy(
            ["/cpu:0", "/cpu:1"],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    )
    single = variables_after_three_steps(tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert len(mirrored) == 2
    for value in mirrored:
        np.testing.assert_allclose(value, single[0], rtol=1e-6)


def test_mirrored_replicas_take_one_device_s_step():
    check = "import test_optimization; test_optimization.check_mirrored_replicas()"
    result = subprocess.run(
        [sys.executable, "-c", check],
        cwd=str(HERE),
        env=dict(os.environ, PYTHONPATH=str(HERE.parent)),
    )
    assert result.returncode == 0


def test_cross_shard_optimizer_wraps_lamb():
    # Without TPU shards the wrapper reduces over one shard and hands on.
    with tf.Graph().as_default():
        kernel = tf.get_variable("kernel", [2, 2])
        optimizer = tf.tpu.CrossShardOptimizer(LAMBOptimizer(0.1))
        optimizer.minimize(tf.reduce_sum(kernel))
        assert optimizer.get_slot(kernel, "m").shape == [2, 2]
        kinds = {op.type for op in tf.get_default_graph().get_operations()}
    assert "CrossReplicaSum" in kinds


@pytest.mark.parametrize(
    "step,expected",
    [(0, 0.0), (5, 0.5), (10, 0.9), (50, 0.5), (100, 0.0), (200, 0.0)],
)
def test_schedule_warms_up_and_decays_linearly(step, expected):
    with tf.Graph().as_default(), tf.Session() as session:
        rate = optimization.learning_rate_schedule(1.0, tf.constant(step), 100, 10)
        assert session.run(rate) == pytest.approx(expected, abs=1e-6)


def test_schedule_without_warmup_starts_at_the_peak():
    with tf.Graph().as_default(), tf.Session() as session:
        rate = optimization.learning_rate_schedule(0.3, tf.constant(0), 100, 0)
        assert session.run(rate) == pytest.approx(0.3)


def _rates(steps, num_warmup_steps, schedule):
    """Rates at some of 100 steps, as shares of the peak."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        rate = optimization.learning_rate_schedule(
            2.0, step, 100, num_warmup_steps, schedule=schedule
        )
        return [session.run(rate, {step: number}) / 2 for number in steps]


@pytest.mark.parametrize(
    "schedule,expected",
    [
        ("one_cycle", [0, 0.5, 1, 0.5, 20 / 90, 10 / 90, 0, 0]),
        ("tenth", [0, 0.5, 1, 0.55, 0.1 + 0.2, 0.1 + 0.1, 0.1, 0.1]),
        ("trapezoid", [0, 0.5, 1, 1, 1, 0.5, 0, 0]),
    ],
)
def test_schedules_after_a_warmup_of_ten_steps(schedule, expected):
    received = _rates([0, 5, 10, 55, 80, 90, 100, 200], 10, schedule)
    assert received == pytest.approx(expected, abs=1e-6)


def test_a_long_warmup_reaches_the_peak():
    assert _rates([50], 50, "one_cycle") == _rates([50], 50, "trapezoid") == [1.0]
    # BERT's decay counts from step 0.
    assert _rates([50], 50, "linear") == [0.5]
    # A warm-up beyond the trapezoid's 0.8 T shortens the decay.
    received = _rates([85, 90, 95, 100], 90, "trapezoid")
    assert received == pytest.approx([85 / 90, 1.0, 0.5, 0.0], abs=1e-6)


def test_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule must be one of linear, .*'cosine'"):
        optimization.learning_rate_schedule(1.0, 0, 10, 1, schedule="cosine")


def run_one_step(**settings):
    """One AdamW step on a gradient of norm 50: the step's size and numbers."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.get_variable("x", initializer=[0.0, 0.0])
        loss = tf.reduce_sum(x * tf.constant([30.0, 40.0]))
        operation = optimization.create_training_operation(
            loss, 0.1, 100, 0, False, optimizer="adamw", **settings
        )
        session.run(tf.global_variables_initializer())
        before = session.run([operation.learning_rate, operation.gradient_norm])
        session.run(operation.train_op)
        m = [v for v in tf.global_variables() if v.name.endswith("adam_m:0")][0]
        step = tf.train.get_global_step()
        return before, session.run(m), session.run(step)


def test_gradients_are_clipped_by_their_global_norm():
    (rate, norm), moment, step = run_one_step(clip_norm=1.0)
    assert (rate, norm, step) == (pytest.approx(0.1), pytest.approx(50.0), 1)
    np.testing.assert_allclose(moment, [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5)
    _, moment, _ = run_one_step(clip_norm=None)
    np.testing.assert_allclose(moment, [3.0, 4.0], rtol=1e-5)


def test_gradient_norm_sums_the_rows_of_a_repeated_token():
    with tf.Graph().as_default(), tf.Session() as session:
        table = tf.get_variable("table", [4, 2])
        loss = tf.reduce_sum(tf.gather(table, [1, 1, 1]))
        operation = optimization.create_training_operation(loss, 0.1, 10, 0, False)
        session.run(tf.global_variables_initializer())
        norm = session.run(operation.gradient_norm)
    assert norm == pytest.approx(np.sqrt(2 * 3.0**2))


def test_create_optimizer_keeps_the_published_signature():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.get_variable("x", initializer=[1.0, 2.0])
        train_op = optimization.create_optimizer(tf.reduce_sum(x), 0.1, 10, 0, False)
        session.run(tf.global_variables_initializer())
        session.run(train_op)
        assert (session.run(x) < [1.0, 2.0]).all()


def test_the_step_is_counted_once_in_published_code():
    """BERT's own `create_optimizer` adds 1 after its optimizer, which adds nothing."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.get_variable("x", initializer=[1.0, 2.0])
        step = tf.train.get_or_create_global_step()
        optimizer = optimization.AdamWeightDecayOptimizer(0.1)
        pairs = [(tf.ones([2]), x)]
        update = optimizer.apply_gradients(pairs, global_step=step)
        with tf.control_dependencies([update]):
            train_op = tf.group(step.assign(step + 1))
        session.run(tf.global_variables_initializer())
        for number in range(3):
            assert session.run(step) == number
            session.run(train_op)


def test_minimizing_counts_the_step():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.get_variable("x", initializer=[1.0, 2.0])
        step = tf.train.get_or_create_global_step()
        train_op = LAMBOptimizer(0.1).minimize(tf.reduce_sum(x), step)
        session.run(tf.global_variables_initializer())
        for number in range(3):
            assert session.run(step) == number
            session.run(train_op)
        assert (session.run(x) < [1.0, 2.0]).all()


def test_alberts_code_gives_the_optimizer_by_its_place(caplog):
    with tf.Graph().as_default():
        x = tf.get_variable("x", [2])
        with tf.name_scope("training"):
            optimization.create_optimizer(tf.reduce_sum(x), 0.1, 10, 0, False, "adamw")
        names = [op.name for op in tf.get_default_graph().get_operations()]
    assert any("AdamWeightDecayOptimizer" in name for name in names)
    assert "trains with LAMB" not in caplog.text


@pytest.mark.parametrize("settings,lines", [({}, 1), ({"optimizer": "lamb"}, 0)])
def test_bert_code_is_told_that_it_trains_with_lamb(caplog, settings, lines):
    with tf.Graph().as_default():
        x = tf.get_variable("x", [2])
        optimization.create_optimizer(tf.reduce_sum(x), 0.1, 10, 0, False, **settings)
    told = [line for line in caplog.messages if "trains with LAMB" in line]
    assert len(told) == lines
    assert all('optimizer="adamw"' in line for line in told)


def test_unknown_optimizer_is_named():
    with tf.Graph().as_default():
        x = tf.get_variable("x", [1])
        with pytest.raises(ValueError, match="lamb, adamw, received 'sgd'"):
            optimization.create_optimizer(x, 0.1, 10, 0, False, optimizer="sgd")


@pytest.mark.parametrize("bias_correction", [False, True])
def test_xla_computes_the_same_steps(bias_correction):
    start = np.random.RandomState(0).normal(size=[300, 200]).astype(np.float32)
    results = []
    for use_xla in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            variable = tf.get_variable(
                "kernel", initializer=tf.constant(start), use_resource=True
            )
            optimizer = LAMBOptimizer(
                0.1,
                weight_decay_rate=0.01,
                bias_correction=bias_correction,
                use_xla=use_xla,
            )
            step = optimizer.minimize(tf.reduce_sum(tf.sin(variable)))
            session.run(tf.global_variables_initializer())
            for _ in range(3):
                session.run(step)
            results.append(session.run(tf.global_variables()))
    for plain, compiled in zip(*results):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", optimization.OPTIMIZERS)
def test_rate_multipliers_scale_the_steps_of_the_variables_they_find(optimizer):
    def one_step(multipliers):
        with tf.Graph().as_default(), tf.Session() as session:
            names = ("encoder/kernel", "head/kernel", "head/bias")
            start = tf.constant_initializer([1.0, 2.0])
            variables = [tf.get_variable(n, [2], initializer=start) for n in names]
            loss = tf.add_n([tf.reduce_sum(v**2) for v in variables])
            operation = optimization.create_training_operation(
                loss, 0.1, 10, 0, False, optimizer, rate_multipliers=multipliers
            )
            session.run(tf.global_variables_initializer())
            session.run(operation.train_op)
            return np.array(session.run(variables)) - [1.0, 2.0]

    # The first pattern that finds a name counts.
    changed = one_step([("^head/bias$", 5.0), ("^head/", 2.0)])
    expected = one_step(()) * np.array([[1.0], [2.0], [5.0]])
    np.testing.assert_allclose(changed, expected, rtol=1e-5)
