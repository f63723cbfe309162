"""Which variables learn at which rate."""

import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import optimization
from albert_zh.models import model_graph
from albert_zh.tasks import learning_rates
from tests.small_models import CONFIG

SIZES = dict(
    vocab_size=20,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=8,
)
# Config -> the decay's exponents of embeddings, layers and head.
CONFIGS = {
    "albert_zh": (dict(SIZES, embedding_size=8, ln_type="postln"), {0, 1, 2}),
    "google": (dict(SIZES, embedding_size=8, num_hidden_groups=1), {0, 1, 2}),
    "groups": (dict(SIZES, embedding_size=8, num_hidden_groups=3), {0, 1, 2, 3, 4}),
    "bert": (SIZES, {0, 1, 2, 3, 4}),
    "shared feed-forward": (dict(SIZES, cross_layer_sharing="ffn"), {0, 1, 2, 3, 4}),
}


def factors(config, **settings):
    """Dict of the name of each variable, and of a head's, to its multiplier."""
    found = model_graph.trainable_variables(config, lambda model: None)
    names = [variable.op.name for variable in found] + ["output_weights"]
    given = learning_rates.multipliers(config, ["output_weights"], **settings)
    return {
        name: next((f for pattern, f in given if re.search(pattern, name)), 1.0)
        for name in names
    }


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_rates_decay_from_the_head_to_the_embeddings(name):
    settings, exponents = CONFIGS[name]
    config = modeling.AlbertConfig.from_dict(settings)
    found = factors(config, layerwise_decay=0.5)
    assert {round(-np.log2(factor)) for factor in found.values()} == exponents
    assert found["output_weights"] == found["bert/pooler/dense/kernel"] == 1
    lowest = 0.5 ** max(exponents)
    for variable, factor in found.items():
        is_embedding = "embedding" in variable
        assert (factor == lowest) == is_embedding, variable
        # Google names attention_1 in every group.
        number = re.search(r"/(?:layer|group|layer_shared/attention)_(\d)/", variable)
        if number and max(exponents) > 2:
            assert factor == 0.5 ** (3 - int(number.group(1))), variable
        elif "/encoder/" in variable and not is_embedding:
            assert factor == 0.5, variable


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_frozen_parts(name):
    config = modeling.AlbertConfig.from_dict(CONFIGS[name][0])
    for freeze, prefixes in (
        ("embeddings", ("bert/embeddings/", "bert/encoder/embedding_hidden")),
        ("encoder", ("bert/embeddings/", "bert/encoder/")),
    ):
        found = factors(config, freeze=freeze, layerwise_decay=0.9)
        for variable, factor in found.items():
            assert (factor == 0) == variable.startswith(prefixes), variable


def test_settings_that_change_nothing_multiply_nothing():
    assert learning_rates.multipliers(CONFIG, ["output_weights"]) == ()
    found = factors(CONFIG, head_factor=100.0)
    assert {name for name, factor in found.items() if factor == 100} == {
        "output_weights"
    }


def test_frozen_variables_stay_and_do_not_count_in_the_norm():
    with tf.Graph().as_default(), tf.Session() as session:
        first, second = (
            tf.get_variable(name, initializer=[3.0, 4.0]) for name in ("a/w", "b/w")
        )
        loss = tf.nn.l2_loss(first) + 100 * tf.nn.l2_loss(second)
        operation = optimization.create_training_operation(
            loss, 0.1, 10, 0, False, "adamw", rate_multipliers=[("^b/", 0.0)]
        )
        session.run(tf.global_variables_initializer())
        _, norm = session.run([operation.train_op, operation.gradient_norm])
        assert norm == pytest.approx(5)
        np.testing.assert_array_equal(session.run(second), [3.0, 4.0])
        assert (session.run(first) < [3.0, 4.0]).all()
        names = [variable.op.name for variable in tf.global_variables()]
        assert "a/w/adam_m" in names and "b/w/adam_m" not in names
