"""Lines of text files: their ends and encoding, and what is wrong with a text."""

import unicodedata

from albert_zh.base import files
from albert_zh.base.errors import UserError

_BLOCK_BYTES = 2**20
_BOM = "\ufeff"


def is_blank(text):
    """Whether nothing in a text can be seen: white space and invisible characters."""
    # Categories C: control and format characters, such as a zero-width space.
    return all(
        char.isspace() or char == "\ufffd" or unicodedata.category(char)[0] == "C"
        for char in text
    )


def text_problem(name, value):
    """Says what is wrong with a value that should be a text to judge, or None.

    Args:
      name: what the value is called.
      value: anything.
    """
    if not isinstance(value, str):
        return "{} is {:.100}; expected text".format(name, repr(value))
    if is_blank(value):
        return "{} is empty".format(name)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "{} holds half a surrogate pair".format(name)
    return None


def id_problem(value):
    """Says what is wrong with an `id`, which predictions are written with, or None."""
    if isinstance(value, str):
        return text_problem("id", value)
    if isinstance(value, bool) or not isinstance(value, int):
        return "id is {:.100}; expected a number or text".format(repr(value))
    return None


def read_lines(path, keeps_marks=False):
    """Yields (line number, text without its line end) of a UTF-8 file.

    LF and CRLF end a line; in a file without any LF, CR does.

    Args:
      path: local or remote file.
      keeps_marks: whether U+FEFF at the beginning of a line other than the first is a
        character of the text; else it is a byte order mark of files joined.

    Raises:
      UserError: no such file, a folder, an empty file, or one that is not UTF-8.
    """
    if not files.exists(path):
        raise UserError("{}: no such file".format(path))
    files.require_no_directory(path)
    number, rest = 0, b""
    with files.reading(path), files.open_input(path) as source:
        line_end = _line_end(source)
        block = source.read(_BLOCK_BYTES)
        if not block:
            raise UserError("{}: the file is empty".format(path))
        while block:
            pieces = block.split(line_end)
            if len(pieces) > 1:
                for piece in [rest + pieces[0]] + pieces[1:-1]:
                    number += 1
                    yield number, _line_text(path, number, piece, keeps_marks)
                rest = pieces[-1]
            else:
                rest += block
            block = source.read(_BLOCK_BYTES)
    if rest:
        yield number + 1, _line_text(path, number + 1, rest, keeps_marks)


def _line_end(source):
    """CR for a file that has it and no LF, else LF; the file is at its beginning."""
    line_end = b"\n"
    for block in iter(lambda: source.read(_BLOCK_BYTES), b""):
        if b"\n" in block:
            line_end = b"\n"
            break
        if b"\r" in block:
            line_end = b"\r"
    source.seek(0)
    return line_end


def _line_text(path, number, piece, keeps_marks):
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = (
            "not UTF-8 ({}); convert the file, such as from GBK with `iconv -f GB18030 "
            "-t UTF-8`, from Excel's Unicode text with `iconv -f UTF-16 -t UTF-8`"
        )
        raise row_error(path, number, problem.format(error)) from error
    if text.endswith("\r"):
        text = text[:-1]
    # The second of two joined files may begin with one, too.
    return text if keeps_marks and number > 1 else text.lstrip(_BOM)


def row_error(path, line, problem, advice=""):
    """Returns the `UserError` of a row; `advice` as it takes it."""
    return UserError("{}:{}: {}".format(path, line, problem), advice)


def without_returns(path, number, text):
    """Returns the text of a line, which may end with CR.

    Raises:
      UserError: it has CR elsewhere: line ends of two kinds, that join rows.
    """
    if "\r" in text.rstrip("\r"):
        problem = (
            "a carriage return within the line: of files of different line ends that "
            "were joined, `perl -pe 's/\\r\\n?/\\n/g' FILE > NEW` makes lines; of a "
            "text, `perl -pe 's/\\r(?!\\n)/ /g' FILE > NEW` makes a space"
        )
        raise row_error(path, number, problem)
    return text


def without_blank_end(rows, is_blank_row):
    """Passes rows on, without the blank ones at the end."""
    held = []
    for item in rows:
        held.append(item)
        if not is_blank_row(item[1]):
            yield from held
            held = []
