"""The record schema: round trips, the reader, checks and whole-or-nothing writing."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh import instances, records
from albert_zh.errors import UserError

LENGTH, PREDICTIONS = 16, 4
VOCAB_SIZE = 1000

# Written out anew: what the published BERT and ALBERT scripts parse.
PUBLISHED_SPEC = {
    "input_ids": tf.FixedLenFeature([LENGTH], tf.int64),
    "input_mask": tf.FixedLenFeature([LENGTH], tf.int64),
    "segment_ids": tf.FixedLenFeature([LENGTH], tf.int64),
    "masked_lm_positions": tf.FixedLenFeature([PREDICTIONS], tf.int64),
    "masked_lm_ids": tf.FixedLenFeature([PREDICTIONS], tf.int64),
    "masked_lm_weights": tf.FixedLenFeature([PREDICTIONS], tf.float32),
    "next_sentence_labels": tf.FixedLenFeature([1], tf.int64),
}


def _instance(number, swapped=False):
    """An instance of 8 tokens with 2 masks; its number is its second token."""
    return instances.Instance(
        input_ids=np.array([101, number, 103, 102, 7, 103, 9, 102], np.int32),
        segment_ids=np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32),
        masked_lm_positions=np.array([2, 5], np.int32),
        masked_lm_ids=np.array([6, 8], np.int32),
        swapped=swapped,
        replacements=np.zeros(2, np.int8),
        ngram_lengths=[1, 1],
        num_truncated=0,
        capped=False,
    )


def _record(number, length=LENGTH, predictions=PREDICTIONS):
    return records.encode_instance(_instance(number), length, predictions)


def _write(path, numbers, **lengths):
    records.write_records([_record(n, **lengths) for n in numbers], [str(path)])
    return str(path)


def _read(files, is_training, batch_size, num_batches=None, seed=None):
    """Runs an input_fn in a graph of its own; returns the batches."""
    input_fn = records.input_fn_builder(
        files, LENGTH, PREDICTIONS, VOCAB_SIZE, is_training, seed=seed
    )
    with tf.Graph().as_default():
        dataset = input_fn({"batch_size": batch_size})
        features = tf.data.make_one_shot_iterator(dataset).get_next()
        shapes = {name: value.shape.as_list() for name, value in features.items()}
        batches = []
        with tf.Session() as session:
            for _ in itertools.count() if num_batches is None else range(num_batches):
                try:
                    batches.append(session.run(features))
                except tf.errors.OutOfRangeError:
                    break
    return batches, shapes


def _numbers(batches):
    return [number for batch in batches for number in batch["input_ids"][:, 1]]


@pytest.mark.parametrize(
    "feature,value",
    [
        ("input_ids", VOCAB_SIZE),
        ("input_ids", -1),
        ("masked_lm_ids", VOCAB_SIZE),
        ("masked_lm_positions", LENGTH),
        ("segment_ids", 2),
        ("next_sentence_labels", 2),
    ],
)
@pytest.mark.parametrize("is_training", [False, True])
def test_a_value_out_of_range_stops_the_run(tmp_path, feature, value, is_training):
    """A gather on GPU would read zeros for it, a position the next sequence."""
    features = records.decode_example(_record(5))
    features[feature][0] = value
    path = str(tmp_path / "records")
    right = [_record(number) for number in range(5)]
    records.write_records(right + [records.encode_example(features)], [path])
    with pytest.raises(tf.errors.InvalidArgumentError, match=feature + ".* is not in"):
        _read([path], is_training, 2, 4)


def test_an_instance_survives_the_round_trip():
    serialized = records.encode_instance(_instance(5, True), LENGTH, PREDICTIONS)
    features = records.decode_example(serialized)
    padding = [0] * 8
    assert {name: values.tolist() for name, values in features.items()} == {
        "input_ids": [101, 5, 103, 102, 7, 103, 9, 102] + padding,
        "input_mask": [1] * 8 + padding,
        "segment_ids": [0] * 4 + [1] * 4 + padding,
        "masked_lm_positions": [2, 5, 0, 0],
        "masked_lm_ids": [6, 8, 0, 0],
        "masked_lm_weights": [1.0, 1.0, 0.0, 0.0],
        "next_sentence_labels": [1],
    }
    assert records.encode_example(features) == serialized


def test_published_readers_can_parse_the_records():
    with tf.Graph().as_default(), tf.Session() as session:
        parsed = session.run(tf.parse_single_example(_record(5), PUBLISHED_SPEC))
    decoded = records.decode_example(_record(5))
    assert {name: values.tolist() for name, values in parsed.items()} == {
        name: values.tolist() for name, values in decoded.items()
    }


def test_bytes_that_are_no_record_are_refused():
    with pytest.raises(ValueError, match="no tf.train.Example"):
        records.decode_example(b"\x0a\xff")
    with pytest.raises(ValueError, match="no feature 'input_ids'"):
        records.decode_example(tf.train.Example().SerializeToString())


def test_evaluation_reads_every_record_once_in_order(tmp_path):
    files = [
        _write(tmp_path / "a", range(10, 17)),
        _write(tmp_path / "b", range(20, 24)),
    ]
    batches, _ = _read(files, is_training=False, batch_size=4)
    assert _numbers(batches) == list(range(10, 17)) + list(range(20, 24))
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 3]
    for name, values in batches[0].items():
        expected = np.float32 if name == "masked_lm_weights" else np.int32
        assert values.dtype == expected


def test_training_repeats_whole_epochs_with_static_shapes(tmp_path):
    files = [
        _write(tmp_path / "a", range(10, 17)),
        _write(tmp_path / "b", range(20, 25)),
    ]
    batches, shapes = _read(files, is_training=True, batch_size=4, num_batches=6)
    epochs = np.reshape(_numbers(batches), [2, 12]).tolist()
    assert [sorted(epoch) for epoch in epochs] == [
        list(range(10, 17)) + list(range(20, 25))
    ] * 2
    assert epochs[0] != epochs[1]
    assert shapes == {
        name: [4] + feature.shape for name, feature in PUBLISHED_SPEC.items()
    }


def test_a_seed_makes_training_reproducible(tmp_path):
    files = [_write(tmp_path / name, range(20)) for name in "abc"]
    orders = [
        _numbers(_read(files, True, batch_size=8, num_batches=15, seed=seed)[0])
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_fitting_record_files_pass(tmp_path):
    files = [_write(tmp_path / "a", [5]), _write(tmp_path / "b", range(10))]
    assert records.check_record_files(files, LENGTH, PREDICTIONS) is None


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "not"),
        (b"", "the file is empty"),
        (b"short", "truncated or no TFRecord file"),
        (b"plain text, a line of it\n", "truncated or no TFRecord file"),
    ],
)
def test_files_that_are_no_records_are_named(tmp_path, content, message):
    good, bad = _write(tmp_path / "good", [5]), tmp_path / "bad"
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(UserError) as raised:
        records.check_record_files([good, str(bad)], LENGTH, PREDICTIONS)
    assert str(bad) in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_records_of_something_else_are_refused(tmp_path):
    path = str(tmp_path / "other")
    records.write_records([tf.train.Example().SerializeToString()], [path])
    with pytest.raises(UserError, match="no feature 'input_ids'"):
        records.check_record_files([path], LENGTH, PREDICTIONS)


@pytest.mark.parametrize(
    "lengths, message",
    [
        ({"length": 32}, "max_seq_length 32, but 16 was given"),
        ({"predictions": 5}, "max_predictions_per_seq 5, but 4 was given"),
    ],
)
def test_records_of_other_lengths_are_refused(tmp_path, lengths, message):
    files = [_write(tmp_path / "good", [5]), _write(tmp_path / "bad", [5], **lengths)]
    with pytest.raises(UserError, match="bad: .*" + message):
        records.check_record_files(files, LENGTH, PREDICTIONS)


@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_the_corrupt_file_is_found(tmp_path, damage):
    files = [_write(tmp_path / name, range(10)) for name in "abc"]
    assert records.find_corrupt_file(files) is None
    data = bytearray((tmp_path / "b").read_bytes())
    if damage == "truncated":
        del data[-5:]
    else:
        data[len(data) // 2] ^= 1
    (tmp_path / "b").write_bytes(data)
    assert records.find_corrupt_file(files) == files[1]


def test_records_are_spread_over_the_files(tmp_path):
    paths = [str(tmp_path / "new" / name) for name in "abc"]
    assert records.write_records((_record(n) for n in range(11)), paths) == 11
    numbers = [_numbers(_read([path], False, batch_size=8)[0]) for path in paths]
    assert numbers == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a", "b", "c"]


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def failing():
        yield _record(1)
        yield _record(2)
        assert len(list(tmp_path.iterdir())) == 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_records(failing(), [str(tmp_path / "a"), str(tmp_path / "b")])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_complete_files_replace_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    path = _write(tmp_path / "a", [3])
    assert _numbers(_read([path], False, batch_size=8)[0]) == [3]


def test_more_files_than_records_are_refused(tmp_path):
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(UserError, match="gives 1 records, but 2 output files"):
        records.write_records([_record(1)], paths)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    def unexpected():
        raise AssertionError("the records were read")
        yield

    path = str(tmp_path / "file" / "a")
    with pytest.raises(UserError, match="cannot write .*file/a"):
        records.write_records(unexpected(), [path])
    with pytest.raises(UserError, match="cannot write .*file/a"):
        records.write_text("text", path)


def test_text_is_written_whole(tmp_path):
    records.write_text("文字\n", str(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "文字\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("names", ["", " , ", "a,b,a", "in.txt", "./in.txt,b"])
def test_unusable_output_names_are_refused(names):
    with pytest.raises(UserError, match="each of them once and none"):
        records.expand_output_files(names, ["in.txt"])
    assert records.expand_output_files(" a ,b,", ["in.txt"]) == ["a", "b"]


@pytest.mark.parametrize("buffer_records", [1, 10, 1000])
def test_shuffling_keeps_every_record(buffer_records):
    def shuffle(seed):
        rng = np.random.RandomState(seed)
        return list(records.shuffle_records(range(100), rng, buffer_records))

    assert sorted(shuffle(0)) == list(range(100))
    if buffer_records > 1:
        assert shuffle(0) == shuffle(0) != shuffle(1)
        assert shuffle(0) != list(range(100))


def test_shuffling_holds_no_more_than_its_buffer():
    read = collections.Counter()

    def stream():
        for number in range(1000):
            read["records"] += 1
            yield number

    shuffled = records.shuffle_records(stream(), np.random.RandomState(0), 50)
    for number_out, _ in enumerate(itertools.islice(shuffled, 500), 1):
        assert read["records"] - number_out <= 50


def test_a_full_buffer_shuffles_uniformly():
    counts = np.zeros([4, 4])
    rng = np.random.RandomState(0)
    for _ in range(4000):
        for place, record in enumerate(records.shuffle_records(range(4), rng)):
            counts[record, place] += 1
    # 27.9 is the 0.999 quantile of chi-square with nine degrees of freedom.
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9


def test_hosts_of_a_tpu_pod_share_the_files_out(tmp_path):
    paths = [str(tmp_path / "{}.tfrecord".format(i)) for i in range(5)]

    class Context:
        def __init__(self, host, num_hosts):
            self._deployment = ("/cpu:0", host, num_hosts, 8)

        def current_input_fn_deployment(self):
            return self._deployment

    def files(host, num_hosts):
        params = {"batch_size": 2, "context": Context(host, num_hosts)}
        return records._files_of_this_host(paths, params)

    assert sorted(files(0, 2) + files(1, 2)) == paths
    assert records._files_of_this_host(paths, {"batch_size": 2}) == paths
    with pytest.raises(UserError, match="5 input files for 6 TPU hosts"):
        files(0, 6)


def test_text_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        records.write_text("text", str(tmp_path / "target"))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
