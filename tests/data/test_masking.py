"""Masks in NumPy: an oracle in plain Python, invariants and statistics.

Text tokens count up from FIRST_TEXT_ID, so that each is told from every other, and
from a random replacement, which comes from ORDINARY_IDS.
"""

from typing import NamedTuple

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from albert_zh.data import masking
from albert_zh.data.masking import KEPT, MASKED, RANDOM

CLS, SEP, MASK = 2, 3, 4
ORDINARY_IDS = np.arange(5, 105, dtype=np.int32)
FIRST_TEXT_ID = 1000
SEQ_LENGTH = 24


class Batch(NamedTuple):
    """Unmasked instances: int32 [B, S], second_begin [B]."""

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    word_lengths: np.ndarray
    second_begin: np.ndarray


def make_batch(rows, seq_length=SEQ_LENGTH):
    """Lays out instances; a row is (first, second), lengths of the segments' words."""
    input_ids, input_mask, segment_ids, word_lengths = np.zeros(
        [4, len(rows), seq_length], np.int32
    )
    second_begin = np.zeros(len(rows), np.int32)
    for row, (first, second) in enumerate(rows):
        first_sep = 1 + sum(first)
        second_sep = first_sep + 1 + sum(second)
        text = FIRST_TEXT_ID + row * seq_length + np.arange(seq_length)
        input_ids[row, :second_sep] = text[:second_sep]
        input_ids[row, [0, first_sep, second_sep]] = CLS, SEP, SEP
        input_mask[row, : second_sep + 1] = 1
        segment_ids[row, first_sep + 1 : second_sep + 1] = 1
        second_begin[row] = first_sep + 1
        for begin, lengths in ((1, first), (first_sep + 1, second)):
            for length in lengths:
                word_lengths[row, begin] = length
                begin += length
    return Batch(input_ids, input_mask, segment_ids, word_lengths, second_begin)


def make_draws(seed, at_bounds, batch, settings):
    """`MaskDraws` for a batch.

    Args:
      seed: int.
      at_bounds: bool, draw ties, and numbers at which a choice changes, only.
      batch: `Batch`.
      settings: `MaskSettings`.
    """
    rng = np.random.RandomState(seed)
    draws = masking.draw(rng, *batch.input_ids.shape, ORDINARY_IDS, settings)
    if not at_bounds:
        return draws

    def draw_near(like, bounds):
        bounds = np.append(bounds, 1.0)
        return rng.choice(np.append(np.nextafter(bounds, 0), bounds[:-1]), like.shape)

    thresholds = np.cumsum(masking.ngram_probabilities(settings.ngram))[:-1]
    return draws._replace(
        budget=draw_near(draws.budget, [0.0]),
        ngram=draw_near(draws.ngram, thresholds) if settings.ngram > 1 else None,
        priority=draws.priority % 4,
        replacement=draw_near(draws.replacement, [0.8, 0.9]),
    )


def _cut(lengths, limit):
    """Leaves at most `limit` tokens; the word at the limit loses its end."""
    ends = np.minimum(np.cumsum([0] + lengths), limit)
    return [length for length in np.diff(ends).tolist() if length]


def _cut_to_fit(first, second, first_limit):
    first = _cut(first, first_limit)
    return first, _cut(second, SEQ_LENGTH - 3 - sum(first))


_WORDS = st.lists(st.integers(1, 5), min_size=1, max_size=20)
BATCHES = st.lists(
    st.builds(_cut_to_fit, _WORDS, _WORDS, st.integers(1, SEQ_LENGTH - 4)),
    min_size=1,
    max_size=5,
).map(make_batch)
SEEDS = st.integers(0, 2**32 - 1)
SETTINGS = st.builds(
    masking.MaskSettings,
    masked_lm_prob=st.floats(0.01, 0.6),
    max_predictions_per_seq=st.integers(1, 12),
    ngram=st.integers(1, 4),
    mask_token_share=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)


def _reference_masks(input_ids, word_lengths, second_begin, draws, settings):
    """The masks of one instance, in plain Python.

    Args:
      input_ids, word_lengths: lists of int.
      second_begin: int.
      draws: `MaskDraws` of the instance.
      settings: `MaskSettings`.

    Returns:
      (ids, positions, labels, kinds, unit_sizes, is_capped).
    """
    words = [(begin, n) for begin, n in enumerate(word_lengths) if n]
    wanted = int(sum(n for _, n in words) * settings.masked_lm_prob + draws.budget)
    shortest = min([n for _, n in words], default=0)
    budget = min(max(wanted, shortest), settings.max_predictions_per_seq)

    units = _reference_units(words, second_begin, draws, settings.ngram)
    # Words of units that share a priority go in the order of the text.
    order = sorted((priority, word) for priority, unit in units for word in unit)
    chosen, rest = set(), budget
    for _, (begin, length) in order:
        if length <= rest:
            chosen.add((begin, length))
            rest -= length

    positions = sorted(begin + i for begin, length in chosen for i in range(length))
    labels = [input_ids[position] for position in positions]
    ids, kinds = list(input_ids), []
    for slot, position in enumerate(positions):
        if draws.replacement[slot] < settings.mask_token_share:
            kinds.append(MASKED)
            ids[position] = MASK
        elif draws.replacement[slot] < 0.5 + settings.mask_token_share / 2:
            kinds.append(KEPT)
        else:
            kinds.append(RANDOM)
            ids[position] = draws.random_ids[slot]
    sizes = [sum(word in chosen for word in unit) for _, unit in units]
    sizes = [size for size in sizes if size]
    is_capped = wanted > settings.max_predictions_per_seq
    return ids, positions, labels, kinds, sizes, is_capped


def _reference_units(words, second_begin, draws, ngram):
    """Returns the list of (priority, words of a unit)."""
    if ngram == 1:
        return [(draws.priority[begin], [(begin, n)]) for begin, n in words]
    probabilities = masking.ngram_probabilities(ngram)
    units, number = [], 0
    while words:
        size = 1
        while size < ngram and draws.ngram[number] >= sum(probabilities[:size]):
            size += 1
        number += 1
        unit, words = words[:size], words[size:]
        units.append([word for word in unit if word[0] < second_begin])
        units.append([word for word in unit if word[0] >= second_begin])
    units = [unit for unit in units if unit]
    return [(draws.priority[i], unit) for i, unit in enumerate(units)]


def _apply(batch, draws, settings):
    return masking.apply_masks(
        batch.input_ids, batch.word_lengths, batch.second_begin, draws, MASK, settings
    )


def _draws_of_row(draws, row):
    return masking.MaskDraws(*[x if x is None else x[row].tolist() for x in draws])


@hypothesis.given(batch=BATCHES, settings=SETTINGS, seed=SEEDS, at_bounds=st.booleans())
def test_masks_are_those_of_a_plain_implementation(batch, settings, seed, at_bounds):
    draws = make_draws(seed, at_bounds, batch, settings)
    masks = _apply(batch, draws, settings)
    all_kinds, all_sizes = [], []
    for row in range(len(batch.input_ids)):
        ids, positions, labels, kinds, sizes, is_capped = _reference_masks(
            batch.input_ids[row].tolist(),
            batch.word_lengths[row].tolist(),
            batch.second_begin[row],
            _draws_of_row(draws, row),
            settings,
        )
        padding = [0] * (settings.max_predictions_per_seq - len(positions))
        assert masks.input_ids[row].tolist() == ids
        assert masks.positions[row].tolist() == positions + padding
        assert masks.labels[row].tolist() == labels + padding
        assert masks.num_masked[row] == len(positions)
        assert masks.capped[row] == is_capped
        all_kinds += kinds
        all_sizes += sizes
    assert masks.replacements.tolist() == all_kinds
    assert masks.ngram_lengths.tolist() == all_sizes


@hypothesis.given(batch=BATCHES, settings=SETTINGS, seed=SEEDS)
def test_words_are_masked_whole_and_the_budget_is_used(batch, settings, seed):
    draws = make_draws(seed, False, batch, settings)
    masks = _apply(batch, draws, settings)
    limit = settings.max_predictions_per_seq
    assert masks.input_ids.dtype == masks.positions.dtype == np.int32
    assert masks.positions.shape == masks.labels.shape == (len(batch.input_ids), limit)
    for row, num_masked in enumerate(masks.num_masked):
        positions = masks.positions[row, :num_masked]
        original = batch.input_ids[row]
        assert (np.diff(positions) > 0).all()
        assert masks.labels[row, :num_masked].tolist() == original[positions].tolist()
        assert (original[positions] >= FIRST_TEXT_ID).all()
        assert not masks.positions[row, num_masked:].any()
        assert not masks.labels[row, num_masked:].any()
        untouched = np.delete(np.arange(SEQ_LENGTH), positions)
        assert (masks.input_ids[row] == original)[untouched].all()

        free = []
        for begin in np.flatnonzero(batch.word_lengths[row]):
            length = batch.word_lengths[row, begin]
            share = np.isin(np.arange(begin, begin + length), positions).mean()
            assert share in (0, 1)
            if not share:
                free.append(length)
        wanted = batch.word_lengths[row].sum() * settings.masked_lm_prob
        assert num_masked <= min(max(wanted + 1, 5), limit)
        if num_masked < min(int(wanted), limit):
            assert min(free) > min(int(wanted), limit) - num_masked
        if not num_masked:
            assert min(free) > limit


def test_rows_without_words_are_left_alone():
    batch = make_batch([([1, 2], [3]), ([2], [2, 1]), ([3], [3])])
    batch.word_lengths[1] = 0
    for ngram in (1, 3):
        settings = masking.MaskSettings(0.5, 2, ngram)
        masks = _apply(batch, make_draws(0, False, batch, settings), settings)
        # The words of the last row are all longer than the two tokens allowed.
        assert masks.num_masked[0] and not masks.num_masked[1:].any()
        assert (masks.input_ids[1:] == batch.input_ids[1:]).all()


# Statistics, which the masks made by TensorFlow are held against as well. All words
# are single tokens, so that every token is as likely as the others to be masked.
STATISTICS_LENGTH = 130
STATISTICS_BATCH = make_batch([([1] * 50, [1] * 75)] * 3000, STATISTICS_LENGTH)
STATISTICS_PROB = 0.15
NGRAM_BATCH = make_batch([([1] * 250, [1] * 259)] * 600, 512)
NGRAM_SETTINGS = masking.MaskSettings(STATISTICS_PROB, 80, 3)


def statistics_settings(ngram):
    return masking.MaskSettings(STATISTICS_PROB, 20, ngram)


def check_share(num_masked):
    """125 tokens of the statistics batch * 0.15 are 18.75."""
    assert set(num_masked) == {18, 19}
    standard_error = (0.75 * 0.25 / len(num_masked)) ** 0.5
    assert abs(num_masked.mean() - 18.75) < 4 * standard_error


def check_spread(positions, num_masked):
    """Every token of the statistics batch is masked in about the same number of rows.

    Args:
      positions: int [B, P], ascending, then zeros.
      num_masked: int [B].
    """
    is_real = np.arange(positions.shape[1]) < num_masked[:, np.newaxis]
    counts = np.bincount(positions[is_real], minlength=STATISTICS_LENGTH)
    is_word = STATISTICS_BATCH.word_lengths[0] > 0
    assert not counts[~is_word].any()
    num_rows = len(positions)
    expected = num_rows * STATISTICS_PROB
    standard_deviation = (expected * (1 - STATISTICS_PROB)) ** 0.5
    # One of 125 normal numbers is further from its mean than that in 0.1 % of cases.
    assert abs(counts[is_word] - expected).max() < 4.5 * standard_deviation


def check_replacements(input_ids, positions, labels, num_masked):
    """80 % [MASK], 10 % kept, 10 % random, these uniform over ORDINARY_IDS.

    Args:
      input_ids: int [B, S], masked.
      positions, labels: int [B, P], for the first num_masked [B].
      num_masked: int [B].
    """
    is_real = np.arange(positions.shape[1]) < num_masked[:, np.newaxis]
    replaced = np.take_along_axis(input_ids, positions, axis=1)[is_real]
    is_mask, is_kept = replaced == MASK, replaced == labels[is_real]
    random_ids = replaced[~is_mask & ~is_kept]
    counts = np.array([is_mask.sum(), is_kept.sum(), len(random_ids)])
    expected = counts.sum() * np.array([0.8, 0.1, 0.1])
    # 13.8 is the 0.999 quantile of chi-square with two degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 13.8
    assert np.isin(random_ids, ORDINARY_IDS).all()
    frequencies = np.bincount(random_ids)[ORDINARY_IDS]
    expected = len(random_ids) / len(ORDINARY_IDS)
    # 148.2 is the 0.999 quantile of chi-square with 99 degrees of freedom.
    assert ((frequencies - expected) ** 2 / expected).sum() < 148.2


def check_ngram_lengths(units, priority, positions, num_masked):
    """The units of the n-gram batch are masked whole, and p(n) of them have n words.

    Args:
      units: int [B, S], see `masking.unit_numbers`.
      priority: int [B, S], of the unit of each number.
      positions: int [B, P], for the first num_masked [B].
      num_masked: int [B].
    """
    ngram = NGRAM_SETTINGS.ngram
    counts = np.zeros(ngram + 1)
    for row, num in enumerate(num_masked):
        is_word = NGRAM_BATCH.word_lengths[row] > 0
        sizes, masked_sizes = (
            np.bincount(units[row, where], minlength=units.shape[1])
            for where in (is_word, positions[row, :num])
        )
        # As many units as fit whatever their lengths are. The number masked depends
        # on the lengths: among those, and without the last one, short ones prevail.
        order = np.argsort(np.where(sizes > 0, priority[row], masking.PRIORITY_LIMIT))
        first = order[: num // ngram]
        assert masked_sizes[first].tolist() == sizes[first].tolist()
        counts += np.bincount(sizes[first], minlength=ngram + 1)
    assert not counts[0]
    expected = counts.sum() * masking.ngram_probabilities(ngram)
    # 13.8 is the 0.999 quantile of chi-square with two degrees of freedom.
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 13.8


def _statistics_masks(ngram):
    settings = statistics_settings(ngram)
    draws = make_draws(1, False, STATISTICS_BATCH, settings)
    return _apply(STATISTICS_BATCH, draws, settings)


def test_ngram_probabilities_are_those_of_the_paper():
    assert masking.ngram_probabilities(1).tolist() == [1.0]
    np.testing.assert_allclose(masking.ngram_probabilities(3), [6 / 11, 3 / 11, 2 / 11])


@pytest.mark.parametrize("ngram", [1, 3])
def test_masks_have_their_share_and_are_spread_evenly(ngram):
    masks = _statistics_masks(ngram)
    check_share(masks.num_masked)
    check_spread(masks.positions, masks.num_masked)
    assert not masks.capped.any()


def test_replacements_are_80_10_10_and_ordinary():
    masks = _statistics_masks(1)
    check_replacements(masks.input_ids, masks.positions, masks.labels, masks.num_masked)


def test_ngram_lengths_follow_the_paper():
    draws = make_draws(1, False, NGRAM_BATCH, NGRAM_SETTINGS)
    masks = _apply(NGRAM_BATCH, draws, NGRAM_SETTINGS)
    units = masking.unit_numbers(
        NGRAM_BATCH.word_lengths, NGRAM_BATCH.second_begin, draws.ngram, 3
    )
    check_ngram_lengths(units, draws.priority, masks.positions, masks.num_masked)


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_predictions_per_seq", 0),
        ("masked_lm_prob", 0.0),
        ("masked_lm_prob", 1.0),
        ("ngram", 0),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    masking.MaskSettings().check()
    with pytest.raises(ValueError, match="{}={}, expected".format(name, value)):
        masking.MaskSettings(**{name: value}).check()
