"""JSON files, damaged in every way: whole, and each of their values."""

import copy
import json

WHOLE = {
    "empty": b"",
    "blank": b" \n",
    "cut": None,  # half of the right content
    "null": b"null",
    "true": b"true",
    "0": b"0",
    "text": b'"text"',
    "[]": b"[]",
    "{}": b"{}",
    "[[]]": b"[[]]",
    "[null]": b"[null]",
    "NaN": b"NaN",
    "-Infinity": b"-Infinity",
    "a number of 5,000 digits": 5000 * b"9",
    "nested 100,000 deep": 100000 * b"[",
    "nested objects": 5000 * b'{"a":' + b"1" + 5000 * b"}",
    "half a surrogate pair": b'["\\ud800"]',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "GBK": '{"标签": 1}'.encode("gbk"),
    "binary": bytes(range(256)),
    "zeros": bytes(512),
    "two values": b"{}{}",
    "HTML": b"<!DOCTYPE html><html></html>",
}
VALUES = [None, True, -1, 0, 1.5, "", "x", [], {}, [None], 10**18, 10**400, 1e308]


def places(value, path=()):
    """Yields the path of every field and entry of a JSON value, inner ones, too."""
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield path + (key,)
        yield from places(inner, path + (key,))


def changed(value, path, new):
    """Returns a copy with another value at a path; without it for `...`."""
    value = copy.deepcopy(value)
    held = value
    for key in path[:-1]:
        held = held[key]
    if new is ...:
        del held[path[-1]]
    else:
        held[path[-1]] = new
    return value


def contents(right):
    """Yields (name, bytes) of every damaged content of a file."""
    whole = json.dumps(right).encode()
    for name, content in WHOLE.items():
        yield name, whole[: len(whole) // 2] if content is None else content
    for path in places(right):
        for new in VALUES + [...]:
            content = json.dumps(changed(right, path, new)).encode()
            yield "{} = {}".format(path, str(new)[:20]), content
            if new == "x":
                yield "{} = NaN".format(path), content.replace(b'"x"', b"NaN", 1)
