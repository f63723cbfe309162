"""Examples to model inputs: tokens, truncation, record files, input pipeline.

Records hold unpadded sequences. The input pipeline pads each batch to its longest
sequence on CPU and GPU, which `input_mask` makes exact, and to `max_seq_length`
on TPU, which needs static shapes.
"""

import contextlib
import os
import tempfile
import uuid
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.base import files
from albert_zh.data import record_format

# Where a process opens its own open files once more, by their number.
_OPEN_FILES = "/dev/fd"


class Field(NamedTuple):
    """A feature of a kind of task, beside the encoder's inputs.

    Attributes:
      name: of the feature.
      is_sequence: bool; whether it has a value for each token, padded with 0 as they
        are; else it has one value.
      dtype: np.int64 or np.float32; integers reach the model as int32.
    """

    name: str
    is_sequence: bool = False
    dtype: type = np.int64


class Features(NamedTuple):
    """Model inputs of one example, or of one window of it, unpadded.

    Attributes:
      input_ids: token ids, [CLS] text_a [SEP] or [CLS] text_a [SEP] text_b [SEP].
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
    """Positions of the features from the shortest to the longest, int64 [n].

    Batches of one length need little padding: evaluation reads in this order.
    """
    lengths = [len(item.input_ids) for item in features]
    return np.argsort(lengths, kind="stable")


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
    padding = Features([0], [0])
    for item in features:
        yield _serialize(item, fields, is_real_example=1)
    for _ in range(num_padding_examples):
        yield _serialize(padding, fields, is_real_example=0)


def _serialize(item, fields, is_real_example):
    values = {
        "input_ids": item.input_ids,
        "input_mask": [1] * len(item.input_ids),
        "segment_ids": item.segment_ids,
        _IS_REAL.name: [is_real_example],
    }
    for field in fields:
        # Texts to predict have no targets.
        default = [0] * len(item.input_ids) if field.is_sequence else 0
        value = item.targets.get(field.name, default)
        value = value if field.is_sequence else [value]
        values[field.name] = np.asarray(value, field.dtype)
    return record_format.encode_example(values)


def training_input_fn(path, num_examples, fields, padded_length=None):
    """Builds the input of one epoch: every example once, in a random order.

    Args:
      path: a file `write_records` wrote.
      num_examples: its number of examples; all of them are shuffled together.
      fields: tuple of `Field`, as the file was written with.
      padded_length: length every sequence is padded to and batches are made full
        for (TPU: a last partial batch is left out); None pads to the longest of
        each batch and keeps the last partial batch.

    Returns:
      A function (batch_size, seed, skip) -> `tf.data.Dataset`: the order follows from
      `seed`; `skip` batches of it are left out. They are integers or int64 tensors.
    """

    def input_fn(batch_size, seed, skip=0):
        dataset = tf.data.TFRecordDataset(path)
        dataset = dataset.shuffle(num_examples, seed=seed)
        dataset = dataset.batch(batch_size, drop_remainder=padded_length is not None)
        dataset = dataset.skip(skip)
        return _decoded(dataset, fields, padded_length)

    return input_fn


def prediction_input_fn(fields, padded_length=None):
    """Returns a function (path, batch_size) -> dataset of a file once, in its order.

    The arguments are those of `training_input_fn`.
    """

    def input_fn(path, batch_size):
        dataset = tf.data.TFRecordDataset(path)
        dataset = dataset.batch(batch_size, drop_remainder=padded_length is not None)
        return _decoded(dataset, fields, padded_length)

    return input_fn


def _decoded(dataset, fields, padded_length):
    """Batches of serialized examples -> dicts of [B, T] and [B], int32 or float32."""
    fields = _INPUTS + (_IS_REAL,) + fields
    schema = {}
    for field in fields:
        dtype = tf.as_dtype(field.dtype)
        if field.is_sequence:
            schema[field.name] = tf.io.FixedLenSequenceFeature(
                [], dtype, allow_missing=True
            )
        else:
            schema[field.name] = tf.io.FixedLenFeature([], dtype)

    def decode(serialized):
        batch = tf.io.parse_example(serialized, schema)
        for name, value in batch.items():
            if value.dtype == tf.int64:
                batch[name] = tf.cast(value, tf.int32)
        if padded_length is not None:
            for field in fields:
                if field.is_sequence:
                    batch[field.name] = _pad(batch[field.name], padded_length)
        return batch

    return dataset.map(decode).prefetch(2)


def _pad(values, length):
    """Pads [B, T] with zeros to the static shape [B, length]."""
    values = tf.pad(values, [[0, 0], [0, length - tf.shape(values)[1]]])
    values.set_shape([None, length])
    return values
