"""Pretraining records that are cut, damaged, or hold what no record can."""

import json

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, record_format
from albert_zh.training import estimator as estimators
from benchmarks.faults.common import Fault, not_refused, run

_LENGTH, _PREDICTIONS, _VOCABULARY = 16, 3, 40
_FORM = input_pipeline.Form(_LENGTH, _PREDICTIONS, _VOCABULARY)
_NUM_RECORDS = 12
_NAN, _INFINITY = float("nan"), float("inf")
# Values that each feature may not have.
_WRONG = {
    "input_ids": (-1, _VOCABULARY, 2**31, 2**32 + 7, 2**63 - 1, -(2**63)),
    "input_mask": (-1, 2, 2**32, 2**32 + 1),
    "segment_ids": (-1, 2, 2**32 + 1),
    "masked_lm_positions": (-1, _LENGTH, 2**32 + 3),
    "masked_lm_ids": (-1, _VOCABULARY, 2**32 + 7),
    "masked_lm_weights": (_NAN, _INFINITY, -_INFINITY, -1.0, 1e30),
    "next_sentence_labels": (-1, 2, 2**32 + 1),
}


def _record(number):
    ids = np.arange(5, 5 + _LENGTH)
    ids[1] = 5 + number
    return record_format.encode_example(
        {
            "input_ids": ids,
            "input_mask": np.ones(_LENGTH, np.int64),
            "segment_ids": np.repeat([0, 1], _LENGTH // 2),
            "masked_lm_positions": np.array([3, 5, 7]),
            "masked_lm_ids": np.array([10, 11, 12]),
            "masked_lm_weights": np.ones(_PREDICTIONS),
            "next_sentence_labels": np.array([number % 2]),
        }
    )


def _values(feature):
    is_float = feature.HasField("float_list")
    return (feature.float_list if is_float else feature.int64_list).value


def _with_value(name, value):
    example = tf.train.Example.FromString(_record(3))
    _values(example.features.feature[name])[0] = value
    return example.SerializeToString()


def _file(path, *damaged, position=7):
    """Writes records of which those from `position` on are the given ones."""
    contents = [_record(number) for number in range(_NUM_RECORDS)]
    contents[position : position + len(damaged)] = damaged
    record_format.write_records(contents, str(path))
    return str(path)


def _read(path, is_training):
    """Reads a file as a run does, some batches of training or all once."""
    input_pipeline.check_record_files([path], _LENGTH, _PREDICTIONS, _VOCABULARY)
    input_fn = input_pipeline.input_fn_builder(
        [path], _LENGTH, _PREDICTIONS, _VOCABULARY, is_training, seed=1
    )
    number = 0
    tf.logging.set_verbosity(tf.logging.FATAL)
    with estimators.one_line_errors([path], _FORM):
        with tf.Graph().as_default(), tf.Session() as session:
            dataset = input_fn({"batch_size": 4})
            features = tf.data.make_one_shot_iterator(dataset).get_next()
            while number < 2 * _NUM_RECORDS:
                try:
                    number += len(session.run(features)["input_ids"])
                except tf.errors.OutOfRangeError:
                    break
    return number


def _not_named(path, *expected):
    """Says how reading a file, in training and evaluation, is not refused."""
    for is_training in (False, True):
        try:
            number = _read(path, is_training)
        except UserError as error:
            message = str(error)
            missing = [t for t in (path,) + expected if t not in message]
            if missing or "\n" in message:
                return "{} is not in {!r}".format(missing, message)
        else:
            return "read {} records without a word".format(number)
    return None


def _out_of_range(work):
    for name, values in sorted(_WRONG.items()):
        for value in values:
            for position in (0, 7):
                damaged = _with_value(name, value)
                path = _file(work / "records", damaged, position=position)
                # Of a first record's ids: "token id".
                verdict = _not_named(path, "id" if name.endswith("_ids") else name)
                yield "{}={} in record {}".format(name, value, position), verdict


def _damaged_records():
    """Yields (name, bytes) of records that no parser can take."""
    whole = _record(3)
    yield "empty", b""
    yield "text", b"garbage"
    for size in (1, 3, len(whole) // 2, len(whole) - 1):
        yield "cut at {}".format(size), whole[:size]
    random = np.random.RandomState(0)
    for number in range(10):
        yield "noise {}".format(number), random.bytes(random.randint(1, 400))
    for name in sorted(_WRONG):
        example = tf.train.Example.FromString(whole)
        feature = example.features.feature[name]
        del _values(feature)[-1]
        yield name + " too short", example.SerializeToString()
        feature.bytes_list.value.append(b"\xff")
        yield name + " of another type", example.SerializeToString()
        del example.features.feature[name]
        yield name + " missing", example.SerializeToString()


def _damaged(work):
    for name, damaged in _damaged_records():
        path = _file(work / "records", damaged)
        yield name, _not_named(path, "record 7 ")


def _cut(work):
    content = open(_file(work / "whole"), "rb").read()
    last = len(record_format.frame(_record(_NUM_RECORDS - 1)))
    begin = len(content) - last
    path = work / "cut"
    for size in list(range(1, 20)) + [last // 2, last - 4, last - 1]:
        path.write_bytes(content[: begin + size])
        yield "{} bytes of the last record".format(size), _not_named(str(path))
        path.write_bytes(content + content[:size])
        yield "{} bytes too many".format(size), _not_named(str(path))
    random = np.random.RandomState(0)
    for place in random.randint(0, len(content), 20).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.randint(8)
        path.write_bytes(damaged)
        yield "a bit of byte {} turned".format(place), _not_named(str(path))


def _commands(work):
    config = work / "config.json"
    settings = {"vocab_size": _VOCABULARY, "max_position_embeddings": _LENGTH}
    settings.update(num_hidden_layers=1, num_attention_heads=2)
    for key in ("hidden_size", "intermediate_size"):
        settings[key] = 16
    config.write_text(json.dumps(settings))
    for name, damaged, words in (
        ("NaN", _with_value("masked_lm_weights", _NAN), "record 7 "),
        ("no UTF-8", _record(3)[:-3], "record 7 "),
    ):
        path = _file(work / "records", damaged)
        done = run(
            "run_pretraining.py",
            "--input_file=" + path,
            "--albert_config_file={}".format(config),
            "--output_dir={}".format(work / "out"),
            "--do_train",
            "--max_seq_length={}".format(_LENGTH),
            "--max_predictions_per_seq={}".format(_PREDICTIONS),
            "--num_train_steps=20",
            "--num_warmup_steps=1",
            "--train_batch_size=4",
        )
        yield name, not_refused(done, path, words)


FAULTS = [
    Fault("a value of a record that no record can have", _out_of_range),
    Fault("a record that is empty, garbage, cut or lacks a feature", _damaged),
    Fault("a record file cut, lengthened, or with a bit turned", _cut),
    Fault("run_pretraining.py on damaged records", _commands),
]
