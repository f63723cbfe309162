"""What commands show: nothing in it that a terminal acts on, and no traceback."""

import contextlib
import io
import json
import logging
import os
import pathlib
import subprocess
import sys
import unicodedata

import hypothesis
import hypothesis.strategies as st
import pytest

from albert_zh.base import console

_REPOSITORY = str(pathlib.Path(__file__).resolve().parent.parent.parent)
_ANY_TEXT = st.text(st.characters())  # halves of surrogate pairs included


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("文字 “a” 😀", "文字 “a” 😀"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b2J\x7f\0", "\\x9b2J\\x7f\\x00"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
        (7, "7"),
    ],
)
def test_values_are_shown_on_one_line(value, shown):
    assert console.printable(value) == shown


@hypothesis.given(_ANY_TEXT)
def test_nothing_shown_is_a_control_character(text):
    for shown, allowed in (
        (console.printable(text), ""),
        (console.printable_lines(text), "\n\t"),
    ):
        assert all(
            unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp")
            and unicodedata.bidirectional(c)[:2] not in ("LR", "RL", "PD", "FS")
            for c in shown
            if c not in allowed
        )
        shown.encode("utf-8")


@hypothesis.given(st.text(st.characters(whitelist_categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_shown_as_it_is(text):
    assert console.printable(text) == text


_COMMAND = """
import logging, sys
from albert_zh.base import console
from albert_zh.base.errors import UserError
console.set_up()
logging.info("log \\x1b[31m")
try:
    for line in range(3):
        console.show("文 \\x1b[31m%d\\n" % line)
except UserError as error:
    sys.exit("error: %s" % error)
sys.stderr.write("done")
"""


def _run(stdout, environment=None):
    return subprocess.run(
        [sys.executable, "-c", _COMMAND],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=dict(os.environ, **(environment or {})),
        cwd=_REPOSITORY,
        check=False,
    )


def test_commands_show_escapes():
    done = _run(subprocess.PIPE, {"PYTHONIOENCODING": "utf-8"})
    assert done.stdout.decode("utf-8").splitlines()[0] == "文 \\x1b[31m0"
    assert b"log \\x1b[31m" in done.stderr and b"\x1b" not in done.stderr


def test_output_that_cannot_encode_gets_escapes():
    done = _run(subprocess.PIPE, {"PYTHONIOENCODING": "ascii"})
    assert done.stdout.splitlines()[0] == b"\\u6587 \\x1b[31m0"
    assert done.returncode == 0


def test_a_reader_that_has_gone_does_not_stop_the_work():
    reading, writing = os.pipe()
    os.close(reading)
    done = _run(writing)
    os.close(writing)
    assert (done.returncode, done.stderr[-4:]) == (0, b"done")


def test_closed_output_does_not_stop_the_work():
    command = "exec {} -c '{}' >&-".format(sys.executable, _COMMAND)
    root = _REPOSITORY
    done = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, cwd=root, check=False
    )
    assert (done.returncode, done.stderr[-4:]) == (0, b"done")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_log_lines_that_cannot_be_written_are_dropped(capsys, monkeypatch):
    handler = console._Handler()
    monkeypatch.setattr(handler, "stream", open("/dev/full", "w"))
    handler.handle(logging.makeLogRecord({"msg": "a line"}))
    with contextlib.suppress(OSError):
        handler.stream.close()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = _run(full)
    last = done.stderr.decode("utf-8").splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("error: cannot write to standard output: No space left")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "gbk"])
def test_json_lines_are_json_in_any_encoding(encoding, monkeypatch):
    values = [{"文": "😀\x1b\x85\u2028\u202e\ud800\n"}, "\x7f", [1.5, None]]
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    assert console.show_json(values)
    content = output.buffer.getvalue()
    assert b"\x1b" not in content and b"\x7f" not in content
    assert [json.loads(line) for line in content.decode(encoding).split("\n")[:-1]] == (
        values
    )
