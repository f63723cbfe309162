"""How a tagger's outputs become entities: `softmax` and `crf` tag each token in BIO,
`span` scores each run of tokens.

Shapes: B windows of a batch, T tokens of the longest one with [CLS] and [SEP], N tags,
C types of entities, H hidden size. [CLS] is cut off, so that token 0 of the text is at
position 0.
"""

import abc
import bisect

import numpy as np

from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import characters, crf, tag_schemes
from albert_zh.tasks.features import Field
from albert_zh.tasks.kind import Variable
from albert_zh.tasks.tag_schemes import Span


class Decoder(abc.ABC):
    """A way to predict spans of tokens.

    Attributes:
      fields: tuple of `features.Field`, its targets.
    """

    fields = ()

    def __init__(self, types, max_seq_length):
        """Creates a decoder.

        Args:
          types: tuple of the types of entities.
          max_seq_length: int, the largest T.
        """
        self._types = types
        self._max_seq_length = max_seq_length

    @abc.abstractmethod
    def variables(self, hidden_size):
        """Returns the tuple of `kind.Variable`s of the head."""

    @abc.abstractmethod
    def targets(self, spans, windows):
        """What to learn from a text.

        Args:
          spans: list of `Span` of the text's tokens.
          windows: list of its `characters.Window`s.

        Returns:
          List of the dict of targets of each window.
        """

    @abc.abstractmethod
    def outputs(self, sequence, values):
        """The head.

        Args:
          sequence: float32 [B, T - 1, H], the encoder's outputs after [CLS].
          values: list of the tensors of `variables`.

        Returns:
          Dict name -> float32 tensor.
        """

    @abc.abstractmethod
    def losses(self, outputs, targets, lengths):
        """Returns the losses, float32 [B].

        Args:
          outputs: what `outputs` returns.
          targets: dict name -> tensor, of `fields`.
          lengths: int32 [B], tokens of each window.
        """

    @abc.abstractmethod
    def predictions(self, outputs, lengths):
        """Returns a dict name -> tensor [B, ...]; arguments as those of `losses`."""

    @abc.abstractmethod
    def spans(self, windows, predicted):
        """Joins what is predicted for the windows of a text.

        Args:
          windows: list of `characters.Window`.
          predicted: list of dicts name -> array, a row of `predictions` for each.

        Returns:
          List of `Span` of the text's tokens.
        """

    @abc.abstractmethod
    def perfect(self, targets):
        """The row of `predictions` of a model that predicts exactly the targets."""


class SoftmaxDecoder(Decoder):
    """The most probable tag of each token by itself."""

    fields = (Field("tag_ids", is_sequence=True),)

    def variables(self, hidden_size):
        num_tags = 2 * len(self._types) + 1
        return (
            Variable("ner/output_weights", (num_tags, hidden_size)),
            Variable("ner/output_bias", (num_tags,), is_bias=True),
        )

    def targets(self, spans, windows):
        tags = tag_schemes.bio_tags(spans, self._types, windows[-1].end)
        # [CLS] and [SEP] have a place.
        return [{"tag_ids": [0] + tags[w.begin : w.end] + [0]} for w in windows]

    def outputs(self, sequence, values):
        weights, bias = values
        return {"logits": _linear(sequence, weights, bias)}

    def losses(self, outputs, targets, lengths):
        tags = targets["tag_ids"][:, 1:]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tags, logits=outputs["logits"]
        )
        return mean_over_tokens(losses, lengths)

    def predictions(self, outputs, lengths):
        logits = outputs["logits"]
        mask = tf.sequence_mask(lengths, tf.shape(logits)[1])
        tags = tf.argmax(logits, axis=2, output_type=tf.int32)
        # NaN shows in the score only.
        score = tf.reduce_max(logits, axis=2) * tf.cast(mask, tf.float32)
        return {
            "tags": tags * tf.cast(mask, tf.int32),
            "score": tf.reduce_sum(score, axis=1),
        }

    def spans(self, windows, predicted):
        num_tokens = windows[-1].end
        if len(windows) == 1:
            tags = predicted[0]["tags"][:num_tokens]
        else:  # each token's from the window with the most context
            tokens = np.arange(num_tokens)
            chosen = characters.best_windows(windows, tokens, tokens)
            tags = np.zeros(num_tokens, np.int64)
            for i, window in enumerate(windows):
                mine = np.flatnonzero(chosen[window.begin : window.end] == i)
                tags[window.begin + mine] = predicted[i]["tags"][mine]
        return tag_schemes.read_bio_tags([int(tag) for tag in tags], self._types)

    def perfect(self, targets):
        return {"tags": np.array(targets["tag_ids"][1:])}


class CrfDecoder(SoftmaxDecoder):
    """The most probable sequence of tags (Lample et al., 2016; arXiv:1603.01360)."""

    def variables(self, hidden_size):
        num_tags = 2 * len(self._types) + 1
        transitions = Variable("ner/transitions", (num_tags, num_tags))
        return super().variables(hidden_size) + (transitions,)

    def outputs(self, sequence, values):
        weights, bias, transitions = values
        return {
            "logits": _linear(sequence, weights, bias),
            "transitions": transitions,
        }

    def losses(self, outputs, targets, lengths):
        tags = targets["tag_ids"][:, 1:]
        logits, transitions = outputs["logits"], outputs["transitions"]
        return -crf.log_likelihood(logits, tags, lengths, transitions)

    def predictions(self, outputs, lengths):
        logits, transitions = outputs["logits"], outputs["transitions"]
        tags, score = crf.decode(logits, lengths, transitions)
        return {"tags": tags, "score": score}


class SpanDecoder(Decoder):
    """A score for each type of each run of tokens: Efficient GlobalPointer.

    From Su et al., 2022 (arXiv:2208.03054). With q and k linear in the encoder's
    output, turned by rotary position embeddings,

      s(type, i, j) = q_i . k_j / sqrt(d) + a_(type, i) + b_(type, j)

    where a and b are linear in [q; k]. A run i..j is an entity of the type where s > 0.
    The loss is theirs, too: log(1 + sum over no entities of exp(s)) + log(1 + sum over
    entities of exp(-s)) of each type. Entities may lie within and across each other.
    Memory grows with the square of T.
    """

    # The spans of a window as numbers: see `_code`.
    fields = (Field("span_codes", is_sequence=True, most_values=512),)

    _SIZE = 64  # d, as published

    def variables(self, hidden_size):
        size, types = 2 * self._SIZE, 2 * len(self._types)
        return (
            Variable("ner/span_weights", (size, hidden_size)),
            Variable("ner/span_bias", (size,), is_bias=True),
            Variable("ner/span_type_weights", (types, size)),
            Variable("ner/span_type_bias", (types,), is_bias=True),
        )

    def targets(self, spans, windows):
        codes, spans = [], sorted(spans)
        starts = [span.start for span in spans]
        for window in windows:
            begin = bisect.bisect_left(starts, window.begin)
            end = bisect.bisect_left(starts, window.end)
            inside = [
                self._code(span, window)
                for span in spans[begin:end]
                if span.end <= window.end
            ]
            codes.append({"span_codes": sorted(inside) or [_NO_SPAN]})
        return codes

    def _code(self, span, window):
        """1 + type, first and last token, as digits to the base `max_seq_length`."""
        digits = self._types.index(span.type)
        for token in (span.start, span.end - 1):
            digits = digits * self._max_seq_length + token - window.begin
        return digits + 1

    def outputs(self, sequence, values):
        weights, bias, type_weights, type_bias = values
        vectors = _linear(sequence, weights, bias)  # [B, T - 1, 2 d]
        queries, keys = tf.split(vectors, 2, axis=2)
        scores = tf.matmul(_rotated(queries), _rotated(keys), transpose_b=True)
        # `expand_dims`: TensorFlow Lite has no slices with new axes.
        scores = tf.expand_dims(scores, 1) * self._SIZE**-0.5
        by_type = tf.transpose(_linear(vectors, type_weights, type_bias), [0, 2, 1])
        starts, ends = tf.split(by_type / 2, 2, axis=1)  # [B, C, T - 1]
        scores += tf.expand_dims(starts, 3) + tf.expand_dims(ends, 2)
        return {"scores": scores}

    def losses(self, outputs, targets, lengths):
        scores = outputs["scores"]
        is_entity = self._is_entity(targets["span_codes"], tf.shape(scores))
        is_other = tf.logical_and(_are_runs(scores, lengths), ~is_entity)
        losses = _log_one_plus_sum(scores, is_other)
        losses += _log_one_plus_sum(-scores, is_entity)
        return tf.reduce_mean(losses, axis=1)

    def _is_entity(self, codes, shape):
        """bool of this shape, [B, C, T - 1, T - 1], from codes int32 [B, K]."""
        digits = tf.maximum(codes - 1, 0)
        base = self._max_seq_length
        places = [digits // base**2, digits // base % base, digits % base]
        batch = tf.tile(tf.range(shape[0])[:, None], [1, tf.shape(codes)[1]])
        indices = tf.stack([batch] + places, axis=2)
        return tf.scatter_nd(indices, tf.cast(codes > _NO_SPAN, tf.int32), shape) > 0

    def predictions(self, outputs, lengths):
        scores = outputs["scores"]
        shape = tf.shape(scores)
        runs = _are_runs(scores, lengths)
        # NaN stays, for the loop to see.
        scores = tf.where(runs, scores, tf.fill(shape, _NEVER))
        flat = tf.reshape(scores, [shape[0], -1])
        number = tf.minimum(_SPANS_PER_TOKEN * shape[2], tf.shape(flat)[1])
        best, places = tf.math.top_k(flat, number)
        length = shape[2]
        parts = [places // (length * length), places // length % length]
        spans = tf.stack(parts + [places % length], axis=2)
        return {"scores": best, "spans": spans}

    def spans(self, windows, predicted):
        found, numbers = [], []
        for i, (window, row) in enumerate(zip(windows, predicted)):
            # Padding makes room for more: what is found must not depend on it.
            most = _SPANS_PER_TOKEN * len(window.positions)
            spans = row["spans"][:most][row["scores"][:most] > 0]
            for number, first, last in spans.tolist():
                first, last = first + window.begin, last + window.begin
                found.append(Span(first, last + 1, self._types[number]))
                numbers.append(i)
        # Only the window with the most context is asked.
        firsts = [span.start for span in found]
        lasts = [span.end - 1 for span in found]
        chosen = characters.best_windows(windows, firsts, lasts).tolist()
        return sorted(
            span for span, i, best in zip(found, numbers, chosen) if i == best
        )

    def perfect(self, targets):
        spans, base = [], self._max_seq_length
        for code in targets["span_codes"]:
            if code == _NO_SPAN:
                continue
            number, places = divmod(code - 1, base**2)
            spans.append((number,) + divmod(places, base))
        return {
            "scores": np.ones(len(spans)),
            "spans": np.array(spans, np.int64).reshape([-1, 3]),
        }


# What pads lists of span codes.
_NO_SPAN = 0
# More than there can be entities in a text that people write.
_SPANS_PER_TOKEN = 4
# The score of what is no run of tokens: exp(_NEVER) is 0 in float32.
_NEVER = -1e9


def mean_over_tokens(losses, lengths):
    """The mean of each row of losses [B, T] over its first tokens; 0 without any."""
    mask = tf.sequence_mask(lengths, tf.shape(losses)[1], tf.float32)
    number = tf.maximum(tf.cast(lengths, tf.float32), 1.0)
    return tf.reduce_sum(losses * mask, axis=1) / number


def _linear(x, weights, bias):
    """x [B, T, n] -> [B, T, m] for weights [m, n]."""
    shape, size = tf.shape(x), x.shape.as_list()[-1]
    flat = tf.matmul(tf.reshape(x, [-1, size]), weights, transpose_b=True) + bias
    return tf.reshape(flat, [shape[0], shape[1], weights.shape.as_list()[0]])


def _rotated(x):
    """Rotary position embeddings (Su et al., 2021; arXiv:2104.09864) of x [B, T, d]."""
    size = x.shape.as_list()[-1]
    rates = 10000.0 ** (-np.arange(0, size, 2, dtype=np.float32) / size)
    positions = tf.cast(tf.range(tf.shape(x)[1]), tf.float32)
    angles = positions[:, None] * tf.constant(rates, tf.float32)[None]  # [T, d / 2]
    first, second = tf.split(x, 2, axis=2)
    cos, sin = tf.cos(angles), tf.sin(angles)
    rotated = [first * cos - second * sin, first * sin + second * cos]
    return tf.concat(rotated, axis=2)


def _are_runs(scores, lengths):
    """Which places of scores [B, C, T, T] are a first and a last token, in order."""
    shape = tf.shape(scores)
    tokens = tf.sequence_mask(lengths, shape[2])
    in_order = tf.range(shape[2])[:, None] <= tf.range(shape[2])[None]
    runs = tokens[:, :, None] & tokens[:, None, :] & in_order[None]
    return tf.tile(runs[:, None], [1, shape[1], 1, 1])


def _log_one_plus_sum(values, mask):
    """log(1 + sum of exp(values) where mask), [B, C, T, T] -> [B, C]."""
    shape = tf.shape(values)
    kept = tf.where(mask, values, tf.fill(shape, _NEVER))
    kept = tf.reshape(kept, [shape[0], shape[1], -1])
    one = tf.zeros_like(kept[:, :, :1])
    return tf.reduce_logsumexp(tf.concat([one, kept], axis=2), axis=2)


DECODERS = {"softmax": SoftmaxDecoder, "crf": CrfDecoder, "span": SpanDecoder}
