"""Examples to model inputs: tokens, truncation, record files, input pipeline.

Records hold unpadded sequences. The input pipeline pads each batch to its longest
sequence on CPU and GPU, which `input_mask` makes exact; to few different lengths where
XLA compiles each of them; and to `max_seq_length` on TPU, which needs static shapes.

A record may hold several sequences, such as one for each choice of a question: one
after another, and their lengths in a field that `sequence_lengths` makes.
"""

import contextlib
import itertools
import os
import tempfile
import uuid
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from albert_zh.base import files
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.data import record_format

# Bounds the memory of encoding.
_ENCODED_AT_ONCE = 1000
# More mixes lengths more; fewer than about ten repeat the same batches every epoch.
_MIXED_BATCHES = 16
# Where a process opens its own open files once more, by their number.
_OPEN_FILES = "/dev/fd"


class Field(NamedTuple):
    """A feature of a kind of task, beside the encoder's inputs.

    Attributes:
      name: of the feature.
      is_sequence: bool; whether it has a value for each token, padded with 0 as they
        are; else it has one value, or `size` values.
      dtype: np.int64 or np.float32; integers reach the model as int32.
      size: number of its values, where they are neither one nor one for each token.
      most_values: int, the most values it has, where they are not one for each token;
        None where they are.
    """

    name: str
    is_sequence: bool = False
    dtype: type = np.int64
    size: Optional[int] = None
    most_values: Optional[int] = None


class Features(NamedTuple):
    """Model inputs of one example, or of one window of it, unpadded.

    Attributes:
      input_ids: token ids, [CLS] text_a [SEP] or [CLS] text_a [SEP] text_b [SEP]; or
        several such sequences, one after another.
      segment_ids: 0 up to the first [SEP] and 1 after it, same length.
      targets: dict name -> value or list, of the kind's `target_fields`.
      is_truncated: whether tokens of the example stand in no window.
      notes: what to tell the user of the example, each a predicate such as "have a
        question of over 64 tokens"; the examples of each note are counted.
      origin: what the kind needs to decode this window's outputs.
    """

    input_ids: List[int]
    segment_ids: List[int]
    targets: Dict[str, Any] = {}
    is_truncated: bool = False
    notes: Tuple[str, ...] = ()
    origin: Any = None


_INPUTS = tuple(
    Field(name, is_sequence=True) for name in ("input_ids", "input_mask", "segment_ids")
)
_IS_REAL = Field("is_real_example")

# Name of the field of `sequence_lengths`.
SEQUENCE_LENGTHS = "sequence_lengths"


def sequence_lengths(most_sequences):
    """Returns the `Field` of windows that hold several sequences one after another.

    Its value is the list of their lengths. With it a batch of B windows of at most C
    sequences has [B*C, T] encoder inputs, those of a window in consecutive rows;
    `sequence_lengths` is [B, C], 0 for absent sequences, whose rows are padding. C is
    the most of the batch, on TPU the most there may be.

    Args:
      most_sequences: the most sequences of a window.
    """
    return Field(SEQUENCE_LENGTHS, is_sequence=True, most_values=most_sequences)


def truncate_pair(tokens_a, tokens_b, max_tokens):
    """Cuts the longer of two token lists, one token at a time, until both fit.

    The rule of BERT's scripts: where both are of one length, the second is cut.

    Args:
      tokens_a: list of tokens.
      tokens_b: list of tokens, empty for single texts.
      max_tokens: most tokens the two may have together.

    Returns:
      (tokens_a, tokens_b), prefixes of the lists given.
    """
    length_a, length_b = len(tokens_a), len(tokens_b)
    while length_a + length_b > max_tokens:
        if length_a > length_b:
            length_a -= 1
        else:
            length_b -= 1
    return tokens_a[:length_a], tokens_b[:length_b]


def chunked(items, size):
    """Yields the items of an iterable in lists of `size`; the last may be shorter."""
    items = iter(items)
    yield from iter(lambda: list(itertools.islice(items, size)), [])


def pair_features(tokenizer, text_a, text_b, max_seq_length):
    """The inputs of a text or of a pair of texts, cut to fit.

    Args:
      tokenizer: a `tokenization.FullTokenizer`.
      text_a, text_b: the texts; `text_b` is None for a single text.
      max_seq_length: most tokens, [CLS] and [SEP] included.

    Returns:
      `Features` without targets.
    """
    is_pair = text_b is not None
    tokens_a = tokenizer.tokenize(text_a)
    tokens_b = tokenizer.tokenize(text_b) if is_pair else []
    max_tokens = max_seq_length - (3 if is_pair else 2)
    kept_a, kept_b = truncate_pair(tokens_a, tokens_b, max_tokens)
    ids_a = tokenizer.convert_tokens_to_ids(kept_a)
    input_ids = [tokenizer.cls_id] + ids_a + [tokenizer.sep_id]
    segment_ids = [0] * len(input_ids)
    if is_pair:
        ids_b = tokenizer.convert_tokens_to_ids(kept_b) + [tokenizer.sep_id]
        input_ids += ids_b
        segment_ids += [1] * len(ids_b)
    is_truncated = len(kept_a) + len(kept_b) < len(tokens_a) + len(tokens_b)
    return Features(input_ids, segment_ids, is_truncated=is_truncated)


def length_order(features):
    """Positions of the features from the fewest to the most tokens, int64 [n].

    Batches of one length need little padding. Among equal lengths the order is random,
    but always the same: in a file sorted by label, neighbours would share their label.
    """
    lengths = np.array([len(item.input_ids) for item in features], np.int64)
    mixed = np.random.RandomState(0).permutation(len(lengths))
    return mixed[np.argsort(lengths[mixed], kind="stable")]


@contextlib.contextmanager
def temporary_records(directory, name, features, fields, num_padding_examples=0):
    """Makes a TFRecord file of features that lives as long as the block.

    Where the system can open a file that has no name (Linux, macOS), it has none: the
    system frees it when the process ends, also when it is killed.

    Args:
      directory: local or remote, where there is room for it; None for the system's
        directory of temporary files.
      name: short name of the features.
      features: iterable of `Features`.
      fields: tuple of `Field`, the targets that the records hold.
      num_padding_examples: as `write_records` takes it.

    Yields:
      The path to read it from.

    Raises:
      UserError: it cannot be written.
    """
    if directory is None:
        with files.writing("temporary records (TMPDIR names where)"):
            directory = tempfile.gettempdir()
    if files.is_remote(directory) or not os.path.isdir(_OPEN_FILES):
        # A name that is nobody else's: neither the user's nor another process's.
        path = os.path.join(directory, ".{}.{}.tfrecord".format(name, uuid.uuid4().hex))
        serialized = _serialize_all(features, fields, num_padding_examples)
        record_format.write_records(serialized, path)
        try:
            yield path
        finally:
            with files.removing(path):
                files.remove(path)
        return
    with contextlib.ExitStack() as stack:
        with files.writing(os.path.join(directory, name + " records")):
            file = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            for record in _serialize_all(features, fields, num_padding_examples):
                file.write(record_format.frame(record))
            file.flush()
        yield os.path.join(_OPEN_FILES, str(file.fileno()))


def write_records(path, features, fields, num_padding_examples=0):
    """Writes a TFRecord file of features; it appears whole or not at all.

    Args:
      path: local or remote file, replaced where it exists.
      features: iterable of `Features`.
      fields: tuple of `Field`, the targets that the records hold.
      num_padding_examples: examples with `is_real_example` 0 added at the end, to
        fill the last batch where batches must be full.
    """
    records = _serialize_all(features, fields, num_padding_examples)
    record_format.write_records(records, path)


def _serialize_all(features, fields, num_padding_examples):
    """Yields the records, bytes, of features and of padding."""
    padding = [Features([0], [0])] * num_padding_examples
    for is_real, items in ((1, features), (0, padding)):
        rows = (_numbers(item, fields) for item in items)
        # NumPy encodes rows of the same lengths together; they come in that order.
        for _, group in itertools.groupby(rows, lambda row: [len(n) for n in row]):
            for some in chunked(group, _ENCODED_AT_ONCE):
                yield from _serialize(some, fields, is_real)


def _numbers(item, fields):
    """The list of the lists of numbers of a `Features`: inputs, then `fields`."""
    length = len(item.input_ids)
    numbers = [item.input_ids, [1] * length, item.segment_ids]
    for field in fields:
        # Texts to predict have no targets.
        default = [0] * (length if field.is_sequence else field.size or 1)
        if field.name == SEQUENCE_LENGTHS:
            default = [length]  # of padding: one sequence
        value = item.targets.get(field.name, default)
        has_one = np.ndim(value) == 0
        numbers.append([value] if has_one else value)
    return numbers


def _serialize(rows, fields, is_real_example):
    """Returns the records of rows from `_numbers` that have the same lengths."""
    columns = {
        field.name: np.array(numbers, field.dtype)
        for field, numbers in zip(_INPUTS + fields, zip(*rows))
    }
    columns[_IS_REAL.name] = np.full([len(rows), 1], is_real_example)
    return record_format.encode_batch(columns)


def training_input_fn(path, num_examples, fields, padded_length=None, rounding=None):
    """Builds the input of one epoch: every example once, in a random order.

    A batch has examples of similar length, since padding costs as much as tokens do:
    examples are shuffled among `_MIXED_BATCHES` batches' worth of neighbours, then the
    batches among all.

    Args:
      path: a file `write_records` wrote, of features in `length_order`.
      num_examples: its number of examples.
      fields: tuple of `Field`, as the file was written with.
      padded_length: length every sequence is padded to and batches are made full
        for (TPU: a last partial batch is left out); None pads to the longest of
        each batch and keeps the last partial batch.
      rounding: (multiple, longest), int; with `padded_length` None, each batch is
        padded to a multiple, yet to no more than `longest`, so that there are few
        different shapes. `longest` is no less than the longest sequence.

    Returns:
      A function (batch_size, seed, skip) -> `tf.data.Dataset`: the order follows from
      `seed`; `skip` batches of it are left out. They are integers or int64 tensors.
    """

    def input_fn(batch_size, seed, skip=0):
        dataset = tf.data.TFRecordDataset(path)
        if padded_length is None:  # memory is reserved for what is asked for
            batch_size = tf.minimum(tf.cast(batch_size, tf.int64), num_examples)
        neighbours = _MIXED_BATCHES * tf.cast(batch_size, tf.int64)
        neighbours = tf.minimum(neighbours, num_examples)
        dataset = dataset.shuffle(neighbours, seed=seed)
        dataset = dataset.batch(batch_size, drop_remainder=padded_length is not None)
        dataset = dataset.shuffle(num_examples, seed=seed)  # at most one a batch
        dataset = dataset.skip(skip)
        return _decoded(dataset, fields, padded_length, rounding)

    return input_fn


def prediction_input_fn(fields, padded_length=None, rounding=None):
    """Returns a function (path, batch_size) -> dataset of a file once, in its order.

    The arguments are those of `training_input_fn`.
    """

    def input_fn(path, batch_size):
        dataset = tf.data.TFRecordDataset(path)
        dataset = dataset.batch(batch_size, drop_remainder=padded_length is not None)
        return _decoded(dataset, fields, padded_length, rounding)

    return input_fn


def _decoded(dataset, fields, padded_length, rounding):
    """Batches of serialized examples -> dicts of [B, T] and [B], int32 or float32.

    With several sequences a window, the encoder's inputs are [B*C, T].
    """
    has_several = any(field.name == SEQUENCE_LENGTHS for field in fields)
    fields = _INPUTS + (_IS_REAL,) + fields
    schema = {field.name: _parsed_as(field, has_several) for field in fields}

    def decode(serialized):
        batch = tf.io.parse_example(serialized, schema)
        if padded_length is not None:
            for field in fields:
                if field.most_values is not None:
                    batch[field.name] = _pad(batch[field.name], field.most_values)
        if has_several:
            for field in _INPUTS:
                batch[field.name] = _split(batch[field.name], batch[SEQUENCE_LENGTHS])
        for name, value in batch.items():
            if value.dtype == tf.int64:
                batch[name] = tf.cast(value, tf.int32)
        if padded_length is not None or rounding:
            for field in fields:
                if field.is_sequence and field.most_values is None:
                    values = batch[field.name]
                    length = padded_length or _rounded_up(values, *rounding)
                    batch[field.name] = _pad(values, length)
        return batch

    return dataset.map(decode).prefetch(2)


def _parsed_as(field, has_several):
    """How `tf.io.parse_example` reads a field."""
    dtype = tf.as_dtype(field.dtype)
    if has_several and field in _INPUTS:
        return tf.io.VarLenFeature(dtype)
    if field.is_sequence:
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
    shape = [] if field.size is None else [field.size]
    return tf.io.FixedLenFeature(shape, dtype)


def _split(values, lengths):
    """Makes a row of each sequence of a batch, padded with zeros to the longest.

    Args:
      values: sparse int64 [B, n], the sequences of a window one after another.
      lengths: int64 [B, C], of these sequences, 0 for absent ones.

    Returns:
      int64 [B*C, T].
    """
    lengths = tf.reshape(lengths, [-1])
    rows = tf.RaggedTensor.from_row_lengths(values.values, lengths).to_tensor()
    rows.set_shape([lengths.shape[0], None])
    return rows


def _rounded_up(values, multiple, longest):
    """The length T of [B, T], rounded up to a multiple, an int32 scalar tensor."""
    return tf.minimum(-(-tf.shape(values)[1] // multiple) * multiple, longest)


def _pad(values, length):
    """Pads [B, T] with zeros to [B, length], a static shape where `length` is int."""
    values = tf.pad(values, [[0, 0], [0, length - tf.shape(values)[1]]])
    values.set_shape([None, None if tf.is_tensor(length) else length])
    return values
