"""Index files of checkpoints with valid checksums that no TensorFlow has written."""

import struct

import google_crc32c
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from albert_zh.models import bundles

_MAGIC = 0xDB4775248B80FB57


def read_pairs(path):
    """Returns the list of (key, value) of an .index file; the header's key is b""."""
    with open(str(path), "rb") as source:
        return list(bundles.read_table(source.read()))


def write(pairs, path, **settings):
    """Writes pairs as an .index file; `settings` as `table` takes them."""
    with open(str(path), "wb") as target:
        target.write(table(pairs, **settings))


def table(pairs, restarts=(0,), num_restarts=None, index_key=None, handle=None):
    """Returns the bytes of a table of one block.

    Args:
      pairs: list of (key, value), in whatever order.
      restarts: the places that the block may be searched from.
      num_restarts: how many there are said to be; None for the truth.
      index_key: the key of the block in the table's index; None for its last.
      handle: the (offset, size) that the table's index has of the block; None for the
        truth.
    """
    content = b"".join(map(_entry, pairs))
    content += _restarts(restarts, num_restarts)
    data = _sealed(content)
    meta = (len(data), 8)
    data += _sealed(_restarts((0,)))
    key = index_key if index_key is not None else pairs[-1][0] if pairs else b""
    index = _entry((key, _handle(*(handle or (0, len(content)))))) + _restarts((0,))
    footer = _handle(*meta) + _handle(len(data), len(index))
    data += _sealed(index)
    return data + footer.ljust(40, b"\0") + struct.pack("<Q", _MAGIC)


def _entry(pair):
    key, value = pair
    return _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value


def _restarts(places, number=None):
    number = len(places) if number is None else number
    return struct.pack("<{}I".format(len(places) + 1), *places, number)


def _sealed(content, kind=b"\0"):
    crc = google_crc32c.value(content + kind)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return content + kind + struct.pack("<I", masked)


def _handle(offset, size):
    return _varint(offset) + _varint(size)


def _varint(number):
    done = b""
    while number >= 0x80:
        done += bytes([number & 0x7F | 0x80])
        number >>= 7
    return done + bytes([number])


def crafted(pairs, names):
    """Yields (description, bytes) of index files made from a sound one.

    Args:
      pairs: of `read_pairs`.
      names: variables to tamper with, one at a time.
    """
    for name in names:
        key = name.encode("utf-8")
        held = dict(pairs)[key]
        for what, value in _entries(held):
            changed = [(k, value if k == key else v) for k, v in pairs]
            yield "{}: {}".format(name, what), table(changed)
        for what, keys in (
            ("twice", [key, key]),
            ("an empty name", [b""]),
            ("no UTF-8", [b"\xff\xfe" + key]),
            ("control characters", [key + b"\n\x1b[31m"]),
            ("a name of 1 MB", [key * (1000000 // len(key))]),
            ("the key of a slice", [b"\0" + key]),
        ):
            yield (
                "{}: {}".format(name, what),
                table(_with_keys(pairs, key, keys, is_sorted=what != "twice")),
            )
    yield from _tables(pairs)


def _with_keys(pairs, key, keys, is_sorted):
    """The pairs with one of them under other keys."""
    changed = []
    for held, value in pairs:
        changed += [(k, value) for k in keys] if held == key else [(held, value)]
    return sorted(changed, key=lambda pair: pair[0]) if is_sorted else changed


def _entries(held):
    """Yields (description, value) of a variable's entry."""
    for field, values in (
        ("dtype", [0, 2, 4, 7, 8, 10, 11, 20, 21, 23, 101, 999, -1]),
        ("shard_id", [-1, 1, 7, 2**31 - 1]),
        ("offset", [-1, 2**40, 2**62, 2**63 - 1, -(2**63)]),
        ("size", [-1, 0, 1, 2**40, 2**62, 2**63 - 1]),
        ("crc32c", [0]),
    ):
        for value in values:
            entry = tensor_bundle_pb2.BundleEntryProto.FromString(held)
            setattr(entry, field, value)
            yield "{} {}".format(field, value), entry.SerializeToString()
    for sizes in (
        [],
        [-1],
        [-(2**62)],
        [2**40],
        [2**62, 4],
        [2**32, 2**32],
        [2**62, 2**62, 0],
        [0],
        [1] * 33,
        [1] * 255,
        [1] * 100000,
    ):
        for has_size in (False, True):
            entry = tensor_bundle_pb2.BundleEntryProto.FromString(held)
            del entry.shape.dim[:]
            entry.shape.dim.extend(
                tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in sizes
            )
            if has_size:
                entry.size = _wrapped(sizes)
            shown = sizes if len(sizes) < 9 else "[1] * {}".format(len(sizes))
            what = "shape {}{}".format(shown, " and its size" * has_size)
            yield what, entry.SerializeToString()
    entry = tensor_bundle_pb2.BundleEntryProto.FromString(held)
    entry.shape.unknown_rank = True
    yield "shape unknown", entry.SerializeToString()
    for start, length in ((0, 1), (0, -1), (2**62, 2**62)):
        entry = tensor_bundle_pb2.BundleEntryProto.FromString(held)
        extent = entry.slices.add().extent.add()
        extent.start, extent.length = start, length
        yield "slice {} {}".format(start, length), entry.SerializeToString()
    yield "cut short", held[:-1]
    yield "nothing", b""
    yield "no protocol buffer", b"\xff" * 30


def _wrapped(sizes):
    """The bytes of a float32 tensor as a 64-bit signed integer has them."""
    product = 4
    for size in sizes:
        product *= size
    return (product + 2**63) % 2**64 - 2**63


def _tables(pairs):
    """Yields (description, bytes) of tables that are wrong as a whole."""
    key, held = pairs[0]
    for field, values in (
        ("num_shards", [0, -1, 2, 99999, 2**31 - 1]),
        ("endianness", [1, 77]),
    ):
        for value in values:
            header = tensor_bundle_pb2.BundleHeaderProto.FromString(held)
            setattr(header, field, value)
            changed = [(key, header.SerializeToString())] + pairs[1:]
            yield "header: {} {}".format(field, value), table(changed)
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(held)
    header.version.min_consumer = 1000
    changed = [(key, header.SerializeToString())] + pairs[1:]
    yield "header: of a later version", table(changed)
    yield "header: no protocol buffer", table([(key, b"\xff" * 9)] + pairs[1:])
    yield "no header", table(pairs[1:])
    yield "nothing but a header", table(pairs[:1])
    yield "nothing at all", table([])
    yield "keys in reverse", table(pairs[::-1])
    for restarts in ((1,), (0, 3), (2**31,), (2**32 - 1,), (0, 0), (), (7, 0)):
        yield "restarts {}".format(restarts), table(pairs, restarts)
    for number in (0, 2, 2**30, 2**31, 2**32 - 1):
        yield "{} restarts".format(number), table(pairs, num_restarts=number)
    for handle in ((0, 0), (0, 4), (2**40, 10), (0, 2**63), (2**63, 2**63), (3, 50)):
        yield "block at {}, {} bytes".format(*handle), table(pairs, handle=handle)
    yield "another last key", table(pairs, index_key=b"a")
    whole = table(pairs)
    for size in (0, 1, 47, 48, len(whole) - 1):
        yield "{} bytes".format(size), whole[:size]
    for place in (0, 9, len(whole) // 2, len(whole) - 48, len(whole) - 1):
        changed = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        yield "byte {} changed".format(place), changed
