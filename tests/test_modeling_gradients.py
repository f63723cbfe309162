"""The kernels' values and gradients, and what the model leaves out, against oracles."""

import json
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from tests.test_modeling import GOLDEN_GRAPHS, HERE, arrays, load_weights, run_golden

FLOAT32 = modeling._Kernels(modeling.FLOAT32)
BFLOAT16 = modeling._Kernels(modeling.Numerics(tf.bfloat16))
# By hand, by hand in XLA's kernels, by TensorFlow.
KERNELS = pytest.mark.parametrize(
    "kernels",
    [
        FLOAT32,
        modeling._Kernels(modeling.Numerics(use_xla=True)),
        modeling._Kernels(modeling.Numerics(plain_gradients=True)),
    ],
    ids=["by_hand", "xla", "plain"],
)


def random(*shape, seed=0):
    return np.random.RandomState(seed).normal(0.0, 1.0, shape).astype(np.float32)


def gradients(function, inputs, seed=9):
    """Value of `function(*tensors)` and its gradients, each input's in its order."""
    with tf.Graph().as_default(), tf.Session() as session:
        # Fed, as TensorFlow computes ahead, by other kernels, what constants are for.
        tensors = [tf.placeholder(value.dtype, value.shape) for value in inputs]
        y = function(*tensors)
        d_y = tf.placeholder(tf.float32, y.shape)
        results = [y, tf.gradients(y, tensors, grad_ys=d_y)]
        slopes = random(*y.shape.as_list(), seed=seed)
        return session.run(results, dict(zip(tensors + [d_y], inputs + [slopes])))


def assert_same(result, expected, tolerance=2e-5):
    np.testing.assert_allclose(result[0], expected[0], atol=tolerance)
    for number, (a, b) in enumerate(zip(result[1], expected[1])):
        np.testing.assert_allclose(a, b, atol=tolerance, err_msg=str(number))


@KERNELS
@pytest.mark.parametrize("name", ["gelu", "gelu_exact", "relu", "tanh"])
def test_activation_and_its_gradient(name, kernels):
    plain = {
        "gelu": lambda x: (
            0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        "gelu_exact": lambda x: 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2))),
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
    }
    x = [3 * random(4, 7)]
    result = gradients(lambda x: kernels.activate(name, x), x)
    assert_same(result, gradients(plain[name], x))


@KERNELS
def test_layer_norm_of_a_sum_and_its_gradients(kernels):
    def plain(gamma, beta, a, b):
        mean, variance = tf.nn.moments(a + b, [-1], keep_dims=True)
        return gamma * (a + b - mean) / tf.sqrt(variance + 1e-12) + beta

    def kernel(gamma, beta, a, b):
        norm = modeling._Norm(gamma, beta)
        y = kernels.add_and_normalize(kernels.hidden(a, 2, 5), b, norm)
        return (y.exact + y.operand) / 2.0

    inputs = [random(6), random(6, seed=1), random(10, 6), random(10, 6, seed=2)]
    assert_same(gradients(kernel, inputs), gradients(plain, inputs))


@KERNELS
def test_cross_entropy_and_its_gradient(kernels):
    labels = np.array([[3, 0], [8, 3]], np.int32)
    logits = [30 * random(4, 9)]  # large ones: exp alone would overflow
    logits[0][0] += 300.0

    def plain(logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels.reshape(-1), logits=logits
        )

    result = gradients(lambda x: kernels.cross_entropy(x, tf.constant(labels)), logits)
    assert_same(result, gradients(plain, logits), tolerance=1e-4)


@KERNELS
def test_dense_and_its_gradients(kernels):
    inputs = [random(5, 3), random(3, 4, seed=1), random(4, seed=2)]
    result = gradients(
        lambda x, *weights: kernels.dense(x, modeling._Dense(*weights)), inputs
    )
    assert_same(result, gradients(lambda x, w, b: tf.matmul(x, w) + b, inputs))


@pytest.mark.parametrize("rows", [1, 8, 257, 1023])
def test_bias_gradient_in_bfloat16_is_added_up_wider(rows):
    # Numbers of bfloat16, so that nothing but the sums is rounded, to 8 bits.
    slopes = np.random.RandomState(rows).randint(0, 2**7, [rows, 24]) / 16.0
    with tf.Graph().as_default(), tf.Session() as session:
        bias = tf.placeholder(tf.bfloat16, [24])
        d_y = tf.placeholder(tf.float32, slopes.shape)
        y = BFLOAT16.add_bias(tf.zeros(slopes.shape, tf.bfloat16), bias)
        (gradient,) = tf.gradients(y, bias, grad_ys=tf.cast(d_y, tf.bfloat16))
        result = session.run(
            tf.cast(gradient, tf.float32), {d_y: slopes, bias: np.zeros(24)}
        )
    np.testing.assert_allclose(result, slopes.sum(0), rtol=2.0**-7)


@pytest.mark.parametrize("use_xla", [False, True])
def test_layer_norm_gradients_beside_products_in_bfloat16(use_xla):
    def by_hand(kernels):
        def normalize(gamma, beta, x):
            return kernels.layer_norm(x, modeling._Norm(gamma, beta), tf.float32)

        inputs = [random(64), random(64, seed=1), random(96, 64, seed=2)]
        return gradients(normalize, inputs)

    compiled = modeling._Kernels(modeling.Numerics(tf.bfloat16, use_xla))
    result, expected = by_hand(compiled), by_hand(FLOAT32)
    np.testing.assert_allclose(result[0], expected[0], atol=2e-5)
    for gradient, exact in zip(result[1], expected[1]):
        error = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
        assert error < 2.0**-7


@KERNELS
def test_attention_and_its_gradients(kernels):
    bias = np.array([0, 0, 0, 0, -10000], np.float32) * np.ones([2, 1, 1, 1])
    bias = bias.astype(np.float32)
    inputs = [random(2, 3, rows, 4, seed=rows) for rows in (2, 5, 5)]

    def plain(query, key, value):
        scores = tf.matmul(query, key, transpose_b=True) + bias
        return tf.matmul(tf.nn.softmax(scores), value)

    result = gradients(
        lambda *qkv: kernels.attention(*qkv, tf.constant(bias), 0.0), inputs
    )
    assert_same(result, gradients(plain, inputs))


@KERNELS
def test_attention_with_dropout_and_its_gradients(kernels):
    size, rate = 64, 0.25
    query, key = random(1, 1, size, size) / 8, random(1, 1, size, size, seed=1) / 8
    value = np.eye(size, dtype=np.float32)[np.newaxis, np.newaxis]
    d_context = random(1, 1, size, size, seed=2)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        inputs = [tf.constant(x) for x in (query, key, value)]
        context = kernels.attention(*inputs, tf.zeros([1, 1, 1, size]), rate)
        # With the identity as values the context is the kept probabilities.
        kept, slopes = session.run(
            [context, tf.gradients(context, inputs, grad_ys=tf.constant(d_context))]
        )
    scores = query @ key.swapaxes(-1, -2)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities = powers / powers.sum(-1, keepdims=True)
    mask = kept / probabilities
    assert np.isclose(mask, 0).mean() == pytest.approx(rate, abs=0.03)
    np.testing.assert_allclose(mask[mask > 0.5], 1 / (1 - rate), rtol=1e-4)
    d_probabilities = d_context * mask
    mean = (d_probabilities * probabilities).sum(-1, keepdims=True)
    d_scores = probabilities * (d_probabilities - mean)
    expected = d_scores @ key, d_scores.swapaxes(-1, -2) @ query
    np.testing.assert_allclose(slopes[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(slopes[1], expected[1], atol=1e-5)
    np.testing.assert_allclose(slopes[2], kept.swapaxes(-1, -2) @ d_context, atol=1e-5)


@pytest.mark.parametrize("plain_gradients", [False, True])
def test_gradients_of_shared_weights_add_up_in_float32(plain_gradients):
    # Added up in bfloat16, which has 8 bits, the small ones would vanish one by one.
    kernels = modeling._Kernels(modeling.Numerics(tf.bfloat16, False, plain_gradients))
    slopes = [1.0] + 15 * [2.0**-9]
    with tf.Graph().as_default(), tf.Session() as session:
        kernel = tf.zeros([1, 2])
        copies = list(kernels.share(modeling._Dense(kernel, kernel[0]), len(slopes)))
        products = [
            kernels.product(tf.constant([[slope]]), copy.kernel)
            for copy, slope in zip(copies, slopes)
        ]
        assert len(products) == len(slopes)
        assert products[0].dtype == tf.bfloat16
        total = tf.add_n([tf.cast(product, tf.float32) for product in products])
        (gradient,) = session.run(tf.gradients(total, [kernel]))
    np.testing.assert_array_equal(gradient, [[sum(slopes)] * 2])


@pytest.mark.parametrize(
    "query,key,value,mask_bias,words",
    [
        ([2, 3, 4], [2, 3, 5, 8], [2, 3, 5, 8], [2, 1, 1, 5], "rank 4"),
        ([2, 3, 4, 8], [2, 2, 5, 8], [2, 2, 5, 8], [2, 1, 1, 5], "key has shape"),
        ([2, 3, 4, 8], [2, 3, 5, 9], [2, 3, 5, 9], [2, 1, 1, 5], "key has shape"),
        ([2, 3, 4, 8], [2, 3, 5, 8], [2, 3, 6, 8], [2, 1, 1, 5], "value has shape"),
        ([2, 3, 4, 8], [2, 3, 5, 8], [2, 3, 5, 8], [2, 1, 4, 5], "mask_bias has"),
    ],
)
def test_attention_refuses_shapes_that_do_not_fit(query, key, value, mask_bias, words):
    # Among them those that would broadcast, and give numbers.
    with tf.Graph().as_default():
        tensors = [tf.zeros(shape) for shape in (query, key, value, mask_bias)]
        with pytest.raises(ValueError, match=words):
            FLOAT32.attention(*tensors, dropout_prob=0.0)


@pytest.mark.parametrize("name", GOLDEN_GRAPHS)
def test_xla_gives_the_published_numbers_too(name):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    results = run_golden(golden, use_xla=True)
    expected = arrays(golden, "output/")
    norm = expected.pop("grad_norm")
    assert results.pop("grad_norm") == pytest.approx(norm, rel=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(results[key], value, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", GOLDEN_GRAPHS)
def test_needed_positions_change_neither_losses_nor_gradients(name):
    golden = np.load(HERE / "golden" / (name + ".npz"))
    config = modeling.AlbertConfig.from_dict(json.loads(str(golden["config"])))
    results = []
    for is_restricted in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            features = {k: tf.constant(v) for k, v in arrays(golden, "input/").items()}
            positions = features["masked_lm_positions"]
            model = modeling.AlbertModel(
                config,
                False,
                features["input_ids"],
                features["input_mask"],
                features["segment_ids"],
                needed_positions=positions if is_restricted else None,
            )
            outputs = modeling.get_masked_lm_output(
                config,
                model,
                positions,
                features["masked_lm_ids"],
                features["masked_lm_weights"],
            )
            outputs += modeling.get_sentence_order_output(
                config, model, features["next_sentence_labels"]
            )
            outputs += (model.get_pooled_output(),)
            slopes = tf.gradients(outputs[0] + outputs[3], tf.trainable_variables())
            slopes = [tf.convert_to_tensor(slope) for slope in slopes]
            session.run(tf.global_variables_initializer())
            load_weights(session, arrays(golden, "weight/"))
            results.append(session.run([outputs, slopes]))
    for expected, actual in zip(*results):
        for a, b in zip(actual, expected):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_without_predictions_the_first_token_is_left():
    config = modeling.AlbertConfig(
        9, 8, 2, 2, 16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.constant([[1, 2, 3], [4, 5, 6]])
        full = modeling.AlbertModel(config, False, ids, scope="bert")
        with tf.variable_scope("", reuse=True):
            first = modeling.AlbertModel(
                config,
                False,
                ids,
                scope="bert",
                needed_positions=tf.zeros([2, 0], tf.int32),
            )
        session.run(tf.global_variables_initializer())
        a, b = session.run([full.get_pooled_output(), first.get_pooled_output()])
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_outputs_that_were_left_out_are_refused():
    config = modeling.AlbertConfig(9, 8, 1, 2, 16)
    with tf.Graph().as_default():
        positions = tf.constant([[1], [2]])
        model = modeling.AlbertModel(
            config, False, tf.zeros([2, 4], tf.int32), needed_positions=positions
        )
        for method in (model.get_sequence_output, model.get_all_encoder_layers):
            with pytest.raises(ValueError, match="build it without needed_positions"):
                method()
        with pytest.raises(ValueError, match="not the needed_positions"):
            model.get_output_at(tf.constant([[1], [2]]))
        assert model.get_output_at(positions).shape.as_list() == [2, 8]


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_dropout_of_bfloat16_is_not_coarser(rate):
    # bfloat16 itself has steps of 1/128 below 1: a share of 0.01 would become 0.016.
    size = 256
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        zeros = tf.zeros([2, 2, size, size], tf.bfloat16)
        identity = tf.eye(size, batch_shape=[2, 2], dtype=tf.float32)
        value = tf.cast(identity, tf.bfloat16)
        context = BFLOAT16.attention(
            zeros, zeros, value, tf.zeros([2, 1, 1, size]), rate
        )
        kept = session.run(tf.cast(context, tf.float32)) * size
    # 262144 draws: a standard deviation of rate 0.01 is 0.0002.
    assert (kept == 0).mean() == pytest.approx(rate, abs=0.005)
    np.testing.assert_allclose(kept[kept > 0], 1 / (1 - rate), rtol=2.0**-8)


def small_model(**arguments):
    config = modeling.AlbertConfig(
        9, 8, 3, 2, 16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return modeling.AlbertModel(config, True, **arguments)


def test_a_static_length_stays_static_where_the_batch_is_not():
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.placeholder(tf.int32, [None, 5])
        output = small_model(input_ids=ids).get_sequence_output()
        assert output.shape.as_list() == [None, 5, 8]
        session.run(tf.global_variables_initializer())
        assert session.run(output, {ids: np.zeros([0, 5])}).shape == (0, 5, 8)


def test_a_soft_mask_gets_its_gradient():
    with tf.Graph().as_default(), tf.Session() as session:
        logits = tf.get_variable("mask", initializer=tf.zeros([2, 4]))
        model = small_model(
            input_ids=tf.ones([2, 4], tf.int32) * tf.range(4),
            input_mask=tf.sigmoid(logits),
        )
        loss = tf.reduce_sum(model.get_sequence_output()[:, :, 0])
        (slope,) = tf.gradients(loss, [logits])
        session.run(tf.global_variables_initializer())
        slope = session.run(slope)
        assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_a_loss_may_read_an_earlier_layer(dtype):
    with tf.Graph().as_default(), tf.Session() as session:
        model = small_model(input_ids=tf.ones([1, 4], tf.int32), compute_dtype=dtype)
        layer = model.get_all_encoder_layers()[0]
        loss = tf.reduce_sum(tf.gather(tf.reshape(layer, [-1, 8]), [1]) ** 3)
        slopes = tf.gradients(loss, tf.trainable_variables("bert/embeddings"))
        session.run(tf.global_variables_initializer())
        slope = session.run(tf.convert_to_tensor(slopes[0]))
        assert np.isfinite(slope).all() and np.abs(slope).max() > 0
