"""Masks as TensorFlow ops: equal to those in NumPy, random, ready for a pipeline."""

import functools
import itertools

import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st
from test_masking import (
    BATCHES,
    MASK,
    NGRAM_BATCH,
    NGRAM_SETTINGS,
    ORDINARY_IDS,
    SEEDS,
    SEQ_LENGTH,
    STATISTICS_BATCH,
    check_ngram_lengths,
    check_replacements,
    check_share,
    check_spread,
    make_batch,
    make_draws,
    statistics_settings,
)

from albert_zh.data import dynamic_masking, masking

FEATURE_LENGTHS = {
    "input_ids": "S",
    "input_mask": "S",
    "segment_ids": "S",
    "masked_lm_positions": "P",
    "masked_lm_ids": "P",
    "masked_lm_weights": "P",
    "next_sentence_labels": 1,
}
SETTINGS = masking.MaskSettings(0.3, 5, 3)


def _expected(batch, draws, settings):
    """The features that NumPy makes, and the number of masks, [B]."""
    masks = masking.apply_masks(
        batch.input_ids, batch.word_lengths, batch.second_begin, draws, MASK, settings
    )
    slots = np.arange(settings.max_predictions_per_seq)
    return {
        "input_ids": masks.input_ids,
        "masked_lm_positions": masks.positions,
        "masked_lm_ids": masks.labels,
        "masked_lm_weights": (slots < masks.num_masked[:, None]).astype(np.float32),
    }


def _assert_equal(received, expected):
    assert received.keys() == expected.keys()
    for name, values in expected.items():
        assert received[name].dtype == values.dtype, name
        assert received[name].tolist() == values.tolist(), name


@functools.lru_cache(maxsize=None)
def _graph(max_predictions_per_seq, ngram, mask_token_share=0.8):
    """Function of a batch, draws and masked_lm_prob that runs `apply_masks`."""
    ints = functools.partial(tf.placeholder, tf.int32)
    floats = functools.partial(tf.placeholder, tf.float64)
    positions, predictions = [None, SEQ_LENGTH], [None, max_predictions_per_seq]
    with tf.Graph().as_default() as graph:
        text = [ints(positions), ints(positions), ints([None])]
        draws = masking.MaskDraws(
            budget=floats([None]),
            ngram=floats(positions) if ngram > 1 else None,
            priority=tf.placeholder(tf.int64, positions),
            replacement=floats(predictions),
            random_ids=ints(predictions),
        )
        # A tensor, so that one graph serves every share.
        prob = floats([])
        settings = masking.MaskSettings(
            prob, max_predictions_per_seq, ngram, mask_token_share
        )
        outputs = dynamic_masking.apply_masks(*text, draws, MASK, settings)
    session = tf.Session(graph=graph)

    def run(batch, values, masked_lm_prob):
        feed = {prob: masked_lm_prob}
        feed.update(
            zip(text, (batch.input_ids, batch.word_lengths, batch.second_begin))
        )
        feed.update((x, y) for x, y in zip(draws, values) if x is not None)
        return session.run(outputs, feed)

    return run


@hypothesis.given(
    batch=BATCHES,
    masked_lm_prob=st.floats(0.01, 0.6),
    max_predictions_per_seq=st.sampled_from([1, 2, 3, 5, 12]),
    ngram=st.integers(1, 4),
    mask_token_share=st.sampled_from([0.0, 0.8, 1.0]),
    seed=SEEDS,
    at_bounds=st.booleans(),
)
@hypothesis.settings(max_examples=200)
def test_masks_are_those_of_numpy(
    batch,
    masked_lm_prob,
    max_predictions_per_seq,
    ngram,
    mask_token_share,
    seed,
    at_bounds,
):
    settings = masking.MaskSettings(
        masked_lm_prob, max_predictions_per_seq, ngram, mask_token_share
    )
    draws = make_draws(seed, at_bounds, batch, settings)
    graph = _graph(max_predictions_per_seq, ngram, mask_token_share)
    received = graph(batch, draws, masked_lm_prob)
    _assert_equal(received, _expected(batch, draws, settings))


@pytest.mark.parametrize("ngram", [1, 3])
def test_rows_without_words_are_left_alone(ngram):
    batch = make_batch([([2], [2, 1]), ([3], [3])])
    batch.word_lengths[0] = 0
    settings = masking.MaskSettings(0.5, 2, ngram)
    draws = make_draws(0, False, batch, settings)
    received = _graph(2, ngram)(batch, draws, 0.5)
    assert received["input_ids"].tolist() == batch.input_ids.tolist()
    assert not received["masked_lm_weights"].any()
    _assert_equal(received, _expected(batch, draws, settings))


def _run(build):
    """Runs what `build` returns in a graph of its own."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build())


def _features(batch):
    return {
        "input_ids": batch.input_ids,
        "input_mask": batch.input_mask,
        "segment_ids": batch.segment_ids,
        "word_lengths": batch.word_lengths,
        "next_sentence_labels": np.ones([len(batch.input_ids), 1], np.int32),
    }


def _mask_features(features, seed, settings=SETTINGS):
    return dynamic_masking.mask_features(features, seed, MASK, ORDINARY_IDS, settings)


def _mask(batch, seed, settings=SETTINGS):
    def build():
        features = {name: tf.constant(x) for name, x in _features(batch).items()}
        return _mask_features(features, tf.constant(seed, tf.int64), settings)

    return _run(build)


def _draw(batch, seed, settings):
    def build():
        draws = dynamic_masking.draw(
            tf.constant(seed, tf.int64), *batch.input_ids.shape, ORDINARY_IDS, settings
        )
        return {name: x for name, x in draws._asdict().items() if x is not None}

    return masking.MaskDraws(**dict({"ngram": None}, **_run(build)))


TEXT = make_batch(
    [([1, 2, 1, 3, 1], [1, 2, 2, 4, 1]), ([2, 1, 1], [5, 1]), ([4], [1, 1, 1, 3, 2])]
)


@pytest.mark.parametrize("ngram", [1, 3])
def test_features_are_masked_by_the_draws_of_their_seed(ngram):
    settings = SETTINGS._replace(ngram=ngram)
    features = _features(TEXT)
    expected = _expected(TEXT, _draw(TEXT, [7, 8], settings), settings)
    for name in ("input_mask", "segment_ids", "next_sentence_labels"):
        expected[name] = features[name]
    _assert_equal(_mask(TEXT, [7, 8], settings), expected)
    assert expected.keys() == FEATURE_LENGTHS.keys()


def test_masks_depend_on_the_seed_alone():
    seeds = [[7, 8], [7, 8], [7, 9], [6, 8], [-7, 8]]
    first, again, *others = (_mask(STATISTICS_BATCH, seed) for seed in seeds)
    _assert_equal(again, first)
    masks = [first] + others
    for one, other in itertools.combinations(masks, 2):
        same = one["masked_lm_positions"] == other["masked_lm_positions"]
        assert same.all(axis=1).mean() < 0.01


def test_draws_are_independent_and_in_range():
    settings = statistics_settings(3)
    draws = _draw(STATISTICS_BATCH, [1, 2], settings)
    batch_size, seq_length = STATISTICS_BATCH.input_ids.shape
    positions, predictions = (batch_size, seq_length), (batch_size, 20)
    assert [(x.dtype, x.shape) for x in draws] == [
        (np.float64, (batch_size,)),
        (np.float64, positions),
        (np.int64, positions),
        (np.float64, predictions),
        (np.int32, predictions),
    ]
    limits = [1, 1, masking.PRIORITY_LIMIT, 1, ORDINARY_IDS[-1] + 1]
    columns = []
    for x, limit in zip(draws, limits):
        assert 0 <= x.min() < 0.1 * limit and 0.99 * limit < x.max() < limit
        # In the order they are drawn in: equal seeds would give equal numbers here.
        values = x.ravel()[:batch_size] / float(limit)
        columns += [values, np.roll(values, 1)]
    # The largest of 45 correlations of 3000 normal numbers, standard error 0.018,
    # is beyond 4.2 standard errors in 0.1 % of cases.
    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
    assert abs(correlations).max() < 4.2 / batch_size**0.5
    for values in (draws.budget, draws.ngram, draws.replacement):
        standard_error = (values.size * 12) ** -0.5
        assert abs(values.mean() - 0.5) < 4 * standard_error


@pytest.mark.parametrize("ngram", [1, 3])
def test_masks_follow_their_distribution(ngram):
    masked = _mask(STATISTICS_BATCH, [3, ngram], statistics_settings(ngram))
    num_masked = masked["masked_lm_weights"].sum(axis=1).astype(np.int64)
    positions = masked["masked_lm_positions"]
    check_share(num_masked)
    check_spread(positions, num_masked)
    check_replacements(
        masked["input_ids"], positions, masked["masked_lm_ids"], num_masked
    )


def test_ngram_lengths_follow_the_paper():
    batch, settings = NGRAM_BATCH, NGRAM_SETTINGS
    masked = _mask(batch, [5, 6], settings)
    draws = _draw(batch, [5, 6], settings)
    units = _run(
        lambda: dynamic_masking.unit_numbers(
            tf.constant(batch.word_lengths),
            tf.constant(batch.second_begin),
            tf.constant(draws.ngram),
            settings.ngram,
        )
    )
    num_masked = masked["masked_lm_weights"].sum(axis=1).astype(np.int64)
    check_ngram_lengths(
        units, draws.priority, masked["masked_lm_positions"], num_masked
    )


def _dataset(batch_size, drop_remainder, num_parallel_calls):
    """Eleven instances, three epochs, in batches of masked features."""
    batch = make_batch([([1] * 8, [1] * 8)] * 11)
    dataset = tf.data.Dataset.from_tensor_slices(_features(batch)).repeat(3)
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder)
    dataset = tf.data.Dataset.zip((dataset, tf.data.Dataset.range(100)))
    return dataset.map(
        lambda features, number: _mask_features(features, tf.stack([12, number])),
        num_parallel_calls=num_parallel_calls,
    )


def _batches(*args):
    with tf.Graph().as_default(), tf.Session() as session:
        features = tf.data.make_one_shot_iterator(_dataset(*args)).get_next()
        batches = []
        while True:
            try:
                batches.append(session.run(features))
            except tf.errors.OutOfRangeError:
                return batches


@pytest.mark.parametrize("drop_remainder", [True, False])
def test_shapes_are_static_in_a_pipeline(drop_remainder):
    with tf.Graph().as_default():
        dataset = _dataset(4, drop_remainder, 2)
        features = tf.data.make_one_shot_iterator(dataset).get_next()
    lengths = {"S": SEQ_LENGTH, "P": SETTINGS.max_predictions_per_seq, 1: 1}
    assert {name: x.shape.as_list() for name, x in features.items()} == {
        name: [4 if drop_remainder else None, lengths[length]]
        for name, length in FEATURE_LENGTHS.items()
    }
    assert {name: x.dtype for name, x in features.items()} == {
        name: tf.float32 if name == "masked_lm_weights" else tf.int32
        for name in FEATURE_LENGTHS
    }


def test_a_pipeline_draws_anew_whatever_its_threads():
    one, four = _batches(4, False, 1), _batches(4, False, 4)
    assert [len(batch["input_ids"]) for batch in one] == [4] * 8 + [1]
    for batch, other in zip(one, four):
        _assert_equal(other, batch)
    rows = np.concatenate([batch["masked_lm_positions"] for batch in one])
    epochs = rows.reshape(3, 11, -1)
    for first, second in itertools.combinations(epochs, 2):
        assert (first == second).all(axis=1).mean() < 0.5
