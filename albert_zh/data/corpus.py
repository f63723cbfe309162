"""Documents out of text files: one sentence per line, a blank line between two.

A line ends with LF, CRLF or CR. A line without a token is blank, whatever white space,
control or invisible characters it has. A document ends at a blank line, at the end of
its file, and after `MAX_DOCUMENT_CHARACTERS`. Byte order marks at the start of a line
are ignored: files that were joined have them in the middle.

Files are read as a stream of bytes, line by line, so that memory is bounded by the
longest document and an undecodable byte can be reported with its file and line.

A file of any size can be read in byte ranges that begin and end between documents.
The boundaries are found without reading the bytes before them (`document_boundary`).
"""

import contextlib
import logging
import os
from typing import List, NamedTuple

from albert_zh.base import checksums, files
from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

# Bounds the memory for a file without blank lines, or without line ends. A million
# characters is a long novel; the cut shortens only the one chunk at the border.
MAX_DOCUMENT_CHARACTERS = 1000000

# A line is held in memory whole. No sentence is this long.
MAX_LINE_BYTES = 16 * 2**20

ENCODING_ERRORS = ("strict", "replace")

_BLOCK_BYTES = 2**20
_BOM = "\ufeff"
# Marks that end a sentence.
SENTENCE_ENDS = "。！？；….!?;"


class Document(NamedTuple):
    """Consecutive sentences of one file.

    Attributes:
      sentences: list of str, stripped of surrounding white space, none empty.
      num_bytes: bytes of the file read for it, including the blank lines before it.
      num_replaced_bytes: bytes that were not valid UTF-8 and were replaced.
      is_cut: whether it was cut for its length and continues in the next document.
      ends_blank: whether a blank line ends it.
      num_invisible_lines: blank lines with invisible characters, before or after it.
    """

    sentences: List[str]
    num_bytes: int
    num_replaced_bytes: int
    is_cut: bool
    ends_blank: bool = False
    num_invisible_lines: int = 0


def expand_input_files(patterns, takes_directories=False, no_text=()):
    """Returns the files that comma-separated names or globs match.

    Args:
      patterns: str, file names or glob patterns separated by commas, local or
        remote (`gs://...`). A name that exists is used as it is, even if it has
        glob characters or commas.
      takes_directories: bool, whether the name of a directory stands for all files in
        it and below it, except hidden ones. Directories that a glob matches are left
        out.
      no_text: paths of files and directories that the command uses otherwise, as its
        vocabulary or for what it writes. A glob or directory does not stand for what
        is found there.

    Returns:
      List of str; the files of one pattern in sorted order, every file once.

    Raises:
      UserError: a pattern matches nothing or a file that is no ordinary file, or there
        is no pattern, or nothing is left of one.
    """
    paths = []
    for pattern in files.split_inputs(patterns, _is_there):
        matches = _matches(pattern, takes_directories)
        if no_text and matches != [pattern]:
            matches = _without(no_text, matches, pattern)
        for path in matches:
            files.require_regular(path)
        paths.extend(matches)
    if not paths:
        raise UserError(
            "no input file given; expected files or globs separated by commas, "
            "received {!r}".format(patterns)
        )
    unique = {}
    for path in paths:  # links and other spellings lead to the same file
        unique.setdefault(files.real_path(path), path)
    if len(unique) < len(paths):
        _LOGGER.warning(
            "%d input files are named more than once; each is read once",
            len(paths) - len(unique),
        )
    return list(unique.values())


def _without(no_text, matches, pattern):
    """Returns the matches of a pattern that are not files of `no_text`."""
    others = [files.real_path(path) for path in no_text]
    left, out = [], []
    for path in matches:
        real = files.real_path(path)
        is_own = any(real == other or real.startswith(other + "/") for other in others)
        (out if is_own else left).append(path)
    if out:
        _LOGGER.warning(
            "not read as text: %s, which this command has as its vocabulary, or writes",
            ", ".join(out),
        )
    if not left:
        raise UserError("no text file is left of {!r}".format(pattern))
    return left


def _is_there(pattern):
    if not pattern:
        return False
    with files.reading(pattern):
        return files.lexists(pattern) or bool(files.glob(pattern))


def _matches(pattern, takes_directories):
    """Returns the files of one name or glob, at least one."""
    with files.reading(pattern):
        if not files.is_directory(pattern):
            matches = files.glob(pattern)
        elif takes_directories:
            matches = files.walk(pattern)
        else:
            raise UserError(
                "{!r} is a directory; expected files, for example {!r}".format(
                    pattern, os.path.join(pattern, "*.tfrecord")
                )
            )
    if not matches:
        raise UserError(
            "no input file matches {!r}; expected an existing file or a glob "
            "that matches at least one file".format(pattern)
        )
    return matches


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


def read_documents(paths, encoding_errors="strict", has_tokens=bool, names=None):
    """Streams the documents of text files.

    Args:
      paths: files to read, in this order.
      encoding_errors, has_tokens: see `read_range`.
      names: what the files are called in messages, where they are copies.

    Yields:
      `Document`s, none without a sentence. At most one is in memory at a time.

    Raises:
      UserError: as `read_range`, or there is no sentence in any file.
    """
    found = False
    for path in paths:
        for document in read_range(path, 0, None, encoding_errors, None, has_tokens):
            found = True
            yield document
    if not found:
        raise UserError(no_sentence_in(names or paths))


def no_sentence_in(paths):
    """Returns the message for files that have only blank lines."""
    return (
        "no sentence in {}; expected one sentence per line and a blank line between "
        "documents".format(", ".join(paths))
    )


def read_range(
    path, begin, end, encoding_errors="strict", content=None, has_tokens=bool
):
    """Streams the documents of a part of a file.

    Args:
      path: file to read.
      begin: byte offset at which a line begins.
      end: byte offset after the last line, None for the end of the file.
      encoding_errors: "strict" stops at bytes that are not UTF-8, "replace" reads
        them as U+FFFD and counts them.
      content: `checksums.Content` that the file must have, None to skip this check.
      has_tokens: function from a line (str, stripped) to whether it has a token, as
        `tokenization.FullTokenizer.has_tokens`.

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
    num_characters = num_bytes = num_replaced = num_invisible = 0
    for offset, line in _lines(path, begin, end, content):
        text, replaced = _decode(line, path, offset, encoding_errors)
        num_bytes += len(line)
        num_replaced += replaced
        if text and not has_tokens(text):
            num_invisible += 1
            text = ""
        for part in _divided(text):
            too_long = num_characters + len(part) > MAX_DOCUMENT_CHARACTERS
            if sentences and (not part or too_long):
                yield Document(
                    sentences,
                    num_bytes,
                    num_replaced,
                    is_cut=bool(part),
                    ends_blank=not part,
                    num_invisible_lines=num_invisible,
                )
                sentences = []
                num_characters = num_bytes = num_replaced = num_invisible = 0
            if part:
                sentences.append(part)
                num_characters += len(part)
    if sentences:
        yield Document(
            sentences,
            num_bytes,
            num_replaced,
            is_cut=False,
            num_invisible_lines=num_invisible,
        )


def _divided(text):
    """Yields a line in parts of at most `MAX_DOCUMENT_CHARACTERS`.

    A part ends after a mark that ends a sentence, where there is one.
    """
    begin = 0
    while len(text) - begin > MAX_DOCUMENT_CHARACTERS:
        limit = begin + MAX_DOCUMENT_CHARACTERS
        last = max(text.rfind(mark, begin, limit) for mark in SENTENCE_ENDS)
        end = last + 1 if last >= 0 else limit
        yield text[begin:end]
        begin = end
    yield text[begin:]


def document_boundary(path, offset, limit, content=None, has_tokens=bool):
    """Finds where a file can be divided.

    The result depends on the file, `offset` and `limit` only, so that the readers of
    the bytes before and after it agree on it.

    Args:
      path: file.
      offset: byte offset at which the search begins.
      limit: byte offset at which the search for a blank line ends.
      content, has_tokens: as in `read_range`.

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
    # Closed by hand: Python ignores a Ctrl-C while it finalizes a generator.
    with contextlib.closing(_lines(path, offset - 1, None, content)) as lines:
        for begin, line in lines:
            position = begin + len(line)
            if first_line is None:
                first_line = position
            else:
                text = _stripped(line.decode("utf-8", "replace"))
                if not text or not has_tokens(text):
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
            lines, rest = split_lines(rest + block)
            for line in lines:
                _require_line_size(line, path, offset)
                yield offset, line
                offset += len(line)
            _require_line_size(rest, path, offset)
            if not block:
                break
        if rest:
            yield offset, rest


def split_lines(text):
    """Splits str or bytes into lines, which keep their ends: LF, CRLF or CR.

    Several CR before an LF are one line end: some tools write CRLF as CR CR LF.

    Returns:
      (list of the lines that are complete, the rest). More text may follow the rest,
      which therefore includes any CR at the end.
    """
    newline, carriage_return = ("\n", "\r") if isinstance(text, str) else (b"\n", b"\r")

    def split(part, end):
        if carriage_return not in part:
            return [part + end]
        body = part.rstrip(carriage_return)
        *lines, last = body.split(carriage_return)
        ends = part[len(body) :] + end
        return [line + carriage_return for line in lines] + [last + ends]

    *ended, rest = text.split(newline)
    lines = []
    for part in ended:
        lines += split(part, newline)
    *more, rest = split(rest, rest[:0])
    return lines + more, rest


def _require_line_size(line, path, offset):
    if len(line) - line.endswith((b"\n", b"\r")) > MAX_LINE_BYTES:
        raise line_too_long(path, _line_number(path, offset))


def line_too_long(path, number):
    """Returns the `UserError` for a line of more than `MAX_LINE_BYTES`."""
    return UserError(
        "{}:{}: line of more than {} MB; expected one sentence per line".format(
            path, number, MAX_LINE_BYTES // 2**20
        )
    )


def _decode(line, path, offset, encoding_errors):
    """Returns (text without surrounding white space, number of replaced bytes)."""
    try:
        return _stripped(line.decode("utf-8")), 0
    except UnicodeDecodeError as error:
        if encoding_errors == "replace":
            num_valid = len(line.decode("utf-8", "ignore").encode("utf-8"))
            return _stripped(line.decode("utf-8", "replace")), len(line) - num_valid
        raise UserError(
            "{}:{}: not valid UTF-8 (byte 0x{:02x} at column {}); to replace and count "
            "such bytes, give --encoding_errors=replace; if the file is in another "
            "encoding, name it with --encoding".format(
                path,
                _line_number(path, offset),
                line[error.start],
                error.start + 1,
            )
        ) from error


def _stripped(text):
    """Returns text without surrounding white space and leading byte order marks."""
    text = text.strip()
    return text.lstrip(_BOM).lstrip() if text.startswith(_BOM) else text


def _line_number(path, offset):
    """Returns the number of the line at a byte offset, for messages."""
    return 1 + sum(1 for _ in _lines(path, 0, offset, None))
