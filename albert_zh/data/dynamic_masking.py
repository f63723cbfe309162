"""The masks of `masking` as TensorFlow ops: new masks in every epoch of pretraining.

A record with unmasked tokens and the lengths of their words serves any number of
epochs, each with other masks (dynamic masking, RoBERTa, arXiv:1907.11692, section
4.1). Masks in the records would repeat, or need a copy of the text for each variant.

These are TensorFlow ops, not a Python function: the threads of `tf.data` run them in
parallel, also on the host of a remote TPU, which has no Python. Random numbers are
stateless: masks depend on the batch and its seed, not on the order of threads.

For equal draws the results equal those of `masking`, which explains the algorithm.
Shapes: B instances of S positions, at most P masked tokens in each.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.data import masking


def mask_features(features, seed, mask_id, ordinary_ids, settings):
    """Masks a parsed batch of unmasked records.

    Args:
      features: dict of int32 tensors, [B, S] except for the last:
        input_ids: [CLS] A [SEP] B [SEP] and padding, unmasked.
        input_mask: 1 for tokens, 0 for padding.
        segment_ids: 1 for B and its [SEP]; every row has some.
        word_lengths: tokens of the word that begins there, 0 elsewhere.
        next_sentence_labels: [B, 1].
      seed: int32 or int64 [2], different for every batch of the training.
      mask_id: id of [MASK].
      ordinary_ids: int32 array [n], ids that random replacements are drawn from.
      settings: `masking.MaskSettings`.

    Returns:
      dict of the tensors of a record with masks: input_ids, input_mask, segment_ids
      int32 [B, S], masked_lm_positions, masked_lm_ids int32 [B, P],
      masked_lm_weights float32 [B, P], next_sentence_labels int32 [B, 1].
    """
    segment_ids = features["segment_ids"]
    batch_size, seq_length = _batch_shape(segment_ids)
    # Not argmax, which may return any of several equal values.
    second_begin = tf.reduce_min(
        tf.where_v2(tf.equal(segment_ids, 1), tf.range(seq_length), seq_length), axis=1
    )
    masked = apply_masks(
        features["input_ids"],
        features["word_lengths"],
        second_begin,
        draw(seed, batch_size, seq_length, ordinary_ids, settings),
        mask_id,
        settings,
    )
    unchanged = ("input_mask", "segment_ids", "next_sentence_labels")
    return dict(masked, **{name: features[name] for name in unchanged})


def draw(seed, batch_size, seq_length, ordinary_ids, settings):
    """Draws the random numbers for the masks of one batch.

    Args:
      seed: int32 or int64 [2]; equal seeds give equal draws.
      batch_size: B, int or int32 scalar.
      seq_length: S, int.
      ordinary_ids: int32 array [n], ids that random replacements are drawn from.
      settings: `masking.MaskSettings`.

    Returns:
      `masking.MaskDraws` of tensors.
    """
    # Draws from one seed would be correlated: each gets its own.
    names = masking.MaskDraws._fields
    seeds = _uniform(seed, [len(names), 2], tf.int64.max, tf.int64)
    seeds = masking.MaskDraws(*tf.unstack(seeds))
    positions = [batch_size, seq_length]
    predictions = [batch_size, settings.max_predictions_per_seq]
    places = _uniform(seeds.random_ids, predictions, len(ordinary_ids), tf.int64)
    return masking.MaskDraws(
        budget=_uniform(seeds.budget, [batch_size]),
        ngram=_uniform(seeds.ngram, positions) if settings.ngram > 1 else None,
        priority=_uniform(seeds.priority, positions, masking.PRIORITY_LIMIT, tf.int64),
        replacement=_uniform(seeds.replacement, predictions),
        random_ids=tf.gather(tf.constant(ordinary_ids, tf.int32), places),
    )


def apply_masks(input_ids, word_lengths, second_begin, draws, mask_id, settings):
    """Masks a batch as `masking.apply_masks` does.

    Args:
      input_ids: int32 [B, S], including special tokens and padding.
      word_lengths: int32 [B, S].
      second_begin: int32 [B], position of the second segment's first token.
      draws: `masking.MaskDraws` of tensors.
      mask_id: id of [MASK].
      settings: `masking.MaskSettings`.

    Returns:
      dict: input_ids int32 [B, S] after replacement; masked_lm_positions int32
      [B, P], ascending, then zeros; masked_lm_ids int32 [B, P], the original ids,
      then zeros; masked_lm_weights float32 [B, P], ones, then zeros.
    """
    budget = num_to_predict(word_lengths, draws.budget, settings)
    priority = draws.priority
    if settings.ngram > 1:
        units = unit_numbers(word_lengths, second_begin, draws.ngram, settings.ngram)
        priority = tf.gather(priority, units, batch_dims=1)
    masked = choose_tokens(word_lengths, budget, priority)  # [B, S]

    # N masked tokens of the whole batch: without padding entries, which could
    # overwrite something.
    num_masked = tf.reduce_sum(tf.cast(masked, tf.int64), axis=1)  # [B]
    positions = tf.where(masked)  # [N, 2], row and column
    rows, columns = tf.unstack(positions, axis=1)
    before_row = tf.gather(tf.cumsum(num_masked, exclusive=True), rows)
    slots = tf.range(tf.size(rows, out_type=tf.int64)) - before_row
    slots = tf.stack([rows, slots], axis=1)  # [N, 2], row and place among P
    labels = tf.gather_nd(input_ids, positions)
    uniform = tf.gather_nd(draws.replacement, slots)
    kept_or_random = tf.where_v2(
        uniform < settings.mask_or_keep_share,
        labels,
        tf.gather_nd(draws.random_ids, slots),
    )
    replaced = tf.where_v2(uniform < settings.mask_token_share, mask_id, kept_or_random)

    num_predictions = settings.max_predictions_per_seq
    shape = [_batch_shape(input_ids)[0], num_predictions]
    return {
        "input_ids": tf.tensor_scatter_nd_update(input_ids, positions, replaced),
        "masked_lm_positions": tf.scatter_nd(slots, tf.cast(columns, tf.int32), shape),
        "masked_lm_ids": tf.scatter_nd(slots, labels, shape),
        "masked_lm_weights": tf.sequence_mask(num_masked, num_predictions, tf.float32),
    }


def num_to_predict(word_lengths, uniform, settings):
    """Draws how many tokens of each instance to mask; see `masking.num_to_predict`.

    Args:
      word_lengths: int32 [B, S].
      uniform: float64 [B], uniform in [0, 1).
      settings: `masking.MaskSettings`.

    Returns:
      int32 [B], at most max_predictions_per_seq.
    """
    num_tokens = tf.cast(tf.reduce_sum(word_lengths, axis=1), tf.float64)
    wanted = tf.cast(num_tokens * settings.masked_lm_prob + uniform, tf.int32)
    longest = _batch_shape(word_lengths)[1] + 1
    shortest = tf.reduce_min(
        tf.where_v2(word_lengths > 0, word_lengths, longest), axis=1
    )
    return tf.minimum(tf.maximum(wanted, shortest), settings.max_predictions_per_seq)


def unit_numbers(word_lengths, second_begin, uniform, ngram):
    """Tiles the words of each instance into n-grams; none crosses the segments.

    Args:
      word_lengths: int32 [B, S].
      second_begin: int32 [B], position of the second segment's first token.
      uniform: float64 [B, S], uniform in [0, 1).
      ngram: longest unit, in words, at least 2.

    Returns:
      int32 [B, S], below S: equal for positions where the words of one unit begin.
    """
    batch_size, seq_length = _batch_shape(word_lengths)
    cumulative = np.cumsum(masking.ngram_probabilities(ngram))[:-1]
    lengths = 1 + sum(tf.cast(uniform >= bound, tf.int32) for bound in cumulative)
    # Unit i ends before word ends[i]; most units are beyond the last word.
    ends = tf.minimum(tf.cumsum(lengths, axis=1), seq_length)
    rows = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(ends))
    num_ends = tf.scatter_nd(
        tf.stack([rows, ends], axis=2),
        tf.ones_like(ends),
        [batch_size, seq_length + 1],
    )
    is_word = word_lengths > 0
    word_numbers = tf.cumsum(tf.cast(is_word, tf.int32), axis=1, exclusive=True)
    begins = is_word & (tf.gather(num_ends, word_numbers, batch_dims=1) > 0)
    begins |= tf.equal(tf.range(seq_length), second_begin[:, tf.newaxis])
    return tf.cumsum(tf.cast(begins, tf.int32), axis=1)


def choose_tokens(word_lengths, budget, priority):
    """Chooses whole words of up to `budget` tokens in total.

    Args:
      word_lengths: int32 [B, S].
      budget: int32 [B].
      priority: int64 [B, S], of the word that begins there; the lowest goes first;
        ties go to the first in the text.

    Returns:
      bool [B, S], whether the token there belongs to a chosen word.
    """
    batch_size, seq_length = _batch_shape(word_lengths)
    # top_k puts the lower index first among equal values. Positions where no word
    # begins are sorted, too; their length, 0, is never taken.
    order = tf.nn.top_k(-priority, seq_length).indices
    lengths = tf.gather(word_lengths, order, batch_dims=1)

    taken = tf.where(_fill(lengths, budget))  # [number of words, 2]
    begins = tf.gather_nd(order, taken)
    ends = begins + tf.gather_nd(lengths, taken)
    rows = tf.cast(taken[:, 0], tf.int32)
    change = tf.scatter_nd(
        tf.stack([tf.tile(rows, [2]), tf.concat([begins, ends], axis=0)], axis=1),
        tf.concat([tf.ones_like(begins), -tf.ones_like(ends)], axis=0),
        [batch_size, seq_length + 1],
    )
    return tf.cumsum(change, axis=1)[:, :-1] > 0


def _fill(lengths, budget):
    """Takes from each row of lengths [B, S], in order, what still fits; bool [B, S].

    Each round takes everything before the first length that does not fit, which then
    never will; a row of Chinese words needs about three rounds.
    """

    def fits(left, rest):
        return (left > 0) & (left <= rest[:, tf.newaxis])

    def is_unfinished(left, rest):
        return tf.reduce_any(fits(left, rest))

    def take(left, rest):
        total = tf.cumsum(tf.where_v2(fits(left, rest), left, 0), axis=1)
        takes = fits(left, rest) & (total <= rest[:, tf.newaxis])
        rest -= tf.reduce_sum(tf.where_v2(takes, left, 0), axis=1)
        return tf.where_v2(takes, 0, left), rest

    left, _ = tf.while_loop(is_unfinished, take, [lengths, budget])
    return left < lengths


def _uniform(seed, shape, limit=1, dtype=tf.float64):
    """Random numbers in [0, limit) that depend only on the seed, int [2]."""
    return tf.random.stateless_uniform(shape, seed, maxval=limit, dtype=dtype)


def _batch_shape(tensor):
    """Returns (B, S) of a tensor [B, S]; B is an int if known, else a scalar tensor."""
    batch_size, seq_length = tensor.shape.as_list()
    return tf.shape(tensor)[0] if batch_size is None else batch_size, seq_length
