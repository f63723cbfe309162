"""Pretraining records as bytes: the schema, the encoding, the TFRecord file.

A record is a serialized `tf.train.Example`, padded with zeros to fixed lengths. The
static form has the features that the published BERT and ALBERT scripts read:

  input_ids             int64 [max_seq_length], [CLS] A [SEP] B [SEP], masked
  input_mask            int64 [max_seq_length], 1 for tokens, 0 for padding
  segment_ids           int64 [max_seq_length], 1 for B and its [SEP]
  masked_lm_positions   int64 [max_predictions_per_seq], ascending
  masked_lm_ids         int64 [max_predictions_per_seq], the original ids
  masked_lm_weights     float [max_predictions_per_seq], 1.0 for real predictions
  next_sentence_labels  int64 [1], 0 = A comes before B in the document, 1 = after

In the dynamic form the reader draws the masks. Its input_ids are unmasked, and in
place of the three `masked_lm_*` it has

  word_lengths          int64 [max_seq_length], tokens of the word that begins at a
                        position, 0 inside words, at special tokens and padding

A million instances have a billion numbers, so NumPy encodes whole batches. The bytes
equal those of the protocol buffers library. TensorFlow is not needed.
"""

import functools
import struct
from typing import NamedTuple

import numpy as np

from albert_zh.base import checksums, files
from albert_zh.base.lazy import google_crc32c

_CHECKSUM_BYTES = 4
_HEADER_BYTES = 8 + _CHECKSUM_BYTES  # a length and its checksum
_FRAME_BYTES = _HEADER_BYTES + _CHECKSUM_BYTES  # around each record
# Bytes at the end of a file to search for its last record, tried in this order.
_TAIL_BYTES = (2**16, 2**20, 2**24)


class Feature(NamedTuple):
    """A feature of the schema."""

    name: str
    length: str  # a key of `Lengths`
    dtype: type  # np.int64 or np.float32, as TensorFlow's Example knows them


_TOKENS = ("input_ids", "input_mask", "segment_ids")
_INPUTS = tuple(Feature(name, "max_seq_length", np.int64) for name in _TOKENS)
_ORDER = Feature("next_sentence_labels", "one", np.int64)

STATIC = _INPUTS + (
    Feature("masked_lm_positions", "max_predictions_per_seq", np.int64),
    Feature("masked_lm_ids", "max_predictions_per_seq", np.int64),
    Feature("masked_lm_weights", "max_predictions_per_seq", np.float32),
    _ORDER,
)
DYNAMIC = _INPUTS + (Feature("word_lengths", "max_seq_length", np.int64), _ORDER)


def feature_lengths(schema, max_seq_length, max_predictions_per_seq):
    """Returns the list of (feature, length) of `STATIC` or `DYNAMIC`."""
    lengths = {
        "max_seq_length": max_seq_length,
        "max_predictions_per_seq": max_predictions_per_seq,
        "one": 1,
    }
    return [(feature, lengths[feature.length]) for feature in schema]


def static_features(batch, masks, swapped):
    """Returns the features of masked instances, a dict of name to array [B, n].

    Args:
      batch: `instances.Batch`.
      masks: `masking.Masks` of it.
      swapped: bool [B].
    """
    slots = np.arange(masks.positions.shape[1])
    return dict(
        _input_features(batch, masks.input_ids, swapped),
        masked_lm_positions=masks.positions,
        masked_lm_ids=masks.labels,
        masked_lm_weights=(slots < masks.num_masked[:, None]).astype(np.float32),
    )


def dynamic_features(batch, swapped):
    """Returns the features of instances that the reader masks, as `static_features`."""
    return dict(
        _input_features(batch, batch.input_ids, swapped),
        word_lengths=batch.word_lengths,
    )


def _input_features(batch, input_ids, swapped):
    position = np.arange(input_ids.shape[1])
    is_token = position < batch.length[:, None]
    return {
        "input_ids": input_ids,
        "input_mask": is_token,
        "segment_ids": is_token & (position >= batch.second_begin[:, None]),
        "next_sentence_labels": swapped[:, None],
    }


def encode_batch(features):
    """Serializes a batch with array operations only.

    Args:
      features: dict of name to array [B, n] of bool, float or non-negative integers.

    Returns:
      List of B bytes, each an Example, the same bytes that
      `SerializeToString(deterministic=True)` of the protocol buffers library gives.

    Raises:
      ValueError: an integer is negative.
    """
    columns = []
    for name in sorted(features):
        values = features[name]
        is_float = values.dtype.kind == "f"
        payloads = _floats(values) if is_float else _varints(name, values)
        headers = [_feature_header(name, is_float, len(data)) for data in payloads]
        columns += [headers, payloads]
    records = []
    for parts in zip(*columns):
        content = b"".join(parts)
        records.append(_tag(1) + _varint(len(content)) + content)
    return records


def encode_example(features):
    """Serializes one Example: dict of name to a list or array of numbers."""
    arrays = {name: np.asarray(values)[None] for name, values in features.items()}
    return encode_batch(arrays)[0]


def frame(record):
    """Returns a record (bytes) framed for a TFRecord file.

    A frame is the length, its checksum, the record, its checksum
    (tensorflow/core/lib/io/record_writer.h).
    """
    return _frame_header(len(record)) + record + _checksum(record)


def write_records(records, path):
    """Writes a TFRecord file that appears whole or not at all.

    Args:
      records: iterable of bytes.
      path: file, local or remote; an existing one is replaced.

    Returns:
      `checksums.Checksum` of what was written.

    Raises:
      UserError: it cannot be written.
    """
    written = checksums.NOTHING
    with files.whole(path) as file:
        for record in records:
            framed = frame(record)
            written = written.extended(framed)
            file.write(framed)
    return written


def read_records(path):
    """Yields the records (bytes) of a TFRecord file.

    Raises:
      ValueError: the file is empty, truncated or damaged.
      UserError: it cannot be read.
    """
    with files.reading(path), files.open_input(path) as file:
        header = file.read(_HEADER_BYTES)
        if not header:
            raise ValueError("the file is empty")
        while header:
            size = struct.unpack("<Q", header[:8].ljust(8, b"\0"))[0]
            # Checked before that many bytes are read: a damaged length may be huge.
            if header != _frame_header(size):
                raise ValueError("it is truncated or no TFRecord file")
            record, checksum = file.read(size), file.read(_CHECKSUM_BYTES)
            if checksum != _checksum(record):
                raise ValueError("it is truncated or damaged")
            yield record
            header = file.read(_HEADER_BYTES)


def check_end(path):
    """Checks that a TFRecord file ends at the end of a record.

    Only the end of the file is read, and searched for a record that ends there.

    Args:
      path: file, local or remote.

    Raises:
      ValueError: the last record is cut or damaged.
      UserError: the file cannot be read.
    """
    for tail_bytes in _TAIL_BYTES:
        with files.reading(path), files.open_file(path) as file:
            file.seek(max(0, files.size(path) - tail_bytes))
            tail = file.read(tail_bytes)
        if _ends_with_record(tail):
            return
    raise ValueError("it is truncated or damaged: it does not end with a whole record")


def _ends_with_record(tail):
    """Whether bytes end with a whole record."""
    num_starts = len(tail) - _FRAME_BYTES + 1
    if num_starts < 1:
        return False
    # The length, if a record began at each of the bytes.
    lengths = np.ndarray([num_starts], "<u8", tail, strides=(1,))
    starts = np.nonzero(lengths == np.arange(num_starts)[::-1].astype(np.uint64))[0]
    return any(
        frame(tail[start + _HEADER_BYTES : -_CHECKSUM_BYTES]) == tail[start:]
        for start in starts.tolist()
    )


def _floats(values):
    """Returns the packed floats of each row, a list of bytes."""
    values = np.ascontiguousarray(values, "<f4")
    return _rows(values.tobytes(), values.shape[1] * values.itemsize)


def _varints(name, values):
    """Returns the packed variable-length integers of each row, a list of bytes.

    Seven bits a byte, the lowest first; all but the last byte have the high bit set.
    """
    largest = values.max() if values.size else 0
    if largest < 128 and (values.dtype == np.bool_ or values.min() >= 0):
        return _rows(values.astype(np.uint8).tobytes(), values.shape[1])
    if values.min() < 0:
        raise ValueError("{} holds {}, below 0".format(name, values.min()))
    num_bytes = (int(largest).bit_length() + 6) // 7
    shifted = values.astype(np.int64)[..., None] >> (7 * np.arange(num_bytes))
    used = shifted > 0
    used[..., 0] = True
    encoded = (shifted & 127).astype(np.uint8)
    encoded[..., :-1] |= used[..., 1:].astype(np.uint8) << 7
    ends = np.cumsum(np.count_nonzero(used, axis=(1, 2))).tolist()
    stream = encoded[used].tobytes()
    return [stream[begin:end] for begin, end in zip([0] + ends, ends)]


def _rows(stream, width):
    return [stream[i : i + width] for i in range(0, len(stream), width)]


@functools.lru_cache(maxsize=None)
def _feature_header(name, is_float, payload_size):
    """Returns the bytes before the numbers of a feature in the message.

    Example.features = 1, Features.feature = 1 is a map, so each entry is a message
    of key = 1 and value = 2; Feature.float_list = 2 or int64_list = 3, whose packed
    value = 1 (tensorflow/core/example/feature.proto).
    """
    value_list = _tag(1) + _varint(payload_size)
    feature = (
        _tag(2 if is_float else 3)
        + _varint(len(value_list) + payload_size)
        + value_list
    )
    key = _tag(1) + _varint(len(name)) + name.encode("ascii")
    value = _tag(2) + _varint(len(feature) + payload_size) + feature
    return _tag(1) + _varint(len(key) + len(value) + payload_size) + key + value


def _tag(field):
    """The tag of a field with a length: wire type 2."""
    return bytes([field << 3 | 2])


@functools.lru_cache(maxsize=None)
def _varint(value):
    encoded = bytearray()
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes(encoded + bytearray([value]))


@functools.lru_cache(maxsize=None)
def _frame_header(size):
    length = struct.pack("<Q", size)
    return length + _checksum(length)


def _checksum(data):
    """The masked CRC-32C of the TFRecord format, 4 bytes."""
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
