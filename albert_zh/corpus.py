"""Documents out of text files: one sentence per line, a blank line between two.

Files are read as a stream of bytes, line by line, so that memory is bounded by the
longest document and an undecodable byte can be reported with its file and line. A
byte-order mark at the start of a file and CRLF line ends are tolerated. A document
ends at a blank line, at the end of its file, and after `MAX_DOCUMENT_CHARACTERS`.
"""

import contextlib
import glob
import logging
import os
import time
from typing import List, NamedTuple

import tqdm

from albert_zh.errors import UserError

_LOGGER = logging.getLogger(__name__)

# A file without blank lines would otherwise be held in memory as one document. A
# million characters is the size of a long novel: only the one chunk at the border
# is cut short by it.
MAX_DOCUMENT_CHARACTERS = 1000000

ENCODING_ERRORS = ("strict", "replace")

_LOG_SECONDS = 30  # between two progress lines where there is no terminal

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Document(NamedTuple):
    """Consecutive sentences of one file.

    Attributes:
      path: name of the file.
      first_line: number of the first sentence's line, from 1.
      sentences: list of str, stripped of surrounding white space, none empty.
      num_bytes: bytes of the file read for it, the blank lines before it included.
      num_replaced_bytes: bytes that were not valid UTF-8 and were replaced.
    """

    path: str
    first_line: int
    sentences: List[str]
    num_bytes: int
    num_replaced_bytes: int


def expand_input_files(patterns):
    """Returns the files that comma-separated names or globs stand for.

    Args:
      patterns: str, file names or glob patterns separated by commas, local or
        remote (`gs://...`). A name that exists is taken as it is, also where it
        holds a glob character.

    Returns:
      List of str; the files of one pattern in sorted order, every file once.

    Raises:
      UserError: a pattern matches no file, or nothing is given at all.
    """
    paths = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        matches = _matching_files(pattern)
        if not matches:
            raise UserError(
                "no input file matches {!r}; expected an existing file or a glob "
                "that matches at least one file".format(pattern)
            )
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


def total_bytes(paths):
    """Returns the number of bytes in all files together.

    Raises:
      UserError: the files hold no byte at all, or one cannot be examined.
    """
    sizes = []
    for path in paths:
        with _reading(path):
            size = (
                _gfile().stat(path).length
                if _is_remote(path)
                else os.stat(path).st_size
            )
        sizes.append(size)
    if not any(sizes):
        raise UserError(
            "the input is empty: {}; expected one sentence per line and a blank line "
            "between documents".format(", ".join(paths))
        )
    for path, size in zip(paths, sizes):
        if size == 0:
            _LOGGER.warning("input file %s is empty", path)
    return sum(sizes)


def read_documents(paths, encoding_errors="strict"):
    """Streams the documents of text files.

    Args:
      paths: files to read, in this order.
      encoding_errors: "strict" stops at bytes that are not UTF-8, "replace" reads
        them as U+FFFD and counts them.

    Yields:
      `Document`s, none without a sentence. At most one is held at a time.

    Raises:
      UserError: a file cannot be read; with "strict", a line is not valid UTF-8;
        there is no sentence in any file.
    """
    if encoding_errors not in ENCODING_ERRORS:
        raise ValueError(
            "encoding_errors must be one of {}, received {!r}".format(
                ENCODING_ERRORS, encoding_errors
            )
        )
    found = False
    for path in paths:
        with _reading(path), _open(path) as file:
            for document in _file_documents(path, file, encoding_errors):
                found = True
                yield document
    if not found:
        raise UserError(
            "no sentence in {}; expected one sentence per line and a blank line "
            "between documents".format(", ".join(paths))
        )


def show_progress(documents, num_bytes):
    """Passes documents on and shows how much of the input is done.

    A progress bar on a terminal, a log line every `_LOG_SECONDS` elsewhere.

    Args:
      documents: iterable of `Document`.
      num_bytes: bytes of all input, from `total_bytes`.

    Yields:
      The documents.
    """
    logged, num_done = time.time(), 0
    with tqdm.tqdm(total=num_bytes, unit="B", unit_scale=True, disable=None) as bar:
        for document in documents:
            yield document
            bar.update(document.num_bytes)
            num_done += document.num_bytes
            if bar.disable and time.time() - logged >= _LOG_SECONDS:
                logged = time.time()
                _LOGGER.info("%.1f of %.1f MB done", num_done / 1e6, num_bytes / 1e6)


def _file_documents(path, file, encoding_errors):
    """Yields the documents of one open binary file."""
    sentences, first_line = [], 0
    num_characters = num_bytes = num_replaced = 0
    for line_number, line in enumerate(file, 1):
        num_bytes += len(line)
        if line_number == 1 and line.startswith(_UTF8_BOM):
            line = line[len(_UTF8_BOM) :]
        text, replaced = _decode(line, path, line_number, encoding_errors)
        num_replaced += replaced
        text = text.strip()
        too_long = num_characters + len(text) > MAX_DOCUMENT_CHARACTERS
        if sentences and (not text or too_long):
            if text:
                _LOGGER.warning(
                    "%s:%d: more than %d characters without a blank line; a new "
                    "document begins here",
                    path,
                    line_number,
                    MAX_DOCUMENT_CHARACTERS,
                )
            yield Document(path, first_line, sentences, num_bytes, num_replaced)
            sentences = []
            num_characters = num_bytes = num_replaced = 0
        if text:
            if not sentences:
                first_line = line_number
            sentences.append(text)
            num_characters += len(text)
    if sentences:
        yield Document(path, first_line, sentences, num_bytes, num_replaced)


def _decode(line, path, line_number, encoding_errors):
    """Returns (text, number of bytes that were replaced)."""
    try:
        return line.decode("utf-8"), 0
    except UnicodeDecodeError as error:
        if encoding_errors == "replace":
            num_valid = len(line.decode("utf-8", "ignore").encode("utf-8"))
            return line.decode("utf-8", "replace"), len(line) - num_valid
        hint = "convert the file to UTF-8 or pass --encoding_errors=replace"
        if line.startswith(_UTF16_BOMS):
            hint = "the file looks like UTF-16; convert it to UTF-8"
        raise UserError(
            "{}:{}: not valid UTF-8 (byte 0x{:02x} at column {}): {}".format(
                path, line_number, line[error.start], error.start + 1, hint
            )
        ) from error


def _matching_files(pattern):
    """Returns the sorted files that one name or glob stands for."""
    if _is_remote(pattern):
        with _reading(pattern):
            return sorted(_gfile().glob(pattern))
    matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
    return [path for path in matches if not os.path.isdir(path)]


def _is_remote(path):
    return "://" in path


def _open(path):
    return _gfile().GFile(path, "rb") if _is_remote(path) else open(path, "rb")


def _gfile():
    """TensorFlow's file layer, loaded only where a remote path is named."""
    import tensorflow.compat.v1 as tf

    return tf.io.gfile


@contextlib.contextmanager
def _reading(path):
    """Turns a failure to read `path` into a `UserError` that names it."""
    failures = (OSError,)
    if _is_remote(path):
        import tensorflow.compat.v1 as tf

        failures = (OSError, tf.errors.OpError)
    try:
        yield
    except failures as error:
        raise UserError(
            "cannot read input file {}: {}; expected a readable text file".format(
                path, getattr(error, "strerror", None) or error
            )
        ) from error
