"""Pretraining records as TensorFlow reads them: input pipeline and checks.

`record_format` has the schema and the writer. Records that hold no masks are masked
here, anew in every epoch.
"""

import logging
import sys
from typing import List, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.data import dynamic_masking, masking, record_format

# How many records the reader shuffles; the writer has shuffled within its shards.
SHUFFLE_BUFFER_RECORDS = 10000
# How many records are parsed in one call at most: it takes twice their final size,
# and several calls run at the same time.
_PARSED_TOGETHER = 512
# A smaller part than this is not worth a call of its own.
_WORTH_A_CALL = 64
# The weight of a masked token; the published writers give 1. Far more than anybody
# weighs one with, and so little that the sums of a batch stay far from infinity.
MAX_WEIGHT = 1e6
_IDS = ("input_ids", "masked_lm_ids")

_LOGGER = logging.getLogger(__name__)


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


class Form(NamedTuple):
    """What every record of a run must be like.

    Attributes:
      max_seq_length: its length, in tokens.
      max_predictions_per_seq: predictions that it has room for.
      vocab_size: rows of the model's embedding table, None to leave ids alone.
      type_vocab_size: kinds of segment that the model knows.
      is_dynamic: bool, whether it leaves the masks to the reader.
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
        """Returns a dict: name of a feature -> largest value; the smallest is 0."""
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


def decode_example(serialized, schema=None):
    """Decodes one record.

    Args:
      serialized: bytes.
      schema: tuple of `record_format.Feature`; None for that of the record's form.

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
      vocab_size: int; a token id beyond it, like any other value that `Form` does
        not allow, stops the run with `tf.errors.InvalidArgumentError`, on every
        device: GPUs and TPUs would read zeros instead.
      is_training: bool.
      seed: int, makes the order of training records, and their masks, reproducible;
        None draws one.
      drop_remainder: bool; drop the last, smaller batch of an evaluation too, so
        that shapes are static, as TPUs need them.
      masks: `DynamicMasks` for records that hold none, else None.
      reading: `Reading`.
      position: `Position` where training begins.
      type_vocab_size: kinds of segment that the model knows.

    Returns:
      Function of `params`, which has "batch_size", and of the `input_context` of a
      `tf.distribute` strategy, that returns a dataset of dicts of feature name to
      int32 or float32 [batch_size, length].
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
        parsed = _parsed_together(batch_size) if is_training else batch_size
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


def _parsed_together(batch_size):
    """Returns how many records are parsed in one call: the batch or an equal part.

    A batch without a fitting part, of a prime size for example, is parsed whole.
    """
    parts = range(_PARSED_TOGETHER, _WORTH_A_CALL - 1, -1)
    return next((part for part in parts if batch_size % part == 0), batch_size)


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


def check_record_files(
    paths, max_seq_length, max_predictions_per_seq, vocab_size=None, type_vocab_size=2
):
    """Checks that files fit a model, by the first record and the end of each.

    TensorFlow takes a file that is cut in a record's header for one that ends there.

    Args:
      paths: list of TFRecord files.
      max_seq_length: expected length, in tokens.
      max_predictions_per_seq: expected room for predictions, where the records hold
        masks.
      vocab_size: rows of the model's embedding table, None to leave ids alone.
      type_vocab_size: kinds of segment that the model knows.

    Returns:
      bool, whether the records leave the masks to the reader.

    Raises:
      UserError: a file is missing, empty, cut, no TFRecord file of pretraining
        records, or holds records of other lengths or values than the model takes, or
        of another form than the first file.
    """
    form = Form(max_seq_length, max_predictions_per_seq, vocab_size, type_vocab_size)
    is_dynamic = None
    for path in paths:
        features = _read_first(path)
        if is_dynamic not in (None, "word_lengths" in features):
            raise UserError(
                "{} and {}: one has masks, the other leaves them to the reader "
                "(--masking=dynamic); give files of one kind".format(paths[0], path)
            )
        is_dynamic = "word_lengths" in features
        _check_first(path, features, form._replace(is_dynamic=is_dynamic))
    return bool(is_dynamic)


def _read_first(path):
    """Returns the features of a file's first record; `UserError` if it is damaged."""
    files.require_regular(path)
    try:
        features = decode_example(next(record_format.read_records(path)))
        record_format.check_end(path)
    except ValueError as error:
        raise UserError(
            "cannot use {} as pretraining records: {}; expected a file written by "
            "create_pretraining_data.py".format(path, error)
        ) from error
    return features


def _check_first(path, features, form):
    """Raises `UserError` where the first record of a file is not of the form."""
    for feature, expected in form.lengths():
        received = len(features[feature.name])
        if received != expected:
            raise UserError(
                "{0}: its records have {1} {2}, but {3} was given; pass --{1}={2} or "
                "make the records anew".format(path, feature.length, received, expected)
            )
    largest = max(features[name].max() for name in _IDS if name in features)
    if form.vocab_size is not None and largest >= form.vocab_size:
        raise UserError(
            "{}: has token id {}, the config's vocab_size is {}; give the config "
            "that belongs to the records' vocabulary".format(
                path, largest, form.vocab_size
            )
        )
    problem = _find_value(features, form)
    if problem:
        raise UserError(_fault(path, 0, problem))


def _find_value(features, form):
    """Says which value of a record (dict of arrays) is not allowed; None for none."""
    for name, largest in sorted(form.largest().items()):
        values = features[name]
        wrong = values[~((values >= 0) & (values <= largest))]
        if wrong.size:
            return "{} holds {}, expected 0 to {:.0f}".format(name, wrong[0], largest)
    return None


def find_fault(paths, form=None):
    """Finds the first record that is damaged or is not of a form.

    Reads the files whole, and so is meant for after an error of TensorFlow, which
    does not say where it arose.

    Args:
      paths: list of TFRecord files.
      form: `Form`, None to look for damaged files only.

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
    """Raises `ValueError` where a record is not of the form."""
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
    return "{}: record {} (the first is 0): {}; make the file again".format(
        path, number, problem
    )


def _parse_batch(serialized, form):
    """Parses records, string [batch_size], into a dict of int64 or float32 tensors.

    One call for a whole batch is several times as fast as one for every record.

    TensorFlow's error quotes the bytes of a record that is no Example. Where they are
    not UTF-8, TensorFlow 2 raises `UnicodeDecodeError` and 1.15 ends by a segmentation
    fault. There the error is dropped, and that nothing was parsed is an error of its
    own: 0.8 ms a batch. `find_fault` finds the reason.
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
    """Returns the features, int32 and float32; they fail where one is out of range."""
    checks = []
    for name, largest in sorted(form.largest().items()):
        value = features[name]
        # Also false for NaN. Before the cast, which lets 2**32 + 7 pass for 7.
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
