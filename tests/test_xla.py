"""The pretraining step is one that a TPU takes, as far as that shows without one.

The model function is called as TPUEstimator calls it: inside a computation of static
shapes, on resource variables, its host call's tensors among the outputs. XLA's
compiler on the processor then stands for the TPU's: it refuses every operation that
has no XLA kernel, and both have kernels for the same operations but for the sum over
shards. Building the same for TPU shards goes through TensorFlow's own checks of what
a TPU computation may hold.
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.training import estimator as estimators
from albert_zh.training import pretraining_model

BATCH, LENGTH, PREDICTIONS, VOCABULARY = 4, 16, 3, 40
STEPS = 2
# TensorFlow 1 has no fast kernels of bfloat16: the model computes in float32 there.
HALF = tf.float32 if tf.__version__.startswith("1.") else tf.bfloat16
# What TPUs compute with; strings, variants and float64 stay on the host.
TPU_DTYPES = {"bool", "int32", "int64", "float32", "bfloat16", "resource"}
# Graphs of two steps are not worth optimizing.
AS_BUILT = tf.ConfigProto()
AS_BUILT.graph_options.rewrite_options.disable_meta_optimizer = True
DIALECTS = {
    "albert_zh": {"embedding_size": 8, "ln_type": "postln"},
    "google": {"embedding_size": 8, "num_hidden_groups": 1, "inner_group_num": 1},
    "bert": {},
}


def make_config(dialect, dropout=0.0, num_hidden_layers=2):
    return modeling.AlbertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **DIALECTS[dialect],
    )


def make_features(batch_size=BATCH):
    """Features of records, as `records.input_fn_builder` yields them."""
    random = np.random.RandomState(0)
    tokens = random.randint(5, VOCABULARY, [batch_size, LENGTH])
    length = random.randint(LENGTH // 2, LENGTH + 1, [batch_size, 1])
    is_token = np.arange(LENGTH) < length
    # The last prediction is padding in half of the sequences.
    weights = np.ones([batch_size, PREDICTIONS], np.float32)
    weights[::2, -1] = 0.0
    features = {
        "input_ids": tokens * is_token,
        "input_mask": is_token,
        "segment_ids": is_token & (np.arange(LENGTH) >= LENGTH // 4),
        "masked_lm_positions": np.tile([1, 4, 6], [batch_size, 1]),
        "masked_lm_ids": random.randint(5, VOCABULARY, [batch_size, PREDICTIONS]),
        "next_sentence_labels": random.randint(0, 2, [batch_size, 1]),
    }
    features = {name: value.astype(np.int32) for name, value in features.items()}
    return dict(features, masked_lm_weights=weights)


def make_step(
    config, output_dir, use_tpu, optimizer="lamb", learning_rate=5e-4, **settings
):
    """The function of feature tensors that TPUEstimator builds out of a model function.

    It returns the loss and the tensors that leave the TPU for the host call, computed
    after the update.
    """
    schedule = estimators.Schedule(optimizer, learning_rate, 10**6, 0, BATCH)
    model_fn = pretraining_model.model_fn_builder(
        config, estimators.Start(str(output_dir)), schedule, use_tpu, **settings
    )

    def step(*tensors):
        features = dict(zip(sorted(make_features()), tensors))
        spec = model_fn(features, None, tf.estimator.ModeKeys.TRAIN, {})
        _, host_tensors = spec.host_call
        with tf.control_dependencies([spec.train_op]):
            return [tf.identity(tensor) for tensor in [spec.loss] + host_tensors]

    return step


def constants(features):
    return [tf.constant(features[name]) for name in sorted(features)]


def train(step, compiled):
    """Runs a few steps from fixed weights; returns (losses, dict of variables)."""
    random = np.random.RandomState(1)
    with tf.Graph().as_default(), tf.variable_scope("", use_resource=True):
        tf.set_random_seed(0)
        tf.train.create_global_step()
        tensors = constants(make_features())
        if compiled:
            outputs = tf.xla.experimental.compile(step, tensors)
        else:
            outputs = step(*tensors)
        weights = sorted(tf.trainable_variables(), key=lambda v: v.name)
        values = [random.normal(0.0, 0.1, v.shape.as_list()) for v in weights]
        with tf.Session(config=AS_BUILT) as session:
            session.run(tf.global_variables_initializer())
            starts = [variable.initializer for variable in weights]
            feed = {s.inputs[1]: value for s, value in zip(starts, values)}
            session.run(starts, feed)
            losses = [session.run(outputs)[0] for _ in range(STEPS)]
            variables = {v.name: v for v in tf.global_variables()}
            return losses, session.run(variables)


@pytest.fixture
def one_shard(monkeypatch):
    """The sum over TPU shards where there is one, as only TPUs have a kernel of it."""
    monkeypatch.setattr(tf.tpu, "cross_replica_sum", tf.identity)


@pytest.mark.parametrize(
    "dialect,num_layers,use_tpu,settings",
    [
        ("albert_zh", 1, True, {}),
        ("google", 1, True, {}),
        ("bert", 1, True, {}),
        ("albert_zh", 1, False, {"optimizer": "adamw"}),
        ("google", 2, True, {"optimizer": "adamw", "micro_batch_size": 2}),
    ],
)
def test_the_compiled_step_equals_the_plain_one(
    dialect, num_layers, use_tpu, settings, one_shard, tmp_path
):
    config = make_config(dialect, num_hidden_layers=num_layers)
    # The plain graph gathers embeddings where the TPU's multiplies one-hot rows.
    plain = make_step(config, tmp_path, use_tpu=False, **settings)
    expected_losses, expected = train(plain, compiled=False)
    step = make_step(config, tmp_path, use_tpu, **settings)
    losses, variables = train(step, compiled=True)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert losses[0] != losses[-1]
    assert variables.keys() == expected.keys()
    assert variables["global_step:0"] == STEPS
    for name, value in variables.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "dialect,compute_dtype,micro_batch_size",
    [("albert_zh", HALF, None), ("google", HALF, 2), ("bert", tf.float32, None)],
)
def test_the_step_compiles_with_dropout_and_bfloat16(
    dialect, compute_dtype, micro_batch_size, one_shard, tmp_path
):
    step = make_step(
        make_config(dialect, dropout=0.5, num_hidden_layers=1),
        tmp_path,
        use_tpu=True,
        # Then nothing but dropout makes a difference between two steps.
        learning_rate=0.0,
        micro_batch_size=micro_batch_size,
        numerics=modeling.Numerics(compute_dtype, False),
    )
    losses, variables = train(step, compiled=True)
    assert np.all(np.isfinite(losses))
    assert abs(losses[0] - losses[1]) > 1e-5
    assert variables["global_step:0"] == STEPS


def test_an_operation_without_a_kernel_is_refused():
    """So that the tests above can fail."""
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = tf.xla.experimental.compile(
            lambda x: tf.strings.to_number(tf.as_string(x)), [tf.constant(1.0)]
        )
        with pytest.raises(tf.errors.InvalidArgumentError, match="AsString"):
            session.run(outputs)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_the_graph_for_tpu_shards_holds_what_tpus_take(
    dialect, micro_batch_size, tmp_path
):
    num_shards = 2
    config = make_config(dialect, dropout=0.1)
    step = make_step(
        config,
        tmp_path,
        use_tpu=True,
        micro_batch_size=micro_batch_size,
        numerics=modeling.Numerics(tf.bfloat16, False),
    )
    with tf.Graph().as_default() as graph, tf.variable_scope("", use_resource=True):
        tf.train.create_global_step()
        tensors = constants(make_features(num_shards * BATCH))
        tf.tpu.shard(step, tensors, num_shards=num_shards)
        num_weights = len(tf.trainable_variables())
        operations = [
            operation
            for operation in graph.get_operations()
            if "_tpu_replicate" in operation.node_def.attr
        ]
    types = [operation.type for operation in operations]
    # One sum over the shards for each gradient, of which clipping sees the mean.
    assert types.count("CrossReplicaSum") >= num_weights - 1
    outputs = [tensor for operation in operations for tensor in operation.outputs]
    assert {tensor.dtype.name.replace("_ref", "") for tensor in outputs} <= TPU_DTYPES
    # Which axes a gradient is summed over, XLA computes while it compiles.
    dynamic = [t for t in outputs if not t.shape.is_fully_defined()]
    assert {t.op.type for t in dynamic} <= {"BroadcastGradientArgs"}
    # TPUs emulate 64 bits: for the step and for shapes, not for a batch.
    wide = [t for t in outputs if t.dtype == tf.int64 and t.shape.num_elements() > 4]
    assert [t.name for t in wide] == []
