"""The .index file of a TensorFlow checkpoint, parsed strictly in Python.

TensorFlow's reader trusts any file with valid checksums, which a malicious file has:
it then crashes, or allocates any amount of memory. This parser accepts only what
TensorFlow's writer makes: one table of whole tensors whose shapes match their sizes.

Format: tensorflow/core/util/tensor_bundle/tensor_bundle.h, on LevelDB's table
(https://github.com/google/leveldb/blob/main/doc/table_format.md).
"""

import functools
import operator
import struct
from typing import NamedTuple, Tuple

from albert_zh.base import files
from albert_zh.base.lazy import bundle_protos, google_crc32c, protobuf_message
from albert_zh.base.lazy import tensorflow as tf

# Room for 250,000 variables of about 60 bytes each.
_MAX_INDEX_BYTES = 1 << 24
_MAX_NAME_BYTES = 4096
_FOOTER_BYTES = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
# Compression type and checksum of a block.
_TRAILER_BYTES = 5
# NumPy's limit.
_MAX_RANK = 32
# Limit of names such as "NAME.data-00000-of-00001".
_MAX_SHARDS = 99999
# Types whose size in bytes follows from the shape.
_NUMBERS = frozenset(
    "float16 float32 float64 bfloat16 complex64 complex128 int8 int16 int32 int64 bool "
    "uint8 uint16 uint32 uint64".split()
)


class BundleError(ValueError):
    """An index differs from what TensorFlow writes; the message says how."""


class Tensor(NamedTuple):
    """An index's entry for a tensor.

    Attributes:
      name: str, as in the file.
      dtype: `tf.DType`; `tf.string` or a number type.
      shape: tuple of int.
      shard: int, number of the .data file.
      offset: int, byte offset in that file.
      size: int, bytes.
    """

    name: str
    dtype: "tf.DType"
    shape: Tuple[int, ...]
    shard: int
    offset: int
    size: int


class Index(NamedTuple):
    """The content of an .index file.

    Attributes:
      num_shards: int, number of the .data files.
      tensors: dict name -> `Tensor`, sorted by name.
    """

    num_shards: int
    tensors: dict


def read_index(path):
    """Reads an .index file.

    Args:
      path: local or remote.

    Returns:
      `Index`.

    Raises:
      BundleError: it differs from what TensorFlow writes.
      UserError: it cannot be read.
    """
    files.require_regular(path)
    if files.size(path) > _MAX_INDEX_BYTES:
        raise BundleError(
            "it has {:,} bytes, more than any valid index".format(files.size(path))
        )
    with files.reading(path), files.open_file(path) as source:
        data = source.read()
    pairs = read_table(data)
    key, value = next(pairs, (None, b""))
    if key != b"":
        raise BundleError("it has no header")
    num_shards = _read_header(value)
    tensors = dict(_read_tensor(*pair, num_shards) for pair in pairs)
    return Index(num_shards, tensors)


def read_table(data):
    """Yields (key, value), both bytes, of a table in the order of the keys.

    Raises:
      BundleError: it differs from a table that TensorFlow writes.
    """
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or not footer.endswith(_MAGIC):
        raise BundleError("it has no footer: not an index, or truncated")
    meta, place = _read_handle(footer, 0)
    index, place = _read_handle(footer, place)
    end = len(data) - _FOOTER_BYTES
    if list(_read_block(data, meta, end)):
        raise BundleError("it has a filter, which TensorFlow does not write")
    previous = None
    for last_key, handle in _read_block(data, index, end):
        block, rest = _read_handle(handle, 0)
        if rest != len(handle):
            raise BundleError("extra bytes follow the position of a block")
        for key, value in _read_block(data, block, end):
            if previous is not None and key <= previous:
                raise BundleError("its keys are not in order, or one is repeated")
            previous = key
            yield key, value
        if previous is None or previous > last_key:
            raise BundleError("the keys of a block do not match the table's index")


def _read_handle(data, place):
    """Returns the (offset, size) of a block, and the position after it in `data`."""
    offset, place = _read_varint(data, place)
    size, place = _read_varint(data, place)
    return (offset, size), place


def _read_varint(data, place):
    """Returns a number with 7 bits per byte, and the position after it."""
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            raise BundleError("a number has no end")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise BundleError("a number has more than 64 bits")


def _read_block(data, handle, end):
    """Yields (key, value) of a block after checking its checksum."""
    offset, size = handle
    if offset + size + _TRAILER_BYTES > end:
        raise BundleError("a block is outside of the file")
    content = data[offset : offset + size]
    kind, checksum = struct.unpack_from("<BI", data, offset + size)
    crc = google_crc32c.value(data[offset : offset + size + 1])
    if checksum != ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF:
        raise BundleError("a block's checksum is wrong")
    if kind:
        raise BundleError("a block is compressed, which TensorFlow does not do")
    entries, restarts = _split_block(content)
    key, place, found = b"", 0, []
    while place < len(entries):
        start = place
        shared, place = _read_varint(entries, place)
        unshared, place = _read_varint(entries, place)
        length, place = _read_varint(entries, place)
        if shared > len(key) or place + unshared + length > len(entries):
            raise BundleError("an entry is larger than its block")
        if shared + unshared > _MAX_NAME_BYTES:
            raise BundleError("a name has {:,} bytes".format(shared + unshared))
        if not shared:
            found.append(start)
        key = key[:shared] + entries[place : place + unshared]
        place += unshared
        yield key, entries[place : place + length]
        place += length
    if restarts[0] or not set(restarts[1:]) <= set(found):
        raise BundleError("a restart point of a block is not at a key")
    if any(after <= before for before, after in zip(restarts, restarts[1:])):
        raise BundleError("the restart points of a block are not in order")


def _split_block(content):
    """Returns the bytes of a block's entries, and its restart points."""
    if len(content) < 8:
        raise BundleError("a block is too small")
    (count,) = struct.unpack_from("<I", content, len(content) - 4)
    size = len(content) - 4 - 4 * count
    if count < 1 or size < 0:
        raise BundleError("a block has {:,} restart points".format(count))
    return content[:size], struct.unpack_from("<{}I".format(count), content, size)


def _read_header(value):
    """Returns the number of .data files."""
    header = _parse(bundle_protos.BundleHeaderProto, value, "its header")
    if header.endianness != bundle_protos.BundleHeaderProto.LITTLE:
        raise BundleError("it is from a big-endian machine")
    if not 1 <= header.num_shards <= _MAX_SHARDS:
        raise BundleError("it names {:,} .data files".format(header.num_shards))
    return header.num_shards


def _read_tensor(key, value, num_shards):
    """Returns a variable's name and `Tensor`."""
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError("the name {!r} is not UTF-8".format(key)) from error
    if not name.isprintable():
        raise BundleError("the name {!r} has control characters".format(name))
    what = "variable {!r}".format(name)
    entry = _parse(bundle_protos.BundleEntryProto, value, what)
    if entry.slices:
        raise BundleError(what + " is in slices; expected whole variables")
    try:
        dtype = tf.as_dtype(entry.dtype)
    except TypeError as error:
        raise BundleError(
            "{} has the unknown type {}".format(what, entry.dtype)
        ) from error
    if dtype.name not in _NUMBERS and dtype != tf.string:
        raise BundleError("{} has the type {}".format(what, dtype.name))
    shape = _read_shape(entry, what)
    tensor = Tensor(name, dtype, shape, entry.shard_id, entry.offset, entry.size)
    if not 0 <= tensor.shard < num_shards:
        raise BundleError("{} is in .data file {}".format(what, tensor.shard))
    if tensor.offset < 0 or tensor.size < 0 or tensor.offset + tensor.size >= 2**63:
        raise BundleError(
            "{} is at {}, {} bytes".format(what, tensor.offset, tensor.size)
        )
    if dtype != tf.string:
        _check_size(tensor, what)
    return name, tensor


def _read_shape(entry, what):
    """Returns the shape of a `BundleEntryProto` as a tuple."""
    if len(entry.shape.dim) > _MAX_RANK:
        raise BundleError("{} has {:,} axes".format(what, len(entry.shape.dim)))
    shape = tuple(dimension.size for dimension in entry.shape.dim)
    if entry.shape.unknown_rank or any(size < 0 for size in shape):
        raise BundleError("{} has the shape {}".format(what, list(shape) or "unknown"))
    # So that no product of sizes exceeds 64 bits.
    if _product(max(size, 1) for size in shape) * 16 >= 2**63:
        raise BundleError("{} has the shape {}".format(what, list(shape)))
    return shape


def _check_size(tensor, what):
    expected = _product(tensor.shape) * tensor.dtype.size
    if tensor.size != expected:
        raise BundleError(
            "{} has {:,} bytes, its shape {} of {} {:,}".format(
                what, tensor.size, list(tensor.shape), tensor.dtype.name, expected
            )
        )


def _product(sizes):
    """Returns the exact product of integers; NumPy's wraps at 64 bits."""
    return functools.reduce(operator.mul, sizes, 1)


def _parse(kind, value, what):
    """Parses bytes as a protocol buffer of a class."""
    try:
        return kind.FromString(value)
    except protobuf_message.DecodeError as error:
        raise BundleError("{} cannot be parsed".format(what)) from error
