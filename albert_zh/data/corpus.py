"""Documents out of text files: one sentence per line, a blank line between two.

Files are read as a stream of bytes, line by line, so that memory is bounded by the
longest document and an undecodable byte can be reported with its file and line. A
byte-order mark at the start of a file and CRLF line ends are tolerated. A document
ends at a blank line, at the end of its file, and after `MAX_DOCUMENT_CHARACTERS`.

A file of any size can be read in byte ranges that begin and end between documents.
The boundaries are found without reading the bytes before them (`document_boundary`).
"""

import logging
from typing import List, NamedTuple

from albert_zh.base import checksums, files
from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

# Bounds the memory for a file without blank lines, which is one document. A million
# characters is a long novel; the cut shortens only the one chunk at the border.
MAX_DOCUMENT_CHARACTERS = 1000000

# A line is held in memory whole. No sentence is this long.
MAX_LINE_BYTES = 16 * 2**20

ENCODING_ERRORS = ("strict", "replace")

_BLOCK_BYTES = 2**20
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Document(NamedTuple):
    """Consecutive sentences of one file.

    Attributes:
      sentences: list of str, stripped of surrounding white space, none empty.
      num_bytes: bytes of the file read for it, including the blank lines before it.
      num_replaced_bytes: bytes that were not valid UTF-8 and were replaced.
      is_cut: whether it was cut for its length and continues in the next document.
    """

    sentences: List[str]
    num_bytes: int
    num_replaced_bytes: int
    is_cut: bool


def expand_input_files(patterns):
    """Returns the files that comma-separated names or globs match.

    Args:
      patterns: str, file names or glob patterns separated by commas, local or
        remote (`gs://...`). A name that exists is used as it is, even if it has
        glob characters.

    Returns:
      List of str; the files of one pattern in sorted order, every file once.

    Raises:
      UserError: a pattern matches nothing or a file that is no ordinary file, or there
        is no pattern.
    """
    paths = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        with files.reading(pattern):
            matches = files.glob(pattern)
        if not matches:
            raise UserError(
                "no input file matches {!r}; expected an existing file or a glob "
                "that matches at least one file".format(pattern)
            )
        for path in matches:
            files.require_regular(path)
        paths.extend(matches)
    if not paths:
        raise UserError(
            "no input file given; expected files or globs separated by commas, "
            "received {!r}".format(patterns)
        )
    unique = list(dict.fromkeys(paths))
    if len(unique) < len(paths):
        _LOGGER.warning(
            "%d input files are named more than once; each is read once",
            len(paths) - len(unique),
        )
    return unique


def file_sizes(paths):
    """Returns the list of the files' sizes in bytes.

    Raises:
      UserError: all files are empty, or one cannot be examined.
    """
    sizes = []
    for path in paths:
        with files.reading(path):
            sizes.append(files.size(path))
    if not any(sizes):
        raise UserError(
            "the input is empty: {}; expected one sentence per line and a blank line "
            "between documents".format(", ".join(paths))
        )
    for path, size in zip(paths, sizes):
        if size == 0:
            _LOGGER.warning("input file %s is empty", path)
    return sizes


def require_unchanged(paths, stamps):
    """Checks that no file was written since its stamp was taken.

    Args:
      paths: list of files.
      stamps: list of their earlier `files.Stamp`s.

    Raises:
      UserError: a file has changed.
    """
    for path, before in zip(paths, stamps):
        if files.stamp(path) != before:
            raise checksums.changed(path)


def read_documents(paths, encoding_errors="strict"):
    """Streams the documents of text files.

    Args:
      paths: files to read, in this order.
      encoding_errors: see `read_range`.

    Yields:
      `Document`s, none without a sentence. At most one is in memory at a time.

    Raises:
      UserError: as `read_range`, or there is no sentence in any file.
    """
    found = False
    for path in paths:
        for document in read_range(path, 0, None, encoding_errors):
            found = True
            yield document
    if not found:
        raise UserError(no_sentence_in(paths))


def no_sentence_in(paths):
    """Returns the message for files that have only white space."""
    return (
        "no sentence in {}; expected one sentence per line and a blank line between "
        "documents".format(", ".join(paths))
    )


def read_range(path, begin, end, encoding_errors="strict", content=None):
    """Streams the documents of a part of a file.

    Args:
      path: file to read.
      begin: byte offset at which a line begins.
      end: byte offset after the last line, None for the end of the file.
      encoding_errors: "strict" stops at bytes that are not UTF-8, "replace" reads
        them as U+FFFD and counts them.
      content: `checksums.Content` that the file must have, None to skip this check.

    Yields:
      `Document`s, none without a sentence.

    Raises:
      UserError: the file cannot be read, has other content, a line longer than
        `MAX_LINE_BYTES`, or, with "strict", one that is not valid UTF-8; names file
        and line.
    """
    if encoding_errors not in ENCODING_ERRORS:
        raise ValueError(
            "encoding_errors must be one of {}, received {!r}".format(
                ENCODING_ERRORS, encoding_errors
            )
        )
    sentences = []
    num_characters = num_bytes = num_replaced = 0
    for offset, line in _lines(path, begin, end, content):
        text, replaced = _decode(line, path, offset, encoding_errors)
        num_bytes += len(line)
        num_replaced += replaced
        too_long = num_characters + len(text) > MAX_DOCUMENT_CHARACTERS
        if sentences and (not text or too_long):
            yield Document(sentences, num_bytes, num_replaced, bool(text))
            sentences = []
            num_characters = num_bytes = num_replaced = 0
        if text:
            sentences.append(text)
            num_characters += len(text)
    if sentences:
        yield Document(sentences, num_bytes, num_replaced, False)


def document_boundary(path, offset, limit, content=None):
    """Finds where a file can be divided.

    The result depends on the file, `offset` and `limit` only, so that the readers of
    the bytes before and after it agree on it.

    Args:
      path: file.
      offset: byte offset at which the search begins.
      limit: byte offset at which the search for a blank line ends.
      content: as in `read_range`.

    Returns:
      (position, is_inside): byte offset after the first blank line that begins
      between `offset` and `limit`, and False. Without one, byte offset of the first
      line that begins at or after `offset`, and True: it divides a document.

    Raises:
      UserError: the file cannot be read or has other content.
    """
    if content is None:
        with files.reading(path):
            size = files.size(path)
    else:
        size = content.size
    if offset == 0 or offset >= size:  # remote files cannot seek beyond their end
        return min(offset, size), False
    first_line = None
    # The first line may begin before the offset, so it does not count as blank.
    for begin, line in _lines(path, offset - 1, None, content):
        position = begin + len(line)
        if first_line is None:
            first_line = position
        elif not line.decode("utf-8", "replace").strip():
            return position, False
        if position >= limit:
            return first_line, True
    return size, False


def reach(begin, end):
    """Returns the byte range that `document_boundary` and `read_range` may read.

    Args:
      begin, end: int, `offset` and `limit` of `document_boundary`.

    Returns:
      (int, int): offset of the first byte, offset after the last.
    """
    return begin - 1, end + MAX_LINE_BYTES + 2 * _BLOCK_BYTES


def _lines(path, begin, end, content):
    """Yields (offset, bytes) of the lines between two offsets, with line ends."""
    open_input = files.open_input if content is None else content.open
    with files.reading(path), open_input(path) as file:
        file.seek(begin)
        offset, rest = begin, b""
        while True:
            wanted = _BLOCK_BYTES
            if end is not None:
                wanted = min(wanted, end - offset - len(rest))
            block = file.read(wanted) if wanted else b""
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                _require_line_size(line, path, offset)
                yield offset, line + b"\n"
                offset += len(line) + 1
            _require_line_size(rest, path, offset)
            if not block:
                break
        if rest:
            yield offset, rest


def _require_line_size(line, path, offset):
    if len(line) > MAX_LINE_BYTES:
        raise UserError(
            "{}:{}: line of more than {} MB; expected one sentence per line".format(
                path, _line_number(path, offset), MAX_LINE_BYTES // 2**20
            )
        )


def _decode(line, path, offset, encoding_errors):
    """Returns (text without surrounding white space, number of replaced bytes)."""
    if offset == 0 and line.startswith(_UTF8_BOM):
        line = line[len(_UTF8_BOM) :]
    try:
        return line.decode("utf-8").strip(), 0
    except UnicodeDecodeError as error:
        if encoding_errors == "replace":
            num_valid = len(line.decode("utf-8", "ignore").encode("utf-8"))
            return line.decode("utf-8", "replace").strip(), len(line) - num_valid
        hint = "convert the file to UTF-8 or pass --encoding_errors=replace"
        if line.startswith(_UTF16_BOMS):
            hint = "the file looks like UTF-16; convert it to UTF-8"
        raise UserError(
            "{}:{}: not valid UTF-8 (byte 0x{:02x} at column {}): {}".format(
                path,
                _line_number(path, offset),
                line[error.start],
                error.start + 1,
                hint,
            )
        ) from error


def _line_number(path, offset):
    """Returns the number of the line at a byte offset, for messages."""
    number = 1
    with files.open_input(path) as file:
        while offset > 0:
            block = file.read(min(offset, _BLOCK_BYTES))
            if not block:
                break
            number += block.count(b"\n")
            offset -= len(block)
    return number
