"""Initial weights of pretraining: which variables differ from random ones, and how."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from albert_zh.training import initial_weights

SMALL = {
    "embedding_size": 64,
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def weights(choice, seed=1, **settings):
    """Initial values of a model's variables, a dict name -> array."""
    config = modeling.AlbertConfig(vocab_size=2000, **dict(SMALL, **settings))
    getter = initial_weights.custom_getter(config, choice, seed)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        ids = tf.ones([1, 8], tf.int32)
        with tf.variable_scope(tf.get_variable_scope(), custom_getter=getter):
            modeling.AlbertModel(config, False, ids, scope="bert")
        session.run(tf.global_variables_initializer())
        return {v.op.name: session.run(v) for v in tf.global_variables()}


def only(named, suffix):
    """The values whose names end so, in the order of the names."""
    return [named[name] for name in sorted(named) if name.endswith(suffix)]


LAYOUTS = {
    "google": {"num_hidden_groups": 1},
    "albert_zh": {"ln_type": "postln"},
    "bert": {"embedding_size": None},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_begin_by_attending_to_their_neighbours(layout):
    settings = dict(LAYOUTS[layout], initializer_range=0.05)
    named = weights("local_attention", **settings)
    queries, keys = only(named, "query/kernel"), only(named, "key/kernel")
    for query, key in zip(queries, keys):
        assert np.array_equal(query, key)
        assert query.std() == pytest.approx(0.05 * 0.88, rel=0.05)  # truncated
    assert len(queries) == (2 if layout == "bert" else 1)
    if layout == "bert":
        assert not np.array_equal(*queries)

    (table,) = only(named, "position_embeddings")
    assert table.std() == pytest.approx(2 * 0.05, rel=1e-3)
    likeness = table @ table.T
    for distance in (0, 1, 2, 4):
        near = np.diagonal(likeness, distance).mean()
        assert near > np.diagonal(likeness, 2 * distance + 1).mean() + 1e-3


def test_all_other_weights_are_as_random_as_ever():
    usual = weights("random")
    named = weights("local_attention")
    assert named.keys() == usual.keys()
    changed = ("position_embeddings", "query/kernel", "key/kernel")
    for name in named:
        assert named[name].shape == usual[name].shape
        if not name.endswith(changed):
            assert named[name].std() == pytest.approx(usual[name].std(), rel=0.1)
            assert named[name].mean() == pytest.approx(usual[name].mean(), abs=5e-3)


def test_a_seed_draws_the_same_kernels_and_another_one_others():
    (first,) = only(weights("local_attention", seed=1), "query/kernel")
    (again,) = only(weights("local_attention", seed=1), "query/kernel")
    (other,) = only(weights("local_attention", seed=2), "query/kernel")
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_random_weights_need_no_getter():
    config = modeling.AlbertConfig(vocab_size=10)
    assert initial_weights.custom_getter(config, "random", 1) is None
