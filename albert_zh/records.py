"""Pretraining records: one schema for the writer, the reader and every check.

A record is a serialized `tf.train.Example` with the features that the published
BERT and ALBERT scripts write and read, padded with zeros to a fixed length:

  input_ids             int64 [max_seq_length], [CLS] A [SEP] B [SEP], masked
  input_mask            int64 [max_seq_length], 1 for tokens, 0 for padding
  segment_ids           int64 [max_seq_length], 1 for B and its [SEP]
  masked_lm_positions   int64 [max_predictions_per_seq], ascending
  masked_lm_ids         int64 [max_predictions_per_seq], the original ids
  masked_lm_weights     float [max_predictions_per_seq], 1.0 for real predictions
  next_sentence_labels  int64 [1], 0 = A comes before B in the document, 1 = after
"""

import contextlib
import os
import struct
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from albert_zh.errors import UserError

# A record of length 512 has about 2.5 KB, so that a full buffer holds 250 MB.
SHUFFLE_BUFFER_RECORDS = 100000

# How many records the reader shuffles; the writer has shuffled across documents.
_READER_SHUFFLE_RECORDS = 10000


class _Feature(NamedTuple):
    name: str
    length: str  # which of the lengths of `_lengths`
    dtype: tf.DType


FEATURES = (
    _Feature("input_ids", "max_seq_length", tf.int64),
    _Feature("input_mask", "max_seq_length", tf.int64),
    _Feature("segment_ids", "max_seq_length", tf.int64),
    _Feature("masked_lm_positions", "max_predictions_per_seq", tf.int64),
    _Feature("masked_lm_ids", "max_predictions_per_seq", tf.int64),
    _Feature("masked_lm_weights", "max_predictions_per_seq", tf.float32),
    _Feature("next_sentence_labels", "one", tf.int64),
)


def encode_instance(instance, max_seq_length, max_predictions_per_seq):
    """Returns an `instances.Instance`, padded with zeros, as a record (bytes)."""
    num_tokens = len(instance.input_ids)
    num_predictions = len(instance.masked_lm_ids)
    values = {
        "input_ids": instance.input_ids,
        "input_mask": np.ones(num_tokens, np.int64),
        "segment_ids": instance.segment_ids,
        "masked_lm_positions": instance.masked_lm_positions,
        "masked_lm_ids": instance.masked_lm_ids,
        "masked_lm_weights": np.ones(num_predictions, np.float32),
        "next_sentence_labels": np.array([instance.swapped], np.int64),
    }
    lengths = _lengths(max_seq_length, max_predictions_per_seq)
    padded = {}
    for feature in FEATURES:
        array = np.zeros(lengths[feature.length], feature.dtype.as_numpy_dtype)
        array[: len(values[feature.name])] = values[feature.name]
        padded[feature.name] = array
    return encode_example(padded)


def encode_example(features):
    """Serializes one record; equal features give equal bytes.

    Args:
      features: dict of feature name to 1-D array, for every one of `FEATURES`.

    Returns:
      bytes.
    """
    example = tf.train.Example()
    for feature in FEATURES:
        values = features[feature.name].tolist()
        target = example.features.feature[feature.name]
        if feature.dtype == tf.float32:
            target.float_list.value.extend(values)
        else:
            target.int64_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


def decode_example(serialized):
    """Returns the features of one record, dict of name to 1-D array.

    Raises:
      ValueError: the bytes are no Example, or a feature is missing.
    """
    try:
        example = tf.train.Example.FromString(serialized)
    except DecodeError as error:
        raise ValueError("the record is no tf.train.Example") from error
    features = {}
    for feature in FEATURES:
        if feature.name not in example.features.feature:
            raise ValueError("the record has no feature {!r}".format(feature.name))
        value = example.features.feature[feature.name]
        values = value.float_list if feature.dtype == tf.float32 else value.int64_list
        features[feature.name] = np.array(values.value, feature.dtype.as_numpy_dtype)
    return features


def input_fn_builder(
    input_files,
    max_seq_length,
    max_predictions_per_seq,
    vocab_size,
    is_training,
    num_cpu_threads=4,
    seed=None,
    drop_remainder=False,
):
    """Makes an `input_fn` for Estimator and TPUEstimator.

    Training repeats the records without end, shuffles files and records anew in
    every epoch, and has full batches only. Evaluation reads every record once, in
    the order of the files.

    Args:
      input_files: list of TFRecord files.
      max_seq_length: length the records have, in tokens.
      max_predictions_per_seq: predictions the records have room for.
      vocab_size: int; a token id beyond it stops the run with
        `tf.errors.InvalidArgumentError`, on every device: GPUs and TPUs would read
        zeros instead.
      is_training: bool.
      num_cpu_threads: files read, and batches parsed, at the same time.
      seed: int, makes the order of training records reproducible; None draws one.
      drop_remainder: bool; drop the last, smaller batch of an evaluation too, so
        that shapes are static, as TPUs need them.

    Returns:
      Function of `params`, which has "batch_size", that returns a dataset of dicts
      of feature name to int32 or float32 [batch_size, length].
    """

    def parse(serialized):
        features = _parse_batch(serialized, max_seq_length, max_predictions_per_seq)
        return _require_in_range(features, max_seq_length, vocab_size)

    def input_fn(params):
        files = _files_of_this_host(input_files, params)
        dataset = tf.data.Dataset.from_tensor_slices(files)
        if is_training:
            dataset = dataset.shuffle(len(files), seed=seed)
            dataset = dataset.interleave(
                tf.data.TFRecordDataset,
                cycle_length=min(num_cpu_threads, len(files)),
                num_parallel_calls=min(num_cpu_threads, len(files)),
            )
            dataset = dataset.shuffle(_READER_SHUFFLE_RECORDS, seed=seed).repeat()
        else:
            dataset = dataset.flat_map(tf.data.TFRecordDataset)
        dataset = dataset.batch(
            params["batch_size"], drop_remainder=is_training or drop_remainder
        )
        dataset = dataset.map(parse, num_parallel_calls=num_cpu_threads)
        return dataset.prefetch(tf.data.experimental.AUTOTUNE)

    return input_fn


def _files_of_this_host(input_files, params):
    """The files that this host of a TPU pod reads; all of them elsewhere.

    TPUEstimator calls the input function once on every host and gives it a
    `TPUContext`.

    Raises:
      UserError: there are fewer files than hosts.
    """
    context = params.get("context")
    if context is None:
        return list(input_files)
    _, host, num_hosts, _ = context.current_input_fn_deployment()
    if len(input_files) < num_hosts:
        raise UserError(
            "{} input files for {} TPU hosts; expected at least one for each".format(
                len(input_files), num_hosts
            )
        )
    return list(input_files)[host::num_hosts]


def check_record_files(files, max_seq_length, max_predictions_per_seq, vocab_size=None):
    """Checks, by the first record of each file, that files fit a model.

    Args:
      files: list of TFRecord files.
      max_seq_length: expected length, in tokens.
      max_predictions_per_seq: expected room for predictions.
      vocab_size: rows of the model's embedding table, None to leave ids alone.

    Raises:
      UserError: a file is missing, empty, no TFRecord file of pretraining records,
        or holds records of other lengths or of a larger vocabulary.
    """
    for path in files:
        try:
            features = decode_example(_first_record(path))
        except (OSError, tf.errors.OpError, ValueError) as error:
            raise UserError(
                "cannot use {} as pretraining records: {}; expected a file written by "
                "create_pretraining_data.py".format(path, _reason(error))
            ) from error
        for feature, expected in _feature_lengths(
            max_seq_length, max_predictions_per_seq
        ):
            received = len(features[feature.name])
            if received != expected:
                raise UserError(
                    "{}: its records have {} {}, but {} was given; pass --{}={} or "
                    "make the records anew".format(
                        path,
                        feature.length,
                        received,
                        expected,
                        feature.length,
                        received,
                    )
                )
        largest = max(features["input_ids"].max(), features["masked_lm_ids"].max())
        if vocab_size is not None and largest >= vocab_size:
            raise UserError(
                "{}: has token id {}, the config's vocab_size is {}; give the config "
                "that belongs to the records' vocabulary".format(
                    path, largest, vocab_size
                )
            )


def find_corrupt_file(files):
    """Returns the first of the files with a truncated or corrupt record, or None.

    Reads the files whole, and so is meant for after a `tf.errors.DataLossError`,
    which does not say where it arose.
    """
    for path in files:
        try:
            for _ in tf.io.tf_record_iterator(path):
                pass
        except tf.errors.DataLossError:
            return path
    return None


def expand_output_files(names, input_files):
    """Returns the output files that comma-separated names stand for.

    Args:
      names: str, file names separated by commas.
      input_files: every file the command reads, its vocabulary or model included;
        None stands for a file that is not given.

    Raises:
      UserError: there is none, one is named twice, or one is an input file.
    """
    paths = [name.strip() for name in names.split(",") if name.strip()]
    inputs = {os.path.abspath(path) for path in input_files if path}
    outputs = {os.path.abspath(path) for path in paths}
    if not paths or len(outputs) < len(paths) or inputs & outputs:
        raise UserError(
            "cannot write to {!r}; expected file names separated by commas, each of "
            "them once and none of them an input file".format(names)
        )
    return paths


def shuffle_records(records, rng, buffer_records=SHUFFLE_BUFFER_RECORDS):
    """Shuffles a stream within a bounded buffer.

    Args:
      records: iterable.
      rng: `np.random.RandomState`.
      buffer_records: records held at most; a stream that is not longer is shuffled
        whole, in a longer one records of neighbouring documents are spread over
        about as many records.

    Yields:
      Each record once.
    """
    buffer = []
    for record in records:
        if len(buffer) < buffer_records:
            buffer.append(record)
            continue
        place = rng.randint(buffer_records)
        yield buffer[place]
        buffer[place] = record
    for place in rng.permutation(len(buffer)):
        yield buffer[place]


def write_records(records, paths):
    """Writes records to TFRecord files in turn; all files appear whole, or none.

    They are written beside their targets and renamed, over what may be there, when
    all are complete. `records` is not read before all files could be opened.

    Args:
      records: iterable of bytes, at least one for each file.
      paths: files to write.

    Returns:
      int, the number of records.

    Raises:
      UserError: a file cannot be written, or there are fewer records than files.
    """
    count = 0
    with _whole_files(paths) as writers:
        for record in records:
            writers[count % len(writers)].write(record)
            count += 1
        if count < len(paths):
            raise UserError(
                "the input gives {} records, but {} output files are named; expected "
                "at least one record for each file".format(count, len(paths))
            )
    return count


def write_text(text, path):
    """Writes a UTF-8 text file, local or remote, that appears whole or not at all."""
    temporary = _temporary_name(path)
    try:
        with _writing(path):
            with tf.io.gfile.GFile(temporary, "w") as file:
                file.write(text)
            tf.io.gfile.rename(temporary, path, overwrite=True)
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)


@contextlib.contextmanager
def _whole_files(paths):
    """Opens TFRecord writers whose files get their names when the block succeeds."""
    temporaries = [_temporary_name(path) for path in paths]
    writers = []
    try:
        for path, temporary in zip(paths, temporaries):
            with _writing(path):
                tf.io.gfile.makedirs(os.path.dirname(path) or ".")
                writers.append(tf.io.TFRecordWriter(temporary))
        with _writing(", ".join(paths)):
            yield writers
            while writers:
                writers.pop().close()
            for path, temporary in zip(paths, temporaries):
                tf.io.gfile.rename(temporary, path, overwrite=True)
    finally:
        del writers[:]
        for temporary in temporaries:
            if tf.io.gfile.exists(temporary):
                tf.io.gfile.remove(temporary)


@contextlib.contextmanager
def _writing(path):
    """Turns a failure to write into a `UserError` that names the file."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(
            "cannot write {}: {}; expected a place with room that can be written "
            "to".format(path, error.message)
        ) from error


def _temporary_name(path):
    """A name beside the target: renaming within one file system is atomic."""
    directory, name = os.path.split(path)
    return os.path.join(directory, ".{}.{}.partial".format(name, os.getpid()))


def _first_record(path):
    """Returns the first record of a TFRecord file.

    Reads the format's framing itself (length, its checksum, data, its checksum):
    TensorFlow's readers either need a session or log a deprecation.

    Raises:
      ValueError: the file is empty or does not begin with a whole record.
      tf.errors.OpError: it cannot be read.
    """
    size = tf.io.gfile.stat(path).length
    if size == 0:
        raise ValueError("the file is empty")
    with tf.io.gfile.GFile(path, "rb") as file:
        header = file.read(12)
        length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
        if length + 16 > size:
            raise ValueError("it is truncated or no TFRecord file")
        return file.read(length)


def _parse_batch(serialized, max_seq_length, max_predictions_per_seq):
    """Parses records, string [batch_size], into a dict of int32 or float32 tensors.

    One call for a whole batch is several times as fast as one for every record.
    """
    spec = {
        feature.name: tf.FixedLenFeature([length], feature.dtype)
        for feature, length in _feature_lengths(max_seq_length, max_predictions_per_seq)
    }
    features = tf.parse_example(serialized, spec)
    return {
        # TPUs have no int64.
        name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
        for name, value in features.items()
    }


def _require_in_range(features, max_seq_length, vocab_size):
    """Returns the features, which fail where an id or a position is out of range."""
    limits = {
        "input_ids": vocab_size,
        "masked_lm_ids": vocab_size,
        "masked_lm_positions": max_seq_length,
        "segment_ids": 2,
        "next_sentence_labels": 2,
    }
    checks = []
    for name, limit in limits.items():
        value = features[name]
        is_right = tf.reduce_all((value >= 0) & (value < limit))
        message = "{} of a record is not in [0, {})".format(name, limit)
        checks.append(tf.debugging.Assert(is_right, [message]))
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in features.items()}


def _lengths(max_seq_length, max_predictions_per_seq):
    return {
        "max_seq_length": max_seq_length,
        "max_predictions_per_seq": max_predictions_per_seq,
        "one": 1,
    }


def _feature_lengths(max_seq_length, max_predictions_per_seq):
    """Returns the list of (feature, length)."""
    lengths = _lengths(max_seq_length, max_predictions_per_seq)
    return [(feature, lengths[feature.length]) for feature in FEATURES]


def _reason(error):
    """A TensorFlow error's own message, without the operation it arose in."""
    return getattr(error, "message", None) or str(error)
