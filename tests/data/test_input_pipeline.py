"""Records in TensorFlow: reading back, both forms, the input pipeline, checks."""

import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from albert_zh.base.errors import UserError
from albert_zh.data import input_pipeline, instances, masking, record_format
from albert_zh.training import estimator as estimators

LENGTH, PREDICTIONS = 16, 4
VOCAB_SIZE = 1000
MASK = 103
MASKS = input_pipeline.DynamicMasks(
    masking.MaskSettings(0.3, PREDICTIONS, 2), MASK, np.arange(700, 800, dtype=np.int32)
)

FORM = input_pipeline.Form(LENGTH, PREDICTIONS, VOCAB_SIZE)

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


def _batch(number, length):
    """A batch of one instance of 12 tokens; its number is the first one's id."""
    text = np.zeros([1, length], np.int32)
    text[0, :12] = [101, number, 6, 7, 102, 8, 9, 10, 11, 12, 13, 102]
    word_lengths = np.zeros([1, length], np.int32)
    word_lengths[0, :12] = [0, 1, 2, 0, 0, 1, 1, 1, 2, 0, 1, 0]
    return instances.Batch(text, word_lengths, np.array([5]), np.array([12]))


def _record(number, length=LENGTH, predictions=PREDICTIONS):
    """A record whose words at 2 and 6 are masked."""
    batch = _batch(number, length)
    positions, labels = np.zeros([2, 1, predictions], np.int32)
    positions[0, :3] = [2, 3, 6]
    labels[0, :3] = batch.input_ids[0, [2, 3, 6]]
    masked = batch.input_ids.copy()
    masked[0, [2, 3, 6]] = MASK
    masks = masking.Masks(
        masked,
        positions,
        labels,
        np.array([3]),
        capped=None,
        replacements=None,
        ngram_lengths=None,
    )
    features = record_format.static_features(batch, masks, np.array([number % 2 == 1]))
    return record_format.encode_batch(features)[0]


def _dynamic_record(number, length=LENGTH):
    """The same instance without masks."""
    features = record_format.dynamic_features(
        _batch(number, length), np.array([number % 2 == 1])
    )
    return record_format.encode_batch(features)[0]


def _write(path, numbers, record=_record, **lengths):
    serialized = [record(number, **lengths) for number in numbers]
    record_format.write_records(serialized, str(path))
    return str(path)


class _TpuContext:
    """What the input function is given of TPUEstimator's `TPUContext`."""

    def __init__(self, host, num_hosts):
        self._deployment = ("/cpu:0", host, num_hosts, 8)

    def current_input_fn_deployment(self):
        return self._deployment


def _read(
    files,
    is_training,
    batch_size,
    num_batches=None,
    graph_seed=None,
    context=None,
    input_context=None,
    **kwargs,
):
    """Runs an input_fn in a graph of its own; returns the batches and their shapes."""
    input_fn = input_pipeline.input_fn_builder(
        files, LENGTH, PREDICTIONS, VOCAB_SIZE, is_training, **kwargs
    )
    with tf.Graph().as_default():
        tf.set_random_seed(graph_seed)
        params = {"batch_size": batch_size, "context": context}
        dataset = input_fn(params, input_context)
        assert tf.get_default_graph().seed == graph_seed
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


def _texts(batches):
    """Returns the instances with the masked tokens put back, int [num, LENGTH]."""
    texts = []
    for batch in batches:
        text = batch["input_ids"].copy()
        rows, slots = np.nonzero(batch["masked_lm_weights"])
        columns = batch["masked_lm_positions"][rows, slots]
        text[rows, columns] = batch["masked_lm_ids"][rows, slots]
        texts.append(text)
    return np.concatenate(texts)


def _numbers(batches):
    return _texts(batches)[:, 1].tolist()


def _epochs(batches, num_records):
    """Returns the numbers of each epoch, a list of lists."""
    return np.reshape(_numbers(batches), [-1, num_records]).tolist()


@pytest.mark.parametrize(
    "feature, value, is_dynamic",
    [
        # Casting to int32 would make 7 of it.
        ("input_ids", 2**32 + 7, False),
        ("input_mask", 2, False),
        ("input_mask", -1, False),
        ("masked_lm_weights", float("nan"), False),
        ("masked_lm_weights", float("inf"), False),
        ("masked_lm_weights", -1.0, False),
        ("masked_lm_weights", 2e6, False),
        ("next_sentence_labels", -1, True),
        ("input_ids", VOCAB_SIZE, False),
        ("input_ids", -1, False),
        ("masked_lm_ids", VOCAB_SIZE, False),
        ("masked_lm_positions", LENGTH, False),
        ("segment_ids", 2, False),
        ("next_sentence_labels", 2, False),
        ("input_ids", VOCAB_SIZE, True),
        ("word_lengths", LENGTH, True),
        ("word_lengths", -1, True),
    ],
)
@pytest.mark.parametrize("is_training", [False, True])
def test_a_value_out_of_range_stops_the_run(
    tmp_path, feature, value, is_dynamic, is_training
):
    """A gather on GPU would read zeros for it, a position the next sequence."""
    record = _dynamic_record if is_dynamic else _record
    right = [record(number) for number in range(5)]
    path = str(tmp_path / "records")
    record_format.write_records(right + [_changed(record(5), feature, value)], path)
    masks = MASKS if is_dynamic else None
    with pytest.raises(tf.errors.InvalidArgumentError, match=feature + ".* is not in"):
        _read([path], is_training, 2, 4, masks=masks)
    form = FORM._replace(is_dynamic=is_dynamic)
    fault = input_pipeline.find_fault([path], form)
    assert fault.startswith(path + ": record 5 ") and feature + " holds " in fault
    first = _write(
        tmp_path / "first", [5], lambda n: _changed(record(n), feature, value)
    )
    with pytest.raises(UserError, match=feature + "|token id"):
        input_pipeline.check_record_files([first], LENGTH, PREDICTIONS, VOCAB_SIZE)


def _changed(record, feature, value):
    """The record with another first value of a feature."""
    example = tf.train.Example.FromString(record)
    held = example.features.feature[feature]
    values = held.float_list if held.HasField("float_list") else held.int64_list
    values.value[0] = value
    return example.SerializeToString()


@pytest.mark.parametrize("is_training", [False, True])
def test_weights_other_than_one_are_taken(tmp_path, is_training):
    path = _write(
        tmp_path / "a", [5], lambda n: _changed(_record(n), "masked_lm_weights", 2.5)
    )
    batches, _ = _read([path], is_training, 1, 1)
    assert batches[0]["masked_lm_weights"][0].tolist() == [2.5, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("num_types, is_right", [(1, False), (2, True), (3, True)])
def test_segments_are_those_the_model_knows(tmp_path, num_types, is_right):
    path = _write(tmp_path / "a", range(4))
    if is_right:
        input_pipeline.check_record_files(
            [path], LENGTH, PREDICTIONS, VOCAB_SIZE, num_types
        )
        assert len(_read([path], False, 4, type_vocab_size=num_types)[0]) == 1
        return
    with pytest.raises(UserError, match="segment_ids holds 1, expected 0 to 0"):
        input_pipeline.check_record_files(
            [path], LENGTH, PREDICTIONS, VOCAB_SIZE, num_types
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="segment_ids of a record"):
        _read([path], False, 4, type_vocab_size=num_types)


def _damaged(kind):
    """A record whose damage is one of those that the parser finds."""
    if kind == "empty":
        return b""
    if kind == "garbage":
        return b"no Example"
    if kind == "cut":  # Its bytes are no UTF-8.
        return _record(5)[:-3]
    example = tf.train.Example.FromString(_record(5))
    held = example.features.feature
    if kind == "missing":
        del held["input_mask"]
    elif kind == "another type":
        held["masked_lm_weights"].int64_list.value.extend([1, 1, 1, 0])
    elif kind == "another length":
        held["input_ids"].int64_list.value.append(1)
    return example.SerializeToString()


DAMAGES = ["empty", "garbage", "cut", "missing", "another type", "another length"]


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("is_training", [False, True])
def test_a_damaged_record_stops_the_run_and_is_found(tmp_path, kind, is_training):
    """TensorFlow 1.15 ends by a segmentation fault where it has to quote some."""
    path = str(tmp_path / "records")
    right = [_record(number) for number in range(5)]
    record_format.write_records(right + [_damaged(kind)], path)
    with pytest.raises(UserError) as error, estimators.one_line_errors([path], FORM):
        _read([path], is_training, 2, 4)
    assert str(error.value).startswith(path + ": record 5 (the first is 0): ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_bytes", range(1, 12))
@pytest.mark.parametrize("whole", [True, False])
def test_a_cut_in_a_header_is_no_end(tmp_path, num_bytes, whole):
    """TensorFlow takes it for one: it would train on what is left in silence."""
    good = _write(tmp_path / "good", range(5))
    content = (tmp_path / "good").read_bytes()
    bad = tmp_path / "bad"
    end = len(content) if whole else len(content) - len(record_format.frame(_record(4)))
    bad.write_bytes(content[:end] + content[:num_bytes])
    input_pipeline.check_record_files([good], LENGTH, PREDICTIONS)
    with pytest.raises(UserError, match="bad .*does not end with a whole record"):
        input_pipeline.check_record_files([good, str(bad)], LENGTH, PREDICTIONS)


NUM_FLIPS = 200


@pytest.fixture
def reread(tmp_path):
    """Function: writes bytes as a record file and reads it as an evaluation does.

    Returns its path and the batches, or None if reading them raised an error.
    """
    path = str(tmp_path / "records")
    input_fn = input_pipeline.input_fn_builder(
        [path], LENGTH, PREDICTIONS, VOCAB_SIZE, False
    )
    with tf.Graph().as_default(), tf.Session() as session:
        iterator = tf.data.make_initializable_iterator(input_fn({"batch_size": 4}))
        features = iterator.get_next()

        def read(content):
            (tmp_path / "records").write_bytes(content)
            session.run(iterator.initializer)
            batches = []
            try:
                while True:
                    batches.append(session.run(features))
            except tf.errors.OutOfRangeError:
                return path, batches
            except (tf.errors.OpError, UnicodeDecodeError):
                return path, None

        yield read


def _flipped(content, random):
    """Returns the bytes with one bit changed."""
    content = bytearray(content)
    content[random.randint(len(content))] ^= 1 << random.randint(8)
    return bytes(content)


def test_every_flipped_byte_of_a_file_is_found(reread):
    """On TensorFlow 1.15 a damaged record must not end in a segmentation fault."""
    random = np.random.RandomState(0)
    content = b"".join(record_format.frame(_record(number)) for number in range(8))
    assert len(reread(content)[1]) == 2
    for _ in range(NUM_FLIPS):
        path, batches = reread(_flipped(content, random))
        assert batches is None
        assert path + ": record " in input_pipeline.find_fault([path], FORM)


def test_a_flipped_byte_under_a_right_checksum_is_found_or_harmless(reread):
    """Records from elsewhere, whose writer was wrong."""
    random = np.random.RandomState(1)
    records = [_record(number) for number in range(8)]
    num_found = 0
    for _ in range(NUM_FLIPS):
        changed = records[:]
        changed[5] = _flipped(records[5], random)
        path, batches = reread(b"".join(map(record_format.frame, changed)))
        if batches is None:
            num_found += 1
            fault = input_pipeline.find_fault([path], FORM)
            assert fault.startswith(path + ": record 5 ") and "\n" not in fault
            continue
        for batch in batches:
            for name, largest in FORM.largest().items():
                assert (0 <= batch[name]).all() and (batch[name] <= largest).all()
    assert num_found > NUM_FLIPS / 4


def test_a_file_cut_anywhere_in_a_record_is_refused(tmp_path):
    content = b"".join(record_format.frame(_record(number)) for number in range(3))
    borders = {len(record_format.frame(_record(0))) * number for number in range(4)}
    path = tmp_path / "records"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if size and size in borders:
            input_pipeline.check_record_files([str(path)], LENGTH, PREDICTIONS)
            continue
        with pytest.raises(UserError, match="records: |is empty"):
            input_pipeline.check_record_files([str(path)], LENGTH, PREDICTIONS)


def test_an_instance_survives_the_round_trip():
    serialized = _record(5)
    features = input_pipeline.decode_example(serialized)
    padding = [0] * 4
    masked = [101, 5, MASK, MASK, 102, 8, MASK, 10, 11, 12, 13, 102]
    assert {name: values.tolist() for name, values in features.items()} == {
        "input_ids": masked + padding,
        "input_mask": [1] * 12 + padding,
        "segment_ids": [0] * 5 + [1] * 7 + padding,
        "masked_lm_positions": [2, 3, 6, 0],
        "masked_lm_ids": [6, 7, 9, 0],
        "masked_lm_weights": [1.0, 1.0, 1.0, 0.0],
        "next_sentence_labels": [1],
    }
    assert record_format.encode_example(features) == serialized


def test_an_instance_without_masks_survives_the_round_trip():
    serialized = _dynamic_record(4)
    features = input_pipeline.decode_example(serialized)
    padding = [0] * 4
    assert {name: values.tolist() for name, values in features.items()} == {
        "input_ids": [101, 4, 6, 7, 102, 8, 9, 10, 11, 12, 13, 102] + padding,
        "input_mask": [1] * 12 + padding,
        "segment_ids": [0] * 5 + [1] * 7 + padding,
        "word_lengths": [0, 1, 2, 0, 0, 1, 1, 1, 2, 0, 1, 0] + padding,
        "next_sentence_labels": [0],
    }
    assert record_format.encode_example(features) == serialized


def test_published_readers_can_parse_the_records():
    with tf.Graph().as_default(), tf.Session() as session:
        parsed = session.run(tf.parse_single_example(_record(5), PUBLISHED_SPEC))
    decoded = input_pipeline.decode_example(_record(5))
    assert {name: values.tolist() for name, values in parsed.items()} == {
        name: values.tolist() for name, values in decoded.items()
    }


def test_bytes_that_are_no_record_are_refused():
    with pytest.raises(ValueError, match="no tf.train.Example"):
        input_pipeline.decode_example(b"\x0a\xff")
    with pytest.raises(ValueError, match="no feature 'input_ids'"):
        input_pipeline.decode_example(tf.train.Example().SerializeToString())


def test_a_feature_of_another_type_is_refused(tmp_path):
    example = tf.train.Example.FromString(_record(5))
    weights = example.features.feature["masked_lm_weights"]
    weights.int64_list.value.extend([1, 1, 1, 0])
    path = str(tmp_path / "a")
    record_format.write_records([example.SerializeToString()], path)
    with pytest.raises(UserError, match="'masked_lm_weights' .* holds no float32"):
        input_pipeline.check_record_files([path], LENGTH, PREDICTIONS)


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


def test_evaluation_keeps_the_order_even_where_training_does_not(tmp_path):
    path = _write(tmp_path / "a", range(200, 900))
    reading = input_pipeline.Reading(deterministic=False)
    batches, _ = _read([path], is_training=False, batch_size=1, reading=reading)
    assert _numbers(batches) == list(range(200, 900))


def test_evaluation_can_drop_the_last_batch_for_static_shapes(tmp_path):
    path = _write(tmp_path / "a", range(7))
    batches, shapes = _read([path], False, batch_size=4, drop_remainder=True)
    assert _numbers(batches) == [0, 1, 2, 3]
    assert shapes["input_ids"] == [4, LENGTH]


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_training_repeats_whole_epochs_with_static_shapes(tmp_path, is_dynamic):
    record = _dynamic_record if is_dynamic else _record
    files = [
        _write(tmp_path / "a", range(10, 17), record),
        _write(tmp_path / "b", range(20, 25), record),
    ]
    masks = MASKS if is_dynamic else None
    batches, shapes = _read(files, True, batch_size=4, num_batches=6, masks=masks)
    epochs = _epochs(batches, 12)
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


def test_order_can_be_given_up_but_no_record(tmp_path):
    files = [_write(tmp_path / str(n), range(n, n + 10)) for n in (100, 110, 120)]
    reading = input_pipeline.Reading(
        shuffle_records=8, num_threads=3, deterministic=False
    )
    batches, _ = _read(files, True, batch_size=10, num_batches=30, reading=reading)
    numbers, counts = np.unique(_numbers(batches), return_counts=True)
    assert numbers.tolist() == list(range(100, 130))
    # Ten epochs; each thread holds at most one batch back while others overtake it.
    assert 10 - 3 <= counts.min() and counts.max() <= 10 + 3


def test_the_reader_can_do_without_shuffling(tmp_path):
    path = _write(tmp_path / "a", range(12))
    reading = input_pipeline.Reading(shuffle_records=1, num_threads=1)
    batches, _ = _read([path], True, batch_size=4, num_batches=6, reading=reading)
    assert _epochs(batches, 12) == [list(range(12))] * 2


def _assert_masked(batches):
    """Checks that batches are some of `_batch`, masked in whole words."""
    for text, number in zip(_texts(batches), _numbers(batches)):
        assert text.tolist() == _batch(number, LENGTH).input_ids[0].tolist()
    is_start = _batch(0, LENGTH).word_lengths[0] > 0
    for batch in batches:
        for positions, weights in zip(
            batch["masked_lm_positions"], batch["masked_lm_weights"]
        ):
            chosen = set(positions[weights > 0].tolist())
            assert 1 <= len(chosen) <= PREDICTIONS
            for begin, inside in ((2, 3), (8, 9)):
                assert (begin in chosen) == (inside in chosen)
            assert all(is_start[place] for place in chosen - {3, 9})


def _masks(batches):
    """Returns where the masks of each instance are, sorted by its number."""
    places = np.concatenate([batch["masked_lm_positions"] for batch in batches])
    return places[np.argsort(_numbers(batches), kind="stable")].tolist()


def test_every_epoch_has_masks_of_its_own(tmp_path):
    path = _write(tmp_path / "a", range(200, 240), _dynamic_record)
    batches, _ = _read([path], True, batch_size=8, num_batches=10, seed=1, masks=MASKS)
    _assert_masked(batches)
    first, second = batches[:5], batches[5:]
    assert sorted(_numbers(first)) == sorted(_numbers(second)) == list(range(200, 240))
    num_equal = sum(a == b for a, b in zip(_masks(first), _masks(second)))
    assert num_equal < 20
    # Nor have the batches of one epoch each other's masks.
    assert len({str(batch["masked_lm_positions"].tolist()) for batch in batches}) == 10


def test_a_seed_makes_masks_reproducible(tmp_path):
    files = [_write(tmp_path / name, range(20), _dynamic_record) for name in "ab"]
    reading = input_pipeline.Reading(num_threads=3)
    streams = []
    for seed in (1, 1, 2):
        batches, _ = _read(files, True, 8, 10, seed=seed, masks=MASKS, reading=reading)
        streams.append(
            [
                {name: value.tolist() for name, value in batch.items()}
                for batch in batches
            ]
        )
    assert streams[0] == streams[1]
    assert streams[0] != streams[2]


def test_every_evaluation_has_the_same_masks(tmp_path):
    path = _write(tmp_path / "a", range(20), _dynamic_record)
    evaluations = [
        _read([path], False, batch_size=8, seed=seed, masks=MASKS)[0]
        for seed in (None, None, 3)
    ]
    _assert_masked(evaluations[0])
    assert _numbers(evaluations[0]) == list(range(20))
    assert [len(batch["input_ids"]) for batch in evaluations[0]] == [8, 8, 4]
    for other in evaluations[1:]:
        for first_batch, other_batch in zip(evaluations[0], other):
            for name, values in first_batch.items():
                assert values.tolist() == other_batch[name].tolist()


def test_fitting_record_files_pass(tmp_path):
    files = [_write(tmp_path / "a", [5]), _write(tmp_path / "b", range(10))]
    assert input_pipeline.check_record_files(files, LENGTH, PREDICTIONS) is False
    dynamic = [_write(tmp_path / name, [5], _dynamic_record) for name in "cd"]
    assert input_pipeline.check_record_files(dynamic, LENGTH, PREDICTIONS) is True
    # Records without masks have room for any number.
    assert input_pipeline.check_record_files(dynamic, LENGTH, 99) is True


def test_files_of_two_forms_are_refused(tmp_path):
    static = _write(tmp_path / "static", [5])
    dynamic = _write(tmp_path / "dynamic", [5], _dynamic_record)
    for files in ([static, dynamic], [dynamic, dynamic, static]):
        with pytest.raises(UserError, match="give files of one kind") as error:
            input_pipeline.check_record_files(files, LENGTH, PREDICTIONS)
        assert str(error.value).startswith("{} and {}: ".format(files[0], files[-1]))


@pytest.mark.parametrize("record, largest", [(_record, 102), (_dynamic_record, 102)])
def test_the_vocabulary_of_records_is_checked(tmp_path, record, largest):
    path = _write(tmp_path / "a", [5], record)
    largest = max(largest, MASK) if record is _record else largest
    input_pipeline.check_record_files([path], LENGTH, PREDICTIONS, largest + 1)
    with pytest.raises(
        UserError, match="id {0}, the config's vocab_size is {0}".format(largest)
    ):
        input_pipeline.check_record_files([path], LENGTH, PREDICTIONS, largest)


def test_masked_ids_count_for_the_vocabulary(tmp_path):
    features = input_pipeline.decode_example(_record(5))
    features["masked_lm_ids"][0] = 500
    path = str(tmp_path / "a")
    record_format.write_records([record_format.encode_example(features)], path)
    with pytest.raises(UserError, match="has token id 500"):
        input_pipeline.check_record_files([path], LENGTH, PREDICTIONS, 500)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "No such file"),
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
        input_pipeline.check_record_files([good, str(bad)], LENGTH, PREDICTIONS)
    assert str(bad) in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_records_of_something_else_are_refused(tmp_path):
    path = str(tmp_path / "other")
    record_format.write_records([tf.train.Example().SerializeToString()], path)
    with pytest.raises(UserError, match="no feature 'input_ids'"):
        input_pipeline.check_record_files([path], LENGTH, PREDICTIONS)


@pytest.mark.parametrize(
    "record, lengths, message",
    [
        (_record, {"length": 32}, "max_seq_length 32, but 16 was given"),
        (_record, {"predictions": 5}, "max_predictions_per_seq 5, but 4 was given"),
        (_dynamic_record, {"length": 32}, "max_seq_length 32, but 16 was given"),
    ],
)
def test_records_of_other_lengths_are_refused(tmp_path, record, lengths, message):
    good = _write(tmp_path / "good", [5], record)
    bad = _write(tmp_path / "bad", [5], record, **lengths)
    with pytest.raises(UserError, match="bad: .*" + message):
        input_pipeline.check_record_files([good, bad], LENGTH, PREDICTIONS)


@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_the_corrupt_file_and_record_are_found(tmp_path, damage):
    paths = [_write(tmp_path / name, range(10)) for name in "abc"]
    assert (
        input_pipeline.find_fault(paths)
        is input_pipeline.find_fault(paths, FORM)
        is None
    )
    data = bytearray((tmp_path / "b").read_bytes())
    if damage == "truncated":
        del data[-5:]
    else:
        data[len(data) // 2] ^= 1
    (tmp_path / "b").write_bytes(data)
    number = 9 if damage == "truncated" else 5
    assert input_pipeline.find_fault(paths).startswith(
        "{}: record {} (the first is 0): it is truncated".format(paths[1], number)
    )


def _on_tpu(host, num_hosts):
    return {"context": _TpuContext(host, num_hosts)}


def _on_worker(host, num_hosts):
    return {"input_context": tf.distribute.InputContext(num_hosts, host, num_hosts)}


@pytest.mark.parametrize("on_host", [_on_tpu, _on_worker])
def test_hosts_share_the_files_out(tmp_path, on_host):
    sizes = [7, 5, 6, 4]
    files = [
        _write(tmp_path / str(n), range(10 * n, 10 * n + size))
        for n, size in enumerate(sizes, 10)
    ]

    def numbers(host, **kwargs):
        kwargs.update(on_host(host, 2))
        return _numbers(_read(files, True, 1, seed=1, **kwargs)[0])

    epochs = [numbers(0, num_batches=13), numbers(1, num_batches=9)]
    assert sorted(epochs[0]) == list(range(100, 107)) + list(range(120, 126))
    assert sorted(epochs[1]) == list(range(110, 115)) + list(range(130, 134))
    # Each host has had half of what was seen: ten of each, a new epoch for one.
    position = input_pipeline.Position(20, sizes)
    for host in range(2):
        undisturbed = numbers(host, num_batches=16)
        assert numbers(host, num_batches=6, position=position) == undisturbed[10:]
    assert sorted(_numbers(_read(files, False, 1)[0])) == sorted(sum(epochs, []))
    with pytest.raises(UserError, match="4 input files for 6 hosts"):
        _read(files, True, 1, **on_host(0, 6))


def _as_lists(batches):
    return [{name: value.tolist() for name, value in b.items()} for b in batches]


@pytest.mark.parametrize("first", [1, 4, 5, 9, 23])
@pytest.mark.parametrize(
    "is_dynamic, sizes, shuffle_records, num_threads",
    [(True, [7, 1, 14], 5, 2), (False, [22], 100, 1), (True, [3, 2, 9], 1, 4)],
)
def test_training_goes_on_from_a_position_as_if_undisturbed(
    tmp_path, is_dynamic, sizes, shuffle_records, num_threads, first
):
    """Batches of 5: none of these epochs, of 22 and 14, is a whole number of them."""
    record = _dynamic_record if is_dynamic else _record
    files = [
        _write(tmp_path / str(n), range(20 * n, 20 * n + size), record)
        for n, size in enumerate(sizes, 10)
    ]
    settings = {
        "seed": 3,
        "masks": MASKS if is_dynamic else None,
        "reading": input_pipeline.Reading(shuffle_records, num_threads),
    }
    undisturbed, _ = _read(files, True, 5, 28, graph_seed=7, **settings)
    position = input_pipeline.Position(first * 5, sizes)
    # A run that goes on has another graph, with another seed.
    resumed, _ = _read(
        files, True, 5, 28 - first, graph_seed=8, position=position, **settings
    )
    assert _as_lists(resumed) == _as_lists(undisturbed[first:])
    num_records = sum(sizes)
    numbers = _numbers(undisturbed[:first] + resumed)
    for begin in range(0, 140 - num_records, num_records):
        assert len(set(numbers[begin : begin + num_records])) == num_records


def test_training_goes_on_with_another_batch_size(tmp_path):
    path = _write(tmp_path / "a", range(12))
    undisturbed = _numbers(_read([path], True, 1, 40, seed=1)[0])
    position = input_pipeline.Position(15, [12])
    resumed = _numbers(_read([path], True, 5, 5, seed=1, position=position)[0])
    assert resumed == undisturbed[15:]


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_every_seed_shuffles_reproducibly(tmp_path, seed):
    """TensorFlow takes 0, and 2**31 - 1 as its multiple, for no seed at all."""
    files = [_write(tmp_path / name, range(20)) for name in "abc"]
    orders = [_numbers(_read(files, True, 60, 2, seed=seed)[0]) for _ in range(2)]
    assert orders[0] == orders[1]
    assert orders[0][:60] != orders[0][60:]


def test_an_evaluation_begins_at_the_beginning(tmp_path):
    path = _write(tmp_path / "a", range(7))
    position = input_pipeline.Position(3, [7])
    assert _numbers(_read([path], False, 4, position=position)[0]) == list(range(7))


@pytest.mark.parametrize(
    ("batch_size", "parsed"),
    [(1, 1), (60, 60), (512, 512), (4096, 512), (1000, 500), (521, 521), (1042, 1042)],
)
def test_a_batch_is_parsed_in_few_calls(batch_size, parsed):
    assert input_pipeline._parsed_together(batch_size) == parsed
