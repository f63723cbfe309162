"""Input files as users have them: other encodings, gzip, JSON lines.

Data generation reads plain UTF-8 text in byte ranges (see `corpus`). `examine` looks at
the start of a file: it refuses what is no text as the flags say, and tells whether the
file must first be converted by `write_plain`.
"""

import codecs
import contextlib
import os
import re
import zlib
from typing import NamedTuple, Optional, Tuple

from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, encodings

_SAMPLE_BYTES = 2**16
_BLOCK_BYTES = 2**20

UTF8 = "utf-8"

# Stands for one byte that cannot be decoded: a lone surrogate, which no text has.
_BAD_BYTE = "\udcff"
_BAD_BYTE_HANDLER = "albert_zh.bad_byte"

_JSON_START = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')
_JSON_ARRAY_START = re.compile(r'\s*\[\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')
_SURROGATES = re.compile("[\ud800-\udfff]")

_SHOWN_FIELDS = 8


class Form(NamedTuple):
    """How input files are written, as the flags say.

    Attributes:
      encoding: name of a codec, as `encoding_name` returns it.
      encoding_errors: one of `corpus.ENCODING_ERRORS`.
      text_fields: names of the fields that hold the text in JSON lines; () for plain
        text; None for plain text that must not look like JSON.
    """

    encoding: str = UTF8
    encoding_errors: str = "strict"
    text_fields: Optional[Tuple[str, ...]] = None

    @classmethod
    def of_flags(cls, encoding, encoding_errors, text_field):
        """Returns the `Form` that flags describe.

        Args:
          encoding: str, --encoding.
          encoding_errors: str, --encoding_errors.
          text_field: str, names separated by commas, "" for plain text; None where
            --text_field is absent.

        Raises:
          UserError: Python has no such text encoding.
        """
        fields = text_field
        if fields is not None:
            fields = tuple(filter(None, (name.strip() for name in fields.split(","))))
        return cls(encoding_name(encoding), encoding_errors, fields)


class Found(NamedTuple):
    """What `examine` finds.

    Attributes:
      is_plain: bool, whether the file can be read as it is.
      has_blank_line: bool, whether the start of the file has a blank line.
    """

    is_plain: bool
    has_blank_line: bool


def encoding_name(name):
    """Returns the codec's name of an encoding; "utf-8" for all forms of UTF-8.

    Raises:
      UserError: Python has no such text encoding.
    """
    try:
        codec = codecs.lookup(name)
        # Fails for codecs that are for other things than text.
        codec.incrementaldecoder(errors=_BAD_BYTE_HANDLER).decode(b"", True) + ""
    except (LookupError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            "--encoding={}: no encoding of text; expected for example utf-8, gb18030, "
            "big5 or utf-16".format(name)
        ) from error
    return UTF8 if codec.name in (UTF8, "utf-8-sig") else codec.name


def examine(form, path, report):
    """Looks at the start of an input file.

    Args:
      form: `Form`.
      path: the file.
      report: function called with the number of bytes just read.

    Returns:
      `Found`.

    Raises:
      UserError: the file is not as the form says; names what it looks like.
    """
    with files.reading(path), files.open_input(path) as file:
        sample = file.read(_SAMPLE_BYTES)
    report(len(sample))
    is_gzip = sample.startswith(encodings.GZIP_MAGIC)
    if is_gzip:
        sample = next(_decompressed(path, iter([sample]), is_whole=False), b"")
        sample = sample[:_SAMPLE_BYTES]
    kind = encodings.other_format(sample)
    if kind is not None:
        raise UserError(
            "{} is {}; unpack or export it to text files first".format(path, kind)
        )
    _check_encoding(form, path, sample)
    text = sample.decode(form.encoding, "replace")
    if form.text_fields is None:
        _refuse_json(path, text)
    lines, _ = corpus.split_lines(text)
    return Found(
        is_plain=not (is_gzip or form.encoding != UTF8 or form.text_fields),
        has_blank_line=bool(form.text_fields) or not all(map(str.strip, lines)),
    )


def _check_encoding(form, path, sample):
    """Raises `UserError` if a sample is of another encoding."""
    is_utf8 = encodings.is_utf8(sample)
    if form.encoding == UTF8 and not is_utf8:
        guess = encodings.guess(sample)
        if guess is None:
            raise UserError(
                "{}: not UTF-8 text; give its encoding, for example "
                "--encoding=gb18030, or convert it to UTF-8".format(path)
            )
        raise UserError(
            "{}: not UTF-8, it looks like {}; give --encoding={}".format(
                path, guess.upper(), guess
            )
        )
    if form.encoding != UTF8 and is_utf8 and encodings.is_surely_utf8(sample):
        raise UserError(
            "{}: it is UTF-8, not {}; leave out --encoding, or give files of one "
            "encoding at a time".format(path, form.encoding)
        )


def _refuse_json(path, text):
    """Raises `UserError` if text looks like JSON."""
    if _JSON_ARRAY_START.match(text):
        raise UserError(
            "{} looks like a JSON array; write one object per line and give "
            "--text_field, or give --text_field= if it is plain text".format(path)
        )
    lines, _ = corpus.split_lines(text + "\n")
    lines = [line for line in map(str.strip, lines) if line.strip("\ufeff")]
    if not lines or not _JSON_START.match(lines[0].lstrip("\ufeff")):
        return
    raise UserError(
        "{} looks like JSON lines{}; name the field that holds the text with "
        "--text_field, or give --text_field= if it is plain text".format(
            path, _field_list(lines[0].lstrip("\ufeff"))
        )
    )


def _field_list(line):
    """Describes the fields of a JSON object, "" if it is not complete."""
    try:
        value = json_files.loads(line)
    except ValueError:
        return ""
    names = [name for name, item in value.items() if isinstance(item, (str, list))]
    return " with the fields " + ", ".join(map(repr, names[:_SHOWN_FIELDS]))


def write_plain(form, path, target, has_tokens, report, content=None):
    """Writes the text of an input file as plain UTF-8.

    A JSON object becomes a document: the lines of its fields that have tokens, and a
    blank line.

    Args:
      form: `Form`.
      path: the file.
      target: path to write.
      has_tokens: as in `corpus.read_range`.
      report: function called with the number of bytes just read.
      content: `checksums.Content` that the file must have, None to skip this check.

    Returns:
      int, the bytes that could not be decoded and were replaced.

    Raises:
      UserError: the file cannot be read or is not as the form says; names the line.
    """
    num_replaced = 0
    with files.whole(target) as plain:
        for line, num_bad in _plain_lines(form, path, has_tokens, report, content):
            plain.write(line)
            num_replaced += num_bad
    return num_replaced


def _plain_lines(form, path, has_tokens, report, content):
    """Yields (UTF-8 bytes, number of replaced bytes) of each line of a file.

    The arguments are those of `write_plain`.
    """
    open_input = files.open_input if content is None else content.open
    with files.reading(path), open_input(path) as file:
        blocks = _reported(iter(lambda: file.read(_BLOCK_BYTES), b""), report)
        for number, line in enumerate(_lines(path, blocks, form.encoding), 1):
            num_bad = line.count(_BAD_BYTE)
            if num_bad and form.encoding_errors == "strict":
                raise UserError(_bad_bytes(path, number, form.encoding))
            line = line.replace(_BAD_BYTE, "\ufffd")
            if form.text_fields:
                line = _document(line, form.text_fields, has_tokens, (path, number))
            # UTF-7 may have lone surrogates, which have no UTF-8.
            encoded = line.encode("utf-8", "replace")
            if len(encoded) > corpus.MAX_LINE_BYTES + 1 and not form.text_fields:
                raise corpus.line_too_long(path, number)
            yield encoded, num_bad


@contextlib.contextmanager
def as_plain(form, paths, has_tokens):
    """Converts input files for commands that read them in one process.

    Args:
      form: `Form`.
      paths: list of files.
      has_tokens: as in `corpus.read_range`.

    Yields:
      List of the paths to read: of the files that are plain, or of copies in a
      temporary directory, which is removed at the end of the block.

    Raises:
      UserError: as `examine` and `write_plain`.
    """
    found = [examine(form, path, _ignore) for path in paths]
    if all(item.is_plain for item in found):
        yield paths
        return
    directory = files.make_temporary_directory()
    try:
        readable = list(paths)
        for number, (path, item) in enumerate(zip(paths, found)):
            if not item.is_plain:
                readable[number] = os.path.join(directory, "{}.txt".format(number))
                write_plain(form, path, readable[number], has_tokens, _ignore)
        yield readable
    finally:
        files.remove_directory(directory)


def _ignore(amount):
    """Stands in for a progress function."""


def _reported(blocks, report):
    for block in blocks:
        yield block
        report(len(block))


def _lines(path, blocks, encoding):
    """Yields the lines (str) of encoded, possibly compressed text, with their ends."""
    blocks = _inflated(path, blocks)
    decoder = codecs.getincrementaldecoder(encoding)(errors=_BAD_BYTE_HANDLER)
    rest, number = "", 1
    for block in blocks:
        lines, rest = corpus.split_lines(rest + decoder.decode(block))
        yield from lines
        number += len(lines)
        if len(rest) > corpus.MAX_LINE_BYTES:
            raise corpus.line_too_long(path, number)
    lines, rest = corpus.split_lines(rest + decoder.decode(b"", True))
    yield from lines
    if rest:
        yield rest


def _inflated(path, blocks):
    """Yields the blocks of a file, decompressed if it is gzip."""
    first = next(blocks, b"")
    chained = _chain(first, blocks)
    if first.startswith(encodings.GZIP_MAGIC):
        return _decompressed(path, chained, is_whole=True)
    return chained


def _chain(first, blocks):
    yield first
    yield from blocks


def _decompressed(path, blocks, is_whole):
    """Yields decompressed blocks of gzip; one file may have several members.

    Raises:
      UserError: the data is damaged, or, with `is_whole`, ends early.
    """
    unpacker, num_members = None, 0
    for block in blocks:
        while block:
            if unpacker is None:
                block = block.lstrip(b"\0") if num_members else block  # padding
                if not block:
                    break
                unpacker = zlib.decompressobj(wbits=31)
            try:
                yield unpacker.decompress(block, _BLOCK_BYTES)
            except zlib.error as error:
                raise UserError(
                    "{}: damaged gzip ({}); get the file again".format(path, error)
                ) from error
            block = unpacker.unconsumed_tail
            if unpacker.eof:
                block, unpacker = unpacker.unused_data, None
                num_members += 1
    if unpacker is not None and is_whole:
        raise UserError("{}: truncated gzip; get the file again".format(path))


def _bad_bytes(path, number, encoding):
    return (
        "{}:{}: not valid {}; give the right --encoding, or replace and count such "
        "bytes with --encoding_errors=replace".format(path, number, encoding.upper())
    )


def _mark_bad_bytes(error):
    """An error handler of `codecs`: a `_BAD_BYTE` for each byte."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _BAD_BYTE * (error.end - error.start), error.end


codecs.register_error(_BAD_BYTE_HANDLER, _mark_bad_bytes)


def _document(line, fields, has_tokens, place):
    """Returns the sentences of a JSON object, one a line, and a blank line.

    Args:
      line: str, may be blank.
      fields: names of the fields, whose values are str, lists of str or null.
      has_tokens: as in `corpus.read_range`.
      place: (path, line number), for messages.

    Raises:
      UserError: it is no such object, or a sentence is too long.
    """
    line = line.strip().lstrip("\ufeff")
    if not line:
        return ""
    try:
        value = json_files.loads(line)
    except ValueError as error:
        raise _not_as_expected(place, "not JSON ({})".format(error)) from error
    if not isinstance(value, dict):
        raise _not_as_expected(place, "no JSON object")
    sentences = []
    for field in fields:
        if field not in value:
            names = ", ".join(map(repr, list(value)[:_SHOWN_FIELDS]))
            problem = "no field {!r} among {}".format(field, names or "none")
            raise _not_as_expected(place, problem)
        for text in _texts(value[field], field, place):
            lines, _ = corpus.split_lines(_SURROGATES.sub("\ufffd", text) + "\n")
            sentences += [one for one in map(str.strip, lines) if has_tokens(one)]
    if any(len(sentence) * 4 > corpus.MAX_LINE_BYTES for sentence in sentences):
        raise corpus.line_too_long(*place)
    return "".join(sentence + "\n" for sentence in sentences + [""])


def _texts(value, field, place):
    """Returns the list of the texts of a field."""
    texts = value if isinstance(value, list) else [value]
    texts = [text for text in texts if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise _not_as_expected(place, "field {!r} is no text".format(field))
    return texts


def _not_as_expected(place, problem):
    return UserError(
        "{}:{}: {}; expected one JSON object per line with the fields of "
        "--text_field".format(place[0], place[1], problem)
    )
