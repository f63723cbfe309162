"""Checksums of files; CRC-32C also checked while a file is read.

They detect that a file was truncated, blanked or replaced since it was written or
first read. They do not protect against deliberate forgery.
"""

import hashlib
from typing import NamedTuple, Tuple

from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import google_crc32c

# Checksums are computed and checked per block.
BLOCK_BYTES = 2**20
_COPY_BYTES = 4 * 2**20


class Checksum(NamedTuple):
    """Size and CRC-32C of bytes."""

    size: int
    crc32c: int

    def extended(self, data):
        """Returns the `Checksum` of the same bytes followed by `data`."""
        return Checksum(self.size + len(data), google_crc32c.extend(self.crc32c, data))


NOTHING = Checksum(0, 0)


class Content(NamedTuple):
    """Known checksums of a file or a range of it.

    Attributes:
      size: int, bytes of the whole file.
      first_block: int, number of the first block with a checksum here.
      checksums: CRC-32C of consecutive blocks of `BLOCK_BYTES`.
    """

    size: int
    first_block: int
    checksums: Tuple[int, ...]

    def range(self, begin, end):
        """Returns the `Content` of the blocks with bytes `begin` to `end`.

        Args:
          begin, end: int, byte offsets; may be outside of the file.
        """
        first = max(0, begin) // BLOCK_BYTES
        last = max(0, end - 1) // BLOCK_BYTES
        checksums = self.checksums[
            first - self.first_block : last - self.first_block + 1
        ]
        return Content(self.size, first, tuple(checksums))

    def open(self, path):
        """Opens the file for reading bytes; see `_CheckedFile`."""
        return _CheckedFile(path, self)


class _CheckedFile:
    """A file open for reading whose bytes are checked against a `Content`.

    Every block is checked before any of its bytes are returned, so that a change
    during the run is never missed.
    """

    def __init__(self, path, content):
        self._path = path
        self._content = content
        self._file = files.open_input(path)
        self._position = 0
        self._number, self._block = None, b""

    def __enter__(self):
        return self

    def __exit__(self, *unused_exception):
        self._file.close()

    def seek(self, position):
        """Moves to a byte offset."""
        self._position = position

    def read(self, num_bytes):
        """Returns at most that many bytes; none only at the end of the file.

        Raises:
          UserError: the file has changed.
        """
        if self._position >= self._content.size:
            return b""
        number, begin = divmod(self._position, BLOCK_BYTES)
        if number != self._number:
            self._block, self._number = self._read_block(number), number
        data = self._block[begin : begin + num_bytes]
        self._position += len(data)
        return data

    def _read_block(self, number):
        begin = number * BLOCK_BYTES
        size = min(BLOCK_BYTES, self._content.size - begin)
        self._file.seek(begin)
        block = self._file.read(size)
        expected = self._content.checksums[number - self._content.first_block]
        if len(block) != size or google_crc32c.value(block) != expected:
            raise changed(self._path)
        return block


def changed(path):
    """Returns the `UserError` for an input file that has changed."""
    return UserError(
        "{} has changed during the run; rerun with files that do not change".format(
            path
        )
    )


def blocks(path, begin=0, size=None):
    """Yields the content of a file in pieces.

    Args:
      path: the file.
      begin: byte offset to begin at.
      size: bytes to read at most; None for all.

    Raises:
      UserError: it cannot be read, or is no ordinary file.
    """
    with files.reading(path), files.open_input(path) as file:
        if begin:
            file.seek(begin)
        while True:
            wanted = _COPY_BYTES if size is None else min(size, _COPY_BYTES)
            block = file.read(wanted) if wanted else b""
            if not block:
                return
            if size is not None:
                size -= len(block)
            yield block


def hex_digest(path, algorithm="sha256"):
    """Returns the hash of a file, in hexadecimal digits.

    Args:
      path: the file.
      algorithm: str, as `hashlib.new` takes it.

    Raises:
      UserError: it cannot be read, or is no ordinary file.
    """
    digest = hashlib.new(algorithm)
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def of_file(path, report):
    """Returns the `Checksum` of a file.

    Args:
      path: the file.
      report: function called with the number of bytes just read.

    Raises:
      UserError: it cannot be read.
    """
    found = NOTHING
    for block in blocks(path):
        found = found.extended(block)
        report(len(block))
    return found


def fingerprint(path, report):
    """Computes all checksums of a file in one pass.

    Args:
      path: the file.
      report: as in `of_file`.

    Returns:
      (SHA-256 in hexadecimal digits, `Content` of the whole file).

    Raises:
      UserError: it cannot be read.
    """
    digest, size, checksums = hashlib.sha256(), 0, []
    # `_COPY_BYTES` is a multiple of `BLOCK_BYTES`.
    for data in blocks(path):
        digest.update(data)
        for begin in range(0, len(data), BLOCK_BYTES):
            block = data[begin : begin + BLOCK_BYTES]
            checksums.append(google_crc32c.value(block))
        size += len(data)
        report(len(data))
    return digest.hexdigest(), Content(size, 0, tuple(checksums))


class Expected(NamedTuple):
    """Files and the checksums that they must have; a task of `are_as_expected`."""

    paths: Tuple[str, ...]
    checksums: Tuple[Checksum, ...]

    def __str__(self):
        return "checksums of {} and others".format(self.paths[0])


def are_as_expected(expected, report):
    """Whether all files of an `Expected` exist and have their checksums.

    Args:
      expected: `Expected`.
      report: function called with the number of bytes just read.
    """
    for path, checksum in zip(expected.paths, expected.checksums):
        try:
            # A truncated file need not be read.
            with files.reading(path):
                is_right = files.size(path) == checksum.size
            if not is_right or of_file(path, report) != checksum:
                return False
        except UserError:
            return False
    return True
