"""Records as bytes: equal to those of TensorFlow, damage found, the two forms."""

import io

import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st
from test_masking import BATCHES, MASK, SEEDS, SEQ_LENGTH, SETTINGS, make_draws

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.data import instances, masking, record_format

# None begins another: implementations of protocol buffers differ in the order of such.
_NAMES = ["input_ids", "a", "B", "of_" + "many_" * 40 + "letters"]
_DTYPES = [np.int64, np.int32, np.uint8, np.bool_, np.float32, np.float64]


@st.composite
def _features(draw):
    """Draws a dict of name to array [B, n], of integers from 0 to 2**40, or floats."""
    rng = np.random.RandomState(draw(SEEDS))
    batch_size = draw(st.integers(1, 4))
    features = {}
    for name in draw(st.lists(st.sampled_from(_NAMES), min_size=1, unique=True)):
        shape = [batch_size, draw(st.sampled_from([1, 2, 42, 127, 128, 129, 2048]))]
        dtype = draw(st.sampled_from(_DTYPES))
        if np.dtype(dtype).kind == "f":
            values = rng.standard_normal(shape) * 10.0 ** rng.randint(-20, 20, shape)
        else:
            # Of all magnitudes, or few: small values have a shorter way.
            largest = draw(st.sampled_from([1, 127, 128, 16384, 2**40]))
            largest = min(largest, 1 if dtype == np.bool_ else np.iinfo(dtype).max)
            bits = rng.randint(0, int(largest).bit_length(), shape)
            values = np.minimum(rng.randint(0, 2**62, shape) >> (61 - bits), largest)
        features[name] = values.astype(dtype)
    return features


def _example(features):
    """What the protocol buffers library makes of a dict of name to 1-D array."""
    example = tf.train.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if values.dtype.kind == "f":
            feature.float_list.value.extend(values.astype(np.float32).tolist())
        else:
            feature.int64_list.value.extend(values.astype(np.int64).tolist())
    return example.SerializeToString(deterministic=True)


@hypothesis.given(features=_features())
@hypothesis.settings(max_examples=200)
def test_bytes_are_those_of_protocol_buffers(features):
    rows = [
        {name: values[row] for name, values in features.items()}
        for row in range(len(next(iter(features.values()))))
    ]
    expected = [_example(row) for row in rows]
    assert record_format.encode_batch(features) == expected
    assert [record_format.encode_example(row) for row in rows] == expected


def test_integers_at_the_borders_of_their_lengths():
    powers = [2 ** (7 * size) for size in range(1, 9)]
    values = [0] + [value for power in powers for value in (power - 1, power)]
    values += [2**31 - 1, 2**32, 2**40, 2**63 - 1]
    features = {"values": np.array(values)}
    assert record_format.encode_example({"values": values}) == _example(features)
    for value in values:
        expected = _example({"values": np.array([value])})
        assert record_format.encode_example({"values": [value]}) == expected


@pytest.mark.parametrize("values", [[-1], [3, -7, 5], [2**40, -(2**40)], [-128]])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_negative_integers_are_refused(values, dtype):
    values = np.array(values).clip(-(2**31), 2**31 - 1).astype(dtype)
    message = "ids holds {}, below 0".format(values.min())
    with pytest.raises(ValueError, match=message):
        record_format.encode_batch({"ids": values[None]})


def test_values_need_not_lie_in_one_piece():
    values = np.arange(2000).reshape([20, 100])[::2, ::-3].T
    floats = values.astype(np.float32)[::-1]
    expected = [
        _example({"ids": ids, "weights": weights})
        for ids, weights in zip(values, floats)
    ]
    assert record_format.encode_batch({"ids": values, "weights": floats}) == expected


_RECORDS = st.lists(st.binary(max_size=300), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that every test writes anew."""
    return str(tmp_path_factory.mktemp("records") / "records")


@hypothesis.given(records=_RECORDS)
def test_tensorflow_reads_the_files(path, records):
    record_format.write_records(iter(records), path)
    assert list(tf.io.tf_record_iterator(path)) == records
    assert list(record_format.read_records(path)) == records


@hypothesis.given(records=_RECORDS)
def test_files_of_tensorflow_are_read(path, records):
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    assert list(record_format.read_records(path)) == records
    with open(path, "rb") as file:
        assert file.read() == b"".join(map(record_format.frame, records))


def test_data_pipelines_read_the_files(path):
    records = [b"one", b"", b"three" * 1000]
    record_format.write_records(records, path)
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = tf.data.TFRecordDataset(path).batch(3)
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        assert session.run(batch).tolist() == records


def test_remote_files_are_read_and_written(tmp_path):
    url = "file://{}/records".format(tmp_path)
    record_format.write_records([b"one", b"two"], url)
    assert list(record_format.read_records(url)) == [b"one", b"two"]
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


@pytest.fixture
def requests(monkeypatch):
    """The numbers of bytes that have been asked for."""
    requests = []

    class NotingFile(io.FileIO):
        def read(self, size):
            requests.append(size)
            return super().read(size)

    monkeypatch.setattr(files, "open_input", NotingFile)
    return requests


def _read_damaged(path, data):
    """Returns the records before the damage, which must be found."""
    with open(path, "wb") as file:
        file.write(data)
    received = []
    with pytest.raises(ValueError, match="truncated|empty"):
        for record in record_format.read_records(path):
            received.append(record)
    return received


_SOME_RECORDS = [b"first", b"", b"the third", b"x" * 200]


def test_a_truncated_file_is_refused(path, requests):
    frames = list(map(record_format.frame, _SOME_RECORDS))
    whole = b"".join(frames)
    ends = np.cumsum(list(map(len, frames))).tolist()
    for size in range(len(whole)):
        if size in ends:
            continue  # as good as a file that was meant to end there
        num_whole = sum(end <= size for end in ends)
        assert _read_damaged(path, whole[:size]) == _SOME_RECORDS[:num_whole]
    assert max(requests) <= 200


@pytest.mark.parametrize("bit", range(8))
def test_a_changed_byte_is_found(path, requests, bit):
    frames = list(map(record_format.frame, _SOME_RECORDS))
    whole = b"".join(frames)
    ends = np.cumsum(list(map(len, frames))).tolist()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << bit
        num_whole = sum(end <= place for end in ends)
        assert _read_damaged(path, data) == _SOME_RECORDS[:num_whole]
    assert max(requests) <= 200


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def records():
        yield b"one"
        raise KeyboardInterrupt

    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            record_format.write_records(records(), str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_files_that_cannot_be_used_are_named(tmp_path):
    missing = str(tmp_path / "missing" / "a")
    with pytest.raises(UserError, match="cannot write .*missing/a: No such file"):
        record_format.write_records([b"one"], missing)
    with pytest.raises(UserError, match="cannot read .*missing/a: No such file"):
        list(record_format.read_records(missing))


@hypothesis.given(batch=BATCHES, settings=SETTINGS, seed=SEEDS)
def test_features_are_laid_out_as_documented(batch, settings, seed):
    num_rows = len(batch.input_ids)
    swapped = np.random.RandomState(seed).randint(2, size=num_rows).astype(np.bool_)
    lengths = batch.input_mask.sum(axis=1)
    text = instances.Batch(
        batch.input_ids, batch.word_lengths, batch.second_begin, lengths
    )
    inputs = {
        "input_mask": batch.input_mask.tolist(),
        "segment_ids": batch.segment_ids.tolist(),
        "next_sentence_labels": [[int(value)] for value in swapped],
    }

    dynamic = record_format.dynamic_features(text, swapped)
    assert {name: values.tolist() for name, values in dynamic.items()} == dict(
        inputs,
        input_ids=batch.input_ids.tolist(),
        word_lengths=batch.word_lengths.tolist(),
    )

    draws = make_draws(seed, False, batch, settings)
    masks = masking.apply_masks(
        batch.input_ids, batch.word_lengths, batch.second_begin, draws, MASK, settings
    )
    room = settings.max_predictions_per_seq
    static = record_format.static_features(text, masks, swapped)
    assert static["masked_lm_weights"].dtype == np.float32
    assert {name: values.tolist() for name, values in static.items()} == dict(
        inputs,
        input_ids=masks.input_ids.tolist(),
        masked_lm_positions=masks.positions.tolist(),
        masked_lm_ids=masks.labels.tolist(),
        masked_lm_weights=[[1.0] * n + [0.0] * (room - n) for n in masks.num_masked],
    )

    # The schema names each of them, with its length and type.
    for schema, features in (
        (record_format.STATIC, static),
        (record_format.DYNAMIC, dynamic),
    ):
        expected = record_format.feature_lengths(schema, SEQ_LENGTH, room)
        assert {feature.name: length for feature, length in expected} == {
            name: values.shape[1] for name, values in features.items()
        }
        for feature, _ in expected:
            is_float = features[feature.name].dtype.kind == "f"
            assert is_float == (feature.dtype == np.float32)


@pytest.mark.parametrize("sizes", [[0], [5], [7, 0], [3, 70000], [3, 1200000, 9]])
def test_the_end_of_a_whole_file_is_whole(tmp_path, sizes):
    path = tmp_path / "a"
    content = b"".join(record_format.frame(b"x" * size) for size in sizes)
    path.write_bytes(content)
    record_format.check_end(str(path))
    last = len(record_format.frame(b"x" * sizes[-1]))
    for cut in {1, last // 2, last - 1}:
        path.write_bytes(content[:-cut])
        with pytest.raises(ValueError, match="does not end with a whole record"):
            record_format.check_end(str(path))
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match="does not end with a whole record"):
        record_format.check_end(str(path))
