"""A reader for untrusted tar streams.

For some headers Python's `tarfile` takes quadratic time or worse (CVE-2024-6232,
CVE-2019-20907), within one call of C code that cannot be interrupted. This reader
supports files and folders only, in the formats in use (v7, ustar, GNU, pax:
POSIX.1-2017, pax, "ustar Interchange Format"). It takes linear time, and refuses
headers larger than `MAX_HEADER_BYTES`.
"""

from typing import NamedTuple

_BLOCK_BYTES = 512
# Limit of an extension header of pax or GNU; long names take hundreds of bytes.
MAX_HEADER_BYTES = 2**16
_MAX_LENGTH_DIGITS = 5

_FILE_TYPES = (b"0", b"\0", b"7")
_FOLDER_TYPE = b"5"
_PAX_TYPES = (b"x", b"g")
_GNU_LONG_NAME = b"L"


class Member(NamedTuple):
    """One member of an archive.

    Attributes:
      name: str, as in the archive.
      is_directory: bool.
      is_file: bool, whether it is an ordinary file. Links, devices, sparse files and
        others are neither file nor directory.
      size: bytes of its content.
    """

    name: str
    is_directory: bool
    is_file: bool
    size: int


def members(stream):
    """Reads the members of an archive, one after the other.

    Args:
      stream: has `read(size)`, which returns less than `size` bytes only at its end.

    Yields:
      (`Member`, `Content`); read the content before requesting the next member.

    Raises:
      ValueError: it is no tar archive, or is damaged or truncated.
    """
    given = {}
    while True:
        header = _read_exactly(stream, _BLOCK_BYTES)
        if not any(header):
            return
        _check(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in _PAX_TYPES or kind == _GNU_LONG_NAME:
            found = _read_extension(stream, kind, size)
            if kind == b"g" and found:
                raise ValueError("a header changes the names or sizes of all members")
            given.update(found)
            continue
        member = _member(header, kind, dict({"size": size}, **given))
        given = {}
        content = Content(stream, member.size)
        yield member, content
        content.skip()


class Content:
    """The content of one member, a stream."""

    def __init__(self, stream, size):
        self._stream = stream
        self._left = size
        self._padding = -size % _BLOCK_BYTES

    def read(self, size):
        """Returns up to `size` bytes, none at the end.

        Raises:
          ValueError: the archive is truncated.
        """
        data = _read_exactly(self._stream, min(size, self._left))
        self._left -= len(data)
        return data

    def close(self):
        """Does nothing; `members` skips what was not read."""

    def skip(self):
        """Moves to the next header."""
        while self.read(_BLOCK_BYTES * 128):
            pass
        _read_exactly(self._stream, self._padding)


def _read_exactly(stream, size):
    data = stream.read(size) if size else b""
    if len(data) < size:
        raise ValueError("it ends too early")
    return data


def _check(header):
    """Raises ValueError if a header's checksum is wrong."""
    outside = header[:148] + b" " * 8 + header[156:]
    # Some old programs summed signed bytes.
    signed = sum(byte - 256 if byte > 127 else byte for byte in outside)
    if _number(header[148:156]) not in (sum(outside), signed):
        raise ValueError("the checksum of a header is wrong")


def _number(field):
    """Returns the value of a header's field, octal or, if large, binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError("a header has {!r}, expected a number".format(field))
    return int(digits or b"0", 8)


def _read_extension(stream, kind, size):
    """Reads an extension header, which precedes a member's own.

    Returns:
      dict of those of "path", "size" and "is_sparse" that it sets.
    """
    if size > MAX_HEADER_BYTES:
        raise ValueError(
            "a header of {:,} bytes, more than {:,}".format(size, MAX_HEADER_BYTES)
        )
    content = Content(stream, size)
    data = content.read(size)
    content.skip()
    if kind == _GNU_LONG_NAME:
        return {"path": data.split(b"\0")[0]}
    found = {}
    for key, value in _pax_records(data):
        if key == b"path":
            found["path"] = value
        elif key == b"size":
            found["size"] = _decimal(value)
        elif key.startswith(b"GNU.sparse."):
            found["is_sparse"] = True
    return found


def _pax_records(data):
    """Yields (key, value), bytes, of records "LENGTH KEY=VALUE\\n"."""
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + _MAX_LENGTH_DIGITS + 1)
        end = start + _decimal(data[start:space]) if space > 0 else 0
        equals = data.find(b"=", space, end)
        if not space < equals < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ValueError("a pax header is invalid")
        yield data[space + 1 : equals], data[equals + 1 : end - 1]
        start = end


def _decimal(digits):
    # No file has a size of more than 18 digits.
    if not digits or len(digits) > 18 or digits.strip(b"0123456789"):
        raise ValueError("a pax header has {!r}, expected a number".format(digits[:40]))
    return int(digits)


def _member(header, kind, given):
    """Returns the `Member` of a header and its extension headers."""
    path = given.get("path")
    if path is None:
        path = header[:100].split(b"\0")[0]
        prefix = header[345:500].split(b"\0")[0]
        # GNU's headers, which have times there, have another magic number.
        if prefix and header[257:263] == b"ustar\0":
            path = prefix + b"/" + path
    name = path.decode("utf-8")
    is_directory = kind == _FOLDER_TYPE or (kind == b"\0" and name.endswith("/"))
    is_file = kind in _FILE_TYPES and not is_directory and "is_sparse" not in given
    return Member(name, is_directory, is_file, given["size"] if is_file else 0)
