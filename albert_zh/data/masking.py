"""Whole-word and n-gram masks for a batch of instances at once, in NumPy.

Shapes: B instances of S positions, at most P masked tokens in each. Words are given by
`word_lengths` [B, S]: the number of tokens of the word that begins at a position, 0
elsewhere (inside words, at special tokens and padding).

The words of an instance are visited in random order; each is masked whole if it still
fits the budget of tokens. For n-grams (ALBERT, arXiv:1909.11942, section 4.1) the
words are first tiled into units of n neighbours, p(n) proportional to 1/n, which are
visited together. A unit is shortened at the end of the budget or of a segment, so that
the share of masked tokens is exact. As in BERT's release, long words are masked a
little less often than short ones, because they do not fit the rest of the budget.

Each *token* of a masked word is replaced by [MASK] with probability 0.8
(`mask_token_share`), kept with 0.1, or replaced by a random ordinary token with 0.1.
The choice is per token, as in BERT, its whole-word-masking release and ALBERT: per
word, a random replacement would be a sequence of tokens that no text has.

All randomness is in `MaskDraws`. `dynamic_masking` is the same in TensorFlow.
"""

from typing import NamedTuple, Optional

import numpy as np

# Values of `Masks.replacements`.
MASKED, KEPT, RANDOM = range(3)

# Tokens of an instance at most: 64 times what the published models take. A batch of
# instances needs memory in proportion.
MAX_SEQ_LENGTH = 2**15

# A word's place in the order is priority * 2**32 + position, below 2**63.
PRIORITY_LIMIT = 2**31
_POSITION_BITS = 32


class MaskSettings(NamedTuple):
    """How masks are chosen.

    Attributes:
      masked_lm_prob: share of the text's tokens to mask.
      max_predictions_per_seq: P, the most masked tokens in an instance.
      ngram: the most words masked as one unit.
      mask_token_share: share of the masked tokens that [MASK] replaces; half of the
        others are kept, half replaced by a random token.
    """

    masked_lm_prob: float = 0.1
    max_predictions_per_seq: int = 51
    ngram: int = 1
    mask_token_share: float = 0.8

    @property
    def mask_or_keep_share(self):
        """Share of the masked tokens that no random token replaces."""
        return (1 + self.mask_token_share) / 2

    def check(self):
        """Raises ValueError, naming the setting, if one is out of range."""
        check_ranges(
            self,
            ("masked_lm_prob", "more than 0, less than 1", lambda x: 0 < x < 1),
            in_range("max_predictions_per_seq", 1, MAX_SEQ_LENGTH),
            in_range("ngram", 1, MAX_SEQ_LENGTH),
            ("mask_token_share", "from 0 to 1", lambda x: 0 <= x <= 1),
        )


class MaskDraws(NamedTuple):
    """The random numbers for the masks of a batch.

    Attributes:
      budget: float64 [B], uniform in [0, 1).
      ngram: float64 [B, S], uniform in [0, 1); None for single words.
      priority: int64 [B, S], uniform in [0, PRIORITY_LIMIT).
      replacement: float64 [B, P], uniform in [0, 1).
      random_ids: int32 [B, P], ids of ordinary tokens.
    """

    budget: np.ndarray
    ngram: Optional[np.ndarray]
    priority: np.ndarray
    replacement: np.ndarray
    random_ids: np.ndarray


class Masks(NamedTuple):
    """The masks of a batch; the first num_masked [B] entries of a row are real.

    Attributes:
      input_ids: int32 [B, S], after replacement.
      positions: int32 [B, P], ascending, then zeros.
      labels: int32 [B, P], the original ids, then zeros.
      num_masked: int64 [B].
      capped: bool [B], whether max_predictions_per_seq limited the masks.
      replacements: int8 [sum of num_masked], MASKED, KEPT or RANDOM, row by row.
      ngram_lengths: int64 [n], words masked in each unit of the batch.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    num_masked: np.ndarray
    capped: np.ndarray
    replacements: np.ndarray
    ngram_lengths: np.ndarray


def in_range(name, least, most):
    """Returns the condition for `check_ranges` that an integer is in a range."""
    return name, "{} to {}".format(least, most), lambda x: least <= x <= most


def check_ranges(settings, *conditions):
    """Raises ValueError for the first (name, expected, is_valid) that is not met."""
    for name, expected, is_valid in conditions:
        value = getattr(settings, name)
        if not is_valid(value):
            raise ValueError("{}={}, expected {}".format(name, value, expected))


def ngram_probabilities(ngram):
    """p(n) = (1/n) / sum_k (1/k) for n = 1..ngram (ALBERT, section 4.1).

    Returns:
      float64 [ngram].
    """
    weights = 1.0 / np.arange(1, ngram + 1)
    return weights / weights.sum()


def draw(rng, batch_size, seq_length, ordinary_ids, settings):
    """Draws the random numbers for the masks of one batch.

    Args:
      rng: `np.random.RandomState`.
      batch_size: B.
      seq_length: S.
      ordinary_ids: int32 [n], ids that random replacements are drawn from.
      settings: `MaskSettings`.

    Returns:
      `MaskDraws`.
    """
    predictions = [batch_size, settings.max_predictions_per_seq]
    return MaskDraws(
        budget=rng.random_sample(batch_size),
        ngram=rng.random_sample([batch_size, seq_length])
        if settings.ngram > 1
        else None,
        priority=rng.randint(
            PRIORITY_LIMIT, size=[batch_size, seq_length], dtype=np.int64
        ),
        replacement=rng.random_sample(predictions),
        random_ids=ordinary_ids[rng.randint(len(ordinary_ids), size=predictions)],
    )


def apply_masks(input_ids, word_lengths, second_begin, draws, mask_id, settings):
    """Masks a batch.

    Args:
      input_ids: int32 [B, S], including special tokens and padding.
      word_lengths: int32 [B, S].
      second_begin: int [B], position of the second segment's first token.
      draws: `MaskDraws`.
      mask_id: id of [MASK].
      settings: `MaskSettings`.

    Returns:
      `Masks`.
    """
    budget, capped = num_to_predict(word_lengths, draws.budget, settings)
    units = unit_numbers(word_lengths, second_begin, draws.ngram, settings.ngram)
    chosen = choose_words(word_lengths, units, budget, draws.priority)
    masked = _spread(chosen, word_lengths)

    rows, columns = np.nonzero(masked)
    num_masked = np.count_nonzero(masked, axis=1)
    slots = np.arange(len(rows)) - np.repeat(
        np.cumsum(num_masked) - num_masked, num_masked
    )
    labels_flat = input_ids[rows, columns]
    uniform = draws.replacement[rows, slots]
    replacements = np.full(len(rows), MASKED, np.int8)
    replacements[uniform >= settings.mask_token_share] = KEPT
    replacements[uniform >= settings.mask_or_keep_share] = RANDOM
    output_ids = input_ids.copy()
    output_ids[rows, columns] = np.choose(
        replacements, [mask_id, labels_flat, draws.random_ids[rows, slots]]
    )
    positions, labels = np.zeros((2,) + draws.random_ids.shape, np.int32)
    positions[rows, slots] = columns
    labels[rows, slots] = labels_flat
    ngram_lengths = np.unique(
        (units + units.shape[1] * np.arange(len(units))[:, None])[chosen],
        return_counts=True,
    )[1]
    return Masks(
        output_ids, positions, labels, num_masked, capped, replacements, ngram_lengths
    )


def num_to_predict(word_lengths, uniform, settings):
    """Draws how many tokens of each instance to mask.

    floor(x + u) with x = num_tokens * masked_lm_prob and u uniform in [0, 1) has
    mean x; rounding to the nearest, or up to at least one, would shift the share.
    Special tokens do not count. The budget is at least the length of the shortest
    word, so that every instance has something to predict where possible.

    Args:
      word_lengths: int32 [B, S].
      uniform: float64 [B], uniform in [0, 1).
      settings: `MaskSettings`.

    Returns:
      (budget, capped): int64 [B], at most max_predictions_per_seq; bool [B], whether
      that limit was reached.
    """
    num_tokens = word_lengths.sum(axis=1)
    wanted = (num_tokens * settings.masked_lm_prob + uniform).astype(np.int64)
    longest = word_lengths.shape[1] + 1
    shortest = np.where(word_lengths > 0, word_lengths, longest).min(axis=1)
    limit = settings.max_predictions_per_seq
    return np.minimum(np.maximum(wanted, shortest), limit), wanted > limit


def unit_numbers(word_lengths, second_begin, uniform, ngram):
    """Tiles the words of each instance into n-grams; none crosses the segments.

    Args:
      word_lengths: int32 [B, S].
      second_begin: int [B], position of the second segment's first token.
      uniform: float64 [B, S], uniform in [0, 1); unused for single words.
      ngram: longest unit, in words.

    Returns:
      int [B, S], below S: equal for positions where the words of one unit begin.
    """
    batch_size, seq_length = word_lengths.shape
    if ngram == 1:
        return np.broadcast_to(np.arange(seq_length), word_lengths.shape)
    cumulative = np.cumsum(ngram_probabilities(ngram))[:-1]
    lengths = 1 + np.searchsorted(cumulative, uniform, side="right")
    # Unit i ends before word ends[i]; most units are beyond the last word.
    ends = np.minimum(np.cumsum(lengths, axis=1), seq_length)
    begins_unit = np.zeros([batch_size, seq_length + 1], np.bool_)
    np.put_along_axis(begins_unit, ends, True, axis=1)
    is_word = word_lengths > 0
    word_numbers = np.cumsum(is_word, axis=1) - is_word
    begins = is_word & np.take_along_axis(begins_unit, word_numbers, axis=1)
    begins[np.arange(batch_size), second_begin] = True
    return np.cumsum(begins, axis=1)


def choose_words(word_lengths, units, budget, priority):
    """Chooses words of up to `budget` tokens in total, unit by unit.

    Args:
      word_lengths: int32 [B, S].
      units: int [B, S], see `unit_numbers`.
      budget: int [B].
      priority: int64 [B, S], by unit number; the lowest goes first.

    Returns:
      bool [B, S], whether the word that begins there is chosen. Fewer tokens than
      `budget` are chosen only if no other word fits the rest.
    """
    positions = np.arange(word_lengths.shape[1])
    rank = np.take_along_axis(priority, units, axis=1)
    # Positions where no word begins are sorted, too; their length is 0.
    order = np.sort((rank << _POSITION_BITS) + positions, axis=1)
    order &= (1 << _POSITION_BITS) - 1
    taken = _fill(np.take_along_axis(word_lengths, order, axis=1), budget)
    chosen = np.zeros(word_lengths.shape, np.bool_)
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen


def _fill(lengths, budget):
    """Takes from each row of lengths [B, S], in order, what still fits; bool [B, S].

    Each round takes everything before the first length that does not fit, which then
    never will; a row of Chinese words needs about three rounds.
    """
    taken = np.zeros(lengths.shape, np.bool_)
    rest = budget.copy()
    while True:
        fits = ~taken & (lengths > 0) & (lengths <= rest[:, None])
        if not fits.any():
            return taken
        total = np.cumsum(np.where(fits, lengths, 0), axis=1)
        fits &= total <= rest[:, None]
        taken |= fits
        rest -= np.where(fits, lengths, 0).sum(axis=1)


def _spread(chosen, word_lengths):
    """Turns chosen words, bool [B, S] at their first tokens, into masked tokens."""
    batch_size, seq_length = chosen.shape
    change = np.zeros([batch_size, seq_length + 1], np.int8)
    change[:, :-1] = chosen
    rows, columns = np.nonzero(chosen)
    # Words do not overlap: no two end at one position.
    change[rows, columns + word_lengths[rows, columns]] -= 1
    return np.cumsum(change, axis=1, dtype=np.int8)[:, :-1] > 0
