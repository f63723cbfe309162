"""JSON that may be damaged: it has the right types, or one line says what is wrong."""

import json
import os
import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from albert_zh.base import json_files
from albert_zh.base.errors import UserError

SCHEMA = {
    "type": "object",
    "required": ["name", "sizes"],
    "properties": {
        "name": {"type": "string"},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    },
    "additionalProperties": False,
}
RIGHT = {"name": "字", "sizes": [0, 7]}


def test_a_right_file_is_read(tmp_path):
    path = tmp_path / "a.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + json.dumps(RIGHT).encode())
        assert json_files.read(str(path), SCHEMA, "delete it") == RIGHT


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b'{"name": "a"', "Expecting"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"null", "None is not of type 'object'"),
        (b"[]", "is not of type 'object'"),
        (b'{"name": "a"}', "'sizes' is a required property"),
        (b'{"name": 1, "sizes": []}', "name: 1 is not of type 'string'"),
        (b'{"name": "a", "sizes": [1, -1]}', "sizes[1]: -1 is less than the minimum"),
        (b'{"name": "a", "sizes": [true]}', "sizes[0]: True is not of type 'integer'"),
        (b'{"name": "a", "sizes": [1.0]}', "sizes[0]: 1.0 is not of type 'integer'"),
        (b'{"name": "a", "sizes": [], "b": 1}', "'b' was unexpected"),
        (b'{"name": "a", "sizes": [NaN]}', "it holds NaN"),
        (b'{"name": "a", "sizes": [-Infinity]}', "it holds -Infinity"),
        (b'{"name": "a", "sizes": [-1e999]}', "it holds -1e999, beyond"),
        (b'{"name": "\\ud800", "sizes": []}', "half a surrogate pair"),
        (b'{"\\ud800": 1, "name": "a", "sizes": []}', "half a surrogate pair"),
        (b"[" * 100000, "nested too deeply"),
        (b'{"name": "a\\u001b[31m", "sizes": 1}', "sizes: 1 is not of type 'array'"),
        (b'{"name": ["\\u001b[31m"], "sizes": []}', "name: ['\\x1b[31m']"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, content, problem):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        json_files.read(str(path), SCHEMA, "delete it")
    message = str(error.value)
    assert message.startswith("{}: damaged (".format(path))
    assert problem in message and message.endswith("; delete it")
    assert len(message) < len(str(path)) + 400 and "\n" not in message


def test_a_huge_integer_is_one_line(tmp_path):
    content = b'{"name": "a", "sizes": ' + b"9" * 5000 + b"}"
    with pytest.raises(ValueError) as error:
        json_files.parse(content, SCHEMA)
    assert len(str(error.value)) < 400


def test_no_depth_is_too_deep_for_a_message():
    """At some depth a value can be parsed, but not be shown in a message."""
    limit = sys.getrecursionlimit()
    for depth in range(limit - 100, limit):
        repeats = b'{"a":' * 2, b',"a":1}' + b"}"
        for begin, end in ((b"[", b"]"), (b'{"a":[', b"]}"), repeats):
            with pytest.raises(ValueError):
                json_files.parse(begin * depth + end * depth, {"type": "string"})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a": 1, "a": 1}', "it holds the key 'a' twice"),
        ('{"a": {"b": 1, "c": 0, "b": 2}}', "a: it holds the key 'b' twice"),
        ('[{"a": 1}, [{"a": 1, "a": 2}]]', "[1][0]: it holds the key 'a' twice"),
        # The inner object is dropped with the first value of its key.
        ('{"a": {"b": 1, "b": 2}, "a": 1}', "it holds the key 'a' twice"),
        ('{"\\ud800": 1, "\\ud800": 1}', r"it holds the key '\ud800' twice"),
    ],
)
def test_a_key_twice_is_refused_with_its_place(tmp_path, content, problem):
    with pytest.raises(ValueError) as error:
        json_files.loads(content)
    assert str(error.value) == problem
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        json_files.read(str(path), {}, "correct it")
    assert str(error.value) == "{}: damaged ({}); correct it".format(path, problem)


def test_many_keys_and_many_repeats_are_read_once():
    # Clients send such texts to the service; twice the text must not take four times
    # as long, which for these would be more than an hour.
    many = range(200000)
    keys = ",".join('"{}": 1'.format(i) for i in many)
    with pytest.raises(ValueError, match="it holds the key '7' twice"):
        json_files.loads("{" + keys + ', "7": 1}')
    dropped = ",".join('{"b": 1, "b": 1}' for _ in many)
    with pytest.raises(ValueError, match="^it holds the key 'a' twice"):
        json_files.loads('{{"a": [{}], "a": {}}}'.format(dropped, list(many)))


def test_a_key_may_be_in_several_objects():
    content = '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}], "A": {}}'
    assert json_files.loads(content) == json.loads(content)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(str(tmp_path / "a.json"))
    with pytest.raises(UserError, match="no ordinary file"):
        json_files.read(str(tmp_path / "a.json"), SCHEMA, "delete it")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read .*missing.json"):
        json_files.read(str(tmp_path / "missing.json"), SCHEMA, "delete it")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@hypothesis.given(_VALUES)
def test_any_value_matches_or_is_refused_in_a_line(value):
    content = json.dumps(value).encode()
    try:
        read = json_files.parse(content, SCHEMA)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        assert read == value and set(read) == {"name", "sizes"}


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_match_or_are_refused(content):
    with pytest.raises(ValueError):
        json_files.parse(content, SCHEMA)
