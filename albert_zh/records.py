"""Pretraining records as TensorFlow reads them: input pipeline and checks.

`record_format` has the schema and the writer. Records that hold no masks are masked
here, anew in every epoch.
"""

import sys
from typing import List, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from albert_zh import dynamic_masking, masking, record_format
from albert_zh.errors import UserError

# How many records the reader shuffles; the writer has shuffled within its shards.
SHUFFLE_BUFFER_RECORDS = 10000
# How many records are parsed in one call at most: it takes twice their final size,
# and several calls run at the same time.
_PARSED_TOGETHER = 512


class DynamicMasks(NamedTuple):
    """How the reader masks the records that hold no masks.

    Attributes:
      settings: `masking.MaskSettings`.
      mask_id: id of [MASK].
      ordinary_ids: int32 [n], ids that random replacements are drawn from.
    """

    settings: masking.MaskSettings
    mask_id: int
    ordinary_ids: np.ndarray


class Reading(NamedTuple):
    """How records are read; see `input_fn_builder`.

    Attributes:
      shuffle_records: records held to shuffle them.
      num_threads: files read by turns, and batches parsed at the same time.
      deterministic: bool, whether the order of training records follows from the
        seed alone; else threads need not wait for each other.
    """

    shuffle_records: int = SHUFFLE_BUFFER_RECORDS
    num_threads: int = 4
    deterministic: bool = True


DEFAULT_READING = Reading()


class Position(NamedTuple):
    """Where training begins to read; see `input_position.resume`.

    Attributes:
      num_seen: records that training has had, on all hosts together.
      file_sizes: records of each input file; not looked at where none was seen.
    """

    num_seen: int = 0
    file_sizes: List[int] = []


BEGINNING = Position()


def decode_example(serialized):
    """Returns the features of one record, dict of name to 1-D array.

    Raises:
      ValueError: the bytes are no Example, or a feature is missing or of another type.
    """
    try:
        example = tf.train.Example.FromString(serialized)
    except DecodeError as error:
        raise ValueError("the record is no tf.train.Example") from error
    held = example.features.feature
    form = record_format.STATIC if "masked_lm_ids" in held else record_format.DYNAMIC
    features = {}
    for feature in form:
        if feature.name not in held:
            raise ValueError("the record has no feature {!r}".format(feature.name))
        value = held[feature.name]
        is_float = feature.dtype == np.float32
        values = (value.float_list if is_float else value.int64_list).value
        if not values:
            raise ValueError(
                "feature {!r} of the record holds no {}".format(
                    feature.name, np.dtype(feature.dtype).name
                )
            )
        features[feature.name] = np.array(values, feature.dtype)
    return features


def input_fn_builder(
    input_files,
    max_seq_length,
    max_predictions_per_seq,
    vocab_size,
    is_training,
    seed=None,
    drop_remainder=False,
    masks=None,
    reading=DEFAULT_READING,
    position=BEGINNING,
):
    """Makes an `input_fn` for Estimator and TPUEstimator.

    Training repeats the records without end, shuffles files and records anew in
    every epoch, and has full batches only, which go across the border of epochs.
    Evaluation reads every record once, in the order of the files. Masks that are
    drawn here are other ones in every epoch of training, the same in every
    evaluation.

    An epoch's order follows from the seed and the epoch's number alone, the masks of
    a batch from the seed and the batch's number: training that begins at a position
    is given what undisturbed training is given from there on.

    Args:
      input_files: list of TFRecord files, all of one form.
      max_seq_length: length the records have, in tokens.
      max_predictions_per_seq: predictions the records have room for.
      vocab_size: int; a token id beyond it stops the run with
        `tf.errors.InvalidArgumentError`, on every device: GPUs and TPUs would read
        zeros instead.
      is_training: bool.
      seed: int, makes the order of training records, and their masks, reproducible;
        None draws one.
      drop_remainder: bool; drop the last, smaller batch of an evaluation too, so
        that shapes are static, as TPUs need them.
      masks: `DynamicMasks` for records that hold none, else None.
      reading: `Reading`.
      position: `Position` where training begins.

    Returns:
      Function of `params`, which has "batch_size", and of the `input_context` of a
      `tf.distribute` strategy, that returns a dataset of dicts of feature name to
      int32 or float32 [batch_size, length].
    """
    form = record_format.DYNAMIC if masks else record_format.STATIC
    lengths = record_format.feature_lengths(
        form, max_seq_length, max_predictions_per_seq
    )
    stream_seed = _stream_seed(seed) if is_training else 0

    def parse(number, serialized):
        features = _parse_batch(serialized, lengths)
        features = _require_in_range(features, max_seq_length, vocab_size)
        if masks:
            features = dynamic_masking.mask_features(
                features,
                tf.stack([tf.constant(stream_seed, tf.int64), number]),
                masks.mask_id,
                masks.ordinary_ids,
                masks.settings,
            )
        return features

    def input_fn(params, input_context=None):
        host, num_hosts = _host_of(params, input_context, len(input_files))
        files = list(input_files)[host::num_hosts]
        batch_size, num_seen = params["batch_size"], 0
        if is_training:
            # Every host has an equal share of each batch.
            num_seen = position.num_seen // num_hosts
            num_records = sum(position.file_sizes[host::num_hosts])
            epoch, num_skipped = divmod(num_seen, num_records) if num_seen else (0, 0)
            dataset = _epochs(files, reading, stream_seed, epoch).skip(num_skipped)
        else:
            dataset = tf.data.TFRecordDataset(files)
        parsed = _largest_divisor(batch_size) if is_training else batch_size
        dataset = dataset.batch(parsed, is_training or drop_remainder)
        dataset = dataset.enumerate(num_seen // parsed).map(
            # Hosts draw masks of their own.
            lambda number, records: parse(number * num_hosts + host, records),
            reading.num_threads,
        )
        if parsed < batch_size:
            dataset = dataset.batch(batch_size // parsed, drop_remainder=True)
            dataset = dataset.map(_join)
        options = tf.data.Options()
        options.experimental_deterministic = reading.deterministic or not is_training
        return dataset.with_options(options).prefetch(tf.data.experimental.AUTOTUNE)

    return input_fn


def _largest_divisor(batch_size):
    """The largest part of a batch, of equal ones, that is parsed in one call."""
    return next(n for n in range(_PARSED_TOGETHER, 0, -1) if batch_size % n == 0)


def _join(features):
    """Makes one batch of features [parts, size, length]: [parts * size, length]."""
    return {
        name: tf.reshape(value, [-1, value.shape.as_list()[2]])
        for name, value in features.items()
    }


def _epochs(files, reading, seed, first_epoch):
    """Returns records, a dataset of string [], epoch after epoch without end."""

    def records_of(epoch):
        dataset = tf.data.Dataset.from_tensor_slices(files)
        dataset = dataset.shuffle(
            len(files), seed=2 * epoch, reshuffle_each_iteration=False
        )
        # Remote files are worth reading in parallel. Not by `interleave` with
        # num_parallel_calls: before `repeat` it lets TensorFlow 1.15 crash when
        # the session is closed.
        dataset = dataset.apply(
            tf.data.experimental.parallel_interleave(
                tf.data.TFRecordDataset,
                cycle_length=min(reading.num_threads, len(files)),
                sloppy=not reading.deterministic,
            )
        )
        return dataset.shuffle(
            reading.shuffle_records, seed=2 * epoch + 1, reshuffle_each_iteration=False
        )

    # Datasets mix the graph's seed, which may differ after a restart, into theirs.
    graph = tf.get_default_graph()
    graph_seed, graph.seed = graph.seed, seed
    try:
        return tf.data.Dataset.range(first_epoch, sys.maxsize).flat_map(records_of)
    finally:
        graph.seed = graph_seed


def _stream_seed(seed):
    """The first half of the seeds of orders and masks; a number is the other."""
    # TensorFlow takes 0 and multiples of 2**31 - 1 for no seed.
    return np.random.RandomState(seed).randint(1, 2**31 - 1)


def _host_of(params, input_context, num_files):
    """Returns this host's number and how many hosts there are: each file has one.

    The input function is called once on every host of a TPU pod, where TPUEstimator
    gives it a `TPUContext`, and once on every worker of a `tf.distribute` strategy,
    where Estimator gives it a `tf.distribute.InputContext`; elsewhere there is one.

    Raises:
      UserError: there are fewer files than hosts.
    """
    host, num_hosts = 0, 1
    if params.get("context") is not None:
        _, host, num_hosts, _ = params["context"].current_input_fn_deployment()
    elif input_context is not None:
        host = input_context.input_pipeline_id
        num_hosts = input_context.num_input_pipelines
    if num_files < num_hosts:
        raise UserError(
            "{} input files for {} hosts or workers; expected at least one for "
            "each".format(num_files, num_hosts)
        )
    return host, num_hosts


def check_record_files(files, max_seq_length, max_predictions_per_seq, vocab_size=None):
    """Checks, by the first record of each file, that files fit a model.

    Args:
      files: list of TFRecord files.
      max_seq_length: expected length, in tokens.
      max_predictions_per_seq: expected room for predictions, where the records hold
        masks.
      vocab_size: rows of the model's embedding table, None to leave ids alone.

    Returns:
      bool, whether the records leave the masks to the reader.

    Raises:
      UserError: a file is missing, empty, no TFRecord file of pretraining records,
        or holds records of other lengths or of a larger vocabulary, or of another
        form than the first file.
    """
    is_dynamic = None
    for path in files:
        try:
            features = decode_example(next(record_format.read_records(path)))
        except ValueError as error:
            raise UserError(
                "cannot use {} as pretraining records: {}; expected a file written by "
                "create_pretraining_data.py".format(path, error)
            ) from error
        if is_dynamic not in (None, "word_lengths" in features):
            raise UserError(
                "{} and {}: one has masks, the other leaves them to the reader "
                "(--masking=dynamic); give files of one kind".format(files[0], path)
            )
        is_dynamic = "word_lengths" in features
        _check_lengths(path, features, max_seq_length, max_predictions_per_seq)
        ids = [features.get(name, [0]) for name in ("input_ids", "masked_lm_ids")]
        largest = np.concatenate(ids).max()
        if vocab_size is not None and largest >= vocab_size:
            raise UserError(
                "{}: has token id {}, the config's vocab_size is {}; give the config "
                "that belongs to the records' vocabulary".format(
                    path, largest, vocab_size
                )
            )
    return bool(is_dynamic)


def _check_lengths(path, features, max_seq_length, max_predictions_per_seq):
    """Raises `UserError` where the first record of a file has other lengths."""
    form = record_format.STATIC + record_format.DYNAMIC
    for feature, expected in record_format.feature_lengths(
        form, max_seq_length, max_predictions_per_seq
    ):
        received = len(features.get(feature.name, [])) or expected
        if received != expected:
            raise UserError(
                "{0}: its records have {1} {2}, but {3} was given; pass --{1}={2} or "
                "make the records anew".format(path, feature.length, received, expected)
            )


def find_corrupt_file(files):
    """Returns the first of the files with a truncated or damaged record, or None.

    Reads the files whole, and so is meant for after a `tf.errors.DataLossError`,
    which does not say where it arose.
    """
    for path in files:
        try:
            for _ in record_format.read_records(path):
                pass
        except ValueError:
            return path
    return None


def _parse_batch(serialized, lengths):
    """Parses records, string [batch_size], into a dict of int32 or float32 tensors.

    One call for a whole batch is several times as fast as one for every record.
    """
    spec = {
        feature.name: tf.FixedLenFeature([length], tf.as_dtype(feature.dtype))
        for feature, length in lengths
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
        "word_lengths": max_seq_length,
        "segment_ids": 2,
        "next_sentence_labels": 2,
    }
    checks = []
    for name in sorted(set(limits) & set(features)):
        value, limit = features[name], limits[name]
        is_right = tf.reduce_all((value >= 0) & (value < limit))
        message = "{} of a record is not in [0, {})".format(name, limit)
        checks.append(tf.debugging.Assert(is_right, [message]))
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in features.items()}
