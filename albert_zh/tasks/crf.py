"""A linear-chain conditional random field as graph code (Lafferty et al., 2001).

The probability of the tags y of n steps is exp(s(y)) / sum over all y' of exp(s(y')),
with s(y) = sum_t logits[t, y_t] + sum_t transitions[y_(t-1), y_t] and no score for the
first and the last tag, as in TensorFlow 1's `tf.contrib.crf`.

Shapes: B batch, T steps of the longest sequence, at least one, N tags.
"""

from albert_zh.base.lazy import tensorflow as tf


def log_likelihood(logits, tags, lengths, transitions):
    """The logarithm of the probability of tags.

    Args:
      logits: float32 [B, T, N].
      tags: int32 [B, T].
      lengths: int32 [B], steps of each sequence, from 0 to T.
      transitions: float32 [N, N], the score of tag j after tag i at [i, j].

    Returns:
      float32 [B], 0 for a sequence of no steps.
    """
    mask = tf.sequence_mask(lengths, tf.shape(logits)[1], tf.float32)  # [B, T]
    chosen = _choose(logits, tags)  # [B, T]
    steps = tf.gather_nd(transitions, tf.stack([tags[:, :-1], tags[:, 1:]], axis=2))
    score = tf.reduce_sum(chosen * mask, 1) + tf.reduce_sum(steps * mask[:, 1:], 1)
    return tf.where(
        lengths > 0,
        score - _log_normalizer(logits, lengths, transitions),
        tf.zeros_like(score),
    )


def _log_normalizer(logits, lengths, transitions):
    """The forward algorithm: log of the sum over all tags of exp(s), float32 [B]."""

    def step(log_sums, inputs):
        logit, is_real = inputs  # [B, N], [B]
        paths = log_sums[:, :, None] + transitions[None]  # [B, N before, N]
        advanced = tf.reduce_logsumexp(paths, axis=1) + logit
        return tf.where(_like(is_real, advanced), advanced, log_sums)

    sums = tf.foldl(step, _following_steps(logits, lengths), logits[:, 0])  # [B, N]
    return tf.reduce_logsumexp(sums, axis=1)


def decode(logits, lengths, transitions):
    """The most probable tags, by Viterbi's algorithm.

    Args:
      logits, lengths, transitions: as `log_likelihood` takes them.

    Returns:
      (tags int32 [B, T], 0 after the last step; score s of the tags, float32 [B]).
    """
    num_tags = transitions.shape.as_list()[0]
    itself = tf.zeros_like(logits[:, 0], tf.int32) + tf.range(num_tags)

    def forward(state, inputs):
        best, _ = state  # [B, N], the score of the best path to each tag
        logit, is_real = inputs
        paths = best[:, :, None] + transitions[None]  # [B, N before, N]
        advanced = tf.reduce_max(paths, axis=1) + logit
        before = tf.argmax(paths, axis=1, output_type=tf.int32)  # [B, N]
        is_real = _like(is_real, advanced)
        return tf.where(is_real, advanced, best), tf.where(is_real, before, itself)

    start = logits[:, 0], itself
    best, before = tf.scan(forward, _following_steps(logits, lengths), start)
    best = best[-1]  # [B, N]; `before` is [T, B, N]
    last = tf.argmax(best, axis=1, output_type=tf.int32)  # [B]

    def backward(tag, before):
        return _choose(before, tag)

    tags = tf.transpose(tf.scan(backward, before, last, reverse=True))  # [B, T]
    mask = tf.sequence_mask(lengths, tf.shape(logits)[1], tf.int32)
    return tags * mask, tf.reduce_max(best, axis=1)


def _following_steps(logits, lengths):
    """The steps 1 to T: logits [T, B, N], and whether they are real [T, B].

    Step T never is. Loops of TensorFlow 1 need one step at least, and it makes the way
    back from the last step like the others.
    """
    following = tf.pad(logits[:, 1:], [[0, 0], [0, 1], [0, 0]])
    mask = tf.sequence_mask(lengths, tf.shape(logits)[1] + 1)
    return tf.transpose(following, [1, 0, 2]), tf.transpose(mask[:, 1:])


def _choose(values, indices):
    """values [..., N] at indices [...]."""
    # TensorFlow 1 wants one dimension more than those of the batch.
    chosen = tf.gather(values, indices[..., None], batch_dims=indices.shape.ndims)
    return tf.squeeze(chosen, axis=-1)


def _like(condition, values):
    """A condition [B] in the shape of values [B, N]; TensorFlow 1 has no broadcast."""
    return tf.tile(condition[:, None], [1, tf.shape(values)[1]])
