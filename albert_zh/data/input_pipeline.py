"""Pretraining records as TensorFlow reads them: input pipeline and checks.

`record_format` has the schema and the writer. Records without masks get new masks
here in every epoch.
"""

import contextlib
import logging
import sys
from typing import List, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.data import dynamic_masking, masking, record_format

# Records in the reader's shuffle buffer. The writer shuffles within shards, so an
# output file is a row of shards, each of one source. The buffer has to span many of
# them: from batches of one kind of text at a time, a model learns and forgets.
SHUFFLE_BUFFER_RECORDS = 100000
# The most records parsed in one call: a call needs twice their final size, and several
# run in parallel.
_PARSED_TOGETHER = 512
# The fewest records worth a call of their own.
_WORTH_A_CALL = 64
# Largest weight of a masked token; the published writers give 1. Far above any
# sensible weight, yet the sums of a batch stay finite.
MAX_WEIGHT = 1e6
_IDS = ("input_ids", "masked_lm_ids")

_LOGGER = logging.getLogger(__name__)


class DynamicMasks(NamedTuple):
    """How the reader masks records without masks.

    Attributes:
      settings: `masking.MaskSettings`.
      mask_id: id of [MASK].
      ordinary_ids: int32 [n], ids that random replacements are drawn from.
    """

    settings: masking.MaskSettings
    mask_id: int
    ordinary_ids: np.ndarray


class Form(NamedTuple):
    """The lengths and values that every record of a run must have.

    Attributes:
      max_seq_length: length in tokens.
      max_predictions_per_seq: number of predictions, padding included.
      vocab_size: rows of the model's embedding table, None to leave ids unchecked.
      type_vocab_size: number of segment types of the model.
      is_dynamic: bool, whether the reader draws the masks.
    """

    max_seq_length: int
    max_predictions_per_seq: int
    vocab_size: Optional[int] = None
    type_vocab_size: int = 2
    is_dynamic: bool = False

    @property
    def schema(self):
        """The tuple of `record_format.Feature`."""
        return record_format.DYNAMIC if self.is_dynamic else record_format.STATIC

    def lengths(self):
        """Returns the list of (feature, length)."""
        return record_format.feature_lengths(
            self.schema, self.max_seq_length, self.max_predictions_per_seq
        )

    def largest(self):
        """Returns a dict feature name -> largest value; the smallest is 0."""
        largest = {
            "input_mask": 1,
            "segment_ids": self.type_vocab_size - 1,
            "masked_lm_positions": self.max_seq_length - 1,
            "masked_lm_weights": MAX_WEIGHT,
            "word_lengths": self.max_seq_length - 1,
            "next_sentence_labels": 1,
        }
        if self.vocab_size is not None:
            largest.update(dict.fromkeys(_IDS, self.vocab_size - 1))
        names = {feature.name for feature in self.schema}
        return {name: value for name, value in largest.items() if name in names}


class Reading(NamedTuple):
    """How records are read; see `input_fn_builder`.

    Attributes:
      shuffle_records: records in the shuffle buffer.
      num_threads: files read in turn, and batches parsed in parallel.
      deterministic: bool, whether the order of training records depends only on the
        seed; if not, threads need not wait for each other.
    """

    shuffle_records: int = SHUFFLE_BUFFER_RECORDS
    num_threads: int = 4
    deterministic: bool = True


DEFAULT_READING = Reading()


class Position(NamedTuple):
    """Resume point of the input pipeline; see `input_position.resume`.

    Attributes:
      num_seen: records that training has used, on all hosts together.
      file_sizes: records of each input file; unused if `num_seen` is 0.
    """

    num_seen: int = 0
    file_sizes: List[int] = []


BEGINNING = Position()


def decode_example(serialized, schema=None):
    """Decodes one record.

    Args:
      serialized: bytes.
      schema: tuple of `record_format.Feature`; None to tell it from the record.

    Returns:
      dict of name to 1-D array.

    Raises:
      ValueError: the bytes are no Example, or a feature is missing or of another type.
    """
    try:
        example = tf.train.Example.FromString(serialized)
    except DecodeError as error:
        raise ValueError("the record is no tf.train.Example") from error
    held = example.features.feature
    if schema is None:
        is_static = "masked_lm_ids" in held
        schema = record_format.STATIC if is_static else record_format.DYNAMIC
    features = {}
    for feature in schema:
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
    type_vocab_size=2,
):
    """Makes an `input_fn` for Estimator and TPUEstimator.

    Training repeats the records forever, shuffles files and records in every epoch,
    and has full batches only, which may span two epochs. Evaluation reads every
    record once, in the order of the files. Masks drawn here differ between epochs of
    training and are the same in every evaluation.

    An epoch's order depends only on the seed and the epoch's number, a batch's masks
    only on the seed and the batch's number. Training that resumes at a position
    therefore gets the same batches as uninterrupted training.

    Args:
      input_files: list of TFRecord files, all of one form.
      max_seq_length: length of the records, in tokens.
      max_predictions_per_seq: number of predictions in the records.
      vocab_size: int; a larger token id, like any other value that `Form` does not
        allow, stops the run with `tf.errors.InvalidArgumentError` on every device.
        GPUs and TPUs would read zeros instead.
      is_training: bool.
      seed: int, makes the order of training records, and their masks, reproducible;
        None draws one.
      drop_remainder: bool; drop the last, smaller batch of an evaluation too, so
        that shapes are static, as TPUs need them.
      masks: `DynamicMasks` for records without masks, else None.
      reading: `Reading`.
      position: `Position` where training begins.
      type_vocab_size: number of segment types of the model.

    Returns:
      Function (params, input_context=None), where `params` has "batch_size" and
      `input_context` is that of a `tf.distribute` strategy. Returns a dataset of
      dicts feature name -> int32 or float32 [batch_size, length].
    """
    form = Form(
        max_seq_length,
        max_predictions_per_seq,
        vocab_size,
        type_vocab_size,
        masks is not None,
    )
    stream_seed = _stream_seed(seed) if is_training else 0

    def parse(number, serialized):
        features = _require_in_range(_parse_batch(serialized, form), form)
        return _masked(features, masks, stream_seed, number) if masks else features

    def input_fn(params, input_context=None):
        host, num_hosts = _host_of(params, input_context, len(input_files))
        paths = list(input_files)[host::num_hosts]
        batch_size, num_seen = params["batch_size"], 0
        if is_training:
            # Every host reads an equal share of each batch.
            num_seen = position.num_seen // num_hosts
            num_records = sum(position.file_sizes[host::num_hosts])
            epoch, num_skipped = divmod(num_seen, num_records) if num_seen else (0, 0)
            dataset = _epochs(paths, reading, stream_seed, epoch).skip(num_skipped)
        else:
            dataset = tf.data.TFRecordDataset(paths)
        parsed = _parsed_together(batch_size) if is_training else batch_size
        dataset = dataset.batch(parsed, is_training or drop_remainder)
        dataset = dataset.enumerate(num_seen // parsed).map(
            # Every host draws other masks.
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


def _masked(features, masks, stream_seed, number):
    """Masks a batch; `number`, int64 [], is its number in the stream."""
    return dynamic_masking.mask_features(
        features,
        tf.stack([tf.constant(stream_seed, tf.int64), number]),
        masks.mask_id,
        masks.ordinary_ids,
        masks.settings,
    )


def _parsed_together(batch_size):
    """Returns how many records are parsed in one call: the batch or a divisor of it.

    A batch without a suitable divisor, a prime for example, is parsed whole.
    """
    parts = range(_PARSED_TOGETHER, _WORTH_A_CALL - 1, -1)
    return next((part for part in parts if batch_size % part == 0), batch_size)


def _join(features):
    """Reshapes features [parts, size, length] to [parts * size, length]."""
    return {
        name: tf.reshape(value, [-1, value.shape.as_list()[2]])
        for name, value in features.items()
    }


def _epochs(paths, reading, seed, first_epoch):
    """Returns an endless dataset of records, string [], epoch after epoch."""

    def records_of(epoch):
        dataset = tf.data.Dataset.from_tensor_slices(paths)
        dataset = dataset.shuffle(
            len(paths), seed=2 * epoch, reshuffle_each_iteration=False
        )
        # In parallel, for remote files. Not `interleave` with num_parallel_calls:
        # before `repeat` it makes TensorFlow 1.15 crash when the session closes.
        dataset = dataset.apply(
            tf.data.experimental.parallel_interleave(
                tf.data.TFRecordDataset,
                cycle_length=min(reading.num_threads, len(paths)),
                sloppy=not reading.deterministic,
            )
        )
        return dataset.shuffle(
            reading.shuffle_records, seed=2 * epoch + 1, reshuffle_each_iteration=False
        )

    # Datasets combine their seed with the graph's, which may differ after a restart.
    graph = tf.get_default_graph()
    graph_seed, graph.seed = graph.seed, seed
    try:
        return tf.data.Dataset.range(first_epoch, sys.maxsize).flat_map(records_of)
    finally:
        graph.seed = graph_seed


def _stream_seed(seed):
    """Returns the first half of the seeds of orders and masks."""
    # TensorFlow treats 0 and multiples of 2**31 - 1 as no seed.
    return np.random.RandomState(seed).randint(1, 2**31 - 1)


def _host_of(params, input_context, num_files):
    """Returns (this host's number, number of hosts); files are divided among hosts.

    The input function is called once on every host of a TPU pod, with a `TPUContext`
    from TPUEstimator, and once on every worker of a `tf.distribute` strategy, with an
    `InputContext` from Estimator. Otherwise there is one host.

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


def check_record_files(
    paths, max_seq_length, max_predictions_per_seq, vocab_size=None, type_vocab_size=2
):
    """Checks that files fit a model, by the first record and the end of each file.

    The end, because TensorFlow does not notice a file cut in a record's header.

    Args:
      paths: list of TFRecord files.
      max_seq_length: expected length, in tokens.
      max_predictions_per_seq: expected number of predictions, for records with masks.
      vocab_size: rows of the model's embedding table, None to leave ids unchecked.
      type_vocab_size: number of segment types of the model.

    Returns:
      bool, whether the reader draws the masks.

    Raises:
      UserError: a file is missing, empty, cut or no TFRecord file of pretraining
        records, its records have lengths or values that the model does not allow, or
        some files have masks and others not.
    """
    form = Form(max_seq_length, max_predictions_per_seq, vocab_size, type_vocab_size)
    is_dynamic = None
    for path in paths:
        features = _read_first(path)
        if is_dynamic not in (None, "word_lengths" in features):
            raise UserError(
                "{} and {}: one has masks, the other was made with --masking=dynamic; "
                "give files of one kind".format(paths[0], path)
            )
        is_dynamic = "word_lengths" in features
        _check_first(path, features, form._replace(is_dynamic=is_dynamic))
    return bool(is_dynamic)


def _read_first(path):
    """Returns the features of a file's first record; `UserError` if it is damaged."""
    files.require_regular(path)
    try:
        with contextlib.closing(record_format.read_records(path)) as records:
            features = decode_example(next(records))
        record_format.check_end(path)
    except ValueError as error:
        raise UserError(
            "cannot use {} as pretraining records: {}; expected a file written by "
            "create_pretraining_data.py".format(path, error)
        ) from error
    return features


def _check_first(path, features, form):
    """Raises `UserError` if the first record of a file does not have the form."""
    for feature, expected in form.lengths():
        received = len(features[feature.name])
        if received != expected:
            raise UserError(
                "{0}: its records have {1} {2}, but {3} was given; pass --{1}={2} or "
                "recreate the records".format(path, feature.length, received, expected)
            )
    largest = max(features[name].max() for name in _IDS if name in features)
    if form.vocab_size is not None and largest >= form.vocab_size:
        raise UserError(
            "{}: has token id {}, the config's vocab_size is {}; give the config "
            "that belongs to the vocabulary of the records".format(
                path, largest, form.vocab_size
            )
        )
    problem = _find_value(features, form)
    if problem:
        raise UserError(_fault(path, 0, problem))


def _find_value(features, form):
    """Names the first invalid value of a record (dict of arrays), or returns None."""
    for name, largest in sorted(form.largest().items()):
        values = features[name]
        wrong = values[~((values >= 0) & (values <= largest))]
        if wrong.size:
            return "{} holds {}, expected 0 to {:.0f}".format(name, wrong[0], largest)
    return None


def find_fault(paths, form=None):
    """Finds the first record that is damaged or does not have a form.

    It reads whole files. Call it after an error of TensorFlow, which does not name
    the record.

    Args:
      paths: list of TFRecord files.
      form: `Form`, None to look for damage only.

    Returns:
      One line that names the file and the record, or None.

    Raises:
      UserError: a file cannot be read.
    """
    _LOGGER.info("looking for the record that stopped the run")
    for path in paths:
        number = 0
        try:
            for serialized in record_format.read_records(path):
                if form:
                    _check_form(serialized, form)
                number += 1
        except ValueError as error:
            return _fault(path, number, error)
    return None


def _check_form(serialized, form):
    """Raises `ValueError` if a record does not have the form."""
    features = decode_example(serialized, form.schema)
    for feature, expected in form.lengths():
        received = len(features[feature.name])
        if received != expected:
            raise ValueError(
                "{} has length {}, expected {}".format(feature.name, received, expected)
            )
    problem = _find_value(features, form)
    if problem:
        raise ValueError(problem)


def _fault(path, number, problem):
    return "{}: record {} (the first is 0): {}; recreate the file".format(
        path, number, problem
    )


def _parse_batch(serialized, form):
    """Parses records, string [batch_size], into a dict of int64 or float32 tensors.

    One call per batch is several times faster than one per record.

    TensorFlow's error quotes the bytes of a record that is no Example. If they are
    not UTF-8, TensorFlow 2 raises `UnicodeDecodeError` and 1.15 crashes. On 1.15 the
    error is therefore dropped and the empty result raises another one, which costs
    0.8 ms per batch. `find_fault` finds the reason.
    """
    spec = {
        feature.name: tf.FixedLenFeature([length], tf.as_dtype(feature.dtype))
        for feature, length in form.lengths()
    }
    if not tf.__version__.startswith("1."):
        return tf.parse_example(serialized, spec)
    dataset = tf.data.Dataset.from_tensors(serialized)
    dataset = dataset.apply(tf.data.experimental.parse_example_dataset(spec))
    dataset = dataset.apply(tf.data.experimental.ignore_errors())
    return tf.data.experimental.get_single_element(dataset)


def _require_in_range(features, form):
    """Returns the features as int32 and float32, with assertions of their range."""
    checks = []
    for name, largest in sorted(form.largest().items()):
        value = features[name]
        # False for NaN, too. Before the cast, which would turn 2**32 + 7 into 7.
        is_right = tf.reduce_all(
            (value >= 0) & (value <= tf.constant(largest, value.dtype))
        )
        message = "{} of a record is not in [0, {:.0f}]".format(name, largest)
        checks.append(tf.debugging.Assert(is_right, [message]))
    with tf.control_dependencies(checks):
        return {
            # TPUs have no int64.
            name: tf.cast(value, tf.int32)
            if value.dtype == tf.int64
            else tf.identity(value)
            for name, value in features.items()
        }
