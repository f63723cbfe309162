"""Output of commands, made safe for terminals.

Labels, paths, file content and responses of servers are not trusted: control
characters in them could move the cursor, change colours or forge a line.
"""

import json
import logging
import os
import re
import sys

from albert_zh.base.errors import UserError

# Control characters (C0, C1 and DEL), line and paragraph separators, marks that change
# the writing direction, and lone surrogates, which cannot be encoded.
_UNPRINTABLE = (
    "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
)
_IN_A_VALUE = re.compile("[{}]".format(_UNPRINTABLE))
_IN_LINES = re.compile("(?![\n\t])[{}]".format(_UNPRINTABLE))


def printable(value):
    """Returns a value as one line of text, with control characters escaped.

    Args:
      value: any argument of `str`.

    Returns:
      str; control characters are escapes such as "\\n" or "\\x1b".
    """
    return _IN_A_VALUE.sub(_escape, str(value))


def printable_lines(text):
    """Like `printable`, but keeps line ends and tabs."""
    return _IN_LINES.sub(_escape, text)


def _escape(match):
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")


def show(text):
    """Writes lines to standard output, through `printable_lines`.

    A closed pipe or standard output is ignored.

    Args:
      text: str; ends in a line end.

    Raises:
      UserError: standard output cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(printable_lines(text))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        raise UserError(
            "cannot write to standard output: {}; files written before are "
            "complete".format(error.strerror)
        ) from error


def show_json(values):
    """Writes values to standard output, as JSON lines.

    Control characters are escaped as JSON has it, and so is whatever the encoding of
    standard output lacks.

    Args:
      values: iterable of JSON values.

    Returns:
      bool, whether anybody still reads; False from the first closed pipe on.

    Raises:
      UserError: standard output cannot be written, as on a full disk.
    """
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    text = _IN_A_VALUE.sub(_escape_json, "".join(line + "\n" for line in lines))
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = "".join(json.dumps(value) + "\n" for value in values)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return False
    except OSError as error:
        _drop_output()
        raise UserError(
            "cannot write to standard output: {}".format(error.strerror)
        ) from error
    return True


def _escape_json(match):
    return "\n" if match.group() == "\n" else "\\u{:04x}".format(ord(match.group()))


def _drop_output():
    """Discards all further and all buffered output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def set_up():
    """Makes log lines and standard output safe for any text."""
    # None if the parent process has closed it.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    # Escape characters that the terminal cannot show; do not raise.
    sys.stdout.reconfigure(errors="backslashreplace")
    handler = _Handler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Handler(logging.StreamHandler):
    def handleError(self, record):
        """Drops a line that cannot be written, as on a full disk: work goes on."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record):
        return printable_lines(super().format(record))
